import threading
import time

import pytest

from tests.nuke.stand_in import StandInHost, StandInNode
from tests.server.served import FAST, ServerProcess
from xmem_nuke import states
from xmem_nuke.controller import Controller
from xmem_nuke.job import make_connector, matte_path
from xmem_nuke.orders import ServerSeen, ServerSilent
from xmem_nuke.ticking import STOP, Ticker


def connect_fast(connection_file):
    return make_connector(connection_file, FAST)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with ServerProcess(tmp_path_factory.mktemp("server")) as server:
        server.wait_ready()
        yield server


@pytest.fixture
def host(tmp_path, server):
    return StandInHost(tmp_path, server.settings.connection_file)


@pytest.fixture
def controller(host):
    return Controller(host, connect_fast)


def finish(host, controller, seconds=30):
    host.pump(lambda: not controller.is_busy, seconds)


def frames_of(rows):
    return [row.frame for row in rows]


def test_when_run_is_pressed_then_keys_are_marked_mattes_arrive_and_the_status_says_so(host, controller):
    node = StandInNode("press-run")
    controller.run(node)
    finish(host, controller)
    state = controller.fetch_state("press-run")
    assert (state.phase, state.is_error) == (states.IDLE, False)
    assert state.mattes == {1001, 1002, 1003, 1004}
    assert frames_of(state.keys) == [1001]
    assert state.keys[0].state == states.IN_MEMORY
    assert node.keyed == [1001]
    assert node.status[-1].startswith("Done: mattes on frames 1001 to 1004; 1 key and 4 plate frames travelled.")
    assert (host.folder / "cache" / "press-run" / "1" / "01003.exr").exists()


def test_when_one_key_is_edited_then_update_renders_and_sends_that_key_alone(host, controller):
    node = StandInNode("update", keys={1001: 8, 1003: 12})
    controller.run(node)
    finish(host, controller)
    host.rendered.clear()
    node.keys[1003] = 20
    controller.run(node)
    finish(host, controller)
    state = controller.fetch_state("update")
    assert host.rendered == [("key", 1003)]
    assert (state.rendered_keys, state.sent_keys, state.rendered_plates, state.sent_plates) == (1, 1, 0, 0)


def test_when_the_grade_above_the_plate_changes_then_the_plates_are_rendered_again(host, controller):
    node = StandInNode("grade")
    controller.run(node)
    finish(host, controller)
    host.rendered.clear()
    node.grade = 1
    controller.run(node)
    finish(host, controller)
    assert host.rendered == [("plate", frame) for frame in range(1001, 1005)]


def test_when_suggest_is_pressed_then_the_frame_is_marked_and_the_reason_shown(host, controller):
    node = StandInNode("suggest")
    controller.run(node)
    finish(host, controller)
    controller.suggest(node)
    finish(host, controller)
    assert node.suggested == [1004]
    assert controller.fetch_state("suggest").suggestions[0].reason == "It differs most."
    assert node.status[-1] == "Draw next: 1004. Frame 1004: It differs most."


def test_when_a_suggested_frame_is_keyed_then_its_suggestion_goes_away(host, controller):
    node = StandInNode("keyed")
    controller.run(node)
    finish(host, controller)
    controller.suggest(node)
    finish(host, controller)
    node.keys[1004] = 20
    controller.run(node)
    finish(host, controller)
    assert node.suggested == []
    assert node.keyed == [1001, 1004]


def test_when_a_suggestion_is_dismissed_then_its_mark_goes_away(host, controller):
    node = StandInNode("dismiss")
    controller.run(node)
    finish(host, controller)
    controller.suggest(node)
    finish(host, controller)
    controller.dismiss("dismiss", 1004)
    assert node.suggested == []
    assert controller.fetch_state("dismiss").suggestions == ()


def test_when_run_is_pressed_twice_then_the_second_changes_nothing(host, controller):
    node = StandInNode("twice")
    controller.run(node)
    controller.run(node)
    finish(host, controller)
    assert len(host.rendered) == 5


def test_when_two_nodes_run_then_their_frames_are_rendered_in_turn(host, controller):
    nodes = [StandInNode("turn-a", "XMem1"), StandInNode("turn-b", "XMem2", grade=3)]
    for node in nodes:
        controller.run(node)
    finish(host, controller)
    assert all(len(controller.fetch_state(node.session).mattes) == 4 for node in nodes)


def test_when_the_node_cannot_be_run_then_its_status_says_why(host, controller):
    node = StandInNode("trouble", trouble="The plate input is not connected. Connect it.")
    controller.run(node)
    assert not controller.is_busy
    assert controller.fetch_state("trouble").is_error
    assert node.status == ["The plate input is not connected. Connect it."]


def test_when_cancelled_while_rendering_then_nothing_more_is_rendered_and_run_again_goes_on(host, controller):
    node = StandInNode("cancel", last=1010)
    controller.run(node)
    host.pump(lambda: len(host.rendered) >= 3)
    controller.cancel("cancel")
    finish(host, controller)
    assert controller.fetch_state("cancel").message.startswith("Cancelled.")
    assert not controller.fetch_state("cancel").is_error
    rendered = len(host.rendered)
    assert rendered < 11
    controller.run(node)
    finish(host, controller)
    assert len(controller.fetch_state("cancel").mattes) == 10


def test_when_cancel_is_pressed_while_nuke_is_inside_a_render_then_it_stops_after_that_frame(host, controller):
    node = StandInNode("inside")
    host.on_render = lambda kind, frame: controller.cancel("inside") if frame == 1002 else None
    controller.run(node)
    finish(host, controller)
    assert host.rendered == [("key", 1001), ("plate", 1001), ("plate", 1002)]
    assert controller.fetch_state("inside").message.startswith("Cancelled.")
    host.on_render = lambda kind, frame: None
    controller.run(node)
    finish(host, controller)
    assert len(controller.fetch_state("inside").mattes) == 4


def test_when_nuke_serves_its_events_inside_a_render_then_nothing_is_rendered_or_looked_at_twice(host, controller):
    node, other = StandInNode("events"), StandInNode("events-other", trouble="It was looked at.")
    fetched = []
    fetch_shot = host.fetch_shot
    host.fetch_shot = lambda asked: fetched.append(asked.session) or fetch_shot(asked)
    host.on_render = lambda kind, frame: (controller.tick(), controller.look(other))
    controller.run(node)
    finish(host, controller)
    assert controller.fetch_state("events").message.startswith("Done")
    assert host.rendered == [("key", 1001), *(("plate", frame) for frame in range(1001, 1005))]
    assert fetched == ["events"]


def test_when_nukes_own_progress_bar_is_cancelled_then_the_run_is_cancelled(host, controller):
    host.stop_render_at = 1002
    node = StandInNode("bar")
    controller.run(node)
    finish(host, controller)
    assert node.status[-1] == "Rendering was cancelled at frame 1002."
    assert not controller.fetch_state("bar").is_error


def test_when_the_node_is_deleted_mid_run_then_the_run_ends_quietly(host, controller):
    node = StandInNode("deleted", last=1030)
    controller.run(node)
    host.pump(lambda: len(host.rendered) >= 2)
    node.is_gone = True
    finish(host, controller)
    assert len(host.rendered) < 31


def test_when_there_is_no_server_then_run_says_so_at_once(tmp_path):
    host = StandInHost(tmp_path, tmp_path / "nowhere.json")
    controller = Controller(host, connect_fast)
    node = StandInNode("alone")
    controller.run(node)
    finish(host, controller, 5)
    assert controller.fetch_state("alone").is_error
    assert "Is it running?" in node.status[-1]
    assert host.rendered == []


def test_when_the_server_dies_mid_run_then_the_status_says_so_the_main_thread_is_free_and_run_again_continues(tmp_path):
    with ServerProcess(tmp_path, {"wait_at": 1003}) as server:
        server.wait_ready()
        host = StandInHost(tmp_path, server.settings.connection_file, render_seconds=0.3)
        short = {**FAST.__dict__, "total": 4.0}
        controller = Controller(host, lambda file: make_connector(file, type(FAST)(**short)))
        node = StandInNode("killed")
        controller.run(node)
        host.pump(lambda: controller.fetch_state("killed").mattes)
        server.kill()
        host.pump(lambda: any("does not answer" in line for line in node.status))
        finish(host, controller)
        state = controller.fetch_state("killed")
        assert state.is_error
        assert "Start it again: what it acknowledged is kept." in state.message
        assert host.longest < 0.2
        (tmp_path / "engine" / "go").touch()
        server.start()
        server.wait_ready()
        host.rendered.clear()
        controller.run(node)
        finish(host, controller)
        assert host.rendered == []
        assert len(controller.fetch_state("killed").mattes) == 4
        assert host.longest < 0.2


def test_when_mattes_stream_then_the_read_is_refreshed_about_once_a_second_at_most(host, controller):
    node = StandInNode("stream", last=1030)
    controller.run(node)
    finish(host, controller)
    gaps = [later - earlier for earlier, later in zip(node.shown, node.shown[1:], strict=False)]
    assert 1 <= len(node.shown) <= 6
    assert all(gap > 0.9 for gap in gaps[:-1])  # the last one shows the end, however soon


def test_when_looked_at_after_an_edit_then_the_key_is_edited_and_a_new_one_is_new(host, controller):
    node = StandInNode("look")
    controller.run(node)
    finish(host, controller)
    node.keys = {1001: 20, 1002: 9}
    controller.look(node)
    rows = controller.fetch_state("look").keys
    assert [(row.frame, row.state) for row in rows] == [(1001, states.EDITED), (1002, states.NEW)]


def test_when_a_reloaded_script_is_looked_at_then_keys_suggestions_and_mattes_are_there(host, controller):
    node = StandInNode("reload")
    controller.run(node)
    finish(host, controller)
    node.suggested = [1003]
    again = Controller(host, connect_fast)
    again.look(node)
    state = again.fetch_state("reload")
    assert [(row.frame, row.state) for row in state.keys] == [(1001, states.IN_MEMORY)]
    assert frames_of(state.suggestions) == [1003]
    assert state.mattes == {1001, 1002, 1003, 1004}
    assert state.keys[0].thumbnail.endswith(".png")
    node.keys[1001] = 20
    again.look(node)
    assert again.fetch_state("reload").keys[0].state == states.EDITED


def test_when_the_panel_watches_then_it_hears_of_the_server_and_ticking_stops_after_it(host, controller):
    heard = []
    stop_listening = controller.listen(lambda: heard.append(controller.server))
    stop_watching = controller.watch_server(host.connection_file)
    host.pump(lambda: isinstance(controller.server, ServerSeen))
    assert heard[-1].model == "scripted"
    stop_listening()
    stop_watching()
    assert controller.tick() == STOP


def test_when_the_watched_server_is_not_there_then_that_is_said(tmp_path):
    host = StandInHost(tmp_path, tmp_path / "nowhere.json")
    controller = Controller(host, connect_fast)
    stop = controller.watch_server(host.connection_file)
    host.pump(lambda: isinstance(controller.server, ServerSilent))
    assert "Is it running?" in controller.server.message
    stop()


def test_when_there_is_nothing_left_to_do_then_the_ticker_stops():
    calls = []
    done = threading.Event()

    def tick():
        calls.append(1)
        if len(calls) < 3:
            return 0.0
        done.set()
        return STOP

    Ticker(lambda call: call(), tick).wake()
    assert done.wait(5)
    time.sleep(0.05)
    assert len(calls) == 3


def test_when_an_object_is_named_then_its_mattes_have_a_folder_of_their_own(tmp_path):
    assert matte_path(tmp_path, 2, -5) == tmp_path / "2" / "-0005.exr"
    assert matte_path(tmp_path, 0, 1001) == tmp_path / "layers" / "01001.exr"
