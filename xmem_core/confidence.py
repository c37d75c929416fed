"""How far a matte is to be believed, from its own probabilities: what its overlap with the truth would be if they were right.

For a matte p, hardened at 0.5 to M, the expected intersection is the sum of q over M, and the expected union is M's area plus the sum
of q outside, q being the share of pixels of such a p that are object (`calibrate`). Their ratio is what region similarity (J) would be on
average. The model card has how well that ranks frames by their true error, and the reliability of p and of q.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

PRESENT_ABOVE = 0.5  # a mask pixel counts as object above this (the paper's code)

_ONE = int(np.float16(1).view(np.int16))  # the bits of 1 in half precision

# (a matte's value, share of such pixels that is object), from clips that nothing was trained on (`training.calibration`): mattes
# are alphas and lean to 0 and 1, so that between those they are surer of themselves than they may be.
RELIABILITY = (
    (0.0, 0.0),
    (0.02, 0.13),
    (0.08, 0.22),
    (0.25, 0.335),
    (0.5, 0.49),
    (0.75, 0.59),
    (0.9, 0.66),
    (0.98, 0.72),
    (1.0, 1.0),
)


def calibrate(matte: Tensor) -> Tensor:
    """Give for matte (H, W) float 0..1 the share of such pixels that is object, 0..1; 0 and 1 stay what they are."""
    knots = torch.tensor(RELIABILITY, dtype=matte.dtype, device=matte.device)
    place = torch.searchsorted(knots[:, 0].contiguous(), matte.contiguous(), right=True).clamp(1, len(RELIABILITY) - 1)
    before, after = knots[place - 1], knots[place]
    share = (matte - before[..., 0]) / (after[..., 0] - before[..., 0])
    return torch.lerp(before[..., 1], after[..., 1], share)


def expected_overlap(matte: Tensor) -> float:
    """Give the expected region similarity, 0..1, of matte (H, W) float 0..1; 1 for one that is 0 everywhere."""
    return count_values(matte).expected_overlap()


@dataclass(frozen=True)
class ValueCounts:
    """How many pixels of a matte have each half precision value from 0 to 1, in order: so few values that each is looked at once."""

    counts: npt.NDArray[np.float64]

    def area(self) -> float:
        """Give the share of pixels (0..1) that are object."""
        _, present = _calibrated_values()
        return float(self.counts[present].sum() / self.counts.sum())

    def expected_overlap(self) -> float:
        """Give what `expected_overlap` gives for the matte."""
        shares, present = _calibrated_values()
        inside = float(self.counts[present] @ shares[present])
        union = float(self.counts[present].sum() + self.counts[~present] @ shares[~present])
        return inside / union if union else 1.0


def count_values(matte: Tensor) -> ValueCounts:
    """Give the counts of matte (H, W) float 0..1, read at half precision as its file holds it."""
    bits = matte.half().cpu().numpy().view(np.int16)  # halves from 0 to 1 are in the order of their bits
    between = bits[(bits > 0) & (bits < _ONE)]  # few: mattes lean to 0 and 1
    counts = np.bincount(between, minlength=_ONE + 1).astype(np.float64)
    counts[_ONE] = np.count_nonzero(bits == _ONE)
    counts[0] = bits.size - counts[1:].sum()
    return ValueCounts(counts)


@functools.cache
def _calibrated_values() -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Give for every half precision value from 0 to 1, in order: its share, and whether it is object. Not to be written to."""
    values = np.arange(_ONE + 1, dtype=np.int16).view(np.float16).astype(np.float64)
    return calibrate(torch.from_numpy(values)).numpy(), values > PRESENT_ABOVE


def find_unsure(confidence: Mapping[int, float], known: frozenset[int], count: int) -> list[tuple[int, float]]:
    """Give at most ``count`` (frame, confidence), least believed first, never one of ``known``, and none beside another.

    ``confidence`` is by frame number. Frames nearer to a chosen one than a twentieth of the range say the same again.
    """
    if not confidence:
        return []
    apart = max(1, (max(confidence) - min(confidence)) // 20)
    chosen: list[tuple[int, float]] = []
    for frame in sorted(confidence, key=lambda number: (confidence[number], number)):
        if len(chosen) == count:
            break
        if frame not in known and all(abs(frame - other) > apart for other, _ in chosen):
            chosen.append((frame, confidence[frame]))
    return chosen
