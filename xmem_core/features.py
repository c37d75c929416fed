"""What the network's parts hand to each other.

Shapes: B images, N objects, h = H/16, w = W/16.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from xmem_core.images import FineCanvas
from xmem_core.motion import CarriedMasks


@dataclass(frozen=True)
class KeyFeatures:
    """Everything the network knows of images alone.

    key (B, CK, h, w), shrinkage (B, 1, h, w) >= 1, selection (B, CK, h, w) in 0..1; f16, f8, f4 are maps for the
    decoder and the value encoder at strides 16, 8 and 4.
    """

    key: Tensor
    shrinkage: Tensor
    selection: Tensor
    f16: Tensor
    f8: Tensor
    f4: Tensor


@dataclass(frozen=True)
class Decoded:
    """Logits (B, N, H, W), and the maps (B*N, C, ...) at strides 16, 8 and 4 that update the sensory memory."""

    logits: Tensor
    scales: tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class FrameContext:
    """What a decoder may look at beside features and memory: masks carried here by flow, lying as ``canvas`` says.

    Logits are given so, too.
    """

    carried: CarriedMasks
    canvas: FineCanvas
