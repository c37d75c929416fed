"""The same shot on a graphics card; run with ``-m gpu``."""

import pytest
import torch

from xmem_core.engine import Engine
from xmem_core.images import split_ids
from xmem_core.memory import MemoryPolicy
from xmem_core.weights import load_model

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


def mattes_on(device, scene):
    network = load_model("compact").network.to(device)
    engine = Engine(network, MemoryPolicy(mem_every=2, max_working_frames=3, min_working_frames=1, prototypes=8))
    encoded = engine.encode(scene[0].to(device))
    masks = {object_id: mask.to(device) for object_id, mask in split_ids(scene[1][0], (1, 2)).items()}
    engine.annotate(0, encoded[0], masks)
    propagation = engine.start(tuple(range(len(encoded))))
    return torch.stack([propagation.step(one).probabilities.cpu() for one in encoded])


def test_when_a_shot_is_propagated_on_cuda_then_mattes_equal_those_of_the_cpu(scene, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
    difference = (mattes_on("cuda", scene) - mattes_on("cpu", scene)).abs()
    assert difference.mean() < 1e-4
    assert difference.max() < 0.05
