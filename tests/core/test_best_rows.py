"""The best rows of remembered frames: the same whatever was known before, and no more looked through than need be."""

import numpy as np
import pytest
import torch

from xmem_core import kernels
from xmem_core.affinity import memory_features, query_features, similarity, top_k_affinity
from xmem_core.bank import Bank
from xmem_core.best_rows import MOST_READ, BestRows, FrameRows, NoStore, RowSearch
from xmem_core.memory import Memory, MemoryPolicy
from xmem_core.rows import Rows

SEEDS = range(50)
ROWS, QUERIES, CHANNELS, TOP_K = 40, 9, 4, 5  # of four channels similarities of whole numbers are exact


class Kept(dict):
    """A store in memory that notes how often something was kept."""

    def __init__(self):
        super().__init__()
        self.times = 0

    def fetch(self, frame, group):
        return self.get((frame, *group), self.get((frame,)))

    def keep(self, frame, group, found):
        self[(frame, *group)] = found
        self.times += 1


def picture(seed, count=ROWS):
    torch.manual_seed(seed)
    key = torch.randn(count, CHANNELS).round(decimals=0)  # many rows are equal
    return memory_features(key, torch.ones(count, 1))


def queries(seed):
    torch.manual_seed(1000 + seed)
    return query_features(torch.randn(QUERIES, CHANNELS).round(decimals=0), torch.ones(QUERIES, CHANNELS))


def remember(frames, loose=0):
    """Rows of frames, each frame's own ones, after some loose rows."""
    found, start = {}, loose
    for frame in frames:
        found[frame] = FrameRows(picture(frame), start)
        start += ROWS
    return found


def read(frames, store, seed=0, loose=0, group=(), exists=None):
    rows = picture(7777, loose) if loose else torch.empty(0, 2 * CHANNELS + 1)
    search = RowSearch(50, queries(seed), remember(frames, loose), rows, TOP_K, store, group)
    return search.find_affinity(exists)


def assert_same(one, other):
    assert torch.equal(one.indices, other.indices)
    assert torch.equal(one.weights, other.weights)


@torch.inference_mode()
def test_when_rows_are_searched_by_frame_then_they_are_those_of_a_full_sort_equal_ones_by_frame_and_row():
    for seed in SEEDS:
        frames = [10, 20, -30, 40]
        found = read(frames, NoStore(), seed)
        scores = torch.cat([similarity(queries(seed), picture(frame)) for frame in sorted(frames)], 1)
        values, places = scores.sort(dim=1, descending=True, stable=True)  # in the order of frames
        order = torch.tensor([frames.index(frame) for frame in sorted(frames)])
        expected = order[places // ROWS] * ROWS + places % ROWS
        assert torch.equal(found.indices, expected[:, :TOP_K])
        assert torch.allclose(found.weights, values[:, :TOP_K].softmax(1))


@torch.inference_mode()
@pytest.mark.parametrize("loose", [0, 13])
def test_when_frames_come_and_go_then_what_is_found_equals_a_search_from_nothing_to_the_last_bit(loose):
    generator = np.random.default_rng(5)
    for seed in SEEDS:
        store = Kept()
        for _ in range(6):
            frames = [int(frame) for frame in generator.choice(12, generator.integers(1, 9), replace=False)]
            assert_same(read(frames, store, seed, loose), read(frames, NoStore(), seed, loose))
            own = frames[: int(generator.integers(1, len(frames) + 1))]  # of an object that the others do not show
            exists = torch.from_numpy(generator.random(loose) > 0.5)
            found = read(own, store, seed, loose, (2,), exists)
            assert_same(found, read(own, NoStore(), seed, loose, exists=exists))


@torch.inference_mode()
def test_when_some_frames_and_loose_rows_are_read_then_it_is_the_affinity_of_a_table_of_those():
    for seed in SEEDS:
        torch.manual_seed(seed)
        query, loose = torch.randn(QUERIES, 13), torch.randn(17, 13)
        parts = {frame: torch.randn(ROWS, 13) for frame in (4, -1, 9)}
        frames = {frame: FrameRows(part, 17 + ROWS * place) for place, (frame, part) in enumerate(parts.items())}
        del frames[-1]
        exists = torch.rand(17) > 0.5
        found = RowSearch(2, query, frames, loose, TOP_K, NoStore()).find_affinity(exists)
        given = [exists, *(torch.full((ROWS,), frame != -1) for frame in parts)]
        table = top_k_affinity(query, [loose, *parts.values()], TOP_K, given)
        assert torch.equal(found.indices, table.indices)
        assert torch.allclose(found.weights, table.weights, atol=1e-6)


@torch.inference_mode()
def test_when_a_frame_is_added_then_only_that_is_looked_through(monkeypatch):
    store, looked = Kept(), []
    keep_similar = kernels.keep_similar
    monkeypatch.setattr(
        kernels, "keep_similar", lambda *given: looked.append(given[0][2] >> 32) or keep_similar(*given)
    )
    read([1, 2, 3], store)
    assert sorted(looked) == [1, 2, 3]
    looked.clear()
    read([1, 2, 3], store)
    assert looked == []
    assert store.times == 1
    looked.clear()
    read([1, 2, 3, 4], store)
    assert looked == [4]
    assert store[50,].frames == {1, 2, 3, 4}


def crowd(store, near):
    """Make all that is known rows of one frame, as if none of the best were of others."""
    own = store[50,]
    store[50,] = BestRows(own.frames, own.similarities, torch.full_like(own.places, near << 32))


@torch.inference_mode()
def test_when_the_best_rows_were_of_frames_that_are_gone_then_all_are_looked_through_again_and_that_is_kept():
    store, far = Kept(), [4, 5]
    read([1, 2, 3, *far], store)
    crowd(store, 1)
    assert_same(read(far, store), read(far, NoStore()))
    assert store[50,].frames == set(far)
    times = store.times
    assert_same(read(far, store), read(far, NoStore()))
    assert store.times == times


@torch.inference_mode()
def test_when_an_object_has_rows_at_some_frames_alone_then_what_it_finds_is_kept_apart_and_begins_with_what_all_found(
    monkeypatch,
):
    store, looked = Kept(), []
    keep_similar = kernels.keep_similar
    read([1, 2, 3, 4], store)
    monkeypatch.setattr(
        kernels, "keep_similar", lambda *given: looked.append(given[0][2] >> 32) or keep_similar(*given)
    )
    together = store[50,]
    found = read([1, 2, 3, 4], store, group=(2,))
    assert looked == []  # all was known
    assert_same(found, read([1, 2, 3, 4], NoStore()))
    crowd(store, 1)
    crowded = store[50,]
    assert_same(read([3], store, group=(2,)), read([3], NoStore()))
    assert store[50, 2].frames == {3}
    assert store[50,] is crowded
    looked.clear()
    read([3, 4], store, group=(2,))
    assert looked == [4]
    assert together.frames == {1, 2, 3, 4}


@torch.inference_mode()
@pytest.mark.parametrize("damage", ["fewer queries", "fewer rows", "another type", "a row that is not there"])
def test_when_what_was_kept_cannot_be_of_this_search_then_it_is_looked_for_again(damage):
    store = Kept()
    read([1, 2], store)
    own = store[50,]
    similarities, places = own.similarities.clone(), own.places.clone()
    if damage == "fewer queries":
        similarities, places = similarities[1:], places[1:]
    elif damage == "fewer rows":
        similarities, places = similarities[:, 1:], places[:, 1:]
    elif damage == "another type":
        places = places.int()
    else:
        places[0, 0] += ROWS
    store[50,] = BestRows(own.frames, similarities, places)
    assert_same(read([1, 2], store), read([1, 2], NoStore()))


@torch.inference_mode()
@pytest.mark.parametrize(("queries_asked", "rows"), [(1, 1), (63, 5), (64, 6), (65, 7), (200, 61)])
def test_when_queries_and_rows_do_not_fill_what_is_done_at_once_then_all_are_looked_through(queries_asked, rows):
    for seed in range(10):
        torch.manual_seed(seed)
        query, memory = torch.randn(queries_asked, 141), torch.randn(rows, 141)
        found = RowSearch(1, query, {7: FrameRows(memory, 0)}, memory[:0], TOP_K, NoStore()).find_affinity()
        table = top_k_affinity(query, [memory], TOP_K)
        assert torch.equal(found.indices, table.indices)
        assert torch.allclose(found.weights, table.weights, atol=1e-4)


@torch.inference_mode()
def test_when_a_query_is_asked_alone_then_it_finds_the_same_to_the_last_bit():
    query, frames = torch.randn(100, 2 * CHANNELS + 1), remember([1, 2, 3])
    together, alone = NoStore(), NoStore()
    whole = RowSearch(9, query, frames, query[:0], TOP_K, together).find_affinity()
    for i in (0, 5, 70, 99):
        one = RowSearch(9, query[i : i + 1], frames, query[:0], TOP_K, alone).find_affinity()
        assert torch.equal(one.indices[0], whole.indices[i])
        assert torch.equal(one.weights[0], whole.weights[i])


@torch.inference_mode()
def test_when_there_are_fewer_rows_than_are_read_then_all_are_read():
    rows = {1: FrameRows(picture(1, 3), 1)}
    found = RowSearch(9, queries(0), rows, picture(2, 1), TOP_K, NoStore()).find_affinity()
    assert sorted(found.indices[0].tolist()) == [0, 1, 2, 3]
    assert torch.allclose(found.weights.sum(1), torch.ones(QUERIES))


def test_when_the_best_are_kept_then_equal_ones_come_in_order_of_place_and_what_does_not_exist_is_not_found():
    best, places = np.full((1, 16), -np.inf, np.float32), np.zeros((1, 16), np.int64)
    best[0, :13] = 9  # better than all that come
    queries = np.zeros((1, 1, kernels.QUERIES_AT_ONCE), np.float32)
    queries[0, 0, 0] = 2
    rows = np.full((96, 1), -9, np.float32)
    rows[[3, 40, 41, 95], 0] = [0.5, 1, 1, 0.25]

    def keep(first, exists):
        kernels.keep_similar((rows, exists, first), queries, best, places, kernels.THREADS)

    nothing = np.zeros(96, np.bool_)
    keep(0, nothing)
    assert best[0, 13:].max() == -np.inf
    keep(1000, nothing[:0])
    assert best[0, 13:].tolist() == [2, 2, 1]
    assert places[0, 13:].tolist() == [1040, 1041, 1003]
    keep(500, nothing[:0])  # the same again, at places before
    assert best[0, 13:].tolist() == [2, 2, 2]
    assert places[0, 13:].tolist() == [540, 541, 1040]
    keep(0, np.arange(96) == 41)
    assert places[0, 13:].tolist() == [41, 540, 541]


def rows_of(seed, objects):
    torch.manual_seed(seed)
    values = {each: torch.randn(ROWS, 3) for each in objects}
    return Rows(torch.randn(ROWS, CHANNELS), 1 + torch.rand(ROWS, 1), torch.rand(ROWS, CHANNELS), values, {})


@torch.inference_mode()
def test_when_memory_is_read_with_a_store_then_readouts_and_usage_equal_those_without_for_objects_of_other_frames_too():
    policy = MemoryPolicy(mem_every=1, top_k=TOP_K, max_working_frames=4, min_working_frames=2, prototypes=3)
    for seed in range(10):
        store = Kept()
        for keyed in ((0,), (0, 8), (8,)):
            readouts = []
            for used in (store, NoStore()):
                permanent = Bank()
                for frame in keyed:
                    permanent.append(frame, rows_of(100 * seed + frame, (1, 2)))
                memory = Memory(policy, permanent, best_rows=used)
                found = []
                for frame in range(1, 8):
                    torch.manual_seed(frame)
                    key, selection = torch.randn(CHANNELS, 2, 3), torch.rand(CHANNELS, 2, 3)
                    found.append(memory.read(frame, key, selection, (1, 2)))
                    memory.write(frame, rows_of(100 * seed + frame, (1,) if frame < 4 else (1, 2)))
                readouts.append((torch.stack(found), memory.long_term.usage()))
            assert torch.equal(readouts[0][0], readouts[1][0])
            assert torch.equal(readouts[0][1], readouts[1][1])


@torch.inference_mode()
def test_when_queries_read_very_many_rows_then_a_table_is_sorted_and_nothing_is_kept():
    store = Kept()
    memory = Memory(MemoryPolicy(top_k=MOST_READ + 1), Bank(), best_rows=store)
    memory.write(1, rows_of(1, (1,)))
    assert memory.read(2, torch.randn(CHANNELS, 2, 3), torch.rand(CHANNELS, 2, 3), (1,)).shape == (1, 3, 2, 3)
    assert store.times == 0
