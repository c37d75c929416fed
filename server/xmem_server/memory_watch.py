"""How much memory this process holds, and a fresh start of it when that is too much.

ZeroMQ keeps a message until its last part has come, however many there are, and no option of it bounds that. So a client that
is let in can fill this process; nothing but ending the process frees it. What was acknowledged is on disk.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NoReturn

from xmem_server.plans import EngineReady

_VARIABLE = "XMEM_STARTED_AGAIN"
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class StartedAgain:
    """What a server that starts itself again carries over: its ports, and what its engine was, so that nobody waits for it."""

    control_port: int
    bulk_port: int
    engine: EngineReady


def resident_bytes(process: int | str = "self") -> int:
    """Give the memory a process holds, this one by default, in bytes; 0 where the system does not say (only Linux does)."""
    return _read_bytes(process)[0]


def private_bytes() -> int:
    """Give what of this process's memory is no file's, in bytes; 0 where the system does not say."""
    resident, shared = _read_bytes("self")
    return resident - shared


def _read_bytes(process: int | str) -> tuple[int, int]:
    """Give the memory a process holds, and how much of it is of files."""
    try:
        pages = Path(f"/proc/{process}/statm").read_text("ascii").split()
        resident, shared = int(pages[1]), int(pages[2])
    except (OSError, IndexError):
        return 0, 0
    return resident * os.sysconf("SC_PAGE_SIZE"), shared * os.sysconf("SC_PAGE_SIZE")


def start_again(carried: StartedAgain) -> NoReturn:
    """Replace this process by a fresh one of the same number and command line; its engine and sockets end with it."""
    _LOG.error("started again, reason=memory held=%d MiB", resident_bytes() // 1024**2)
    os.environ[_VARIABLE] = json.dumps(asdict(carried))
    logging.shutdown()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def take_started_again() -> StartedAgain | None:
    """Give what the process before carried over, once; None for a first start."""
    text = os.environ.pop(_VARIABLE, "")
    if not text:
        return None
    fields = json.loads(text)
    return StartedAgain(fields["control_port"], fields["bulk_port"], EngineReady(**fields["engine"]))
