import numpy as np
import pytest

from training.layers import Layer, Placement, blurred, composite, render, streak_kernel, visible

STILL = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])


def texture(colour, alpha):
    """Premultiplied RGBA (h, w, 4) of one colour over an alpha given as nested rows."""
    alpha = np.array(alpha, np.float32)
    return np.dstack([*(alpha * channel for channel in colour), alpha]).astype(np.float32)


def floor(size):
    return Layer(texture((0.2, 0.4, 0.6), np.ones((size, size))), fills=True)


def test_when_a_layer_lies_still_then_its_alpha_is_its_own():
    alpha = [[0, 0, 0, 0], [0, 1, 0.5, 0], [0, 0.25, 1, 0], [0, 0, 0, 0]]
    seen = render(Layer(texture((1, 0, 0), alpha)), Placement(STILL), 4)
    np.testing.assert_allclose(seen.alpha, alpha, atol=1e-6)
    np.testing.assert_allclose(seen.colour[..., 0], alpha, atol=1e-6)


def test_when_a_layer_moves_by_half_a_pixel_then_its_edge_is_half_covered():
    alpha = np.zeros((4, 4))
    alpha[:, 1:3] = 1
    moved = np.array([[1.0, 0.0, -0.5], [0.0, 1.0, 0.0]])
    seen = render(Layer(texture((1, 1, 1), alpha)), Placement(moved), 4)
    np.testing.assert_allclose(seen.alpha[1], [0, 0.5, 1, 0.5], atol=0.02)  # OpenCV looks up in 1/32 of a pixel


def test_when_a_half_transparent_pixel_covers_the_floor_then_colours_mix_by_alpha():
    layers = [
        render(floor(2), Placement(STILL), 2),
        render(Layer(texture((1, 0, 0), [[1, 0.5], [0, 0]])), Placement(STILL), 2),
    ]
    frame = composite(layers)
    np.testing.assert_allclose(frame[0, 0], [1, 0, 0], atol=1e-6)
    np.testing.assert_allclose(frame[0, 1], [0.6, 0.2, 0.3], atol=1e-6)
    np.testing.assert_allclose(frame[1], [[0.2, 0.4, 0.6]] * 2, atol=1e-6)


def test_when_a_layer_is_half_hidden_then_half_of_it_is_visible():
    below = render(Layer(texture((0, 1, 0), np.ones((2, 2)))), Placement(STILL), 2)
    above = render(Layer(texture((1, 0, 0), [[0.5, 0], [1, 0]])), Placement(STILL), 2)
    through = visible([below, above], 0, frozenset())
    np.testing.assert_allclose(through, [[0.5, 1], [0, 1]], atol=1e-6)


def test_when_the_layer_above_is_translucent_then_it_hides_its_share_unless_it_is_a_target():
    below = render(Layer(texture((0, 1, 0), np.ones((2, 2)))), Placement(STILL), 2)
    above = render(Layer(texture((1, 0, 0), np.ones((2, 2))), opacity=0.25), Placement(STILL), 2)
    np.testing.assert_allclose(visible([below, above], 0, frozenset()), 0.75)
    np.testing.assert_allclose(visible([below, above], 0, frozenset({1})), 0)


def test_when_a_region_is_rendered_then_it_never_exceeds_alpha():
    alpha = np.array([[1, 0.5], [0, 0]], np.float32)
    layer = Layer(texture((1, 1, 1), alpha), region=np.ones((2, 2), np.float32))
    np.testing.assert_allclose(render(layer, Placement(STILL), 2).region, alpha, atol=1e-6)


def test_when_a_point_streaks_by_two_pixels_then_its_alpha_spreads_and_keeps_its_sum():
    pixels = np.zeros((9, 9, 4), np.float32)
    pixels[4, 4] = 1
    spread = blurred(pixels, Placement(STILL, streak=(2.0, 0.0)))[..., 3]
    assert spread.sum() == pytest.approx(1)
    assert spread[4, 3:6].sum() == pytest.approx(1)
    assert spread[4, 3] == pytest.approx(spread[4, 5])
    assert spread[4, 4] < 0.6


@pytest.mark.parametrize("streak", [(7.3, -2.1), (0.0, 5.0), (3.0, 3.0)])
def test_when_a_streak_kernel_is_made_then_it_sums_to_one_and_is_centred(streak):
    kernel = streak_kernel(streak)
    middle = kernel.shape[0] // 2
    rows, columns = np.mgrid[-middle : middle + 1, -middle : middle + 1]
    assert kernel.sum() == pytest.approx(1)
    assert (kernel * rows).sum() == pytest.approx(0, abs=1e-4)
    assert (kernel * columns).sum() == pytest.approx(0, abs=1e-4)
