"""Who follows which job, and how far: events are sent against credit, so a client that is gone costs nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from xmem_protocol import EVENT_WINDOW, Event, JobCancelled, JobDone, JobFailed, Progress
from xmem_server.lanes import Route

_PROGRESS_CREDIT = 256  # progress messages per Follow: a client that sleeps is not sent more than it can hold
_FINAL = (JobDone, JobFailed, JobCancelled)
FetchEvents = Callable[[str, int, int], tuple[Event, ...]]
FetchProgress = Callable[[str], Progress | None]


@dataclass
class _Follower:
    after: int  # after_seq of the newest Follow
    sent: int  # number of the newest event sent
    progress: Progress | None = None  # newest sent
    progress_credit: int = _PROGRESS_CREDIT


class Followers:
    """Belongs to the session thread. ``send`` may be called with a route that is gone."""

    def __init__(
        self, fetch_events: FetchEvents, fetch_progress: FetchProgress, send: Callable[[Route, Event], None]
    ) -> None:
        self._fetch_events = fetch_events
        self._fetch_progress = fetch_progress
        self._send = send
        self._followers: dict[tuple[Route, str], _Follower] = {}

    def follow(self, route: Route, job: str, after_seq: int, state: str) -> None:
        """Begin, or grant more: a number above the last one asked for is a grant, any other begins again from there.

        A job that has ended says its last word once more to whoever has seen it already.
        """
        known = self._followers.get((route, job))
        if known is None or after_seq <= known.after:
            self._followers[route, job] = _Follower(after_seq, after_seq)
        else:
            known.after = after_seq
            known.sent = max(known.sent, after_seq)
            known.progress_credit = _PROGRESS_CREDIT
        self._push(route, job)
        if state in {"done", "failed", "cancelled"} and not self._fetch_events(job, after_seq, 1):
            for event in self._fetch_events(job, after_seq - 1, 1):
                self._send(route, event)

    def push(self) -> None:
        """Send every follower what is new and what its credit allows."""
        for route, job in list(self._followers):
            self._push(route, job)

    def drop(self, route: Route) -> None:
        """Forget a connection that is gone."""
        for key in [key for key in self._followers if key[0] == route]:
            del self._followers[key]

    def _push(self, route: Route, job: str) -> None:
        follower = self._followers[route, job]
        credit = follower.after + EVENT_WINDOW - follower.sent
        if credit <= 0:
            return
        for event in self._fetch_events(job, follower.sent, credit):
            self._send(route, event)
            follower.sent = event.seq
            if isinstance(event, _FINAL):
                del self._followers[route, job]
                return
        progress = self._fetch_progress(job)
        if progress is not None and progress != follower.progress and follower.progress_credit > 0:
            self._send(route, progress)
            follower.progress = progress
            follower.progress_credit -= 1
