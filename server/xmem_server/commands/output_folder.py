"""The folder a command writes to: whether it can, and that no other command does so at the same time."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from xmem_protocol import InputError

FOLDER = (
    ".xmem"  # below the output folder: the lock, the session's name, the manifest, a private server's state and log
)
_LOCK = "lock"
_SERVER_LOCK = "server.lock"
_HELD = frozenset({errno.EAGAIN, errno.EACCES, errno.EWOULDBLOCK, errno.EDEADLK})


def check_output(out: Path) -> Path:
    """Give the folder for the run's own files below the output folder, made and tried.

    Raises InputError when nothing can be written there.
    """
    folder = out / FOLDER
    _check_writable(folder, out, "--out")
    return folder


def _check_writable(folder: Path, named: Path, option: str) -> None:
    probe = folder / f"writable.{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"x")
        probe.unlink()
    except OSError as error:
        raise InputError(f"{named} cannot be written: {error.strerror}. Choose another folder with {option}.") from None


@contextmanager
def lock_output(out: Path) -> Iterator[Path]:
    """Give ``check_output``'s folder, which no other command gets before the context ends.

    Raises InputError when another command has it.
    """
    folder = check_output(out)
    refusal = f"Another xmem command is writing to {out}. Wait for it, or choose another --out."
    with _lock_file(folder / _LOCK, refusal):
        yield folder


@contextmanager
def lock_state(state: Path) -> Iterator[Path]:
    """Give the folder of a private server's state, made; no other command gets it before the context ends.

    Raises InputError when another command has it, or nothing can be written there.
    """
    _check_writable(state, state, "--state")
    refusal = f"Another xmem command keeps its server's state in {state}. Wait for it, or choose another --state."
    with _lock_file(state / _SERVER_LOCK, refusal):
        yield state


@contextmanager
def _lock_file(path: Path, refusal: str) -> Iterator[None]:
    """Hold a lock that ends with this process, however that one ends. The file stays: removing it would race."""
    with path.open("a+b") as file:
        try:
            _lock(file.fileno())
        except OSError as error:
            if error.errno in _HELD:
                raise InputError(refusal) from None
            # a share that knows no locks: working there is worth more than the guard
        yield


if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> None:
        os.lseek(descriptor, 0, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
