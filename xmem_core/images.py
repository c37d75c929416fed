"""Pictures and masks on their way into the network: normalise, pad, harden, one-hot.

Images are float32 RGB 0..1, display-referred, (B, 3, H, W). Masks are (H, W).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from xmem_core import kernels
from xmem_core.errors import CoreError

MULTIPLE = 16  # the network's stride


@dataclass(frozen=True)
class Padding:
    """Pixels added on each side so that height and width are multiples of 16; half on each side, the odd one after."""

    top: int
    bottom: int
    left: int
    right: int

    def pad(self, maps: Tensor) -> Tensor:
        """Give maps (..., H, W) with zeros added around."""
        return F.pad(maps, (self.left, self.right, self.top, self.bottom))

    def crop(self, maps: Tensor) -> Tensor:
        """Give maps (..., H, W) with the added pixels taken off."""
        height, width = maps.shape[-2:]
        return maps[..., self.top : height - self.bottom, self.left : width - self.right]


def padding_for(height: int, width: int) -> Padding:
    """Give the padding of a picture of this size."""
    rows, columns = -height % MULTIPLE, -width % MULTIPLE
    return Padding(rows // 2, rows - rows // 2, columns // 2, columns - columns // 2)


def working_shape(height: int, width: int, shorter: int) -> tuple[int, int]:
    """Give (height, width) at which a plate is worked on: its shorter side at ``shorter`` pixels, never enlarged.

    ``shorter`` 0 keeps the plate's size.
    """
    smallest = min(height, width)
    if shorter <= 0 or shorter >= smallest:
        return height, width
    return max(MULTIPLE, round(height * shorter / smallest)), max(MULTIPLE, round(width * shorter / smallest))


@dataclass(frozen=True)
class PaddedCanvas:
    """Masks as the network sees them: at the working size, padded. ``shape`` is (height, width) without the padding."""

    shape: tuple[int, int]
    padding: Padding

    @property
    def mask_shape(self) -> tuple[int, int]:
        """(height, width) of the masks a propagation holds."""
        height, width = self.shape
        return height + self.padding.top + self.padding.bottom, width + self.padding.left + self.padding.right

    def lay(self, masks: Tensor) -> Tensor:
        """Give an artist's masks (..., *shape) as a propagation holds them."""
        return self.padding.pad(masks)

    def crop(self, masks: Tensor) -> Tensor:
        """Give masks a propagation holds as an artist's, (..., *shape)."""
        return self.padding.crop(masks)

    def to_network(self, masks: Tensor) -> Tensor:
        """Give masks (N, *mask_shape) as the network sees them: here they lie so already."""
        return masks


@dataclass(frozen=True)
class FineCanvas:
    """Masks finer than the network's working size: at ``shape``, while the network sees ``working``, padded.

    Both are (height, width) of the whole picture. A propagation holds masks as the artist's lie.
    """

    shape: tuple[int, int]
    working: tuple[int, int]
    padding: Padding

    @property
    def mask_shape(self) -> tuple[int, int]:
        """(height, width) of the masks a propagation holds."""
        return self.shape

    def lay(self, masks: Tensor) -> Tensor:
        """Give an artist's masks (..., *shape) as a propagation holds them: as they are."""
        return masks

    def crop(self, masks: Tensor) -> Tensor:
        """Give masks a propagation holds as an artist's, (..., *shape): as they are."""
        return masks

    def to_network(self, masks: Tensor) -> Tensor:
        """Give masks (N, *shape) as the network sees them: averaged down to the working size, and padded."""
        return self.padding.pad(resize_area(masks[None], self.working)[0])

    def from_network(self, maps: Tensor, shape: tuple[int, int]) -> Tensor:
        """Give maps (B, C, H, W) at the padded working size as (B, C, *shape), bilinear, the padding cropped."""
        cropped = self.padding.crop(maps)
        if tuple(cropped.shape[-2:]) == shape:
            return cropped
        return F.interpolate(cropped, size=shape, mode="bilinear", align_corners=False)


Canvas = PaddedCanvas | FineCanvas


def resize_area(maps: Tensor, shape: tuple[int, int]) -> Tensor:
    """Give maps (B, C, H, W) averaged to (B, C, *shape)."""
    return maps if tuple(maps.shape[-2:]) == shape else F.interpolate(maps, size=shape, mode="area")


def even_shape(height: int, width: int) -> tuple[int, int]:
    """Give (height, width) with odd sides one pixel longer: the finest decoder step takes 2x2 pixels at once."""
    return height + height % 2, width + width % 2


def shrink(
    images: Tensor, shape: tuple[int, int], mean: tuple[float, float, float], std: tuple[float, float, float]
) -> Tensor:
    """Give images (B, 3, H, W) 0..1 averaged to (B, 3, *shape), minus mean, over std."""
    if not kernels.can_take(images):
        return normalise(resize_area(images, shape), mean, std)
    pictures = kernels.lay_channels_last(images)  # (B, H, W, 3)
    small = pictures.new_empty(len(pictures), *shape, 3)
    kernels.shrink(pictures.numpy(), np.array(mean, np.float32), np.array(std, np.float32), small.numpy())
    return small.permute(0, 3, 1, 2)


def normalise(images: Tensor, mean: tuple[float, float, float], std: tuple[float, float, float]) -> Tensor:
    """Give (B, 3, H, W) images 0..1 minus mean, over std."""
    shift = torch.tensor(mean, dtype=images.dtype, device=images.device)[:, None, None]
    scale = torch.tensor(std, dtype=images.dtype, device=images.device)[:, None, None]
    return (images - shift) / scale


def to_grey(images: Tensor) -> Tensor:
    """Give the brightness (B, 1, H, W) uint8 of images (B, 3, H, W) 0..1."""
    if kernels.can_take(images):
        pictures = kernels.lay_channels_last(images)  # (B, H, W, 3)
        grey = torch.empty(pictures.shape[:3], dtype=torch.uint8)
        kernels.find_brightness(pictures.numpy(), grey.numpy())
        return grey[:, None]
    luma = images[:, :1] * kernels.LUMA[0]
    for channel, weight in enumerate(kernels.LUMA[1:], 1):
        luma.add_(images[:, channel : channel + 1], alpha=weight)
    return luma.clamp_(0, 1).mul_(255).round_().to(torch.uint8)


def harden(alphas: Mapping[int, Tensor], shape: tuple[int, int], threshold: float) -> dict[int, Tensor]:
    """Give the masks (height, width) float32 of 0 and 1 that the network sees of an artist's alphas (H, W) by object id.

    Alphas are averaged down to ``shape``, then 1 where they reach ``threshold``; a faint or thin object that nowhere does
    is 1 where it reaches that share of its own peak, so that what the artist drew never vanishes. Where objects overlap
    the smaller one is in front, the lowest id among equals. Raises CoreError when an object is wholly behind others.
    """
    masks = {}
    for object_id, alpha in sorted(alphas.items()):
        small = alpha.float()
        if tuple(small.shape) != shape:
            small = F.interpolate(small[None, None], size=shape, mode="area")[0, 0]
        peak = float(small.max())
        reach = threshold if peak >= threshold else threshold * peak
        masks[object_id] = (small > 0) & (small >= reach)
    taken = torch.zeros(shape, dtype=torch.bool, device=next(iter(alphas.values())).device)
    seen = {}
    for object_id, mask in sorted(masks.items(), key=lambda item: (int(item[1].sum()), item[0])):
        seen[object_id] = mask & ~taken
        taken = taken | mask
        if bool(mask.any()) and not bool(seen[object_id].any()):
            raise CoreError(
                f"Object {object_id} is drawn only where other objects are drawn too. "
                "Give it pixels of its own, or leave it out on this frame."
            )
    return {object_id: seen[object_id].float() for object_id in sorted(seen)}


def split_ids(mask: Tensor, object_ids: tuple[int, ...]) -> dict[int, Tensor]:
    """Give one float32 mask (H, W) of 0 and 1 per object id, for a mask (H, W) of ids."""
    return {object_id: (mask == object_id).float() for object_id in object_ids}
