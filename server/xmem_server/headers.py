"""What is known of a picture file without its pixels, and the limits it must keep: plain values, no decoder imported."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from xmem_protocol import MAX_SIDE, InputError

FLOAT = "float"  # scene-linear unless the artist says otherwise: EXR, float TIFF
INTEGER = "integer"  # display-referred unless said otherwise: 8 and 16 bit PNG, JPEG, TIFF
VIDEO = "video"  # display-referred, many pictures in one file

EXR_HALF = "exr-half"  # the outputs that mattes are written as
EXR_FLOAT = "exr-float"
PNG16 = "png16"

EXR_SUFFIXES = frozenset({".exr"})
PNG_SUFFIXES = frozenset({".png"})
JPEG_SUFFIXES = frozenset({".jpg", ".jpeg"})
TIFF_SUFFIXES = frozenset({".tif", ".tiff"})
STILL_SUFFIXES = EXR_SUFFIXES | PNG_SUFFIXES | JPEG_SUFFIXES | TIFF_SUFFIXES
VIDEO_SUFFIXES = frozenset({".mov", ".mp4", ".m4v", ".mkv", ".webm", ".avi", ".mxf"})

Alpha = npt.NDArray[np.float32] | npt.NDArray[np.float16]  # HxW, 0..1

STORED_FILE = "the stored file"  # where there is no better name: say_which puts one in
_STORED_NAME = re.compile(r"[0-9a-f]{40,}")  # content-addressed: such a name tells the artist nothing


@dataclass(frozen=True)
class Window:
    """A rectangle of pixels, both corners included, y downwards as in EXR; negative numbers are ordinary."""

    x_min: int
    y_min: int
    x_max: int
    y_max: int

    @property
    def width(self) -> int:
        """The number of columns."""
        return self.x_max - self.x_min + 1

    @property
    def height(self) -> int:
        """The number of rows."""
        return self.y_max - self.y_min + 1

    def intersection(self, other: Window) -> Window | None:
        """Give the window that lies in both, or None."""
        both = Window(
            max(self.x_min, other.x_min),
            max(self.y_min, other.y_min),
            min(self.x_max, other.x_max),
            min(self.y_max, other.y_max),
        )
        return both if both.width > 0 and both.height > 0 else None


def window_of_size(width: int, height: int) -> Window:
    """Give the window of a picture that has no windows of its own: it starts at 0, 0."""
    return Window(0, 0, width - 1, height - 1)


@dataclass(frozen=True)
class Header:
    """A picture file without its pixels.

    ``width`` x ``height`` is the display window, which is what every decoded array covers. ``channels`` are the names a
    selector may use. ``kind`` is FLOAT, INTEGER or VIDEO; ``pictures`` is 1 but for a video.
    """

    width: int
    height: int
    pixel_aspect: float
    data_window: Window
    display_window: Window
    channels: tuple[str, ...]
    kind: str
    pictures: int = 1


@dataclass(frozen=True)
class MaskSurvey:
    """What a mask file holds, for telling index masks, coloured masks and alphas apart.

    ``form`` is ``palette`` (a palette PNG), ``grey`` (8-bit grey), ``rgb`` (8-bit colour) or ``alpha`` (all else).
    ``labels`` are the selectors of the values other than 0 or black, at most MAX_LABELS: ``index:N`` or
    ``colour:rrggbb``; none for an alpha. ``peak`` is the largest value, 1 being full.
    """

    form: str
    labels: tuple[str, ...]
    peak: float


MAX_LABELS = 256


@dataclass(frozen=True)
class WrittenFile:
    """A file that is written, flushed to disk and renamed into place."""

    sha256: str
    nbytes: int


@dataclass(frozen=True)
class DecodeLimits:
    """What the decode process may take.

    ``memory_bytes`` is its whole address space. ``max_pixels`` bounds the display window and the data window, each:
    8192 x 8192 leaves room for 8K with overscan. ``timeout_seconds`` is for one request. ``niceness`` is how far it stands back
    at least from others that want the processor (0..19; not on Windows).
    """

    memory_bytes: int = 6 * 1024**3
    max_pixels: int = 8192 * 8192
    timeout_seconds: float = 120.0
    niceness: int = 0


def display_name(path: Path) -> str:
    """Give what to call a file in a message: its name, or STORED_FILE when the name is a hash."""
    return STORED_FILE if _STORED_NAME.match(path.name) else path.name


def say_which(subject: str, error: InputError) -> InputError:
    """Give the error with what the artist calls the file (``Frame 1003's plate``) in place of STORED_FILE, or before it all."""
    text = str(error)
    if text.startswith(STORED_FILE):
        return InputError(subject + text.removeprefix(STORED_FILE))
    return InputError(f"{subject}: {text}")


def check_window(name: str, window: Window, limits: DecodeLimits) -> None:
    """Raise InputError when a window is empty, far from the origin or larger than the limits, before anything is allocated."""
    corners = (window.x_min, window.y_min, window.x_max, window.y_max)
    if window.width < 1 or window.height < 1:
        raise InputError(f"{name} has no pixels: it is {window.width}x{window.height}. Render it again.")
    if max(window.width, window.height) > MAX_SIDE or window.width * window.height > limits.max_pixels:
        raise InputError(
            f"{name} is {window.width}x{window.height} pixels; {MAX_SIDE} a side and "
            f"{limits.max_pixels / 1e6:.0f} million in all is the most. Crop it or render it smaller."
        )
    if max(map(abs, corners)) > 4 * MAX_SIDE:
        raise InputError(
            f"{name} has a window at {corners}; {4 * MAX_SIDE} pixels from the origin is the most. Render it again."
        )


def check_picture_size(name: str, got: tuple[int, int], wanted: tuple[int, int], remedy: str) -> None:
    """Raise InputError when a picture is not the shot's size, both (width, height); ``remedy`` says what to do."""
    if got != wanted:
        raise InputError(f"{name} is {got[0]}x{got[1]} but the shot is {wanted[0]}x{wanted[1]}. {remedy}")
