"""The floating-point operations a second that this machine reaches at best: what shares of its limit are counted by."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from xmem_core import kernels
from xmem_core.kernels.compiling import Floats, called
from xmem_core.kernels.products import ROWS, multiply

_DEPTH, _BREADTH = 128, 48  # of a product whose factors stay in the nearest cache
_TIMES = 200_000
_GIGA = 1e9


def measure_limit(device: torch.device) -> float:
    """Give GFLOP a second in float32: of torch's matrix product, or on a CPU of ours in the nearest cache, if that is faster.

    A library leaves half of a processor unused that it does not know.
    """
    one = torch.rand(2048, 2048, device=device)
    found = 2 * len(one) ** 3 / _time(lambda: one @ one, device)
    if device.type == "cpu":
        work = 2 * ROWS * _DEPTH * _BREADTH * _TIMES * kernels.THREADS
        with ThreadPoolExecutor(kernels.THREADS) as pool:
            found = max(found, work / _time(lambda: list(pool.map(_multiply_often, range(kernels.THREADS))), device))
    return found / _GIGA


def _time(work: Callable[[], object], device: torch.device) -> float:
    """Give the median of its seconds."""
    work()  # warm
    taken = []
    for _ in range(5):
        began = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def _multiply_often(_thread: int) -> None:
    factors = np.ones((ROWS, _DEPTH), np.float32), np.ones((_DEPTH, _BREADTH), np.float32)
    _repeat_product(*factors, np.empty((ROWS, _BREADTH), np.float32), _TIMES)


@called
def _repeat_product(left: Floats, right: Floats, result: Floats, times: int) -> None:
    for _ in range(times):
        multiply(left, right, result)
