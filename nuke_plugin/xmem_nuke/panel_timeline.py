"""The strip over a shot's frames: where there are mattes, keys, suggestions and frames that failed. A click jumps there."""

from __future__ import annotations

from xmem_nuke.panel_qt import QtCore, QtGui, QtWidgets
from xmem_nuke.states import EDITED, IN_MEMORY, NodeState

MATTE = QtGui.QColor("#4f7f5f")
PROVISIONAL = QtGui.QColor("#8fbf6f")
STALE = QtGui.QColor("#5c5f55")
KEY = QtGui.QColor("#e6b422")
SUGGESTION = QtGui.QColor("#5fb8de")
LOST = QtGui.QColor("#e0705f")
_SNAP = 6  # pixels: a click this near to a mark means the mark


class TimelineStrip(QtWidgets.QWidget):
    """Shows a NodeState. ``jumped`` is emitted with the frame that was clicked."""

    jumped = QtCore.Signal(int)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._state = NodeState("")
        self._now = 0
        self.setMouseTracking(True)
        self.setSizePolicy(QtWidgets.QSizePolicy.Policy.Expanding, QtWidgets.QSizePolicy.Policy.Fixed)

    def sizeHint(self) -> QtCore.QSize:  # noqa: N802 - Qt's name
        """Give three lines of text as the height."""
        metrics = self.fontMetrics()
        return QtCore.QSize(20 * metrics.averageCharWidth(), 3 * metrics.height())

    def show_state(self, state: NodeState, now: int) -> None:
        """Show another state, and the frame that the artist looks at."""
        if state is not self._state or now != self._now:
            self._state, self._now = state, now
            self.update()

    def fetch_frame_at(self, x: float) -> int:
        """Give the frame at a place, a mark near by winning."""
        state = self._state
        marks = [row.frame for row in state.keys] + [row.frame for row in state.suggestions]
        near = [(abs(self._x(frame) - x), frame) for frame in marks if abs(self._x(frame) - x) <= _SNAP]
        if near:
            return min(near)[1]
        count = max(1, state.last - state.first + 1)
        return min(state.last, max(state.first, state.first + int((x - self._left()) / self._width() * count)))

    # ------------------------------------------------------------------------------------------------ Qt's own names

    def mousePressEvent(self, event: QtGui.QMouseEvent) -> None:  # noqa: N802
        """Jump to the frame that was clicked."""
        if self._state.last >= self._state.first:
            self.jumped.emit(self.fetch_frame_at(_x_of(event)))

    def mouseMoveEvent(self, event: QtGui.QMouseEvent) -> None:  # noqa: N802
        """Say what is at the frame under the pointer."""
        if self._state.last >= self._state.first:
            self.setToolTip(self._describe(self.fetch_frame_at(_x_of(event))))

    def paintEvent(self, event: QtGui.QPaintEvent) -> None:  # noqa: N802
        """Draw the strip."""
        del event
        painter = QtGui.QPainter(self)
        painter.setRenderHint(QtGui.QPainter.RenderHint.Antialiasing)
        if self._state.last >= self._state.first:
            self._paint_band(painter)
            self._paint_marks(painter)
            self._paint_numbers(painter)
        painter.end()

    # -------------------------------------------------------------------------------------------------------- within

    def _paint_band(self, painter: QtGui.QPainter) -> None:
        """Draw the bar of the shot, the part that has mattes in colour."""
        top, height = self._band()
        painter.fillRect(
            QtCore.QRectF(self._left(), top, self._width(), height), self.palette().color(QtGui.QPalette.ColorRole.Base)
        )
        for frames, colour in (
            (self._state.mattes, MATTE),
            (self._state.stale, STALE),
            (self._state.provisional, PROVISIONAL),
        ):
            for first, last in _runs(frames):
                left, right = self._edge(max(first, self._state.first)), self._edge(min(last, self._state.last) + 1)
                painter.fillRect(QtCore.QRectF(left, top, max(1.0, right - left), height), colour)
        for frame, _ in self._state.refused:
            painter.fillRect(QtCore.QRectF(self._edge(frame), top, max(2.0, self._step()), height), LOST)
        if self._state.first <= self._now <= self._state.last:
            pen = QtGui.QPen(self.palette().color(QtGui.QPalette.ColorRole.WindowText), 1)
            painter.setPen(pen)
            painter.drawLine(
                QtCore.QPointF(self._x(self._now), top - 2), QtCore.QPointF(self._x(self._now), top + height + 2)
            )

    def _paint_marks(self, painter: QtGui.QPainter) -> None:
        """Draw keys as diamonds, filled when the server has them as they are, and suggestions as triangles above."""
        top, height = self._band()
        size = height * 0.42
        for row in self._state.keys:
            painter.setPen(QtGui.QPen(KEY, 1.5))
            painter.setBrush(KEY if row.state == IN_MEMORY else QtCore.Qt.BrushStyle.NoBrush)
            x, y = self._x(row.frame), top + height / 2
            _draw(painter, ((x, y - size), (x + size, y), (x, y + size), (x - size, y)))
        for suggestion in self._state.suggestions:
            colour = LOST if suggestion.kind == "lost" else SUGGESTION
            painter.setPen(QtGui.QPen(colour, 1.0))
            painter.setBrush(colour)
            x = self._x(suggestion.frame)
            _draw(painter, ((x - size, top - 2 * size - 1), (x + size, top - 2 * size - 1), (x, top - 2)))

    def _paint_numbers(self, painter: QtGui.QPainter) -> None:
        colour = self.palette().color(QtGui.QPalette.ColorRole.WindowText)
        colour.setAlphaF(0.6)
        painter.setPen(colour)
        box = QtCore.QRectF(
            self._left(), self.height() - self.fontMetrics().height(), self._width(), self.fontMetrics().height()
        )
        painter.drawText(box, QtCore.Qt.AlignmentFlag.AlignLeft, str(self._state.first))
        painter.drawText(box, QtCore.Qt.AlignmentFlag.AlignRight, str(self._state.last))
        painter.drawText(box, QtCore.Qt.AlignmentFlag.AlignHCenter, _count_mattes(self._state))

    def _describe(self, frame: int) -> str:
        parts = [f"Frame {frame}"]
        parts += ["matte of earlier keys"] if frame in self._state.stale else []
        parts += ["provisional matte, replaced by the run"] if frame in self._state.provisional else []
        parts += [f"key, {row.state}" for row in self._state.keys if row.frame == frame]
        parts += [row.reason for row in self._state.suggestions if row.frame == frame]
        parts += [message for failed, message in self._state.refused if failed == frame]
        if any(row.frame == frame and row.state == EDITED for row in self._state.keys):
            parts.append("press Update to send it")
        return ": ".join(parts)

    def _band(self) -> tuple[float, float]:
        line = self.fontMetrics().height()
        return 0.9 * line, 0.9 * line

    def _left(self) -> float:
        return self.fontMetrics().height() * 0.5

    def _width(self) -> float:
        return max(1.0, self.width() - 2 * self._left())

    def _step(self) -> float:
        return self._width() / max(1, self._state.last - self._state.first + 1)

    def _edge(self, frame: int) -> float:
        return self._left() + (frame - self._state.first) * self._step()

    def _x(self, frame: int) -> float:
        return self._edge(frame) + self._step() / 2


def _count_mattes(state: NodeState) -> str:
    kinds = ((len(state.provisional), "provisional"), (len(state.stale), "of earlier keys"))
    rest = "".join(f", {count} {kind}" for count, kind in kinds if count)
    return f"{len(state.mattes)} mattes{rest}"


def _x_of(event: QtGui.QMouseEvent) -> float:
    """Give where the pointer is, in Qt 6 and in Qt 5."""
    return float(event.position().x() if hasattr(event, "position") else event.pos().x())


def _runs(frames: frozenset[int]) -> list[tuple[int, int]]:
    """Give the unbroken runs of frames, first and last of each."""
    runs: list[tuple[int, int]] = []
    for frame in sorted(frames):
        if runs and frame == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], frame)
        else:
            runs.append((frame, frame))
    return runs


def _draw(painter: QtGui.QPainter, corners: tuple[tuple[float, float], ...]) -> None:
    painter.drawPolygon(QtGui.QPolygonF([QtCore.QPointF(x, y) for x, y in corners]))
