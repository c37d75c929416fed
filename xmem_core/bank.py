"""A bank of memory rows that know which frame they come from.

Rows are appended, replaced and removed by *frame number*, never by position. What a read needs of them (prepared features, values)
lies ready in memory allocated ahead, so that reading copies nothing. What a bank hands out is valid until it changes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from xmem_core.affinity import memory_features
from xmem_core.rows import Columns, Rows

INITIAL_LIFE = 1e-7  # XMem's: a row never read has no usage, but the division is defined


@dataclass(frozen=True)
class _Block:
    frame: int
    size: int
    objects: frozenset[int]  # that have values here
    partial: frozenset[int]  # of these, those that only some of the rows exist for


class Bank:
    """Memory rows in the order they are to be read, tagged with frame number, usage and life."""

    def __init__(self) -> None:
        self._blocks: list[_Block] = []
        self._rows = Columns()
        self._complete: dict[int, bool] = {}  # whether every row exists for an object; known anew after each change

    @property
    def frames(self) -> tuple[int, ...]:
        """Frame numbers of the blocks, in reading order."""
        return tuple(block.frame for block in self._blocks)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of rows of each block, in reading order."""
        return tuple(block.size for block in self._blocks)

    @property
    def size(self) -> int:
        """Number of rows."""
        return self._rows.size

    @property
    def object_ids(self) -> tuple[int, ...]:
        """Every object that has rows here, sorted."""
        return tuple(sorted(frozenset().union(*(block.objects for block in self._blocks))))

    @property
    def blocks(self) -> tuple[Rows, ...]:
        """The blocks of rows, in reading order."""
        return tuple(self._fetch_rows(place) for place in range(len(self._blocks)))

    def _start(self, place: int) -> int:
        return sum(block.size for block in self._blocks[:place])

    def _fetch_rows(self, place: int) -> Rows:
        block, start = self._blocks[place], self._start(place)
        inside = slice(start, start + block.size)
        key, shrinkage, selection = (self._rows.view(name)[inside] for name in ("key", "shrinkage", "selection"))
        values = {each: self._rows.view(_value(each))[inside] for each in sorted(block.objects)}
        given = {each: self._rows.view(_given(each))[inside] for each in sorted(block.partial)}
        return Rows(key, shrinkage, selection, values, given)

    def append(self, frame: int, rows: Rows) -> None:
        """Put a frame's rows last."""
        self._insert(len(self._blocks), frame, rows)

    def put(self, frame: int, rows: Rows) -> None:
        """Put a frame's rows in frame order, in place of what was there for that frame."""
        self.remove(frame)
        self._insert(sum(other < frame for other in self.frames), frame, rows)

    def remove(self, frame: int) -> None:
        """Forget a frame's rows; nothing happens when it has none."""
        if frame in self.frames:
            self.remove_block(self.frames.index(frame))

    @torch.inference_mode()
    def remove_block(self, place: int) -> None:
        """Forget the block at a place in reading order."""
        start = self._start(place)
        self._rows.remove(start, start + self._blocks[place].size)
        del self._blocks[place]
        self._complete.clear()

    def clear(self) -> None:
        """Forget everything."""
        self.__init__()  # type: ignore[misc]

    @torch.inference_mode()
    def _insert(self, place: int, frame: int, rows: Rows) -> None:
        count, device = rows.key.shape[0], rows.key.device
        new = {
            "key": rows.key,
            "shrinkage": rows.shrinkage,
            "selection": rows.selection,
            "features": memory_features(rows.key, rows.shrinkage),
            "use": torch.zeros(count, device=device),
            "life": torch.full((count,), INITIAL_LIFE, device=device),
        }
        everything = torch.ones(count, dtype=torch.bool, device=device)
        for object_id, value in rows.values.items():
            new[_value(object_id)] = value
            new[_given(object_id)] = rows.given.get(object_id, everything)
        self._rows.insert(self._start(place), count, new)
        self._blocks.insert(place, _Block(frame, count, frozenset(rows.values), frozenset(rows.given)))
        self._complete.clear()

    def features(self) -> Tensor:
        """Give the prepared features (rows, 2*CK + 1) of all rows."""
        return self._rows.view("features")

    def frame_features(self) -> list[tuple[int, Tensor]]:
        """Give the frame number and the prepared features (n, 2*CK + 1) of each block, in reading order."""
        return list(zip(self.frames, self.features().split(self.sizes), strict=True)) if self._blocks else []

    def is_complete(self, object_id: int) -> bool:
        """Whether every row exists for this object."""
        if object_id not in self._complete:
            self._complete[object_id] = bool(self.given(object_id).all())
        return self._complete[object_id]

    def given(self, object_id: int) -> Tensor:
        """Give (rows,) bool: which rows exist for this object."""
        if _given(object_id) in self._rows:
            return self._rows.view(_given(object_id))
        return torch.zeros(self.size, dtype=torch.bool, device=self.features().device)

    def value(self, object_id: int) -> Tensor | None:
        """Give an object's values (rows, CV), 0 where it has no row; None when it never had one."""
        return self._rows.view(_value(object_id)) if _value(object_id) in self._rows else None

    @torch.inference_mode()
    def record_usage(self, usage: Tensor) -> None:
        """Add the usage (rows,) of one read, and one frame of life, to every row."""
        self._rows.view("use").add_(usage)
        self._rows.view("life").add_(1)

    def usage(self) -> Tensor:
        """Give (rows,): use per frame of life."""
        use, life = self.counters()
        return use / life

    def counters(self) -> tuple[Tensor, Tensor]:
        """Give use and life (rows,) each."""
        return self._rows.view("use"), self._rows.view("life")

    @torch.inference_mode()
    def restore_counters(self, use: Tensor, life: Tensor) -> None:
        """Set use and life (rows,) of every row, as `counters` gave them."""
        self._rows.view("use").copy_(use)
        self._rows.view("life").copy_(life)

    @torch.inference_mode()
    def keep_rows(self, keep: Tensor) -> None:
        """Forget every row that is not in keep (rows,) bool; blocks left empty disappear."""
        sizes = [int(part.sum()) for part in keep.split(self.sizes)]
        self._rows.keep(keep)
        pairs = zip(self._blocks, sizes, strict=True)
        self._blocks = [replace(block, size=size) for block, size in pairs if size]
        self._complete.clear()


def _value(object_id: int) -> str:
    return f"value.{object_id}"


def _given(object_id: int) -> str:
    return f"given.{object_id}"
