"""The panel's main states as values, and a controller that holds one of them still: for tests and pictures of the panel."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from xmem_nuke import states
from xmem_nuke.orders import ServerSeen, ServerSilent
from xmem_nuke.states import KeyRow, NodeState, SuggestionRow

SEEN = ServerSeen("0.1.0", "cpu", "compact", "busy", 1)
RESTING = ServerSeen("0.1.0", "cpu", "compact", "idle", 0)
SILENT = ServerSilent(
    "The XMem server has not answered for 3 s. Is it running? Start it again: what it acknowledged is kept."
)

KEYS = (
    KeyRow(1001, (1, 2), (), states.IN_MEMORY),
    KeyRow(1034, (1,), (2,), states.EDITED),
    KeyRow(1060, (1, 2), (), states.IN_MEMORY),
    KeyRow(1088, (), (), states.NEW),
)
SENT = tuple(replace(row, objects=row.objects or (1, 2), state=states.IN_MEMORY) for row in KEYS)
# In the words of the server: ``test_panel`` compares them with what its code says.
SUGGESTIONS = (
    SuggestionRow(
        1047,
        "lost",
        1.0,
        "object 2 vanishes at frames 1046-1048: under 0.25 % of the picture, 3.1 % elsewhere",
    ),
    SuggestionRow(
        1075,
        "different",
        0.31,
        "looks least like any key: 0.31 away from frame 1060, the nearest annotated or suggested one",
    ),
    SuggestionRow(
        1018,
        "different",
        0.22,
        "looks least like any key: 0.22 away from frame 1001, the nearest annotated or suggested one",
    ),
)
ALL = frozenset(range(1001, 1101))


def rest(**changes):
    fields = {
        "session": "s",
        "name": "XMem1",
        "first": 1001,
        "last": 1100,
        "keys": KEYS,
        "mattes": ALL,
        "message": (
            "Done: mattes on frames 1001 to 1100; 1 key and 0 plate frames travelled. The server worked at 640x360 of "
            "1920x1080 on cpu, float32; colour: display-referred as stored, clipped to 0..1; permanent memory: every, 3 "
            "keyed frames; 0 frames encoded."
        ),
    }
    return NodeState(**{**fields, **changes})


STILLS = {
    "no-server": (rest(keys=(), mattes=frozenset(), message=""), SILENT),
    "idle": (rest(), RESTING),
    "running": (
        rest(
            phase=states.PROPAGATING,
            stage="propagating",
            done=58,
            total=100,
            frames_per_second=0.5,
            eta_seconds=84.0,
            keys=SENT,
            mattes=frozenset(range(1001, 1059)),
        ),
        SEEN,
    ),
    "correcting": (
        rest(
            phase=states.PROPAGATING,
            stage="propagating",
            done=22,
            total=100,
            frames_per_second=3.1,
            eta_seconds=25.0,
            note="about 1.2 GiB of memory",
            keys=SENT,
            provisional=frozenset(range(1037, 1060)),
            stale=ALL - frozenset(range(1001, 1023)) - frozenset(range(1037, 1060)),
        ),
        SEEN,
    ),
    "suggestions": (
        rest(suggestions=SUGGESTIONS, message=f"Draw next: 1047, 1075, 1018. Frame 1047: {SUGGESTIONS[0].reason}."),
        RESTING,
    ),
    "error": (
        rest(
            is_error=True,
            message=(
                "Frame 1042 of the plate could not be rendered: Read1: /show/plate.1042.exr: No such file or directory. "
                "Correct the nodes above it, then press Run."
            ),
        ),
        RESTING,
    ),
}


class StillController:
    """Shows one state; remembers what it was asked."""

    def __init__(self, state, server):
        self.state, self.server, self.focus = state, server, ""
        self.listeners, self.watches, self.asked = [], 0, []

    def fetch_state(self, session):
        return self.state if session == self.state.session else NodeState(session)

    def show(self, state, server=None):
        self.state, self.server = state, server or self.server
        for listener in list(self.listeners):
            listener()

    def listen(self, listener):
        self.listeners.append(listener)
        return lambda: self.listeners.remove(listener)

    def watch_server(self, connection_file):
        self.watches += 1

        def stop():
            self.watches -= 1

        return stop

    def cancel(self, session):
        self.asked.append(("cancel", session))

    def dismiss(self, session, frame):
        self.asked.append(("dismiss", frame))


class StillIntents:
    """Plays Nuke: one node or none, and a record of what the panel wanted."""

    def __init__(self, state, server, nodes=(("s", "XMem1"),)):
        self.controller = StillController(state, server)
        self.nodes, self.frame = nodes, 1020

    def fetch_nodes(self):
        return tuple(self.nodes)

    def fetch_connection_file(self, session):
        return Path("connection.json")

    def fetch_frame(self):
        return self.frame

    def jump(self, frame):
        self.frame = frame

    def __getattr__(self, name):
        if name not in ("look", "run", "suggest", "start_server", "copy_diagnostics"):
            raise AttributeError(name)
        return lambda session: self.controller.asked.append((name, session))
