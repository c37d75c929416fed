r"""Spoiled messages against the decoder and a running server; says what did not end as it should.

    python -m benchmarks.fuzz --decoder 200000 --server 5000 --seed 1 --json FILE

The decoder must give a message or RemoteProtocolError for every one of them, in little time; the server must answer an honest
client after every hundred, keep its process, and log no traceback.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.mutations import Mutator
from tests.protocol.samples import SAMPLES
from tests.server.served import ServerProcess, client_of, raw_socket
from xmem_protocol import RemoteProtocolError, unpack

SLOW_SECONDS = 1.0  # for one message of at most 64 KiB
_BETWEEN = 100  # spoiled messages between two honest requests
_PACE_SECONDS = 0.25  # so that the rate limit leaves every message to be looked at
_LANES = ("control", "bulk")


@dataclass
class Findings:
    """What was tried and what went wrong, a line each."""

    tried: int = 0
    accepted: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)
    slowest_seconds: float = 0.0


def fuzz_decoder(count: int, seed: int) -> Findings:
    """Give what the decoder made of ``count`` spoiled messages."""
    findings, mutator = Findings(), Mutator(SAMPLES, seed)
    for number in range(count):
        frames = mutator.fetch()
        started = time.perf_counter()
        try:
            unpack(frames)
            findings.accepted += 1
        except RemoteProtocolError as error:
            findings.reasons[error.code] += 1
        except Exception as error:  # noqa: BLE001 - exactly what is looked for
            findings.violations.append(f"message {number} of seed {seed} raised {type(error).__name__}: {error}"[:300])
        took = time.perf_counter() - started
        findings.slowest_seconds = max(findings.slowest_seconds, took)
        if took > SLOW_SECONDS:
            findings.violations.append(f"message {number} of seed {seed} took {took:.1f} s")
        findings.tried += 1
    return findings


def fuzz_server(count: int, seed: int, folder: Path) -> Findings:
    """Give what a running server made of ``count`` spoiled messages, half of them on each lane."""
    findings, mutator = Findings(), Mutator(SAMPLES, seed)
    with ServerProcess(folder) as server:
        connection = server.wait_ready()
        for start in range(0, count, _BETWEEN):
            endpoint = getattr(connection, _LANES[start // _BETWEEN % 2])
            with raw_socket(endpoint, connection) as peer:
                for _ in range(min(_BETWEEN, count - start)):
                    peer.send_multipart(mutator.fetch() or [b""])
                    findings.tried += 1
                while peer.poll(100):  # what it says is of no interest; that it does is
                    peer.recv_multipart()
                    findings.accepted += 1
            time.sleep(_PACE_SECONDS)
            began = time.perf_counter()
            with client_of(server.settings) as client:
                client.status()
            findings.slowest_seconds = max(findings.slowest_seconds, time.perf_counter() - began)
            if not server.is_alive():
                findings.violations.append(f"the server ended after {findings.tried} messages of seed {seed}")
                return findings
        log = server.log.read_text("utf-8", "replace")
    findings.violations += [f"logged: {line[:300]}" for line in log.splitlines() if "Traceback" in line]
    return findings


def describe(findings: Findings) -> dict[str, Any]:
    """Give the findings as plain values."""
    return {**vars(findings), "reasons": dict(findings.reasons)}


def main() -> int:
    """0 when nothing went wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--decoder", type=int, default=200_000)
    parser.add_argument("--server", type=int, default=5_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = {
            "seed": options.seed,
            "decoder": describe(fuzz_decoder(options.decoder, options.seed)),
            "server": describe(fuzz_server(options.server, options.seed, Path(folder))),
        }
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))
    sys.stdout.write(json.dumps(found, indent=1) + "\n")
    return 1 if found["decoder"]["violations"] or found["server"]["violations"] else 0


if __name__ == "__main__":
    sys.exit(main())
