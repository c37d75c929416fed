"""Loops over pixels and rows that no library call has, compiled for this CPU by Numba.

Compiling takes seconds, once: what comes of it is kept on disk beside this file, or in the user's cache folder. Arrays are
C-contiguous. What a kernel gives does not depend on how many threads it runs on: each item is computed by one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from numba import config, njit, prange

Floats = npt.NDArray[np.float32]
Places = npt.NDArray[np.int64]
_Kernel = Callable[..., None]

config.THREADING_LAYER = "omp"  # type: ignore[attr-defined]  # torch's own: whichever loads OpenMP first, both use the same threads
config.NUMBA_NUM_THREADS = torch.get_num_threads()  # type: ignore[attr-defined]

TILE = 4  # outputs of a tile to a side; its inputs are two more
GROUP = 32  # rows whose largest similarity stands for them while the best are looked for
PLACE_BITS = 32  # of a place that say which row of its frame it is
ZERO, HALF, ONE, TWO, FOUR, FIVE, EIGHT = (np.float32(number) for number in (0, 0.5, 1, 2, 4, 5, 8))
LEAST = np.float32(-np.inf)
LEAST_PROBABILITY = np.float32(1e-7)  # the published code's: 1 less that is the nearest float32
PIXELS = 4096  # that one thread takes at a time: they stay near it
_MATHS = {"contract", "nnan", "nsz"}  # sums and products may be fused; NaN and the sign of 0 need not be thought of
_SUMS = _MATHS | {"reassoc"}  # and a sum's terms may be added in any order, many at a time
_inlined = njit(inline="always", fastmath=_MATHS, error_model="numpy")


def compiled(function: _Kernel) -> _Kernel:
    """Give a function that runs compiled, on all threads, without the GIL; compiled anew by each process where there is nowhere to keep it."""
    return _compile(function, _MATHS)


def compiled_sums(function: _Kernel) -> _Kernel:
    """Give a function as `compiled` does, for sums along lines: in which order they are added is the processor's."""
    return _compile(function, _SUMS)


def _compile(function: _Kernel, maths: set[str]) -> _Kernel:
    decorate = functools.partial(njit, parallel=True, nogil=True, fastmath=maths, error_model="numpy")
    try:
        return decorate(cache=True)(function)
    except RuntimeError:  # neither beside the file nor in a cache folder of the user's
        return decorate(cache=False)(function)


def can_take(tensor: torch.Tensor) -> bool:
    """Say whether loops that are compiled may take a tensor's place: it is on the CPU, and nobody wants gradients."""
    return tensor.device.type == "cpu" and not torch.is_grad_enabled()


_Six = tuple[np.float32, np.float32, np.float32, np.float32, np.float32, np.float32]


@_inlined
def _forward(a: np.float32, b: np.float32, c: np.float32, d: np.float32, e: np.float32, f: np.float32) -> _Six:
    """Give B^T of F(4, 3) times six values (Lavin and Gray, equation 12)."""
    even, odd, even2, odd2 = e - FOUR * c, d - FOUR * b, e - c, TWO * (d - b)
    return FOUR * a - FIVE * c + e, even + odd, even - odd, even2 + odd2, even2 - odd2, FOUR * b - FIVE * d + f


@_inlined
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


@_inlined
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


@_inlined
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


@compiled
def widen(maps: Floats, wide: Floats) -> None:
    """Fill wide (C, h, W) with maps (C, h, w), bilinear along their lines: the outer edges of both lie on each other."""
    for line in prange(maps.shape[0] * maps.shape[1]):
        part, row = line // maps.shape[1], line % maps.shape[1]
        _widen_line(maps[part, row], wide[part, row])


@_inlined
def _widen_line(line: Floats, wide: Floats) -> None:
    step, last = np.float32(len(line) / len(wide)), np.float32(len(line) - 1)
    for x in range(len(wide)):
        spot = max(ZERO, (np.float32(x) + HALF) * step - HALF)
        left = np.floor(spot)
        before, after = line[np.int32(left)], line[np.int32(min(left + ONE, last))]
        wide[x] = before + (spot - left) * (after - before)


@compiled
def carry_pictures(pictures: Floats, motion: Floats, carried: Floats) -> None:
    """Fill carried (n, H, W) with pictures (n, H, W) where motion (3, h, W) takes them; the last one is trust, and multiplied by the motion's.

    Motion has dx and dy, in pixels, and trust, all finite; it has fewer lines than the pictures and is brought to their height,
    bilinear. So are pictures between their pixels, and 0 outside.
    """
    for line in prange(pictures.shape[1]):
        _carry_line(pictures, motion, carried, line)


@_inlined
def _carry_line(pictures: Floats, motion: Floats, carried: Floats, line: int) -> None:
    count, height, width = pictures.shape
    corners = np.empty((4, width), np.uint32)  # unsigned: no index counts from the end
    weights, trust = np.empty((4, width), np.float32), np.empty(width, np.float32)
    own_y, last_x, last_y = np.float32(line), np.float32(width - 1), np.float32(height - 1)
    spot = max(ZERO, (own_y + HALF) * np.float32(motion.shape[1] / height) - HALF)
    upper = int(spot)
    share, lower = spot - np.float32(upper), min(upper + 1, motion.shape[1] - 1)
    for x in range(width):
        dx = motion[0, upper, x] + share * (motion[0, lower, x] - motion[0, upper, x])
        dy = motion[1, upper, x] + share * (motion[1, lower, x] - motion[1, upper, x])
        trust[x] = motion[2, upper, x] + share * (motion[2, lower, x] - motion[2, upper, x])
        there_x = min(max(np.float32(x) + dx, -TWO), last_x + TWO)
        there_y = min(max(own_y + dy, -TWO), last_y + TWO)
        left, top = np.floor(there_x), np.floor(there_y)
        right, low = left + ONE, top + ONE
        to_left = right - there_x if left >= ZERO else ZERO
        to_left = to_left if left <= last_x else ZERO
        to_right = there_x - left if right >= ZERO else ZERO
        to_right = to_right if right <= last_x else ZERO
        to_top = low - there_y if top >= ZERO else ZERO
        to_top = to_top if top <= last_y else ZERO
        to_low = there_y - top if low >= ZERO else ZERO
        to_low = to_low if low <= last_y else ZERO
        weights[0, x], weights[1, x] = to_top * to_left, to_top * to_right
        weights[2, x], weights[3, x] = to_low * to_left, to_low * to_right
        x0, x1 = np.int32(min(max(left, ZERO), last_x)), np.int32(min(max(right, ZERO), last_x))
        y0, y1 = np.int32(min(max(top, ZERO), last_y)), np.int32(min(max(low, ZERO), last_y))
        corners[0, x], corners[1, x] = y0 * width + x0, y0 * width + x1
        corners[2, x], corners[3, x] = y1 * width + x0, y1 * width + x1
    for each in range(count):
        flat = pictures[each].reshape(-1)
        for x in range(width):
            above = weights[0, x] * flat[corners[0, x]] + weights[1, x] * flat[corners[1, x]]
            below = weights[2, x] * flat[corners[2, x]] + weights[3, x] * flat[corners[3, x]]
            carried[each, line, x] = above + below
    for x in range(width):
        carried[count - 1, line, x] *= trust[x]


@compiled
def normalise_odds(own: Floats, normalised: Floats) -> None:
    """Fill normalised (N, P) with the probabilities of N objects at P pixels when they and a background share 1, from each object's own (N, P).

    The background is what is left of all of them: the product of 1 - own. Clamped to LEAST_PROBABILITY and 1 less that.
    """
    for part in prange(-(-own.shape[1] // PIXELS)):
        _normalise_part(own, normalised, part * PIXELS)


@_inlined
def _normalise_part(own: Floats, normalised: Floats, start: int) -> None:
    stop = min(start + PIXELS, own.shape[1])
    total = np.ones(stop - start, np.float32)
    for each in range(own.shape[0]):
        probabilities = own[each, start:stop]
        for i in range(len(total)):
            total[i] *= ONE - probabilities[i]
    for i in range(len(total)):
        total[i] = _odds(total[i])
    for each in range(own.shape[0]):
        probabilities, odds = own[each, start:stop], normalised[each, start:stop]
        for i in range(len(total)):
            odds[i] = _odds(probabilities[i])
            total[i] += odds[i]
    for each in range(own.shape[0]):
        odds = normalised[each, start:stop]
        for i in range(len(total)):
            odds[i] /= total[i]


@_inlined
def _odds(probability: np.float32) -> np.float32:
    clamped = min(max(probability, LEAST_PROBABILITY), ONE - LEAST_PROBABILITY)
    return clamped / (ONE - clamped)


@compiled
def keep_best(scores: Floats, first: int, best: Floats, places: Places) -> None:
    """Put the scores (M, N) of places ``first``, ``first`` + 1, ... where they belong among the best (M, k) of each row, at places (M, k).

    Those are sorted, largest first, of equal ones the lower place first; the last ones go. So in which order scores come makes no
    difference. -inf stands for nothing. Only groups of which the largest is good enough are looked into.
    """
    for query in prange(scores.shape[0]):
        _keep_of_line(scores[query], first, best[query], places[query])


@_inlined
def _keep_of_line(line: Floats, first: int, best: Floats, places: Places) -> None:
    groups, last = len(line) // GROUP, len(best) - 1
    for group in range(groups):
        largest = line[group * GROUP]
        for i in range(group * GROUP, (group + 1) * GROUP):
            largest = max(largest, line[i])
        if largest >= best[last]:
            for i in range(group * GROUP, (group + 1) * GROUP):
                _insert(line[i], first + i, best, places)
    for i in range(groups * GROUP, len(line)):
        _insert(line[i], first + i, best, places)


@_inlined
def _insert(score: np.float32, place: int, best: Floats, places: Places) -> None:
    at = len(best) - 1
    if score > best[at] or (score == best[at] and place < places[at]):
        while at > 0 and (best[at - 1] < score or (best[at - 1] == score and places[at - 1] > place)):
            best[at], places[at] = best[at - 1], places[at - 1]
            at -= 1
        best[at], places[at] = score, place


@compiled
def choose_best(best: Floats, places: Places, allowed: Places, chosen: Floats, rows: Places, counts: Places) -> None:
    """Fill chosen and rows (M, k) with the first of the best (M, K) that are allowed, and counts (M,) with how many these are.

    A place is ``frame << PLACE_BITS | row``. ``allowed`` (n, 2) has frames, ascending, and what is added to their rows. What is left over is
    -inf at row 0.
    """
    for query in prange(best.shape[0]):
        counts[query] = _choose_of_line(best[query], places[query], allowed, chosen[query], rows[query])


@_inlined
def _choose_of_line(best: Floats, places: Places, allowed: Places, chosen: Floats, rows: Places) -> int:
    count = 0
    for i in range(len(best)):
        if count == len(chosen) or best[i] == LEAST:
            break
        frame = places[i] >> PLACE_BITS
        low, high = 0, len(allowed)
        while low < high:  # where it is, if it is there
            middle = (low + high) // 2
            if allowed[middle, 0] < frame:
                low = middle + 1
            else:
                high = middle
        if low < len(allowed) and allowed[low, 0] == frame:
            chosen[count], rows[count] = best[i], allowed[low, 1] + (places[i] - (frame << PLACE_BITS))
            count += 1
    for i in range(count, len(chosen)):
        chosen[i], rows[i] = LEAST, 0
    return count


@compiled_sums
def add_excess(larger: Floats, smaller: Floats, sums: Floats) -> None:
    """Fill sums (M,) with by how much each row of larger (M, N) is above smaller (M, N), where it is, all added up."""
    for row in prange(larger.shape[0]):
        sums[row] = _add_line(larger[row], smaller[row])


@_inlined
def _add_line(larger: Floats, smaller: Floats) -> np.float32:
    total = ZERO
    for i in range(len(larger)):
        total += max(larger[i] - smaller[i], ZERO)
    return total


def compile_all() -> None:
    """Have every kernel compiled, or fetched from where an earlier process left it: seconds once, then half a second."""
    maps, tiles = np.zeros((1, 4, 4, 8), np.float32), np.zeros((36, 1, 8), np.float32)
    lay_tiles(maps, tiles, 0, LEAST)
    bring_tiles(tiles, maps[0, 0, 0], maps, maps, 0)
    widen(maps[0], maps[0])
    carry_pictures(maps[0], maps[0, :3], maps[0])
    normalise_odds(maps[0, 0], maps[0, 0])
    add_excess(maps[0, 0], maps[0, 0], maps[0, 0, 0])
    places, allowed, counts = np.zeros((4, 8), np.int64), np.zeros((1, 2), np.int64), np.zeros(4, np.int64)
    keep_best(maps[0, 0], 0, maps[0, 0], places)
    choose_best(maps[0, 0], places, allowed, maps[0, 0], places, counts)
