"""How a job says where it is, and learns that it should stop."""

from __future__ import annotations

import time

from xmem_server.plans import EngineProgress
from xmem_server.worker.channel import Channel


class JobCancelledError(Exception):
    """Somebody asked for the job to stop; raised between two frames."""


class JobPausedError(Exception):
    """Another client's job should run; raised between two frames, when a snapshot was written."""


class Reporter:
    """Progress of one job: frames done, frames a second and the time left."""

    def __init__(self, channel: Channel, job: str, note: str = "") -> None:
        self._channel = channel
        self._job = job
        self._stage = ""
        self._started = time.monotonic()
        self._start_done = 0
        self._note = note  # said with all progress

    def report(self, stage: str, done: int, total: int, frame: int) -> None:
        """Say that ``done`` of ``total`` frames of a stage are finished; raise JobCancelledError when asked to stop.

        The rate is measured within the stage.
        """
        if self._channel.cancelled(self._job):
            raise JobCancelledError
        now = time.monotonic()
        if stage != self._stage:
            self._stage, self._started, self._start_done = stage, now, done
        elapsed = now - self._started
        rate = (done - self._start_done) / elapsed if elapsed > 0 else 0.0
        left = (total - done) / rate if rate > 0 else 0.0
        self._channel.send(EngineProgress(self._job, stage, done, total, frame, rate, left, self._note))
