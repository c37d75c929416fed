"""1x1 and depthwise convolutions as an inverted bottleneck has them: widened maps are never whole, but filtered a part at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import prange, types

from xmem_core.kernels.compiling import ZERO, Floats, Places, called, compiled, inlined
from xmem_core.kernels.products import ROWS, SIX, multiply_limited, multiply_some
from xmem_core.kernels.vectors import INDEX, LANES, Lines, Vector, take, written

POSITIONS = 48  # of maps that are multiplied at once, a multiple of ROWS
OUTPUTS = 4  # of a line that are filtered at once: they share the weights
GROUP = 48  # channels of the wide maps that are computed together, at most: three vectors, and a divisor of most widths
FILTERS = (
    (3, 1, 1),
    (3, 1, 2),
    (5, 1, 1),
    (5, 1, 2),
    (5, 2, 1),
)  # positions to a side, dilation and stride of those that there are

Weights = tuple[Floats, Floats]


@compiled
def widen_and_filter(
    maps: Floats,
    widening: Weights,
    filters: Weights,
    steps: tuple[int, int, int],
    result: Floats,
    room: Floats,
) -> None:
    """Fill result (n, h', w', C) with ReLU6 of a depthwise convolution of ReLU6 of a 1x1 convolution of maps (n, h, w, CI), 0 around the latter.

    ``widening``: weight (G, CI, S), C = G*S, S a multiple of PADDED and at most GROUP, and bias (C,). ``filters``: weight (9 or 25, C) and bias (C,). ``steps``: stride, dilation (2 of 25 alone), and how many positions before its own an
    output sees. ``room`` (threads, rows, columns, GROUP): what each thread filters at once, columns being all that is seen. w' is at least OUTPUTS.
    """
    groups, depth, size = widening[0].shape
    stride, dilation, before = steps
    reach = dilation * (4 if len(filters[0]) == 25 else 2)
    at_once = (room.shape[1] - 1 - reach) // stride + 1
    bands = -(-result.shape[1] // at_once)
    taken = np.zeros(1, np.int64)
    for thread in prange(room.shape[0]):
        rest, places = np.empty((POSITIONS, depth), np.float32), np.empty(POSITIONS, np.int64)
        seen = room[thread]
        part = take(taken)
        while part < len(maps) * bands * groups:
            picture, band, group = part // groups // bands, part // groups % bands, part % groups
            top, bottom = band * at_once, min((band + 1) * at_once, result.shape[1])
            first = top * stride - before  # the line of maps that is seen first
            there = max(first, 0), min(first + (bottom - 1 - top) * stride + reach + 1, maps.shape[1])
            clear_around(seen, (there[0] - first, there[1] - first), (before, before + maps.shape[2]))
            its_weights = widening[0][group], widening[1][group * size : (group + 1) * size]
            _widen(maps[picture], there, its_weights, (rest, places), (seen, first, before))
            for y in range(top, bottom):
                row, line = (y - top) * stride * room.shape[2], (picture * result.shape[1] + y) * result.shape[2]
                for channel in range(0, size, LANES):
                    own = row, channel, stride
                    filter_line(seen, own, filters, dilation, result, (line, group * size + channel))
            part = take(taken)


@called
def filter_line(
    seen: Floats, own: tuple[int, int, int], filters: Weights, dilation: int, result: Floats, target: tuple[int, int]
) -> None:
    """Fill some channels of a line of results: ``own`` is the seen position it begins with, the channel there, and the stride."""
    first, channel, stride = own
    line, target_channel = target
    columns = result.shape[2]
    for start in range(0, columns, OUTPUTS):
        x = min(start, columns - OUTPUTS)  # the last ones may be computed twice
        there, place = (first + x * stride, channel), (line + x, target_channel)
        if len(filters[0]) == 9:
            if stride == 1:
                _filter_by_3(seen, there, filters, result, place)
            else:
                _filter_by_3_halving(seen, there, filters, result, place)
        elif dilation == 1:
            if stride == 1:
                _filter_by_5(seen, there, filters, result, place)
            else:
                _filter_by_5_halving(seen, there, filters, result, place)
        else:
            _filter_by_5_dilated(seen, there, filters, result, place)


@inlined
def clear_around(seen: Floats, rows: tuple[int, int], columns: tuple[int, int]) -> None:
    """Set 0 what is seen (rows, columns, S) outside of some of the rows and columns."""
    for y in range(seen.shape[0]):
        if rows[0] <= y < rows[1]:
            seen[y, : columns[0]] = ZERO
            seen[y, columns[1] :] = ZERO
        else:
            seen[y] = ZERO


@called
def _widen(
    picture: Floats,
    rows: tuple[int, int],
    weights: Weights,
    room: tuple[Floats, Places],
    target: tuple[Floats, int, int],
) -> None:
    """Put ReLU6 of a 1x1 convolution of some rows of a picture (h, w, CI) where they are seen."""
    height, width, depth = picture.shape
    rest, places = room
    seen, first, before = target
    lines = picture.reshape(height * width, depth)
    y, x = rows[0] - first, 0
    for start in range(rows[0] * width, rows[1] * width, POSITIONS):
        some = lines[start : min(start + POSITIONS, rows[1] * width)]
        for i in range(len(some)):
            places[i] = y * seen.shape[1] + before + x
            x += 1
            if x == width:
                y, x = y + 1, 0
        if len(some) == POSITIONS:
            multiply_limited(some, weights, seen, places)
        else:
            count = -(-len(some) // ROWS) * ROWS
            for i in range(count):  # the last position fills up
                own = min(i, len(some) - 1)
                rest[i] = some[own]
                places[i] = places[own]
            multiply_limited(rest[:count], weights, seen, places)


def _make_filter(side: int, dilation: int, stride: int) -> Any:
    """Give what computes ReLU6 of some channels of OUTPUTS outputs side by side of a depthwise filter with so many positions to a side."""

    @written
    def filter_vectors(_typing: Any, seen: Any, own: Any, filters: Any, result: Any, place: Any) -> Any:
        def write(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> Any:
            source, target = (Lines(context, builder, signature.args[i], values[i]) for i in (0, 3))
            parts = [builder.extract_value(values[2], i) for i in range(2)]
            weight, bias = (Lines(context, builder, *pair) for pair in zip(signature.args[2], parts, strict=True))
            corner, channel = (builder.extract_value(values[1], i) for i in range(2))
            line, first = (builder.extract_value(values[4], i) for i in range(2))
            down = builder.mul(INDEX(dilation), source.sizes[1])  # lines from one row that is seen to the next
            totals = [bias.load(INDEX(0), first)] * OUTPUTS
            for row in range(side):
                # GROUP values to a position, known here: the steps along a row become part of the instructions.
                start = builder.mul(builder.add(corner, builder.mul(INDEX(row), down)), INDEX(GROUP))
                loaded: dict[int, Vector] = {}  # by position along the row: outputs share what they see
                for column in range(side):
                    factor = weight.load(INDEX(row * side + column), first)
                    for i, total in enumerate(totals):
                        position = i * stride + column * dilation
                        if position not in loaded:
                            there = builder.add(builder.add(start, channel), INDEX(position * GROUP))
                            loaded[position] = source.load(INDEX(0), there)
                        totals[i] = total + loaded[position] * factor
            for i, total in enumerate(totals):
                target.store(total.limit(SIX), builder.add(line, INDEX(i)), first)
            return context.get_dummy_value()

        return types.void(seen, types.UniTuple(types.intp, 2), filters, result, types.UniTuple(types.intp, 2)), write

    return filter_vectors


_filter_by_3, _filter_by_3_halving, _filter_by_5, _filter_by_5_halving, _filter_by_5_dilated = (
    _make_filter(*each) for each in FILTERS
)


@compiled
def convolve_positions(maps: Floats, weights: Weights, added: Floats, result: Floats, threads: int) -> None:
    """Fill result (P, CO) with the 1x1 convolution of maps (P, CI), plus what is added (p, CO): over and over where p is less than P; it may be 0.

    ``weights``: weight (CI, N), N the next multiple of PADDED, and bias (CO,).
    """
    weight, bias = weights
    taken = np.zeros(1, np.int64)
    for _ in prange(threads):
        wide, rest = np.empty((POSITIONS, weight.shape[1]), np.float32), np.zeros((POSITIONS, len(weight)), np.float32)
        start = take(taken) * POSITIONS
        while start < len(maps):
            some = maps[start : start + POSITIONS]
            multiply_some(some, rest, weight, wide)
            for i in range(len(some)):
                line, there = wide[i], result[start + i]
                for channel in range(len(there)):
                    there[channel] = line[channel] + bias[channel]
                if len(added):
                    more = added[(start + i) % len(added)]
                    for channel in range(len(there)):
                        there[channel] += more[channel]
            start = take(taken) * POSITIONS
