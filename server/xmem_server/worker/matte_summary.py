"""What a suggestion needs of a frame's mattes, a few kilobytes: made when they are written, so that none is decoded again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from xmem_core.confidence import count_values
from xmem_core.dissimilarity import FrameMask
from xmem_core.keyframes import bring_to_keys
from xmem_server.worker.cache_folder import CacheFolder
from xmem_server.worker.features import Encoding

STRIDE = 16  # pixels of the working size to one key position
FIELDS = ("areas", "covered", "at_keys", "certainty")
_HASH_DIGITS = 64
Named = tuple[str, int]  # a matte: its file's SHA-256, and the object


@dataclass(frozen=True)
class MatteSummary:
    """Of a frame's N mattes: areas (N,) as shares of the picture, and of all together; at key size (N, h, w); certainty (N,) 0..1."""

    areas: Tensor
    covered: Tensor
    at_keys: Tensor
    certainty: Tensor

    def pick(self, chosen: Sequence[int]) -> FrameMask:
        """Give what the rule needs of some of the mattes, by their places: all of them, or one."""
        area = self.covered if len(chosen) == self.areas.shape[0] else self.areas[chosen[0]]
        return FrameMask(float(area), self.at_keys[list(chosen)].amax(0, keepdim=True))


def summarise(mattes: Tensor, key_size: tuple[int, int]) -> MatteSummary:
    """Give the summary of mattes (N, H, W) 0..1, read at half precision; a few passes over them, all by one thread."""
    halves = mattes.half()
    counted = [count_values(matte) for matte in halves]
    return MatteSummary(
        torch.tensor([counts.area() for counts in counted]),
        torch.tensor(count_values(_join(halves)).area()),
        bring_to_keys(halves, key_size),
        torch.tensor([counts.expected_overlap() for counts in counted]),
    )


def _join(halves: Tensor) -> Tensor:
    """Give the largest (H, W) of mattes (N, H, W) at each pixel; halves that are not negative are in the order of their bits."""
    return torch.from_numpy(halves.view(torch.int16).numpy().max(0)).view(torch.float16)


def fetch_key_size(encoding: Encoding) -> tuple[int, int]:
    """Give the (height, width) of keys: the working size in steps of 16 pixels, whole positions."""
    height, width = (-(-side // STRIDE) for side in encoding.working)
    return height, width


class SummaryCache:
    """Summaries by the mattes they are of, at one key size."""

    def __init__(self, folder: CacheFolder, key_size: tuple[int, int]) -> None:
        self._folder = folder
        self.key_size = key_size

    def save(self, mattes: Sequence[Named], summary: MatteSummary) -> None:
        """Keep the summary of a frame's mattes, in their order."""
        if not _are_hashes(mattes):
            return
        self._folder.save(self._name(mattes), vars(summary))

    def load(self, mattes: Sequence[Named]) -> MatteSummary | None:
        """Give the summary of a frame's mattes in this order, when it is kept."""
        if not _are_hashes(mattes):
            return None
        found = self._folder.load_part(self._name(mattes), FIELDS, torch.device("cpu"))
        return None if found is None else MatteSummary(*found)

    def _name(self, mattes: Sequence[Named]) -> list[object]:
        return ["summary", *self.key_size, *([sha256, object_id] for sha256, object_id in mattes)]


def _are_hashes(mattes: Sequence[Named]) -> bool:
    """Whether the files are named by their content, as stored ones are."""
    return all(len(sha256) == _HASH_DIGITS for sha256, _ in mattes)
