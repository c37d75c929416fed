"""The full network, piece by piece, against stored outputs of the published code with the same weights."""

import pytest
import torch

from tests.parity import make_weights
from tests.parity.tolerances import (
    AFFINITY,
    FEATURES,
    PROBABILITY,
    PROBABILITY_3_OBJECTS,
    SIMILARITY_RELATIVE,
    assert_near,
)
from xmem_core.affinity import (
    count_usage,
    full_affinity,
    memory_features,
    query_features,
    read,
    similarity,
    top_k_affinity,
)
from xmem_core.bank import Bank
from xmem_core.features import KeyFeatures
from xmem_core.images import normalise, padding_for
from xmem_core.memory import make_prototypes
from xmem_core.network import NetworkConfig, aggregate
from xmem_core.rows import Rows


def rows(maps):
    """Give (n, C) for (1, C, ..., ...)."""
    return maps[0].flatten(1).T


def features_of(pieces):
    return KeyFeatures(*(pieces[f"ek_{name}"] for name in ("key", "shrinkage", "selection", "f16", "f8", "f4")))


def test_when_the_network_is_built_then_its_keys_and_shapes_are_the_published_ones(network):
    published = {entry["key"]: tuple(entry["shape"]) for entry in make_weights.fetch_layout()}
    assert {key: tuple(value.shape) for key, value in network.state_dict().items()} == published


def test_when_a_picture_is_normalised_then_it_equals_the_stored_input(pieces):
    config = NetworkConfig()
    image = pieces["ek_frame_u8"].permute(2, 0, 1)[None].float() / 255
    assert_near(normalise(image, config.mean, config.std), pieces["ek_image"], 1e-6)


@torch.inference_mode()
def test_when_keys_are_encoded_then_every_map_matches(network, pieces):
    features = network.encode_key(pieces["ek_image"])
    for name, value in vars(features).items():
        assert_near(value, pieces[f"ek_{name}"], FEATURES)


@torch.inference_mode()
def test_when_several_pictures_are_encoded_together_then_each_matches(network, pieces):
    features = network.encode_key(pieces["ek5_image"][0])
    for name in ("key", "shrinkage", "selection"):
        assert_near(getattr(features, name).transpose(0, 1)[None], pieces[f"ek5_{name}"], FEATURES)


@pytest.mark.parametrize("objects", [1, 3])
@torch.inference_mode()
def test_when_values_are_encoded_then_values_and_sensory_memory_match(network, pieces, objects):
    value = network.encode_value(pieces["ek_image"], network.prepare(features_of(pieces)), pieces[f"ev_masks{objects}"])
    assert_near(value, pieces[f"ev_value{objects}"], FEATURES)
    hidden = network.reinforce_hidden(value, pieces[f"ev_hidden_in{objects}"])
    assert_near(hidden, pieces[f"ev_hidden_deep{objects}"], FEATURES)


@pytest.mark.parametrize(("objects", "tolerance"), [(1, PROBABILITY), (3, PROBABILITY_3_OBJECTS)])
@torch.inference_mode()
def test_when_a_readout_is_decoded_then_logits_sensory_memory_and_probabilities_match(
    network, pieces, objects, tolerance
):
    hidden = pieces[f"ev_hidden_in{objects}"]
    decoded = network.decode(network.prepare(features_of(pieces)), pieces[f"sg_readout{objects}"], hidden)
    assert_near(decoded.logits, pieces[f"sg_raw_logits{objects}"], FEATURES)
    assert_near(network.update_hidden(decoded, hidden), pieces[f"sg_hidden{objects}"], FEATURES)
    assert_near(aggregate(torch.sigmoid(decoded.logits), 1), pieces[f"sg_prob{objects}"], tolerance)


def test_when_probabilities_are_aggregated_then_exact_zeros_and_ones_match_too(pieces):
    assert_near(aggregate(pieces["ag_prob_in"], 0), pieces["ag_prob"], PROBABILITY)


def test_when_a_picture_is_padded_then_the_sides_match(pieces):
    padding = padding_for(*pieces["pd_in"].shape[-2:])
    assert [padding.left, padding.right, padding.top, padding.bottom] == pieces["pd_pad"].tolist()
    assert torch.equal(padding.pad(pieces["pd_in"]), pieces["pd_out"])
    assert torch.equal(padding.crop(pieces["pd_out"]), pieces["pd_in"])


@pytest.mark.parametrize(
    ("variant", "shrinks", "selects"),
    [("", True, True), ("_no_ms", False, True), ("_no_qe", True, False), ("_no_ms_qe", False, False)],
)
def test_when_similarity_is_one_matrix_product_then_it_equals_the_formula(pieces, variant, shrinks, selects):
    key = rows(pieces["mm_mk"])
    shrinkage = rows(pieces["mm_ms"]) if shrinks else torch.ones(key.shape[0], 1)
    selection = rows(pieces["mm_qe"]) if selects else torch.ones_like(rows(pieces["mm_qk"]))
    query = query_features(rows(pieces["mm_qk"]), selection)
    if not selects:
        query[:, -1] = 0  # without a selection the published code leaves the query's own square out
    found = similarity(query, memory_features(key, shrinkage))
    expected = pieces[f"mm_similarity{variant}"][0].T
    assert_near(found, expected, SIMILARITY_RELATIVE * expected.abs().max().item())


def test_when_memory_is_read_then_affinity_usage_and_readout_match(pieces):
    memory = memory_features(rows(pieces["mm_mk"]), rows(pieces["mm_ms"]))
    query = query_features(rows(pieces["mm_qk"]), rows(pieces["mm_qe"]))
    values = rows(pieces["mm_mv"])
    sparse = top_k_affinity(query, [memory], 30)
    dense = torch.zeros(query.shape[0], memory.shape[0]).scatter_(1, sparse.indices, sparse.weights)
    assert_near(dense, pieces["mm_affinity_top30"][0].T, AFFINITY)
    assert_near(count_usage(sparse, memory.shape[0]), pieces["mm_usage_top30"][0], AFFINITY)
    assert_near(read(sparse, [values], [values.shape[0]]), rows(pieces["mm_readout_top30"]), AFFINITY)
    full = full_affinity(query, memory)
    assert_near(full, pieces["mm_affinity_full"][0].T, AFFINITY)
    assert_near(full.sum(0), pieces["mm_usage_full"][0], AFFINITY)
    assert_near(full @ values, rows(pieces["mm_readout_full"]), AFFINITY)


def test_when_candidates_are_consolidated_then_prototypes_match(pieces):
    key, shrinkage, selection = (rows(pieces[name])[:120] for name in ("mm_mk", "mm_ms", "mm_me"))
    values = {object_id: pieces["cs_value"][object_id - 1].T for object_id in (1, 2)}
    candidates = Bank()
    candidates.append(0, Rows(key, shrinkage, selection, values, {}))
    made = make_prototypes(candidates, pieces["cs_usage"].flatten(), 16)
    assert torch.equal(made.key, key[pieces["cs_proto_indices"]])
    assert_near(made.shrinkage, rows(pieces["cs_proto_shrinkage"]), AFFINITY)
    for object_id in (1, 2):
        assert_near(made.values[object_id], pieces["cs_proto_value"][object_id - 1].T, AFFINITY)
