"""Keys are edited in any order and the result is that of a fresh run; what an annotation says of each object holds."""

import itertools

import pytest
import torch

from xmem_core.engine import Engine
from xmem_core.errors import CoreError
from xmem_core.images import split_ids
from xmem_core.memory import MemoryPolicy
from xmem_core.motion import PairMotion
from xmem_core.snapshot import restore_snapshot, take_snapshot

POLICY = MemoryPolicy(mem_every=2, max_working_frames=3, min_working_frames=1, prototypes=8, max_long_term=40)


@pytest.fixture(scope="module")
def encoded(network, scene):
    return Engine(network, POLICY).encode(scene[0])


@pytest.fixture(scope="module")
def masks(scene):
    return [split_ids(ids, (1, 2)) for ids in scene[1]]


def propagate(engine, encoded):
    propagation = engine.start(tuple(range(len(encoded))))
    return [propagation.step(one) for one in encoded]


def mattes(engine, encoded):
    return torch.stack([result.probabilities for result in propagate(engine, encoded)])


def engine_with(network, encoded, annotations):
    engine = Engine(network, POLICY)
    for frame, said in annotations:
        engine.annotate(frame, encoded[frame], said)
    return engine


def test_when_a_key_is_given_then_later_frames_follow_the_objects(network, encoded, masks, scene):
    found = mattes(engine_with(network, encoded, [(0, masks[0])]), encoded)
    for frame in range(1, 10):
        for place, object_id in enumerate((1, 2)):
            predicted, truth = found[frame, place] > 0.5, scene[1][frame] == object_id
            overlap = (predicted & truth).sum() / (predicted | truth).sum()
            assert overlap > 0.5, f"object {object_id} at frame {frame}: {overlap:.2f}"


def test_when_a_key_is_given_then_earlier_frames_follow_it_too(network, encoded, masks, scene):
    found = mattes(engine_with(network, encoded, [(9, masks[9])]), encoded)
    predicted, truth = found[0, 0] > 0.5, scene[1][0] == 1
    assert (predicted & truth).sum() / (predicted | truth).sum() > 0.5


def test_when_keys_are_given_in_any_order_then_the_result_is_the_same(network, encoded, masks):
    said = [(0, masks[0]), (4, masks[4]), (8, masks[8])]
    results = [mattes(engine_with(network, encoded, order), encoded) for order in itertools.permutations(said)]
    assert all(torch.equal(results[0], other) for other in results[1:])


def test_when_keys_are_added_corrected_and_removed_then_the_result_equals_a_fresh_run(network, encoded, masks):
    wrong = {1: masks[3][2], 2: masks[3][1]}
    for seed in range(6):
        generator = torch.Generator().manual_seed(seed)
        engine = engine_with(network, encoded, [(0, masks[0])])
        wanted = {0: masks[0]}
        for _ in range(8):
            frame = int(torch.randint(0, 10, (1,), generator=generator))
            if frame in wanted and len(wanted) > 1 and torch.rand(1, generator=generator) < 0.5:
                engine.remove(frame)
                del wanted[frame]
            else:
                wanted[frame] = wrong if torch.rand(1, generator=generator) < 0.3 else masks[frame]
                engine.annotate(frame, encoded[frame], wanted[frame])
        fresh = engine_with(network, encoded, sorted(wanted.items()))
        assert engine.annotated_frames == fresh.annotated_frames == tuple(sorted(wanted))
        assert torch.equal(mattes(engine, encoded), mattes(fresh, encoded)), f"seed {seed}"


def test_when_the_second_key_is_corrected_then_each_object_keeps_its_own_value(network, encoded, masks):
    engine = engine_with(network, encoded, [(0, masks[0]), (4, masks[3]), (8, masks[8])])
    engine.annotate(4, encoded[4], masks[4])
    first, second = (engine.permanent.blocks[1].values[object_id] for object_id in (1, 2))
    assert not torch.equal(first, second)
    expected = engine_with(network, encoded, [(4, masks[4])]).permanent.blocks[0].values
    assert torch.equal(first, expected[1])
    assert torch.equal(second, expected[2])


def test_when_an_object_is_not_given_at_a_key_then_its_matte_there_is_predicted(network, encoded, masks, scene):
    engine = engine_with(network, encoded, [(0, masks[0]), (5, {1: masks[5][1]})])
    result = propagate(engine, encoded)[5]
    assert engine.permanent_bank().given(2).sum() == engine.permanent_bank().given(1).sum() // 2
    assert torch.equal(result.probabilities[0] > 0.5, scene[1][5] == 1)
    predicted, truth = result.probabilities[1] > 0.5, scene[1][5] == 2
    assert (predicted & truth).sum() / (predicted | truth).sum() > 0.5


def test_when_an_object_is_absent_at_a_key_then_its_matte_there_is_empty_and_its_rows_exist(network, encoded, masks):
    gone = {1: masks[5][1], 2: torch.zeros(112, 160)}
    engine = engine_with(network, encoded, [(0, masks[0]), (5, gone)])
    assert engine.permanent_bank().given(2).all()
    assert propagate(engine, encoded)[5].probabilities[1].max() < 1e-6


def test_when_an_object_is_absent_before_its_first_key_then_it_has_no_rows_there(network, encoded, masks):
    not_yet = {1: masks[0][1], 2: torch.zeros(112, 160)}
    engine = engine_with(network, encoded, [(0, not_yet), (5, masks[5])])
    bank = engine.permanent_bank()
    assert bank.blocks[0].values.keys() == {1}
    assert bank.blocks[1].values.keys() == {1, 2}
    engine.annotate(0, encoded[0], masks[0])  # its first key moves: rows exist from there
    assert engine.permanent_bank().blocks[0].values.keys() == {1, 2}


def test_when_object_ids_have_gaps_then_results_carry_the_artists_ids(network, encoded, masks):
    renamed = {7: masks[0][1], 200: masks[0][2]}
    result = propagate(engine_with(network, encoded, [(0, renamed)]), encoded)[3]
    assert result.object_ids == (7, 200)


def test_when_an_object_is_only_ever_absent_then_it_has_an_empty_matte_on_every_frame(network, encoded, masks):
    said = {1: masks[0][1], 9: torch.zeros(112, 160)}
    results = propagate(engine_with(network, encoded, [(0, said)]), encoded)
    assert all(result.object_ids == (1, 9) for result in results)
    assert max(float(result.probabilities[1].max()) for result in results) < 1e-6


def test_when_a_propagation_is_restored_from_a_snapshot_then_it_equals_the_uninterrupted_run(network, encoded, masks):
    engine = engine_with(network, encoded, [(0, masks[0]), (6, masks[6])])
    whole = mattes(engine, encoded)
    for stop in (1, 4, 8):
        first = engine.start(tuple(range(10)))
        for one in encoded[:stop]:
            first.step(one)
        state = take_snapshot(first)
        second = engine_with(network, encoded, [(0, masks[0]), (6, masks[6])]).start(tuple(range(10)))
        restore_snapshot(second, state, torch.device("cpu"))
        rest = torch.stack([second.step(one).probabilities for one in encoded[stop:]])
        assert torch.equal(rest, whole[stop:])


def test_when_a_frame_cannot_be_read_then_the_others_still_get_mattes(network, encoded, masks):
    propagation = engine_with(network, encoded, [(0, masks[0])]).start((0, 1, 2))
    propagation.step(encoded[0])
    propagation.skip()
    assert propagation.step(encoded[2]).frame == 2


def test_when_there_is_no_permanent_memory_then_frames_before_the_first_key_are_empty(network, encoded, masks):
    engine = Engine(network, MemoryPolicy(permanent="none"))
    engine.annotate(3, encoded[3], masks[3])
    found = propagate(engine, encoded)
    assert found[0].object_ids == found[6].object_ids == (1, 2)
    assert found[0].probabilities.abs().max() == 0
    assert found[6].probabilities.max() > 0.5


def test_when_nothing_is_drawn_then_starting_says_what_to_do(network, encoded):
    engine = Engine(network, POLICY)
    with pytest.raises(CoreError, match="Annotate at least one frame"):
        engine.start((0,))
    engine.annotate(0, encoded[0], {1: torch.zeros(112, 160)})
    with pytest.raises(CoreError, match="Annotate at least one frame"):
        engine.start((0,))


@pytest.mark.parametrize(
    ("said", "words"),
    [({}, "names no object"), ({1: torch.zeros(5, 5)}, "5x5"), ({1: torch.full((112, 160), torch.nan)}, "NaN")],
)
def test_when_an_annotation_cannot_be_used_then_it_says_why(network, encoded, said, words):
    with pytest.raises(CoreError, match=words):
        Engine(network, POLICY).annotate(0, encoded[0], said)


def test_when_precision_is_reduced_then_mattes_move_little(network, encoded, masks, scene):
    exact = mattes(engine_with(network, encoded, [(0, masks[0])]), encoded)
    engine = Engine(network, POLICY, torch.bfloat16)
    reduced = engine.encode(scene[0])
    engine.annotate(0, reduced[0], masks[0])
    assert (mattes(engine, reduced) - exact).abs().mean() < 0.02


def test_when_the_network_sees_less_than_the_picture_then_mattes_have_the_pictures_size_and_follow(
    network, scene, masks
):
    engine = Engine(network, POLICY, working_size=80)
    encoded = engine.encode(scene[0])
    assert encoded[0].features.key.shape[-2:] == (5, 8)  # 80x114, padded to 80x128
    engine.annotate(0, encoded[0], masks[0])
    found = mattes(engine, encoded)
    assert found.shape == (10, 2, *scene[0].shape[-2:])
    truth = scene[1][5] == 1
    predicted = found[5, 0] > 0.5
    assert (predicted & truth).sum() / (predicted | truth).sum() > 0.5


def test_when_motion_is_known_then_masks_follow_it_and_a_resumed_run_is_the_same(network, scene, encoded, masks):
    def motion(earlier, later):
        """Everything stands still, and that is believed: the masks of the key stay where they are."""
        still = torch.zeros(3, 28, 40)
        still[2] = 1
        return PairMotion(still, still)

    def run(propagation, start):
        return [propagation.step(one) for one in encoded[start:]]

    frames = tuple(range(10))
    engine = engine_with(network, encoded, [(0, masks[0])])
    left_behind = (scene[1][0] == 1) & (scene[1][5] != 1)
    plain, carried = propagate(engine, encoded)[5], run(engine.start(frames, motion), 0)[5]
    assert carried.probabilities[0][left_behind].sum() > plain.probabilities[0][left_behind].sum()
    engine.annotate(9, encoded[9], masks[9])
    whole = run(engine.start(frames, motion), 0)
    first = engine.start(frames, motion)
    for one in encoded[:4]:
        first.step(one)
    second = engine.start(frames, motion)
    restore_snapshot(second, take_snapshot(first), torch.device("cpu"))
    rest = run(second, 4)
    for resumed, straight in zip(rest, whole[4:], strict=True):
        assert torch.equal(resumed.probabilities, straight.probabilities)
