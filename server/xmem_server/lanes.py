"""One ROUTER socket on its own thread: it moves messages and does nothing that takes time."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import zmq

from xmem_protocol import (
    BAD_REQUEST,
    BUSY,
    MAX_REPLY_BYTES,
    Envelope,
    ErrorReply,
    InputError,
    LocalProtocolError,
    Message,
    RemoteProtocolError,
    pack,
    unpack,
)
from xmem_server.client_keys import ClientList
from xmem_server.clients import ClientKey
from xmem_server.connection import Keys
from xmem_server.limits import RateLimit
from xmem_server.refusals import refusal_of

_LOG = logging.getLogger(__name__)
ZAP_DOMAIN = "xmem"  # what the authenticator knows this server's sockets by
_FRAME_MARGIN = 1024  # CURVE and framing add some 50 bytes to a frame
_BURST = 64  # messages taken before the outbox is looked at again
_MAX_NAME = 128  # letters of a request's id and of a client's name
_COPY_BELOW = 64 * 1024  # bytes; larger frames are handed over without a copy (measured faster from here)


@dataclass(frozen=True)
class LaneSettings:
    """``name`` is for the log; ``bind`` is ``tcp://ADDRESS``; ``port`` 0 takes a free one.

    ``max_frame`` is the largest frame taken, in bytes: a peer that sends more is cut off. ``receive_high_water`` and
    ``send_high_water`` are how many messages may wait per peer. A client may send ``per_second`` messages, ``burst`` at once.
    """

    name: str
    bind: str
    port: int
    max_frame: int
    receive_high_water: int
    send_high_water: int
    per_second: float
    burst: int


@dataclass(frozen=True)
class Route:
    """Which connection a message came from, and by which CURVE key; good for as long as that connection lives."""

    identity: bytes
    key: str


Receive = Callable[[Route, ClientKey, Envelope], Message | None]


class Lane:
    """Gives every message to ``receive`` on the lane's thread, and sends what ``send`` is given by any thread.

    Whoever sent a message is looked up in the list of clients, and again before anything is sent back: a client that was
    revoked gets nothing more, on an open connection either. The client's name in an envelope gets its key's name in
    front, so that no two keys ever mean the same client.

    ``receive`` gives the reply, or None when it comes later by ``send``; it must not take time. ``lost`` is called on
    the lane's thread with a route that is gone. A peer that does not read until its queue is full is cut off for good:
    after one message that could not be sent, a later one would hide the gap. It comes back over a fresh connection.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        settings: LaneSettings,
        keys: Keys,
        clients: ClientList,
        receive: Receive,
        lost: Callable[[Route], None],
    ) -> None:
        self._name = settings.name
        self._clients = clients
        self._rate = RateLimit(settings.per_second, settings.burst)
        self._busy_told: dict[str, float] = {}
        self._receive = receive
        self._lost = lost
        self._outbox: deque[tuple[Route, Envelope]] = deque()
        self._cut_off: set[Route] = set()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"lane-{settings.name}")
        self._router = _bind_router(context, settings, keys)
        self._wake_in, self._wake_out = socket.socketpair()
        self._wake_in.settimeout(0)  # never blocks
        self._wake_out.settimeout(0)
        self.endpoint = self._router.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\0")

    def start(self) -> None:
        """Begin to take messages."""
        self._thread.start()

    def send(self, route: Route, envelope: Envelope) -> None:
        """Send from any thread; dropped when the route is gone, since whoever wants it asks again."""
        self._outbox.append((route, envelope))
        self._wake()

    def is_alive(self) -> bool:
        """Whether the lane's thread runs."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """Send what is in the outbox, then close the socket."""
        self._stopping.set()
        self._wake()
        if self._thread.is_alive():
            self._thread.join()
        self._router.close(linger=1000)
        self._wake_in.close()
        self._wake_out.close()

    def _wake(self) -> None:
        try:
            self._wake_in.send(b"\1")
        except OSError:  # full: it is awake already; closed: it has stopped
            return

    def _run(self) -> None:
        poller = zmq.Poller()
        poller.register(self._router, zmq.POLLIN)
        poller.register(self._wake_out, zmq.POLLIN)
        while not self._stopping.is_set():
            ready = dict(poller.poll())
            if self._wake_out.fileno() in ready:
                self._wake_out.recv(4096)
            self._flush()
            if self._router in ready:
                self._take_burst()
        self._flush()

    def _flush(self) -> None:
        while self._outbox:
            route, envelope = self._outbox.popleft()
            self._send_now(route, envelope)

    def _take_burst(self) -> None:
        for _ in range(_BURST):
            try:
                identity, *frames = self._router.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            route = Route(identity.bytes, _key_of(identity))
            client = self._clients.fetch(route.key)
            if client is None:
                self._shut_out(route)
            elif not self._rate.admits(client.name):
                self._slow_down(route, client, [frame.bytes for frame in frames[:3]])
            else:
                self._take(route, client, [frame.bytes for frame in frames])

    def _shut_out(self, route: Route) -> None:
        """Answer nothing, for good: the key was revoked after its handshake."""
        if route not in self._cut_off:
            _LOG.warning("lane=%s refused a client, reason=revoked", self._name)
            self._cut_off.add(route)
            self._lost(route)

    def _slow_down(self, route: Route, client: ClientKey, frames: list[bytes]) -> None:
        """Tell a client that asks too often so, once a second; what it sent beyond that is dropped unread."""
        now = time.monotonic()
        if now - self._busy_told.get(client.name, -1.0) < 1.0:
            return
        self._busy_told[client.name] = now
        _LOG.warning("lane=%s client=%s slowed down, reason=rate", self._name, client.name)
        request_id = ""
        with contextlib.suppress(RemoteProtocolError):
            request_id = unpack(frames).id
        reply = ErrorReply(BUSY, "More requests came in a second than the server takes. Try again in a moment.")
        self._send_now(route, Envelope(reply, request_id[:_MAX_NAME]))

    def _take(self, route: Route, client: ClientKey, frames: list[bytes]) -> None:
        request_id, kind = "", "unreadable"
        try:
            envelope = unpack(frames)
            request_id, kind = envelope.id, envelope.message.TYPE
            if not (0 < len(envelope.id) <= _MAX_NAME and 0 < len(envelope.client) <= _MAX_NAME):
                raise RemoteProtocolError(f"A request has an id and a client name of 1 to {_MAX_NAME} letters.")
            envelope = dataclasses.replace(envelope, client=f"{client.name}/{envelope.client}")
            reply = self._receive(route, client, envelope)
        except RemoteProtocolError as error:
            _LOG.warning("lane=%s client=%s refused a message: %s", self._name, client.name, error)
            request_id = request_id or error.request_id
            reply = ErrorReply(error.code, str(error))
        except Exception as error:  # noqa: BLE001 - one bad request must never stop the lane
            reply = refusal_of(error, kind)
        if reply is not None:
            self._send_now(route, Envelope(reply, request_id[:_MAX_NAME]))

    def _send_now(self, route: Route, envelope: Envelope) -> None:
        if route in self._cut_off:
            return
        if self._clients.fetch(route.key) is None:
            self._shut_out(route)
            return
        try:
            frames = pack(envelope, MAX_REPLY_BYTES)
        except LocalProtocolError as error:
            frames = pack(Envelope(refusal_of(error, envelope.message.TYPE), envelope.id))
        try:
            is_small = len(envelope.payload) < _COPY_BELOW
            self._router.send_multipart([route.identity, *frames], flags=zmq.NOBLOCK, copy=is_small)
        except zmq.Again:
            _LOG.warning("lane=%s a peer does not read and is cut off", self._name)
            self._cut_off.add(route)
            self._lost(route)
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            _LOG.info("lane=%s a peer is gone", self._name)
            self._cut_off.discard(route)
            self._lost(route)


def _key_of(frame: zmq.Frame) -> str:
    """Give the CURVE key that the authenticator wrote on a message, or nothing when it was not asked."""
    try:
        return str(frame.get("User-Id"))
    except (zmq.ZMQError, KeyError):
        return ""


def refuse_lane(message: Message, lane: str) -> ErrorReply:
    """Give the reply to a message that goes over the other lane."""
    return ErrorReply(BAD_REQUEST, f"A {message.TYPE} is not taken on the {lane} lane.")


def _bind_router(context: zmq.Context[zmq.Socket[bytes]], settings: LaneSettings, keys: Keys) -> zmq.Socket[bytes]:
    router = context.socket(zmq.ROUTER)
    try:
        options = {
            zmq.ROUTER_MANDATORY: 1,  # else a message to a peer that is gone vanishes without a word
            zmq.SNDHWM: settings.send_high_water,
            zmq.RCVHWM: settings.receive_high_water,
            zmq.MAXMSGSIZE: settings.max_frame + _FRAME_MARGIN,
            zmq.HANDSHAKE_IVL: 3000,  # ms: cuts off half-open connections
            # No ZMTP heartbeats: with them libzmq 4.3.5 ends the whole process when a peer that has filled its queue goes
            # away (its issues 3937 and 4767; tests/server/slow_lane.py). Clients ping; the kernel finds dead peers.
            zmq.TCP_KEEPALIVE: 1,
            zmq.TCP_KEEPALIVE_IDLE: 10,  # seconds
            zmq.TCP_KEEPALIVE_INTVL: 5,  # seconds
            zmq.TCP_KEEPALIVE_CNT: 3,
            zmq.LINGER: 1000,
            zmq.IPV6: 0,
        }
        for option, value in options.items():
            router.setsockopt(option, value)
        router.zap_domain = ZAP_DOMAIN.encode("ascii")  # the authenticator is asked for every handshake
        router.curve_server = True
        router.curve_publickey = keys.server_public.encode("ascii")
        router.curve_secretkey = keys.server_secret.encode("ascii")
        router.bind(f"{settings.bind}:{settings.port or '*'}")
    except zmq.ZMQError as error:
        router.close(linger=0)
        raise InputError(
            f"The server cannot listen on {settings.bind}:{settings.port}: {error}. Choose another port."
        ) from None
    return router
