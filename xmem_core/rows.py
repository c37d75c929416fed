"""Memory rows: what one frame, or a set of prototypes, adds to a memory, and preallocated columns that hold many of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from xmem_core.features import ImageFeatures

BUCKET = 1024  # rows by which columns grow at least


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


class Columns:
    """Named columns (rows, ...) of equal length in memory that was allocated ahead, each without gaps.

    Adding rows copies those rows alone; only taking some out of the middle moves the ones behind them. What `view` hands
    out is overwritten by the next change.
    """

    def __init__(self) -> None:
        self._columns: dict[str, Tensor] = {}
        self._capacity = 0
        self.size = 0

    def __contains__(self, name: str) -> bool:
        return name in self._columns

    def view(self, name: str) -> Tensor:
        """Give a column's rows."""
        return self._columns[name][: self.size]

    def insert(self, place: int, count: int, new: Mapping[str, Tensor]) -> None:
        """Put ``count`` rows before the row at ``place``; columns that are not named get zeros, new ones are 0 elsewhere."""
        self._grow(self.size + count)
        for name in self._columns.keys() | new.keys():
            if name not in self._columns:
                self._columns[name] = _zeros(self._capacity, new[name])
            column = self._columns[name]
            if place < self.size:
                column[place + count : self.size + count] = column[place : self.size].clone()
            column[place : place + count] = new.get(name, 0)
        self.size += count

    def remove(self, start: int, stop: int) -> None:
        """Take out the rows from ``start`` to ``stop``."""
        left = self.size - (stop - start)
        for column in self._columns.values():
            column[start:left] = column[stop : self.size].clone()
        self.size = left

    def keep(self, chosen: Tensor) -> None:
        """Take out every row that is not in chosen (rows,) bool."""
        for name, column in self._columns.items():
            kept = self.view(name)[chosen]
            column[: kept.shape[0]] = kept
        self.size = int(chosen.sum())

    def _grow(self, needed: int) -> None:
        if needed <= self._capacity:
            return
        self._capacity = -(-max(needed, self._capacity * 3 // 2) // BUCKET) * BUCKET
        for name, column in self._columns.items():
            larger = _zeros(self._capacity, column)
            larger[: self.size] = column[: self.size]
            self._columns[name] = larger


def _zeros(rows: int, like: Tensor) -> Tensor:
    return torch.zeros((rows, *like.shape[1:]), dtype=like.dtype, device=like.device)


def make_rows(features: ImageFeatures, value: Tensor, object_ids: tuple[int, ...]) -> Rows:
    """Give memory rows of one frame for value (N, CV, h, w), one row per position, float32."""
    return Rows(
        features.key[0].flatten(1).T.float(),
        features.shrinkage[0].flatten(1).T.float(),
        features.selection[0].flatten(1).T.float(),
        {object_id: part.flatten(1).T.float() for object_id, part in zip(object_ids, value, strict=True)},
        {},
    )
