"""Small pictures of key frames for the panel: the plate with each object's alpha in a colour of its own, as PNG bytes.

Numpy and zlib alone: the network process makes them, from pixels that the decode process gives.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from xmem_protocol import PRESENT, Key, Plate, Shot

Floats = npt.NDArray[np.float32]

_STRENGTH = 0.55  # of an object's colour where its alpha is 1: the plate stays visible under it
_COLOURS = ((0.90, 0.71, 0.13), (0.37, 0.72, 0.87), (0.88, 0.44, 0.37), (0.44, 0.68, 0.50), (0.72, 0.50, 0.85))


class ThumbnailDecoder(Protocol):
    """What a thumbnail asks of the decode process."""

    def fetch_alpha(self, path: str, suffix: str, selector: str) -> Any:
        """Give a key's alpha, float32 HxW."""

    def fetch_plate(self, path: str, suffix: str, index: int, colorspace: str, size: tuple[int, int]) -> Any:
        """Give a plate, float32 HxWx3, averaged down to ``size``."""


class Files(Protocol):
    """Where stored files are."""

    def file_path(self, sha256: str) -> Path:
        """Give the place of a stored file."""


def make_thumbnail(
    decoder: ThumbnailDecoder, files: Files, shot: Shot, content: tuple[Plate, Sequence[Key]], height: int
) -> bytes:
    """Give a PNG of this height: the plate, and over it what its keys say, at the shot's proportions as they are shown.

    Raises InputError when a file cannot be decoded.
    """
    plate, keys = content
    height = min(height, shot.height)
    width = max(1, round(height * shot.width * shot.pixel_aspect / shot.height))
    path = str(files.file_path(plate.sha256))
    picture = np.array(decoder.fetch_plate(path, plate.suffix, plate.index, shot.colorspace, (height, width)))
    for number, key in enumerate(key for key in keys if key.presence == PRESENT):
        alpha = decoder.fetch_alpha(str(files.file_path(key.sha256)), key.suffix, key.selector)
        weight = _STRENGTH * fetch_average(alpha, (height, width))[..., None]
        picture = picture * (1 - weight) + np.array(_COLOURS[number % len(_COLOURS)], np.float32) * weight
    return pack_png(np.asarray(np.rint(np.clip(picture, 0, 1) * 255), np.uint8))


def fetch_average(alpha: Floats, size: tuple[int, int]) -> Floats:
    """Give an alpha at another size (height, width): each pixel the mean of those it covers, the nearest when it is larger."""
    result = np.asarray(alpha, np.float32)
    for axis, wanted in enumerate(size):
        have = result.shape[axis]
        starts = np.arange(wanted) * have // wanted
        if wanted >= have:
            result = result.take(starts, axis=axis)
            continue
        counts = np.diff([*starts, have]).astype(np.float32)
        shape = (-1, 1) if axis == 0 else (1, -1)
        result = np.asarray(np.add.reduceat(result, starts, axis=axis) / counts.reshape(shape), np.float32)
    return result


def pack_png(picture: npt.NDArray[np.uint8]) -> bytes:
    """Give the PNG of an 8-bit RGB picture, HxWx3."""
    height, width, _ = picture.shape
    rows = np.zeros((height, 1 + 3 * width), np.uint8)  # each row begins with its filter: 0, none
    rows[:, 1:] = picture.reshape(height, 3 * width)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)  # 8 bit, RGB
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes())), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_pack_chunk(kind, content) for kind, content in chunks)


def _pack_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
