"""Indices of a palette PNG. The image library only gives its colours, so the file is rewritten as a grey one first.

A palette PNG and a grey PNG of the same depth store the same bytes; only the header and the palette chunk differ.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from xmem_protocol import InputError

SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREY = 0
RGB = 2
PALETTE = 3
GREY_ALPHA = 4
RGBA = 6
_KEPT = (b"IHDR", b"IDAT", b"IEND")
_CHANNELS = {
    GREY: ("Y",),
    RGB: ("R", "G", "B"),
    PALETTE: ("R", "G", "B"),
    GREY_ALPHA: ("Y", "A"),
    RGBA: ("R", "G", "B", "A"),
}


@dataclass(frozen=True)
class PngHeader:
    """The first chunk of a PNG; ``colour_type`` is one of this module's constants, ``depth`` bits a channel."""

    width: int
    height: int
    depth: int
    colour_type: int

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the channels; a palette counts as its colours."""
        return _CHANNELS[self.colour_type]


def read_png_header(data: bytes, name: str) -> PngHeader:
    """Give the header in the first bytes (33 are enough); InputError when they are not a PNG's."""
    if len(data) < 33 or data[:8] != SIGNATURE or data[12:16] != b"IHDR":
        raise _damaged(name)
    width, height, depth, colour_type = struct.unpack(">IIBB", data[16:26])
    if colour_type not in _CHANNELS or depth not in (1, 2, 4, 8, 16):
        raise _damaged(name)
    return PngHeader(width, height, depth, colour_type)


def fetch_indices(data: bytes, name: str) -> npt.NDArray[Any]:
    """Give the numbers stored in a palette or grey PNG, HxW uint8 or uint16, exactly: palette indices or grey levels, never colours.

    Raises InputError when the PNG is of another type or damaged (every chunk's checksum is looked at).
    """
    header = read_png_header(data, name)
    if header.colour_type not in (PALETTE, GREY):
        raise InputError(
            f"{name} is a colour PNG, not an index mask. Save it with a palette or in grey, or select colour:rrggbb."
        )
    grey = bytearray(SIGNATURE)
    for kind, body in _chunks(data, name):
        if kind in _KEPT:
            as_grey = body[:9] + bytes([GREY]) + body[10:] if kind == b"IHDR" else body
            grey += struct.pack(">I", len(as_grey)) + kind + as_grey + struct.pack(">I", zlib.crc32(kind + as_grey))
    pixels = cv2.imdecode(np.frombuffer(grey, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.shape != (header.height, header.width):
        raise _damaged(name)
    # The decoder stretches 1, 2 and 4 bit greys to 0..255; a whole number of steps each, so this undoes it exactly.
    return np.asarray(pixels // (255 // (2**header.depth - 1)) if header.depth < 8 else pixels)


def _chunks(data: bytes, name: str) -> Iterator[tuple[bytes, bytes]]:
    at = len(SIGNATURE)
    while at + 12 <= len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        kind, body, checksum = (
            data[at + 4 : at + 8],
            data[at + 8 : at + 8 + length],
            data[at + 8 + length : at + 12 + length],
        )
        if len(checksum) < 4 or struct.unpack(">I", checksum)[0] != zlib.crc32(kind + body):
            raise _damaged(name)
        yield kind, body
        if kind == b"IEND":
            return
        at += 12 + length
    raise _damaged(name)


def _damaged(name: str) -> InputError:
    return InputError(f"{name} is a damaged PNG: it cannot be decoded. Export or copy it again.")
