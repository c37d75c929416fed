"""A session host with a real store and a real engine process, and small real pictures to give it."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from xmem_protocol import (
    CHUNK_BYTES,
    Envelope,
    FrameFailed,
    JobCancelled,
    JobDone,
    JobFailed,
    Key,
    MatteReady,
    OpenSession,
    Plate,
    PropagationSettings,
    PutKey,
    PutPlates,
    Shot,
    StartPropagation,
)
from xmem_server.clients import LOCAL, ClientKey
from xmem_server.engines import EngineProcess
from xmem_server.session import SessionHost
from xmem_server.store import StorageLimits, Store

WIDTH, HEIGHT = 64, 48
SHOT = Shot("sh010", WIDTH, HEIGHT, 1.0, 1001, 1008, "display")
FINAL = (JobDone, JobFailed, JobCancelled)
LOCAL_CLIENT = ClientKey(LOCAL, "l" * 40, is_supervisor=True)
NO_RESERVE = StorageLimits(reserve_bytes=0)
_NUMBERS = itertools.count(1)


def sha256_of(content):
    return hashlib.sha256(content).hexdigest()


def picture(seed, width=WIDTH, height=HEIGHT):
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return cv2.imencode(".png", pixels)[1].tobytes()


def alpha(value=255, width=WIDTH, height=HEIGHT):
    pixels = np.zeros((height, width), np.uint8)
    pixels[10:20, 10:30] = value
    return cv2.imencode(".png", pixels)[1].tobytes()


def upload(store, content):
    sha256 = sha256_of(content)
    for chunk in store.begin_upload(sha256, len(content)):
        store.write_chunk(sha256, chunk, content[chunk * CHUNK_BYTES : (chunk + 1) * CHUNK_BYTES])
    return sha256


def scripted(folder, script=None, start_seconds=60):
    folder.mkdir(exist_ok=True)
    write_script(folder, script or {})
    program = Path(__file__).with_name("scripted_engine.py")
    return EngineProcess(
        "compact", "cpu", command=(sys.executable, str(program), str(folder)), start_seconds=start_seconds
    )


def write_script(folder, script):
    (folder / "script.json").write_text(json.dumps(script))


@contextlib.contextmanager
def small_disk(folder):
    """Give a folder that is a disk of 24 MB; the test is skipped where none can be mounted."""
    folder.mkdir()
    mount = shutil.which("mount")
    command = [mount or "mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)]
    if mount is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a small disk cannot be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def fill_disk(path):
    """Write a file until the disk has no byte left."""
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while file.write(bytes(1024)):
            pass


class House:
    """A running host below one folder; made again on the same folder it is the restarted server."""

    def __init__(self, folder, decoder, script=None, state=None):
        self.engine_folder = folder / "engine"
        self.store = Store(state or folder / "state", NO_RESERVE)
        self.engine = scripted(self.engine_folder, script)
        self.engine.start()
        self.woken = threading.Event()
        self.host = SessionHost(self.store, self.engine, decoder, self.woken.set)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.host.close()
        self.store.close()

    def ask(self, message, request_id=None, client="nuke-1", key=LOCAL_CLIENT):
        return self.host.answer(key, Envelope(message, request_id or f"request-{next(_NUMBERS)}", client))

    def script(self, **script):
        write_script(self.engine_folder, script)

    def go(self):
        (self.engine_folder / "go").touch()

    def plans(self):
        path = self.engine_folder / "plans.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def open(self, session="roto", shot=SHOT):
        return self.ask(OpenSession(session, shot))

    def plate(self, frame, content=None):
        return Plate(frame, upload(self.store, content or picture(frame)), 0, ".png")

    def put_plates(self, session="roto", first=SHOT.first, last=SHOT.last):
        return self.ask(PutPlates(session, tuple(self.plate(frame) for frame in range(first, last + 1))))

    def key(self, frame, object_id=1, value=255):
        return Key(frame, object_id, "present", upload(self.store, alpha(value)), ".png", "channel:auto")

    def put_key(self, frame, object_id=1, value=255, session="roto"):
        return self.ask(PutKey(session, self.key(frame, object_id, value)))

    def ready(self, session="roto"):
        self.open(session)
        self.put_plates(session)
        self.put_key(1001, session=session)

    def start(self, session="roto", first=SHOT.first, last=SHOT.last, **settings):
        return self.ask(StartPropagation(session, PropagationSettings(first, last, **settings))).job

    def events(self, job, after_seq=0):
        return self.host.fetch_events(job, after_seq, 10_000)

    def pump(self, until, seconds=30):
        """Do what the server's session thread does, until something holds."""
        end = time.monotonic() + seconds
        while not until():
            assert time.monotonic() < end, "it did not happen in time"
            self.woken.wait(0.05)
            self.woken.clear()
            self.host.receive_engine_events()

    def finish(self, job):
        """Give the job's events once it has ended."""
        self.pump(lambda: any(isinstance(event, FINAL) for event in self.events(job)))
        return self.events(job)

    def state_of(self, job):
        return self.store.jobs.fetch(job).state


def mattes(events):
    return [event.frame for event in events if isinstance(event, MatteReady)]


def numbers(events):
    return [event.seq for event in events]


def wait_for_matte(house, job, frame):
    house.pump(lambda: frame in mattes(house.events(job)))


def folder_of(house, name):
    return house.store.session_folder(1) / name


def failures(events):
    return [event.frame for event in events if isinstance(event, FrameFailed)]
