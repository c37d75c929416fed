"""The picture of a CheckerBoard2, as Foundry's public example of that node describes it: boxes around the centre, a cross on it."""

from __future__ import annotations

import numpy as np

from .images import Picture, full_box

_PLACES = ((0, 1), (3, 2))  # the colour's number by row and column of a box, both odd or even


def draw_checkers(shape, names, fetch):
    """Give the picture in a format; ``names`` are its four channels, ``fetch`` gives a knob's numbers."""
    if any(fetch("linewidth")):
        raise NotImplementedError("the double draws checkers without lines between them")
    box = full_box(shape)
    sides = [max(round(side), 1) for side in fetch("boxsize")]
    columns = np.arange(shape.width()) - shape.width() // 2
    rows = np.arange(shape.height())[::-1] - shape.height() // 2  # upwards
    colors = np.array([fetch(f"color{at}") for at in range(4)], np.float32)
    picked = np.array(_PLACES)[np.ix_((rows // sides[1]) % 2, (columns // sides[0]) % 2)]
    pixels = colors[picked]
    wide, high = (max(round(width), 1) if width > 0 else 0 for width in fetch("centerlinewidth"))
    pixels[:, (columns >= -(wide // 2)) & (columns < wide - wide // 2)] = fetch("centerlinecolor")
    pixels[(rows >= -(high // 2)) & (rows < high - high // 2)] = fetch("centerlinecolor")
    return Picture(shape, box, {name: np.ascontiguousarray(pixels[..., at]) for at, name in enumerate(names)})
