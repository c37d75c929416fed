"""Similarity, affinity and readout: the memory read of XMem, as pure functions.

Rows are memory positions, columns of a key are its CK channels: memory is row-major (N, C), queries are (M, C) with M = h*w.

The anisotropic similarity of XMem, ``S[j, i] = -s_i * sum_c e_jc (k_ic - q_jc)^2 / sqrt(CK)``, is one matrix product of
``2*CK + 1`` features prepared once per memory row and once per query (INFRA section 7). Top-k keeps the k best rows per
query and softmaxes over those; subtracting the maximum first means it cannot give NaN, however dissimilar everything is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

# Similarities held at once, in values (64 MiB of float32): bounds the peak memory of a read whatever the memory's size.
BLOCK_VALUES = 16 * 1024 * 1024


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


def similarity(query: Tensor, memory: Tensor) -> Tensor:
    """Give similarities (M, N), at most 0 up to rounding, for prepared features (M, F) and (N, F)."""
    return query @ memory.T


def top_k_affinity(
    query: Tensor, memory: Tensor, k: int, given: Tensor | None = None, block_values: int = BLOCK_VALUES
) -> Affinity:
    """Give the affinity of each query to its k most similar memory rows (fewer when memory has fewer).

    query (M, F) and memory (N, F) are prepared features; ``given`` (N,) bool leaves rows out. Computed in blocks of
    rows, ``block_values`` similarities at once, with a running best k, which is exact; ties go to the earlier row.
    """
    rows = memory.shape[0]
    block = max(k, block_values // max(1, query.shape[0]))
    values: Tensor | None = None
    indices: Tensor | None = None
    for start in range(0, rows, block):
        stop = min(rows, start + block)
        scores = similarity(query, memory[start:stop])
        if given is not None:
            scores.masked_fill_(~given[start:stop], -torch.inf)
        best, places = scores.topk(min(k, stop - start), 1)
        places = places + start
        if values is not None and indices is not None:
            joined = torch.cat([values, best], 1)
            best, chosen = joined.topk(min(k, joined.shape[1]), 1)
            places = torch.cat([indices, places], 1).gather(1, chosen)
        values, indices = best, places
    if values is None or indices is None:
        raise ValueError("The memory is empty: annotate a frame before reading.")
    return Affinity(indices, torch.softmax(values, 1))


def full_affinity(query: Tensor, memory: Tensor, given: Tensor | None = None) -> Tensor:
    """Give the dense affinity (M, N): softmax over all memory rows, those not ``given`` (N,) at 0."""
    scores = similarity(query, memory)
    if given is not None:
        scores = scores.masked_fill(~given, -torch.inf)
    return torch.softmax(scores, 1)


def read(affinity: Affinity, values: Tensor) -> Tensor:
    """Give the readout (M, CV): for each query the weighted sum of its rows of values (N, CV)."""
    return F.embedding_bag(affinity.indices, values, per_sample_weights=affinity.weights, mode="sum")


def count_usage(affinity: Affinity, rows: int) -> Tensor:
    """Give how much each of the N memory rows was used (N,): the weights it received, summed over queries."""
    usage = torch.zeros(rows, dtype=affinity.weights.dtype, device=affinity.weights.device)
    return usage.index_add_(0, affinity.indices.flatten(), affinity.weights.flatten())
