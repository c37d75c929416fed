"""One column of the speed table, measured in a process of its own; prints one line of JSON.

python -m benchmarks.speed.columns {plain,ours} --work FOLDER --frames N --objects N --keys N --count N
"""

from __future__ import annotations

import argparse
import functools
import json
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from benchmarks.memory import fetch_peak
from benchmarks.speed.plain import PlainRun, suggest_plain
from benchmarks.speed.shot import SpeedShot, fetch_propagation, fetch_suggestion, make_shot
from xmem_core.images import FineCanvas, padding_for, working_shape
from xmem_core.keyframes import summarise_mask
from xmem_core.mattes import make_mattes
from xmem_core.memory import MemoryPolicy
from xmem_core.motion import PairMotion
from xmem_core.weights import load_model
from xmem_server.decoding import Decoder
from xmem_server.engines import EngineProcess
from xmem_server.headers import Header
from xmem_server.plans import (
    EngineCancelled,
    EngineDone,
    EngineFailed,
    EngineMatte,
    EngineSuggestions,
    MatteSource,
    PropagationPlan,
    SuggestionPlan,
)
from xmem_server.worker.optical_flow import measure_motion

Figures = dict[str, Any]
_POLL_SECONDS = 0.005  # oftener would take a share of the processor that is measured


# ---------------------------------------------------------------------------------------------------------------- plain


@dataclass
class PlainShot:
    """The shot as the reference would hold it: nothing is kept from one round to the next."""

    shot: SpeedShot
    decoder: Decoder
    folder: Path
    key_size: tuple[int, int]
    masks: dict[int, Tensor] = field(default_factory=dict)  # what the last round gave, at key size

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) of the plates."""
        return self.shot.height, self.shot.width

    @functools.cached_property
    def header(self) -> Header:
        """Of the plates."""
        path = next(iter(self.shot.plates.values()))
        return self.decoder.fetch_header(str(path), path.suffix)

    def fetch_image(self, frame: int) -> Tensor:
        """Give a plate (3, H, W), decoded as the product does."""
        path = str(self.shot.plates[frame])
        pixels = self.decoder.fetch_plate(path, ".jpg", 0, "auto", self.shape)
        return torch.from_numpy(pixels.copy()).permute(2, 0, 1)

    def fetch_keys(self, keyed: tuple[int, ...]) -> dict[int, Tensor]:
        """Give masks (objects, H, W) by keyed frame."""
        found = {}
        for frame in keyed:
            ids = torch.from_numpy(cv2.imread(str(self.shot.masks[frame]), cv2.IMREAD_GRAYSCALE))
            found[frame] = torch.stack([(ids == each).float() for each in range(1, self.shot.objects + 1)])
        return found

    def make_motion(self) -> Callable[[int, int], PairMotion]:
        """Give what measures motion, each pair once a round."""

        @functools.cache
        def fetch(earlier: int, later: int) -> PairMotion:
            pair = (self._fetch_grey(earlier), self._fetch_grey(later))
            to_later, to_earlier = measure_motion(*pair)
            return PairMotion(torch.from_numpy(to_later), torch.from_numpy(to_earlier))

        return fetch

    def _fetch_grey(self, frame: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        picture = cv2.imread(str(self.shot.plates[frame]), cv2.IMREAD_GRAYSCALE)
        return np.asarray(cv2.resize(np.asarray(picture), self.shape[::-1]), np.uint8)

    def save(self, frame: int, mattes: Tensor) -> None:
        """Write mattes (objects, H, W) as the product does."""
        full = make_mattes(mattes, *self.shape)
        for object_id, matte in enumerate(full.numpy(), 1):
            self.decoder.save_matte(str(self.folder / f"{frame}.{object_id}.exr"), matte, self.header, "exr-half")
        self.masks[frame] = summarise_mask(full, self.key_size).at_keys


def measure_plain(options: argparse.Namespace, shot: SpeedShot) -> Figures:
    """Give the seconds of one whole round, and of a suggestion after it."""
    network = load_model("compact").network
    shape = (shot.height, shot.width)
    working = working_shape(*shape, network.config.working_size)
    canvas = FineCanvas(shape, working, padding_for(*working))
    keyed = shot.spread(options.keys)
    with Decoder() as decoder:
        plain = PlainShot(shot, decoder, options.work, (-(-working[0] // 16), -(-working[1] // 16)))
        run = PlainRun(network, MemoryPolicy(), canvas, plain.fetch_image, plain.make_motion())
        began = time.monotonic()
        run.run(tuple(shot.plates), plain.fetch_keys(keyed), plain.save)
        round_seconds = time.monotonic() - began
        began = time.monotonic()
        suggested = suggest_plain(lambda frame: run.encode(frame)[1], plain.masks, keyed, options.count)
        suggestion_seconds = time.monotonic() - began
    return {
        "propagation": round_seconds,
        "suggestion": suggestion_seconds,
        "suggested": suggested,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


# ----------------------------------------------------------------------------------------------------------------- ours


@dataclass
class Timed:
    """What an engine said of a plan, each with the seconds since it was handed over."""

    said: list[tuple[float, Any]]

    @property
    def total(self) -> float:
        """Seconds to the end."""
        return self.said[-1][0]

    def mattes(self, *, is_provisional: bool) -> dict[int, tuple[float, EngineMatte]]:
        """Give when each frame's mattes came, and what was said."""
        return {
            event.frame: (when, event)
            for when, event in self.said
            if isinstance(event, EngineMatte) and event.is_provisional == is_provisional
        }


def time_plan(engine: EngineProcess, plan: PropagationPlan | SuggestionPlan) -> Timed:
    """Hand over a plan and wait for its end."""
    began = time.monotonic()
    engine.submit(plan)
    said: list[tuple[float, Any]] = []
    while True:
        for event in engine.events():
            said.append((time.monotonic() - began, event))
            if isinstance(event, EngineDone):
                return Timed(said)
            if isinstance(event, (EngineFailed, EngineCancelled)):
                sys.exit(f"the engine did not finish: {event}")
        time.sleep(_POLL_SECONDS)


def keep_mattes(timed: Timed, folder: Path) -> tuple[MatteSource, ...]:
    """Move a run's mattes to files named by their content, as the server keeps them, and give them."""
    kept = []
    for frame, (_, event) in timed.mattes(is_provisional=False).items():
        for file in event.files:
            path = folder / file.sha256
            Path(file.path).replace(path)
            kept.append(MatteSource(frame, file.object_id, str(path), file.suffix))
    return tuple(kept)


def measure_overlap(decoder: Decoder, one: EngineMatte, other: EngineMatte) -> float:
    """Give the mean overlap (J, 0..1) of two frames' mattes, hardened at 0.5."""
    values = []
    for first, second in zip(one.files, other.files, strict=True):
        a, b = (decoder.fetch_alpha(file.path, file.suffix, "channel:auto") > 0.5 for file in (first, second))
        either = float((a | b).sum())
        values.append(float((a & b).sum()) / either if either else 1.0)
    return sum(values) / len(values)


def measure_ours(options: argparse.Namespace, shot: SpeedShot) -> Figures:
    """Give the seconds of a first round, of a suggestion after it, of an exact second round, and of the first frames around a playhead."""
    engine = EngineProcess("compact", options.device)
    engine.start()
    keyed, middle = shot.spread(options.keys), 1001 + len(shot.plates) // 2
    (options.work / "stored").mkdir(exist_ok=True)
    plan = fetch_propagation(shot, options.work, "first", keyed)
    first = time_plan(engine, plan)
    before = keep_mattes(first, options.work / "stored")
    suggestion = time_plan(engine, fetch_suggestion(plan, "suggest", before, options.count))
    elsewhere = tuple(sorted({*keyed, middle - len(shot.plates) // 5}))
    second = time_plan(engine, fetch_propagation(shot, options.work, "second", elsewhere))
    corrected = fetch_propagation(shot, options.work, "playhead", tuple(sorted({*keyed, middle})), (middle,), before)
    looked = time_plan(engine, corrected)
    peak = fetch_peak(engine.pid())
    engine.close()
    provisional, exact = looked.mattes(is_provisional=True), looked.mattes(is_provisional=False)
    new = [frame for frame in provisional if frame != middle]
    with Decoder() as decoder:
        overlaps = [measure_overlap(decoder, provisional[f][1], exact[f][1]) for f in new]
    found = [event for _, event in suggestion.said if isinstance(event, EngineSuggestions)]
    return {
        "first_propagation": first.total,
        "second_propagation_exact": second.total,
        "first_corrected_frame": provisional[middle][0],
        "first_neighbour": min(provisional[f][0] for f in new),
        "first_exact_at_playhead": exact[middle][0],
        "with_preview": looked.total,
        "preview_frames": len(provisional),
        "preview_overlap": {"mean": sum(overlaps) / len(overlaps), "least": min(overlaps)},
        "suggestion": suggestion.total,
        "suggested": [one.frame for event in found for one in event.suggestions],
        "peak_mib": peak,
    }


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("column", choices=("plain", "ours"))
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--frames", type=int, required=True)
    parser.add_argument("--objects", type=int, required=True)
    parser.add_argument("--keys", type=int, required=True)
    parser.add_argument("--count", type=int, required=True, help="frames to suggest")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    shot = make_shot(options.work / "shot", options.frames, (854, 480), options.objects)
    figures = (measure_plain if options.column == "plain" else measure_ours)(options, shot)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
