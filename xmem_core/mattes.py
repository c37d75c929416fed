"""Probabilities to full-resolution soft mattes."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def make_mattes(probabilities: Tensor, height: int, width: int) -> Tensor:
    """Give mattes (N, height, width) float32 0..1 for probabilities (N, h, w), bilinear."""
    if tuple(probabilities.shape[-2:]) == (height, width):
        return probabilities.float()
    enlarged = F.interpolate(probabilities[None].float(), size=(height, width), mode="bilinear", align_corners=False)
    return enlarged[0].clamp(0, 1)
