"""The soak's own judgement, on planted findings; and its short form, slow."""

import threading
from pathlib import Path

import pytest

from benchmarks.soak.__main__ import Soak, SoakSettings
from benchmarks.soak.audit import Held, audit_log, judge_held
from benchmarks.soak.ledger import Gate, Ledger
from xmem_server.decoding import Decoder


def held(minute, resident=100e6, descriptors=40, threads=12, temporary_files=0, pid=7):
    return Held(minute * 60, pid, int(resident), descriptors, threads, temporary_files)


def test_when_nothing_grows_then_the_slope_is_flat_and_nobody_is_accused():
    ledger = Ledger()
    assert judge_held([held(minute) for minute in range(60)], ledger) == pytest.approx(0)
    assert ledger.violations == []


def test_when_memory_grows_two_megabytes_a_minute_then_it_is_said():
    ledger = Ledger()
    assert judge_held([held(minute, 100e6 + 2e6 * minute) for minute in range(60)], ledger) == pytest.approx(2)
    assert ledger.violations == ["memory grows by 2.00 MB a minute"]


@pytest.mark.parametrize("name", ["descriptors", "threads", "temporary_files"])
def test_when_something_else_grows_then_it_is_said(name):
    ledger = Ledger()
    judge_held([held(minute, **{name: 40 + minute}) for minute in range(60)], ledger)
    assert [line.split(" ")[0] for line in ledger.violations] == [name]


def test_when_the_process_was_killed_then_only_its_longest_life_is_judged():
    ledger = Ledger()
    samples = [held(minute, 100e6 + 50e6 * minute, pid=1) for minute in range(5)]
    samples += [held(minute, pid=2) for minute in range(5, 60)]
    assert judge_held(samples, ledger) == pytest.approx(0)


def test_when_the_same_keys_give_other_mattes_then_it_is_said():
    ledger = Ledger()
    keys = {(1001, 1): "a" * 64}
    ledger.note_result(keys, {1001: "x"})
    ledger.note_result(dict(keys), {1001: "x"})
    assert ledger.violations == []
    ledger.note_result(keys, {1001: "y"})
    assert "gave other mattes" in ledger.violations[0]


def test_when_the_log_has_a_traceback_then_it_is_said(tmp_path):
    class Server:
        log = Path(tmp_path / "server.log")

    Server.log.write_text("fine\nTraceback (most recent call last):\n  File x\nKeyError: 1\n")
    ledger = Ledger()
    audit_log(Server(), ledger)
    assert "KeyError: 1" in ledger.violations[0]


def test_when_the_gate_is_closed_then_nobody_acts_until_it_opens():
    gate, acted = Gate(), []
    stop = threading.Event()

    def act():
        while not stop.is_set():
            with gate.passing() as is_on:
                if is_on:
                    acted.append(1)

    thread = threading.Thread(target=act)
    thread.start()
    with gate.closed():
        count = len(acted)
        assert not stop.wait(0.1)
        assert len(acted) == count
    while len(acted) == count:
        assert not stop.wait(0.01)
    stop.set()
    gate.end()
    thread.join()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_when_a_server_is_soaked_for_a_while_then_nothing_is_found(tmp_path):
    with Decoder() as decoder:
        found = Soak(SoakSettings(40, 1), tmp_path, decoder).run()
    assert found["violations"] == []
    assert found["steps"] > 30
