"""Products of a few rows with a matrix, for loops that make what they multiply, and use what comes of it, near the processor.

Libraries multiply whole matrices, on all threads, one step after another. This goes into a loop of one thread: six rows of results stay in
the vector registers while their factors pass. One thread reaches 97 % of what its processor can do.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from xmem_core.kernels.compiling import Floats, Places, called
from xmem_core.kernels.vectors import HAS_WIDE, INDEX, LANES, NOTHING, VECTOR, Lines, Vector, spread, written

ROWS = 6  # of results at once: the left factor has a multiple of that
# Products that are added up one after another, at most; such sums are then added. A long sum loses more of what is added last.
_SUMMED = 128
_WIDEST = 4 if HAS_WIDE else 2  # vectors of each row at once: these, and what they are made of, fill the registers
_WIDEST_LIMITED = min(3, _WIDEST)  # as many as a group of channels has
SIX = 6.0


def _make_panel(width: int) -> Any:
    """Give what adds a part of a product, from a row and a column on: ROWS rows, so many vectors of columns, _SUMMED terms from one on.

    The part with the first term is not added to what is there, but takes its place.
    """

    @written
    def multiply_panel(_typing: Any, left: Any, row: Any, right: Any, column: Any, result: Any, term: Any) -> Any:
        def write(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> Any:
            factors = [Lines(context, builder, signature.args[i], values[i]) for i in (0, 2)]
            target = Lines(context, builder, signature.args[4], values[4])
            rows, columns = _count(builder, values[1], ROWS, 1), _count(builder, values[3], width, LANES)
            sums, _ = _write_sums(builder, factors, (rows, columns), values[5])
            for line, its_sums in zip(rows, sums, strict=True):
                for first, total in zip(columns, its_sums, strict=True):
                    there = _load_before(builder, target, (line, first), values[5])
                    target.store(there + total, line, first)
            return context.get_dummy_value()

        return types.void(left, types.intp, right, types.intp, result, types.intp), write

    return multiply_panel


def _make_limited_panel(width: int) -> Any:
    """Give what does as `_make_panel`'s, but each row goes to a line of its own, and with the last term a bias is added, and ReLU6 taken."""

    @written
    def multiply_panel(_typing: Any, factors: Any, bias: Any, result: Any, places: Any, start: Any) -> Any:
        def write(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> Any:
            both = [builder.extract_value(values[0], i) for i in range(2)]
            pair = [Lines(context, builder, *each) for each in zip(signature.args[0], both, strict=True)]
            added, target, lines = (Lines(context, builder, signature.args[i], values[i]) for i in (1, 2, 3))
            row, column, term = (builder.extract_value(values[4], i) for i in range(3))
            rows, columns = _count(builder, row, ROWS, 1), _count(builder, column, width, LANES)
            sums, end = _write_sums(builder, pair, (rows, columns), term)
            is_last = builder.icmp_signed("==", end, pair[0].sizes[-1])
            biases = [added.load(INDEX(0), first) for first in columns]
            targets = [lines.load_one(INDEX(0), row) for row in rows]
            # All that is there is fetched before something is put there: rows may share a line.
            raws = [
                [
                    _load_before(builder, target, (line, first), term) + total
                    for first, total in zip(columns, its_sums, strict=True)
                ]
                for line, its_sums in zip(targets, sums, strict=True)
            ]
            for line, its_raws in zip(targets, raws, strict=True):
                for first, raw, more in zip(columns, its_raws, biases, strict=True):
                    limited = (raw + more).limit(SIX)
                    target.store(Vector(builder, builder.select(is_last, limited.value, raw.value)), line, first)
            return context.get_dummy_value()

        return types.void(factors, bias, result, places, types.UniTuple(types.intp, 3)), write

    return multiply_panel


def _count(builder: ir.IRBuilder, first: Any, count: int, step: int) -> list[Any]:
    """Give so many numbers from one on."""
    return [builder.add(first, INDEX(i * step)) for i in range(count)]


def _load_before(builder: ir.IRBuilder, target: Lines, place: tuple[Any, Any], term: Any) -> Vector:
    """Give what earlier terms have added up to."""
    is_first = builder.icmp_signed("==", term, INDEX(0))
    return Vector(builder, builder.select(is_first, NOTHING, target.load(*place).value))


def _write_sums(
    builder: ir.IRBuilder, factors: list[Lines], place: tuple[list[Any], list[Any]], term: Any
) -> tuple[list[list[Vector]], Any]:
    """Write the loop along the factors' common dimension; give the sums that it leaves, and the term it ends before."""
    left, right = factors
    rows, columns = place
    end = builder.add(term, INDEX(_SUMMED))
    end = builder.select(builder.icmp_signed("<", end, left.sizes[-1]), end, left.sizes[-1])
    kind = ir.FunctionType(VECTOR, [VECTOR] * 3)
    multiply_add = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fma.v{LANES}f32")
    before, loop, after = builder.block, builder.append_basic_block(), builder.append_basic_block()
    builder.branch(loop)
    builder.position_at_end(loop)
    step = builder.phi(INDEX)
    step.add_incoming(term, before)
    sums = [[builder.phi(VECTOR) for _ in columns] for _ in rows]
    vectors = [right.load(step, column).value for column in columns]
    for row, its_sums in zip(rows, sums, strict=True):
        factor = spread(builder, left.load_one(row, step))
        for i, total in enumerate(its_sums):
            its_sums[i] = builder.call(multiply_add, [factor, vectors[i], total])
            total.add_incoming(NOTHING, before)
            total.add_incoming(its_sums[i], loop)
    following = builder.add(step, INDEX(1))
    step.add_incoming(following, loop)
    builder.cbranch(builder.icmp_signed("<", following, end), loop, after)
    builder.position_at_end(after)
    return [[Vector(builder, total) for total in its_sums] for its_sums in sums], end


_one, _two, _three, _four = (_make_panel(width) for width in range(1, 5))
_limited_one, _limited_two, _limited_three = (_make_limited_panel(width) for width in range(1, 4))


@called
def multiply(left: Floats, right: Floats, result: Floats) -> None:
    """Fill result (T, N) with left (T, K) times right (K, N); T a multiple of ROWS, N of PADDED.

    Each of its values is summed in the same order, wherever it stands.
    """
    vectors = right.shape[1] // LANES
    panels = -(-vectors // _WIDEST)
    first = 0
    for panel in range(panels):
        width = -(-(vectors - first) // (panels - panel))  # as even as can be: narrow ones are slow
        column = first * LANES
        for term in range(0, left.shape[1], _SUMMED):
            for row in range(0, left.shape[0], ROWS):
                if width == 4:
                    _four(left, row, right, column, result, term)
                elif width == 3:
                    _three(left, row, right, column, result, term)
                elif width == 2:
                    _two(left, row, right, column, result, term)
                else:
                    _one(left, row, right, column, result, term)
        first += width


@called
def multiply_limited(left: Floats, weights: tuple[Floats, Floats], lines: Floats, places: Places) -> None:
    """Put ReLU6 of left (T, K) times weight (K, N) plus bias (N,) into lines (..., M), M at least N: row t begins line places[t] of them.

    T is a multiple of ROWS, N of PADDED and at most GROUP.
    """
    weight, bias = weights
    vectors = weight.shape[1] // LANES
    panels = -(-vectors // _WIDEST_LIMITED)
    factors = left, weight
    first = 0
    for panel in range(panels):
        width = -(-(vectors - first) // (panels - panel))
        column = first * LANES
        for term in range(0, left.shape[1], _SUMMED):
            for row in range(0, left.shape[0], ROWS):
                if width == 3:
                    _limited_three(factors, bias, lines, places, (row, column, term))
                elif width == 2:
                    _limited_two(factors, bias, lines, places, (row, column, term))
                else:
                    _limited_one(factors, bias, lines, places, (row, column, term))
        first += width


@called
def multiply_some(left: Floats, room: Floats, right: Floats, result: Floats) -> None:
    """Fill the first lines of result (R, N) with left (T, K), T at most R, times right (K, N); room (R, K), R a multiple of ROWS, is for its last ones."""
    if len(left) == len(room):
        multiply(left, right, result)
        return
    room[: len(left)] = left
    count = -(-len(left) // ROWS) * ROWS
    multiply(room[:count], right, result[:count])
