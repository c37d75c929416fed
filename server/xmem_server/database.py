"""The journal's SQLite file: its tables, and transactions that are on disk when they end.

One connection, one lock: whoever holds ``lock`` is the only reader and writer. The file is opened for this process alone,
so a second server on the same folder is refused. WAL does not work on network file systems: the folder is a local disk.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from xmem_protocol import INTERNAL, InputError, ServerError
from xmem_server.storage import full_storage

SCHEMA_VERSION = 2
_LOCK_SECONDS = 3.0  # a server that is just stopping lets go within this
_SCHEMA = """
CREATE TABLE schema_version (version INTEGER NOT NULL);
CREATE TABLE session (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    owner TEXT NOT NULL,
    name TEXT NOT NULL,
    shot BLOB NOT NULL,
    revision INTEGER NOT NULL DEFAULT 0,
    created REAL NOT NULL,
    touched REAL NOT NULL,
    UNIQUE (owner, name)
);
CREATE TABLE plate (
    session INTEGER NOT NULL REFERENCES session,
    frame INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    picture INTEGER NOT NULL,
    suffix TEXT NOT NULL,
    PRIMARY KEY (session, frame)
) WITHOUT ROWID;
CREATE TABLE key (
    session INTEGER NOT NULL REFERENCES session,
    frame INTEGER NOT NULL,
    object_id INTEGER NOT NULL,
    presence TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    suffix TEXT NOT NULL,
    selector TEXT NOT NULL,
    PRIMARY KEY (session, frame, object_id)
) WITHOUT ROWID;
CREATE TABLE revision (
    session INTEGER NOT NULL REFERENCES session,
    revision INTEGER NOT NULL,
    frame INTEGER NOT NULL,
    object_id INTEGER NOT NULL,
    before BLOB,
    after BLOB,
    changed REAL NOT NULL,
    kind TEXT NOT NULL DEFAULT 'edit',
    PRIMARY KEY (session, revision, frame, object_id)
) WITHOUT ROWID;
CREATE TABLE job (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    job TEXT NOT NULL UNIQUE,
    session INTEGER NOT NULL REFERENCES session,
    kind TEXT NOT NULL,
    params_hash TEXT NOT NULL,
    state TEXT NOT NULL,
    place INTEGER NOT NULL,
    batch INTEGER NOT NULL DEFAULT 0,
    last_seq INTEGER NOT NULL DEFAULT 0,
    plan BLOB NOT NULL,
    UNIQUE (session, params_hash)
);
CREATE INDEX job_by_state ON job (state, place);
CREATE TABLE event (
    job TEXT NOT NULL REFERENCES job (job),
    seq INTEGER NOT NULL,
    type TEXT NOT NULL,
    frame INTEGER,
    body BLOB NOT NULL,
    PRIMARY KEY (job, seq)
) WITHOUT ROWID;
CREATE TABLE result (
    job TEXT NOT NULL REFERENCES job (job),
    frame INTEGER NOT NULL,
    object_id INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    nbytes INTEGER NOT NULL,
    suffix TEXT NOT NULL,
    PRIMARY KEY (job, frame, object_id)
) WITHOUT ROWID;
CREATE TABLE snapshot (
    job TEXT NOT NULL REFERENCES job (job),
    frame INTEGER NOT NULL,
    path TEXT NOT NULL,
    PRIMARY KEY (job, frame)
) WITHOUT ROWID;
CREATE TABLE request (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    client TEXT NOT NULL,
    id TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    session TEXT NOT NULL,
    reply BLOB,
    UNIQUE (client, id)
);
"""

# From layout 1, which knew one client only. Tables that others refer to are made again, as SQLite's documentation says.
_FROM_1 = """
CREATE TABLE session_2 (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    owner TEXT NOT NULL,
    name TEXT NOT NULL,
    shot BLOB NOT NULL,
    revision INTEGER NOT NULL DEFAULT 0,
    created REAL NOT NULL,
    touched REAL NOT NULL,
    UNIQUE (owner, name)
);
INSERT INTO session_2 SELECT number, 'local', name, shot, revision, created, created FROM session;
DROP TABLE session;
ALTER TABLE session_2 RENAME TO session;
ALTER TABLE revision ADD COLUMN kind TEXT NOT NULL DEFAULT 'edit';
ALTER TABLE job ADD COLUMN batch INTEGER NOT NULL DEFAULT 0;
UPDATE request SET client = 'local/' || client;
UPDATE schema_version SET version = 2;
"""


class Database:
    """The open journal file. Raises InputError when it is in use, newer than this version, or not a journal."""

    def __init__(self, path: Path) -> None:
        self.lock = threading.RLock()
        self._path = path
        self._connection = sqlite3.connect(
            path, timeout=_LOCK_SECONDS, isolation_level=None, check_same_thread=False, cached_statements=256
        )
        try:
            self._prepare()
        except sqlite3.Error as error:
            self._connection.close()
            raise self._explain(error) from error
        except BaseException:
            self._connection.close()
            raise

    def close(self) -> None:
        """Let go of the file."""
        with self.lock:
            self._connection.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Do all of the block or nothing of it; on disk when it ends. Inside another one, it is part of that one.

        Raises ServerError with nothing written: STORAGE_FULL when the disk is full, INTERNAL when it cannot be written.
        """
        with self.lock:
            if self._connection.in_transaction:
                yield
                return
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                yield
                self._connection.execute("COMMIT")
            except BaseException as error:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                if isinstance(error, sqlite3.OperationalError):
                    raise self._explain_write(error) from error
                raise

    def write(self, statement: str, *values: Any) -> int:
        """Run one statement, and give the number of rows it changed."""
        with self.transaction():
            return self._connection.execute(statement, values).rowcount

    def fetch(self, statement: str, *values: Any) -> list[Any]:
        """Give every row that a query finds, each a tuple."""
        with self.lock:
            return self._connection.execute(statement, values).fetchall()

    def fetch_one(self, statement: str, *values: Any) -> Any:
        """Give the first row that a query finds, a tuple, or None."""
        with self.lock:
            return self._connection.execute(statement, values).fetchone()

    def _prepare(self) -> None:
        connection = self._connection
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        with self.transaction():
            if not self.fetch("SELECT name FROM sqlite_master WHERE name = 'schema_version'"):
                self._execute(_SCHEMA)
                self.write("INSERT INTO schema_version VALUES (?)", SCHEMA_VERSION)
            (version,) = self.fetch_one("SELECT version FROM schema_version")
            if version == 1:
                self._execute(_FROM_1)
                (version,) = self.fetch_one("SELECT version FROM schema_version")
        connection.execute("PRAGMA foreign_keys = ON")  # only now: a table is dropped and made again above
        if version != SCHEMA_VERSION:
            raise InputError(
                f"{self._path.parent} was written by another version (layout {version}, this one writes {SCHEMA_VERSION}). "
                "Start that version, or use another state folder."
            )

    def _execute(self, script: str) -> None:
        for statement in script.split(";\n"):
            self._connection.execute(statement)

    def _explain_write(self, error: sqlite3.OperationalError) -> ServerError:
        if "full" in str(error):
            return full_storage(self._path.parent)
        return ServerError(INTERNAL, f"The journal in {self._path.parent} cannot be written: {error}. Check that disk.")

    def _explain(self, error: sqlite3.Error) -> Exception:
        if "locked" in str(error):
            return InputError(f"Another server uses {self._path.parent}. Stop it, or use another state folder.")
        if "full" in str(error):
            return full_storage(self._path.parent)
        return InputError(f"{self._path} cannot be used: {error}. Restore it, or use another state folder.")
