"""A plain stand-in for Nuke: nodes are values in a table, renders are real EXR files, and the main thread is the test's."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

from tests.nuke.pictures import HEIGHT, WIDTH, box, plate_channels, save_exr
from xmem_nuke.host import NodeGoneError, NodeSettings, RenderStoppedError
from xmem_protocol import InputError, PropagationSettings, SuggestionSettings


@dataclass
class StandInNode:
    """What a test changes to play the artist."""

    session: str
    name: str = "XMem1"
    first: int = 1001
    last: int = 1004
    keys: dict = field(default_factory=lambda: {1001: 8})  # frame -> left edge of the square
    grade: int = 0
    is_gone: bool = False
    status: list = field(default_factory=list)
    keyed: list = field(default_factory=list)
    suggested: list = field(default_factory=list)
    shown: list = field(default_factory=list)  # times at which the matte Read was refreshed
    trouble: str = ""


class StandInHost:
    """Nuke as the controller sees it. ``pump`` runs what was posted, as Nuke's event loop does."""

    def __init__(self, folder, connection_file, render_seconds=0.0):
        self.folder = folder
        self.connection_file = connection_file
        self.render_seconds = render_seconds
        self.rendered = []
        self.longest = 0.0  # seconds that one posted call held the main thread, renders left out
        self.stop_render_at = None
        self.playhead = 0  # outside every shot here
        self.on_render = lambda kind, frame: None  # what the artist does while Nuke renders
        self._posted = queue.Queue()
        self._thread = threading.current_thread()
        self._spent_rendering = 0.0

    def post(self, call):
        self._posted.put(call)

    def pump(self, until, seconds=30):
        """Be Nuke's event loop until something holds."""
        end = time.monotonic() + seconds
        while not until():
            assert time.monotonic() < end, "it did not happen in time"
            with contextlib.suppress(queue.Empty):
                call = self._posted.get(timeout=0.01)
                self._spent_rendering = 0.0
                began = time.monotonic()
                call()
                self.longest = max(self.longest, time.monotonic() - began - self._spent_rendering)

    def _check(self, node):
        assert threading.current_thread() is self._thread, "Nuke was touched off the main thread"
        if node.is_gone:
            raise NodeGoneError

    def is_interactive(self):
        return True

    def fetch_session(self, node):
        self._check(node)
        return node.session

    def fetch_shot(self, node):
        self._check(node)
        if node.trouble:
            raise InputError(node.trouble)
        return SimpleNamespace(
            node_name=node.name,
            session=node.session,
            width=WIDTH,
            height=HEIGHT,
            pixel_aspect=1.0,
            first=node.first,
            last=node.last,
            colorspace="display",
            proxy=False,
            objects=(SimpleNamespace(object_id=1, channel="rgba.alpha"),),
            key_frames=tuple(sorted(node.keys)),
            key_objects=((1,),) * len(node.keys),
            cache_dir=str(self.folder / "cache"),
            warnings=(),
        )

    def fetch_settings(self, node, shot):
        self._check(node)
        propagation = PropagationSettings(shot.first, shot.last)
        return NodeSettings(propagation, SuggestionSettings(1), Path(self.connection_file), self.playhead)

    def fetch_connection_file(self, node):
        self._check(node)
        return Path(self.connection_file)

    def fetch_fingerprint(self, node, shot, kind, frame):
        self._check(node)
        return f"{frame} {node.keys[frame] if kind == 'key' else node.grade}"

    def render_frames(self, node, shot, wanted):
        for kind, frame in wanted:
            self._check(node)
            if self.stop_render_at == frame:
                raise RenderStoppedError(f"Rendering was cancelled at frame {frame}.")
            began = time.monotonic()
            time.sleep(self.render_seconds)
            channels = {"A": box(node.keys[frame])} if kind == "key" else plate_channels(frame + 100 * node.grade)
            path = save_exr(self.folder / "renders" / f"{node.session}.{kind}.{frame}.exr", channels)
            self.rendered.append((kind, frame))
            self.on_render(kind, frame)
            self._spent_rendering += time.monotonic() - began
            yield SimpleNamespace(kind=kind, frame=frame, path=str(path))

    def fetch_keyed(self, node):
        self._check(node)
        return tuple(node.keyed)

    def fetch_suggested(self, node):
        self._check(node)
        return tuple(node.suggested)

    def write_suggested(self, node, frames):
        self._check(node)
        node.suggested = list(frames)

    def write_keyed(self, node, frames):
        self._check(node)
        node.keyed = list(frames)

    def write_status(self, node, text):
        self._check(node)
        node.status.append(text)

    def show_mattes(self, node, shot):
        self._check(node)
        node.shown.append(time.monotonic())
