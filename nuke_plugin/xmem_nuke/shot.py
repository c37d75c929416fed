"""One read of Nuke into an immutable Shot. Main thread only; what the script looks like is the same afterwards."""

from __future__ import annotations

import itertools
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import nuke
import nuke.rotopaint

from xmem_nuke.roto import Thinning, fetch_shape_times, thin_key_frames
from xmem_nuke.upstream import KEEPS_CHANNELS, UpstreamWalk, is_roto
from xmem_protocol import MAX_FRAME_NUMBER, MAX_OBJECT_ID, MAX_SIDE, InputError

PLATE_INPUT = 0
ROTO_INPUT = 1

# The gizmo converts the plate, so what leaves Nuke is display-referred already.
DISPLAY = "display"

LIMITED_EDITIONS = ("nc", "indie")
LIMITED_WALK = 2  # such an edition shows Python ten nodes, and rendering, the root and the reads of mattes take nine
WALK = 2000  # a comp's largest branch has hundreds

_OBJECT = re.compile(r"\s*(\d+)\s*=\s*([\w.]+)\s*")
_RGBA = ("red", "green", "blue", "alpha")


@dataclass(frozen=True)
class ObjectChannel:
    """Which channel of the roto input is an object's alpha, by its full name: ``rgba.alpha``, ``roto1.alpha``."""

    object_id: int
    channel: str


@dataclass(frozen=True)
class Shot:
    """What a node asks for. Sizes are in full-resolution pixels, whatever the proxy state (``proxy``) is.

    ``colorspace`` is what the rendered plate holds, in the words of ``xmem_protocol.Shot``. ``key_frames`` are in order
    and inside ``first`` to ``last``; ``key_objects`` are the objects that are keyed on each. ``warnings`` are lines for the artist; none of them stops the work.
    """

    node_name: str
    session: str
    width: int
    height: int
    pixel_aspect: float
    first: int
    last: int
    colorspace: str
    proxy: bool
    objects: tuple[ObjectChannel, ...]
    key_frames: tuple[int, ...]
    key_objects: tuple[tuple[int, ...], ...]
    cache_dir: str
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class RotoKeys:
    """The frames to key from the rotos, and where each channel has keys: nothing when the rotos cannot be told apart."""

    frames: tuple[int, ...] = ()
    by_channel: Mapping[str, frozenset[int]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def fetch_shot(node: Any) -> Shot:
    """Give what this XMem node asks for now. Raises InputError in the artist's words when it cannot be done."""
    plate = _fetch_input(node, PLATE_INPUT, "plate", "Connect the picture to it.")
    roto = _fetch_input(node, ROTO_INPUT, "roto", "Connect a Roto node whose alpha is the matte on the key frames.")
    proxy = bool(nuke.root().proxy())
    with untouched_script():
        width, height, pixel_aspect = _fetch_format(plate)
        _check_roto_format(roto, (width, height, pixel_aspect))
    first, last = _fetch_range(node)
    cache_dir, cache_warning = _fetch_cache_dir(node)
    objects = _fetch_objects(node, roto)
    keys = _read_rotos(node) if node["use_roto_keys"].value() else RotoKeys()
    key_frames, key_warnings = _fetch_key_frames(node, keys, first, last)
    return Shot(
        node_name=node.fullName(),
        session=node["session"].value(),
        width=width,
        height=height,
        pixel_aspect=pixel_aspect,
        first=first,
        last=last,
        colorspace=DISPLAY,
        proxy=proxy,
        objects=objects,
        key_frames=key_frames,
        key_objects=_fetch_key_objects(node, keys, objects, key_frames),
        cache_dir=cache_dir,
        warnings=(*cache_warning, *keys.warnings, *key_warnings),
    )


def fetch_roto_key_frames(node: Any) -> tuple[int, ...]:
    """Give the frames to key from the Roto and RotoPaint nodes above the roto input, thinned as the node says, in order.

    Raises InputError when the artist must first choose how to thin them.
    """
    return _read_rotos(node).frames


@contextmanager
def untouched_script() -> Iterator[None]:
    """Turn proxy off, and give back frame, proxy, undo stack and modified flag as they were, whatever happens inside."""
    root = nuke.root()
    frame, proxy, modified = nuke.frame(), root.proxy(), root.modified()
    undo_was_on = not nuke.Undo.disabled()
    if undo_was_on:
        nuke.Undo.disable()
    try:
        if proxy:
            root.setProxy(False)
        yield
    finally:
        try:
            if proxy:
                root.setProxy(True)
            if nuke.frame() != frame:
                root.setFrame(frame)
            root.setModified(modified)
        finally:
            if undo_was_on:
                nuke.Undo.enable()


def is_limited_edition() -> bool:
    """Whether this is Indie or Non-commercial, which show Python ten nodes in all."""
    return any(nuke.env.get(edition) for edition in LIMITED_EDITIONS)


def parse_frames(text: str) -> tuple[int, ...]:
    """Give the frame numbers of an ``added keys`` or ``removed keys`` knob, in order: ``1001 1010`` or ``1001,1010``."""
    try:
        return tuple(sorted({int(word) for word in text.replace(",", " ").split()}))
    except ValueError:
        raise InputError(
            f"{text!r} should be frame numbers with spaces between. Press Remove key here again."
        ) from None


def _fetch_input(node: Any, index: int, name: str, remedy: str) -> Any:
    source = node.input(index)
    if source is None:
        raise InputError(f"The {name} input of {node.name()} is not connected. {remedy}")
    return source


def _fetch_format(source: Any) -> tuple[int, int, float]:
    shape = source.format()
    width, height, pixel_aspect = int(shape.width()), int(shape.height()), float(shape.pixelAspect())
    if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE):
        raise InputError(
            f"The plate is {width}x{height}; up to {MAX_SIDE} pixels a side can be worked on. Reformat it above the XMem node."
        )
    return width, height, pixel_aspect


def _check_roto_format(roto: Any, wanted: tuple[int, int, float]) -> None:
    shape = roto.format()
    got = (int(shape.width()), int(shape.height()), float(shape.pixelAspect()))
    if got[:2] != wanted[:2]:
        raise InputError(
            f"The roto input is {got[0]}x{got[1]} but the plate is {wanted[0]}x{wanted[1]}. "
            "Connect the Roto's bg input to the plate, or reformat it to the plate's format."
        )
    if abs(got[2] - wanted[2]) > 1e-4:
        raise InputError(
            f"The roto input has pixel aspect {got[2]:g} but the plate has {wanted[2]:g}. "
            "Connect the Roto's bg input to the plate, so that both have one format."
        )


def _fetch_range(node: Any) -> tuple[int, int]:
    first, last = int(node["first_frame"].value()), int(node["last_frame"].value())
    if first > last:
        raise InputError(f"The frame range {first} to {last} is empty. Set the first frame at or before the last.")
    if max(abs(first), abs(last)) > MAX_FRAME_NUMBER:
        raise InputError(
            f"The frame range {first} to {last} goes beyond {MAX_FRAME_NUMBER}. Offset the plate to smaller numbers."
        )
    return first, last


def _fetch_objects(node: Any, roto: Any) -> tuple[ObjectChannel, ...]:
    text = node["objects"].value()
    have = roto.channels()
    objects: dict[int, str] = {}
    for part in filter(str.strip, text.split(";")):
        found = _OBJECT.fullmatch(part)
        if not found:
            raise InputError(
                f"Objects says {part.strip()!r}; a number, = and a channel was wanted. Write for example 1=alpha; 2=red"
            )
        object_id, channel = int(found[1]), _full_name(found[2])
        if not 1 <= object_id <= MAX_OBJECT_ID:
            raise InputError(f"Object {object_id} is not between 1 and {MAX_OBJECT_ID}. Give it such a number.")
        if object_id in objects:
            raise InputError(f"Objects names object {object_id} twice. Give each object one channel.")
        if channel not in have:
            raise InputError(
                f"The roto input has no channel {channel} for object {object_id}: it has {', '.join(have[:20])}. "
                "Choose one of these, or set the Roto's output to it."
            )
        objects[object_id] = channel
    if not objects:
        raise InputError("Objects is empty. Write for example 1=alpha")
    return tuple(ObjectChannel(object_id, objects[object_id]) for object_id in sorted(objects))


def _full_name(channel: str) -> str:
    return f"rgba.{channel}" if channel in _RGBA else channel


def _fetch_cache_dir(node: Any) -> tuple[str, tuple[str, ...]]:
    """Give an absolute folder with forward slashes, and a warning when it is one that may be cleaned away."""
    chosen = node["cache_dir"].evaluate()
    script_folder = os.path.dirname(nuke.root()["name"].value())  # noqa: PTH120 - empty for a script that is not saved
    warnings: tuple[str, ...] = ()
    if chosen:
        folder = os.path.join(script_folder, chosen)  # noqa: PTH118 - an absolute choice wins, on Windows too
    elif script_folder:
        folder = f"{script_folder}/xmem_cache"
    else:
        folder = f"{os.environ.get('NUKE_TEMP_DIR') or tempfile.gettempdir()}/xmem_cache"
        warnings = (
            f"The script is not saved, so mattes are kept in {folder}. Save it, or choose a cache directory in the Output tab.",
        )
    folder = folder.replace("\\", "/")
    if not os.path.isabs(folder):  # noqa: PTH117
        raise InputError(f"The cache directory {folder} is relative and the script is not saved. Choose a full path.")
    # Nuke fills # and % in with the frame number when it evaluates the knob, so they are looked for before that.
    odd = sorted(set(folder) & set("[]{}$\"';") | set(node["cache_dir"].value()) & set("%#"))
    if odd:
        raise InputError(
            f"The cache directory {folder} contains {' '.join(odd)}, which Nuke reads as code in a file name. Choose another one."
        )
    return folder, warnings


def _fetch_key_frames(node: Any, keys: RotoKeys, first: int, last: int) -> tuple[tuple[int, ...], tuple[str, ...]]:
    removed = set(parse_frames(node["removed_keys"].value()))
    chosen = (set(keys.frames) - removed) | set(parse_frames(node["manual_keys"].value()))
    outside = sorted(frame for frame in chosen if not first <= frame <= last)
    inside = tuple(sorted(chosen.difference(outside)))
    named = ", ".join(map(str, outside[:8])) + (" and more" if len(outside) > 8 else "")
    if outside and not inside:  # often a roto that was drawn once, at frame 1
        raise InputError(
            f"All keys lie outside the frame range {first} to {last}: {named}. "
            "Go to a frame of the shot that the roto fits and press Add key here, or change the range."
        )
    if not inside:
        raise InputError(
            f"There is no key between frame {first} and {last}. "
            "Draw the object with Roto on one frame and press Add key here, or switch on Use my roto keys."
        )
    if outside:
        return inside, (f"Keys outside the frame range {first} to {last} are left out: {named}.",)
    return inside, ()


def _fetch_key_objects(
    node: Any, keys: RotoKeys, objects: tuple[ObjectChannel, ...], frames: tuple[int, ...]
) -> tuple[tuple[int, ...], ...]:
    """Give the objects that are keyed on each frame: between its own keys a roto is not what the artist drew.

    All of them where that cannot be told: a roto draws into what is no object's channel, an object has no key of its own
    on any of the frames, or the artist pressed Add key here.
    """
    everyone = tuple(drawn.object_id for drawn in objects)
    if not set(keys.by_channel) <= {drawn.channel for drawn in objects}:
        return (everyone,) * len(frames)
    by_hand = set(parse_frames(node["manual_keys"].value()))
    own = {drawn.object_id: keys.by_channel.get(drawn.channel, frozenset()) & set(frames) for drawn in objects}
    return tuple(
        tuple(number for number in everyone if not own[number] or frame in own[number] or frame in by_hand)
        for frame in frames
    )


def _read_rotos(node: Any) -> RotoKeys:
    thinning = Thinning(node["thin_keys"].value(), int(node["thin_step"].value()))
    shapes: list[frozenset[int]] = []
    by_channel: dict[str, frozenset[int]] = {}
    rotos, are_apart, warnings = _find_rotos(node)
    for roto, offset in rotos:
        times = fetch_shape_times(roto["curves"], nuke.rotopaint)
        shifted = [frozenset(frame + offset for frame in shape) for shape in times]
        shapes.extend(shifted)
        channel = _full_name(str(roto["output"].value()))
        by_channel[channel] = by_channel.get(channel, frozenset()).union(*shifted)
    return RotoKeys(thin_key_frames(shapes, thinning), by_channel if are_apart else {}, warnings)


def _find_rotos(node: Any) -> tuple[list[tuple[Any, int]], bool, tuple[str, ...]]:
    """Give the rotos that draw the matte, each with the shift of its keys; whether they can be told apart; and warnings.

    They can where nothing below them may move one's alpha into another channel. A roto's background often is the plate, with the paint work of others in it: what is above the plate is left out,
    unless there is nothing else, as when one roto feeds both inputs.
    """
    if is_limited_edition():
        walk = UpstreamWalk(LIMITED_WALK, "this edition of Nuke shows Python few nodes")
        return list(itertools.islice(walk.find_rotos(node.input(ROTO_INPUT)), 1)), False, tuple(walk.warnings)
    walk = UpstreamWalk(WALK, "the graph is very large")
    nodes = list(walk.find_nodes(node.input(ROTO_INPUT)))
    found = [(other, offset) for other, offset in nodes if is_roto(other)]
    above = UpstreamWalk(WALK, "").find_nodes(node.input(PLATE_INPUT)) if len(found) > 1 else ()
    above_plate = {other.fullName() for other, _ in above}
    own = [(roto, offset) for roto, offset in found if roto.fullName() not in above_plate]
    are_apart = all(other.Class() in KEEPS_CHANNELS for other, _ in nodes if other.fullName() not in above_plate)
    return own or found, len(own) > 1 and are_apart, tuple(walk.warnings)
