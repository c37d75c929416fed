"""Finished mattes as files: whole or absent, rounded once from float32, on the plate's display window.

A matte covers the display window and nothing else: overscan is not segmented, so a matte says nothing about it.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import OpenEXR

from xmem_protocol import InputError
from xmem_server.headers import EXR_FLOAT, EXR_HALF, PNG16, Alpha, Header, WrittenFile
from xmem_server.storage import storage_errors, sync_file, sync_folder

_SAMPLES = {EXR_HALF: np.float16, EXR_FLOAT: np.float32}


def save_matte(path: Path, alpha: Alpha, header: Header, output: str) -> WrittenFile:
    """Write one object's alpha (HxW 0..1 on the plate's display window) and give the file's hash and size.

    ``output``: ``exr-half`` or ``exr-float`` is one ZIP scanline part whose R, G, B and A are all the alpha, with the
    plate's pixel aspect and its display window, which is the data window too; ``png16`` is 16-bit grey. The file appears whole, under its final name, or
    not at all. Raises InputError when it cannot be written, ServerError STORAGE_FULL when the disk is full.
    """
    _check_size(path, alpha, header)
    if output == PNG16:
        return _write_whole(path, _encode_png16(alpha))
    samples = _round(alpha, output)
    return _write_whole(path, _encode_exr(dict.fromkeys("ABGR", samples), header))


def save_layered(path: Path, alphas: Mapping[int, Alpha], header: Header, output: str) -> WrittenFile:
    """Write the alphas of all objects into one EXR, as channels ``object_<id>.A``; otherwise as ``save_matte``.

    Raises InputError for ``png16``, which has no layers.
    """
    if not alphas:
        raise InputError(f"{path.name} would have no object in it. Give at least one key.")
    if output == PNG16:
        raise InputError(
            "A 16-bit PNG cannot hold the mattes of several objects. Choose exr-half or exr-float, or one file per object."
        )
    for alpha in alphas.values():
        _check_size(path, alpha, header)
    channels = {f"object_{object_id}.A": _round(alpha, output) for object_id, alpha in alphas.items()}
    return _write_whole(path, _encode_exr(channels, header))


def _check_size(path: Path, alpha: Alpha, header: Header) -> None:
    if alpha.shape != (header.height, header.width):
        height, width = alpha.shape
        raise InputError(
            f"The matte for {path.name} is {width}x{height} but the plate is {header.width}x{header.height}."
        )


def _round(alpha: Alpha, output: str) -> npt.NDArray[Any]:
    if output not in _SAMPLES:
        raise InputError(
            f"Output {output!r} is not known; {EXR_HALF}, {EXR_FLOAT} and {PNG16} are. Choose one of these."
        )
    # The only rounding there is: to nearest, ties to even. A float16 alpha was rounded so by its maker.
    return np.ascontiguousarray(alpha.astype(_SAMPLES[output], copy=False))


def _encode_exr(channels: Mapping[str, npt.NDArray[Any]], header: Header) -> bytes:
    display = header.display_window
    window = ((display.x_min, display.y_min), (display.x_max, display.y_max))
    attributes = {
        "compression": OpenEXR.ZIP_COMPRESSION,
        "type": OpenEXR.scanlineimage,
        "dataWindow": window,
        "displayWindow": window,
        "pixelAspectRatio": header.pixel_aspect,
    }
    stream = io.BytesIO()
    OpenEXR.File(attributes, dict(channels), num_threads=0).write(stream)
    return stream.getvalue()


def _encode_png16(alpha: Alpha) -> bytes:
    levels = np.rint(alpha.astype(np.float64) * 65535).astype(np.uint16)
    _, encoded = cv2.imencode(".png", levels)
    return bytes(encoded.tobytes())


def _write_whole(path: Path, data: bytes) -> WrittenFile:
    """Write to a temporary name beside the file, flush to disk, rename, flush the folder."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        with storage_errors(path.parent):
            with temporary.open("wb") as file:
                file.write(data)
                sync_file(file)
            temporary.replace(path)
            sync_folder(path.parent)
    except OSError as error:
        raise InputError(
            f"{path} cannot be written: {error.strerror}. Check the folder and its permissions."
        ) from error
    finally:
        with contextlib.suppress(OSError):  # the folder itself may be what is wrong
            temporary.unlink()
    return WrittenFile(hashlib.sha256(data).hexdigest(), len(data))
