"""Memory that does not suffice, at every kind of step and any moment: the same mattes all the same, or a clear end."""

import gc

import numpy as np
import OpenEXR
import pytest
import torch

from tests.server.moving_scene import COUNT, FIRST, plan_of, save_scene
from xmem_core.bank import Bank
from xmem_core.engine import Engine, FrameFeatures
from xmem_core.memory import Footprint, Memory
from xmem_core.weights import load_model
from xmem_protocol import ServerError
from xmem_server.decoding import Decoder
from xmem_server.plans import EngineMatte
from xmem_server.worker.memory_ladder import MemoryLadder
from xmem_server.worker.propagation import run_propagation


class Listener:
    """A channel that keeps what is said."""

    def __init__(self):
        self.said = []

    def cancelled(self, job):
        return False

    paused = cancelled

    def send(self, event):
        self.said.append(event)


@pytest.fixture(scope="module")
def tools():
    """Give the model and the decode process."""
    with Decoder() as decoder:
        yield load_model("compact"), decoder


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    return save_scene(tmp_path_factory.mktemp("scene"))


def run(plan, model, decoder):
    channel = Listener()
    run_propagation(plan, model, decoder, channel)
    mattes = [event for event in channel.said if isinstance(event, EngineMatte)]
    assert [event.frame for event in mattes] == list(range(FIRST, FIRST + COUNT))  # each once
    return channel.said[-1].summary, {(e.frame, f.object_id): alpha_of(f.path) for e in mattes for f in e.files}


def alpha_of(path):
    with OpenEXR.File(str(path), separate_channels=True) as stored:
        return stored.channels()["A"].pixels.astype(np.float32)


@pytest.fixture(scope="module")
def undisturbed(tools, scene, tmp_path_factory):
    return run(plan_of(tmp_path_factory.mktemp("undisturbed"), *scene), *tools)[1]


def fail_at(monkeypatch, owner, name, calls):
    """Have a method be short of memory at these calls, counted from 1."""
    original, seen = getattr(owner, name), [0]

    def failing(*arguments, **options):
        seen[0] += 1
        if seen[0] in calls:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return original(*arguments, **options)

    monkeypatch.setattr(owner, name, failing)


@pytest.mark.parametrize(
    "shortage",
    [
        (Engine, "see", {1}),
        (Engine, "encode_seen", {1}),
        (Engine, "encode_seen", {2}),
        (Engine, "encode_value", {1}),
        (Memory, "read", {1}),
        (Memory, "read", {6, 8}),
        (Memory, "_begin_search", {3}),
        (Bank, "value", {5}),
        (Engine, "annotate", {1, 2, 3}),
    ],
)
def test_when_memory_is_short_once_then_the_job_ends_with_the_same_mattes_and_says_how(
    monkeypatch, tools, scene, tmp_path, undisturbed, shortage
):
    fail_at(monkeypatch, *shortage)
    summary, found = run(plan_of(tmp_path, *scene), *tools)
    assert "memory was short: objects one at a time" in summary
    for key, alpha in found.items():
        assert np.abs(alpha - undisturbed[key]).max() < 0.02, key  # rounding of half floats and of another grouping


def test_when_memory_never_suffices_then_the_job_fails_naming_the_knob_and_the_next_one_runs(
    monkeypatch, tools, scene, tmp_path, undisturbed
):
    with monkeypatch.context() as short:
        fail_at(short, Memory, "read", set(range(1000)))
        with pytest.raises(ServerError, match="Lower the working size") as caught:
            run(plan_of(tmp_path / "short", *scene), *tools)
        assert caught.value.code == "out_of_memory"
        assert "frames encoded one at a time" in str(caught.value)
    summary, found = run(plan_of(tmp_path / "after", *scene), *tools)
    assert "memory was short" not in summary
    assert all(np.array_equal(alpha, undisturbed[key]) for key, alpha in found.items())


def test_when_something_else_goes_wrong_then_the_ladder_is_not_climbed(monkeypatch, tools, scene, tmp_path):
    def broken(*_):
        raise RuntimeError("The size of tensor a must match the size of tensor b")

    monkeypatch.setattr(Memory, "read", broken)
    with pytest.raises(RuntimeError, match="must match"):
        run(plan_of(tmp_path, *scene), *tools)


def test_when_the_device_is_the_host_then_no_step_moves_rows_to_it():
    steps = []
    ladder = MemoryLadder(torch.device("cpu"))
    for _ in range(3):
        ladder.climb()
        steps.append(ladder.footprint)
    with pytest.raises(ServerError):
        ladder.climb()
    assert all(step.rows_device is None for step in steps)
    assert steps[0] == Footprint(objects=1)
    on_card = MemoryLadder(torch.device("cuda:0"))
    for _ in range(3):
        on_card.climb()
    assert on_card.footprint.rows_device == torch.device("cpu")


def test_when_a_job_has_ended_then_nothing_of_its_session_is_held(tools, scene, tmp_path):
    run(plan_of(tmp_path, *scene), *tools)
    gc.collect()
    held = [thing for thing in gc.get_objects() if type(thing) in (Engine, Memory, FrameFeatures)]
    assert held == []
