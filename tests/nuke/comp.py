"""An artist at the double of Nuke with a real server process: a plate, a Roto, an XMem node, buttons, and time that passes."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time

from tests.nuke.scenes import HEIGHT, WIDTH, grey, make_plate, make_roto, make_xmem, save_plate
from tests.server.served import ROOT, import_paths

FIRST, LAST = 1001, 1006


class RealServer:
    """``xmem serve`` with the compact model, in a process of its own."""

    def __init__(self, folder):
        self.folder = folder
        self.connection_file = folder / "connection.json"
        self._process = None

    def start(self):
        self.connection_file.unlink(missing_ok=True)
        command = [sys.executable, "-m", "xmem_server", "serve", "--device", "cpu", "--state", str(self.folder)]
        with (self.folder / "server.log").open("ab") as log:
            environment = {**import_paths(), "OMP_NUM_THREADS": "1"}
            self._process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, env=environment)
        end = time.monotonic() + 120
        while not self.connection_file.exists():
            assert self._process.poll() is None, (self.folder / "server.log").read_text()
            assert time.monotonic() < end, "the server did not start"
            time.sleep(0.05)
        return self

    def stop(self):
        self._process.terminate()
        self._process.wait(20)


def fetch_actions():
    from xmem_nuke import actions  # noqa: PLC0415 - it imports nuke, which is there once the double runs

    return actions


class Comp:
    """One script with one XMem node that has not been run yet."""

    def __init__(self, application, folder, connection_file, first=FIRST, last=LAST):
        self.application, self.nuke, self.folder = application, application.module, folder
        folder.mkdir(exist_ok=True)
        self.keys = {FIRST: (8, 8, 16), 1003: (12, 8, 16), 1006: (20, 8, 16)} if first == FIRST else {first: (8, 8, 16)}
        pattern = save_plate(folder / "plate", range(first, last + 1), grey)
        self.plate = make_plate(self.nuke, pattern, first, last)
        self.grade = self.nuke.nodes.Grade(inputs=(self.plate,))
        self.roto = make_roto(self.nuke, self.keys, background=self.plate)
        self.node = make_xmem(self.nuke, self.grade, self.roto, first, last, folder / "cache")
        self.node["server"].setValue(str(connection_file))
        self.nuke.root()["first_frame"].setValue(first)
        self.nuke.root()["last_frame"].setValue(last)
        self.nuke.root().setFrame(first)
        application.renders.done.clear()

    @property
    def controller(self):
        return fetch_actions().fetch_controller()

    @property
    def session(self):
        return self.node["session"].value()

    @property
    def state(self):
        return self.controller.fetch_state(self.session)

    @property
    def status(self):
        return self.node["status"].value()

    def press(self, name, node=None):
        """Press a button of the node."""
        self.application.act((node or self.node)[name].execute)

    def wait(self, until=None, seconds=60):
        """Let Nuke's event loop run until something holds, or until nothing is done any more."""

        def is_so():
            return until() if until else not self.controller.is_busy

        self.application.pump(is_so, seconds)

    def do(self, name):
        """Press a button and wait for the end of it; give what was rendered meanwhile: ``["key 1003", ...]``."""
        self.application.renders.done.clear()
        self.press(name)
        self.wait()
        return self.rendered()

    def rendered(self):
        names = [path.rpartition("/")[2].split(".") for path, _ in self.application.renders.done]
        return [f"{kind} {frame}" for kind, frame, _ in names]

    def draw(self, frame, square):
        """Move the square of the Roto at a frame, as the artist does."""
        left, bottom, size = square
        shape = self.roto["curves"].rootLayer[0]
        for point, (right, up) in zip(shape, ((0, 0), (1, 0), (1, 1), (0, 1)), strict=True):
            point.center.addPositionKey(frame, (left + right * size, bottom + up * size))
        self.keys[frame] = square

    def alpha(self, frame, node=None):
        """Give the alpha that a viewer on the node shows, HxW."""
        return self.application.fetch_picture(node or self.node, frame).channels["rgba.alpha"]

    def rest(self):
        """End whatever still runs, so that the next test has a Nuke of its own."""
        for session in self.controller.sessions:
            self.controller.cancel(session)
        self.wait(lambda: not self.controller.is_busy and not self.controller.is_ticking)


def marks(knob):
    return [round(time) for time in knob.getKeyList()] if knob.isAnimated() else []


@contextlib.contextmanager
def comp_of(application, folder, connection_file, kind=Comp, **more):
    """Give a comp whose work has ended when the context is left; its controller is its own."""
    controllers = fetch_actions()._controllers
    controllers.clear()
    comp = kind(application, folder, connection_file, **more)
    try:
        yield comp
    finally:
        comp.rest()
        controllers.clear()


def script_of_engine(server, **script):
    """Tell the scripted engine of a ``ServerProcess`` what to do with the next job."""
    engine = server.settings.state.parent / "engine"
    (engine / "script.json").write_text(json.dumps(script))
    for name in ("go", "died"):
        (engine / name).unlink(missing_ok=True)
    return engine


SIZE = (HEIGHT, WIDTH)
