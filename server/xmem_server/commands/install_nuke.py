"""``xmem install-nuke``: the plug-in, the gizmo and the libraries of each Nuke's Python, into a Nuke folder; and out again."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

import xmem_protocol
from xmem_protocol import InputError
from xmem_server.commands.console import DONE, Console, explain_os_error
from xmem_server.nuke_wheels import PYTHONS, Vendor, fetch_targets, fill_vendor

SUMMARY = "Put the plug-in where Nuke finds it, with the libraries its Python needs; --uninstall takes it away again."

FOLDER = "XMem"
LINE = f"import nuke; nuke.pluginAddPath('./{FOLDER}')  # added by 'xmem install-nuke'"
RECORD = "server.json"
_MARK = "# added by 'xmem install-nuke'"
_PACKAGES = ("xmem_protocol", "xmem_client", "xmem_nuke")
_SCRIPTS = ("init.py", "menu.py")
_KEPT = ("vendor",)  # of an earlier install: folders for other machines that share this one's home


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        "--dir",
        type=Path,
        default=Path("~/.nuke"),
        metavar="DIR",
        help="folder that Nuke reads at its start; a facility's is named in NUKE_PATH",
    )
    parser.add_argument(
        "--nuke",
        default="all",
        choices=[*PYTHONS, "all"],
        metavar="|".join([*PYTHONS, "all"]),
        help="version of Nuke to fetch libraries for; all is those that are supported",
    )
    parser.add_argument(
        "--machine",
        default="this",
        metavar="OS-ARCH",
        help="machine to fetch libraries for: this, or linux-x86_64, linux-arm64, windows-x86_64, macos-arm64, macos-x86_64",
    )
    parser.add_argument(
        "--wheels",
        type=Path,
        metavar="DIR",
        help="folder with the wheels of pyzmq and msgpack, to work without a network",
    )
    parser.add_argument("--uninstall", action="store_true", help="remove the plug-in, and its line from init.py")


def run(options: argparse.Namespace, console: Console) -> int:
    """Install or uninstall; give the exit code."""
    folder = options.dir.expanduser().resolve()
    try:
        if options.uninstall:
            return _uninstall(folder, console)
        return _install(folder, fetch_targets(options.nuke, options.machine), options.wheels, console)
    except OSError as error:
        raise InputError(explain_os_error(error)) from None


def _install(folder: Path, vendors: Iterable[Vendor], wheels: Path | None, console: Console) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / FOLDER
    _check_ours(target)
    staged = folder / f".{FOLDER}.new"
    shutil.rmtree(staged, ignore_errors=True)
    try:
        _copy_plugin(staged)
        for name in _KEPT:
            if (target / name).is_dir():
                shutil.copytree(target / name, staged / name)
        for vendor in vendors:
            found = fill_vendor(vendor, staged / "vendor", wheels)
            console.write(f"Libraries for Nuke {vendor.nukes} (Python {vendor.python}, {vendor.machine}): {found}")
        (staged / RECORD).write_text(json.dumps({"python": sys.executable}), "utf-8")
        _swap(staged, target)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    console.write(f"Plug-in: {target}")
    _add_line(folder / "init.py", console)
    console.write("Start Nuke, press Tab in the node graph and type XMem. Start the server from the XMem menu.")
    return DONE


def _uninstall(folder: Path, console: Console) -> int:
    target = folder / FOLDER
    _check_ours(target)
    _remove_line(folder / "init.py", console)
    if target.is_dir():
        shutil.rmtree(target)
        console.write(f"Removed {target}")
    else:
        console.write(f"There is no plug-in in {folder}.")
    return DONE


def _check_ours(target: Path) -> None:
    """Refuse to touch a folder of the same name that somebody else made."""
    if target.is_symlink() or (target.exists() and not (target / "xmem_nuke").is_dir()):
        raise InputError(f"{target} was not made by 'xmem install-nuke'. Rename it, or choose another --dir.")


def _copy_plugin(staged: Path) -> None:
    sources = Path(xmem_protocol.__file__).resolve().parents[1]
    ignored = shutil.ignore_patterns("__pycache__", "*.pyc", "*.pyi", "py.typed")
    for name in _PACKAGES:
        shutil.copytree(sources / name, staged / name, ignore=ignored)
    scripts, gizmos = _fetch_scripts(sources)
    for name in _SCRIPTS:
        shutil.copy(scripts / name, staged / name)
    (staged / "gizmos").mkdir()
    for gizmo in sorted(gizmos.glob("*.gizmo")):
        shutil.copy(gizmo, staged / "gizmos" / gizmo.name)


def _fetch_scripts(sources: Path) -> tuple[Path, Path]:
    """Give the folders of init.py and of the gizmos: beside the packages in a checkout, inside ours when installed."""
    inside = Path(__file__).resolve().parents[1]
    places = ((sources, sources.parent / "gizmos"), (inside / "nuke_start", inside / "gizmos"))
    for scripts, gizmos in places:
        if all((scripts / name).is_file() for name in _SCRIPTS) and any(gizmos.glob("*.gizmo")):
            return scripts, gizmos
    raise InputError("This installation of xmem lacks the files for Nuke. Install the package again.")


def _swap(staged: Path, target: Path) -> None:
    """Put the new folder in the place of the old one; the old one stays when that fails."""
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    try:
        staged.rename(target)
    except OSError:
        if old.exists():
            old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _add_line(path: Path, console: Console) -> None:
    text = path.read_bytes().decode("utf-8", "surrogateescape") if path.exists() else ""
    if any(_is_ours(line) for line in text.splitlines()):
        console.write(f"{path} has its line already.")
        return
    console.write(f"Adding this line to {path}:\n  {LINE}")
    end = "" if not text or text.endswith("\n") else "\n"
    _write(path, f"{text}{end}{LINE}\n")


def _remove_line(path: Path, console: Console) -> None:
    if not path.exists():
        return
    text = path.read_bytes().decode("utf-8", "surrogateescape")
    kept = "".join(line for line in text.splitlines(keepends=True) if not _is_ours(line))
    if kept != text:
        console.write(f"Taking the line of 'xmem install-nuke' out of {path}")
        if kept:
            _write(path, kept)
        else:
            path.unlink()  # it was made for the line alone


def _is_ours(line: str) -> bool:
    return line.rstrip().endswith(_MARK)


def _write(path: Path, text: str) -> None:
    """Write the artist's own file in one step, byte for byte what it was besides our line."""
    temporary = path.with_name(f".{path.name}.xmem")
    temporary.write_bytes(text.encode("utf-8", "surrogateescape"))
    if path.exists():
        shutil.copymode(path, temporary)
    temporary.replace(path.resolve())  # through a link: many keep their .nuke files elsewhere
