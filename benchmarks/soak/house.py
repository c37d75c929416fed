"""The server that is soaked: a real process with a real engine, on a network bind with a key for each client."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil

from tests.server.served import import_paths
from xmem_server.__main__ import main as xmem_command
from xmem_server.client_keys import LIST_NAME, allow_client, revoke_client

_START_SECONDS = 60.0


class SoakServer:
    """``xmem serve`` below a folder; killed and started again at will."""

    def __init__(self, folder: Path, clients: tuple[str, ...]) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.log = folder / "server.log"
        self._port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.key_files = {name: folder / f"{name}.json" for name in clients}
        for name, file in self.key_files.items():
            arguments = ["keys", "new", name, str(file), "--host", "127.0.0.1", "--port", str(self._port)]
            with contextlib.redirect_stdout(io.StringIO()):
                code = xmem_command([*arguments, "--state", str(self.state)])
            if code != 0:
                raise RuntimeError(f"no key was made for {name}")

    @property
    def pid(self) -> int:
        """Give the network process."""
        if self._process is None:
            raise RuntimeError("the server was not started")
        return self._process.pid

    def start(self) -> None:
        """Start it and wait until it serves."""
        command = [sys.executable, "-m", "xmem_server", "serve", "--bind", f"tcp://0.0.0.0:{self._port}"]
        command += ["--state", str(self.state), "--device", "cpu"]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, env=import_paths(), stderr=log, stdout=log)
        end = time.monotonic() + _START_SECONDS
        while self._serving_process() != self._process.pid:
            if self._process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"the server did not start: {self.log.read_text('utf-8', 'replace')[-500:]}")
            time.sleep(0.05)

    def kill(self) -> None:
        """Kill -9 the network process, and wait until its children have noticed."""
        children = psutil.Process(self.pid).children(recursive=True)
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        psutil.wait_procs(children, 10)

    def kill_engine(self) -> None:
        """Kill -9 the engine process."""
        for child in psutil.Process(self.pid).children():
            with contextlib.suppress(psutil.Error):
                if "xmem_server.worker" in child.cmdline():
                    os.kill(child.pid, signal.SIGKILL)

    def revoke(self, name: str) -> str:
        """Let a client in no more; give its public key."""
        revoke_client(self.state / LIST_NAME, name)
        return str(json.loads(self.key_files[name].read_text("utf-8"))["public_key"])

    def allow(self, name: str, public_key: str) -> None:
        """Let a client in again."""
        allow_client(self.state / LIST_NAME, name, public_key, is_supervisor=False)

    def stop(self) -> int:
        """Stop it in order; give its exit code."""
        if self._process is None:
            return 0
        children = psutil.Process(self.pid).children(recursive=True) if self._process.poll() is None else []
        self._process.send_signal(signal.SIGTERM)
        try:
            code = self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        for child in psutil.wait_procs(children, 5)[1]:
            with contextlib.suppress(psutil.Error):
                child.kill()
        return code

    def _serving_process(self) -> int:
        try:
            return int(json.loads((self.state / "connection.json").read_text("utf-8"))["pid"])
        except (FileNotFoundError, ValueError):
            return 0


def _free_port() -> int:
    """Give a port that is free, and the next one too."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port = int(first.getsockname()[1])
            with contextlib.suppress(OSError):
                second.bind(("127.0.0.1", port + 1))
                return port
