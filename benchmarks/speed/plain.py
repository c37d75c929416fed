"""The reference's way of working, with our network: what every ratio in the speed table is against. Frozen: do not make it faster.

Float32, eager, default memory layout. Every round encodes every frame again, and an annotated frame twice: once ahead of the
propagation, once in it. Memory grows by concatenation. The affinity is a dense matrix (rows, queries): all similarities, the best k of
each query written back into zeros, a matrix product with the values. What depends on the image alone is computed for each
object. Suggestion encodes the clip once more and compares every frame with every chosen one, anew for each pick.

From XMem's published description and `REFERENCE_BEHAVIOUR`'s account of costs (372 GFLOP a frame at 864x480, one object, full
memory); ``tests/core/test_plain.py`` counts them. Motion has no counterpart there: it is measured once a round.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from xmem_core.blocks import double_size, fold_objects, repeat_per_object, sum_of_others, unfold_objects
from xmem_core.carrier import Carrier
from xmem_core.compact import CARRIED_GAIN, CELL, CompactDecoder, CompactValueEncoder
from xmem_core.features import Decoded, KeyFeatures
from xmem_core.images import FineCanvas, PaddedCanvas, normalise, resize_area
from xmem_core.memory import MemoryPolicy
from xmem_core.motion import PRIOR_RANGE, MotionSource
from xmem_core.network import Decoder, ValueEncoder, XMem, aggregate

FetchImage = Callable[[int], Tensor]  # (3, H, W) display-referred 0..1 at a frame number


def similarity(memory: Tensor, shrinkage: Tensor, query: Tensor, selection: Tensor) -> Tensor:
    """Give (N, M) for memory (CK, N), shrinkage (1, N), query and selection (CK, M)."""
    squares = memory.pow(2).T @ selection
    products = 2 * (memory.T @ (query * selection))
    own = (selection * query.pow(2)).sum(0, keepdim=True)
    return (-squares + products - own) * shrinkage.T / math.sqrt(memory.shape[0])


def dense_affinity(scores: Tensor, top_k: int) -> Tensor:
    """Give the affinity (N, M): softmax over each query's best k rows, 0 elsewhere."""
    values, indices = scores.topk(min(top_k, scores.shape[0]), 0)
    weights = (values - values[:1]).exp()
    weights = weights / weights.sum(0, keepdim=True)
    return torch.zeros_like(scores).scatter_(0, indices, weights)


@dataclass
class PlainMemory:
    """Columns key (CK, N), shrinkage (1, N), selection (CK, N), value (objects, CV, N), grown by concatenation."""

    policy: MemoryPolicy
    permanent: list[tuple[Tensor, ...]] = field(default_factory=list)
    working: list[tuple[Tensor, ...]] = field(default_factory=list)
    long_term: list[tuple[Tensor, ...]] = field(default_factory=list)
    use: Tensor = field(default_factory=lambda: torch.zeros(0))
    life: Tensor = field(default_factory=lambda: torch.zeros(0))

    def read(self, features: KeyFeatures) -> Tensor:
        """Give the readout (objects, CV, h, w)."""
        blocks = [*self.long_term, *self.working, *self.permanent]
        key, shrinkage, _, value = (torch.cat(parts, -1) for parts in zip(*blocks, strict=True))
        query, selection = features.key[0].flatten(1), features.selection[0].flatten(1)
        affinity = dense_affinity(similarity(key, shrinkage, query, selection), self.policy.top_k)
        first = sum(block[0].shape[1] for block in self.long_term)
        self.use = self.use + affinity.sum(1)[first : first + self.use.shape[0]]
        self.life = self.life + 1
        return (value.flatten(0, 1) @ affinity).unflatten(0, value.shape[:2]).unflatten(2, features.key.shape[-2:])

    def write(self, block: tuple[Tensor, ...]) -> None:
        """Add a frame to working memory; consolidate when it is full."""
        self.working.append(block)
        self.use = torch.cat([self.use, torch.zeros(block[0].shape[1])])
        self.life = torch.cat([self.life, torch.full((block[0].shape[1],), 1e-7)])
        if not self.policy.long_term or len(self.working) < self.policy.max_working_frames:
            return
        old = self.working[: -self.policy.min_working_frames]
        rows = sum(part[0].shape[1] for part in old)
        key, shrinkage, selection, value = (torch.cat(parts, -1) for parts in zip(*old, strict=True))
        chosen = (self.use / self.life)[:rows].topk(min(self.policy.prototypes, rows)).indices
        scores = similarity(key, shrinkage, key[:, chosen], selection[:, chosen])
        affinity = torch.softmax(scores, 0)
        prototypes = (value.flatten(0, 1) @ affinity).unflatten(0, value.shape[:2])
        self.long_term.append((key[:, chosen], shrinkage @ affinity, selection[:, chosen], prototypes))
        del self.working[: len(old)]
        self.use, self.life = self.use[rows:], self.life[rows:]


@dataclass
class PlainRun:
    """One round over a shot: keys first, then frame after frame."""

    network: XMem
    policy: MemoryPolicy
    canvas: FineCanvas | PaddedCanvas
    fetch_image: FetchImage
    motion: MotionSource
    memory: PlainMemory = field(init=False)

    def __post_init__(self) -> None:
        self.memory = PlainMemory(self.policy)

    def encode(self, frame: int) -> tuple[Tensor, KeyFeatures]:
        """Give the image (1, 3, H, W) as the network sees it, and its features."""
        config = self.network.config
        image = normalise(self.fetch_image(frame)[None], config.mean, config.std)
        if isinstance(self.canvas, PaddedCanvas):
            seen = self.canvas.lay(image)
        else:
            seen = self.canvas.padding.pad(resize_area(image, self.canvas.working))
        return seen, self.network.encode_key(seen)

    @torch.inference_mode()
    def run(self, frames: Sequence[int], keys: Mapping[int, Tensor], save: Callable[[int, Tensor], None]) -> None:
        """Propagate keys (objects, H, W) over the frames; ``save`` takes each frame's mattes (objects, H, W)."""
        laid = {frame: self.canvas.lay(masks) for frame, masks in keys.items()}
        for frame, masks in sorted(laid.items()):
            seen, features = self.encode(frame)
            soft = aggregate(masks, 0)[1:]
            self.memory.permanent.append(make_block(features, self.encode_value(seen, features, soft)))
        objects = len(next(iter(keys.values())))
        annotations = {f: dict(enumerate(masks, 1)) for f, masks in laid.items()}
        carrier = Carrier(tuple(frames), self.motion, lambda frame: annotations.get(frame, {}))
        hidden: Tensor | None = None
        last_memory = 0
        for position, frame in enumerate(frames):
            seen, features = self.encode(frame)
            if hidden is None:
                hidden = torch.zeros(1, objects, self.network.config.hidden_dim, *features.key.shape[-2:])
            carried = None
            if isinstance(self.canvas, FineCanvas):
                shape = torch.zeros(1, 3, *self.canvas.mask_shape)
                carried = carrier.fetch(position, tuple(range(1, objects + 1)), shape)
            remember = frame in laid or position - last_memory >= self.policy.mem_every
            if frame in laid:
                soft = aggregate(laid[frame], 0)[1:]
            else:
                soft, updated = self.decode(features, self.memory.read(features), hidden, carried)
                hidden = hidden if remember else updated  # a memory frame updates it from its value instead
            if remember and position + 1 < len(frames):
                value = self.encode_value(seen, features, soft)
                if frame not in laid:
                    self.memory.write(make_block(features, value))
                hidden = self.network.reinforce_hidden(value[None], hidden)
                last_memory = position
            carrier.previous = dict(enumerate(soft, 1)) if isinstance(self.canvas, FineCanvas) else {}
            save(frame, self.canvas.crop(soft))

    def encode_value(self, seen: Tensor, features: KeyFeatures, masks: Tensor) -> Tensor:
        """Give values (objects, CV, h, w) for masks (objects, *canvas.mask_shape)."""
        laid = self.canvas.to_network(masks)[None]
        encoder = self.network.value_encoder
        if isinstance(encoder, CompactValueEncoder):
            return encode_compact_value(encoder, features, laid)[0]
        return encode_full_value(encoder, seen, features, laid)[0]

    def decode(
        self, features: KeyFeatures, readout: Tensor, hidden: Tensor, carried: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Give probabilities (objects, *canvas.mask_shape) and the new sensory memory (1, objects, CH, h, w)."""
        decoder = self.network.decoder
        if isinstance(decoder, CompactDecoder):
            if carried is None or not isinstance(self.canvas, FineCanvas):
                raise TypeError("The compact network decodes with carried masks on a finer canvas.")
            decoded = decode_compact(decoder, features, readout[None], hidden, (carried, self.canvas))
        else:
            decoded = decode_full(decoder, features, readout[None], hidden)
        probabilities = aggregate(torch.sigmoid(decoded.logits[0]), 0)[1:]
        return probabilities, self.network.update_hidden(decoded, hidden)


def make_block(features: KeyFeatures, value: Tensor) -> tuple[Tensor, ...]:
    """Give a frame's columns for value (objects, CV, h, w)."""
    maps = (features.key[0], features.shrinkage[0], features.selection[0])
    return (*(part.flatten(1) for part in maps), value.flatten(2))


def encode_full_value(encoder: ValueEncoder, image: Tensor, features: KeyFeatures, masks: Tensor) -> Tensor:
    """Give values (1, objects, CV, h, w) of the full network."""
    objects = masks.shape[1]
    pair = torch.stack([masks, sum_of_others(masks)], 2)
    x = torch.cat([repeat_per_object(image, objects), fold_objects(pair)], 1)
    x = F.relu(F.max_pool2d(encoder.bn1(encoder.conv1(x)), 3, 2, 1))
    x = encoder.layer3(encoder.layer2(encoder.layer1(x)))
    x = encoder.fuser.block1(torch.cat([repeat_per_object(features.f16, objects), x], 1))
    return unfold_objects(encoder.fuser.block2(x + encoder.fuser.attention(x)), objects)


def decode_full(decoder: Decoder, features: KeyFeatures, readout: Tensor, hidden: Tensor) -> Decoded:
    """Give what the full network decodes."""
    objects = readout.shape[1]
    x = torch.cat([repeat_per_object(features.f16, objects), fold_objects(torch.cat([readout, hidden], 2))], 1)
    g16 = decoder.fuser.block1(x)
    g16 = decoder.fuser.block2(g16 + decoder.fuser.attention(g16))
    skip8 = repeat_per_object(decoder.up_16_8.skip_conv(features.f8), objects)
    g8 = decoder.up_16_8.out_conv(skip8 + double_size(g16))
    skip4 = repeat_per_object(decoder.up_8_4.skip_conv(features.f4), objects)
    g4 = decoder.up_8_4.out_conv(skip4 + double_size(g8))
    low = decoder.pred(F.relu(g4))
    logits = F.interpolate(low, scale_factor=4.0, mode="bilinear", align_corners=False)
    return Decoded(unfold_objects(logits, objects)[:, :, 0], (g16, g8, F.avg_pool2d(torch.cat([g4, low], 1), 4)))


def encode_compact_value(encoder: CompactValueEncoder, features: KeyFeatures, masks: Tensor) -> Tensor:
    """Give values (1, objects, CV, h, w) of the compact network."""
    objects = masks.shape[1]
    pair = fold_objects(torch.stack([masks, sum_of_others(masks).clamp(0, 1)], 2))
    cells = F.pixel_unshuffle(pair, CELL)
    x = encoder.block4(encoder.join4(torch.cat([repeat_per_object(features.f4, objects), cells], 1)))
    x = encoder.block8(encoder.down8(F.relu(x)) + encoder.skip8(repeat_per_object(features.f8, objects)))
    x = encoder.down16(F.relu(x))
    x = encoder.fuse1(torch.cat([x, repeat_per_object(features.f16, objects)], 1))
    x = encoder.fuse2(x + encoder.attention(x))
    anchors = F.pixel_unshuffle(F.avg_pool2d(pair, CELL), CELL)
    return unfold_objects(torch.cat([x, anchors], 1), objects)


def decode_compact(
    decoder: CompactDecoder,
    features: KeyFeatures,
    readout: Tensor,
    hidden: Tensor,
    context: tuple[Tensor, FineCanvas],
) -> Decoded:
    """Give what the compact network decodes."""
    carried, canvas = context
    objects = readout.shape[1]
    folded = fold_objects(readout)
    prior = F.pixel_shuffle(folded[:, decoder.learned :], CELL)
    g16 = decoder.fuse1(torch.cat([repeat_per_object(features.f16, objects), folded, fold_objects(hidden)], 1))
    g16 = decoder.fuse2(g16 + decoder.attention(g16))
    skip8 = decoder.skip8_image(repeat_per_object(features.f8, objects)) + decoder.skip8_prior(F.avg_pool2d(prior, 2))
    g8 = decoder.block8(skip8 + double_size(decoder.up8(g16)))
    skip4 = decoder.skip4_image(repeat_per_object(features.f4, objects)) + decoder.skip4_prior(prior)
    g4 = decoder.block4(skip4 + double_size(decoder.up4(g8)))
    low = decoder.pred(F.relu(g4)) + decoder.anchor * torch.logit(prior[:, :1].clamp(*PRIOR_RANGE))
    full = F.interpolate(low, scale_factor=float(CELL), mode="bilinear", align_corners=False)
    logits = canvas.from_network(full, canvas.shape) + CARRIED_GAIN * fold_objects(carried)[:, None]
    return Decoded(unfold_objects(logits, objects)[:, :, 0], (g16, g8, F.avg_pool2d(torch.cat([g4, low], 1), 4)))


@torch.inference_mode()
def suggest_plain(
    encode: Callable[[int], KeyFeatures],
    masks: Mapping[int, Tensor],
    annotated: Sequence[int],
    count: int,
    alpha: float = 0.5,
) -> list[int]:
    """Give the frames to annotate next; masks (1, h, w) at key size by frame number."""
    features = {frame: encode(frame) for frame in sorted(masks)}
    weighted = {f: (each.key[0] * (alpha * masks[f] + 1 - alpha)).flatten(1) for f, each in features.items()}
    chosen = list(annotated)
    for _ in range(count):
        nearest = {
            frame: min(_dissimilarity(features, weighted, other, frame) for other in chosen)
            for frame in features
            if frame not in chosen
        }
        if not nearest:
            break
        chosen.append(max(nearest, key=lambda frame: (nearest[frame], -frame)))
    return chosen[len(annotated) :]


def _dissimilarity(features: Mapping[int, KeyFeatures], weighted: Mapping[int, Tensor], a: int, b: int) -> float:
    there = similarity(
        weighted[a], features[a].shrinkage[0].flatten(1), weighted[b], features[b].selection[0].flatten(1)
    )
    back = similarity(
        weighted[b], features[b].shrinkage[0].flatten(1), weighted[a], features[a].selection[0].flatten(1)
    )
    return float((there - back).relu().mean())
