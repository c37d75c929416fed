import numpy as np
import pytest

from training.bank import PackedBank, ProceduralBank
from training.shapes import blob, edge_region, fringed
from training.shots import ShotSettings, make_shot

SMALL = ShotSettings(size=64, frames=3)


def test_when_a_seed_is_used_twice_then_the_shot_is_the_same_bit_for_bit():
    first, second = (make_shot(11, ProceduralBank(), SMALL) for _ in range(2))
    np.testing.assert_array_equal(first.frames, second.frames)
    np.testing.assert_array_equal(first.alpha, second.alpha)


def test_when_the_seed_differs_then_so_does_the_shot():
    assert not np.array_equal(
        make_shot(1, ProceduralBank(), SMALL).frames, make_shot(2, ProceduralBank(), SMALL).frames
    )


@pytest.mark.parametrize("seed", range(12))
def test_when_a_shot_is_made_then_shapes_ranges_and_sums_hold(seed):
    shot = make_shot(seed, ProceduralBank(), SMALL)
    assert shot.frames.shape == (3, 64, 64, 3)
    assert shot.frames.dtype == np.uint8
    assert shot.alpha.shape == (2, 3, 64, 64)
    assert shot.alpha.dtype == np.float32
    assert shot.alpha.min() >= 0
    assert shot.alpha.sum(0).max() <= 1 + 1e-5


@pytest.mark.parametrize("seed", range(8))
def test_when_keys_are_named_then_every_object_can_be_seen_on_one_of_them(seed):
    shot = make_shot(seed, ProceduralBank(), SMALL, keys=(1, 2))
    covered = (shot.alpha[:, 1:] > 0.5).mean((2, 3)).max(1)
    present = shot.alpha.any((1, 2, 3))
    assert present.any()
    assert (covered[present] >= SMALL.smallest).all()
    assert (covered[present] <= SMALL.largest).all()


def test_when_shapes_are_drawn_then_they_are_soft_alphas():
    rng = np.random.default_rng(0)
    for _ in range(20):
        shape = blob(rng, 48)
        assert shape.shape == (48, 48)
        assert shape.min() >= 0
        assert shape.max() <= 1
        assert shape.mean() > 0.005
    region = edge_region(rng, ProceduralBank().surface(rng))
    assert 0 < region.mean() < 0.7


def test_when_an_outline_gets_a_fringe_then_it_only_grows():
    alpha = np.zeros((64, 64), np.float32)
    alpha[20:44, 20:44] = 1
    hairy = fringed(np.random.default_rng(3), alpha)
    assert (hairy >= alpha).all()
    assert hairy.sum() > alpha.sum()


def test_when_nothing_is_packed_then_the_error_names_the_command(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"python -m training\.sources"):
        PackedBank(tmp_path)
