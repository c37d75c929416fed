"""A short clip through the network as the engine would take it, with gradients.

Given frames are permanent memory, all of them there before the first frame is predicted. Frames then go in order: a given
frame makes a deep update of the sensory memory; a predicted one either is written to temporary memory (its soft prediction encoded,
deep update) or updates the sensory memory through the decoder, as in ``xmem_core.engine``. The decoder also gets the masks of
the frame before and of the next key, carried along measured optical flow.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from training.losses import aggregate_logits
from xmem_core.affinity import full_affinity, memory_features, query_features, read, top_k_affinity
from xmem_core.features import FrameContext, ImageFeatures
from xmem_core.images import FineCanvas, padding_for, resize_area
from xmem_core.motion import carry, weigh
from xmem_core.network import XMem

GROWN, SHRUNK, LOST = "grown", "shrunk", "lost"


@dataclass(frozen=True)
class ClipPlan:
    """What happens to each frame of a clip.

    ``keys`` are the given frames (0-based, ascending); ``written`` the predicted ones that enter temporary memory; ``spoiled`` maps
    some of those to how their mask is made worse first; ``top_k`` 0 reads memory by a softmax over everything.
    """

    frames: int
    keys: tuple[int, ...]
    written: frozenset[int]
    spoiled: tuple[tuple[int, str], ...] = ()
    top_k: int = 30


def plan_clip(seed: tuple[int, int], frames: int) -> ClipPlan:
    """The plan of one training step: one to three keys, half of the predictions written, some of those spoiled."""
    rng = np.random.default_rng([*seed, 77])  # 77: another stream than the shots of the same seed
    last, kind = frames - 1, rng.random()
    if kind < 0.45:
        keys: tuple[int, ...] = (0,)
    elif kind < 0.68:
        keys = (0, last)
    elif kind < 0.80:
        keys = tuple(sorted({0, int(rng.integers(1, frames)), last}))
    else:
        keys = tuple(sorted({int(key) for key in rng.integers(0, frames, int(rng.choice((1, 1, 2))))}))
    predicted = [frame for frame in range(frames) if frame not in keys]
    if not predicted:
        keys, predicted = (0,), list(range(1, frames))
    written = frozenset(frame for frame in predicted if rng.random() < 0.5)
    kinds = (GROWN, SHRUNK, LOST)
    spoiled = tuple((frame, kinds[int(rng.integers(3))]) for frame in sorted(written) if rng.random() < 0.15)
    return ClipPlan(frames, keys, written, spoiled, int(rng.choice((0, 30))))


def spoil(masks: Tensor, kind: str) -> Tensor:
    """Give soft masks (B, N, H, W) as a propagation that drifts would have them: 4 pixels too large, too small, or half gone."""
    if kind == GROWN:
        return F.max_pool2d(masks, 9, 1, 4) / masks.sum(1, keepdim=True).clamp(min=1)
    if kind == SHRUNK:
        return -F.max_pool2d(-masks, 9, 1, 4)
    kept = torch.ones_like(masks)
    kept[..., masks.shape[-1] // 2 :] = 0.1
    return masks * kept


class ClipMemory:
    """Rows of the frames of B clips that can be read so far: features (B, h*w, F) and values (B, h*w, N*CV) each."""

    def __init__(self, top_k: int) -> None:
        self.top_k = top_k
        self.features: list[Tensor] = []
        self.values: list[Tensor] = []

    def write(self, features: ImageFeatures, value: Tensor) -> None:
        """Add one frame; value (B, N, CV, h, w)."""
        key, shrinkage = features.key.flatten(2).transpose(1, 2), features.shrinkage.flatten(2).transpose(1, 2)
        rows = [memory_features(*pair) for pair in zip(key.float(), shrinkage.float(), strict=True)]
        self.features.append(torch.stack(rows))
        self.values.append(value.float().flatten(1, 2).flatten(2).transpose(1, 2))  # (B, h*w, N*CV)

    def read(self, features: ImageFeatures, objects: int) -> Tensor:
        """Give the readout (B, N, CV, h, w) of a frame; float32 under autocast too, as similarities cancel."""
        with torch.autocast(features.key.device.type, enabled=False):
            return self._read(features, objects)

    def _read(self, features: ImageFeatures, objects: int) -> Tensor:
        memory, values = torch.cat(self.features, 1), torch.cat(self.values, 1)
        key, selection = features.key.flatten(2).transpose(1, 2), features.selection.flatten(2).transpose(1, 2)
        readouts = []
        for clip in range(memory.shape[0]):
            query = query_features(key[clip].float(), selection[clip].float())
            if self.top_k:
                affinity = top_k_affinity(query, [memory[clip]], self.top_k)
                readouts.append(read(affinity, [values[clip]], [values.shape[1]]))
            else:
                readouts.append(full_affinity(query, memory[clip]) @ values[clip])
        height, width = features.key.shape[-2:]
        stacked = torch.stack(readouts).transpose(1, 2)  # (B, N*CV, h*w)
        return stacked.unflatten(1, (objects, -1)).unflatten(3, (height, width))


@dataclass(frozen=True)
class ClipInput:
    """B clips of T frames: images (B, T, 3, H, W) normalised, masks (B, N, T, H, W) 0..1, motion (B, T - 1, 2, 3, H/4, W/4).

    Of the masks only the key frames are looked at. Motion is between neighbours: carrying to the later, to the earlier one.
    ``working`` is the size in pixels that the network sees, a multiple of 16; 0 is the images' own.
    """

    images: Tensor
    masks: Tensor
    motion: Tensor
    working: int = 0


def canvas_of(images: Tensor, working: int) -> FineCanvas:
    """How the masks of square images (..., S, S) lie, of which the network sees ``working`` pixels, 0 for all."""
    shape = (images.shape[-2], images.shape[-1])
    seen = (working, working) if working else shape
    return FineCanvas(shape, seen, padding_for(*seen))


def carry_keys(clip: ClipInput, keys: tuple[int, ...]) -> dict[int, tuple[Tensor, Tensor]]:
    """Give, for each frame before a key, the next key's masks (B, N, H, W) carried back to it and their trust."""
    carried: dict[int, tuple[Tensor, Tensor]] = {}
    start = 0
    for key in keys:
        masks = clip.masks[:, :, key]
        state = (masks, torch.ones_like(masks))
        for frame in range(key - 1, start - 1, -1):
            state = carry(*state, clip.motion[:, frame, 1])
            carried[frame] = state
        start = key + 1
    return carried


def forward_clip(network: XMem, clip: ClipInput, plan: ClipPlan) -> dict[int, Tensor]:
    """Give the aggregate logits (B, N + 1, H, W), background first, of each frame that is not given, in order."""
    images, masks = clip.images, clip.masks
    clips, objects = masks.shape[:2]
    canvas = canvas_of(images, clip.working)
    height, width = canvas.working
    flat = resize_area(images.flatten(0, 1), canvas.working).contiguous(memory_format=torch.channels_last)
    encoded = network.prepare(network.encode_key(flat))
    features = [frame_of(encoded, clips, frame) for frame in range(plan.frames)]
    memory = ClipMemory(plan.top_k)
    given: dict[int, Tensor] = {}
    for frame in plan.keys:
        given[frame] = network.encode_value(
            images[:, frame], features[frame], resize_area(masks[:, :, frame], canvas.working)
        )
        memory.write(features[frame], given[frame])
    from_keys = carry_keys(clip, plan.keys)
    hidden = images.new_zeros(clips, objects, network.config.hidden_dim, height // 16, width // 16)
    spoiled = dict(plan.spoiled)
    predicted: dict[int, Tensor] = {}
    before: Tensor | None = None  # masks (B, N, H, W) of the frame before
    for frame in range(plan.frames):
        if frame in given:
            hidden = network.reinforce_hidden(given[frame], hidden)
            before = masks[:, :, frame]
            continue
        context = FrameContext(gather_carried(clip, frame, before, from_keys), canvas)
        decoded = network.decode(features[frame], memory.read(features[frame], objects), hidden, context)
        predicted[frame] = aggregate_logits(decoded.logits)
        soft = torch.softmax(predicted[frame], 1)[:, 1:]
        soft = spoil(soft, spoiled[frame]) if frame in spoiled else soft
        before = soft.detach()
        if frame in plan.written:
            value = network.encode_value(images[:, frame], features[frame], resize_area(soft, canvas.working))
            memory.write(features[frame], value)
            hidden = network.reinforce_hidden(value, hidden)
        else:
            hidden = network.update_hidden(decoded, hidden)
    return predicted


def gather_carried(
    clip: ClipInput, frame: int, before: Tensor | None, from_keys: dict[int, tuple[Tensor, Tensor]]
) -> Tensor:
    """Give what flow brings to a frame, as `FrameContext` has it, from the masks (B, N, H, W) of the frame before and from the next key."""
    total = torch.zeros_like(clip.masks[:, :, 0])
    if frame in from_keys:
        total += weigh(*from_keys[frame])
    if before is not None:
        total += weigh(*carry(before, torch.ones_like(before), clip.motion[:, frame - 1, 0]))
    return total


def frame_of(encoded: ImageFeatures, clips: int, frame: int) -> ImageFeatures:
    """Give the features of one frame of every clip (B, ...) from those of all frames (B*T, ...)."""

    def pick(maps: Tensor) -> Tensor:
        return maps.unflatten(0, (clips, -1))[:, frame]

    maps = {name: pick(value) for name, value in encoded.maps.items()}
    return ImageFeatures(pick(encoded.key), pick(encoded.shrinkage), pick(encoded.selection), maps)
