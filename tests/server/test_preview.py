"""The first look around the playhead: what it covers, what it says, and that the exact mattes do not depend on it."""

from dataclasses import replace

import pytest
import torch

from tests.server.house import SHOT, House, mattes
from tests.server.moving_scene import COUNT, FIRST, plan_of, save_scene
from tests.server.test_memory_ladder import Listener
from xmem_core.weights import load_model
from xmem_protocol import (
    DeleteSession,
    InputError,
    MatteProvisional,
    MatteReady,
    MattesStale,
    PropagationSettings,
    StartPropagation,
)
from xmem_server.decoding import Decoder
from xmem_server.plans import PREVIEW_FRAMES, EngineMatte, EngineProgress, MatteSource
from xmem_server.worker.preview import measure_change, plan_sides
from xmem_server.worker.propagation import run_propagation

LAST = FIRST + COUNT - 1


@pytest.fixture(scope="module")
def tools():
    with Decoder() as decoder:
        yield load_model("compact"), decoder


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    return save_scene(tmp_path_factory.mktemp("scene"))


def run(plan, tools):
    """Give the provisional and the exact mattes said, each in order."""
    channel = Listener()
    run_propagation(plan, *tools, channel)
    said = [event for event in channel.said if isinstance(event, EngineMatte)]
    provisional = [event for event in said if event.is_provisional]
    assert said[: len(provisional)] == provisional  # first of all
    return provisional, said[len(provisional) :]


def hashes(events):
    return {(event.frame, file.object_id): file.sha256 for event in events for file in event.files}


def sources(events):
    return tuple(MatteSource(e.frame, file.object_id, file.path, file.suffix) for e in events for file in e.files)


# ----------------------------------------------------------------------------------------------------- what it covers


def test_when_the_playhead_is_between_keys_then_both_ways_end_before_them_and_look_ahead_to_them():
    forward, backward = plan_sides(1005, range(1001, 1021), {1002, 1009})
    assert forward.shown == (1005, 1006, 1007, 1008)
    assert forward.frames == (*forward.shown, 1009)
    assert backward.shown == (1004, 1003)
    assert backward.frames == (1005, 1004, 1003, 1002)


def test_when_the_playhead_is_on_a_key_then_the_neighbouring_ones_bound_it():
    forward, backward = plan_sides(1005, range(1001, 1021), {1003, 1005, 1007})
    assert forward.shown == (1005, 1006)
    assert backward.shown == (1004,)


def test_when_there_is_no_other_key_then_only_the_neighbourhood_is_shown():
    forward, backward = plan_sides(50, range(100), {50})
    assert forward.shown == tuple(range(50, 51 + PREVIEW_FRAMES))
    assert backward.shown == tuple(range(49, 49 - PREVIEW_FRAMES, -1))


def test_when_the_playhead_is_at_an_end_then_the_other_way_is_empty():
    assert plan_sides(0, range(5), {0})[1].shown == ()
    assert plan_sides(4, range(5), {0})[0].shown == (4,)


def test_when_mattes_are_compared_then_change_is_the_share_of_the_object_that_differs():
    before, now = torch.zeros(4, 8), torch.zeros(4, 8)
    before[:2, :4] = now[:2, :2] = now[2:, :2] = 1
    assert measure_change(before, now) == pytest.approx(8 / 12)
    assert measure_change(before, before) == 0
    assert measure_change(torch.zeros(8, 16), torch.zeros(4, 8)) == 0


# ------------------------------------------------------------------------------------------------------ what it gives


def test_when_there_is_a_playhead_then_its_surroundings_come_first_and_the_exact_mattes_are_the_same(
    tools, scene, tmp_path
):
    keyed = (FIRST, FIRST + 5)
    _, undisturbed = run(plan_of(tmp_path / "without", *scene, keyed=keyed), tools)
    provisional, exact = run(plan_of(tmp_path / "with", *scene, keyed=keyed, playhead=(FIRST + 5,)), tools)
    assert provisional[0].frame == FIRST + 5
    assert sorted(event.frame for event in provisional) == list(range(FIRST + 1, LAST + 1))
    assert [event.frame for event in exact] == list(range(FIRST, LAST + 1))
    assert hashes(exact) == hashes(undisturbed)
    key = {pair: sha for pair, sha in hashes(exact).items() if pair[0] == FIRST + 5}
    assert key.items() <= hashes(provisional).items()  # on a key it is the artist's own, at once


def test_when_nothing_changed_around_the_playhead_then_the_preview_stops_after_two_frames_a_side(
    tools, scene, tmp_path
):
    plan = plan_of(tmp_path, *scene, keyed=(FIRST,))
    first, _ = run(replace(plan, playhead=(FIRST + 4,)), tools)
    again, _ = run(replace(plan, playhead=(FIRST + 4,), before=sources(first)), tools)
    assert [event.frame - FIRST for event in again] == [4, 3, 5, 2]


def test_when_a_job_goes_on_from_a_snapshot_or_finished_frames_then_nothing_is_previewed(tools, scene, tmp_path):
    provisional, exact = run(plan_of(tmp_path, *scene, playhead=(FIRST + 4,), finished=(FIRST,)), tools)
    assert provisional == []
    assert len(exact) == COUNT - 1


def test_when_a_plate_beside_the_playhead_cannot_be_read_then_that_way_ends_there(tools, scene, tmp_path):
    plan = plan_of(tmp_path, *scene, playhead=(FIRST + 4,))
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    plates = tuple(replace(p, path=str(broken)) if p.frame == FIRST + 6 else p for p in plan.plates)
    provisional, exact = run(replace(plan, plates=plates), tools)
    assert {event.frame - FIRST for event in provisional} == {4, 5, 3, 2, 1}
    assert len(exact) == COUNT - 1


# ------------------------------------------------------------------------------------------------- what the server says


@pytest.fixture
def house(tmp_path, decoder):
    with House(tmp_path, decoder) as running:
        running.ready()
        yield running


def start(house, playhead, first=SHOT.first, last=SHOT.last):
    return house.ask(StartPropagation("roto", PropagationSettings(first, last), playhead=playhead)).job


def test_when_a_job_begins_at_a_playhead_then_stale_frames_are_told_first_and_provisional_mattes_are_replaced(house):
    house.script(wait_at=1003)
    job = start(house, (1005,))
    house.pump(lambda: 1002 in mattes(house.events(job)))
    stale, provisional, *rest = house.events(job)
    assert stale == MattesStale(job, 1, SHOT.first, SHOT.last)
    assert type(provisional) is MatteProvisional
    (file,) = provisional.files
    assert house.store.file_path(file.sha256).read_bytes() == b"provisional matte of 1005 by 1 keys"
    assert file.sha256 in house.store.sessions.fetch_used()
    assert [type(event) for event in rest] == [MatteReady, MatteReady]
    house.go()
    events = house.finish(job)
    assert not any(isinstance(event, MatteProvisional) for event in events)
    assert mattes(events) == list(range(1001, 1009))
    assert file.sha256 not in house.store.sessions.fetch_used()


def test_when_the_engine_dies_after_a_preview_then_what_was_shown_is_not_told_twice(house):
    house.script(die_at=1001)
    job = start(house, (1004,))
    house.pump(lambda: 1001 in [event.frame for event in house.events(job) if type(event) is MatteReady])
    assert [event.seq for event in house.events(job)] == sorted({event.seq for event in house.events(job)})
    events = house.finish(job)
    assert mattes(events) == list(range(1001, 1009))


def test_when_only_the_playhead_moved_then_it_is_the_same_job(house):
    job = start(house, (1005,))
    house.finish(job)
    assert start(house, (1002,)) == job
    assert [type(event) for event in house.events(job)].count(MattesStale) == 1


def test_when_a_second_round_begins_then_the_engine_gets_the_mattes_around_the_playhead(house):
    house.finish(start(house, ()))
    house.put_key(1003)
    house.finish(start(house, (1003,)))
    before = house.plans()[-1]["before"]
    assert [source["frame"] for source in before] == list(range(1001, 1009))
    assert house.plans()[0]["before"] == []


@pytest.mark.parametrize("playhead", [(1000,), (1001, 1002)])
def test_when_the_playhead_is_not_one_frame_of_the_shot_then_it_is_refused(house, playhead):
    with pytest.raises(InputError):
        start(house, playhead)


def test_when_a_session_with_provisional_mattes_is_deleted_then_their_files_go_too(house):
    house.script(fail="no memory")
    job = start(house, (1005,), first=1001, last=1002)
    provisional = next(event for event in house.finish(job) if type(event) is MatteProvisional)
    house.ask(DeleteSession("roto"))
    assert not house.store.file_path(provisional.files[0].sha256).exists()


# ---------------------------------------------------------------------------------------------------- and its threads


class ThreadCounter(Listener):
    """A channel that keeps on how many threads torch worked when a stage was said."""

    def __init__(self):
        super().__init__()
        self.counts = set()

    def send(self, event):
        super().send(event)
        if isinstance(event, EngineProgress):
            self.counts.add(torch.get_num_threads())


def test_when_a_small_shot_is_propagated_then_torch_keeps_to_one_thread_until_its_end(tools, scene, tmp_path):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        channel = ThreadCounter()
        run_propagation(plan_of(tmp_path, *scene), *tools, channel)
        assert channel.counts == {1}
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
