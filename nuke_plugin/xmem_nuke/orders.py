"""What the main thread asks of a job, and what the job says back: frozen values, and nothing that imports Nuke or a socket."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Union

from xmem_protocol import Key, PropagationSettings, Shot, Suggestion, SuggestionSettings

PLATE = "plate"
KEY = "key"

DONE = "done"
FAILED = "failed"
CANCELLED = "cancelled"

_EXR_CHANNELS = {"red": "R", "green": "G", "blue": "B", "alpha": "A"}  # as Nuke's Write names the channels of rgba


# ------------------------------------------------------------------------------------------- from the main thread


@dataclass(frozen=True)
class RunOrder:
    """Send a shot and its keys, propagate, and bring the mattes back.

    ``objects`` pairs the artist's object numbers with the channels of a key's file. ``cache`` is the folder of this
    session: mattes go to ``cache/OBJECT/FRAME.exr``. ``given`` pairs key frames with the objects keyed on them; a frame
    that is not in it has them all. ``playhead`` is the frame to show first, None for none.
    """

    session: str
    shot: Shot
    objects: tuple[tuple[int, str], ...]
    settings: PropagationSettings
    cache: Path
    given: tuple[tuple[int, tuple[int, ...]], ...] = ()
    playhead: int | None = None


@dataclass(frozen=True)
class SuggestOrder:
    """Say which frames to annotate next, from the mattes of the last propagation."""

    session: str
    settings: SuggestionSettings


Order = Union[RunOrder, SuggestOrder]


@dataclass(frozen=True)
class Content:
    """A frame before it is rendered: ``kind`` is PLATE or KEY, an empty ``fingerprint`` means that it must be rendered."""

    kind: str
    frame: int
    fingerprint: str


@dataclass(frozen=True)
class Rendered:
    """A frame that Nuke has just written to ``path``. The job sends the file, then deletes it."""

    kind: str
    frame: int
    path: Path


# ------------------------------------------------------------------------------------------------- from the job


@dataclass(frozen=True)
class ServerSeen:
    """Who answered: its version, what computes, and how many jobs wait there."""

    version: str
    device: str
    model: str
    state: str
    queued: int


@dataclass(frozen=True)
class ServerSilent:
    """Nobody answers; ``message`` says so in the artist's words."""

    message: str


@dataclass(frozen=True)
class RenderWanted:
    """The frames that must be rendered, keys first: ``(kind, frame)`` each. All others are known and on the server."""

    frames: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class FrameSent:
    """A rendered frame is on the server; ``travelled`` is False when its pixels were there already."""

    kind: str
    frame: int
    travelled: bool


@dataclass(frozen=True)
class KeysAccepted:
    """The keys as the server has journalled them, in order of frame, then object."""

    keys: tuple[Key, ...]


@dataclass(frozen=True)
class ThumbnailArrived:
    """A small picture of a key is in the cache folder: PNG, drawn by the server."""

    frame: int
    path: Path


@dataclass(frozen=True)
class StageMade:
    """Where the server is. Times are in seconds; ``eta_seconds`` is -1 when not known yet. ``note`` says how it works: its memory, its size."""

    stage: str
    done: int
    total: int
    frame: int
    frames_per_second: float
    eta_seconds: float
    note: str = ""


@dataclass(frozen=True)
class MatteArrived:
    """The mattes of a frame are in the cache folder, whole; provisional ones are replaced before the run is done."""

    frame: int
    is_key: bool
    is_provisional: bool = False


@dataclass(frozen=True)
class MattesOutdated:
    """Mattes of these frames are of earlier keys until they arrive."""

    first: int
    last: int


@dataclass(frozen=True)
class FrameRefused:
    """One frame could not be done; the others go on."""

    frame: int
    message: str


@dataclass(frozen=True)
class SuggestionsArrived:
    """Frames to annotate next, best first; ``note`` says why there are fewer than asked."""

    suggestions: tuple[Suggestion, ...]
    note: str


@dataclass(frozen=True)
class Ended:
    """The last thing a job says: ``how`` is DONE, FAILED or CANCELLED; ``detail`` is for a bug report, not for the artist."""

    how: str
    message: str
    detail: str = ""


Happening = Union[
    ServerSeen,
    ServerSilent,
    RenderWanted,
    FrameSent,
    KeysAccepted,
    StageMade,
    MatteArrived,
    MattesOutdated,
    FrameRefused,
    SuggestionsArrived,
    ThumbnailArrived,
    Ended,
]


def fetch_exr_channel(channel: str) -> str:
    """Give the name that a Write stores a Nuke channel under: ``A`` for ``rgba.alpha``, others as they are."""
    layer, _, name = channel.rpartition(".")
    return _EXR_CHANNELS.get(name, channel) if layer in ("", "rgba") else channel
