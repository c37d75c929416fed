"""What a Shuffle2 does, with all four channels of rgba taken from its B input; its other ways raise."""

from __future__ import annotations

import numpy as np

from .images import Picture
from .knobs import Knob
from .tcl import split_list

_RGBA = {f"rgba.{name}" for name in ("red", "green", "blue", "alpha")}
_LEVELS = {"black": 0.0, "white": 1.0}
_WORDS = 6  # of a mapping: a channel, its socket and its place there, twice


class ShuffleLinks(Knob):
    """The mappings of a Shuffle2; set by script text alone."""

    def __init__(self, name="", label=None):
        super().__init__(name, label)
        self._text = ""

    def _script(self):
        return f'"{self._text}"'

    def _read(self, text):
        self._text = text.strip('"')

    def _links(self):
        """Give the source of each channel that is made."""
        count, *words = split_list(self._text)
        if len(words) != _WORDS * int(count):
            raise ValueError(f"{self._name}: {count} mappings were wanted, {self._text!r} came")
        links = [words[at : at + _WORDS] for at in range(0, len(words), _WORDS)]
        if any(source[1] not in ("0", "-1") or source[4] != "0" for source in links):
            raise NotImplementedError("the double shuffles from the first socket to the first socket")
        return {link[3]: link[0] for link in links}


def shuffle(node, picture):
    """Give a picture with its channels taken from others of it."""
    knobs = node._knobs
    ways = [knobs[name]._word for name in ("fromInput1", "fromInput2")] + [knobs["out2"]._text]
    links = knobs["mappings"]._links()
    if ways != ["{0} B", "{0} B", "none"] or links.keys() != _RGBA:
        raise NotImplementedError("the double shuffles rgba of input B")
    made = {}
    for target, source in links.items():
        flat = np.full(picture.box.shape, _LEVELS.get(source, 0.0), np.float32)
        made[target] = flat if source in _LEVELS else picture.crop(source, picture.box)
    return Picture(picture.format, picture.box, {**picture.channels, **made})
