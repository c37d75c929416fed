"""What the journal knows of sessions: shots, plates, keys with every change of them, and requests already answered."""

from __future__ import annotations

import hashlib
import itertools
import time
from collections.abc import Iterable
from dataclasses import dataclass

from xmem_protocol import (
    BAD_REQUEST,
    JobAccepted,
    Key,
    MatteProvisional,
    Message,
    Plate,
    ServerError,
    SessionDeleted,
    SessionState,
    Shot,
)
from xmem_server.database import Database
from xmem_server.pipes import kinds_of, pack_message, unpack_message

_REPLIES_KEPT = 2000  # per client; a request is sent again within minutes, not after thousands of others
_ALL_REPLIES_KEPT = 200_000  # of all clients, for those that never come back
_REPLY_KINDS = kinds_of(JobAccepted, SessionDeleted)
_EVENT_KINDS = kinds_of(MatteProvisional)
_PROVISIONAL = "SELECT body FROM event JOIN job ON job.job = event.job WHERE type = ? AND ? IN (0, session)"
EDIT, UNDO, REDO = "edit", "undo", "redo"


@dataclass(frozen=True)
class SessionRecord:
    """One session: ``number`` names its folder, ``owner`` the client whose it is; ``revision`` grows with every change of keys."""

    number: int
    owner: str
    name: str
    shot: Shot
    revision: int


@dataclass(frozen=True)
class ListedSession:
    """A session with what a list says of it; times in seconds since 1970."""

    record: SessionRecord
    created: float
    touched: float
    plates: int
    keys: int
    jobs: int


@dataclass(frozen=True)
class KeyChange:
    """One entry of a session's history: ``before`` and ``after`` are None where there was, or is, no key.

    ``kind`` is EDIT, UNDO or REDO.
    """

    revision: int
    frame: int
    object_id: int
    before: Key | None
    after: Key | None
    kind: str = EDIT


@dataclass(frozen=True)
class Request:
    """A request that changes something: sent again with the same ``client`` and ``id`` it has no second effect."""

    client: str
    id: str
    message: Message
    session: str

    @property
    def fingerprint(self) -> str:
        """Tell this request's content from another's."""
        return hashlib.sha256(pack_message(self.message)).hexdigest()


@dataclass(frozen=True)
class StoredReply:
    """The answer a request got; ``message`` is None when it was the session's state."""

    message: Message | None


class SessionTable:
    """Sessions in the journal. Changes belong inside ``Database.transaction``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def count(self, owner: str = "") -> int:
        """Give the number of this owner's sessions, or of all of them."""
        (number,) = self._database.fetch_one("SELECT count(*) FROM session WHERE ? IN ('', owner)", owner)
        return int(number)

    def fetch_numbers(self) -> list[int]:
        """Give the numbers of all sessions."""
        return [row[0] for row in self._database.fetch("SELECT number FROM session")]

    def fetch(self, owner: str, name: str) -> SessionRecord | None:
        """Give the owner's session of this name, or None."""
        return self._fetch_where("owner = ? AND name = ?", owner, name)

    def fetch_number(self, number: int) -> SessionRecord:
        """Give the session of this number, which exists."""
        record = self._fetch_where("number = ?", number)
        if record is None:
            raise LookupError(number)
        return record

    def _fetch_where(self, condition: str, *values: str | int) -> SessionRecord | None:
        row = self._database.fetch_one(
            f"SELECT number, owner, name, shot, revision FROM session WHERE {condition}", *values
        )
        if row is None:
            return None
        return SessionRecord(row[0], row[1], row[2], unpack_message(row[3], kinds_of(Shot)), row[4])

    def add(self, owner: str, name: str, shot: Shot) -> None:
        """Journal a new session."""
        now = time.time()
        self._database.write(
            "INSERT INTO session (owner, name, shot, created, touched) VALUES (?, ?, ?, ?, ?)",
            owner,
            name,
            pack_message(shot),
            now,
            now,
        )

    def touch(self, number: int) -> None:
        """Journal that somebody works on the session now."""
        self._database.write("UPDATE session SET touched = ? WHERE number = ?", time.time(), number)

    def fetch_list(self, owner: str, after: int, limit: int) -> list[ListedSession]:
        """Give the sessions of one owner, or of all for an empty name, oldest first, without the first ``after``."""
        rows = self._database.fetch(
            "SELECT number, owner, name, shot, revision, created, touched, "
            "(SELECT count(*) FROM plate WHERE plate.session = number), "
            "(SELECT count(*) FROM key WHERE key.session = number), "
            "(SELECT count(*) FROM job WHERE job.session = session.number) "
            "FROM session WHERE ? IN ('', owner) ORDER BY number LIMIT ? OFFSET ?",
            owner,
            limit,
            after,
        )
        return [
            ListedSession(
                SessionRecord(row[0], row[1], row[2], unpack_message(row[3], kinds_of(Shot)), row[4]), *row[5:]
            )
            for row in rows
        ]

    def remove(self, number: int) -> None:
        """Journal that a session is no more, with all its jobs and their mattes. Its files stay until they are swept."""
        jobs = "(SELECT job FROM job WHERE session = ?)"
        with self._database.transaction():
            for table in ("event", "result", "snapshot"):
                self._database.write(f"DELETE FROM {table} WHERE job IN {jobs}", number)
            for table in ("job", "revision", "key", "plate"):
                self._database.write(f"DELETE FROM {table} WHERE session = ?", number)
            self._database.write("DELETE FROM session WHERE number = ?", number)

    def fetch_used(self, number: int = 0) -> set[str]:
        """Give the SHA-256 of every file that a session uses, undone keys included; of all sessions for number 0."""
        used: set[str] = set()
        for statement in (
            "SELECT DISTINCT sha256 FROM plate WHERE ? IN (0, session)",
            "SELECT DISTINCT sha256 FROM key WHERE ? IN (0, session)",
            "SELECT DISTINCT sha256 FROM result JOIN job ON job.job = result.job WHERE ? IN (0, session)",
        ):
            used |= {row[0] for row in self._database.fetch(statement, number)}
        for (body,) in self._database.fetch(_PROVISIONAL, MatteProvisional.TYPE, number):
            used |= {file.sha256 for file in unpack_message(body, _EVENT_KINDS).files}
        for before, after in self._database.fetch("SELECT before, after FROM revision WHERE ? IN (0, session)", number):
            used |= {key.sha256 for key in (_unpack_key(before), _unpack_key(after)) if key is not None}
        return used - {""}

    def save_plates(self, number: int, plates: Iterable[Plate]) -> None:
        """Journal which file each of these frames is."""
        with self._database.transaction():
            for plate in plates:
                self._database.write(
                    "INSERT OR REPLACE INTO plate (session, frame, sha256, picture, suffix) VALUES (?, ?, ?, ?, ?)",
                    number,
                    plate.frame,
                    plate.sha256,
                    plate.index,
                    plate.suffix,
                )

    def count_plates(self, number: int) -> int:
        """Give the number of frames that have a plate."""
        (count,) = self._database.fetch_one("SELECT count(*) FROM plate WHERE session = ?", number)
        return int(count)

    def fetch_plates(self, number: int) -> dict[int, Plate]:
        """Give the plates by frame number, in frame order."""
        rows = self._database.fetch(
            "SELECT frame, sha256, picture, suffix FROM plate WHERE session = ? ORDER BY frame", number
        )
        return {row[0]: Plate(*row) for row in rows}

    def fetch_keys(self, number: int) -> tuple[Key, ...]:
        """Give the keys in order of frame, then object."""
        rows = self._database.fetch(
            "SELECT frame, object_id, presence, sha256, suffix, selector FROM key WHERE session = ? "
            "ORDER BY frame, object_id",
            number,
        )
        return tuple(Key(*row) for row in rows)

    def fetch_key(self, number: int, frame: int, object_id: int) -> Key | None:
        """Give what is said of this object at this frame, or None."""
        row = self._database.fetch_one(
            "SELECT frame, object_id, presence, sha256, suffix, selector FROM key "
            "WHERE session = ? AND frame = ? AND object_id = ?",
            number,
            frame,
            object_id,
        )
        return None if row is None else Key(*row)

    def save_key(self, number: int, key: Key) -> None:
        """Journal one key; a new revision, unless exactly this was said already."""
        before = self.fetch_key(number, key.frame, key.object_id)
        if before != key:
            self._change_keys(number, EDIT, [(key.frame, key.object_id, before, key)])

    def remove_keys(self, number: int, keys: Iterable[Key]) -> None:
        """Journal that these keys are no more; one new revision, unless there is none of them."""
        gone = [(key.frame, key.object_id, key, None) for key in keys]
        if gone:
            self._change_keys(number, EDIT, gone)

    def undo(self, number: int) -> bool:
        """Journal that the last change of keys not undone yet is taken back, and say whether there was one.

        Undoing is a change like any other: it gets a revision of its own, and nothing leaves the history.
        """
        undoable, _ = self._fetch_stacks(number)
        if undoable:
            changes = [(change.frame, change.object_id, change.after, change.before) for change in undoable[-1]]
            self._change_keys(number, UNDO, changes)
        return bool(undoable)

    def redo(self, number: int) -> bool:
        """Journal that what was undone last is done again, and say whether there was something."""
        _, redoable = self._fetch_stacks(number)
        if redoable:
            changes = [(change.frame, change.object_id, change.before, change.after) for change in redoable[-1]]
            self._change_keys(number, REDO, changes)
        return bool(redoable)

    def _fetch_stacks(self, number: int) -> tuple[list[list[KeyChange]], list[list[KeyChange]]]:
        """Give the edits that can be undone and those that can be redone, the next one last in each."""
        undoable: list[list[KeyChange]] = []
        redoable: list[list[KeyChange]] = []
        for _, group in itertools.groupby(self.fetch_history(number), lambda change: change.revision):
            changes = list(group)
            if changes[0].kind == UNDO:
                redoable.append(undoable.pop())
            elif changes[0].kind == REDO:
                undoable.append(redoable.pop())
            else:
                undoable.append(changes)
                redoable.clear()
        return undoable, redoable

    def _change_keys(self, number: int, kind: str, changes: Iterable[tuple[int, int, Key | None, Key | None]]) -> None:
        """Journal one revision: for each frame and object what was said there before and what is now."""
        with self._database.transaction():
            revision = self._next_revision(number)
            for frame, object_id, before, after in changes:
                if after is None:
                    self._database.write(
                        "DELETE FROM key WHERE session = ? AND frame = ? AND object_id = ?", number, frame, object_id
                    )
                else:
                    self._database.write(
                        "INSERT OR REPLACE INTO key (session, frame, object_id, presence, sha256, suffix, selector) "
                        "VALUES (?, ?, ?, ?, ?, ?, ?)",
                        number,
                        frame,
                        object_id,
                        after.presence,
                        after.sha256,
                        after.suffix,
                        after.selector,
                    )
                self._log(number, KeyChange(revision, frame, object_id, before, after, kind))

    def fetch_history(self, number: int) -> tuple[KeyChange, ...]:
        """Give every change of keys since the session began, oldest first."""
        rows = self._database.fetch(
            "SELECT revision, frame, object_id, before, after, kind FROM revision WHERE session = ? "
            "ORDER BY revision, frame, object_id",
            number,
        )
        return tuple(
            KeyChange(row[0], row[1], row[2], _unpack_key(row[3]), _unpack_key(row[4]), row[5]) for row in rows
        )

    def fetch_reply(self, request: Request) -> StoredReply | None:
        """Give the answer this request got before, or None when it is new.

        Raises ServerError BAD_REQUEST when its id was used for something else.
        """
        row = self._database.fetch_one(
            "SELECT fingerprint, reply FROM request WHERE client = ? AND id = ?", request.client, request.id
        )
        if row is None:
            return None
        if row[0] != request.fingerprint:
            raise ServerError(BAD_REQUEST, f"Request id {request.id!r} was used for another request. Use a new one.")
        return StoredReply(None if row[1] is None else unpack_message(row[1], _REPLY_KINDS))

    def save_reply(self, request: Request, reply: Message) -> None:
        """Journal the answer. A session's state is not copied: sent again, the request gets the state as it is then."""
        stored = None if isinstance(reply, SessionState) else pack_message(reply)
        with self._database.transaction():
            self._database.write(
                "INSERT INTO request (client, id, fingerprint, session, reply) VALUES (?, ?, ?, ?, ?)",
                request.client,
                request.id,
                request.fingerprint,
                request.session,
                stored,
            )
            self._database.write(
                "DELETE FROM request WHERE client = ? AND number <= "
                "(SELECT max(number) FROM request WHERE client = ?) - ?",
                request.client,
                request.client,
                _REPLIES_KEPT,
            )
            self._database.write(
                "DELETE FROM request WHERE number <= (SELECT max(number) FROM request) - ?", _ALL_REPLIES_KEPT
            )

    def _next_revision(self, number: int) -> int:
        self._database.write("UPDATE session SET revision = revision + 1 WHERE number = ?", number)
        (revision,) = self._database.fetch_one("SELECT revision FROM session WHERE number = ?", number)
        return int(revision)

    def _log(self, number: int, change: KeyChange) -> None:
        self._database.write(
            "INSERT INTO revision (session, revision, frame, object_id, before, after, changed, kind) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            number,
            change.revision,
            change.frame,
            change.object_id,
            _pack_key(change.before),
            _pack_key(change.after),
            time.time(),
            change.kind,
        )


def _pack_key(key: Key | None) -> bytes | None:
    return None if key is None else pack_message(key)


def _unpack_key(packed: bytes | None) -> Key | None:
    return None if packed is None else unpack_message(packed, kinds_of(Key))
