"""Pictures and masks: made smaller or grey, carried along motion, shared out among objects."""

from __future__ import annotations

import numpy as np
from numba import prange

from xmem_core.kernels.compiling import HALF, ONE, TWO, ZERO, Bytes, Floats, Places, compiled, inlined

LEAST_PROBABILITY = np.float32(1e-7)  # the published code's: 1 less that is the nearest float32
LUMA = (0.299, 0.587, 0.114)  # Rec. 601, of R, G, B
_RED, _GREEN, _BLUE = (np.float32(weight) for weight in LUMA)
WHITE = np.float32(255)
PIXELS = 4096  # that one thread takes at a time: they stay near it


@compiled
def shrink(pictures: Floats, mean: Floats, std: Floats, small: Floats) -> None:
    """Fill small (n, h, w, 3) with pictures (n, H, W, 3) averaged to that size, minus mean (3,), over std (3,).

    Each pixel is the mean of all those that it covers a part of, as `torch.nn.functional.adaptive_avg_pool2d` has it.
    """
    lines, width = small.shape[1], small.shape[2]
    edges = np.empty((2, width), np.int64)
    for x in range(width):
        edges[0, x], edges[1, x] = x * pictures.shape[2] // width, -(-(x + 1) * pictures.shape[2] // width)
    for line in prange(small.shape[0] * lines):
        _shrink_line(pictures[line // lines], line % lines, edges, (mean, std), small[line // lines])


@inlined
def _shrink_line(picture: Floats, y: int, edges: Places, norm: tuple[Floats, Floats], small: Floats) -> None:
    height, width, _ = picture.shape
    mean, std = norm
    top, bottom = y * height // len(small), -(-(y + 1) * height // len(small))
    total = np.zeros(width * 3, np.float32)
    flat = picture.reshape(height, width * 3)
    for row in range(top, bottom):
        line = flat[row]
        for i in range(len(total)):
            total[i] += line[i]
    done = small[y]
    for x in range(len(done)):
        left, right = edges[0, x], edges[1, x]
        red, green, blue = ZERO, ZERO, ZERO
        for i in range(left * 3, right * 3, 3):
            red, green, blue = red + total[i], green + total[i + 1], blue + total[i + 2]
        share = ONE / np.float32((right - left) * (bottom - top))
        done[x, 0] = (red * share - mean[0]) / std[0]
        done[x, 1] = (green * share - mean[1]) / std[1]
        done[x, 2] = (blue * share - mean[2]) / std[2]


@compiled
def find_brightness(pictures: Floats, grey: Bytes) -> None:
    """Fill grey (n, H, W) with the brightness of pictures (n, H, W, 3) 0..1, as 0..255."""
    height = grey.shape[1]
    for line in prange(grey.shape[0] * height):
        picture, done = pictures[line // height, line % height], grey[line // height, line % height]
        for x in range(len(done)):
            luma = _RED * picture[x, 0] + _GREEN * picture[x, 1] + _BLUE * picture[x, 2]
            done[x] = np.uint8(np.rint(min(max(luma, ZERO), ONE) * WHITE))


@compiled
def widen(maps: Floats, wide: Floats) -> None:
    """Fill wide (C, h, W) with maps (C, h, w), bilinear along their lines: the outer edges of both lie on each other."""
    for line in prange(maps.shape[0] * maps.shape[1]):
        part, row = line // maps.shape[1], line % maps.shape[1]
        _widen_line(maps[part, row], wide[part, row])


@inlined
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


@inlined
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


@inlined
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


@inlined
def _odds(probability: np.float32) -> np.float32:
    clamped = min(max(probability, LEAST_PROBABILITY), ONE - LEAST_PROBABILITY)
    return clamped / (ONE - clamped)
