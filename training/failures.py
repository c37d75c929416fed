"""A page of the validation clips a model does worst: for each, the truth above what the model found.

python -m training.failures WEIGHTS.safetensors --out failures.png --packed training/downloads/packed
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from training.clip_forward import ClipInput, forward_clip
from training.contact_sheet import row
from training.losses import region_scores
from training.shots import Shot
from training.validation import ValidationClip, validation_clips
from xmem_core.images import normalise
from xmem_core.network import XMem
from xmem_core.weights import load_model

SHOWN_FRAMES = 6  # of each clip, evenly spaced


@torch.no_grad()
def look_at(network: XMem, clip: ValidationClip, working: int) -> tuple[float, np.ndarray[Any, Any]]:
    """J of one clip, and its two rows of pictures, uint8 RGB."""
    images = normalise(clip.frames.float() / 255, network.config.mean, network.config.std)
    inputs = ClipInput(images[None], (clip.alpha[None] > 0.5).float(), clip.motion[None], working)
    predicted = forward_clip(network, inputs, clip.plan)
    score = float(region_scores(predicted, clip.alpha[None]).nanmean())
    found = clip.alpha.clone()
    for frame, logits in predicted.items():
        found[:, frame] = torch.softmax(logits, 1)[0, 1:]
    shown = np.linspace(0, clip.frames.shape[0] - 1, SHOWN_FRAMES).round().astype(int)
    frames = clip.frames.permute(0, 2, 3, 1).numpy()[shown]
    rows = [row(Shot(frames, alpha.numpy()[:, shown])) for alpha in (clip.alpha, found)]
    return score, np.vstack(rows)


def main() -> int:
    """0; writes the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--packed", type=Path)
    parser.add_argument("--clips", type=int, default=24)
    parser.add_argument("--worst", type=int, default=4)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--working", type=int, default=0)
    options = parser.parse_args()
    network = load_model(str(options.weights)).network
    clips = validation_clips(options.packed, (), options.size, options.clips)
    seen = sorted((look_at(network, clip, options.working) for clip in clips), key=lambda found: found[0])
    page = np.vstack([picture for _, picture in seen[: options.worst]])
    small = cv2.resize(page, (page.shape[1] // 2, page.shape[0] // 2), interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(options.out), small[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9])
    print(f"{options.out}: J " + ", ".join(f"{score:.2f}" for score, _ in seen[: options.worst]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
