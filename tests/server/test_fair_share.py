"""Whose turn it is: unit rules on a clock of our own, then two clients before one scripted engine."""

import itertools

import pytest

from tests.server.house import SHOT, House, mattes, numbers
from xmem_protocol import (
    JobCancelled,
    JobDone,
    OpenSession,
    PropagationSettings,
    PutKey,
    PutPlates,
    StartPropagation,
)
from xmem_server.clients import ClientKey
from xmem_server.fair_share import SLICE_SECONDS, Claim, FairShare

ALICE, BOB = ClientKey("alice", "a" * 40), ClientKey("bob", "b" * 40)
FRAMES = list(range(SHOT.first, SHOT.last + 1))


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def test_when_jobs_wait_then_interactive_ones_of_whoever_had_least_come_first():
    clock = Clock()
    share = FairShare(clock)
    share.charge("alice", 10)
    claims = [
        Claim("a1", "alice", False, 1),
        Claim("a2", "alice", False, 2),
        Claim("b1", "bob", True, 3),
        Claim("c1", "carol", False, 4),
    ]
    assert [claim.job for claim in share.order(claims)] == ["c1", "a1", "a2", "b1"]
    clock.now += 3600
    assert share.used("alice") < 1e-9  # an hour ago is forgotten


def test_when_one_client_waits_then_the_running_one_keeps_its_slice_and_its_own_jobs_never_interrupt():
    share = FairShare(Clock())
    running, waiting = Claim("a", "alice", False, 1), Claim("b", "bob", False, 2)
    assert not share.is_before(waiting, running, SLICE_SECONDS - 0.1)
    assert share.is_before(waiting, running, SLICE_SECONDS)
    assert not share.is_before(Claim("a2", "alice", False, 2), running, 1e9)
    share.charge("bob", 100)
    assert not share.is_before(waiting, running, SLICE_SECONDS)  # bob had far more


def test_when_batch_work_runs_then_interactive_work_takes_over_at_once_and_never_the_other_way():
    share = FairShare(Clock())
    batch, screen = Claim("a", "alice", True, 1), Claim("b", "alice", False, 2)
    assert share.is_before(screen, batch, 0.0)
    assert not share.is_before(batch, screen, 1e9)


@pytest.mark.parametrize("seed", range(5))
def test_when_clients_always_have_work_then_each_gets_its_share(seed):
    clock = Clock()
    share = FairShare(clock)
    owners = ["alice", "bob", "carol"][: 2 + seed % 2]
    got = dict.fromkeys(owners, 0.0)
    running, since = None, 0.0
    for step in range(int(300 / 0.5)):
        waiting = [Claim(owner, owner, False, place) for place, owner in enumerate(owners) if owner != running]
        first = share.order(waiting)[0]
        if running is None or share.is_before(first, Claim(running, running, False, 0), clock.now - since):
            if running is not None:
                share.charge(running, clock.now - since)
            running, since = first.job, clock.now
        got[running] += 0.5
        clock.now += 0.5 if step % (3 + seed) else 0.4
    assert min(got.values()) > 0.8 * sum(got.values()) / len(owners)


def ready(house, key):
    house.ask(OpenSession("roto", SHOT), key=key)
    house.ask(PutPlates("roto", tuple(house.plate(frame) for frame in FRAMES)), key=key)
    house.ask(PutKey("roto", house.key(1001)), key=key)


def start(house, key, *, batch=False, **settings):
    wanted = PropagationSettings(SHOT.first, SHOT.last, **settings)
    return house.ask(StartPropagation("roto", wanted, batch), key=key).job


@pytest.fixture
def shared(tmp_path, decoder):
    with House(tmp_path, decoder, {"frame_seconds": 0.06, "resumes": True}) as house:
        ready(house, ALICE)
        ready(house, BOB)
        yield house


def switches(house):
    return [job for job, _ in itertools.groupby(plan["job"] for plan in house.plans())]


def test_when_two_clients_propagate_then_they_take_turns_and_each_matte_comes_once(shared, monkeypatch):
    monkeypatch.setattr("xmem_server.fair_share.SLICE_SECONDS", 0.05)
    one, two = start(shared, ALICE), start(shared, BOB)
    first, second = shared.finish(one), shared.finish(two)
    assert len(switches(shared)) >= 4
    for events in (first, second):
        assert mattes(events) == FRAMES
        assert numbers(events) == list(range(1, 10))
        assert isinstance(events[-1], JobDone)


def test_when_batch_work_runs_and_somebody_asks_at_a_screen_then_the_screen_is_first(shared):
    batch = start(shared, BOB, batch=True)
    shared.pump(lambda: mattes(shared.events(batch)))
    screen = start(shared, ALICE)
    shared.finish(screen)
    assert len(mattes(shared.events(batch))) < len(FRAMES)
    assert mattes(shared.finish(batch)) == FRAMES
    assert switches(shared) == [batch, screen, batch]


def test_when_a_job_waits_then_it_is_told_its_place_and_when(shared):
    shared.script(wait_at=1003)
    one = start(shared, ALICE)
    shared.pump(lambda: len(mattes(shared.events(one))) == 2)
    two, three = start(shared, BOB), start(shared, BOB, top_k=20)
    progress = [shared.host.fetch_progress(job) for job in (two, three)]
    assert [(each.stage, each.total) for each in progress] == [("waiting", 1), ("waiting", 2)]
    assert 0 <= progress[0].eta_seconds <= SLICE_SECONDS
    assert progress[1].eta_seconds == -1
    shared.go()
    shared.finish(three)


def test_when_a_paused_job_is_cancelled_or_asked_for_again_then_it_ends_or_goes_on(shared, monkeypatch):
    monkeypatch.setattr("xmem_server.fair_share.SLICE_SECONDS", 0.05)
    one, two = start(shared, ALICE), start(shared, BOB)
    shared.pump(lambda: len(switches(shared)) >= 2)
    for job, key in ((one, ALICE), (two, BOB)):
        shared.host.request_cancel(job, key)
    assert isinstance(shared.finish(one)[-1], JobCancelled)
    assert isinstance(shared.finish(two)[-1], JobCancelled)
    assert start(shared, ALICE) == one
    assert mattes(shared.finish(one)) == FRAMES


def test_when_the_server_restarts_while_a_job_is_paused_then_nothing_of_it_is_lost(tmp_path, decoder, monkeypatch):
    monkeypatch.setattr("xmem_server.fair_share.SLICE_SECONDS", 0.05)
    script = {"frame_seconds": 0.06, "resumes": True}
    with House(tmp_path, decoder, script) as house:
        ready(house, ALICE)
        ready(house, BOB)
        one, two = start(house, ALICE), start(house, BOB)
        house.pump(lambda: len(switches(house)) >= 3)
    with House(tmp_path, decoder, script) as house:
        assert start(house, ALICE) == one
        assert start(house, BOB) == two
        assert mattes(house.finish(one)) == FRAMES
        assert mattes(house.finish(two)) == FRAMES
