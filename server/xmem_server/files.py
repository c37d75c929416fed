"""Files named by the SHA-256 of their bytes, and the uploads that become such files. Whole or absent, never half.

Every method may be called from any thread. A new file is written under a temporary name, flushed to disk, checked and
renamed; a reader sees the whole file or none. Nothing is allocated before the space for it is known to be there.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from xmem_protocol import (
    CHUNK_BYTES,
    MAX_FILE_BYTES,
    MAX_WANTED_CHUNKS,
    NOT_FOUND,
    STORAGE_FULL,
    InputError,
    ServerError,
)
from xmem_server.adoption import open_adopted
from xmem_server.storage import full_storage, low_storage, storage_errors, sync_file, sync_folder

_COPY_BYTES = 4 * 1024 * 1024
_SHA256 = re.compile(r"[0-9a-f]{64}")
_LOCKS = 64
_UPLOAD_KEPT_SECONDS = 7 * 24 * 3600  # of an upload that was begun and left
_ASKED_SECONDS = (
    15 * 60.0
)  # from being told that a file is here to using it: a client may send hundreds of others meanwhile
_RECORD_HEAD = 8  # bytes of the size at the start of a chunk record


@dataclass(frozen=True)
class StorageLimits:
    """How much the store may take: ``quota_bytes`` in all (0: no quota), leaving ``reserve_bytes`` of the disk free."""

    quota_bytes: int = 0
    reserve_bytes: int = 256 * 1024 * 1024  # the journal and other programs still work when uploads are refused


def check_sha256(sha256: str) -> None:
    """Raise InputError when this is not a SHA-256 in lower-case hexadecimal: it becomes part of a path."""
    if not _SHA256.fullmatch(sha256):
        raise InputError(f"A file is named by its SHA-256, 64 lower-case hexadecimal digits; got {sha256[:80]!r}.")


class FileStore:
    """Content-addressed files below ``folder``/objects, uploads in progress below ``folder``/uploads."""

    def __init__(self, folder: Path, limits: StorageLimits) -> None:
        self._folder = folder
        self._limits = limits
        self._objects = folder / "objects"
        self._uploads = folder / "uploads"
        self._upload_locks = tuple(threading.Lock() for _ in range(_LOCKS))
        self._count_lock = threading.Lock()
        self._asked: dict[str, float] = {}  # when a client was told that a file is here
        with storage_errors(folder):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # plates and mattes are the owner's business
            self._objects.mkdir(exist_ok=True)
            self._uploads.mkdir(exist_ok=True)
        self._sweep_broken()
        self.sweep_uploads(_UPLOAD_KEPT_SECONDS)
        self._stored_bytes = sum(file.stat().st_size for file in self._objects.glob("*/*"))

    def has_file(self, sha256: str) -> bool:
        """Say whether the whole file is stored."""
        return self.file_path(sha256).exists()

    def renew_file(self, sha256: str) -> bool:
        """Say whether the whole file is stored, and keep it as if it came now: who asks is about to use it."""
        with self._count_lock:
            try:
                os.utime(self.file_path(sha256))
            except FileNotFoundError:
                return False
            self._asked[sha256] = time.monotonic()
        return True

    def remove_file(self, sha256: str) -> int:
        """Remove a stored file that nothing uses any more; give the bytes it took.

        One that a client asked for minutes ago stays, for a later sweep: that client was told that it need not send it.
        """
        path = self.file_path(sha256)
        with self._count_lock:
            oldest = time.monotonic() - _ASKED_SECONDS
            self._asked = {name: when for name, when in self._asked.items() if when > oldest}
            if sha256 in self._asked:
                return 0
            nbytes = fetch_size(path)
            path.unlink(missing_ok=True)
            self._stored_bytes -= nbytes
        return nbytes

    def find_old(self, kept_seconds: float) -> set[str]:
        """Give the files that nobody has stored or asked for in so long."""
        before = time.time() - kept_seconds
        return {path.name for path in self._objects.glob("*/*") if _is_older(path, before)}

    @property
    def stored_bytes(self) -> int:
        """Give what the stored files take."""
        return self._stored_bytes

    def free_bytes(self) -> int:
        """Give what the disk has left."""
        return shutil.disk_usage(self._folder).free

    def file_path(self, sha256: str) -> Path:
        """Give where the file is, or would be."""
        check_sha256(sha256)
        return self._objects / sha256[:2] / sha256

    def file_size(self, sha256: str) -> int:
        """Give the size in bytes; ServerError NOT_FOUND when it is not stored."""
        try:
            return self.file_path(sha256).stat().st_size
        except FileNotFoundError:
            raise _unknown_file(sha256) from None

    def begin_upload(self, sha256: str, nbytes: int) -> tuple[int, ...]:
        """Give the chunk numbers still wanted, the first MAX_WANTED_CHUNKS; none when the file is stored.

        An upload that was cut, even by a restart of the server, goes on where it was. Raises InputError on a size out of
        range, ServerError STORAGE_FULL before anything is allocated.
        """
        check_sha256(sha256)
        if not 0 < nbytes <= MAX_FILE_BYTES:
            raise InputError(f"A file of {nbytes} bytes cannot be stored; 1 to {MAX_FILE_BYTES} bytes can.")
        with self._upload_lock(sha256):
            if self.renew_file(sha256):
                return ()
            if self._fetch_upload_size(sha256) != nbytes:
                self._drop_upload(sha256)
                self._check_space(nbytes)
                self._make_upload(sha256, nbytes)
            wanted = self._fetch_wanted(sha256)
            if not wanted:  # the server was stopped between the last chunk and the check
                self._finish_upload(sha256)
            return wanted

    def write_chunk(self, sha256: str, chunk: int, payload: bytes) -> tuple[int, ...]:
        """Give the chunk numbers wanted after this one; a chunk that came before is harmless.

        With the last one the file is checked against its name, flushed and stored. Raises InputError when the bytes are
        not that file (the upload is dropped) or the chunk does not fit, ServerError NOT_FOUND when no upload was begun.
        """
        check_sha256(sha256)
        with self._upload_lock(sha256):
            if self.has_file(sha256):
                return ()
            nbytes = self._fetch_upload_size(sha256)
            if not nbytes:
                raise ServerError(
                    NOT_FOUND, f"No upload of {sha256[:12]} was begun here. Begin it, then send its chunks."
                )
            _check_chunk(chunk, len(payload), nbytes)
            with storage_errors(self._folder):
                _write_at(self._part(sha256), chunk * CHUNK_BYTES, payload)
                _write_at(self._record(sha256), _RECORD_HEAD + chunk, b"\1")
            wanted = self._fetch_wanted(sha256)
            if not wanted:
                self._finish_upload(sha256)
            return wanted

    def read_chunk(self, sha256: str, chunk: int) -> tuple[bytes, int]:
        """Give one chunk of a stored file, and the whole file's size in bytes."""
        try:
            with self.file_path(sha256).open("rb") as file:
                nbytes = os.fstat(file.fileno()).st_size
                if not 0 <= chunk < _count_chunks(nbytes):
                    raise InputError(f"Chunk {chunk} is outside the file: it has {_count_chunks(nbytes)} chunks.")
                file.seek(chunk * CHUNK_BYTES)
                return file.read(CHUNK_BYTES), nbytes
        except FileNotFoundError:
            raise _unknown_file(sha256) from None

    def adopt_file(self, path: Path, sha256: str, nbytes: int, roots: Sequence[Path]) -> None:
        """Store a copy of a file this process can read, which must be below one of the roots.

        Raises InputError when it is not below a root, not an ordinary file, or not the file announced.
        """
        check_sha256(sha256)
        with open_adopted(path, roots) as source:
            if self.renew_file(sha256):
                return
            found = os.fstat(source.fileno()).st_size
            if found != nbytes or not 0 < nbytes <= MAX_FILE_BYTES:
                raise InputError(
                    f"{path} has {found} bytes, {nbytes} were announced. Wait until it is written, then send it again."
                )
            self._check_space(nbytes)
            self._copy_in(source, path, sha256)

    def move_file(self, path: Path, sha256: str) -> None:
        """Store a finished, flushed file of this process's own scratch folder by renaming it."""
        target = self.file_path(sha256)
        nbytes = path.stat().st_size
        with self._count_lock, storage_errors(self._folder):
            is_new = not target.exists()
            target.parent.mkdir(exist_ok=True)
            path.replace(target)
            sync_folder(target.parent)
            self._stored_bytes += nbytes if is_new else 0

    def save_bytes(self, content: bytes) -> str:
        """Store a small file that is made of these bytes, unless it is there already; give its SHA-256."""
        sha256 = hashlib.sha256(content).hexdigest()
        if not self.has_file(sha256):
            self._check_space(len(content))
            temporary = self._uploads / f"{sha256}.{threading.get_ident()}.tmp"
            try:
                with storage_errors(self._folder), temporary.open("wb") as target:
                    target.write(content)
                    sync_file(target)
                self.move_file(temporary, sha256)
            finally:
                temporary.unlink(missing_ok=True)
        return sha256

    def _copy_in(self, source: BinaryIO, path: Path, sha256: str) -> None:
        temporary = self._uploads / f"{sha256}.{threading.get_ident()}.tmp"
        digest = hashlib.sha256()
        try:
            with storage_errors(self._folder), temporary.open("wb") as target:
                while piece := source.read(_COPY_BYTES):
                    digest.update(piece)
                    target.write(piece)
                sync_file(target)
            if digest.hexdigest() != sha256:
                raise InputError(f"{path} is not the file that was announced: it changed meanwhile. Send it again.")
            self.move_file(temporary, sha256)
        finally:
            temporary.unlink(missing_ok=True)

    def _finish_upload(self, sha256: str) -> None:
        part = self._part(sha256)
        digest = hashlib.sha256()
        with part.open("rb+") as file:
            while piece := file.read(_COPY_BYTES):
                digest.update(piece)
            sync_file(file)
        if digest.hexdigest() != sha256:
            self._drop_upload(sha256)
            raise InputError(f"The bytes that came for {sha256[:12]} are another file. Send it again from the start.")
        self.move_file(part, sha256)
        self._drop_upload(sha256)

    def _make_upload(self, sha256: str, nbytes: int) -> None:
        """Allocate the upload; the record comes last, so a part without one is no upload."""
        try:
            with storage_errors(self._folder):
                with self._part(sha256).open("wb") as part:
                    _allocate(part, nbytes)
                with self._record(sha256).open("wb") as record:
                    record.write(nbytes.to_bytes(_RECORD_HEAD, "big") + bytes(_count_chunks(nbytes)))
        except (OSError, ServerError):
            self._drop_upload(sha256)
            raise

    def _fetch_upload_size(self, sha256: str) -> int:
        """Give the size announced when the upload was begun; 0 when there is none, or what is left of it is no use."""
        try:
            record = self._record(sha256).read_bytes()
            found = self._part(sha256).stat().st_size
        except FileNotFoundError:
            return 0
        nbytes = int.from_bytes(record[:_RECORD_HEAD], "big")
        is_whole = found == nbytes and len(record) == _RECORD_HEAD + _count_chunks(nbytes)
        return nbytes if is_whole else 0

    def _fetch_wanted(self, sha256: str) -> tuple[int, ...]:
        marks = self._record(sha256).read_bytes()[_RECORD_HEAD:]
        return tuple(chunk for chunk, mark in enumerate(marks) if not mark)[:MAX_WANTED_CHUNKS]

    def _drop_upload(self, sha256: str) -> None:
        self._record(sha256).unlink(missing_ok=True)
        self._part(sha256).unlink(missing_ok=True)

    def _upload_lock(self, sha256: str) -> threading.Lock:
        """Give the lock of one upload, so that checking a long file does not hold up the chunks of others."""
        return self._upload_locks[int(sha256[:8], 16) % _LOCKS]

    def _part(self, sha256: str) -> Path:
        return self._uploads / f"{sha256}.part"

    def _record(self, sha256: str) -> Path:
        return self._uploads / f"{sha256}.chunks"

    def _check_space(self, nbytes: int) -> None:
        free, reserve = shutil.disk_usage(self._folder).free, self._limits.reserve_bytes
        if nbytes > free - reserve:
            raise low_storage(self._folder, free, reserve) if reserve else full_storage(self._folder)
        quota = self._limits.quota_bytes
        taken = self._stored_bytes + sum(fetch_size(part) for part in self._uploads.glob("*.part"))
        if quota and taken + nbytes > quota:
            raise ServerError(
                STORAGE_FULL,
                f"{self._folder} may hold {quota} bytes and holds {taken}; a file of {nbytes} does not fit. "
                "Remove old sessions or start the server with a larger quota.",
            )

    def sweep_uploads(self, kept_seconds: float) -> None:
        """Remove uploads nobody has gone on with for so long, and what a killed server left half-copied so long ago."""
        for leftover in self._uploads.iterdir():
            sha256 = leftover.name.partition(".")[0]
            with self._upload_lock(sha256 if _SHA256.fullmatch(sha256) else "0" * 8):
                if time.time() - _fetch_time(self._record(sha256), leftover) > kept_seconds:
                    leftover.unlink(missing_ok=True)

    def _sweep_broken(self) -> None:
        """Remove what a killed server left half-copied."""
        for leftover in self._uploads.iterdir():
            record, part = leftover.with_suffix(".chunks"), leftover.with_suffix(".part")
            if not (record.exists() and part.exists()):
                leftover.unlink(missing_ok=True)


def fetch_size(path: Path) -> int:
    """Give the size in bytes; 0 when another thread has just stored or dropped it."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _is_older(path: Path, moment: float) -> bool:
    try:
        return path.stat().st_mtime < moment
    except FileNotFoundError:
        return False


def _fetch_time(*paths: Path) -> float:
    """Give when the first of these files that is there was written last; now when none is."""
    for path in paths:
        try:
            return path.stat().st_mtime
        except FileNotFoundError:
            continue
    return time.time()


def _count_chunks(nbytes: int) -> int:
    return -(-nbytes // CHUNK_BYTES)


def _check_chunk(chunk: int, nbytes: int, whole: int) -> None:
    if not 0 <= chunk < _count_chunks(whole):
        raise InputError(f"Chunk {chunk} is outside the file: it has {_count_chunks(whole)} chunks.")
    wanted = min(CHUNK_BYTES, whole - chunk * CHUNK_BYTES)
    if nbytes != wanted:
        raise InputError(f"Chunk {chunk} must have {wanted} bytes; {nbytes} came. Send it again.")


def _write_at(path: Path, offset: int, payload: bytes) -> None:
    with path.open("rb+", buffering=0) as file:
        file.seek(offset)
        rest = memoryview(payload)
        while rest:
            rest = rest[file.write(rest) :]


def _allocate(file: BinaryIO, nbytes: int) -> None:
    """Take the space now, so that a full disk is known before the bytes travel."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, nbytes)
    else:
        file.truncate(nbytes)


def _unknown_file(sha256: str) -> ServerError:
    return ServerError(NOT_FOUND, f"The server has no file {sha256[:12]}. Upload it first.")
