"""The values inside messages: a shot, its plates and keys, settings, suggestions, files, engines, jobs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Shot:
    """What is fixed when a session opens.

    ``width`` x ``height`` is the display window in pixels; ``first`` and ``last`` are frame numbers, both included.
    ``colorspace`` says what the plate's pixels are: ``display`` (already display-referred), ``auto`` (by file type) or
    the name of a colour space that OpenColorIO knows.
    """

    name: str
    width: int
    height: int
    pixel_aspect: float
    first: int
    last: int
    colorspace: str


@dataclass(frozen=True)
class Plate:
    """One plate frame: the file that holds it, and its place in that file (0 for a still, the n-th picture of a video)."""

    frame: int
    sha256: str
    index: int
    suffix: str  # of the original file name, with the dot: says how to decode it


@dataclass(frozen=True)
class Key:
    """What the artist says of one object at one frame.

    ``presence`` is PRESENT or ABSENT. When present, ``sha256`` names the file and ``selector`` the pixels in it that are
    this object's alpha: ``channel:NAME`` (``channel:auto`` takes A, else Y, else R, else the first), ``index:N`` (pixels equal to N are 1) or ``colour:rrggbb``.
    When absent, ``sha256``, ``suffix`` and ``selector`` are empty.
    """

    frame: int
    object_id: int
    presence: str
    sha256: str
    suffix: str
    selector: str


@dataclass(frozen=True)
class PropagationSettings:
    """How a propagation runs and what its mattes look like.

    ``working_size`` is the shorter side in pixels that the network sees (0: the model's own choice, never above the plate's).
    ``threshold`` hardens the artist's alpha for the network. ``permanent`` is ``every`` (XMem++), ``first`` or ``none``.
    ``output`` is ``exr-half``, ``exr-float`` or ``png16``; ``layout`` is ``per-object`` or ``layered`` (one EXR for all).
    """

    first: int
    last: int
    working_size: int = 0
    threshold: float = 0.5
    permanent: str = "every"
    long_term: bool = True
    mem_every: int = 10
    deep_update_every: int = -1
    top_k: int = 30
    max_working_frames: int = 10
    min_working_frames: int = 5
    prototypes: int = 128
    max_long_term: int = 10_000
    precision: str = "float32"
    output: str = "exr-half"
    layout: str = "per-object"
    snapshot_every: int = 25


@dataclass(frozen=True)
class SuggestionSettings:
    """Which frames to look at for the next key.

    ``alpha`` is the paper's: 0 looks at the whole picture, 1 at the object alone. ``min_area`` is a share of the picture (0.0025 is 0.25 %):
    frames whose mask is smaller cannot be picked by the paper's rule. ``object_id`` 0 means over all objects. ``unsure`` is how many
    frames to name beside, by a second criterion: where the mattes themselves are the least certain.
    """

    count: int
    alpha: float = 0.5
    min_area: float = 0.0025
    object_id: int = 0
    unsure: int = 0


@dataclass(frozen=True)
class Suggestion:
    """A frame to annotate next.

    ``kind`` is ``different`` (the paper's rule), ``lost`` (the object vanishes or its area jumps) or ``unsure`` (the matte is
    the least certain there).
    """

    frame: int
    kind: str
    object_id: int
    score: float
    reason: str


@dataclass(frozen=True)
class MatteFile:
    """One finished file of a frame; ``object_id`` 0 is the layered file of all objects."""

    object_id: int
    sha256: str
    nbytes: int
    suffix: str


@dataclass(frozen=True)
class EngineInfo:
    """One engine process: where it computes and with what; ``resident_bytes`` of host memory it holds, 0 when not known."""

    name: str
    device: str
    model: str
    model_sha256: str
    state: str
    resident_bytes: int = 0


@dataclass(frozen=True)
class JobInfo:
    """A job as the server remembers it; ``state`` is queued, running, interrupted, done, failed or cancelled."""

    job: str
    kind: str
    state: str
    last_seq: int


@dataclass(frozen=True)
class JobStatus:
    """A job that runs or waits now, in the order in which they would run. ``stage`` is as in Progress.

    ``session`` is empty where it is another client's, and the asker is no supervisor. ``eta_seconds`` is -1 when nobody knows.
    """

    job: str
    owner: str
    session: str
    batch: bool
    stage: str
    done: int
    total: int
    frames_per_second: float
    eta_seconds: float


@dataclass(frozen=True)
class SessionInfo:
    """A session in a list; ``session`` is the name by which the asker opens it. Times are seconds since 1970."""

    session: str
    owner: str
    shot: Shot
    plates: int
    keys: int
    jobs: int
    created: float
    touched: float
