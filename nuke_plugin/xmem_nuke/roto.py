"""Which frames an artist has keyed in a Roto: pure functions over what ``nuke.rotopaint`` gives. Imports no Nuke."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from xmem_protocol import InputError

ASK = "Ask"
ALL_KEYS = "All keys"
EVERY_NTH = "Every Nth key"
SHARED = "Where all shapes have a key"

FEW_KEYS = 12  # as many as an artist keys by hand without wondering; below it nothing is asked
VIEW = "main"

# The attribute lifetime_type of a shape, in the order of the Roto knob of that name (knob scan, Nuke 17.0v3).
_TO_FRAME, _SINGLE, _FROM_FRAME, _RANGE = 1, 2, 3, 4


@dataclass(frozen=True)
class Thinning:
    """What to take of a roto's keys: ``choice`` is one of this module's four words, ``step`` is for EVERY_NTH."""

    choice: str
    step: int


def fetch_shape_times(curves: Any, rotopaint: Any) -> list[frozenset[int]]:
    """Give, for each shape and stroke of a ``curves`` knob, the frames at which it is keyed and can be seen.

    A key of a point, a tangent, a feather point or a transform counts; so does one of the layers above the shape. A
    time between two frames counts for the nearest. ``rotopaint`` is the module ``nuke.rotopaint``.
    """
    return list(_walk_layer(curves.rootLayer, rotopaint, (), frozenset()))


def thin_key_frames(shapes: Sequence[frozenset[int]], thinning: Thinning) -> tuple[int, ...]:
    """Give the frames to use, in order. Raises InputError when the artist must choose first, or chose what gives none."""
    every = sorted(frozenset[int]().union(*shapes))
    if thinning.choice == SHARED:
        keyed = [shape for shape in shapes if shape]
        shared = sorted(frozenset.intersection(*keyed)) if keyed else []
        if every and not shared:
            raise InputError(
                f"No frame has a key on all {len(keyed)} roto shapes. "
                "Set Which roto keys to Every Nth key or All keys, or key the shapes together on one frame."
            )
        return tuple(shared)
    if thinning.choice == EVERY_NTH:
        if thinning.step < 1:
            raise InputError(f"N is {thinning.step} for Every Nth key. Set it to 1 or more.")
        return tuple(every[:: thinning.step])
    if thinning.choice == ASK and _is_dense(every):
        raise InputError(
            f"The roto has keys on {len(every)} of the frames {every[0]} to {every[-1]}; a few good keys are enough. "
            "Set Which roto keys to Every Nth key, Where all shapes have a key, or All keys."
        )
    return tuple(every)


def _is_dense(frames: Sequence[int]) -> bool:
    """Tell a roto that was tracked or keyed on nearly every frame from one that was keyed by hand."""
    return len(frames) > FEW_KEYS and 2 * len(frames) > frames[-1] - frames[0] + 1


def _walk_layer(
    layer: Any, rotopaint: Any, above: tuple[Any, ...], inherited: frozenset[int]
) -> Iterable[frozenset[int]]:
    elements = (*above, layer)
    times = inherited | _round_times(layer.getTransform().getTransformKeyTimes())
    for element in layer:
        if isinstance(element, rotopaint.Layer):
            yield from _walk_layer(element, rotopaint, elements, times)
        elif isinstance(element, (rotopaint.Shape, rotopaint.Stroke)):
            own = times | _own_times(element, rotopaint)
            yield frozenset(frame for frame in own if _is_seen((*elements, element), frame))


def _own_times(element: Any, rotopaint: Any) -> frozenset[int]:
    if isinstance(element, rotopaint.Stroke):
        return frozenset().union(*(_round_times(point.getControlPointKeyTimes()) for point in element))
    times = _round_times(element.getTransform().getTransformKeyTimes())
    for point in element:
        for curve in (point.center, point.leftTangent, point.rightTangent, point.featherCenter):
            times |= _round_times(curve.getControlPointKeyTimes())
    return times


def _round_times(times: Iterable[float]) -> frozenset[int]:
    return frozenset(round(time) for time in times)


def _is_seen(elements: Iterable[Any], frame: int) -> bool:
    return all(element.getVisible(frame) and _is_alive(element.getAttributes(), frame) for element in elements)


def _is_alive(attributes: Any, frame: int) -> bool:
    """Tell whether a shape's lifetime holds this frame. What the two frames mean for each type was not seen in a Nuke."""
    if attributes.kLifeTimeTypeAttribute not in attributes:
        return True
    kind, first, last = (
        attributes.getValue(frame, name, VIEW)
        for name in (
            attributes.kLifeTimeTypeAttribute,
            attributes.kLifeTimeNAttribute,
            attributes.kLifeTimeMAttribute,
        )
    )
    alive = {
        _TO_FRAME: frame <= first,
        _SINGLE: frame == first,
        _FROM_FRAME: frame >= first,
        _RANGE: first <= frame <= last,
    }
    return alive.get(int(kind), True)
