"""Working and long-term memory: when frames are consolidated and what is evicted, by hand numbers."""

import pytest
import torch

from xmem_core.bank import Bank
from xmem_core.errors import CoreError
from xmem_core.memory import Memory, MemoryPolicy, make_prototypes
from xmem_core.rows import Rows

POLICY = MemoryPolicy(mem_every=1, top_k=2, max_working_frames=3, min_working_frames=1, prototypes=2, max_long_term=5)


def rows(seed, count=2, objects=(1,)):
    torch.manual_seed(seed)
    key = torch.randn(count, 4)
    return Rows(key, torch.ones(count, 1), torch.full((count, 4), 0.5), {o: torch.randn(count, 3) for o in objects}, {})


def write(memory, frames, **kinds):
    for frame in frames:
        memory.write(frame, rows(frame, **kinds))


def test_when_working_memory_is_full_then_all_but_the_newest_become_prototypes():
    memory = Memory(POLICY, Bank())
    write(memory, (10, 20))
    assert memory.long_term.size == 0
    write(memory, (30,))
    assert memory.working.frames == (30,)
    assert memory.long_term.size == 2


def test_when_there_is_no_permanent_memory_then_the_first_frame_stays_in_working_memory():
    memory = Memory(MemoryPolicy(permanent="none", max_working_frames=3, min_working_frames=2, prototypes=2), Bank())
    write(memory, (10, 20, 30))
    assert memory.working.frames == (10, 30)


def test_when_long_term_is_off_then_working_memory_keeps_the_newest_hundred_frames():
    memory = Memory(MemoryPolicy(long_term=False, max_working_frames=3, min_working_frames=1), Bank())
    write(memory, range(130))
    assert memory.working.frames == tuple(range(30, 130))
    assert memory.long_term.size == 0


def test_when_prototypes_are_made_then_they_are_the_most_used_rows_in_order_of_use():
    candidates = Bank()
    candidates.append(1, rows(1, count=4))
    made = make_prototypes(candidates, torch.tensor([0.1, 0.9, 0.2, 0.5]), 2)
    assert torch.equal(made.key, candidates.blocks[0].key[[1, 3]])


def test_when_an_object_is_missing_in_some_candidates_then_its_prototypes_average_the_others_alone():
    candidates = Bank()
    candidates.append(1, rows(1, objects=(1,)))
    candidates.append(2, rows(2, objects=(1, 5)))
    made = make_prototypes(candidates, torch.tensor([0.0, 3.0, 2.0, 0.0]), 2)
    assert made.given[1].tolist() == [True, True]
    assert made.given[5].tolist() == [False, True]  # chosen rows are 1 (first frame) and 2 (second frame)
    assert made.values[5][0].abs().max() == 0
    theirs = candidates.blocks[1].values[5]
    assert (theirs.amin(0) - 1e-5 <= made.values[5][1]).all()
    assert (made.values[5][1] <= theirs.amax(0) + 1e-5).all()


@pytest.mark.parametrize(
    ("use", "kept"),
    [
        ([5.0, 1.0, 2.0, 4.0, 3.0], [5.0, 4.0, 3.0]),  # two over 3: the two least used go
        ([5.0, 2.0, 2.0, 2.0, 3.0], [5.0, 3.0]),  # a tie with the last to go: all of the tie go
    ],
)
def test_when_long_term_memory_is_full_then_the_least_used_rows_go(use, kept):
    memory = Memory(POLICY, Bank())
    memory.long_term.append(0, rows(0, count=5))
    memory.long_term.restore_counters(torch.tensor(use), torch.ones(5))
    write(memory, (10, 20, 30))  # the third makes it consolidate, and evict down to 5 - 2 first
    assert memory.long_term.counters()[0][: len(kept)].tolist() == kept
    assert memory.long_term.size == len(kept) + 2


def test_when_long_term_memory_is_exactly_at_its_limit_then_nothing_is_evicted():
    memory = Memory(POLICY, Bank())
    memory.long_term.append(0, rows(0, count=3))
    write(memory, (10, 20, 30))
    assert memory.long_term.size == 5


def test_when_objects_appear_late_and_long_term_memory_is_full_then_eviction_still_works():
    memory = Memory(POLICY, Bank())
    for frame in range(40):
        memory.write(frame, rows(frame, objects=(1,) if frame < 20 else (1, 2)))
        memory.read(frame, torch.randn(4, 1, 2), torch.rand(4, 1, 2), memory.object_ids)
    assert memory.long_term.size <= POLICY.max_long_term
    assert memory.object_ids == (1, 2)


def test_when_a_hundred_frames_are_written_then_memory_stays_within_its_bound():
    memory = Memory(POLICY, Bank())
    write(memory, range(100))
    assert memory.working.size < POLICY.max_working_frames * 2
    assert memory.long_term.size <= POLICY.max_long_term


def test_when_an_object_has_no_rows_then_reading_it_names_the_object():
    memory = Memory(POLICY, Bank())
    write(memory, (1,))
    with pytest.raises(CoreError, match="Object 9 has no rows"):
        memory.read(2, torch.zeros(4, 1, 2), torch.zeros(4, 1, 2), (1, 9))


@pytest.mark.parametrize(
    "settings",
    [{"permanent": "some"}, {"min_working_frames": 10}, {"mem_every": 0}, {"prototypes": 0}, {"max_long_term": 3}],
)
def test_when_a_policy_makes_no_sense_then_it_is_refused(settings):
    with pytest.raises(CoreError):
        MemoryPolicy(**settings)
