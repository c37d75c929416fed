"""``xmem serve``: the server. Imports nothing that computes or reads pictures."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from pathlib import Path

from xmem_protocol import InputError
from xmem_server.commands.console import Console
from xmem_server.files import StorageLimits
from xmem_server.service import ServeSettings, serve
from xmem_server.weights_store import fetch_model_choice

DEFAULT_PORT = 5570  # of a server on the network; pixels go to the next one
SUMMARY = "Run the server that Nuke and the other commands talk to, until it is stopped with Ctrl-C."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        "--bind",
        default="127.0.0.1",
        metavar="ADDR",
        help="address to listen on, tcp://ADDR:PORT too; beyond this machine only for keys made by 'xmem keys new'",
    )
    parser.add_argument(
        "--port", type=int, default=0, help="port to listen on, and the next one for pixels; 0 takes free ones"
    )
    parser.add_argument(
        "--state",
        type=Path,
        default=fetch_state_folder(),
        metavar="DIR",
        help="folder that keeps sessions, keys and mattes",
    )
    parser.add_argument(
        "--connection",
        type=Path,
        metavar="FILE",
        help="file that tells clients where the server is; connection.json in the state folder when not given",
    )
    parser.add_argument(
        "--readable-root",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="folder whose plates the server reads by itself instead of having them sent; may be given again",
    )
    parser.add_argument(
        "--quota",
        type=float,
        default=0.0,
        metavar="GIB",
        help="most that the state folder's files may take; 0: the disk",
    )
    parser.add_argument(
        "--memory-limit",
        type=int,
        default=2048,
        metavar="MIB",
        help="memory of the network process above which it starts itself again (Linux)",
    )
    parser.add_argument(
        "--engine-memory",
        type=float,
        default=0.0,
        metavar="GIB",
        help="memory a propagation may take; a shot that needs more is worked on smaller, and says so. 0: four fifths of what there is",
    )
    add_model_arguments(parser)
    parser.add_argument("--until-stdin-closes", action="store_true", help=argparse.SUPPRESS)


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options that say what computes."""
    parser.add_argument(
        "--model",
        default="compact",
        metavar="compact|FILE",
        help="the model in the package, a checkpoint file, or the name of one fetched with 'xmem weights get'",
    )
    parser.add_argument(
        "--device",
        default="auto",
        metavar="auto|cpu|cuda:N",
        help="what computes; auto takes a graphics card when there is one",
    )


def run(options: argparse.Namespace, console: Console) -> int:
    """Serve until stopped; give the exit code."""
    del console  # the server logs to stderr itself
    if options.until_stdin_closes:
        threading.Thread(target=_stop_when_stdin_closes, daemon=True).start()
    bind, port = _split(options.bind, options.port)
    return serve(
        ServeSettings(
            state=options.state.expanduser().resolve(),
            connection_file=(options.connection or options.state / "connection.json").expanduser().resolve(),
            model=fetch_model_choice(options.model),
            device=options.device,
            bind=bind,
            control_port=port,
            bulk_port=port + 1 if port else 0,
            storage=StorageLimits(quota_bytes=int(options.quota * 1024**3)),
            memory_limit=options.memory_limit * 1024**2,
            engine_memory=int(options.engine_memory * 1024**3),
            readable_roots=tuple(root.expanduser().resolve() for root in options.readable_root),
        )
    )


def _split(bind: str, port: int) -> tuple[str, int]:
    """Give ``tcp://ADDRESS`` and the port, which may be part of ``bind``; beyond the loopback it has a default."""
    scheme, address = bind.split("://", 1) if "://" in bind else ("tcp", bind)
    address, colon, named = address.partition(":")
    if colon and (not named.isdecimal() or port not in (0, int(named))):
        raise InputError(f"--bind looks like tcp://ADDRESS:PORT; got {bind!r}, with --port {port}.")
    port = int(named) if colon else port
    is_loopback = address == "localhost" or address.startswith("127.")
    return f"{scheme}://{address}", port or (0 if is_loopback else DEFAULT_PORT)


def fetch_state_folder() -> Path:
    """Give the folder a server keeps its state in when none is named: xmem/server in the user's state folder."""
    home = os.environ.get("XDG_STATE_HOME")
    return (Path(home) if home else Path.home() / ".local" / "state") / "xmem" / "server"


def _stop_when_stdin_closes() -> None:
    """Stop with the process that started this one, however that one ends."""
    while os.read(sys.stdin.fileno(), 1024):  # unbuffered: a buffer's lock held here would break the way out
        pass
    os.kill(os.getpid(), signal.SIGTERM)
