"""The libraries of the Nuke side, for each Nuke's Python and machine: fetched by pip, from the index or from a folder."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from xmem_protocol import InputError

# Which Python each Nuke has inside (Foundry's release notes and developers' pages).
PYTHONS = {"14": "3.9", "15": "3.10", "16": "3.11", "17": "3.11"}
REQUIREMENTS = ("pyzmq>=25,<28", "msgpack>=1.0.5,<2")

_SYSTEMS = {"linux": "linux", "win32": "windows", "darwin": "macos"}
_MACHINES = {"amd64": "x86_64", "x64": "x86_64", "aarch64": "arm64"}
_OLD_LINUX = ("manylinux2014", "manylinux_2_17", "manylinux_2_12", "manylinux2010")
_NEW_LINUX = ("manylinux_2_28", "manylinux_2_26", "manylinux_2_24")
# The tags of pip that fit, newest first.
_TAGS = {
    "linux-x86_64": tuple(f"{tag}_x86_64" for tag in (*_NEW_LINUX, *_OLD_LINUX)),
    "linux-arm64": tuple(f"{tag}_aarch64" for tag in (*_NEW_LINUX, *_OLD_LINUX)),
    "windows-x86_64": ("win_amd64",),
    "macos-arm64": ("macosx_11_0_arm64", "macosx_11_0_universal2", "macosx_10_15_universal2", "macosx_10_9_universal2"),
    "macos-x86_64": (
        "macosx_11_0_x86_64",
        "macosx_11_0_universal2",
        "macosx_10_15_universal2",
        "macosx_10_15_x86_64",
        "macosx_10_9_universal2",
        "macosx_10_9_x86_64",
    ),
}


@dataclass(frozen=True)
class Vendor:
    """One folder of libraries: which Nukes use it, their Python (``3.11``), the machine (``linux-x86_64``)."""

    nukes: str
    python: str
    machine: str

    @property
    def name(self) -> str:
        """Give the folder's name, as ``xmem_nuke.bootstrap`` looks for it."""
        return f"py{self.python.replace('.', '')}-{self.machine}"


def fetch_targets(nuke: str, machine: str) -> tuple[Vendor, ...]:
    """Give the folders that a version of Nuke (or ``all``) needs on a machine (or ``this``). Raises InputError."""
    wanted = fetch_machine() if machine == "this" else machine
    if wanted not in _TAGS:
        raise InputError(f"There is no Nuke for {wanted}. Choose one of {', '.join(_TAGS)}.")
    versions = tuple(PYTHONS) if nuke == "all" else (nuke,)
    pythons = dict.fromkeys(PYTHONS[version] for version in versions)
    return tuple(
        Vendor(" and ".join(version for version in versions if PYTHONS[version] == python), python, wanted)
        for python in pythons
    )


def fetch_machine() -> str:
    """Give the name of this machine: ``linux-x86_64``."""
    machine = platform.machine().lower()
    return f"{_SYSTEMS.get(sys.platform, sys.platform)}-{_MACHINES.get(machine, machine)}"


def fetch_tags(machine: str, libc: tuple[str, str]) -> tuple[str, ...]:
    """Give the platform tags of the wheels that a machine can load; ``libc`` is this machine's name and version.

    A Linux with glibc before 2.28 (the class of CentOS 7, on which Nuke 14 and 15 run too) can load the older wheels alone.
    """
    tags = _TAGS[machine]
    name, version = libc
    if machine != fetch_machine() or name != "glibc" or not version:
        return tags
    is_old = tuple(map(int, version.split(".")[:2])) < (2, 28)
    return tuple(tag for tag in tags if tag.startswith(_OLD_LINUX)) if is_old else tags


def fill_vendor(vendor: Vendor, folder: Path, wheels: Path | None) -> str:
    """Put the libraries into ``folder/NAME``, in the place of what is there; give what they are.

    Raises InputError when pip cannot get them.
    """
    if wheels is not None and not wheels.is_dir():
        raise InputError(f"{wheels} is not a folder. Give --wheels a folder with the wheels of pyzmq and msgpack.")
    target = folder / vendor.name
    shutil.rmtree(target, ignore_errors=True)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary=:all:", "--implementation", "cp", "--python-version", vendor.python, "--no-compile"]
    for tag in fetch_tags(vendor.machine, platform.libc_ver()):
        command += ["--platform", tag]
    if wheels is not None:
        command += ["--no-index", "--find-links", str(wheels.resolve())]
    command += ["--target", str(target), *REQUIREMENTS]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(_explain(vendor, done.stderr, wheels))
    shutil.rmtree(target / "bin", ignore_errors=True)
    return ", ".join(_fetch_versions(target))


def _fetch_versions(target: Path) -> list[str]:
    """Give the libraries in a folder with their versions: ``msgpack 1.1.2``."""
    return sorted(" ".join(path.name.removesuffix(".dist-info").split("-")) for path in target.glob("*.dist-info"))


def _explain(vendor: Vendor, said: str, wheels: Path | None) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    last = lines[-1].removeprefix("ERROR: ") if lines else "pip gave no reason"
    if wheels is not None:
        return (
            f"The wheels in {wheels} do not do for Nuke {vendor.nukes} (Python {vendor.python}, {vendor.machine}): {last}. "
            "Add them, or choose one Nuke with --nuke."
        )
    return (
        f"pyzmq and msgpack for Nuke {vendor.nukes} (Python {vendor.python}, {vendor.machine}) cannot be fetched: {last}. "
        "Check the network, or give --wheels a folder that has them."
    )
