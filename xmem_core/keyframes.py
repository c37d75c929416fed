"""Which frame to annotate next: pure functions of keys and masks (paper section 3.3).

A frame's *composite key* is ``r = k * (alpha * m + 1 - alpha)``: its key, weighted by its mask. The dissimilarity of frame b as
seen from an annotated frame a is the mean over all pairs of positions of ``relu(S(a, b)[i, j] - S(b, a)[i, j])``, where
``S(a, b)[i, j] = -s_a[i] * sum_c e_b[c, j] (r_a[c, i] - r_b[c, j])^2 / sqrt(CK)``. The reverse similarity is not transposed: that is
what makes D(a, a) exactly 0. The next frame is the one with the largest smallest dissimilarity to all chosen so far.

That rule can never pick a frame whose mask is too small to compare, so lost objects are found apart, from areas alone.
"""

from __future__ import annotations

import functools
import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from xmem_core.affinity import BLOCK_VALUES
from xmem_core.confidence import PRESENT_ABOVE
from xmem_core.errors import CoreError

_KEPT_BYTES = 128 * 1024**2  # of frames that may be compared again soon
_BLOCK = 4  # positions to a side that a first look takes together: 1/256 of the work


@dataclass(frozen=True)
class FrameKeys:
    """Keys of one frame: key and selection (CK, h, w), shrinkage (1, h, w)."""

    key: Tensor
    shrinkage: Tensor
    selection: Tensor


@dataclass(frozen=True)
class FrameMask:
    """What the rule needs of a frame's masks: the share of pixels (0..1) that are object, and the mask at key size (1, h, w)."""

    area: float
    at_keys: Tensor


@dataclass(frozen=True)
class SuggestionRule:
    """How many frames to suggest and what to look at.

    ``alpha`` 0 compares whole frames, 1 the object alone. ``min_area`` is the share of pixels (0..1) below which a mask is
    too small to compare.
    """

    count: int = 5
    alpha: float = 0.5
    min_area: float = 0.0025

    def __post_init__(self) -> None:
        if self.count < 1:
            raise CoreError(f"Ask for at least 1 suggestion; got {self.count}.")
        if not 0 <= self.alpha <= 1:
            raise CoreError(f"How target-focused (alpha) must be from 0 to 1; got {self.alpha}.")
        if not 0 <= self.min_area <= 1:
            raise CoreError(f"The smallest area must be a share of the picture from 0 to 1; got {self.min_area}.")


@dataclass(frozen=True)
class Candidate:
    """A frame to annotate: its dissimilarity to the nearest annotated or already suggested frame, and which one that is."""

    frame: int
    score: float
    nearest: int


@dataclass(frozen=True)
class LostObject:
    """A stretch of frames where an object vanishes or its area jumps; ``frame`` is the one to annotate."""

    frame: int
    object_id: int
    first: int
    last: int
    score: float
    reason: str


@dataclass(frozen=True)
class Composite:
    """Mask-weighted features of one frame, as memory and as query, both (2*CK + 1, h*w); ``size`` is (h, w)."""

    as_memory: Tensor
    as_query: Tensor
    size: tuple[int, int]

    @property
    def nbytes(self) -> int:
        """What it takes in memory."""
        return self.as_memory.nbytes + self.as_query.nbytes

    @functools.cached_property
    def coarse(self) -> Composite:
        """The sums of its features over blocks of positions."""
        rows, columns = (-(-side // _BLOCK) for side in self.size)
        return Composite(self._add_up(self.as_memory), self._add_up(self.as_query), (rows, columns))

    def _add_up(self, features: Tensor) -> Tensor:
        maps = features.unflatten(1, self.size)[None]  # (1, F, h, w)
        return F.avg_pool2d(maps, _BLOCK, ceil_mode=True, divisor_override=1)[0].flatten(1)


@dataclass
class _Contender:
    """What is known of a frame that may be picked: its smallest dissimilarity so far, and to which frame.

    ``least`` is by chosen frame what the dissimilarity to it cannot be below; infinite once it was compared with that one.
    """

    score: float = math.inf
    nearest: int = 0
    least: dict[int, float] = field(default_factory=dict)

    def find_next(self, frame: int, composite: Composite, chosen: Mapping[int, Composite]) -> int | None:
        """Give the chosen frame to compare with now, nearest in time first; None when no other one could be nearer."""
        if self.score < math.inf:
            for other in chosen.keys() - self.least.keys():
                self.least[other] = bound_dissimilarity(chosen[other], composite)
        pending = [other for other in chosen if self.least.get(other, 0.0) < self.score]
        return min(pending, key=lambda other: (abs(other - frame), other), default=None)

    def learn(self, reference: int, score: float) -> None:
        """Take the dissimilarity to a chosen frame."""
        self.least[reference] = math.inf
        if score < self.score:
            self.score, self.nearest = score, reference


def suggest_keyframes(
    keys: Mapping[int, FrameKeys], masks: Mapping[int, FrameMask], annotated: Sequence[int], rule: SuggestionRule
) -> list[Candidate]:
    """Give at most ``rule.count`` frames to annotate, best first; fewer, or none, when nothing different is left.

    ``keys`` and ``masks`` are by frame number; ``annotated`` frames must be in both. Keys may be fetched lazily. Never an annotated
    frame, one whose mask is too small, one equal to a chosen frame, or the same twice.

    Exact, and lazy: what is known of a frame bounds its smallest dissimilarity from above, so only the frame with the largest
    bound is compared further, with the chosen frame nearest in time first and with none that a coarse look rules out; one
    that is still on top when there is none left has the largest of all.
    """
    if not annotated:
        raise CoreError("There is no key yet, so nothing to compare with. Annotate one frame first.")
    frames = [frame for frame in sorted(keys) if frame in masks]
    missing = [frame for frame in annotated if frame not in frames]
    if missing:
        raise CoreError(f"The annotated frame {missing[0]} has no keys or no mask. Propagate it first.")

    def compose(frame: int) -> Composite:
        return make_composite(keys[frame], masks[frame], rule.alpha)

    chosen = {frame: compose(frame) for frame in annotated}
    compose = functools.lru_cache(max(1, _KEPT_BYTES // chosen[annotated[0]].nbytes))(compose)
    contenders = {f: _Contender() for f in frames if f not in chosen and masks[f].area >= rule.min_area}
    bounds = [(-math.inf, frame) for frame in contenders]  # a heap: largest bound first, the earliest of equals
    picked: list[Candidate] = []
    while bounds and len(picked) < rule.count:
        _, frame = heapq.heappop(bounds)
        contender = contenders[frame]
        if contender.score == 0:
            break
        composite = compose(frame)
        reference = contender.find_next(frame, composite, chosen)
        if reference is None:
            picked.append(Candidate(frame, contender.score, contender.nearest))
            chosen[frame] = composite
            continue
        contender.learn(reference, dissimilarity(chosen[reference], composite))
        heapq.heappush(bounds, (-contender.score, frame))
    return picked


def measure_area(mask: Tensor, present_above: float = PRESENT_ABOVE) -> float:
    """Give the share of pixels (0..1) where any object of mask (C, H, W) is above ``present_above``."""
    present = mask.amax(0) > present_above
    return int(present.sum()) / present.numel()


def summarise_mask(mask: Tensor, key_size: tuple[int, int], present_above: float = PRESENT_ABOVE) -> FrameMask:
    """Give what the rule needs of mask (C, H, W) float 0..1, any resolution: all its objects together.

    Brought to ``key_size`` (h, w) by nearest neighbour and not hardened, as the paper's code does.
    """
    return FrameMask(measure_area(mask, present_above), bring_to_keys(mask, key_size).amax(0, keepdim=True))


def bring_to_keys(mask: Tensor, key_size: tuple[int, int]) -> Tensor:
    """Give mask (C, H, W) float 0..1 at key size, (C, h, w) float32, by nearest neighbour."""
    return F.interpolate(mask[None], size=key_size, mode="nearest")[0].float()


def make_composite(keys: FrameKeys, mask: FrameMask, alpha: float) -> Composite:
    """Give a frame's features, its key weighted by its mask."""
    channels = keys.key.shape[0]
    weighted = (keys.key * (alpha * mask.at_keys + 1 - alpha)).flatten(1)  # (CK, h*w)
    shrinkage, selection = keys.shrinkage.flatten(1), keys.selection.flatten(1)
    # A long shot makes thousands of these: each part is written where it lies, squares from products and products from factors.
    as_memory, as_query = (weighted.new_empty(2 * channels + 1, weighted.shape[1]) for _ in range(2))
    squares, products = as_memory[:channels], as_memory[channels:-1]
    torch.mul(weighted, shrinkage, out=products)
    torch.mul(weighted, products, out=squares)
    as_memory[-1:] = shrinkage
    factors, doubled = as_query[:channels], as_query[channels:-1]
    torch.mul(selection, -1 / math.sqrt(channels), out=factors)
    torch.mul(factors, weighted, out=doubled)
    torch.sum(doubled * weighted, 0, keepdim=True, out=as_query[-1:])
    doubled.mul_(-2)
    height, width = keys.key.shape[1:]
    return Composite(as_memory, as_query, (height, width))


def dissimilarity(reference: Composite, candidate: Composite) -> float:
    """Give D of a candidate as seen from a reference: at least 0, and 0 for the same frame."""
    return _add_differences(reference, candidate) / _count_pairs(reference, candidate)


def bound_dissimilarity(reference: Composite, candidate: Composite) -> float:
    """Give what D of a candidate as seen from a reference cannot be below, up to rounding: a first look at a fraction of the work.

    The sum of relu over a block of pairs is at least the relu of their sum, and that is the product of the blocks' sums.
    """
    return _add_differences(reference.coarse, candidate.coarse) / _count_pairs(reference, candidate)


def _count_pairs(reference: Composite, candidate: Composite) -> int:
    return reference.as_memory.shape[1] * candidate.as_query.shape[1]


def _add_differences(reference: Composite, candidate: Composite) -> float:
    """Give the sum over all pairs of positions of ``relu(S(a, b)[i, j] - S(b, a)[i, j])``, computed in blocks of rows."""
    rows, columns = reference.as_memory.shape[1], candidate.as_query.shape[1]
    step = max(1, BLOCK_VALUES // columns)
    total = 0.0
    for start in range(0, rows, step):
        here = slice(start, start + step)
        there = reference.as_memory[:, here].T @ candidate.as_query  # (i of reference, j of candidate)
        # (i of candidate, j of reference), compared untransposed
        back = candidate.as_memory[:, here].T @ reference.as_query
        # Two products of one shape, then their difference: equal frames give equal products, to the last bit.
        total += float(there.sub_(back).relu_().sum())
    return total


# An area this many times larger or smaller than the frames around it is a jump: twice is a glitch, not a movement.
JUMP_RATIO = 2.0
NEIGHBOURS = 3  # frames on each side whose median area is the expectation


def find_lost_objects(
    areas: Mapping[int, Mapping[int, float]], explained: Mapping[int, frozenset[int]], min_area: float
) -> list[LostObject]:
    """Give the stretches where an object is lost, worst first.

    ``areas`` is object id -> frame number -> share of the picture (0..1); ``explained`` is object id -> frames the artist
    annotated (present or absent), which are never reported and end a stretch.
    """
    found = []
    for object_id, by_frame in areas.items():
        known = explained.get(object_id, frozenset())
        found += _find_vanished(object_id, by_frame, known, min_area)
        found += _find_jumps(object_id, by_frame, known, min_area)
    return sorted(found, key=lambda lost: (-lost.score, lost.frame))


def _find_vanished(
    object_id: int, areas: Mapping[int, float], known: frozenset[int], min_area: float
) -> list[LostObject]:
    typical = _median([area for area in areas.values() if area >= min_area])
    stretches: list[list[int]] = []
    current: list[int] | None = None
    explained = False
    for frame in sorted(areas):
        if areas[frame] >= min_area:
            current, explained = None, False
        elif frame in known:  # the artist says that it is absent here: the stretch around is no surprise
            if current is not None:
                stretches.remove(current)
            current, explained = None, True
        elif not explained:
            if current is None:
                current = []
                stretches.append(current)
            current.append(frame)
    if not typical:
        return []
    return [
        LostObject(
            stretch[len(stretch) // 2],
            object_id,
            stretch[0],
            stretch[-1],
            1.0,
            f"object {object_id} vanishes at {_span(stretch)}: under {100 * min_area:.2g} % of the picture, "
            f"{100 * typical:.2g} % elsewhere",
        )
        for stretch in stretches
    ]


def _find_jumps(object_id: int, areas: Mapping[int, float], known: frozenset[int], min_area: float) -> list[LostObject]:
    found = []
    frames = sorted(areas)
    for place, frame in enumerate(frames):
        around = frames[max(0, place - NEIGHBOURS) : place] + frames[place + 1 : place + 1 + NEIGHBOURS]
        expected = _median([areas[other] for other in around])
        area = areas[frame]
        if frame in known or min(area, expected) < min_area:
            continue
        ratio = max(area, expected) / min(area, expected)
        if ratio >= JUMP_RATIO:
            change = "grows" if area > expected else "shrinks"
            found.append(
                LostObject(
                    frame,
                    object_id,
                    frame,
                    frame,
                    1 - 1 / ratio,
                    f"object {object_id} {change} {ratio:.1f} times against the frames around {frame}",
                )
            )
    return found


def _median(values: Sequence[float]) -> float:
    ordered = sorted(values)
    return ordered[len(ordered) // 2] if ordered else 0.0


def _span(stretch: Sequence[int]) -> str:
    return f"frame {stretch[0]}" if len(stretch) == 1 else f"frames {stretch[0]}-{stretch[-1]}"
