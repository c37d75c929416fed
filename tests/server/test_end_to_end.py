"""The main job through a real server process and real sockets, and what is left when its processes are killed."""

import contextlib
import hashlib
import os
import signal
import subprocess
import sys
import time

import OpenEXR
import psutil
import pytest

from tests.server.moving_scene import COUNT, FIRST, SHOT, save_scene, wire_key, wire_plates
from tests.server.served import FAST, import_paths
from xmem_client import Client, fetch_connection
from xmem_protocol import (
    InputError,
    JobDone,
    MatteReady,
    PropagationSettings,
    SuggestionSettings,
    SuggestionsReady,
)

WHOLE = PropagationSettings(FIRST, FIRST + COUNT - 1, snapshot_every=3)


class RealServer:
    """``xmem serve`` in a process of its own."""

    def __init__(self, folder):
        self.state = folder / "state"
        self.connection_file = folder / "connection.json"
        self._command = [sys.executable, "-m", "xmem_server", "serve", "--device", "cpu"]
        self._command += ["--state", str(self.state), "--connection", str(self.connection_file)]
        self._process = None

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            assert self._process.wait(30) == 0

    def start(self):
        self._process = subprocess.Popen(self._command, env={**import_paths(), "OMP_NUM_THREADS": "2"})
        end = time.monotonic() + 120
        while time.monotonic() < end:
            assert self._process.poll() is None
            with contextlib.suppress(InputError):
                fetch_connection(self.connection_file)
                return
            time.sleep(0.05)
        raise AssertionError("The server was not ready in time.")

    def engine(self):
        """Give the engine's process."""
        for child in psutil.Process(self._process.pid).children():
            if "xmem_server.worker" in child.cmdline():
                return child
        raise AssertionError("The server has no engine.")

    def kill_everything(self):
        """kill -9 of the network process and everything below it."""
        parent = psutil.Process(self._process.pid)
        for process in [parent, *parent.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)
        self._process.wait()


@contextlib.contextmanager
def client_of(server, name="artist"):
    with Client(lambda: fetch_connection(server.connection_file), name, FAST) as client:
        yield client


def send_shot(client, plates, masks, keyed=(FIRST,)):
    client.open_session("roto", SHOT)
    client.put_plates("roto", wire_plates(plates), lambda done, total: None)
    for frame in keyed:
        for object_id in (1, 2):
            client.put_key("roto", wire_key(frame, object_id, masks[frame]), masks[frame])


def mattes_of(events):
    return {(e.frame, f.object_id): f.sha256 for e in events if isinstance(e, MatteReady) for f in e.files}


def check_stored_files(state):
    """Every stored file is whole: its name is the hash of its bytes."""
    for path in (state / "objects").rglob("*"):
        if path.is_file():
            assert hashlib.sha256(path.read_bytes()).hexdigest() in path.name, f"{path} is torn"


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    return save_scene(tmp_path_factory.mktemp("scene"))


@pytest.fixture(scope="module")
def uninterrupted(scene, tmp_path_factory):
    """The mattes of a run that nothing disturbs."""
    with RealServer(tmp_path_factory.mktemp("calm")) as server, client_of(server) as client:
        send_shot(client, *scene)
        return mattes_of(client.follow(client.start_propagation("roto", WHOLE)))


def test_when_the_whole_job_runs_then_mattes_come_back_as_exr_and_frames_are_suggested(scene, tmp_path):
    with RealServer(tmp_path) as server, client_of(server) as client:
        send_shot(client, *scene)
        events = list(client.follow(client.start_propagation("roto", WHOLE)))
        assert isinstance(events[-1], JobDone)
        mattes = [event for event in events if isinstance(event, MatteReady)]
        assert [event.frame for event in mattes] == list(range(FIRST, FIRST + COUNT))
        file = mattes[-1].files[0]
        client.fetch_file(file.sha256, file.nbytes, tmp_path / "matte.exr")
        with OpenEXR.File(str(tmp_path / "matte.exr"), separate_channels=True) as stored:
            assert set(stored.channels()) == {"R", "G", "B", "A"}
        answer = list(client.follow(client.start_suggestion("roto", SuggestionSettings(count=2))))
        (ready,) = [event for event in answer if isinstance(event, SuggestionsReady)]
        assert len({one.frame for one in ready.suggestions if one.kind == "different"}) == 2


def test_when_a_key_is_corrected_then_the_mattes_equal_a_fresh_run_with_the_corrected_keys(scene, tmp_path):
    plates, masks = scene
    with RealServer(tmp_path) as server, client_of(server) as client:
        send_shot(client, plates, masks, keyed=(FIRST,))
        wrong = wire_key(FIRST + 5, 1, masks[FIRST], "index:2")
        client.put_key("roto", wrong, masks[FIRST])
        list(client.follow(client.start_propagation("roto", WHOLE)))
        for object_id in (1, 2):
            client.put_key("roto", wire_key(FIRST + 5, object_id, masks[FIRST + 5]), masks[FIRST + 5])
        corrected = mattes_of(client.follow(client.start_propagation("roto", WHOLE)))
    with RealServer(tmp_path / "fresh") as server, client_of(server) as client:
        send_shot(client, plates, masks, keyed=(FIRST, FIRST + 5))
        assert mattes_of(client.follow(client.start_propagation("roto", WHOLE))) == corrected


def test_when_the_engine_is_killed_midway_then_the_client_gets_every_matte_as_if_nothing_happened(
    scene, uninterrupted, tmp_path
):
    with RealServer(tmp_path) as server, client_of(server) as client:
        send_shot(client, *scene)
        events, killed = [], False
        for event in client.follow(client.start_propagation("roto", WHOLE)):
            events.append(event)
            if not killed and isinstance(event, MatteReady) and event.frame >= FIRST + 4:
                server.engine().send_signal(signal.SIGKILL)
                killed = True
        assert killed
        assert isinstance(events[-1], JobDone)
        assert mattes_of(events) == uninterrupted
        check_stored_files(server.state)


def test_when_the_whole_server_is_killed_midway_then_keys_and_finished_mattes_are_there_and_the_run_goes_on(
    scene, uninterrupted, tmp_path
):
    with RealServer(tmp_path) as server:
        with client_of(server) as client:
            send_shot(client, *scene)
            job = client.start_propagation("roto", WHOLE)
            before = []
            for event in client.follow(job):
                before.append(event)
                if isinstance(event, MatteReady) and event.frame >= FIRST + 4:
                    break
            server.kill_everything()
        check_stored_files(server.state)
        assert not list(server.state.rglob("*.tmp.exr"))
        server.start()
        with client_of(server, "the same artist later") as client:
            state = client.open_session("roto", SHOT)
            assert {(key.frame, key.object_id) for key in state.keys} == {(FIRST, 1), (FIRST, 2)}
            assert [known.state for known in state.jobs] == ["interrupted"]
            again = client.start_propagation("roto", WHOLE)
            assert again == job
            events = list(client.follow(again))
        assert isinstance(events[-1], JobDone)
        assert mattes_of(events) == uninterrupted
        assert mattes_of(before).items() <= uninterrupted.items()
        check_stored_files(server.state)


def test_when_the_server_runs_then_its_connection_file_is_for_its_owner_alone(tmp_path):
    with RealServer(tmp_path) as server:
        assert os.stat(server.connection_file).st_mode & 0o077 == 0  # noqa: PTH116 - the mode bits are the point
