"""What is held against the server: the ledger, an offline reference, and how much it holds of the machine."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from benchmarks.soak.honest import SESSION, SETTINGS, TIMEOUTS, Shelf
from benchmarks.soak.hostile import CrashingClient
from benchmarks.soak.house import SoakServer
from benchmarks.soak.ledger import Ledger
from tests.server.house import SHOT
from xmem_client import Client, fetch_connection
from xmem_core.weights import LoadedModel
from xmem_protocol import PRESENT, Key
from xmem_server.decoding import Decoder
from xmem_server.plans import EngineMatte, KeySource, PlateSource, PropagationPlan
from xmem_server.worker.engine_loop import place_network
from xmem_server.worker.propagation import run_propagation

STATES = {"queued", "running", "interrupted", "done", "failed", "cancelled"}
Identity = tuple[tuple[int, int, str], ...]


@dataclass(frozen=True)
class Held:
    """What the network process holds, ``seconds`` after the soak began."""

    seconds: float
    pid: int
    resident: int
    descriptors: int
    threads: int
    temporary_files: int


def measure(server: SoakServer, began: float) -> Held:
    """Give what the server holds now."""
    process = psutil.Process(server.pid)
    scratch = [path for path in (server.state / "sessions").glob("*/scratch/*/*") if path.is_file()]
    uploads = [path for path in (server.state / "uploads").iterdir() if path.suffix == ".tmp"]
    return Held(
        time.monotonic() - began,
        server.pid,
        process.memory_info().rss,
        process.num_fds(),
        process.num_threads(),
        len(scratch) + len(uploads),
    )


def audit_honest(server: SoakServer, ledger: Ledger) -> None:
    """Accuse the server of every key and job that an honest client saw acknowledged and that is not there."""
    for name, mine in ledger.clients.items():
        with Client(lambda name=name: fetch_connection(server.key_files[name]), f"audit-{name}", TIMEOUTS) as client:  # type: ignore[misc]
            state = client.open_session(SESSION, SHOT)
            found = {(key.frame, key.object_id): key.sha256 for key in state.keys}
            if found != mine.keys:
                ledger.accuse(f"{name}: the keys are {found}; acknowledged were {mine.keys}")
            states = {job.job: job.state for job in state.jobs}
            for job in mine.jobs:
                if states.get(job, "done") not in STATES:
                    ledger.accuse(f"{name}: job {job} is {states[job]!r}")
            if len(mine.jobs) <= len(states) and not mine.jobs <= states.keys():
                ledger.accuse(f"{name}: acknowledged jobs are gone: {mine.jobs - states.keys()}")


def audit_crashing(server: SoakServer, crashing: CrashingClient, ledger: Ledger) -> None:
    """Accuse the server of what a crashed client saw acknowledged and that is not there."""
    said = crashing.said
    for each in said.violations:
        ledger.accuse(f"{crashing.name}: {each}")
    said.violations.clear()
    if not said.keys:
        return
    with Client(lambda: fetch_connection(server.key_files[crashing.name]), "audit", TIMEOUTS) as client:
        state = client.open_session(SESSION, SHOT)
        missing = client.fetch_missing(said.files)
    present = {(key.frame, key.object_id): key.sha256 for key in state.keys}
    for place, sha256 in said.keys.items():
        if present.get(place) not in {sha256, *said.tried[place]}:
            ledger.accuse(f"{crashing.name}: key {place} was acknowledged as {sha256[:12]} and is {present.get(place)}")
    if missing:
        ledger.accuse(f"{crashing.name}: {len(missing)} acknowledged files are missing")


class Reference:
    """Mattes computed offline, in this process, with nobody disturbing: what the server's must equal to the last byte."""

    def __init__(self, model: LoadedModel, decoder: Decoder, shelf: Shelf, folder: Path) -> None:
        self._model = model
        place_network(model.network, torch.device("cpu"))
        self._decoder = decoder
        self._shelf = shelf
        self._folder = folder
        self._checked: set[Identity] = set()

    @property
    def checked(self) -> int:
        """Give how many sets of keys were compared."""
        return len(self._checked)

    def audit_one(self, ledger: Ledger) -> None:
        """Compare the result of one set of keys that was not looked at yet."""
        for identity, mattes in list(ledger.results.items()):
            if identity not in self._checked:
                self._checked.add(identity)
                if self._compute(identity) != mattes:
                    ledger.accuse(f"the mattes of {len(identity)} keys are not those computed offline")
                return

    def _compute(self, identity: Identity) -> dict[int, str]:
        paths = {sha256: path for each in self._shelf.alphas.values() for path, sha256 in each}
        keys = tuple(
            KeySource(Key(frame, object_id, PRESENT, sha256, ".png", "channel:auto"), str(paths[sha256]))
            for frame, object_id, sha256 in identity
        )
        plates = tuple(
            PlateSource(plate.frame, str(path), plate.sha256, 0, ".png") for plate, path in self._shelf.plates
        )
        scratch = self._folder / f"reference.{len(self._checked)}"
        scratch.mkdir(parents=True)
        plan = PropagationPlan(
            job="reference",
            session=SESSION,
            shot=SHOT,
            plates=plates,
            keys=keys,
            settings=SETTINGS,
            finished=(),
            snapshot="",
            cache=str(self._folder / "cache"),
            scratch=str(scratch),
            colour_id="",
        )
        listener = _Listener()
        run_propagation(plan, self._model, self._decoder, listener)  # type: ignore[arg-type]
        return listener.mattes


class _Listener:
    """Stands for the engine's channel: keeps the mattes."""

    def __init__(self) -> None:
        self.mattes: dict[int, str] = {}

    def cancelled(self, job: str) -> bool:
        """Nobody cancels."""
        return not job

    def paused(self, job: str) -> bool:
        """Nobody else waits."""
        return not job

    def send(self, event: object) -> None:
        """Keep the hashes of a frame's files."""
        if isinstance(event, EngineMatte):
            self.mattes[event.frame] = " ".join(file.sha256 for file in event.files)


def judge_held(samples: list[Held], ledger: Ledger) -> float:
    """Give the slope of the memory, MB a minute, over the longest life of one process; accuse it of what grows.

    The first quarter of that life does not count: caches and allocators fill. Without ten samples the slope is 0.
    """
    lives: dict[int, list[Held]] = {}
    for sample in samples:
        lives.setdefault(sample.pid, []).append(sample)
    longest = max(lives.values(), key=len, default=[])
    settled = longest[len(longest) // 4 :]
    if len(settled) < 10:
        return 0.0
    times = [sample.seconds / 60 for sample in settled]
    middle = sum(times) / len(times)
    spread = sum((moment - middle) ** 2 for moment in times)
    slope = sum((t - middle) * sample.resident for t, sample in zip(times, settled, strict=True)) / spread / 1e6
    if times[-1] - times[0] > 10 and slope > 1.0:
        ledger.accuse(f"memory grows by {slope:.2f} MB a minute")
    third = len(settled) // 3
    for name in ("descriptors", "threads", "temporary_files"):
        early = sorted(getattr(sample, name) for sample in settled[:third])[third // 2]
        late = sorted(getattr(sample, name) for sample in settled[-third:])[third // 2]
        if late > early * 1.05 + 8:
            ledger.accuse(f"{name} grew from {early} to {late}")
    return slope


def audit_log(server: SoakServer, ledger: Ledger) -> None:
    """Accuse the server of every traceback in its log."""
    lines = server.log.read_text("utf-8", "replace").splitlines()
    for place, line in enumerate(lines):
        if "Traceback" in line:
            ledger.accuse("logged: " + " | ".join(lines[max(0, place - 1) : place + 12]))
