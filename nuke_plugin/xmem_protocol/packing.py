"""Messages to ZeroMQ frames and back, strictly: whatever the bytes are, the result is a message or RemoteProtocolError."""

from __future__ import annotations

import dataclasses
import math
import typing
from dataclasses import dataclass
from typing import Any, TypeVar

import msgpack

from xmem_protocol.errors import LocalProtocolError, RemoteProtocolError
from xmem_protocol.events import Event
from xmem_protocol.limits import (
    MAX_ARRAY_ITEMS,
    MAX_HEADER_BYTES,
    MAX_INTEGER,
    MAX_MAP_ITEMS,
    MAX_PAYLOAD_BYTES,
    MAX_STRING_BYTES,
    PREFIX,
    UNSUPPORTED_VERSION,
    WIRE_MAJOR,
)
from xmem_protocol.messages import Message


@dataclass(frozen=True)
class Envelope:
    """A message with what surrounds it.

    ``id`` is the request's own id, or the id a reply answers; events carry an empty one. ``client`` names the client
    process, so that a request sent again after a reconnect is known.
    """

    message: Message
    id: str = ""
    client: str = ""
    payload: bytes = b""


def _message_types() -> dict[str, type[Message]]:
    found: dict[str, type[Message]] = {}
    waiting: list[type[Message]] = [Message, Event]  # events are messages: named so that their module is loaded
    while waiting:
        for kind in waiting.pop().__subclasses__():
            waiting.append(kind)
            if kind.TYPE:
                found[kind.TYPE] = kind
    return found


MESSAGE_TYPES = _message_types()


def pack(envelope: Envelope, max_header_bytes: int = MAX_HEADER_BYTES) -> tuple[bytes, bytes, bytes]:
    """Give the three ZeroMQ frames of a message. A server packs with MAX_REPLY_BYTES: its own states may be long.

    Raises LocalProtocolError when the header or the payload is over its limit, or a field is not what its type says.
    """
    name = envelope.message.TYPE
    header = {
        "v": WIRE_MAJOR,
        "type": name,
        "id": envelope.id,
        "client": envelope.client,
        "body": dataclasses.asdict(envelope.message),
    }
    try:
        packed: bytes = msgpack.packb(header, use_bin_type=True)
    except (TypeError, ValueError, OverflowError) as error:
        raise LocalProtocolError(f"A {name} cannot be packed: {error}.") from error
    if len(packed) > max_header_bytes:
        raise LocalProtocolError(f"The header of a {name} is {len(packed)} bytes; {max_header_bytes} is the most.")
    if len(envelope.payload) > MAX_PAYLOAD_BYTES:
        raise LocalProtocolError(f"A payload is {len(envelope.payload)} bytes; {MAX_PAYLOAD_BYTES} is the most.")
    return PREFIX, packed, envelope.payload


def unpack(frames: typing.Sequence[bytes], max_header_bytes: int = MAX_HEADER_BYTES) -> Envelope:
    """Give the message in three ZeroMQ frames, every field checked for type; unknown extra fields are ignored.

    Raises RemoteProtocolError for anything else, whatever the bytes are.
    """
    if len(frames) != 3:  # prefix, header, payload
        raise RemoteProtocolError(f"A message has 3 parts; got {len(frames)}.")
    prefix, packed, payload = frames
    if prefix != PREFIX:
        raise RemoteProtocolError("The peer does not speak XMPP/1. Is this the XMem server's address?")
    if len(packed) > max_header_bytes or len(payload) > MAX_PAYLOAD_BYTES:
        raise RemoteProtocolError("A message is larger than its limit.")
    header = unpack_map(packed)
    request_id = _text(header, "id")
    try:
        message = _decode_message(header)
        return Envelope(message, request_id, _text(header, "client"), bytes(payload))
    except RemoteProtocolError as error:
        raise RemoteProtocolError(str(error), error.code, request_id) from None


def _decode_message(header: dict[str, Any]) -> Message:
    version = header.get("v")
    if type(version) is not int or version != WIRE_MAJOR:
        raise RemoteProtocolError(
            f"Wire version {version!r} is not spoken here; {WIRE_MAJOR} is. Update the older side.", UNSUPPORTED_VERSION
        )
    name = _text(header, "type")
    kind = MESSAGE_TYPES.get(name)
    if kind is None:
        raise RemoteProtocolError(f"Unknown message type {name[:64]!r}.")
    return decode_body(kind, header.get("body"), name)


def unpack_map(
    packed: bytes, max_string_bytes: int = MAX_STRING_BYTES, max_items: int = MAX_ARRAY_ITEMS
) -> dict[str, Any]:
    """Give the msgpack map in these bytes: text keys, none twice, no binary, no extension types.

    Raises RemoteProtocolError for anything else, whatever the bytes are.
    """
    try:
        header = msgpack.unpackb(
            packed,
            raw=False,
            strict_map_key=True,
            object_pairs_hook=_unique_pairs,
            max_str_len=max_string_bytes,
            max_bin_len=0,
            max_array_len=max_items,
            max_map_len=MAX_MAP_ITEMS,
            max_ext_len=0,
        )
    except RemoteProtocolError:
        raise
    except Exception as error:  # noqa: BLE001 - hostile bytes raise ValueError, StackError, UnicodeDecodeError, RecursionError ...
        raise RemoteProtocolError(f"A header cannot be read: {type(error).__name__}.") from None
    if not isinstance(header, dict):
        raise RemoteProtocolError("A header must be a map.")
    return header


def _unique_pairs(pairs: typing.Iterable[tuple[Any, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if not isinstance(key, str) or key in result:
            raise RemoteProtocolError("A map in a header has a key that is not text, or has it twice.")
        result[key] = value
    return result


def _text(header: dict[str, Any], key: str) -> str:
    value = header.get(key)
    if not isinstance(value, str):
        raise RemoteProtocolError(f"Header field {key!r} must be text.")
    return value


_Value = TypeVar("_Value")
_HINTS: dict[type, dict[str, Any]] = {}


def decode_body(kind: type[_Value], body: object, where: str) -> _Value:
    """Give the dataclass of this kind in a map, recursively; ``where`` names it in errors.

    Fields are text without NUL, whole numbers up to MAX_INTEGER either way, finite floats, truth values, dataclasses
    and tuples of these. A missing field takes its default if it has one. Raises RemoteProtocolError.
    """
    if not isinstance(body, dict):
        raise RemoteProtocolError(f"{where} must be a map.")
    if kind not in _HINTS:
        _HINTS[kind] = typing.get_type_hints(kind)
    values = {}
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        if field.name in body:
            values[field.name] = _decode_value(_HINTS[kind][field.name], body[field.name], f"{where}.{field.name}")
        elif field.default is dataclasses.MISSING:
            raise RemoteProtocolError(f"{where} lacks {field.name!r}.")
    return kind(**values)


def _decode_value(hint: Any, value: object, where: str) -> object:
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, list):
            raise RemoteProtocolError(f"{where} must be a list.")
        return tuple(_decode_value(typing.get_args(hint)[0], item, where) for item in value)
    if dataclasses.is_dataclass(hint):
        return decode_body(hint, value, where)  # type: ignore[arg-type]
    if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise RemoteProtocolError(f"{where} must be a finite number.")
        return float(value)
    if type(value) is not hint:  # bool is an int in Python, so isinstance would let True through as a number
        raise RemoteProtocolError(f"{where} must be {getattr(hint, '__name__', hint)}; got {type(value).__name__}.")
    if isinstance(value, int) and abs(value) > MAX_INTEGER:
        raise RemoteProtocolError(f"{where} is {value}, which is too large a number.")
    if isinstance(value, str) and "\0" in value:
        raise RemoteProtocolError(f"{where} has a NUL character in it.")
    return value
