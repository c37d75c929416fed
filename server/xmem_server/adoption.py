"""A client's file on a disk that this process sees too, opened where that is allowed."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from xmem_protocol import InputError


def open_adopted(path: Path, roots: Sequence[Path]) -> BinaryIO:
    """Give an ordinary file below one of the roots, open for reading. Raises InputError for any other.

    It is opened first and judged then: a link swapped in between cannot lead outside the roots.
    """
    if not path.is_absolute() or "\0" in str(path):
        raise InputError(f"{str(path)[:200]!r} is not an absolute path.")
    try:
        # Not blocking: opening a pipe for reading would wait for a writer. getattr: Windows has no such flag.
        file = os.fdopen(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)), "rb")
    except OSError as error:
        raise InputError(f"{path} cannot be read by the server: {error.strerror}.") from error
    try:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise InputError(f"{path} is not an ordinary file.")
        if not any(_opened_path(file, path).is_relative_to(root.resolve()) for root in roots):
            raise InputError(f"{path} is not below a folder this server may read. Upload the file instead.")
    except BaseException:
        file.close()
        raise
    return file


def _opened_path(file: BinaryIO, path: Path) -> Path:
    """Give where the opened file really is, links followed."""
    known = Path(f"/proc/self/fd/{file.fileno()}")
    if known.exists():
        return known.resolve()
    real = path.resolve()
    if not os.path.samestat(real.stat(), os.fstat(file.fileno())):
        raise InputError(f"{path} changed while it was opened. Send it again.")
    return real
