"""Messages spoiled with knowledge of their structure: what a hostile or broken peer might send. Seeded."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import Any

import msgpack

from xmem_protocol import MAX_INTEGER, PREFIX, Envelope, Message, pack

_ODD_VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1,
    MAX_INTEGER + 1,
    2**63 - 1,
    -(2**63),
    2**64 - 1,
    0.5,
    math.nan,
    math.inf,
    -math.inf,
    "",
    "\0",
    "x" * 5000,
    "../../../etc/passwd",
    "%n%s%x",
    "\u202e\ufeff",
    b"",
    b"\xff" * 64,
    [],
    {},
    [[]] * 50,
    {"a": {"a": {"a": {}}}},
    msgpack.ExtType(5, b"ext"),
    msgpack.Timestamp(1, 1),
)


class Mutator:
    """Gives spoiled copies of messages, the same ones for the same seed."""

    def __init__(self, messages: Sequence[Message], seed: int) -> None:
        self._messages = messages
        self._random = random.Random(seed)
        self._kinds: tuple[Callable[[list[bytes]], list[bytes]], ...] = (
            self._spoil_value,
            self._spoil_value,
            self._spoil_value,
            self._spoil_bytes,
            self._cut,
            self._change_parts,
            self._double_key,
            self._nest,
            self._lie_about_length,
        )

    def fetch(self) -> list[bytes]:
        """Give the ZeroMQ frames of one spoiled message; now and then it is spoiled twice, and one in fifty not at all."""
        message = self._random.choice(self._messages)
        payload = self._random.randbytes(self._random.choice((0, 0, 0, 17, 4096)))
        frames = list(pack(Envelope(message, f"r{self._random.randrange(1000)}", "fuzz", payload)))
        for _ in range(self._random.choice((0, *([1] * 39), *([2] * 10)))):
            frames = self._random.choice(self._kinds)(frames)
        return frames

    def _spoil_value(self, frames: list[bytes]) -> list[bytes]:
        """Put an odd value somewhere in the header's tree, or take a field away, or add one."""
        header = _unpacked(frames)
        if not isinstance(header, dict) or not header:
            return self._spoil_bytes(frames)
        place: Any = header
        while True:
            key = self._random.choice(list(place) if isinstance(place, dict) else range(len(place)))
            inner = place[key]
            if not (isinstance(inner, (dict, list)) and inner) or self._random.random() < 0.2:
                break
            place = inner
        action = self._random.random()
        if action < 0.7:
            place[key] = self._random.choice(_ODD_VALUES)
        elif action < 0.85:
            del place[key]
        elif isinstance(place, dict):
            place[self._random.choice(("extra", "", "v", "é"))] = self._random.choice(_ODD_VALUES)
        return [frames[0], msgpack.packb(header, use_bin_type=True), *frames[2:]]

    def _spoil_bytes(self, frames: list[bytes]) -> list[bytes]:
        which = self._random.randrange(len(frames)) if frames else 0
        if not frames or not frames[which]:
            return [*frames, self._random.randbytes(8)]
        spoiled = bytearray(frames[which])
        for _ in range(self._random.choice((1, 1, 2, 8))):
            spoiled[self._random.randrange(len(spoiled))] = self._random.randrange(256)
        return [*frames[:which], bytes(spoiled), *frames[which + 1 :]]

    def _cut(self, frames: list[bytes]) -> list[bytes]:
        return [part[: self._random.randint(0, len(part))] if self._random.random() < 0.7 else part for part in frames]

    def _change_parts(self, frames: list[bytes]) -> list[bytes]:
        parts = [*frames, PREFIX, b"", self._random.randbytes(30)]
        return [self._random.choice(parts) for _ in range(self._random.choice((1, 2, 3, 3, 4, 9)))]

    def _double_key(self, frames: list[bytes]) -> list[bytes]:
        """Give a header whose first key comes twice."""
        header = _unpacked(frames)
        if not isinstance(header, dict) or not 0 < len(header) < 15:
            return frames
        pairs = [*header.items(), next(iter(header.items()))]
        packed = bytes([0x80 | len(pairs)]) + b"".join(
            msgpack.packb(key, use_bin_type=True) + msgpack.packb(value, use_bin_type=True) for key, value in pairs
        )
        return [frames[0], packed, *frames[2:]]

    def _nest(self, frames: list[bytes]) -> list[bytes]:
        depth = self._random.choice((10, 500, 2000, 30_000))
        return [PREFIX, self._random.choice((b"\x91", b"\x81\xa1a")) * depth + b"\xc0", *frames[2:]]

    def _lie_about_length(self, frames: list[bytes]) -> list[bytes]:
        """Give a header that promises far more than there is."""
        lie = self._random.choice(
            (b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff")
        )
        return [frames[0] if frames else PREFIX, lie + (frames[1] if len(frames) > 1 else b""), *frames[2:]]


def _unpacked(frames: list[bytes]) -> Any:
    """Give the header as msgpack reads it without any of our rules, or None."""
    try:
        return msgpack.unpackb(frames[1], strict_map_key=False)
    except Exception:  # noqa: BLE001 - it was spoiled before: whatever that raises
        return None
