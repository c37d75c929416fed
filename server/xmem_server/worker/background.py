"""Threads beside the propagation: they take what it leaves of the processor."""

from __future__ import annotations

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import TypeVar

NICENESS = 10  # of 19: about a tenth of a processor that the propagation wants too, and all of one that it does not

_Owner = TypeVar("_Owner", bound="BackgroundOwner")


class BackgroundOwner:
    """What has threads of low priority. A context: at its end they end in the order of their start, and what waits is dropped."""

    def __init__(self) -> None:
        self._background: list[ThreadPoolExecutor] = []

    def start_background(self, name: str) -> ThreadPoolExecutor:
        """Give a pool of one thread of low priority. What that thread starts (more threads, processes) inherits it."""
        self._background.append(ThreadPoolExecutor(1, name, initializer=_lower_priority))
        return self._background[-1]

    def __enter__(self: _Owner) -> _Owner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for pool in self._background:
            pool.shutdown(cancel_futures=True)


def _lower_priority() -> None:
    if sys.platform == "linux":  # where a thread has a priority of its own; elsewhere it would be the whole process's
        own = os.getpriority(os.PRIO_PROCESS, 0)
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), max(own, NICENESS))
