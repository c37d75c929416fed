import dataclasses
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.server.house import NO_RESERVE, SHOT, alpha, sha256_of, upload
from xmem_protocol import (
    STORAGE_FULL,
    FrameFailed,
    InputError,
    JobCancelled,
    JobDone,
    Key,
    MatteFile,
    PropagationSettings,
    ServerError,
)
from xmem_server.engines import child_environment
from xmem_server.job_table import JobRecord, SnapshotRecord
from xmem_server.plans import PropagationPlan
from xmem_server.store import Store

PLAN = PropagationPlan("job-1", "roto", SHOT, (), (), PropagationSettings(1001, 1008), (), "", "", "")


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "state", NO_RESERVE)
    store.sessions.add("local", "roto", SHOT)
    yield store
    store.close()


def key(frame, object_id=1, sha256="a" * 64):
    return Key(frame, object_id, "present", sha256, ".exr", "channel:A")


def add_job(store, job="job-1", state="queued", params_hash="h"):
    store.jobs.add(JobRecord(job, 1, "propagation", params_hash, state, 0), dataclasses.replace(PLAN, job=job))


def save_many_keys(store):
    with store.database.transaction():
        for frame in range(2000):
            store.sessions.save_key(1, key(frame, 2))


def test_when_a_transaction_fails_then_nothing_of_it_is_kept(store):
    def change():
        with store.database.transaction():
            store.sessions.save_key(1, key(1001))
            with store.database.transaction():
                store.sessions.save_key(1, key(1002))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        change()
    assert store.sessions.fetch_keys(1) == ()
    assert store.sessions.fetch("local", "roto").revision == 0


def test_when_keys_are_added_replaced_and_removed_then_the_history_tells_each(store):
    store.sessions.save_key(1, key(1005))
    store.sessions.save_key(1, key(1001))
    store.sessions.save_key(1, key(1001))  # said already
    store.sessions.save_key(1, key(1001, sha256="b" * 64))
    store.sessions.remove_keys(1, [key(1005)])
    store.sessions.remove_keys(1, [])
    assert store.sessions.fetch_keys(1) == (key(1001, sha256="b" * 64),)
    assert store.sessions.fetch("local", "roto").revision == 4
    history = [
        (change.revision, change.frame, change.before, change.after) for change in store.sessions.fetch_history(1)
    ]
    assert history == [
        (1, 1005, None, key(1005)),
        (2, 1001, None, key(1001)),
        (3, 1001, key(1001), key(1001, sha256="b" * 64)),
        (4, 1005, key(1005), None),
    ]


def test_when_events_are_added_then_they_are_numbered_from_one(store):
    add_job(store)
    assert store.jobs.add_event(FrameFailed("job-1", 0, 1003, "damaged")).seq == 1
    assert store.jobs.add_event(JobDone("job-1", 0, "fine")).seq == 2
    assert store.jobs.fetch_events("job-1", 0, 10) == (
        FrameFailed("job-1", 1, 1003, "damaged"),
        JobDone("job-1", 2, "fine"),
    )
    assert store.jobs.fetch_events("job-1", 1, 10) == (JobDone("job-1", 2, "fine"),)
    assert store.jobs.fetch_events("job-1", 0, 1) == (FrameFailed("job-1", 1, 1003, "damaged"),)
    assert store.jobs.has_event("job-1", FrameFailed, 1003)
    assert not store.jobs.has_event("job-1", FrameFailed, 1004)


def test_when_an_ended_job_is_queued_again_then_its_end_is_taken_back_and_numbers_go_on(store):
    add_job(store, state="cancelled")
    store.jobs.add_event(FrameFailed("job-1", 0, 1003, "damaged"))
    store.jobs.add_event(JobCancelled("job-1", 0))
    store.jobs.queue_last("job-1")
    assert store.jobs.fetch("job-1").state == "queued"
    assert [event.seq for event in store.jobs.fetch_events("job-1", 0, 10)] == [1]
    assert store.jobs.add_event(JobDone("job-1", 0, "fine")).seq == 3


def test_when_jobs_are_queued_then_they_keep_their_order_and_one_can_be_put_first(store):
    for number in range(3):
        add_job(store, f"job-{number}", params_hash=f"h{number}")
    store.jobs.queue_first("job-2")
    store.jobs.queue_last("job-0")
    assert store.jobs.fetch_queue() == ["job-2", "job-1", "job-0"]
    assert store.jobs.fetch_queue()[0] == "job-2"


def test_when_the_store_opens_again_then_all_is_there_and_running_jobs_are_interrupted(tmp_path):
    store = Store(tmp_path / "state", NO_RESERVE)
    store.sessions.add("local", "roto", SHOT)
    store.sessions.save_key(1, key(1001))
    for state in ("queued", "running", "done"):
        add_job(store, f"job-{state}", state, state)
    store.jobs.add_results("job-done", 1001, [MatteFile(1, "c" * 64, 5, ".exr")])
    scratch = store.scratch_folder(1, "job-running")
    (scratch / "half.exr").write_bytes(b"half")
    snapshots = store.snapshot_folder(1, "job-running")
    (snapshots / "1002.state").write_bytes(b"state")
    (snapshots / "1003.state").write_bytes(b"never journalled")
    store.jobs.save_snapshot("job-running", SnapshotRecord(1002, snapshots / "1002.state"))
    store.close()
    again = Store(tmp_path / "state", NO_RESERVE)
    assert again.sessions.fetch("local", "roto").shot == SHOT
    assert again.sessions.fetch_keys(1) == (key(1001),)
    assert [info.state for info in again.jobs.fetch_infos(1, 10)] == ["interrupted", "interrupted", "done"]
    assert again.jobs.fetch_results("job-done") == ((1001, MatteFile(1, "c" * 64, 5, ".exr")),)
    assert again.jobs.fetch_plan("job-done") == dataclasses.replace(PLAN, job="job-done")
    assert not scratch.exists()
    assert [path.name for path in snapshots.iterdir()] == ["1002.state"]
    again.close()


def test_when_a_second_server_opens_the_folder_then_it_is_refused(store, monkeypatch):
    monkeypatch.setattr("xmem_server.database._LOCK_SECONDS", 0.1)
    with pytest.raises(InputError, match="Another server uses"):
        Store(store.folder, NO_RESERVE)


def test_when_the_journal_is_of_a_newer_version_then_it_is_refused(tmp_path):
    Store(tmp_path / "state", NO_RESERVE).close()
    connection = sqlite3.connect(tmp_path / "state" / "journal.sqlite")
    connection.execute("UPDATE schema_version SET version = 99")
    connection.commit()
    connection.close()
    with pytest.raises(InputError, match="layout 99"):
        Store(tmp_path / "state", NO_RESERVE)


def test_when_the_journal_is_not_one_then_it_is_refused(tmp_path):
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "journal.sqlite").write_bytes(b"no database at all" * 100)
    with pytest.raises(InputError, match="cannot be used"):
        Store(tmp_path / "state", NO_RESERVE)


def test_when_the_state_folder_cannot_be_made_then_it_is_refused(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match="cannot be made"):
        Store(tmp_path / "file" / "state", NO_RESERVE)


def test_when_the_journal_finds_no_space_then_it_says_so_and_keeps_what_was_acknowledged(store):
    store.sessions.save_key(1, key(1001))
    pages = store.database.fetch_one("PRAGMA page_count")[0]
    store.database.fetch(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(ServerError) as caught:
        save_many_keys(store)
    assert caught.value.code == STORAGE_FULL
    assert str(store.folder) in str(caught.value)
    assert store.sessions.fetch_keys(1) == (key(1001),)
    store.database.fetch("PRAGMA max_page_count = 1000000")
    store.sessions.save_key(1, key(1002))
    assert store.sessions.fetch("local", "roto").revision == 2


def test_when_a_process_that_journals_keys_is_killed_then_no_acknowledged_key_is_lost(tmp_path):
    """Twenty rounds on one folder; seed 2."""
    waits = random.Random(2)
    content = alpha()
    acknowledged = set()
    program = Path(__file__).with_name("journal_keys.py")
    for round_number in range(20):
        child = subprocess.Popen(
            [sys.executable, str(program), str(tmp_path / "state"), str(round_number)],
            stdout=subprocess.PIPE,
            env=child_environment(),
        )
        assert child.stdout.readline() == b"ready\n"
        time.sleep(waits.uniform(0.0, 0.15))
        os.kill(child.pid, signal.SIGKILL)
        acknowledged |= {tuple(map(int, line.split())) for line in child.communicate()[0].splitlines()}
    assert len(acknowledged) > 20
    store = Store(tmp_path / "state", NO_RESERVE)
    keys = store.sessions.fetch_keys(1)
    assert acknowledged <= {(found.frame, found.object_id) for found in keys}
    assert len(keys) <= len(acknowledged) + 20  # the one on its way when the process was killed
    assert store.sessions.fetch("local", "roto").revision == len(keys)
    assert {found.sha256 for found in keys} == {sha256_of(content)}
    assert store.file_path(sha256_of(content)).read_bytes() == content
    assert store.database.fetch("PRAGMA integrity_check") == [("ok",)]
    assert upload(store, content) == sha256_of(content)
    store.close()
