"""The tiers of encoded frames, and the folder behind them."""

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch

from tests.server.moving_scene import COUNT, FIRST, HEIGHT, WIDTH, save_scene
from xmem_core.best_rows import BestRows
from xmem_core.engine import Engine, FrameFeatures
from xmem_core.features import ImageFeatures
from xmem_core.images import PaddedCanvas, padding_for
from xmem_core.keyframes import summarise_mask
from xmem_core.memory import MemoryPolicy
from xmem_core.weights import load_model
from xmem_server.decoding import Decoder
from xmem_server.plans import PlateSource
from xmem_server.worker.background import NICENESS, BackgroundOwner
from xmem_server.worker.cache_folder import CacheFolder
from xmem_server.worker.features import Encoding, FeatureBudget, FeatureCache, Tier
from xmem_server.worker.matte_summary import MatteSummary, SummaryCache, summarise
from xmem_server.worker.matte_writer import as_stored
from xmem_server.worker.memory_ladder import release_memory
from xmem_server.worker.row_cache import RowCache

CPU = torch.device("cpu")


def features(nbytes):
    """Give features of this many bytes."""
    nothing = torch.zeros(0)
    image = torch.zeros(nbytes, dtype=torch.uint8)
    return FrameFeatures(ImageFeatures(nothing, nothing, nothing, {}), image, PaddedCanvas((1, 1), padding_for(1, 1)))


# ---------------------------------------------------------------------------------------------------------------- tiers


def test_when_a_tier_is_full_then_the_frame_not_used_for_longest_goes():
    tier = Tier(300, least=1)
    for frame in (1, 2, 3):
        assert tier.keep(frame, features(100)) == []
    tier.fetch(1)
    assert [frame for frame, _ in tier.keep(4, features(100))] == [2]
    assert [frame in tier for frame in (1, 2, 3, 4)] == [True, False, True, True]
    assert tier.fetch(2) is None


def test_when_frames_are_larger_than_a_tier_then_the_least_number_stays():
    tier = Tier(10, least=2)
    gone = [frame for number in range(4) for frame, _ in tier.keep(number, features(100))]
    assert gone == [0, 1]


def test_when_a_frame_is_kept_twice_then_it_counts_once():
    tier = Tier(250, least=0)
    for _ in range(3):
        tier.keep(1, features(100))
    assert tier.keep(2, features(100)) == []


# --------------------------------------------------------------------------------------------------------------- folder


def test_when_tensors_are_kept_then_they_come_back_by_anything_that_names_them(tmp_path):
    folder = CacheFolder(tmp_path, 2**20)
    name = ["value", 3, ["süß", 1.5]]
    folder.save(name, {"a": torch.arange(6.0).reshape(2, 3).T, "b": torch.tensor([True])})
    found = folder.load(name, CPU)
    assert found["a"].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert folder.load_part(name, ("b",), CPU)[0].tolist() == [True]
    assert folder.has(name)
    assert folder.load(["value", 4], CPU) is None


def test_when_the_folder_is_over_its_budget_then_the_oldest_go_and_what_was_read_stays(tmp_path):
    folder = CacheFolder(tmp_path, 10_000)
    for number in range(8):
        folder.save(number, {"a": torch.zeros(250)})  # 1000 bytes and a header
        os.utime(folder._path(number), (number, number))
    folder.load(0, CPU)
    for number in range(8, 11):
        folder.save(number, {"a": torch.zeros(250)})
    left = {number for number in range(11) if folder.has(number)}
    assert {0, 8, 9, 10} <= left
    assert not {1, 2} & left
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 10_000


def test_when_a_file_is_broken_then_nothing_is_there_and_it_can_be_kept_again(tmp_path):
    folder = CacheFolder(tmp_path, 2**20)
    folder.save("x", {"a": torch.zeros(10)})
    folder._path("x").write_bytes(b"no tensors")
    assert folder.load("x", CPU) is None
    assert folder.load_part("x", ("a",), CPU) is None
    folder.save("x", {"a": torch.ones(10)})
    assert folder.load("x", CPU)["a"].sum() == 10


def test_when_another_process_began_the_folder_then_its_files_count(tmp_path):
    CacheFolder(tmp_path, 2**20).save("old", {"a": torch.zeros(2000)})
    folder = CacheFolder(tmp_path, 9000)
    os.utime(folder._path("old"), (1, 1))
    folder.save("new", {"a": torch.zeros(1000)})
    assert (folder.has("old"), folder.has("new")) == (False, True)


# ------------------------------------------------------------------------------------------------------------ summaries


def test_when_mattes_are_summarised_then_one_object_and_all_together_are_told_apart(tmp_path):
    mattes = torch.zeros(2, 32, 32)
    mattes[0, :16] = 1
    mattes[1, 8:24] = 1
    summary = summarise(mattes, (2, 2))
    assert summary.pick([0]).area == summary.pick([1]).area == 0.5
    assert summary.pick([0, 1]).area == 0.75
    assert summary.pick([0]).at_keys.tolist() == [[[1, 1], [0, 0]]]
    cache = SummaryCache(CacheFolder(tmp_path, 2**20), (2, 2))
    names = [("a" * 64, 1), ("b" * 64, 2)]
    cache.save(names, summary)
    found = cache.load(names)
    assert isinstance(found, MatteSummary)
    assert found.areas.tolist() == [0.5, 0.5]
    assert cache.load(names[::-1]) is None
    assert SummaryCache(CacheFolder(tmp_path, 2**20), (3, 3)).load(names) is None


def test_when_mattes_are_summarised_then_it_is_what_the_rule_makes_of_each_and_of_all():
    for seed in range(20):
        mattes = torch.rand(3, 50, 70, generator=torch.Generator().manual_seed(seed)).pow(4).half().float()
        summary = summarise(mattes, (4, 5))
        for chosen in ([0], [2], [0, 1, 2]):
            expected, found = summarise_mask(mattes[chosen], (4, 5)), summary.pick(chosen)
            assert found.area == pytest.approx(expected.area)
            assert torch.equal(found.at_keys, expected.at_keys)


def test_when_a_file_is_not_named_by_its_content_then_its_summary_is_not_kept(tmp_path):
    cache = SummaryCache(CacheFolder(tmp_path, 2**20), (2, 2))
    cache.save([("1.exr", 1)], summarise(torch.zeros(1, 32, 32), (2, 2)))
    assert cache.load([("1.exr", 1)]) is None


@pytest.mark.parametrize("output", ["exr-half", "exr-float", "png16"])
def test_when_an_alpha_is_rounded_as_stored_then_it_is_what_its_file_gives_back(tmp_path, decoder, output):
    plate = save_scene(tmp_path)[0][FIRST]
    alpha = torch.rand(HEIGHT, WIDTH, generator=torch.Generator().manual_seed(1)).numpy()
    path = tmp_path / ("matte.png" if output == "png16" else "matte.exr")
    decoder.save_matte(str(path), alpha, decoder.fetch_header(str(plate), ".png"), output)
    read = decoder.fetch_alpha(str(path), path.suffix, "channel:auto")
    assert (read == as_stored(torch.from_numpy(alpha)[None], output)[0].numpy()).all()


# ----------------------------------------------------------------------------------------------------------------- cache


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    plates, _ = save_scene(tmp_path_factory.mktemp("scene"))
    return [PlateSource(frame, str(path), str(frame), 0, path.suffix) for frame, path in plates.items()]


@pytest.fixture(scope="module")
def network():
    return load_model("compact").network


@pytest.fixture
def make_cache(scene, network, decoder, tmp_path):
    def make(folder="cache", **budget):
        encoding = Encoding("auto", "", (HEIGHT, WIDTH), (HEIGHT, WIDTH), "compact")
        kept = CacheFolder(tmp_path / folder, 2**30)
        return FeatureCache(
            Engine(network, MemoryPolicy()), decoder, scene, encoding, kept, FeatureBudget(**budget)
        ), kept

    return make


def test_when_frames_were_looked_ahead_to_then_they_are_as_if_asked_for_and_encoded_once(make_cache):
    at_once, _ = make_cache("one")
    ahead, _ = make_cache("other")
    with at_once, ahead:
        for frame in range(FIRST, FIRST + COUNT):
            ahead.look_ahead(frame)
        for frame in range(FIRST, FIRST + COUNT):
            assert torch.equal(ahead.fetch(frame).features.key, at_once.fetch(frame).features.key)
            assert torch.equal(ahead.fetch(frame).image, at_once.fetch(frame).image)
        assert ahead.encoded_count == at_once.encoded_count == COUNT


def test_when_rows_were_found_then_they_come_back_for_the_same_pictures_alone(make_cache, network, decoder, scene):
    cache, folder = make_cache()
    found = BestRows(frozenset({FIRST, FIRST + 2}), torch.rand(4, 6), torch.arange(24).reshape(4, 6))
    with cache:
        rows = RowCache(cache, folder, 3)
        assert rows.fetch(FIRST + 1, ()) is None
        rows.keep(FIRST + 1, (), found)
        again = rows.fetch(FIRST + 1, ())
        assert again.frames == found.frames
        assert torch.equal(again.similarities, found.similarities)
        assert torch.equal(again.places, found.places)
        assert rows.fetch(FIRST + 1, (1, 2)).frames == found.frames  # what all found, until these have found more
        rows.keep(FIRST + 1, (1, 2), replace(found, frames=frozenset({FIRST})))
        assert rows.fetch(FIRST + 1, (1, 2)).frames == {FIRST}
        assert rows.fetch(FIRST + 1, ()).frames == found.frames
        assert RowCache(cache, folder, 4).fetch(FIRST + 1, ()) is None
    changed = [replace(plate, sha256="other") if plate.frame == FIRST + 2 else plate for plate in scene]
    for plates in (changed, [plate for plate in scene if plate.frame != FIRST + 2]):
        encoding = Encoding("auto", "", (HEIGHT, WIDTH), (HEIGHT, WIDTH), "compact")
        other = FeatureCache(Engine(network, MemoryPolicy()), decoder, plates, encoding, folder, FeatureBudget(batch=1))
        single = FeatureCache(Engine(network, MemoryPolicy()), decoder, scene, encoding, folder, FeatureBudget(batch=1))
        with single, other:
            RowCache(single, folder, 3).keep(FIRST + 1, (), found)
            assert RowCache(single, folder, 3).fetch(FIRST + 1, ()) is not None
            assert RowCache(other, folder, 3).fetch(FIRST + 1, ()) is None


def test_when_several_threads_want_the_same_frames_then_each_is_encoded_once(make_cache):
    cache, _ = make_cache(host_bytes=1)  # what is not wanted at once goes to disk
    frames = list(range(FIRST, FIRST + COUNT))
    with cache, ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda frame: cache.fetch(frame).features.key.sum().item(), frames * 4))
    assert found == found[:COUNT] * 4
    assert cache.encoded_count == COUNT


def test_when_encoding_ahead_fails_then_who_asks_is_told_and_may_ask_again(make_cache, monkeypatch):
    cache, _ = make_cache()
    original, calls = Engine.encode_seen, []

    def failing(self, images):
        calls.append(len(images))
        if len(calls) == 1:
            raise MemoryError
        return original(self, images)

    monkeypatch.setattr(Engine, "encode_seen", failing)
    with cache:
        cache.look_ahead(FIRST)
        with pytest.raises(MemoryError):
            cache.fetch(FIRST)
        assert cache.fetch(FIRST).features.key.isfinite().all()


def test_when_keeping_what_was_encoded_ahead_fails_then_who_asks_is_told_and_may_ask_again(make_cache, monkeypatch):
    cache, folder = make_cache()
    original, calls = folder.save, []

    def failing(name, tensors):
        calls.append(name)
        if len(calls) == 1:
            raise MemoryError
        original(name, tensors)

    monkeypatch.setattr(folder, "save", failing)
    with cache:
        cache.look_ahead(FIRST)
        with pytest.raises(MemoryError):
            cache.fetch(FIRST)
        assert cache.fetch(FIRST).features.key.isfinite().all()


def test_when_a_cache_is_left_with_much_to_come_then_it_ends_soon_and_what_was_begun_is_whole(make_cache):
    cache, folder = make_cache()
    with cache:
        for frame in range(FIRST, FIRST + COUNT):
            cache.look_ahead(frame)
    assert cache.encoded_count < COUNT
    again, _ = make_cache()
    with again:
        for frame in range(FIRST, FIRST + COUNT):
            assert again.fetch(frame).features.key.isfinite().all()
    assert all(folder.has(again.name(frame)) for frame in range(FIRST, FIRST + COUNT))


@pytest.mark.skipif(sys.platform != "linux", reason="threads have no priority of their own elsewhere")
def test_when_work_runs_in_the_background_then_its_thread_alone_stands_back():
    own = os.getpriority(os.PRIO_PROCESS, 0)
    with BackgroundOwner() as owner:
        pool = owner.start_background("test")
        assert pool.submit(os.getpriority, os.PRIO_PROCESS, 0).result() == max(own, NICENESS)
    assert os.getpriority(os.PRIO_PROCESS, 0) == own


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no graphics card")
def test_when_a_card_is_small_then_frames_wait_in_pinned_memory_and_come_back_the_same(tmp_path):
    network = load_model("compact").network.to("cuda")
    plates, _ = save_scene(tmp_path / "scene")
    sources = [PlateSource(frame, str(path), str(frame), 0, path.suffix) for frame, path in plates.items()]
    encoding = Encoding("auto", "", (HEIGHT, WIDTH), (HEIGHT, WIDTH), "compact")
    budget = FeatureBudget(device_bytes=1, batch=1)
    engine = Engine(network, MemoryPolicy())
    with (
        Decoder() as decoder,
        FeatureCache(engine, decoder, sources, encoding, CacheFolder(tmp_path / "cache", 2**30), budget) as cache,
    ):
        first = cache.fetch(FIRST).features.key.clone()
        for frame in range(FIRST, FIRST + COUNT):
            cache.fetch(frame)
        assert cache._pinned.fetch(FIRST).features.key.is_pinned()
        assert torch.equal(cache.fetch(FIRST).features.key, first)
        assert cache.encoded_count == COUNT
    release_memory()
