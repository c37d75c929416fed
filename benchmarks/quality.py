"""J and F on real clips: ``xmem roto`` through the real server process at 1, 5 and 10 keys, beside two floors.

    python -m benchmarks.quality --clips FOLDER --work FOLDER [--clip NAME ...] [--model M] [--size N] [--json FILE]

``FOLDER`` of clips has, for each clip, ``frames/``, ``masks/`` (index PNG), ``meta.json``, and ``evaluate.py`` beside the clips,
which does the scoring. Annotated frames are not scored. Keys are the clip's own masks, evenly spaced with both ends.
Prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

# J / F of two methods without a network, made by baselines.py of the clip set: copy the nearest key; carry it by DIS optical flow.
FLOORS = {
    ("chair", 1): ((52.4, 82.5), (78.9, 94.0)),
    ("chair", 5): ((73.7, 90.7), (92.4, 98.7)),
    ("chair", 10): ((84.5, 96.4), (95.6, 99.7)),
    ("dogs-jump", 1): ((26.9, 32.4), (19.2, 25.8)),
    ("dogs-jump", 5): ((54.5, 62.4), (76.5, 81.7)),
    ("dogs-jump", 10): ((64.4, 68.9), (81.1, 87.1)),
    ("alpha-dancer", 1): ((39.3, 29.0), (36.0, 45.1)),
    ("alpha-dancer", 5): ((61.5, 56.1), (78.0, 78.8)),
    ("alpha-dancer", 10): ((71.9, 68.2), (86.9, 88.3)),
    ("caps", 1): ((12.5, 12.5), (15.9, 26.4)),
    ("caps", 3): ((25.0, 25.0), (36.8, 51.5)),
}


@dataclass(frozen=True)
class Row:
    """One run: J and F in percent, and on clips with a true alpha MAD (x1000) and Grad (/1000)."""

    clip: str
    keys: int
    j: float
    f: float
    mad: float | None
    grad: float | None
    frames_per_second: float


def fetch_key_frames(meta: dict[str, list[int]], keys: int) -> list[int]:
    """Give the annotated frames: evenly spaced over those that have ground truth, both ends included."""
    known = meta["gt_frames"]
    if keys == 1:
        return [known[0]]
    last = len(known) - 1
    return [known[round(place * last / (keys - 1))] for place in range(keys)]


def run_clip(clip: Path, keys: int, work: Path, options: argparse.Namespace) -> Row:
    """Give one clip's scores with this many keys."""
    meta = json.loads((clip / "meta.json").read_text())
    annotated = fetch_key_frames(meta, keys)
    key_folder, out = work / f"{clip.name}-{keys}-keys", work / f"{clip.name}-{keys}-mattes"
    shutil.rmtree(key_folder, ignore_errors=True)
    shutil.rmtree(out, ignore_errors=True)
    key_folder.mkdir(parents=True)
    for frame in annotated:
        shutil.copy(clip / "masks" / f"{frame:05d}.png", key_folder)
    command = [sys.executable, "-m", "xmem_server", "roto", "--plate", str(clip / "frames"), "--keys", str(key_folder)]
    command += ["--out", str(out), "--model", options.model, "--size", str(options.size), *options.roto]
    began = time.monotonic()
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    seconds = time.monotonic() - began
    scores = work / "scores.json"
    excluded = ",".join(map(str, annotated))
    evaluate = [sys.executable, str(clip.parent / "evaluate.py"), str(clip), str(out), "--exclude", excluded]
    subprocess.run([*evaluate, "--json", str(scores)], check=True, stdout=subprocess.DEVNULL)
    mean = json.loads(scores.read_text())["mean"]
    shutil.rmtree(out / ".xmem", ignore_errors=True)
    return Row(
        clip.name, keys, 100 * mean["J"], 100 * mean["F"], mean.get("MAD"), mean.get("Grad"), meta["frames"] / seconds
    )


def describe(row: Row) -> str:
    """Give one line of the table; a J below the better floor is marked."""
    copy, flow = FLOORS.get((row.clip, row.keys), ((0.0, 0.0), (0.0, 0.0)))
    miss = "" if row.j > max(copy[0], flow[0]) else " **below**"
    alpha = f"{row.mad:.2f} / {row.grad:.2f}" if row.mad is not None and row.grad is not None else ""
    floors = f"{copy[0]:.1f} / {copy[1]:.1f} | {flow[0]:.1f} / {flow[1]:.1f}"
    return f"| {row.clip} | {row.keys} | {row.j:.1f} / {row.f:.1f}{miss} | {floors} | {alpha} |"


def main() -> None:
    """Run the clips asked for and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--clip", action="append", default=[])
    parser.add_argument("--model", default="compact")
    parser.add_argument("--size", type=int, default=0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("roto", nargs="*", help="after --: further options for xmem roto")
    options = parser.parse_args()
    names = options.clip or sorted(path.parent.name for path in options.clips.glob("*/meta.json"))
    rows = []
    print("| clip | keys | J / F | copy nearest key | flow-warp | MAD / Grad |\n|---|--:|---|---|---|---|", flush=True)
    for name in names:
        dense = json.loads((options.clips / name / "meta.json").read_text())["gt_dense"]
        for keys in (1, 5, 10) if dense else (1, 3):
            rows.append(run_clip(options.clips / name, keys, options.work, options))
            print(describe(rows[-1]), flush=True)
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))


if __name__ == "__main__":
    main()
