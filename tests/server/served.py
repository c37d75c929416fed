"""A whole server for tests: real sockets, store and decode process, and the scripted engine.

As a program it serves in a process of its own: ``python served.py FOLDER NAME=SETTING ...`` (the state and the connection file below it).
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import zmq

from tests.server.house import SHOT, alpha, picture, scripted
from xmem_client import Client, Timeouts, fetch_connection, hash_file
from xmem_protocol import PRESENT, InputError, Key, Plate, PropagationSettings, Welcome, unpack
from xmem_server import service
from xmem_server.engines import EngineProcess
from xmem_server.service import ServeSettings, start_server

FAST = Timeouts(ping=0.2, silence=0.6, backoff_first=0.1, backoff_last=0.3, resend=1.0, total=20.0)
ROOT = Path(__file__).parents[2]


def settings_of(folder, **changes):
    fields = {"state": folder / "state", "connection_file": folder / "connection.json", **changes}
    return ServeSettings(**fields)


@contextlib.contextmanager
def serving(folder, script=None, **changes):
    """Give the settings of a server that runs in this process."""
    settings = settings_of(folder, **changes)
    with start_server(settings, scripted(folder / "engine", script)):
        yield settings


@contextlib.contextmanager
def client_of(settings, name="nuke-1", timeouts=FAST):
    """Give a client that reads the connection file afresh."""
    with Client(lambda: fetch_connection(settings.connection_file), name, timeouts) as client:
        yield client


def import_paths():
    """Give the environment of a child process that imports the project from a bare checkout."""
    paths = os.pathsep.join(str(ROOT / name) for name in ("", "server", "nuke_plugin"))
    return {**os.environ, "PYTHONPATH": paths}


class ServerProcess:
    """A server in a process of its own, to be killed and started again."""

    def __init__(self, folder, script=None, options=()):
        self._options = options
        self.settings = settings_of(folder)
        self._folder = folder
        self._process = None
        self.log = folder / "server.log"
        scripted(folder / "engine", script)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.kill()

    def start(self):
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(self._folder), *self._options], env=import_paths(), stderr=log
            )

    def wait_ready(self, seconds=30):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            assert self._process.poll() is None
            with contextlib.suppress(InputError):
                return fetch_connection(self.settings.connection_file)
            time.sleep(0.02)
        raise AssertionError("The server was not ready in time.")

    def is_alive(self):
        return self._process.poll() is None

    @property
    def pid(self):
        return self._process.pid

    def kill(self):
        self.end(signal.SIGKILL)

    def end(self, number):
        """Send a signal and give the exit code."""
        self._process.send_signal(number)
        return self._process.wait(20)


def save(path, content):
    path.write_bytes(content)
    return path, hash_file(path)


def plates_below(folder):
    plates = []
    for frame in range(SHOT.first, SHOT.last + 1):
        path, sha256 = save(folder / f"plate.{frame}.png", picture(frame))
        plates.append((Plate(frame, sha256, 0, ".png"), path))
    return plates


def put_key(client, folder, frame=1001, object_id=1):
    path, sha256 = save(folder / f"key.{frame}.{object_id}.png", alpha())
    return client.put_key("roto", Key(frame, object_id, PRESENT, sha256, ".png", "channel:auto"), path)


def make_ready(client, folder):
    client.open_session("roto", SHOT)
    client.put_plates("roto", plates_below(folder), lambda done, total: None)
    put_key(client, folder)


def whole():
    return PropagationSettings(SHOT.first, SHOT.last)


@contextlib.contextmanager
def raw_socket(endpoint, connection=None):
    """Give a DEALER of our own, with or without the keys."""
    context = zmq.Context()
    socket = context.socket(zmq.DEALER)
    socket.linger = 300  # not 0: see xmem_client.lane
    if connection is not None:
        socket.curve_serverkey = connection.server_key.encode()
        socket.curve_publickey = connection.public_key.encode()
        socket.curve_secretkey = connection.secret_key.encode()
    socket.connect(endpoint)
    try:
        yield socket
    finally:
        socket.close()
        context.term()


def answer(socket, seconds=5):
    assert socket.poll(seconds * 1000), "no answer"
    return unpack(socket.recv_multipart())


def still_serves(client):
    started = time.monotonic()
    assert isinstance(client.hello(), Welcome)
    assert time.monotonic() - started < 2.0  # the promise is 1 s; the machine that tests may be busy


if __name__ == "__main__":
    place = Path(sys.argv[1])
    program = Path(__file__).with_name("scripted_engine.py")  # its script stays as the test wrote it
    command = (sys.executable, str(program), str(place / "engine"))
    service.EngineProcess = lambda model, device, memory: EngineProcess(model, device, memory=memory, command=command)
    changes = dict(option.split("=", 1) for option in sys.argv[2:])
    convert = {"state": Path, "connection_file": Path, "control_port": int, "memory_limit": int}
    sys.exit(service.serve(settings_of(place, **{name: convert.get(name, str)(changes[name]) for name in changes})))
