"""Keys of noise, for rules that compare frames."""

import torch

from xmem_core.dissimilarity import FrameKeys


def keys_of(number, size=(2, 3)):
    """Give a frame's keys, 4 channels, by a number."""
    torch.manual_seed(number)
    return FrameKeys(torch.randn(4, *size), 1 + torch.rand(1, *size), torch.rand(4, *size))
