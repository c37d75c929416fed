"""Files to and from the server's store, over the bulk lane: chunks with credit, resumed after a break, verified."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from pathlib import Path
from typing import BinaryIO, Callable

from xmem_client.lane import new_id
from xmem_client.requests import Requests, is_busy
from xmem_protocol import (
    BAD_INPUT,
    CHUNK_BYTES,
    FORBIDDEN,
    NOT_FOUND,
    UPLOAD_CREDIT,
    AdoptFile,
    BeginUpload,
    Envelope,
    ErrorReply,
    FetchChunk,
    FileChunk,
    FileStored,
    FindMissing,
    InputError,
    LocalProtocolError,
    Missing,
    RemoteProtocolError,
    ServerError,
    UploadChunk,
    UploadState,
)

_READ_BYTES = 1024 * 1024
_BUSY_PAUSE = 0.1  # seconds before a chunk that the server had no room for is sent again


def hash_file(path: Path) -> str:
    """Give the SHA-256 of a file's bytes, in lower-case hexadecimal. Raises InputError when it cannot be read."""
    digest = hashlib.sha256()
    with _open_input(path) as file:
        try:
            for piece in iter(lambda: file.read(_READ_BYTES), b""):
                digest.update(piece)
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror}.") from None
    return digest.hexdigest()


class FileTransfer:
    """Stores and fetches files by their SHA-256. Belongs to one thread."""

    def __init__(self, requests: Requests, readable_roots: Callable[[], tuple[str, ...]]) -> None:
        self._requests = requests
        self._lane = requests.lane
        self._readable_roots = readable_roots

    def fetch_missing(self, sha256s: tuple[str, ...]) -> frozenset[str]:
        """Give those of these files that the server lacks."""
        return frozenset(self._requests.ask(FindMissing(sha256s), Missing).sha256s)

    def fetch_size(self, sha256: str) -> int:
        """Give the size in bytes of a stored file."""
        return self._requests.ask(FetchChunk(sha256, 0), FileChunk).nbytes

    def store(self, path: Path, sha256: str) -> None:
        """Have the server keep this file, known to be missing there: by path when it may read it, else by its bytes."""
        with _open_input(path) as file:
            nbytes = os.fstat(file.fileno()).st_size
            if not self._adopted(path, sha256, nbytes):
                self._upload(file, sha256, nbytes, path)

    def fetch(self, sha256: str, nbytes: int, path: Path) -> None:
        """Write a stored file to ``path``: to a temporary name beside it, verified, flushed, then renamed."""
        path = Path(path)
        temporary = path.with_name(f".{path.name}.{new_id()[:8]}.part")
        try:
            with temporary.open("xb") as file:
                digest = self._fetch_chunks(sha256, nbytes, file)
                file.flush()
                os.fsync(file.fileno())
            if digest != sha256:
                raise RemoteProtocolError(
                    f"A file from the server is damaged: wanted {sha256}, got {digest}. Try again."
                )
            temporary.replace(path)
        except OSError as error:
            raise InputError(
                f"{path} cannot be written: {error.strerror}. Choose another folder or make room."
            ) from None
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink()

    def _adopted(self, path: Path, sha256: str, nbytes: int) -> bool:
        real = os.path.realpath(path)
        if not any(_is_below(real, root) for root in self._readable_roots()):
            return False
        try:
            self._requests.ask(AdoptFile(real, sha256, nbytes), FileStored)
        except ServerError as error:
            if error.code not in {FORBIDDEN, NOT_FOUND, BAD_INPUT}:  # a folder of that name may be another machine's
                raise
            return False
        except LocalProtocolError:  # a file name that is not text cannot be named on the wire
            return False
        return True

    def _upload(self, file: BinaryIO, sha256: str, nbytes: int, path: Path) -> None:
        state = self._begin_upload(sha256, nbytes)
        while not state.stored:
            state = self._send_chunks(file, state, nbytes, path)

    def _begin_upload(self, sha256: str, nbytes: int) -> UploadState:
        return self._requests.ask(BeginUpload(sha256, nbytes), UploadState)

    def _send_chunks(self, file: BinaryIO, state: UploadState, nbytes: int, path: Path) -> UploadState:
        """Send the chunks a state wants, UPLOAD_CREDIT unanswered at a time; give the state after them."""
        waiting = list(reversed(state.wanted))
        in_flight: dict[str, int] = {}
        self._lane.begin()
        generation = self._lane.generation
        asked = time.monotonic()
        while waiting or in_flight:
            while waiting and len(in_flight) < UPLOAD_CREDIT:
                chunk = waiting.pop()
                request_id = new_id()
                in_flight[request_id] = chunk
                self._lane.send(UploadChunk(state.sha256, chunk), request_id, _read_chunk(file, chunk, path))
            envelope = self._lane.receive()
            overdue = time.monotonic() - asked > self._requests.timeouts.resend
            if self._lane.generation != generation or (envelope is None and overdue):
                return self._begin_upload(state.sha256, nbytes)
            if envelope is not None and envelope.id in in_flight:
                chunk = in_flight.pop(envelope.id)
                asked = time.monotonic()
                if is_busy(envelope.message):
                    time.sleep(_BUSY_PAUSE)
                    waiting.append(chunk)
                else:
                    state = self._requests.answer_of(envelope.message, UploadState)
        return state if state.stored else self._begin_upload(state.sha256, nbytes)

    def _fetch_chunks(self, sha256: str, nbytes: int, file: BinaryIO) -> str:
        """Write all chunks in order, UPLOAD_CREDIT asked for at a time; give the SHA-256 of what was written."""
        digest = hashlib.sha256()
        count = -(-nbytes // CHUNK_BYTES)
        arrived: dict[int, bytes] = {}
        asked: dict[int, float] = {}
        written = 0
        self._lane.begin()
        generation = self._lane.generation
        while written < count:
            for chunk in range(written, min(written + UPLOAD_CREDIT, count)):
                if chunk not in arrived and chunk not in asked:
                    asked[chunk] = time.monotonic()
                    self._lane.send(FetchChunk(sha256, chunk), new_id())
            envelope = self._lane.receive()
            if self._lane.generation != generation:
                generation = self._lane.generation
                asked.clear()
            if envelope is None:
                late = time.monotonic() - self._requests.timeouts.resend
                asked = {chunk: since for chunk, since in asked.items() if since > late}
                continue
            self._take_chunk(envelope, (sha256, nbytes), asked, arrived)
            while written in arrived:
                payload = arrived.pop(written)
                digest.update(payload)
                file.write(payload)
                written += 1
        return digest.hexdigest()

    def _take_chunk(
        self, envelope: Envelope, wanted: tuple[str, int], asked: dict[int, float], arrived: dict[int, bytes]
    ) -> None:
        message = envelope.message
        if isinstance(message, ErrorReply):
            if not is_busy(message):
                raise ServerError(message.code, message.message)
            time.sleep(_BUSY_PAUSE)
            asked.clear()
        if isinstance(message, FileChunk) and message.sha256 == wanted[0] and message.chunk in asked:
            expected = min(CHUNK_BYTES, wanted[1] - message.chunk * CHUNK_BYTES)
            if message.nbytes != wanted[1] or len(envelope.payload) != expected:
                raise RemoteProtocolError(
                    f"A file on the server is {message.nbytes} bytes; {wanted[1]} were announced. Ask for it again."
                )
            del asked[message.chunk]
            arrived[message.chunk] = envelope.payload


def _open_input(path: Path) -> BinaryIO:
    try:
        return Path(path).open("rb")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from None


def _read_chunk(file: BinaryIO, chunk: int, path: Path) -> bytes:
    try:
        file.seek(chunk * CHUNK_BYTES)
        return file.read(CHUNK_BYTES)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from None


def _is_below(real: str, root: str) -> bool:
    real_root = os.path.realpath(root)
    try:
        return os.path.commonpath([real, real_root]) == real_root
    except ValueError:  # different drives
        return False
