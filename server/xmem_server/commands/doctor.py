"""``xmem doctor``: what this machine has, and what to do about what it lacks. Never fails."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import zmq

from xmem_server import __version__
from xmem_server.commands.console import DONE, WRONG, Console
from xmem_server.commands.serve import fetch_state_folder
from xmem_server.engines import child_environment

SUMMARY = "Look at this machine and say what is missing and how to get it."
_PACKAGES = (
    "torch",
    "numpy",
    "numba",
    "safetensors",
    "pyzmq",
    "msgpack",
    "opencv-python-headless",
    "OpenEXR",
    "opencolorio",
    "tqdm",
)
_TORCH_SECONDS, _DRIVER_SECONDS = 180, 20
_LOW_DISK = 2 * 1024**3


@dataclass(frozen=True)
class Finding:
    """One line; ``remedy`` is what to do when it is not well, else empty."""

    name: str
    found: str
    remedy: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options: it has none."""
    del parser


def run(options: argparse.Namespace, console: Console) -> int:
    """Print what was found; give 0 when all is well, 2 when something must be done."""
    del options
    findings = [
        Finding("xmem", f"{__version__} in {Path(__file__).resolve().parents[1]}"),
        Finding("python", f"{platform.python_version()} at {sys.executable} on {platform.platform()}"),
        *(_find_package(name) for name in _PACKAGES),
        *_find_computing(),
        _find_disk(),
        _find_loopback(),
        _find_curve(),
    ]
    for finding in findings:
        console.write(f"{'ok ' if not finding.remedy else '!! '} {finding.name:24}{finding.found}")
        if finding.remedy:
            console.write(f"{'':28}{finding.remedy}")
    wrong = [finding.name for finding in findings if finding.remedy]
    if wrong:
        console.fail(f"something is to be done about: {', '.join(wrong)}.")
        return WRONG
    console.write("All is well. Try: xmem demo")
    return DONE


def _find_package(name: str) -> Finding:
    try:
        return Finding(name, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, "not installed", "Install xmem-nuke again, as the README says, with this Python.")


def _find_computing() -> list[Finding]:
    """Give what computes: torch's build and devices, asked of a process that imports it, and the graphics driver's cards."""
    cards = _fetch_cards()
    torch = _fetch_torch()
    if isinstance(torch, Finding):
        return [torch]
    usable, build = torch.get("cuda_devices"), torch.get("cuda_build")
    chosen = (
        f"{torch.get('chosen_device')}, {torch.get('cores')} cores, torch built for {build or 'the processor alone'}"
    )
    found = [Finding("computes on", chosen)]
    if cards and not usable:
        remedy = (
            "This torch cannot use it. Install the build for graphics cards: pip install -r requirements-cu130.txt"
            if not build
            else "torch has CUDA but cannot use the card: update the graphics driver, then run 'xmem doctor' again."
        )
        found.append(Finding("graphics card", "; ".join(cards), remedy))
    elif cards:
        found.append(Finding("graphics card", "; ".join(cards)))
    else:
        found.append(Finding("graphics card", "none seen; the compact model runs well on the processor"))
    return found


def _fetch_cards() -> list[str]:
    """Give the graphics cards the driver knows."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    command = [tool, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_DRIVER_SECONDS, check=False)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip()] if done.returncode == 0 else []


def _fetch_torch() -> dict[str, object] | Finding:
    command = [sys.executable, "-m", "xmem_server.worker", "--doctor"]
    remedy = "Install xmem-nuke again, as the README says, with this Python."
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_TORCH_SECONDS, env=child_environment(), check=False
        )
        answer = json.loads(done.stdout) if done.returncode == 0 else None
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        return Finding("torch", f"the engine does not start ({type(error).__name__})", remedy)
    if not isinstance(answer, dict):
        said = done.stderr.strip().splitlines()
        return Finding("torch", f"the engine does not start: {said[-1] if said else 'it says nothing'}", remedy)
    return answer


def _find_disk() -> Finding:
    folder = fetch_state_folder()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return Finding("disk", f"{folder}: {error.strerror}", "Set XDG_STATE_HOME to a folder you may write to.")
    found = f"{free / 1024**3:.1f} GiB free for sessions in {fetch_state_folder()}"
    return Finding(
        "disk", found, "" if free > _LOW_DISK else "Free some space, or give 'xmem serve --state' another disk."
    )


def _find_loopback() -> Finding:
    try:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen()
    except OSError as error:
        return Finding(
            "own network address",
            f"cannot listen on 127.0.0.1: {error.strerror}",
            "Allow Python in your firewall or sandbox.",
        )
    return Finding("own network address", "127.0.0.1 can be listened on")


def _find_curve() -> Finding:
    if zmq.has("curve"):
        return Finding("encryption", f"CURVE in ZeroMQ {zmq.zmq_version()}")
    return Finding(
        "encryption", "this ZeroMQ has no CURVE", "Install pyzmq's own wheel: pip install --force-reinstall pyzmq"
    )
