"""Seconds of one suggestion over a long shot: the lazy rule on cached keys, beside comparing every frame with every chosen one.

    python -m benchmarks.suggestion [--frames 2000] [--keys 10] [--count 5] [--height 23] [--width 40]

Keys are a slow walk, as neighbouring frames of a film look alike; they are written to a cache folder first and read back as the engine does.
The exhaustive way is timed on a sample of pairs and multiplied, and the ranking compared on the first 100 frames.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from xmem_core.dissimilarity import FrameKeys, FrameMask, dissimilarity, make_composite
from xmem_core.keyframes import SuggestionRule, suggest_keyframes
from xmem_server.worker.cache_folder import CacheFolder
from xmem_server.worker.features import KEY_FIELDS

CPU = torch.device("cpu")


class StoredKeys(Mapping[int, FrameKeys]):
    """Keys read from the folder when they are asked for; counts how often."""

    def __init__(self, folder: CacheFolder, frames: int) -> None:
        self._folder = folder
        self._frames = frames
        self.reads = 0

    def __getitem__(self, frame: int) -> FrameKeys:
        self.reads += 1
        found = self._folder.load_part(frame, KEY_FIELDS, CPU)
        if found is None:
            raise KeyError(frame)
        return FrameKeys(*found)

    def __iter__(self) -> Iterator[int]:
        return iter(range(self._frames))

    def __len__(self) -> int:
        return self._frames


def save_walk(folder: CacheFolder, frames: int, shape: tuple[int, int], channels: int = 64) -> None:
    """Write keys of a slow walk."""
    torch.manual_seed(1)
    key, shrinkage = torch.randn(channels, *shape), 1 + torch.rand(1, *shape)
    selection = torch.rand(channels, *shape)
    for frame in range(frames):
        key = 0.995 * key + 0.1 * torch.randn_like(key)
        folder.save(frame, {"key": key, "shrinkage": shrinkage, "selection": selection})


def rank_all(keys: StoredKeys, masks: Mapping[int, FrameMask], annotated: list[int], rule: SuggestionRule) -> list[int]:
    """Give the ranking of comparing every frame with every chosen one."""
    composites = {frame: make_composite(keys[frame], masks[frame], rule.alpha) for frame in masks}
    chosen = list(annotated)
    for _ in range(rule.count):
        left = [frame for frame in masks if frame not in chosen]
        nearest = {f: min(dissimilarity(composites[other], composites[f]) for other in chosen) for f in left}
        chosen.append(max(nearest, key=lambda frame: (nearest[frame], -frame)))
    return chosen[len(annotated) :]


def main() -> None:
    """Print the seconds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=2000)
    parser.add_argument("--keys", type=int, default=10)
    parser.add_argument("--count", type=int, default=5)
    parser.add_argument("--height", type=int, default=23, help="of a key, in positions of 16 pixels")
    parser.add_argument("--width", type=int, default=40)
    options = parser.parse_args()
    shape = (options.height, options.width)
    with tempfile.TemporaryDirectory() as temporary, torch.inference_mode():
        folder = CacheFolder(Path(temporary), 2**36)
        save_walk(folder, options.frames, shape)
        keys = StoredKeys(folder, options.frames)
        masks = {frame: FrameMask(0.1, (torch.rand(1, *shape) > 0.7).float()) for frame in range(options.frames)}
        annotated = [round(place * (options.frames - 1) / (options.keys - 1)) for place in range(options.keys)]
        rule = SuggestionRule(options.count)
        began = time.monotonic()
        found = suggest_keyframes(keys, masks, annotated, rule)
        lazy = time.monotonic() - began
        first, second = (make_composite(keys[frame], masks[frame], rule.alpha) for frame in (0, 1))
        began = time.monotonic()
        for _ in range(50):
            dissimilarity(first, second)
        pair = (time.monotonic() - began) / 50
        pairs = sum((options.frames - options.keys - place) * (options.keys + place) for place in range(options.count))
        few = {frame: masks[frame] for frame in range(min(100, options.frames))}
        ends = [min(few), max(few)]
        short = [one.frame for one in suggest_keyframes(keys, few, ends, rule)]
        is_same = short == rank_all(keys, few, ends, rule)
    print(
        f"{options.frames} frames, {options.keys} keys, {options.count} suggested {[one.frame for one in found]}: {lazy:.1f} s"
    )
    print(
        f"every pair anew: {pairs} pairs of {1000 * pair:.1f} ms, {pairs * pair:.0f} s; ratio {pairs * pair / lazy:.0f}"
    )
    print(f"same ranking as the exhaustive rule on {len(few)} frames: {is_same}")


if __name__ == "__main__":
    main()
