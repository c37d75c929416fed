"""What the decode process is asked and what it answers: plain values over a pipe, pixels as raw bytes behind them.

Every request and every answer carries an attachment (see ``pipes``), empty where there are no pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

from xmem_server.headers import Header, MaskSurvey
from xmem_server.pipes import kinds_of


@dataclass(frozen=True)
class HeaderWanted:
    """Answered by HeaderFound."""

    path: str
    suffix: str


@dataclass(frozen=True)
class PlateWanted:
    """Answered by PixelsFound with 3 channels; ``height`` and ``width`` 0: at full size."""

    path: str
    suffix: str
    index: int
    colorspace: str
    height: int
    width: int


@dataclass(frozen=True)
class AlphaWanted:
    """Answered by PixelsFound with 1 channel."""

    path: str
    suffix: str
    selector: str


@dataclass(frozen=True)
class SurveyWanted:
    """Answered by SurveyFound."""

    path: str
    suffix: str


@dataclass(frozen=True)
class TransformWanted:
    """Answered by TransformFound: which colour transform a word means for a kind of file, as its config is on disk now."""

    colorspace: str
    kind: str


@dataclass(frozen=True)
class SaveWanted:
    """Answered by FileWritten. The attachment is one HxW array per object id, in this order, of ``samples`` (float16 or float32).

    ``object_ids`` empty: one matte, one array. Else a layered file.
    """

    path: str
    header: Header
    output: str
    object_ids: tuple[int, ...]
    samples: str


@dataclass(frozen=True)
class HeaderFound:
    """A picture file without its pixels."""

    header: Header


@dataclass(frozen=True)
class PixelsFound:
    """The attachment is float32, height x width x channels, rows first."""

    height: int
    width: int
    channels: int


@dataclass(frozen=True)
class SurveyFound:
    """What a mask file holds."""

    survey: MaskSurvey


@dataclass(frozen=True)
class TransformFound:
    """One line that says what the transform does, and the id of what the word does to numbers (``colour``)."""

    description: str
    colour_id: str


@dataclass(frozen=True)
class FileWritten:
    """The file is whole and on disk."""

    sha256: str
    nbytes: int


@dataclass(frozen=True)
class Refused:
    """The request cannot be met: ``code`` is an error code of xmem_protocol, ``message`` is for the artist."""

    code: str
    message: str


REQUESTS = kinds_of(HeaderWanted, PlateWanted, AlphaWanted, SurveyWanted, TransformWanted, SaveWanted)
ANSWERS = kinds_of(HeaderFound, PixelsFound, SurveyFound, TransformFound, FileWritten, Refused)
