"""Encoded frames, each computed once: tiers near the network in front of a disk tier shared by every job of a session.

What a frame's features depend on (file, place in it, colour, working size, model, precision) is hashed into the name of its
file, so a later propagation or a suggestion finds them, after a restart of the server too. A broken or missing file is
encoded again. Every tier has a budget of bytes; the least recently used go first. While frames are propagated, those that
will be wanted soon are encoded on another thread.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from xmem_core.dissimilarity import FrameKeys
from xmem_core.engine import Engine, FrameFeatures, SeenImage
from xmem_core.features import ImageFeatures
from xmem_protocol import InputError
from xmem_server.decoding import Decoder
from xmem_server.headers import say_which
from xmem_server.plans import PlateSource
from xmem_server.worker.background import BackgroundOwner
from xmem_server.worker.cache_folder import CacheFolder, digest

BATCH_PIXELS = 2_000_000  # at most in one batch: larger pictures fill a device one by one
KEY_FIELDS = ("key", "shrinkage", "selection")
IMAGE = "image"
_LAYOUT = 7  # of the files: raise it whenever they lie or are computed otherwise


@dataclass(frozen=True)
class FeatureBudget:
    """Bytes kept in each tier, and frames encoded at a time.

    On a CPU there is one tier in front of the disk, small on purpose: the system's own file cache stands behind the disk tier, and gives
    way when memory is short. A card has its own tier and pinned host memory behind it.
    """

    host_bytes: int = 192 * 1024**2
    device_bytes: int = 2 * 1024**3
    pinned_bytes: int = 4 * 1024**3
    disk_bytes: int = 16 * 1024**3
    batch: int = 2  # on a CPU as fast as 4, which takes 110 MiB more


@dataclass(frozen=True)
class Encoding:
    """How plates become features: colour space and what it does to numbers, sizes, model and precision.

    ``shape`` is the (height, width) that plates are decoded to, and mattes have before they are enlarged to the plate's own;
    ``working`` is what the network sees, the same or coarser.
    """

    colorspace: str
    colour_id: str
    shape: tuple[int, int]
    working: tuple[int, int]
    model: str


class Tier:
    """Features by frame number within a budget of bytes, though never fewer than ``least`` frames."""

    def __init__(self, nbytes: int, least: int) -> None:
        self._nbytes = nbytes
        self._least = least
        self._kept: OrderedDict[int, FrameFeatures] = OrderedDict()
        self._held = 0

    def __contains__(self, frame: int) -> bool:
        return frame in self._kept

    def fetch(self, frame: int) -> FrameFeatures | None:
        """Give a frame's features, which count as used now."""
        if frame in self._kept:
            self._kept.move_to_end(frame)
        return self._kept.get(frame)

    def keep(self, frame: int, features: FrameFeatures) -> list[tuple[int, FrameFeatures]]:
        """Keep a frame; give those that had to go for it."""
        if frame in self._kept:
            return []
        self._kept[frame] = features
        self._held += _bytes_of(features)
        gone = []
        while self._held > self._nbytes and len(self._kept) > self._least:
            gone.append(self._kept.popitem(last=False))
            self._held -= _bytes_of(gone[-1][1])
        return gone


class FeatureCache(BackgroundOwner):
    """Features of a plan's plates by frame number. Any thread may ask. A context: it ends its threads.

    Plates are decoded and made small on one thread, encoded on the next and written to disk on a third, so that what was looked ahead to is
    there when it is wanted.
    """

    def __init__(
        self,
        engine: Engine,
        decoder: Decoder,
        plates: Sequence[PlateSource],
        encoding: Encoding,
        folder: CacheFolder,
        budget: FeatureBudget,
    ) -> None:
        super().__init__()
        self._engine = engine
        self._decoder = decoder
        self._plates = {plate.frame: plate for plate in plates}
        self._encoding = encoding
        self._folder = folder
        height, width = encoding.shape
        self._batch = max(1, min(budget.batch, BATCH_PIXELS // (height * width)))
        self._device = next(engine.network.parameters()).device
        is_card = self._device.type == "cuda"
        self._near = Tier(budget.device_bytes if is_card else budget.host_bytes, self._batch)
        self._pinned = Tier(budget.pinned_bytes if is_card else 0, 0)
        self._unreadable: dict[int, str] = {}
        self._names: dict[int, str] = {}
        self._blocks = self._make_blocks()
        self._decoding = self.start_background("plates")
        self._encoder = self.start_background("encoder")
        self._keeping = self.start_background("features")
        self._images: dict[tuple[int, ...], Future[dict[int, SeenImage]]] = {}  # the encoding thread's own
        self._coming: dict[tuple[int, ...], Future[Future[dict[int, FrameFeatures]]]] = {}  # encoded, then kept
        self._lock = threading.Lock()  # of the tiers and of what is coming
        self.encoded_count = 0

    @property
    def frames(self) -> AbstractSet[int]:
        """The frame numbers of the plan's plates."""
        return self._plates.keys()

    def _make_blocks(self) -> dict[int, tuple[int, ...]]:
        """Frames encoded together: neighbours by frame number, so that a batch is the same in every run of a plan.

        A frame's features differ in the last bit with its company, and a resumed run must equal an uninterrupted one.
        """
        blocks: dict[int, list[int]] = {}
        for frame in sorted(self._plates):
            blocks.setdefault(frame // self._batch, []).append(frame)
        return {frame: tuple(block) for block in blocks.values() for frame in block}

    def fetch(self, frame: int) -> FrameFeatures:
        """Give a frame's features. Raises InputError when its plate cannot be read."""
        found = self._find(frame) or self._load(frame)
        if found is None and frame not in self._unreadable:
            found = self._wait(self._blocks[frame]).get(frame)
        if found is None:
            raise InputError(self._unreadable[frame])
        return found

    def _wait(self, block: tuple[int, ...]) -> dict[int, FrameFeatures]:
        """Give the features of a block that can be read. Raises what encoding it met; asked again, it is tried again."""
        try:
            return self._begin(block).result().result()
        finally:
            with self._lock:
                self._coming.pop(block, None)

    def look_ahead(self, frame: int) -> None:
        """Begin encoding a frame's block, if that is needed: it will be asked for soon."""
        block = self._blocks.get(frame, ())
        is_known = frame in self._near or frame in self._pinned or frame in self._unreadable
        if block and not is_known and not self._folder.has(self.name(frame)):
            self._begin(block)

    def fetch_keys(self, frame: int) -> FrameKeys:
        """Give a frame's key, shrinkage and selection alone, without its maps. Raises InputError as `fetch` does."""
        tensors = self._folder.load_part(self.name(frame), KEY_FIELDS, self._device)
        if tensors is None:
            features = self.fetch(frame).features
            tensors = (features.key, features.shrinkage, features.selection)
        return FrameKeys(*(tensor[0].float() for tensor in tensors))

    def name(self, frame: int) -> str:
        """Give what a frame's features are known by: everything that they depend on."""
        if frame not in self._names:
            plate = self._plates[frame]
            # The neighbours a frame is encoded with are part of its name: see _make_blocks.
            company = [(other, self._plates[other].sha256, self._plates[other].index) for other in self._blocks[frame]]
            self._names[frame] = digest(
                [_LAYOUT, plate.sha256, plate.index, company, *map(str, vars(self._encoding).values())]
            )
        return self._names[frame]

    def _begin(self, block: tuple[int, ...]) -> Future[Future[dict[int, FrameFeatures]]]:
        """Give the features of a block that can be read, as they come: once encoded, then once kept."""
        with self._lock:
            if block not in self._coming:
                self._coming[block] = self._encoder.submit(self._encode_block, block)
            return self._coming[block]

    def _see_block(self, block: tuple[int, ...]) -> dict[int, SeenImage]:
        """Give the plates of a block that can be read, as the network takes them, and note the others."""
        images = {}
        for frame in block:
            plate = self._plates[frame]
            try:
                pixels = self._decoder.fetch_plate(
                    plate.path, plate.suffix, plate.index, self._encoding.colorspace, self._encoding.shape
                )
            except InputError as error:
                self._unreadable[frame] = str(say_which(f"Frame {frame}'s plate", error))
                continue
            images[frame] = self._engine.see(torch.from_numpy(pixels).to(self._device).permute(2, 0, 1))  # (3, H, W)
        return images

    def _encode_block(self, block: tuple[int, ...]) -> Future[dict[int, FrameFeatures]]:
        """Give the features of a block's images, as they are kept. What goes wrong waits for who asks."""
        begun = self._images.pop(block, None)
        known = {frame: self._find(frame) or self._load(frame) for frame in block}
        found = {frame: features for frame, features in known.items() if features is not None}
        if set(block) <= {*found, *self._unreadable}:  # another thread asked for it just before
            return self._keeping.submit(self._end_block, block, found)
        images = (begun or self._decoding.submit(self._see_block, block)).result()
        self._see_next(block)
        encoded = self._engine.encode_seen(tuple(images.values())) if images else []
        self.encoded_count += len(images)
        return self._keeping.submit(self._keep_block, block, dict(zip(images, encoded, strict=True)))

    def _see_next(self, block: tuple[int, ...]) -> None:
        """Begin with the images of the block after one: more at once would only take memory."""
        with self._lock:
            waiting = [each for each, coming in self._coming.items() if each != block and not coming.done()]
        for soon in waiting[:1]:
            if soon not in self._images:
                self._images[soon] = self._decoding.submit(self._see_block, soon)

    def _keep_block(self, block: tuple[int, ...], encoded: dict[int, FrameFeatures]) -> dict[int, FrameFeatures]:
        """Give features by frame once they are kept.

        On a CPU as their files have them: kept where they were computed, they would leave holes among what comes and goes meanwhile.
        """
        found = {}
        for frame, features in encoded.items():
            self._folder.save(self.name(frame), _as_tensors(features))
            stored = self._load(frame) if self._device.type == "cpu" else None
            found[frame] = stored or self._keep(frame, features)
        return self._end_block(block, found)

    def _end_block(self, block: tuple[int, ...], found: dict[int, FrameFeatures]) -> dict[int, FrameFeatures]:
        with self._lock:
            self._coming.pop(block, None)
        return found

    def _find(self, frame: int) -> FrameFeatures | None:
        """Give features that are near, or wait beside the device."""
        with self._lock:
            found = self._near.fetch(frame)
            waiting = self._pinned.fetch(frame) if found is None else None
        return found if waiting is None else self._keep(frame, _move(waiting, self._device))

    def _keep(self, frame: int, features: FrameFeatures) -> FrameFeatures:
        with self._lock:
            for gone, its_features in self._near.keep(frame, features):
                if self._device.type == "cuda":
                    self._pinned.keep(gone, _move(its_features, torch.device("cpu")))
        return features

    def _load(self, frame: int) -> FrameFeatures | None:
        tensors = self._folder.load(self.name(frame), self._device)
        image = None if tensors is None else tensors.pop(IMAGE, None)
        if tensors is None or image is None or tensors.keys() != {*KEY_FIELDS, *self._engine.network.map_names}:
            return None
        key, shrinkage, selection = (tensors.pop(name) for name in KEY_FIELDS)
        maps = {name: each.permute(0, 3, 1, 2) for name, each in tensors.items()}
        features = ImageFeatures(key, shrinkage, selection, maps)
        return self._keep(frame, FrameFeatures(features, image, self._engine.canvas_for(*self._encoding.shape)))


def _as_tensors(encoded: FrameFeatures) -> dict[str, Tensor]:
    """Give features as their file has them: maps (1, h, w, C), as they lie."""
    features = encoded.features
    keys: dict[str, Any] = {name: getattr(features, name) for name in KEY_FIELDS}
    maps = {name: each.permute(0, 2, 3, 1) for name, each in features.maps.items()}
    return {**keys, **maps, IMAGE: encoded.image}


def _move(encoded: FrameFeatures, device: torch.device) -> FrameFeatures:
    """Give features on another device: on the host in pinned memory, from where they come back without a stop."""

    def move(tensor: Tensor) -> Tensor:
        return tensor.cpu().pin_memory() if device.type == "cpu" else tensor.to(device, non_blocking=True)

    features = encoded.features
    maps = {name: move(value) for name, value in features.maps.items()}
    moved = ImageFeatures(move(features.key), move(features.shrinkage), move(features.selection), maps)
    return FrameFeatures(moved, move(encoded.image), encoded.canvas)


def _bytes_of(encoded: FrameFeatures) -> int:
    return sum(tensor.nbytes for tensor in _as_tensors(encoded).values())
