"""The short form of ``benchmarks.kills``, and the proof that its audits see what they look for."""

import sqlite3

import pytest

from benchmarks.kills import Ledger, audit_state, run
from tests.server.house import House, sha256_of


def test_when_processes_are_killed_at_random_then_nothing_acknowledged_is_lost_torn_or_doubled(tmp_path):
    found = run(8, 5, tmp_path)
    assert found["violations"] == []
    assert found["acknowledged"]["key"] > 0
    assert sum(found["kills"].values()) == 8


@pytest.mark.slow
def test_when_two_hundred_processes_are_killed_then_nothing_acknowledged_is_lost_torn_or_doubled(tmp_path):
    assert run(200, 1, tmp_path)["violations"] == []


@pytest.fixture
def finished(tmp_path, decoder):
    with House(tmp_path, decoder) as house:
        house.ready()
        job = house.start()
        house.finish(job)
        matte = house.store.jobs.fetch_results(job)[0]
        state = house.store.folder
    ledger = Ledger()
    for line in (f"job {job}\n", f"matte {job} {matte[0]} {matte[1].sha256}\n", f"key 1001 1 {sha256_of(b'x')}\n"):
        ledger.note(line)
    return state, ledger, job


def test_when_nothing_is_wrong_then_the_audit_says_nothing(finished):
    state, ledger, _ = finished
    assert audit_state(state, ledger) == []


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("DELETE FROM result", "was given out and is gone"),
        ("UPDATE job SET job = 'another'", "was acknowledged and is gone"),
        (
            "INSERT INTO revision SELECT session, 99, frame, object_id, before, after, changed, kind FROM revision",
            "2 times",
        ),
        ("INSERT INTO event SELECT job, 99, type, frame, body FROM event WHERE seq = 1", "announced 2 times"),
    ],
)
def test_when_the_journal_lost_or_doubled_something_then_the_audit_says_so(finished, statement, words):
    state, ledger, _ = finished
    journal = sqlite3.connect(state / "journal.sqlite")
    journal.execute(statement)
    journal.commit()
    journal.close()
    assert any(words in line for line in audit_state(state, ledger))


def test_when_a_stored_file_is_torn_or_a_matte_changes_then_the_audit_says_so(finished):
    state, ledger, job = finished
    victim = next((state / "objects").glob("*/*"))
    victim.write_bytes(victim.read_bytes()[:-1])
    ledger.note(f"matte {job} 1001 {'0' * 64}\n")
    assert any("is torn" in line for line in audit_state(state, ledger))
    assert any("changed after" in line for line in ledger.violations)


def test_when_a_line_was_cut_by_the_clients_death_then_it_acknowledges_nothing():
    ledger = Ledger()
    ledger.note("file " + "a" * 64)
    assert ledger.files == set()
