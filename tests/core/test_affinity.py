"""Similarity, top-k affinity and readout: hand numbers, and properties over seeds."""

import math

import pytest
import torch

from xmem_core.affinity import (
    count_usage,
    full_affinity,
    memory_features,
    query_features,
    read,
    similarity,
    top_k_affinity,
)

SEEDS = range(50)


def random_problem(seed, rows=70, queries=9, channels=6):
    torch.manual_seed(seed)
    memory = memory_features(torch.randn(rows, channels), 1 + torch.rand(rows, 1) * 3)
    return query_features(torch.randn(queries, channels), torch.rand(queries, channels)), memory


def test_when_two_rows_are_compared_then_similarity_is_the_hand_computed_one():
    key, shrinkage = torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([[2.0], [1.0]])
    query, selection = torch.tensor([[3.0, 1.0]]), torch.tensor([[0.5, 1.0]])
    found = similarity(query_features(query, selection), memory_features(key, shrinkage))
    # -2 * (0.5 * (1-3)^2 + 1 * (2-1)^2) and -1 * (0.5 * 9 + 1 * 1), both over sqrt(2)
    assert found[0].tolist() == pytest.approx([-6 / math.sqrt(2), -5.5 / math.sqrt(2)])


def test_when_two_of_three_rows_are_read_then_weights_and_readout_are_the_hand_computed_ones():
    query, memory = torch.tensor([[1.0]]), torch.tensor([[math.log(3.0)], [-5.0], [0.0]])
    found = top_k_affinity(query, [memory], 2)
    assert found.indices.tolist() == [[0, 2]]
    assert found.weights[0].tolist() == pytest.approx([0.75, 0.25])
    assert read(found, [torch.tensor([[4.0], [100.0], [8.0]])], [3]).item() == pytest.approx(5.0)
    assert count_usage(found, 3).tolist() == pytest.approx([0.75, 0.0, 0.25])


@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_when_everything_is_dissimilar_then_weights_are_finite_and_sum_to_one(scale):
    for seed in SEEDS:
        query, memory = random_problem(seed)
        found = top_k_affinity(query * scale, [memory], 30)
        assert torch.isfinite(found.weights).all()
        assert torch.allclose(found.weights.sum(1), torch.ones(query.shape[0]))


def test_when_memory_is_read_in_blocks_then_the_result_is_the_same():
    for seed in SEEDS:
        query, memory = random_problem(seed)
        whole = top_k_affinity(query, [memory], 7)
        parts = top_k_affinity(query, [memory], 7, block_values=70 * 2)  # two queries at a time
        assert torch.equal(whole.indices, parts.indices)
        assert torch.allclose(whole.weights, parts.weights, atol=1e-6)


def test_when_rows_are_not_given_then_reading_equals_a_memory_without_them():
    for seed in SEEDS:
        query, memory = random_problem(seed)
        values = torch.randn(memory.shape[0], 3)
        given = torch.rand(memory.shape[0]) > 0.5
        masked = read(top_k_affinity(query, [memory], 5, [given]), [values], [70])
        assert torch.allclose(
            masked, read(top_k_affinity(query, [memory[given]], 5), [values[given]], [int(given.sum())]), atol=1e-6
        )
        dense = full_affinity(query, memory, given)
        assert dense[:, ~given].abs().max() == 0
        assert torch.allclose(dense[:, given], full_affinity(query, memory[given]), atol=1e-6)


def test_when_fewer_rows_than_k_exist_then_all_are_read():
    query, memory = random_problem(0, rows=4)
    found = top_k_affinity(query, [memory], 30)
    assert found.indices.shape == (9, 4)
    assert torch.allclose(found.weights.sum(1), torch.ones(9))


def test_when_memory_is_empty_then_it_says_what_to_do():
    with pytest.raises(ValueError, match="annotate a frame"):
        top_k_affinity(torch.zeros(1, 5), [torch.zeros(0, 5)], 3)


def test_when_memory_comes_in_parts_then_reading_equals_reading_it_whole():
    for seed in SEEDS:
        query, memory = random_problem(seed)
        values = torch.randn(memory.shape[0], 3)
        whole = top_k_affinity(query, [memory], 7)
        parts = top_k_affinity(query, memory.split([20, 45, 5]), 7)
        assert torch.equal(whole.indices, parts.indices)
        one = read(whole, [values], [70])
        assert torch.allclose(one, read(parts, values.split([20, 45, 5]), [20, 45, 5]), atol=1e-6)


def test_when_memory_in_parts_is_read_for_some_queries_at_a_time_then_the_affinity_is_that_of_the_whole():
    for seed in SEEDS:
        query, memory = random_problem(seed)
        given = torch.rand(memory.shape[0]) > 0.3
        whole = top_k_affinity(query, [memory], 7, [given])
        sizes = [20, 45, 5]
        parts = top_k_affinity(query, memory.split(sizes), 7, given.split(sizes), block_values=70 * 4)
        assert torch.equal(whole.indices, parts.indices)
        assert torch.allclose(whole.weights, parts.weights, atol=1e-6)
