"""Mattes that are not what the present keys give: marked, counted, remembered, and gone when the run is done."""

from dataclasses import replace

import pytest

from tests.nuke.stand_in import StandInHost, StandInNode
from tests.server.house import write_script
from tests.server.served import FAST, ServerProcess
from xmem_nuke import states
from xmem_nuke.controller import Controller
from xmem_nuke.job import make_connector, matte_path
from xmem_nuke.looking import look_at_keys
from xmem_nuke.orders import CANCELLED, DONE, Ended, MatteArrived, MattesOutdated
from xmem_nuke.remembered import Remembered, prepare_folder
from xmem_nuke.states import NodeState, update_state

BEFORE = NodeState("s", first=1001, last=1008, mattes=frozenset(range(1001, 1009)))


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
    return Controller(host, lambda connection_file: make_connector(connection_file, FAST))


def test_when_keys_changed_then_mattes_are_stale_until_they_arrive():
    state = update_state(MattesOutdated(1003, 1010), BEFORE)
    assert state.stale == {1003, 1004, 1005, 1006, 1007, 1008}
    state = update_state(MatteArrived(1005, is_key=True, is_provisional=True), state)
    assert (state.provisional, 1005 in state.stale) == ({1005}, False)
    for frame in range(1003, 1009):
        state = update_state(MatteArrived(frame, is_key=False), state)
    assert not state.stale | state.provisional
    assert update_state(Ended(DONE, ""), state).message.startswith("Done")


def test_when_a_run_is_cancelled_then_the_message_counts_what_is_not_exact():
    state = replace(BEFORE, provisional=frozenset({1003}), stale=frozenset({1004, 1005}))
    ended = update_state(Ended(CANCELLED, "Cancelled."), state)
    assert ended.message == "Cancelled. Until then there are 1 matte provisional and 2 mattes of earlier keys."


def test_when_a_folder_is_looked_at_again_then_what_is_not_exact_is_remembered(tmp_path):
    host, node = StandInHost(tmp_path, tmp_path / "none"), StandInNode("again")
    folder = tmp_path / "cache" / "again"
    prepare_folder(folder / "1")
    remembered = Remembered(folder)
    for frame in range(1001, 1005):
        matte_path(folder, 1, frame).write_bytes(b"matte")
        remembered.mattes[f"1/{frame}"] = "f" * 64
    remembered.note_stale(1002, 1004)
    remembered.note_arrived(1003, is_provisional=True)
    remembered.note_arrived(1004, is_provisional=False)
    remembered.save()
    state = look_at_keys(host, node, NodeState("again"), None)
    assert (state.provisional, state.stale) == ({1003}, {1002})


def test_when_the_artist_looks_at_a_frame_then_it_comes_first_and_all_is_exact_in_the_end(tmp_path):
    with ServerProcess(tmp_path) as server:
        server.wait_ready()
        host = StandInHost(tmp_path, server.settings.connection_file)
        host.playhead = 1003
        controller = Controller(host, lambda file: make_connector(file, FAST))
        node = StandInNode("first-look", keys={1001: 8})
        controller.run(node)
        host.pump(lambda: not controller.is_busy)
        write_script(tmp_path / "engine", {"wait_at": 1001})
        node.keys[1003] = 20
        controller.run(node)
        host.pump(lambda: controller.fetch_state("first-look").provisional == {1003})
        path = matte_path(host.folder / "cache" / "first-look", 1, 1003)
        assert path.read_bytes() == b"provisional matte of 1003 by 2 keys"
        assert controller.fetch_state("first-look").stale == {1001, 1002, 1004}
        (tmp_path / "engine" / "go").touch()
        host.pump(lambda: not controller.is_busy)
        last = controller.fetch_state("first-look")
        assert (last.phase, last.provisional, last.stale) == (states.IDLE, frozenset(), frozenset())
        assert path.read_bytes() == b"matte of 1003 by 2 keys"


def test_when_the_artist_looks_outside_the_shot_then_nothing_is_shown_first(host, controller):
    host.playhead = 5000
    node = StandInNode("outside")
    seen = []
    controller.listen(lambda: seen.append(controller.fetch_state("outside")))
    controller.run(node)
    host.pump(lambda: not controller.is_busy)
    assert not any(state.provisional or state.stale for state in seen)
