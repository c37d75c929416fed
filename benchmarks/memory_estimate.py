"""How near the estimate of a job's memory is to what it then uses: one short propagation each through a fresh engine process.

    python -m benchmarks.memory_estimate --work FOLDER [--model compact|FILE] [WIDTH,HEIGHT,SIZE,OBJECTS,FRAMES ...]

SIZE 0 is the model's own working size. Linux alone says what a process used at most.
"""

from __future__ import annotations

import argparse
import shutil
from dataclasses import replace
from pathlib import Path

from benchmarks.memory import MEBIBYTE, fetch_peak
from benchmarks.speed.columns import time_plan
from benchmarks.speed.shot import fetch_propagation, make_shot
from xmem_core.weights import load_model
from xmem_server.engines import EngineProcess
from xmem_server.worker.memory_plan import Load, estimate_bytes

SHOTS = (
    (640, 360, 0, 2, 12),
    (854, 480, 0, 1, 12),
    (854, 480, 0, 1, 60),
    (854, 480, 0, 1, 100),
    (854, 480, 0, 1, 180),
    (854, 480, 0, 3, 12),
    (854, 480, 0, 3, 60),
    (1280, 720, 540, 1, 20),
    (1280, 720, 720, 1, 60),
    (1280, 720, 720, 3, 8),
    (1920, 1080, 0, 1, 12),
    (1920, 1080, 720, 1, 8),
    (1920, 1080, 720, 3, 6),
    (1920, 1080, 1080, 1, 6),
    (2048, 1152, 900, 2, 6),
    (3840, 2160, 1080, 1, 5),
)


def measure(shape: tuple[int, int, int, int, int], work: Path, model: str) -> tuple[float, float]:
    """Give the estimate and the peak of the engine process in MiB."""
    width, height, size, objects, frames = shape
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    shot = make_shot(work / "shot", frames, (width, height), objects)
    engine = EngineProcess(model, "cpu")
    engine.start()
    plan = fetch_propagation(shot, work, "job", shot.spread(2))
    plan = replace(
        plan, settings=replace(plan.settings, working_size=size, mem_every=1)
    )  # memory fills as in a long shot
    time_plan(engine, plan)
    peak = fetch_peak(engine.pid())
    engine.close()
    config = load_model(model).network.config
    load = Load(plan.shot, frames, 2, objects)
    return estimate_bytes(load, plan.settings, config, size or config.working_size) / MEBIBYTE, peak


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--model", default="compact")
    parser.add_argument("shots", nargs="*", help="WIDTH,HEIGHT,SIZE,OBJECTS,FRAMES")
    options = parser.parse_args()
    given = [tuple(int(part) for part in shot.split(",")) for shot in options.shots]
    print(
        "| plates | working size | objects | frames | estimate, MiB | used, MiB | off by |\n|---|--:|--:|--:|--:|--:|--:|",
        flush=True,
    )
    for width, height, size, objects, frames in given or SHOTS:
        estimate, peak = measure((width, height, size, objects, frames), options.work, options.model)
        off = 100 * (estimate / peak - 1)
        print(
            f"| {width}x{height} | {size or 'own'} | {objects} | {frames} | {estimate:.0f} | {peak:.0f} | {off:+.0f} % |",
            flush=True,
        )


if __name__ == "__main__":
    main()
