"""Everything the server keeps, in one folder on a local disk: the journal, the files, and each session's own folders.

State, scratch and content store share one file system, so that a finished file is stored by renaming it.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from xmem_protocol import InputError
from xmem_server.database import Database
from xmem_server.files import FileStore, StorageLimits, fetch_size
from xmem_server.job_table import JobTable
from xmem_server.session_table import SessionTable
from xmem_server.storage import storage_errors

_UNUSED_KEPT_SECONDS = 24 * 3600.0  # a client that has just sent a file says within a day what it is
_RESERVE_BYTES = 4 * 1024 * 1024  # a few thousand journal entries: enough to write down why a job stopped


class Store(FileStore):
    """The state folder, opened by this process alone; ``close()`` lets go of it.

    The methods for files may be called from any thread. ``database``, ``sessions`` and ``jobs`` are the journal: hold
    ``database.lock`` or use its transactions. What a killed server left half-done is swept when the folder opens.
    """

    def __init__(self, folder: Path, limits: StorageLimits | None = None) -> None:
        self.folder = folder.resolve()
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # plates and mattes are the owner's business
            self.database = Database(self.folder / "journal.sqlite")
        except OSError as error:
            raise InputError(f"The state folder {folder} cannot be made: {error.strerror}. Choose another.") from error
        try:
            super().__init__(self.folder, limits or StorageLimits())
            self.sessions = SessionTable(self.database)
            self.jobs = JobTable(self.database)
            self._removed: list[tuple[int, set[str]]] = []
            self._sweep()
        except BaseException:
            self.database.close()
            raise

    def close(self) -> None:
        """Let go of the folder."""
        self.database.close()

    def session_folder(self, session: int) -> Path:
        """Give the session's own folder."""
        return self.folder / "sessions" / str(session)

    def cache_folder(self, session: int) -> Path:
        """Give the folder for encoded features, shared by the session's jobs; made when missing."""
        return self._make(self.session_folder(session) / "cache")

    def scratch_folder(self, session: int, job: str) -> Path:
        """Give the folder where the job's engine writes; made when missing."""
        return self._make(self.session_folder(session) / "scratch" / job)

    def snapshot_folder(self, session: int, job: str) -> Path:
        """Give the folder of the job's stored snapshots; made when missing."""
        return self._make(self.session_folder(session) / "snapshots" / job)

    def drop_scratch(self, session: int, job: str) -> None:
        """Remove what the job's engine left behind."""
        shutil.rmtree(self.session_folder(session) / "scratch" / job, ignore_errors=True)

    def drop_snapshots(self, session: int, job: str) -> None:
        """Remove the job's snapshots: it is done."""
        with self.database.transaction():
            for snapshot in self.jobs.fetch_snapshots(job, self.snapshot_folder(session, job)):
                self.jobs.remove_snapshot(job, snapshot.frame)
        shutil.rmtree(self.session_folder(session) / "snapshots" / job, ignore_errors=True)

    def remove_session(self, number: int) -> int:
        """Journal that a session is no more; give the bytes of the files that no other session uses.

        The files themselves go by ``drop_removed``, once the journal says so on disk: a server killed in between has some
        files too many, never a session without its files.
        """
        mine = self.sessions.fetch_used(number)
        self.sessions.remove(number)
        unused = mine - self.sessions.fetch_used()
        self._removed.append((number, unused))
        return sum(fetch_size(self.file_path(sha256)) for sha256 in unused)

    def drop_removed(self) -> None:
        """Remove the folders and files of the sessions removed since this was last called. Not within a transaction."""
        while self._removed:
            number, unused = self._removed.pop()
            with self.database.lock:
                if any(each == number for each in self.sessions.fetch_numbers()):
                    continue  # the journal did not take the removal
            self._remove_unused(unused)
            shutil.rmtree(self.session_folder(number), ignore_errors=True)

    def sweep(self, upload_seconds: float) -> None:
        """Remove uploads that nobody goes on with, and files that no session uses and nobody asked for since yesterday."""
        self.sweep_uploads(upload_seconds)
        self._remove_unused(self.find_old(_UNUSED_KEPT_SECONDS))  # looked for without the lock: there may be many

    def _remove_unused(self, files: set[str]) -> None:
        """Remove those of these files that no session uses; nobody can begin to use one meanwhile."""
        with self.database.lock:
            for sha256 in files - self.sessions.fetch_used():
                self.remove_file(sha256)

    def keep_reserve(self) -> None:
        """Hold space back for the journal. On a full disk there is none to hold: the server runs all the same."""
        if self._reserve.exists():
            return
        try:
            self._reserve.write_bytes(bytes(_RESERVE_BYTES))
        except OSError:
            self._reserve.unlink(missing_ok=True)

    def release_reserve(self) -> None:
        """Free the space held back for the journal, so that a full disk can still be written down as what happened."""
        self._reserve.unlink(missing_ok=True)

    @property
    def _reserve(self) -> Path:
        return self.folder / "journal.reserve"

    def _make(self, folder: Path) -> Path:
        with storage_errors(self.folder):
            folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _sweep(self) -> None:
        """Interrupt what was running, remove scratch and unjournalled snapshots, hold space back for the journal."""
        with self.database.transaction():
            self.jobs.interrupt_all()
        known_sessions = {str(number) for number in self.sessions.fetch_numbers()}
        for folder in (self.folder / "sessions").glob("*"):
            if folder.name not in known_sessions:
                shutil.rmtree(folder, ignore_errors=True)
        for scratch in (self.folder / "sessions").glob("*/scratch"):
            shutil.rmtree(scratch, ignore_errors=True)
        for folder in (self.folder / "sessions").glob("*/snapshots/*"):
            known = {snapshot.path for snapshot in self.jobs.fetch_snapshots(folder.name, folder)}
            for path in set(folder.iterdir()) - known:
                path.unlink()
        self.keep_reserve()
