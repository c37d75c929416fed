"""Messages over a byte stream between two processes of the server: framing, packing, strict unpacking.

A message is a 4-byte big-endian length, then a msgpack map ``{"type": class name, "body": {...}}``. An *answer with an
attachment* is a message, then an 8-byte big-endian length and that many raw bytes (pixels), so that the process that
opens hostile files never speaks pickle. Every field is checked for its type on arrival, as on the wire.

Bytes that are not a message raise RemoteProtocolError; a value that cannot be packed raises LocalProtocolError.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Mapping
from typing import Any, Protocol

import msgpack

from xmem_protocol import (
    MAX_SIDE,
    MAX_STRING_BYTES,
    Cancel,
    LocalProtocolError,
    RemoteProtocolError,
    decode_body,
    unpack_map,
)
from xmem_server.plans import (
    EngineCancelled,
    EngineDone,
    EngineFailed,
    EngineFrameFailed,
    EngineMatte,
    EnginePaused,
    EngineProgress,
    EngineReady,
    EngineRefused,
    EngineSnapshot,
    EngineSuggestions,
    Pause,
    PropagationPlan,
    SuggestionPlan,
)

MAX_PIPE_BYTES = 64 * 1024 * 1024  # a plan of 100 000 plates with long paths is about 40 MB
MAX_PIPE_ITEMS = 300_000  # mattes of 10 000 frames by 25 objects, or plates of the longest shot
MAX_ATTACHMENT_BYTES = MAX_SIDE * MAX_SIDE * 3 * 4  # the largest plate, float32 RGB
_LENGTH = struct.Struct(">I")
_ATTACHMENT_LENGTH = struct.Struct(">Q")


class ByteReader(Protocol):
    """What messages are read from: a file, a pipe, ``io.BytesIO``; raw streams that read short are fine."""

    def read(self, size: int, /) -> bytes | None:
        """Give up to ``size`` bytes; nothing at the end."""


class ByteWriter(Protocol):
    """What messages are written to; raw streams that write short are fine."""

    def write(self, data: Any, /) -> int | None:
        """Give the number of bytes taken."""

    def flush(self) -> None:
        """Send what is buffered."""


def kinds_of(*types: type) -> dict[str, type]:
    """Give the map from class name to class that the reading functions want."""
    return {kind.__name__: kind for kind in types}


ENGINE_REQUESTS = kinds_of(PropagationPlan, SuggestionPlan, Cancel, Pause)
ENGINE_EVENTS = kinds_of(
    EngineReady,
    EngineRefused,
    EngineProgress,
    EngineMatte,
    EngineSnapshot,
    EngineFrameFailed,
    EngineSuggestions,
    EngineDone,
    EngineFailed,
    EngineCancelled,
    EnginePaused,
)


def pack_message(value: Any) -> bytes:
    """Give the bytes of a dataclass instance, without their length."""
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        raise LocalProtocolError(f"A pipe carries dataclass instances; got {type(value).__name__}.")
    try:
        packed: bytes = msgpack.packb(
            {"type": type(value).__name__, "body": dataclasses.asdict(value)}, use_bin_type=True
        )
    except (TypeError, ValueError, OverflowError) as error:
        raise LocalProtocolError(f"A {type(value).__name__} cannot be packed: {error}.") from error
    if len(packed) > MAX_PIPE_BYTES:
        raise LocalProtocolError(f"A {type(value).__name__} is {len(packed)} bytes; {MAX_PIPE_BYTES} is the most.")
    return packed


def unpack_message(packed: bytes, kinds: Mapping[str, type]) -> Any:
    """Give the instance, of one of these kinds, that is in the bytes; its fields checked for type."""
    if len(packed) > MAX_PIPE_BYTES:
        raise RemoteProtocolError(f"A pipe message is {len(packed)} bytes; {MAX_PIPE_BYTES} is the most.")
    message = unpack_map(packed, max_string_bytes=16 * MAX_STRING_BYTES, max_items=MAX_PIPE_ITEMS)
    name = message.get("type")
    if not isinstance(name, str) or name not in kinds:
        raise RemoteProtocolError(f"A pipe message of type {name!r} is not expected here.")
    return decode_body(kinds[name], message.get("body"), name)


def write_message(stream: ByteWriter, value: Any) -> None:
    """Write one message and flush. OSError (a broken pipe) passes through."""
    packed = pack_message(value)
    _write_all(stream, _LENGTH.pack(len(packed)) + packed)
    stream.flush()


def read_message(stream: ByteReader, kinds: Mapping[str, type]) -> Any | None:
    """Give the next message, or None when the stream ended between two messages."""
    start = _read_some(stream, _LENGTH.size)
    if not start:
        return None
    if len(start) < _LENGTH.size:
        raise RemoteProtocolError("A pipe ended inside a message.")
    (length,) = _LENGTH.unpack(start)
    if length > MAX_PIPE_BYTES:
        raise RemoteProtocolError(f"A pipe message of {length} bytes is announced; {MAX_PIPE_BYTES} is the most.")
    packed = _read_some(stream, length)
    if len(packed) < length:
        raise RemoteProtocolError("A pipe ended inside a message.")
    return unpack_message(bytes(packed), kinds)


def write_answer(stream: ByteWriter, value: Any, attachment: bytes | bytearray | memoryview) -> None:
    """Write one message with raw bytes behind it, and flush. ``attachment`` may be any C-contiguous buffer."""
    packed = pack_message(value)
    pixels = memoryview(attachment).cast("B")
    if len(pixels) > MAX_ATTACHMENT_BYTES:
        raise LocalProtocolError(f"An attachment is {len(pixels)} bytes; {MAX_ATTACHMENT_BYTES} is the most.")
    _write_all(stream, _LENGTH.pack(len(packed)) + packed + _ATTACHMENT_LENGTH.pack(len(pixels)))
    _write_all(stream, pixels)
    stream.flush()


def read_answer(
    stream: ByteReader, kinds: Mapping[str, type], max_attachment: int = MAX_ATTACHMENT_BYTES
) -> tuple[Any, bytearray] | None:
    """Give the next message and its attachment, or None when the stream ended between two messages."""
    value = read_message(stream, kinds)
    if value is None:
        return None
    start = _read_some(stream, _ATTACHMENT_LENGTH.size)
    if len(start) < _ATTACHMENT_LENGTH.size:
        raise RemoteProtocolError("A pipe ended inside a message.")
    (length,) = _ATTACHMENT_LENGTH.unpack(start)
    if length > max_attachment:
        raise RemoteProtocolError(f"An attachment of {length} bytes is announced; {max_attachment} is the most.")
    pixels = _read_some(stream, length)
    if len(pixels) < length:
        raise RemoteProtocolError("A pipe ended inside an attachment.")
    return value, pixels


def _read_some(stream: ByteReader, size: int) -> bytearray:
    """Give ``size`` bytes, or fewer when the stream ends. Grows with what arrives, never with what is announced."""
    result = bytearray()
    while len(result) < size:
        piece = stream.read(min(size - len(result), 1024 * 1024))
        if not piece:
            break
        result += piece
    return result


def _write_all(stream: ByteWriter, data: bytes | memoryview) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[stream.write(rest) or 0 :]
