import numpy as np
import pytest

from xmem_protocol import InputError
from xmem_server.scoring import score_frames, score_outline, score_region


def square(left, size=10, shape=(100, 100)):
    mask = np.zeros(shape, np.uint8)
    mask[20 : 20 + size, left : left + size] = 1
    return mask


def test_when_masks_are_alike_then_both_scores_are_one():
    assert score_region(square(5), square(5)) == 1.0
    assert score_outline(square(5), square(5)) == 1.0


def test_when_half_of_the_mask_is_right_then_j_counts_the_shared_area():
    # 10x10 squares, 5 columns apart: 50 shared, 150 in either
    assert score_region(square(5), square(10)) == pytest.approx(50 / 150)


def test_when_both_are_empty_then_the_scores_are_one_and_when_one_is_then_zero():
    nothing = np.zeros((100, 100), np.uint8)
    assert (score_region(nothing, nothing), score_outline(nothing, nothing)) == (1.0, 1.0)
    assert (score_region(nothing, square(5)), score_outline(nothing, square(5))) == (0.0, 0.0)
    assert (score_region(square(5), nothing), score_outline(square(5), nothing)) == (0.0, 0.0)


def test_when_the_outline_is_within_the_tolerance_then_f_is_one_and_beyond_it_falls():
    # the diagonal of 100x100 is 141.4: 0.8 % is 1.13, so 2 pixels are forgiven
    assert score_outline(square(22), square(20)) == 1.0
    assert score_outline(square(24), square(20)) < 1.0
    assert score_outline(square(70), square(20)) == 0.0


def test_when_only_part_of_the_outline_is_near_then_f_is_the_harmonic_mean():
    # two squares against one of them: all of the truth is found, half of the mask's outline is right
    mask = square(10) | square(60)
    assert score_outline(mask, square(10)) == pytest.approx(2 * 0.5 * 1.0 / 1.5)


def test_when_sizes_differ_or_nothing_is_left_then_the_error_says_so():
    with pytest.raises(InputError, match="sizes must match"):
        score_region(np.zeros((4, 4)), np.zeros((4, 5)))
    with pytest.raises(InputError, match="no frame to score"):
        score_frames([])


def test_when_frames_are_scored_then_the_means_are_over_frames():
    score = score_frames([(square(5), square(5)), (square(70), square(20))])
    assert (score.j, score.f, score.frames, score.mean) == (0.5, 0.5, 2, 0.5)
