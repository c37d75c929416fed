"""``xmem weights``: which checkpoints there are, fetching one, checking one."""

from __future__ import annotations

import argparse
from pathlib import Path

from xmem_protocol import InputError
from xmem_server import weights_store
from xmem_server.commands.console import DONE, Console, ProgressBar

SUMMARY = "List, fetch or check network weights. The package's own compact model needs none of this."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="list|get|check")
    actions.add_parser("list", help="say which checkpoints can be had, and which are here")
    get = actions.add_parser("get", help="fetch a checkpoint; goes on where an earlier try stopped")
    get.add_argument("name", metavar="NAME", help=" or ".join(weights_store.OFFICIAL))
    get.add_argument("--url", help="another address to fetch it from, such as a mirror in your facility")
    check = actions.add_parser("check", help="see whether a file is a checkpoint that fits the network")
    check.add_argument("file", type=Path, metavar="FILE")


def run(options: argparse.Namespace, console: Console) -> int:
    """Do what was asked; give the exit code."""
    if options.action == "list":
        return _list(console)
    if options.action == "get":
        return _get(options.name, options.url, console)
    return _check(options.file.expanduser(), console)


def _list(console: Console) -> int:
    console.write("compact     in the package, used unless another is named")
    folder = weights_store.fetch_folder()
    for name, (url, about) in weights_store.OFFICIAL.items():
        path = folder / f"{name}.pth"
        where = f"here: {path}" if path.exists() else f"not here; 'xmem weights get {name}' fetches it from {url}"
        console.write(f"{name:12}{about}\n            {where}")
    return DONE


def _get(name: str, url: str | None, console: Console) -> int:
    if name not in weights_store.OFFICIAL:
        raise InputError(
            f"There is no checkpoint called {name} to fetch. Give one of {', '.join(weights_store.OFFICIAL)}."
        )
    path = weights_store.fetch_folder() / f"{name}.pth"
    if path.exists():
        weights_store.check_record(path)
        console.write(f"{name} is here already: {path}")
        return DONE
    bars: list[ProgressBar] = []

    def on_bytes(done: int, total: int) -> None:
        if not bars:
            bars.append(console.progress(f"Fetching {name} (MB)", max(total, done) // 1_000_000))
        bars[0].update(done // 1_000_000)

    try:
        record = weights_store.download(url or weights_store.OFFICIAL[name][0], path, on_bytes)
    finally:
        for bar in bars:
            bar.close()
    console.write(
        f"{name} is here and fits: {path}\nsha256 {record.sha256}, recorded; it is compared whenever the file is used"
    )
    return DONE


def _check(path: Path, console: Console) -> int:
    if not path.is_file():
        raise InputError(f"There is no file {path}.")
    weights_store.check_record(path)
    console.write(weights_store.check_weights(path))
    return DONE
