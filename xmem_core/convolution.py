"""3x3 convolutions by Winograd's minimal filtering, F(4x4, 3x3) of Lavin and Gray 2016 (arXiv 1509.09308), on the CPU.

Each 4x4 of outputs costs 36 products for every pair of channels instead of 144. Maps are cut into 6x6 tiles, four apart, and
transformed; then it is 36 matrix products. Results differ from direct convolution by rounding: about 1e-5 of the largest value.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xmem_core import kernels

# Tiles that a thread works on at once: a few, which stay in its cache with their products; more of them where the weights do not stay
# there, and are fetched again each time.
_TILES_AT_ONCE, _TILES_OF_LARGE = 12, 60
_LARGE = 16 * 1024**2  # bytes of weights
# G of the paper's equation 12, as exact fractions over 24
_KERNEL_TRANSFORM = ((6, 0, 0), (-4, -4, -4), (-4, 4, -4), (1, 2, 4), (1, -2, 4), (0, 0, 24))


@dataclass(frozen=True)
class TiledKernel:
    """A 3x3 kernel as tiles take it: ``weight`` (36, C, N), each the next multiple of `kernels.PADDED` of CI and CO, and ``bias`` (CO,)."""

    weight: Tensor
    bias: Tensor


def make_bias(weight: Tensor, bias: Tensor | None) -> Tensor:
    """Give the bias (CO,) that goes with weight (CO, ...), float32, in memory of its own: 0 for None."""
    return weight.new_zeros(weight.shape[0]).float() if bias is None else bias.float().clone()


def make_tiled_kernel(weight: Tensor, bias: Tensor | None) -> TiledKernel:
    """Give the kernel for weight (CO, CI, 3, 3) and bias (CO,), or None for a bias of 0."""
    side = torch.tensor(_KERNEL_TRANSFORM, dtype=torch.float64) / 24
    laid = weight.double().permute(2, 3, 1, 0)  # (3, 3, CI, CO)
    spread = (torch.kron(side, side) @ laid.reshape(9, -1)).unflatten(1, laid.shape[2:])  # (36, CI, CO)
    depth, breadth = laid.shape[2:]
    whole = F.pad(spread.float(), (0, kernels.padded(breadth) - breadth, 0, kernels.padded(depth) - depth))
    return TiledKernel(whole.contiguous(), make_bias(weight, bias))


def convolve_tiled(maps: Tensor, kernel: TiledKernel, added: Tensor | None = None, *, rectify: bool = False) -> Tensor:
    """Give the convolution (B*N, CO, h, w) of maps (B*N, CI, h, w) with 0 around, channels last.

    ``rectify`` takes negative values of maps as 0. ``added`` (B, CO, h, w) is added to the result, each to N maps that
    follow each other.
    """
    laid = kernels.lay_channels_last(maps)
    result = maps.new_empty(*laid.shape[:3], kernel.bias.shape[0])
    more = result[:0] if added is None else kernels.lay_channels_last(added)
    least = kernels.ZERO if rectify else kernels.LEAST
    at_once = _TILES_AT_ONCE if kernel.weight.nbytes < _LARGE else _TILES_OF_LARGE
    room = maps.new_empty(kernels.THREADS, kernels.SEEN**2, at_once, sum(kernel.weight.shape[1:]))
    kernels.convolve_tiles(
        laid.numpy(),
        (kernel.weight.numpy(), kernel.bias.numpy(), least),
        more.numpy(),
        result.numpy(),
        room.numpy(),
    )
    return result.permute(0, 3, 1, 2)


@dataclass(frozen=True)
class SingleKernel:
    """A 3x3 kernel with one channel of outputs, as `convolve_to_one` takes it: ``weight`` (3, 3*CI), ``bias`` float32."""

    weight: Tensor
    bias: float


def make_single_kernel(weight: Tensor, bias: Tensor | None) -> SingleKernel:
    """Give the kernel for weight (1, CI, 3, 3) and bias (1,), or None for a bias of 0."""
    laid = weight[0].permute(1, 2, 0)  # (3, 3, CI)
    return SingleKernel(laid.reshape(3, -1).float().contiguous(), 0.0 if bias is None else float(bias))


def convolve_to_one(maps: Tensor, kernel: SingleKernel, *, rectify: bool = False) -> Tensor:
    """Give the convolution (B, 1, h, w) of maps (B, CI, h, w) with 0 around, channels last; ``rectify`` takes negative values as 0.

    Each output is a sum along three lines of memory: libraries, made for many outputs, take ten times as long.
    """
    laid = kernels.lay_channels_last(maps)
    result = maps.new_empty(laid.shape[:3])
    least = kernels.ZERO if rectify else kernels.LEAST
    kernels.convolve_to_one(laid.numpy(), kernel.weight.numpy(), np.float32(kernel.bias), least, result.numpy())
    return result[:, None]


@dataclass(frozen=True)
class PositionKernel:
    """A 1x1 kernel as loops take it: ``weight`` (CI, N), N the next multiple of `kernels.PADDED` of CO, and ``bias`` (CO,)."""

    weight: Tensor
    bias: Tensor


def make_position_kernel(weight: Tensor, bias: Tensor | None) -> PositionKernel:
    """Give the kernel for weight (CO, CI, 1, 1) and bias (CO,), or None for a bias of 0."""
    breadth = weight.shape[0]
    laid = F.pad(weight.flatten(1).T.float(), (0, kernels.padded(breadth) - breadth))
    return PositionKernel(laid.contiguous(), make_bias(weight, bias))


def convolve_positions(maps: Tensor, kernel: PositionKernel, added: Tensor | None = None) -> Tensor:
    """Give the 1x1 convolution (B, CO, h, w) of maps (B, CI, h, w), channels last, plus what is added, of B maps or of one for all."""
    laid = kernels.lay_channels_last(maps)
    result = maps.new_empty(*laid.shape[:3], kernel.bias.shape[0])
    lines = result.flatten(0, 2)
    more = lines[:0] if added is None else kernels.lay_channels_last(added).flatten(0, 2)
    weights = kernel.weight.numpy(), kernel.bias.numpy()
    kernels.convolve_positions(laid.flatten(0, 2).numpy(), weights, more.numpy(), lines.numpy(), kernels.THREADS)
    return result.permute(0, 3, 1, 2)


@runtime_checkable
class Tileable(Protocol):
    """A part of a network that can be computed by loops of our own."""

    def tile(self) -> None:
        """Have it computed so from now on."""


WHOLE, IMAGE, OBJECT = "whole", "image", "object"  # which channels of its input a convolution takes


class BlockConv(nn.Conv2d):
    """A convolution at stride 1 with 0 around: ReLU before it and addition after it are done on the way.

    It may take an image's channels, ``image_channels`` of them, and then an object's. It is linear, so that the first half of the result is
    computed once for all objects of an image and for all rounds.
    """

    def __init__(
        self, channels_in: int, channels_out: int, kernel: int = 3, *, image_channels: int = 0, bias: bool = True
    ) -> None:
        super().__init__(channels_in, channels_out, kernel, padding=kernel // 2, bias=bias)
        self._channels = {
            WHOLE: slice(None),
            IMAGE: slice(0, image_channels),
            OBJECT: slice(image_channels, None),
        }
        self._kernels: dict[str, TiledKernel | SingleKernel | PositionKernel] = {}

    @torch.no_grad()
    def tile(self) -> None:
        """Have it computed by loops of our own from now on where that can be: 1x1 or 3x3, float32, on the CPU, without gradients.

        3x3 by tiles, or directly where it has one channel of outputs. Weights may not change after.
        """
        make_kernel: Callable[[Tensor, Tensor | None], TiledKernel | SingleKernel | PositionKernel]
        if self.kernel_size == (1, 1):
            make_kernel = make_position_kernel
        elif self.kernel_size == (3, 3):
            make_kernel = make_single_kernel if self.out_channels == 1 else make_tiled_kernel
        else:
            return
        parts = (IMAGE, OBJECT) if self._channels[IMAGE].stop else (WHOLE,)
        self._kernels = {part: make_kernel(*self._weights(part)) for part in parts}

    def forward(self, x: Tensor, added: Tensor | None = None, *, rectify: bool = False) -> Tensor:
        """Give (B*N, CO, h, w) for x (B*N, CI, h, w), negative values taken as 0 where ``rectify``, plus ``added`` (B, CO, h, w)."""
        return self._compute(WHOLE, x, added, rectify=rectify)

    def image_half(self, image: Tensor, *, rectify: bool = False) -> Tensor:
        """Give what an image's channels (B, image_channels, h, w) make of the result, bias included."""
        return self._compute(IMAGE, image, None, rectify=rectify)

    def object_half(self, per_object: Tensor, half: Tensor, *, rectify: bool = False) -> Tensor:
        """Give the whole result (B*N, CO, h, w) for objects' channels and an `image_half` (B, CO, h, w)."""
        return self._compute(OBJECT, per_object, half, rectify=rectify)

    def _weights(self, part: str) -> tuple[Tensor, Tensor | None]:
        return self.weight[:, self._channels[part]], None if part == OBJECT else self.bias

    def _compute(self, part: str, x: Tensor, added: Tensor | None, *, rectify: bool) -> Tensor:
        own = self._kernels.get(part) if can_tile(x) else None
        if isinstance(own, TiledKernel):
            return convolve_tiled(x, own, added, rectify=rectify)
        if isinstance(own, PositionKernel) and not rectify:
            if added is None or added.shape[0] in (1, x.shape[0]):
                return convolve_positions(x, own, added)
            return add_per_object(convolve_positions(x, own), added)
        if isinstance(own, SingleKernel):
            y = convolve_to_one(x, own, rectify=rectify)
        else:
            y = F.conv2d(F.relu(x) if rectify else x, *self._weights(part), padding=self.padding)
        return y if added is None else add_per_object(y, added)


def tile_convolutions(network: nn.Module) -> None:
    """Have a network's convolutions computed by loops of our own where that can be, as `BlockConv.tile` does."""
    kernels.compile_all()
    for part in network.modules():
        if isinstance(part, Tileable):
            part.tile()


def add_per_object(folded: Tensor, per_image: Tensor) -> Tensor:
    """Give maps (B*N, C, h, w) with an image's (B, C, h, w) added to those of its objects, in place."""
    folded.unflatten(0, (per_image.shape[0], -1)).add_(per_image[:, None])
    return folded


def can_tile(x: Tensor) -> bool:
    """Say whether loops of our own may compute what is made of maps: float32, on the CPU, without gradients."""
    return kernels.can_take(x) and x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
