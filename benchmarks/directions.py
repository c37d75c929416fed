"""Does propagating backwards too, and fusing, give better mattes at equal keys? J and F on real clips, forward alone beside fused.

    python -m benchmarks.directions --clips FOLDER --work FOLDER [--clip NAME ...] [--keys N ...]

Forward and backward are two exact passes over the same permanent memory and motion. Between two keys the forward pass counts by how near the key
before is, the backward pass by how near the one after is (``distance``), and also by how sure each is of a pixel (``confidence``).
Clips as for ``benchmarks.quality``.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import cv2
import torch
from torch import Tensor

from benchmarks.quality import fetch_key_frames
from xmem_core.engine import Engine
from xmem_core.images import even_shape, harden, working_shape
from xmem_core.mattes import make_mattes
from xmem_core.memory import MemoryPolicy
from xmem_core.weights import load_model
from xmem_server.decoding import Decoder
from xmem_server.plans import PlateSource
from xmem_server.worker.cache_folder import CacheFolder
from xmem_server.worker.engine_loop import place_network
from xmem_server.worker.features import Encoding, FeatureBudget, FeatureCache
from xmem_server.worker.motion_cache import MotionCache

Probabilities = dict[int, Tensor]  # (objects, H, W) by frame


def propagate(clip: Path, keyed: list[int], work: Path, decoder: Decoder) -> tuple[Probabilities, Probabilities]:
    """Give what the forward and the backward pass say of every frame."""
    meta = json.loads((clip / "meta.json").read_text())
    suffix = f".{meta['frame_ext']}"
    plates = [
        PlateSource(frame, str(clip / "frames" / f"{frame:05d}{suffix}"), f"{clip.name} {frame}", 0, suffix)
        for frame in range(meta["frames"])
    ]
    model = load_model("compact")
    place_network(model.network, torch.device("cpu"))
    size = model.network.config.working_size
    header = decoder.fetch_header(plates[0].path, suffix)
    shape = even_shape(*working_shape(header.height, header.width, model.network.config.matte_size))
    encoding = Encoding("auto", "", shape, working_shape(*shape, size), model.sha256)
    folder, budget = CacheFolder(work / f"{clip.name}-cache", 2**34), FeatureBudget()
    engine = Engine(model.network, MemoryPolicy(), working_size=size)
    cache = FeatureCache(engine, decoder, plates, encoding, folder, budget)
    with MotionCache(cache, folder) as motion, cache:
        for frame in keyed:
            ids = torch.from_numpy(cv2.imread(str(clip / "masks" / f"{frame:05d}.png"), cv2.IMREAD_UNCHANGED))
            alphas = {each: (ids == each).float() for each in meta["objects"]}
            engine.annotate(frame, cache.fetch(frame), harden(alphas, shape, 0.5))
        frames = tuple(range(meta["frames"]))
        forward = engine.start(frames, motion.fetch)
        backward = engine.start(frames[::-1], motion.fetch_reversed)
        ahead = {frame: forward.step(cache.fetch(frame)).probabilities for frame in frames}
        back = {frame: backward.step(cache.fetch(frame)).probabilities for frame in frames[::-1]}
    return ahead, back


def fuse(ahead: Tensor, back: Tensor, distances: tuple[int, int], *, by_confidence: bool) -> Tensor:
    """Give the fused probabilities for distances in frames from the key before and to the key after."""
    before, after = distances
    weight_ahead, weight_back = after + 1e-3, before + 1e-3  # linear: at a key, that key's pass alone counts
    if not by_confidence:
        return (ahead * weight_ahead + back * weight_back) / (weight_ahead + weight_back)
    sure_ahead = weight_ahead * (0.05 + (ahead - 0.5).abs())
    sure_back = weight_back * (0.05 + (back - 0.5).abs())
    return (ahead * sure_ahead + back * sure_back) / (sure_ahead + sure_back)


def fuse_all(ahead: Probabilities, back: Probabilities, keyed: list[int], *, by_confidence: bool) -> Probabilities:
    """Give every frame fused; outside all keys the pass that has seen one counts alone."""
    fused = {}
    for frame, probabilities in ahead.items():
        before = [frame - key for key in keyed if key <= frame]
        after = [key - frame for key in keyed if key >= frame]
        if not before or not after:
            fused[frame] = probabilities if before else back[frame]
        else:
            fused[frame] = fuse(probabilities, back[frame], (min(before), min(after)), by_confidence=by_confidence)
    return fused


def score(clip: Path, mattes: Mapping[int, Tensor], keyed: list[int], out: Path) -> tuple[float, float]:
    """Give J and F in percent over the frames without a key."""
    shutil.rmtree(out, ignore_errors=True)
    meta = json.loads((clip / "meta.json").read_text())
    for place, object_id in enumerate(meta["objects"]):
        (out / str(object_id)).mkdir(parents=True)
        for frame, probabilities in mattes.items():
            full = make_mattes(probabilities, meta["height"], meta["width"])[place]
            cv2.imwrite(
                str(out / str(object_id) / f"{frame:05d}.png"), (full * 65535).round().int().numpy().astype("uint16")
            )
    scores = out / "scores.json"
    command = [sys.executable, str(clip.parent / "evaluate.py"), str(clip), str(out), "--json", str(scores)]
    subprocess.run([*command, "--exclude", ",".join(map(str, keyed))], check=True, stdout=subprocess.DEVNULL)
    mean = json.loads(scores.read_text())["mean"]
    return 100 * mean["J"], 100 * mean["F"]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--clip", action="append", default=[])
    parser.add_argument("--keys", type=int, action="append", default=[])
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    names = options.clip or sorted(path.parent.name for path in options.clips.glob("*/meta.json"))
    print(
        "| clip | keys | forward J / F | fused by distance | by distance and confidence |\n|---|--:|---|---|---|",
        flush=True,
    )
    with Decoder() as decoder, torch.inference_mode():
        for name in names:
            clip = options.clips / name
            for keys in options.keys or [5]:
                keyed = fetch_key_frames(json.loads((clip / "meta.json").read_text()), keys)
                ahead, back = propagate(clip, keyed, options.work, decoder)
                results = [
                    ahead,
                    fuse_all(ahead, back, keyed, by_confidence=False),
                    fuse_all(ahead, back, keyed, by_confidence=True),
                ]
                cells = [score(clip, each, keyed, options.work / "mattes") for each in results]
                print(f"| {name} | {keys} | " + " | ".join(f"{j:.2f} / {f:.2f}" for j, f in cells) + " |", flush=True)


if __name__ == "__main__":
    main()
