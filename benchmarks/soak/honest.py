"""Honest clients: each works on its own session through all that goes on around it, and writes down what was acknowledged."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from benchmarks.soak.ledger import ClientLedger, Gate, Ledger
from tests.server.house import SHOT, alpha, picture
from xmem_client import Client, Timeouts, fetch_connection, hash_file
from xmem_protocol import (
    ENGINE_DIED,
    PRESENT,
    JobCancelled,
    JobDone,
    JobFailed,
    Key,
    MatteReady,
    Plate,
    PropagationSettings,
    SessionState,
    SuggestionSettings,
    XMemError,
)

SESSION = "roto"
SETTINGS = PropagationSettings(SHOT.first, SHOT.last)
TIMEOUTS = Timeouts(ping=0.5, silence=2.0, backoff_first=0.1, backoff_last=0.5, resend=2.0, total=90.0)
_ALPHAS = (60, 128, 200, 255)  # few of them, so that different clients come to the same keys
_FRAMES = (1001, 1003, 1006)


class Shelf:
    """The files that clients send: the shot's plates and some key mattes, made once."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.plates = []
        for frame in range(SHOT.first, SHOT.last + 1):
            path = folder / f"plate.{frame}.png"
            path.write_bytes(picture(frame))
            self.plates.append((Plate(frame, hash_file(path), 0, ".png"), path))
        self.alphas: dict[int, list[tuple[Path, str]]] = {1: [], 2: []}  # by object: they must not cover each other
        for value in _ALPHAS:
            for object_id, content in ((1, alpha(value)), (2, _turned(alpha(value)))):
                path = folder / f"alpha.{object_id}.{value}.png"
                path.write_bytes(content)
                self.alphas[object_id].append((path, hash_file(path)))


def _turned(content: bytes) -> bytes:
    """Give a PNG upside down."""
    pixels = np.asarray(cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_GRAYSCALE))
    return cv2.imencode(".png", np.ascontiguousarray(pixels[::-1, ::-1]))[1].tobytes()


class HonestClient(threading.Thread):
    """One artist."""

    def __init__(self, name: str, key_file: Path, shelf: Shelf, gate: Gate, ledger: Ledger, seed: int) -> None:
        super().__init__(name=name)
        self._key_file = key_file
        self._shelf = shelf
        self._gate = gate
        self._ledger = ledger
        self._random = random.Random(seed)
        self._mine = ledger.clients.setdefault(name, ClientLedger())
        self._actions: tuple[Callable[[Client], None], ...] = (
            *[self._put_key] * 5,
            *[self._remove_key] * 2,
            self._step_back,
            *[self._propagate] * 3,
            self._cancel,
            self._suggest,
            self._look,
            self._begin_again,
        )

    def run(self) -> None:
        """Act until the gate says that it is over."""
        with Client(lambda: fetch_connection(self._key_file), f"soak-{self.name}", TIMEOUTS) as client:
            self._open(client)
            while True:
                with self._gate.passing() as is_on:
                    if not is_on:
                        return
                    self._act(client, self._random.choice(self._actions))

    def _act(self, client: Client, action: Callable[[Client], None]) -> None:
        try:
            action(client)
        except XMemError as error:
            self._ledger.accuse(
                f"{self.name}: {action.__name__.strip('_')} was refused: {type(error).__name__}: {error}"
            )
        self._ledger.count(action.__name__.strip("_"))

    def _open(self, client: Client) -> None:
        client.open_session(SESSION, SHOT)
        client.put_plates(SESSION, self._shelf.plates, lambda done, total: None)
        self._put_key(client)

    def _take(self, state: SessionState) -> None:
        """Write down the keys as the server says they are; what was asked for must be among them."""
        self._mine.keys = {(key.frame, key.object_id): key.sha256 for key in state.keys}

    def _put_key(self, client: Client) -> None:
        frame, object_id = self._random.choice(_FRAMES), self._random.choice((1, 1, 2))
        path, sha256 = self._random.choice(self._shelf.alphas[object_id])
        before = dict(self._mine.keys)
        state = client.put_key(SESSION, Key(frame, object_id, PRESENT, sha256, ".png", "channel:auto"), path)
        self._take(state)
        self._expect({**before, (frame, object_id): sha256}, "put_key")

    def _remove_key(self, client: Client) -> None:
        if len(self._mine.keys) < 2:
            return
        frame, object_id = self._random.choice(sorted(self._mine.keys))
        before = dict(self._mine.keys)
        self._take(client.remove_key(SESSION, frame, object_id))
        before.pop((frame, object_id))
        self._expect(before, "remove_key")

    def _step_back(self, client: Client) -> None:
        before = dict(self._mine.keys)
        try:
            self._take(client.undo_keys(SESSION))
        except XMemError as error:
            if "No change of keys is left" not in str(error):
                raise
            return
        self._take(client.redo_keys(SESSION))
        self._expect(before, "undo and redo")

    def _expect(self, wanted: dict[tuple[int, int], str], action: str) -> None:
        if self._mine.keys != wanted:
            self._ledger.accuse(f"{self.name}: after {action} the keys are {self._mine.keys}, not {wanted}")

    def _start(self, client: Client) -> str:
        playhead = self._random.choice((None, *range(SHOT.first, SHOT.last + 1)))
        job = client.start_propagation(SESSION, SETTINGS, batch=self._random.random() < 0.3, playhead=playhead)
        self._mine.jobs.add(job)
        return job

    def _propagate(self, client: Client) -> None:
        if not self._mine.keys:
            return
        job = self._start(client)
        mattes: dict[int, str] = {}
        for event in client.follow(job):
            if isinstance(event, MatteReady):
                mattes[event.frame] = " ".join(file.sha256 for file in event.files)
            elif isinstance(event, JobDone):
                self._ledger.note_result(self._mine.keys, mattes)
            elif isinstance(event, JobFailed) and event.code == ENGINE_DIED:
                self._ledger.count(
                    "engine killed again and again"
                )  # the artist is told to start again; nothing is lost
            elif isinstance(event, JobFailed):
                self._ledger.accuse(f"{self.name}: job {job} failed: {event.message}")
        if len(mattes) == len(self._shelf.plates):
            client.fetch_file(*self._pick_matte(client, job), self._key_file.with_suffix(".matte"))

    def _pick_matte(self, client: Client, job: str) -> tuple[str, int]:
        events = [event for event in client.follow(job) if isinstance(event, MatteReady)]
        file = self._random.choice(events).files[0]
        return file.sha256, file.nbytes

    def _cancel(self, client: Client) -> None:
        if not self._mine.keys:
            return
        job = self._start(client)
        for event in client.follow(job):
            if isinstance(event, MatteReady) and event.frame < SHOT.last - 2:
                client.cancel(job)
            if isinstance(event, JobCancelled):
                break

    def _suggest(self, client: Client) -> None:
        if not self._mine.keys:
            return
        for event in client.follow(self._start(client)):
            if not isinstance(event, JobDone):
                continue
            job = client.start_suggestion(SESSION, SuggestionSettings(1))
            self._mine.jobs.add(job)
            list(client.follow(job))

    def _look(self, client: Client) -> None:
        client.status()
        listed = client.fetch_sessions()
        if {each.owner for each in listed} != {self.name}:
            self._ledger.accuse(f"{self.name} sees sessions of {sorted({each.owner for each in listed})}")

    def _begin_again(self, client: Client) -> None:
        """Delete the session and make it anew."""
        client.delete_session(SESSION)
        self._mine.keys, self._mine.jobs = {}, set()
        self._open(client)
