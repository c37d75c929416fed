"""3x3 convolutions: tiles of maps for Winograd's filtering, and one channel of outputs directly."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import prange, types

from xmem_core.kernels.compiling import ZERO, Floats, compiled, compiled_sums, inlined
from xmem_core.kernels.products import multiply
from xmem_core.kernels.vectors import INDEX, LANES, Lines, Vector, take, written

TILE = 4  # outputs of a tile to a side
SEEN = 6  # inputs of a tile to a side

_Vectors = list[Vector]


def _forward(values: _Vectors) -> _Vectors:
    """Give B^T of F(4, 3) times six values (Lavin and Gray, equation 12)."""
    a, b, c, d, e, f = values
    even, odd, even2, odd2 = e - 4.0 * c, d - 4.0 * b, e - c, 2.0 * (d - b)
    return [4.0 * a - 5.0 * c + e, even + odd, even - odd, even2 + odd2, even2 - odd2, 4.0 * b - 5.0 * d + f]


def _back(values: _Vectors) -> _Vectors:
    """Give A^T of F(4, 3) times six values."""
    a, b, c, d, e, f = values
    total, total2, less, less2 = b + c, d + e, b - c, d - e
    return [a + total + total2, less + 2.0 * less2, total + 4.0 * total2, less + 8.0 * less2 + f]


@written
def _lay_vector(_typing: Any, seen: Any, channel: Any, tiles: Any, tile: Any) -> Any:
    """Fill some channels of one of the tiles (36, T, C) with B^T d B of what it sees (36, C)."""

    def write(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> Any:
        source, target = (Lines(context, builder, signature.args[i], values[i]) for i in (0, 2))
        channel, tile = values[1], values[3]
        found = [[source.load(INDEX(y * SEEN + x), channel) for y in range(SEEN)] for x in range(SEEN)]
        columns = [_forward(column) for column in found]
        for y in range(SEEN):
            for x, vector in enumerate(_forward([column[y] for column in columns])):
                target.store(vector, builder.add(builder.mul(INDEX(y * SEEN + x), target.sizes[1]), tile), channel)
        return context.get_dummy_value()

    return types.void(seen, types.intp, tiles, types.intp), write


@written
def _bring_vector(_typing: Any, products: Any, tile: Any, channel: Any, done: Any) -> Any:
    """Fill some channels of what is done (16, N) with A^T m A of one tile's products (36, T, N)."""

    def write(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> Any:
        source, target = (Lines(context, builder, signature.args[i], values[i]) for i in (0, 3))
        tile, channel = values[1], values[2]
        columns = []
        for x in range(SEEN):
            lines = [builder.add(builder.mul(INDEX(y * SEEN + x), source.sizes[1]), tile) for y in range(SEEN)]
            columns.append(_back([source.load(line, channel) for line in lines]))
        for y in range(TILE):
            for x, vector in enumerate(_back([column[y] for column in columns])):
                target.store(vector, INDEX(y * TILE + x), channel)
        return context.get_dummy_value()

    return types.void(products, types.intp, types.intp, done), write


@compiled
def convolve_tiles(
    maps: Floats, kernel: tuple[Floats, Floats, np.float32], added: Floats, result: Floats, room: Floats
) -> None:
    """Fill result (n, h, w, CO) with the 3x3 convolution of maps (n, h, w, CI), 0 around, by 4x4 outputs at a time.

    ``kernel``: weight (36, C, N), C and N the next multiples of PADDED of CI and CO; bias (CO,); the least that a value of maps is taken as.
    ``added`` (m, h, w, CO) is added, each to n/m maps that follow each other; m may be 0. ``room`` (threads, 36, T, C + N) is for T tiles of
    each thread, T a multiple of ROWS: their transforms B^T d B, and products.

    Each thread takes tiles as it comes to them: one that others hold up takes fewer.
    """
    weight, bias, least = kernel
    count, height, width, _ = maps.shape
    rows, columns = -(-height // TILE), -(-width // TILE)
    depth, breadth = weight.shape[1:]
    at_once = room.shape[2]
    taken = np.zeros(1, np.int64)
    for thread in prange(room.shape[0]):
        space = room[thread].reshape(-1)
        tiles = space[: SEEN * SEEN * at_once * depth].reshape(SEEN * SEEN, at_once, depth)
        products = space[SEEN * SEEN * at_once * depth :].reshape(SEEN * SEEN, at_once, breadth)
        seen, done = np.zeros((SEEN * SEEN, depth), np.float32), np.empty((TILE * TILE, breadth), np.float32)
        first = take(taken) * at_once
        while first < count * rows * columns:
            last = min(first + at_once, count * rows * columns)
            for tile in range(first, last):
                line, left = tile // columns, tile % columns * TILE - 1
                _see(maps[line // rows], line % rows * TILE - 1, left, least, seen)
                for channel in range(0, depth, LANES):
                    _lay_vector(seen, channel, tiles, tile - first)
            for place in range(SEEN * SEEN):
                multiply(tiles[place], weight[place], products[place])
            for tile in range(first, last):
                for channel in range(0, breadth, LANES):
                    _bring_vector(products, tile - first, channel, done)
                line, left = tile // columns, tile % columns * TILE
                picture, top = line // rows, line % rows * TILE
                _put(done, bias, top, left, result[picture])
                if added.shape[0]:
                    _add(added[picture * added.shape[0] // count], top, left, result[picture])
            first = take(taken) * at_once


@inlined
def _see(picture: Floats, top: int, left: int, least: np.float32, seen: Floats) -> None:
    """Fill seen (36, C) with a 6x6 part of a picture (h, w, CI), zeros outside, nothing less than some value."""
    height, width, channels = picture.shape
    for place in range(SEEN * SEEN):
        y, x = top + place // SEEN, left + place % SEEN
        line = seen[place]
        if 0 <= y < height and 0 <= x < width:
            there = picture[y, x]
            for i in range(channels):
                line[i] = max(there[i], least)
        else:
            for i in range(channels):
                line[i] = max(ZERO, least)


@inlined
def _put(done: Floats, bias: Floats, top: int, left: int, picture: Floats) -> None:
    """Fill a 4x4 part of a picture (h, w, C), what there is of it, with what is done (16, N), plus bias (C,)."""
    for y in range(min(TILE, picture.shape[0] - top)):
        for x in range(min(TILE, picture.shape[1] - left)):
            line, there = done[y * TILE + x], picture[top + y, left + x]
            for i in range(len(there)):
                there[i] = line[i] + bias[i]


@inlined
def _add(more: Floats, top: int, left: int, picture: Floats) -> None:
    """Add to a 4x4 part of a picture (h, w, C) what another has there."""
    for y in range(top, min(top + TILE, picture.shape[0])):
        for x in range(left, min(left + TILE, picture.shape[1])):
            line, there = more[y, x], picture[y, x]
            for i in range(len(there)):
                there[i] += line[i]


@compiled_sums
def convolve_to_one(maps: Floats, weight: Floats, bias: np.float32, least: np.float32, result: Floats) -> None:
    """Fill result (n, h, w) with the 3x3 convolution of maps (n, h, w, C) with 0 around, plus bias.

    ``weight`` (3, 3*C): down, then across and channel. Values of maps below ``least`` are taken as that.
    """
    height = maps.shape[1]
    for line in prange(maps.shape[0] * height):
        _convolve_line(
            maps[line // height], line % height, weight, (bias, least), result[line // height, line % height]
        )


@inlined
def _convolve_line(
    picture: Floats, y: int, weight: Floats, bias_and_least: tuple[np.float32, np.float32], line: Floats
) -> None:
    height, width, channels = picture.shape
    bias, least = bias_and_least
    flat = picture.reshape(height, width * channels)
    for x in range(width):
        line[x] = bias
    for down in range(max(0, 1 - y), min(3, height + 1 - y)):
        row = flat[y + down - 1]
        for x in range(width):
            first = max(x - 1, 0)
            seen, its_weight = (
                row[first * channels : min(x + 2, width) * channels],
                weight[down, (first - x + 1) * channels :],
            )
            total = ZERO
            for i in range(len(seen)):
                total += max(seen[i], least) * its_weight[i]
            line[x] += total
