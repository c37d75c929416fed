"""Inverted bottlenecks of EfficientNet-Lite0: expand, filter by depth, project; on the CPU in loops of our own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xmem_core import kernels
from xmem_core.convolution import PositionKernel, can_tile, convolve_positions, make_bias, make_position_kernel

_SEEN_VALUES = 96 * 1024  # of wide maps that a thread holds at once: they stay in its cache
_BANDS = 4  # rows of a band against those that it sees beside its own, at least: they are computed twice


class SameConv(nn.Conv2d):
    """A convolution with TensorFlow's SAME padding for even sizes, as the pretrained backbone was trained with."""

    def __init__(
        self, channels_in: int, channels_out: int, kernel: int, stride: int = 1, groups: int = 1, dilation: int = 1
    ) -> None:
        before = (kernel - 2) // 2 if stride == 2 else kernel // 2 * dilation
        padding = kernel - 2 - before if stride == 2 else before
        super().__init__(channels_in, channels_out, kernel, stride, padding, groups=groups, dilation=dilation)
        self.before = before  # positions that an output sees before its own
        # SAME pads one side more than the other. A kernel with zeros on the other side does that without a padded copy of the map.
        self.more = padding - before

    def forward(self, x: Tensor) -> Tensor:
        """Give (B, channels_out, h/stride, w/stride)."""
        weight = F.pad(self.weight, (self.more, 0, self.more, 0)) if self.more else self.weight
        return F.conv2d(x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


@dataclass(frozen=True)
class Beginning:
    """The weights that an encoder begins with, as a loop takes them: a convolution (9*C, M), filters (9, M), narrowing (M, CO), each with its bias."""

    convolution: tuple[Tensor, Tensor]
    filters: tuple[Tensor, Tensor]
    narrowing: tuple[Tensor, Tensor]


def make_beginning(convolution: SameConv, block: InvertedBottleneck) -> Beginning:
    """Give the weights of a 3x3 convolution that halves and of the block after it, which does not expand."""
    breadth = convolution.out_channels
    laid = convolution.weight.permute(2, 3, 1, 0).reshape(-1, breadth)  # (3*3*C, M)
    narrowing = make_position_kernel(block.project.weight, block.project.bias)
    return Beginning(
        (laid.float().contiguous(), make_bias(convolution.weight, convolution.bias)),
        _make_filters(block.depthwise),
        (narrowing.weight, narrowing.bias),
    )


def begin(image: Tensor, weights: Beginning) -> Tensor:
    """Give maps (B, CO, H/2, W/2) of images (B, C, H, W) of even sides, channels last: the convolution and the block, ReLU6 between."""
    laid = kernels.lay_channels_last(image)
    count, height, width, _ = laid.shape
    result = image.new_empty(count, height // 2, width // 2, len(weights.narrowing[1]))
    each = (_arrays(pair) for pair in (weights.convolution, weights.filters, weights.narrowing))
    kernels.begin(laid.numpy(), tuple(each), result.numpy(), kernels.THREADS)
    return result.permute(0, 3, 1, 2)


def _make_filters(depthwise: SameConv) -> tuple[Tensor, Tensor]:
    """Give the weight (k*k, C) and bias (C,) of a depthwise convolution."""
    return depthwise.weight.flatten(1).T.float().contiguous(), make_bias(depthwise.weight, depthwise.bias)


@dataclass(frozen=True)
class _Weights:
    """A bottleneck's weights as loops take them: widening (G, CI, S) and filters (k*k, C), each with its bias, and narrowing."""

    widening: tuple[Tensor, Tensor]
    filters: tuple[Tensor, Tensor]
    narrowing: PositionKernel


class InvertedBottleneck(nn.Module):
    """Expand, depthwise, project; ReLU6 between."""

    def __init__(self, sizes: tuple[int, int], kernel: int, stride: int, expansion: int, dilation: int) -> None:
        super().__init__()
        channels_in, channels_out = sizes
        middle = channels_in * expansion
        self.expand = SameConv(channels_in, middle, 1) if expansion > 1 else None
        self.depthwise = SameConv(middle, middle, kernel, stride, groups=middle, dilation=dilation)
        self.project = SameConv(middle, channels_out, 1)
        self.residual = stride == 1 and channels_in == channels_out
        self._weights: _Weights | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Give (B, channels out, h/stride, w/stride)."""
        if self._weights is not None and can_tile(x) and x.shape[3] >= kernels.OUTPUTS * self.depthwise.stride[1]:
            return self._compute(x, self._weights)
        y = x if self.expand is None else F.relu6(self.expand(x), inplace=True)
        y = self.project(F.relu6(self.depthwise(y), inplace=True))
        return x + y if self.residual else y

    @torch.no_grad()
    def tile(self) -> None:
        """Have it computed by loops of our own from now on where that can be: float32, on the CPU, without gradients.

        One that does not expand stays as it is: `begin` computes it with what is before it. Weights may not change after.
        """
        middle = self.depthwise.out_channels
        kind = self.depthwise.kernel_size[0], self.depthwise.dilation[0], self.depthwise.stride[0]
        if self.expand is None or kind not in kernels.FILTERS or middle % kernels.PADDED:
            return
        group = kernels.GROUP if middle % kernels.GROUP == 0 else kernels.PADDED
        weight = self.expand.weight.flatten(1).T  # (CI, C)
        widening = (
            weight.unflatten(1, (-1, group)).transpose(0, 1).float().contiguous(),
            make_bias(self.expand.weight, self.expand.bias),
        )
        narrowing = make_position_kernel(self.project.weight, self.project.bias)
        self._weights = _Weights(widening, _make_filters(self.depthwise), narrowing)

    def _compute(self, x: Tensor, weights: _Weights) -> Tensor:
        laid = kernels.lay_channels_last(x)
        count, height, width, _ = laid.shape
        stride, dilation = self.depthwise.stride[0], self.depthwise.dilation[0]
        rows, columns = -(-height // stride), -(-width // stride)
        filtered = x.new_empty(count, rows, columns, self.depthwise.out_channels)
        room = x.new_empty(kernels.THREADS, *self._seen_at_once(rows, columns, width), kernels.GROUP)
        kernels.widen_and_filter(
            laid.numpy(),
            _arrays(weights.widening),
            _arrays(weights.filters),
            (stride, dilation, self.depthwise.before),
            filtered.numpy(),
            room.numpy(),
        )
        return convolve_positions(filtered.permute(0, 3, 1, 2), weights.narrowing, x if self.residual else None)

    def _seen_at_once(self, rows: int, columns: int, width: int) -> tuple[int, int]:
        """Give how much of the wide maps a thread filters at once, rows and columns, for so many rows and columns of outputs."""
        depthwise = self.depthwise
        stride, reach = depthwise.stride[0], (depthwise.kernel_size[0] - 1) * depthwise.dilation[0]
        seen = max(depthwise.before + width, (columns - 1) * stride + reach + 1)
        fitting = (_SEEN_VALUES // (seen * kernels.GROUP) - reach - 1) // stride + 1
        bands = -(-rows // max(fitting, _BANDS * reach // stride))
        return (-(-rows // bands) - 1) * stride + reach + 1, seen


def _arrays(pair: tuple[Tensor, Tensor]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    weight, bias = pair
    return weight.numpy(), bias.numpy()
