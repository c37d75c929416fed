"""What artists' sessions are: shots, plates, keys and jobs. Checks first, journals, then answers. No sockets here.

A request that changes something has its effect once, however often it is sent: its answer is journalled in the same
transaction as its effect. Files are looked at (by the decode process) before anything about them is journalled.
"""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Callable
from typing import Any

from xmem_protocol import (
    BAD_REQUEST,
    Cancel,
    CancelAccepted,
    DeleteSession,
    EngineInfo,
    Envelope,
    Event,
    FindMissing,
    Follow,
    Following,
    InputError,
    JobAccepted,
    JobStatus,
    ListPlates,
    ListSessions,
    MakeThumbnail,
    MattesStale,
    Message,
    Missing,
    OpenSession,
    Progress,
    PutKey,
    PutPlates,
    RedoKeys,
    RemoveKey,
    ServerError,
    StartPropagation,
    StartSuggestion,
    UndoKeys,
)
from xmem_server import checks, planning
from xmem_server.clients import ClientKey
from xmem_server.engines import Engine
from xmem_server.job_table import PROPAGATION, QUEUED, SUGGESTION, JobRecord, Plan
from xmem_server.jobs import JobQueue
from xmem_server.limits import ClientLimits
from xmem_server.plans import PREVIEW_FRAMES, MatteSource, PropagationPlan
from xmem_server.session_access import SessionAccess, resolve
from xmem_server.session_content import Effect, PlateDecoder, SessionContent
from xmem_server.session_table import Request, SessionRecord
from xmem_server.store import Store


class SessionHost:
    """Every session of this server, and the jobs of its engine.

    All calls come from one thread, but for ``request_cancel``, which any thread may call.
    """

    def __init__(
        self,
        store: Store,
        engine: Engine,
        decoder: PlateDecoder,
        wake: Callable[[], None],
        limits: ClientLimits = ClientLimits(),  # noqa: B008 - frozen
    ) -> None:
        self._store = store
        self._access = SessionAccess(store)
        content = self._content = SessionContent(store, decoder, limits)
        self._sessions = store.sessions
        self._engine = engine
        self._decoder = decoder
        self._queue = JobQueue(store, engine, wake)
        self._changes: dict[type[Message], Callable[[ClientKey, Any], Effect]] = {
            OpenSession: content.open_session,
            PutPlates: content.put_plates,
            PutKey: content.put_key,
            RemoveKey: content.remove_key,
            StartPropagation: self._start_propagation,
            StartSuggestion: self._start_suggestion,
            UndoKeys: content.undo_keys,
            RedoKeys: content.redo_keys,
            DeleteSession: content.delete_session,
        }
        self._questions: dict[type[Message], Callable[[ClientKey, Any], Message]] = {
            FindMissing: self._find_missing,
            Follow: self._follow,
            Cancel: self._cancel,
            MakeThumbnail: content.make_thumbnail,
            ListPlates: content.list_plates,
            ListSessions: content.list_sessions,
        }
        engine.listen(wake)

    def answer(self, client: ClientKey, envelope: Envelope) -> Message:
        """Give the answer to a client's request; sent again with the same id it has no second effect.

        Raises InputError or ServerError when it cannot be done; then nothing has changed.
        """
        message = envelope.message
        question = self._questions.get(type(message))
        if question is not None:
            return question(client, message)
        prepare = self._changes.get(type(message))
        if prepare is None:
            raise ServerError(BAD_REQUEST, f"A {message.TYPE} is not a request that a session answers.")
        request = Request(envelope.client, envelope.id, message, getattr(message, "session", ""))
        return self._change(client, request, prepare)

    def _change(self, client: ClientKey, request: Request, prepare: Callable[[ClientKey, Any], Effect]) -> Message:
        if not request.id or not request.client:
            raise ServerError(
                BAD_REQUEST, f"A {request.message.TYPE} needs an id and a client, to be sent again safely."
            )
        known = self._sessions.fetch_reply(request)
        if known is not None:
            return known.message or self._content.fetch_state(client, request.session)
        effect = prepare(client, request.message)  # looks at files, which may take long: outside the transaction
        with self._store.database.transaction():
            reply = effect()
            self._sessions.save_reply(request, reply)
            self._touch(client, request.session)
        self._store.drop_removed()
        self._queue.start_next()
        return reply

    def _touch(self, client: ClientKey, name: str) -> None:
        session = self._sessions.fetch(*resolve(client, name))
        if session is not None:
            self._sessions.touch(session.number)

    def _find_missing(self, client: ClientKey, message: FindMissing) -> Missing:
        del client  # a file is named by its content: who knows its name has it
        return Missing(tuple(name for name in message.sha256s if not self._store.renew_file(name)))

    def _follow(self, client: ClientKey, message: Follow) -> Following:
        return Following(message.job, self._access.fetch_job(client, message.job).state)

    def _cancel(self, client: ClientKey, message: Cancel) -> CancelAccepted:
        self.request_cancel(message.job, client)
        return CancelAccepted(message.job)

    # ------------------------------------------------------------------------------------------------------------ jobs

    def _start_propagation(self, client: ClientKey, message: StartPropagation) -> Effect:
        session = self._access.fetch_session(client, message.session)
        checks.check_propagation(message.settings, session.shot)
        checks.check_playhead(message.playhead, session.shot)
        colour_id = self._decoder.fetch_colour_id(session.shot.colorspace)

        def effect() -> Message:
            material = self._fetch_material(session, colour_id)
            before = self._fetch_before(session, message)
            plan = planning.fetch_propagation_plan(_new_job(), material, message.settings, message.playhead, before)
            identity = planning.fetch_propagation_identity(plan, self._model_sha256())
            accepted = self._accept(session, PROPAGATION, identity, plan, is_batch=message.batch)
            if message.playhead and accepted.job == plan.job:
                self._store.jobs.add_event(MattesStale(plan.job, 0, message.settings.first, message.settings.last))
            return accepted

        return effect

    def _start_suggestion(self, client: ClientKey, message: StartSuggestion) -> Effect:
        session = self._access.fetch_session(client, message.session)
        colour_id = self._decoder.fetch_colour_id(session.shot.colorspace)

        def effect() -> Message:
            keys = self._sessions.fetch_keys(session.number)
            checks.check_suggestion(message.settings, frozenset(key.object_id for key in keys))
            source, propagation, identity = self._fetch_propagated(session, colour_id)
            results = self._store.jobs.fetch_results(source)
            plan = planning.fetch_suggestion_plan(_new_job(), propagation, results, message.settings)
            identity = planning.fetch_suggestion_identity(identity, results, message.settings)
            return self._accept(session, SUGGESTION, identity, plan)

        return effect

    def _accept(
        self, session: SessionRecord, kind: str, identity: str, plan: Plan, *, is_batch: bool = False
    ) -> JobAccepted:
        """Queue a job, or the one that has the same identity."""
        known = self._store.jobs.find(session.number, identity)
        if known is not None:
            self._queue.queue_again(known, is_batch=is_batch)
            return JobAccepted(known.job)
        self._store.jobs.add(JobRecord(plan.job, session.number, kind, identity, QUEUED, 0), plan, is_batch=is_batch)
        return JobAccepted(plan.job)

    def _fetch_before(self, session: SessionRecord, message: StartPropagation) -> tuple[MatteSource, ...]:
        """Give the mattes around the playhead of the propagation that finished last, if they were made alike."""
        done = self._store.jobs.fetch_done(session.number)
        if not message.playhead or not done:
            return ()
        plan = self._store.jobs.fetch_plan(done[0])
        if not isinstance(plan, PropagationPlan) or plan.settings.layout != message.settings.layout:
            return ()
        sources = planning.fetch_matte_sources(self._store.jobs.fetch_results(done[0]), plan.keys)
        return tuple(each for each in sources if abs(each.frame - message.playhead[0]) <= PREVIEW_FRAMES)

    def _fetch_propagated(self, session: SessionRecord, colour_id: str) -> tuple[str, PropagationPlan, str]:
        """Give the finished propagation of the present keys, plates and colour asked for last: its job, plan, identity."""
        material = self._fetch_material(session, colour_id)
        for job in self._store.jobs.fetch_done(session.number):
            plan = self._store.jobs.fetch_plan(job)
            record = self._store.jobs.fetch(job)
            if not isinstance(plan, PropagationPlan) or record is None:
                continue
            try:
                present = planning.fetch_propagation_plan(job, material, plan.settings)
            except InputError:
                continue  # a key or a plate is gone since
            if planning.fetch_propagation_identity(present, self._model_sha256()) == record.params_hash:
                return job, plan, record.params_hash
        raise InputError("The keys have no finished propagation yet. Run it first; suggestions look at its mattes.")

    def _fetch_material(self, session: SessionRecord, colour_id: str) -> planning.Material:
        return planning.Material(
            session=session.name,
            shot=session.shot,
            keys=self._sessions.fetch_keys(session.number),
            plates=self._sessions.fetch_plates(session.number),
            colour_id=colour_id,
        )

    def _model_sha256(self) -> str:
        return self._engine.info().model_sha256

    # ------------------------------------------------------------------------------------------------ jobs, from outside

    def receive_engine_events(self) -> None:
        """Journal what the engine said, then give it its next job."""
        for event in self._engine.events():
            self._queue.receive(event)
        self._queue.start_next()

    def fetch_events(self, job: str, after_seq: int, limit: int) -> tuple[Event, ...]:
        """Give at most ``limit`` stored events of the job after this number, in order."""
        return self._store.jobs.fetch_events(job, after_seq, limit)

    def fetch_progress(self, job: str) -> Progress | None:
        """Give where the job is now, or None when it has ended."""
        return self._queue.fetch_progress(job)

    def request_cancel(self, job: str, client: ClientKey) -> None:
        """Stop a job; any thread may call. Raises ServerError NOT_FOUND for a job that never was, FORBIDDEN for another's."""
        self._access.fetch_job(client, job)
        self._queue.request_cancel(job)

    def engine_infos(self) -> tuple[EngineInfo, ...]:
        """Give the engines and whether they are busy."""
        info = self._engine.info()
        return (dataclasses.replace(info, state="busy") if self._queue.running else info,)

    def measure_engines(self) -> tuple[EngineInfo, ...]:
        """Give the engines with the memory they hold."""
        held = self._engine.resident_bytes()
        return tuple(dataclasses.replace(info, resident_bytes=held) for info in self.engine_infos())

    def session_count(self, client: ClientKey) -> int:
        """Give the number of sessions that this client can see."""
        return self._sessions.count("" if client.is_supervisor else client.name)

    def disk_bytes(self) -> tuple[int, int]:
        """Give what the stored files take, and what their disk has left."""
        return self._store.stored_bytes, self._store.free_bytes()

    def queued_count(self) -> int:
        """Give the number of jobs that wait."""
        return len(self._store.jobs.fetch_queue())

    def fetch_job_states(self, client: ClientKey) -> tuple[JobStatus, ...]:
        """Give the running job and those that wait, in the order in which they would run."""
        states = []
        for claim, progress in self._queue.fetch_states():
            record = self._store.jobs.fetch(claim.job)
            is_seen = client.is_supervisor or claim.owner == client.name
            name = self._sessions.fetch_number(record.session).name if record is not None and is_seen else ""
            states.append(
                JobStatus(
                    claim.job if is_seen else "",
                    claim.owner,
                    name,
                    claim.is_batch,
                    progress.stage,
                    progress.done,
                    progress.total,
                    progress.frames_per_second,
                    progress.eta_seconds,
                )
            )
        return tuple(states)

    def close(self) -> None:
        """Leave jobs as interrupted and let go of the engine; the store stays open."""
        self._engine.close()
        with self._store.database.transaction():
            self._store.jobs.interrupt_all()


def _new_job() -> str:
    return uuid.uuid4().hex
