"""nuke.execute: renders Writes to real files, frame by frame."""
# ruff: noqa: N802 - the names are Nuke's own; keys() of a curve is no dict's

from __future__ import annotations

import time
from pathlib import Path

from . import state
from .files import write_exr, write_png
from .images import select_channels
from .operators import evaluate_node, halve


class CancelledError(Exception):
    """nuke.CancelledError."""


class FrameRanges:
    """nuke.FrameRanges from a list of frames."""

    def __init__(self, frames=()):
        self._frames = sorted(int(frame) for frame in frames)

    def toFrameList(self):
        return list(self._frames)


class Renders:
    """What was rendered, and how the next renders are to go: their time, a cancel, a failure."""

    def __init__(self):
        self.done = []  # (path, frame)
        self.seconds = 0.0
        self.cancel_at = None  # a frame
        self.fail_at = None
        self.lose_at = None  # the file is not there afterwards, as on a full disk


def execute(target, start, end=None, incr=1, views=None, continueOnError=False):
    """nuke.execute(node or name, first, last, step) or (node or name, FrameRanges)."""
    app = state.app()
    app.rules.check_thread("nuke.execute")
    app.rules.check_idle()
    del views, continueOnError
    node = app.find_node(target) if isinstance(target, str) else target
    if node is None or node._kind != "Write":
        raise RuntimeError(f"{target} is not executable")
    frames = start.toFrameList() if isinstance(start, FrameRanges) else range(int(start), int(end) + 1, int(incr))
    app.rules.executing = True
    try:
        for frame in frames:
            # Whether a render leaves the script's frame alone is not known, so the double does not.
            app.root._knobs["frame"]._channels = [float(frame)]
            app.callbacks.run_text_of(node, "beforeFrameRender")
            _render(node, frame)
            app.callbacks.run_text_of(node, "afterFrameRender")
    finally:
        app.rules.executing = False


def _render(node, frame):
    app, renders, started = state.app(), state.app().renders, time.perf_counter()
    if frame == renders.cancel_at:
        raise RuntimeError("Cancelled")
    if frame == renders.fail_at:
        raise RuntimeError("Read1: damaged file")
    if node._knobs["disable"]._at(frame)[0] or node._source(0) is None:
        raise RuntimeError(f"{node._name}: nothing to render")
    path = state.fill_frame(node._knobs["file"]._evaluated(frame), frame)
    picture = evaluate_node(node, frame)
    if app.root.proxy():
        picture = halve(picture)
    _check_write(node, path)
    names = sorted(select_channels(node._knobs["channels"]._text, picture.channels) & picture.channels.keys())
    if not names:
        raise RuntimeError(f"{node._name}: no channels to write")
    if not Path(path).parent.is_dir():
        if not node._knobs["create_directories"]._at(frame)[0]:
            raise RuntimeError(f"{path}: No such file or directory")
        Path(path).parent.mkdir(parents=True)
    if frame != renders.lose_at:
        write = {"exr": write_exr, "png": write_png}[node._knobs["file_type"]._word]
        write(path, picture, names, node._find_knob("datatype")._word)
    renders.done.append((path, frame))
    time.sleep(renders.seconds)
    app.main_thread.note_render(time.perf_counter() - started)


def _check_write(node, path):
    kind = node._knobs["file_type"]._word
    if kind not in ("exr", "png") or not path.endswith(f".{kind}"):
        raise NotImplementedError(f"the double does not write {path} as {kind!r}")
    if not node._knobs["raw"]._at(0)[0]:
        raise NotImplementedError("the double writes raw pixels alone")
