"""What the journal knows of jobs: their plans and states, the events they said, their mattes and snapshots."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from xmem_protocol import (
    Event,
    FrameFailed,
    JobCancelled,
    JobDone,
    JobFailed,
    JobInfo,
    MatteFile,
    MatteProvisional,
    MatteReady,
    MattesStale,
    SuggestionsReady,
)
from xmem_server.database import Database
from xmem_server.fair_share import Claim
from xmem_server.pipes import kinds_of, pack_message, unpack_message
from xmem_server.plans import PropagationPlan, SuggestionPlan

QUEUED, RUNNING, INTERRUPTED = "queued", "running", "interrupted"
DONE, FAILED, CANCELLED = "done", "failed", "cancelled"
PROPAGATION, SUGGESTION = "propagation", "suggestion"
_FINAL_EVENTS = (JobDone.TYPE, JobFailed.TYPE, JobCancelled.TYPE)
_EVENT_KINDS = kinds_of(
    MattesStale, MatteProvisional, MatteReady, FrameFailed, SuggestionsReady, JobDone, JobFailed, JobCancelled
)
_PLAN_KINDS = kinds_of(PropagationPlan, SuggestionPlan)
_COLUMNS = "job, session, kind, params_hash, state, last_seq"

Plan = PropagationPlan | SuggestionPlan


@dataclass(frozen=True)
class JobRecord:
    """One job; ``session`` is the session's number, ``params_hash`` names everything its result depends on."""

    job: str
    session: int
    kind: str
    params_hash: str
    state: str
    last_seq: int


@dataclass(frozen=True)
class SnapshotRecord:
    """The state after ``frame``, in the file at ``path``."""

    frame: int
    path: Path


class JobTable:
    """Jobs in the journal. Changes belong inside ``Database.transaction``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # ------------------------------------------------------------------------------------------------ jobs and states

    def add(self, record: JobRecord, plan: Plan, *, is_batch: bool = False) -> None:
        """Journal a new job at the end of the queue. The plan is stored without this machine's paths."""
        self._database.write(
            "INSERT INTO job (job, session, kind, params_hash, state, place, batch, plan) "
            "VALUES (?, ?, ?, ?, ?, (SELECT coalesce(max(place), 0) + 1 FROM job), ?, ?)",
            record.job,
            record.session,
            record.kind,
            record.params_hash,
            record.state,
            int(is_batch),
            zlib.compress(pack_message(plan)),
        )

    def fetch(self, job: str) -> JobRecord | None:
        """Give the job of this name, or None."""
        return _record(self._database.fetch_one(f"SELECT {_COLUMNS} FROM job WHERE job = ?", job))

    def find(self, session: int, params_hash: str) -> JobRecord | None:
        """Give the session's job of exactly these parameters, or None."""
        statement = f"SELECT {_COLUMNS} FROM job WHERE session = ? AND params_hash = ?"
        return _record(self._database.fetch_one(statement, session, params_hash))

    def fetch_plan(self, job: str) -> Plan:
        """Give the plan as it was stored, without paths."""
        (packed,) = self._database.fetch_one("SELECT plan FROM job WHERE job = ?", job)
        plan: Plan = unpack_message(zlib.decompress(packed), _PLAN_KINDS)
        return plan

    def fetch_infos(self, session: int, limit: int) -> tuple[JobInfo, ...]:
        """Give the session's newest jobs, oldest first."""
        rows = self._database.fetch(
            "SELECT job, kind, state, last_seq FROM job WHERE session = ? ORDER BY number DESC LIMIT ?", session, limit
        )
        return tuple(JobInfo(*row) for row in reversed(rows))

    def fetch_done(self, session: int) -> list[str]:
        """Give the session's finished propagations, the one that was asked for last first."""
        rows = self._database.fetch(
            "SELECT job FROM job WHERE session = ? AND kind = ? AND state = ? ORDER BY place DESC",
            session,
            PROPAGATION,
            DONE,
        )
        return [row[0] for row in rows]

    def fetch_claims(self) -> list[Claim]:
        """Give the queued jobs as claims on the engine, in order of asking."""
        rows = self._database.fetch(
            "SELECT job, owner, batch, place FROM job JOIN session ON session.number = job.session WHERE state = ? ORDER BY place",
            QUEUED,
        )
        return [Claim(row[0], row[1], bool(row[2]), row[3]) for row in rows]

    def fetch_queue(self) -> list[str]:
        """Give the queued jobs in the order of asking."""
        return [claim.job for claim in self.fetch_claims()]

    def save_urgency(self, job: str, *, is_batch: bool) -> None:
        """Journal whether the job is batch work."""
        self._database.write("UPDATE job SET batch = ? WHERE job = ?", int(is_batch), job)

    def save_state(self, job: str, state: str) -> None:
        """Journal a job's state."""
        self._database.write("UPDATE job SET state = ? WHERE job = ?", state, job)

    def queue_last(self, job: str) -> None:
        """Journal that the job waits behind all others. What ended it before is taken back; seq goes on counting."""
        with self._database.transaction():
            marks = ", ".join("?" * len(_FINAL_EVENTS))
            self._database.write(f"DELETE FROM event WHERE job = ? AND type IN ({marks})", job, *_FINAL_EVENTS)
            self._database.write(
                "UPDATE job SET state = ?, place = (SELECT max(place) + 1 FROM job) WHERE job = ?", QUEUED, job
            )

    def renew_place(self, job: str) -> None:
        """Journal that the job was asked for again: it counts as the newest. Not for one that waits: it keeps its turn."""
        self._database.write("UPDATE job SET place = (SELECT max(place) + 1 FROM job) WHERE job = ?", job)

    def queue_first(self, job: str) -> None:
        """Journal that the job is the next."""
        self._database.write(
            "UPDATE job SET state = ?, place = (SELECT min(place) - 1 FROM job) WHERE job = ?", QUEUED, job
        )

    def interrupt_all(self) -> None:
        """Journal that no job runs or waits: the server that had them is gone."""
        self._database.write("UPDATE job SET state = ? WHERE state IN (?, ?)", INTERRUPTED, QUEUED, RUNNING)

    # --------------------------------------------------------------------------------------------- events and results

    def add_event(self, event: Event) -> Event:
        """Give the event with its number in the job, journalled."""
        with self._database.transaction():
            self._database.write("UPDATE job SET last_seq = last_seq + 1 WHERE job = ?", event.job)
            (seq,) = self._database.fetch_one("SELECT last_seq FROM job WHERE job = ?", event.job)
            numbered = dataclasses.replace(event, seq=seq)
            self._database.write(
                "INSERT INTO event (job, seq, type, frame, body) VALUES (?, ?, ?, ?, ?)",
                event.job,
                seq,
                event.TYPE,
                getattr(event, "frame", None),
                pack_message(numbered),
            )
        return numbered

    def has_event(self, job: str, kind: type[Event], frame: int) -> bool:
        """Say whether the job said this of this frame already, as it does when it runs on from a snapshot."""
        row = self._database.fetch_one(
            "SELECT seq FROM event WHERE job = ? AND type = ? AND frame = ?", job, kind.TYPE, frame
        )
        return row is not None

    def remove_failures(self, job: str) -> bool:
        """Journal that no frame of the job failed, and say whether one did."""
        return self._database.write("DELETE FROM event WHERE job = ? AND type = ?", job, FrameFailed.TYPE) > 0

    def remove_passed(self, job: str, frame: int) -> None:
        """Journal that this frame did not fail after all, and that its provisional mattes are no more."""
        for kind in (FrameFailed, MatteProvisional):
            self._database.write("DELETE FROM event WHERE job = ? AND type = ? AND frame = ?", job, kind.TYPE, frame)

    def fetch_events(self, job: str, after_seq: int, limit: int) -> tuple[Event, ...]:
        """Give at most ``limit`` events after this number, in order."""
        rows = self._database.fetch(
            "SELECT body FROM event WHERE job = ? AND seq > ? ORDER BY seq LIMIT ?", job, after_seq, limit
        )
        return tuple(unpack_message(row[0], _EVENT_KINDS) for row in rows)

    def add_results(self, job: str, frame: int, files: Iterable[MatteFile]) -> None:
        """Journal the files of one finished frame."""
        with self._database.transaction():
            for file in files:
                self._database.write(
                    "INSERT INTO result (job, frame, object_id, sha256, nbytes, suffix) VALUES (?, ?, ?, ?, ?, ?)",
                    job,
                    frame,
                    file.object_id,
                    file.sha256,
                    file.nbytes,
                    file.suffix,
                )

    def fetch_results(self, job: str) -> tuple[tuple[int, MatteFile], ...]:
        """Give (frame, file) for every finished file, in order of frame and object."""
        rows = self._database.fetch(
            "SELECT frame, object_id, sha256, nbytes, suffix FROM result WHERE job = ? ORDER BY frame, object_id", job
        )
        return tuple((row[0], MatteFile(*row[1:])) for row in rows)

    # ------------------------------------------------------------------------------------------------------ snapshots

    def save_snapshot(self, job: str, snapshot: SnapshotRecord) -> None:
        """Journal a snapshot."""
        self._database.write(
            "INSERT OR REPLACE INTO snapshot (job, frame, path) VALUES (?, ?, ?)",
            job,
            snapshot.frame,
            snapshot.path.name,
        )

    def fetch_snapshots(self, job: str, folder: Path) -> tuple[SnapshotRecord, ...]:
        """Give the job's snapshots, which are in this folder, newest state first."""
        rows = self._database.fetch("SELECT frame, path FROM snapshot WHERE job = ? ORDER BY frame DESC", job)
        return tuple(SnapshotRecord(row[0], folder / row[1]) for row in rows)

    def remove_snapshot(self, job: str, frame: int) -> None:
        """Journal that a snapshot is no more."""
        self._database.write("DELETE FROM snapshot WHERE job = ? AND frame = ?", job, frame)


def _record(row: tuple[str, int, str, str, str, int] | None) -> JobRecord | None:
    return None if row is None else JobRecord(*row)
