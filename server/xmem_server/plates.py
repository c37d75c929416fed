"""Plates: any readable picture file to display-referred RGB on its display window."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from xmem_protocol import InputError
from xmem_server.colour import ColourTransform, convert_channel, convert_pixels, fetch_transform
from xmem_server.exr import fetch_exr_colour, fetch_exr_header
from xmem_server.file_kinds import EXR, MOVIE, fetch_file_kind
from xmem_server.headers import DecodeLimits, Header, display_name
from xmem_server.stills import Channels, fetch_still_channels, fetch_still_header
from xmem_server.videos import VideoReader, fetch_video_header

DEFAULT_LIMITS = DecodeLimits()


def fetch_header(path: Path, suffix: str, limits: DecodeLimits = DEFAULT_LIMITS) -> Header:
    """Give the header of a picture file; ``suffix`` is its original one, for a stored file has none.

    Raises InputError when it is damaged, another kind than its suffix says, or over the limits. No pixel is decoded.
    """
    file_kind = fetch_file_kind(path, suffix)
    if file_kind == EXR:
        return fetch_exr_header(path, limits)
    if file_kind == MOVIE:
        return fetch_video_header(path, limits)
    return fetch_still_header(path, file_kind, limits)


class PlateReader:
    """Reads plates; keeps one video open between calls, so that pictures in order are decoded once."""

    def __init__(self, limits: DecodeLimits = DEFAULT_LIMITS) -> None:
        self._limits = limits
        self._video: VideoReader | None = None

    def fetch_plate(self, path: Path, suffix: str, index: int, colorspace: str) -> npt.NDArray[np.float32]:
        """Give the pixels: HxWx3 RGB float32, display-referred 0..1, on the display window.

        ``index`` is the picture's place in a video, from 0; stills have 0 only. ``colorspace`` is as in ``colour``.
        What the data window does not cover is 0, what it has beyond the display window is cut off. Alpha is not looked
        at. Raises InputError.
        """
        file_kind = fetch_file_kind(path, suffix)
        if index < 0 or (index and file_kind != MOVIE):
            raise InputError(f"{display_name(path)} holds one picture, number 0; number {index} was wanted.")
        if file_kind == MOVIE:
            header, channels = self._fetch_picture(path, index)
        elif file_kind == EXR:
            header, channels = fetch_exr_colour(path, self._limits)
        else:
            header, channels = fetch_still_channels(path, file_kind, self._limits)
        return _display_plate(channels, header, fetch_transform(colorspace, header.kind))

    def close(self) -> None:
        """Close the video, if one is open."""
        if self._video is not None:
            self._video.close()
            self._video = None

    def _fetch_picture(self, path: Path, index: int) -> tuple[Header, Channels]:
        if self._video is None or self._video.path != path:
            self.close()
            self._video = VideoReader(path, self._limits)
        picture = self._video.fetch_picture(index)
        return self._video.header, {name: picture[..., at] for at, name in enumerate("RGB")}


def on_display_window(pixels: npt.NDArray[Any], header: Header) -> npt.NDArray[Any]:
    """Give HxW or HxWx3 pixels of the data window on the display window, 0 elsewhere; the same array where the windows are the same."""
    if header.data_window == header.display_window:
        return pixels
    canvas = np.zeros((header.height, header.width, *pixels.shape[2:]), pixels.dtype)
    _paste_window(pixels, header, canvas)
    return canvas


def _paste_window(pixels: npt.NDArray[Any], header: Header, canvas: npt.NDArray[Any]) -> None:
    """Write pixels of the data window to where they lie on a canvas of the display window's size."""
    data, display = header.data_window, header.display_window
    both = data.intersection(display)
    if both is not None:
        target = canvas[both.y_min - display.y_min :, both.x_min - display.x_min :][: both.height, : both.width]
        target[...] = pixels[both.y_min - data.y_min :, both.x_min - data.x_min :][: both.height, : both.width]


def _display_plate(channels: Channels, header: Header, transform: ColourTransform) -> npt.NDArray[np.float32]:
    found = [channels[name] for name in ("RGB" if "R" in channels else "YYY")]
    if all(channel.dtype == np.uint8 for channel in found):
        together = convert_channel(transform, np.stack(found, 2))
        return convert_pixels(transform, on_display_window(together, header))
    pixels = np.zeros((header.height, header.width, 3), np.float32)
    for at, channel in enumerate(found):
        _paste_window(convert_channel(transform, channel), header, pixels[..., at])
    return convert_pixels(transform, pixels)
