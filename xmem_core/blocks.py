"""Layers of the full XMem network, with the names its published checkpoints use.

Shapes: B images, N objects, C channels. Objects are folded into the batch (B*N) wherever a layer works per object.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xmem_core.convolution import BlockConv, add_per_object


def fold_objects(per_object: Tensor) -> Tensor:
    """Give (B*N, C, h, w) for (B, N, C, h, w)."""
    return per_object.flatten(0, 1)


def unfold_objects(folded: Tensor, objects: int) -> Tensor:
    """Give (B, N, C, h, w) for (B*N, C, h, w)."""
    return folded.unflatten(0, (-1, objects))


def repeat_per_object(per_image: Tensor, objects: int) -> Tensor:
    """Give (B*N, C, h, w) for (B, C, h, w): each image's map once per object, without a copy where there is one image or object."""
    return per_image[:, None].expand(-1, objects, -1, -1, -1).flatten(0, 1)


def sum_of_others(masks: Tensor) -> Tensor:
    """Give, for each object of masks (B, N, H, W), the sum of the other objects' masks, same shape."""
    return masks.sum(1, keepdim=True) - masks


def join_at_16(g4: Tensor, low: Tensor) -> Tensor:
    """Give a decoder's last maps (B, C, 4h, 4w) and its logits (B, 1, 4h, 4w), averaged and joined: (B, C + 1, h, w)."""
    return torch.cat([F.avg_pool2d(g4, 4), F.avg_pool2d(low, 4)], 1)


def double_size(maps: Tensor) -> Tensor:
    """Give maps (B, C, h, w) at twice the size, bilinear."""
    return F.interpolate(maps, scale_factor=2.0, mode="bilinear", align_corners=False)


class BasicBlock(nn.Module):
    """ResNet-18 block: two 3x3 convolutions with BatchNorm."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _square(channels_in, channels, stride)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = _square(channels, channels, 1)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = _projection(channels_in, channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Give (B, channels, h/stride, w/stride)."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        skip = x if self.downsample is None else self.downsample(x)
        return F.relu(y + skip)


class Bottleneck(nn.Module):
    """ResNet-50 block: 1x1, 3x3 (carries the stride), 1x1 to four times the width."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = _square(channels, channels, stride)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, channels * 4, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels * 4)
        self.downsample = _projection(channels_in, channels * 4, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Give (B, 4*channels, h/stride, w/stride)."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        skip = x if self.downsample is None else self.downsample(x)
        return F.relu(y + skip)


def _square(channels_in: int, channels_out: int, stride: int) -> nn.Conv2d:
    if stride == 1:
        return BlockConv(channels_in, channels_out, bias=False)
    return nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False)


def _projection(channels_in: int, channels_out: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and channels_in == channels_out:
        return None
    return nn.Sequential(nn.Conv2d(channels_in, channels_out, 1, stride, bias=False), nn.BatchNorm2d(channels_out))


def residual_stage(
    block: type[BasicBlock] | type[Bottleneck], sizes: tuple[int, int, int], count: int
) -> nn.Sequential:
    """Give a ResNet stage of ``count`` blocks; sizes are (channels in, channels, stride of the first block)."""
    channels_in, channels, stride = sizes
    channels_out = channels * 4 if block is Bottleneck else channels
    rest = [block(channels_out, channels, 1) for _ in range(count - 1)]
    return nn.Sequential(block(channels_in, channels, stride), *rest)


class ResidualBlock(nn.Module):
    """ReLU-conv-ReLU-conv with biases and no normalisation; the skip is a convolution when widths differ."""

    SKIP_KERNEL = 3

    def __init__(self, channels_in: int, channels_out: int, image_channels: int = 0) -> None:
        super().__init__()
        sizes = (channels_in, channels_out, self.SKIP_KERNEL)
        self.downsample = BlockConv(*sizes, image_channels=image_channels) if channels_in != channels_out else None
        self.conv1 = BlockConv(channels_in, channels_out, image_channels=image_channels)
        self.conv2 = BlockConv(channels_out, channels_out)

    def forward(self, x: Tensor) -> Tensor:
        """Give (B, channels_out, h, w)."""
        y = self.conv1(x, rectify=True)
        result: Tensor = self.conv2(y, x if self.downsample is None else self.downsample(x), rectify=True)
        return result


class ChannelGate(nn.Module):
    """CBAM's channel attention over the whole map."""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        # Identity holds place 0: the published names are mlp.1 and mlp.3.
        self.mlp = nn.Sequential(
            nn.Identity(),
            nn.Linear(channels, channels // reduction),
            nn.ReLU(),
            nn.Linear(channels // reduction, channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Give x (B, C, h, w) with each channel scaled."""
        gate = self.mlp(x.mean((2, 3))) + self.mlp(x.amax((2, 3)))
        return x * torch.sigmoid(gate)[:, :, None, None]


class SpatialGate(nn.Module):
    """CBAM's spatial attention."""

    def __init__(self) -> None:
        super().__init__()
        self.spatial = nn.ModuleDict({"conv": nn.Conv2d(2, 1, 7, padding=3)})

    def forward(self, x: Tensor) -> Tensor:
        """Give x (B, C, h, w) with each position scaled."""
        summary = torch.cat([x.amax(1, keepdim=True), x.mean(1, keepdim=True)], 1)
        return x * torch.sigmoid(self.spatial["conv"](summary))


class CBAM(nn.Module):
    """Channel gate, then spatial gate (Woo et al. 2018)."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        self.ChannelGate = ChannelGate(channels, reduction)
        self.SpatialGate = SpatialGate()

    def forward(self, x: Tensor) -> Tensor:
        """Give x gated, same shape."""
        gated: Tensor = self.SpatialGate(self.ChannelGate(x))
        return gated


class FeatureFusion(nn.Module):
    """Image features and per-object features into one map per object."""

    def __init__(self, channels_image: int, channels_object: int, channels_out: int) -> None:
        super().__init__()
        self.block1 = ResidualBlock(channels_image + channels_object, channels_out, channels_image)
        self.attention = CBAM(channels_out)
        self.block2 = ResidualBlock(channels_out, channels_out)

    def image_half(self, image: Tensor) -> Tensor:
        """Give what image (B, CI, h, w) adds to block1, as `image_half` has it."""
        return image_half(self.block1, image)

    def forward(self, half: Tensor, per_object: Tensor) -> Tensor:
        """Give (B*N, channels_out, h, w) for an image half (B, 2*channels_out, h, w) and per_object (B*N, CO, h, w)."""
        x = join_halves(self.block1, half, per_object)
        fused: Tensor = self.block2(x + self.attention(x))
        return fused


def image_half(block: ResidualBlock, image: Tensor) -> Tensor:
    """Give what image (B, CI, h, w) adds to a block's first convolution and to its skip, (B, 2*channels_out, h, w)."""
    return torch.cat([block.conv1.image_half(image, rectify=True), _skip(block).image_half(image)], 1)


def join_halves(block: ResidualBlock, half: Tensor, per_object: Tensor) -> Tensor:
    """Give what a block makes of an `image_half` (B, 2*channels_out, h, w) and of per_object (B*N, CO, h, w): (B*N, channels_out, h, w)."""
    image_first, image_skip = half.chunk(2, 1)
    y = block.conv1.object_half(per_object, image_first, rectify=True)
    return block.conv2(y, _skip(block).object_half(per_object, image_skip), rectify=True)


def _skip(block: ResidualBlock) -> BlockConv:
    if block.downsample is None:
        raise TypeError(
            "A fusion's first block changes the number of channels, so that it has a convolution as its skip."
        )
    return block.downsample


def gated_update(transform: nn.Conv2d, x: Tensor, hidden: Tensor) -> Tensor:
    """Give the new sensory memory (B*N, CH, h, w) from input x (B*N, C, h, w) and the old one.

    Not a standard GRU: the forget gate also multiplies the old state that is kept.
    """
    forget, update, new = transform(torch.cat([x, hidden], 1)).chunk(3, 1)
    update = torch.sigmoid(update)
    return torch.sigmoid(forget) * hidden * (1 - update) + update * torch.tanh(new)


class HiddenReinforcer(nn.Module):
    """Deep update of the sensory memory, from a value (XMem section 3.2)."""

    def __init__(self, value_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.transform = BlockConv(value_dim + hidden_dim, 3 * hidden_dim)

    def forward(self, value: Tensor, hidden: Tensor) -> Tensor:
        """Give the new sensory memory (B*N, CH, h, w)."""
        return gated_update(self.transform, value, hidden)


class HiddenUpdater(nn.Module):
    """Update of the sensory memory from the decoder's maps."""

    def __init__(self, channels: tuple[int, int, int], middle: int, hidden_dim: int) -> None:
        super().__init__()
        self.g16_conv = BlockConv(channels[0], middle, 1)
        self.g8_conv = BlockConv(channels[1], middle, 1)
        self.g4_conv = BlockConv(channels[2], middle, 1)
        self.transform = BlockConv(middle + hidden_dim, 3 * hidden_dim)

    def forward(self, scales: tuple[Tensor, Tensor, Tensor], hidden: Tensor) -> Tensor:
        """Give the new sensory memory (B*N, CH, h, w) for a decoder's maps as `Decoded` has them, logits included in the last."""
        g16, g8, g4 = scales
        g = self.g4_conv(g4, self.g8_conv(F.avg_pool2d(g8, 2), self.g16_conv(g16)))
        return gated_update(self.transform, g, hidden)


class UpsampleBlock(nn.Module):
    """Double the size and add an image skip."""

    def __init__(self, channels_skip: int, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.skip_conv = BlockConv(channels_skip, channels_in)
        self.out_conv = ResidualBlock(channels_in, channels_out)

    def forward(self, skip: Tensor, x: Tensor) -> Tensor:
        """Give (B*N, channels_out, 2h, 2w) for what ``skip_conv`` made of the image (B, C, 2h, 2w), and x (B*N, C, h, w)."""
        upsampled: Tensor = self.out_conv(add_per_object(double_size(x), skip))
        return upsampled
