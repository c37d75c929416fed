"""``xmem keys``: who may talk to a server over the network. Works on files alone; a running server goes by them at once."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from xmem_protocol import InputError
from xmem_server.client_keys import LIST_NAME, allow_client, check_client_name, fetch_clients, revoke_client
from xmem_server.commands.console import Console
from xmem_server.commands.serve import DEFAULT_PORT, fetch_state_folder
from xmem_server.connection import Endpoints, Keys, is_public_key, keep_keys, make_key_pair, save_connection

SUMMARY = "Make, list, allow and revoke the keys by which clients on other machines may use a server."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    state = argparse.ArgumentParser(add_help=False)
    state.add_argument(
        "--state", type=Path, default=fetch_state_folder(), metavar="DIR", help="the server's folder, as for xmem serve"
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    new = actions.add_parser(
        "new", parents=[state], help="make a key, write it to a file for the client, and allow it on this server"
    )
    new.add_argument("name", help="the client's name: an artist, a workstation, a farm")
    new.add_argument("file", type=Path, help="where the client's file goes; give it to the artist by a private way")
    new.add_argument("--host", required=True, help="the server's address as the client's machine knows it")
    new.add_argument("--port", type=int, default=DEFAULT_PORT, help="the server's port, as for xmem serve")
    new.add_argument("--supervisor", action="store_true", help="the key may see and touch everybody's sessions")
    new.add_argument(
        "--server-key",
        metavar="KEY",
        help="the server's public key (xmem keys list): makes the key on the client's own machine and allows nothing",
    )

    allow = actions.add_parser("allow", parents=[state], help="let in a key that was made on the client's machine")
    allow.add_argument("name", help="the client's name")
    allow.add_argument("key", help="the public key that 'xmem keys new' printed there")
    allow.add_argument("--supervisor", action="store_true", help="the key may see and touch everybody's sessions")

    revoke = actions.add_parser("revoke", parents=[state], help="let a key in no more, on open connections either")
    revoke.add_argument("name", help="the client's name")
    actions.add_parser("list", parents=[state], help="show the server's public key and the keys it lets in")


def run(options: argparse.Namespace, console: Console) -> int:
    """Do what was asked; give the exit code."""
    state = options.state.expanduser().resolve()
    {"new": _make, "allow": _allow, "revoke": _revoke, "list": _list}[options.action](options, state, console)
    return 0


def _make(options: argparse.Namespace, state: Path, console: Console) -> None:
    check_client_name(options.name)
    if options.file.exists():
        raise InputError(f"{options.file} exists already. Choose another name, or remove it first.")
    if not 0 < options.port < 65535:
        raise InputError(f"A port is 1 to 65534, since pixels go to the next one; got {options.port}.")
    public, secret = make_key_pair()
    server_key = options.server_key or _server_key(state)
    if not is_public_key(server_key):
        raise InputError(
            "The server's key is the 40 letters that 'xmem keys list' shows there. Copy all of them, in quotes."
        )
    endpoints = Endpoints(*(f"tcp://{options.host}:{port}" for port in (options.port, options.port + 1)))
    save_connection(options.file, Keys(server_key, "", public, secret), endpoints)
    if options.server_key:
        console.write(f"Wrote {options.file}. Have it let in on the server: xmem keys allow {options.name} '{public}'")
        return
    try:
        allow_client(state / LIST_NAME, options.name, public, is_supervisor=options.supervisor)
    except InputError:
        options.file.unlink()
        raise
    console.write(f"Wrote {options.file}: the client points XMEM_CONNECTION or the node's server knob to it.")


def _allow(options: argparse.Namespace, state: Path, console: Console) -> None:
    _server_key(state)
    client = allow_client(state / LIST_NAME, options.name, options.key, is_supervisor=options.supervisor)
    console.write(f"{client.name} is let in.")


def _revoke(options: argparse.Namespace, state: Path, console: Console) -> None:
    revoke_client(state / LIST_NAME, options.name)
    console.write(f"{options.name} is let in no more. Its sessions are kept.")


def _list(options: argparse.Namespace, state: Path, console: Console) -> None:
    del options
    console.write(f"server key  {_server_key(state)}")
    for client in fetch_clients(state / LIST_NAME):
        since = time.strftime("%Y-%m-%d", time.localtime(client.created))
        role = "supervisor" if client.is_supervisor else "artist"
        console.write(f"{client.name:20}{role:12}{since}  {client.public_key}")


def _server_key(state: Path) -> str:
    """Give the server's public key; a folder that has none yet is made ready for its first server."""
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"The state folder {state} cannot be made: {error.strerror}. Choose another.") from error
    return keep_keys(state / "keys.json").server_public
