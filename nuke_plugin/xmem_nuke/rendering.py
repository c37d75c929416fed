"""Plates and keys out of Nuke as EXR files, one frame at a time. Main thread only."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nuke

from xmem_nuke.shot import Shot, is_limited_edition, untouched_script
from xmem_protocol import InputError, XMemError

PLATE = "plate"
KEY = "key"
SOURCES = {PLATE: "PlateToSend", KEY: "RotoToSend"}  # the nodes of XMem.gizmo whose pictures are sent

WRITE_NAME = "XMemRender"

# Half is enough for display-referred plates; a key must reach the server unrounded (its matte is rounded once, there).
_DATATYPES = {PLATE: "16 bit half", KEY: "32 bit float"}
_RGBA_CHANNELS = {"rgba.red", "rgba.green", "rgba.blue", "rgba.alpha"}


class RenderCancelledError(XMemError):
    """The artist pressed Cancel in Nuke's own progress bar."""


@dataclass(frozen=True)
class RenderedFrame:
    """A frame that is whole on disk: ``kind`` is PLATE or KEY."""

    kind: str
    frame: int
    path: str


def render_frames(node: Any, shot: Shot, wanted: Sequence[tuple[str, int]]) -> Iterator[RenderedFrame]:
    """Render ``(kind, frame)`` after ``(kind, frame)``: each step renders one and leaves the script as it found it.

    A plate is display-referred half RGB; a key is float and carries the channels of all objects, as they are. Between
    two steps nothing is pending in the script, so the iteration may be dropped at any time. Raises RenderCancelledError,
    and InputError when Nuke cannot render a frame.
    """
    folder = Path(shot.cache_dir, shot.session or shot.node_name, "renders")
    for kind, frame in wanted:
        path = folder / f"{kind}.{frame}.exr"
        _render_frame(node, shot, kind, frame, path)
        yield RenderedFrame(kind, frame, path.as_posix())


def _render_frame(node: Any, shot: Shot, kind: str, frame: int, path: Path) -> None:
    try:
        os.makedirs(path.parent, exist_ok=True)  # noqa: PTH103 - one call, and Write's own option fails less clearly
        with contextlib.suppress(FileNotFoundError):
            path.unlink()  # so that what is there afterwards is this render's
    except OSError as error:
        raise InputError(
            f"The cache directory {path.parent} cannot be written ({error.strerror}). Choose another one in the Output tab."
        ) from error
    with untouched_script(), _temporary_write(node) as write:
        try:
            _set_up(write, node, shot, kind, path)
            nuke.execute(write, frame, frame, 1)
        except (RuntimeError, nuke.CancelledError) as error:
            raise _explain(error, kind, frame) from error
    if not path.is_file() or not path.stat().st_size:
        raise InputError(
            f"Frame {frame} of the {kind} was rendered but {path} is not there. Check the disk and its permissions."
        )


@contextlib.contextmanager
def _temporary_write(node: Any) -> Iterator[Any]:
    """Give a Write inside the node's group, gone again afterwards. Nuke selects and connects nothing for a node made so.

    An edition that shows Python ten nodes counts each new one; there one Write stays in the group, disabled.
    """
    limited = is_limited_edition()
    write = node.node(WRITE_NAME) if limited else None
    if write is None:
        with node:
            write = nuke.nodes.Write()
        write.setName(WRITE_NAME)
    try:
        write["disable"].setValue(False)
        yield write
    finally:
        if limited:
            write["disable"].setValue(True)
        else:
            nuke.delete(write)


def _set_up(write: Any, node: Any, shot: Shot, kind: str, path: Path) -> None:
    write.setInput(0, node.node(SOURCES[kind]))
    write["file"].setValue(path.as_posix())
    write["file_type"].setValue("exr")  # the knobs of a file type exist once it is set
    write["datatype"].setValue(_DATATYPES[kind])
    write["compression"].setValue("Zip (1 scanline)")
    write["channels"].setValue("rgb" if kind == PLATE else _key_channels(shot))
    write["raw"].setValue(True)  # the gizmo has converted the plate; an alpha has no colour


def _key_channels(shot: Shot) -> str:
    used = {pair.channel for pair in shot.objects}
    if used == {"rgba.alpha"}:
        return "alpha"
    return "rgba" if used <= _RGBA_CHANNELS else "all"


def _explain(error: Exception, kind: str, frame: int) -> XMemError:
    reason = " ".join(str(error).split())
    if isinstance(error, nuke.CancelledError) or reason.lower() in ("cancelled", "canceled"):
        return RenderCancelledError(f"Rendering was cancelled at frame {frame} of the {kind}. Press Run to go on.")
    return InputError(
        f"Frame {frame} of the {kind} could not be rendered: {reason}. Correct the nodes above it, then press Run."
    )
