"""Brings work to the main thread, a little at a time, for as long as there is some."""

from __future__ import annotations

import threading
from typing import Callable

STOP = -1.0
# Seconds; a call that Nuke has not made by then (a dialog is open, a script closes) is asked for again.
_LOST_AFTER = 30.0
_PAUSE_AFTER_LOSS = 1.0


class Ticker:
    """Has ``tick`` called on the main thread until it gives STOP; else it gives the seconds to wait before the next call.

    ``post`` runs a function on the main thread soon and returns at once. One call waits at a time, so that a busy main
    thread finds one call in its queue, not hundreds.
    """

    def __init__(self, post: Callable[[Callable[[], None]], None], tick: Callable[[], float]) -> None:
        self._post = post
        self._tick = tick
        self._lock = threading.Lock()
        self._is_running = False
        self._asked = threading.Event()

    def wake(self) -> None:
        """Go on ticking, at once. May be called from any thread."""
        self._asked.set()
        with self._lock:
            if self._is_running:
                return
            self._is_running = True
        threading.Thread(target=self._run, name="xmem-ticker", daemon=True).start()

    @property
    def is_running(self) -> bool:
        """Whether calls are still asked for."""
        with self._lock:
            return self._is_running

    def _run(self) -> None:
        while True:
            self._asked.clear()
            pause = self._tick_once()
            if pause != STOP:
                self._asked.wait(pause)
                continue
            with self._lock:
                if not self._asked.is_set():
                    self._is_running = False
                    return

    def _tick_once(self) -> float:
        made = threading.Event()
        pauses: list[float] = []

        def call() -> None:
            try:
                if not made.is_set():
                    pauses.append(self._tick())
            finally:
                made.set()

        self._post(call)
        made.wait(_LOST_AFTER)
        made.set()  # a call that comes after all does nothing
        return pauses[-1] if pauses else _PAUSE_AFTER_LOSS
