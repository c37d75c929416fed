"""The engine's two pipes: plans and cancels come in on a thread of their own, events go out from any thread."""

from __future__ import annotations

import os
import queue
import sys
import threading
from typing import Any, BinaryIO

from xmem_protocol import Cancel, RemoteProtocolError
from xmem_server.pipes import ENGINE_REQUESTS, read_message, write_message
from xmem_server.plans import Pause, PropagationPlan, SuggestionPlan


class Channel:
    """Requests in, events out. The end of the input ends the process: nobody is left to work for."""

    def __init__(self, incoming: BinaryIO, outgoing: BinaryIO) -> None:
        self._incoming = incoming
        self._outgoing = outgoing
        self._lock = threading.Lock()
        self._plans: queue.SimpleQueue[PropagationPlan | SuggestionPlan] = queue.SimpleQueue()
        self._cancelled: set[str] = set()
        self._paused: set[str] = set()
        threading.Thread(target=self._receive, name="engine-requests", daemon=True).start()

    def next_plan(self, within: float | None = None) -> PropagationPlan | SuggestionPlan | None:
        """Give the next plan, waiting for one; None when none came within so many seconds."""
        try:
            return self._plans.get(timeout=within)
        except queue.Empty:
            return None

    def cancelled(self, job: str) -> bool:
        """Tell whether somebody asked for this job to stop."""
        return job in self._cancelled

    def paused(self, job: str) -> bool:
        """Tell whether this job should make room for another."""
        return job in self._paused

    def send(self, event: Any) -> None:
        """Say one event of ``plans.py``. A broken pipe ends the process."""
        with self._lock:
            try:
                write_message(self._outgoing, event)
            except OSError:
                os._exit(1)  # the network process is gone; what is on disk is whole

    def _receive(self) -> None:
        try:
            while (request := read_message(self._incoming, ENGINE_REQUESTS)) is not None:
                if isinstance(request, Cancel):
                    self._cancelled.add(request.job)
                elif isinstance(request, Pause):
                    self._paused.add(request.job)
                else:
                    self._cancelled.discard(request.job)
                    self._paused.discard(request.job)
                    self._plans.put(request)
        except RemoteProtocolError as error:
            sys.stderr.write(f"The engine was sent something that is not a request: {error}\n")
            os._exit(2)
        os._exit(0)


def open_channel() -> Channel:
    """Give the channel over this process's stdin and stdout.

    Afterwards file descriptor 1 is stderr, so that a library's stray print cannot break the stream.
    """
    outgoing = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    incoming = os.fdopen(os.dup(0), "rb")
    return Channel(incoming, outgoing)
