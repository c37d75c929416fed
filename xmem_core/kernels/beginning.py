"""How an encoder begins, a band of a picture at a time: its first convolution and first block. Their wide maps, the largest of all, are never whole."""

from __future__ import annotations

import numpy as np
from numba import prange

from xmem_core.kernels.bottlenecks import GROUP, POSITIONS, Weights, clear_around, filter_line
from xmem_core.kernels.compiling import ZERO, Floats, Places, called, compiled, inlined
from xmem_core.kernels.products import ROWS, multiply_limited, multiply_some
from xmem_core.kernels.vectors import LANES, take

COLOURS, SIDE = 3, 3  # channels of pictures; positions to a side of both filters
_ALONG, _STEP = SIDE * COLOURS, 2 * COLOURS  # values that are seen along a row, and from one position to the next
BAND = 12  # rows of results that a thread makes at once: with what they are made of they stay near it


@compiled
def begin(pictures: Floats, weights: tuple[Weights, Weights, Weights], result: Floats, threads: int) -> None:
    """Fill result (n, h, w, CO), CO a multiple of PADDED, with what pictures (n, 2h, 2w, 3) begin with.

    That is a 3x3 convolution that halves and sees nothing before its own position, ReLU6; a depthwise 3x3 one, ReLU6; a 1x1 one. 0 is
    around pictures and maps. ``weights``: of the first (27, M) and (M,), M a multiple of PADDED and at most GROUP; of the second (9, M)
    and (M,); of the third (M, CO) and (CO,). w is at least OUTPUTS.
    """
    first, filters, last = weights
    breadth, columns = first[0].shape[1], result.shape[2]
    bands = -(-result.shape[1] // BAND)
    taken = np.zeros(1, np.int64)
    for _ in prange(threads):
        seen = np.empty((BAND + 2, columns + 2, GROUP), np.float32)
        filtered = np.empty((1, 1, columns, breadth), np.float32)
        gathered, places = np.empty((POSITIONS, len(first[0])), np.float32), np.empty(POSITIONS, np.int64)
        wide, rest = np.empty((POSITIONS, last[0].shape[1]), np.float32), np.empty((POSITIONS, breadth), np.float32)
        part = take(taken)
        while part < len(pictures) * bands:
            picture, top = part // bands, part % bands * BAND
            bottom = min(top + BAND, result.shape[1])
            there = max(top - 1, 0), min(bottom + 1, result.shape[1])
            clear_around(seen, (there[0] - top + 1, there[1] - top + 1), (1, columns + 1))
            for y in range(there[0], there[1]):
                _widen_row(pictures[picture], y, first, (gathered, places), (seen, y - top + 1))
            for y in range(top, bottom):
                for channel in range(0, breadth, LANES):
                    own = (y - top) * (columns + 2), channel, 1
                    filter_line(seen, own, filters, 1, filtered, (0, channel))
                _narrow_row(filtered[0, 0], last, (wide, rest), result[picture, y])
            part = take(taken)


@called
def _widen_row(
    picture: Floats, y: int, weights: Weights, room: tuple[Floats, Places], target: tuple[Floats, int]
) -> None:
    """Put ReLU6 of one row of the first convolution where it is seen."""
    gathered, places = room
    seen, row = target
    height, width = picture.shape[0], picture.shape[1] // 2
    for start in range(0, width, POSITIONS):
        some = min(POSITIONS, width - start)
        count = -(-some // ROWS) * ROWS
        for down in range(SIDE):
            if 2 * y + down < height:
                _gather(picture[2 * y + down].reshape(-1), start, some, gathered, down * _ALONG)
            else:
                gathered[:, down * _ALONG : (down + 1) * _ALONG] = ZERO
        for i in range(count):  # the last position fills up
            own = min(i, some - 1)
            places[i] = row * seen.shape[1] + 1 + start + own
            if i != own:
                gathered[i] = gathered[own]
        multiply_limited(gathered[:count], weights, seen, places)


@inlined
def _gather(values: Floats, start: int, count: int, gathered: Floats, first: int) -> None:
    """Fill a part of so many lines with what the first convolution sees of a row of values, 0 beyond it."""
    inside = min(count, (len(values) - _ALONG) // _STEP + 1 - start)
    for i in range(inside):
        there = (start + i) * _STEP
        for j in range(_ALONG):
            gathered[i, first + j] = values[there + j]
    for i in range(inside, count):
        there = (start + i) * _STEP
        for j in range(_ALONG):
            gathered[i, first + j] = values[there + j] if there + j < len(values) else ZERO


@called
def _narrow_row(maps: Floats, weights: Weights, room: tuple[Floats, Floats], result: Floats) -> None:
    """Fill a row of results (w, CO) with the 1x1 convolution of a row of maps (w, M)."""
    weight, bias = weights
    wide, rest = room
    for start in range(0, len(maps), POSITIONS):
        some = maps[start : start + POSITIONS]
        multiply_some(some, rest, weight, wide)
        for i in range(len(some)):
            line, there = wide[i], result[start + i]
            for channel in range(len(there)):
                there[channel] = line[channel] + bias[channel]
