"""How unlike two frames are, as the rule of suggestion sees it (paper section 3.3): exactly, or within bounds that cost less.

A frame's *composite key* is ``r = k * (alpha * m + 1 - alpha)``: its key, weighted by its mask. The dissimilarity of frame b as
seen from frame a is the mean over all pairs of positions of ``relu(S(a, b)[i, j] - S(b, a)[i, j])``, where
``S(a, b)[i, j] = -s_a[i] * sum_c e_b[c, j] (r_a[c, i] - r_b[c, j])^2 / sqrt(CK)``. The reverse similarity is not transposed: that is
what makes D(a, a) exactly 0.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from xmem_core import kernels
from xmem_core.affinity import BLOCK_VALUES, lay_queries

_BLOCK = 4  # positions to a side that a coarse look takes together: 1/256 of the work
_TRIALS = 8  # looks in bfloat16 that may tell nothing
_APART = 1.5  # times as large as the smallest upper bound the largest lower one has to be: bounds of 5 % then part most frames
_ROUNDING = 2.0**-14  # of float32 sums of up to a thousand products, twice: here, and in what a bound is compared with
_OUTPUT_ROUNDING = 2.0**-7  # of bfloat16, twice what it is


@dataclass(frozen=True)
class FrameKeys:
    """Keys of one frame: key and selection (CK, h, w), shrinkage (1, h, w)."""

    key: Tensor
    shrinkage: Tensor
    selection: Tensor


@dataclass(frozen=True)
class FrameMask:
    """What the rule needs of a frame's masks: the share of pixels (0..1) that are object, and the mask at key size (1, h, w)."""

    area: float
    at_keys: Tensor


@dataclass(frozen=True)
class Bounds:
    """What a dissimilarity cannot be below, and cannot be above; equal when it is known."""

    least: float
    most: float = math.inf


@dataclass(frozen=True)
class Composite:
    """Mask-weighted features of one frame, as memory and as query, both (2*CK + 1, h*w); ``size`` is (h, w)."""

    as_memory: Tensor
    as_query: Tensor
    size: tuple[int, int]

    @property
    def nbytes(self) -> int:
        """What it takes in memory, its coarse and rounded forms included."""
        own = self.as_memory.nbytes + self.as_query.nbytes
        return own + own // 2 + own // _BLOCK**2

    @functools.cached_property
    def coarse(self) -> Composite:
        """The sums of its features over blocks of positions."""
        rows, columns = (-(-side // _BLOCK) for side in self.size)
        return Composite(self._add_up(self.as_memory), self._add_up(self.as_query), (rows, columns))

    def _add_up(self, features: Tensor) -> Tensor:
        maps = features.unflatten(1, self.size)[None]  # (1, F, h, w)
        return F.avg_pool2d(maps, _BLOCK, ceil_mode=True, divisor_override=1)[0].flatten(1)

    @functools.cached_property
    def rounded(self) -> _Rounded:
        """Its features in bfloat16, and what is lost by that."""
        return _Rounded.of(self.as_memory, self.as_query)


@dataclass(frozen=True)
class _Rounded:
    """Features in bfloat16 (F, h*w), and in ``sizes`` (4, F) means of magnitudes over positions.

    Of what rounding takes from memory, of what it leaves there at most, of query, of what it takes from query.
    """

    as_memory: Tensor
    as_query: Tensor
    sizes: Tensor

    @classmethod
    def of(cls, memory: Tensor, query: Tensor) -> _Rounded:
        """Give both (F, h*w) rounded. Their last features, which multiply each other and are the largest, become three: F is two more."""
        first, first_query = memory[-1:].bfloat16().float(), query[-1:].bfloat16().float()
        memory = torch.cat([memory[:-1], first, memory[-1:] - first, memory[-1:]])
        query = torch.cat([query[:-1], first_query, first_query, query[-1:] - first_query])
        near_memory, near_query = memory.bfloat16(), query.bfloat16()
        lost, lost_of_query = _mean_size(memory - near_memory), _mean_size(query - near_query)
        whole, whole_query = _mean_size(memory), _mean_size(query)
        return cls(
            near_memory,
            near_query,
            torch.stack([lost, whole + lost, whole_query, lost_of_query + _ROUNDING * whole_query]),
        )


def _mean_size(features: Tensor) -> Tensor:
    return features.abs().mean(1)


def weigh_key(keys: FrameKeys, mask: FrameMask, alpha: float) -> Tensor:
    """Give a frame's composite key (CK, h, w)."""
    return keys.key * (alpha * mask.at_keys + 1 - alpha)


def make_composite(keys: FrameKeys, mask: FrameMask, alpha: float, centre: Tensor | None = None) -> Composite:
    """Give a frame's features, its key weighted by its mask.

    A ``centre`` (CK, 1, 1) is taken from the composite key. A dissimilarity depends on differences of these alone, so that it stays what
    it is when both frames have the same one; with one that is near them products are smaller, and rounded less.
    """
    channels = keys.key.shape[0]
    composite_key = weigh_key(keys, mask, alpha)
    weighted = (composite_key if centre is None else composite_key.sub_(centre)).flatten(1)  # (CK, h*w)
    shrinkage, selection = keys.shrinkage.flatten(1), keys.selection.flatten(1)
    # A long shot makes thousands of these: each part is written where it lies, squares from products and products from factors.
    as_memory, as_query = (weighted.new_empty(2 * channels + 1, weighted.shape[1]) for _ in range(2))
    squares, products = as_memory[:channels], as_memory[channels:-1]
    torch.mul(weighted, shrinkage, out=products)
    torch.mul(weighted, products, out=squares)
    as_memory[-1:] = shrinkage
    factors, doubled = as_query[:channels], as_query[channels:-1]
    torch.mul(selection, -1 / math.sqrt(channels), out=factors)
    torch.mul(factors, weighted, out=doubled)
    torch.sum(doubled * weighted, 0, keepdim=True, out=as_query[-1:])
    doubled.mul_(-2)
    height, width = keys.key.shape[1:]
    return Composite(as_memory, as_query, (height, width))


def dissimilarity(reference: Composite, candidate: Composite) -> float:
    """Give D of a candidate as seen from a reference: at least 0, and 0 for the same frame."""
    if not kernels.can_take(candidate.as_query):
        return _add_differences(reference, candidate) / _count_pairs(reference, candidate)
    both = (reference, candidate)
    memories = [each.as_memory.T.contiguous().numpy() for each in both]  # (h*w, F)
    queries = [lay_queries(each.as_query.T).numpy() for each in both]
    sums = np.empty(len(queries[0]))
    kernels.add_differences(tuple(memories), tuple(queries), sums, kernels.THREADS)
    return float(sums.sum()) / _count_pairs(reference, candidate)


def look_coarsely(reference: Composite, candidate: Composite) -> Bounds:
    """Give what D of a candidate as seen from a reference cannot be below, up to rounding: a look at a fraction of the work.

    The sum of relu over a block of pairs is at least the relu of their sum, and that is the product of the blocks' sums.
    """
    return Bounds(_add_differences(reference.coarse, candidate.coarse) / _count_pairs(reference, candidate))


class CloseLook:
    """Gives bounds of D of a candidate as seen from a reference: D itself, or two that cost half as much.

    Those come of one product in bfloat16, where the processor has instructions for it, and as long as they tell frames apart: where
    frames differ by less than rounding takes, each would have to be compared once more.
    """

    def __init__(self) -> None:
        self._taken = 0
        self._lowest, self._highest = math.inf, 0.0

    def __call__(self, reference: Composite, candidate: Composite) -> Bounds:
        """Give the bounds; both are D where it was computed."""
        if not (self._tells_apart and _multiplies_bfloat16() and kernels.can_take(candidate.as_query)):
            known = dissimilarity(reference, candidate)
            return Bounds(known, known)
        found = look_in_bfloat16(reference, candidate)
        self._taken += 1
        self._lowest, self._highest = min(self._lowest, found.most), max(self._highest, found.least)
        return found

    @property
    def _tells_apart(self) -> bool:
        return self._taken < _TRIALS or self._highest > _APART * self._lowest


@functools.cache
def _multiplies_bfloat16() -> bool:
    known = torch.cpu.get_capabilities()
    return bool(known.get("avx512_bf16") or known.get("amx_bf16"))


def look_in_bfloat16(reference: Composite, candidate: Composite) -> Bounds:
    """Give bounds of D of a candidate as seen from a reference, by features rounded to bfloat16: one product of both ways.

    D is a mean of relu, which moves by no more than its argument. A product m*q that is rounded to m'*q' moves by at most
    ``|m - m'||q| + |m'||q - q'|``, and the mean of that over all pairs of positions is a product of means.
    """
    a, b = reference.rounded, candidate.rounded
    rows = torch.cat([a.as_memory, b.as_memory])  # (2F, i of both)
    columns = torch.cat([b.as_query, -a.as_query])  # (2F, j of both)
    step = max(1, BLOCK_VALUES // columns.shape[1])
    total = 0.0
    for start in range(0, rows.shape[1], step):
        total += _add_positive(rows[:, start : start + step].T @ columns)
    found = total / _count_pairs(reference, candidate)
    miss = float((a.sizes * b.sizes.roll(2, 0)).sum()) + _OUTPUT_ROUNDING * found
    return Bounds(max(0.0, found - miss), found + miss)


def _add_positive(products: Tensor) -> float:
    """Give the sum of what is above 0 in a bfloat16 matrix."""
    if not kernels.can_take(products):
        return float(products.clamp_min_(0).sum(dtype=torch.float32))
    sums = products.new_empty(products.shape[0], dtype=torch.float32)
    kernels.add_positive(products.view(torch.int16).numpy(), sums.numpy())
    return float(sums.double().sum())


def _count_pairs(reference: Composite, candidate: Composite) -> int:
    return reference.as_memory.shape[1] * candidate.as_query.shape[1]


def _add_differences(reference: Composite, candidate: Composite) -> float:
    """Give the sum over all pairs of positions of ``relu(S(a, b)[i, j] - S(b, a)[i, j])``, computed in blocks of rows."""
    rows, columns = reference.as_memory.shape[1], candidate.as_query.shape[1]
    step = max(1, BLOCK_VALUES // columns)
    total = 0.0
    for start in range(0, rows, step):
        here = slice(start, start + step)
        there = reference.as_memory[:, here].T @ candidate.as_query  # (i of reference, j of candidate)
        # (i of candidate, j of reference), compared untransposed
        back = candidate.as_memory[:, here].T @ reference.as_query
        # Two products of one shape, then their difference: equal frames give equal products, to the last bit.
        total += float(there.sub_(back).relu_().sum())
    return total
