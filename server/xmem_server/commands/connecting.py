"""How a command finds a server that runs: the file named by an option, by XMEM_CONNECTION, or the one ``xmem serve`` writes."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from xmem_client import Client, Timeouts, fetch_connection
from xmem_server.commands.serve import fetch_state_folder

_TIMEOUTS = Timeouts(total=10.0)


def add_connection_argument(parser: argparse.ArgumentParser) -> None:
    """Declare the option."""
    parser.add_argument(
        "--connection",
        type=Path,
        metavar="FILE",
        help="connection file of the server, or the file that 'xmem keys new' made; else XMEM_CONNECTION, else this machine's",
    )


def connect(options: argparse.Namespace) -> Client:
    """Give a client of the server that the options mean. Raises InputError when no server is known there."""
    named = os.environ.get("XMEM_CONNECTION", "")
    file = options.connection or (Path(named) if named else fetch_state_folder() / "connection.json")
    file = file.expanduser()
    fetch_connection(file)  # a wrong file is told at once
    return Client(lambda: fetch_connection(file), f"command-{os.urandom(8).hex()}", _TIMEOUTS)
