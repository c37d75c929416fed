"""Pixels in and out through a process of their own: the parent's side. Imports no image library.

A hostile or broken file can only take down the decode process, which has a memory limit; another one is started, which
is asked the same once more: what ended the first may have nothing to do with the file.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
import numpy.typing as npt

import xmem_protocol
import xmem_server
from xmem_protocol import BAD_INPUT, OUT_OF_MEMORY, InputError, RemoteProtocolError, ServerError
from xmem_server.decode_messages import (
    ANSWERS,
    AlphaWanted,
    HeaderWanted,
    PlateWanted,
    Refused,
    SaveWanted,
    SurveyWanted,
    TransformWanted,
)
from xmem_server.headers import FLOAT, Alpha, DecodeLimits, Header, MaskSurvey, WrittenFile, display_name
from xmem_server.pipes import MAX_ATTACHMENT_BYTES, read_answer, write_answer

DEFAULT_LIMITS = DecodeLimits()
_PIPE_BYTES = 1024 * 1024  # of the system's own buffer: pixels cross it in fewer pieces
_EXIT_SECONDS = 2.0  # between the end of a dying child's pipe and its own
# A library that runs out of memory aborts, faults or exits; these are other people's doing (by number: Windows has fewer).
_KILLED_FROM_OUTSIDE = frozenset(
    -getattr(signal, name) for name in ("SIGHUP", "SIGINT", "SIGQUIT", "SIGKILL", "SIGTERM") if hasattr(signal, name)
)


@dataclass(frozen=True)
class _Death:
    """The child died under a request; ``status`` is its exit status, minus the signal's number, None when it hung."""

    status: int | None


class Decoder:
    """Decodes and writes picture files in a child process. Any thread may call; one request runs at a time.

    Every method raises InputError, with one line for the artist, when a file cannot be read or written, takes the child
    over its memory limit or takes too long; ServerError STORAGE_FULL when the disk is full. ``suffix`` is the original
    file's, with the dot, for a stored file has none.
    """

    def __init__(self, limits: DecodeLimits = DEFAULT_LIMITS) -> None:
        self._limits = limits
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Decoder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def process_id(self) -> int | None:
        """The child's process id, while there is one."""
        return self._child.pid if self._child is not None else None

    def start(self) -> None:
        """Start the child, which takes a moment: who asks first need not wait for it."""
        with self._lock:
            self._living_child()

    def fetch_header(self, path: str, suffix: str) -> Header:
        """Give a picture file's header; no pixel is decoded."""
        answer, _ = self._ask(HeaderWanted(_absolute(path), suffix), path)
        found: Header = answer.header
        return found

    def fetch_plate(
        self, path: str, suffix: str, index: int, colorspace: str, size: tuple[int, int] | None = None
    ) -> npt.NDArray[np.float32]:
        """Give a plate: HxWx3 RGB float32, display-referred 0..1, on the display window.

        ``index`` is the picture's place in a video, from 0. ``colorspace`` is as in ``xmem_protocol.Shot``. ``size`` is
        (height, width) to average the picture down to, after the colour transform, before it crosses the pipe.
        """
        height, width = size or (0, 0)
        answer, pixels = self._ask(PlateWanted(_absolute(path), suffix, index, colorspace, height, width), path)
        return np.frombuffer(pixels, np.float32).reshape(answer.height, answer.width, answer.channels)

    def fetch_alpha(self, path: str, suffix: str, selector: str) -> npt.NDArray[np.float32]:
        """Give an object's alpha: HxW float32 0..1 on the display window, as stored; selectors as in ``xmem_protocol.Key``."""
        answer, pixels = self._ask(AlphaWanted(_absolute(path), suffix, selector), path)
        return np.frombuffer(pixels, np.float32).reshape(answer.height, answer.width)

    def survey_mask(self, path: str, suffix: str) -> MaskSurvey:
        """Give what a mask file holds: indices, colours or an alpha."""
        answer, _ = self._ask(SurveyWanted(_absolute(path), suffix), path)
        found: MaskSurvey = answer.survey
        return found

    def describe_transform(self, colorspace: str, kind: str) -> str:
        """Give one line on what a colour space means for a kind of file (of ``headers``); InputError when it is unknown."""
        answer, _ = self._ask(TransformWanted(colorspace, kind), "")
        description: str = answer.description
        return description

    def fetch_colour_id(self, colorspace: str) -> str:
        """Give the id of what a colour space does to numbers, its config read from disk again for the plates after, too.

        Two plates decoded under the same id from the same file are equal. Raises InputError when the space is unknown.
        """
        answer, _ = self._ask(TransformWanted(colorspace, FLOAT), "")
        found: str = answer.colour_id
        return found

    def save_matte(self, path: str, alpha: Alpha, header: Header, output: str) -> WrittenFile:
        """Write one object's matte, whole or not at all; ``output`` is ``exr-half``, ``exr-float`` or ``png16``.

        An alpha of float16 crosses the pipe as that: half the bytes, and not rounded again.
        """
        return self._save(SaveWanted(_absolute(path), header, output, (), _fetch_samples([alpha])), [alpha], path)

    def save_layered(self, path: str, alphas: Mapping[int, Alpha], header: Header, output: str) -> WrittenFile:
        """Write the mattes of all objects as one EXR with channels ``object_<id>.A``, whole or not at all."""
        if not alphas:
            raise InputError(f"{display_name(Path(path))} would have no object in it. Give at least one key.")
        stacked = list(alphas.values())
        request = SaveWanted(_absolute(path), header, output, tuple(alphas), _fetch_samples(stacked))
        return self._save(request, stacked, path)

    def close(self) -> None:
        """End the child; a later call starts another."""
        with self._lock:
            self._end_child()

    def _save(self, request: SaveWanted, alphas: list[Alpha], path: str) -> WrittenFile:
        name = display_name(Path(path))
        for alpha in alphas:
            if alpha.shape != (request.header.height, request.header.width):
                size = "x".join(str(side) for side in reversed(alpha.shape))
                raise InputError(
                    f"The matte for {name} is {size} but the plate is {request.header.width}x{request.header.height}."
                )
        if 4 * len(alphas) * request.header.width * request.header.height > MAX_ATTACHMENT_BYTES:
            raise InputError(
                f"{name} would hold {len(alphas)} mattes, too many for one file. Write one file per object."
            )
        pixels = np.ascontiguousarray(np.stack(alphas), request.samples)
        answer, _ = self._ask(request, path, pixels.data.cast("B"))
        return WrittenFile(answer.sha256, answer.nbytes)

    def _ask(self, request: Any, path: str, attachment: memoryview | bytes = b"") -> tuple[Any, bytearray]:
        """Give the child's answer and its attachment."""
        name = display_name(Path(path)) if path else "The colour transform"
        with self._lock:
            answer, pixels = self._exchange(request, attachment, name)
            if isinstance(answer, Refused) and answer.code == OUT_OF_MEMORY:
                self._end_child()  # what a failed allocation left behind inside the libraries is not trusted
                raise self._over_memory(name)
        if isinstance(answer, Refused):
            raise InputError(answer.message) if answer.code == BAD_INPUT else ServerError(answer.code, answer.message)
        return answer, pixels

    def _exchange(self, request: Any, attachment: memoryview | bytes, name: str) -> tuple[Any, bytearray]:
        """Give what the child answers, or a fresh one when that dies under the request."""
        answer = self._exchange_once(request, attachment, name)
        if isinstance(answer, _Death):
            answer = self._exchange_once(request, attachment, name)
        if not isinstance(answer, _Death):
            return answer
        if answer.status in _KILLED_FROM_OUTSIDE:
            raise InputError(
                f"{name} could not be decoded: the decoding process was stopped twice. "
                "Try again, or export the file again."
            )
        raise self._over_memory(name)

    def _exchange_once(self, request: Any, attachment: memoryview | bytes, name: str) -> tuple[Any, bytearray] | _Death:
        child = self._living_child()
        if child.stdin is None or child.stdout is None:
            raise RemoteProtocolError("The decode process has no pipes.")
        with _killed_after(self._limits.timeout_seconds, child) as is_late:
            try:
                write_answer(child.stdin, request, attachment)
                received = read_answer(child.stdout, ANSWERS)
            except (OSError, RemoteProtocolError):  # the child died with a request or an answer half-way
                received = None
        if received is None:
            status = None if is_late.is_set() else _fetch_exit_status(child)
            self._end_child()
            if is_late.is_set():
                raise InputError(
                    f"{name} took longer than {self._limits.timeout_seconds:g} s and was given up. Check the disk it is on, or the file."
                )
            return _Death(status)
        return received

    def _living_child(self) -> subprocess.Popen[bytes]:
        if self._child is not None and self._child.poll() is not None:
            self._end_child()
        if self._child is None:
            self._child = _start_child(self._limits)
        return self._child

    def _end_child(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):  # what was buffered for it has nobody to go to
                    pipe.close()

    def _over_memory(self, name: str) -> InputError:
        return InputError(
            f"{name} could not be decoded within the memory limit of {self._limits.memory_bytes / 2**30:.1f} GiB. "
            "Export it again, smaller or with fewer channels."
        )


@contextlib.contextmanager
def _killed_after(seconds: float, child: subprocess.Popen[bytes]) -> Iterator[threading.Event]:
    """Kill the child unless the block is left in time; the event says that it was."""
    is_late = threading.Event()

    def give_up() -> None:
        is_late.set()
        child.kill()

    timer = threading.Timer(seconds, give_up)
    timer.daemon = True
    timer.start()
    try:
        yield is_late
    finally:
        timer.cancel()


def _fetch_exit_status(child: subprocess.Popen[bytes]) -> int | None:
    """Give how a child ended whose pipe has ended; None when it lives on and is of no use."""
    try:
        return child.wait(_EXIT_SECONDS)
    except subprocess.TimeoutExpired:
        return None


def _start_child(limits: DecodeLimits) -> subprocess.Popen[bytes]:
    """Start the decode process with the same packages as this one, wherever they were imported from."""
    folders = [str(Path(module.__file__ or "").resolve().parents[1]) for module in (xmem_server, xmem_protocol)]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([*folders, *filter(None, [os.environ.get("PYTHONPATH")])]),
        "PYTHONSAFEPATH": "1",  # a numpy.py in the artist's folder is not numpy
        "MALLOC_ARENA_MAX": "2",  # every arena and thread reserves address space, which is what is limited
        "OPENBLAS_NUM_THREADS": "1",
        "OPENCV_FFMPEG_CAPTURE_OPTIONS": "protocol_whitelist;file|threads;2",  # a video opens no network address
    }
    command = [sys.executable, "-m", "xmem_server.decode_process"]
    options = {"--memory": limits.memory_bytes, "--pixels": limits.max_pixels, "--niceness": limits.niceness}
    child = subprocess.Popen(
        [*command, *(str(word) for pair in options.items() for word in pair)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
    )
    for pipe in (child.stdin, child.stdout):
        _widen(pipe)
    return child


def _widen(pipe: IO[bytes] | None) -> None:
    """Give a pipe a larger buffer, where the system has that and allows it."""
    if sys.platform == "linux" and pipe is not None:
        import fcntl  # noqa: PLC0415 - does not exist on Windows

        with contextlib.suppress(OSError):  # one user's pipes may take so much together
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)


def _fetch_samples(alphas: Sequence[Alpha]) -> str:
    """Give what alphas cross the pipe as: half floats when all of them are."""
    return "float16" if all(alpha.dtype == np.float16 for alpha in alphas) else "float32"


def _absolute(path: str) -> str:
    return str(Path(path).absolute())
