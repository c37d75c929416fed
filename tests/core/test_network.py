"""Probabilities of several objects: the compiled form gives what the library gives."""

import pytest
import torch

from xmem_core.network import aggregate, aggregate_objects


@pytest.mark.parametrize("objects", [1, 3])
def test_when_objects_are_aggregated_by_compiled_loops_then_they_are_the_librarys(objects):
    for seed in range(20):
        torch.manual_seed(seed)
        own = torch.sigmoid(torch.randn(objects, 61, 70 + seed) * 20)
        own[:, :3], own[:, 3:6] = 0, 1
        with torch.no_grad():
            found = aggregate_objects(own)
        assert torch.allclose(found, aggregate(own, 0)[1:], rtol=1e-5, atol=1e-7)


def test_when_two_objects_claim_a_pixel_then_odds_are_shared_by_hand():
    own = torch.tensor([0.5, 0.8]).view(2, 1, 1)
    with torch.no_grad():
        found = aggregate_objects(own).flatten().tolist()
    # odds 1, 4 and, for the background of 0.5 * 0.2, 1/9
    assert found == pytest.approx([1 / (5 + 1 / 9), 4 / (5 + 1 / 9)])
