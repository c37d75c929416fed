import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
pytest.importorskip("xmem_nuke.panel_qt", reason="neither PySide6 nor PySide2 can be used", exc_type=ImportError)

from tests.nuke import make_panel_pictures
from tests.nuke.panel_stills import ALL, RESTING, SEEN, SILENT, STILLS, StillIntents, rest
from xmem_core.keyframes import Candidate, find_lost_objects
from xmem_nuke import states
from xmem_nuke.panel import XMemPanel
from xmem_nuke.panel_qt import QtCore, QtGui, QtWidgets
from xmem_nuke.panel_timeline import TimelineStrip
from xmem_nuke.panel_widgets import KeyList, SuggestionList
from xmem_server.worker.suggestion import _say_different, _say_lost


@pytest.fixture(scope="module")
def application():
    return make_panel_pictures.make_application(["test"])


@pytest.fixture
def shown(application):
    """Give a function that shows a panel on a still; all panels are closed afterwards."""
    panels = []

    def show(state, server=RESTING, **more):
        intents = StillIntents(state, server, **more)
        panel = XMemPanel(intents)
        panels.append(panel)
        panel.resize(420, 720)
        panel.show()
        application.processEvents()
        return panel, intents

    yield show
    for panel in panels:
        panel.close()
        panel.deleteLater()
    application.sendPostedEvents(None, QtCore.QEvent.Type.DeferredDelete)


def button(panel, text):
    return next(found for found in panel.findChildren(QtWidgets.QPushButton) if found.text() == text)


def texts(panel):
    return [label.text() for label in panel.findChildren(QtWidgets.QLabel) if label.isVisibleTo(panel)]


def rows(panel, kind):
    return panel.findChild(kind).fetch_texts()


def test_when_the_server_is_gone_then_the_panel_says_so_and_offers_to_start_it(shown):
    panel, intents = shown(*STILLS["no-server"])
    assert SILENT.message in texts(panel)
    button(panel, "Start server").click()
    assert intents.controller.asked[-1] == ("start_server", "s")


def test_when_the_server_answers_then_its_model_device_and_queue_are_shown(shown):
    panel, _ = shown(rest(), SEEN)
    assert "Server 0.1.0 is busy on cpu with model compact, 1 job waits." in texts(panel)
    assert not button(panel, "Start server").isVisibleTo(panel)


def test_when_a_run_streams_then_progress_speed_and_time_left_are_shown_and_cancel_cancels(shown):
    panel, intents = shown(*STILLS["running"])
    assert "Pulling mattes 58/100, 0.5 frames/s, 1 min 24 s left." in texts(panel)
    bar = panel.findChild(QtWidgets.QProgressBar)
    assert (bar.value(), bar.maximum()) == (58, 100)
    assert not button(panel, "Run").isEnabled()
    button(panel, "Cancel").click()
    assert intents.controller.asked[-1] == ("cancel", "s")


def test_when_keys_are_there_then_frame_objects_and_state_are_listed(shown):
    panel, _ = shown(rest())
    assert rows(panel, KeyList) == [
        ["1001", "1, 2", "in memory"],
        ["1034", "1, 2 absent", "edited"],
        ["1060", "1, 2", "in memory"],
        ["1088", "\u2013", "new"],
    ]


def test_when_a_key_has_a_thumbnail_then_its_row_shows_it(shown, application, tmp_path):
    path = make_panel_pictures.draw_thumbnail(rest().keys[0], tmp_path)
    keys = (replace(rest().keys[0], thumbnail=path), *rest().keys[1:])
    panel, _ = shown(rest(keys=keys))
    found = panel.findChild(KeyList)
    image = found.topLevelItem(0).icon(0).pixmap(found.iconSize()).toImage()
    shown_there = image.pixelColor(image.width() // 2, image.height() // 2)
    drawn = QtGui.QImage(path).pixelColor(85, 48)
    assert abs(shown_there.red() - drawn.red()) < 12
    assert shown_there.alpha() == 255
    blank = found.topLevelItem(3).icon(0).pixmap(20, 20).toImage()
    assert blank.pixelColor(1, 1).alpha() == 0


def test_when_frames_are_suggested_then_jump_goes_there_and_dismiss_takes_them_away(shown):
    panel, intents = shown(*STILLS["suggestions"])
    assert [row[0] for row in rows(panel, SuggestionList)] == ["1047", "1075", "1018"]
    button(panel, "Jump").click()
    assert intents.frame == 1047
    suggestions = panel.findChild(SuggestionList)
    suggestions.setCurrentItem(suggestions.topLevelItem(2))
    button(panel, "Jump").click()
    assert intents.frame == 1018
    button(panel, "Dismiss").click()
    assert ("dismiss", 1018) in intents.controller.asked


def test_when_pictures_show_suggestions_then_their_reasons_are_what_the_server_says():
    vanished, *different = STILLS["suggestions"][0].suggestions
    areas = {2: {frame: 0.0 if 1046 <= frame <= 1048 else 0.031 for frame in ALL}}
    (lost,) = [_say_lost(found) for found in find_lost_objects(areas, {}, 0.0025)]
    assert (lost.frame, lost.kind, lost.score, lost.reason) == (1047, "lost", 1.0, vanished.reason)
    plan = SimpleNamespace(settings=SimpleNamespace(object_id=0))
    for row, nearest in zip(different, (1060, 1001), strict=True):
        said = _say_different(Candidate(row.frame, row.score, nearest), plan)
        assert (said.frame, said.kind, said.reason) == (row.frame, row.kind, row.reason)


def test_when_something_failed_then_the_last_error_is_shown_with_a_way_to_report_it(shown):
    panel, intents = shown(*STILLS["error"])
    assert STILLS["error"][0].message in texts(panel)
    button(panel, "Copy diagnostics").click()
    assert intents.controller.asked[-1] == ("copy_diagnostics", "s")


def test_when_the_buttons_are_pressed_then_the_shown_node_is_meant(shown):
    panel, intents = shown(rest())
    for text in ("Run", "Update", "Suggest"):
        button(panel, text).click()
    assert [asked for asked in intents.controller.asked if asked[0] != "look"] == [
        ("run", "s"),
        ("run", "s"),
        ("suggest", "s"),
    ]


def test_when_the_controller_changes_then_two_panels_show_it_and_a_closed_one_is_forgotten(shown, application):
    panel, intents = shown(rest())
    second = XMemPanel(intents)
    second.show()
    intents.controller.show(rest(message="Both."))
    assert "Both." in texts(panel)
    assert "Both." in texts(second)
    assert intents.controller.watches == 2
    second.close()
    second.deleteLater()
    application.sendPostedEvents(None, QtCore.QEvent.Type.DeferredDelete)
    intents.controller.show(rest(message="One."))
    assert "One." in texts(panel)
    assert intents.controller.watches == 1
    assert len(intents.controller.listeners) == 1


def test_when_a_panel_is_deleted_without_being_closed_then_it_watches_no_more(shown, application):
    _, intents = shown(rest())
    second = XMemPanel(intents)
    second.show()
    second.deleteLater()
    application.sendPostedEvents(None, QtCore.QEvent.Type.DeferredDelete)
    assert intents.controller.watches == 1
    assert len(intents.controller.listeners) == 1


def test_when_the_panel_is_hidden_then_nobody_watches_the_server(shown):
    panel, intents = shown(rest())
    panel.hide()
    assert intents.controller.watches == 0


def test_when_there_is_no_node_then_the_panel_says_how_to_make_one(shown):
    panel, _ = shown(rest(), RESTING, nodes=())
    assert any("Press Tab" in text for text in texts(panel))
    assert not button(panel, "Run").isEnabled()


def test_when_another_node_is_asked_something_then_the_panel_shows_that_one(shown):
    panel, intents = shown(rest(), RESTING, nodes=(("other", "XMem1"), ("s", "XMem2")))
    assert panel.session == "other"
    intents.controller.focus = "s"
    intents.controller.show(rest(message="Here."))
    assert panel.session == "s"
    assert "Here." in texts(panel)


def test_when_the_strip_is_clicked_then_it_means_the_frame_there_or_the_mark_beside_it(application):
    strip = TimelineStrip()
    strip.resize(1000, strip.sizeHint().height())
    strip.show_state(rest(suggestions=()), 1001)
    went = []
    strip.jumped.connect(went.append)
    near_the_key = next(x for x in range(1000) if strip.fetch_frame_at(x) == 1034)
    assert strip.fetch_frame_at(near_the_key + 1) == 1034
    assert strip.fetch_frame_at(0) == 1001
    assert strip.fetch_frame_at(1000) == 1100
    place = QtCore.QPointF(near_the_key, 10)
    press = QtGui.QMouseEvent(
        QtCore.QEvent.Type.MouseButtonPress,
        place,
        place,
        QtCore.Qt.MouseButton.LeftButton,
        QtCore.Qt.MouseButton.LeftButton,
        QtCore.Qt.KeyboardModifier.NoModifier,
    )
    application.sendEvent(strip, press)
    assert went == [1034]


def test_when_a_state_has_no_frames_yet_then_the_strip_can_be_painted(application):
    strip = TimelineStrip()
    strip.show_state(states.NodeState("s"), 5)
    assert not strip.grab().isNull()


def test_when_the_pointer_comes_to_the_panel_then_the_keys_are_looked_at_but_not_all_the_time(shown, application):
    panel, intents = shown(rest())
    looks = [asked for asked in intents.controller.asked if asked[0] == "look"]
    assert looks == [("look", "s")]  # when it was shown
    panel._next_look = 0.0
    place = QtCore.QPointF(5, 5)
    for _ in range(3):
        application.sendEvent(panel, QtGui.QEnterEvent(place, place, place))
    assert [asked for asked in intents.controller.asked if asked[0] == "look"] == [("look", "s")] * 2


def test_when_pictures_are_asked_for_then_every_state_has_one(tmp_path):
    program = Path(make_panel_pictures.__file__)
    done = subprocess.run(
        [sys.executable, str(program), str(tmp_path), "2"], capture_output=True, text=True, timeout=120, check=True
    )
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == sorted(f"panel-{name}-2x.png" for name in STILLS)
    assert len(done.stdout.splitlines()) == len(STILLS)
    assert len(ALL) == 100
