import io
import os
import random
import struct

import msgpack
import pytest

from xmem_protocol import (
    ABSENT,
    Cancel,
    Key,
    LocalProtocolError,
    PropagationSettings,
    RemoteProtocolError,
    Shot,
    Suggestion,
    SuggestionSettings,
)
from xmem_server import pipes, plans
from xmem_server.pipes import (
    ENGINE_EVENTS,
    ENGINE_REQUESTS,
    kinds_of,
    pack_message,
    read_answer,
    read_message,
    unpack_message,
    write_answer,
    write_message,
)

SHOT = Shot("s", 64, 48, 1.0, -2, 5, "auto")
PLATES = (plans.PlateSource(-2, "/state/ab", "ab", 0, ".exr"),)
KEYS = (plans.KeySource(Key(-2, 1, ABSENT, "", "", ""), ""),)
SETTINGS = PropagationSettings(-2, 5)
PLAN = plans.PropagationPlan("j", "s", SHOT, PLATES, KEYS, SETTINGS, (-2, -1), "", "/cache", "/scratch")
MESSAGES = (
    PLAN,
    plans.SuggestionPlan(
        "j",
        "s",
        SHOT,
        PLATES,
        KEYS,
        (plans.MatteSource(-2, 1, "/m", ".exr"),),
        SuggestionSettings(2),
        SETTINGS,
        "/cache",
    ),
    Cancel("j"),
    plans.EngineReady("cpu", "compact", "ab"),
    plans.EngineRefused("No such device."),
    plans.EngineProgress("j", "encoding", 1, 8, -2, 2.5, 3.0),
    plans.EngineMatte("j", -2, True, (plans.WrittenMatte(1, "/scratch/1", "ab", 10, ".exr"),)),
    plans.EngineSnapshot("j", 3, "/scratch/snapshot"),
    plans.EngineFrameFailed("j", 4, "Frame 4 is missing."),
    plans.EngineSuggestions("j", (Suggestion(4, "different", 0, 0.5, "far from every key"),), ""),
    plans.EngineDone("j", "854x480"),
    plans.EngineFailed("j", "out_of_memory", "Turn working_size down."),
    plans.EngineCancelled("j"),
    plans.EnginePaused("j"),
    plans.Pause("j"),
)
KINDS = {**ENGINE_REQUESTS, **ENGINE_EVENTS}


class _Dripping(io.RawIOBase):
    """A raw stream that gives and takes at most three bytes at a time, as a pipe may."""

    def __init__(self, content=b""):
        self.content = bytearray(content)

    def readable(self):
        return True

    def read(self, size=-1):
        taken = bytes(self.content[: min(3, size)])
        del self.content[: len(taken)]
        return taken

    def writable(self):
        return True

    def write(self, data):
        self.content += bytes(data[:3])
        return min(3, len(data))


def test_when_the_samples_are_counted_then_every_kind_has_one():
    assert {type(message).__name__ for message in MESSAGES} == set(KINDS)


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_when_a_message_goes_through_a_pipe_then_it_is_the_same(message):
    stream = io.BytesIO()
    write_message(stream, message)
    stream.seek(0)
    assert read_message(stream, KINDS) == message
    assert read_message(stream, KINDS) is None


def test_when_a_message_is_written_then_its_bytes_are_a_length_and_a_map():
    stream = io.BytesIO()
    write_message(stream, Cancel("j"))
    packed = msgpack.packb({"type": "Cancel", "body": {"job": "j"}})
    assert stream.getvalue() == struct.pack(">I", len(packed)) + packed


def test_when_a_stream_gives_and_takes_little_then_messages_are_whole():
    stream = _Dripping()
    write_message(stream, PLAN)
    write_answer(stream, Cancel("k"), b"0123456789")
    assert read_message(stream, KINDS) == PLAN
    assert read_answer(stream, KINDS) == (Cancel("k"), b"0123456789")
    assert read_answer(stream, KINDS) is None


def test_when_a_real_pipe_carries_a_large_attachment_then_it_arrives():
    pixels = random.Random(1).randbytes(50_000)
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb", buffering=0) as source, os.fdopen(writing, "wb") as target:
        write_answer(target, Cancel("j"), memoryview(pixels))
        assert read_answer(source, KINDS) == (Cancel("j"), pixels)


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_when_a_stream_ends_inside_a_message_then_it_is_refused(message):
    stream = io.BytesIO()
    write_answer(stream, message, b"pixels")
    whole = stream.getvalue()
    for length in range(1, len(whole)):
        with pytest.raises(RemoteProtocolError, match="ended"):
            read_answer(io.BytesIO(whole[:length]), KINDS)


def test_when_bytes_are_random_or_mutated_then_only_remote_protocol_error_is_raised():
    packed = [pack_message(message) for message in MESSAGES]
    for seed in range(2000):
        source = random.Random(seed)
        mutated = bytearray(source.choice(packed))
        for _ in range(source.randint(1, 4)):
            mutated[source.randrange(len(mutated))] = source.randrange(256)
        content = source.randbytes(source.randrange(100)) if seed % 4 == 0 else bytes(mutated)
        try:
            message = unpack_message(content, KINDS)
        except RemoteProtocolError:
            continue
        assert type(message).__name__ in KINDS


def test_when_a_kind_is_not_expected_then_it_is_refused():
    with pytest.raises(RemoteProtocolError, match="EngineReady"):
        unpack_message(pack_message(plans.EngineReady("cpu", "compact", "ab")), ENGINE_REQUESTS)


def test_when_a_length_is_over_the_limit_then_nothing_is_read():
    with pytest.raises(RemoteProtocolError, match="announced"):
        read_message(io.BytesIO(b"\xff\xff\xff\xff"), KINDS)
    stream = io.BytesIO()
    write_answer(stream, Cancel("j"), b"0123456789")
    stream.seek(0)
    with pytest.raises(RemoteProtocolError, match="attachment of 10 bytes"):
        read_answer(stream, KINDS, max_attachment=9)


@pytest.mark.parametrize("value", [7, {"job": "j"}, Cancel, Cancel(object()), Cancel(2**70)])
def test_when_a_value_is_no_message_then_packing_says_so(value):
    with pytest.raises(LocalProtocolError):
        pack_message(value)


def test_when_a_plan_is_too_large_then_packing_says_so(monkeypatch):
    monkeypatch.setattr(pipes, "MAX_PIPE_BYTES", 100)
    with pytest.raises(LocalProtocolError, match="100"):
        pack_message(PLAN)


def test_when_a_plan_names_fifty_thousand_plates_then_it_travels():
    plates = tuple(plans.PlateSource(frame, f"/state/{frame}", "ab", 0, ".exr") for frame in range(50_000))
    plan = plans.PropagationPlan("j", "s", SHOT, plates, KEYS, SETTINGS, tuple(range(50_000)), "", "/c", "/s")
    assert unpack_message(pack_message(plan), kinds_of(plans.PropagationPlan)) == plan
