"""How much faster than the reference's way of working: one command, ratios in one run on this machine.

    python -m benchmarks.speed [--quick] [--json FILE] [--plot FILE] [--work FOLDER] [--device cpu]

``plain`` (``benchmarks.speed.plain``) is our own network run the way the reference runs it; ``ours`` is the real engine process with files
on disk. Both decode plates and write mattes alike, each in a fresh process, with the same number of threads. They take turns, twice, and
of each figure the less counts: a machine that others use is slower for minutes on end.
The default run takes 854x480, 100 frames, 5 keys, 1 and 3 objects, and the full network per frame: under 15 minutes on 2 cores.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.speed.plot import draw_ratios
from xmem_server.engines import ENVIRONMENT, child_environment

Figures = dict[str, Any]
RATIOS = ("first_propagation", "second_propagation_exact", "first_corrected_frame", "suggestion")
SECONDS = (*RATIOS, "propagation", "first_neighbour", "first_exact_at_playhead", "with_preview")


@dataclass(frozen=True)
class SpeedSettings:
    """What is measured: frames of the whole shot, its objects (one run each), keys, frames to suggest, turns, and of the full network."""

    frames: int
    objects: tuple[int, ...]
    keys: int
    count: int
    turns: int  # of both columns
    full_frames: tuple[tuple[int, int], ...]  # (objects, frames) each; none leaves the full network out


DEFAULT = SpeedSettings(100, (1, 3), 5, 5, 2, ((1, 12), (3, 4)))
QUICK = SpeedSettings(10, (1,), 2, 2, 1, ())


def run_child(module: str, arguments: list[str], *, is_engine: bool = False) -> Figures:
    """Give what a measuring process prints; as an engine it has the engine's environment."""
    environment = {**child_environment(), **(ENVIRONMENT if is_engine else {})}
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment)
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


def measure_shot(settings: SpeedSettings, objects: int, work: Path, device: str) -> Figures:
    """Give both columns of the whole shot, and the ratios."""
    shared = ["--frames", settings.frames, "--objects", objects, "--keys", settings.keys, "--count", settings.count]
    turns: dict[str, list[Figures]] = {"plain": [], "ours": []}
    for turn in range(settings.turns):
        for name, figures in turns.items():
            folder = work / f"{name}-{objects}-{turn}"
            options = [name, "--work", folder, *shared, "--device", device]
            figures.append(run_child("benchmarks.speed.columns", [str(option) for option in options]))
    columns = {name: _take_least(figures) for name, figures in turns.items()}
    plain, ours = columns["plain"], columns["ours"]
    ratios = {name: plain["propagation"] / ours[name] for name in RATIOS[:3]}
    ratios["suggestion"] = plain["suggestion"] / ours["suggestion"]
    return {"objects": objects, **columns, "ratios": ratios, "turns": turns}


def _take_least(turns: list[Figures]) -> Figures:
    """Give a column's figures: of seconds the least, of memory the most, what is the same each time as it is."""
    least = {name: min(turn[name] for turn in turns) for name in turns[0] if name in SECONDS}
    return {**turns[0], **least, "peak_mib": max(turn["peak_mib"] for turn in turns)}


def measure_stages(network: str, objects: int, frames: int, device: str) -> Figures:
    """Give the stages of one frame in both columns."""
    options = ["--network", network, "--objects", str(objects), "--frames", str(frames)]
    plain = run_child("benchmarks.speed.stages", ["plain", *options])
    ours = run_child("benchmarks.speed.stages", ["ours", *options, "--device", device], is_engine=True)
    seconds = {
        name: {stage: each["seconds"] for stage, each in column["stages"].items()}
        for name, column in (("plain", plain), ("ours", ours))
    }
    rounds = {
        "plain": _sum_frame(seconds["plain"]),
        "first": _sum_frame(seconds["ours"]),
        "later": _sum_frame({**seconds["ours"], "encode": 0.0, "read": seconds["ours"]["read again"]}),
    }
    return {
        "network": network,
        "objects": objects,
        "frames": frames,
        "plain": plain,
        "ours": ours,
        "seconds_a_frame": rounds,
        "ratios": {name: rounds["plain"] / rounds[name] for name in ("first", "later")},
    }


def _sum_frame(stages: dict[str, float]) -> float:
    """Give a frame's share of all stages: a value is encoded every tenth frame."""
    return stages["encode"] + stages["read"] + stages["decode"] + stages["value"] / 10


def write_shots(shots: list[Figures]) -> list[str]:
    """Give the lines of the whole-shot table."""
    lines = ["| | objects | plain, s | ours, s | ratio |", "|---|--:|--:|--:|--:|"]
    names = {
        "first_propagation": "first propagation",
        "second_propagation_exact": "second propagation after one more key, exact",
        "first_corrected_frame": "first corrected frame at the playhead, provisional",
        "first_exact_at_playhead": "the playhead's exact matte (frame 50 of 100)",
    }
    for shot in shots:
        plain, ours = shot["plain"], shot["ours"]
        for name, words in names.items():
            ratio = plain["propagation"] / ours[name]
            lines.append(
                f"| {words} | {shot['objects']} | {plain['propagation']:.1f} | {ours[name]:.2f} | {ratio:.1f} |"
            )
        lines.append(
            f"| suggestion | {shot['objects']} | {plain['suggestion']:.1f} | {ours['suggestion']:.2f} | "
            f"{shot['ratios']['suggestion']:.1f} |"
        )
        overlap = ours["preview_overlap"]
        lines.append(
            f"| preview: {ours['preview_frames']} frames, J against exact {100 * overlap['mean']:.1f} (least "
            f"{100 * overlap['least']:.1f}); next frame after | {shot['objects']} | | {ours['first_neighbour']:.2f} | |"
        )
        lines.append(f"| peak memory, MiB | {shot['objects']} | {plain['peak_mib']:.0f} | {ours['peak_mib']:.0f} | |")
    return lines


def write_stages(measured: list[Figures]) -> list[str]:
    """Give the lines of the per-frame table."""
    lines = [
        "| network | objects | stage | plain, s | ours, s | plain, GFLOP | ours, GFLOP | ours, % of limit |",
        "|---|--:|---|--:|--:|--:|--:|--:|",
    ]
    for each in measured:
        limit = each["ours"]["limit_gigaflop_per_second"]
        start = f"| {each['network']} | {each['objects']} |"
        for stage, ours in each["ours"]["stages"].items():
            plain = each["plain"]["stages"]["read" if stage == "read again" else stage]
            share = 100 * ours["gigaflop"] / ours["seconds"] / limit if ours["gigaflop"] else 0
            lines.append(
                f"{start} {stage} | {plain['seconds']:.3f} | {ours['seconds']:.3f} | {plain['gigaflop']:.1f} | "
                f"{ours['gigaflop']:.1f} | {share:.0f} |"
            )
        rounds, ratios = each["seconds_a_frame"], each["ratios"]
        lines.append(
            f"{start} a frame, first round | {rounds['plain']:.3f} | {rounds['first']:.3f} | | | {ratios['first']:.2f}x |"
        )
        lines.append(
            f"{start} a frame, later rounds | {rounds['plain']:.3f} | {rounds['later']:.3f} | | | {ratios['later']:.2f}x |"
        )
    return lines


def measure(settings: SpeedSettings, work: Path, device: str) -> Figures:
    """Give everything, printing the tables as they come."""
    shots = []
    for objects in settings.objects:
        shots.append(measure_shot(settings, objects, work, device))
        print("\n".join(write_shots(shots[-1:])), flush=True)
    stages = [measure_stages("full", objects, frames, device) for objects, frames in settings.full_frames]
    if stages:
        stages.append(measure_stages("compact", 1, 12, device))
        print("\n".join(write_stages(stages)), flush=True)
    return {
        "ratios": shots[0]["ratios"],
        "machine": {
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "processor": _name_processor(),
            "device": device,
            "torch": torch.__version__,
        },
        "settings": vars(settings),
        "shots": shots,
        "stages": stages,
    }


def _name_processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def main() -> None:
    """Print the tables, and write what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--quick", action="store_true", help="a very short shot, one object, no full network: under a minute"
    )
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--work", type=Path, help="folder for files; a temporary one otherwise")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    settings = QUICK if options.quick else DEFAULT
    with tempfile.TemporaryDirectory() as temporary:
        figures = measure(settings, options.work or Path(temporary), options.device)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1))
    if options.plot:
        draw_ratios(figures, options.plot)


if __name__ == "__main__":
    main()
