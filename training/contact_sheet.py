"""A page of synthetic shots to look at: one row a shot, its targets tinted.

python -m training.contact_sheet --out sheet.png --shots 16 --packed training/downloads/packed
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from training.bank import fetch_bank
from training.shots import Shot, ShotSettings, make_shot

TINTS = np.array([[255, 0, 0], [0, 230, 0], [0, 90, 255]], np.float32)  # RGB of objects 1, 2, 3


def row(shot: Shot) -> np.ndarray[Any, Any]:
    """The first frame as it is, then every frame with its targets tinted, (S, (T + 1) * S, 3) uint8 RGB."""
    cells = [shot.frames[0]]
    for index, frame in enumerate(shot.frames):
        pixels = frame.astype(np.float32)
        for alpha, tint in zip(shot.alpha[:, index], TINTS, strict=False):
            pixels = pixels * (1 - 0.5 * alpha[..., None]) + tint * 0.5 * alpha[..., None]
        cells.append(pixels.astype(np.uint8))
    return np.hstack(cells)


def main() -> int:
    """0; writes the sheet and says how long a shot took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--shots", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", type=int, default=192)
    parser.add_argument("--frames", type=int, default=5)
    parser.add_argument("--packed", type=Path, help="packed images; left out: procedural textures")
    options = parser.parse_args()
    bank = fetch_bank(options.packed)
    settings = ShotSettings(options.size, options.frames)
    start = time.perf_counter()
    shots = [make_shot(options.seed + number, bank, settings) for number in range(options.shots)]
    spent = time.perf_counter() - start
    half = (options.shots + 1) // 2
    rows = [row(shot) for shot in shots]
    rows += [np.zeros_like(rows[0])] * (2 * half - len(rows))
    sheet = np.hstack([np.vstack(rows[:half]), np.vstack(rows[half:])])
    cv2.imwrite(str(options.out), sheet[..., ::-1])
    print(f"{options.out}: {options.shots} shots, {1000 * spent / options.shots:.0f} ms a shot")
    return 0


if __name__ == "__main__":
    sys.exit(main())
