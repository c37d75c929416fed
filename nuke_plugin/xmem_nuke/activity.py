"""What is being done for one node: its job, and the main thread's part of it, one small step at a time."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Callable

from xmem_nuke.host import Host, Node, NodeGoneError, NodeSettings, RenderStoppedError
from xmem_nuke.job import Job
from xmem_nuke.orders import (
    CANCELLED,
    FAILED,
    KEY,
    PLATE,
    Content,
    Ended,
    Happening,
    Rendered,
    RenderWanted,
    RunOrder,
    SuggestOrder,
)
from xmem_protocol import Shot as WireShot
from xmem_protocol import XMemError

if TYPE_CHECKING:
    from xmem_client import Client
    from xmem_nuke.rendering import RenderedFrame
    from xmem_nuke.shot import Shot

_BUDGET = 0.03  # seconds of the main thread per step, besides the render of one frame
_BACKLOG = 4  # rendered frames that may wait to be sent: what a broken connection leaves on disk
_PATIENCE = 5.0  # seconds after Cancel; then the job is left alone, and its thread ends when the server is given up

Connect = Callable[[], "Client"]


class Activity:
    """One order of one node under way. Belongs to the main thread."""

    def __init__(self, node: Node, shot: Shot, job: Job) -> None:
        self.node = node
        self.shot = shot
        self.session = shot.session
        self._job = job
        self._cancelled_at = 0.0
        self._ended: Ended | None = None
        job.start()

    @property
    def wants_render(self) -> bool:
        """Whether a frame can be rendered now."""
        return False

    def step(self, host: Host) -> Iterator[Happening]:
        """Do a little that does not render, and give what happened; Ended comes last, once."""
        del host
        began = time.monotonic()
        for happening in self._job.fetch_happenings():
            if isinstance(happening, Ended):
                self.close()
                yield self._ended or happening
                return
            self._note(happening)
            yield happening
            if time.monotonic() - began > _BUDGET:
                return
        if self._cancelled_at and time.monotonic() - self._cancelled_at > _PATIENCE:
            yield self._ended or Ended(
                CANCELLED, "Cancelled. The server has not answered since; it may go on by itself."
            )

    def render(self, host: Host) -> str:
        """Render one frame and hand it over; give its kind, empty when there was none."""
        del host
        return ""

    def cancel(self, message: str = "") -> None:
        """Stop; Ended comes at a later step, within seconds, with this message if there is one."""
        if message:
            self._ended = Ended(CANCELLED, message)
        self._cancelled_at = self._cancelled_at or time.monotonic()
        self.close()
        self._job.cancel()

    def fail(self, message: str, detail: str = "") -> None:
        """Stop because the main thread's part went wrong."""
        self._ended = Ended(FAILED, message, detail)
        self.cancel()

    def close(self) -> None:
        """Let go of what holds Nuke."""

    def _note(self, happening: Happening) -> None:
        """Learn from what the job said."""


class Suggesting(Activity):
    """Looks for the next frames to annotate."""

    def __init__(self, node: Node, shot: Shot, settings: NodeSettings, connect: Connect) -> None:
        order = SuggestOrder(name_session(shot), settings.suggestion)
        super().__init__(node, shot, Job(order, connect))


class Running(Activity):
    """Compares, renders and sends what changed, and brings the mattes."""

    def __init__(self, node: Node, shot: Shot, settings: NodeSettings, connect: Connect) -> None:
        order = RunOrder(
            session=name_session(shot),
            shot=fetch_wire_shot(shot),
            objects=tuple((drawn.object_id, drawn.channel) for drawn in shot.objects),
            settings=settings.propagation,
            cache=fetch_cache(shot),
            given=tuple(zip(shot.key_frames, shot.key_objects)),
            playhead=settings.playhead if shot.first <= settings.playhead <= shot.last else None,
        )
        super().__init__(node, shot, Job(order, connect))
        self.playhead = order.playhead
        self.fingerprints: dict[tuple[str, int], str] = {}
        keys = [(KEY, frame) for frame in shot.key_frames]
        self._unknown = [*keys, *((PLATE, frame) for frame in range(shot.first, shot.last + 1))]
        self._unknown.reverse()
        self._wanted: list[tuple[str, int]] = []
        self._frames: Iterator[RenderedFrame] | None = None
        self._is_rendering = False

    @property
    def wants_render(self) -> bool:
        """Whether a frame can be rendered now."""
        return bool(self._wanted) and not self._cancelled_at and self._job.fetch_backlog() < _BACKLOG

    def step(self, host: Host) -> Iterator[Happening]:
        """Compare some frames with the last run, and give what happened."""
        if self._unknown and not self._cancelled_at:
            self._compare(host)
        yield from super().step(host)

    def render(self, host: Host) -> str:
        """Render one frame and hand it over; give its kind."""
        if self._frames is None:
            self._frames = host.render_frames(self.node, self.shot, tuple(self._wanted))
        self._is_rendering = True
        try:
            frame = next(self._frames)
        finally:
            self._is_rendering = False
        if self._cancelled_at:  # Nuke lets the artist press buttons while it renders
            self.close()
            return ""
        self._wanted.remove((frame.kind, frame.frame))
        if not self._wanted:
            self.close()
        self._job.give_rendered(Rendered(frame.kind, frame.frame, Path(frame.path)))
        return frame.kind

    def close(self) -> None:
        """Stop rendering: everything in Nuke is as it was."""
        self._wanted = []
        if self._is_rendering:  # Cancel was pressed inside the render; it closes when the frame is done
            return
        frames, self._frames = self._frames, None
        if frames is not None and hasattr(frames, "close"):
            frames.close()

    def _note(self, happening: Happening) -> None:
        if isinstance(happening, RenderWanted):
            self._wanted = list(happening.frames)

    def _compare(self, host: Host) -> None:
        began = time.monotonic()
        while self._unknown and time.monotonic() - began < _BUDGET:
            kind, frame = self._unknown.pop()
            self.fingerprints[kind, frame] = host.fetch_fingerprint(self.node, self.shot, kind, frame)
        if not self._unknown:
            self._job.give_contents(tuple(Content(*place, known) for place, known in self.fingerprints.items()))


def do_safely(activity: Activity, work: Callable[[], str]) -> str:
    """Give what the main thread's part gave, empty when it went wrong: then the activity fails in the artist's words."""
    try:
        return work()
    except NodeGoneError:
        activity.cancel()
    except RenderStoppedError as error:
        activity.cancel(str(error))
    except XMemError as error:
        activity.fail(str(error))
    except Exception as error:  # noqa: BLE001 - Nuke raises RuntimeError and ValueError for whatever goes wrong inside it
        words = str(error).strip(" .") or type(error).__name__
        activity.fail(f"Nuke could not go on: {words}. Check the nodes above, then press Run again.", repr(error))
    return ""


def fetch_cache(shot: Shot) -> Path:
    """Give the folder of this session's mattes."""
    return Path(shot.cache_dir) / shot.session


def fetch_wire_shot(shot: Shot) -> WireShot:
    """Give the shot as the server wants it. The node's name is left out: renaming it makes no other shot."""
    return WireShot(
        name=shot.session,
        width=shot.width,
        height=shot.height,
        pixel_aspect=float(shot.pixel_aspect),
        first=shot.first,
        last=shot.last,
        colorspace=shot.colorspace,
    )


def name_session(shot: Shot) -> str:
    """Give the server's name for this node's session: another one for another range or format, which is another shot there."""
    fields = json.dumps(dataclasses.asdict(fetch_wire_shot(shot)), sort_keys=True)
    return f"{shot.session}-{hashlib.sha256(fields.encode()).hexdigest()[:8]}"
