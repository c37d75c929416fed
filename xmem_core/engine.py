"""One shot: encode its frames, keep its annotations in permanent memory, propagate them (paper section 3).

``Engine`` owns what outlives a propagation: the network, the policy and the permanent memory. ``Propagation`` owns one
forward pass: position, working and long-term memory, sensory memory. The only map from object ids to tensor rows is here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from xmem_core.bank import Bank
from xmem_core.best_rows import NO_STORE, BestRowsStore
from xmem_core.carrier import Carrier
from xmem_core.errors import CoreError
from xmem_core.features import FrameContext, ImageFeatures
from xmem_core.images import Canvas, FineCanvas, PaddedCanvas, normalise, padding_for, shrink, to_grey, working_shape
from xmem_core.memory import PERMANENT_EVERY, PERMANENT_FIRST, Footprint, Memory, MemoryPolicy
from xmem_core.motion import MotionSource, no_motion
from xmem_core.network import XMem, aggregate_objects
from xmem_core.rows import Rows, make_rows


@dataclass(frozen=True)
class FrameFeatures:
    """One encoded frame: its features (batch of 1), its image, and how masks lie.

    The image is what the value encoder looks at, normalised (1, 3, *canvas.mask_shape). A network that follows motion looks at its
    features alone: its image is what motion is measured on, grey (1, 1, *canvas.mask_shape) uint8.
    """

    features: ImageFeatures
    image: Tensor
    canvas: Canvas


@dataclass(frozen=True)
class SeenImage:
    """One image as the network takes it, (1, 3, h, w), with what is kept of it beside its features and how masks lie (`FrameFeatures`)."""

    seen: Tensor
    image: Tensor
    canvas: Canvas


@dataclass(frozen=True)
class FrameResult:
    """What the network says of one frame.

    ``probabilities`` (N, H, W) float32 0..1, one row per object of the shot in the order of ``object_ids``, unpadded,
    background left out.
    """

    frame: int
    object_ids: tuple[int, ...]
    probabilities: Tensor
    annotated: bool


class Engine:
    """The state of one shot between propagations.

    ``working_size`` is the shorter side that a network with finer mattes sees of its images; 0 is all of them.
    """

    def __init__(
        self,
        network: XMem,
        policy: MemoryPolicy,
        precision: torch.dtype = torch.float32,
        working_size: int = 0,
        footprint: Footprint = Footprint(),  # noqa: B008 - frozen
    ) -> None:
        self.footprint = footprint
        self.network = network
        self.policy = policy
        self.working_size = working_size
        self.precision = precision  # of the convolutions; keys, similarities and memory stay float32
        self.permanent = Bank()
        self._annotations: dict[int, dict[int, Tensor]] = {}

    @property
    def annotated_frames(self) -> tuple[int, ...]:
        """Frame numbers that have an annotation, in order."""
        return tuple(sorted(self._annotations))

    @property
    def object_ids(self) -> tuple[int, ...]:
        """Every object some annotation speaks of, sorted."""
        return tuple(sorted({object_id for masks in self._annotations.values() for object_id in masks}))

    def computing(self) -> torch.autocast:
        """Give the context in which the network runs: reduced precision when the engine was made with one."""
        device = next(self.network.parameters()).device.type
        reduced = self.precision != torch.float32
        return torch.autocast(device, dtype=self.precision if reduced else torch.bfloat16, enabled=reduced)

    def annotation(self, frame: int) -> Mapping[int, Tensor]:
        """Give the padded masks by object id at a frame; empty when it has none."""
        return self._annotations.get(frame, {})

    @torch.inference_mode()
    def encode(self, images: Tensor) -> list[FrameFeatures]:
        """Give the features of each image of (B, 3, H, W), RGB display-referred 0..1, on the network's device."""
        return self.encode_seen([self.see(image) for image in images])

    @torch.inference_mode()
    def see(self, image: Tensor) -> SeenImage:
        """Give an image (3, H, W), RGB display-referred 0..1, on the network's device, as the network takes it."""
        config, picture = self.network.config, image[None]
        canvas = self.canvas_for(*picture.shape[-2:])
        if isinstance(canvas, PaddedCanvas):
            seen = canvas.lay(normalise(picture, config.mean, config.std))
            return SeenImage(seen, _copy(seen), canvas)
        small = shrink(picture, canvas.working, config.mean, config.std)
        return SeenImage(canvas.padding.pad(small), to_grey(picture), canvas)

    @torch.inference_mode()
    def encode_seen(self, images: Sequence[SeenImage]) -> list[FrameFeatures]:
        """Give the features of images of one size, encoded together: they differ in the last bit with their company."""
        with self.computing():
            features = self.network.prepare(self.network.encode_key(torch.cat([each.seen for each in images])))
        return [FrameFeatures(_pick(features, i), each.image, each.canvas) for i, each in enumerate(images)]

    def canvas_for(self, height: int, width: int) -> Canvas:
        """Give how the masks of images of this size lie. Raises CoreError for odd sides where the network's mattes are finer."""
        if not self.network.follows_motion:
            return PaddedCanvas((height, width), padding_for(height, width))
        if height % 2 or width % 2:
            raise CoreError(f"This network takes images of even sides; got {width}x{height}.")
        working = working_shape(height, width, self.working_size)
        return FineCanvas((height, width), working, padding_for(*working))

    @torch.inference_mode()
    def annotate(
        self, frame: int, encoded: FrameFeatures, masks: Mapping[int, Tensor], value: Tensor | None = None
    ) -> Tensor | None:
        """Take what the artist says at a frame, in place of anything said there before.

        ``masks`` maps object ids to (H, W) float32 0..1 at the encoded size; all zero means absent, missing means not
        given. Gives the value (N, CV, h, w) that went into permanent memory, objects sorted, to be passed as ``value`` when the
        same is said again: it is not encoded then. None when nothing went there. Raises CoreError for no masks, a wrong
        size or a mask that is not finite.
        """
        if not masks:
            raise CoreError(f"The annotation at frame {frame} names no object. Give at least one mask.")
        expected = encoded.canvas.shape
        padded = {}
        for object_id, mask in sorted(masks.items()):
            if tuple(mask.shape) != expected:
                raise CoreError(
                    f"The mask of object {object_id} at frame {frame} is {mask.shape[-1]}x{mask.shape[0]} "
                    f"but the working size is {expected[1]}x{expected[0]}."
                )
            if not bool(torch.isfinite(mask).all()):
                raise CoreError(f"The mask of object {object_id} at frame {frame} has NaN or infinite pixels.")
            padded[object_id] = encoded.canvas.lay(mask.float())
        self._annotations[frame] = padded
        is_first = self.policy.permanent == PERMANENT_FIRST and frame == self.annotated_frames[0]
        if self.policy.permanent != PERMANENT_EVERY and not is_first:
            return None
        if is_first:
            self.permanent.clear()
        found = self._encode_annotation(encoded, padded) if value is None else value
        self.permanent.put(frame, self.place_rows(make_rows(encoded.features, found, tuple(padded))))
        return found

    def _encode_annotation(self, encoded: FrameFeatures, masks: Mapping[int, Tensor]) -> Tensor:
        soft = aggregate_objects(torch.stack(list(masks.values())))
        with self.computing():
            return _copy(self.encode_value(encoded, soft)[0])

    @property
    def rows_device(self) -> torch.device:
        """Where memory rows live."""
        return self.footprint.rows_device or next(self.network.parameters()).device

    def place_rows(self, rows: Rows) -> Rows:
        """Give rows where memory lives."""
        return rows.to(self.rows_device)

    def encode_value(self, encoded: FrameFeatures, masks: Tensor) -> Tensor:
        """Give values (1, N, CV, h, w) for masks (N, *canvas.mask_shape)."""
        return self.network.encode_value(encoded.image, encoded.features, encoded.canvas.to_network(masks)[None])

    def permanent_bank(self) -> Bank:
        """Give the permanent memory a propagation reads: rows of every permanent annotation, in frame order.

        An object's first *present* annotation defines from where its rows exist: saying that it is absent earlier empties
        its matte there, but is no reference for anything (the golden run E_groups). So the order of edits does not matter.
        """
        first = {}
        for frame in self.annotated_frames:
            for object_id, mask in self._annotations[frame].items():
                if object_id not in first and bool(mask.any()):
                    first[object_id] = frame
        bank = Bank()
        for frame, rows in zip(self.permanent.frames, self.permanent.blocks, strict=True):
            values = {o: value for o, value in rows.values.items() if o in first and first[o] <= frame}
            if values:
                bank.append(frame, replace(rows, values=values))
        return bank

    def remove(self, frame: int) -> None:
        """Forget the annotation at a frame; nothing happens when it has none."""
        if self.policy.permanent == PERMANENT_FIRST and frame in self.permanent.frames and len(self._annotations) > 1:
            raise CoreError(
                f"Frame {frame} is the only permanent reference of this policy. Start again without it instead."
            )
        self._annotations.pop(frame, None)
        self.permanent.remove(frame)

    def start(
        self, frames: tuple[int, ...], motion: MotionSource = no_motion, best_rows: BestRowsStore = NO_STORE
    ) -> Propagation:
        """Give a propagation over these frame numbers, in this order.

        ``motion`` is asked for the motion between two of them that follow each other, by networks that follow motion. What frames find
        in memory is kept in ``best_rows``, and taken from there.
        Raises CoreError when nothing is annotated.
        """
        if not any(bool(mask.any()) for masks in self._annotations.values() for mask in masks.values()):
            raise CoreError("No key shows an object yet. Annotate at least one frame, then propagate.")
        return Propagation(self, frames, motion, best_rows)


class Propagation:
    """One forward pass over a shot; `step` takes the next frame's features."""

    def __init__(self, engine: Engine, frames: tuple[int, ...], motion: MotionSource, best_rows: BestRowsStore) -> None:
        self.engine = engine
        self.frames = frames
        self.carrier = Carrier(frames, motion, engine.annotation)
        self.memory = Memory(engine.policy, engine.permanent_bank(), engine.footprint, best_rows)
        self.position = 0
        self.last_memory = 0
        self.last_deep = -engine.policy.deep_update_every
        self.hidden: dict[int, Tensor] = {}  # object id -> (CH, h, w)
        self.skipped: list[int] = []  # frames that could not be read

    @torch.inference_mode()
    def step(self, encoded: FrameFeatures) -> FrameResult:
        """Give the result of the next frame, and remember what the policy wants remembered of it."""
        if self.position >= len(self.frames):
            raise CoreError("The propagation is finished; start a new one.")
        frame = self.frames[self.position]
        given = self.engine.annotation(frame)
        last = self.position == len(self.frames) - 1
        object_ids = tuple(sorted({*self.memory.object_ids, *given}))
        if not object_ids:  # a policy without permanent memory, before its first key
            self.position += 1
            return self._result(frame, encoded, (), torch.empty(0, *encoded.canvas.mask_shape))
        memory_frame = (bool(given) or self.position - self.last_memory >= self.engine.policy.mem_every) and not last
        deep = memory_frame and self._deep_update_due()
        self._create_hidden(object_ids, encoded)
        probabilities = self._estimate(encoded, object_ids, given, keep_hidden=(self._coupled and deep) or last)
        if memory_frame:
            self._remember(frame, encoded, object_ids, probabilities, deep=deep)
        self.position += 1
        is_carried = self.engine.network.follows_motion
        self.carrier.previous = dict(zip(object_ids, probabilities, strict=True)) if is_carried else {}
        return self._result(frame, encoded, object_ids, probabilities)

    def skip(self) -> None:
        """Pass over the next frame without looking at it: it could not be read."""
        self.skipped.append(self.frames[self.position])
        self.carrier.previous = {}
        self.position += 1

    @property
    def _coupled(self) -> bool:
        return self.engine.policy.deep_update_every < 0

    def _deep_update_due(self) -> bool:
        return self._coupled or self.position - self.last_deep >= self.engine.policy.deep_update_every

    def _result(
        self, frame: int, encoded: FrameFeatures, object_ids: tuple[int, ...], probabilities: Tensor
    ) -> FrameResult:
        """Give the result for every object of the shot; one that is not known yet has an empty matte."""
        everyone = self.engine.object_ids
        if object_ids != everyone:
            known = dict(zip(object_ids, probabilities, strict=True))
            nothing = torch.zeros(encoded.canvas.mask_shape, device=encoded.image.device)
            probabilities = torch.stack([known.get(object_id, nothing) for object_id in everyone])
        return FrameResult(frame, everyone, encoded.canvas.crop(probabilities), bool(self.engine.annotation(frame)))

    def _create_hidden(self, object_ids: tuple[int, ...], encoded: FrameFeatures) -> None:
        height, width = encoded.features.key.shape[-2:]
        size = (self.engine.network.config.hidden_dim, height, width)
        for object_id in object_ids:
            if object_id not in self.hidden:
                self.hidden[object_id] = lay_hidden(torch.zeros(size, device=encoded.image.device))

    def _stack_hidden(self, object_ids: tuple[int, ...]) -> Tensor:
        """Give (1, N, CH, h, w), each object's channels last."""
        laid = torch.stack([self.hidden[object_id].permute(1, 2, 0) for object_id in object_ids])  # (N, h, w, CH)
        return laid.permute(0, 3, 1, 2)[None]

    def _set_hidden(self, object_ids: tuple[int, ...], hidden: Tensor) -> None:
        self.hidden.update({o: lay_hidden(each.float()) for o, each in zip(object_ids, hidden[0], strict=True)})

    def _estimate(
        self, encoded: FrameFeatures, object_ids: tuple[int, ...], given: Mapping[int, Tensor], *, keep_hidden: bool
    ) -> Tensor:
        """Give probabilities (N, H, W), padded: the annotation where given, the network's prediction elsewhere."""
        known = tuple(object_id for object_id in object_ids if object_id in self.memory.object_ids)
        if known == object_ids and not given:
            return self._predict(encoded, known, keep_hidden=keep_hidden)
        predicted = torch.zeros((len(object_ids), *encoded.canvas.mask_shape), device=encoded.image.device)
        if known and not set(object_ids) <= set(given):
            prediction = self._predict(encoded, known, keep_hidden=keep_hidden)
            for object_id, part in zip(known, prediction, strict=True):
                predicted[object_ids.index(object_id)] = part
            if not given:
                return predicted
        region = torch.stack(list(given.values())).sum(0) > 0.5 if given else None
        if region is not None:
            predicted[:, region] = 0  # what the artist gave to one object is taken from all the others
        masks = [given.get(object_id, predicted[place]) for place, object_id in enumerate(object_ids)]
        return aggregate_objects(torch.stack(masks))

    def _predict(self, encoded: FrameFeatures, object_ids: tuple[int, ...], *, keep_hidden: bool) -> Tensor:
        """Give probabilities (N, H, W) by memory read and decoder, and update the sensory memory unless it is kept."""
        features = encoded.features
        readout = self.memory.read(self.frames[self.position], features.key[0], features.selection[0], object_ids)
        carried = None
        if isinstance(encoded.canvas, FineCanvas):
            carried = self.carrier.fetch(self.position, object_ids, encoded.image)
        count = len(object_ids)
        group = self.engine.footprint.objects or count
        parts = [
            self._decode(encoded, object_ids, slice(start, start + group), (readout, carried), keep_hidden=keep_hidden)
            for start in range(0, count, group)
        ]
        logits = parts[0] if len(parts) == 1 else torch.cat(parts)
        return aggregate_objects(torch.sigmoid(logits))

    def _decode(
        self,
        encoded: FrameFeatures,
        object_ids: tuple[int, ...],
        chosen: slice,
        read: tuple[Tensor, Tensor | None],
        *,
        keep_hidden: bool,
    ) -> Tensor:
        """Give logits (n, H, W) of some of the objects: each is decoded by itself, so that any grouping will do."""
        network, (readout, carried) = self.engine.network, read
        ids = object_ids[chosen]
        hidden = self._stack_hidden(ids)
        context = None
        if carried is not None and isinstance(encoded.canvas, FineCanvas):
            context = FrameContext(carried[:, chosen], encoded.canvas)
        with self.engine.computing():
            decoded = network.decode(encoded.features, readout[None, chosen], hidden, context)
            if not keep_hidden:
                self._set_hidden(ids, network.update_hidden(decoded, hidden))
        return decoded.logits[0].float().contiguous()

    def _remember(
        self, frame: int, encoded: FrameFeatures, object_ids: tuple[int, ...], probabilities: Tensor, *, deep: bool
    ) -> None:
        network = self.engine.network
        permanent = frame in self.memory.permanent.frames
        value = self._stored_value(frame, object_ids, encoded) if permanent else None
        if value is None:
            with self.engine.computing():
                value = self.engine.encode_value(encoded, probabilities)
        if not permanent:
            self.memory.write(frame, self.engine.place_rows(make_rows(encoded.features, value[0], object_ids)))
        self.last_memory = self.position
        if deep:
            with self.engine.computing():
                self._set_hidden(object_ids, network.reinforce_hidden(value, self._stack_hidden(object_ids)))
            self.last_deep = self.position

    def _stored_value(self, frame: int, object_ids: tuple[int, ...], encoded: FrameFeatures) -> Tensor | None:
        """Give the value (1, N, CV, h, w) permanent memory has of a frame annotated for every object: the same, not encoded twice."""
        rows = self.memory.permanent.blocks[self.memory.permanent.frames.index(frame)]
        if tuple(sorted(rows.values)) != object_ids:
            return None
        height, width = encoded.features.key.shape[-2:]
        stacked = torch.stack([rows.values[object_id] for object_id in object_ids])  # (N, h*w, CV)
        return stacked.transpose(1, 2).unflatten(2, (height, width))[None].to(encoded.image.device)


def _pick(features: ImageFeatures, place: int) -> ImageFeatures:
    """Give the features of one image of a batch, as a batch of 1 of its own memory."""
    here = slice(place, place + 1)
    key, shrinkage, selection = (_copy(part[here]) for part in (features.key, features.shrinkage, features.selection))
    # As convolutions take them.
    maps = {name: part[here].clone(memory_format=torch.channels_last) for name, part in features.maps.items()}
    return ImageFeatures(key, shrinkage, selection, maps)


def lay_hidden(hidden: Tensor) -> Tensor:
    """Give an object's sensory memory (CH, h, w) in memory of its own, channels last, as convolutions take it.

    Wherever it comes from it lies so: results depend on that in the last bit.
    """
    return hidden.permute(1, 2, 0).clone(memory_format=torch.contiguous_format).permute(2, 0, 1)


def _copy(value: Tensor) -> Tensor:
    """Give the same numbers in memory of their own, laid out as a file would give them back: results depend on that in the last bit."""
    return value.clone(memory_format=torch.contiguous_format)
