r"""Soak a server in everything at once, audit it every hundred steps, and say what was lost.

    python -m benchmarks.soak --seconds 40 --seed 1 --json FILE
    python -m benchmarks.soak --seconds 3600 --honest 4 --crashing 2 --attackers 1

The second half of a run kills engines and clients but not the network process, so that what that holds can be watched.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.soak.audit import (
    Held,
    Reference,
    audit_crashing,
    audit_honest,
    audit_log,
    judge_held,
    measure,
)
from benchmarks.soak.honest import HonestClient, Shelf
from benchmarks.soak.hostile import Attacker, CrashingClient
from benchmarks.soak.house import SoakServer
from benchmarks.soak.ledger import Gate, Ledger
from xmem_core.weights import load_model
from xmem_server.decoding import Decoder

_AUDIT_STEPS = 100
_AUDIT_SECONDS = 30.0  # at the latest


@dataclass(frozen=True)
class SoakSettings:
    """How long, from which seed, and with how many of each."""

    seconds: float
    seed: int
    honest: int = 4
    crashing: int = 2
    attackers: int = 1


class Soak:
    """One run: who takes part, and what was found."""

    def __init__(self, settings: SoakSettings, folder: Path, decoder: Decoder) -> None:
        self._settings = settings
        self._random = random.Random(settings.seed)
        self._gate, self.ledger = Gate(), Ledger()
        honest = [f"honest-{number}" for number in range(settings.honest)]
        crashing = [f"crashing-{number}" for number in range(settings.crashing)]
        attackers = [f"attacker-{number}" for number in range(settings.attackers)]
        self._server = SoakServer(folder, (*honest, *crashing, *attackers))
        shelf, files = Shelf(folder / "shelf"), self._server.key_files
        seeds = iter(range(settings.seed * 1000, settings.seed * 1000 + 1000))
        self._crashing = [CrashingClient(n, files[n], self._gate, self.ledger, next(seeds)) for n in crashing]
        self._threads = [
            *(HonestClient(n, files[n], shelf, self._gate, self.ledger, next(seeds)) for n in honest),
            *self._crashing,
            *(Attacker(files[n], self._gate, self.ledger, next(seeds)) for n in attackers),
        ]
        self._reference = Reference(load_model("compact"), decoder, shelf, folder / "reference")
        self._samples: list[Held] = []
        self._kills: Counter[str] = Counter()

    def run(self) -> dict[str, Any]:
        """Give what was done and what was found."""
        self._server.start()
        began = time.monotonic()
        for thread in self._threads:
            thread.start()
        audited_steps, audited_at, next_fault = 0, began, began + self._pause()
        try:
            while time.monotonic() - began < self._settings.seconds:
                time.sleep(0.2)
                now = time.monotonic()
                if now >= next_fault:
                    self._break_something((now - began) / self._settings.seconds)
                    next_fault = time.monotonic() + self._pause()
                if self.ledger.steps - audited_steps >= _AUDIT_STEPS or now - audited_at > _AUDIT_SECONDS:
                    self._audit(began)
                    audited_steps, audited_at = self.ledger.steps, time.monotonic()
            self._audit(began)
        finally:
            self._gate.end()
            for thread in self._threads:
                thread.join(60)
            code = self._server.stop()
        if code != 0:
            self.ledger.accuse(f"the server ended with {code}")
        audit_log(self._server, self.ledger)
        slope = judge_held(self._samples, self.ledger)
        return {
            **asdict(self._settings),
            "steps": self.ledger.steps,
            "actions": dict(self.ledger.counts),
            "kills": dict(self._kills),
            "mattes_checked_offline": self._reference.checked,
            "memory_mb_per_minute": round(slope, 3),
            "held": [asdict(sample) for sample in self._samples[-3:]],
            "violations": self.ledger.violations,
        }

    def _pause(self) -> float:
        return self._random.uniform(2, 12)

    def _break_something(self, share: float) -> None:
        """Kill or revoke something; ``share`` of the time is over."""
        fault = self._random.choice(("engine", "engine", "server", "revoke"))
        if fault == "engine" or (fault == "server" and share > 0.5):
            fault = "engine"
            self._server.kill_engine()
        elif fault == "server":
            self._server.kill()
            self._server.start()
        elif self._crashing:
            name = self._random.choice(self._crashing).name
            public_key = self._server.revoke(name)
            time.sleep(0.5)
            self._server.allow(name, public_key)
        self._kills[fault] += 1

    def _audit(self, began: float) -> None:
        """Stop the world and look."""
        with self._gate.closed():
            audit_honest(self._server, self.ledger)
            for crashing in self._crashing:
                audit_crashing(self._server, crashing, self.ledger)
            self._reference.audit_one(self.ledger)
            self._samples.append(measure(self._server, began))
        held = self._samples[-1]
        sys.stderr.write(
            f"{held.seconds:6.0f} s  {self.ledger.steps} steps, {held.resident / 1e6:.0f} MB, {held.descriptors} files, "
            f"{held.threads} threads, {len(self.ledger.violations)} violations\n"
        )


def main() -> int:
    """0 when nothing was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=40.0)
    parser.add_argument("--seed", type=int, default=1)
    for name in ("honest", "crashing", "attackers"):
        parser.add_argument(f"--{name}", type=int, default=getattr(SoakSettings(0, 0), name))
    parser.add_argument("--json", type=Path)
    options = vars(parser.parse_args())
    target = options.pop("json")
    settings = SoakSettings(**options)
    sys.stderr.write(f"seed {settings.seed}\n")
    with tempfile.TemporaryDirectory() as folder, Decoder() as decoder:
        found = Soak(settings, Path(folder), decoder).run()
    if target:
        target.write_text(json.dumps(found, indent=1))
    sys.stdout.write(json.dumps(found, indent=1) + "\n")
    return 1 if found["violations"] else 0


if __name__ == "__main__":
    sys.exit(main())
