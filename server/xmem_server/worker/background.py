"""Threads beside the propagation: they take what it leaves of the processor."""

from __future__ import annotations

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

NICENESS = 10  # of 19: about a tenth of a processor that the propagation wants too, and all of one that it does not


def start_background(name: str) -> ThreadPoolExecutor:
    """Give a pool of one thread of low priority. What that thread starts (more threads, processes) inherits it."""
    return ThreadPoolExecutor(1, name, initializer=_lower_priority)


def _lower_priority() -> None:
    if sys.platform == "linux":  # where a thread has a priority of its own; elsewhere it would be the whole process's
        own = os.getpriority(os.PRIO_PROCESS, 0)
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), min(19, own + NICENESS))
