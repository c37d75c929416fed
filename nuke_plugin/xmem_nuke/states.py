"""What the panel shows of a node: an immutable value, and the pure function that takes it one happening further."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from functools import singledispatch
from typing import Union

from xmem_nuke.orders import (
    CANCELLED,
    FAILED,
    KEY,
    PLATE,
    Ended,
    FrameRefused,
    FrameSent,
    Happening,
    KeysAccepted,
    MatteArrived,
    MattesOutdated,
    RenderWanted,
    ServerSeen,
    ServerSilent,
    StageMade,
    SuggestionsArrived,
    ThumbnailArrived,
)
from xmem_protocol import PRESENT, Key

# What a node is busy with.
IDLE = "idle"
COMPARING = "comparing"  # fingerprints of its frames with those of the last run
RENDERING = "rendering"
SENDING = "sending"
PROPAGATING = "propagating"
SUGGESTING = "suggesting"
CANCELLING = "cancelling"

# What became of a key.
IN_MEMORY = "in memory"
EDITED = "edited"
NEW = "new"
QUEUED = "sending"

WAITING = "waiting"  # the stage of a job whose turn has not come
_STAGES = {
    "decoding": "Reading the plate",
    "encoding": "Looking at the plate",
    "annotating": "Learning the keys",
    "previewing": "Looking around the playhead",
    "propagating": "Pulling mattes",
    "comparing": "Comparing frames",
}
_PHASES = {
    COMPARING: "Looking for changes",
    RENDERING: "Rendering",
    SENDING: "Sending",
    PROPAGATING: "Pulling mattes",
    SUGGESTING: "Looking for the next key",
    CANCELLING: "Cancelling",
}

ServerState = Union[ServerSeen, ServerSilent, None]


@dataclass(frozen=True)
class KeyRow:
    """A frame with a key: the objects drawn in it, those marked absent, and whether the server has it as it is now.

    ``thumbnail`` is the path of a PNG file of the key as the server has it, empty when there is none.
    """

    frame: int
    objects: tuple[int, ...]
    absent: tuple[int, ...]
    state: str
    thumbnail: str = ""


@dataclass(frozen=True)
class SuggestionRow:
    """A frame to annotate next, and why."""

    frame: int
    kind: str
    score: float
    reason: str


@dataclass(frozen=True)
class NodeState:
    """Everything there is to show of one XMem node. ``message`` is the last thing to tell the artist.

    ``eta_seconds`` is -1 when not known, ``note`` what the server says of how it works. The four counts are of the present or last run. Of the frames with ``mattes``, the
    ``provisional`` ones are a first look around the playhead, and the ``stale`` ones of earlier keys.
    """

    session: str
    name: str = ""
    phase: str = IDLE
    stage: str = ""
    first: int = 0
    last: int = -1
    done: int = 0
    total: int = 0
    frames_per_second: float = 0.0
    eta_seconds: float = -1.0
    note: str = ""
    keys: tuple[KeyRow, ...] = ()
    suggestions: tuple[SuggestionRow, ...] = ()
    mattes: frozenset[int] = frozenset()
    provisional: frozenset[int] = frozenset()
    stale: frozenset[int] = frozenset()
    refused: tuple[tuple[int, str], ...] = ()
    message: str = ""
    is_error: bool = False
    detail: str = ""
    rendered_keys: int = 0
    rendered_plates: int = 0
    sent_keys: int = 0
    sent_plates: int = 0

    @property
    def is_busy(self) -> bool:
        """Whether something is being done for the node."""
        return self.phase != IDLE


def begin_run(state: NodeState, name: str, frame_range: tuple[int, int], warnings: tuple[str, ...]) -> NodeState:
    """Give the state at the start of a run; what was there to see stays until it is replaced."""
    return dataclasses.replace(
        state,
        name=name,
        phase=COMPARING,
        stage="",
        first=frame_range[0],
        last=frame_range[1],
        done=0,
        total=frame_range[1] - frame_range[0] + 1,
        frames_per_second=0.0,
        eta_seconds=-1.0,
        refused=(),
        message=" ".join(warnings),
        is_error=False,
        detail="",
        rendered_keys=0,
        rendered_plates=0,
        sent_keys=0,
        sent_plates=0,
    )


def begin_suggesting(state: NodeState, name: str) -> NodeState:
    """Give the state at the start of a suggestion."""
    return dataclasses.replace(
        state,
        name=name,
        phase=SUGGESTING,
        stage="",
        done=0,
        total=0,
        eta_seconds=-1.0,
        message="",
        is_error=False,
        detail="",
    )


def fail(state: NodeState, message: str, detail: str = "") -> NodeState:
    """Give the state of a node that could not do what was asked."""
    return dataclasses.replace(state, phase=IDLE, message=message, is_error=True, detail=detail)


def note_rendered(state: NodeState, kind: str) -> NodeState:
    """Give the state after one frame was rendered."""
    done = state.done + 1
    if kind == KEY:
        return dataclasses.replace(state, done=done, rendered_keys=state.rendered_keys + 1)
    return dataclasses.replace(state, done=done, rendered_plates=state.rendered_plates + 1)


def update_key_rows(state: NodeState, rows: Iterable[KeyRow]) -> NodeState:
    """Give the state with other key rows."""
    return dataclasses.replace(state, keys=tuple(sorted(rows, key=lambda row: row.frame)))


def drop_suggestion(state: NodeState, frame: int) -> NodeState:
    """Give the state without the suggestion of a frame."""
    return dataclasses.replace(state, suggestions=tuple(row for row in state.suggestions if row.frame != frame))


@singledispatch
def update_state(happening: Happening, state: NodeState) -> NodeState:
    """Give the state after something the job said."""
    del happening
    return state


@update_state.register
def _(happening: RenderWanted, state: NodeState) -> NodeState:
    wanted = {frame for kind, frame in happening.frames if kind == KEY}
    rows = tuple(dataclasses.replace(row, state=QUEUED) if row.frame in wanted else row for row in state.keys)
    known = {row.frame for row in rows}
    rows += tuple(KeyRow(frame, (), (), QUEUED) for frame in sorted(wanted - known))
    phase = RENDERING if happening.frames else SENDING
    changed = dataclasses.replace(state, done=0, total=len(happening.frames), phase=_keep_cancelling(state, phase))
    return update_key_rows(changed, rows)


@update_state.register
def _(happening: FrameSent, state: NodeState) -> NodeState:
    if not happening.travelled:
        return state
    if happening.kind == PLATE:
        return dataclasses.replace(state, sent_plates=state.sent_plates + 1)
    return dataclasses.replace(state, sent_keys=state.sent_keys + 1)


@update_state.register
def _(happening: KeysAccepted, state: NodeState) -> NodeState:
    pictures = {row.frame: row.thumbnail for row in state.keys}
    accepted = fetch_key_rows(happening.keys)
    rows = tuple(dataclasses.replace(row, thumbnail=pictures.get(row.frame, "")) for row in accepted)
    keyed = {row.frame for row in rows}
    left = tuple(row for row in state.suggestions if row.frame not in keyed)
    return dataclasses.replace(state, keys=rows, suggestions=left, phase=_keep_cancelling(state, SENDING))


@update_state.register
def _(happening: StageMade, state: NodeState) -> NodeState:
    phase = state.phase if state.phase in (SUGGESTING, CANCELLING) else PROPAGATING
    return dataclasses.replace(
        state,
        phase=phase,
        stage=happening.stage,
        done=happening.done,
        total=happening.total,
        frames_per_second=happening.frames_per_second,
        eta_seconds=happening.eta_seconds,
        note=happening.note,
    )


@update_state.register
def _(happening: MatteArrived, state: NodeState) -> NodeState:
    frame = {happening.frame}
    return dataclasses.replace(
        state,
        mattes=state.mattes | frame,
        provisional=state.provisional | frame if happening.is_provisional else state.provisional - frame,
        stale=state.stale - frame,
        phase=_keep_cancelling(state, PROPAGATING),
    )


@update_state.register
def _(happening: MattesOutdated, state: NodeState) -> NodeState:
    stale = frozenset(frame for frame in state.mattes if happening.first <= frame <= happening.last)
    return dataclasses.replace(state, stale=state.stale | stale, provisional=state.provisional - stale)


@update_state.register
def _(happening: ThumbnailArrived, state: NodeState) -> NodeState:
    path = str(happening.path)
    rows = (dataclasses.replace(row, thumbnail=path) if row.frame == happening.frame else row for row in state.keys)
    return update_key_rows(state, rows)


@update_state.register
def _(happening: FrameRefused, state: NodeState) -> NodeState:
    return dataclasses.replace(state, refused=(*state.refused, (happening.frame, happening.message)))


@update_state.register
def _(happening: SuggestionsArrived, state: NodeState) -> NodeState:
    rows = tuple(SuggestionRow(found.frame, found.kind, found.score, found.reason) for found in happening.suggestions)
    return dataclasses.replace(state, suggestions=rows, message=happening.note)


@update_state.register
def _(happening: Ended, state: NodeState) -> NodeState:
    if happening.how == FAILED:
        return fail(state, f"{happening.message}{_explain_unsettled(state)}", happening.detail)
    ended = dataclasses.replace(state, phase=IDLE, is_error=False, detail=happening.detail, eta_seconds=-1.0)
    if happening.how == CANCELLED:
        return dataclasses.replace(ended, message=f"{happening.message}{_explain_unsettled(state)}")
    if state.phase == SUGGESTING:
        return dataclasses.replace(ended, message=_explain_suggestions(state))
    return dataclasses.replace(ended, message=_explain_done(state, happening.message))


def fetch_key_rows(keys: Iterable[Key]) -> tuple[KeyRow, ...]:
    """Give one row per frame for keys that the server has."""
    present: dict[int, list[int]] = {}
    absent: dict[int, list[int]] = {}
    for key in keys:
        (present if key.presence == PRESENT else absent).setdefault(key.frame, []).append(key.object_id)
    return tuple(
        KeyRow(frame, tuple(present.get(frame, ())), tuple(absent.get(frame, ())), IN_MEMORY)
        for frame in sorted({*present, *absent})
    )


def describe(state: NodeState, server: ServerState = None) -> str:
    """Give the line of text for the node's status knob."""
    if state.phase == IDLE:
        return state.message or "Ready."
    if isinstance(server, ServerSilent):
        return f"The server does not answer; waiting for it. {server.message}"
    if state.phase == PROPAGATING and state.stage == WAITING:
        soon = f", about {_seconds(state.eta_seconds)}" if state.eta_seconds >= 1 else ""
        return f"Waiting for {_count(state.total, 'other job')}{soon}."
    words = _STAGES.get(state.stage, _PHASES[state.phase]) if state.phase == PROPAGATING else _PHASES[state.phase]
    counted = f" {state.done}/{state.total}" if state.total and state.phase not in (CANCELLING, COMPARING) else ""
    note = f" Takes {state.note}." if state.note and state.phase == PROPAGATING else ""
    return f"{words}{counted}{describe_speed(state)}.{note}"


def describe_server(server: ServerState) -> str:
    """Give one line about the server."""
    if server is None:
        return "Looking for the server."
    if isinstance(server, ServerSilent):
        return server.message
    waiting = f", {_count(server.queued, 'job')} {'waits' if server.queued == 1 else 'wait'}" if server.queued else ""
    return (
        f"Server {server.version} is {server.state or 'there'} on {server.device} with model {server.model}{waiting}."
    )


def describe_speed(state: NodeState) -> str:
    """Give speed and time left, as far as they are known: ``, 2.5 frames/s, 1 min 20 s left``."""
    if state.phase != PROPAGATING or state.frames_per_second <= 0:
        return ""
    speed = f", {state.frames_per_second:.1f} frames/s"
    if state.eta_seconds < 0:
        return speed
    return f"{speed}, {_seconds(state.eta_seconds)} left"


def _seconds(number: float) -> str:
    minutes, seconds = divmod(round(number), 60)
    return f"{f'{minutes} min ' if minutes else ''}{seconds} s"


def _keep_cancelling(state: NodeState, phase: str) -> str:
    return CANCELLING if state.phase == CANCELLING else phase


def _explain_done(state: NodeState, summary: str) -> str:
    if state.refused:
        frame, words = state.refused[0]
        more = f" and {len(state.refused) - 1} more" if len(state.refused) > 1 else ""
        return f"Done, without frame {frame}{more}: {words}"
    travelled = f"{_count(state.sent_keys, 'key')} and {_count(state.sent_plates, 'plate frame')} travelled"
    how = f" The server {summary.rstrip('.')}." if summary else ""
    return f"Done: mattes on frames {state.first} to {state.last}; {travelled}.{how}"


def _explain_unsettled(state: NodeState) -> str:
    """Give a sentence on the mattes that are not what the present keys give; nothing when there are none."""
    parts = [f"{_count(len(state.provisional), 'matte')} provisional"] if state.provisional else []
    parts += [f"{_count(len(state.stale), 'matte')} of earlier keys"] if state.stale else []
    return f" Until then there are {' and '.join(parts)}." if parts else ""


def _explain_suggestions(state: NodeState) -> str:
    if not state.suggestions:
        return state.message or "No frame needs another key."
    frames = ", ".join(str(row.frame) for row in state.suggestions[:8])
    note = f" {state.message}" if state.message else ""
    first = state.suggestions[0]
    return f"Draw next: {frames}. Frame {first.frame}: {first.reason.rstrip('.')}.{note}"


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"
