"""Writes to XMem nodes, and the few reads that are not the shot. Main thread only, but for ``post``."""

from __future__ import annotations

import contextlib
import functools
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Callable, TypeVar, cast

import nuke

from xmem_nuke.activity import fetch_cache
from xmem_nuke.fingerprints import fetch_fingerprint
from xmem_nuke.host import NodeGoneError, NodeSettings, RenderStoppedError
from xmem_nuke.job import matte_folder
from xmem_nuke.rendering import RenderCancelledError, RenderedFrame, render_frames
from xmem_nuke.server_launch import fetch_connection_file
from xmem_nuke.shot import Shot, fetch_shot, parse_frames
from xmem_protocol import PropagationSettings, SuggestionSettings

SCHEMA_VERSION = 1
LAYERS = "Layers"
COPIED = "A copy of another XMem node, with a session of its own. Press Run."
_FILE_NAME = "%05d.exr"
_READS = ("MatteRead", "LayersRead")

_Call = TypeVar("_Call", bound=Callable[..., Any])
_owners: dict[str, Any] = {}  # session -> the node that had it first in this script


def _of_live_node(method: _Call) -> _Call:
    """Give the method, raising NodeGoneError for a node that was deleted: Nuke raises ValueError for whatever is asked of it."""

    @functools.wraps(method)
    def checked(self: NukeHost, node: Any, *rest: Any) -> Any:
        if not is_alive(node):
            raise NodeGoneError
        return method(self, node, *rest)

    return cast("_Call", checked)


class NukeHost:
    """Nuke as the controller sees it; ``host.Host`` says what each method gives."""

    def post(self, call: Callable[[], None]) -> None:
        """Run a function on the main thread soon. May be called from any thread."""
        nuke.executeInMainThread(call)

    def is_interactive(self) -> bool:
        """Whether Nuke has an event loop: not in ``nuke -t``, where nothing is known to call what was posted."""
        return bool(nuke.GUI)

    @_of_live_node
    def fetch_session(self, node: Any) -> str:
        """Give the node's session, made when it has none yet."""
        return keep_session(node)

    @_of_live_node
    def fetch_shot(self, node: Any) -> Shot:
        """Give the node's shot."""
        keep_session(node)
        return fetch_shot(node)

    @_of_live_node
    def fetch_settings(self, node: Any, shot: Shot) -> NodeSettings:
        """Give what the node's knobs say besides the shot."""
        propagation = PropagationSettings(
            first=shot.first,
            last=shot.last,
            working_size=int(node["working_size"].value()),
            threshold=float(node["threshold"].value()),
            layout="layered" if node["output_mode"].value() == LAYERS else "per-object",
        )
        suggestion = SuggestionSettings(
            count=int(node["suggest_count"].value()), alpha=float(node["suggest_alpha"].value())
        )
        return NodeSettings(propagation, suggestion, self.fetch_connection_file(node), fetch_current_frame())

    @_of_live_node
    def fetch_connection_file(self, node: Any) -> Path:
        """Give where the node's server says it is."""
        return fetch_connection_file(node["server"].value())

    @_of_live_node
    def fetch_fingerprint(self, node: Any, shot: Shot, kind: str, frame: int) -> str:
        """Give what a frame's pixels are known by before it is rendered."""
        return fetch_fingerprint(node, shot, kind, frame)

    def render_frames(self, node: Any, shot: Shot, wanted: Sequence[tuple[str, int]]) -> Iterator[RenderedFrame]:
        """Give the frames, one rendered at each step."""
        frames = render_frames(node, shot, wanted)
        while True:
            if not is_alive(node):
                raise NodeGoneError
            try:
                frame = next(frames)
            except StopIteration:
                return
            except RenderCancelledError as error:
                raise RenderStoppedError(str(error)) from error
            yield frame

    @_of_live_node
    def fetch_keyed(self, node: Any) -> tuple[int, ...]:
        """Give the frames marked as sent."""
        return fetch_marks(node["keyed"])

    @_of_live_node
    def fetch_suggested(self, node: Any) -> tuple[int, ...]:
        """Give the frames marked as suggested."""
        return fetch_marks(node["suggested"])

    @_of_live_node
    def write_keyed(self, node: Any, frames: Sequence[int]) -> None:
        """Mark the frames whose keys were sent."""
        _write_marks(node["keyed"], frames, "XMem: keys sent")

    @_of_live_node
    def write_suggested(self, node: Any, frames: Sequence[int]) -> None:
        """Mark frames as suggested."""
        _write_marks(node["suggested"], frames, "XMem: keys suggested")

    @_of_live_node
    def write_status(self, node: Any, text: str) -> None:
        """Show a line of text on the node; the script is not changed by it."""
        if node["status"].value() != text:
            modified = nuke.root().modified()
            with _no_undo():
                node["status"].setValue(text)
            nuke.root().setModified(modified)

    @_of_live_node
    def show_mattes(self, node: Any, shot: Shot) -> None:
        """Point the node at its mattes and have it read them again."""
        is_layered = node["output_mode"].value() == LAYERS
        with _no_undo():
            _set_text(node["layers_file" if is_layered else "matte_file"], _name_mattes(node, shot))
            for name in _READS:
                node.node(name)["reload"].execute()


def is_alive(node: Any) -> bool:
    """Whether the node is still there."""
    try:
        node.fullName()
    except ValueError:  # "A PythonObject is not attached to a node"
        return False
    return True


def keep_session(node: Any) -> str:
    """Give the node's session, made when it has none, or when another node of the script has the same: then this is a copy.

    Runs on every creation of a node: by the artist, by loading a script, by pasting and by undoing a deletion.
    """
    knob = node["session"]
    session = str(knob.value())
    owner = _owners.get(session) if session else None
    if owner is not None and (_is_same(owner, node) or not _has_session(owner, session)):
        owner = None  # there is no other node that has it
    if session and owner is None:
        _owners[session] = node
        return session
    own = uuid.uuid4().hex
    with _no_undo():
        knob.setValue(own)
        if owner is not None and owner["session"].value() == own:  # a clone: it shares its knobs, and so the session
            knob.setValue(session)
            return session
        if owner is not None:
            _forget_results(node)
    _owners[own] = node
    return own


def fetch_nodes() -> tuple[tuple[str, str], ...]:
    """Give session and name of every XMem node of the script, by name. Asks for no other node: some Nukes count them."""
    living = [(session, node) for session, node in _owners.items() if _has_session(node, session)]
    return tuple(sorted(((session, str(node.fullName())) for session, node in living), key=lambda pair: pair[1]))


def find_node(session: str) -> Any:
    """Give the node of a session, None when there is none."""
    node = _owners.get(session)
    return node if node is not None and _has_session(node, session) else None


def show_object(node: Any) -> None:
    """Point the node at the mattes of the object that its knob names, when it has mattes at all."""
    knob = node["matte_file"]
    if knob.value():
        cache = Path(str(knob.value())).parent.parent
        with _no_undo():
            _set_text(knob, (matte_folder(cache, int(node["show_object"].value())) / _FILE_NAME).as_posix())


def add_key(node: Any, frame: int) -> None:
    """Have a frame sent as a key, besides those of the roto."""
    _edit_keys(node, {*_fetch_frames(node, "manual_keys"), frame}, _fetch_frames(node, "removed_keys") - {frame})


def remove_key(node: Any, frame: int) -> None:
    """Have a frame not sent as a key, whatever the roto says."""
    _edit_keys(node, _fetch_frames(node, "manual_keys") - {frame}, {*_fetch_frames(node, "removed_keys"), frame})


def fetch_marks(knob: Any) -> tuple[int, ...]:
    """Give the frames at which an animated knob has a key, in order."""
    if not knob.isAnimated():
        return ()
    return tuple(sorted({round(time) for time in knob.getKeyList()}))


def fetch_current_frame() -> int:
    """Give the frame that the artist looks at."""
    return int(nuke.frame())


def jump(frame: int) -> None:
    """Go to a frame; viewers follow."""
    nuke.root().setFrame(frame)


def _fetch_frames(node: Any, name: str) -> set[int]:
    return set(parse_frames(str(node[name].value())))


def _edit_keys(node: Any, manual: set[int], removed: set[int]) -> None:
    with _one_undo("XMem: keys"):
        _set_text(node["manual_keys"], " ".join(map(str, sorted(manual))))
        _set_text(node["removed_keys"], " ".join(map(str, sorted(removed))))


def _name_mattes(node: Any, shot: Shot) -> str:
    number = 0 if node["output_mode"].value() == LAYERS else int(node["show_object"].value())
    return (matte_folder(fetch_cache(shot), number) / _FILE_NAME).as_posix()


def _write_marks(knob: Any, frames: Sequence[int], name: str) -> None:
    wanted = tuple(sorted(set(frames)))
    if fetch_marks(knob) == wanted:
        return
    with _one_undo(name):
        if wanted:
            knob.fromScript("{curve " + " ".join(f"K x{frame} 1" for frame in wanted) + "}")
        else:
            knob.clearAnimated()


def _forget_results(node: Any) -> None:
    for name in ("keyed", "suggested"):
        if node[name].isAnimated():
            node[name].clearAnimated()
    for name in ("matte_file", "layers_file"):
        _set_text(node[name], "")
    node["status"].setValue(COPIED)


def _has_session(node: Any, session: str) -> bool:
    return is_alive(node) and node["session"].value() == session


def _is_same(one: Any, other: Any) -> bool:
    """Whether two Python objects are one node: by name, as nothing says that Nuke gives the same object each time."""
    return one is other or (is_alive(one) and one.fullName() == other.fullName())


def _set_text(knob: Any, text: str) -> None:
    if knob.value() != text:
        knob.setValue(text)


@contextlib.contextmanager
def _one_undo(name: str) -> Iterator[None]:
    """Make what is done inside one step of the artist's undo."""
    nuke.Undo.begin(name)
    try:
        yield
    finally:
        nuke.Undo.end()


@contextlib.contextmanager
def _no_undo() -> Iterator[None]:
    """Keep what is done inside out of the artist's undo."""
    was_on = not nuke.Undo.disabled()
    if was_on:
        nuke.Undo.disable()
    try:
        yield
    finally:
        if was_on:
            nuke.Undo.enable()
