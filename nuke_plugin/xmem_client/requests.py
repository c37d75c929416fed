"""Requests and their answers over one lane: the same id until the answer is here, however often it takes."""

from __future__ import annotations

import time
from collections import deque
from typing import TypeVar

from xmem_client.lane import ClientLane, Timeouts, new_id
from xmem_protocol import (
    BUSY,
    ConnectionLostError,
    ErrorReply,
    Event,
    Message,
    RemoteProtocolError,
    ServerError,
)

_Answer = TypeVar("_Answer", bound=Message)


class Requests:
    """Asks and waits. ``events`` keeps those that arrive meanwhile, by job, for jobs that are being followed."""

    def __init__(self, lane: ClientLane, timeouts: Timeouts) -> None:
        self.lane = lane
        self.timeouts = timeouts
        self.events: dict[str, deque[Event]] = {}

    def ask(self, message: Message, kind: type[_Answer]) -> _Answer:
        """Give the answer to a request, which must be of this kind.

        Raises ServerError for an error reply, ConnectionLostError when the server is gone for too long.
        """
        request_id = new_id()
        self.lane.begin()
        started = time.monotonic()
        sent_at, sent_generation = -1.0, -1
        busy_wait = self.timeouts.backoff_first
        while time.monotonic() - started < self.timeouts.answer:
            now = time.monotonic()
            if self.lane.generation != sent_generation or now - sent_at >= self.timeouts.resend:
                self.lane.send(message, request_id)
                sent_at, sent_generation = now, self.lane.generation
            envelope = self.lane.receive()
            if envelope is None:
                continue
            if isinstance(envelope.message, Event):
                if envelope.message.job in self.events:
                    self.events[envelope.message.job].append(envelope.message)
            elif envelope.id == request_id and is_busy(envelope.message):
                time.sleep(busy_wait)  # the server lives and has much to do: ask again, less and less often
                busy_wait = min(2 * busy_wait, self.timeouts.backoff_last)
                sent_generation = -1
            elif envelope.id == request_id:
                return self.answer_of(envelope.message, kind)
            elif not envelope.id and isinstance(envelope.message, ErrorReply):
                raise ServerError(envelope.message.code, envelope.message.message)
        raise ConnectionLostError(
            f"The XMem server lives but has not answered a {message.TYPE} for {self.timeouts.answer:.0f} s. See its log."
        )

    def answer_of(self, message: Message, kind: type[_Answer]) -> _Answer:
        """Give the message when it is of this kind; raise what it says when it is an error."""
        if isinstance(message, ErrorReply):
            raise ServerError(message.code, message.message)
        if not isinstance(message, kind):
            raise RemoteProtocolError(f"The server answered {message.TYPE!r} where {kind.TYPE!r} was due.")
        return message


def is_busy(message: Message) -> bool:
    """Say whether the server has too much to do just now: ask again."""
    return isinstance(message, ErrorReply) and message.code == BUSY
