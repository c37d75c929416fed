"""Which frame to annotate next: pure functions of keys and masks (paper section 3.3).

The next frame is the one with the largest smallest dissimilarity to all that are annotated or chosen so far (``dissimilarity``).
That rule can never pick a frame whose mask is too small to compare, so lost objects are found apart, from areas alone.
"""

from __future__ import annotations

import functools
import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch.nn.functional as F
from torch import Tensor

from xmem_core.confidence import PRESENT_ABOVE
from xmem_core.dissimilarity import (
    Bounds,
    CloseLook,
    Composite,
    FrameKeys,
    FrameMask,
    dissimilarity,
    look_coarsely,
    make_composite,
    weigh_key,
)
from xmem_core.errors import CoreError

_KEPT_BYTES = 192 * 1024**2  # of frames that may be compared again soon


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


@dataclass
class _Contender:
    """What is known of a frame that may be picked: bounds of its dissimilarity to frames that are chosen, by their number."""

    frame: int
    known: dict[int, Bounds] = field(default_factory=dict)

    @property
    def most(self) -> float:
        """What its smallest dissimilarity cannot be above."""
        return min((bounds.most for bounds in self.known.values()), default=math.inf)

    def learn(self, composite: Composite, chosen: Mapping[int, Composite], look_closely: CloseLook) -> bool:
        """Look once more at what may be the nearest chosen frame, at the least cost; False when nothing is left to learn."""
        most = self.most
        if most < math.inf:
            for other in chosen.keys() - self.known.keys():
                self.known[other] = look_coarsely(chosen[other], composite)
        unseen = [other for other in chosen if self._bound(other).most == math.inf and self._bound(other).least < most]
        if unseen:
            other = min(unseen, key=self._rank)
            self.known[other] = look_closely(chosen[other], composite)
            return True
        unsure = [other for other, bounds in self.known.items() if bounds.least < min(bounds.most, most)]
        if unsure:
            other = min(unsure, key=self._rank)
            exact = dissimilarity(chosen[other], composite)
            self.known[other] = Bounds(exact, exact)
        return bool(unsure)

    def conclude(self) -> Candidate:
        """Give what became of it, once nothing is left to learn."""
        nearest = min(self.known, key=self._rank)
        return Candidate(self.frame, self.known[nearest].most, nearest)

    def _bound(self, other: int) -> Bounds:
        return self.known.get(other, Bounds(0.0))

    def _rank(self, other: int) -> tuple[float, int, int]:
        """The nearest first, as far as is known; of equals the nearest in time."""
        return self._bound(other).most, abs(other - self.frame), other


def suggest_keyframes(
    keys: Mapping[int, FrameKeys], masks: Mapping[int, FrameMask], annotated: Sequence[int], rule: SuggestionRule
) -> list[Candidate]:
    """Give at most ``rule.count`` frames to annotate, best first; fewer, or none, when nothing different is left.

    ``keys`` and ``masks`` are by frame number; ``annotated`` frames must be in both. Keys may be fetched lazily. Never an annotated
    frame, one whose mask is too small, one equal to a chosen frame, or the same twice.

    Exact, and lazy: what is known of a frame bounds its smallest dissimilarity from above, so only the frame with the largest
    bound is looked at further: at the chosen frame nearest in time first, at none that a coarse look rules out, and exactly only where
    a look at less cost leaves it open. One that is still on top when nothing is left to learn has the largest of all.
    """
    if not annotated:
        raise CoreError("There is no key yet, so nothing to compare with. Annotate one frame first.")
    frames = [frame for frame in sorted(keys) if frame in masks]
    missing = [frame for frame in annotated if frame not in frames]
    if missing:
        raise CoreError(f"The annotated frame {missing[0]} has no keys or no mask. Propagate it first.")

    first = annotated[0]
    centre = weigh_key(keys[first], masks[first], rule.alpha).mean((1, 2), keepdim=True)

    def compose(frame: int) -> Composite:
        return make_composite(keys[frame], masks[frame], rule.alpha, centre)

    chosen = {frame: compose(frame) for frame in annotated}
    compose = functools.lru_cache(max(1, _KEPT_BYTES // chosen[first].nbytes))(compose)
    contenders = {f: _Contender(f) for f in frames if f not in chosen and masks[f].area >= rule.min_area}
    bounds = [(-math.inf, frame) for frame in contenders]  # a heap: largest bound first, the earliest of equals
    picked: list[Candidate] = []
    look_closely = CloseLook()
    while bounds and len(picked) < rule.count:
        _, frame = heapq.heappop(bounds)
        contender = contenders[frame]
        if contender.most == 0:
            break
        composite = compose(frame)
        if contender.learn(composite, chosen, look_closely):
            heapq.heappush(bounds, (-contender.most, frame))
        else:
            picked.append(contender.conclude())
            chosen[frame] = composite
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
