"""EXR and PNG files as Nuke's Read and Write treat them."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
import OpenEXR

from .images import Box, Format, Picture

_TO_FILE = {"rgba.red": "R", "rgba.green": "G", "rgba.blue": "B", "rgba.alpha": "A"}
_FROM_FILE = {letter: name for name, letter in _TO_FILE.items()}
_PARTS = {"R": "red", "G": "green", "B": "blue", "A": "alpha"}


def read_picture(path):
    """Give a file as stored, with its windows as format and box. Raises RuntimeError as Nuke does when it cannot."""
    path = Path(path)
    if not path.is_file():
        raise RuntimeError(f"{path}: No such file or directory")
    return _read_exr(path) if path.suffix == ".exr" else _read_png(path)


def write_exr(path, picture, names, datatype):
    """Write channels to a temporary name, then rename, as Nuke's Write does."""
    shape, box = picture.format, picture.box
    samples = {"16 bit half": np.float16, "32 bit float": np.float32}[datatype]
    with np.errstate(over="ignore"):
        channels = {_TO_FILE.get(name, name): picture.channels[name].astype(samples) for name in names}
    height = shape.height()
    header = {
        "compression": OpenEXR.ZIPS_COMPRESSION,
        "type": OpenEXR.scanlineimage,
        "displayWindow": ((0, 0), (shape.width() - 1, height - 1)),
        "dataWindow": ((box.x, height - box.t), (box.r - 1, height - box.y - 1)),
        "pixelAspectRatio": shape.pixelAspect(),
    }
    stream = io.BytesIO()
    OpenEXR.File(header, {name: np.ascontiguousarray(pixels) for name, pixels in channels.items()}).write(stream)
    temporary = Path(f"{path}.tmp")
    temporary.write_bytes(stream.getvalue())
    temporary.replace(path)


def write_png(path, picture, names, datatype):
    """Write the format's RGB or alpha as whole numbers, clipped; a temporary name first, as for EXR."""
    kind = {"8 bit": np.uint8, "16 bit": np.uint16}[datatype]
    box = Box(0, 0, picture.format.width(), picture.format.height())
    order = [name for name in ("rgba.blue", "rgba.green", "rgba.red", "rgba.alpha") if name in names]
    if len(order) not in (1, 3, 4):
        raise NotImplementedError(f"the double writes no PNG of {names}")
    pixels = np.stack([picture.crop(name, box) for name in order], axis=-1)
    levels = np.rint(np.clip(pixels, 0, 1) * np.iinfo(kind).max).astype(kind)
    _, data = cv2.imencode(".png", levels[..., 0] if len(order) == 1 else levels)
    temporary = Path(f"{path}.tmp")
    temporary.write_bytes(data.tobytes())
    temporary.replace(path)


def _read_exr(path):
    opened = OpenEXR.File(str(path), separate_channels=True)
    header = opened.header()
    (x_low, y_low), (x_high, y_high) = _window(header["displayWindow"])
    (x_min, y_min), (x_max, y_max) = _window(header["dataWindow"])
    height = y_high - y_low + 1
    shape = Format(x_high - x_low + 1, height, header.get("pixelAspectRatio", 1.0))
    box = Box(x_min - x_low, height - (y_max - y_low) - 1, x_max - x_low + 1, height - (y_min - y_low))
    channels = {_nuke_name(name): channel.pixels.astype(np.float32) for name, channel in opened.channels().items()}
    return Picture(shape, box, channels)


def _window(corners):
    return [[int(number) for number in corner] for corner in corners]


def _nuke_name(name):
    layer, _, part = name.rpartition(".")
    return f"{layer}.{_PARTS.get(part, part)}" if layer else _FROM_FILE.get(name, f"other.{name}")


def _read_png(path):
    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise RuntimeError(f"{path}: not a PNG")
    pixels = np.atleast_3d(pixels).astype(np.float32) / np.iinfo(pixels.dtype).max
    height, width, count = pixels.shape
    names = ("rgba.blue", "rgba.green", "rgba.red", "rgba.alpha")[:count] if count > 1 else ("rgba.red",)
    channels = {name: pixels[..., at] for at, name in enumerate(names)}
    if count == 1:
        channels.update({"rgba.green": channels["rgba.red"], "rgba.blue": channels["rgba.red"]})
    return Picture(Format(width, height), Box(0, 0, width, height), channels)
