"""Parts of the compact network: same family and contract as the full one, 7.2 million parameters.

Key encoder: EfficientNet-Lite0's blocks with BatchNorm folded into the convolutions. The value encoder is light and
works on the key encoder's own maps. Values are *mask-anchored*: their last 32 channels are the raw mask cells (own and
others', 4x4 pixels each), so that the readout carries a stride-4 prior of the mask, which the decoder sees and adds to its logits.
The decoder also adds masks that optical flow carried here (``motion``).

Shapes as in ``network``: B images, N objects, h = H/16.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xmem_core import kernels
from xmem_core.blocks import (
    HiddenReinforcer,
    HiddenUpdater,
    ResidualBlock,
    double_size,
    fold_objects,
    image_half,
    join_at_16,
    join_halves,
    repeat_per_object,
    sum_of_others,
    unfold_objects,
)
from xmem_core.bottleneck import Beginning, InvertedBottleneck, SameConv, begin, make_beginning
from xmem_core.convolution import BlockConv, add_per_object, can_tile
from xmem_core.features import Decoded, FrameContext, ImageFeatures, KeyFeatures
from xmem_core.motion import PRIOR_RANGE

# kernel, stride, expansion, channels in, channels out, blocks (EfficientNet-Lite0, stages 1 to 6)
STAGES = (
    (3, 1, 1, 32, 16, 1),
    (3, 2, 6, 16, 24, 2),
    (5, 2, 6, 24, 40, 2),
    (3, 2, 6, 40, 80, 3),
    (5, 1, 6, 80, 112, 3),
    (5, 2, 6, 112, 192, 4),
)
# The widest maps are those of the first three blocks, which make f4 of a picture. Rows of it are computed so many at a time: what a band
# needs stays near the processor, and a large picture takes half the memory. A band sees so many rows of f4 more of the picture above and
# below it, so that the result is the same.
FRONT_BLOCKS, FRONT_STRIDE = 3, 4
FRONT_ROWS, FRONT_ABOVE, FRONT_BELOW = 32, 2, 3
DILATED_CHANNELS = 192  # this stage keeps stride 16: its first stride is dropped, later blocks are dilated
F4_CHANNELS, F8_CHANNELS, F16_CHANNELS = 24, 40, 144
DEEPEST_CHANNELS = 112 + 192
DEEP_GAIN = 0.7  # balances the dilated stage against the one before
CELL = 4  # pixels to a side of one raw mask cell
PRIOR_CHANNELS = 2 * CELL * CELL  # own and others' cells of one stride-16 position
# How much of each carried mask the logits take, where the flow is believed. Not taught: as a convolution or a scale that was
# trained it fell, because short training clips have worse motion than film, and validation got worse (docs/model-card.md).
CARRIED_GAIN = 0.9


def _backbone_blocks() -> list[InvertedBottleneck]:
    made = []
    for kernel, stride, expansion, channels_in, channels_out, count in STAGES:
        dilated = channels_out == DILATED_CHANNELS
        for position in range(count):
            first = position == 0
            made.append(
                InvertedBottleneck(
                    (channels_in if first else channels_out, channels_out),
                    kernel,
                    stride if first and not dilated else 1,
                    expansion,
                    2 if dilated and not first else 1,
                )
            )
    return made


class CompactKeyEncoder(nn.Module):
    """EfficientNet-Lite0 to stride 16, its last stage dilated."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = SameConv(3, 32, 3, 2)
        self.blocks = nn.ModuleList(_backbone_blocks())
        self.reduce16 = BlockConv(DEEPEST_CHANNELS, F16_CHANNELS, 1)
        self._beginning: Beginning | None = None

    @torch.no_grad()
    def tile(self) -> None:
        """Have its first convolution and block computed by a loop of our own from now on where that can be. Weights may not change after."""
        self._beginning = make_beginning(self.stem, cast(InvertedBottleneck, self.blocks[0]))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Give what keys are projected from (B, 304, h, w), then f16 (B, 144, h, w), f8 (B, 40, 2h, 2w), f4 (B, 24, 4h, 4w)."""
        x = f4 = self._in_bands(image) if kernels.can_take(image) else self._front(image)
        maps = []
        for block in self.blocks[FRONT_BLOCKS:]:
            x = block(x)
            maps.append(x)
        f8, stage5, stage6 = maps[1], maps[7], maps[11]  # last blocks of stages 3, 5, 6
        deepest = torch.cat([stage5, stage6 * DEEP_GAIN], 1)
        return deepest, self.reduce16(deepest), f8, f4

    def _front(self, image: Tensor) -> Tensor:
        """Give f4 (B, 24, H/4, W/4) of an image."""
        if self._beginning is not None and can_tile(image) and image.shape[3] >= 2 * kernels.OUTPUTS:
            x = begin(image, self._beginning)
        else:
            x = self.blocks[0](F.relu6(self.stem(image), inplace=True))
        for block in self.blocks[1:FRONT_BLOCKS]:
            x = block(x)
        return x

    def _in_bands(self, image: Tensor) -> Tensor:
        """Give what `_front` gives, some rows after others."""
        rows = image.shape[2] // FRONT_STRIDE
        bands = []
        for first in range(0, rows, FRONT_ROWS):
            last = min(first + FRONT_ROWS, rows)
            top, bottom = max(0, first - FRONT_ABOVE), min(last + FRONT_BELOW, rows)
            found = self._front(image[:, :, FRONT_STRIDE * top : FRONT_STRIDE * bottom])
            bands.append(found[:, :, first - top : last - top])
        return torch.cat(bands, 2)


class CompactKeyProjection(nn.Module):
    """Key, shrinkage and selection from the deepest map."""

    def __init__(self, key_dim: int) -> None:
        super().__init__()
        self.key_proj = BlockConv(DEEPEST_CHANNELS, key_dim)
        self.d_proj = BlockConv(DEEPEST_CHANNELS, 1)
        self.e_proj = BlockConv(DEEPEST_CHANNELS, key_dim)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Give key (B, CK, h, w), shrinkage (B, 1, h, w) >= 1, selection (B, CK, h, w) in 0..1."""
        return self.key_proj(x), self.d_proj(x) ** 2 + 1, torch.sigmoid(self.e_proj(x))


class LightResidualBlock(ResidualBlock):
    """A residual block whose skip is a 1x1 convolution when widths differ."""

    SKIP_KERNEL = 1

    def __init__(self, channels_in: int, channels_out: int, image_channels: int = 0) -> None:
        super().__init__(channels_in, channels_out, image_channels)
        with torch.no_grad():
            # Starts near the identity: trains at the pilot's learning rate without normalisation.
            self.conv2.weight.mul_(0.3)


class LightAttention(nn.Module):
    """CBAM with 1x1 convolutions for the channel gate."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, channels // 8, 1)
        self.expand = nn.Conv2d(channels // 8, channels, 1)
        self.spatial = nn.Conv2d(2, 1, 7, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        """Give x gated by channel, then by position, same shape."""
        x = x * torch.sigmoid(self._channel(x.mean((2, 3), keepdim=True)) + self._channel(x.amax((2, 3), keepdim=True)))
        return x * torch.sigmoid(self.spatial(torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)))

    def _channel(self, pooled: Tensor) -> Tensor:
        gate: Tensor = self.expand(F.relu(self.squeeze(pooled)))
        return gate


class CompactValueEncoder(nn.Module):
    """Masks joined with the key encoder's maps at strides 4, 8 and 16, then the raw mask cells."""

    MAPS = ("f16", "f8", "f4")

    def __init__(self, value_dim: int, hidden_dim: int) -> None:
        super().__init__()
        learned = value_dim - PRIOR_CHANNELS
        self.learned = learned
        self.join4 = BlockConv(F4_CHANNELS + PRIOR_CHANNELS, 48, 1)
        self.block4 = LightResidualBlock(48, 48)
        self.down8 = nn.Conv2d(48, 80, 3, 2, 1)
        self.skip8 = BlockConv(F8_CHANNELS, 80, 1)
        self.block8 = LightResidualBlock(80, 80)
        self.down16 = nn.Conv2d(80, 128, 3, 2, 1)
        self.fuse1 = LightResidualBlock(128 + F16_CHANNELS, learned)
        self.attention = LightAttention(learned)
        self.fuse2 = LightResidualBlock(learned, learned)
        self.hidden_reinforce = LearnedReinforcer(learned, hidden_dim)

    def prepare(self, features: KeyFeatures) -> dict[str, Tensor]:
        """Give what this part needs of images alone, by name: the maps themselves, for what is made of them is larger and cheap."""
        return {"f16": features.f16, "f8": features.f8, "f4": features.f4}

    def forward(self, image: Tensor, features: ImageFeatures, masks: Tensor) -> Tensor:
        """Give values (B, N, CV, h, w) for masks (B, N, H, W); the image is known through its features alone."""
        objects = masks.shape[1]
        others = sum_of_others(masks).clamp(0, 1)
        pair = fold_objects(torch.stack([masks, others], 2))  # (B*N, 2, H, W)
        cells = F.pixel_unshuffle(pair, CELL)  # (B*N, 32, H/4, W/4)
        x = self.block4(self.join4(torch.cat([repeat_per_object(features.maps["f4"], objects), cells], 1)))
        x = self.block8(add_per_object(self.down8(F.relu(x)), self.skip8(features.maps["f8"])))
        x = self.down16(F.relu(x))
        x = self.fuse1(torch.cat([x, repeat_per_object(features.maps["f16"], objects)], 1))
        x = self.fuse2(x + self.attention(x))
        anchors = F.pixel_unshuffle(F.avg_pool2d(pair, CELL), CELL)  # (B*N, 32, h, w)
        return unfold_objects(torch.cat([x, anchors], 1), objects)


class LearnedReinforcer(HiddenReinforcer):
    """Deep update from the learned channels of a value; the raw mask cells are left out."""

    def __init__(self, learned: int, hidden_dim: int) -> None:
        super().__init__(learned, hidden_dim)
        self.learned = learned

    def forward(self, value: Tensor, hidden: Tensor) -> Tensor:
        """Give the new sensory memory (B*N, CH, h, w)."""
        return super().forward(value[:, : self.learned], hidden)


class CompactDecoder(nn.Module):
    """Readout, sensory memory and carried masks to logits.

    The readout brings a mask prior of 4-pixel cells. Masks carried along the optical flow bring whole pixels: they are
    added to the logits at full resolution, by how far the flow is believed.
    """

    MAPS = ("decoder_fuse1", "f8", "f4")

    def __init__(self, value_dim: int, hidden_dim: int) -> None:
        super().__init__()
        learned = value_dim - PRIOR_CHANNELS
        self.learned = learned
        self.anchor = nn.Parameter(torch.tensor(0.7))  # gain of the memory's prior in the logits
        self.fuse1 = LightResidualBlock(F16_CHANNELS + value_dim + hidden_dim, learned, F16_CHANNELS)
        self.attention = LightAttention(learned)
        self.fuse2 = LightResidualBlock(learned, learned)
        self.skip8_image = BlockConv(F8_CHANNELS, 96, 1)
        self.skip8_prior = BlockConv(2, 96, 1, bias=False)
        self.up8 = BlockConv(learned, 96, 1)
        self.block8 = LightResidualBlock(96, 96)
        self.skip4_image = BlockConv(F4_CHANNELS, 64, 1)
        self.skip4_prior = BlockConv(2, 64, 1, bias=False)
        self.up4 = BlockConv(96, 64, 1)
        self.block4 = LightResidualBlock(64, 64)
        self.pred = BlockConv(64, 1)
        self.hidden_update = HiddenUpdater((learned, 96, 65), 96, hidden_dim)

    def prepare(self, features: KeyFeatures) -> dict[str, Tensor]:
        """Give what this part needs of images alone, by name: finer maps as they are, for what is made of them is larger and cheap."""
        return {"decoder_fuse1": image_half(self.fuse1, features.f16), "f8": features.f8, "f4": features.f4}

    def forward(self, features: ImageFeatures, readout: Tensor, hidden: Tensor, context: FrameContext) -> Decoded:
        """Give the decoded logits on the context's canvas, for readout (B, N, CV, h, w) and hidden (B, N, CH, h, w)."""
        objects = readout.shape[1]
        folded = fold_objects(readout)
        prior = F.pixel_shuffle(folded[:, self.learned :], CELL)  # (B*N, 2, H/4, W/4): own and others
        g16 = join_halves(self.fuse1, features.maps["decoder_fuse1"], torch.cat([folded, fold_objects(hidden)], 1))
        g16 = self.fuse2(g16 + self.attention(g16))
        skip8 = self.skip8_prior(F.avg_pool2d(prior, 2), self.skip8_image(features.maps["f8"]))
        g8 = self.block8(skip8.add_(double_size(self.up8(g16))))
        skip4 = self.skip4_prior(prior, self.skip4_image(features.maps["f4"]))
        g4 = self.block4(skip4.add_(double_size(self.up4(g8))))
        low = self.pred(g4, rectify=True) + self.anchor * torch.logit(prior[:, :1].clamp(*PRIOR_RANGE))
        logits = context.canvas.from_network(_enlarge(low), context.canvas.shape)  # (B*N, 1, H, W) on the canvas
        logits = unfold_objects(logits, objects)[:, :, 0].add(context.carried, alpha=CARRIED_GAIN)
        return Decoded(logits, (g16, g8, join_at_16(g4, low)))


def _enlarge(maps: Tensor) -> Tensor:
    """Give maps (B, C, H/4, W/4) at full size, bilinear."""
    return F.interpolate(maps, scale_factor=float(CELL), mode="bilinear", align_corners=False)
