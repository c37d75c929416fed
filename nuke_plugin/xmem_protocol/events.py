"""What a job says while it runs: the events that follow a Follow, in the order of their numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from xmem_protocol.messages import Message
from xmem_protocol.values import MatteFile, Suggestion


@dataclass(frozen=True)
class Event(Message):
    """Base of what a job says while it runs. ``seq`` counts from 1 within the job and is never reused.

    Progress has seq 0: it is not stored and may be dropped; everything else may not.
    """

    job: str
    seq: int


@dataclass(frozen=True)
class Progress(Event):
    """Where a job is. Times are in seconds; ``eta_seconds`` is -1 when not known yet. ``note`` says how it works: memory, working size."""

    TYPE: ClassVar[str] = "progress"
    stage: str  # waiting, decoding, encoding, annotating, previewing, propagating, comparing
    done: int
    total: int
    frame: int
    frames_per_second: float
    eta_seconds: float
    note: str = ""


@dataclass(frozen=True)
class MatteReady(Event):
    """A frame is finished: its files are whole and stored."""

    TYPE: ClassVar[str] = "matte_ready"
    frame: int
    is_key: bool
    files: tuple[MatteFile, ...]


@dataclass(frozen=True)
class MatteProvisional(MatteReady):
    """A frame as a first look around the playhead has it: whole and stored, until MatteReady of the same frame replaces it."""

    TYPE: ClassVar[str] = "matte_provisional"


@dataclass(frozen=True)
class MattesStale(Event):
    """Mattes of these frames, if there are any from before, are of other keys, until MatteReady says otherwise of each."""

    TYPE: ClassVar[str] = "mattes_stale"
    first: int
    last: int


@dataclass(frozen=True)
class FrameFailed(Event):
    """One frame could not be read; the job goes on without it."""

    TYPE: ClassVar[str] = "frame_failed"
    frame: int
    message: str


@dataclass(frozen=True)
class SuggestionsReady(Event):
    """The answer of a suggestion job: frames to annotate next, best first."""

    TYPE: ClassVar[str] = "suggestions_ready"
    suggestions: tuple[Suggestion, ...]
    note: str  # says why the list is shorter than asked for; else empty


@dataclass(frozen=True)
class JobDone(Event):
    """A job has finished; its last event."""

    TYPE: ClassVar[str] = "job_done"
    summary: str  # one line: working size, colour transform, policy


@dataclass(frozen=True)
class JobFailed(Event):
    """A job could not be finished; its last event."""

    TYPE: ClassVar[str] = "job_failed"
    code: str
    message: str


@dataclass(frozen=True)
class JobCancelled(Event):
    """A job stopped because it was asked to; its last event."""

    TYPE: ClassVar[str] = "job_cancelled"
