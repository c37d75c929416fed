"""The reference that speed is measured against does the reference's work, and gives what the product gives."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.speed.plain import PlainRun, make_block, suggest_plain
from xmem_core.dissimilarity import FrameKeys, FrameMask
from xmem_core.engine import Engine
from xmem_core.images import PaddedCanvas, padding_for
from xmem_core.keyframes import SuggestionRule, suggest_keyframes
from xmem_core.memory import MemoryPolicy
from xmem_core.motion import no_motion
from xmem_core.network import COMPACT, NetworkConfig, build_network

GIGA = 1e9


def count(function):
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        function()
    return counter.get_total_flops() / GIGA


def test_when_the_full_network_runs_with_full_memory_then_a_frame_costs_the_references_372_gigaflop():
    with torch.device("meta"):
        network = build_network(NetworkConfig())
        canvas = PaddedCanvas((480, 864), padding_for(480, 864))
        run = PlainRun(network, MemoryPolicy(), canvas, lambda _frame: torch.rand(3, 480, 864), no_motion)
        seen, features = run.encode(1)
        masks = torch.rand(1, 480, 864)
        value = run.encode_value(seen, features, masks)
        block = make_block(features, value)
        run.memory.permanent = [block] * 5
        run.memory.working = [block] * 10
        long_term = [part[..., :1000] for part in block]
        run.memory.long_term = [tuple(long_term)] * 10  # 10,000 rows
        run.memory.use = run.memory.life = torch.zeros(16200)
        hidden = torch.zeros(1, 1, 64, 30, 54)
        encoding = count(lambda: run.encode(1))
        reading = count(lambda: run.memory.read(features))
        decoding = count(lambda: run.decode(features, value, hidden, None))
        writing = count(lambda: run.network.reinforce_hidden(run.encode_value(seen, features, masks)[None], hidden))
    assert encoding == pytest.approx(58.0, rel=0.05)
    assert reading == pytest.approx(71.1, rel=0.05)
    assert decoding == pytest.approx(234.0, rel=0.05)
    assert encoding + reading + decoding + writing / 10 == pytest.approx(372, rel=0.05)


# All rows for the compact network: untaught, it sees noise with ties for the last of 30 places, which rounding decides.
@pytest.mark.parametrize(
    ("config", "objects", "top_k"), [(NetworkConfig(), 1, 30), (NetworkConfig(), 3, 30), (COMPACT, 2, 500)]
)
def test_when_a_shot_is_propagated_then_plain_and_the_engine_give_the_same_mattes(config, objects, top_k):
    torch.manual_seed(3)
    network = build_network(config)
    images = torch.rand(7, 3, 64, 96)
    masks = torch.zeros(objects, 64, 96)
    for place in range(objects):
        masks[place, 8:40, 30 * place : 30 * place + 24] = 1
    policy = MemoryPolicy(mem_every=2, top_k=top_k, max_working_frames=3, min_working_frames=1, prototypes=16)
    engine = Engine(network, policy, working_size=0)
    encoded = engine.encode(images)
    keys = {0: masks, 5: masks.roll(7, 2)}
    for frame, given in keys.items():
        engine.annotate(frame, encoded[frame], dict(enumerate(given, 1)))
    propagation = engine.start(tuple(range(7)))
    expected = [propagation.step(each).probabilities for each in encoded]
    found = {}
    run = PlainRun(network, policy, engine.canvas_for(64, 96), lambda frame: images[frame], no_motion)
    run.run(range(7), keys, found.__setitem__)
    for frame in range(7):
        assert (found[frame] - expected[frame]).abs().max() < 1e-4, frame


def test_when_frames_are_suggested_then_plain_and_the_product_choose_the_same():
    torch.manual_seed(4)
    network = build_network(COMPACT)
    images = torch.rand(9, 3, 64, 96)
    masks = {frame: torch.rand(1, 4, 6) for frame in range(9)}

    @torch.inference_mode()
    def encode(frame):
        return network.encode_key(images[frame : frame + 1])

    chosen = suggest_plain(encode, masks, [0, 4], 3)
    features = {frame: encode(frame) for frame in range(9)}
    keys = {frame: FrameKeys(each.key[0], each.shrinkage[0], each.selection[0]) for frame, each in features.items()}
    rule = SuggestionRule(count=3, alpha=0.5)
    with torch.inference_mode():
        expected = suggest_keyframes(keys, {f: FrameMask(1.0, mask) for f, mask in masks.items()}, [0, 4], rule)
    assert chosen == [candidate.frame for candidate in expected]
