"""Jobs when something dies, fills up or restarts."""

import errno
import os
import signal
import time
from pathlib import Path

import pytest

from tests.server.house import (
    LOCAL_CLIENT,
    House,
    fill_disk,
    folder_of,
    mattes,
    numbers,
    picture,
    small_disk,
    upload,
    wait_for_matte,
)
from xmem_protocol import (
    ENGINE_DIED,
    INTERNAL,
    LIMIT_EXCEEDED,
    STORAGE_FULL,
    Follow,
    Following,
    JobCancelled,
    JobDone,
    JobFailed,
    RemoveKey,
    ServerError,
    UndoKeys,
)
from xmem_server.storage import full_storage

FRAMES = list(range(1001, 1009))


# --------------------------------------------------------------------------------------------------------- deaths


def test_when_the_engine_dies_once_then_the_job_goes_on_from_its_snapshot(house):
    house.script(die_at=1006)
    job = house.start(snapshot_every=2)
    events = house.finish(job)
    assert mattes(events) == FRAMES
    assert numbers(events) == list(range(1, 10))
    second = house.plans()[1]
    assert (second["job"], second["finished"]) == (job, [1001, 1002, 1003, 1004, 1005])
    assert Path(second["snapshot"]).name == "1004.state"


def test_when_the_engine_is_killed_while_idle_then_the_next_job_runs(house):
    os.kill(house.engine.pid(), signal.SIGKILL)
    assert mattes(house.finish(house.start())) == FRAMES


def test_when_the_engine_dies_twice_at_the_same_place_then_the_job_fails_and_the_session_is_intact(house):
    house.script(die_at=1003, die_always=True)
    job, other = house.start(), house.start(top_k=20, first=1004)
    events = house.finish(job)
    assert mattes(events) == [1001, 1002]
    assert (events[-1].code, len(house.plans())) == (ENGINE_DIED, 2)
    assert "exit code 9" in events[-1].message
    assert isinstance(house.finish(other)[-1], JobDone)
    assert house.open().revision == 1
    house.script()
    assert house.start() == job
    assert mattes(house.finish(job)) == FRAMES


def test_when_the_engine_dies_at_another_place_each_time_then_the_job_still_ends(house):
    house.script(die_at=1003)
    job = house.start()
    wait_for_matte(house, job, 1002)
    (house.engine_folder / "died").unlink(missing_ok=True)
    house.script(die_at=1006)
    assert mattes(house.finish(job)) == FRAMES


def test_when_the_engine_cannot_start_again_then_waiting_jobs_fail_with_its_words(house):
    house.script(wait_at=1003)
    job, other = house.start(), house.start(top_k=20)
    wait_for_matte(house, job, 1002)
    house.script(refuse="The GPU is gone.")
    os.kill(house.engine.pid(), signal.SIGKILL)
    assert house.finish(job)[-1] == JobFailed(job, 3, ENGINE_DIED, "The GPU is gone.")
    assert house.finish(other) == (JobFailed(other, 1, ENGINE_DIED, "The GPU is gone."),)
    assert house.host.engine_infos()[0].state == "stopped"
    house.script()
    assert house.start() == job
    assert mattes(house.finish(job)) == FRAMES


def test_when_a_cancelled_job_ends_by_the_death_of_the_engine_then_it_is_cancelled(house):
    house.script(die_at=1003, die_always=True)
    job = house.start()
    wait_for_matte(house, job, 1002)
    house.host.request_cancel(job, LOCAL_CLIENT)
    house.finish(job)
    assert house.state_of(job) == "cancelled"


@pytest.mark.parametrize("fault", ["wrong_size", "bad_path"])
def test_when_the_engine_announces_a_file_that_is_not_so_then_the_job_fails_and_the_next_one_runs(house, fault):
    house.script(**{fault: True})
    job = house.start()
    events = house.finish(job)
    assert (mattes(events), events[-1].code) == ([], INTERNAL)
    house.script()
    assert house.start() == job  # queued until the engine has let go of it
    assert mattes(house.finish(job)) == FRAMES


def test_when_the_disk_fills_up_then_the_job_fails_saying_so_and_can_go_on(house, monkeypatch):
    def full(path, sha256):
        raise full_storage(house.store.folder)

    job = house.start()
    monkeypatch.setattr(house.store, "move_file", full)
    events = house.finish(job)
    assert (mattes(events), events[-1].code) == ([], STORAGE_FULL)
    assert str(house.store.folder) in events[-1].message
    monkeypatch.undo()
    assert house.start() == job
    assert mattes(house.finish(job)) == FRAMES


def test_when_a_real_disk_fills_up_within_a_job_then_it_fails_saying_so_and_nothing_is_lost(tmp_path, decoder):
    with small_disk(tmp_path / "disk") as disk, House(tmp_path, decoder, state=disk / "state") as house:
        house.ready()
        house.script(wait_at=1004)
        job = house.start(snapshot_every=2)
        wait_for_matte(house, job, 1003)
        fill_disk(disk / "other program")
        house.go()
        events = house.finish(job)
        assert (mattes(events), events[-1].code) == ([1001, 1002, 1003], STORAGE_FULL)
        assert house.host.session_count(LOCAL_CLIENT) == 1
        fill_disk(disk / "another program")
        with pytest.raises(ServerError) as caught:
            upload(house.store, picture(1, 200, 200))
        assert caught.value.code == STORAGE_FULL
        (disk / "other program").unlink()
        assert house.start(snapshot_every=2) == job
        assert mattes(house.finish(job)) == FRAMES
        assert house.open().revision == 1


def test_when_a_start_cannot_be_written_down_then_the_job_fails_and_can_be_started_again(house, monkeypatch):
    def full(*_):
        raise full_storage(house.store.folder)

    with monkeypatch.context() as patch:
        patch.setattr(house.store, "scratch_folder", full)
        job = house.start()
    assert house.events(job)[-1].code == STORAGE_FULL
    assert house.woken.is_set()  # a job behind it would be started
    assert house.start() == job
    assert mattes(house.finish(job)) == FRAMES


def test_when_a_plan_is_too_large_for_the_pipe_then_the_job_fails_and_the_next_one_runs(house, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("xmem_server.pipes.MAX_PIPE_BYTES", 3000)
        job = house.start()
    assert house.events(job)[-1].code == LIMIT_EXCEEDED
    assert mattes(house.finish(house.start(top_k=20))) == FRAMES


def test_when_an_end_cannot_be_written_down_then_the_job_can_still_be_started_again(house, monkeypatch):
    def full(*_):
        raise full_storage(house.store.folder)

    job = house.start()
    with monkeypatch.context() as patch:
        patch.setattr(house.store, "move_file", full)
        patch.setattr(house.store.jobs, "save_state", full)
        house.pump(lambda: house.host.engine_infos()[0].state != "busy")
    assert house.state_of(job) == "running"
    assert house.start() == job
    assert mattes(house.finish(job)) == FRAMES


# ------------------------------------------------------------------------------------------------------- restarts


def test_when_the_server_restarts_then_the_interrupted_job_goes_on_where_it_was(tmp_path, decoder):
    with House(tmp_path, decoder) as house:
        house.ready()
        house.script(wait_at=1006)
        job, waiting = house.start(snapshot_every=2), house.start(top_k=20)
        wait_for_matte(house, job, 1005)
    with House(tmp_path, decoder) as house:
        assert [(info.job, info.state) for info in house.open().jobs] == [
            (job, "interrupted"),
            (waiting, "interrupted"),
        ]
        assert mattes(house.events(job)) == [1001, 1002, 1003, 1004, 1005]
        assert house.ask(Follow(job, 0)) == Following(job, "interrupted")
        assert house.host.fetch_progress(job) is None
        assert house.start(snapshot_every=2) == job
        events = house.finish(job)
        assert mattes(events) == FRAMES
        assert numbers(events) == list(range(1, 10))
        assert house.plans()[-1]["finished"] == [1001, 1002, 1003, 1004, 1005]
        assert Path(house.plans()[-1]["snapshot"]).name == "1004.state"
        house.host.request_cancel(waiting, LOCAL_CLIENT)
        assert house.events(waiting) == (JobCancelled(waiting, 1),)


def test_when_a_snapshot_file_is_gone_then_the_older_one_is_taken(tmp_path, decoder):
    with House(tmp_path, decoder) as house:
        house.ready()
        house.script(wait_at=1006)
        job = house.start(snapshot_every=2)
        wait_for_matte(house, job, 1005)
        (folder_of(house, "snapshots") / job / "1004.state").unlink()
    with House(tmp_path, decoder) as house:
        house.start(snapshot_every=2)
        house.finish(job)
        assert Path(house.plans()[-1]["snapshot"]).name == "1002.state"


def test_when_the_disk_is_write_protected_then_each_request_says_so_and_later_all_goes_on(house, monkeypatch):
    job = house.start()
    house.finish(job)

    def protected(*_):
        raise OSError(errno.EROFS, "Read-only file system")

    with monkeypatch.context() as fault:
        fault.setattr("xmem_server.files._allocate", protected)
        house.store.database.fetch("PRAGMA query_only = ON")
        with pytest.raises(ServerError, match="Make it writable"):
            house.key(1004, value=91)
        with pytest.raises(ServerError, match="cannot be written"):
            house.ask(RemoveKey("roto", 1001, 1))
        assert mattes(house.events(job)) == FRAMES
    house.store.database.fetch("PRAGMA query_only = OFF")
    assert house.put_key(1004, value=91).revision == 2
    assert mattes(house.finish(house.start())) == FRAMES


@pytest.mark.parametrize("years", [-20, 20])
def test_when_the_clock_jumps_then_nothing_that_is_used_is_lost_and_jobs_go_on(house, monkeypatch, years):
    job = house.start()
    house.finish(job)
    before = time.time()
    monkeypatch.setattr(time, "time", lambda: before + years * 365 * 24 * 3600)
    house.put_key(1004)
    second = house.start()
    assert mattes(house.finish(second)) == FRAMES
    house.store.sweep(3600.0)
    assert house.start() == second
    assert all(house.store.has_file(file.sha256) for _, file in house.store.jobs.fetch_results(job))
    house.ask(UndoKeys("roto"))
    assert house.start() == job
