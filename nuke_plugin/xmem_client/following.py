"""Events of one job, each once and in order, over however many connections it takes."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Callable

from xmem_client.lane import new_id
from xmem_client.requests import Requests
from xmem_protocol import (
    ENGINE_DIED,
    EVENT_WINDOW,
    Envelope,
    Event,
    Follow,
    Following,
    JobCancelled,
    JobDone,
    JobFailed,
    ServerError,
)

FINAL_EVENTS = (JobDone, JobFailed, JobCancelled)
_MOST_RESTARTS = 3  # of an interrupted job, without one new event in between


class JobFollower:
    """Iterates over the events of one job until its final one.

    ``restart`` starts the job again after the server was restarted under it, and says whether it could.
    """

    def __init__(self, requests: Requests, job: str, after_seq: int, restart: Callable[[str], bool]) -> None:
        self._requests = requests
        self._job = job
        self._restart = restart
        self._last = after_seq  # number of the newest event given out
        self._granted = after_seq  # after_seq of the newest Follow
        self._generation = 0
        self._follow_ids: deque[str] = deque(maxlen=64)
        self._restarts = 0

    def __iter__(self) -> Iterator[Event]:
        lane = self._requests.lane
        if not self._requests.events:
            lane.renew()  # a route of its own: nothing that an earlier follower left unread arrives here
        arrived = self._requests.events.setdefault(self._job, deque())
        try:
            lane.begin()
            self._ask()
            while True:
                if not arrived:
                    self._wait(arrived)
                    continue
                event = arrived.popleft()
                if not self._is_next(event):
                    continue
                yield event
                if isinstance(event, FINAL_EVENTS):
                    return
                lane.begin()  # the silence while our caller worked was not the server's
                if self._last - self._granted >= EVENT_WINDOW // 2:
                    self._ask()
        finally:
            self._requests.events.pop(self._job, None)

    def _ask(self) -> None:
        """Ask for events after the last one seen; this is also the grant for more of them."""
        request_id = new_id()
        self._follow_ids.append(request_id)
        self._granted = self._last
        self._generation = self._requests.lane.generation
        self._requests.lane.send(Follow(self._job, self._last), request_id)

    def _wait(self, arrived: deque[Event]) -> None:
        """Wait for one message; ask again after a silence, since a restarted server has forgotten who follows."""
        lane = self._requests.lane
        envelope = lane.receive()
        if envelope is None or lane.generation != self._generation:
            self._ask()
        if envelope is not None:
            if isinstance(envelope.message, Event):
                if envelope.message.job == self._job:
                    arrived.append(envelope.message)
            elif envelope.id in self._follow_ids:
                self._take_answer(envelope)

    def _take_answer(self, envelope: Envelope) -> None:
        answer = self._requests.answer_of(envelope.message, Following)
        if answer.state != "interrupted":
            return
        self._restarts += 1
        if self._restarts > _MOST_RESTARTS or not self._restart(self._job):
            raise ServerError(
                ENGINE_DIED,
                f"The server was restarted while job {self._job} ran. Start it again: finished frames are kept.",
            )
        self._ask()

    def _is_next(self, event: Event) -> bool:
        """Whether to give this event out: progress always, the others once.

        They come in order over one connection; numbers may be left out, when a job that had ended went on.
        """
        if event.seq == 0:
            return True
        if event.seq <= self._last and not isinstance(event, FINAL_EVENTS):
            return False
        self._last = max(self._last, event.seq)
        self._restarts = 0
        return True
