"""The parts of the panel: the server's line, the lists of keys and suggestions, progress, the last message."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from xmem_nuke import states
from xmem_nuke.orders import ServerSeen
from xmem_nuke.panel_qt import QtCore, QtGui, QtWidgets
from xmem_nuke.panel_timeline import LOST, SUGGESTION
from xmem_nuke.states import KeyRow, NodeState, ServerState, SuggestionRow

_ROW_FRAME = QtCore.Qt.ItemDataRole.UserRole
_GOOD = QtGui.QColor("#6fae7f")
_WAITING = QtGui.QColor("#b0b0b0")
_WARN = QtGui.QColor("#e6b422")


class ServerLine(QtWidgets.QWidget):
    """A dot and a line about the server; the button is there while nobody answers."""

    start_wanted = QtCore.Signal()

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._dot = QtWidgets.QLabel("\u25cf")
        self._words = make_wrapping_label()
        self._start = QtWidgets.QPushButton("Start server")
        self._start.clicked.connect(self.start_wanted)
        layout = make_row(self)
        layout.addWidget(self._dot, 0, QtCore.Qt.AlignmentFlag.AlignTop)
        layout.addWidget(self._words, 1)
        layout.addWidget(self._start, 0, QtCore.Qt.AlignmentFlag.AlignTop)

    def show_server(self, server: ServerState) -> None:
        """Show what is known of the server."""
        colour = _WAITING if server is None else _GOOD if isinstance(server, ServerSeen) else LOST
        set_colour(self._dot, colour)
        self._words.setText(states.describe_server(server))
        self._start.setVisible(server is not None and not isinstance(server, ServerSeen))


class Rows(QtWidgets.QTreeWidget):
    """A list of frames. ``chosen`` is emitted with the frame of a row that was double-clicked."""

    chosen = QtCore.Signal(int)

    def __init__(self, headers: Sequence[str], parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self.setHeaderLabels(list(headers))
        self.setRootIsDecorated(False)
        self.setUniformRowHeights(True)
        self.setAlternatingRowColors(True)
        self.setSelectionMode(QtWidgets.QAbstractItemView.SelectionMode.SingleSelection)
        self.setMinimumHeight(4 * self.fontMetrics().height())
        self.header().setSectionResizeMode(QtWidgets.QHeaderView.ResizeMode.ResizeToContents)
        self.header().setStretchLastSection(True)
        self.itemActivated.connect(self._emit_chosen)
        self.itemDoubleClicked.connect(self._emit_chosen)

    def fetch_selected(self) -> int | None:
        """Give the frame of the selected row, None when none is."""
        item = self.currentItem()
        return None if item is None else int(item.data(0, _ROW_FRAME))

    def fetch_texts(self) -> list[list[str]]:
        """Give what is to be read, row by row."""
        items = [self.topLevelItem(row) for row in range(self.topLevelItemCount())]
        return [[item.text(column) for column in range(self.columnCount())] for item in items if item is not None]

    def show_rows(self, rows: Iterable[tuple[int, Sequence[str], QtGui.QColor | None]]) -> None:
        """Show other rows: frame, texts, colour of the last text. The selected frame stays selected."""
        selected = self.fetch_selected()
        self.clear()
        for frame, texts, colour in rows:
            item = QtWidgets.QTreeWidgetItem(self, list(texts))
            item.setData(0, _ROW_FRAME, frame)
            item.setToolTip(len(texts) - 1, texts[-1])
            if colour is not None:
                item.setForeground(len(texts) - 1, QtGui.QBrush(colour))
            if frame == selected:
                self.setCurrentItem(item)

    def _emit_chosen(self, item: QtWidgets.QTreeWidgetItem, _column: int = 0) -> None:
        self.chosen.emit(int(item.data(0, _ROW_FRAME)))


class KeyList(Rows):
    """The keys of a node."""

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(("Frame", "Objects", "State"), parent)
        self._pictures: dict[str, QtGui.QIcon] = {}  # by path: a picture that changes gets another one
        line = self.fontMetrics().height()
        self.setIconSize(QtCore.QSize(4 * line, 2 * line))

    def show_keys(self, keys: Sequence[KeyRow]) -> None:
        """Show these keys, each with its picture once it has one."""
        colours = {states.IN_MEMORY: _GOOD, states.EDITED: _WARN, states.NEW: _WARN, states.QUEUED: SUGGESTION}
        self.show_rows((row.frame, (str(row.frame), _name_objects(row), row.state), colours[row.state]) for row in keys)
        for number, row in enumerate(keys):
            item = self.topLevelItem(number)
            if item is not None:
                item.setIcon(0, self._fetch_icon(row.thumbnail))

    def _fetch_icon(self, path: str) -> QtGui.QIcon:
        """Give a key's picture in the middle of the icon's place, so that rows line up; nothing there without one."""
        if path not in self._pictures:
            place = QtGui.QPixmap(self.iconSize() * self.devicePixelRatioF())
            place.fill(QtGui.QColor(0, 0, 0, 0))
            picture = QtGui.QPixmap(path)
            if not picture.isNull():
                scaled = picture.scaled(
                    place.size(),
                    QtCore.Qt.AspectRatioMode.KeepAspectRatio,
                    QtCore.Qt.TransformationMode.SmoothTransformation,
                )
                painter = QtGui.QPainter(place)
                painter.drawPixmap(
                    (place.width() - scaled.width()) // 2, (place.height() - scaled.height()) // 2, scaled
                )
                painter.end()
            place.setDevicePixelRatio(self.devicePixelRatioF())
            self._pictures[path] = QtGui.QIcon(place)
        return self._pictures[path]


class SuggestionList(Rows):
    """The frames to annotate next."""

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(("Frame", "Score", "Why"), parent)

    def show_suggestions(self, suggestions: Sequence[SuggestionRow]) -> None:
        """Show these suggestions, best first."""
        self.show_rows(
            (row.frame, (str(row.frame), f"{row.score:.2f}", row.reason), LOST if row.kind == "lost" else None)
            for row in suggestions
        )


class ProgressLine(QtWidgets.QWidget):
    """What is being done, how far it is, and a Cancel that cancels."""

    cancel_wanted = QtCore.Signal()

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._words = make_wrapping_label()
        self._bar = QtWidgets.QProgressBar()
        self._bar.setTextVisible(False)
        self._bar.setMaximumHeight(self.fontMetrics().height())
        self._cancel = QtWidgets.QPushButton("Cancel")
        self._cancel.clicked.connect(self.cancel_wanted)
        column = QtWidgets.QVBoxLayout()
        column.addWidget(self._words)
        column.addWidget(self._bar)
        layout = make_row(self)
        layout.addLayout(column, 1)
        layout.addWidget(self._cancel, 0, QtCore.Qt.AlignmentFlag.AlignBottom)

    def show_state(self, state: NodeState, server: ServerState) -> None:
        """Show how far a node is; nothing is left of the line while it rests."""
        self.setVisible(state.is_busy)
        if state.is_busy:
            self._words.setText(states.describe(state, server))
            self._bar.setRange(0, state.total)  # 0 to 0 is a bar that only says that something happens
            self._bar.setValue(min(state.done, state.total))
            self._cancel.setEnabled(state.phase != states.CANCELLING)


class MessageBox(QtWidgets.QFrame):
    """The last thing to tell the artist; an error has its colour, and a button that copies what a bug report needs."""

    copy_wanted = QtCore.Signal()

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._words = make_wrapping_label()
        self._words.setTextInteractionFlags(QtCore.Qt.TextInteractionFlag.TextSelectableByMouse)
        self._copy = QtWidgets.QPushButton("Copy diagnostics")
        self._copy.clicked.connect(self.copy_wanted)
        layout = QtWidgets.QVBoxLayout(self)
        layout.addWidget(self._words)
        layout.addWidget(self._copy, 0, QtCore.Qt.AlignmentFlag.AlignRight)
        self.setFrameShape(QtWidgets.QFrame.Shape.StyledPanel)

    def show_state(self, state: NodeState) -> None:
        """Show the message of a node that rests."""
        self.setVisible(bool(state.message) and not state.is_busy)
        self._words.setText(state.message)
        self._copy.setVisible(state.is_error)
        if state.is_error:
            set_colour(self._words, LOST)
        else:
            self._words.setPalette(self.palette())


def make_wrapping_label() -> QtWidgets.QLabel:
    """Give a label that becomes higher rather than wider."""
    label = QtWidgets.QLabel()
    label.setWordWrap(True)
    label.setTextFormat(QtCore.Qt.TextFormat.PlainText)  # names and paths are the artist's: no markup
    label.setMinimumWidth(1)
    return label


def make_row(widget: QtWidgets.QWidget) -> QtWidgets.QHBoxLayout:
    """Give a row without margins as the widget's layout."""
    layout = QtWidgets.QHBoxLayout(widget)
    layout.setContentsMargins(0, 0, 0, 0)
    return layout


def set_colour(label: QtWidgets.QLabel, colour: QtGui.QColor) -> None:
    """Write a label in a colour."""
    palette = label.palette()
    palette.setColor(QtGui.QPalette.ColorRole.WindowText, colour)
    label.setPalette(palette)


def _name_objects(row: KeyRow) -> str:
    absent = [f"{number} absent" for number in row.absent]
    return ", ".join([*map(str, row.objects), *absent]) or "\u2013"
