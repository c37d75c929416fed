"""EXR files: their headers, checked before a pixel is decoded, and their channels exactly as stored.

The OpenEXR bindings print a warning and give an empty file where one would expect an error, and try to allocate whatever
a header announces; so the header is read alone first and the parts are counted afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import OpenEXR

from xmem_protocol import InputError
from xmem_server.headers import FLOAT, DecodeLimits, Header, Window, check_window, display_name
from xmem_server.stills import Channels

_MAX_PARTS = 64
_MAX_CHANNELS = 1024  # in all parts; a Cryptomatte render with every light separate has a few hundred
_BYTES_PER_SAMPLE = 4  # the header alone does not say half or float
_DEEP = (OpenEXR.deepscanline, OpenEXR.deeptile)
_LAYER_CHOICE = ("rgba", "rgb", "main", "beauty", "combined", "c", "color", "colour")
_COMPONENTS = {"r": "R", "red": "R", "g": "G", "green": "G", "b": "B", "blue": "B", "y": "Y"}


@dataclass(frozen=True)
class _Part:
    index: int
    data_window: Window
    display_window: Window
    pixel_aspect: float
    channels: tuple[str, ...]


def fetch_exr_header(path: Path, limits: DecodeLimits) -> Header:
    """Give the header of the part that holds the colour, else of the first part; ``channels`` are those of all parts.

    Raises InputError on damage, deep or subsampled pixels, and sizes over the limits. Nothing is decoded.
    """
    parts = _fetch_parts(path, limits)
    return _header_of(parts, _colour_part(parts))


def fetch_exr_colour(path: Path, limits: DecodeLimits) -> tuple[Header, Channels]:
    """Give the header and R, G, B of the first part that has colour, on its data window, half or float as stored.

    Plain R, G, B first, else Y or R alone as grey, else the first layer that has colour. Raises InputError.
    """
    parts = _fetch_parts(path, limits)
    part = _colour_part(parts)
    names = choose_colour(part.channels)
    if names is None:
        raise InputError(
            f"{display_name(path)} has no colour: its channels are {', '.join(parts[0].channels[:20])}. "
            "Render R, G and B for the plate."
        )
    channels = _fetch_channels(path, part)
    return _header_of(parts, part), {letter: channels[name] for letter, name in zip("RGB", names, strict=True)}


def fetch_exr_channel(path: Path, channel: str, limits: DecodeLimits) -> tuple[Header, np.ndarray[Any, Any]]:
    """Give the header and one channel by its full name, on its data window, as stored; the first part that has it."""
    parts = _fetch_parts(path, limits)
    part = next((part for part in parts if channel in part.channels), None)
    if part is None:
        have = ", ".join(_all_channels(parts)[:20])
        raise InputError(f"{display_name(path)} has no channel {channel}: it has {have}. Choose one of these.")
    return _header_of(parts, part), _fetch_channels(path, part)[channel]


def choose_colour(channels: tuple[str, ...]) -> tuple[str, str, str] | None:
    """Give the names of the channels to take as R, G and B (the same thrice for grey), or None when there is no colour."""
    layers: dict[str, dict[str, str]] = {}
    for channel in channels:
        layer, _, component = channel.rpartition(".")
        letter = _COMPONENTS.get(component.lower())
        if letter:
            layers.setdefault(layer, {})[letter] = channel
    found = (
        _choose_in_layer(layers[layer]) for layer in sorted(layers, key=lambda layer: _layer_rank(layer, layers[layer]))
    )
    return next((colour for colour in found if colour), None)


def _choose_in_layer(letters: dict[str, str]) -> tuple[str, str, str] | None:
    for red, green, blue in ("RGB", "YYY", "RRR"):
        if {red, green, blue} <= letters.keys():
            return letters[red], letters[green], letters[blue]
    return None


def _layer_rank(layer: str, letters: dict[str, str]) -> tuple[bool, bool, int]:
    """Give the order of choice: channels without a layer, layers in colour, names that mean the beauty, the file's order."""
    named = _LAYER_CHOICE.index(layer.lower()) if layer.lower() in _LAYER_CHOICE else len(_LAYER_CHOICE)
    return layer != "", not {"R", "G", "B"} <= letters.keys(), named


def _colour_part(parts: list[_Part]) -> _Part:
    return next((part for part in parts if choose_colour(part.channels)), parts[0])


def _all_channels(parts: list[_Part]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(channel for part in parts for channel in part.channels))


def _header_of(parts: list[_Part], part: _Part) -> Header:
    window = part.display_window
    return Header(window.width, window.height, part.pixel_aspect, part.data_window, window, _all_channels(parts), FLOAT)


def _fetch_parts(path: Path, limits: DecodeLimits) -> list[_Part]:
    name = display_name(path)
    opened = _open(path, separate_channels=True, header_only=True)
    if len(opened.parts) > _MAX_PARTS:
        raise InputError(f"{name} has {len(opened.parts)} parts; {_MAX_PARTS} is the most. Render it with fewer.")
    parts = [_read_part(index, part.header, name, limits) for index, part in enumerate(opened.parts)]
    samples = sum(part.data_window.width * part.data_window.height * len(part.channels) for part in parts)
    if (
        sum(len(part.channels) for part in parts) > _MAX_CHANNELS
        or samples * _BYTES_PER_SAMPLE > limits.memory_bytes // 2
    ):
        raise InputError(
            f"{name} would take {samples * _BYTES_PER_SAMPLE / 2**30:.1f} GiB to decode, with all its channels; "
            f"{limits.memory_bytes / 2**31:.1f} GiB is the most. Render it with fewer channels."
        )
    return parts


def _read_part(index: int, header: dict[str, Any], name: str, limits: DecodeLimits) -> _Part:
    if header.get("type") in _DEEP:
        raise InputError(
            f"{name} is a deep EXR; flat pixels were wanted. Flatten it (DeepToImage) and render it again."
        )
    channels = header["channels"]
    if any(channel.xSampling != 1 or channel.ySampling != 1 for channel in channels):
        raise InputError(
            f"{name} has subsampled (luminance and chroma) channels; full R, G, B were wanted. Render it as RGB."
        )
    data_window, display_window = _window(header["dataWindow"]), _window(header["displayWindow"])
    for window in (display_window, data_window):
        check_window(name, window, limits)
    aspect = float(header.get("pixelAspectRatio", 1.0))
    is_sane = np.isfinite(aspect) and 1e-3 < aspect < 1e3
    return _Part(
        index, data_window, display_window, aspect if is_sane else 1.0, tuple(channel.name for channel in channels)
    )


def _window(corners: tuple[Any, Any]) -> Window:
    (x_min, y_min), (x_max, y_max) = corners
    return Window(int(x_min), int(y_min), int(x_max), int(y_max))


def _fetch_channels(path: Path, part: _Part) -> Channels:
    """Give every channel of a part; a file that ends early has no parts left, or fewer."""
    opened = _open(path, separate_channels=True)
    wanted = (part.data_window.height, part.data_window.width)
    if len(opened.parts) <= part.index:
        raise _damaged(path)
    found = opened.parts[part.index].channels
    channels = {name: found[name].pixels for name in part.channels if name in found}
    if len(channels) < len(part.channels) or any(pixels.shape != wanted for pixels in channels.values()):
        raise _damaged(path)
    return channels


def _open(path: Path, **options: bool) -> Any:
    """Give the opened file, with at least one part. One thread: the memory limit counts every thread's arena."""
    try:
        with path.open("rb") as file:
            opened = OpenEXR.File(file, num_threads=0, **options)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}. Check the path and its permissions.") from error
    except MemoryError:
        raise
    except Exception as error:  # a C++ library that raises many kinds on hostile bytes
        raise _damaged(path) from error
    if not opened.parts:
        raise _damaged(path)
    return opened


def _damaged(path: Path) -> InputError:
    return InputError(
        f"{display_name(path)} is a damaged or unfinished EXR: it cannot be decoded. Render or copy it again."
    )
