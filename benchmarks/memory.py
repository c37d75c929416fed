"""Peak memory against the number of frames: one long shot through the real server process.

    python -m benchmarks.memory --work FOLDER [--frames 500] [--width 854] [--height 480] [--json FILE]

Makes its own plates (drifting noise and a drifting object), keys the first, the middle and the last frame, and samples the resident memory of the engine
process and of the whole server while ``xmem roto``'s own job runs. Prints the peak up to each hundredth frame; the last
line is the ratio of the peak at the end to the peak at frame 100.
"""

from __future__ import annotations

import argparse
import json
import shutil
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import psutil

from xmem_client import Client, hash_file
from xmem_protocol import PRESENT, Key, MatteReady, Plate, PropagationSettings, Shot
from xmem_server.commands.private_server import PrivateServer, PrivateServerSettings

MEBIBYTE = 1024 * 1024


def save_shot(
    folder: Path, frames: int, width: int, height: int, objects: int = 1
) -> tuple[dict[int, Path], dict[int, Path]]:
    """Write plates and index masks (ids from 1) of drifting textured squares; give their paths by frame number."""
    folder.mkdir(parents=True, exist_ok=True)
    source = np.random.default_rng(1)
    noise = source.random((height // 8, (width + frames) // 8 + 2, 3), np.float32)
    wall = cv2.resize(noise, (width + frames + 16, height), interpolation=cv2.INTER_CUBIC) * 140 + 40
    side = height // 3
    coarse = [source.random((8, 8, 3), np.float32) for _ in range(objects)]
    patches = [cv2.resize(patch, (side, side), interpolation=cv2.INTER_CUBIC) * 200 + 30 for patch in coarse]
    plates, masks = {}, {}
    for index in range(frames):
        picture = wall[:, index : index + width].copy()
        mask = np.zeros((height, width), np.uint8)
        for place, patch in enumerate(patches):
            left = int((width - side) * (0.5 + 0.45 * np.sin(index / 40 + 2 * place)))
            top = int((height - side) * (0.5 + 0.4 * np.cos(index / 60 + 2 * place)))
            picture[top : top + side, left : left + side] = patch
            mask[top : top + side, left : left + side] = place + 1
        frame = 1001 + index
        plates[frame], masks[frame] = folder / f"plate.{frame}.jpg", folder / f"mask.{frame}.png"
        cv2.imwrite(str(plates[frame]), np.clip(picture, 0, 255).astype(np.uint8))
        cv2.imwrite(str(masks[frame]), mask)
    return plates, masks


@dataclass
class Sampler:
    """Resident memory of a process and of everything below it, sampled on a thread."""

    root: int
    engine_peak: int = 0
    total_peak: int = 0
    running: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        """Begin sampling, twenty times a second."""
        self.running.set()
        threading.Thread(target=self._sample, daemon=True).start()

    def _sample(self) -> None:
        while self.running.is_set():
            total = 0
            try:
                parent = psutil.Process(self.root)
                for process in [parent, *parent.children(recursive=True)]:
                    resident = process.memory_info().rss
                    total += resident
                    if "xmem_server.worker" in process.cmdline():
                        self.engine_peak = max(self.engine_peak, resident)
            except psutil.NoSuchProcess:
                continue
            self.total_peak = max(self.total_peak, total)
            time.sleep(0.05)


def fetch_peak(process_id: int) -> float:
    """Give the most resident memory that a process has had, in MiB (Linux)."""
    lines = Path(f"/proc/{process_id}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def run(options: argparse.Namespace) -> dict[int, tuple[float, float]]:
    """Give the peaks (engine, whole server) in MiB reached by each hundredth frame."""
    shutil.rmtree(options.work, ignore_errors=True)
    plates, masks = save_shot(options.work / "shot", options.frames, options.width, options.height)
    (options.work / "server").mkdir()
    first, last = 1001, 1000 + options.frames
    peaks: dict[int, tuple[float, float]] = {}
    server = PrivateServer(PrivateServerSettings(options.work / "server", readable_roots=(options.work.resolve(),)))
    with server, Client(server.fetch_connection, "benchmark") as client:
        client.open_session("long", Shot("long", options.width, options.height, 1.0, first, last, "auto"))
        known = [(Plate(frame, hash_file(path), 0, path.suffix), path) for frame, path in plates.items()]
        client.put_plates("long", known, lambda _done, _total: None)
        for frame in (first, (first + last) // 2, last):
            key = Key(frame, 1, PRESENT, hash_file(masks[frame]), ".png", "index:1")
            client.put_key("long", key, masks[frame])
        sampler = Sampler(server.process_id)
        sampler.start()
        for event in client.follow(client.start_propagation("long", PropagationSettings(first, last))):
            if isinstance(event, MatteReady) and (event.frame - first + 1) % 100 == 0:
                done = event.frame - first + 1
                peaks[done] = (sampler.engine_peak / MEBIBYTE, sampler.total_peak / MEBIBYTE)
                print(f"| {done} | {peaks[done][0]:.0f} | {peaks[done][1]:.0f} |", flush=True)
        sampler.running.clear()
    return peaks


def main() -> None:
    """Print the table and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--frames", type=int, default=500)
    parser.add_argument("--width", type=int, default=854)
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    print("| frames | engine peak MiB | whole server peak MiB |\n|--:|--:|--:|", flush=True)
    peaks = run(options)
    ratio = peaks[max(peaks)][0] / peaks[min(peaks)][0]
    print(f"engine, {max(peaks)} frames against {min(peaks)}: {ratio:.3f}")
    if options.json:
        options.json.write_text(json.dumps({"peaks": peaks, "ratio": ratio}, indent=1))


if __name__ == "__main__":
    main()
