"""Whole synthetic shots through the product's own engine: what memory policy and working size suit a model.

    python -m training.long_shots WEIGHTS.safetensors --packed training/downloads/packed --every 10 --every 0

J over the frames that are not given, for each number of keys (evenly spaced, both ends included; one key is the first frame). ``--every`` is
``mem_every`` of the policy; 0 keeps no predicted frame.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from training.bank import VALIDATION, fetch_bank
from training.packages import packages_with
from training.shots import EVEN, ShotSettings, make_shot
from xmem_core.engine import Engine
from xmem_core.memory import MemoryPolicy
from xmem_core.motion import PairMotion
from xmem_core.network import XMem
from xmem_core.weights import load_model
from xmem_server.worker.optical_flow import measure_motion

FIRST_SEED = 9_700_000_000_000
NEVER = 1_000_000  # a mem_every beyond any shot


@dataclass(frozen=True)
class LongShot:
    """frames (T, 3, S, S) float32 0..1, alpha (N, T, S, S), and the motion of each pair of neighbours."""

    frames: Tensor
    alpha: Tensor
    motion: tuple[PairMotion, ...]


def long_shots(packed: Path | None, size: int, frames: int, count: int) -> list[LongShot]:
    """Shots of evenly spaced frames, of pictures that no training shot has."""
    bank = fetch_bank(packed, VALIDATION, packages_with(()))
    made = []
    for number in range(count):
        shot = make_shot(FIRST_SEED + number, bank, ShotSettings(size, frames, spacing=EVEN))
        pictures = torch.from_numpy(shot.frames).permute(0, 3, 1, 2).float() / 255
        made.append(LongShot(pictures, torch.from_numpy(shot.alpha), measure_motions(pictures)))
    return made


def measure_motions(frames: Tensor) -> tuple[PairMotion, ...]:
    """The motion between neighbours of frames (T, 3, H, W) 0..1."""
    grey = [cv2.cvtColor((frame * 255).byte().permute(1, 2, 0).numpy(), cv2.COLOR_RGB2GRAY) for frame in frames]
    pairs = (measure_motion(*pair) for pair in itertools.pairwise(grey))
    return tuple(PairMotion(*map(torch.from_numpy, pair)) for pair in pairs)


def score_shot(network: XMem, shot: LongShot, keys: tuple[int, ...], every: int) -> float:
    """Mean J over objects and frames that are not given."""
    engine = Engine(network, MemoryPolicy(mem_every=every or NEVER))
    encoded = [engine.encode(frame[None])[0] for frame in shot.frames]
    truth = shot.alpha > 0.5
    for key in keys:
        engine.annotate(key, encoded[key], {place + 1: mask.float() for place, mask in enumerate(truth[:, key])})
    propagation = engine.start(tuple(range(len(encoded))), lambda earlier, _: shot.motion[earlier])
    scores = []
    for frame, features in enumerate(encoded):
        found = propagation.step(features).probabilities > 0.5
        if frame in keys:
            continue
        for matte, wanted in zip(found, truth[:, frame], strict=True):
            union = int((matte | wanted).sum())
            if union:
                scores.append(int((matte & wanted).sum()) / union)
    return float(np.mean(scores))


def main() -> int:
    """0; one line for each file, number of keys and setting."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path, nargs="+")
    parser.add_argument("--packed", type=Path)
    parser.add_argument("--shots", type=int, default=8)
    parser.add_argument("--frames", type=int, default=30)
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--every", type=int, action="append", default=[])
    parser.add_argument("--keys", type=int, action="append", default=[])
    options: Any = parser.parse_args()
    shots = long_shots(options.packed, options.size, options.frames, options.shots)
    last = options.frames - 1
    for path in options.weights:
        network = load_model(str(path)).network
        for count, every in itertools.product(options.keys or (1, 4), options.every or (10,)):
            keys = tuple(sorted({round(place * last / max(1, count - 1)) for place in range(count)}))
            scores = [score_shot(network, shot, keys, every) for shot in shots]
            print(f"{path.name}: {count} keys, mem_every {every}: J {np.mean(scores):.4f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
