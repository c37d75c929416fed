"""Measured motion points where the picture came from, and is not believed where it cannot be right."""

import cv2
import numpy as np

from xmem_server.worker.optical_flow import measure_motion


def texture(seed=0, height=96, width=128):
    noise = np.random.default_rng(seed).random((height // 4, width // 4)).astype(np.float32)
    return (cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC) * 255).clip(0, 255).astype(np.uint8)


def test_when_a_picture_moves_then_both_directions_say_where_it_was_and_will_be():
    wide = texture(width=160)
    earlier, later = wide[:, 10:138].copy(), wide[:, 6:134].copy()  # content goes 4 pixels to the right
    to_later, to_earlier = measure_motion(earlier, later)
    assert to_later.shape == to_earlier.shape == (3, 24, 32)
    inner = np.s_[4:-4, 6:-6]
    assert np.abs(to_later[0][inner] + 4).max() < 0.5
    assert np.abs(to_earlier[0][inner] - 4).max() < 0.5
    assert np.abs(to_later[1][inner]).max() < 0.5
    assert to_later[2][inner].min() > 0.8


def test_when_the_pictures_have_nothing_in_common_then_the_motion_is_not_believed():
    to_later, to_earlier = measure_motion(texture(1), texture(2))
    assert to_later[2].mean() < 0.4
    assert to_earlier[2].mean() < 0.4


def test_when_the_same_pictures_are_measured_again_then_the_numbers_are_the_same():
    first, second = texture(3), texture(4)
    once, again = measure_motion(first, second), measure_motion(first, second)
    assert np.array_equal(once, again)


def test_when_a_picture_is_tiny_then_nothing_is_believed():
    to_later, to_earlier = measure_motion(texture()[:8, :16], texture()[:8, :16])
    assert to_later.shape == (3, 2, 4)
    assert not to_later.any()
    assert not to_earlier.any()
