"""``xmem sessions``: what a server keeps, and what it need not keep any more."""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

from xmem_client import Client
from xmem_protocol import InputError, SessionInfo
from xmem_server.commands.connecting import add_connection_argument, connect
from xmem_server.commands.console import Console
from xmem_server.session_bundle import fetch_bundle, find_session, restore_bundle, save_bundle

SUMMARY = "List, show, export, import, undo, delete and prune the sessions of a running server."
_DAY = 24 * 3600.0
_MIB = 1024 * 1024


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    shared = argparse.ArgumentParser(add_help=False)
    add_connection_argument(shared)
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    listing = actions.add_parser("list", parents=[shared], help="the sessions that this client can see")
    listing.add_argument("--json", action="store_true", help="as JSON, for scripts")
    for name, words in (
        ("show", "a session's keys and jobs"),
        ("undo", "take back the last change of keys"),
        ("redo", "make the change of keys again that was undone last"),
        ("delete", "forget a session and every file that nothing else uses"),
    ):
        action = actions.add_parser(name, parents=[shared], help=words)
        action.add_argument("session", help="its name; a supervisor names another client's as @OWNER/NAME")
    export = actions.add_parser("export", parents=[shared], help="write shot, plates and keys to one file")
    export.add_argument("session", help="its name")
    export.add_argument("file", type=Path, help="the file to write")
    bring = actions.add_parser("import", parents=[shared], help="make a session from such a file")
    bring.add_argument("file", type=Path, help="the file that 'xmem sessions export' wrote")
    bring.add_argument("--name", default="", help="another name than it had")
    prune = actions.add_parser("prune", parents=[shared], help="forget sessions that nobody has worked on for long")
    prune.add_argument("--days", type=float, required=True, help="how long, in days")
    prune.add_argument("--yes", action="store_true", help="delete; without it they are only named")


def run(options: argparse.Namespace, console: Console) -> int:
    """Do what was asked; give the exit code."""
    with connect(options) as client:
        actions = {
            "list": _list,
            "show": _show,
            "export": _export,
            "import": _import,
            "undo": _step_back,
            "redo": _step_back,
            "delete": _delete,
            "prune": _prune,
        }
        actions[options.action](client, options, console)
    return 0


def _list(client: Client, options: argparse.Namespace, console: Console) -> None:
    sessions = client.fetch_sessions()
    if options.json:
        json.dump([asdict(each) for each in sessions], sys.stdout, indent=1)
        console.write("")
        return
    for each in sessions:
        console.write(_line(each))


def _line(each: SessionInfo) -> str:
    shot, day = each.shot, time.strftime("%Y-%m-%d %H:%M", time.localtime(each.touched))
    return (
        f"{each.session:30} {shot.width}x{shot.height} {shot.first}-{shot.last}  {each.plates} plates, {each.keys} keys, "
        f"{each.jobs} jobs, last worked on {day}"
    )


def _show(client: Client, options: argparse.Namespace, console: Console) -> None:
    info = find_session(client, options.session)
    state = client.open_session(options.session, info.shot)
    console.write(_line(info))
    for key in state.keys:
        console.write(f"  key {key.frame}  object {key.object_id}  {key.presence}")
    for job in state.jobs:
        console.write(f"  job {job.job}  {job.kind}  {job.state}")


def _export(client: Client, options: argparse.Namespace, console: Console) -> None:
    with console.progress("export", 0) as bar:
        bundle = save_bundle(client, options.session, options.file, lambda done, total: bar.update(done))
    console.write(f"Wrote {options.file}: {len(bundle.plates)} plates, {len(bundle.keys)} keys.")


def _import(client: Client, options: argparse.Namespace, console: Console) -> None:
    name = options.name or fetch_bundle(options.file).name
    if name in {each.session for each in client.fetch_sessions()}:
        raise InputError(f"There is a session {name!r} already. Give the imported one another name: --name")
    with console.progress("import", 0) as bar:
        state = restore_bundle(client, options.file, name, lambda done, total: bar.update(done))
    console.write(f"Session {name}: {state.plate_count} plates, {len(state.keys)} keys.")


def _step_back(client: Client, options: argparse.Namespace, console: Console) -> None:
    step = client.undo_keys if options.action == "undo" else client.redo_keys
    state = step(options.session)
    console.write(f"{options.session} has {len(state.keys)} keys now (revision {state.revision}).")


def _delete(client: Client, options: argparse.Namespace, console: Console) -> None:
    nbytes = client.delete_session(options.session)
    console.write(f"Deleted {options.session}; {nbytes / _MIB:.1f} MiB are free again.")


def _prune(client: Client, options: argparse.Namespace, console: Console) -> None:
    if options.days < 0:
        raise InputError(f"--days is how long nobody has worked on a session; got {options.days:g}.")
    before = time.time() - options.days * _DAY
    old = [each for each in client.fetch_sessions() if each.touched < before]
    if not options.yes:
        for each in old:
            console.write(_line(each))
        console.write(f"{len(old)} sessions would be deleted. Say so with --yes.")
        return
    nbytes = sum(client.delete_session(each.session) for each in old)
    console.write(f"Deleted {len(old)} sessions; {nbytes / _MIB:.1f} MiB are free again.")
