"""One DEALER socket that outlives broken connections: silence is met with pings, then with fresh sockets."""

from __future__ import annotations

import os
import random
import time
from dataclasses import dataclass
from typing import Callable, Union

import zmq

from xmem_client.connection import Connection
from xmem_protocol import (
    MAX_PAYLOAD_BYTES,
    MAX_REPLY_BYTES,
    ConnectionLostError,
    Envelope,
    InputError,
    Message,
    Ping,
    pack,
    unpack,
)

Source = Union[Connection, Callable[[], Connection]]
_FRAME_MARGIN = 64 * 1024  # CURVE and framing add some bytes to a message
_LINGER_MILLISECONDS = 200


@dataclass(frozen=True)
class Timeouts:
    """How patient a client is, in seconds.

    Ask for a sign of life after ``ping`` of silence; take a fresh socket after ``silence`` (then again and again, every
    ``backoff_first`` growing to ``backoff_last``); send an unanswered request again after ``resend``; give up after
    ``total`` without any sign of life, or ``answer`` when the server lives but one answer does not come.
    """

    ping: float = 1.0
    silence: float = 2.5
    backoff_first: float = 0.25
    backoff_last: float = 1.0
    resend: float = 3.0
    total: float = 30.0
    answer: float = 900.0


class ClientLane:
    """A DEALER to one of the server's two ROUTERs; belongs to one thread.

    ``generation`` grows with every fresh socket: what was asked on the one before may be lost, so ask again.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        lane: str,
        source: Source,
        client_id: str,
        timeouts: Timeouts,
    ) -> None:
        self._context = context
        self._client_id = client_id
        self._lane = lane
        self._source = source
        self._timeouts = timeouts
        self._socket: zmq.Socket[bytes] | None = None
        self._was_open = False
        self._last_heard = 0.0
        self._quiet_until = 0.0
        self._backoff = timeouts.backoff_first
        self.generation = 0

    def begin(self) -> None:
        """Start to wait for something: silence counts from now. Opens the socket when there is none (see ``renew``)."""
        if self._socket is None:
            self.renew()
        self._note_sign_of_life()

    def renew(self) -> None:
        """Put a fresh socket in the place of the present one, to wherever the server is now.

        Raises InputError when there never was a connection to be read; later its absence means that the server starts.
        """
        self.close()
        self.generation += 1
        try:
            connection = self._source() if callable(self._source) else self._source
            self._socket = _open_socket(self._context, connection, self._lane)
        except InputError:
            if not self._was_open:
                raise
        self._was_open = True

    def send(self, message: Message, request_id: str, payload: bytes = b"") -> None:
        """Send, or drop when the connection is broken: whoever waits for the answer sends again."""
        frames = pack(Envelope(message, request_id, self._client_id, payload))
        if self._socket is None:
            return
        try:
            self._socket.send_multipart(frames, flags=zmq.NOBLOCK, copy=len(payload) == 0)
        except zmq.Again:
            return

    def receive(self) -> Envelope | None:
        """Give the next message, or None after a while of silence (``generation`` says whether the socket was renewed).

        Pongs are answers too. Raises ConnectionLostError when nothing was heard for the total time.
        """
        frames = self._poll(min(self._timeouts.ping, max(0.01, self._quiet_until - time.monotonic())))
        now = time.monotonic()
        if frames is not None:
            self._note_sign_of_life()
            return unpack(frames, MAX_REPLY_BYTES)
        if now - self._last_heard >= self._timeouts.total:
            raise ConnectionLostError(
                f"The XMem server has not answered for {now - self._last_heard:.0f} s. Is it running? "
                "Start it again: what it acknowledged is kept."
            )
        if now >= self._quiet_until:
            self.renew()
            spent = time.monotonic() - now  # the source may start a server, which is not the server's silence
            self._last_heard += spent
            self._quiet_until = now + spent + self._backoff * random.uniform(0.75, 1.25)
            self._backoff = min(2 * self._backoff, self._timeouts.backoff_last)
        else:
            self.send(Ping(), new_id())
        return None

    def close(self) -> None:
        """Close the socket, without waiting; what cannot be sent within a moment is dropped."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _note_sign_of_life(self) -> None:
        self._last_heard = time.monotonic()
        self._quiet_until = self._last_heard + self._timeouts.silence
        self._backoff = self._timeouts.backoff_first

    def _poll(self, seconds: float) -> list[bytes] | None:
        if self._socket is None:
            time.sleep(seconds)
            return None
        if not self._socket.poll(int(seconds * 1000) + 1):
            return None
        return self._socket.recv_multipart()


def new_id() -> str:
    """Give a name nobody else has given."""
    return os.urandom(16).hex()


def _open_socket(context: zmq.Context[zmq.Socket[bytes]], connection: Connection, lane: str) -> zmq.Socket[bytes]:
    address = connection.control if lane == "control" else connection.bulk
    socket = context.socket(zmq.DEALER)
    try:
        # Not 0: libzmq 4.3.5 ends the whole process (Nuke!) when a connection breaks while a socket is closed without waiting
        # and one of its messages is half sent (its issue 3442). What still goes out has an id, and its effect once.
        socket.linger = _LINGER_MILLISECONDS
        # Unlimited, and no ZMTP heartbeats: libzmq 4.3.5 can end the whole process (Nuke!) when a connection breaks while
        # its queue is full (its issues 3937 and 4767). The credit bounds what waits here; we ping ourselves.
        socket.setsockopt(zmq.RCVHWM, 0)
        socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
        socket.setsockopt(zmq.RECONNECT_IVL, 50)
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, 1000)
        socket.setsockopt(zmq.MAXMSGSIZE, max(MAX_REPLY_BYTES, MAX_PAYLOAD_BYTES) + _FRAME_MARGIN)
        socket.curve_serverkey = connection.server_key.encode()
        socket.curve_publickey = connection.public_key.encode()
        socket.curve_secretkey = connection.secret_key.encode()
        socket.connect(address)
    except (zmq.ZMQError, ValueError, UnicodeEncodeError) as error:
        socket.close(linger=0)
        raise InputError(f"The connection to {address!r} cannot be made: {error}.") from None
    return socket
