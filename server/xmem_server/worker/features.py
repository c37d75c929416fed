"""Encoded frames, each computed once: a small host tier in front of a disk tier shared by every job of a session.

What a frame's features depend on (file, place in it, colour, working size, model, precision) is hashed into the name of its
file, so a later propagation or a suggestion finds them, after a restart of the server too. A broken or missing file is
encoded again. Both tiers have a budget; the least recently used go first.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from xmem_core.engine import Engine, FrameFeatures
from xmem_core.features import ImageFeatures
from xmem_core.keyframes import FrameKeys
from xmem_core.motion import CARRIED_FRAMES, PairMotion
from xmem_protocol import InputError
from xmem_server.decoding import Decoder
from xmem_server.headers import say_which
from xmem_server.plans import PlateSource
from xmem_server.worker.optical_flow import measure_motion

FIELDS = ("key", "shrinkage", "selection")
IMAGE = "image"
MOTION_FIELDS = tuple(field.name for field in fields(PairMotion))
MOTIONS_KEPT = 2 * CARRIED_FRAMES  # in host memory: the way back from a key, and the frames just passed
FLOW = "dis-medium-1"  # changes with whatever changes the measured motion
LUMA = (0.299, 0.587, 0.114)  # Rec. 601, of R, G, B


@dataclass(frozen=True)
class FeatureBudget:
    """Bytes kept in host memory and on disk, and frames encoded at a time.

    The host tier is small on purpose: the system's own file cache stands behind the disk tier, and gives way when memory is short.
    """

    host_bytes: int = 192 * 1024**2
    disk_bytes: int = 16 * 1024**3
    batch: int = 4


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


class FeatureCache:
    """Features of a plan's plates by frame number."""

    def __init__(
        self,
        engine: Engine,
        decoder: Decoder,
        plates: Sequence[PlateSource],
        encoding: Encoding,
        folder: Path,
        budget: FeatureBudget,
    ) -> None:
        self._engine = engine
        self._decoder = decoder
        self._plates = {plate.frame: plate for plate in plates}
        self._encoding = encoding
        self._folder = folder
        self._budget = budget
        self._host: OrderedDict[int, FrameFeatures] = OrderedDict()
        self._motion: OrderedDict[tuple[int, int], PairMotion] = OrderedDict()
        self._grey: OrderedDict[int, npt.NDArray[np.uint8]] = OrderedDict()
        self._unreadable: dict[int, str] = {}
        self._blocks = self._make_blocks()
        self._device = next(engine.network.parameters()).device
        self.encoded_count = 0
        folder.mkdir(parents=True, exist_ok=True)

    def _make_blocks(self) -> dict[int, tuple[int, ...]]:
        """Frames encoded together: neighbours by frame number, so that a batch is the same in every run of a plan.

        A frame's features differ in the last bit with its company, and a resumed run must equal an uninterrupted one.
        """
        blocks: dict[int, list[int]] = {}
        for frame in sorted(self._plates):
            blocks.setdefault(frame // self._budget.batch, []).append(frame)
        return {frame: tuple(block) for block in blocks.values() for frame in block}

    def fetch(self, frame: int) -> FrameFeatures:
        """Give a frame's features. Raises InputError when its plate cannot be read."""
        if frame in self._unreadable:
            raise InputError(self._unreadable[frame])
        if frame not in self._host:
            stored = self._load(frame)
            if stored is None:
                self._encode_block(frame)
                if frame in self._unreadable:
                    raise InputError(self._unreadable[frame])
            else:
                self._keep(frame, stored)
        self._host.move_to_end(frame)
        return self._host[frame]

    def fetch_keys(self, frame: int) -> FrameKeys:
        """Give a frame's key, shrinkage and selection alone, without its maps. Raises InputError as `fetch` does."""
        path = self._path(frame)
        try:
            with safe_open(path, framework="pt", device=str(self._device)) as stored:
                tensors = [stored.get_tensor(name)[0] for name in ("key", "shrinkage", "selection")]
        except (SafetensorError, OSError):
            features = self.fetch(frame).features
            tensors = [features.key[0], features.shrinkage[0], features.selection[0]]
        return FrameKeys(*(tensor.float() for tensor in tensors))

    def _encode_block(self, wanted: int) -> None:
        images: dict[int, Tensor] = {}
        for frame in self._blocks[wanted]:
            plate = self._plates[frame]
            try:
                pixels = self._decoder.fetch_plate(
                    plate.path, plate.suffix, plate.index, self._encoding.colorspace, self._encoding.shape
                )
            except InputError as error:
                self._unreadable[frame] = str(say_which(f"Frame {frame}'s plate", error))
                continue
            images[frame] = torch.from_numpy(pixels).permute(2, 0, 1)  # (3, H, W)
        if not images:
            return
        batch = torch.stack(list(images.values())).to(self._device)  # (B, 3, H, W)
        self.encoded_count += len(images)
        for frame, features in zip(images, self._engine.encode(batch), strict=True):
            self._store(frame, features)
            self._keep(frame, features)

    def _keep(self, frame: int, features: FrameFeatures) -> None:
        self._host[frame] = features
        kept = max(self._budget.batch, self._budget.host_bytes // _bytes_of(features))
        while len(self._host) > kept:
            self._host.popitem(last=False)

    def _path(self, frame: int) -> Path:
        plate = self._plates[frame]
        # The neighbours a frame is encoded with are part of its name: see _make_blocks.
        company = [(other, self._plates[other].sha256, self._plates[other].index) for other in self._blocks[frame]]
        name = [plate.sha256, plate.index, company, *map(str, vars(self._encoding).values())]
        return self._folder / f"{hashlib.sha256(json.dumps(name).encode()).hexdigest()}.safetensors"

    def _store(self, frame: int, features: FrameFeatures) -> None:
        """Write a frame to the disk tier. A full disk only means that it is encoded again."""
        path = self._path(frame)
        tensors = {name: getattr(features.features, name) for name in FIELDS} | dict(features.features.maps)
        tensors[IMAGE] = features.image
        self._write(path, {name: value.cpu().contiguous() for name, value in tensors.items()})

    def _write(self, path: Path, tensors: Mapping[str, Tensor]) -> None:
        temporary = path.with_suffix(f".{os.getpid()}.{threading.get_ident()}.tmp")
        try:
            save_file(dict(tensors), temporary)
            temporary.replace(path)
            self._trim()
        except (OSError, SafetensorError):
            temporary.unlink(missing_ok=True)

    def _trim(self) -> None:
        entries = [(entry.stat(), Path(entry.path)) for entry in os.scandir(self._folder)]
        total = sum(status.st_size for status, _ in entries)
        for status, path in sorted(entries, key=lambda entry: entry[0].st_mtime):
            if total <= self._budget.disk_bytes:
                return
            path.unlink(missing_ok=True)
            total -= status.st_size

    def _load(self, frame: int) -> FrameFeatures | None:
        path = self._path(frame)
        try:
            tensors = load_file(path, device=str(self._device))
            os.utime(path)
        except (SafetensorError, OSError):
            return None
        image = tensors.pop(IMAGE, None)
        if image is None or tensors.keys() != {*FIELDS, *self._engine.network.map_names}:
            return None
        key, shrinkage, selection = (tensors.pop(name) for name in FIELDS)
        features = ImageFeatures(key, shrinkage, selection, tensors)
        return FrameFeatures(features, image, self._engine.canvas_for(*self._encoding.shape))

    def fetch_motion(self, earlier: int, later: int) -> PairMotion | None:
        """Give the motion between two frames that follow each other, half precision; None when one of them cannot be read."""
        pair = (earlier, later)
        if pair not in self._motion:
            stored = self._load_motion(pair)
            if stored is None:
                return None
            self._motion[pair] = stored
            while len(self._motion) > MOTIONS_KEPT:
                self._motion.popitem(last=False)
        self._motion.move_to_end(pair)
        return self._motion[pair]

    def _load_motion(self, pair: tuple[int, int]) -> PairMotion | None:
        names = json.dumps([FLOW, *(self._path(frame).name for frame in pair)])
        path = self._folder / f"{hashlib.sha256(names.encode()).hexdigest()}.safetensors"
        try:
            tensors = load_file(path)
            os.utime(path)
        except (SafetensorError, OSError):
            tensors = {}
        if not set(MOTION_FIELDS) <= tensors.keys():
            try:
                pictures = [self._fetch_grey(frame) for frame in pair]
            except InputError:
                return None
            measured = measure_motion(*pictures)
            tensors = {
                name: torch.from_numpy(motion).half() for name, motion in zip(MOTION_FIELDS, measured, strict=True)
            }
            self._write(path, tensors)
        return PairMotion(**{name: tensors[name] for name in MOTION_FIELDS})

    def _fetch_grey(self, frame: int) -> npt.NDArray[np.uint8]:
        """Give a frame as the flow sees it: (H, W) grey, from the image that is kept with its features."""
        if frame in self._grey:  # as one of a pair before
            return self._grey[frame]
        config = self._engine.network.config
        image = self.fetch(frame).image[0].float().cpu()
        mean, std = (torch.tensor(values)[:, None, None] for values in (config.mean, config.std))
        luma = ((image * std + mean) * torch.tensor(LUMA)[:, None, None]).sum(0)  # (H, W)
        grey: npt.NDArray[np.uint8] = (luma.clamp(0, 1) * 255).round().to(torch.uint8).numpy()
        self._grey[frame] = grey
        while len(self._grey) > 2:
            self._grey.popitem(last=False)
        return grey


def _bytes_of(features: FrameFeatures) -> int:
    kept = features.features
    return sum(part.nbytes for part in (kept.key, kept.shrinkage, kept.selection, features.image, *kept.maps.values()))
