"""What frames found in memory, kept on disk beside their features: a later round looks only through frames that are new in memory."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

from xmem_core.best_rows import BestRows, Group
from xmem_server.worker.cache_folder import CacheFolder, digest
from xmem_server.worker.features import FeatureCache

_LAYOUT = 1  # of the files: raise it whenever they lie or are computed otherwise
_FIELDS = ("frames", "pictures", "similarities", "places")


class RowCache:
    """A `BestRowsStore` on disk. What was found among other pictures under the same frame numbers is not taken for known."""

    def __init__(self, features: FeatureCache, folder: CacheFolder, top_k: int) -> None:
        self._features = features
        self._folder = folder
        self._top_k = top_k

    def fetch(self, frame: int, group: Group) -> BestRows | None:
        """Give what a frame found when it was last propagated to, if the frames it was looked for in are as they were.

        What was found for all objects together where nothing was for these: they may have parted since.
        """
        return self._load(frame, group) or (self._load(frame, ()) if group else None)

    def _load(self, frame: int, group: Group) -> BestRows | None:
        tensors = self._folder.load(self._name(frame, group), torch.device("cpu"))
        if tensors is None or tensors.keys() != set(_FIELDS):
            return None
        frames = frozenset(tensors["frames"].flatten().tolist())
        if not frames <= self._features.frames:
            return None
        if tensors["pictures"].tolist() != self._digest_pictures(frames).tolist():
            return None
        return BestRows(frames, tensors["similarities"], tensors["places"])

    def keep(self, frame: int, group: Group, found: BestRows) -> None:
        """Keep what a frame found for these objects, in place of what it found before."""
        frames = torch.tensor(sorted(found.frames), dtype=torch.int64)
        tensors = (frames, self._digest_pictures(found.frames), found.similarities, found.places)
        self._folder.save(self._name(frame, group), dict(zip(_FIELDS, tensors, strict=True)))

    def _name(self, frame: int, group: Group) -> list[object]:
        return ["rows", _LAYOUT, self._top_k, self._features.name(frame), *group]

    def _digest_pictures(self, frames: Collection[int]) -> Tensor:
        """Give what the features of these frames are known by together, (32,) uint8."""
        names = digest([self._features.name(frame) for frame in sorted(frames)])
        return torch.tensor(list(bytes.fromhex(names)), dtype=torch.uint8)
