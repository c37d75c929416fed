"""Products of a few rows with a matrix, for loops that make what they multiply, and use what comes of it, near the processor.

Libraries multiply whole matrices, on all threads, one step after another. This goes into a loop of one thread: six rows of results stay in
the vector registers while their factors pass. One thread reaches 97 % of what its processor can do.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from xmem_core.kernels.compiling import Floats, called
from xmem_core.kernels.vectors import HAS_WIDE, INDEX, LANES, NOTHING, VECTOR, Lines, Vector, spread, written

ROWS = 6  # of results at once: the left factor has a multiple of that
# Products that are added up one after another, at most; such sums are then added. A long sum loses more of what is added last.
_SUMMED = 128
_WIDEST = 4 if HAS_WIDE else 2  # vectors of each row at once: these, and what they are made of, fill the registers


def _make_panel(width: int) -> Any:
    """Give what adds a part of a product, from a row and a column on: ROWS rows, so many vectors of columns, _SUMMED terms from one on.

    The part with the first term is not added to what is there, but takes its place.
    """

    @written
    def multiply_panel(_typing: Any, left: Any, row: Any, right: Any, column: Any, result: Any, term: Any) -> Any:
        def write(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> Any:
            lines = [Lines(context, builder, signature.args[i], values[i]) for i in (0, 2, 4)]
            rows = [builder.add(values[1], INDEX(i)) for i in range(ROWS)]
            columns = [builder.add(values[3], INDEX(i * LANES)) for i in range(width)]
            _write_panel(builder, lines, (rows, columns), values[5])
            return context.get_dummy_value()

        return types.void(left, types.intp, right, types.intp, result, types.intp), write

    return multiply_panel


def _write_panel(
    builder: ir.IRBuilder, factors_and_result: list[Lines], place: tuple[list[Any], list[Any]], term: Any
) -> None:
    """Write the loop along the factors' common dimension, and what is done with the sums that it leaves."""
    left, right, result = factors_and_result
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
    is_first = builder.icmp_signed("==", term, INDEX(0))
    for row, its_sums in zip(rows, sums, strict=True):
        for column, total in zip(columns, its_sums, strict=True):
            there = builder.select(is_first, NOTHING, result.load(row, column).value)
            result.store(Vector(builder, there) + Vector(builder, total), row, column)


_one, _two, _three, _four = (_make_panel(width) for width in range(1, 5))


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
def multiply_some(left: Floats, room: Floats, right: Floats, result: Floats) -> None:
    """Fill the first lines of result (R, N) with left (T, K), T at most R, times right (K, N); room (R, K), R a multiple of ROWS, is for its last ones."""
    if len(left) == len(room):
        multiply(left, right, result)
        return
    room[: len(left)] = left
    count = -(-len(left) // ROWS) * ROWS
    multiply(room[:count], right, result[:count])
