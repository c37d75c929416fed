"""Pictures as Nuke sees them: a format, a box with pixels in it, named channels. Rows run from the top down."""
# ruff: noqa: N802 - the names are Nuke's own; keys() of a curve is no dict's

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


class Format:
    """A picture's full size and pixel aspect."""

    def __init__(self, width, height, pixel_aspect=1.0, name=""):
        self._width, self._height, self._aspect, self._name = int(width), int(height), float(pixel_aspect), name

    def width(self):
        return self._width

    def height(self):
        return self._height

    def pixelAspect(self):
        return self._aspect

    def name(self):
        return self._name

    def __eq__(self, other):
        return isinstance(other, Format) and self._script() == other._script()

    def __hash__(self):
        return hash(self._script())

    def _script(self):
        name = f" {self._name}" if self._name else ""
        return f"{self._width} {self._height} 0 0 {self._width} {self._height} {self._aspect:g}{name}"


class Formats:
    """The formats of a script by name, and the root's own."""

    def __init__(self):
        self._named = {}
        self.fetch_root = None

    def add(self, text):
        words = text.split()
        if len(words) not in (4, 8):
            raise ValueError(f"{text!r} is not a format: width height aspect name was wanted")
        found = Format(words[0], words[1], words[-2], words[-1])
        self._named[found.name()] = found
        return found

    def find(self, text):
        if text in ("", "0"):
            return self.fetch_root()
        if text in self._named:
            return self._named[text]
        words = text.split()
        if len(words) < 7:
            raise ValueError(f"there is no format called {text!r}")
        return Format(words[0], words[1], words[6], " ".join(words[7:]))


@dataclass(frozen=True)
class Box:
    """Pixels from ``x`` to ``r`` and ``y`` to ``t``, the latter two left out; the origin is at the bottom left."""

    x: int
    y: int
    r: int
    t: int

    @property
    def shape(self):
        return max(self.t - self.y, 0), max(self.r - self.x, 0)

    def union(self, other):
        return Box(min(self.x, other.x), min(self.y, other.y), max(self.r, other.r), max(self.t, other.t))


@dataclass(frozen=True)
class Picture:
    """One frame: float32 arrays of the box's shape by channel name; everything else is black."""

    format: Format
    box: Box
    channels: dict = field(default_factory=dict)

    def crop(self, channel, box):
        """Give a channel on another box, black where there is nothing."""
        if box == self.box and channel in self.channels:
            return self.channels[channel]
        out = np.zeros(box.shape, np.float32)
        stored = self.channels.get(channel)
        left, right = max(box.x, self.box.x), min(box.r, self.box.r)
        bottom, top = max(box.y, self.box.y), min(box.t, self.box.t)
        if stored is not None and left < right and bottom < top:
            out[box.t - top : box.t - bottom, left - box.x : right - box.x] = stored[
                self.box.t - top : self.box.t - bottom, left - self.box.x : right - self.box.x
            ]
        return out


def full_box(shape):
    """Give the box that covers a format."""
    return Box(0, 0, shape.width(), shape.height())


def select_channels(mask, have):
    """Give the names of the channels that a channel set stands for, of those a picture has."""
    sets = {
        "all": set(have),
        "none": set(),
        "rgb": {"rgba.red", "rgba.green", "rgba.blue"},
        "rgba": {"rgba.red", "rgba.green", "rgba.blue", "rgba.alpha"},
        "alpha": {"rgba.alpha"},
    }
    if mask in sets:
        return sets[mask]
    if "." not in mask:
        return {name for name in have if name.startswith(f"{mask}.")}
    return {mask}
