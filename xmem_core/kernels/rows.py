"""Rows of memory: the best of many similarities, and sums of differences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba import prange, types

from xmem_core.kernels.compiling import (
    LEAST,
    ZERO,
    Bools,
    Doubles,
    Floats,
    Halves,
    Places,
    called,
    compiled,
    compiled_sums,
    inlined,
)
from xmem_core.kernels.products import ROWS, multiply_some
from xmem_core.kernels.vectors import INDEX, LANES, VECTOR, Lines, Vector, spread, take, written

QUERIES_AT_ONCE = 48  # three vectors of 16
MOST = np.float32(np.inf)
PLACE_BITS = 32  # of a place that say which row of its frame it is
ROW_OF_PLACE = (1 << PLACE_BITS) - 1
NONE = np.int16(0)


@compiled
def keep_similar(rows: tuple[Floats, Bools, int], queries: Floats, best: Floats, places: Places, threads: int) -> None:
    """Put rows (N, F) where they belong among the best of each query: similarities (M, k) and places (M, k), k a multiple of PADDED.

    ``rows``: these; which of them exist (N,), the only ones that are put, or (0,) for all; the place of the first. ``queries`` (P, F, QUERIES_AT_ONCE) hold M
    queries one after another, then zeros. What is kept is sorted, largest first, of equal ones the lower place first; the last ones go. So in which
    order rows come makes no difference. Similarities, products of rows and queries, are finite, or -inf, which stands for nothing.
    """
    features, exists, first = rows
    taken = np.zeros(1, np.int64)
    for _ in prange(threads):
        floors = np.empty((1, QUERIES_AT_ONCE), np.float32)
        scores, rest = np.empty((ROWS, QUERIES_AT_ONCE), np.float32), np.zeros((ROWS, features.shape[1]), np.float32)
        part = take(taken)
        while part < queries.shape[0]:
            start = part * QUERIES_AT_ONCE
            for i in range(QUERIES_AT_ONCE):
                floors[0, i] = best[start + i, -1] if start + i < len(best) else MOST
            # From where the queries themselves lie outwards: the best rows are often near, and with them at hand fewer others are put.
            blocks = -(-len(features) // ROWS)
            middle = (start + QUERIES_AT_ONCE // 2) * blocks // len(best)
            for step in range(blocks):
                away = -(step + 1) // 2 if step % 2 else step // 2
                row = (middle + away) % blocks * ROWS
                some = features[row : row + ROWS]
                multiply_some(some, rest, queries[part], scores)
                for i in range(len(some)):
                    if len(exists) == 0 or exists[row + i]:
                        _keep_row(scores, i, first + row + i, floors, best[start:], places[start:])
            part = take(taken)


@called
def _keep_row(scores: Floats, row: int, place: int, floors: Floats, best: Floats, places: Places) -> None:
    """Put a row's scores where they belong among the best of each query."""
    for first in range(0, QUERIES_AT_ONCE, LANES):
        found = _find_at_least(scores, row, first, floors)
        while found:
            query = first + _lowest_bit(found)
            found &= found - 1
            _insert(best, places, query, scores[row, query], place)
            floors[0, query] = best[query, -1]


@written
def _find_at_least(_typing: Any, scores: Any, row: Any, first: Any, floors: Any) -> Any:
    """Give a number whose bits say which values of a vector of scores are no less than those of floors (1, n)."""

    def write(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> Any:
        found, least = (Lines(context, builder, signature.args[i], values[i]) for i in (0, 3))
        pair = found.load(values[1], values[2]), least.load(INDEX(0), values[2])
        compared = builder.fcmp_ordered(">=", *(each.value for each in pair))
        return builder.zext(builder.bitcast(compared, ir.IntType(LANES)), INDEX)

    return types.intp(scores, types.intp, types.intp, floors), write


@written
def _lowest_bit(_typing: Any, bits: Any) -> Any:
    """Give the place of a number's lowest bit that is 1."""

    def write(_context: Any, builder: ir.IRBuilder, _signature: Any, values: Any) -> Any:
        return builder.cttz(values[0], ir.IntType(1)(1))

    return types.intp(types.intp), write


@written
def _insert(_typing: Any, best: Any, places: Any, query: Any, score: Any, place: Any) -> Any:
    """Put a score and its place where they belong in a query's line of best (M, k) and places (M, k); what is last there goes.

    Each position keeps what it has where that is better; else it gets what was before it, or the new one where that was better.
    """

    def write(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> Any:
        lines = [Lines(context, builder, signature.args[i], values[i]) for i in (0, 1)]
        new = [spread(builder, value) for value in values[3:]]
        end = builder.sub(lines[0].sizes[-1], INDEX(LANES))
        before, loop, after = builder.block, builder.append_basic_block(), builder.append_basic_block()
        builder.branch(loop)
        builder.position_at_end(loop)
        first = builder.phi(INDEX)
        first.add_incoming(end, before)
        old = [line.load(values[2], first).value for line in lines]
        previous = [_load_previous(builder, *each, values[2], first) for each in zip(lines, old, strict=True)]
        is_better, was_better = (_is_better(builder, pair, new) for pair in (old, previous))
        for line, there, left, own in zip(lines, old, previous, new, strict=True):
            moved = builder.select(was_better, own, left)
            line.store(Vector(builder, builder.select(is_better, there, moved)), values[2], first)
        next_one = builder.sub(first, INDEX(LANES))
        first.add_incoming(next_one, loop)
        is_done = builder.extract_element(is_better, ir.IntType(32)(0))
        is_done = builder.or_(is_done, builder.icmp_signed("<", next_one, INDEX(0)))
        builder.cbranch(is_done, after, loop)
        builder.position_at_end(after)
        return context.get_dummy_value()

    return types.void(best, places, types.intp, types.float32, types.intp), write


def _load_previous(builder: ir.IRBuilder, line: Lines, values: Any, query: Any, first: Any) -> Any:
    """Give what is one place before each of a line's values from a place on: before the very first there is nothing worse than infinity."""
    is_start = builder.icmp_signed("==", first, INDEX(0))
    there = line.load_one(query, builder.select(is_start, INDEX(0), builder.sub(first, INDEX(1))))
    if values.type == VECTOR:
        there = builder.select(is_start, ir.FloatType()(math.inf), there)
    turned = ir.VectorType(ir.IntType(32), LANES)([LANES - 1, *range(LANES - 1)])
    moved = builder.shuffle_vector(values, values, turned)
    return builder.insert_element(moved, there, ir.IntType(32)(0))


def _is_better(builder: ir.IRBuilder, pair: Sequence[Any], other: Sequence[Any]) -> Any:
    """Give where scores and places of a pair of vectors come before those of another."""
    is_equal = builder.fcmp_ordered("==", pair[0], other[0])
    is_lower = builder.icmp_signed("<", pair[1], other[1])
    return builder.or_(builder.fcmp_ordered(">", pair[0], other[0]), builder.and_(is_equal, is_lower))


@compiled
def choose_best(
    best: Floats, places: Places, frames: tuple[Places, Places], chosen: Floats, rows: Places, counts: Places
) -> None:
    """Fill chosen and rows (M, k) with the first of the best (M, K) that are of some frames, and counts (M,) with how many these are.

    A place is ``frame << PLACE_BITS | row``. ``frames`` are their numbers (n,), ascending, and what is added to their rows (n,). What is
    left over is -inf at row 0.
    """
    for query in prange(best.shape[0]):
        counts[query] = _choose_of_line(best[query], places[query], frames, chosen[query], rows[query])


@inlined
def _choose_of_line(best: Floats, places: Places, frames: tuple[Places, Places], chosen: Floats, rows: Places) -> int:
    numbers, starts = frames
    count = 0
    for i in range(len(best)):
        if count == len(chosen) or best[i] == LEAST:
            break
        frame = places[i] >> PLACE_BITS
        at = np.searchsorted(numbers, frame)  # where it is, if it is there
        if at < len(numbers) and numbers[at] == frame:
            chosen[count], rows[count] = best[i], starts[at] + (places[i] & ROW_OF_PLACE)
            count += 1
    for i in range(count, len(chosen)):
        chosen[i], rows[i] = LEAST, 0
    return count


@compiled_sums
def add_differences(
    memories: tuple[Floats, Floats], queries: tuple[Floats, Floats], sums: Doubles, threads: int
) -> None:
    """Fill sums (P,), one for each part of queries, with by how much S is above S', where it is, all added up.

    S is the product of a frame's rows and another's queries, S' that of the other's rows and its own queries: ``memories`` (N, F) and
    ``queries`` (P, F, QUERIES_AT_ONCE), zeros after the last, of the one frame and of the other. For a frame and itself they are equal, to the last bit.
    """
    taken = np.zeros(1, np.int64)
    for _ in prange(threads):
        there, back = np.empty((ROWS, QUERIES_AT_ONCE), np.float32), np.empty((ROWS, QUERIES_AT_ONCE), np.float32)
        rest = np.zeros((ROWS, memories[0].shape[1]), np.float32)
        part = take(taken)
        while part < len(sums):
            total = 0.0
            for row in range(0, len(memories[0]), ROWS):
                some = memories[0][row : row + ROWS]
                multiply_some(some, rest, queries[1][part], there)
                multiply_some(memories[1][row : row + ROWS], rest, queries[0][part], back)
                for i in range(len(some)):
                    total += _add_line(there[i], back[i])
            sums[part] = total
            part = take(taken)


@inlined
def _add_line(larger: Floats, smaller: Floats) -> np.float32:
    total = ZERO
    for i in range(len(larger)):
        total += max(larger[i] - smaller[i], ZERO)
    return total


@compiled_sums
def add_positive(halves: Halves, sums: Floats) -> None:
    """Fill sums (M,) with the sum of what is above 0 in each row of halves (M, N): bfloat16, by its bits."""
    for row in prange(halves.shape[0]):
        sums[row] = _add_positive_line(halves[row])


@inlined
def _add_positive_line(line: Halves) -> np.float32:
    total = ZERO
    for i in range(len(line)):
        # A bfloat16 is the upper half of a float32, and negative where its bits as a whole number are.
        total += np.int32(np.int32(max(line[i], NONE)) << 16).view(np.float32)
    return total
