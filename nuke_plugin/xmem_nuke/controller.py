"""The state of every XMem node and what is being done for it. Works with the panel open, closed, or never opened.

Everything here belongs to the main thread. ``tick`` is called there again and again while there is something to do; it
renders one frame at most, so that Nuke answers the artist in between.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
import traceback
from pathlib import Path
from typing import Callable

from xmem_nuke import states
from xmem_nuke.activity import Activity, Connect, Running, Suggesting, do_safely
from xmem_nuke.host import Host, Node, NodeGoneError, NodeSettings
from xmem_nuke.job import make_connector
from xmem_nuke.looking import look_at_keys
from xmem_nuke.orders import (
    KEY,
    Ended,
    Happening,
    KeysAccepted,
    MatteArrived,
    ServerSeen,
    ServerSilent,
    SuggestionsArrived,
)
from xmem_nuke.server_launch import LaunchSettings, ServerLaunch
from xmem_nuke.states import NodeState, ServerState
from xmem_nuke.ticking import STOP, Ticker
from xmem_nuke.watching import ServerWatch
from xmem_protocol import XMemError

_MATTES_EVERY = 1.0  # seconds between looks of the matte Read at its folder: each one drops what Nuke has cached of it
_STATUS_EVERY = 0.25
_PAUSE = 0.02  # for Nuke's own events between two frames
_IDLE_PAUSE = 0.25  # when there is only the server to look after

Listener = Callable[[], None]


class Controller:
    """What the gizmo's buttons and the panel talk to. ``connect`` makes the clients of jobs; tests give their own."""

    def __init__(self, host: Host, connect: Callable[[Path], Connect] = make_connector) -> None:
        self._host = host
        self._connect = connect
        self._ticker = Ticker(host.post, self.tick)
        self._states: dict[str, NodeState] = {}
        self._nodes: dict[str, Node] = {}
        self._sent: dict[str, dict[tuple[str, int], str]] = {}
        self._activities: dict[str, Activity] = {}
        self._listeners: list[Listener] = []
        self._watch: ServerWatch | None = None
        self._watchers = 0
        self._launch: tuple[ServerLaunch, Node | None] | None = None
        self._mattes_due: dict[str, float] = {}
        self._status_at: dict[str, float] = {}
        self._turn = 0
        self._is_changed = False
        self._is_inside = False
        self.server: ServerState = None
        self._focus = ""

    # ------------------------------------------------------------------------------------------------------- intents

    def run(self, node: Node) -> None:
        """Render and send what changed, propagate, and bring the mattes. What runs for the node already goes on."""

        def work(session: str) -> None:
            shot = self._host.fetch_shot(node)
            settings = self._host.fetch_settings(node, shot)
            begun = states.begin_run(self.fetch_state(session), shot.node_name, (shot.first, shot.last), shot.warnings)
            self._set_state(begun)
            self._begin(Running(node, shot, settings, self._connect(settings.connection_file)), settings)

        self._attempt(node, work)

    def suggest(self, node: Node) -> None:
        """Ask which frames to annotate next."""

        def work(session: str) -> None:
            shot = self._host.fetch_shot(node)
            settings = self._host.fetch_settings(node, shot)
            self._set_state(states.begin_suggesting(self.fetch_state(session), shot.node_name))
            self._begin(Suggesting(node, shot, settings, self._connect(settings.connection_file)), settings)

        self._attempt(node, work)

    def cancel(self, session: str) -> None:
        """Stop what is done for a node; it says so within seconds, also when the server is gone."""
        activity = self._activities.get(session)
        if activity is not None:
            activity.cancel()
            self._set_state(dataclasses.replace(self._states[session], phase=states.CANCELLING))
            self._wake()

    def dismiss(self, session: str, frame: int) -> None:
        """Forget a suggestion."""
        state = states.drop_suggestion(self.fetch_state(session), frame)
        self._set_state(state)
        node = self._nodes.get(session)
        if node is not None:
            with contextlib.suppress(NodeGoneError):
                self._host.write_suggested(node, [row.frame for row in state.suggestions])
        self._tell()

    def look(self, node: Node) -> None:
        """See which keys changed since they were sent, and which mattes there are. For a panel; not while the node is busy.

        Nor while Nuke renders for another node: a look moves the frame there and back.
        """
        if self._is_inside:
            return
        try:
            session = self._host.fetch_session(node)
            self._nodes[session] = node
            if session in self._activities:
                return
            state = self.fetch_state(session)
            self._set_state(look_at_keys(self._host, node, state, self._sent.get(session)))
        except (NodeGoneError, XMemError):
            return
        self._tell()

    def tell(self, node: Node, message: str) -> None:
        """Show a line on the node and in the panel."""
        with contextlib.suppress(NodeGoneError):
            session = self._host.fetch_session(node)
            self._nodes[session] = node
            self._set_state(dataclasses.replace(self.fetch_state(session), message=message, is_error=False))
            self._host.write_status(node, message)
        self._tell()

    def launch_server(self, settings: LaunchSettings, record: Path, node: Node | None = None) -> None:
        """Start the server, or find the one that runs; a line on the node and in the panel says how that went."""
        if self._launch is None:
            self.server = ServerSilent("The server starts; reading its model may take a minute.")
            self._is_changed = True
            self._launch = (ServerLaunch(settings, record), node)
            self._launch[0].start()
            if node is not None:
                self.tell(node, self.server.message)
            self._wake()

    # --------------------------------------------------------------------------------------------------------- state

    def fetch_state(self, session: str) -> NodeState:
        """Give what there is to show of a node."""
        return self._states.get(session) or NodeState(session)

    @property
    def focus(self) -> str:
        """Give the session of the node that the artist last asked something of: what a panel shows."""
        return self._focus

    def show(self, session: str) -> None:
        """Have the panels show a node."""
        self._set_focus(session)
        self._tell()

    @property
    def sessions(self) -> tuple[str, ...]:
        """Give the sessions of the nodes that something was done for, oldest first."""
        return tuple(self._states)

    @property
    def is_busy(self) -> bool:
        """Whether something is being done for any node, or a server starts."""
        return bool(self._activities) or self._launch is not None

    @property
    def is_ticking(self) -> bool:
        """Whether ticks are still asked for; they end by themselves when nothing is left to look after."""
        return self._ticker.is_running

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Call this on the main thread after anything changed. Gives the function that ends it."""
        self._listeners.append(listener)

        def stop() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)

        return stop

    def watch_server(self, connection_file: Path) -> Callable[[], None]:
        """Keep looking after the server, as long as anybody wants that. Gives the function that ends it."""
        self._watchers += 1
        self._look_after(connection_file)
        is_over: list[bool] = []

        def stop() -> None:
            if not is_over:
                is_over.append(True)
                self._watchers -= 1

        return stop

    # ---------------------------------------------------------------------------------------------------------- tick

    def tick(self) -> float:
        """Do a little of everything there is to do; give the seconds to wait before the next tick, or STOP. Never raises.

        Nuke may serve its event queue while it renders for a tick; a tick that comes inside another one does nothing.
        """
        if self._is_inside:
            return _PAUSE
        self._is_inside = True
        try:
            for session in list(self._activities):
                self._step(session)
            self._render_one()
            self._look_at_server()
            self._refresh_nodes()
            self._tell()
        except Exception as error:  # noqa: BLE001 - Nuke would print it and tick no more: every node says what happened
            self._fail_all(error)
        finally:
            self._is_inside = False
        if self._activities or self._mattes_due or self._launch is not None:
            return _PAUSE
        return _IDLE_PAUSE if self._watch is not None else STOP

    def _begin(self, activity: Activity, settings: NodeSettings) -> None:
        self._activities[activity.session] = activity
        self._nodes[activity.session] = activity.node
        self._look_after(settings.connection_file)
        self._wake()

    def _step(self, session: str) -> None:
        activity = self._activities[session]

        def work() -> str:
            for happening in activity.step(self._host):
                self._take(activity, happening)
            return ""

        do_safely(activity, work)

    def _render_one(self) -> None:
        """Render one frame, of each node in turn."""
        waiting = [activity for activity in self._activities.values() if activity.wants_render]
        if not waiting:
            return
        self._turn += 1
        activity = waiting[self._turn % len(waiting)]
        kind = do_safely(activity, lambda: activity.render(self._host))
        if kind:
            self._set_state(states.note_rendered(self._states[activity.session], kind))

    def _take(self, activity: Activity, happening: Happening) -> None:
        session = activity.session
        state = states.update_state(happening, self._states[session])
        self._set_state(state)
        if isinstance(happening, MatteArrived):
            is_looked_at = happening.is_provisional and happening.frame == getattr(activity, "playhead", None)
            self._mattes_due.setdefault(session, 0.0 if is_looked_at else time.monotonic())
        elif isinstance(happening, KeysAccepted):
            self._host.write_keyed(activity.node, sorted({key.frame for key in happening.keys}))
            self._host.write_suggested(activity.node, [row.frame for row in state.suggestions])
            if isinstance(activity, Running):
                self._sent[session] = {
                    place: known for place, known in activity.fingerprints.items() if place[0] == KEY
                }
        elif isinstance(happening, SuggestionsArrived):
            self._host.write_suggested(activity.node, [row.frame for row in state.suggestions])
        elif isinstance(happening, Ended):
            del self._activities[session]
            self._show_mattes(activity)
            self._write_status(session, activity.node)

    def _look_at_server(self) -> None:
        if self._launch is not None:
            self._look_at_launch(*self._launch)
        if self._watch is None:
            return
        for seen in self._watch.fetch_happenings():
            if self._launch is None:  # a server that starts does not answer yet
                self._note_server(seen)
        if not self._watchers and not self._activities:
            self._watch.stop()
            self._watch = None

    def _look_at_launch(self, launch: ServerLaunch, node: Node | None) -> None:
        if not launch.is_over:
            for seen in launch.fetch_happenings():
                self._note_server(seen)
                if node is not None:
                    self.tell(node, states.describe_server(seen))
            return
        self._launch = None

    def _note_server(self, seen: ServerSeen | ServerSilent) -> None:
        if self.server != seen:
            self.server = seen
            self._is_changed = True

    def _look_after(self, connection_file: Path) -> None:
        if self._watch is not None and self._watch.connection_file != connection_file:
            self._watch.stop()
            self._watch = None
        if self._watch is None:
            self.server = None
            self._watch = ServerWatch(connection_file)
        self._wake()

    # ------------------------------------------------------------------------------------------------- Nuke is written

    def _refresh_nodes(self) -> None:
        now = time.monotonic()
        for session, activity in self._activities.items():
            if now - self._status_at.get(session, 0.0) >= _STATUS_EVERY:
                self._write_status(session, activity.node)
            if now - self._mattes_due.get(session, now) >= _MATTES_EVERY:
                self._show_mattes(activity)

    def _show_mattes(self, activity: Activity) -> None:
        if self._mattes_due.pop(activity.session, None) is not None:
            with contextlib.suppress(NodeGoneError):
                self._host.show_mattes(activity.node, activity.shot)

    def _write_status(self, session: str, node: Node) -> None:
        self._status_at[session] = time.monotonic()
        with contextlib.suppress(NodeGoneError):
            self._host.write_status(node, states.describe(self._states[session], self.server))

    # -------------------------------------------------------------------------------------------------------- within

    def _attempt(self, node: Node, work: Callable[[str], None]) -> None:
        """Begin something for a node that is not busy; what goes wrong is told on the node."""
        with contextlib.suppress(NodeGoneError):
            session = self._host.fetch_session(node)
            self._nodes[session] = node
            self._set_focus(session)
            if session in self._activities:
                return
            try:
                work(session)
            except XMemError as error:
                self._set_state(states.fail(self.fetch_state(session), str(error)))
                self._write_status(session, node)
        self._tell()

    def _set_focus(self, session: str) -> None:
        if session != self._focus:
            self._focus = session
            self._is_changed = True

    def _wake(self) -> None:
        if self._host.is_interactive():
            self._ticker.wake()

    def _set_state(self, state: NodeState) -> None:
        if self._states.get(state.session) != state:
            self._states[state.session] = state
            self._is_changed = True

    def _fail_all(self, error: Exception) -> None:
        words = f"XMem failed by a fault of its own ({type(error).__name__}). Press Copy diagnostics and report it."
        for session, activity in list(self._activities.items()):
            activity.cancel()
            del self._activities[session]
            self._mattes_due.pop(session, None)
            self._set_state(states.fail(self.fetch_state(session), words, traceback.format_exc()))
            self._write_status(session, activity.node)

    def _tell(self) -> None:
        if self._is_changed:
            self._is_changed = False
            for listener in list(self._listeners):
                listener()
