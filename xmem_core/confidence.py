"""How far a matte is to be believed, from its own probabilities: what its overlap with the truth would be if they were right.

For a matte p, hardened at 0.5 to M, the expected intersection is the sum of p over M, and the expected union is M's area plus the sum
of p outside. Their ratio is what region similarity (J) would be on average if each pixel were object with probability p. The
model card has how well that ranks frames by their true error, and the reliability of the probabilities.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

PRESENT_ABOVE = 0.5


def expected_overlap(matte: Tensor) -> float:
    """Give the expected region similarity, 0..1, of matte (H, W) float 0..1; 1 for one that is 0 everywhere."""
    present = matte > PRESENT_ABOVE
    inside = float(matte[present].sum())
    union = float(present.sum()) + float(matte[~present].sum())
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
