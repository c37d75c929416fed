"""Dissimilarity of frames: exactly, and within bounds that cost less."""

import pytest
import torch

from tests.core.random_keys import keys_of
from xmem_core import dissimilarity as core
from xmem_core.dissimilarity import (
    CloseLook,
    FrameKeys,
    FrameMask,
    dissimilarity,
    look_coarsely,
    look_in_bfloat16,
    make_composite,
)

SEEDS = range(50)


def pair_of(seed):
    """Give composites of two frames: less than a block, whole blocks, and blocks that the edge cuts."""
    size = (2 + seed % 5, 3 + seed % 7)
    masks = [FrameMask(0.5, torch.rand(1, *size, generator=torch.Generator().manual_seed(each))) for each in range(2)]
    return [make_composite(keys_of(2 * seed + which, size), masks[which], 0.5) for which in range(2)]


def test_when_two_frames_have_one_position_then_their_dissimilarity_is_the_hand_computed_one():
    one = FrameKeys(torch.tensor([[[1.0]]]), torch.tensor([[[2.0]]]), torch.tensor([[[0.5]]]))
    other = FrameKeys(torch.tensor([[[4.0]]]), torch.tensor([[[1.0]]]), torch.tensor([[[0.25]]]))
    mask = FrameMask(1.0, torch.ones(1, 1, 1))
    a, b = (make_composite(keys, mask, 0.5) for keys in (one, other))
    # S(a, b) = -2 * 0.25 * 9 = -4.5; S(b, a) = -1 * 0.5 * 9 = -4.5: equal; half the other's shrinkage makes it -2.25
    assert dissimilarity(a, b) == pytest.approx(0)
    weaker = make_composite(FrameKeys(other.key, other.shrinkage / 2, other.selection), mask, 0.5)
    assert dissimilarity(weaker, a) == pytest.approx(4.5 - 2.25)
    assert dissimilarity(a, weaker) == 0


def test_when_a_centre_is_taken_from_both_frames_then_their_dissimilarity_stays():
    for seed in SEEDS:
        one, other = (keys_of(2 * seed + which) for which in range(2))
        mask, centre = FrameMask(0.5, torch.rand(1, 2, 3)), torch.randn(4, 1, 1)
        plain = dissimilarity(make_composite(one, mask, 0.3), make_composite(other, mask, 0.3))
        moved = dissimilarity(make_composite(one, mask, 0.3, centre), make_composite(other, mask, 0.3, centre))
        assert moved == pytest.approx(plain, rel=1e-4)


def test_when_frames_are_looked_at_coarsely_then_the_bound_is_below_their_dissimilarity_and_says_something():
    shares = []
    for seed in SEEDS:
        one, other = pair_of(seed)
        exact, bounds = dissimilarity(one, other), look_coarsely(one, other)
        assert 0 <= bounds.least <= exact * (1 + 1e-5)
        assert look_coarsely(one, one).least == 0
        shares.append(bounds.least / exact)
    assert sum(shares) / len(shares) > 0.15  # noise; keys of pictures are smoother


@pytest.mark.parametrize("away", [0.0, 3.0, 100.0])
def test_when_frames_are_looked_at_in_bfloat16_then_their_dissimilarity_is_within_bounds_that_say_something(away):
    """Keys far from 0 round worst: bounds are wide there, and hold."""
    for seed in SEEDS:
        size = (3 + seed % 5, 4)
        one, other = (keys_of(2 * seed + which, size) for which in range(2))
        mask = FrameMask(0.5, torch.rand(1, *size))
        moved = [FrameKeys(each.key + away, each.shrinkage, each.selection) for each in (one, other)]
        a, b = (make_composite(keys, mask, 0.0) for keys in moved)
        centred = [make_composite(keys, mask, 0.0, torch.full((4, 1, 1), away)) for keys in moved]
        bounds = look_in_bfloat16(a, b)
        assert bounds.least <= dissimilarity(a, b) <= bounds.most
        close, exact = look_in_bfloat16(*centred), dissimilarity(*centred)
        assert close.least <= exact <= close.most
        assert close.most - close.least < 0.1 * exact
        assert look_in_bfloat16(a, a).least == 0


def test_when_what_is_above_0_is_added_by_its_bits_then_it_is_the_sum():
    for seed in range(20):
        torch.manual_seed(seed)
        products = torch.randn(5, 37).bfloat16()
        products[0] = -products[0].abs()
        products[1, :3] = torch.tensor([0.0, -0.0, 1e-38])
        with torch.inference_mode():
            found = core._add_positive(products)
        assert found == pytest.approx(float(products.double().clamp_min(0).sum()), rel=1e-6)


def test_when_differences_are_added_by_the_compiled_loop_then_they_are_what_torch_adds():
    for seed in SEEDS:
        one, other = pair_of(seed)
        with torch.inference_mode():
            compiled = dissimilarity(one, other)
            assert dissimilarity(one, one) == 0
        with torch.enable_grad():
            assert compiled == pytest.approx(dissimilarity(one, other), rel=1e-5)


def test_when_a_read_is_larger_than_a_block_then_the_bounds_are_those_of_the_whole(monkeypatch):
    one, other = pair_of(3)
    whole = look_in_bfloat16(one, other), dissimilarity(one, other)
    monkeypatch.setattr(core, "BLOCK_VALUES", 2 * one.as_query.shape[1])
    assert look_in_bfloat16(one, other).most == pytest.approx(whole[0].most, rel=1e-5)
    assert dissimilarity(one, other) == pytest.approx(whole[1], rel=1e-5)


@pytest.fixture
def rough(monkeypatch):
    """The looks that were taken in bfloat16, on a processor that has it."""
    taken = []
    monkeypatch.setattr(core, "_multiplies_bfloat16", lambda: True)
    monkeypatch.setattr(core, "look_in_bfloat16", lambda one, other: taken.append(one) or look_in_bfloat16(one, other))
    return taken


def test_when_some_frames_differ_more_than_others_then_close_looks_are_taken_in_bfloat16(rough):
    keys, mask = [keys_of(number) for number in range(2)], FrameMask(0.5, torch.ones(1, 2, 3))
    near = FrameKeys(keys[0].key + 0.1, keys[0].shrinkage, keys[0].selection)
    one, close, far = (make_composite(each, mask, 0.5) for each in (keys[0], near, keys[1]))
    look = CloseLook()
    with torch.inference_mode():
        for other in (close, far) * 20:
            bounds = look(one, other)
            assert bounds.least < dissimilarity(one, other) < bounds.most
    assert len(rough) == 40


def test_when_all_frames_differ_by_the_same_then_close_looks_are_soon_exact(rough):
    one, other = pair_of(5)
    look = CloseLook()
    with torch.inference_mode():
        found = [look(one, other) for _ in range(40)]
    assert len(rough) < 10
    assert found[-1].least == found[-1].most == pytest.approx(dissimilarity(one, other))


def test_when_the_processor_has_no_bfloat16_then_a_close_look_is_exact(monkeypatch):
    monkeypatch.setattr(core, "_multiplies_bfloat16", lambda: False)
    one, other = pair_of(5)
    with torch.inference_mode():
        assert set(vars(CloseLook()(one, other)).values()) == {dissimilarity(one, other)}
