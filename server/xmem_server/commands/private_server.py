"""A server of a command's own: a child process that lives as long as the command, and is started again when it dies."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from xmem_client import Connection, fetch_connection
from xmem_protocol import ConnectionLostError, InputError
from xmem_server.engines import child_environment

_START_SECONDS = 600.0  # importing torch and reading a large checkpoint from a slow share
_STOP_SECONDS = 10.0
_RESTARTS = 2
_LITTLE_SPACE = 1024 * 1024


@dataclass(frozen=True)
class PrivateServerSettings:
    """What the server is started with; ``folder`` holds its state, its log and its connection file."""

    folder: Path
    model: str = "compact"
    device: str = "auto"
    readable_roots: tuple[Path, ...] = ()


class PrivateServer:
    """A context manager around the child process. Give :meth:`fetch_connection` to a Client as its source.

    The child has a process group of its own, so that Ctrl-C reaches the command alone, which then stops it in order;
    and it stops by itself when the command dies, because its stdin closes.
    """

    def __init__(self, settings: PrivateServerSettings) -> None:
        self._settings = settings
        self._connection_file = settings.folder / "connection.json"
        self._process: subprocess.Popen[bytes] | None = None
        self._restarts_left = _RESTARTS
        self._log_start = 0
        self._lock = threading.Lock()

    def __enter__(self) -> PrivateServer:
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def log(self) -> Path:
        """Give where the server writes its log."""
        return self._settings.folder / "server.log"

    @property
    def process_id(self) -> int:
        """Give the process id of the server, 0 when none runs."""
        return self._process.pid if self._process is not None and self._process.poll() is None else 0

    def fetch_connection(self) -> Connection:
        """Give where the server is now, starting it again when it died.

        Raises ConnectionLostError when it died too often, InputError when it refuses to start.
        """
        with self._lock:  # both lanes of a client ask, each on its thread: one restart for both
            if not self.process_id:
                if self._restarts_left == 0:
                    raise ConnectionLostError(
                        f"The server stopped {_RESTARTS + 1} times. The last it said: {self._last_words()}"
                    )
                self._restarts_left -= 1
                self._end_group()
                self._start()
            return fetch_connection(self._connection_file)

    def stop(self) -> None:
        """Stop the server and whatever it started; at once when it does not within seconds."""
        process = self._process
        if process is None:
            return
        _close_stdin(process)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_SECONDS)
        self._end_group()
        self._process = None

    def _start(self) -> None:
        self._connection_file.unlink(missing_ok=True)
        command = [sys.executable, "-m", "xmem_server", "serve", "--until-stdin-closes"]
        command += ["--state", str(self._settings.folder / "state"), "--connection", str(self._connection_file)]
        command += ["--model", self._settings.model, "--device", self._settings.device]
        for root in self._settings.readable_roots:
            command += ["--readable-root", str(root)]
        with self.log.open("ab") as log:
            self._log_start = log.tell()
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=child_environment(),
                start_new_session=True,
            )
        self._wait_until_ready(self._process)

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        until = time.monotonic() + _START_SECONDS
        while time.monotonic() < until:
            if process.poll() is not None:
                raise InputError(self._last_words())
            if self._written_by() == process.pid:
                return
            time.sleep(0.05)
        raise ConnectionLostError(f"The server did not start within {_START_SECONDS:.0f} s. Its log is {self.log}.")

    def _written_by(self) -> int:
        try:
            return int(json.loads(self._connection_file.read_text("utf-8"))["pid"])
        except (OSError, ValueError, KeyError, TypeError):
            return 0

    def _end_group(self) -> None:
        """End what is left of the process group: an engine must not outlive its server."""
        process = self._process
        if process is None:
            return
        if os.name == "posix":
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        process.wait()
        _close_stdin(process)

    def _last_words(self) -> str:
        """Give the last line the server logged since it was started."""
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            lines = [line.strip() for line in log.read().decode("utf-8", "replace").splitlines() if line.strip()]
        if not lines:
            is_full = shutil.disk_usage(self.log.parent).free < _LITTLE_SPACE
            cause = "the disk is full; free some space" if is_full else "it says nothing"
            return f"The server did not start: {cause} (log: {self.log})."
        said = lines[-1].removeprefix("xmem: ")
        return f"{said} (log: {self.log})" if "Error" in said else said


def _close_stdin(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        with contextlib.suppress(OSError):  # nobody reads there any more
            process.stdin.close()
