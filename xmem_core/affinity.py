"""Similarity, affinity and readout: the memory read of XMem, as pure functions.

Rows are memory positions, columns of a key are its CK channels: memory is row-major (N, C), queries are (M, C) with M = h*w.

The anisotropic similarity of XMem, ``S[j, i] = -s_i * sum_c e_jc (k_ic - q_jc)^2 / sqrt(CK)``, is one matrix product of
``2*CK + 1`` features prepared once per memory row and once per query (INFRA section 7). Top-k keeps the k best rows per
query and softmaxes over those; subtracting the maximum first means it cannot give NaN, however dissimilar everything is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from xmem_core import kernels

# Similarities held at once, in values (16 MiB of float32): bounds the peak memory of a read whatever the memory's size.
BLOCK_VALUES = 4 * 1024 * 1024


@dataclass(frozen=True)
class Affinity:
    """Sparse affinity: for each of M queries the indices of K memory rows (int64) and their weights, which sum to 1."""

    indices: Tensor  # (M, K)
    weights: Tensor  # (M, K)


def memory_features(key: Tensor, shrinkage: Tensor) -> Tensor:
    """Give (N, 2*CK + 1) features of memory rows, for key (N, CK) and shrinkage (N, 1)."""
    scaled = key * shrinkage
    return torch.cat([key * scaled, scaled, shrinkage], 1)


def query_features(key: Tensor, selection: Tensor) -> Tensor:
    """Give (M, 2*CK + 1) features of queries, for key and selection (M, CK), both float32."""
    weighted = key * selection
    features = torch.cat([-selection, 2 * weighted, -(weighted * key).sum(1, keepdim=True)], 1)
    return features / math.sqrt(key.shape[1])


def lay_queries(query: Tensor) -> Tensor:
    """Give queries (M, F) as loops take them, (parts, F, QUERIES_AT_ONCE), zeros after the last."""
    whole = F.pad(query, (0, 0, 0, -query.shape[0] % kernels.QUERIES_AT_ONCE))
    return whole.unflatten(0, (-1, kernels.QUERIES_AT_ONCE)).transpose(1, 2).contiguous()


def similarity(query: Tensor, memory: Tensor) -> Tensor:
    """Give similarities (M, N), at most 0 up to rounding, for prepared features (M, F) and (N, F)."""
    return query @ memory.T


def top_k_affinity(
    query: Tensor,
    memory: Sequence[Tensor],
    k: int,
    given: Sequence[Tensor | None] | None = None,
    block_values: int = BLOCK_VALUES,
) -> Affinity:
    """Give the affinity of each query to its k most similar memory rows (fewer when memory has fewer).

    query (M, F) and the parts of memory (N, F) are prepared features; rows are counted through all parts. ``given`` has for each
    part (N,) bool, to leave rows out, or None. Computed for some queries after others, ``block_values`` similarities at once.
    """
    rows = sum(part.shape[0] for part in memory)
    if not rows:
        raise ValueError("The memory is empty: annotate a frame before reading.")
    exists = given or [None] * len(memory)
    parts = [pair for pair in zip(memory, exists, strict=True) if pair[0].shape[0]]
    at_once = max(1, block_values // rows)
    found = [_score(some, parts, rows).topk(min(k, rows), 1) for some in query.split(at_once)]
    values, indices = found[0] if len(found) == 1 else (torch.cat(each) for each in zip(*found, strict=True))
    return Affinity(indices, torch.softmax(values, 1))


def _score(query: Tensor, parts: Sequence[tuple[Tensor, Tensor | None]], rows: int) -> Tensor:
    """Give the similarities (M, rows) of queries to the rows of all parts, one after another; -inf where a row is not given."""
    sizes = [part.shape[0] for part, _ in parts]
    if len(parts) == 1:  # as training has it: a product written into memory at hand has no gradient
        scores = similarity(query, parts[0][0])
    else:
        scores = query.new_empty(query.shape[0], rows)
        for columns, (part, _) in zip(scores.split(sizes, 1), parts, strict=True):
            torch.mm(query, part.T, out=columns)
    for columns, (_, exists) in zip(scores.split(sizes, 1), parts, strict=True):
        if exists is not None:
            columns.masked_fill_(~exists, -torch.inf)
    return scores


def full_affinity(query: Tensor, memory: Tensor, given: Tensor | None = None) -> Tensor:
    """Give the dense affinity (M, N): softmax over all memory rows, those not ``given`` (N,) at 0."""
    scores = similarity(query, memory)
    if given is not None:
        scores = scores.masked_fill(~given, -torch.inf)
    return torch.softmax(scores, 1)


def read(affinity: Affinity, values: Sequence[Tensor | None], sizes: Sequence[int]) -> Tensor:
    """Give the readout (M, CV): for each query the weighted sum of its rows of values.

    ``values`` are the parts of memory, (size, CV) each, or None for a part that weighs nothing.
    """
    total: Tensor | None = None
    before = 0
    for part, size in zip(values, sizes, strict=True):
        if part is not None:
            places = affinity.indices - before
            inside = (places >= 0) & (places < size)
            weights = affinity.weights * inside
            readout = F.embedding_bag(places.clamp(0, size - 1), part, per_sample_weights=weights, mode="sum")
            total = readout if total is None else total.add_(readout)
        before += size
    if total is None:
        raise ValueError("No part of the memory has values of this object.")
    return total


def count_usage(affinity: Affinity, rows: int) -> Tensor:
    """Give how much each of the N memory rows was used (N,): the weights it received, summed over queries."""
    usage = torch.zeros(rows, dtype=affinity.weights.dtype, device=affinity.weights.device)
    return usage.index_add_(0, affinity.indices.flatten(), affinity.weights.flatten())
