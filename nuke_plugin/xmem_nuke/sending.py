"""A shot's plates and keys to the server: only what changed is rendered, and only what the server lacks travels."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from pathlib import Path

from xmem_client import Client, hash_file
from xmem_nuke.orders import KEY, PLATE, Content, FrameSent, Happening, Rendered, RunOrder, fetch_exr_channel
from xmem_nuke.remembered import Remembered
from xmem_protocol import ABSENT, BAD_INPUT, PRESENT, Key, Plate, ServerError, SessionState

_SUFFIX = ".exr"
_SAVE_EVERY = 20  # rendered frames; what is lost when Nuke dies in between is rendered again


class Sending:
    """One run's plates and keys on their way. Belongs to one thread; raises what the client raises."""

    def __init__(
        self, client: Client, order: RunOrder, remembered: Remembered, say: Callable[[Happening], None]
    ) -> None:
        self._client = client
        self._order = order
        self._remembered = remembered
        self._say = say
        self._given = dict(order.given)
        self._fingerprints: dict[tuple[str, int], str] = {}
        self._known: dict[tuple[str, int], str] = {}
        self._keys: dict[tuple[int, int], Key] = {}
        self._unsaved = 0

    def open(self) -> None:
        """Open the session and learn which keys it has."""
        self._note_state(self._client.open_session(self._order.session, self._order.shot))

    @property
    def keys(self) -> tuple[Key, ...]:
        """Give the keys as the server has them now, in order of frame, then object."""
        return tuple(self._keys[place] for place in sorted(self._keys))

    def fetch_wanted(self, contents: Iterable[Content]) -> tuple[tuple[str, int], ...]:
        """Give the frames that must be rendered, keys first; send the keys that are known already."""
        for content in contents:
            place = (content.kind, content.frame)
            self._fingerprints[place] = content.fingerprint
            sha256 = self._remembered.fetch_content(content.kind, content.fingerprint)
            if sha256:
                self._known[place] = sha256
        missing = self._client.fetch_missing(self._known.values())
        self._known = {place: sha256 for place, sha256 in self._known.items() if sha256 not in missing}
        self._remove_other_keys()
        for (kind, frame), sha256 in self._known.items():
            if kind == KEY:
                self._send_key(frame, sha256)
        unknown = [place for place in self._fingerprints if place not in self._known]
        return tuple(sorted(unknown, key=lambda place: (place[0] != KEY, place[1])))

    def send_rendered(self, rendered: Rendered) -> None:
        """Send a frame that was rendered, then delete the file: the server keeps its own copy."""
        place = (rendered.kind, rendered.frame)
        sha256 = hash_file(rendered.path)
        travels = bool(self._client.fetch_missing((sha256,)))
        if travels:
            self._client.store_file(rendered.path, sha256)
        self._known[place] = sha256
        self._remembered.note_content(rendered.kind, self._fingerprints.get(place, ""), sha256)
        if rendered.kind == KEY:
            self._send_key(rendered.frame, sha256)
        with contextlib.suppress(OSError):
            rendered.path.unlink()
        self._say(FrameSent(rendered.kind, rendered.frame, travels))
        self._unsaved += 1
        if self._unsaved >= _SAVE_EVERY:
            self._unsaved = 0
            self._remembered.save()

    def send_plates(self) -> None:
        """Say which file each frame is, for those where that changed since the session was last told."""
        session = self._order.session
        plates = {frame: sha256 for (kind, frame), sha256 in self._known.items() if kind == PLATE}
        told = self._remembered.fetch_plates(session)
        if self._plate_count != len(told):  # the server forgot some, or another copy of the script was busy
            told = {}
        changed = {frame: sha256 for frame, sha256 in sorted(plates.items()) if told.get(frame) != sha256}
        listed = [(Plate(frame, sha256, 0, _SUFFIX), Path()) for frame, sha256 in changed.items()]
        if listed:
            self._client.put_plates(session, listed, lambda _done, _total: None)
        self._remembered.note_plates(session, {**told, **plates})
        keyed = {frame: known for (kind, frame), known in self._fingerprints.items() if kind == KEY}
        self._remembered.note_sent_keys(keyed)
        self._remembered.save()

    def _remove_other_keys(self) -> None:
        """Forget keys of frames and objects that the artist no longer has."""
        for frame, object_id in list(self._keys):
            given = [number for number, _ in self._fetch_given(frame)]
            if (KEY, frame) not in self._fingerprints or object_id not in given:
                self._note_state(self._client.remove_key(self._order.session, frame, object_id))

    def _send_key(self, frame: int, sha256: str) -> None:
        """Say what the objects keyed at a frame are there: one file carries them all, each in its own channel."""
        for object_id, channel in self._fetch_given(frame):
            selector = f"channel:{fetch_exr_channel(channel)}"
            present = Key(frame, object_id, PRESENT, sha256, _SUFFIX, selector)
            absent = Key(frame, object_id, ABSENT, "", "", "")
            if f"{sha256} {selector}" in self._remembered.empty:
                self._put_key(absent)
                continue
            try:
                self._put_key(present)
            except ServerError as error:
                if not _is_empty(error):
                    raise
                self._remembered.empty.add(f"{sha256} {selector}")
                self._put_key(absent)

    def _fetch_given(self, frame: int) -> list[tuple[int, str]]:
        """Give the objects that the artist keyed at a frame, with their channels."""
        objects = list(self._order.objects)
        if frame not in self._given:
            return objects
        return [drawn for drawn in objects if drawn[0] in self._given[frame]]

    def _put_key(self, key: Key) -> None:
        if self._keys.get((key.frame, key.object_id)) != key:
            self._note_state(self._client.put_key(self._order.session, key, None))

    def _note_state(self, state: SessionState) -> None:
        self._plate_count = state.plate_count
        self._keys = {(key.frame, key.object_id): key for key in state.keys}


def _is_empty(error: ServerError) -> bool:
    """Whether the server refused a key because nothing is drawn in it: the artist says that the object is not there."""
    return error.code == BAD_INPUT and "is empty" in str(error)
