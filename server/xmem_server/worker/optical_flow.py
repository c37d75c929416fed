"""Motion between two neighbouring frames by DIS optical flow (Kroeger et al. 2016, OpenCV), with a measure of trust."""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

CELL = 4  # pixels to a side of one position of the result
_HALF = 2  # pixels to a side of one position where flow and trust are computed: DIS itself sees no more of this preset's pictures
_DRIFT = 1.5  # pixels by which going there and back may miss
_CONTRAST = 24.0  # grey levels (of 255) by which the two pictures may differ along the flow
_BLUR = 0.75  # positions: so far around the pictures are compared
_REFINEMENTS = 1  # of the preset's 5: they smooth the flow, take most of its time, and masks carried by it are worse (decision 0012)
_SMALLEST = 16  # pixels: DIS builds a pyramid and needs some picture to do so

Grey = npt.NDArray[np.uint8]
Motion = npt.NDArray[np.float32]

# DIS passes results along within a stripe, and has a stripe for each thread: another number of threads, another flow.
cv2.setNumThreads(1)


def measure_motion(earlier: Grey, later: Grey) -> tuple[Motion, Motion]:
    """Give the motion that carries masks to the later frame and to the earlier one, (3, H/4, W/4) float32 each.

    Pictures are (H, W) grey, sides multiples of 4. Channels: dx, dy in pixels, trust 0..1: high where going there and back
    ends close to the start and the pictures look alike along the way. The same pictures give the same numbers.
    """
    if min(earlier.shape) < _SMALLEST:
        shape = (3, earlier.shape[0] // CELL, earlier.shape[1] // CELL)
        return np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    pairs = (
        (later, earlier),
        (earlier, later),
    )  # for each later pixel: where it was; then for each earlier one: where it goes
    with ThreadPoolExecutor(
        len(pairs)
    ) as pool:  # each way is computed by one thread, so the numbers do not depend on this
        back, ahead = pool.map(_flow, pairs)
        small = [_halve(picture) for picture in (earlier, later)]
        wanted = ((back, ahead, *small[::-1]), (ahead, back, *small))
        to_later, to_earlier = pool.map(lambda each: _with_trust(*each), wanted)
    return to_later, to_earlier


def _flow(pair: tuple[Grey, Grey]) -> Motion:
    """Give for each position of the first picture where it is in the second, (H/2, W/2, 2), in pixels."""
    method = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    method.setVariationalRefinementIterations(_REFINEMENTS)
    # Its stub has no None: a given flow would be where the search begins.
    return _halve(method.calc(*pair, None))  # type: ignore[call-overload]


def _halve(picture: npt.NDArray[Any]) -> npt.NDArray[Any]:
    height, width = picture.shape[:2]
    return cv2.resize(picture, (width // _HALF, height // _HALF), interpolation=cv2.INTER_AREA)


@functools.lru_cache(maxsize=2)
def _grid(height: int, width: int) -> Motion:
    """Give each position's own column and row, (h, w, 2). Not to be written to."""
    columns, rows = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return np.ascontiguousarray(np.stack([columns, rows], 2))


def _with_trust(flow: Motion, returning: Motion, here: Grey, there: Grey) -> Motion:
    """Give a flow (h, w, 2) and its trust on the coarse grid; ``returning`` is the flow of the frame it leads to."""
    height, width = here.shape
    places = _grid(height, width) + flow / _HALF  # (h, w, 2): column, row
    home = cv2.remap(returning, places, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[call-overload]
    home += flow
    home *= home
    drift = home[..., 0] + home[..., 1]
    seen = cv2.remap(there, places, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[call-overload]
    columns, rows = places[..., 0], places[..., 1]
    change = cv2.GaussianBlur(seen.astype(np.float32) - here, (0, 0), _BLUR)
    inside = (columns >= 0) & (columns <= width - 1) & (rows >= 0) & (rows <= height - 1)
    trust = inside / (1 + drift / _DRIFT**2) / (1 + np.square(change / _CONTRAST))
    shape = (width * _HALF // CELL, height * _HALF // CELL)
    coarse, coarse_trust = (cv2.resize(each, shape, interpolation=cv2.INTER_AREA) for each in (flow, trust))
    return np.ascontiguousarray(np.concatenate([coarse.transpose(2, 0, 1), coarse_trust[None]]))
