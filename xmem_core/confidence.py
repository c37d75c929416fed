"""How far a matte is to be believed, from its own probabilities: what its overlap with the truth would be if they were right.

For a matte p, hardened at 0.5 to M, the expected intersection is the sum of q over M, and the expected union is M's area plus the sum
of q outside, q being the share of pixels of such a p that are object (`calibrate`). Their ratio is what region similarity (J) would be on
average. The model card has how well that ranks frames by their true error, and the reliability of p and of q.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

PRESENT_ABOVE = 0.5

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
    # Nearly all pixels of a matte lie in the first and the last piece of the curve, where their shares are a sum of their values.
    (first, first_share), (last, last_share) = RELIABILITY[1], RELIABILITY[-2]
    low, high = matte <= first, matte >= last
    between = matte[~(low | high)]
    shares, present = calibrate(between), between > PRESENT_ABOVE
    certain = float(high.sum())
    rise = (1 - last_share) / (1 - last)
    inside = certain * last_share + rise * (float((matte * high).sum()) - certain * last) + float(shares[present].sum())
    outside = float((matte * low).sum()) * first_share / first + float(shares[~present].sum())
    union = certain + float(present.sum()) + outside
    return inside / union if union else 1.0


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
