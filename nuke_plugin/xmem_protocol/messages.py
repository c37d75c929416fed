"""Every message that travels, by lane: requests and replies, job events, chunks of files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from xmem_protocol.values import (
    EngineInfo,
    JobInfo,
    JobStatus,
    Key,
    Plate,
    PropagationSettings,
    SessionInfo,
    Shot,
    SuggestionSettings,
)


@dataclass(frozen=True)
class Message:
    """Base of everything that travels; ``TYPE`` is its name on the wire."""

    TYPE: ClassVar[str] = ""


@dataclass(frozen=True)
class Hello(Message):
    """The first request of a client; answered by Welcome or by an error of code ``unsupported_version``."""

    TYPE: ClassVar[str] = "hello"
    wire_major: int
    wire_minor: int
    client_version: str


@dataclass(frozen=True)
class Welcome(Message):
    """Who answers: its versions, what it may read, its engines. ``server_epoch`` is another one after every restart."""

    TYPE: ClassVar[str] = "welcome"
    wire_major: int
    wire_minor: int
    server_version: str
    server_epoch: str
    max_upload_bytes: int
    readable_roots: tuple[str, ...]
    engines: tuple[EngineInfo, ...]


@dataclass(frozen=True)
class Ping(Message):
    """Are you there? Answered by Pong, on either lane."""

    TYPE: ClassVar[str] = "ping"


@dataclass(frozen=True)
class Pong(Message):
    """The answer to Ping."""

    TYPE: ClassVar[str] = "pong"


@dataclass(frozen=True)
class ErrorReply(Message):
    """A request was refused or failed: ``code`` is one of this package's error codes, ``message`` is for the artist."""

    TYPE: ClassVar[str] = "error"
    code: str
    message: str


@dataclass(frozen=True)
class OpenSession(Message):
    """Open or reopen; reopening with another shot than the session was made with is an error."""

    TYPE: ClassVar[str] = "open_session"
    session: str
    shot: Shot


@dataclass(frozen=True)
class SessionState(Message):
    """A session as it is stored now; the answer to whatever opens or changes one."""

    TYPE: ClassVar[str] = "session_state"
    session: str
    shot: Shot
    revision: int  # grows by one with every change of keys
    plate_count: int
    keys: tuple[Key, ...]
    jobs: tuple[JobInfo, ...]


@dataclass(frozen=True)
class PutPlates(Message):
    """Say which file each frame is; at most MAX_PLATES_PER_MESSAGE at a time."""

    TYPE: ClassVar[str] = "put_plates"
    session: str
    plates: tuple[Plate, ...]


@dataclass(frozen=True)
class FindMissing(Message):
    """Ask which of these files the server lacks."""

    TYPE: ClassVar[str] = "find_missing"
    sha256s: tuple[str, ...]


@dataclass(frozen=True)
class Missing(Message):
    """The answer to FindMissing: those that must still be sent."""

    TYPE: ClassVar[str] = "missing"
    sha256s: tuple[str, ...]


@dataclass(frozen=True)
class AdoptFile(Message):
    """Have the server copy a file it can read itself; the path must be below one of Welcome.readable_roots."""

    TYPE: ClassVar[str] = "adopt_file"
    path: str
    sha256: str
    nbytes: int


@dataclass(frozen=True)
class FileStored(Message):
    """The answer to AdoptFile: the file is whole, verified and on disk."""

    TYPE: ClassVar[str] = "file_stored"
    sha256: str


@dataclass(frozen=True)
class PutKey(Message):
    """Say what an object is at a frame; replaces what was said of it there before."""

    TYPE: ClassVar[str] = "put_key"
    session: str
    key: Key


@dataclass(frozen=True)
class RemoveKey(Message):
    """Forget what was said of an object at a frame (object_id 0: of every object there)."""

    TYPE: ClassVar[str] = "remove_key"
    session: str
    frame: int
    object_id: int


@dataclass(frozen=True)
class UndoKeys(Message):
    """Take back the session's last change of keys that is not undone yet."""

    TYPE: ClassVar[str] = "undo_keys"
    session: str


@dataclass(frozen=True)
class RedoKeys(Message):
    """Make the change of keys again that was undone last."""

    TYPE: ClassVar[str] = "redo_keys"
    session: str


@dataclass(frozen=True)
class ListPlates(Message):
    """Ask which file each frame is, from this frame on."""

    TYPE: ClassVar[str] = "list_plates"
    session: str
    from_frame: int


@dataclass(frozen=True)
class PlateList(Message):
    """The answer to ListPlates: at most MAX_PLATES_PER_MESSAGE plates, in frame order; fewer are the last ones."""

    TYPE: ClassVar[str] = "plate_list"
    plates: tuple[Plate, ...]


@dataclass(frozen=True)
class ListSessions(Message):
    """Ask for the sessions that this client can see, after this number of them, oldest first."""

    TYPE: ClassVar[str] = "list_sessions"
    after: int = 0


@dataclass(frozen=True)
class SessionList(Message):
    """The answer to ListSessions: at most MAX_SESSIONS_PER_MESSAGE sessions; fewer are the last ones."""

    TYPE: ClassVar[str] = "session_list"
    sessions: tuple[SessionInfo, ...]


@dataclass(frozen=True)
class DeleteSession(Message):
    """Forget a session: its keys, jobs and mattes, and every file that nothing else uses."""

    TYPE: ClassVar[str] = "delete_session"
    session: str


@dataclass(frozen=True)
class SessionDeleted(Message):
    """The answer to DeleteSession: what its files took on disk."""

    TYPE: ClassVar[str] = "session_deleted"
    session: str
    nbytes: int


@dataclass(frozen=True)
class StartPropagation(Message):
    """Run XMem++ over the session as it is now; the same question again gives the same job.

    ``batch`` work makes way for whoever waits at a screen. ``playhead`` is the frame that the artist looks at, if there is one: a new job
    says first which mattes are stale, and shows that frame's neighbourhood provisionally. What it gives in the end is the same.
    """

    TYPE: ClassVar[str] = "start_propagation"
    session: str
    settings: PropagationSettings
    batch: bool = False
    playhead: tuple[int, ...] = ()  # one frame, or none


@dataclass(frozen=True)
class StartSuggestion(Message):
    """Needs a finished propagation of the session's present keys: its mattes are what the rule looks at."""

    TYPE: ClassVar[str] = "start_suggestion"
    session: str
    settings: SuggestionSettings


@dataclass(frozen=True)
class JobAccepted(Message):
    """The answer to what starts a job: its name."""

    TYPE: ClassVar[str] = "job_accepted"
    job: str


@dataclass(frozen=True)
class Follow(Message):
    """Send me the events of this job after this number, EVENT_WINDOW ahead at most. Sent again, it grants more."""

    TYPE: ClassVar[str] = "follow"
    job: str
    after_seq: int


@dataclass(frozen=True)
class Following(Message):
    """The answer to Follow: the job's state as in JobInfo."""

    TYPE: ClassVar[str] = "following"
    job: str
    state: str


@dataclass(frozen=True)
class Cancel(Message):
    """Stop a job before its next frame."""

    TYPE: ClassVar[str] = "cancel"
    job: str


@dataclass(frozen=True)
class CancelAccepted(Message):
    """The answer to Cancel: it was passed on. JobCancelled says when the job has stopped."""

    TYPE: ClassVar[str] = "cancel_accepted"
    job: str


@dataclass(frozen=True)
class MakeThumbnail(Message):
    """Ask for a small picture of a frame, its keys drawn over it; ``height`` in pixels, the width follows."""

    TYPE: ClassVar[str] = "make_thumbnail"
    session: str
    frame: int
    height: int


@dataclass(frozen=True)
class ThumbnailMade(Message):
    """The answer to MakeThumbnail: a stored PNG file, to be fetched like any other."""

    TYPE: ClassVar[str] = "thumbnail_made"
    frame: int
    sha256: str
    nbytes: int


@dataclass(frozen=True)
class GetStatus(Message):
    """Ask how busy the server is."""

    TYPE: ClassVar[str] = "get_status"


@dataclass(frozen=True)
class Status(Message):
    """The answer to GetStatus."""

    TYPE: ClassVar[str] = "status"
    server_epoch: str
    sessions: int
    queued: int
    engines: tuple[EngineInfo, ...]
    uptime_seconds: float = 0.0
    resident_bytes: int = 0  # of the network process
    stored_bytes: int = 0
    free_bytes: int = 0
    jobs: tuple[JobStatus, ...] = ()


# ------------------------------------------------------------------------------------------------------------ bulk lane


@dataclass(frozen=True)
class BeginUpload(Message):
    """Say what file is coming; answered by UploadState. Asked again after a break, it says what is still wanted."""

    TYPE: ClassVar[str] = "begin_upload"
    sha256: str
    nbytes: int


@dataclass(frozen=True)
class UploadState(Message):
    """Chunk numbers (of CHUNK_BYTES each) still wanted, the first 1000 of them; empty when the file is already stored."""

    TYPE: ClassVar[str] = "upload_state"
    sha256: str
    wanted: tuple[int, ...]
    stored: bool


@dataclass(frozen=True)
class UploadChunk(Message):
    """One chunk, in the payload. Answered by UploadState; at most UPLOAD_CREDIT unanswered at a time."""

    TYPE: ClassVar[str] = "upload_chunk"
    sha256: str
    chunk: int


@dataclass(frozen=True)
class FetchChunk(Message):
    """Ask for one chunk of a stored file. Asking is the credit: nothing comes unasked."""

    TYPE: ClassVar[str] = "fetch_chunk"
    sha256: str
    chunk: int


@dataclass(frozen=True)
class FileChunk(Message):
    """One chunk of a stored file, in the payload."""

    TYPE: ClassVar[str] = "file_chunk"
    sha256: str
    chunk: int
    nbytes: int  # of the whole file
