"""How close masks are to the truth: J and F as the DAVIS evaluation defines them, written from the definitions.

J (region similarity) is the area both masks share over the area either has. F (contour accuracy) asks how much of each
mask's outline lies near the other's, and takes the harmonic mean. Masks are (H, W) of bool or numbers, non-zero inside.
Scores are 0..1, higher is better.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from xmem_protocol import InputError

_TOLERANCE = 0.008  # of the picture's diagonal: the DAVIS evaluation's own


@dataclass(frozen=True)
class Score:
    """The means of J and F over ``frames`` frames, each 0..1."""

    j: float
    f: float
    frames: int

    @property
    def mean(self) -> float:
        """Give the mean of J and F, 0..1."""
        return (self.j + self.f) / 2


def score_region(mask: NDArray[np.generic], truth: NDArray[np.generic]) -> float:
    """Give J of one mask, 0..1; 1 when both are empty. Raises InputError when their sizes differ."""
    ours, theirs = _fetch_pair(mask, truth)
    either = np.count_nonzero(ours | theirs)
    return 1.0 if either == 0 else np.count_nonzero(ours & theirs) / either


def score_outline(mask: NDArray[np.generic], truth: NDArray[np.generic]) -> float:
    """Give F of one mask, 0..1; 1 when neither has an outline, 0 when only one has.

    An outline pixel counts as right when the other outline passes within 0.8 % of the picture's diagonal, rounded up to
    whole pixels. Raises InputError when the sizes differ.
    """
    ours, theirs = (_fetch_outline(one) for one in _fetch_pair(mask, truth))
    ours_count, theirs_count = np.count_nonzero(ours), np.count_nonzero(theirs)
    if ours_count == 0 or theirs_count == 0:
        return float(ours_count == theirs_count)
    disk = _fetch_disk(int(np.ceil(_TOLERANCE * np.hypot(*ours.shape))))
    precision = np.count_nonzero(ours & _fetch_near(theirs, disk)) / ours_count
    recall = np.count_nonzero(theirs & _fetch_near(ours, disk)) / theirs_count
    return 0.0 if precision + recall == 0 else 2 * precision * recall / (precision + recall)


def score_frames(pairs: Iterable[tuple[NDArray[np.generic], NDArray[np.generic]]]) -> Score:
    """Give the mean score of (mask, truth) pairs. Raises InputError when there is none to score."""
    scores = [(score_region(mask, truth), score_outline(mask, truth)) for mask, truth in pairs]
    if not scores:
        raise InputError("There is no frame to score: every frame with a truth is a key. Use fewer keys.")
    j, f = np.mean(scores, axis=0)
    return Score(float(j), float(f), len(scores))


def _fetch_pair(mask: NDArray[np.generic], truth: NDArray[np.generic]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    if mask.ndim != 2 or mask.shape != truth.shape:
        raise InputError(f"A mask of {mask.shape} cannot be scored against a truth of {truth.shape}: sizes must match.")
    return mask.astype(bool), truth.astype(bool)


def _fetch_outline(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Give the pixels whose right, lower or lower-right neighbour is on the other side; the picture's border is none."""
    outline = np.zeros_like(mask)
    outline[:, :-1] |= mask[:, :-1] != mask[:, 1:]
    outline[:-1, :] |= mask[:-1, :] != mask[1:, :]
    outline[:-1, :-1] |= mask[:-1, :-1] != mask[1:, 1:]
    return outline


def _fetch_disk(radius: int) -> NDArray[np.uint8]:
    down, across = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    return np.asarray(down * down + across * across <= radius * radius, np.uint8)


def _fetch_near(outline: NDArray[np.bool_], disk: NDArray[np.uint8]) -> NDArray[np.bool_]:
    grown = cv2.dilate(outline.astype(np.uint8), disk, borderType=cv2.BORDER_CONSTANT, borderValue=(0,))
    return np.asarray(grown, np.uint8) > 0
