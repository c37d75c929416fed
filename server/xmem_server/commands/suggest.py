"""``xmem suggest``: which frame to draw next, asked of a run that is finished."""

from __future__ import annotations

import argparse
from pathlib import Path

from xmem_protocol import InputError
from xmem_server.commands import roto
from xmem_server.commands.console import DONE, Console
from xmem_server.commands.roto_run import follow_job, write_suggestions
from xmem_server.commands.shot_source import FOLDER, fetch_session, fetch_source, update_session
from xmem_server.decoding import Decoder

SUMMARY = "Say which frame to draw next and why, from the mattes that 'xmem roto' left."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    roto.add_source_arguments(parser)
    parser.add_argument(
        "--mattes", type=Path, required=True, metavar="O", help="the folder that was --out of 'xmem roto'"
    )
    parser.add_argument("--count", type=int, default=1, help="how many frames to name")
    roto.add_suggestion_arguments(parser)
    roto.add_server_arguments(parser)


def run(options: argparse.Namespace, console: Console) -> int:
    """Ask and print; give the exit code."""
    out = options.mattes.expanduser()
    if not (out / FOLDER / "session.json").is_file():
        raise InputError(
            f"{out} holds no run to look at. Give the --out folder of an earlier 'xmem roto' with --mattes."
        )
    choice = roto.fetch_server_choice(options)
    settings = roto.fetch_source_settings(options)
    with Decoder() as decoder:
        source = fetch_source(settings, decoder)
    with roto.open_client(choice, out, roto.source_roots(settings)) as client:
        client.hello()
        session = fetch_session(out / FOLDER, source.shot)
        update_session(client, session, source, console)
        job = client.start_suggestion(session, roto.fetch_suggestion_settings(options, options.count))
        found = follow_job(client, job, out, console)
    write_suggestions(found.suggestions, found.note, console)
    return DONE
