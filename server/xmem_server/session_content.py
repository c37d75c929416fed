"""What is in artists' sessions: shots, plates, keys and their history. Looks at files first, then gives what journals the change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from xmem_protocol import (
    LIMIT_EXCEEDED,
    MAX_ARRAY_ITEMS,
    MAX_PLATES_PER_MESSAGE,
    MAX_SESSIONS_PER_MESSAGE,
    NOT_FOUND,
    PRESENT,
    DeleteSession,
    InputError,
    Key,
    ListPlates,
    ListSessions,
    MakeThumbnail,
    Message,
    OpenSession,
    Plate,
    PlateList,
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
    ThumbnailMade,
    UndoKeys,
)
from xmem_server import checks
from xmem_server.clients import ClientKey
from xmem_server.headers import check_picture_size, say_which
from xmem_server.job_table import QUEUED, RUNNING
from xmem_server.limits import ClientLimits
from xmem_server.session_access import SessionAccess, name_for, resolve
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


class SessionContent:
    """Sessions in the store, as one client after another asks for them.

    What changes something gives a function that does so within a transaction; files are looked at before that.
    """

    def __init__(self, store: Store, decoder: PlateDecoder, limits: ClientLimits) -> None:
        self._store = store
        self._sessions = store.sessions
        self._decoder = decoder
        self._limits = limits
        self._access = SessionAccess(store)

    def list_sessions(self, client: ClientKey, message: ListSessions) -> SessionList:
        """Give the sessions that a client can see."""
        owner = "" if client.is_supervisor else client.name
        listed = self._sessions.fetch_list(owner, max(0, message.after), MAX_SESSIONS_PER_MESSAGE)
        return SessionList(
            tuple(
                SessionInfo(
                    name_for(client, each.record),
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

    def list_plates(self, client: ClientKey, message: ListPlates) -> PlateList:
        """Give which file each frame is."""
        session = self._access.fetch_session(client, message.session)
        plates = self._sessions.fetch_plates(session.number).values()
        wanted = [plate for plate in plates if plate.frame >= message.from_frame]
        return PlateList(tuple(wanted[:MAX_PLATES_PER_MESSAGE]))

    def undo_keys(self, client: ClientKey, message: UndoKeys) -> Effect:
        """Give what takes back the last change of keys."""
        return self._step_back(client, message.session, self._sessions.undo, "undone")

    def redo_keys(self, client: ClientKey, message: RedoKeys) -> Effect:
        """Give what makes an undone change again."""
        return self._step_back(client, message.session, self._sessions.redo, "done again")

    def _step_back(self, client: ClientKey, name: str, step: Callable[[int], bool], words: str) -> Effect:
        session = self._access.fetch_session(client, name)

        def effect() -> Message:
            if not step(session.number):
                raise InputError(f"No change of keys is left to be {words} in session {name!r}.")
            return self.fetch_state(client, name)

        return effect

    def delete_session(self, client: ClientKey, message: DeleteSession) -> Effect:
        """Give what forgets a session and the files that nothing else uses."""
        session = self._access.fetch_session(client, message.session)

        def effect() -> Message:
            for job in self._store.jobs.fetch_infos(session.number, MAX_ARRAY_ITEMS):
                if job.state in (QUEUED, RUNNING):
                    raise InputError(f"A job of session {message.session!r} is {job.state}. Cancel it first.")
            return SessionDeleted(message.session, self._store.remove_session(session.number))

        return effect

    def open_session(self, client: ClientKey, message: OpenSession) -> Effect:
        """Give what opens a session, or makes it."""
        owner, name = resolve(client, message.session)
        checks.check_session_name(name)
        checks.check_shot(message.shot)

        def effect() -> Message:
            known = self._sessions.fetch(owner, name)
            if known is None:
                self._check_room(owner)
                self._sessions.add(owner, name, message.shot)
            else:
                checks.check_same_shot(message.session, known.shot, message.shot)
            return self.fetch_state(client, message.session)

        return effect

    def _check_room(self, owner: str) -> None:
        if self._sessions.count(owner) >= self._limits.sessions:
            raise ServerError(
                LIMIT_EXCEEDED,
                f"{owner} has {self._limits.sessions} sessions, which is the most. Delete old ones: xmem sessions prune",
            )

    def put_plates(self, client: ClientKey, message: PutPlates) -> Effect:
        """Give what says which file each frame is, the files looked at."""
        session = self._access.fetch_session(client, message.session)
        frames = [plate.frame for plate in message.plates]
        if len(set(frames)) < len(frames):
            twice = next(frame for frame in frames if frames.count(frame) > 1)
            raise InputError(f"Frame {twice} is given two plates at once. Send one.")
        for plate in message.plates:
            checks.check_plate(plate, session.shot)
        self._check_headers(message.plates, session.shot)

        def effect() -> Message:
            self._sessions.save_plates(session.number, message.plates)
            return self.fetch_state(client, message.session)

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

    def put_key(self, client: ClientKey, message: PutKey) -> Effect:
        """Give what puts a key, its alpha looked at."""
        session = self._access.fetch_session(client, message.session)
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
            return self.fetch_state(client, message.session)

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

    def remove_key(self, client: ClientKey, message: RemoveKey) -> Effect:
        """Give what forgets keys."""
        session = self._access.fetch_session(client, message.session)
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
            return self.fetch_state(client, message.session)

        return effect

    def make_thumbnail(self, client: ClientKey, message: MakeThumbnail) -> ThumbnailMade:
        """Draw and store a thumbnail. Nothing is journalled: it can be drawn again."""
        session = self._access.fetch_session(client, message.session)
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

    def fetch_state(self, client: ClientKey, name: str) -> SessionState:
        """Give a session as it is stored now, under the name it was asked for."""
        session = self._access.fetch_session(client, name)
        return SessionState(
            session=name,
            shot=session.shot,
            revision=session.revision,
            plate_count=self._sessions.count_plates(session.number),
            keys=self._sessions.fetch_keys(session.number),
            jobs=self._store.jobs.fetch_infos(session.number, JOBS_NAMED),
        )
