"""The rows of remembered frames that are most similar to what a frame asks for: looked for once, for masks have no part in it.

Keys, shrinkage and selection are made of pictures alone. So which rows of one frame another one reads, and how similar they are, stays
when a key is added or corrected: frames that are no longer remembered are passed over, and only those that are new are looked through.
Twice as many rows are kept as are read, so that enough are left when some are passed over; if not, all are looked through again.

What is found does not depend on what was known before, to the last bit: each similarity is summed in the same order, whatever else is
computed, and of equal ones the row of the earlier frame comes first. Where memory's rows lie on the CPU only.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from xmem_core import kernels
from xmem_core.affinity import Affinity, lay_queries

KEPT_PER_READ = 2  # rows kept for each one that is read
MOST_READ = 100  # rows that a query may read: with more, putting them in order takes longer than sorting everything


@dataclass(frozen=True)
class BestRows:
    """The most similar rows of some frames, for each of M queries of a frame.

    ``similarities`` (M, K) float32, largest first, -inf where there were fewer; ``places`` (M, K) int64: frame << 32 | row.
    """

    frames: frozenset[int]  # that were looked through
    similarities: Tensor
    places: Tensor


Group = tuple[
    int, ...
]  # objects that have rows at the same frames, by id; empty: those that have rows wherever there are any


class BestRowsStore(Protocol):
    """Where what a frame found for objects is kept from one propagation to the next."""

    def fetch(self, frame: int, group: Group) -> BestRows | None:
        """Give what a frame found when it was last propagated to, best for these objects; None when nothing is known."""

    def keep(self, frame: int, group: Group, found: BestRows) -> None:
        """Keep what a frame found for these objects."""


class NoStore:
    """A store for who does not come back: it keeps nothing."""

    def fetch(self, _frame: int, _group: Group) -> BestRows | None:
        """Give nothing."""
        return None

    def keep(self, _frame: int, _group: Group, _found: BestRows) -> None:
        """Keep nothing."""


NO_STORE: BestRowsStore = NoStore()


@dataclass(frozen=True)
class FrameRows:
    """The prepared features (n, F) of a remembered frame's rows, and the place of the first among all rows of memory."""

    features: Tensor
    start: int


@dataclass
class RowSearch:
    """What the queries (M, F) of a frame find of a group's memory: in rows of other frames by number, and in loose ones (N, F), which come first.

    All frames have as many rows.
    """

    frame: int
    query: Tensor
    frames: Mapping[int, FrameRows]
    loose: Tensor
    top_k: int
    store: BestRowsStore
    group: Group = ()

    def find_affinity(self, exists: Tensor | None = None) -> Affinity:
        """Give the affinity of each query to the rows of the frames, and the loose ones that exist (N,) bool, None for all.

        Rows are counted through all of memory. There is at least one to be read.
        """
        rows = sum(part.features.shape[0] for part in self.frames.values())
        values, indices = self._choose(min(self.top_k, rows))
        self._keep_best(self.loose, 0, values, indices, exists)
        count = min(self.top_k, self.loose.shape[0] + rows)
        return Affinity(indices[:, :count], torch.softmax(values[:, :count], 1))

    def _choose(self, wanted: int) -> tuple[Tensor, Tensor]:
        """Give similarities and indices (M, at least top_k) of the best rows of the frames; -inf at 0 where there are fewer than are wanted."""
        known = self.store.fetch(self.frame, self.group)
        if known is None or not self._fits(known):
            known = self._find_nothing()
        missing = self.frames.keys() - known.frames
        found = self._look_through(known, missing) if missing else known
        chosen, indices, count = self._choose_known(found)
        if count < wanted:  # too many of what is known are of frames that are not read
            found = self._look_through(self._find_nothing(), self.frames)
            chosen, indices, _ = self._choose_known(found)
        if found is not known:
            self.store.keep(self.frame, self.group, found)
        return chosen, indices

    @property
    def _size(self) -> tuple[int, int]:
        return self.query.shape[0], kernels.padded(KEPT_PER_READ * self.top_k)

    def _find_nothing(self) -> BestRows:
        return BestRows(frozenset(), torch.full(self._size, -torch.inf), torch.zeros(self._size, dtype=torch.int64))

    def _fits(self, known: BestRows) -> bool:
        """Whether something can be what this search found: from its numbers places in memory are computed, unchecked."""
        pairs = ((known.similarities, torch.float32), (known.places, torch.int64))
        if any(tensor.shape != self._size or tensor.dtype != kind for tensor, kind in pairs):
            return False
        rows = max((part.features.shape[0] for part in self.frames.values()), default=0)
        # In numpy: torch would wake a second thread for so little, and wait for it.
        return int((known.places.numpy() & kernels.ROW_OF_PLACE).max(initial=0)) < rows

    def _choose_known(self, known: BestRows) -> tuple[Tensor, Tensor, int]:
        """Give what `_choose` gives, of what is known, and how many rows each query has at least."""
        queries = self.query.shape[0]
        chosen = torch.empty(queries, kernels.padded(self.top_k))
        indices = torch.empty_like(chosen, dtype=torch.int64)
        counts = torch.empty(queries, dtype=torch.int64)
        frames = torch.tensor(sorted(self.frames), dtype=torch.int64)
        starts = torch.tensor([self.frames[frame].start for frame in frames.tolist()], dtype=torch.int64)
        kernels.choose_best(
            known.similarities.numpy(),
            known.places.numpy(),
            (frames.numpy(), starts.numpy()),
            chosen.numpy(),
            indices.numpy(),
            counts.numpy(),
        )
        return chosen, indices, int(counts.min())

    def _look_through(self, known: BestRows, frames: Collection[int]) -> BestRows:
        """Give what is known, and the best rows of more frames among it."""
        similarities, places = known.similarities.clone(), known.places.clone()
        # The nearest in time have the most similar rows: with them at hand, little of the others is looked into.
        for frame in sorted(frames, key=lambda other: abs(other - self.frame)):
            self._keep_best(self.frames[frame].features, frame << kernels.PLACE_BITS, similarities, places)
        return BestRows(known.frames | frozenset(frames), similarities, places)

    def _keep_best(self, rows: Tensor, first: int, best: Tensor, places: Tensor, exists: Tensor | None = None) -> None:
        """Put rows (n, F) where they belong among the best ones (M, k), the first of them at a place, those that exist (n,) bool."""
        if not rows.shape[0]:
            return
        given = torch.empty(0, dtype=torch.bool) if exists is None else exists
        its_rows = rows.numpy(), given.numpy(), first
        kernels.keep_similar(its_rows, self._laid.numpy(), best.numpy(), places.numpy(), kernels.THREADS)

    @functools.cached_property
    def _laid(self) -> Tensor:
        return lay_queries(self.query)
