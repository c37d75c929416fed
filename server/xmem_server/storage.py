"""The disk below the store: what is written stays after a power cut, and what it refuses is said to the artist."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from xmem_protocol import INTERNAL, STORAGE_FULL, ServerError

_MIB = 1024 * 1024
_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})  # EFBIG: past a file-size limit set on the process
_PROTECTED = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})


@contextlib.contextmanager
def storage_errors(folder: Path) -> Iterator[None]:
    """Turn a full or a write-protected disk below this folder into a ServerError that names the folder."""
    try:
        yield
    except OSError as error:
        if error.errno in _PROTECTED:
            raise ServerError(
                INTERNAL,
                f"{folder} cannot be written ({error.strerror}); nothing was stored. Make it writable, then send it again.",
            ) from error
        if error.errno not in _NO_SPACE:
            raise
        raise full_storage(folder) from error


def full_storage(folder: Path) -> ServerError:
    """Give the error for a disk without space for this folder."""
    return ServerError(
        STORAGE_FULL, f"The disk of {folder} is full; nothing was stored. Free space there, then send it again."
    )


def low_storage(folder: Path, free: int, reserve: int) -> ServerError:
    """Give the error for a disk that would have less than the reserve left."""
    return ServerError(
        STORAGE_FULL,
        f"Only {free // _MIB} MiB are free on the disk of {folder} and {reserve // _MIB} MiB are kept free; "
        "free some space, then send it again.",
    )


def sync_folder(folder: Path) -> None:
    """Make renames inside this folder survive a power cut."""
    if os.name == "nt":  # folders cannot be opened there; NTFS journals renames
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_file(file: BinaryIO) -> None:
    """Flush a file to disk."""
    file.flush()
    os.fsync(file.fileno())
