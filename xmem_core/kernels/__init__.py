"""Loops over pixels and rows that no library call has, compiled for this CPU by Numba."""

from __future__ import annotations

import numpy as np

import xmem_core.kernels.threads  # noqa: F401  # before Numba
from xmem_core.kernels.beginning import begin
from xmem_core.kernels.bottlenecks import FILTERS, GROUP, OUTPUTS, convolve_positions, widen_and_filter
from xmem_core.kernels.compiling import LEAST, ZERO, can_take, compiled, lay_channels_last
from xmem_core.kernels.pictures import (
    LEAST_PROBABILITY,
    LUMA,
    carry_pictures,
    find_brightness,
    normalise_odds,
    shrink,
    widen,
)
from xmem_core.kernels.products import ROWS
from xmem_core.kernels.rows import (
    PLACE_BITS,
    QUERIES_AT_ONCE,
    ROW_OF_PLACE,
    add_differences,
    add_positive,
    choose_best,
    keep_similar,
)
from xmem_core.kernels.threads import THREADS
from xmem_core.kernels.tiles import SEEN, TILE, convolve_tiles, convolve_to_one
from xmem_core.kernels.vectors import PADDED, padded

__all__ = [
    "FILTERS",
    "GROUP",
    "LEAST",
    "LEAST_PROBABILITY",
    "LUMA",
    "OUTPUTS",
    "PADDED",
    "PLACE_BITS",
    "QUERIES_AT_ONCE",
    "ROW_OF_PLACE",
    "SEEN",
    "THREADS",
    "TILE",
    "ZERO",
    "add_differences",
    "add_positive",
    "begin",
    "can_take",
    "carry_pictures",
    "choose_best",
    "compile_all",
    "compiled",
    "convolve_positions",
    "convolve_tiles",
    "convolve_to_one",
    "find_brightness",
    "keep_similar",
    "lay_channels_last",
    "normalise_odds",
    "padded",
    "shrink",
    "widen",
    "widen_and_filter",
]


def compile_all() -> None:
    """Have every kernel compiled, or fetched from where an earlier process left it: seconds once, then half a second."""
    maps = np.zeros((1, 4, 4, 8), np.float32)
    weight, room = np.zeros((36, PADDED, PADDED), np.float32), np.zeros((1, 36, ROWS, 2 * PADDED), np.float32)
    convolve_tiles(maps, (weight, maps[0, 0, 0], LEAST), maps, maps.copy(), room)
    row = np.zeros(PADDED, np.float32)
    filters, wide = (np.zeros((9, PADDED), np.float32), row), np.zeros((1, 4, 4, PADDED), np.float32)
    seen = np.zeros((1, 6, 6, GROUP), np.float32)
    widen_and_filter(maps, (weight[:1, :8].copy(), row), filters, (1, 1, 1), wide, seen)
    convolve_positions(maps[0, 0], (weight[0, :8].copy(), row), wide[0, 0, :0], wide[0, 0], 1)
    begin(
        np.zeros((1, 8, 8, 3), np.float32),
        ((np.zeros((27, PADDED), np.float32), row), filters, (weight[0], row)),
        wide,
        1,
    )
    convolve_to_one(maps, np.zeros((3, 24), np.float32), ZERO, LEAST, maps[..., 0].copy())
    widen(maps[0], maps[0])
    carry_pictures(maps[0], maps[0, :3], maps[0])
    normalise_odds(maps[0, 0], maps[0, 0])
    pictures, colour = np.zeros((1, 4, 4, 3), np.float32), np.ones(3, np.float32)
    shrink(pictures, colour, colour, pictures.copy())
    find_brightness(pictures, np.zeros((1, 4, 4), np.uint8))
    add_positive(np.zeros((1, 4), np.int16), maps[0, 0, 0])
    places, line = np.zeros((4, 8), np.int64), np.zeros(4, np.int64)
    queries, nobody = np.zeros((1, 8, QUERIES_AT_ONCE), np.float32), np.zeros(0, np.bool_)
    best = np.zeros((4, PADDED), np.float32)
    add_differences((maps[0, 0], maps[0, 0]), (queries, queries), np.zeros(1), 1)
    keep_similar((maps[0, 0], nobody, 0), queries, best, best.astype(np.int64), 1)
    choose_best(maps[0, 0], places, (line, line), maps[0, 0], places, line.copy())
