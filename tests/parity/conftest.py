"""The full network with the reference vectors' synthetic weights, and the vectors themselves."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.parity import make_weights
from xmem_core.convolution import tile_convolutions
from xmem_core.network import NetworkConfig, XMem, build_network

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="session", params=["direct", "tiled"])
def network(request) -> XMem:
    state = make_weights.make_state_dict()
    assert make_weights.digest(state) == make_weights.DIGEST
    built = build_network(NetworkConfig())
    built.load_state_dict(state)
    if request.param == "tiled":  # as a server places it on the CPU
        tile_convolutions(built)
    return built


@pytest.fixture(scope="session")
def pieces() -> dict[str, torch.Tensor]:
    with np.load(GOLDEN / "net.npz") as stored:
        return {name: torch.from_numpy(stored[name]) for name in stored.files}


@pytest.fixture(scope="session")
def clips() -> dict[str, np.ndarray]:
    with np.load(GOLDEN / "clips.npz") as stored:
        return {name: stored[name] for name in stored.files}


def fetch_video(run: str) -> tuple[dict[str, np.ndarray], dict, list[dict]]:
    """Give the arrays, the meta and the trace of a stored run."""
    with np.load(GOLDEN / f"video_{run}.npz") as stored:
        arrays = {name: stored[name] for name in stored.files if name not in ("meta", "trace")}
        return arrays, json.loads(str(stored["meta"])), json.loads(str(stored["trace"]))
