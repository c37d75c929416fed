"""The floating-point operations of the loops of our own, which torch's counter does not see."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

from xmem_core import kernels


def _of_tiles(maps: Any, kernel: Any, *_: Any) -> int:
    count, height, width, _ = maps.shape
    _, depth, breadth = kernel[0].shape
    tiles = count * -(-height // kernels.TILE) * -(-width // kernels.TILE)
    return kernels.SEEN**2 * tiles * depth * breadth


def _of_one(maps: Any, *_: Any) -> int:
    return 9 * maps.size


def _of_positions(maps: Any, weights: Any, *_: Any) -> int:
    return len(maps) * weights[0].size


def _of_widening(maps: Any, widening: Any, filters: Any, _steps: Any, result: Any, *_: Any) -> int:
    return maps[..., 0].size * widening[0].size + result.size * len(filters[0])


def _of_beginning(_pictures: Any, weights: Any, result: Any, *_: Any) -> int:
    return result[..., 0].size * sum(weight.size for weight, _ in weights)


def _of_search(rows: Any, _queries: Any, best: Any, *_: Any) -> int:
    return rows[0].size * len(best)


_PRODUCTS: dict[str, Callable[..., int]] = {
    "convolve_tiles": _of_tiles,
    "convolve_to_one": _of_one,
    "convolve_positions": _of_positions,
    "widen_and_filter": _of_widening,
    "begin": _of_beginning,
    "keep_similar": _of_search,
}


@contextlib.contextmanager
def count_loops() -> Iterator[list[int]]:
    """Give a list to which each loop that multiplies adds its operations, two for each product and its sum, while this context lasts."""
    found: list[int] = []
    originals = {name: getattr(kernels, name) for name in _PRODUCTS}

    def counted(name: str, *given: Any) -> None:
        found.append(2 * _PRODUCTS[name](*given))
        originals[name](*given)

    try:
        for name in _PRODUCTS:
            setattr(kernels, name, functools.partial(counted, name))
        yield found
    finally:
        for name, original in originals.items():
            setattr(kernels, name, original)
