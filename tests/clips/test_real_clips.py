"""Real clips through the real server: only when XMEM_CLIPS names their folder, and then it must be right.

Each clip has frames/, masks/ (index PNG) and meta.json.
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from xmem_server.__main__ import main
from xmem_server.decoding import Decoder
from xmem_server.scoring import score_region

FOLDER = os.environ.get("XMEM_CLIPS", "")
FRAMES = 20
pytestmark = pytest.mark.skipif(not FOLDER, reason="XMEM_CLIPS is not set")


def masks_of(decoder, folder, pattern, frames, selector):
    return {f: decoder.fetch_alpha(str(folder / (pattern % f)), Path(pattern).suffix, selector) >= 0.5 for f in frames}


@pytest.mark.parametrize("clip", ["dogs-jump", "alpha-dancer"])
def test_when_a_real_clip_has_one_key_then_its_mattes_beat_a_copy_of_the_key(clip, tmp_path):
    folder = Path(FOLDER) / clip
    meta = json.loads((folder / "meta.json").read_text())  # a wrong XMEM_CLIPS fails here
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "00000.png").write_bytes((folder / "masks" / "00000.png").read_bytes())
    arguments = ["roto", "--plate", str(folder / "frames"), "--keys", str(tmp_path / "keys"), "--out"]
    assert main([*arguments, str(tmp_path / "out"), "--frames", f"0-{FRAMES - 1}"]) == 0
    frames = range(1, FRAMES)
    ours, copied = [], []
    with Decoder() as decoder:
        for object_id in meta["objects"]:
            truth = masks_of(decoder, folder / "masks", "%05d.png", range(FRAMES), f"index:{object_id}")
            found = masks_of(decoder, tmp_path / "out" / str(object_id), "%05d.exr", frames, "channel:A")
            ours.append(np.mean([score_region(found[f], truth[f]) for f in frames]))
            copied.append(np.mean([score_region(truth[0], truth[f]) for f in frames]))
    assert np.mean(ours) > np.mean(copied)
