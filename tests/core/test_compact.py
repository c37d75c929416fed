"""The compact network's parts."""

import pytest
import torch
import torch.nn.functional as F

from xmem_core.bottleneck import begin, make_beginning
from xmem_core.compact import FRONT_ROWS, CompactKeyEncoder


@pytest.mark.parametrize("rows", [4, FRONT_ROWS, FRONT_ROWS + 4, 3 * FRONT_ROWS - 8])
def test_when_a_picture_is_encoded_in_bands_then_its_maps_are_those_of_the_whole(rows):
    torch.manual_seed(rows)
    encoder = CompactKeyEncoder().eval()
    image = torch.randn(2, 3, 4 * rows, 48)
    whole = encoder(image)
    with torch.no_grad():
        for found, expected in zip(encoder(image), whole, strict=True):
            assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5)


@torch.inference_mode()
@pytest.mark.parametrize("size", [(96, 130), (24, 8), (50, 204), (2, 96), (26, 10)])
def test_when_a_picture_is_begun_by_a_loop_then_its_maps_are_those_of_the_library(size):
    torch.manual_seed(sum(size))
    encoder = CompactKeyEncoder().eval()
    image = torch.randn(2, 3, *size)
    expected = encoder.blocks[0](F.relu6(encoder.stem(image)))
    found = begin(image, make_beginning(encoder.stem, encoder.blocks[0]))
    assert found.shape == expected.shape
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


@torch.inference_mode()
def test_when_a_picture_is_begun_alone_then_its_maps_are_the_same_to_the_last_bit():
    torch.manual_seed(1)
    encoder = CompactKeyEncoder().eval()
    weights = make_beginning(encoder.stem, encoder.blocks[0])
    images = torch.randn(3, 3, 60, 88)
    together = begin(images, weights)
    assert all(torch.equal(begin(images[i : i + 1], weights)[0], together[i]) for i in range(3))
