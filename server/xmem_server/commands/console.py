"""What a command says: results on stdout, progress and one-line errors on stderr, nothing else."""

from __future__ import annotations

import errno
import os
import signal
import sys
import time
from collections.abc import Callable
from types import FrameType, TracebackType

from tqdm import tqdm

from xmem_protocol import InputError, XMemError

DONE, WRONG, INTERRUPTED = 0, 2, 130
_LINE_EVERY = 5.0  # seconds between lines of progress where there is no terminal to draw a bar on
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class Console:
    """Where a command writes."""

    def write(self, line: str) -> None:
        """Write a line of the result."""
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    def warn(self, line: str) -> None:
        """Write a line that is not the result."""
        sys.stderr.write(line + "\n")
        sys.stderr.flush()

    def fail(self, message: str) -> None:
        """Write why the command cannot do what was asked, in one line."""
        self.warn("xmem: " + " ".join(message.split()))

    def progress(self, title: str, total: int) -> ProgressBar:
        """Give a bar for ``total`` steps: drawn on a terminal, a line every few seconds elsewhere."""
        return ProgressBar(title, total)


class ProgressBar:
    """How far a piece of work is: done, steps a second, time left. A context manager; ``update`` is told what is done."""

    def __init__(self, title: str, total: int) -> None:
        self._title = title
        self._total = total
        self._began = time.monotonic()
        self._first: int | None = None
        self._said, self._last = self._began, -1
        self._bar: tqdm[None] | None = None
        if sys.stderr.isatty():
            tqdm.monitor_interval = 0  # no thread for one bar
            shape = (
                "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed} so far, {remaining} left, {rate_fmt}]"
            )
            self._bar = tqdm(desc=title, total=total, unit=" frames", bar_format=shape, dynamic_ncols=True)

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def update(self, done: int) -> None:
        """Show that ``done`` steps are done. Steps done before the first call do not count for the speed."""
        if self._first is None:
            self._first = done
            self._began = time.monotonic()
            if self._bar is not None:
                self._bar.initial = done
        if self._bar is not None:
            self._bar.update(max(0, done - self._bar.n))
        elif done != self._last and time.monotonic() - self._said >= _LINE_EVERY:
            self._said, self._last = time.monotonic(), done
            sys.stderr.write(self._line(done) + "\n")
            sys.stderr.flush()

    def close(self) -> None:
        """Leave the bar as it is."""
        if self._bar is not None:
            self._bar.close()

    def _line(self, done: int) -> str:
        passed = done - (self._first or 0)
        seconds = max(time.monotonic() - self._began, 1e-6)
        line = f"{self._title}: {done}/{self._total}"
        if passed <= 0:
            return line
        return f"{line}, {passed / seconds:.2f} frames/s, {(self._total - done) * seconds / passed:.0f} s left"


def run_safely(work: Callable[[], int], console: Console) -> int:
    """Give the exit code of a command: its own, 2 with one line for anything that went wrong, 130 when interrupted."""
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        return work()
    except KeyboardInterrupt:
        console.fail("stopped. Run the same command again to go on from where it was.")
        return INTERRUPTED
    except XMemError as error:
        console.fail(str(error))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # whoever read our results has gone
    except OSError as error:
        console.fail(explain_os_error(error))
    finally:
        signal.signal(signal.SIGTERM, before)
    return WRONG


def explain_os_error(error: OSError) -> str:
    """Give one line for a file or disk that could not be used."""
    where = error.filename if isinstance(error.filename, str) else "A file"
    if error.errno in _FULL:
        return (
            f"{where} cannot be written: the disk is full. Free some space, then run the same command again to go on."
        )
    return f"{where} cannot be used: {error.strerror or type(error).__name__}. Check the path and its permissions."


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def fetch_range(text: str) -> tuple[int, int]:
    """Give the first and last frame in ``A-B`` (also with negative numbers) or of the single frame ``A``.

    Raises InputError for anything else.
    """
    place = text.find("-", 1)
    start, end = (text, text) if place < 0 else (text[:place], text[place + 1 :])
    try:
        first, last = int(start), int(end)
    except ValueError:
        raise InputError(f"A frame range looks like 1001-1100; got {text!r}.") from None
    if last < first:
        raise InputError(f"The range {text} ends before it begins. Swap the two numbers.")
    return first, last
