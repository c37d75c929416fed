"""The compact network's parts."""

import pytest
import torch
import torch.nn.functional as F

from xmem_core.bottleneck import begin, make_beginning
from xmem_core.compact import FRONT_ROWS, CompactKeyEncoder
from xmem_core.convolution import tile_convolutions
from xmem_core.engine import Engine
from xmem_core.memory import MemoryPolicy
from xmem_core.weights import load_model


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


@pytest.fixture
def few_threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("size", [(64, 160), (112, 64), (130, 202)])
def test_when_a_picture_is_encoded_by_loops_then_its_features_do_not_depend_on_torch_threads(few_threads, size):
    network = load_model("compact").network
    tile_convolutions(network)
    engine = Engine(network, MemoryPolicy())
    image, found = torch.rand(1, 3, *size), []
    for threads in (2, 1):
        torch.set_num_threads(threads)
        found.append(engine.encode(image)[0].features)
    several, one = found
    for name in ("key", "shrinkage", "selection"):
        assert torch.equal(getattr(several, name), getattr(one, name))
    assert all(torch.equal(several.maps[name], one.maps[name]) for name in network.map_names)
