"""A bank of memory rows that know which frame they come from.

Rows are appended, replaced and removed by *frame number*, never by position. A bank is one owner's state; the tensors
it hands out are views or copies that are not written to afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from xmem_core.affinity import memory_features

INITIAL_LIFE = 1e-7  # XMem's: a row never read has no usage, but the division is defined


@dataclass(frozen=True)
class Rows:
    """Rows of one frame, or of prototypes.

    key (n, CK), shrinkage (n, 1), selection (n, CK); ``values`` maps an object id to (n, CV). An object that is missing in
    ``values`` was *not given* at that frame: the rows do not exist for it. ``given`` maps an object id to a (n,) bool
    tensor when only part of the rows exist for it (prototypes).
    """

    key: Tensor
    shrinkage: Tensor
    selection: Tensor
    values: Mapping[int, Tensor]
    given: Mapping[int, Tensor]

    def to(self, device: torch.device) -> Rows:
        """Give the same rows on another device."""
        return Rows(
            self.key.to(device),
            self.shrinkage.to(device),
            self.selection.to(device),
            {object_id: value.to(device) for object_id, value in self.values.items()},
            {object_id: given.to(device) for object_id, given in self.given.items()},
        )


class Bank:
    """Memory rows in the order they are to be read, tagged with frame number, usage and life."""

    def __init__(self) -> None:
        self._frames: list[int] = []  # frame number of each block, in reading order
        self._blocks: list[Rows] = []
        self._use: list[Tensor] = []
        self._life: list[Tensor] = []
        self._features: Tensor | None = None

    @property
    def frames(self) -> tuple[int, ...]:
        """Frame numbers of the blocks, in reading order."""
        return tuple(self._frames)

    @property
    def blocks(self) -> tuple[Rows, ...]:
        """The blocks of rows, in reading order."""
        return tuple(self._blocks)

    @property
    def size(self) -> int:
        """Number of rows."""
        return sum(block.key.shape[0] for block in self._blocks)

    @property
    def object_ids(self) -> tuple[int, ...]:
        """Every object that has rows here, sorted."""
        return tuple(sorted({object_id for block in self._blocks for object_id in block.values}))

    def append(self, frame: int, rows: Rows) -> None:
        """Put a frame's rows last."""
        self._insert(len(self._frames), frame, rows)

    def put(self, frame: int, rows: Rows) -> None:
        """Put a frame's rows in frame order, in place of what was there for that frame."""
        self.remove(frame)
        place = sum(other < frame for other in self._frames)
        self._insert(place, frame, rows)

    def remove(self, frame: int) -> None:
        """Forget a frame's rows; nothing happens when it has none."""
        if frame in self._frames:
            self.remove_block(self._frames.index(frame))

    def remove_block(self, place: int) -> None:
        """Forget the block at a place in reading order."""
        for column in (self._frames, self._blocks, self._use, self._life):
            del column[place]
        self._features = None

    def clear(self) -> None:
        """Forget everything."""
        self.__init__()  # type: ignore[misc]

    def _insert(self, place: int, frame: int, rows: Rows) -> None:
        count = rows.key.shape[0]
        self._frames.insert(place, frame)
        self._blocks.insert(place, rows)
        self._use.insert(place, torch.zeros(count, device=rows.key.device))
        self._life.insert(place, torch.full((count,), INITIAL_LIFE, device=rows.key.device))
        self._features = None

    def features(self) -> Tensor:
        """Give the prepared features (rows, 2*CK + 1) of all rows; kept until the bank changes."""
        if self._features is None:
            key = torch.cat([block.key for block in self._blocks])
            shrinkage = torch.cat([block.shrinkage for block in self._blocks])
            self._features = memory_features(key, shrinkage)
        return self._features

    def given(self, object_id: int) -> Tensor:
        """Give (rows,) bool: which rows exist for this object."""
        return torch.cat([_given(block, object_id) for block in self._blocks])

    def values(self, object_ids: tuple[int, ...]) -> Tensor:
        """Give (rows, objects*CV): the objects' values side by side, 0 where an object has no row."""
        return torch.cat([_values(block, object_ids) for block in self._blocks])

    def record_usage(self, usage: Tensor) -> None:
        """Add the usage (rows,) of one read, and one frame of life, to every row."""
        sizes = [block.key.shape[0] for block in self._blocks]
        for place, part in enumerate(usage.split(sizes)):
            self._use[place] = self._use[place] + part
            self._life[place] = self._life[place] + 1

    def usage(self) -> Tensor:
        """Give (rows,): use per frame of life."""
        return torch.cat(self._use) / torch.cat(self._life)

    def counters(self) -> tuple[Tensor, Tensor]:
        """Give use and life (rows,) each."""
        return torch.cat(self._use), torch.cat(self._life)

    def restore_counters(self, use: Tensor, life: Tensor) -> None:
        """Set use and life (rows,) of every row, as `counters` gave them."""
        sizes = [block.key.shape[0] for block in self._blocks]
        self._use = list(use.split(sizes))
        self._life = list(life.split(sizes))

    def keep_rows(self, keep: Tensor) -> None:
        """Forget every row that is not in keep (rows,) bool; blocks left empty disappear."""
        sizes = [block.key.shape[0] for block in self._blocks]
        parts = keep.split(sizes)
        kept = [place for place, part in enumerate(parts) if bool(part.any())]
        self._frames = [self._frames[place] for place in kept]
        self._use = [self._use[place][parts[place]] for place in kept]
        self._life = [self._life[place][parts[place]] for place in kept]
        self._blocks = [_select(self._blocks[place], parts[place]) for place in kept]
        self._features = None


def _given(block: Rows, object_id: int) -> Tensor:
    count, device = block.key.shape[0], block.key.device
    if object_id not in block.values:
        return torch.zeros(count, dtype=torch.bool, device=device)
    if object_id in block.given:
        return block.given[object_id]
    return torch.ones(count, dtype=torch.bool, device=device)


def _values(block: Rows, object_ids: tuple[int, ...]) -> Tensor:
    one = next(iter(block.values.values()))
    return torch.cat([block.values.get(object_id, torch.zeros_like(one)) for object_id in object_ids], 1)


def _select(block: Rows, keep: Tensor) -> Rows:
    return Rows(
        block.key[keep],
        block.shrinkage[keep],
        block.selection[keep],
        {object_id: value[keep] for object_id, value in block.values.items()},
        {object_id: given[keep] for object_id, given in block.given.items()},
    )
