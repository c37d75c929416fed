"""``xmem status``: how busy a server is, who waits for what, and what it holds."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict

from xmem_protocol import JobStatus
from xmem_server.commands.connecting import add_connection_argument, connect
from xmem_server.commands.console import Console

SUMMARY = "Show a running server's engines, queue, memory and disk."
_MIB, _GIB = 1024**2, 1024**3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add_connection_argument(parser)
    parser.add_argument("--json", action="store_true", help="as JSON, for scripts")


def run(options: argparse.Namespace, console: Console) -> int:
    """Show it; give the exit code."""
    with connect(options) as client:
        status = client.status()
    if options.json:
        json.dump(asdict(status), sys.stdout, indent=1)
        console.write("")
        return 0
    console.write(f"up       {status.uptime_seconds / 3600:.1f} hours, {status.sessions} sessions")
    for engine in status.engines:
        held = f", {engine.resident_bytes / _MIB:.0f} MiB" if engine.resident_bytes else ""
        console.write(f"engine   {engine.name}: {engine.model} on {engine.device}, {engine.state}{held}")
    console.write(f"memory   {status.resident_bytes / _MIB:.0f} MiB in the network process")
    console.write(f"disk     {status.stored_bytes / _GIB:.2f} GiB stored, {status.free_bytes / _GIB:.1f} GiB free")
    for job in status.jobs:
        console.write(f"job      {_describe(job)}")
    if not status.jobs:
        console.write("queue    empty")
    return 0


def _describe(job: JobStatus) -> str:
    whose = f"{job.owner}{'/' + job.session if job.session else ''}{', batch' if job.batch else ''}"
    if job.stage == "waiting":
        when = f", about {job.eta_seconds:.0f} s" if job.eta_seconds >= 0 else ""
        return f"{whose}: waits for {job.total} others{when}"
    speed = f", {job.frames_per_second:.2f} frames/s, {job.eta_seconds:.0f} s left" if job.frames_per_second else ""
    return f"{whose}: {job.stage} {job.done}/{job.total}{speed}"
