"""A client that works until it is killed, and says on stdout what it tries and what was acknowledged.

``python -m benchmarks.killed_client CONNECTION_FILE FOLDER SEED [--prepare]``: with it, it opens the session and sends the plates first. Every key
and every file it sends is another one than all before, so that an effect that came twice, or got lost, can be seen.
"""

from __future__ import annotations

import hashlib
import random
import sys
import time
from pathlib import Path

from tests.server.house import SHOT, alpha, picture
from xmem_client import Client, Timeouts, fetch_connection
from xmem_protocol import PRESENT, Key, MatteReady, Plate, PropagationSettings, XMemError

TIMEOUTS = Timeouts(ping=0.3, silence=1.0, backoff_first=0.05, backoff_last=0.3, resend=1.0, total=60.0)
FILE_BYTES = 9 * 1024 * 1024  # three chunks


def say(*words: object) -> None:
    """Write one line, at once."""
    sys.stdout.write(" ".join(str(word) for word in words) + "\n")
    sys.stdout.flush()


class Worker:
    """What the client does, one random thing after another."""

    def __init__(self, client: Client, folder: Path, seed: int) -> None:
        self._client = client
        self._folder = folder
        self._random = random.Random(seed)

    def prepare(self) -> None:
        """Open the session, send its plates and a first key."""
        plates = []
        for frame in range(SHOT.first, SHOT.last + 1):
            path, sha256 = self._save("plate", picture(frame))
            plates.append((Plate(frame, sha256, 0, ".png"), path))
        self._client.open_session("roto", SHOT)
        self._client.put_plates("roto", plates, lambda done, total: None)
        self.put_key()

    def send_file(self) -> None:
        """Send a file of several chunks."""
        content = self._random.randbytes(FILE_BYTES)
        path, sha256 = self._save("file", content)
        self._client.store_file(path, sha256)
        path.unlink()
        say("file", sha256)

    def put_key(self) -> None:
        """Put a key that nobody put before."""
        frame, object_id = self._random.randint(SHOT.first, SHOT.last), self._random.randint(1, 3)
        content = alpha(self._random.randint(1, 255)) + self._random.randbytes(16)  # PNG readers stop at its end
        path, sha256 = self._save("key", content)
        say("try", frame, object_id, sha256)
        self._client.put_key("roto", Key(frame, object_id, PRESENT, sha256, ".png", "channel:auto"), path)
        path.unlink()
        say("key", frame, object_id, sha256)

    def run_job(self) -> None:
        """Propagate, and follow to the end."""
        job = self._client.start_propagation("roto", PropagationSettings(SHOT.first, SHOT.last))
        say("job", job)
        for event in self._client.follow(job):
            if isinstance(event, MatteReady):
                say("matte", job, event.frame, event.files[0].sha256)
        say("done", job)

    def work(self) -> None:
        """Go on until the process ends."""
        while True:
            action = self._random.choice((self.send_file, self.put_key, self.put_key, self.put_key, self.run_job))
            try:
                action()
            except XMemError as error:
                say("refused", type(error).__name__, str(error)[:200])

    def _save(self, name: str, content: bytes) -> tuple[Path, str]:
        sha256 = hashlib.sha256(content).hexdigest()
        path = self._folder / f"{name}.{sha256[:12]}"
        path.write_bytes(content)
        return path, sha256


def main(connection_file: str, folder: str, seed: str, *options: str) -> None:
    """Work until killed, from when there is a server."""
    while not Path(connection_file).exists():
        time.sleep(0.05)
    with Client(lambda: fetch_connection(Path(connection_file)), f"killed-{seed}", TIMEOUTS) as client:
        worker = Worker(client, Path(folder), int(seed))
        if "--prepare" in options:
            worker.prepare()
        worker.work()


if __name__ == "__main__":
    main(*sys.argv[1:])
