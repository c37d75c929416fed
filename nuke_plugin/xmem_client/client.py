"""The client: one server, one artist. Standard library and pyzmq; no Nuke, no Qt, no numpy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Callable

import zmq

from xmem_client.files import FileTransfer
from xmem_client.following import JobFollower
from xmem_client.lane import ClientLane, Source, Timeouts
from xmem_client.requests import Requests
from xmem_protocol import (
    MAX_FRAME_NUMBER,
    MAX_PLATES_PER_MESSAGE,
    MAX_SESSIONS_PER_MESSAGE,
    WIRE_MAJOR,
    WIRE_MINOR,
    Cancel,
    CancelAccepted,
    DeleteSession,
    Event,
    GetStatus,
    Hello,
    JobAccepted,
    Key,
    ListPlates,
    ListSessions,
    MakeThumbnail,
    Message,
    OpenSession,
    Plate,
    PlateList,
    PropagationSettings,
    PutKey,
    PutPlates,
    RedoKeys,
    RemoveKey,
    SessionDeleted,
    SessionInfo,
    SessionList,
    SessionState,
    Shot,
    StartPropagation,
    StartSuggestion,
    Status,
    SuggestionSettings,
    ThumbnailMade,
    UndoKeys,
    Welcome,
)

CLIENT_VERSION = "0.1.0"


class Client:
    """Talks to one server over two connections. Belongs to one thread; ``cancel`` alone may be called from any.

    ``source`` is a Connection, or a function giving one afresh: then a server that was restarted on other ports is
    found again. ``client_id`` names this client process: a request sent again under it has its effect once.

    Every method raises ServerError for what the server refuses, and ConnectionLostError when the server stays away for
    longer than the timeouts allow.
    """

    def __init__(self, source: Source, client_id: str, timeouts: Timeouts = Timeouts()) -> None:  # noqa: B008 - frozen
        self._source = source
        self._client_id = client_id
        self._timeouts = timeouts
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._control = Requests(self._new_lane("control"), timeouts)
        self._bulk = Requests(self._new_lane("bulk"), timeouts)
        self._files = FileTransfer(self._bulk, self._readable_roots)
        self._welcome: Welcome | None = None
        self._starts: dict[str, Message] = {}

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close both connections. A job that runs goes on; another client may follow it."""
        self._control.lane.close()
        self._bulk.lane.close()
        self._context.term()

    def hello(self) -> Welcome:
        """Give who the server is. Raises ServerError ``unsupported_version`` when it speaks another wire version."""
        self._welcome = self._control.ask(Hello(WIRE_MAJOR, WIRE_MINOR, CLIENT_VERSION), Welcome)
        return self._welcome

    def status(self) -> Status:
        """Give how busy the server is."""
        return self._control.ask(GetStatus(), Status)

    def open_session(self, session: str, shot: Shot) -> SessionState:
        """Open a session, or reopen it as it was stored."""
        return self._control.ask(OpenSession(session, shot), SessionState)

    def fetch_missing(self, sha256s: Iterable[str]) -> frozenset[str]:
        """Give those of these files that the server lacks."""
        wanted = tuple(dict.fromkeys(sha256s))
        missing: frozenset[str] = frozenset()
        for start in range(0, len(wanted), MAX_PLATES_PER_MESSAGE):
            missing |= self._files.fetch_missing(wanted[start : start + MAX_PLATES_PER_MESSAGE])
        return missing

    def store_file(self, path: Path, sha256: str) -> None:
        """Make sure the server has this file, whose SHA-256 is ``sha256``; nothing travels when it has it already."""
        if self._files.fetch_missing((sha256,)):
            self._files.store(Path(path), sha256)

    def put_plates(
        self, session: str, plates: Iterable[tuple[Plate, Path]], on_progress: Callable[[int, int], None]
    ) -> None:
        """Give the session its plate frames; only files that the server lacks travel.

        ``on_progress`` is called with (frames given, frames in all) after each file stored and each batch acknowledged.
        """
        everything = list(plates)
        for start in range(0, len(everything), MAX_PLATES_PER_MESSAGE):
            batch = everything[start : start + MAX_PLATES_PER_MESSAGE]
            missing = set(self._files.fetch_missing(tuple({plate.sha256: None for plate, _ in batch})))
            for number, (plate, path) in enumerate(batch):
                if plate.sha256 in missing:
                    self._files.store(Path(path), plate.sha256)
                    missing.discard(plate.sha256)
                    on_progress(start + number, len(everything))
            self._control.ask(PutPlates(session, tuple(plate for plate, _ in batch)), SessionState)
            on_progress(start + len(batch), len(everything))

    def put_key(self, session: str, key: Key, path: Path | None) -> SessionState:
        """Say what an object is at a frame; ``path`` is the file that holds its alpha, None when it is absent."""
        if path is not None:
            self.store_file(path, key.sha256)
        return self._control.ask(PutKey(session, key), SessionState)

    def remove_key(self, session: str, frame: int, object_id: int) -> SessionState:
        """Forget what was said of an object at a frame (``object_id`` 0: of every object there)."""
        return self._control.ask(RemoveKey(session, frame, object_id), SessionState)

    def undo_keys(self, session: str) -> SessionState:
        """Take back the session's last change of keys."""
        return self._control.ask(UndoKeys(session), SessionState)

    def redo_keys(self, session: str) -> SessionState:
        """Make the change of keys again that was undone last."""
        return self._control.ask(RedoKeys(session), SessionState)

    def fetch_sessions(self) -> tuple[SessionInfo, ...]:
        """Give the sessions that this client can see, oldest first: its own, or everybody's for a supervisor."""
        found: tuple[SessionInfo, ...] = ()
        while True:
            more = self._control.ask(ListSessions(len(found)), SessionList).sessions
            found += more
            if len(more) < MAX_SESSIONS_PER_MESSAGE:
                return found

    def fetch_plates(self, session: str) -> tuple[Plate, ...]:
        """Give which file each frame of a session is, in frame order."""
        found: tuple[Plate, ...] = ()
        while True:
            start = found[-1].frame + 1 if found else -MAX_FRAME_NUMBER
            more = self._control.ask(ListPlates(session, start), PlateList).plates
            found += more
            if len(more) < MAX_PLATES_PER_MESSAGE:
                return found

    def delete_session(self, session: str) -> int:
        """Forget a session and every file that nothing else uses; give the bytes these took on the server."""
        return self._control.ask(DeleteSession(session), SessionDeleted).nbytes

    def start_propagation(
        self, session: str, settings: PropagationSettings, *, batch: bool = False, playhead: int | None = None
    ) -> str:
        """Give the job that propagates the session as it is now; the same question gives the same job.

        ``batch`` work makes way for whoever waits at a screen. ``playhead`` is the frame to show first: the job then also says
        MattesStale and MatteProvisional.
        """
        first = () if playhead is None else (playhead,)
        return self._start(StartPropagation(session, settings, batch, first))

    def start_suggestion(self, session: str, settings: SuggestionSettings) -> str:
        """Give the job that looks for frames to annotate next; needs a finished propagation of the present keys."""
        return self._start(StartSuggestion(session, settings))

    def follow(self, job: str, after_seq: int = 0) -> Iterator[Event]:
        """Give the events of a job after this number, to its final one (JobDone, JobFailed or JobCancelled).

        Each stored event comes once and in order, whatever happens to the connection or the server; progress (seq 0)
        comes as it may. A job that this client started is started again when a server restart interrupted it; raises
        ServerError ``engine_died`` for another's.
        """
        return iter(JobFollower(self._control, job, after_seq, self._restart))

    def cancel(self, job: str) -> None:
        """Ask that a job stops before its next frame. May be called from any thread, while another one follows."""
        lane = self._new_lane("control")
        try:
            Requests(lane, self._timeouts).ask(Cancel(job), CancelAccepted)
        finally:
            lane.close()

    def fetch_size(self, sha256: str) -> int:
        """Give the size in bytes of a file of the server's store."""
        return self._files.fetch_size(sha256)

    def fetch_file(self, sha256: str, nbytes: int, path: Path) -> None:
        """Write a file of the server's store to ``path``, whole and verified or not at all.

        Raises InputError when ``path`` cannot be written.
        """
        self._files.fetch(sha256, nbytes, Path(path))

    def fetch_thumbnail(self, session: str, frame: int, height: int, path: Path) -> None:
        """Write a small PNG of a frame with its keys drawn over it to ``path``, whole or not at all."""
        made = self._control.ask(MakeThumbnail(session, frame, height), ThumbnailMade)
        self._files.fetch(made.sha256, made.nbytes, Path(path))

    def _new_lane(self, name: str) -> ClientLane:
        return ClientLane(self._context, name, self._source, self._client_id, self._timeouts)

    def _readable_roots(self) -> tuple[str, ...]:
        return (self._welcome or self.hello()).readable_roots

    def _start(self, message: StartPropagation | StartSuggestion) -> str:
        job = self._control.ask(message, JobAccepted).job
        self._starts[job] = message
        return job

    def _restart(self, job: str) -> bool:
        """Start an interrupted job again, under a new request id; say whether it is the same job that goes on."""
        message = self._starts.get(job)
        return message is not None and self._control.ask(message, JobAccepted).job == job
