"""What the network process asks of an engine process, and what the engine answers: plain values, no torch, no sockets.

They travel over the engine's pipes as msgpack maps (see ``engines.py``). Paths are absolute and on this machine.
Frame numbers are Nuke's own integers; object ids the artist's.
"""

from __future__ import annotations

from dataclasses import dataclass

from xmem_protocol import Key, PropagationSettings, Shot, Suggestion, SuggestionSettings

PREVIEW_FRAMES = (
    12  # shown to either side of the playhead at most: the neighbourhood, for the exact pass waits meanwhile
)


@dataclass(frozen=True)
class PlateSource:
    """Where the pixels of one plate frame are: a file, its original suffix, and the picture's place in it."""

    frame: int
    path: str
    sha256: str
    index: int
    suffix: str


@dataclass(frozen=True)
class KeySource:
    """One key and the file that holds its alpha (``path`` is empty when the object is absent)."""

    key: Key
    path: str


@dataclass(frozen=True)
class MatteSource:
    """A stored matte of one object at one frame; object 0 is the layered file."""

    frame: int
    object_id: int
    path: str
    suffix: str


@dataclass(frozen=True)
class PropagationPlan:
    """One propagation, complete in itself.

    ``finished`` are frames whose mattes are stored already: the engine passes through them without writing them again.
    ``snapshot`` is the newest stored snapshot of this same plan, or empty; new ones are written below ``scratch``.
    ``cache`` is a folder for encoded features, shared by every job of the session. ``scratch`` is the job's own.
    ``colour_id`` is what the shot's colour space did to numbers when the job was started: it names what is made of them.
    ``playhead`` is the frame to look at first, if there is one, and ``before`` the mattes that there were of earlier keys: neither
    changes what the job gives in the end. ``note`` is the engine's own: how it will work.
    """

    job: str
    session: str
    shot: Shot
    plates: tuple[PlateSource, ...]
    keys: tuple[KeySource, ...]
    settings: PropagationSettings
    finished: tuple[int, ...]
    snapshot: str
    cache: str
    scratch: str
    colour_id: str = ""
    playhead: tuple[int, ...] = ()
    before: tuple[MatteSource, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class SuggestionPlan:
    """One suggestion: the plates, the keys, and the mattes of the propagation it looks at.

    ``propagation`` are that propagation's settings: the working size and the threshold must be the same. ``colour_id`` is
    its too, so that its encoded features are found.
    """

    job: str
    session: str
    shot: Shot
    plates: tuple[PlateSource, ...]
    keys: tuple[KeySource, ...]
    mattes: tuple[MatteSource, ...]
    settings: SuggestionSettings
    propagation: PropagationSettings
    cache: str
    colour_id: str = ""


# ------------------------------------------------------------------------------------------------- what an engine says


@dataclass(frozen=True)
class Pause:
    """Have a propagation stop after its next frame, leaving a snapshot, so that another client's job can run."""

    job: str


@dataclass(frozen=True)
class EnginePaused:
    """The job stopped where its newest snapshot is; given to an engine again, it goes on from there."""

    job: str


@dataclass(frozen=True)
class EngineReady:
    """The engine has loaded its model and waits for work."""

    device: str
    model: str
    model_sha256: str


@dataclass(frozen=True)
class EngineRefused:
    """The engine cannot start: wrong checkpoint, no such device. ``message`` is for the artist."""

    message: str


@dataclass(frozen=True)
class EngineProgress:
    """Where the job is; may be dropped. ``note`` says how it works: its memory, its working size."""

    job: str
    stage: str
    done: int
    total: int
    frame: int
    frames_per_second: float
    eta_seconds: float
    note: str = ""


@dataclass(frozen=True)
class WrittenMatte:
    """A finished file below the plan's scratch folder, flushed to disk; ``object_id`` 0 is the layered file."""

    object_id: int
    path: str
    sha256: str
    nbytes: int
    suffix: str


@dataclass(frozen=True)
class EngineMatte:
    """One frame's files are written; the session stores them. Those of a preview are ``is_provisional``."""

    job: str
    frame: int
    is_key: bool
    files: tuple[WrittenMatte, ...]
    is_provisional: bool = False


@dataclass(frozen=True)
class EngineSnapshot:
    """The state after ``frame`` is written to ``path`` (below scratch), flushed: a restart may go on from there."""

    job: str
    frame: int
    path: str


@dataclass(frozen=True)
class EngineFrameFailed:
    """One frame could not be read; the job goes on."""

    job: str
    frame: int
    message: str


@dataclass(frozen=True)
class EngineSuggestions:
    """The answer to a SuggestionPlan."""

    job: str
    suggestions: tuple[Suggestion, ...]
    note: str


@dataclass(frozen=True)
class EngineDone:
    """The job is finished."""

    job: str
    summary: str


@dataclass(frozen=True)
class EngineFailed:
    """The job cannot be finished; ``code`` is an error code of xmem_protocol."""

    job: str
    code: str
    message: str


@dataclass(frozen=True)
class EngineCancelled:
    """The job stopped because it was asked to."""

    job: str
