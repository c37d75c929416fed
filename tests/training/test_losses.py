import math

import pytest
import torch

from training.losses import (
    aggregate_logits,
    alpha_loss,
    bootstrapped_cross_entropy,
    clip_loss,
    dice_loss,
    region_scores,
    with_background,
)
from xmem_core.network import aggregate

ALL = torch.ones(1, 1)


def as_logits(probabilities):
    """Logits (1, N + 1, H, W) whose softmax is the given rows of pixels, one row an object, background added."""
    alpha = torch.tensor(probabilities)[None, :, None, :]
    return with_background(alpha).log()


def pixels(rows):
    return torch.tensor(rows)[None, :, None, :]  # (1, N, 1, W)


def test_when_logits_are_aggregated_then_their_softmax_is_the_networks_aggregate():
    logits = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    expected = aggregate(torch.sigmoid(logits), 1)
    torch.testing.assert_close(torch.softmax(aggregate_logits(logits), 1), expected, rtol=0, atol=1e-5)


def test_when_one_object_is_half_sure_then_background_is_half_too():
    found = torch.softmax(aggregate_logits(torch.zeros(1, 1, 1, 1)), 1).flatten()
    torch.testing.assert_close(found, torch.tensor([0.5, 0.5]))


def test_when_alphas_get_a_background_then_each_pixel_sums_to_one():
    found = with_background(pixels([[0.25, 1.0], [0.5, 0.0]]))
    torch.testing.assert_close(found[0, 0, 0], torch.tensor([0.25, 0.0]))
    torch.testing.assert_close(found.sum(1), torch.ones(1, 1, 2))


def test_when_prediction_equals_soft_alpha_then_all_losses_are_zero():
    alpha = [[0.3, 0.9, 0.5, 0.1]]
    assert float(bootstrapped_cross_entropy(as_logits(alpha), pixels(alpha), 1.0)) == pytest.approx(0, abs=1e-6)
    assert float(dice_loss(as_logits(alpha), pixels(alpha), ALL)) == pytest.approx(0, abs=1e-6)
    assert float(alpha_loss(as_logits(alpha), pixels(alpha), 1.0)) == pytest.approx(0, abs=1e-6)


def test_when_two_of_four_pixels_are_off_then_the_alpha_loss_of_the_worst_half_is_their_mean_difference():
    found, wanted = [[0.3, 0.9, 0.5, 0.1]], [[0.3, 0.5, 0.7, 0.1]]
    assert float(alpha_loss(as_logits(found), pixels(wanted), 0.5)) == pytest.approx((0.4 + 0.2) / 2, abs=1e-6)


def test_when_a_pixel_is_wrong_then_cross_entropy_is_minus_log_of_what_it_got():
    found = bootstrapped_cross_entropy(as_logits([[0.25, 0.5]]), pixels([[1.0, 1.0]]), 1.0)
    assert float(found) == pytest.approx((math.log(4) + math.log(2)) / 2)


def test_when_only_the_worst_half_counts_then_easy_pixels_do_not():
    found = bootstrapped_cross_entropy(as_logits([[0.25, 0.5]]), pixels([[1.0, 1.0]]), 0.5)
    assert float(found) == pytest.approx(math.log(4))


def test_when_half_of_an_object_is_missed_then_dice_is_its_hand_number():
    # <p, a> = 2, <p, p> = 2, <a, a> = 4 (background logits of the missed pixels are as good as certain)
    p, a = [[1 - 1e-6, 1 - 1e-6, 1e-6, 1e-6]], [[1.0, 1.0, 1.0, 1.0]]
    assert float(dice_loss(as_logits(p), pixels(a), ALL)) == pytest.approx(1 - (2 * 2 + 1) / (2 + 4 + 1), abs=1e-4)


def test_when_no_object_takes_a_place_then_its_leaks_are_no_dice_loss():
    p, a = [[0.9, 0.1], [0.05, 0.05]], [[1.0, 0.0], [0.0, 0.0]]
    alone = dice_loss(as_logits(p)[:, :2], pixels(a)[:, :1], ALL)
    both = dice_loss(as_logits(p), pixels(a), torch.tensor([[True, False]]))
    assert float(both) == pytest.approx(float(alone), abs=0.02)


def test_when_a_clip_has_two_predicted_frames_then_its_loss_is_their_mean():
    alpha = torch.tensor([[[[[1.0]], [[0.0]]]]])  # (1, 1, 2, 1, 1): there on frame 0, gone on frame 1
    half = torch.zeros(1, 2, 1, 1)
    first = math.log(2) + 1 - (2 * 0.5 + 1) / (0.25 + 1 + 1) + 0.5
    second = math.log(2) + 1 - (0 + 1) / (0.25 + 0 + 1) + 0.5
    assert float(clip_loss({0: half, 1: half}, alpha, 1.0)) == pytest.approx((first + second) / 2)


def test_when_regions_are_scored_then_j_is_intersection_over_union():
    alpha = torch.zeros(1, 2, 1, 1, 4)
    alpha[0, 0, 0, 0] = torch.tensor([1.0, 1.0, 0.0, 0.0])
    logits = as_logits([[0.9, 0.1, 0.9, 0.0], [0.0, 0.0, 0.0, 0.0]])
    found = region_scores({0: logits}, alpha)
    assert float(found[0, 0]) == pytest.approx(1 / 3)
    assert bool(found[0, 1].isnan())  # this object is on no frame
