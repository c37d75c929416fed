"""Memory that the allocator keeps between tensors that are in use, given back to the system before it adds up."""

from __future__ import annotations

import ctypes
import math
import sys
from collections import deque

from xmem_server.memory_watch import private_bytes

# What is kept is used again, sooner or later; what is given back has to be asked for again, a page at a time. The longer a shot, the more
# of the pages between tensors are touched: 2 MB a frame in the first hundred, 5 from there on.
_MOST_GROWTH = 96 * 1024**2
_LOOKS = 8  # the least of so many counts: what comes and goes while frames are encoded is no growth


class HostMemory:
    """This process's own memory. It may grow by so much; then what no tensor uses is given back."""

    def __init__(self) -> None:
        self._recent: deque[int] = deque(maxlen=_LOOKS)
        self._least = math.inf

    def look(self) -> None:
        """Give back what is not used, if memory has grown by so much since that was done. Where the system does not say, nothing happens."""
        self._recent.append(private_bytes())
        if len(self._recent) < _LOOKS:
            return
        held = min(self._recent)
        self._least = min(self._least, held)
        if held - self._least > _MOST_GROWTH:
            trim_host_memory()
            self._recent.clear()
            self._least = math.inf


def trim_host_memory() -> None:
    """Give back to the system the pages that the allocator keeps between tensors that are in use."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:  # glibc keeps freed pages for the next tensors otherwise; other C libraries have no such call
        trim(0)
