"""What artists' sessions are: shots, plates, keys and jobs. Checks first, journals, then answers. No sockets here.

A request that changes something has its effect once, however often it is sent: its answer is journalled in the same
transaction as its effect. Files are looked at (by the decode process) before anything about them is journalled.
"""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from xmem_protocol import (
    BAD_REQUEST,
    FORBIDDEN,
    LIMIT_EXCEEDED,
    MAX_ARRAY_ITEMS,
    MAX_PLATES_PER_MESSAGE,
    MAX_SESSIONS_PER_MESSAGE,
    NOT_FOUND,
    PRESENT,
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
    Key,
    ListPlates,
    ListSessions,
    MakeThumbnail,
    Message,
    Missing,
    OpenSession,
    Plate,
    PlateList,
    Progress,
    PutKey,
    PutPlates,
    RedoKeys,
    RemoveKey,
    ServerError,
    SessionDeleted,
    SessionInfo,
    SessionList,
    SessionState,
    Shot,
    StartPropagation,
    StartSuggestion,
    ThumbnailMade,
    UndoKeys,
)
from xmem_server import checks, planning
from xmem_server.clients import ClientKey
from xmem_server.engines import Engine
from xmem_server.headers import check_picture_size, say_which
from xmem_server.job_table import PROPAGATION, QUEUED, RUNNING, SUGGESTION, JobRecord, Plan
from xmem_server.jobs import JobQueue
from xmem_server.limits import ClientLimits
from xmem_server.plans import PropagationPlan
from xmem_server.session_table import Request, SessionRecord
from xmem_server.store import Store
from xmem_server.thumbnails import make_thumbnail

MAX_KEYS = MAX_ARRAY_ITEMS  # a session's state names them all in one message
JOBS_NAMED = 100  # the newest ones, in a session's state

Effect = Callable[[], Message]


class PlateDecoder(Protocol):
    """What a session asks of the decode process."""

    def fetch_header(self, path: str, suffix: str) -> Any:
        """Give ``width`` and ``height`` of a plate's display window, ``pictures`` in it. Raises InputError."""

    def fetch_alpha(self, path: str, suffix: str, selector: str) -> Any:
        """Give a key's alpha, float32 HxW. Raises InputError."""

    def fetch_plate(self, path: str, suffix: str, index: int, colorspace: str, size: tuple[int, int]) -> Any:
        """Give a plate, float32 HxWx3, averaged down to ``size``. Raises InputError."""

    def fetch_colour_id(self, colorspace: str) -> str:
        """Give the id of what a colour space does to numbers now. Raises InputError."""


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
        self._limits = limits
        self._sessions = store.sessions
        self._engine = engine
        self._decoder = decoder
        self._queue = JobQueue(store, engine, wake)
        self._changes: dict[type[Message], Callable[[ClientKey, Any], Effect]] = {
            OpenSession: self._open_session,
            PutPlates: self._put_plates,
            PutKey: self._put_key,
            RemoveKey: self._remove_key,
            StartPropagation: self._start_propagation,
            StartSuggestion: self._start_suggestion,
            UndoKeys: self._undo_keys,
            RedoKeys: self._redo_keys,
            DeleteSession: self._delete_session,
        }
        self._questions: dict[type[Message], Callable[[ClientKey, Any], Message]] = {
            FindMissing: self._find_missing,
            Follow: self._follow,
            Cancel: self._cancel,
            MakeThumbnail: self._make_thumbnail,
            ListPlates: self._list_plates,
            ListSessions: self._list_sessions,
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
            return known.message or self._fetch_state(client, request.session)
        effect = prepare(client, request.message)  # looks at files, which may take long: outside the transaction
        with self._store.database.transaction():
            reply = effect()
            self._sessions.save_reply(request, reply)
            self._touch(client, request.session)
        self._queue.start_next()
        return reply

    def _touch(self, client: ClientKey, name: str) -> None:
        session = self._sessions.fetch(*_resolve(client, name))
        if session is not None:
            self._sessions.touch(session.number)

    def _find_missing(self, client: ClientKey, message: FindMissing) -> Missing:
        del client  # a file is named by its content: who knows its name has it
        return Missing(tuple(name for name in message.sha256s if not self._store.renew_file(name)))

    def _follow(self, client: ClientKey, message: Follow) -> Following:
        return Following(message.job, self._known_job(client, message.job).state)

    def _cancel(self, client: ClientKey, message: Cancel) -> CancelAccepted:
        self.request_cancel(message.job, client)
        return CancelAccepted(message.job)

    # ------------------------------------------------------------------------------------------ sessions, plates, keys

    def _list_sessions(self, client: ClientKey, message: ListSessions) -> SessionList:
        owner = "" if client.is_supervisor else client.name
        listed = self._sessions.fetch_list(owner, max(0, message.after), MAX_SESSIONS_PER_MESSAGE)
        return SessionList(
            tuple(
                SessionInfo(
                    _name_for(client, each.record),
                    each.record.owner,
                    each.record.shot,
                    each.plates,
                    each.keys,
                    each.jobs,
                    each.created,
                    each.touched,
                )
                for each in listed
            )
        )

    def _list_plates(self, client: ClientKey, message: ListPlates) -> PlateList:
        session = self._known_session(client, message.session)
        plates = self._sessions.fetch_plates(session.number).values()
        wanted = [plate for plate in plates if plate.frame >= message.from_frame]
        return PlateList(tuple(wanted[:MAX_PLATES_PER_MESSAGE]))

    def _undo_keys(self, client: ClientKey, message: UndoKeys) -> Effect:
        return self._step_back(client, message.session, self._sessions.undo, "undone")

    def _redo_keys(self, client: ClientKey, message: RedoKeys) -> Effect:
        return self._step_back(client, message.session, self._sessions.redo, "done again")

    def _step_back(self, client: ClientKey, name: str, step: Callable[[int], bool], words: str) -> Effect:
        session = self._known_session(client, name)

        def effect() -> Message:
            if not step(session.number):
                raise InputError(f"No change of keys is left to be {words} in session {name!r}.")
            return self._fetch_state(client, name)

        return effect

    def _delete_session(self, client: ClientKey, message: DeleteSession) -> Effect:
        session = self._known_session(client, message.session)

        def effect() -> Message:
            for job in self._store.jobs.fetch_infos(session.number, MAX_ARRAY_ITEMS):
                if job.state in (QUEUED, RUNNING):
                    raise InputError(f"A job of session {message.session!r} is {job.state}. Cancel it first.")
            return SessionDeleted(message.session, self._store.remove_session(session.number))

        return effect

    def _open_session(self, client: ClientKey, message: OpenSession) -> Effect:
        owner, name = _resolve(client, message.session)
        checks.check_session_name(name)
        checks.check_shot(message.shot)

        def effect() -> Message:
            known = self._sessions.fetch(owner, name)
            if known is None:
                self._check_room(owner)
                self._sessions.add(owner, name, message.shot)
            else:
                checks.check_same_shot(message.session, known.shot, message.shot)
            return self._fetch_state(client, message.session)

        return effect

    def _check_room(self, owner: str) -> None:
        if self._sessions.count(owner) >= self._limits.sessions:
            raise ServerError(
                LIMIT_EXCEEDED,
                f"{owner} has {self._limits.sessions} sessions, which is the most. Delete old ones: xmem sessions prune",
            )

    def _put_plates(self, client: ClientKey, message: PutPlates) -> Effect:
        session = self._known_session(client, message.session)
        frames = [plate.frame for plate in message.plates]
        if len(set(frames)) < len(frames):
            twice = next(frame for frame in frames if frames.count(frame) > 1)
            raise InputError(f"Frame {twice} is given two plates at once. Send one.")
        for plate in message.plates:
            checks.check_plate(plate, session.shot)
        self._check_headers(message.plates, session.shot)

        def effect() -> Message:
            self._sessions.save_plates(session.number, message.plates)
            return self._fetch_state(client, message.session)

        return effect

    def _check_headers(self, plates: Sequence[Plate], shot: Shot) -> None:
        """Look into every file once, also when it holds many frames."""
        counts: dict[tuple[str, str], int] = {}
        for plate in plates:
            file = (plate.sha256, plate.suffix)
            if file not in counts:
                counts[file] = self._check_header(plate, shot)
            if plate.index >= counts[file]:
                raise InputError(
                    f"Frame {plate.frame} is picture {plate.index + 1} of a file that has {counts[file]}. "
                    "Correct the range, or send the missing pictures."
                )

    def _check_header(self, plate: Plate, shot: Shot) -> int:
        """Give the number of pictures in the plate's file, all of the shot's size."""
        self._check_stored(plate.sha256, f"Frame {plate.frame}")
        try:
            header = self._decoder.fetch_header(str(self._store.file_path(plate.sha256)), plate.suffix)
        except InputError as error:
            raise say_which(f"Frame {plate.frame}'s plate", error) from error
        size = (header.width, header.height)
        check_picture_size(
            f"Frame {plate.frame}", size, (shot.width, shot.height), "Re-render the plate at one format."
        )
        return int(header.pictures)

    def _put_key(self, client: ClientKey, message: PutKey) -> Effect:
        session = self._known_session(client, message.session)
        key = message.key
        checks.check_key(key, session.shot)
        if key.presence == PRESENT:
            self._check_alpha(key, session.shot)

        def effect() -> Message:
            known = self._sessions.fetch_keys(session.number)
            is_new = (key.frame, key.object_id) not in {(old.frame, old.object_id) for old in known}
            if is_new and len(known) >= MAX_KEYS:
                raise ServerError(LIMIT_EXCEEDED, f"A session holds {MAX_KEYS} keys at most. Remove some first.")
            self._sessions.save_key(session.number, key)
            return self._fetch_state(client, message.session)

        return effect

    def _check_alpha(self, key: Key, shot: Shot) -> None:
        where = checks.name_key(key)
        self._check_stored(key.sha256, where)
        try:
            alpha = self._decoder.fetch_alpha(str(self._store.file_path(key.sha256)), key.suffix, key.selector)
        except InputError as error:
            raise say_which(where, error) from error
        height, width = alpha.shape
        check_picture_size(where, (width, height), (shot.width, shot.height), "Render it at the plate's format.")
        if not alpha.any():
            raise InputError(f"{where} is empty; draw the object or mark it absent.")

    def _check_stored(self, sha256: str, where: str) -> None:
        if not self._store.has_file(sha256):
            raise ServerError(NOT_FOUND, f"{where}: its file {sha256[:12]} is not on the server yet. Upload it first.")

    def _remove_key(self, client: ClientKey, message: RemoveKey) -> Effect:
        session = self._known_session(client, message.session)
        checks.check_frame(message.frame, session.shot)

        def effect() -> Message:
            self._sessions.remove_keys(
                session.number,
                [
                    key
                    for key in self._sessions.fetch_keys(session.number)
                    if key.frame == message.frame and message.object_id in (0, key.object_id)
                ],
            )
            return self._fetch_state(client, message.session)

        return effect

    def _make_thumbnail(self, client: ClientKey, message: MakeThumbnail) -> ThumbnailMade:
        """Draw and store a thumbnail. Nothing is journalled: it can be drawn again."""
        session = self._known_session(client, message.session)
        checks.check_frame(message.frame, session.shot)
        checks.check_thumbnail_height(message.height)
        plate = self._sessions.fetch_plates(session.number).get(message.frame)
        if plate is None:
            raise InputError(f"Frame {message.frame} has no plate yet. Press Run first.")
        keys = [key for key in self._sessions.fetch_keys(session.number) if key.frame == message.frame]
        try:
            content = make_thumbnail(self._decoder, self._store, session.shot, (plate, keys), message.height)
        except InputError as error:
            raise InputError(f"Frame {message.frame}: {error}") from error
        return ThumbnailMade(message.frame, self._store.save_bytes(content), len(content))

    # ------------------------------------------------------------------------------------------------------------ jobs

    def _start_propagation(self, client: ClientKey, message: StartPropagation) -> Effect:
        session = self._known_session(client, message.session)
        checks.check_propagation(message.settings, session.shot)
        colour_id = self._decoder.fetch_colour_id(session.shot.colorspace)

        def effect() -> Message:
            material = self._fetch_material(session, colour_id)
            plan = planning.fetch_propagation_plan(_new_job(), material, message.settings)
            identity = planning.fetch_propagation_identity(plan, self._model_sha256())
            return self._accept(session, PROPAGATION, identity, plan, is_batch=message.batch)

        return effect

    def _start_suggestion(self, client: ClientKey, message: StartSuggestion) -> Effect:
        session = self._known_session(client, message.session)
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
    ) -> Message:
        """Queue a job, or the one that has the same identity."""
        known = self._store.jobs.find(session.number, identity)
        if known is not None:
            self._queue.queue_again(known, is_batch=is_batch)
            return JobAccepted(known.job)
        self._store.jobs.add(JobRecord(plan.job, session.number, kind, identity, QUEUED, 0), plan, is_batch=is_batch)
        return JobAccepted(plan.job)

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
        self._known_job(client, job)
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

    # -------------------------------------------------------------------------------------------------------- within

    def _known_session(self, client: ClientKey, name: str) -> SessionRecord:
        session = self._sessions.fetch(*_resolve(client, name))
        if session is None:
            raise ServerError(NOT_FOUND, f"The server knows no session {name[:80]!r}. Open it first.")
        return session

    def _known_job(self, client: ClientKey, job: str) -> JobRecord:
        record = self._store.jobs.fetch(job)
        if record is None:
            raise ServerError(NOT_FOUND, f"The server knows no job {job[:80]!r}.")
        if not client.is_supervisor and self._sessions.fetch_number(record.session).owner != client.name:
            raise ServerError(FORBIDDEN, f"Job {job[:80]!r} belongs to another client. Ask for a supervisor's key.")
        return record

    def _fetch_state(self, client: ClientKey, name: str) -> SessionState:
        session = self._known_session(client, name)
        return SessionState(
            session=name,
            shot=session.shot,
            revision=session.revision,
            plate_count=self._sessions.count_plates(session.number),
            keys=self._sessions.fetch_keys(session.number),
            jobs=self._store.jobs.fetch_infos(session.number, JOBS_NAMED),
        )


def _name_for(client: ClientKey, session: SessionRecord) -> str:
    """Give the name by which this client opens a session."""
    return session.name if session.owner == client.name else f"@{session.owner}/{session.name}"


def _resolve(client: ClientKey, name: str) -> tuple[str, str]:
    """Give the owner and the name of the session that a client means: its own, or ``@OWNER/NAME`` for a supervisor.

    Raises ServerError FORBIDDEN when it is another's and the client is no supervisor.
    """
    if not name.startswith("@"):
        return client.name, name
    owner, _, own_name = name[1:].partition("/")
    if owner != client.name and not client.is_supervisor:
        raise ServerError(FORBIDDEN, f"Session {name[:80]!r} belongs to another client. Ask for a supervisor's key.")
    return owner, own_name


def _new_job() -> str:
    return uuid.uuid4().hex
