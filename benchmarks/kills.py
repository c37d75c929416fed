r"""Kill -9 at random moments: the engine, the network process, the client. What was acknowledged must be there, once, and whole.

    python -m benchmarks.kills --kills 200 --seed 1 --json FILE

A client (``killed_client.py``) sends files, puts keys and propagates over real sockets; the engine is the tests' scripted one, so that
hundreds of jobs fit. After every twenty kills, and at the end, the ledger of what the client saw acknowledged is held against the server.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tests.server.house import SHOT
from tests.server.served import ServerProcess, client_of, import_paths, make_ready
from xmem_client import Timeouts

_AUDIT_EVERY = 20
_LONGEST_PEACE = 1.2  # seconds before the next kill
_VICTIMS = ("server", "server", "engine", "client")
_PATIENT = Timeouts(ping=0.5, silence=2.0, backoff_first=0.1, backoff_last=0.5, resend=2.0, total=60.0)


@dataclass
class Ledger:
    """What clients said: acknowledged files, keys, jobs and mattes; keys tried since the last acknowledged one."""

    files: set[str] = field(default_factory=set)
    keys: dict[tuple[int, int], str] = field(default_factory=dict)
    tried: dict[tuple[int, int], set[str]] = field(default_factory=dict)
    jobs: set[str] = field(default_factory=set)
    mattes: dict[tuple[str, int], str] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)

    def note(self, line: str) -> None:
        """Take one line of a client; a line that was cut off by its death says nothing."""
        kind, *words = line.split(" ")
        if not line.endswith("\n"):
            return
        words[-1] = words[-1].strip()
        self.counts[kind] += 1
        if kind == "file":
            self.files.add(words[0])
        elif kind in ("try", "key"):
            place = (int(words[0]), int(words[1]))
            if kind == "try":
                self.tried.setdefault(place, set()).add(words[2])
            else:
                self.keys[place] = words[2]
                self.tried[place] = set()
        elif kind == "job":
            self.jobs.add(words[0])
        elif kind == "matte":
            self._note_matte((words[0], int(words[1])), words[2])
        elif kind == "refused":
            self.violations.append("a client was refused: " + " ".join(words))

    def _note_matte(self, place: tuple[str, int], sha256: str) -> None:
        if self.mattes.setdefault(place, sha256) != sha256:
            self.violations.append(f"the matte of frame {place[1]} of job {place[0]} changed after it was given out")


class Victims:
    """The processes to be killed, and the thread that writes down what the client says."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._folder = folder
        self._random = random.Random(seed)
        self._clients = 0
        self.ledger = Ledger()
        self.server = ServerProcess(folder, {"frame_seconds": 0.01, "resumes": True})
        self._client: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None

    def start_client(self) -> None:
        """Start the next client."""
        self._clients += 1
        command = [sys.executable, "-m", "benchmarks.killed_client", str(self.server.settings.connection_file)]
        self._client = subprocess.Popen(
            [*command, str(self._folder), str(self._random.randrange(2**31))],
            stdout=subprocess.PIPE,
            text=True,
            env=import_paths(),
        )
        self._reader = threading.Thread(target=self._read, args=(self._client,))
        self._reader.start()

    def kill(self, victim: str) -> None:
        """Kill one of them and have it live again."""
        if victim == "client":
            self.stop_client()
            self.start_client()
        elif victim == "server":
            orphans = psutil.Process(self.server.pid).children()
            self.server.kill()
            for orphan in orphans:
                with contextlib.suppress(psutil.Error):
                    orphan.wait(10)  # it ends by itself, and must not write beside the next one
            self.server.start()
            while _serving_process(self.server.settings.connection_file) != self.server.pid:
                time.sleep(0.05)
        else:
            for child in psutil.Process(self.server.pid).children():
                with contextlib.suppress(psutil.Error):
                    if "scripted_engine.py" in " ".join(child.cmdline()):
                        os.kill(child.pid, signal.SIGKILL)

    def stop_client(self) -> None:
        """Kill the client and hear its last words."""
        if self._client is not None and self._reader is not None:
            self._client.kill()
            self._client.wait()
            self._reader.join()

    def _read(self, client: subprocess.Popen[str]) -> None:
        if client.stdout is not None:
            with client.stdout as lines:
                for line in lines:
                    self.ledger.note(line)


def _serving_process(connection_file: Path) -> int:
    """Give the process that wrote the connection file; 0 while a server starts."""
    try:
        return int(json.loads(connection_file.read_text("utf-8"))["pid"])
    except FileNotFoundError:
        return 0


def audit_server(victims: Victims) -> list[str]:
    """Give what the server, asked over its socket, does not have of what was acknowledged."""
    ledger, found = victims.ledger, []
    with client_of(victims.server.settings, "auditor", _PATIENT) as client:
        state = client.open_session("roto", SHOT)
        missing = client.fetch_missing(ledger.files)
    present = {(key.frame, key.object_id): key.sha256 for key in state.keys}
    for place, sha256 in ledger.keys.items():
        if present.get(place) not in {sha256, *ledger.tried[place]}:
            found.append(f"key {place} was acknowledged as {sha256[:12]} and is {str(present.get(place))[:12]}")
    found += [f"file {sha256[:12]} was acknowledged and is missing" for sha256 in missing]
    return found


def audit_state(state: Path, ledger: Ledger) -> list[str]:
    """Give what is wrong in the state folder of a server that has stopped: torn files, effects that came twice, lost jobs."""
    found = []
    for path in (state / "objects").glob("*/*"):
        if hashlib.sha256(path.read_bytes()).hexdigest() != path.name:
            found.append(f"stored file {path.name[:12]} is torn")
    journal = sqlite3.connect(state / "journal.sqlite")
    with contextlib.closing(journal):
        twice = journal.execute(
            "SELECT after, count(*) FROM revision WHERE after NOT NULL GROUP BY after HAVING count(*) > 1"
        )
        found += [f"a key was put {count} times by one request" for _, count in twice]
        known = {row[0] for row in journal.execute("SELECT job FROM job")}
        found += [f"job {job} was acknowledged and is gone" for job in ledger.jobs - known]
        results = {
            (job, frame): sha256 for job, frame, sha256 in journal.execute("SELECT job, frame, sha256 FROM result")
        }
        for place, sha256 in ledger.mattes.items():
            if results.get(place) != sha256:
                found.append(f"the matte of frame {place[1]} of job {place[0]} was given out and is gone")
        events = journal.execute(
            "SELECT job, frame, count(*) FROM event WHERE type = 'matte_ready' GROUP BY job, frame HAVING count(*) > 1"
        )
        found += [f"frame {frame} of job {job} is announced {count} times" for job, frame, count in events]
        (verdict,) = journal.execute("PRAGMA integrity_check").fetchone()
        found += [] if verdict == "ok" else [f"the journal is damaged: {verdict}"]
    return found


def run(kills: int, seed: int, folder: Path) -> dict[str, Any]:
    """Give what was done and every violation."""
    victims, chance = Victims(folder, seed), random.Random(seed)
    done: Counter[str] = Counter()
    violations: list[str] = []
    started = time.monotonic()
    with victims.server:
        victims.server.wait_ready()
        with client_of(victims.server.settings, timeouts=_PATIENT) as client:
            make_ready(client, folder)
        victims.start_client()
        for number in range(1, kills + 1):
            time.sleep(chance.uniform(0, _LONGEST_PEACE))
            victim = chance.choice(_VICTIMS)
            victims.kill(victim)
            done[victim] += 1
            if number % _AUDIT_EVERY == 0:
                violations += audit_server(victims)
                sys.stderr.write(f"{number} kills, {dict(victims.ledger.counts)}, {len(violations)} violations\n")
        time.sleep(3)
        victims.stop_client()
        violations += audit_server(victims)
        log = victims.server.log.read_text("utf-8", "replace")
    violations += audit_state(folder / "state", victims.ledger) + victims.ledger.violations
    lines = log.splitlines()
    traces = [place for place, line in enumerate(lines) if "Traceback" in line]
    violations += ["logged: " + " | ".join(lines[max(0, place - 2) : place + 30])[:3000] for place in traces]
    return {
        "seed": seed,
        "kills": dict(done),
        "acknowledged": dict(victims.ledger.counts),
        "seconds": round(time.monotonic() - started, 1),
        "violations": violations,
    }


def main() -> int:
    """0 when nothing was lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = run(options.kills, options.seed, Path(folder))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))
    sys.stdout.write(json.dumps(found, indent=1) + "\n")
    return 1 if found["violations"] else 0


if __name__ == "__main__":
    sys.exit(main())
