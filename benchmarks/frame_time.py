"""Seconds a frame of a first propagation, through the real server process, with mattes on disk.

    python -m benchmarks.frame_time --work FOLDER [--frames 60] [--keys 5] [--width 854] [--height 480]

The shot is that of ``benchmarks.memory``. Counts from the first propagated frame to the last: decoding, encoding, motion, memory,
decoding to mattes and writing them; starting the server is left out.
"""

from __future__ import annotations

import argparse
import os
import shutil
import time
from pathlib import Path

from benchmarks.memory import save_shot
from xmem_client import Client, hash_file
from xmem_protocol import PRESENT, Key, MatteReady, Plate, PropagationSettings, Shot
from xmem_server.commands.private_server import PrivateServer, PrivateServerSettings


def measure(options: argparse.Namespace) -> float:
    """Give the seconds a frame."""
    shutil.rmtree(options.work, ignore_errors=True)
    plates, masks = save_shot(options.work / "shot", options.frames, options.width, options.height)
    (options.work / "server").mkdir()
    first, last = min(plates), max(plates)
    keyed = sorted({first + round(place * (last - first) / (options.keys - 1)) for place in range(options.keys)})
    server = PrivateServer(PrivateServerSettings(options.work / "server", readable_roots=(options.work.resolve(),)))
    with server, Client(server.fetch_connection, "benchmark") as client:
        client.open_session("timed", Shot("timed", options.width, options.height, 1.0, first, last, "auto"))
        known = [(Plate(frame, hash_file(path), 0, path.suffix), path) for frame, path in plates.items()]
        client.put_plates("timed", known, lambda _done, _total: None)
        for frame in keyed:
            client.put_key("timed", Key(frame, 1, PRESENT, hash_file(masks[frame]), ".png", "index:1"), masks[frame])
        ready = [
            time.monotonic()
            for event in client.follow(client.start_propagation("timed", PropagationSettings(first, last)))
            if isinstance(event, MatteReady)
        ]
    return (ready[-1] - ready[0]) / (len(ready) - 1)


def main() -> None:
    """Print one line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--keys", type=int, default=5)
    parser.add_argument("--width", type=int, default=854)
    parser.add_argument("--height", type=int, default=480)
    options = parser.parse_args()
    seconds = measure(options)
    cores = os.cpu_count()
    print(f"{options.width}x{options.height}, {options.keys} keys: {seconds:.3f} s a frame on {cores} cores")


if __name__ == "__main__":
    main()
