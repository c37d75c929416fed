"""Motion between two neighbouring frames, with a measure of trust: three of OpenCV's optical flows, one after another, on half the pixels.

DIS (Kroeger et al. 2016) finds even what moves far, on a quarter of the pixels; Farneback's polynomials (2003) bring that to all that is
seen of the pictures here; the variational refinement (Brox et al. 2004), DIS's last step, lays it to their edges (decision 0018).
"""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import numpy.typing as npt

CELL = 4  # pixels to a side of one position of the result
_HALF = 2  # pixels to a side of one position where flow and trust are computed
_DRIFT = 1.5  # pixels by which going there and back may miss
_CONTRAST = 24.0  # grey levels (of 255) by which the two pictures may differ along the flow
_BLUR = 0.75  # positions: so far around the pictures are compared
# Of the polynomials: the pyramid's factor and further levels, window, repetitions, neighbourhood and its smoothing.
_POLYNOMIALS = (0.5, 0, 9, 1, 5, 1.1, cv2.OPTFLOW_FARNEBACK_GAUSSIAN | cv2.OPTFLOW_USE_INITIAL_FLOW)
_REFINEMENTS = 1
_SMALLEST = 32  # pixels: DIS builds a pyramid and needs some picture to do so

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
    before, after = _halve(earlier), _halve(later)
    pairs = ((after, before), (before, after))  # for the later picture: where its content was; then the other way round
    with ThreadPoolExecutor(2) as pool:  # each way is computed by one thread, so the numbers do not depend on this
        back, ahead = pool.map(_flow, pairs)
        wanted = ((back, ahead, after, before), (ahead, back, before, after))
        to_later, to_earlier = pool.map(lambda each: _with_trust(*each), wanted)
    return to_later, to_earlier


def _halve(picture: Grey) -> Grey:
    height, width = picture.shape
    return np.asarray(cv2.resize(picture, (width // _HALF, height // _HALF), interpolation=cv2.INTER_AREA), np.uint8)


def _flow(pair: tuple[Grey, Grey]) -> Motion:
    """Give for each position of the first picture where it is in the second, (h, w, 2), in positions."""
    coarse = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    coarse.setVariationalRefinementIterations(0)
    # Its stub has no None: a given flow would be where the search begins.
    found: Motion = coarse.calc(*pair, None)  # type: ignore[call-overload]
    found = cv2.calcOpticalFlowFarneback(*pair, found, *_POLYNOMIALS)  # type: ignore[call-overload]
    refinement = cv2.VariationalRefinement.create()
    refinement.setFixedPointIterations(_REFINEMENTS)
    refinement.calc(*pair, found)
    return found


@functools.lru_cache(maxsize=2)
def _grid(height: int, width: int) -> Motion:
    """Give each position's own column and row, (h, w, 2). Not to be written to."""
    columns, rows = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return np.ascontiguousarray(np.stack([columns, rows], 2))


def _with_trust(flow: Motion, returning: Motion, here: Grey, there: Grey) -> Motion:
    """Give a flow (h, w, 2) and its trust on the coarse grid; ``returning`` is the flow of the frame it leads to."""
    height, width = here.shape
    places = _grid(height, width) + flow  # (h, w, 2): column, row
    home = cv2.remap(returning, places, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[call-overload]
    home += flow
    home *= home
    drift = (home[..., 0] + home[..., 1]) * _HALF**2
    seen = cv2.remap(there, places, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[call-overload]
    columns, rows = places[..., 0], places[..., 1]
    change = cv2.GaussianBlur(seen.astype(np.float32) - here, (0, 0), _BLUR)
    inside = (columns >= 0) & (columns <= width - 1) & (rows >= 0) & (rows <= height - 1)
    trust = inside / (1 + drift / _DRIFT**2) / (1 + np.square(change / _CONTRAST))
    shape = (width * _HALF // CELL, height * _HALF // CELL)
    coarse, coarse_trust = (cv2.resize(each, shape, interpolation=cv2.INTER_AREA) for each in (flow, trust))
    return np.ascontiguousarray(np.concatenate([_HALF * coarse.transpose(2, 0, 1), coarse_trust[None]]))
