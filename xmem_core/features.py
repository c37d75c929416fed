"""What the network's parts hand to each other.

Shapes: B images, N objects, h = H/16, w = W/16.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from xmem_core.images import FineCanvas


@dataclass(frozen=True)
class KeyFeatures:
    """What the key encoder says of images.

    key (B, CK, h, w), shrinkage (B, 1, h, w) >= 1, selection (B, CK, h, w) in 0..1; f16, f8, f4 are maps at strides 16, 8 and 4.
    """

    key: Tensor
    shrinkage: Tensor
    selection: Tensor
    f16: Tensor
    f8: Tensor
    f4: Tensor


@dataclass(frozen=True)
class ImageFeatures:
    """All that a propagation needs of images, and nothing that is computed of images alone left to do.

    key, shrinkage and selection as in KeyFeatures; ``maps`` are what the network's decoder and value encoder make of the rest, by
    names of their own, (B, C, ...) each.
    """

    key: Tensor
    shrinkage: Tensor
    selection: Tensor
    maps: Mapping[str, Tensor]


@dataclass(frozen=True)
class Decoded:
    """Logits (B, N, H, W), and the maps (B*N, C, ...) at strides 16, 8 and 4 that update the sensory memory, the last averaged to 16."""

    logits: Tensor
    scales: tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class FrameContext:
    """What a decoder may look at beside features and memory.

    ``carried`` (B, N, H, W) is what the masks that flow brought here say, in log-odds weighted by trust, 0 where nothing is known; it
    lies as ``canvas`` says, and logits are given so, too.
    """

    carried: Tensor
    canvas: FineCanvas
