import threading
from pathlib import Path

import pytest

from tests.server.house import LOCAL_CLIENT, SHOT, House, folder_of, mattes, numbers, picture, wait_for_matte
from xmem_protocol import (
    NOT_FOUND,
    Cancel,
    CancelAccepted,
    Follow,
    Following,
    FrameFailed,
    InputError,
    JobCancelled,
    JobDone,
    JobFailed,
    Key,
    PropagationSettings,
    PutKey,
    PutPlates,
    RemoveKey,
    ServerError,
    StartPropagation,
    StartSuggestion,
    SuggestionSettings,
    SuggestionsReady,
)

FRAMES = list(range(1001, 1009))


# ---------------------------------------------------------------------------------------------------------- propagation


def test_when_a_propagation_runs_then_every_matte_is_stored_and_told_once(house):
    job = house.start(snapshot_every=2)
    events = house.finish(job)
    assert mattes(events) == FRAMES
    assert numbers(events) == list(range(1, 10))
    assert events[-1] == JobDone(job, 9, "scripted")
    assert [event.is_key for event in events[:-1]] == [True] + [False] * 7
    (file,) = events[1].files
    assert house.store.file_path(file.sha256).read_bytes() == b"matte of 1002 by 1 keys"
    assert house.events(job, after_seq=7) == events[7:]
    assert house.host.fetch_events(job, 0, 2) == events[:2]
    assert house.host.fetch_progress(job) is None
    assert house.ask(Follow(job, 0)) == Following(job, "done")
    assert not (folder_of(house, "scratch") / job).exists()
    assert not (folder_of(house, "snapshots") / job).exists()


def test_when_a_plan_is_handed_over_then_it_is_complete_in_itself(house):
    house.put_key(1006, 2)
    house.ask(PutKey("roto", Key(1003, 2, "absent", "", "", "")))
    house.finish(house.start(first=1002, last=1004))
    (plan,) = house.plans()
    assert [plate["frame"] for plate in plan["plates"]] == [
        1001,
        1002,
        1003,
        1004,
        1006,
    ]  # outside the range: the keys'
    assert [(source["key"]["frame"], source["key"]["object_id"]) for source in plan["keys"]] == [
        (1001, 1),
        (1003, 2),
        (1006, 2),
    ]
    assert all(Path(plate["path"]).is_file() for plate in plan["plates"])
    assert [bool(source["path"]) for source in plan["keys"]] == [True, False, True]
    assert (plan["finished"], plan["snapshot"]) == ([], "")
    assert plan["cache"] == str(folder_of(house, "cache"))
    assert plan["scratch"] == str(folder_of(house, "scratch") / plan["job"])


def test_when_the_same_propagation_is_started_again_then_it_is_the_same_job(house):
    job = house.start()
    assert house.start() == job  # while it runs
    events = house.finish(job)
    assert house.start(snapshot_every=7) == job  # when it is done; snapshots change no pixel
    assert house.events(job) == events
    assert len(house.plans()) == 1
    assert len({job, house.start(top_k=20), house.start(last=1007)}) == 3


def test_when_a_key_is_taken_back_then_the_propagation_of_the_earlier_keys_is_found_again(house):
    job = house.start()
    house.put_key(1005)
    other = house.start()
    assert other != job
    house.ask(RemoveKey("roto", 1005, 1))
    assert house.start() == job


def test_when_a_plate_is_rendered_again_then_the_propagation_is_another_one(house):
    job = house.start()
    house.ask(PutPlates("roto", (house.plate(1003, house.store.file_path(house.plate(1004).sha256).read_bytes()),)))
    assert house.start() != job


def test_when_a_start_is_sent_again_after_a_cancel_then_the_job_stays_cancelled(house):
    house.script(wait_at=1003)
    message = StartPropagation("roto", PropagationSettings(1001, 1008))
    job = house.ask(message, "start-1").job
    wait_for_matte(house, job, 1002)
    house.host.request_cancel(job, LOCAL_CLIENT)
    house.finish(job)
    assert house.ask(message, "start-1").job == job
    assert house.state_of(job) == "cancelled"


def test_when_no_object_is_drawn_then_a_propagation_cannot_start(house):
    house.ask(RemoveKey("roto", 1001, 0))
    house.ask(PutKey("roto", Key(1002, 1, "absent", "", "", "")))
    with pytest.raises(InputError, match="Draw a matte on at least one frame"):
        house.start()


def test_when_plates_are_missing_then_the_first_is_named(house):
    house.open("other")
    house.put_plates("other", first=1003)
    house.put_key(1003, session="other")
    with pytest.raises(InputError, match="Frame 1001 and 1 more of 1001-1008 has no plate"):
        house.start("other")
    house.finish(house.start("other", first=1003))
    house.put_key(1002, session="other")
    with pytest.raises(InputError, match="Frame 1002 has a key but no plate"):
        house.start("other", first=1003)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"first": 1000}, r"Frame 1000 is outside the shot \(1001-1008\)"),
        ({"last": 1009}, "Frame 1009 is outside"),
        ({"first": 1005, "last": 1004}, "before it begins"),
        ({"working_size": 49}, "16 to 48"),
        ({"working_size": -1}, "16 to 48"),
        ({"threshold": 1.0}, "above 0 and below 1"),
        ({"permanent": "all"}, "every, first, none"),
        ({"precision": "int8"}, "float32, bfloat16, float16"),
        ({"output": "jpeg"}, "exr-half, exr-float, png16"),
        ({"layout": "pile"}, "per-object, layered"),
        ({"layout": "layered", "output": "png16"}, "A PNG cannot hold layers"),
        ({"mem_every": 0}, "mem_every is 0"),
        ({"top_k": 0}, "top_k is 0"),
        ({"deep_update_every": 0}, "deep_update_every is 0"),
        ({"min_working_frames": 10}, r"min_working_frames \(10\) must be below"),
        ({"prototypes": 0}, "prototypes is 0"),
        ({"max_long_term": -5}, "max_long_term is -5"),
        ({"snapshot_every": 0}, "snapshot_every is 0"),
    ],
)
def test_when_a_setting_cannot_be_then_it_is_named_with_what_can(house, settings, words):
    with pytest.raises(InputError, match=words):
        house.start(**settings)


def test_when_one_frame_fails_then_the_job_goes_on_without_it(house):
    house.script(fail_frame=1004)
    events = house.finish(house.start())
    assert mattes(events) == [frame for frame in FRAMES if frame != 1004]
    assert [event.message for event in events if isinstance(event, FrameFailed)] == ["It cannot be read."]
    assert isinstance(events[-1], JobDone)


def test_when_the_engine_says_a_job_failed_then_its_code_is_passed_on(house):
    house.script(fail="Choose a smaller working size.")
    job = house.start()
    assert house.finish(job)[-1] == JobFailed(job, 9, "out_of_memory", "Choose a smaller working size.")
    assert house.state_of(job) == "failed"


def test_when_keys_change_while_a_job_runs_then_it_keeps_its_own(house):
    house.script(wait_at=1003)
    job = house.start()
    wait_for_matte(house, job, 1002)
    house.put_key(1005)
    house.go()
    events = house.finish(job)
    assert house.store.file_path(events[7].files[0].sha256).read_bytes() == b"matte of 1008 by 1 keys"


# -------------------------------------------------------------------------------------------------- queue and cancel


def test_when_the_engine_is_busy_then_jobs_wait_their_turn(house):
    house.script(wait_at=1003)
    house.ready("other")
    first, second, third = house.start(), house.start("other"), house.start(top_k=20)
    wait_for_matte(house, first, 1002)
    house.pump(lambda: house.host.fetch_progress(first).frame == 1003)
    assert house.host.queued_count() == 2
    assert house.host.engine_infos()[0].state == "busy"
    waiting = house.host.fetch_progress(third)
    assert (waiting.stage, waiting.total, waiting.seq) == ("waiting", 2, 0)
    assert house.host.fetch_progress(first).stage == "propagating"
    house.go()
    house.finish(third)
    assert [plan["job"] for plan in house.plans()] == [first, second, third]
    assert house.host.engine_infos()[0].state == "idle"
    assert house.host.queued_count() == 0


def test_when_a_queued_job_is_cancelled_then_it_ends_at_once(house):
    house.script(wait_at=1003)
    first, second = house.start(), house.start(top_k=20)
    house.woken.clear()
    assert house.ask(Cancel(second)) == CancelAccepted(second)
    assert house.woken.is_set()
    assert house.events(second) == (JobCancelled(second, 1),)
    house.go()
    assert isinstance(house.finish(first)[-1], JobDone)
    house.host.request_cancel(first, LOCAL_CLIENT)  # it has ended: nothing happens
    assert house.state_of(first) == "done"


def test_when_an_unknown_job_is_asked_for_then_it_is_not_found(house):
    for ask in (lambda: house.host.request_cancel("none", LOCAL_CLIENT), lambda: house.ask(Follow("none", 0))):
        with pytest.raises(ServerError) as caught:
            ask()
        assert caught.value.code == NOT_FOUND
    assert house.events("none") == ()
    assert house.host.fetch_progress("none") is None


def test_when_a_cancelled_job_is_started_again_then_it_goes_on_from_its_snapshot(house):
    house.script(wait_at=1006)
    job = house.start(snapshot_every=2)
    wait_for_matte(house, job, 1005)
    canceller = threading.Thread(target=house.host.request_cancel, args=(job, LOCAL_CLIENT))
    canceller.start()
    canceller.join()
    events = house.finish(job)
    assert isinstance(events[-1], JobCancelled)
    assert house.ask(Follow(job, 0)).state == "cancelled"
    house.script()
    assert house.start(snapshot_every=2) == job
    events = house.finish(job)
    assert mattes(events) == FRAMES
    assert isinstance(events[-1], JobDone)
    assert numbers(events) == [1, 2, 3, 4, 5, 7, 8, 9, 10]  # 6 was the cancellation, taken back and never used again
    plan = house.plans()[1]
    assert plan["finished"] == [1001, 1002, 1003, 1004, 1005]
    assert Path(plan["snapshot"]).name == "1004.state"


def test_when_a_job_is_started_again_while_it_is_being_cancelled_then_it_goes_on_afterwards(house):
    house.script(wait_at=1004)
    job = house.start()
    wait_for_matte(house, job, 1003)
    house.host.request_cancel(job, LOCAL_CLIENT)
    assert house.start() == job
    house.script()
    events = house.finish(job)
    house.pump(lambda: house.state_of(job) == "done")
    assert mattes(house.events(job)) == FRAMES
    assert mattes(events)[:3] == [1001, 1002, 1003]


def test_when_snapshots_come_then_the_two_newest_are_kept(house):
    house.script(wait_at=1008)
    job = house.start(snapshot_every=2)
    wait_for_matte(house, job, 1007)
    folder = folder_of(house, "snapshots") / job
    assert sorted(path.name for path in folder.iterdir()) == ["1004.state", "1006.state"]
    assert [snapshot.frame for snapshot in house.store.jobs.fetch_snapshots(job, folder)] == [1006, 1004]
    assert (folder / "1006.state").read_bytes() == b"state after 1006"


# ----------------------------------------------------------------------------------------------------- suggestions


def suggest(house, **settings):
    return house.ask(StartSuggestion("roto", SuggestionSettings(**{"count": 1, **settings}))).job


def test_when_a_suggestion_is_asked_then_it_looks_at_the_newest_finished_propagation(house):
    house.put_key(1001, 2)
    house.finish(house.start(top_k=20))
    house.finish(house.start(layout="layered"))
    job = suggest(house)
    events = house.finish(job)
    assert isinstance(events[0], SuggestionsReady)
    assert [suggestion.frame for suggestion in events[0].suggestions] == [1008]
    assert isinstance(events[1], JobDone)
    plan = house.plans()[-1]
    assert plan["propagation"]["layout"] == "layered"
    assert [(matte["frame"], matte["object_id"]) for matte in plan["mattes"]] == [(frame, 1) for frame in FRAMES]
    assert all(Path(matte["path"]).is_file() for matte in plan["mattes"])
    assert plan["cache"] == str(folder_of(house, "cache"))
    assert suggest(house) == job
    assert suggest(house, alpha=0.2) != job


def test_when_the_keys_have_no_finished_propagation_then_a_suggestion_says_to_run_it(house):
    with pytest.raises(InputError, match="Run it first"):
        suggest(house)
    house.finish(house.start())
    house.put_key(1005)
    with pytest.raises(InputError, match="Run it first"):
        suggest(house)
    house.ask(RemoveKey("roto", 1005, 1))
    assert isinstance(house.finish(suggest(house))[-1], JobDone)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"count": 0}, "ask for 1 or more"),
        ({"alpha": 1.5}, "alpha is 1.5"),
        ({"min_area": -0.1}, "min_area is -0.1"),
        ({"object_id": 7}, "Object 7 has no key; the objects are 1"),
    ],
)
def test_when_a_suggestion_setting_cannot_be_then_it_is_refused(house, settings, words):
    with pytest.raises(InputError, match=words):
        suggest(house, **settings)


def test_when_the_shot_has_negative_frames_then_all_works_alike(tmp_path, decoder):
    shot = type(SHOT)("sh020", 64, 48, 1.0, -3, 2, "display")
    with House(tmp_path, decoder) as house:
        house.open("minus", shot)
        house.ask(PutPlates("minus", tuple(house.plate(frame, picture(100 + frame)) for frame in range(-3, 3))))
        house.put_key(-2, session="minus")
        events = house.finish(house.start("minus", first=-3, last=2, snapshot_every=2))
        assert mattes(events) == [-3, -2, -1, 0, 1, 2]
