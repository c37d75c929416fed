"""The four memories of one propagation: permanent, working, long-term, sensory (paper section 3.2, XMem section 3).

Permanent memory belongs to the engine and is only read here. Working memory holds recent predicted frames; when it is
full, all but the newest frames become prototypes in long-term memory; when that is full, the least used prototypes go.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from xmem_core import kernels
from xmem_core.affinity import (
    BLOCK_VALUES,
    Affinity,
    count_usage,
    full_affinity,
    query_features,
    read,
    top_k_affinity,
)
from xmem_core.bank import Bank
from xmem_core.best_rows import MOST_READ, NO_STORE, BestRowsStore, FrameRows, Group, RowSearch
from xmem_core.errors import CoreError
from xmem_core.rows import Rows

# Without long-term memory nothing is ever consolidated; the paper's figure for a full working memory bounds it.
WORKING_FRAMES_WITHOUT_LONG_TERM = 100

PERMANENT_EVERY = "every"  # XMem++
PERMANENT_FIRST = "first"  # one reference, later annotations are ordinary working memory
PERMANENT_NONE = "none"  # original XMem


@dataclass(frozen=True)
class MemoryPolicy:
    """What is remembered, how often and for how long.

    ``permanent`` says which annotations are permanent. ``deep_update_every`` below 0 couples the deep update of the sensory
    memory to memory frames. ``top_k`` 0 reads by a softmax over all rows. Defaults are the paper's code's (mem_every 10).
    """

    permanent: str = PERMANENT_EVERY
    long_term: bool = True
    mem_every: int = 10
    deep_update_every: int = -1
    top_k: int = 30
    max_working_frames: int = 10
    min_working_frames: int = 5
    prototypes: int = 128
    max_long_term: int = 10_000

    def __post_init__(self) -> None:
        if self.permanent not in (PERMANENT_EVERY, PERMANENT_FIRST, PERMANENT_NONE):
            raise CoreError(f"Permanent memory must be 'every', 'first' or 'none'; got {self.permanent!r}.")
        if not 1 <= self.min_working_frames < self.max_working_frames:
            raise CoreError(
                f"Working memory must keep at least 1 and fewer than its maximum of {self.max_working_frames} frames; "
                f"got {self.min_working_frames}."
            )
        if self.mem_every < 1 or self.top_k < 0 or self.prototypes < 1 or self.max_long_term < self.prototypes:
            raise CoreError(
                "mem_every and prototypes must be at least 1, top_k at least 0, and max_long_term at least prototypes."
            )


@dataclass(frozen=True)
class Footprint:
    """How much memory of the device one step may take; another one gives the same mattes up to rounding.

    ``objects`` decoded at a time (0: all), similarities held at once, and where memory rows live (None: on the network's device).
    """

    objects: int = 0
    block_values: int = BLOCK_VALUES
    rows_device: torch.device | None = None


Given = list["Tensor | None"]  # for each bank which of its rows exist, (rows,) bool; None: all of them
FindAffinity = Callable[[Given, Group], Affinity]  # of objects that have the same rows


class Memory:
    """Working and long-term memory of one propagation, read together with a permanent bank."""

    def __init__(
        self,
        policy: MemoryPolicy,
        permanent: Bank,
        footprint: Footprint = Footprint(),
        best_rows: BestRowsStore = NO_STORE,
    ) -> None:
        self.policy = policy
        self.footprint = footprint
        self.best_rows = best_rows
        self.permanent = permanent
        self.working = Bank()
        self.long_term = Bank()

    @property
    def object_ids(self) -> tuple[int, ...]:
        """Every object that has a row somewhere, sorted."""
        return tuple(sorted({object_id for bank in self._banks() for object_id in bank.object_ids}))

    def _banks(self) -> list[Bank]:
        """The banks that have rows, in reading order."""
        return [bank for bank in (self.long_term, self.working, self.permanent) if bank.size]

    def read(self, frame: int, key: Tensor, selection: Tensor, object_ids: tuple[int, ...]) -> Tensor:
        """Give the readout (N, CV, h, w) of the objects at a frame, for its query key and selection (CK, h, w).

        Objects whose rows exist at the same places share one affinity. Usage is counted by the affinity that sees most
        rows. Every object asked for must have a row.
        """
        height, width = key.shape[1:]
        banks = self._banks()
        for object_id in object_ids:
            if not any(object_id in bank.object_ids for bank in banks):
                raise CoreError(f"Object {object_id} has no rows in memory. Annotate it on a frame first.")
        query = query_features(_rows(key), _rows(selection)).to(banks[0].features().device)
        find_affinity = self._begin_search(frame, query, banks) if self.policy.top_k else None
        readouts: dict[int, Tensor] = {}
        usage: tuple[int, Tensor] | None = None
        for given, group in _group_by_rows(banks, object_ids):
            if find_affinity is None:
                used = _read_group_densely(query, banks, given, group, readouts)
            else:
                used = _read_group(find_affinity(given, group), banks, group, readouts)
            rows = sum(bank.size if part is None else int(part.sum()) for bank, part in zip(banks, given, strict=True))
            if usage is None or rows > usage[0]:
                usage = (rows, used)
        if usage is not None:
            self._record_usage(banks, usage[1])
        stacked = torch.stack([readouts[object_id] for object_id in object_ids])  # (N, h*w, CV)
        return stacked.transpose(1, 2).unflatten(2, (height, width)).to(key.device)  # (N, CV, h, w)

    def _begin_search(self, frame: int, query: Tensor, banks: list[Bank]) -> FindAffinity:
        """Give what finds the affinity of a frame's queries (M, F) to the rows of the banks that are given."""
        top_k = self.policy.top_k
        if top_k > MOST_READ or not kernels.can_take(query):
            features = [bank.features() for bank in banks]
            return lambda given, _group: top_k_affinity(query, features, top_k, given, self.footprint.block_values)
        loose = self.long_term.features() if self.long_term.size else query[:0]
        frames, start = {}, loose.shape[0]
        for bank in (self.working, self.permanent):
            for number, rows in bank.frame_features():
                frames[number] = FrameRows(rows, start)
                start += rows.shape[0]

        def find(given: Given, group: Group) -> Affinity:
            if all(part is None for part in given):
                chosen, exists, group = frames, None, ()
            else:
                whole = _join_given(banks, given)
                # A frame's rows exist for an object all together, or not at all.
                chosen = {number: rows for number, rows in frames.items() if bool(whole[rows.start])}
                exists = whole[: loose.shape[0]]
            search = RowSearch(frame, query, chosen, loose, top_k, self.best_rows, group)
            return search.find_affinity(exists)

        return find

    def _record_usage(self, banks: list[Bank], usage: Tensor) -> None:
        for bank, part in zip(banks, usage.split([bank.size for bank in banks]), strict=True):
            if bank is not self.permanent:  # never consolidated, never evicted: its usage decides nothing
                bank.record_usage(part)

    def write(self, frame: int, rows: Rows) -> None:
        """Add a frame to working memory, consolidating and evicting when the policy's bounds are reached."""
        self.working.append(frame, rows)
        if not self.policy.long_term:
            if len(self.working.frames) > WORKING_FRAMES_WITHOUT_LONG_TERM:
                self.working.remove_block(0)
            return
        if len(self.working.frames) < self.policy.max_working_frames:
            return
        allowed = self.policy.max_long_term - self.policy.prototypes
        if self.long_term.size >= allowed:
            self._evict(allowed)
        self._consolidate()

    def _evict(self, allowed: int) -> None:
        """Forget the least used long-term rows down to ``allowed``; ties with the last one to go, go too (XMem)."""
        excess = self.long_term.size - allowed
        if excess <= 0:
            return
        usage = self.long_term.usage()
        threshold = usage.topk(excess, largest=False, sorted=True).values[-1]
        self.long_term.keep_rows(usage > threshold)

    def _consolidate(self) -> None:
        """Turn all but the newest working frames into prototypes (XMem section 3.4).

        Original XMem has no permanent memory and keeps its first frame in working memory instead.
        """
        first = 1 if self.policy.permanent == PERMANENT_NONE else 0
        last = len(self.working.frames) - self.policy.min_working_frames + first
        candidates = Bank()
        for frame, block in zip(self.working.frames[first:last], self.working.blocks[first:last], strict=True):
            candidates.append(frame, block)
        usage = torch.cat(self.working.usage().split(self.working.sizes)[first:last])
        self.long_term.append(candidates.frames[0], make_prototypes(candidates, usage, self.policy.prototypes))
        for _ in range(first, last):
            self.working.remove_block(first)


def make_prototypes(candidates: Bank, usage: Tensor, count: int) -> Rows:
    """Give ``count`` prototype rows: the most used candidates, each with values averaged over all candidates like it.

    ``usage`` is (rows,). Affinity is a full softmax, no top-k, over the candidates that exist for the object.
    """
    key = torch.cat([block.key for block in candidates.blocks])
    selection = torch.cat([block.selection for block in candidates.blocks])
    shrinkage = torch.cat([block.shrinkage for block in candidates.blocks])
    chosen = usage.topk(min(count, usage.shape[0]), sorted=True).indices
    query = query_features(key[chosen], selection[chosen])
    affinity = full_affinity(query, candidates.features())
    values: dict[int, Tensor] = {}
    given: dict[int, Tensor] = {}
    for object_id in candidates.object_ids:
        exists = candidates.given(object_id)
        weights = affinity if bool(exists.all()) else full_affinity(query, candidates.features(), exists)
        # A prototype exists for an object where the candidate it was made from does.
        values[object_id] = (weights @ _join_values([candidates], object_id)) * exists[chosen, None]
        given[object_id] = exists[chosen]
    return Rows(key[chosen], affinity @ shrinkage, selection[chosen], values, given)


def _group_by_rows(banks: list[Bank], object_ids: tuple[int, ...]) -> list[tuple[Given, tuple[int, ...]]]:
    """Give the objects in groups that have the same rows, each with which rows those are."""
    complete = tuple(each for each in object_ids if all(bank.is_complete(each) for bank in banks))
    groups: list[tuple[Tensor, list[int]]] = []
    for object_id in object_ids:
        if object_id in complete:
            continue
        given = torch.cat([bank.given(object_id) for bank in banks])
        for known, members in groups:
            if torch.equal(known, given):
                members.append(object_id)
                break
        else:
            groups.append((given, [object_id]))
    sizes = [bank.size for bank in banks]
    partial = [(list(given.split(sizes)), tuple(members)) for given, members in groups]
    everything: list[tuple[Given, tuple[int, ...]]] = [([None] * len(banks), complete)] if complete else []
    return everything + [([*parts], members) for parts, members in partial]


def _read_group(affinity: Affinity, banks: list[Bank], group: tuple[int, ...], readouts: dict[int, Tensor]) -> Tensor:
    """Fill in the readouts (M, CV) of objects that share an affinity; give the usage (rows,)."""
    sizes = [bank.size for bank in banks]
    for object_id in group:
        readouts[object_id] = read(affinity, [bank.value(object_id) for bank in banks], sizes)
    return count_usage(affinity, sum(sizes))


def _read_group_densely(
    query: Tensor, banks: list[Bank], given: Given, group: tuple[int, ...], readouts: dict[int, Tensor]
) -> Tensor:
    """Do what `_read_group` does, with a softmax over all rows that are given."""
    dense = _read_densely(query, banks, given)
    for object_id in group:
        readouts[object_id] = dense @ _join_values(banks, object_id)
    return dense.sum(0)


def _read_densely(query: Tensor, banks: list[Bank], given: Given) -> Tensor:
    """Give the affinity (M, rows) of a softmax over all rows of all banks."""
    return full_affinity(query, torch.cat([bank.features() for bank in banks]), _join_given(banks, given))


def _join_given(banks: list[Bank], given: Given) -> Tensor:
    """Give (rows,) bool through all banks: which rows exist."""
    parts = zip(banks, given, strict=True)
    return torch.cat(
        [bank.features().new_ones(bank.size, dtype=torch.bool) if part is None else part for bank, part in parts]
    )


def _join_values(banks: list[Bank], object_id: int) -> Tensor:
    """Give an object's values (rows, CV) through all banks, 0 where it has none."""
    known = [bank.value(object_id) for bank in banks]
    width = next(value.shape[1] for value in known if value is not None)
    device = banks[0].features().device
    parts = zip(banks, known, strict=True)
    return torch.cat(
        [torch.zeros(bank.size, width, device=device) if value is None else value for bank, value in parts]
    )


def _rows(maps: Tensor) -> Tensor:
    """Give (h*w, C) float32 for (C, h, w)."""
    return maps.flatten(1).T.float()
