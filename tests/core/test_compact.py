"""The compact network's parts."""

import pytest
import torch

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
