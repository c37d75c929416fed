r"""Two artists before one engine: who gets how much of it, who waits how long, and how fast a cancel is heard.

    python -m benchmarks.sharing --seconds 60 --cancels 40 --json FILE

A real server process with the compact model on the CPU, on a network bind; each artist has a key. For a minute both ask for one long
propagation after another. Then one of them cancels again and again while the other uploads without pause.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.soak.honest import SESSION, TIMEOUTS, Shelf
from benchmarks.soak.house import SoakServer
from tests.server.house import SHOT
from xmem_client import Client, fetch_connection, hash_file
from xmem_protocol import PRESENT, JobCancelled, JobDone, Key, MatteReady, PropagationSettings, Shot

LAST = SHOT.first + 199
LONG_SHOT: Shot = replace(SHOT, last=LAST)
_FILE_BYTES = 32 * 1024 * 1024


@dataclass
class Artist:
    """What one artist got: when each matte came, in seconds since the beginning."""

    name: str
    moments: list[float] = field(default_factory=list)

    def longest_wait(self, seconds: float) -> float:
        """Give the longest time without a matte, the beginning and the end of the run counted."""
        moments = [0.0, *self.moments, seconds]
        return max(later - earlier for earlier, later in itertools.pairwise(moments))


def prepare(client: Client, shelf: Shelf) -> None:
    """Open a long session: eight plates again and again, one key."""
    client.open_session(SESSION, LONG_SHOT)
    count = len(shelf.plates)
    plates = []
    for frame in range(SHOT.first, LAST + 1):
        plate, path = shelf.plates[(frame - SHOT.first) % count]
        plates.append((replace(plate, frame=frame), path))
    client.put_plates(SESSION, plates, lambda done, total: None)
    path, sha256 = shelf.alphas[1][0]
    client.put_key(SESSION, Key(SHOT.first, 1, PRESENT, sha256, ".png", "channel:auto"), path)


def work(artist: Artist, key_file: Path, began: float, seconds: float) -> None:
    """Propagate until the time is over; every round another ``top_k``, so that it is another job."""
    with Client(lambda: fetch_connection(key_file), artist.name, TIMEOUTS) as client:
        for top_k in range(10, 10_000):
            job = client.start_propagation(SESSION, PropagationSettings(SHOT.first, LAST, top_k=top_k))
            for event in client.follow(job):
                now = time.monotonic() - began
                if now > seconds:
                    client.cancel(job)
                    return
                if isinstance(event, MatteReady):
                    artist.moments.append(now)


def share(server: SoakServer, names: tuple[str, ...], seconds: float) -> dict[str, Any]:
    """Give what each artist got within the time."""
    artists = [Artist(name) for name in names]
    began = time.monotonic()
    threads = [
        threading.Thread(target=work, args=(artist, server.key_files[artist.name], began, seconds))
        for artist in artists
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    total = sum(len(artist.moments) for artist in artists)
    return {
        artist.name: {
            "frames": len(artist.moments),
            "share": round(len(artist.moments) / max(total, 1), 3),
            "longest_wait_seconds": round(artist.longest_wait(seconds), 1),
        }
        for artist in artists
    }


def upload_without_pause(key_file: Path, folder: Path, is_over: threading.Event) -> None:
    """Send one large file after another."""
    with Client(lambda: fetch_connection(key_file), "uploads", TIMEOUTS) as client:
        number = 0
        while not is_over.is_set():
            path = folder / "large"
            path.write_bytes(number.to_bytes(8, "big") * (_FILE_BYTES // 8))
            client.store_file(path, hash_file(path))
            number += 1


def measure_cancels(key_file: Path, count: int) -> dict[str, Any]:
    """Give how long cancels took to be acknowledged, and how many mattes were still made after each."""
    took, after = [], []
    with Client(lambda: fetch_connection(key_file), "cancels", TIMEOUTS) as client:
        for top_k in range(50, 50 + count):
            job = client.start_propagation(SESSION, PropagationSettings(SHOT.first, LAST, top_k=top_k))
            seen, told, last = 0, 0, 0
            for event in client.follow(job):
                seen += isinstance(event, MatteReady)
                last = max(last, event.seq)
                if seen == 3 and not told:
                    started = time.monotonic()
                    client.cancel(job)
                    took.append(time.monotonic() - started)
                    told = next(
                        each.last_seq for each in client.open_session(SESSION, LONG_SHOT).jobs if each.job == job
                    )
                if isinstance(event, (JobCancelled, JobDone)):
                    break
            after.append(last - told - 1)  # the last event is the cancellation itself
    took.sort()
    return {
        "cancels": len(took),
        "acknowledged_ms_median": round(1000 * took[len(took) // 2], 1),
        "acknowledged_ms_p95": round(1000 * took[int(len(took) * 0.95)], 1),
        "acknowledged_ms_most": round(1000 * took[-1], 1),
        "mattes_after_most": max(after),
    }


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--cancels", type=int, default=40)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        server = SoakServer(folder, ("alice", "bob"))
        server.start()
        try:
            shelf = Shelf(folder / "shelf")
            for file in server.key_files.values():
                with Client(lambda file=file: fetch_connection(file), "prepare", TIMEOUTS) as client:  # type: ignore[misc]
                    prepare(client, shelf)
            found: dict[str, Any] = {"seconds": options.seconds, **share(server, ("alice", "bob"), options.seconds)}
            is_over = threading.Event()
            uploads = threading.Thread(
                target=upload_without_pause, args=(server.key_files["bob"], folder, is_over), daemon=True
            )
            uploads.start()
            found["cancel_under_load"] = measure_cancels(server.key_files["alice"], options.cancels)
            is_over.set()
            uploads.join()
        finally:
            server.stop()
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))
    sys.stdout.write(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
