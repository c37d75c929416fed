"""Asks the server how it is, from a thread of its own, so that the panel knows when it is gone."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from pathlib import Path

from xmem_nuke.job import explain_import, fetch_server, make_connector
from xmem_nuke.orders import ServerSeen, ServerSilent
from xmem_protocol import XMemError

_EVERY = 2.0  # seconds


class ServerWatch:
    """Looks after one server until it is stopped. Made and asked on the main thread."""

    def __init__(self, connection_file: Path) -> None:
        self.connection_file = connection_file
        self._seen: queue.Queue[ServerSeen | ServerSilent] = queue.Queue()
        self._stop = threading.Event()
        threading.Thread(target=self._run, name="xmem-watch", daemon=True).start()

    def fetch_happenings(self) -> Iterator[ServerSeen | ServerSilent]:
        """Give what was seen since this was last asked."""
        while True:
            try:
                yield self._seen.get_nowait()
            except queue.Empty:
                return

    def stop(self) -> None:
        """Look no more; returns at once."""
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._look()
            except XMemError as error:
                self._seen.put(ServerSilent(str(error)))
            except ImportError as error:
                self._seen.put(ServerSilent(explain_import(error)))
                return
            except Exception as error:  # noqa: BLE001 - the last stop of a thread: the panel says that it looks no more
                self._seen.put(ServerSilent(f"The server cannot be watched: {type(error).__name__}: {error}."))
                return
            self._stop.wait(_EVERY)

    def _look(self) -> None:
        from xmem_client import Timeouts  # noqa: PLC0415 - the socket library loads on first use, in this thread

        quick = Timeouts(ping=0.5, silence=1.0, resend=1.0, total=3.0, answer=4.0)
        with make_connector(self.connection_file, quick)() as client:
            while not self._stop.is_set():
                self._seen.put(fetch_server(client))
                self._stop.wait(_EVERY)
