"""One job of one node: a thread that owns the connection to the server. It moves files and messages, and never touches Nuke.

Imports no socket library: that happens in the thread, when there is something to do, never while Nuke starts.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import queue
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

from xmem_nuke.orders import (
    CANCELLED,
    DONE,
    FAILED,
    Content,
    Ended,
    FrameRefused,
    Happening,
    KeysAccepted,
    MatteArrived,
    MattesOutdated,
    Order,
    Rendered,
    RenderWanted,
    RunOrder,
    ServerSeen,
    StageMade,
    SuggestionsArrived,
    SuggestOrder,
    ThumbnailArrived,
)
from xmem_nuke.remembered import Remembered, prepare_folder
from xmem_nuke.thumbnails import fetch_thumbnails
from xmem_protocol import (
    Event,
    FrameFailed,
    InputError,
    JobCancelled,
    JobDone,
    JobFailed,
    MatteProvisional,
    MatteReady,
    MattesStale,
    Progress,
    SuggestionsReady,
    XMemError,
)

if TYPE_CHECKING:
    from xmem_client import Client, Source, Timeouts
    from xmem_nuke.sending import Sending

_Note = Union[tuple[Content, ...], Rendered]
_CLIENT_ID = os.urandom(8).hex()  # of this Nuke: a request sent again under it has its effect once


class StoppedError(XMemError):
    """The artist pressed Cancel."""


class Job:
    """Does one order. Made, fed and cancelled on the main thread; ``fetch_happenings`` gives what it said since.

    ``connect`` gives a client; it is called in the job's own thread.
    """

    def __init__(self, order: Order, connect: Callable[[], Client]) -> None:
        self._order = order
        self._connect = connect
        self._inbox: queue.Queue[_Note | None] = queue.Queue()
        self._said: queue.Queue[Happening] = queue.Queue()
        self._is_cancelled = threading.Event()
        self._lock = threading.Lock()
        self._server_job = ""
        self._client: Client | None = None
        self._thread = threading.Thread(target=self._run, name="xmem-job", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def give_contents(self, contents: tuple[Content, ...]) -> None:
        """Say what every frame is known by; the job answers with RenderWanted."""
        self._inbox.put(contents)

    def give_rendered(self, rendered: Rendered) -> None:
        """Give a frame that RenderWanted asked for."""
        self._inbox.put(rendered)

    def fetch_backlog(self) -> int:
        """Give how many rendered frames wait to be sent."""
        return self._inbox.qsize()

    def fetch_happenings(self) -> Iterator[Happening]:
        """Give what the job said since this was last asked; Ended comes last."""
        while True:
            try:
                yield self._said.get_nowait()
            except queue.Empty:
                return

    def cancel(self) -> None:
        """Stop before the next frame; returns at once. Ended says when it has stopped."""
        self._is_cancelled.set()
        self._inbox.put(None)
        self._cancel_on_server()

    def join(self, seconds: float) -> bool:
        """Wait for the thread; say whether it has ended."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    # --------------------------------------------------------------------------------------------- in the job's thread

    def _run(self) -> None:
        ended = self._try()
        if self._is_cancelled.is_set() and ended.how == FAILED:
            ended = Ended(CANCELLED, "Cancelled. What was finished is kept; Run goes on from there.", ended.detail)
        self._said.put(ended)

    def _try(self) -> Ended:
        try:
            with self._connect() as client:
                with self._lock:
                    self._client = client
                try:
                    return self._work(client)
                finally:
                    with self._lock:
                        self._client = None
        except XMemError as error:
            return Ended(FAILED, str(error))
        except ImportError as error:
            return Ended(FAILED, explain_import(error), traceback.format_exc())
        except Exception as error:  # noqa: BLE001 - the last stop of a thread: whatever it is, the artist must hear of it
            words = f"XMem failed by a fault of its own ({type(error).__name__}). Press Copy diagnostics and report it."
            return Ended(FAILED, words, traceback.format_exc())

    def _work(self, client: Client) -> Ended:
        self._said.put(fetch_server(client))
        if isinstance(self._order, SuggestOrder):
            job = client.start_suggestion(self._order.session, self._order.settings)
            self._note_job(job)
            return self._follow(client, job, None, iter(()))
        return self._propagate(client, self._order)

    def _propagate(self, client: Client, order: RunOrder) -> Ended:
        from xmem_nuke.sending import Sending  # noqa: PLC0415 - it imports the client, and with it the socket library

        prepare_folder(order.cache)
        remembered = Remembered(order.cache)
        try:
            sending = Sending(client, order, remembered, self._said.put)
            sending.open()
            self._send(sending)
            self._said.put(KeysAccepted(sending.keys))
            sending.send_plates()
            self._check()
            job = client.start_propagation(order.session, order.settings, playhead=order.playhead)
            self._note_job(job)
            plates = remembered.fetch_plates(order.session)
            pictures = fetch_thumbnails(client, order.session, sending.keys, plates, order.cache)
            return self._follow(client, job, remembered, pictures)
        finally:
            remembered.save()

    def _send(self, sending: Sending) -> None:
        contents = self._next_note()
        if not isinstance(contents, tuple):
            raise TypeError("the contents of the frames come before any rendered frame")
        wanted = sending.fetch_wanted(contents)
        self._said.put(RenderWanted(wanted))
        for _ in wanted:
            rendered = self._next_note()
            if isinstance(rendered, Rendered):
                sending.send_rendered(rendered)

    def _next_note(self) -> _Note:
        note = self._inbox.get()
        self._check()
        if note is None:
            raise StoppedError("Cancelled.")
        return note

    def _check(self) -> None:
        if self._is_cancelled.is_set():
            raise StoppedError("Cancelled.")

    # ------------------------------------------------------------------------------------------------ the server's job

    def _note_job(self, job: str) -> None:
        with self._lock:
            self._server_job = job
        if self._is_cancelled.is_set():
            self._cancel_on_server()

    def _follow(
        self, client: Client, job: str, remembered: Remembered | None, pictures: Iterator[tuple[int, Path]]
    ) -> Ended:
        """Bring what the job makes, with a thumbnail after each matte, for none of them is worth a wait."""
        for event in client.follow(job):
            ended = _end_of(event)
            if ended is not None:
                self._say_thumbnails(pictures)
                return ended
            if isinstance(event, MattesStale) and remembered is not None:
                remembered.note_stale(event.first, event.last)
            if isinstance(event, MatteReady) and remembered is not None:
                self._fetch_mattes(client, event, remembered)
                remembered.note_arrived(event.frame, is_provisional=isinstance(event, MatteProvisional))
            happening = _happening_of(event)
            if happening is not None:
                self._said.put(happening)
            if isinstance(event, MatteReady):
                self._say_thumbnails(itertools.islice(pictures, 1))
        raise InputError("The server stopped to speak of the job. Press Run again.")

    def _say_thumbnails(self, pictures: Iterator[tuple[int, Path]]) -> None:
        while not self._is_cancelled.is_set():
            picture = next(pictures, None)
            if picture is None:
                return
            self._said.put(ThumbnailArrived(*picture))

    def _fetch_mattes(self, client: Client, event: MatteReady, remembered: Remembered) -> None:
        """Bring the mattes of a frame into the cache folder, those that are not there already."""
        for file in event.files:
            path = matte_path(self._order.cache, file.object_id, event.frame)  # type: ignore[union-attr]
            name = f"{file.object_id}/{event.frame}"
            if remembered.mattes.get(name) == file.sha256 and _size_of(path) == file.nbytes:
                continue
            prepare_folder(path.parent)
            client.fetch_file(file.sha256, file.nbytes, path)
            remembered.mattes[name] = file.sha256

    def _cancel_on_server(self) -> None:
        """Tell the server, from a thread of its own: it may not answer, and our caller must not wait."""
        with self._lock:
            client, job = self._client, self._server_job
        if client is not None and job:
            threading.Thread(target=_cancel_quietly, args=(client, job), name="xmem-cancel", daemon=True).start()


def matte_path(cache: Path, object_id: int, frame: int) -> Path:
    """Give where a matte is kept: in its object's folder, the frame as Nuke writes ``%05d``."""
    return matte_folder(cache, object_id) / f"{frame:05d}.exr"


def matte_folder(cache: Path, object_id: int) -> Path:
    """Give the folder of an object's mattes; object 0 is the one file of all objects, as layers."""
    return cache / (str(object_id) if object_id else "layers")


def fetch_server(client: Client) -> ServerSeen:
    """Give who answers and how busy it is. Raises what the client raises."""
    welcome = client.hello()
    status = client.status()
    engine = status.engines[0] if status.engines else None
    return ServerSeen(
        version=welcome.server_version,
        device=engine.device if engine else "",
        model=engine.model if engine else "",
        state=engine.state if engine else "",
        queued=status.queued,
    )


def make_connector(connection_file: Path, timeouts: Timeouts | None = None) -> Callable[[], Client]:
    """Give what makes a client of the server that wrote this file; the file is read again after every break."""

    def connect() -> Client:
        from xmem_client import Client, fetch_connection  # noqa: PLC0415 - the socket library loads here, on first use

        source: Source = lambda: fetch_connection(connection_file)  # noqa: E731 - one line, passed on at once
        name = f"nuke-{_CLIENT_ID}-{os.urandom(4).hex()}"
        return Client(source, name) if timeouts is None else Client(source, name, timeouts)

    return connect


def explain_import(error: ImportError) -> str:
    """Give one line for a vendor folder that is missing or made for another Python."""
    return f"XMem cannot load {error.name or 'a library'} in this Nuke ({error}). Run 'xmem install-nuke' again."


def _end_of(event: Event) -> Ended | None:
    if isinstance(event, JobDone):
        return Ended(DONE, event.summary)
    if isinstance(event, JobFailed):
        return Ended(FAILED, event.message, event.code)
    if isinstance(event, JobCancelled):
        return Ended(CANCELLED, "Cancelled. What was finished is kept; Run goes on from there.")
    return None


def _happening_of(event: Event) -> Happening | None:
    if isinstance(event, Progress):
        return StageMade(
            event.stage,
            event.done,
            event.total,
            event.frame,
            event.frames_per_second,
            event.eta_seconds,
            event.note,
        )
    if isinstance(event, MatteReady):
        return MatteArrived(event.frame, event.is_key, isinstance(event, MatteProvisional))
    if isinstance(event, MattesStale):
        return MattesOutdated(event.first, event.last)
    if isinstance(event, FrameFailed):
        return FrameRefused(event.frame, event.message)
    if isinstance(event, SuggestionsReady):
        return SuggestionsArrived(event.suggestions, event.note)
    return None


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _cancel_quietly(client: Any, job: str) -> None:
    """Ask the server to stop; the job's own thread says what became of it, and the client may be closed meanwhile."""
    with contextlib.suppress(Exception):
        client.cancel(job)
