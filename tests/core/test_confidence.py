"""What a matte's own probabilities say of it."""

import itertools

import pytest
import torch

from xmem_core.confidence import RELIABILITY, calibrate, expected_overlap, find_unsure


def test_when_a_matte_is_hard_then_it_is_believed_wholly():
    matte = torch.zeros(4, 4)
    matte[1:3] = 1
    assert expected_overlap(matte) == 1
    assert expected_overlap(torch.zeros(4, 4)) == 1


def test_when_a_matte_is_calibrated_then_it_is_read_off_the_line_between_measured_points():
    for (low, first), (high, second) in itertools.pairwise(RELIABILITY):
        found = calibrate(torch.tensor([[low, (low + high) / 2, high]]))
        assert found[0].tolist() == pytest.approx([first, (first + second) / 2, second], abs=1e-5)
    steps = calibrate(torch.linspace(0, 1, 1001)[None])[0]
    assert (steps.diff() >= 0).all()


def test_when_probabilities_are_given_then_the_overlap_is_the_ratio_of_expected_areas():
    matte = torch.tensor([[0.9, 0.75], [0.25, 0.0]])
    assert expected_overlap(matte) == pytest.approx(
        (0.66 + 0.59) / (2 + 0.335), rel=1e-3
    )  # 0.9 is no half precision value


def test_when_values_are_counted_then_the_overlap_is_that_of_each_pixel_calibrated():
    for seed in range(10):
        matte = torch.rand(50, 70, generator=torch.Generator().manual_seed(seed)).pow(3).half().float()
        shares, present = calibrate(matte), matte > 0.5
        union = present.sum() + shares[~present].sum()
        assert expected_overlap(matte) == pytest.approx(float(shares[present].sum() / union), rel=1e-5)


def test_when_mattes_are_as_reliable_as_measured_then_the_overlap_is_near_the_true_one():
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        matte = torch.rand(200, 200, generator=generator) ** 2
        truth = torch.rand(200, 200, generator=generator) < calibrate(matte)
        found = matte > 0.5
        overlap = float((found & truth).sum()) / float((found | truth).sum())
        assert expected_overlap(matte) == pytest.approx(overlap, abs=0.02)


def test_when_unsure_frames_are_found_then_they_are_apart_and_no_keys():
    confidence = dict.fromkeys(range(1001, 1101), 0.9) | {1050: 0.2, 1052: 0.3, 1001: 0.1, 1080: 0.5}
    assert find_unsure(confidence, frozenset({1001}), 3) == [(1050, 0.2), (1080, 0.5), (1002, 0.9)]
    assert find_unsure({}, frozenset(), 3) == []
