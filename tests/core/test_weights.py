"""Checkpoints load by name and shape, without running code, or say what is wrong."""

import json
import os
import pickle

import pytest
import torch
from safetensors.torch import save_file

from tests.parity import make_weights
from xmem_core.errors import CoreError
from xmem_core.network import COMPACT, build_network
from xmem_core.weights import COMPACT_PATH, load_model, save_model


@pytest.fixture(scope="module")
def published():
    return make_weights.make_state_dict()


def test_when_the_shipped_model_is_loaded_then_it_fits_and_is_small(network):
    assert network.config.architecture == "compact"
    assert COMPACT_PATH.stat().st_size <= 25e6
    assert all(not parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize("channels", [4, 5])
def test_when_a_published_checkpoint_is_loaded_then_both_value_encoder_forms_fit(published, tmp_path, channels):
    state = dict(published)
    state["value_encoder.conv1.weight"] = state["value_encoder.conv1.weight"][:, :channels].clone()
    torch.save(state, tmp_path / "XMem.pth")
    model = load_model(str(tmp_path / "XMem.pth"))
    assert model.name == "XMem"
    assert (model.network.config.key_dim, model.network.config.value_dim, model.network.config.hidden_dim) == (
        64,
        512,
        64,
    )
    first = model.network.state_dict()["value_encoder.conv1.weight"]
    assert torch.equal(first[:, :channels], state["value_encoder.conv1.weight"])
    assert channels == 5 or first[:, 4].abs().max() == 0


def test_when_a_published_checkpoint_is_a_safetensors_file_then_it_loads_too(published, tmp_path):
    save_file({key: value.contiguous() for key, value in published.items()}, tmp_path / "XMem.safetensors")
    assert load_model(str(tmp_path / "XMem.safetensors")).network.config.architecture == "xmem"


def test_when_keys_are_missing_and_unexpected_then_the_first_of_each_is_named(published, tmp_path):
    state = dict(published)
    del state["decoder.pred.bias"]
    state["decoder.extra"] = torch.zeros(1)
    torch.save(state, tmp_path / "odd.pth")
    with pytest.raises(CoreError, match=r"lacks 'decoder.pred.bias' .* unexpected 'decoder.extra'"):
        load_model(str(tmp_path / "odd.pth"))


def test_when_a_shape_is_wrong_then_it_is_named_with_both_shapes(published, tmp_path):
    state = dict(published)
    state["decoder.pred.weight"] = torch.zeros(2, 256, 3, 3)
    torch.save(state, tmp_path / "odd.pth")
    with pytest.raises(CoreError, match=r"'decoder.pred.weight' is \(2, 256, 3, 3\), wanted \(1, 256, 3, 3\)"):
        load_model(str(tmp_path / "odd.pth"))


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def test_when_a_checkpoint_holds_code_then_it_is_refused_and_not_run(tmp_path):
    with (tmp_path / "evil.pth").open("wb") as stream:
        pickle.dump({"key_proj.key_proj.weight": Evil(tmp_path / "ran")}, stream, protocol=2)
    with pytest.raises(CoreError):
        load_model(str(tmp_path / "evil.pth"))
    torch.save({"key_proj.key_proj.weight": Evil(tmp_path / "ran")}, tmp_path / "evil.pth")
    with pytest.raises(CoreError):
        load_model(str(tmp_path / "evil.pth"))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [("page.pth", b"<!DOCTYPE html><html>404</html>"), ("cut.safetensors", b"\x10\x00\x00"), ("empty.pth", b"")],
)
def test_when_a_file_is_no_checkpoint_then_one_line_says_so(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CoreError) as caught:
        load_model(str(tmp_path / name))
    assert "\n" not in str(caught.value)
    assert name in str(caught.value)


def test_when_another_network_is_given_then_it_says_it_is_no_xmem_checkpoint(tmp_path):
    torch.save({"layer.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(CoreError, match="not an XMem checkpoint"):
        load_model(str(tmp_path / "other.pth"))


def test_when_a_file_is_not_there_then_it_says_what_to_give(tmp_path):
    with pytest.raises(CoreError, match="no checkpoint at"):
        load_model(str(tmp_path / "missing.pth"))


def test_when_a_compact_model_is_saved_then_it_loads_with_its_configuration(tmp_path):
    network = build_network(COMPACT)
    save_model(tmp_path / "mine.safetensors", network.state_dict(), COMPACT, {"steps": "3"})
    model = load_model(str(tmp_path / "mine.safetensors"))
    assert model.network.config == COMPACT
    for key, value in network.state_dict().items():
        assert torch.allclose(model.network.state_dict()[key], value, atol=1e-3, rtol=1e-3)
    assert json.loads(json.dumps(vars(model.network.config)))["architecture"] == "compact"
