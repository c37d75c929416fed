"""The control lane: requests, replies and job events. All of the session's work runs on one thread of its own."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from xmem_protocol import (
    UNSUPPORTED_VERSION,
    WIRE_MAJOR,
    WIRE_MINOR,
    AdoptFile,
    BeginUpload,
    Cancel,
    CancelAccepted,
    Envelope,
    ErrorReply,
    Event,
    FetchChunk,
    FindMissing,
    Follow,
    Following,
    GetStatus,
    Hello,
    Message,
    Ping,
    Pong,
    Status,
    UploadChunk,
    Welcome,
)
from xmem_server import __version__
from xmem_server.clients import ClientKey
from xmem_server.followers import Followers
from xmem_server.lanes import Route, refuse_lane
from xmem_server.memory_watch import resident_bytes
from xmem_server.refusals import refusal_of
from xmem_server.session import SessionHost
from xmem_server.waiting import WaitingRequests

_LOG = logging.getLogger(__name__)
_MOST_WAITING = 256
_BULK = (FindMissing, AdoptFile, BeginUpload, UploadChunk, FetchChunk)

Send = Callable[[Route, Envelope], None]


@dataclass(frozen=True)
class ServerFacts:
    """What a Welcome says beside the engines. ``epoch`` is another one for every server process."""

    epoch: str
    max_upload_bytes: int
    readable_roots: tuple[str, ...]


@dataclass(frozen=True)
class _Request:
    client: ClientKey
    envelope: Envelope


@dataclass(frozen=True)
class _Lost:
    route: Route


@dataclass(frozen=True)
class _Wake:
    """The engine has something to say."""


@dataclass(frozen=True)
class _Stop:
    """Leave the thread."""


class ControlDesk:
    """Serves the control lane. Pings and cancels are answered on the lane's thread, at once; all else in turn."""

    def __init__(self, facts: ServerFacts) -> None:
        self._facts = facts
        self._started = time.monotonic()
        self._tasks: queue.SimpleQueue[_Request | _Lost | _Wake | _Stop] = queue.SimpleQueue()
        self._waiting = WaitingRequests(_MOST_WAITING)
        self._is_woken = threading.Event()
        self._thread = threading.Thread(target=self._run, name="session")
        self._host: SessionHost | None = None
        self._send: Send = _drop
        self._followers = Followers(_no_events, _no_progress, self._send_event)

    def start(self, host: SessionHost, send: Send) -> None:
        """Begin to serve by this host, answering by ``send``."""
        self._host = host
        self._send = send
        self._followers = Followers(host.fetch_events, host.fetch_progress, self._send_event)
        self._thread.start()

    def wake(self) -> None:
        """Have the engine's events taken soon. Any thread."""
        if not self._is_woken.is_set():
            self._is_woken.set()
            self._tasks.put(_Wake())

    def receive(self, route: Route, client: ClientKey, envelope: Envelope) -> Message | None:
        """Take one request, on the lane's thread."""
        message = envelope.message
        if isinstance(message, Ping):
            return Pong()
        if isinstance(message, _BULK):
            return refuse_lane(message, "control")
        if isinstance(message, Cancel) and self._host is not None:
            self._host.request_cancel(message.job, client)
            return CancelAccepted(message.job)
        if self._waiting.admit(route, envelope):
            self._tasks.put(_Request(client, envelope))
        return None

    def lost(self, route: Route) -> None:
        """Forget who followed over this connection. Any thread."""
        self._tasks.put(_Lost(route))

    def is_alive(self) -> bool:
        """Whether the session's thread runs."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """Finish the present request, drop what waits."""
        self._tasks.put(_Stop())
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        host = self._host
        if host is None:
            return
        while True:
            task = self._tasks.get()
            if isinstance(task, _Stop):
                return
            try:
                self._serve(host, task)
                self._followers.push()
            except Exception:  # noqa: BLE001 - the thread serves everybody: it outlives any one task
                _LOG.exception("session task failed: %s", type(task).__name__)

    def _serve(self, host: SessionHost, task: _Request | _Lost | _Wake | _Stop) -> None:
        if isinstance(task, _Request):
            self._serve_request(host, task)
        elif isinstance(task, _Lost):
            self._followers.drop(task.route)
        else:
            self._is_woken.clear()  # before the events are taken: one that comes meanwhile wakes again
            host.receive_engine_events()

    def _serve_request(self, host: SessionHost, request: _Request) -> None:
        envelope, started = request.envelope, time.monotonic()
        try:
            reply = self._answer(host, request)
        except Exception as error:  # noqa: BLE001 - whatever a request raises is told to its client
            reply = refusal_of(error, envelope.message.TYPE)
        _LOG.info(
            "request=%s client=%s id=%s session=%r job=%s answer=%s ms=%d",
            envelope.message.TYPE,
            envelope.client,
            envelope.id,
            getattr(envelope.message, "session", ""),
            getattr(reply, "job", getattr(envelope.message, "job", "")),
            reply.code if isinstance(reply, ErrorReply) else reply.TYPE,
            1000 * (time.monotonic() - started),
        )
        route = self._waiting.finish(envelope)
        self._send(route, Envelope(reply, envelope.id))
        if isinstance(envelope.message, Follow) and isinstance(reply, Following):
            self._followers.follow(route, reply.job, envelope.message.after_seq, reply.state)

    def _answer(self, host: SessionHost, request: _Request) -> Message:
        envelope = request.envelope
        message = envelope.message
        if isinstance(message, Hello):
            return self._welcome(host, message)
        if isinstance(message, GetStatus):
            return self._status(host, request.client)
        return host.answer(request.client, envelope)

    def _status(self, host: SessionHost, client: ClientKey) -> Status:
        stored, free = host.disk_bytes()
        return Status(
            server_epoch=self._facts.epoch,
            sessions=host.session_count(client),
            queued=host.queued_count(),
            engines=host.measure_engines(),
            uptime_seconds=round(time.monotonic() - self._started, 1),
            resident_bytes=resident_bytes(),
            stored_bytes=stored,
            free_bytes=free,
            jobs=host.fetch_job_states(client),
        )

    def _welcome(self, host: SessionHost, hello: Hello) -> Message:
        if hello.wire_major != WIRE_MAJOR:
            return ErrorReply(
                UNSUPPORTED_VERSION,
                f"This client speaks wire version {hello.wire_major}, this server {WIRE_MAJOR}. Update the older one.",
            )
        return Welcome(
            wire_major=WIRE_MAJOR,
            wire_minor=WIRE_MINOR,
            server_version=__version__,
            server_epoch=self._facts.epoch,
            max_upload_bytes=self._facts.max_upload_bytes,
            readable_roots=self._facts.readable_roots,
            engines=host.engine_infos(),
        )

    def _send_event(self, route: Route, event: Event) -> None:
        self._send(route, Envelope(event))


def _drop(route: Route, envelope: Envelope) -> None:
    """Nobody listens yet."""


def _no_events(job: str, after_seq: int, limit: int) -> tuple[Event, ...]:
    return ()


def _no_progress(job: str) -> None:
    return None
