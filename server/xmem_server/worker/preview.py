"""A first look around the playhead: outward from there, to the neighbouring keys, before the exact pass replaces it.

Propagation is sequential, so the exact matte of a frame in the middle needs all frames before it. The preview reads the same
permanent memory and follows the same motion, but begins at the playhead without what the exact pass would remember by then:
its mattes are provisional, and say so.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from xmem_core.engine import Engine, FrameResult, Propagation
from xmem_protocol import InputError
from xmem_server.decoding import Decoder
from xmem_server.plans import PREVIEW_FRAMES, MatteSource, PropagationPlan
from xmem_server.worker.features import FeatureCache
from xmem_server.worker.matte_writer import fetch_matte
from xmem_server.worker.motion_cache import MotionCache

SETTLED = 0.02  # of the object's pixels differ from the matte before: as good as unchanged
_SETTLED_FRAMES = 2  # in a row end a side

FetchBefore = Callable[[int], Mapping[int, Tensor]]  # mattes (H, W) by object id at a frame, empty where there are none


@dataclass(frozen=True)
class Side:
    """One way out: the frames to show, in order, and those to propagate over: a key at the end is looked ahead to, not shown."""

    shown: tuple[int, ...]
    frames: tuple[int, ...]


def plan_sides(playhead: int, frames: Sequence[int], keyed: Collection[int]) -> tuple[Side, Side]:
    """Give the ways forward and backward from the playhead; the first begins with it, the second after it."""
    ordered = sorted(frames)
    ahead = [frame for frame in ordered if frame >= playhead]
    back = [frame for frame in reversed(ordered) if frame <= playhead]
    forward, backward = _until_key(ahead, keyed), _until_key(back, keyed)
    return forward, Side(backward.shown[1:], backward.frames)


def _until_key(way: Sequence[int], keyed: Collection[int]) -> Side:
    key = next((place for place, frame in enumerate(way) if place and frame in keyed), len(way))
    return Side(tuple(way[: min(key, PREVIEW_FRAMES + 1)]), tuple(way[: key + 1]))


class Preview:
    """Both ways out of the playhead, a step of each in turn."""

    def __init__(self, engine: Engine, features: FeatureCache, motion: MotionCache, fetch_before: FetchBefore) -> None:
        self._engine = engine
        self._features = features
        self._motion = motion
        self._fetch_before = fetch_before

    def run(self, playhead: int, frames: Sequence[int]) -> Iterator[FrameResult]:
        """Give provisional results, the playhead's first. A frame that cannot be read ends its side."""
        forward, backward = plan_sides(playhead, frames, self._engine.annotated_frames)
        ways = [
            self._walk(forward, self._engine.start(forward.frames, self._motion.fetch)),
            self._walk(backward, self._engine.start(backward.frames, self._motion.fetch_reversed)),
        ]
        while ways:
            for way in list(ways):
                result = next(way, None)
                if result is None:
                    ways.remove(way)
                else:
                    yield result

    def _walk(self, side: Side, propagation: Propagation) -> Iterator[FrameResult]:
        settled = 0
        for frame in side.frames if side.shown else ():
            try:
                result = propagation.step(self._features.fetch(frame))
            except InputError:
                return
            if frame not in side.shown:
                continue  # the playhead, where the way back begins too
            yield result
            settled = settled + 1 if self._is_settled(result) else 0
            if settled == _SETTLED_FRAMES or frame == side.shown[-1]:
                return

    def _is_settled(self, result: FrameResult) -> bool:
        """Whether every object's matte is as it was before the keys changed."""
        before = self._fetch_before(result.frame)
        if result.annotated or before.keys() != set(result.object_ids):
            return False
        for object_id, now in zip(result.object_ids, result.probabilities, strict=True):
            if measure_change(before[object_id].to(now.device), now) > SETTLED:
                return False
        return True


class BeforeMattes:
    """The mattes that there were before a plan's keys changed."""

    def __init__(self, plan: PropagationPlan, decoder: Decoder) -> None:
        self._decoder = decoder
        self._sources: dict[int, list[MatteSource]] = {}
        for source in plan.before:
            self._sources.setdefault(source.frame, []).append(source)
        self._layout = plan.settings.layout

    def fetch(self, frame: int) -> dict[int, Tensor]:
        """Give the mattes (H, W) of a frame by object id; nothing when one of them cannot be read."""
        try:
            return {
                source.object_id: torch.from_numpy(fetch_matte(self._decoder, source, self._layout))
                for source in self._sources.get(frame, ())
            }
        except InputError:
            return {}


def measure_change(before: Tensor, now: Tensor) -> float:
    """Give how much of an object changed, 0..1: the difference of two mattes (H, W) over the pixels of either."""
    if before.shape != now.shape:
        before = F.interpolate(before[None, None], size=tuple(now.shape), mode="area")[0, 0]
    either = float(torch.maximum(before, now).sum())
    return float((before - now).abs().sum()) / either if either > 1 else 0.0
