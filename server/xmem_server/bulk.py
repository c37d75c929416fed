"""The bulk lane: files in and out of the store, in chunks. File work runs on its own threads, beside the lane's."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from xmem_protocol import (
    MAX_FILE_BYTES,
    AdoptFile,
    BeginUpload,
    Envelope,
    FetchChunk,
    FileChunk,
    FileStored,
    FindMissing,
    InputError,
    Message,
    Missing,
    Ping,
    Pong,
    ServerError,
    UploadChunk,
    UploadState,
)
from xmem_server.clients import ClientKey
from xmem_server.files import FileStore
from xmem_server.lanes import Route, refuse_lane
from xmem_server.limits import ClientLimits, UploadQuota
from xmem_server.refusals import refusal_of
from xmem_server.waiting import WaitingRequests

_THREADS = 2  # one may hash a long file while the other serves chunks
_MOST_WAITING = 64  # chunks: 256 MiB of memory, 16 clients at full credit
MAX_UPLOAD_BYTES = MAX_FILE_BYTES

Send = Callable[[Route, Envelope], None]


class BulkDesk:
    """Serves uploads, fetches and adoptions. Every request here has its effect once by its nature."""

    def __init__(self, store: FileStore, readable_roots: tuple[Path, ...], limits: ClientLimits) -> None:
        self._store = store
        self._roots = readable_roots
        self._quota = UploadQuota(limits)
        self._waiting = WaitingRequests(_MOST_WAITING)
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="bulk")
        self._send: Send = _drop

    def start(self, send: Send) -> None:
        """Answer by ``send`` from now on."""
        self._send = send

    def receive(self, route: Route, client: ClientKey, envelope: Envelope) -> Message | None:
        """Take one request, on the lane's thread."""
        if isinstance(envelope.message, Ping):
            return Pong()
        if self._waiting.admit(route, envelope):
            self._pool.submit(self._serve, client.name, envelope)
        return None

    def lost(self, route: Route) -> None:
        """Nothing is kept per connection: an upload goes on when its client comes back."""

    def stop(self) -> None:
        """Finish what is being done, drop what waits."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _serve(self, client: str, envelope: Envelope) -> None:
        payload = b""
        try:
            message, payload = self._answer(client, envelope.message, envelope.payload)
        except Exception as error:  # noqa: BLE001 - whatever a request raises is told to its client
            message = refusal_of(error, envelope.message.TYPE)
        self._send(self._waiting.finish(envelope), Envelope(message, envelope.id, payload=payload))

    def _answer(self, client: str, message: Message, payload: bytes) -> tuple[Message, bytes]:
        """Give the answer and its payload."""
        match message:
            case FindMissing(sha256s):
                return Missing(tuple(sha256 for sha256 in sha256s if not self._store.renew_file(sha256))), b""
            case AdoptFile(path, sha256, nbytes):
                self._store.adopt_file(Path(path), sha256, nbytes, self._roots)
                return FileStored(sha256), b""
            case BeginUpload(sha256, nbytes):
                if not self._store.has_file(sha256):
                    self._quota.begin(client, sha256, nbytes)
                wanted = self._begin(client, sha256, nbytes)
                return UploadState(sha256, wanted, not wanted), b""
            case UploadChunk(sha256, chunk):
                wanted = self._store.write_chunk(sha256, chunk, payload)
                self._quota.touch(client, sha256, is_over=not wanted)
                return UploadState(sha256, wanted, not wanted), b""
            case FetchChunk(sha256, chunk):
                found, nbytes = self._store.read_chunk(sha256, chunk)
                return FileChunk(sha256, chunk, nbytes), found
            case _:
                return refuse_lane(message, "bulk"), b""

    def _begin(self, client: str, sha256: str, nbytes: int) -> tuple[int, ...]:
        """Begin or go on with an upload that was counted; one that cannot begin is not counted."""
        try:
            wanted = self._store.begin_upload(sha256, nbytes)
        except (InputError, ServerError, OSError):
            self._quota.touch(client, sha256, is_over=True)
            raise
        self._quota.touch(client, sha256, is_over=not wanted)
        return wanted


def _drop(route: Route, envelope: Envelope) -> None:
    """Nobody listens yet."""
