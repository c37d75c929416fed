"""One function per button of the gizmo and entry of the menu. Main thread only; each imports what it needs when pressed."""

from __future__ import annotations

import contextlib
import functools
import importlib
import platform
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, TypeVar, cast

import nuke

if TYPE_CHECKING:
    from xmem_nuke.controller import Controller

PANEL_ID = "com.xmem-nuke.panel"  # saved in the artist's workspaces: it never changes
PANEL_NAME = "XMem"
PANEL_CLASS = "__import__('xmem_nuke.panel', fromlist=['XMemPanel']).XMemPanel"
_PAUSE = 0.01  # between ticks where there is no event loop

_controllers: list[Controller] = []
_Press = TypeVar("_Press", bound=Callable[..., None])


def _explains_missing_library(press: _Press) -> _Press:
    """Give the button, saying on the node and in the console which library cannot be loaded instead of a traceback."""

    @functools.wraps(press)
    def pressed(node: Any = None) -> None:
        try:
            press(node)
        except ImportError as error:
            words = (
                f"XMem cannot load {error.name or 'a library'} in this Nuke ({error}). Run 'xmem install-nuke' again."
            )
            nuke.tprint(words)
            if node is not None:
                node["status"].setValue(words)

    return cast("_Press", pressed)


def fetch_controller() -> Controller:
    """Give the one controller of this Nuke, made on first use."""
    if not _controllers:
        from xmem_nuke.controller import Controller  # noqa: PLC0415 - nothing of ours loads while Nuke starts
        from xmem_nuke.nodes import NukeHost  # noqa: PLC0415

        _controllers.append(Controller(NukeHost()))
    return _controllers[0]


# ------------------------------------------------------------------------------------------------------- the gizmo


@_explains_missing_library
def run(node: Any) -> None:
    """Render and send what the server lacks, then make the mattes."""
    fetch_controller().run(node)
    _wait_without_event_loop()


def update(node: Any) -> None:
    """Send what changed and make the mattes again: whatever did not change is neither rendered nor sent, so it is a run."""
    run(node)


@_explains_missing_library
def suggest(node: Any) -> None:
    """Say which frames to key next."""
    fetch_controller().suggest(node)
    _wait_without_event_loop()


@_explains_missing_library
def cancel(node: Any) -> None:
    """Stop what runs for the node."""
    fetch_controller().cancel(node["session"].value())


@_explains_missing_library
def add_key(node: Any) -> None:
    """Have the current frame sent as a key."""
    from xmem_nuke import nodes  # noqa: PLC0415

    frame = nodes.fetch_current_frame()
    first, last = int(node["first_frame"].value()), int(node["last_frame"].value())
    if not first <= frame <= last:
        _tell_and_look(node, f"Frame {frame} is outside the frame range {first} to {last}, so it cannot be a key.")
        return
    nodes.add_key(node, frame)
    _tell_and_look(node, f"Frame {frame} is a key. Press Update to send it.")


@_explains_missing_library
def remove_key(node: Any) -> None:
    """Have the current frame no longer sent as a key."""
    from xmem_nuke import nodes  # noqa: PLC0415

    frame = nodes.fetch_current_frame()
    nodes.remove_key(node, frame)
    _tell_and_look(node, f"Frame {frame} is no key any more. Press Update to tell the server.")


@_explains_missing_library
def next_suggestion(node: Any) -> None:
    """Go to the suggested frame after this one; after the last comes the first."""
    from xmem_nuke import nodes  # noqa: PLC0415

    frames, now = nodes.fetch_marks(node["suggested"]), nodes.fetch_current_frame()
    _jump(node, next((frame for frame in frames if frame > now), frames[0] if frames else None))


@_explains_missing_library
def previous_suggestion(node: Any) -> None:
    """Go to the suggested frame before this one; before the first comes the last."""
    from xmem_nuke import nodes  # noqa: PLC0415

    frames, now = nodes.fetch_marks(node["suggested"]), nodes.fetch_current_frame()
    _jump(node, next((frame for frame in reversed(frames) if frame < now), frames[-1] if frames else None))


@_explains_missing_library
def copy_diagnostics(node: Any) -> None:
    """Put what a bug report needs on the node, on the clipboard and in the console."""
    text = fetch_diagnostics(node)
    node["diagnostics"].setValue(text)
    nuke.tprint(text)
    if nuke.GUI:
        from xmem_nuke.panel import copy_text  # noqa: PLC0415 - Qt is there in GUI sessions only

        copy_text(text)


@_explains_missing_library
def start_server(node: Any = None) -> None:
    """Start the server of this computer, or find the one that runs."""
    from xmem_nuke.bootstrap import PLUGIN_FOLDER  # noqa: PLC0415
    from xmem_nuke.server_launch import RECORD_NAME, LaunchSettings, fetch_connection_file  # noqa: PLC0415
    from xmem_protocol import XMemError  # noqa: PLC0415

    controller = fetch_controller()
    settings = LaunchSettings(fetch_connection_file())
    if node is not None:
        roots: tuple[Path, ...] = ()
        from xmem_nuke.shot import fetch_shot  # noqa: PLC0415

        with contextlib.suppress(XMemError):  # a node that is not wired yet: its files travel instead of being read
            roots = (Path(fetch_shot(node).cache_dir),)
        settings = LaunchSettings(
            fetch_connection_file(node["server"].value()), node["model"].value().strip() or "compact", roots
        )
    controller.launch_server(settings, PLUGIN_FOLDER / RECORD_NAME, node)
    _wait_without_event_loop()


@_explains_missing_library
def open_panel(node: Any = None) -> None:
    """Show the panel beside the properties, on this node; one that can be seen is used."""
    if not nuke.GUI:
        return
    from xmem_nuke import panel as panels  # noqa: PLC0415 - Qt is there in GUI sessions only

    if node is not None:
        fetch_controller().look(node)
        fetch_controller().show(node["session"].value())
    if panels.is_open():
        return
    pane = nuke.getPaneFor("Properties.1")
    panel = _panels().registerWidgetAsPanel(PANEL_CLASS, PANEL_NAME, PANEL_ID, create=True)
    if pane is not None:
        panel.addToPane(pane)
    else:
        panel.addToPane()


def on_create(node: Any) -> None:
    """Give a node a session of its own; called on every creation, also by loading a script, pasting and undo."""
    with contextlib.suppress(
        ImportError
    ):  # a farm whose vendor folder is empty still loads the script and plays the mattes
        from xmem_nuke.nodes import keep_session  # noqa: PLC0415

        keep_session(node)


def knob_changed(node: Any, knob: Any) -> None:
    """Follow the knobs that say which matte is shown; all others, and Nuke's own noise, are nothing to us."""
    if knob.name() == "show_object":
        with contextlib.suppress(ImportError):
            from xmem_nuke.nodes import show_object  # noqa: PLC0415

            show_object(node)


# ------------------------------------------------------------------------------------------------------- the panel


class PanelIntents:
    """What the panel asks for, by session; ``panel.Intents`` says what each method does."""

    @property
    def controller(self) -> Controller:
        """Give the one controller of this Nuke."""
        return fetch_controller()

    def fetch_nodes(self) -> tuple[tuple[str, str], ...]:
        """Give session and name of every XMem node of the script, by name."""
        from xmem_nuke import nodes  # noqa: PLC0415

        return nodes.fetch_nodes()

    def look(self, session: str) -> None:
        """See which keys of a node changed."""
        self._with_node(session, self.controller.look)

    def run(self, session: str) -> None:
        """Press Run on a node."""
        self._with_node(session, run)

    def suggest(self, session: str) -> None:
        """Press Suggest on a node."""
        self._with_node(session, suggest)

    def start_server(self, session: str) -> None:
        """Press Start server, on a node if there is one."""
        start_server(self._fetch_node(session))

    def copy_diagnostics(self, session: str) -> None:
        """Press Copy diagnostics on a node."""
        self._with_node(session, copy_diagnostics)

    def fetch_connection_file(self, session: str) -> Path:
        """Give where the server of a node says that it is."""
        from xmem_nuke.server_launch import fetch_connection_file  # noqa: PLC0415

        node = self._fetch_node(session)
        return fetch_connection_file("" if node is None else node["server"].value())

    def jump(self, frame: int) -> None:
        """Go to a frame."""
        from xmem_nuke import nodes  # noqa: PLC0415

        nodes.jump(frame)

    def fetch_frame(self) -> int:
        """Give the frame that the artist looks at."""
        from xmem_nuke import nodes  # noqa: PLC0415

        return nodes.fetch_current_frame()

    def _fetch_node(self, session: str) -> Any:
        from xmem_nuke import nodes  # noqa: PLC0415

        return nodes.find_node(session)

    def _with_node(self, session: str, work: Callable[[Any], None]) -> None:
        node = self._fetch_node(session)
        if node is not None:
            work(node)


# -------------------------------------------------------------------------------------------------------- the menu


def build_menu(trouble: str = "") -> None:
    """Add the menus and the panel; ``trouble`` is what a menu entry explains when the plug-in cannot work."""
    bar = nuke.menu("Nuke").addMenu("XMem")
    nuke.menu("Nodes").addCommand("XMem", "nuke.createNode('XMem')")
    if trouble:
        bar.addCommand("XMem does not work: why", lambda: nuke.message(trouble))
        return
    bar.addCommand("Open panel", open_panel)
    bar.addCommand("Start server", _start_server_and_show)
    _panels().registerWidgetAsPanel(PANEL_CLASS, PANEL_NAME, PANEL_ID)


def _start_server_and_show() -> None:
    """Start the server with the panel open, which says how that goes."""
    start_server()
    open_panel()


# --------------------------------------------------------------------------------------------------- without a window


def say(line: str) -> None:
    """Write a line to the console."""
    nuke.tprint(line)


def open_script(path: str) -> None:
    """Open a script."""
    nuke.scriptOpen(path)


def find_node(name: str) -> Any:
    """Give the XMem node of this name, None when there is none."""
    node = nuke.toNode(name)
    return node if node is not None and "session" in node.knobs() and "schema_version" in node.knobs() else None


# -------------------------------------------------------------------------------------------------------- diagnostics


def fetch_diagnostics(node: Any) -> str:
    """Give what a bug report needs, a line each; no secret and no path outside the script's own."""
    from xmem_client import CLIENT_VERSION  # noqa: PLC0415
    from xmem_nuke import states  # noqa: PLC0415

    controller = fetch_controller()
    state = controller.fetch_state(node["session"].value())
    lines = [
        f"XMem for Nuke {CLIENT_VERSION}, node {node.fullName()}, session {state.session}",
        f"Nuke {nuke.env['NukeVersionString']}, Python {platform.python_version()}, {sys.platform} {platform.machine()}",
        f"Libraries: {_fetch_versions()}",
        f"Server: {states.describe_server(controller.server)}",
        f"State: {states.describe(state, controller.server)}",
        f"Frames {state.first}-{state.last}, {len(state.keys)} keys, {len(state.mattes)} mattes; last run rendered "
        f"{state.rendered_keys} keys and {state.rendered_plates} plates, sent {state.sent_keys} and {state.sent_plates}",
    ]
    lines += [f"Frame {frame}: {message}" for frame, message in state.refused[:10]]
    return "\n".join([*lines, *state.detail.splitlines()])


def _fetch_versions() -> str:
    """Give the libraries of the vendor folder and their versions, or why they cannot be loaded."""
    try:
        zmq, msgpack = importlib.import_module("zmq"), importlib.import_module("msgpack")
    except ImportError as error:
        return f"cannot be loaded: {error}"
    return f"pyzmq {zmq.__version__}, libzmq {zmq.zmq_version()}, msgpack {'.'.join(map(str, msgpack.version))}"


def _panels() -> Any:
    """Give Nuke's own panel functions; they are there in sessions with a window only."""
    return importlib.import_module("nukescripts.panels")


def _jump(node: Any, frame: int | None) -> None:
    from xmem_nuke import nodes  # noqa: PLC0415

    if frame is None:
        fetch_controller().tell(node, "There is no suggested frame. Press Suggest.")
        return
    nodes.jump(frame)
    rows = fetch_controller().fetch_state(node["session"].value()).suggestions
    reason = next((row.reason for row in rows if row.frame == frame), "")
    if reason:
        fetch_controller().tell(node, f"Frame {frame}: {reason}")


def _tell_and_look(node: Any, message: str) -> None:
    controller = fetch_controller()
    controller.tell(node, message)
    controller.look(node)


def _wait_without_event_loop() -> None:
    """Do the work here and now in ``nuke -t``, where nothing else would."""
    controller = fetch_controller()
    while not nuke.GUI and controller.is_busy:
        controller.tick()
        time.sleep(_PAUSE)
