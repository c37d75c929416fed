"""What a start that was made before finds: failed frames tried again, its place renewed, its colour compared."""

import dataclasses

import pytest

from tests.server.house import LOCAL_CLIENT, SHOT, House, failures, mattes
from xmem_protocol import InputError, JobDone, MatteReady, StartSuggestion, SuggestionSettings
from xmem_server import planning
from xmem_server.decoding import Decoder
from xmem_server.job_table import SnapshotRecord

FRAMES = list(range(1001, 1009))
CONFIG = (
    "ocio_profile_version: 1\nroles:\n  default: plate\ndisplays:\n  d:\n    - !<View> {{name: v, colorspace: plate}}\n"
    "colorspaces:\n  - !<ColorSpace>\n    name: plate\n    to_reference: !<MatrixTransform> "
    "{{matrix: [{gain}, 0, 0, 0, 0, {gain}, 0, 0, 0, 0, {gain}, 0, 0, 0, 0, 1]}}\n"
    "  - !<ColorSpace>\n    name: sRGB\n"
)


def suggest(house):
    return house.ask(StartSuggestion("roto", SuggestionSettings(count=1))).job


def newest_plan(house):
    return house.plans()[-1]


# ------------------------------------------------------------------------------------------------ failed frames again


def test_when_a_done_job_with_a_failed_frame_is_started_again_then_only_that_frame_is_made(house):
    house.script(fail_frame=1004)
    job = house.start(snapshot_every=2)
    events = house.finish(job)
    assert (failures(events), isinstance(events[-1], JobDone)) == ([1004], True)
    house.script()
    assert house.start(snapshot_every=2) == job
    assert failures(house.events(job)) == []
    healed = house.finish(job)
    assert sorted(mattes(healed)) == FRAMES
    assert failures(healed) == []
    assert [event.frame for event in healed if event.seq > events[-1].seq and isinstance(event, MatteReady)] == [1004]
    assert isinstance(healed[-1], JobDone)
    assert healed[-1].seq > events[-1].seq
    assert newest_plan(house)["finished"] == [frame for frame in FRAMES if frame != 1004]
    assert newest_plan(house)["snapshot"] == ""
    house.start(snapshot_every=2)
    assert len(house.plans()) == 2  # nothing is left to be done


def test_when_a_frame_fails_again_then_it_is_told_again_once(house):
    house.script(fail_frame=1004)
    job = house.start()
    house.finish(job)
    house.start()
    events = house.finish(job)
    assert failures(events) == [1004]
    assert house.state_of(job) == "done"


def test_when_a_snapshot_outlived_its_done_job_then_a_retry_does_not_go_on_from_it(house):
    house.script(fail_frame=1004)
    job = house.start()
    house.finish(job)
    path = house.store.snapshot_folder(1, job) / "1006.state"
    path.write_bytes(b"the server was killed before it was removed")
    house.store.jobs.save_snapshot(job, SnapshotRecord(1006, path))
    house.script()
    house.start()
    assert sorted(mattes(house.finish(job))) == FRAMES
    assert newest_plan(house)["snapshot"] == ""


def test_when_a_cancelled_job_makes_a_frame_that_failed_before_then_the_failure_is_taken_back(house):
    house.script(fail_frame=1002, wait_at=1005)
    job = house.start()
    house.pump(lambda: 1004 in mattes(house.events(job)))
    house.host.request_cancel(job, LOCAL_CLIENT)
    assert failures(house.finish(job)) == [1002]
    house.script()
    assert house.start() == job
    events = house.finish(job)
    assert (sorted(mattes(events)), failures(events)) == (FRAMES, [])


def test_when_a_healed_propagation_is_looked_at_then_an_old_suggestion_is_not_replayed(house):
    house.script(fail_frame=1004)
    house.finish(house.start())
    before = suggest(house)
    house.finish(before)
    house.script()
    house.finish(house.start())
    after = suggest(house)
    house.finish(after)
    assert after != before
    assert 1004 in [matte["frame"] for matte in newest_plan(house)["mattes"]]


# ------------------------------------------------------------------------------------------------- which run is looked at


def test_when_an_earlier_run_is_started_again_then_a_suggestion_looks_at_it(house):
    whole = house.start()
    house.finish(whole)
    house.finish(house.start(last=1004))
    assert house.start() == whole  # replayed
    house.finish(suggest(house))
    assert [plate["frame"] for plate in newest_plan(house)["plates"]] == FRAMES
    house.start(last=1004)
    house.finish(suggest(house))
    assert [plate["frame"] for plate in newest_plan(house)["plates"]] == FRAMES[:4]


def test_when_a_running_job_is_started_again_then_it_is_the_newest_one(house):
    house.script(wait_at=1003)
    whole, part = house.start(), house.start(last=1004)
    house.pump(lambda: 1002 in mattes(house.events(whole)))
    assert house.start() == whole
    house.go()
    house.finish(part)
    house.finish(suggest(house))
    assert [plate["frame"] for plate in newest_plan(house)["plates"]] == FRAMES


# ----------------------------------------------------------------------------------------------------------- identity


def test_when_mattes_may_have_changed_with_the_version_then_a_run_is_another_one(house, monkeypatch):
    job = house.start()
    house.finish(job)
    with monkeypatch.context() as patch:
        patch.setattr(planning, "RESULT_VERSION", planning.RESULT_VERSION + 1)
        assert house.start() != job
    with monkeypatch.context() as patch:
        patch.setattr(planning, "__version__", "99.0")
        assert house.start() != job
    assert house.start() == job


def test_when_the_ocio_config_changes_under_its_name_then_the_run_is_another_one(tmp_path, monkeypatch):
    config = tmp_path / "show.ocio"
    config.write_text(CONFIG.format(gain=2))
    monkeypatch.setenv("OCIO", str(config))
    with Decoder() as decoder, House(tmp_path, decoder) as house:
        house.open(shot=dataclasses.replace(SHOT, colorspace="plate"))
        house.put_plates()
        house.put_key(1001)
        job = house.start()
        house.finish(job)
        assert house.start() == job
        config.write_text(CONFIG.format(gain=3))
        with pytest.raises(InputError, match="Run it first"):
            suggest(house)
        other = house.start()
        assert other != job
        house.finish(other)
        house.finish(suggest(house))
        first, second, suggestion = house.plans()
        assert first["colour_id"] != second["colour_id"] == suggestion["colour_id"]
        config.write_text(CONFIG.format(gain=2))
        assert house.start() == job
        config.write_text("this is: [not a config")
        with pytest.raises(InputError, match=r"show\.ocio"):
            house.start()


def test_when_a_colour_space_is_unknown_then_a_run_cannot_start(tmp_path, decoder):
    with House(tmp_path, decoder) as house:
        house.open(shot=dataclasses.replace(SHOT, colorspace="ACESgc"))
        house.put_plates()
        house.put_key(1001)
        with pytest.raises(InputError, match=r"'ACESgc' is not in.*Close to it"):
            house.start()
