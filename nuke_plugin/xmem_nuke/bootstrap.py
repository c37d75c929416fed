"""Chooses the vendor folder of this Nuke while it starts. Standard library only; loads nothing from the folder."""

from __future__ import annotations

import importlib.util
import platform
import sys
from collections.abc import Sequence
from pathlib import Path

PLUGIN_FOLDER = Path(__file__).resolve().parents[1]
VENDOR = "vendor"
LIBRARIES = ("zmq", "msgpack")

_SYSTEMS = {"linux": "linux", "win32": "windows", "darwin": "macos"}
_MACHINES = {"amd64": "x86_64", "x64": "x86_64", "aarch64": "arm64"}


def name_vendor_folder(version: Sequence[int], system: str, machine: str) -> str:
    """Give the folder's name for a Python, ``sys.platform`` and ``platform.machine()``: ``py311-linux-x86_64``."""
    machine = machine.lower()
    return f"py{version[0]}{version[1]}-{_SYSTEMS.get(system, system)}-{_MACHINES.get(machine, machine)}"


def prepare(plugin_folder: Path = PLUGIN_FOLDER) -> str:
    """Put this Nuke's vendor folder on the path; give one line saying what is missing, empty when nothing is.

    Only looks whether the libraries are there: they load on first use, so that a broken one cannot break Nuke's start.
    """
    name = name_vendor_folder(sys.version_info[:2], sys.platform, platform.machine())
    folder = plugin_folder / VENDOR / name
    if folder.is_dir():
        if str(folder) not in sys.path:
            sys.path.insert(0, str(folder))
        importlib.invalidate_caches()
    missing = [library for library in LIBRARIES if not _is_there(library)]
    if not missing:
        return ""
    words = " and ".join(missing)
    if folder.is_dir():
        return f"XMem: {folder} lacks {words}. Run 'xmem install-nuke' again, then restart Nuke."
    have = sorted(path.name for path in (plugin_folder / VENDOR).glob("py*-*"))
    made = f"it is made for {', '.join(have)}" if have else "it is empty"
    return f"XMem: {words} for this Nuke ({name}) are not in {folder.parent}: {made}. Run 'xmem install-nuke', then restart Nuke."


def fetch_gizmo_folder(plugin_folder: Path = PLUGIN_FOLDER) -> Path:
    """Give where the gizmos are: in the plug-in's folder when installed, beside it in a checkout."""
    inside = plugin_folder / "gizmos"
    return inside if inside.is_dir() else plugin_folder.parent / "gizmos"


def _is_there(library: str) -> bool:
    try:
        return importlib.util.find_spec(library) is not None
    except (ImportError, ValueError):
        return False
