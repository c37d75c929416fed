"""Vectors of floats inside compiled loops: what is written here, Numba puts into a loop as it stands.

Numba and LLVM see by themselves that a simple loop can be done many values at a time. Where it has many lines of memory to keep apart they do
not, and no loop of theirs keeps a block of sums in registers. So the few places where that matters are written vector by vector.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from llvmlite.binding import get_host_cpu_features
from numba import types
from numba.extending import intrinsic

HAS_WIDE = bool(get_host_cpu_features().get("avx512f"))
LANES = 16 if HAS_WIDE else 8  # floats of a vector
PADDED = 16  # lines of memory that vectors run along have a multiple of so many floats, whatever the processor


def padded(count: int) -> int:
    """Give how long a line of so many floats is that vectors run along."""
    return -(-count // PADDED) * PADDED


INDEX = ir.IntType(64)
VECTOR = ir.VectorType(ir.FloatType(), LANES)
NOTHING = VECTOR([0.0] * LANES)
written: Callable[[Callable[..., Any]], Any] = intrinsic  # what a function gives that says how something is written

_MATHS = ("contract", "nnan", "nsz")


class Vector:
    """A vector's value in a loop that is being written; sums, differences and multiples of it are written where they are asked for."""

    def __init__(self, builder: ir.IRBuilder, value: Any) -> None:
        self._builder = builder
        self.value = value

    def __add__(self, other: Vector) -> Vector:
        """Give the sum."""
        return Vector(self._builder, self._builder.fadd(self.value, other.value, flags=_MATHS))

    def __sub__(self, other: Vector) -> Vector:
        """Give the difference."""
        return Vector(self._builder, self._builder.fsub(self.value, other.value, flags=_MATHS))

    def __mul__(self, other: Vector) -> Vector:
        """Give the product of each with each."""
        return Vector(self._builder, self._builder.fmul(self.value, other.value, flags=_MATHS))

    def __rmul__(self, factor: float) -> Vector:
        """Give a multiple."""
        constant = VECTOR([factor] * LANES)
        return Vector(self._builder, self._builder.fmul(self.value, constant, flags=_MATHS))

    def limit(self, most: float) -> Vector:
        """Give what of it is above 0, and a limit in place of what is above that."""
        top = VECTOR([most] * LANES)
        above = self._builder.select(self._builder.fcmp_ordered(">", self.value, NOTHING), self.value, NOTHING)
        return Vector(self._builder, self._builder.select(self._builder.fcmp_ordered("<", above, top), above, top))


class Lines:
    """An array's memory in a loop that is being written: C-contiguous, its last dimension being a line."""

    def __init__(self, context: Any, builder: ir.IRBuilder, kind: Any, value: Any) -> None:
        array = context.make_array(kind)(context, builder, value)
        self._builder = builder
        self._data = array.data
        item = context.get_data_type(kind.dtype)
        self._vector = ir.VectorType(item, LANES)
        self._aligned = context.get_abi_sizeof(item)  # no more: a vector begins anywhere in a line
        self.sizes = [builder.extract_value(array.shape, i) for i in range(kind.ndim)]

    def start(self, line: Any) -> Any:
        """Give where a line begins, lines counted through all dimensions before the last."""
        return self._builder.gep(self._data, [self._builder.mul(line, self.sizes[-1])])

    def load(self, line: Any, first: Any) -> Vector:
        """Give the vector of a line that begins at a place in it."""
        return Vector(self._builder, self._builder.load(self._at(line, first), align=self._aligned))

    def load_one(self, line: Any, place: Any) -> Any:
        """Give the single value at a place in a line."""
        return self._builder.load(self._builder.gep(self.start(line), [place]), align=self._aligned)

    def store(self, vector: Vector, line: Any, first: Any) -> None:
        """Put a vector where `load` gives one from."""
        self._builder.store(vector.value, self._at(line, first), align=self._aligned)

    def _at(self, line: Any, first: Any) -> Any:
        return self._builder.bitcast(self._builder.gep(self.start(line), [first]), self._vector.as_pointer())


def spread(builder: ir.IRBuilder, value: Any) -> Any:
    """Give a vector that has a value everywhere."""
    nothing = ir.VectorType(value.type, LANES)(ir.Undefined)
    first = builder.insert_element(nothing, value, ir.IntType(32)(0))
    return builder.shuffle_vector(first, nothing, ir.VectorType(ir.IntType(32), LANES)([0] * LANES))


@written
def take(_typing: Any, counter: Any) -> Any:
    """Give the number in counter (1,) int64, which is one more from then on: threads that take numbers in turn never get the same."""

    def write(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, values[0]).data
        return builder.atomic_rmw("add", data, INDEX(1), "monotonic")

    return types.intp(counter), write
