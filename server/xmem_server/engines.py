"""The network process's side of an engine: a process that computes. Start, submit, cancel, events; nothing waits.

``Engine`` is the interface; ``EngineProcess`` runs one engine as a child process on this machine and speaks to it over
its stdin and stdout (``pipes.py``). An engine that dies says so with EngineStopped as its last event.
"""

from __future__ import annotations

import importlib.util
import os
import queue
import signal
import site
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

from xmem_protocol import ENGINE_DIED as ENGINE_DIED_CODE
from xmem_protocol import Cancel, EngineInfo, InputError, RemoteProtocolError, ServerError
from xmem_server.memory_watch import resident_bytes
from xmem_server.pipes import ENGINE_EVENTS, pack_message, read_message, write_message
from xmem_server.plans import EngineReady, EngineRefused, Pause, PropagationPlan, SuggestionPlan

START_SECONDS = 600.0  # importing torch and loading weights from a slow share
_CLOSE_SECONDS = 5.0
_STARTS_AGAIN = 2  # of an engine that is killed while it starts
# For the engine alone. The allocator: glibc gives each large tensor fresh pages, and having those mapped costs more than computing on them
# (encoding was three times faster without, docs/performance.md). What it keeps it gives back when it adds up and at the end of each
# job. Larger ones than any at the models' own sizes do get their own: kept, they would leave holes that the next ones do not fit in, a
# gigabyte of them at 1080 lines. One arena: a thread's own would keep pages of its own, and gives large tensors fresh ones again.
# NumPy's OpenBLAS: after a product its second thread spins for a while, which took a fifth of the processor from the propagation;
# large products are torch's. OpenMP's threads wait for the next piece of work for about
# ten microseconds before they sleep: for its milliseconds they would do the same, for nothing suggestions would take half as long again.
ENVIRONMENT = {
    "MALLOC_MMAP_THRESHOLD_": str(20 * 1024**2),
    "MALLOC_TRIM_THRESHOLD_": str(2 * 1024**3),
    "MALLOC_ARENA_MAX": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "GOMP_SPINCOUNT": "4000",
}
STARTING, IDLE, STOPPED = "starting", "idle", "stopped"


@dataclass(frozen=True)
class EngineStopped:
    """The engine is gone, and its jobs with it; ``message`` says how it ended."""

    message: str


class Engine(Protocol):
    """What the session needs of an engine, wherever it runs."""

    def start(self) -> EngineReady:
        """Give what the engine says when it is ready. Raises InputError with its refusal."""

    def expect(self, ready: EngineReady) -> None:
        """Begin to start, without waiting: it will say this when it is ready, as it did before."""

    def restart(self) -> None:
        """Begin starting again after EngineStopped; EngineReady or EngineRefused comes as an event."""

    def listen(self, wake: Callable[[], None]) -> None:
        """Have ``wake`` called, on any thread, whenever an event came."""

    def submit(self, plan: PropagationPlan | SuggestionPlan) -> None:
        """Hand over work."""

    def cancel(self, job: str) -> None:
        """Ask for a job to stop."""

    def pause(self, job: str) -> None:
        """Ask for a propagation to make room after its next frame."""

    def events(self) -> tuple[Any, ...]:
        """Give what the engine said since the last call."""

    def info(self) -> EngineInfo:
        """Give where it computes, with what, and its state."""

    def resident_bytes(self) -> int:
        """Give the host memory it holds, 0 when that is not known."""

    def close(self) -> None:
        """Stop it."""


class EngineProcess:
    """One engine as a child process. Its methods may be called from any thread, and none but ``start`` waits.

    ``memory`` is what its jobs may take in bytes, 0 for four fifths of what there is. ``command`` replaces the real engine's command
    line, for tests.
    """

    def __init__(
        self,
        model: str,
        device: str,
        *,
        memory: int = 0,
        command: Sequence[str] | None = None,
        start_seconds: float = START_SECONDS,
    ) -> None:
        options = ("--model", model, "--device", device, "--memory", str(memory))
        self._command = tuple(command or (sys.executable, "-m", "xmem_server.worker", *options))
        self._start_seconds = start_seconds
        self._model = model
        self._device = device
        self._lock = threading.Lock()
        self._events: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._wake: Callable[[], None] = _sleep_on
        self._child: _Child | None = None
        self._ready: EngineReady | None = None
        self._state = STOPPED
        self._refusal = ""
        self._starts_left = _STARTS_AGAIN
        self._settled = threading.Event()

    def start(self) -> EngineReady:
        """Give what the engine says when it is ready. Raises InputError with its refusal."""
        self.restart()
        if not self._settled.wait(self._start_seconds):
            self.close()
            raise InputError(
                f"The engine was not ready after {self._start_seconds:.0f} seconds. See its messages above."
            )
        with self._lock:
            if self._state == STOPPED or self._ready is None:
                raise InputError(self._refusal)
            return self._ready

    def expect(self, ready: EngineReady) -> None:
        """Begin to start, without waiting: it will say this when it is ready, as it did before."""
        self._ready = ready
        self.restart()

    def restart(self) -> None:
        """Begin starting again; EngineReady or EngineRefused comes as an event. Nothing happens while one is alive."""
        with self._lock:
            if self._state != STOPPED:
                return
            self._state = STARTING
            self._starts_left = _STARTS_AGAIN
            self._refusal = ""
            self._settled.clear()
            self._child = _Child(self._command, self._receive)

    def listen(self, wake: Callable[[], None]) -> None:
        """Have ``wake`` called, on any thread, whenever an event came; at once when one is waiting."""
        self._wake = wake
        if not self._events.empty():
            wake()

    def submit(self, plan: PropagationPlan | SuggestionPlan) -> None:
        """Hand over work. A dead engine says so by its own event. Raises LocalProtocolError when the plan is too large."""
        pack_message(plan)  # here, not on the writer's thread, where nobody could answer for it
        self._send(plan)

    def cancel(self, job: str) -> None:
        """Ask for a job to stop; it answers with EngineCancelled."""
        self._send(Cancel(job))

    def pause(self, job: str) -> None:
        """Ask for a propagation to make room after its next frame; it answers with EnginePaused, or ends."""
        self._send(Pause(job))

    def events(self) -> tuple[Any, ...]:
        """Give what the engine said since the last call, as instances of the classes in plans.py or EngineStopped."""
        found = []
        while True:
            try:
                found.append(self._events.get_nowait())
            except queue.Empty:
                return tuple(found)

    def info(self) -> EngineInfo:
        """Give where it computes, with what, and its state: starting, idle or stopped."""
        with self._lock:
            ready = self._ready or EngineReady(self._device, self._model, "")
            return EngineInfo("local", ready.device, ready.model, ready.model_sha256, self._state)

    def pid(self) -> int:
        """Give the child's process number. Raises ServerError ENGINE_DIED when there is none."""
        with self._lock:
            if self._child is None:
                raise ServerError(ENGINE_DIED_CODE, "The engine is not running.")
            return self._child.pid

    def resident_bytes(self) -> int:
        """Give the host memory the child holds, 0 when there is none or nobody can say."""
        with self._lock:
            return resident_bytes(self._child.pid) if self._child is not None else 0

    def close(self) -> None:
        """Stop the child: it is given some seconds to leave by itself."""
        with self._lock:
            child, self._child = self._child, None
            self._state = STOPPED
            self._refusal = "The engine was closed while it started."
            self._settled.set()
        if child is not None:
            child.close()

    def _send(self, message: Any) -> None:
        with self._lock:
            if self._child is not None:
                self._child.send(message)

    def _receive(self, child: _Child, event: Any) -> None:
        """Take one event from the reader thread of a child."""
        with self._lock:
            if child is not self._child:  # closed meanwhile: its end is no news
                return
            told = self._follow_state(child, event)
        if told is not None:
            self._events.put(told)
            self._wake()

    def _follow_state(self, child: _Child, event: Any) -> Any:
        """Give the event as the session should see it, or None: a refusal is told when the child has ended."""
        if isinstance(event, EngineReady):
            self._ready, self._state, self._starts_left = event, IDLE, _STARTS_AGAIN
            self._settled.set()
        elif isinstance(event, EngineRefused):
            self._refusal = event.message
            child.send(None)
            return None
        elif isinstance(event, EngineStopped):
            was_starting = self._state == STARTING
            if was_starting and not self._refusal and self._starts_left > 0:
                self._starts_left -= 1  # it was killed, and said nothing against starting: once more
                self._child = _Child(self._command, self._receive)
                return None
            self._state = STOPPED
            self._settled.set()
            if was_starting:
                self._refusal = self._refusal or f"{event.message} It was not ready yet: see its messages above."
                return EngineRefused(self._refusal)
        return event


class _Child:
    """A running engine: one thread reads what it says, one writes what it is told."""

    def __init__(self, command: Sequence[str], receive: Callable[[_Child, Any], None]) -> None:
        self._receive = receive
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**ENVIRONMENT, **child_environment()},
        )
        self.pid = self._process.pid
        self._threads = [
            threading.Thread(target=self._read, args=(self._process.stdout,), name="engine-reader", daemon=True),
            threading.Thread(target=self._write, args=(self._process.stdin,), name="engine-writer", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def send(self, message: Any) -> None:
        """Queue a message for the child; None closes its stdin, which ends it."""
        self._requests.put(message)

    def close(self) -> None:
        """Close the child's stdin, which ends it; kill it when it does not end."""
        self.send(None)
        try:
            self._process.wait(_CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for thread in self._threads:
            thread.join(_CLOSE_SECONDS)

    def _read(self, stream: IO[bytes]) -> None:
        """Pass on every message, then how the child ended."""
        try:
            with stream:
                while (event := read_message(stream, ENGINE_EVENTS)) is not None:
                    self._receive(self, event)
        except RemoteProtocolError as error:
            self._process.kill()
            self._end(f"The engine said something that is not a message ({error}) and was stopped.")
        except OSError as error:
            self._process.kill()
            self._end(f"The engine's pipe broke ({error.strerror}).")
        else:
            self._end(f"The engine stopped ({self._fetch_end()}).")

    def _end(self, message: str) -> None:
        self.send(None)
        self._process.wait()
        self._receive(self, EngineStopped(message))

    def _fetch_end(self) -> str:
        try:
            code = self._process.wait(_CLOSE_SECONDS)
        except subprocess.TimeoutExpired:  # it closed its stdout and lives on: of no use
            self._process.kill()
            code = self._process.wait()
        if code >= 0:
            return f"exit code {code}"
        try:
            return f"killed by {signal.Signals(-code).name}"
        except ValueError:
            return f"killed by signal {-code}"

    def _write(self, stream: IO[bytes]) -> None:
        try:
            with stream:
                while (message := self._requests.get()) is not None:
                    write_message(stream, message)
        except OSError:
            return  # the child is gone; the reader tells


def child_environment() -> dict[str, str]:
    """Give the environment for a child process: this project's folders importable there, from a bare checkout too."""
    installed = {Path(folder) for folder in (*site.getsitepackages(), site.getusersitepackages())}
    folders = []
    for name in ("xmem_server", "xmem_protocol", "xmem_core"):
        spec = importlib.util.find_spec(name)  # finds, never imports: the network process must not load torch
        if spec is not None and spec.origin is not None:
            folder = Path(spec.origin).parent.parent
            if folder not in installed and str(folder) not in folders:
                folders.append(str(folder))
    present = os.environ.get("PYTHONPATH", "")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([*folders, *([present] if present else [])])}


def _sleep_on() -> None:
    """Nobody listens yet."""
