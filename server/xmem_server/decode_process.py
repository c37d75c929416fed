"""The decode process: opens files that nobody vouches for, under a memory limit, and answers over its pipe.

Run as ``python -m xmem_server.decode_process --memory BYTES --pixels COUNT``; it ends when its standard input does. A
file that takes it down takes nothing else down: its parent (``decoding``) starts another one.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
import numpy.typing as npt

from xmem_protocol import BAD_INPUT, OUT_OF_MEMORY, InputError, RemoteProtocolError, ServerError
from xmem_server.colour import fetch_colour_id, fetch_transform
from xmem_server.decode_messages import (
    REQUESTS,
    AlphaWanted,
    FileWritten,
    HeaderFound,
    HeaderWanted,
    PixelsFound,
    PlateWanted,
    Refused,
    SaveWanted,
    SurveyFound,
    SurveyWanted,
    TransformFound,
    TransformWanted,
)
from xmem_server.headers import DecodeLimits, display_name
from xmem_server.keys import fetch_alpha, survey_mask
from xmem_server.mattes import save_layered, save_matte
from xmem_server.pipes import read_answer, write_answer
from xmem_server.plates import PlateReader, fetch_header

Answer = tuple[Any, bytes | memoryview]


class DecodeService:
    """Answers one request at a time; keeps a video open between requests."""

    def __init__(self, limits: DecodeLimits) -> None:
        self._limits = limits
        self._plates = PlateReader(limits)

    def answer(self, request: Any, attachment: bytearray) -> Answer:
        """Give the answer and its attachment; anything that goes wrong is a Refused."""
        try:
            return self._answer(request, attachment)
        except InputError as error:
            return Refused(BAD_INPUT, str(error)), b""
        except ServerError as error:
            return Refused(error.code, str(error)), b""
        except MemoryError:
            return Refused(OUT_OF_MEMORY, ""), b""
        except Exception as error:  # noqa: BLE001 - hostile files: whatever they raise is the file's fault and is told
            name = display_name(Path(getattr(request, "path", "")))
            return Refused(
                BAD_INPUT, f"{name} cannot be decoded ({type(error).__name__}). Export or copy it again."
            ), b""

    def _answer(self, request: Any, attachment: bytearray) -> Answer:
        match request:
            case HeaderWanted():
                return HeaderFound(fetch_header(Path(request.path), request.suffix, self._limits)), b""
            case PlateWanted():
                return _pixels(self._fetch_plate(request))
            case AlphaWanted():
                return _pixels(fetch_alpha(Path(request.path), request.suffix, request.selector, self._limits))
            case SurveyWanted():
                return SurveyFound(survey_mask(Path(request.path), request.suffix, self._limits)), b""
            case TransformWanted():
                colour_id = fetch_colour_id(request.colorspace)  # first: it reads the config again
                return TransformFound(fetch_transform(request.colorspace, request.kind).describe(), colour_id), b""
            case _:
                return _save(request, attachment), b""

    def _fetch_plate(self, request: PlateWanted) -> npt.NDArray[np.float32]:
        pixels = self._plates.fetch_plate(Path(request.path), request.suffix, request.index, request.colorspace)
        if request.height and (request.height, request.width) != pixels.shape[:2]:
            # After the colour transform: the network sees what a display-referred render of the plate would give.
            resized = cv2.resize(pixels, (request.width, request.height), interpolation=cv2.INTER_AREA)
            return np.asarray(resized, np.float32)
        return pixels


def _pixels(pixels: npt.NDArray[np.float32]) -> Answer:
    height, width = pixels.shape[:2]
    packed = np.ascontiguousarray(pixels)
    return PixelsFound(height, width, packed.size // (height * width)), packed.data.cast("B")


def _save(request: SaveWanted, attachment: bytearray) -> FileWritten:
    samples = np.float16 if request.samples == "float16" else np.float32
    alphas = np.frombuffer(attachment, samples).reshape(-1, request.header.height, request.header.width)
    if request.object_ids:
        layers = dict(zip(request.object_ids, alphas, strict=True))
        written = save_layered(Path(request.path), layers, request.header, request.output)
    else:
        written = save_matte(Path(request.path), alphas[0], request.header, request.output)
    return FileWritten(written.sha256, written.nbytes)


def serve(requests: BinaryIO, answers: BinaryIO, limits: DecodeLimits) -> None:
    """Answer requests until their stream ends."""
    service = DecodeService(limits)
    while (received := read_answer(requests, REQUESTS)) is not None:
        answer, pixels = service.answer(*received)
        write_answer(answers, answer, pixels)


def limit_memory(nbytes: int) -> None:
    """Cap this process's address space and forbid core dumps; Windows has no such limit and is left alone."""
    if sys.platform != "win32":
        import resource  # noqa: PLC0415 - does not exist on Windows

        resource.setrlimit(resource.RLIMIT_AS, (nbytes, nbytes))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main() -> int:
    """Give the exit status: 0 when the parent has gone or closed the pipe."""
    parser = argparse.ArgumentParser(description="Decode picture files for the XMem server (started by it).")
    parser.add_argument("--memory", type=int, required=True, help="bytes of address space")
    parser.add_argument("--pixels", type=int, required=True, help="most pixels in a window")
    parser.add_argument("--niceness", type=int, default=0, help="how far to stand back from others")
    chosen = parser.parse_args()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then closes the pipe
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # OpenEXR prints its warnings on standard output
    cv2.setNumThreads(1)
    limit_memory(chosen.memory)
    if hasattr(os, "nice"):
        os.nice(max(0, chosen.niceness - os.nice(0)))  # it may inherit some from the thread that started it
    try:
        serve(sys.stdin.buffer, answers, DecodeLimits(chosen.memory, chosen.pixels))
    except (BrokenPipeError, RemoteProtocolError):  # the parent has gone, perhaps in the middle of a request
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
