"""Video files: their header, and their pictures in order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from xmem_protocol import InputError
from xmem_server.headers import VIDEO, DecodeLimits, Header, check_window, display_name, window_of_size


def fetch_video_header(path: Path, limits: DecodeLimits) -> Header:
    """Give the header; ``pictures`` is what the container announces, or counted when it announces nothing."""
    video = _open(path)
    try:
        width, height = int(video.get(cv2.CAP_PROP_FRAME_WIDTH)), int(video.get(cv2.CAP_PROP_FRAME_HEIGHT))
        window = window_of_size(width, height)
        check_window(display_name(path), window, limits)
        pictures = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
        if pictures <= 0:
            pictures = 0
            while video.grab():
                pictures += 1
        over, under = video.get(cv2.CAP_PROP_SAR_NUM), video.get(cv2.CAP_PROP_SAR_DEN)
        aspect = over / under if over > 0 and under > 0 else 1.0
    finally:
        video.release()
    if not pictures:
        raise _damaged(path)
    return Header(width, height, aspect, window, window, ("R", "G", "B"), VIDEO, pictures)


class VideoReader:
    """One video kept open. Pictures asked for in order are decoded once; going back starts again from the first.

    It never seeks: a seek lands on the nearest frame that the file's index knows, which is not always the one asked for.
    """

    def __init__(self, path: Path, limits: DecodeLimits) -> None:
        self.path = path
        self.header = fetch_video_header(path, limits)
        self._video = _open(path)
        self._next = 0

    def fetch_picture(self, index: int) -> npt.NDArray[np.uint8]:
        """Give the picture with this index, counted from 0, as HxWx3 uint8 RGB; InputError past the end."""
        if index < self._next:
            self.close()
            self._video, self._next = _open(self.path), 0
        while self._next < index:
            if not self._video.grab():
                raise self._past_end(index)
            self._next += 1
        found, picture = self._video.read()
        if not found or picture is None:
            raise self._past_end(index)
        self._next += 1
        if picture.shape != (self.header.height, self.header.width, 3):
            raise InputError(
                f"{display_name(self.path)} changes its size at picture {index + 1}. Export it at one size."
            )
        return np.asarray(picture[..., ::-1], np.uint8)

    def close(self) -> None:
        """Release the file."""
        self._video.release()

    def _past_end(self, index: int) -> InputError:
        return InputError(
            f"{display_name(self.path)} ends or breaks after {self._next} pictures; number {index + 1} was wanted. "
            "Export it again, or give fewer frames."
        )


def _open(path: Path) -> Any:
    try:
        video = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    except cv2.error as error:
        raise _damaged(path) from error
    if not video.isOpened():
        raise _damaged(path)
    return video


def _damaged(path: Path) -> InputError:
    return InputError(
        f"{display_name(path)} is a damaged video, or one whose codec cannot be decoded here. Export it as H.264 or EXR."
    )
