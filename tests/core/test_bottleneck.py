"""Inverted bottlenecks by loops of our own give what the convolutions of the library give."""

import pytest
import torch
from torch import nn

from xmem_core import kernels
from xmem_core.bottleneck import InvertedBottleneck
from xmem_core.convolution import tile_convolutions

# Channels in and out, kernel, stride, expansion, dilation, as the encoder has them; then sizes of which parts are left over.
KINDS = [
    ((32, 16), 3, 1, 1, 1),
    ((16, 24), 3, 2, 6, 1),
    ((24, 24), 3, 1, 6, 1),
    ((24, 40), 5, 2, 6, 1),
    ((40, 40), 5, 1, 6, 1),
    ((16, 16), 5, 1, 6, 2),
    ((144, 16), 3, 1, 2, 1),  # sums of more terms than are added one after another
]
SIZES = [(23, 41), (4, 8), (6, 64), (1, 9), (92, 10)]


def make_block(kind, seed=0):
    torch.manual_seed(seed)
    block = InvertedBottleneck(*kind)
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.4)
    return block


@torch.inference_mode()
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", SIZES)
def test_when_a_block_is_computed_by_loops_then_its_maps_are_those_of_the_library(kind, size):
    block = make_block(kind)
    stride = kind[2]  # where it is 2, sides are even
    maps = torch.randn(2, kind[0][0], *(side * stride for side in size))
    expected = block(maps)
    tile_convolutions(block)
    found = block(maps)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


@torch.inference_mode()
@pytest.mark.parametrize("kind", KINDS)
def test_when_a_picture_is_computed_alone_then_its_maps_are_the_same_to_the_last_bit(kind):
    block = make_block(kind)
    tile_convolutions(block)
    maps = torch.randn(3, kind[0][0], 30, 44)
    together = block(maps)
    assert all(torch.equal(block(maps[i : i + 1])[0], together[i]) for i in range(3))


@torch.inference_mode()
def test_when_maps_are_large_then_bands_of_them_give_what_the_whole_gives():
    block = make_block(KINDS[1])
    maps = torch.randn(1, 16, 200, 330)
    expected = block(maps)
    tile_convolutions(block)
    assert (block(maps) - expected).abs().max() < 1e-5 * expected.abs().max()


def test_when_gradients_are_wanted_or_maps_are_narrow_then_the_library_computes(monkeypatch):
    block, asked = make_block(KINDS[2]), []
    tile_convolutions(block)
    compute = kernels.widen_and_filter
    monkeypatch.setattr(kernels, "widen_and_filter", lambda *given: asked.append(1) or compute(*given))
    maps = torch.randn(1, 24, 8, 8)
    block(maps).sum().backward()
    assert block.project.weight.grad is not None
    with torch.inference_mode():
        block(maps[..., :3])
        assert not asked
        block(maps)
    assert asked


def test_when_positions_are_multiplied_then_each_is_its_own_sum_and_what_is_added_is_added():
    weight = torch.zeros(2, 16)
    weight[0, 0], weight[1, 0], weight[1, 1] = 2, 10, 1
    result = torch.full((100, 2), 7.0)
    maps = torch.tensor([[1.0, 3.0]]).repeat(100, 1)
    added = torch.arange(200.0).reshape(100, 2)
    kernels.convolve_positions(
        maps.numpy(),
        (weight.numpy(), torch.tensor([0.5, -1.0]).numpy()),
        added.numpy(),
        result.numpy(),
        kernels.THREADS,
    )
    assert torch.equal(result - added, torch.tensor([[32.5, 2.0]]).repeat(100, 1))
