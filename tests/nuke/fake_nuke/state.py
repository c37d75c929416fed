"""The one running Nuke that all parts of the double share."""

from __future__ import annotations

import re
import threading


class Rules:
    """What Nuke punishes with a crash or an error, and every time it was done (a fixture fails on these)."""

    def __init__(self):
        self.broken: list[str] = []
        self.node_limit = 0  # 0: a full edition
        self.seen_nodes: set[int] = set()
        self.in_callback = 0
        self.executing = False

    def check_thread(self, what):
        """Raise when ``what`` is touched off the main thread."""
        if threading.current_thread() is not threading.main_thread():
            line = f"{what} was used on thread {threading.current_thread().name}, not on the main thread"
            self.broken.append(line)
            raise RuntimeError(line)

    def see_node(self, node):
        """Count a node that Python looks at: Indie and Non-commercial show ten."""
        if self.node_limit and id(node) not in self.seen_nodes:
            if len(self.seen_nodes) >= self.node_limit:
                raise RuntimeError(f"this edition shows Python {self.node_limit} nodes")
            self.seen_nodes.add(id(node))

    def check_idle(self):
        """Raise as Nuke does for graph edits and renders from inside knobChanged or from inside a render."""
        if self.in_callback or self.executing:
            raise RuntimeError("I'm already executing something else")


_running = []


def app():
    """Give the running Nuke."""
    if not _running:
        raise RuntimeError("no double of Nuke runs: ask for the fixture")
    return _running[-1]


def start(application):
    """Make this the running Nuke."""
    _running[:] = [application]


def stop():
    """Have no Nuke running."""
    _running.clear()


def fill_frame(path, frame):
    """Give a file name with its ``%04d`` or ``####`` filled in, as Nuke does."""
    number = round(frame)
    path = re.sub(r"#+", lambda found: f"%0{len(found[0])}d", path)
    return re.sub(r"%(0?\d*)d", lambda found: f"{number:{found[1]}d}" if found[1] else str(number), path)


def running():
    """Say whether a Nuke runs."""
    return bool(_running)
