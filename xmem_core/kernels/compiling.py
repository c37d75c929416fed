"""How loops that no library call has are compiled for this CPU, by Numba.

Compiling takes seconds, once: what comes of it is kept on disk, beside these files or in the user's cache folder. Numba asks whether a loop's
own file still says what it said, not whether what the loop is made of does, here, in `vectors` or in `products`: so what is kept lies in a
folder named by what all these files say. Arrays are C-contiguous. What a kernel gives does not depend on how many threads it runs on: each
item is computed by one.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from numba import config, get_num_threads, njit

from xmem_core.kernels.threads import THREADS

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Bytes = npt.NDArray[np.uint8]
Halves = npt.NDArray[np.int16]
Places = npt.NDArray[np.int64]
_Kernel = Callable[..., None]

config.THREADING_LAYER = "omp"  # type: ignore[attr-defined]  # torch's own: whichever loads OpenMP first, both use the same threads
# A thread that begins Numba's threads is told by Numba how many it has, and torch would have as many there as well: on how many threads
# torch works changes the last bits of what it gives. So they begin here, and torch is told its own number again.
get_num_threads()
torch.set_num_threads(THREADS)


def name_cache_folder(sources: Path) -> Path:
    """Give where loops of these sources are kept: beside them, or where nobody may write there, in the user's cache folder."""
    said = hashlib.sha256()
    for source in sorted(sources.glob("*.py")):
        said.update(source.name.encode() + b"\0" + source.read_bytes())
    name = f"loops-{said.hexdigest()[:16]}"
    if os.access(sources, os.W_OK):
        return sources / "__pycache__" / name
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "xmem" / name


if not config.CACHE_DIR:  # type: ignore[attr-defined]  # else whoever set NUMBA_CACHE_DIR knows better
    config.CACHE_DIR = str(name_cache_folder(Path(__file__).parent))  # type: ignore[attr-defined]

ZERO, HALF, ONE, TWO = (np.float32(number) for number in (0, 0.5, 1, 2))
LEAST = np.float32(-np.inf)
_MATHS = {"contract", "nnan", "nsz"}  # sums and products may be fused; NaN and the sign of 0 need not be thought of
_SUMS = _MATHS | {"reassoc"}  # and a sum's terms may be added in any order, many at a time
inlined = njit(inline="always", fastmath=_MATHS, error_model="numpy")
called = njit(nogil=True, fastmath=_MATHS, error_model="numpy")  # compiled once for all loops of a process that call it


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


def lay_channels_last(maps: torch.Tensor) -> torch.Tensor:
    """Give maps (B, C, h, w) as loops take them, (B, h, w, C), contiguous: without a copy where they lie so."""
    return maps.permute(0, 2, 3, 1).contiguous()
