import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.server.house import SHOT, scripted, write_script
from xmem_protocol import InputError, LocalProtocolError, PropagationSettings
from xmem_server.engines import ENVIRONMENT, EngineProcess, EngineStopped, child_environment
from xmem_server.plans import (
    EngineCancelled,
    EngineDone,
    EngineMatte,
    EngineProgress,
    EngineReady,
    EngineRefused,
    PropagationPlan,
)


@pytest.fixture
def engine(tmp_path):
    engine = scripted(tmp_path / "engine")
    yield engine
    engine.close()


def plan(tmp_path, job="job-1", first=1001, last=1004, **changes):
    values = {
        "job": job,
        "session": "roto",
        "shot": SHOT,
        "plates": (),
        "keys": (),
        "settings": PropagationSettings(first, last),
        "finished": (),
        "snapshot": "",
        "cache": "",
        "scratch": str(tmp_path),
    }
    return PropagationPlan(**{**values, **changes})


def collect(engine, until, seconds=20):
    """Give the events up to the first of this kind."""
    found = []
    end = time.monotonic() + seconds
    while not any(isinstance(event, until) for event in found):
        assert time.monotonic() < end, f"only {found} came"
        found += engine.events()
        time.sleep(0.01)
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a process does not say its environment")
def test_when_an_engine_starts_then_its_libraries_are_told_how_to_use_memory_and_threads(engine, monkeypatch):
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "3")  # whoever sets one means it
    engine.start()
    told = Path(f"/proc/{engine.pid()}/environ").read_text().split("\0")
    assert {f"{name}={value}" for name, value in {**ENVIRONMENT, "OPENBLAS_NUM_THREADS": "3"}.items()} <= set(told)


def test_when_an_engine_starts_then_it_says_what_it_computes_with(engine):
    assert engine.info().state == "stopped"
    assert engine.start() == EngineReady("cpu", "scripted", "f" * 64)
    info = engine.info()
    assert (info.device, info.model, info.model_sha256, info.state) == ("cpu", "scripted", "f" * 64, "idle")
    assert engine.events() == (EngineReady("cpu", "scripted", "f" * 64),)
    assert engine.events() == ()


def test_when_a_plan_is_submitted_then_its_events_come_in_order_and_wake_the_listener(engine, tmp_path):
    woken = threading.Event()
    engine.start()
    engine.listen(woken.set)
    assert woken.is_set()  # EngineReady was waiting already
    woken.clear()
    engine.submit(plan(tmp_path))
    events = collect(engine, EngineDone)
    assert [event.frame for event in events if isinstance(event, EngineMatte)] == [1001, 1002, 1003, 1004]
    assert woken.is_set()


def test_when_a_running_job_is_cancelled_then_it_stops(engine, tmp_path):
    write_script(tmp_path / "engine", {"wait_at": 1002})
    engine.start()
    engine.submit(plan(tmp_path))
    collect(engine, EngineMatte)
    engine.cancel("job-1")
    assert isinstance(collect(engine, EngineCancelled)[-1], EngineCancelled)


def test_when_an_engine_refuses_then_start_raises_its_words(tmp_path):
    engine = scripted(tmp_path / "engine", {"refuse": "No CUDA device is here. Use --device cpu."})
    with pytest.raises(InputError, match=r"No CUDA device is here\. Use --device cpu\."):
        engine.start()
    assert engine.info().state == "stopped"
    assert engine.events() == (EngineRefused("No CUDA device is here. Use --device cpu."),)
    write_script(tmp_path / "engine", {})
    engine.start()
    engine.close()


def test_when_an_engine_dies_at_start_then_start_says_how(tmp_path):
    engine = scripted(tmp_path / "engine", {"exit_at_start": True})
    with pytest.raises(InputError, match=r"exit code 3.*not ready"):
        engine.start()
    engine.close()


def test_when_an_engine_says_no_message_then_it_is_stopped(tmp_path):
    engine = scripted(tmp_path / "engine", {"garbage_at_start": True})
    with pytest.raises(InputError, match="not a message"):
        engine.start()
    engine.close()


def test_when_an_engine_takes_too_long_then_start_gives_up(tmp_path):
    program = (sys.executable, "-c", "import sys; sys.stdin.read()")
    engine = EngineProcess("compact", "cpu", command=program, start_seconds=0.3)
    with pytest.raises(InputError, match="not ready after"):
        engine.start()


def test_when_an_engine_is_killed_then_that_is_its_last_event_and_it_can_be_started_again(engine, tmp_path):
    engine.start()
    engine.events()
    os.kill(engine.pid(), signal.SIGKILL)
    assert collect(engine, EngineStopped) == [EngineStopped("The engine stopped (killed by SIGKILL).")]
    assert engine.info().state == "stopped"
    engine.restart()
    engine.restart()  # nothing more while it starts
    assert collect(engine, EngineReady) == [EngineReady("cpu", "scripted", "f" * 64)]
    engine.submit(plan(tmp_path))
    collect(engine, EngineDone)


def test_when_an_engine_dies_in_the_middle_then_what_it_said_before_comes_first(engine, tmp_path):
    write_script(tmp_path / "engine", {"die_at": 1003})
    engine.start()
    engine.submit(plan(tmp_path))
    events = collect(engine, EngineStopped)
    assert [event.frame for event in events if isinstance(event, EngineMatte)] == [1001, 1002]
    assert isinstance(events[-2], EngineProgress)
    assert isinstance(events[-1], EngineStopped)


def test_when_an_engine_is_closed_then_its_process_ends_and_says_nothing_more(engine):
    engine.start()
    pid = engine.pid()
    engine.events()
    engine.close()
    engine.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert engine.events() == ()


def test_when_an_engine_ignores_the_end_of_its_stdin_then_close_kills_it(tmp_path, monkeypatch):
    monkeypatch.setattr("xmem_server.engines._CLOSE_SECONDS", 0.3)
    engine = EngineProcess("compact", "cpu", command=(sys.executable, "-c", "import time; time.sleep(60)"))
    engine.restart()
    pid = engine.pid()
    engine.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_when_a_plan_is_too_large_then_submit_refuses_it(engine, tmp_path, monkeypatch):
    monkeypatch.setattr("xmem_server.pipes.MAX_PIPE_BYTES", 100)
    with pytest.raises(LocalProtocolError):
        engine.submit(plan(tmp_path))


def test_when_a_child_is_made_then_this_checkout_is_on_its_path(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/somewhere/else")
    folders = child_environment()["PYTHONPATH"].split(os.pathsep)
    assert folders[-1] == "/somewhere/else"
    assert any(folder.endswith("server") for folder in folders)
    assert any(folder.endswith("nuke_plugin") for folder in folders)


def test_when_an_engine_is_killed_while_it_starts_then_it_is_started_again_by_itself(tmp_path):
    folder = tmp_path / "engine"
    engine = scripted(folder, {"die_while_starting": 2})
    try:
        assert engine.start().model == "scripted"
        assert (folder / "starts").read_text() == "xxx"
    finally:
        engine.close()
    (folder / "starts").unlink()
    never = scripted(folder, {"die_while_starting": 9})
    with pytest.raises(InputError, match="not ready yet"):
        never.start()
    assert (folder / "starts").read_text() == "xxx"
