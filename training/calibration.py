"""How honest a model's probabilities are, on synthetic clips that nothing was trained on or chosen by.

    python -m training.calibration WEIGHTS.safetensors --packed training/downloads/packed --out reliability.png

Prints for the mattes themselves, and for them as ``xmem_core.confidence.calibrate`` reads them, the reliability table, the expected calibration error over pixels that are not plainly background or object, and the rank
correlation (Spearman) between each frame's expected overlap (``xmem_core.confidence``) and its true J.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from training.clip_forward import ClipInput, forward_clip
from training.packages import packages_with
from training.plot_curve import Line, draw_panel
from training.validation import CALIBRATION_SEED, ValidationClip, validation_clips
from xmem_core.confidence import calibrate, expected_overlap
from xmem_core.images import normalise
from xmem_core.network import XMem
from xmem_core.weights import load_model

Array = np.ndarray[Any, Any]
BINS = 20
PLAIN = 0.02  # probabilities nearer to 0 or 1 are plainly background or object: nearly all pixels, and nearly all right


@dataclass(frozen=True)
class Reliability:
    """By bin of probability (BINS over 0..1): how many pixels, their mean probability, the share that is object.

    ``overlaps`` (n, 2) has the expected and the true J of each frame and object.
    """

    counts: Array
    predicted: Array
    observed: Array
    overlaps: Array

    @property
    def error(self) -> float:
        """Expected calibration error over the bins that are not plain."""
        inner = slice(1, BINS - 1)
        weights = self.counts[inner] / max(1, self.counts[inner].sum())
        return float((weights * np.abs(self.predicted - self.observed)[inner]).sum())

    @property
    def rank_correlation(self) -> float:
        """Spearman's rank correlation between expected and true J."""
        return rank_correlation(self.overlaps[:, 0], self.overlaps[:, 1])


def rank_correlation(first: Array, second: Array) -> float:
    """Spearman's rank correlation of two lists of numbers; equal numbers share their mean rank."""

    def ranks(values: Array) -> Array:
        _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
        return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[place])

    return float(np.corrcoef(ranks(first), ranks(second))[0, 1])


@torch.no_grad()
def collect(network: XMem, clips: list[ValidationClip], working: int = 0) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Each predicted matte (H, W) with its true alpha, of a network that sees ``working`` pixels (0: all)."""
    found: list[tuple[torch.Tensor, torch.Tensor]] = []
    for clip in clips:
        images = normalise(clip.frames.float() / 255, network.config.mean, network.config.std)
        inputs = ClipInput(images[None], (clip.alpha[None] > 0.5).float(), clip.motion[None], working)
        for frame, logits in forward_clip(network, inputs, clip.plan).items():
            found += zip(torch.softmax(logits, 1)[0, 1:], clip.alpha[:, frame], strict=True)
    return found


def measure_reliability(
    pairs: list[tuple[torch.Tensor, torch.Tensor]], reading: Callable[[torch.Tensor], torch.Tensor]
) -> Reliability:
    """What mattes say, read by ``reading`` (H, W) -> (H, W), against what is true."""
    edges = np.linspace(0, 1, BINS + 1)
    edges[1], edges[-2] = PLAIN, 1 - PLAIN
    sums = np.zeros((3, BINS))
    overlaps = []
    for mattes, truth in pairs:
        p, is_object = reading(mattes).numpy().ravel(), truth.numpy().ravel() > 0.5
        place = np.clip(np.digitize(p, edges) - 1, 0, BINS - 1)
        for row, weights in enumerate((None, p, is_object)):
            sums[row] += np.bincount(place, weights, BINS)
        found = mattes.numpy().ravel() > 0.5
        if (found | is_object).any():
            overlap = (found & is_object).sum() / (found | is_object).sum()
            overlaps.append((expected_overlap(mattes), float(overlap)))
    counts = np.maximum(sums[0], 1)
    return Reliability(sums[0], sums[1] / counts, sums[2] / counts, np.array(overlaps))


def draw(found: Reliability, calibrated: Reliability) -> Array:
    """The reliability plot: probability in percent to the right, share that is object upwards; the grey line is honest."""
    lines = [Line("honest", (170, 170, 170), np.array([[0, 0], [100, 1]], np.float64))]
    for name, colour, each in (("mattes", (200, 80, 0), found), ("calibrated", (0, 130, 0), calibrated)):
        seen = each.counts > 0
        lines.append(Line(name, colour, np.stack([100 * each.predicted, each.observed], 1)[seen]))
    return draw_panel(f"reliability, error {found.error:.3f}, calibrated {calibrated.error:.3f}", lines, 100)


def main() -> int:
    """0; prints the figures of each file of weights, and draws the last one's plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path, nargs="+")
    parser.add_argument("--packed", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--clips", type=int, default=40)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--working", type=int, default=0)
    options = parser.parse_args()
    clips = validation_clips(options.packed, packages_with(()), options.size, options.clips, CALIBRATION_SEED)
    for path in options.weights:
        pairs = collect(load_model(str(path)).network, clips, options.working)
        found, calibrated = measure_reliability(pairs, lambda matte: matte), measure_reliability(pairs, calibrate)
        for name, each in (("mattes", found), ("calibrated", calibrated)):
            print(
                f"{path.name}, {name}: calibration error {each.error:.4f}, rank correlation {each.rank_correlation:.3f}"
            )
            for row in zip(each.predicted, each.observed, each.counts, strict=True):
                print("  p {:.3f}  object {:.3f}  pixels {:.0f}".format(*row))
        if options.out:
            cv2.imwrite(str(options.out), draw(found, calibrated))
    return 0


if __name__ == "__main__":
    sys.exit(main())
