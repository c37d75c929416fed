"""Frame suggestion against stored rankings and scores of the published code.

Two documented deviations: when nothing valid is left the published code repeats frame 0 (case 15) or crashes (case 12);
here the answer is empty.
"""

import json

import numpy as np
import pytest
import torch

from tests.parity.conftest import GOLDEN, fetch_video
from tests.parity.tolerances import SCORE, assert_near
from xmem_core.dissimilarity import FrameKeys, dissimilarity, make_composite
from xmem_core.keyframes import SuggestionRule, suggest_keyframes, summarise_mask

CASES = json.loads((GOLDEN / "select_cases.json").read_text())
NOTHING_LEFT = {12, 15}
KEY_SIZE = (6, 10)


@pytest.fixture(scope="module")
def stored():
    with np.load(GOLDEN / "select.npz") as arrays:
        return {name: arrays[name] for name in arrays.files if name != "cases"}


@pytest.fixture(scope="module")
def keys(stored):
    names = ("keys", "shrinkages", "selections")
    return {t: FrameKeys(*(torch.from_numpy(stored[name][t]) for name in names)) for t in range(24)}


def masks_of(stored, kind):
    if kind == "soft":
        return torch.from_numpy(fetch_video("A3_perm3_2obj")[0]["prob"])
    return torch.from_numpy(stored["masks_hard"].astype(np.float32) / 255)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['case']}-{case['name']}")
def test_when_frames_are_suggested_then_ranking_and_scores_match(stored, keys, case):
    masks = {
        t: summarise_mask(mask, KEY_SIZE, case["epsilon"]) for t, mask in enumerate(masks_of(stored, case["masks"]))
    }
    rule = SuggestionRule(case["k"], case["alpha"], case["min_mask_presence_percent"] / 100)
    found = suggest_keyframes(keys, masks, case["previously_chosen"], rule)
    if case["case"] in NOTHING_LEFT:
        assert found == []
        return
    known = [] if case["only_new_candidates"] else case["previously_chosen"]
    assert [*known, *(one.frame for one in found)] == case["result"]
    for pick, one in enumerate(found):
        assert one.score == pytest.approx(stored[f"case{case['case']}_diss{pick}"].max(), abs=SCORE)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_when_every_pair_is_compared_then_dissimilarities_match(stored, keys, alpha):
    masks = {t: summarise_mask(mask, KEY_SIZE) for t, mask in enumerate(masks_of(stored, "hard"))}
    composites = [make_composite(keys[t], masks[t], alpha) for t in range(24)]
    found = torch.tensor([[dissimilarity(memory, query) for query in composites] for memory in composites])
    assert_near(found, torch.from_numpy(stored[f"pairwise_alpha{alpha}"]).float(), SCORE)
