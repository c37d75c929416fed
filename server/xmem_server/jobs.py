"""The queue of jobs before one engine: starts them in order, journals what they say, survives the engine's death.

A job's state lives in the journal; here is only which one runs. ``request_cancel`` and the fetching methods may be called
from any thread: all of them hold the journal's lock, never for longer than one commit.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import time
from collections.abc import Callable
from functools import singledispatchmethod
from typing import Any

from xmem_protocol import (
    ENGINE_DIED,
    INTERNAL,
    LIMIT_EXCEEDED,
    NOT_FOUND,
    STORAGE_FULL,
    Event,
    FrameFailed,
    JobCancelled,
    JobDone,
    JobFailed,
    LocalProtocolError,
    MatteProvisional,
    MatteReady,
    Progress,
    ServerError,
    SuggestionsReady,
)
from xmem_server.engines import IDLE, STOPPED, Engine, EngineStopped
from xmem_server.fair_share import SLICE_SECONDS, Claim, FairShare
from xmem_server.job_files import complete_plan, find_scratch_file, store_matte
from xmem_server.job_table import CANCELLED, DONE, FAILED, QUEUED, RUNNING, JobRecord, SnapshotRecord
from xmem_server.plans import (
    EngineCancelled,
    EngineDone,
    EngineFailed,
    EngineFrameFailed,
    EngineMatte,
    EnginePaused,
    EngineProgress,
    EngineReady,
    EngineRefused,
    EngineSnapshot,
    EngineSuggestions,
)
from xmem_server.storage import sync_folder
from xmem_server.store import Store

SNAPSHOTS_KEPT = 2  # the newest may be of the moment the disk filled up
_DEATHS_ALLOWED = 1  # of the engine under one job, without a new matte in between
_LAST_EVENTS = (EngineDone, EngineFailed, EngineCancelled, EnginePaused)
_LOG = logging.getLogger(__name__)


class JobQueue:
    """Jobs of all clients, one at a time, each client getting its share (`fair_share`); one client's own in order of asking."""

    def __init__(
        self, store: Store, engine: Engine, wake: Callable[[], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._share = FairShare(clock)
        self._claim: Claim | None = None  # of the running job
        self._started = 0.0
        self._pause_asked = False
        self._store = store
        self._jobs = store.jobs
        self._lock = store.database.lock
        self._engine = engine
        self._wake = wake
        self._running: JobRecord | None = None
        self._progress: Progress | None = None
        self._cancel_asked = False
        self._again_asked = False
        self._is_down = engine.info().state == STOPPED  # it has said so: an end not heard yet is not answered here
        self._draining = ""  # an ended job that the engine has not let go of yet
        self._deaths: dict[str, int] = {}

    # --------------------------------------------------------------------------------------------- asked by the session

    @property
    def running(self) -> str:
        """The job the engine works on, or an empty string."""
        return self._running.job if self._running else ""

    def start_next(self) -> None:
        """Give the engine its next job when it has none; have a stopped engine started first."""
        with self._lock:
            claim = next(iter(self._fetch_order()), None)
            if claim is None or self._draining:
                return
            if self._running is not None:
                self._make_room(claim)
                return
            record = self._jobs.fetch(claim.job)
            if record is None:
                return
            if self._engine.info().state == IDLE:
                self._claim, self._started, self._pause_asked = claim, self._clock(), False
                self._start(record)
            elif self._is_down:
                self._is_down = False
                self._engine.restart()

    def _make_room(self, waiting: Claim) -> None:
        """Have the running job pause when the turn of this one has come. The caller holds the lock."""
        if self._claim is None or self._pause_asked or self._cancel_asked:
            return
        if self._share.is_before(waiting, self._claim, self._clock() - self._started):
            self._pause_asked = True
            self._engine.pause(self._claim.job)

    def queue_again(self, record: JobRecord, *, is_batch: bool = False) -> None:
        """Have a job that is known do what is left of it: nothing when it waits, runs, or is done without a failed frame.

        In every case but the first it counts as the newest from now on. It is batch work when all who ask say so.
        """
        with self._lock, self._store.database.transaction():
            if not is_batch or record.state not in (QUEUED, RUNNING):
                self._jobs.save_urgency(record.job, is_batch=is_batch)
            if record.job == self.running:
                self._again_asked = self._cancel_asked  # when it has stopped
                self._jobs.renew_place(record.job)
            elif record.state == DONE and not self._jobs.remove_failures(record.job):
                self._jobs.renew_place(record.job)
            elif record.state != QUEUED:
                if record.state == DONE:  # a snapshot would pass over the failed frames
                    self._store.drop_snapshots(record.session, record.job)
                self._jobs.queue_last(record.job)

    def request_cancel(self, job: str) -> None:
        """Stop a job: at once when it waits, within a frame when it runs, and nothing when it has ended."""
        with self._lock:
            record = self._jobs.fetch(job)
            if record is None:
                raise ServerError(NOT_FOUND, f"The server knows no job {job[:80]!r}.")
            if job == self.running:
                self._cancel_asked, self._again_asked = True, False
                self._engine.cancel(job)
            elif record.state not in (DONE, FAILED, CANCELLED):
                self._end(record, CANCELLED, JobCancelled(job, 0))
                self._wake()

    def fetch_states(self) -> list[tuple[Claim, Progress]]:
        """Give the running job, then those that wait in the order in which they would run, each with where it is."""
        with self._lock:
            waiting = self._fetch_order()
            states = [(claim, self._describe_wait(place, waiting)) for place, claim in enumerate(waiting)]
            if self._claim is not None and self._progress is not None:
                states.insert(0, (self._claim, self._progress))
            return states

    def fetch_progress(self, job: str) -> Progress | None:
        """Give where the job is, or None when it has ended."""
        with self._lock:
            if self._running is not None and self._running.job == job:
                return self._progress
            waiting = self._fetch_order()
            places = [place for place, claim in enumerate(waiting) if claim.job == job]
            return self._describe_wait(places[0], waiting) if places else None

    def _fetch_order(self) -> list[Claim]:
        """Give the jobs that wait in the order in which they would run now. The caller holds the lock."""
        return self._share.order(self._jobs.fetch_claims())

    def _describe_wait(self, place: int, waiting: list[Claim]) -> Progress:
        """Give the progress of a job that waits: how many are before it, and when it runs as far as that is known."""
        ahead = place + (self._running is not None)
        seconds = self._estimate_wait(waiting[place]) if place == 0 else -1.0
        return Progress(waiting[place].job, 0, "waiting", 0, ahead, 0, 0.0, seconds)

    def _estimate_wait(self, first: Claim) -> float:
        """Give the seconds until the first of those that wait runs, 0 when at once, -1 when nobody can say."""
        if self._claim is None or self._running is None:
            return 0.0
        ran = self._clock() - self._started
        eta = self._progress.eta_seconds if self._progress is not None else -1.0
        if not self._share.is_before(first, self._claim, max(SLICE_SECONDS, ran)):
            return round(eta, 1) if eta > 0 else -1.0
        until_slice = 0.0 if self._claim.is_batch and not first.is_batch else max(0.0, SLICE_SECONDS - ran)
        return round(min(until_slice, eta) if eta > 0 else until_slice, 1)

    # ---------------------------------------------------------------------------------------------- told by the engine

    def receive(self, event: Any) -> None:
        """Journal one event of the engine. A full disk ends the job it belongs to, never the server."""
        job = getattr(event, "job", None)
        if job == self._draining or job is None:
            self._draining = "" if job is None or isinstance(event, _LAST_EVENTS) else self._draining
        if job is not None and (self._running is None or job != self._running.job):
            _LOG.debug("An event of job %s came after its end.", job)
            return
        try:
            self._take(event)
        except (ServerError, OSError) as error:
            _LOG.warning("Job %s cannot go on: %s", job, error)
            if job is not None and not isinstance(event, _LAST_EVENTS):
                self._engine.cancel(job)
                self._draining = job
            self._give_up(error)

    @singledispatchmethod
    def _take(self, event: Any) -> None:
        _LOG.warning("The engine said %s, which means nothing here.", type(event).__name__)

    @_take.register
    def _(self, event: EngineProgress) -> None:
        with self._lock:
            self._progress = Progress(
                event.job,
                0,
                event.stage,
                event.done,
                event.total,
                event.frame,
                event.frames_per_second,
                event.eta_seconds,
                event.note,
            )

    @_take.register
    def _(self, event: EngineMatte) -> None:
        record = self._current()
        if self._jobs.has_event(event.job, MatteReady, event.frame):
            return  # computed again after a resume; the stored one stands
        if event.is_provisional:
            if not self._jobs.has_event(event.job, MatteProvisional, event.frame):
                files = tuple(store_matte(self._store, record, file) for file in event.files)
                self._jobs.add_event(MatteProvisional(event.job, 0, event.frame, event.is_key, files))
            return
        files = tuple(store_matte(self._store, record, file) for file in event.files)
        with self._store.database.transaction():
            self._jobs.remove_passed(event.job, event.frame)
            self._jobs.add_results(event.job, event.frame, files)
            self._jobs.add_event(MatteReady(event.job, 0, event.frame, event.is_key, files))
        self._deaths.pop(event.job, None)

    @_take.register
    def _(self, event: EngineSnapshot) -> None:
        record = self._current()
        source = find_scratch_file(self._store, record, event.path)
        target = self._store.snapshot_folder(record.session, record.job) / f"{event.frame}{source.suffix}"
        source.replace(target)
        sync_folder(target.parent)
        with self._store.database.transaction():
            self._jobs.save_snapshot(event.job, SnapshotRecord(event.frame, target))
            old = self._jobs.fetch_snapshots(event.job, target.parent)[SNAPSHOTS_KEPT:]
            for snapshot in old:
                self._jobs.remove_snapshot(event.job, snapshot.frame)
        for snapshot in old:
            snapshot.path.unlink(missing_ok=True)

    @_take.register
    def _(self, event: EngineFrameFailed) -> None:
        if not self._jobs.has_event(event.job, FrameFailed, event.frame):
            self._jobs.add_event(FrameFailed(event.job, 0, event.frame, event.message))

    @_take.register
    def _(self, event: EngineSuggestions) -> None:
        self._jobs.add_event(SuggestionsReady(event.job, 0, event.suggestions, event.note))

    @_take.register
    def _(self, event: EngineDone) -> None:
        record = self._current()
        self._end(record, DONE, JobDone(event.job, 0, event.summary))
        self._store.drop_snapshots(record.session, record.job)

    @_take.register
    def _(self, event: EngineFailed) -> None:
        self._end(self._current(), FAILED, JobFailed(event.job, 0, event.code, event.message))

    @_take.register
    def _(self, event: EngineCancelled) -> None:
        record, is_wanted_again = self._current(), self._again_asked
        self._end(record, CANCELLED, JobCancelled(event.job, 0))
        if is_wanted_again:
            self._jobs.queue_last(record.job)

    @_take.register
    def _(self, event: EnginePaused) -> None:
        """Let the job wait for its next turn; it keeps its place among its client's own."""
        with self._lock:
            record = self._current()
            if self._cancel_asked:
                self._end(record, CANCELLED, JobCancelled(event.job, 0))
                if self._again_asked:
                    self._jobs.queue_last(record.job)
                return
            self._jobs.save_state(record.job, QUEUED)
            self._let_go()

    @_take.register
    def _(self, event: EngineReady) -> None:
        """Nothing to write down: the queue goes on."""

    @_take.register
    def _(self, event: EngineStopped) -> None:
        """Start the engine again, and its job once more from the newest snapshot."""
        with self._lock:
            self._engine.restart()  # first: it must not depend on what can be written down
            record = self._running
            if record is not None:
                self._requeue(record, event.message)

    @_take.register
    def _(self, event: EngineRefused) -> None:
        """An engine that cannot start again cannot do any of the jobs that wait."""
        with self._lock:
            self._is_down = True
            for job in self._jobs.fetch_queue():
                record = self._jobs.fetch(job)
                if record is not None:
                    self._end(record, FAILED, JobFailed(record.job, 0, ENGINE_DIED, event.message))

    # -------------------------------------------------------------------------------------------------------- within

    def _start(self, record: JobRecord) -> None:
        """Journal that the job runs, then hand it over. The caller holds the lock."""
        self._running = dataclasses.replace(record, state=RUNNING)
        self._cancel_asked = self._again_asked = False
        self._progress = Progress(record.job, 0, "decoding", 0, 0, 0, 0.0, 0.0)
        self._store.keep_reserve()
        try:
            self._jobs.save_state(record.job, RUNNING)
            self._engine.submit(complete_plan(self._store, record))
        except LocalProtocolError as error:
            self._end(record, FAILED, JobFailed(record.job, 0, LIMIT_EXCEEDED, f"The job is too large: {error}"))
            self._wake()  # for the job behind it
        except (ServerError, OSError) as error:
            self._give_up(error)

    def _current(self) -> JobRecord:
        if self._running is None:
            raise ServerError(INTERNAL, "No job runs.")
        return self._running

    def _requeue(self, record: JobRecord, message: str) -> None:
        deaths = self._deaths.get(record.job, 0) + 1
        self._deaths[record.job] = deaths
        if self._cancel_asked:
            self._end(record, CANCELLED, JobCancelled(record.job, 0))
        elif deaths > _DEATHS_ALLOWED:
            text = f"{message} It did so twice at the same place; the keys and finished mattes are kept. Start again with a smaller working size."
            self._end(record, FAILED, JobFailed(record.job, 0, ENGINE_DIED, text))
        else:
            self._jobs.queue_first(record.job)
            self._let_go()

    def _end(self, record: JobRecord, state: str, event: Event) -> None:
        """Journal how a job ended, with its last event, in one transaction."""
        with self._lock:
            with self._store.database.transaction():
                self._jobs.save_state(record.job, state)
                self._jobs.add_event(event)
            if self._running is not None and self._running.job == record.job:
                self._let_go()
            self._deaths.pop(record.job, None)
        self._store.drop_scratch(record.session, record.job)

    def _let_go(self) -> None:
        """Have no job run, and count what the last one took."""
        if self._claim is not None:
            self._share.charge(self._claim.owner, self._clock() - self._started)
        self._running = self._progress = self._claim = None

    def _give_up(self, error: ServerError | OSError) -> None:
        """End the running job because something about it cannot be written down."""
        record = self._running
        if record is None:
            return
        self._store.drop_scratch(record.session, record.job)
        code = error.code if isinstance(error, ServerError) else INTERNAL
        if code == STORAGE_FULL:
            self._store.release_reserve()
        self._let_go()
        with contextlib.suppress(ServerError):  # still no space: a restart of the server finds the job interrupted
            self._end(record, FAILED, JobFailed(record.job, 0, code, str(error)))
            self._wake()  # for the job behind it
