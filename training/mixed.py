"""Makes a training step cheap on a CPU: bfloat16 for the dense convolutions, fixed depthwise kernels.

Measured on one AMX core, 240 pixels, 5 frames, batch 3: 4.0 s a step in float32, 3.5 s with everything in bfloat16 (the backward of a
depthwise convolution is several times slower there), 2.8 s with the backbone in float32, 1.7 s as below. Half of the
float32 step's backbone was the gradient of depthwise kernels, which are few and pretrained; they stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xmem_core.network import XMem

FLOAT32, BFLOAT16 = "float32", "bfloat16"


class FixedDepthwise(torch.autograd.Function):
    """A depthwise convolution of stride 1 whose kernel gets no gradient; its backward is the same convolution, mirrored.

    oneDNN's own backward of the dilated one takes 20 times as long.
    """

    @staticmethod
    def forward(context: Any, x: Tensor, layer: nn.Conv2d) -> Tensor:
        """Give layer(x), float32."""
        context.layer = layer
        return F.conv2d(x, layer.weight, layer.bias, 1, layer.padding, layer.dilation, layer.groups)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """Give the gradient of x."""
        layer = context.layer
        mirrored = layer.weight.flip(2, 3)
        return F.conv2d(gradients[0], mirrored, None, 1, layer.padding, layer.dilation, layer.groups), None


def fix_depthwise(network: XMem) -> None:
    """Freeze the backbone's depthwise kernels and give those of stride 1 the cheap backward. Changes the network."""
    for layer in network.key_encoder.modules():
        if isinstance(layer, nn.Conv2d) and layer.groups > 1:
            layer.requires_grad_(requires_grad=False)
            in_float = _fixed(layer) if layer.stride[0] == 1 else layer.forward
            layer.forward = _without_autocast(in_float)  # type: ignore[method-assign,assignment]
    # Similarities are differences of large numbers: what they are computed from stays float32.
    network.key_proj.forward = _without_autocast(network.key_proj.forward)  # type: ignore[method-assign,assignment]


def _fixed(layer: nn.Conv2d) -> Callable[[Tensor], Tensor]:
    def forward(x: Tensor) -> Tensor:
        result: Tensor = FixedDepthwise.apply(x, layer)  # type: ignore[no-untyped-call]
        return result

    return forward


def _without_autocast(forward: Callable[[Tensor], Any]) -> Callable[[Tensor], Any]:
    def in_float(x: Tensor) -> Any:
        with torch.autocast(x.device.type, enabled=False):
            return forward(x.float())

    return in_float


def precision_context(precision: str, device: str) -> AbstractContextManager[Any]:
    """The context a forward pass runs in: autocast to bfloat16, or nothing. Raises ValueError for another name."""
    if precision == BFLOAT16:
        return torch.autocast(torch.device(device).type, torch.bfloat16)
    if precision != FLOAT32:
        raise ValueError(f"Wanted precision {FLOAT32!r} or {BFLOAT16!r}, got {precision!r}.")
    return nullcontext()
