"""The short form of ``benchmarks.fuzz``: spoiled messages, and the proof that the fuzzer would see a crash."""

import pytest

from benchmarks import fuzz
from benchmarks.mutations import Mutator
from tests.protocol.samples import SAMPLES


@pytest.mark.parametrize("seed", range(3))
def test_when_messages_are_spoiled_then_the_decoder_refuses_or_reads_each(seed):
    found = fuzz.fuzz_decoder(3000, seed)
    assert found.violations == []
    assert found.accepted > 30
    assert sum(found.reasons.values()) > 2000


def test_when_spoiled_messages_reach_a_server_then_it_goes_on_serving(tmp_path):
    found = fuzz.fuzz_server(600, 1, tmp_path)
    assert found.violations == []
    assert (found.tried, found.accepted > 100) == (600, True)


def test_when_the_decoder_crashes_then_the_fuzzer_says_which_message(monkeypatch):
    def broken(frames):
        raise KeyError(len(frames))

    monkeypatch.setattr(fuzz, "unpack", broken)
    found = fuzz.fuzz_decoder(5, 1)
    assert len(found.violations) == 5
    assert "message 0 of seed 1 raised KeyError" in found.violations[0]


def test_when_a_seed_is_used_again_then_the_messages_are_the_same():
    one, two = Mutator(SAMPLES, 9), Mutator(SAMPLES, 9)
    assert [one.fetch() for _ in range(200)] == [two.fetch() for _ in range(200)]


@pytest.mark.slow
def test_when_two_hundred_thousand_messages_are_spoiled_then_none_gets_through_unseen(tmp_path):
    assert fuzz.fuzz_decoder(200_000, 1).violations == []
    assert fuzz.fuzz_server(5000, 1, tmp_path).violations == []
