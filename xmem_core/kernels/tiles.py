"""3x3 convolutions: tiles of maps for Winograd's filtering, and one channel of outputs directly."""

from __future__ import annotations

import numpy as np
from numba import prange

from xmem_core.kernels.compiling import EIGHT, FIVE, FOUR, TWO, ZERO, Floats, compiled, compiled_sums, inlined

TILE = 4  # outputs of a tile to a side; its inputs are two more

_Six = tuple[np.float32, np.float32, np.float32, np.float32, np.float32, np.float32]


@inlined
def _forward(a: np.float32, b: np.float32, c: np.float32, d: np.float32, e: np.float32, f: np.float32) -> _Six:
    """Give B^T of F(4, 3) times six values (Lavin and Gray, equation 12)."""
    even, odd, even2, odd2 = e - FOUR * c, d - FOUR * b, e - c, TWO * (d - b)
    return FOUR * a - FIVE * c + e, even + odd, even - odd, even2 + odd2, even2 - odd2, FOUR * b - FIVE * d + f


@inlined
def _back(
    a: np.float32, b: np.float32, c: np.float32, d: np.float32, e: np.float32, f: np.float32
) -> tuple[np.float32, np.float32, np.float32, np.float32]:
    """Give A^T of F(4, 3) times six values."""
    total, total2, less, less2 = b + c, d + e, b - c, d - e
    return a + total + total2, less + TWO * less2, total + FOUR * total2, less + EIGHT * less2 + f


@compiled
def lay_tiles(maps: Floats, tiles: Floats, first: int, least: np.float32) -> None:
    """Fill ``tiles`` (36, T, C) with the transforms of 6x6 tiles of maps (n, h, w, C), four apart, zeros around.

    There are n * ceil(h/4) lines of ceil(w/4) tiles; T is some of them, whole, from line ``first``. Values of maps below ``least`` are
    taken as that. B^T d B of F(4x4, 3x3).
    """
    rows, columns = -(-maps.shape[1] // TILE), -(-maps.shape[2] // TILE)
    for line in prange(tiles.shape[1] // columns):
        place = first + line
        _lay_line(maps[place // rows], tiles, line * columns, (place % rows * TILE - 1, least))


@inlined
def _lay_line(picture: Floats, tiles: Floats, start: int, top_and_least: tuple[int, np.float32]) -> None:
    height, width, channels = picture.shape
    top, least = top_and_least
    half = np.empty((6, 6, channels), np.float32)
    seen = np.empty((6, channels), np.float32)
    for tile in range(-(-width // TILE)):
        for across in range(6):
            x = tile * TILE - 1 + across
            for down in range(6):
                inside = 0 <= x < width and 0 <= top + down < height
                for i in range(channels):
                    value = picture[top + down, x, i] if inside else ZERO
                    seen[down, i] = value if value > least else least
            for i in range(channels):
                r = _forward(seen[0, i], seen[1, i], seen[2, i], seen[3, i], seen[4, i], seen[5, i])
                half[0, across, i], half[1, across, i], half[2, across, i] = r[0], r[1], r[2]
                half[3, across, i], half[4, across, i], half[5, across, i] = r[3], r[4], r[5]
        for down in range(6):
            h, t, at = half[down], tiles[down * 6 : down * 6 + 6], start + tile
            for i in range(channels):
                r = _forward(h[0, i], h[1, i], h[2, i], h[3, i], h[4, i], h[5, i])
                t[0, at, i], t[1, at, i], t[2, at, i], t[3, at, i], t[4, at, i], t[5, at, i] = r


@compiled
def bring_tiles(products: Floats, bias: Floats, added: Floats, maps: Floats, first: int) -> None:
    """Fill maps (n, h, w, C) with the 4x4 outputs of products (36, T, C), tiles as `lay_tiles` has them, plus bias (C,).

    ``added`` (m, h, w, C) is added too, each to n/m maps that follow each other; m may be 0. A^T m A of F(4x4, 3x3).
    """
    rows, columns = -(-maps.shape[1] // TILE), -(-maps.shape[2] // TILE)
    for line in prange(products.shape[1] // columns):
        part, top = (first + line) // rows, (first + line) % rows * TILE
        picture = maps[part, top : top + TILE]
        _bring_line(products, line * columns, bias, picture)
        if added.shape[0]:
            more = added[part * added.shape[0] // maps.shape[0], top : top + TILE]
            for y in range(picture.shape[0]):
                for x in range(picture.shape[1]):
                    for i in range(picture.shape[2]):
                        picture[y, x, i] += more[y, x, i]


@inlined
def _bring_line(products: Floats, start: int, bias: Floats, picture: Floats) -> None:
    height, width, channels = picture.shape
    half = np.empty((4, 6, channels), np.float32)
    done = np.empty((4, channels), np.float32)
    for tile in range(-(-width // TILE)):
        for across in range(6):
            at = start + tile
            a, b, c = products[across, at], products[across + 6, at], products[across + 12, at]
            d, e, f = products[across + 18, at], products[across + 24, at], products[across + 30, at]
            for i in range(channels):
                r = _back(a[i], b[i], c[i], d[i], e[i], f[i])
                half[0, across, i], half[1, across, i], half[2, across, i], half[3, across, i] = r
        for y in range(height):
            h = half[y]
            for i in range(channels):
                done[0, i], done[1, i], done[2, i], done[3, i] = _back(
                    h[0, i], h[1, i], h[2, i], h[3, i], h[4, i], h[5, i]
                )
            for x in range(min(TILE, width - tile * TILE)):
                out = picture[y, tile * TILE + x]
                for i in range(channels):
                    out[i] = done[x, i] + bias[i]


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
