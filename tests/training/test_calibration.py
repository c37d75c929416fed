"""Reliability and rank correlation, by numbers that can be seen to be right."""

import numpy as np
import pytest
import torch

from training.calibration import collect, draw, measure_reliability, rank_correlation
from training.long_shots import long_shots, score_shot
from training.validation import CALIBRATION_SEED, validation_clips
from xmem_core.confidence import calibrate
from xmem_core.weights import load_model


def test_when_ranks_agree_or_are_reversed_then_the_correlation_is_one_or_minus_one():
    values = np.array([3.0, 1.0, 2.0, 5.0])
    assert rank_correlation(values, values**3) == pytest.approx(1)
    assert rank_correlation(values, -values) == pytest.approx(-1)
    assert rank_correlation(np.array([1.0, 1.0, 2.0]), np.array([1.0, 2.0, 3.0])) == pytest.approx(np.sqrt(3) / 2)


def test_when_a_model_is_measured_then_every_pixel_is_in_one_bin_and_the_plot_is_drawn():
    clips = validation_clips(None, (), 32, 1, CALIBRATION_SEED)
    pairs = collect(load_model("compact").network, clips)
    found, calibrated = measure_reliability(pairs, lambda matte: matte), measure_reliability(pairs, calibrate)
    predicted = sum(clip.alpha.shape[0] * (clip.alpha.shape[1] - len(clip.plan.keys)) for clip in clips)
    assert found.counts.sum() == calibrated.counts.sum() == predicted * 32 * 32
    assert found.observed[-1] > found.observed[0]
    assert ((found.overlaps >= 0) & (found.overlaps <= 1)).all()
    assert draw(found, calibrated).ndim == 3


def test_when_a_long_shot_is_scored_then_more_keys_help():
    torch.manual_seed(0)
    (shot,) = long_shots(None, 96, 8, 1)
    network = load_model("compact").network
    assert 0 <= score_shot(network, shot, (0,), 10) <= score_shot(network, shot, (0, 2, 4, 7), 10) <= 1
