"""Seconds and GFLOP of each stage of one frame at steady-state memory: the reference's way, and ours; prints one line of JSON.

    python -m benchmarks.speed.stages {plain,ours} --network {full,compact} --objects N --frames N [--device cpu]

Memory is full as after a long shot: 5 annotated frames, 10 working frames, 10,000 long-term rows. Nothing is read from disk or
written. The full network has random weights, for its speed does not depend on them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.speed.limit import measure_limit
from benchmarks.speed.loop_counter import count_loops
from benchmarks.speed.plain import PlainRun, make_block
from xmem_core.best_rows import BestRows, BestRowsStore, Group, NoStore
from xmem_core.engine import Engine, FrameFeatures, Propagation
from xmem_core.memory import MemoryPolicy
from xmem_core.motion import no_motion
from xmem_core.network import NetworkConfig, XMem, build_network
from xmem_core.rows import Rows, make_rows
from xmem_core.weights import load_model

HEIGHT, WIDTH = 480, 864
KEYS, WORKING, LONG_TERM = 5, 10, 10_000
GIGA = 1e9


class FirstFound(NoStore):
    """A store of what was found first alone: so each read after it is as the first one after a change."""

    def __init__(self) -> None:
        self._found: BestRows | None = None

    def fetch(self, _frame: int, _group: Group) -> BestRows | None:
        """Give what was found first."""
        return self._found

    def keep(self, _frame: int, _group: Group, found: BestRows) -> None:
        """Keep it, if it is the first."""
        self._found = self._found or found


@dataclass(frozen=True)
class Stage:
    """One stage: the median of its seconds, and what it computes."""

    seconds: float
    gigaflop: float


def time_stage(work: Callable[[], object], times: int, device: torch.device) -> Stage:
    """Give what a stage takes."""
    with FlopCounterMode(display=False) as counter, count_loops() as loops:
        work()  # warm
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - began)
    return Stage(statistics.median(taken), (counter.get_total_flops() + sum(loops)) / GIGA)


def fetch_network(name: str) -> XMem:
    """Give the shipped compact network, or the full one with random weights."""
    if name == "compact":
        return load_model("compact").network
    torch.manual_seed(1)
    return build_network(NetworkConfig())


def draw_masks(objects: int) -> Tensor:
    """Give masks (objects, H, W) of upright bars."""
    masks = torch.zeros(objects, HEIGHT, WIDTH)
    for place in range(objects):
        left = WIDTH // objects * place
        masks[place, 100:380, left + 20 : left + WIDTH // objects - 20] = 1
    return masks


@torch.inference_mode()
def measure_plain(network: XMem, objects: int, frames: int) -> dict[str, Stage]:
    """Give the stages of the reference's way."""
    policy = MemoryPolicy()
    canvas = Engine(network, policy, working_size=network.config.working_size).canvas_for(HEIGHT, WIDTH)
    image, masks = torch.rand(3, HEIGHT, WIDTH), draw_masks(objects)
    run = PlainRun(network, policy, canvas, lambda _frame: image, no_motion)
    seen, features = run.encode(0)
    laid = canvas.lay(masks)
    value = run.encode_value(seen, features, laid)
    block = make_block(features, value)
    rows = block[0].shape[1]
    run.memory.permanent = [tuple(part + 0.1 * torch.rand_like(part) for part in block) for _ in range(KEYS)]
    run.memory.working = [tuple(part + 0.1 * torch.rand_like(part) for part in block) for _ in range(WORKING)]
    picked = torch.randint(rows, (LONG_TERM,))
    run.memory.long_term = [tuple(part[..., picked] for part in block)]
    run.memory.use, run.memory.life = torch.zeros(rows * WORKING), torch.ones(rows * WORKING)
    hidden = torch.zeros(1, objects, network.config.hidden_dim, *features.key.shape[-2:])
    cpu = torch.device("cpu")
    carried = _carry_nothing(network, objects, cpu)
    return {
        "encode": time_stage(lambda: run.encode(0), frames, cpu),
        "read": time_stage(lambda: run.memory.read(features), frames, cpu),
        "decode": time_stage(lambda: run.decode(features, value, hidden, carried), frames, cpu),
        "value": time_stage(lambda: run.encode_value(seen, features, laid), max(2, frames // 3), cpu),
    }


def _carry_nothing(network: XMem, objects: int, device: torch.device) -> Tensor | None:
    """Give what carried masks say when there are none, for a network that wants any."""
    if not network.follows_motion:
        return None
    return torch.zeros(1, objects, HEIGHT, WIDTH, device=device)


@torch.inference_mode()
def measure_ours(network: XMem, objects: int, frames: int, engine: Engine, batch: int) -> dict[str, Stage]:
    """Give the stages of ours; ``encode`` is per image of a batch.

    Only the first round has it, and ``read``; ``read again`` is what later ones have, with one key more than there was.
    """
    device = next(network.parameters()).device
    images = torch.rand(batch, 3, HEIGHT, WIDTH, device=device)
    masks = {object_id: mask.to(device) for object_id, mask in enumerate(draw_masks(objects), 1)}
    encoded = engine.encode(images)[0]
    keyed = [_vary_key(encoded) for _ in range(KEYS)]
    for frame, its_features in enumerate(keyed[:-1]):
        engine.annotate(1000 + frame, its_features, masks)
    propagation = engine.start(tuple(range(10)))
    object_ids = tuple(masks)
    _fill_memory(propagation, encoded, object_ids)
    features, soft = encoded.features, encoded.canvas.lay(torch.stack(list(masks.values())))
    memory, store = propagation.memory, FirstFound()

    def read(best_rows: BestRowsStore) -> Tensor:
        memory.best_rows = best_rows
        return memory.read(WORKING, features.key[0], features.selection[0], object_ids)

    read(store)
    value = engine.encode_value(encoded, soft)[0]
    memory.permanent.append(1000 + KEYS - 1, make_rows(keyed[-1].features, value, object_ids))
    readout = read(NoStore())
    propagation._create_hidden(object_ids, encoded)
    carried = _carry_nothing(network, objects, device)

    def decode() -> object:
        return propagation._decode(encoded, object_ids, slice(0, objects), (readout, carried), keep_hidden=False)

    encode = time_stage(lambda: engine.encode(images), max(2, frames // batch), device)
    return {
        "encode": Stage(encode.seconds / batch, encode.gigaflop / batch),
        "read": time_stage(lambda: read(NoStore()), frames, device),
        "read again": time_stage(lambda: read(store), frames, device),
        "decode": time_stage(decode, frames, device),
        "value": time_stage(lambda: engine.encode_value(encoded, soft), max(2, frames // 3), device),
    }


def _vary(tensor: Tensor) -> Tensor:
    return tensor + 0.1 * torch.rand_like(tensor)


def _vary_key(encoded: FrameFeatures) -> FrameFeatures:
    """Give a frame that looks much alike: what equals each other altogether is searched faster than film."""
    return replace(encoded, features=replace(encoded.features, key=_vary(encoded.features.key)))


def _fill_memory(propagation: Propagation, encoded: FrameFeatures, object_ids: tuple[int, ...]) -> None:
    soft = encoded.canvas.lay(torch.rand(len(object_ids), *encoded.canvas.shape, device=encoded.image.device))
    rows = make_rows(encoded.features, propagation.engine.encode_value(encoded, soft)[0], object_ids)
    for frame in range(WORKING):
        values = {object_id: _vary(value) for object_id, value in rows.values.items()}
        propagation.memory.working.append(frame, Rows(_vary(rows.key), rows.shrinkage, rows.selection, values, {}))
    picked = torch.randint(rows.key.shape[0], (LONG_TERM,), device=rows.key.device)
    values = {object_id: value[picked] for object_id, value in rows.values.items()}
    long_term = Rows(_vary(rows.key[picked]), rows.shrinkage[picked], rows.selection[picked], values, {})
    propagation.memory.long_term.append(0, long_term)


def main() -> None:
    """Print the stages, and the machine's limit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("column", choices=("plain", "ours"))
    parser.add_argument("--network", choices=("full", "compact"), default="full")
    parser.add_argument("--objects", type=int, default=1)
    parser.add_argument("--frames", type=int, default=12)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="float32", choices=("float32", "bfloat16", "float16"))
    options = parser.parse_args()
    network, device = fetch_network(options.network), torch.device(options.device)
    if options.column == "plain":
        stages = measure_plain(network, options.objects, options.frames)
    else:
        from xmem_server.worker.engine_loop import place_network  # noqa: PLC0415 - what the engine process does with a model
        from xmem_server.worker.features import FeatureBudget  # noqa: PLC0415

        place_network(network, device)
        precision = getattr(torch, options.precision)
        engine = Engine(network, MemoryPolicy(), precision, network.config.working_size)
        stages = measure_ours(network, options.objects, options.frames, engine, FeatureBudget().batch)
    figures = {name: vars(stage) for name, stage in stages.items()}
    print(json.dumps({"stages": figures, "limit_gigaflop_per_second": measure_limit(device)}))


if __name__ == "__main__":
    main()
