"""Buttons, menu and server trouble on the double of Nuke, with the real server process and an engine that computes nothing."""

import sys

import pytest

from tests.nuke import make_panel_pictures
from tests.nuke.comp import FIRST, LAST, comp_of, fetch_actions, marks, script_of_engine
from tests.nuke.conftest import REPOSITORY
from tests.server.served import ServerProcess, import_paths
from xmem_nuke import bootstrap, server_launch, terminal

FRAMES = range(FIRST, LAST + 1)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with ServerProcess(tmp_path_factory.mktemp("server")) as server:
        server.wait_ready()
        yield server


@pytest.fixture
def comp(application, tmp_path, server):
    script_of_engine(server)
    with comp_of(application, tmp_path, server.settings.connection_file) as comp:
        yield comp


def test_when_run_then_the_artists_frame_selection_undo_and_script_are_left_alone(comp, application):
    comp.roto.selectOnly()
    comp.nuke.root().setFrame(1004)
    comp.nuke.root()["proxy"].setValue(True)
    steps = len(application.undo.steps)
    comp.do("run")
    assert comp.status.startswith("Done")
    assert comp.nuke.frame() == 1004
    assert comp.nuke.root().proxy()
    assert [node.name() for node in comp.nuke.selectedNodes()] == ["Roto1"]
    assert [name for name, _ in application.undo.steps[steps:]] == ["XMem: keys sent"]


def test_when_suggested_then_it_is_one_step_that_undo_takes_back(comp, application):
    comp.do("run")
    comp.do("suggest")
    assert marks(comp.node["suggested"]) == [LAST]
    assert application.undo.steps[-1][0] == "XMem: keys suggested"
    application.undo.undo()
    assert marks(comp.node["suggested"]) == []


def test_when_frames_are_rendered_then_nuke_is_free_between_them_and_never_held_long(comp, application):
    application.renders.seconds = 0.3
    seen = []
    comp.press("run")
    comp.wait(lambda: seen.append(len(application.renders.done)) or len(application.renders.done) >= 4)
    assert {1, 2, 3, 4} <= set(seen)  # the event loop had its turn after every single frame
    application.renders.seconds = 0.0
    comp.wait()
    assert application.main_thread.longest_hold < 1.0  # no wait for the server or for a render


def test_when_cancelled_mid_way_then_rendering_stops_finished_mattes_stay_and_run_goes_on(comp, server):
    engine = script_of_engine(server, wait_at=1003)
    comp.press("run")
    comp.wait(lambda: len(comp.state.mattes) == 2)
    comp.press("cancel")
    comp.wait()
    assert comp.status.startswith("Cancelled.")
    assert comp.state.mattes == {1001, 1002}
    (engine / "go").touch()
    assert comp.do("run") == []
    assert comp.state.mattes == set(FRAMES)


def test_when_cancelled_while_frames_are_rendered_then_no_more_are(comp, application):
    application.renders.seconds = 0.05
    comp.press("run")
    comp.wait(lambda: len(application.renders.done) >= 3)
    comp.press("cancel")
    count = len(application.renders.done)
    comp.wait()
    assert len(application.renders.done) == count
    assert comp.status.startswith("Cancelled.")


def test_when_nukes_progress_bar_is_cancelled_then_the_run_is_cancelled_and_says_where(comp, application):
    application.renders.cancel_at = 1003
    comp.do("run")
    assert "cancelled at frame 1003" in comp.status
    assert not comp.state.is_error


def test_when_a_frame_cannot_be_rendered_then_the_status_says_which_and_nothing_is_left_behind(comp, application):
    application.renders.fail_at = 1002
    comp.do("run")
    assert comp.state.is_error
    assert "Frame 1002 of the plate could not be rendered" in comp.status
    application.renders.fail_at = None
    comp.do("run")
    assert comp.status.startswith("Done")


def test_when_the_server_is_killed_mid_run_with_slow_renders_then_nuke_is_free_and_run_continues(application, tmp_path):
    with ServerProcess(tmp_path) as server:
        server.wait_ready()
        with comp_of(application, tmp_path / "comp", server.settings.connection_file) as comp:
            application.renders.seconds = 2.0
            comp.press("run")
            comp.wait(lambda: len(application.renders.done) >= 2)
            server.kill()
            comp.wait(lambda: "does not answer" in comp.status)
            panel_says = comp.controller.server
            assert "not answer" in panel_says.message
            application.renders.seconds = 0.0
            comp.press("cancel")
            comp.wait()
            server.start()
            server.wait_ready()
            comp.do("run")
            assert comp.status.startswith("Done")
            assert comp.state.mattes == set(FRAMES)
            assert application.main_thread.longest_hold < 1.0  # nothing that waits for the server is among it


def test_when_the_server_is_restarted_mid_run_then_the_run_goes_on_by_itself(application, tmp_path):
    with ServerProcess(tmp_path, {"wait_at": 1003}) as server:
        server.wait_ready()
        with comp_of(application, tmp_path / "comp", server.settings.connection_file) as comp:
            comp.press("run")
            comp.wait(lambda: len(comp.state.mattes) == 2)
            server.kill()
            (tmp_path / "engine" / "go").touch()
            server.start()
            comp.wait()
            assert comp.status.startswith("Done")
            assert comp.state.mattes == set(FRAMES)


def test_when_no_server_runs_then_the_status_asks_whether_it_does(application, tmp_path):
    with comp_of(application, tmp_path, tmp_path / "nowhere.json") as comp:
        assert comp.do("run") == []
        assert comp.state.is_error
        assert "Is it running?" in comp.status


def test_when_nothing_is_wired_then_the_status_says_what_to_connect(comp):
    comp.node.setInput(0, None)
    comp.do("run")
    assert "The plate input of XMem1 is not connected" in comp.status


def test_when_the_node_is_deleted_mid_run_then_nothing_breaks(comp, application):
    application.renders.seconds = 0.05
    comp.press("run")
    comp.wait(lambda: len(application.renders.done) >= 2)
    comp.nuke.delete(comp.node)
    comp.wait()


def test_when_a_key_is_added_outside_the_range_then_it_is_refused(comp):
    comp.nuke.root().setFrame(LAST + 5)
    comp.press("add_key")
    assert comp.status == f"Frame {LAST + 5} is outside the frame range {FIRST} to {LAST}, so it cannot be a key."
    assert comp.node["manual_keys"].value() == ""


class SameKnobs:
    """A node as another Python object; with another name it is a clone, which shares the knobs of the first."""

    def __init__(self, node, name):
        self._node, self._name = node, name

    def fullName(self):  # noqa: N802 - Nuke's own
        return self._name

    def __getitem__(self, name):
        return self._node[name]


@pytest.mark.parametrize("name", ["XMem1", "XMem2"])
def test_when_a_node_comes_as_another_object_or_is_cloned_then_it_keeps_session_and_mattes(comp, name):
    comp.do("run")
    before = comp.session, comp.node["matte_file"].value()
    fetch_actions().on_create(SameKnobs(comp.node, name))
    assert (comp.session, comp.node["matte_file"].value()) == before


def test_when_there_are_no_suggestions_then_next_says_so_and_stays(comp):
    comp.press("next_suggestion")
    assert comp.nuke.frame() == FIRST
    assert comp.status == "There is no suggested frame. Press Suggest."


def test_when_this_nuke_shows_ten_nodes_then_a_run_touches_fewer(comp, application):
    application.limit_nodes(10)
    comp.do("run")
    assert comp.status.startswith("Done"), comp.status


def test_when_frames_are_negative_then_the_mattes_are_where_the_read_looks(application, tmp_path, server):
    script_of_engine(server)
    with comp_of(application, tmp_path, server.settings.connection_file, first=-2, last=1) as comp:
        comp.do("run")
        assert comp.status.startswith("Done: mattes on frames -2 to 1"), comp.status
        folder = tmp_path / "cache" / comp.session / "1"
        assert sorted(path.name for path in folder.iterdir()) == ["-0001.exr", "-0002.exr", "00000.exr", "00001.exr"]
        assert marks(comp.node["keyed"]) == [-2]


def test_when_next_is_pressed_at_the_last_suggestion_then_it_goes_to_the_first(comp):
    comp.node["suggested"].fromScript("{curve K x1002 1 K x1005 1}")
    frames = []
    for name in ("next_suggestion", "next_suggestion", "next_suggestion", "previous_suggestion", "previous_suggestion"):
        comp.press(name)
        frames.append(comp.nuke.frame())
    assert frames == [1002, 1005, 1002, 1005, 1002]


def test_when_another_object_is_shown_then_its_mattes_are_read(comp):
    comp.do("run")
    folder = comp.folder / "cache" / comp.session
    assert comp.node["matte_file"].value() == (folder / "1" / "%05d.exr").as_posix()
    comp.application.set_as_artist(comp.node["show_object"], 2)
    assert comp.node["matte_file"].value() == (folder / "2" / "%05d.exr").as_posix()


def test_when_two_nodes_are_made_then_they_have_sessions_of_their_own(comp):
    other = comp.nuke.createNode("XMem")
    assert "" != other["session"].value() != comp.session


def test_when_diagnostics_are_copied_then_versions_and_the_last_error_are_there(comp, application):
    comp.node.setInput(0, None)
    comp.do("run")
    actions = fetch_actions()
    text = actions.fetch_diagnostics(comp.node)
    assert "Nuke 17.1v1" in text
    assert "pyzmq" in text
    assert "is not connected" in text


def test_when_in_a_terminal_then_run_is_over_when_the_button_returns(comp, application):
    application.module.GUI = False
    comp.press("run")
    assert comp.status.startswith("Done")
    assert not comp.controller.is_busy
    comp.press("suggest")
    assert marks(comp.node["suggested"]) == [LAST]
    application.module.GUI = True


def test_when_a_farm_runs_a_script_then_the_exit_code_and_the_console_say_how_it_went(comp, application, tmp_path):
    comp.nuke.scriptSaveAs(str(tmp_path / "comp.nk"))
    application.module.GUI = False
    assert terminal.main([str(tmp_path / "comp.nk"), "XMem1"]) == 0
    assert application.printed[-1].startswith("Done")
    assert terminal.main([str(tmp_path / "comp.nk"), "XMem7"]) == 2
    assert "no XMem node called XMem7" in application.printed[-1]
    assert terminal.main([]) == 2
    application.module.GUI = True


def test_when_start_server_is_pressed_while_one_runs_then_it_is_found_and_not_started_again(comp):
    comp.press("start_server")
    comp.wait()
    assert comp.status.startswith("Server 0.1.0 is")


def test_when_start_server_is_pressed_then_a_server_starts_without_nukes_environment(
    application, tmp_path, monkeypatch
):
    program = tmp_path / "python"
    paths = import_paths()["PYTHONPATH"]
    program.write_text(f'#!/bin/sh\necho "PYTHONHOME=$PYTHONHOME" >&2\nPYTHONPATH={paths} exec {sys.executable} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("XMEM_PYTHON", str(program))
    monkeypatch.setenv("PYTHONHOME", "/usr/local/Nuke17.1v1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    file = tmp_path / "state" / "connection.json"
    with comp_of(application, tmp_path / "comp", file) as comp:
        comp.press("start_server")
        assert comp.status == "The server starts; reading its model may take a minute."
        try:
            comp.wait(seconds=120)
            assert comp.status.startswith("Server 0.1.0 is idle")
            assert "PYTHONHOME=\n" in (tmp_path / "state" / "server.log").read_text()
            comp.do("run")
            assert comp.status.startswith("Done")
        finally:
            for process in server_launch._started:
                process.terminate()
                process.wait(20)
            server_launch._started.clear()


def test_when_nuke_starts_then_menus_and_panel_are_there_and_no_socket_library_is_loaded(application, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] in ("zmq", "xmem_client")]:
        monkeypatch.delitem(sys.modules, name)
    for script in ("init.py", "menu.py"):
        exec((REPOSITORY / "nuke_plugin" / script).read_text(), {"__name__": script})
    assert "zmq" not in sys.modules
    assert application.panels.keys() == {"com.xmem-nuke.panel"}
    assert application.printed == []
    assert (REPOSITORY / "gizmos").as_posix() in application.plugin_path


def test_when_the_panel_is_opened_in_nuke_then_it_shows_the_node_and_its_buttons_work(comp, application, monkeypatch):
    monkeypatch.setenv("QT_QPA_PLATFORM", "offscreen")
    pytest.importorskip("xmem_nuke.panel_qt", reason="no PySide", exc_type=ImportError)
    qt = make_panel_pictures.make_application(["test"])
    actions = fetch_actions()
    actions.build_menu()
    comp.press("open_panel")
    panel = application.panels["com.xmem-nuke.panel"]().widget  # as a workspace that is restored makes it
    panel.show()
    qt.processEvents()
    made = []
    monkeypatch.setitem(application.panels, "com.xmem-nuke.panel", lambda: made.append(1))
    other = comp.nuke.createNode("XMem")
    comp.press("open_panel", other)  # the one that can be seen is used
    assert made == []
    assert panel.session == other["session"].value()
    comp.press("open_panel")
    assert panel.session == comp.session
    panel._run.click()
    comp.wait()
    assert comp.status.startswith("Done")
    assert panel._message._words.text() == comp.status
    assert [row[0] for row in panel._keys.fetch_texts()] == ["1001", "1003", "1006"]
    panel._suggest.click()
    comp.wait()
    panel._jump_button.click()
    assert comp.nuke.frame() == LAST
    panel.close()
    panel.deleteLater()


def test_when_the_libraries_are_missing_then_nuke_starts_and_a_menu_entry_explains(application, monkeypatch):
    monkeypatch.setattr(bootstrap, "_is_there", lambda library: library != "zmq")
    for script in ("init.py", "menu.py"):
        exec((REPOSITORY / "nuke_plugin" / script).read_text(), {"__name__": script})
    (line,) = application.printed
    assert "zmq for this Nuke" in line
    assert application.panels == {}


def test_when_the_plugin_is_broken_then_nuke_starts_with_one_line(application, monkeypatch):
    monkeypatch.setitem(sys.modules, "xmem_nuke.bootstrap", None)
    monkeypatch.delattr("xmem_nuke.bootstrap", raising=False)
    for script in ("init.py", "menu.py"):
        exec((REPOSITORY / "nuke_plugin" / script).read_text(), {"__name__": script})
    assert len(application.printed) == 2
    assert all(line.startswith("XMem: ") for line in application.printed)
