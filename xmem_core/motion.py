"""Masks carried from one frame to its neighbour along optical flow that somebody else measured.

A direction of motion is (3, h, w) float32 at any resolution: for each position of the frame carried *to*, where its content is in the
frame carried *from* (dx, dy, in pixels of the working size), and how far that is to be believed (0..1).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from xmem_core import kernels

CARRIED_FRAMES = 32  # from a key backwards, at most: the flow's errors add up, and memory stays bounded
PRIOR_RANGE = (0.02, 0.98)  # of what a mask that is no more than a hint may say: its log-odds stay within about 3.9


@dataclass(frozen=True)
class PairMotion:
    """Motion between two frames that follow each other: ``to_later`` and ``to_earlier`` carry masks that way, (3, h, w) each."""

    to_later: Tensor
    to_earlier: Tensor


MotionSource = Callable[[int, int], "PairMotion | None"]  # of an earlier and a later frame number; None when not known


def no_motion(_earlier: int, _later: int) -> None:
    """Give what is known of motion where nobody measured it: nothing."""
    return


def carry(masks: Tensor, trust: Tensor, motion: Tensor) -> tuple[Tensor, Tensor]:
    """Give masks (B, N, H, W) and their trust (B, N or 1, H, W) at the neighbouring frame; motion (B, 3, h, w).

    What comes from outside the picture is 0, its trust too. Trust is multiplied by the motion's own; one that is the same for
    all objects need be given once.
    """
    pictures = torch.cat([masks, trust], 1).float()
    is_shared = trust.shape[1] == 1
    if is_shared and kernels.can_take(pictures):
        moved = _carry_compiled(pictures, motion.float())
    else:
        moved = _carry(pictures, motion.float(), masks.shape[1])
    return moved[:, : masks.shape[1]], moved[:, masks.shape[1] :]


def _carry_compiled(pictures: Tensor, motion: Tensor) -> Tensor:
    """Give pictures (B, n, H, W), the last of which is trust, as `carry` does."""
    wide = motion.new_empty(*motion.shape[1:3], pictures.shape[3])  # (3, h, W)
    moved = torch.empty_like(pictures, memory_format=torch.contiguous_format)
    # Places in memory are computed from it, unchecked.
    motion = torch.nan_to_num(motion, nan=0.0, posinf=0.0, neginf=0.0)
    for each, its_motion, result in zip(pictures.contiguous(), motion.contiguous(), moved, strict=True):
        kernels.widen(its_motion.numpy(), wide.numpy())
        kernels.carry_pictures(each.numpy(), wide.numpy(), result.numpy())
    return moved


def _carry(pictures: Tensor, motion: Tensor, masks: int) -> Tensor:
    """Give pictures (B, n, H, W), after so many masks their trust, as `carry` does, on any device and with gradients."""
    height, width = pictures.shape[-2:]
    centres, scale = _grid(height, width, motion.device)
    full = F.interpolate(motion * scale, size=(height, width), mode="bilinear", align_corners=False)
    grid = full[:, :2].permute(0, 2, 3, 1) + centres  # (B, H, W, 2)
    moved = F.grid_sample(pictures, grid, mode="bilinear", align_corners=False)
    return torch.cat([moved[:, :masks], moved[:, masks:] * full[:, 2:]], 1)


def weigh(masks: Tensor, trust: Tensor) -> Tensor:
    """Give what carried masks (..., N, H, W) say in log-odds, by their trust (..., N or 1, H, W); 0 where that is 0."""
    return torch.logit(masks, PRIOR_RANGE[0]).mul_(trust)  # what is less than that, or nearer to 1, is that


@functools.lru_cache(maxsize=2)
def _grid(height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Give where the pixels of a picture lie in a grid, (H, W, 2), and what brings a motion there, (3, 1, 1): not to be written to."""
    with torch.inference_mode(mode=False):  # training may ask after a propagation did
        rows = (2 * torch.arange(height, dtype=torch.float32, device=device) + 1) / height - 1
        columns = (2 * torch.arange(width, dtype=torch.float32, device=device) + 1) / width - 1
        centres = torch.stack([columns.expand(height, -1), rows[:, None].expand(-1, width)], 2)
        scale = torch.tensor([2 / width, 2 / height, 1], device=device)  # a picture is 2 wide and high in a grid
        return centres, scale[:, None, None]
