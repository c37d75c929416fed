"""XMem as four parts: key encoder, key projection, value encoder, decoder (paper figure 4).

``XMem`` is the contract that memory, engine and training work against. The full network (the published checkpoints) and
the compact one (shipped) differ only in the parts they are built from.

Shapes: B images, N objects, H and W multiples of 16, h = H/16, w = W/16. CK, CV, CH are the sizes of keys, values
and sensory memory. Images are RGB, normalised by ``NetworkConfig.mean`` and ``std``; masks are 0..1.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xmem_core import blocks, kernels
from xmem_core.blocks import (
    BasicBlock,
    Bottleneck,
    FeatureFusion,
    HiddenReinforcer,
    HiddenUpdater,
    UpsampleBlock,
    fold_objects,
    join_at_16,
    repeat_per_object,
    sum_of_others,
    unfold_objects,
)
from xmem_core.compact import CompactDecoder, CompactKeyEncoder, CompactKeyProjection, CompactValueEncoder
from xmem_core.convolution import BlockConv
from xmem_core.errors import CoreError
from xmem_core.features import Decoded, FrameContext, ImageFeatures, KeyFeatures

STRIDE = 16  # of keys and values against the image


@dataclass(frozen=True)
class NetworkConfig:
    """What is needed to build a network and to feed it.

    ``mean`` and ``std`` are for RGB in 0..1. ``working_size`` is the shorter side in pixels at which this model works best; it may
    give finer mattes than that.
    """

    architecture: str = "xmem"
    key_dim: int = 64
    value_dim: int = 512
    hidden_dim: int = 64
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)  # ImageNet
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    working_size: int = 480  # the paper's
    matte_size: int = (
        0  # shorter side of mattes and carried masks, for networks that follow motion; 0 is the working size
    )


# The pilot's normalisation is (x - 127) / 128 on 0..255, as its pretrained backbone expects.
COMPACT = NetworkConfig(
    architecture="compact",
    key_dim=64,
    value_dim=224,
    hidden_dim=48,
    mean=(127 / 255, 127 / 255, 127 / 255),
    std=(128 / 255, 128 / 255, 128 / 255),
    working_size=360,  # it was trained on 256 pixel shots; larger pictures gain nothing
    matte_size=480,
)


class KeyEncoder(nn.Module):
    """ResNet-50 up to stride 16."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.res2 = blocks.residual_stage(Bottleneck, (64, 64, 1), 3)
        self.layer2 = blocks.residual_stage(Bottleneck, (256, 128, 2), 4)
        self.layer3 = blocks.residual_stage(Bottleneck, (512, 256, 2), 6)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Give what keys are projected from, then f16 (B, 1024, h, w), f8 (B, 512, 2h, 2w), f4 (B, 256, 4h, 4w)."""
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(image))), 3, 2, 1)
        f4 = self.res2(x)
        f8 = self.layer2(f4)
        f16 = self.layer3(f8)
        return f16, f16, f8, f4


class KeyProjection(nn.Module):
    """Key, shrinkage and selection from the deepest map (XMem section 3.3)."""

    def __init__(self, channels: int, key_dim: int) -> None:
        super().__init__()
        self.key_proj = BlockConv(channels, key_dim)
        self.d_proj = BlockConv(channels, 1)
        self.e_proj = BlockConv(channels, key_dim)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Give key (B, CK, h, w), shrinkage (B, 1, h, w) >= 1, selection (B, CK, h, w) in 0..1."""
        return self.key_proj(x), self.d_proj(x) ** 2 + 1, torch.sigmoid(self.e_proj(x))


class ValueEncoder(nn.Module):
    """ResNet-18 over image, mask and other masks, fused with f16."""

    MAPS = ("value_fuser",)

    def __init__(self, value_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(5, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = blocks.residual_stage(BasicBlock, (64, 64, 1), 2)
        self.layer2 = blocks.residual_stage(BasicBlock, (64, 128, 2), 2)
        self.layer3 = blocks.residual_stage(BasicBlock, (128, 256, 2), 2)
        self.fuser = FeatureFusion(1024, 256, value_dim)
        self.hidden_reinforce = HiddenReinforcer(value_dim, hidden_dim)

    def prepare(self, features: KeyFeatures) -> dict[str, Tensor]:
        """Give what this part needs of images alone, by name."""
        return {"value_fuser": self.fuser.image_half(features.f16)}

    def forward(self, image: Tensor, features: ImageFeatures, masks: Tensor) -> Tensor:
        """Give values (B, N, CV, h, w) for image (B, 3, H, W) and masks (B, N, H, W)."""
        objects = masks.shape[1]
        mask_pair = torch.stack([masks, sum_of_others(masks)], 2)  # (B, N, 2, H, W)
        x = torch.cat([repeat_per_object(image, objects), fold_objects(mask_pair)], 1)  # (B*N, 5, H, W)
        x = F.relu(F.max_pool2d(self.bn1(self.conv1(x)), 3, 2, 1))
        x = self.layer3(self.layer2(self.layer1(x)))
        value = self.fuser(features.maps["value_fuser"], x)
        return unfold_objects(value, objects)


class Decoder(nn.Module):
    """Readout and sensory memory to logits."""

    MAPS = ("decoder_fuser", "skip8", "skip4")

    def __init__(self, value_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.fuser = FeatureFusion(1024, value_dim + hidden_dim, 512)
        self.hidden_update = HiddenUpdater((512, 256, 257), 256, hidden_dim)
        self.up_16_8 = UpsampleBlock(512, 512, 256)
        self.up_8_4 = UpsampleBlock(256, 256, 256)
        self.pred = BlockConv(256, 1)

    def prepare(self, features: KeyFeatures) -> dict[str, Tensor]:
        """Give what this part needs of images alone, by name."""
        return {
            "decoder_fuser": self.fuser.image_half(features.f16),
            "skip8": self.up_16_8.skip_conv(features.f8),
            "skip4": self.up_8_4.skip_conv(features.f4),
        }

    def forward(self, features: ImageFeatures, readout: Tensor, hidden: Tensor) -> Decoded:
        """Give the decoded logits for readout (B, N, CV, h, w) and hidden (B, N, CH, h, w)."""
        objects = readout.shape[1]
        per_object = torch.cat([fold_objects(readout), fold_objects(hidden)], 1)
        g16 = self.fuser(features.maps["decoder_fuser"], per_object)
        g8 = self.up_16_8(features.maps["skip8"], g16)
        g4 = self.up_8_4(features.maps["skip4"], g8)
        low = self.pred(g4, rectify=True)
        logits = F.interpolate(low, scale_factor=4.0, mode="bilinear", align_corners=False)
        return Decoded(unfold_objects(logits, objects)[:, :, 0], (g16, g8, join_at_16(g4, low)))


class XMem(nn.Module):
    """The network: three functions of images, masks and readouts, and two updates of the sensory memory."""

    def __init__(
        self,
        config: NetworkConfig,
        key_encoder: KeyEncoder | CompactKeyEncoder,
        key_proj: KeyProjection | CompactKeyProjection,
        value_encoder: ValueEncoder | CompactValueEncoder,
        decoder: Decoder | CompactDecoder,
    ) -> None:
        super().__init__()
        self.config = config
        self.key_encoder = key_encoder
        self.key_proj = key_proj
        self.value_encoder = value_encoder
        self.decoder = decoder

    @property
    def follows_motion(self) -> bool:
        """Whether the decoder takes masks carried along optical flow."""
        return isinstance(self.decoder, CompactDecoder)

    def encode_key(self, images: Tensor) -> KeyFeatures:
        """Give the features of images (B, 3, H, W)."""
        deepest, f16, f8, f4 = self.key_encoder(images)
        key, shrinkage, selection = self.key_proj(deepest)
        return KeyFeatures(key, shrinkage, selection, f16, f8, f4)

    @property
    def map_names(self) -> frozenset[str]:
        """The names of the maps that `prepare` gives."""
        return frozenset({*self.decoder.MAPS, *self.value_encoder.MAPS})

    def prepare(self, features: KeyFeatures) -> ImageFeatures:
        """Give the features with everything done that depends on images alone."""
        maps = {**self.decoder.prepare(features), **self.value_encoder.prepare(features)}
        return ImageFeatures(features.key, features.shrinkage, features.selection, maps)

    def encode_value(self, images: Tensor, features: ImageFeatures, masks: Tensor) -> Tensor:
        """Give values (B, N, CV, h, w) for images (B, 3, H, W) and masks (B, N, H, W)."""
        value: Tensor = self.value_encoder(images, features, masks)
        return value

    def reinforce_hidden(self, value: Tensor, hidden: Tensor) -> Tensor:
        """Give the sensory memory (B, N, CH, h, w) after a deep update from values (B, N, CV, h, w)."""
        new = self.value_encoder.hidden_reinforce(fold_objects(value), fold_objects(hidden))
        return unfold_objects(new, hidden.shape[1])

    def decode(
        self, features: ImageFeatures, readout: Tensor, hidden: Tensor, context: FrameContext | None = None
    ) -> Decoded:
        """Give logits (B, N, H, W) for readout (B, N, CV, h, w) and hidden (B, N, CH, h, w).

        A network that `follows_motion` needs the context; the others do not look at it.
        """
        if not self.follows_motion:
            decoded: Decoded = self.decoder(features, readout, hidden)
            return decoded
        if context is None:
            raise CoreError("This network decodes with masks carried along the picture's motion. Give its context.")
        with_context: Decoded = self.decoder(features, readout, hidden, context)
        return with_context

    def update_hidden(self, decoded: Decoded, hidden: Tensor) -> Tensor:
        """Give the sensory memory (B, N, CH, h, w) after a decoder update."""
        new = self.decoder.hidden_update(decoded.scales, fold_objects(hidden))
        return unfold_objects(new, hidden.shape[1])


def build_network(config: NetworkConfig) -> XMem:
    """Give an untrained network, in evaluation mode.

    Raises CoreError for an architecture that does not exist.
    """
    sizes = (config.value_dim, config.hidden_dim)
    if config.architecture == "xmem":
        network = XMem(config, KeyEncoder(), KeyProjection(1024, config.key_dim), ValueEncoder(*sizes), Decoder(*sizes))
    elif config.architecture == "compact":
        network = XMem(
            config,
            CompactKeyEncoder(),
            CompactKeyProjection(config.key_dim),
            CompactValueEncoder(*sizes),
            CompactDecoder(*sizes),
        )
    else:
        raise CoreError(f"Unknown network architecture {config.architecture!r}; there are 'xmem' and 'compact'.")
    return network.eval()


def aggregate(probabilities: Tensor, dim: int) -> Tensor:
    """Give the probabilities of background and objects together, summing to 1 over ``dim`` (one longer than the input).

    ``probabilities`` are each object's own, 0..1. Background is the product of the complements. Clamped in float32 as
    the published code does, so that 1 - 1e-7 is the nearest float32.
    """
    background = torch.prod(1 - probabilities, dim, keepdim=True)
    least = float(kernels.LEAST_PROBABILITY)
    everything = torch.cat([background, probabilities], dim).float().clamp_(least, 1 - least)
    odds = everything.div_(1 - everything)
    return odds.div_(odds.sum(dim, keepdim=True))  # the softmax of the log-odds, without a logarithm


def aggregate_objects(own: Tensor) -> Tensor:
    """Give the objects' part of `aggregate` over the first dimension: (N, H, W) float32 for each object's own probabilities (N, H, W)."""
    if not kernels.can_take(own):
        return aggregate(own, 0)[1:]
    together = own.float().contiguous()
    normalised = torch.empty_like(together)
    kernels.normalise_odds(together.flatten(1).numpy(), normalised.flatten(1).numpy())
    return normalised
