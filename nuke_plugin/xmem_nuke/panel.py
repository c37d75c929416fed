"""The dockable panel: shows the controller and sends intents to it. Keeps no state: it may be closed and made again at any time."""

from __future__ import annotations

import time
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Protocol

from xmem_nuke.panel_qt import QtCore, QtGui, QtWidgets
from xmem_nuke.panel_timeline import TimelineStrip
from xmem_nuke.panel_widgets import KeyList, MessageBox, ProgressLine, ServerLine, SuggestionList
from xmem_nuke.states import NodeState, ServerState

if TYPE_CHECKING:
    from xmem_nuke.controller import Controller

_FOLLOW_EVERY = 1000  # milliseconds between looks at which nodes there are and where the artist is
# A look at the keys moves Nuke's frame there and back, so it is made when the pointer comes to the panel (an edit is done
# elsewhere), not by a clock, and not again before so many seconds, or twenty times as long as it took.
_LOOK_EVERY = 2.0
_LOOK_SHARE = 20


class Intents(Protocol):
    """What the panel asks for; ``actions.PanelIntents`` is it inside Nuke."""

    @property
    def controller(self) -> Controller:
        """Give the controller to show."""

    def fetch_nodes(self) -> tuple[tuple[str, str], ...]:
        """Give session and name of the nodes to choose from."""

    def fetch_connection_file(self, session: str) -> Path:
        """Give where the server of a node says that it is."""

    def fetch_frame(self) -> int:
        """Give the frame that the artist looks at."""

    def jump(self, frame: int) -> None:
        """Go to a frame."""

    def look(self, session: str) -> None:
        """See which keys of a node changed."""

    def run(self, session: str) -> None:
        """Render and send what changed, then make the mattes."""

    def suggest(self, session: str) -> None:
        """Say which frames to key next."""

    def start_server(self, session: str) -> None:
        """Start the server."""

    def copy_diagnostics(self, session: str) -> None:
        """Copy what a bug report needs."""


class XMemPanel(QtWidgets.QWidget):
    """The panel. Nuke makes it without arguments, as often as it likes."""

    def __init__(self, intents: Intents | None = None, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        _PANELS.add(self)
        self._intents = intents or _fetch_nukes_intents()
        self._shown: tuple[NodeState, ServerState] | None = None
        self._focus = ""
        self._next_look = 0.0
        self._stop_watching: list[Callable[[], None]] = []
        self._build()
        stops = [self._intents.controller.listen(self._refresh)]
        watches = self._stop_watching
        self.destroyed.connect(lambda *_: _call_all([*stops, *watches]))  # holds nothing of the widget that is gone
        self._timer = QtCore.QTimer(self)
        self._timer.setInterval(_FOLLOW_EVERY)
        self._timer.timeout.connect(self._follow)
        self._list_nodes()
        self._refresh()

    @property
    def session(self) -> str:
        """Give the session of the node that is shown, empty when there is none."""
        return str(self._nodes.currentData() or "")

    def _build(self) -> None:
        self.setWindowTitle("XMem")
        self._nodes = QtWidgets.QComboBox()
        self._nodes.currentIndexChanged.connect(lambda _index: self._show_other_node())
        self._server = ServerLine()
        self._server.start_wanted.connect(lambda: self._intents.start_server(self.session))
        self._strip = TimelineStrip()
        self._strip.jumped.connect(self._jump)
        self._keys, self._suggestions = KeyList(), SuggestionList()
        self._keys.chosen.connect(self._jump)
        self._suggestions.chosen.connect(self._jump)
        self._progress, self._message = ProgressLine(), MessageBox()
        self._progress.cancel_wanted.connect(lambda: self._intents.controller.cancel(self.session))
        self._message.copy_wanted.connect(lambda: self._intents.copy_diagnostics(self.session))
        self._run = _make_button("Run", lambda: self._intents.run(self.session))
        self._update = _make_button("Update", lambda: self._intents.run(self.session))
        self._suggest = _make_button("Suggest", lambda: self._intents.suggest(self.session))
        self._jump_button = _make_button("Jump", self._jump_to_selected)
        self._dismiss = _make_button("Dismiss", self._dismiss_selected)
        layout = QtWidgets.QVBoxLayout(self)
        for part in (self._nodes, self._server, self._strip):
            layout.addWidget(part)
        layout.addLayout(_make_line(self._run, self._update, self._suggest))
        layout.addWidget(self._progress)
        layout.addWidget(self._message)
        lists = QtWidgets.QSplitter(QtCore.Qt.Orientation.Vertical)
        lists.setChildrenCollapsible(False)
        lists.addWidget(_make_titled("Keys", self._keys))
        lists.addWidget(_make_titled("Draw next", self._suggestions, self._jump_button, self._dismiss))
        layout.addWidget(lists, 1)

    # ------------------------------------------------------------------------------------------------ Qt's own names

    def showEvent(self, event: QtGui.QShowEvent) -> None:  # noqa: N802
        """Look after the server and the keys while the panel can be seen."""
        super().showEvent(event)
        self._list_nodes()
        self._watch()
        self._timer.start()
        self._look()

    def enterEvent(self, event: Any) -> None:  # noqa: N802 - of another type in Qt 6 than in Qt 5
        """See what the artist did elsewhere."""
        super().enterEvent(event)
        self._look()

    def hideEvent(self, event: QtGui.QHideEvent) -> None:  # noqa: N802
        """Look no more."""
        self._timer.stop()
        self._unwatch()
        super().hideEvent(event)

    # --------------------------------------------------------------------------------------------------------- shown

    def _refresh(self) -> None:
        """Show what the controller says, as far as it is something else than before."""
        controller = self._intents.controller
        if controller.focus and controller.focus != self._focus:
            self._focus = controller.focus
            self._list_nodes()
            self._nodes.setCurrentIndex(max(0, self._nodes.findData(self._focus)))
        state = controller.fetch_state(self.session)
        old, self._shown = self._shown, (state, controller.server)
        if self._shown != old:
            self._show(state, controller.server, old[0] if old else None)

    def _show(self, state: NodeState, server: ServerState, old: NodeState | None) -> None:
        has_node = bool(self.session)
        self._server.show_server(server)
        self._strip.show_state(state, self._intents.fetch_frame())
        self._progress.show_state(state, server)
        self._message.show_state(state if has_node else _EXPLAIN_NO_NODE)
        if old is None or old.keys != state.keys:
            self._keys.show_keys(state.keys)
        if old is None or old.suggestions != state.suggestions:
            self._suggestions.show_suggestions(state.suggestions)
        for button in (self._run, self._update, self._suggest):
            button.setEnabled(has_node and not state.is_busy)
        for button in (self._jump_button, self._dismiss):
            button.setEnabled(bool(state.suggestions))

    def _list_nodes(self) -> None:
        """Offer the XMem nodes that there are; the one that is shown stays."""
        found = self._intents.fetch_nodes()
        have = tuple((self._nodes.itemData(row), self._nodes.itemText(row)) for row in range(self._nodes.count()))
        if found == have:
            return
        session = self.session
        blocker = QtCore.QSignalBlocker(self._nodes)
        self._nodes.clear()
        for found_session, name in found:
            self._nodes.addItem(name, found_session)
        self._nodes.setCurrentIndex(max(0, self._nodes.findData(session)))
        blocker.unblock()
        self._show_other_node()

    def _show_other_node(self) -> None:
        self._shown = None
        self._keys.show_keys(())
        self._suggestions.show_suggestions(())
        if self.isVisible():
            self._watch()
        self._next_look = 0.0
        self._look()
        self._refresh()

    # ------------------------------------------------------------------------------------------------------- intents

    def _follow(self) -> None:
        """See which nodes there are, and the frame that the artist looks at."""
        self._list_nodes()
        self._show_frame()

    def _show_frame(self) -> None:
        self._strip.show_state(self._intents.controller.fetch_state(self.session), self._intents.fetch_frame())

    def _look(self) -> None:
        """See what became of the keys, unless that was done a moment ago."""
        began = time.monotonic()
        if began < self._next_look or not self.session or not self.isVisible():
            return
        self._intents.look(self.session)
        now = time.monotonic()
        self._next_look = now + max(_LOOK_EVERY, _LOOK_SHARE * (now - began))

    def _watch(self) -> None:
        self._unwatch()
        file = self._intents.fetch_connection_file(self.session)
        self._stop_watching.append(self._intents.controller.watch_server(file))

    def _unwatch(self) -> None:
        _call_all(self._stop_watching)
        self._stop_watching.clear()

    def _jump(self, frame: int) -> None:
        self._intents.jump(frame)
        self._show_frame()

    def _jump_to_selected(self) -> None:
        frame = self._fetch_selected()
        if frame is not None:
            self._jump(frame)

    def _dismiss_selected(self) -> None:
        frame = self._fetch_selected()
        if frame is not None:
            self._intents.controller.dismiss(self.session, frame)

    def _fetch_selected(self) -> int | None:
        """Give the selected suggestion, the best one when none is selected."""
        selected = self._suggestions.fetch_selected()
        rows = self._intents.controller.fetch_state(self.session).suggestions
        return selected if selected is not None else rows[0].frame if rows else None


_PANELS: weakref.WeakSet[XMemPanel] = weakref.WeakSet()
_EXPLAIN_NO_NODE = NodeState(
    "", message="There is no XMem node in this script. Press Tab in the node graph and type XMem."
)


def is_open() -> bool:
    """Whether a panel can be seen."""
    return any(_is_seen(panel) for panel in list(_PANELS))


def copy_text(text: str) -> None:
    """Put text on the clipboard."""
    clipboard = QtWidgets.QApplication.clipboard()
    if clipboard is not None:
        clipboard.setText(text)


def _is_seen(panel: XMemPanel) -> bool:
    try:
        return panel.isVisible()
    except RuntimeError:  # Qt has deleted it, Python has not yet
        return False


def _fetch_nukes_intents() -> Intents:
    from xmem_nuke.actions import PanelIntents  # noqa: PLC0415 - inside Nuke only; tests and pictures give their own

    return PanelIntents()


def _call_all(stops: list[Callable[[], None]]) -> None:
    for stop in stops:
        stop()


def _make_button(text: str, press: Callable[[], None]) -> QtWidgets.QPushButton:
    button = QtWidgets.QPushButton(text)
    button.clicked.connect(lambda *_: press())
    return button


def _make_line(*parts: QtWidgets.QWidget) -> QtWidgets.QHBoxLayout:
    line = QtWidgets.QHBoxLayout()
    for part in parts:
        line.addWidget(part)
    line.addStretch(1)
    return line


def _make_titled(title: str, part: QtWidgets.QWidget, *buttons: QtWidgets.QWidget) -> QtWidgets.QWidget:
    """Give a part under its title, with buttons below."""
    whole = QtWidgets.QWidget()
    layout = QtWidgets.QVBoxLayout(whole)
    layout.setContentsMargins(0, 0, 0, 0)
    layout.addWidget(QtWidgets.QLabel(title))
    layout.addWidget(part, 1)
    if buttons:
        layout.addLayout(_make_line(*buttons))
    return whole
