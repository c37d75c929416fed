"""Starts the server beside Nuke, in an environment that has nothing of Nuke's, or finds the one that runs already."""

from __future__ import annotations

import json
import os
import queue
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Union

from xmem_nuke.job import explain_import, fetch_server, make_connector
from xmem_nuke.orders import ServerSeen, ServerSilent
from xmem_protocol import InputError, XMemError

RECORD_NAME = "server.json"  # beside the plug-in; written by ``xmem install-nuke``
_START_SECONDS = 600.0  # importing torch and reading a large checkpoint from a slow share

# What Nuke sets for its own Python and Qt, and what would make another Python load Nuke's libraries.
_NUKES_OWN = (
    "PYTHONHOME",
    "PYTHONPATH",
    "PYTHONEXECUTABLE",
    "PYTHONSTARTUP",
    "NUKE_PATH",
    "QT_PLUGIN_PATH",
    "QT_QPA_PLATFORM_PLUGIN_PATH",
)
_PATH_LISTS = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")

Seen = Union[ServerSeen, ServerSilent]
_started: list[subprocess.Popen[bytes]] = []  # kept: a server outlives Nuke, and is nobody's child to wait for


@dataclass(frozen=True)
class LaunchSettings:
    """How the server is started: ``model`` is as for ``xmem serve``; it may read files below ``readable_roots`` itself."""

    connection_file: Path
    model: str = "compact"
    readable_roots: tuple[Path, ...] = ()


def fetch_connection_file(chosen: str = "") -> Path:
    """Give where the server says that it is: what the knob says, else XMEM_CONNECTION, else where ``xmem serve`` writes it."""
    named = chosen.strip() or os.environ.get("XMEM_CONNECTION", "")
    if named:
        return Path(named).expanduser()
    home = os.environ.get("XDG_STATE_HOME")
    return (Path(home) if home else Path.home() / ".local" / "state") / "xmem" / "server" / "connection.json"


def fetch_command(environment: Mapping[str, str], record: Path) -> list[str]:
    """Give the start of the ``xmem`` command: XMEM_PYTHON, else what install-nuke recorded, else ``xmem`` on the PATH.

    Raises InputError when there is none.
    """
    python = environment.get("XMEM_PYTHON", "") or _read_record(record)
    if python and Path(python).is_file():
        return [python, "-m", "xmem_server"]
    found = shutil.which("xmem", path=environment.get("PATH", ""))
    if found:
        return [found]
    missing = f" {python} is not there." if python else ""
    raise InputError(
        f"The XMem server is not known on this computer.{missing} "
        "Install it and run 'xmem install-nuke', or set XMEM_PYTHON to its Python."
    )


def scrub_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Give the environment without what Nuke put into it for its own Python, Qt and libraries."""
    kept = {name: value for name, value in environment.items() if name not in _NUKES_OWN}
    for name in _PATH_LISTS:
        if name in kept:
            kept[name] = os.pathsep.join(part for part in kept[name].split(os.pathsep) if not _is_nukes(part))
            if not kept[name]:
                del kept[name]
    return {**kept, "PYTHONUTF8": "1", "PYTHONNOUSERSITE": "1"}


class ServerLaunch:
    """Finds or starts a server, in a thread of its own. ``fetch_happenings`` gives how that goes; the last one ends it."""

    def __init__(self, settings: LaunchSettings, record: Path) -> None:
        self._settings = settings
        self._record = record
        self._seen: queue.Queue[Seen] = queue.Queue()
        self._thread = threading.Thread(target=self._run, name="xmem-launch", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    @property
    def is_over(self) -> bool:
        """Whether all was said and asked for."""
        return not self._thread.is_alive() and self._seen.empty()

    def fetch_happenings(self) -> Iterator[Seen]:
        """Give what was seen since this was last asked."""
        while True:
            try:
                yield self._seen.get_nowait()
            except queue.Empty:
                return

    def _run(self) -> None:
        try:
            self._seen.put(self._find() or self._launch())
        except XMemError as error:
            self._seen.put(ServerSilent(str(error)))
        except ImportError as error:
            self._seen.put(ServerSilent(explain_import(error)))
        except OSError as error:
            self._seen.put(
                ServerSilent(f"The server cannot be started: {error.strerror}. Run 'xmem doctor' in a shell.")
            )

    def _find(self) -> ServerSeen | None:
        """Give the server that answers at the connection file already, None when nobody does."""
        from xmem_client import Timeouts  # noqa: PLC0415 - the socket library loads on first use, in this thread

        quick = Timeouts(ping=0.3, silence=0.8, resend=1.0, total=2.0, answer=3.0)
        try:
            with make_connector(self._settings.connection_file, quick)() as client:
                return fetch_server(client)
        except XMemError:
            return None

    def _launch(self) -> ServerSeen:
        command = fetch_command(os.environ, self._record)
        file = self._settings.connection_file
        file.parent.mkdir(parents=True, exist_ok=True)
        command += ["serve", "--connection", str(file), "--state", str(file.parent), "--model", self._settings.model]
        for root in self._settings.readable_roots:
            command += ["--readable-root", str(root)]
        log = file.parent / "server.log"
        with log.open("wb") as stream:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                env=scrub_environment(os.environ),
                cwd=file.parent,
                **_detached(),
            )
        _started.append(process)
        end = time.monotonic() + _START_SECONDS
        while time.monotonic() < end:
            if process.poll() is not None:
                raise InputError(_last_words(log))
            seen = self._find() if file.exists() else None
            if seen is not None:
                return seen
            time.sleep(0.2)
        raise InputError(f"The server did not start within {_START_SECONDS:.0f} s. Its log is {log}.")


def _detached() -> dict[str, Any]:
    """Give what makes the server outlive Nuke and keep it out of the artist's sight."""
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NO_WINDOW | subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"start_new_session": True}


def _is_nukes(part: str) -> bool:
    return any(name.lower().startswith("nuke") for name in Path(part).parts)


def _read_record(record: Path) -> str:
    try:
        python = json.loads(record.read_text("utf-8"))["python"]
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return python if isinstance(python, str) else ""


def _last_words(log: Path) -> str:
    lines = [line.strip() for line in log.read_text("utf-8", "replace").splitlines() if line.strip()]
    said = lines[-1] if lines else "nothing"
    return f"The server stopped at once. The last it said: {said} (log: {log})"
