"""Convolutions by tiles give what direct ones give, and are used where they may be."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from xmem_core import kernels
from xmem_core.convolution import BlockConv, convolve_tiled, make_tiled_kernel, tile_convolutions

NEAR = 2e-4  # for values of about 1 and sums over hundreds of products


def make_case(seed, count=2, channels=(5, 7), shape=(9, 14)):
    generator = torch.Generator().manual_seed(seed)
    maps = torch.randn(count, channels[0], *shape, generator=generator)
    weight = torch.randn(channels[1], channels[0], 3, 3, generator=generator) / (9 * channels[0]) ** 0.5
    return maps, weight, torch.randn(channels[1], generator=generator)


def test_when_one_pixel_is_convolved_then_the_kernel_is_seen_around_it_turned():
    maps = torch.zeros(1, 1, 6, 6)
    maps[0, 0, 2, 3] = 1
    weight = torch.arange(1.0, 10.0).reshape(1, 1, 3, 3)
    result = convolve_tiled(maps, make_tiled_kernel(weight, None))[0, 0]
    wanted = torch.zeros(6, 6)
    wanted[1:4, 2:5] = torch.tensor([[9.0, 8, 7], [6, 5, 4], [3, 2, 1]])
    assert torch.allclose(result, wanted, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (4, 4), (8, 12), (9, 14), (23, 40)])
@pytest.mark.parametrize("seed", range(4))
def test_when_maps_of_any_size_are_convolved_by_tiles_then_they_are_the_direct_ones(shape, seed):
    maps, weight, bias = make_case(seed, shape=shape)
    wanted = F.conv2d(maps.double(), weight.double(), bias.double(), padding=1)
    assert (convolve_tiled(maps, make_tiled_kernel(weight, bias)) - wanted).abs().max() < NEAR


def test_when_tiles_are_more_than_are_taken_at_once_then_the_result_is_the_direct_one():
    maps, weight, bias = make_case(1, count=3, shape=(70, 90))  # 3 * 18 * 23 tiles
    wanted = F.conv2d(maps, weight, bias, padding=1)
    assert (convolve_tiled(maps, make_tiled_kernel(weight, bias)) - wanted).abs().max() < NEAR


@pytest.mark.parametrize("sharing", [1, 3])
def test_when_values_are_rectified_and_maps_added_then_it_is_relu_before_and_a_sum_after(sharing):
    maps, weight, bias = make_case(2, count=2 * sharing)
    added = torch.randn(2, weight.shape[0], *maps.shape[-2:])
    wanted = F.conv2d(F.relu(maps), weight, bias, padding=1) + added.repeat_interleave(sharing, 0)
    result = convolve_tiled(maps, make_tiled_kernel(weight, bias), added, rectify=True)
    assert (result - wanted).abs().max() < NEAR


def test_when_one_of_several_maps_is_convolved_alone_then_its_result_is_the_same_to_the_last_bit():
    maps, weight, bias = make_case(3, count=3, channels=(64, 64), shape=(23, 40))
    kernel = make_tiled_kernel(weight, bias)
    assert torch.equal(convolve_tiled(maps, kernel)[1:2], convolve_tiled(maps[1:2], kernel))


@pytest.fixture
def halves():
    torch.manual_seed(0)
    return BlockConv(12, 6, image_channels=5)


@pytest.mark.parametrize("place", [lambda conv: None, tile_convolutions])
def test_when_a_convolution_is_computed_in_halves_then_their_sum_is_the_whole(halves, place):
    image, objects = torch.randn(2, 5, 8, 8), torch.randn(6, 7, 8, 8)
    whole = torch.cat([image.repeat_interleave(3, 0), objects], 1)
    with torch.inference_mode():
        wanted = F.conv2d(F.relu(whole), halves.weight, halves.bias, padding=1)
        place(halves)
        half = halves.image_half(image, rectify=True)
        result = halves.object_half(objects, half, rectify=True)
        assert (result - wanted).abs().max() < NEAR
        assert (halves(whole, rectify=True) - wanted).abs().max() < NEAR


@pytest.mark.parametrize("shape", [(1, 1), (3, 2), (9, 14)])
@pytest.mark.parametrize("rectify", [False, True])
def test_when_maps_are_convolved_to_one_channel_then_it_is_the_direct_convolution(shape, rectify):
    torch.manual_seed(3)
    conv, maps = BlockConv(19, 1), torch.randn(2, 19, *shape)
    with torch.inference_mode():
        expected = conv(maps, rectify=rectify)
        tile_convolutions(conv)
        found = conv(maps, rectify=rectify)
    assert not torch.equal(found, expected) or shape == (1, 1)  # it was another way
    assert torch.allclose(found, expected, atol=1e-5)


def test_when_gradients_or_another_precision_are_wanted_then_tiles_are_not_used(monkeypatch):
    conv = BlockConv(4, 4)
    tile_convolutions(conv)
    asked = []
    monkeypatch.setattr(kernels, "convolve_tiles", lambda *_: asked.append(1))
    x = torch.randn(1, 4, 8, 8)
    conv(x).sum().backward()
    assert conv.weight.grad is not None
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert conv(x).dtype == torch.bfloat16
    assert not asked
    with torch.inference_mode():
        conv(x)
    assert asked


def test_when_there_is_nowhere_to_keep_what_was_compiled_then_it_is_compiled_all_the_same():
    namespace = {}
    exec("def double(values):\n    for i in range(len(values)):\n        values[i] *= 2\n", namespace)
    values = np.arange(3, dtype=np.float32)
    kernels.compiled(namespace["double"])(values)  # it has no file to be kept beside
    assert values.tolist() == [0, 2, 4]


@torch.inference_mode()
@pytest.mark.parametrize("added_maps", [None, 1, 2, 6])
def test_when_a_1x1_convolution_is_computed_by_a_loop_then_its_maps_and_what_is_added_are_those_of_the_library(
    added_maps,
):
    torch.manual_seed(4)
    conv = BlockConv(26, 40, 1)
    maps = torch.randn(6, 26, 7, 9)
    added = None if added_maps is None else torch.randn(added_maps, 40, 7, 9)
    expected = conv(maps, None if added is None else added.clone())
    tile_convolutions(conv)
    found = conv(maps, added)
    assert torch.allclose(found, expected, atol=1e-5)
    assert torch.equal(conv(maps[4:5], None), conv(maps, None)[4:5])
