"""Masks move where the flow says, lose trust on the way, and reach a frame from both sides."""

import math

import pytest
import torch

from xmem_core.carrier import Carrier
from xmem_core.motion import CARRIED_FRAMES, PairMotion, carry

SIZE = 16
SURE = math.log(0.98 / 0.02)  # the log-odds of a hint of 1


def motion_of(dx, dy, trust):
    """A motion (3, 4, 4) that is the same everywhere."""
    return torch.tensor([dx, dy, trust], dtype=torch.float32)[:, None, None].expand(3, 4, 4)


def square(left):
    mask = torch.zeros(SIZE, SIZE)
    mask[4:8, left : left + 4] = 1
    return mask


class Shot:
    """Frames 10, 11, ... in which everything goes 2 pixels to the right; counts what is asked of it."""

    def __init__(self, count, keys, unknown=()):
        self.frames = tuple(range(10, 10 + count))
        self.asked = []
        self._keys = keys
        self._unknown = unknown

    def motion(self, earlier, later):
        self.asked.append((earlier, later))
        if (earlier, later) in self._unknown:
            return None
        return PairMotion(to_later=motion_of(-2, 0, 0.5), to_earlier=motion_of(2, 0, 0.5))

    def carrier(self):
        return Carrier(self.frames, self.motion, lambda frame: self._keys.get(frame, {}))

    def like(self):
        return torch.zeros(1, 3, SIZE, SIZE)


def test_when_content_comes_from_the_left_then_its_mask_moves_right_and_what_enters_is_empty():
    masks = torch.stack([square(0), torch.ones(SIZE, SIZE)])[None]
    moved, trust = carry(masks, torch.ones(1, 2, SIZE, SIZE), motion_of(-3, 0, 0.8)[None])
    assert torch.equal(moved[0, 0].round(), square(3))
    assert moved[0, 1, :, :2].max() < 0.1
    assert trust[0, :, :, 4:].min() == pytest.approx(0.8)
    assert trust.max() == pytest.approx(0.8)
    assert trust[0, 0, :, :2].max() < 0.1


def test_when_a_motion_is_half_a_pixel_then_the_mask_is_the_mean_of_both():
    moved, _ = carry(square(4)[None, None], torch.ones(1, 1, SIZE, SIZE), motion_of(-0.5, 0, 1)[None])
    assert moved[0, 0, 5, 3:9].tolist() == pytest.approx([0, 0.5, 1, 1, 1, 0.5])


def test_when_masks_are_carried_by_compiled_loops_then_they_and_their_trust_are_those_of_the_library():
    for seed in range(20):
        torch.manual_seed(seed)
        height, width = 16 + seed, 40 - seed
        masks, trust = torch.rand(2, 3, height, width), torch.rand(2, 1, height, width)
        motion = torch.randn(2, 3, 5 + seed % 4, 9) * 12
        expected = carry(masks, trust, motion)  # gradients may be wanted: the library's
        with torch.no_grad():
            found = carry(masks, trust, motion)
        for one, other in zip(found, expected, strict=True):
            assert torch.allclose(one, other, atol=2e-4)
        assert found[0].shape == masks.shape
        assert found[1].shape == trust.shape


def test_when_a_motion_is_no_number_or_leads_far_away_then_what_it_brings_is_finite():
    motion = torch.randn(1, 3, 4, 4)
    motion[0, 0, 0, 0], motion[0, 1, 1, 1], motion[0, 2, 2, 2] = math.nan, math.inf, -math.inf
    motion[0, :2, 3] = 60_000.0
    with torch.no_grad():
        moved, trust = carry(torch.ones(1, 1, SIZE, SIZE), torch.ones(1, 1, SIZE, SIZE), motion)
    assert torch.isfinite(moved).all()
    assert torch.isfinite(trust).all()
    assert not moved[0, 0, -1].any()  # from outside


def test_when_nothing_is_known_then_nothing_is_carried():
    carried = Shot(3, {}).carrier().fetch(1, (1, 2), torch.zeros(1, 3, SIZE, SIZE))
    assert carried.shape == (1, 2, SIZE, SIZE)
    assert not carried.any()


def test_when_the_frame_before_is_known_then_its_masks_come_along():
    carrier = Shot(3, {}).carrier()
    carrier.previous = {7: square(2)}
    carried = carrier.fetch(1, (3, 7), torch.zeros(1, 3, SIZE, SIZE))
    assert torch.equal(carried[0, 1] > 0, square(4) > 0)
    assert carried[0, 1, 6, 6] == pytest.approx(
        0.5 * SURE
    )  # half of what a believed mask says: so far the flow is trusted
    assert carried[0, 1, 6, 10] == pytest.approx(-0.5 * SURE)
    assert not carried[0, 0].any()  # object 3 was not there before


def test_when_a_key_lies_ahead_then_its_objects_come_back_from_it_and_others_do_not():
    shot = Shot(6, {14: {2: square(10)}})
    carried = shot.carrier().fetch(1, (1, 2), shot.like())
    assert torch.equal(carried[0, 1] > 0, square(4) > 0)
    assert carried[0, 1, 6, 6] == pytest.approx(0.125 * SURE, rel=0.05)  # three frames away, each believed by half
    assert not carried[0, 0].any()


def test_when_masks_come_from_both_sides_then_what_they_say_is_added():
    shot = Shot(3, {12: {1: square(6)}})
    carrier = shot.carrier()
    carrier.previous = {1: square(2)}
    carried = carrier.fetch(1, (1,), shot.like())
    assert carried[0, 0, 6, 6] == pytest.approx(0.5 * SURE + 0.5 * SURE, rel=0.02)


def test_when_a_propagation_starts_in_the_middle_then_it_gets_the_same_from_the_next_key():
    whole, rest = Shot(6, {15: {1: square(10)}}), Shot(6, {15: {1: square(10)}})
    carrier = whole.carrier()
    from_start = [carrier.fetch(position, (1,), whole.like()) for position in range(5)]
    late = rest.carrier().fetch(3, (1,), rest.like())
    assert torch.equal(from_start[3], late)
    assert len(whole.asked) == 5  # each pair once, though the frames asked one by one


def test_when_the_next_key_is_far_or_cut_off_by_an_unreadable_frame_then_nothing_comes_from_it():
    far = Shot(CARRIED_FRAMES + 3, {10 + CARRIED_FRAMES + 1: {1: square(4)}})
    assert not far.carrier().fetch(0, (1,), far.like()).any()
    cut = Shot(5, {14: {1: square(4)}}, unknown=((12, 13),))
    carrier = cut.carrier()
    assert not carrier.fetch(2, (1,), cut.like()).any()
    assert carrier.fetch(3, (1,), cut.like()).any()
