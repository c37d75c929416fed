"""Make pictures of the panel's main states: ``python tests/nuke/make_panel_pictures.py FOLDER [SCALE]``, without a screen."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SIZE = (420, 720)  # a panel docked beside the properties

# Nuke's own greys, by eye: its palette is Qt's, so the panel takes whatever Nuke has.
DARK = {"Window": "#323232", "Base": "#282828", "AlternateBase": "#2d2d2d", "Button": "#505050", "Highlight": "#f7931e"}
LIGHT = ("WindowText", "Text", "ButtonText", "BrightText", "ToolTipText")


def make_application(arguments):
    """Give a Qt application with Nuke's colours."""
    from xmem_nuke.panel_qt import QtGui, QtWidgets  # noqa: PLC0415 - after the paths and the platform are set

    application = QtWidgets.QApplication.instance() or QtWidgets.QApplication(arguments)
    application.setStyle("Fusion")
    palette = QtGui.QPalette()
    for name, colour in DARK.items():
        palette.setColor(getattr(QtGui.QPalette.ColorRole, name), QtGui.QColor(colour))
    for name in LIGHT:
        palette.setColor(getattr(QtGui.QPalette.ColorRole, name), QtGui.QColor("#d8d8d8"))
    disabled = QtGui.QPalette.ColorGroup.Disabled
    for name in LIGHT:
        palette.setColor(disabled, getattr(QtGui.QPalette.ColorRole, name), QtGui.QColor("#808080"))
    application.setPalette(palette)
    return application


def draw_thumbnail(row, folder):
    """Draw what the server would of a key: a plate, and the object in a colour; give the file, none for a new key."""
    from xmem_nuke.panel_qt import QtCore, QtGui  # noqa: PLC0415 - after the paths and the platform are set

    if row.state == "new":
        return ""
    image = QtGui.QImage(170, 96, QtGui.QImage.Format.Format_RGB32)
    painter = QtGui.QPainter(image)
    sky = QtGui.QLinearGradient(0, 0, 0, 96)
    sky.setColorAt(0, QtGui.QColor("#8fa7b8"))
    sky.setColorAt(1, QtGui.QColor("#5c5346"))
    painter.fillRect(0, 0, 170, 96, sky)
    painter.setBrush(QtGui.QColor("#c9a23c"))
    painter.drawEllipse(QtCore.QRectF(40 + row.frame % 60, 22, 46, 62))
    painter.end()
    path = folder / f".key-{row.frame}.png"
    image.save(str(path))
    return str(path)


def save_picture(application, name, folder):
    """Save one state; give the file."""
    from tests.nuke.panel_stills import STILLS, StillIntents  # noqa: PLC0415 - after the paths and the platform are set
    from xmem_nuke.panel import XMemPanel  # noqa: PLC0415 - after the paths and the platform are set

    state, server = STILLS[name]
    state = replace(state, keys=tuple(replace(row, thumbnail=draw_thumbnail(row, folder)) for row in state.keys))
    panel = XMemPanel(StillIntents(state, server))
    panel.resize(*SIZE)
    panel.show()
    application.processEvents()
    path = folder / f"panel-{name}{os.environ.get('XMEM_PICTURE_SUFFIX', '')}.png"
    panel.grab().save(str(path))
    panel.close()
    for thumbnail in folder.glob(".key-*.png"):
        thumbnail.unlink()
    return path


def main(arguments):
    if not 2 <= len(arguments) <= 3:
        sys.stderr.write("Give a folder, and a scale such as 2 if you like.\n")
        return 2
    os.environ["QT_QPA_PLATFORM"] = "offscreen"
    if len(arguments) == 3:
        os.environ["QT_SCALE_FACTOR"] = arguments[2]
        os.environ["XMEM_PICTURE_SUFFIX"] = f"-{arguments[2]}x"
    sys.path[:0] = [str(ROOT), str(ROOT / "nuke_plugin")]
    folder = Path(arguments[1])
    folder.mkdir(parents=True, exist_ok=True)
    from tests.nuke.panel_stills import STILLS  # noqa: PLC0415 - after the paths and the platform are set

    application = make_application(arguments[:1])
    for name in STILLS:
        sys.stdout.write(f"{save_picture(application, name, folder)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
