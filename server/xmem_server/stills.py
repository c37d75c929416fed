"""PNG, JPEG and TIFF files: their headers, read without decoding, and their channels exactly as stored."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
import numpy.typing as npt

from xmem_protocol import InputError
from xmem_server.file_kinds import JPEG, PNG
from xmem_server.headers import FLOAT, INTEGER, DecodeLimits, Header, check_window, display_name, window_of_size
from xmem_server.png_index import read_png_header

Channels = dict[str, npt.NDArray[Any]]  # name -> HxW of uint8, uint16, uint32, float16 or float32, as stored

_PNG_HEAD_BYTES = 33
_NO_MEMORY = -4  # OpenCV's code for a failed allocation
_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # JPEG: start of frame, any process
_BARE_MARKERS = frozenset(range(0xD0, 0xDA)) | {0x01}  # JPEG: markers without a length
_TIFF_FORMATS = {3: "H", 4: "I", 16: "Q"}  # field type -> struct code; the others are not needed here
_TIFF_WIDTH, _TIFF_HEIGHT, _TIFF_BITS, _TIFF_PHOTOMETRIC, _TIFF_SAMPLES, _TIFF_SAMPLE_FORMAT = (
    256,
    257,
    258,
    262,
    277,
    339,
)
_MAX_TIFF_FIELDS = 4096


@dataclass(frozen=True)
class _StillHeader:
    width: int
    height: int
    channels: tuple[str, ...]
    kind: str


def fetch_still_header(path: Path, file_kind: str, limits: DecodeLimits) -> Header:
    """Give the header of a PNG, JPEG or TIFF; InputError when it is damaged, too large or of a form not read here."""
    with path.open("rb") as file:
        return _read_header(file, display_name(path), file_kind, limits)


def fetch_still_channels(path: Path, file_kind: str, limits: DecodeLimits) -> tuple[Header, Channels]:
    """Give the header and the channels as stored (uint8, uint16 or, from a float TIFF, float32), HxW each.

    Channels are R, G, B or Y, and A. Raises InputError; the limits are checked before anything is decoded.
    """
    name = display_name(path)
    data = read_file_bytes(path, limits)
    header = _read_header(io.BytesIO(data), name, file_kind, limits)
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        if error.code == _NO_MEMORY:
            raise MemoryError from error
        pixels = None
    if pixels is None or pixels.shape[:2] != (header.height, header.width):
        raise _damaged(name, file_kind)
    return header, _name_channels(pixels, header, name)


def read_file_bytes(path: Path, limits: DecodeLimits) -> bytes:
    """Give the bytes of a file; InputError when it is larger than a quarter of the memory allowed."""
    name = display_name(path)
    most = limits.memory_bytes // 4
    try:
        nbytes = path.stat().st_size
        if nbytes > most:
            raise InputError(f"{name} has {nbytes} bytes; {most} is the most. Save it compressed or smaller.")
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}. Check the path and its permissions.") from error


def _name_channels(pixels: npt.NDArray[Any], header: Header, name: str) -> Channels:
    """Give views of the decoder's HxW, HxWx3 (BGR) or HxWx4 (BGRA) array, by channel name."""
    if pixels.dtype not in (np.uint8, np.uint16, np.float32):
        raise InputError(
            f"{name} has {pixels.dtype} pixels; 8 or 16 bit or float can be read. Save it as one of these."
        )
    planes = pixels[..., np.newaxis] if pixels.ndim == 2 else pixels
    order = {"R": 2, "G": 1, "B": 0, "Y": 0, "A": 3} if planes.shape[2] > 2 else {"Y": 0, "A": 1}
    if any(order.get(channel, planes.shape[2]) >= planes.shape[2] for channel in header.channels):
        raise InputError(
            f"{name} holds {', '.join(header.channels)} in a form that cannot be read. Save it as PNG or EXR."
        )
    return {channel: planes[..., order[channel]] for channel in header.channels}


def _read_header(file: BinaryIO, name: str, file_kind: str, limits: DecodeLimits) -> Header:
    try:
        still = _read_still_header(file, name, file_kind)
    except (struct.error, IndexError, ValueError, OverflowError) as error:
        raise _damaged(name, file_kind) from error
    window = window_of_size(still.width, still.height)
    check_window(name, window, limits)
    return Header(still.width, still.height, 1.0, window, window, still.channels, still.kind)


def _read_still_header(file: BinaryIO, name: str, file_kind: str) -> _StillHeader:
    if file_kind == PNG:
        png = read_png_header(file.read(_PNG_HEAD_BYTES), name)
        return _StillHeader(png.width, png.height, png.channels, INTEGER)
    if file_kind == JPEG:
        return _read_jpeg_header(file, name)
    return _read_tiff_header(file, name)


def _read_jpeg_header(file: BinaryIO, name: str) -> _StillHeader:
    file.seek(2)
    while True:
        while file.read(1) != b"\xff":
            if not file.read(1):
                raise _damaged(name, JPEG)
            file.seek(-1, io.SEEK_CUR)
        marker = file.read(1)[0]
        if marker in _BARE_MARKERS or marker in (0x00, 0xFF):
            file.seek(-1 if marker == 0xFF else 0, io.SEEK_CUR)
            continue
        (length,) = struct.unpack(">H", file.read(2))
        if marker in _FRAME_MARKERS:
            _, height, width, components = struct.unpack(">BHHB", file.read(6))
            if components not in (1, 3):
                raise InputError(
                    f"{name} is a JPEG of {components} inks (CMYK); RGB or grey was wanted. Convert it to RGB."
                )
            return _StillHeader(width, height, ("Y",) if components == 1 else ("R", "G", "B"), INTEGER)
        file.seek(length - 2, io.SEEK_CUR)


def _read_tiff_header(file: BinaryIO, name: str) -> _StillHeader:
    fields = _read_tiff_fields(file)
    bits, samples = fields.get(_TIFF_BITS, 1), fields.get(_TIFF_SAMPLES, 1)
    photometric, sample_format = fields.get(_TIFF_PHOTOMETRIC, 1), fields.get(_TIFF_SAMPLE_FORMAT, 1)
    is_float = sample_format == 3
    if photometric not in (1, 2, 3, 6):  # black is zero, RGB, palette, YCbCr
        raise InputError(f"{name} is a TIFF in CMYK, Lab or inverted grey; RGB or grey was wanted. Convert it to RGB.")
    if (bits, is_float) not in ((8, False), (16, False), (32, True)):
        raise InputError(
            f"{name} is a TIFF of {bits} bits a channel; 8 or 16 bit or 32-bit float can be read. Save it as one."
        )
    colour = ("Y",) if photometric == 1 else ("R", "G", "B")
    alpha = ("A",) if samples > len(colour) and photometric != 3 else ()
    return _StillHeader(fields[_TIFF_WIDTH], fields[_TIFF_HEIGHT], colour + alpha, FLOAT if is_float else INTEGER)


def _read_tiff_fields(file: BinaryIO) -> dict[int, int]:
    """Give the first value of each whole-number field of the first picture, classic or BigTIFF."""
    head = file.read(16)
    order = "<" if head[:2] == b"II" else ">"
    is_big = struct.unpack(order + "H", head[2:4])[0] == 43  # BigTIFF: 64-bit offsets
    offset_code, count_code, entry_bytes = ("Q", "Q", 20) if is_big else ("I", "H", 12)
    at = 8 if is_big else 4
    (directory,) = struct.unpack_from(order + offset_code, head, at)
    file.seek(directory)
    (count,) = struct.unpack(order + count_code, file.read(struct.calcsize(order + count_code)))
    fields: dict[int, int] = {}
    for entry in [file.read(entry_bytes) for _ in range(min(count, _MAX_TIFF_FIELDS))]:
        tag, code, number = struct.unpack_from(order + "HH" + offset_code, entry)
        value = entry[-struct.calcsize(order + offset_code) :]
        if code not in _TIFF_FORMATS or not number:
            continue
        size = struct.calcsize(order + _TIFF_FORMATS[code])
        if size * number > len(value):  # the values lie elsewhere; the first is enough, all samples are alike
            here = file.tell()
            file.seek(struct.unpack(order + offset_code, value)[0])
            value = file.read(size)
            file.seek(here)
        fields[tag] = struct.unpack_from(order + _TIFF_FORMATS[code], value)[0]
    if not {_TIFF_WIDTH, _TIFF_HEIGHT} <= fields.keys():
        raise ValueError
    return fields


def _damaged(name: str, file_kind: str) -> InputError:
    return InputError(f"{name} is a damaged {file_kind}: it cannot be decoded. Export or copy it again.")
