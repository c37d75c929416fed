"""``xmem suggest``: which frame to draw next, asked of a run that is finished."""

from __future__ import annotations

import argparse
from pathlib import Path

from xmem_protocol import InputError
from xmem_server.checks import check_suggestion
from xmem_server.commands import roto
from xmem_server.commands.console import DONE, Console
from xmem_server.commands.output_folder import FOLDER, lock_output
from xmem_server.commands.roto_run import follow_job, write_suggestions
from xmem_server.commands.session_file import NAME, check_session, fetch_session_file
from xmem_server.commands.shot_source import fetch_source, update_session
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
    """Ask and print; give the exit code. Nothing in the folder is changed but the server's state."""
    out = options.mattes.expanduser()
    if not (out / FOLDER / NAME).is_file():
        raise InputError(
            f"{out} holds no run to look at. Give the --out folder of an earlier 'xmem roto' with --mattes."
        )
    with lock_output(out) as folder:
        kept_file = fetch_session_file(folder)
        choice = roto.fetch_server_choice(options, folder, kept_file)
        settings = roto.fetch_source_settings(options)
        suggestion = roto.fetch_suggestion_settings(options, options.count)
        with Decoder() as decoder:
            source = fetch_source(settings, decoder, kept_file.objects)
        kept = check_session(kept_file, source.plate, source.shot, out)
        check_suggestion(suggestion, frozenset(source.objects))
        with roto.open_client(choice, roto.source_roots(settings)) as client:
            client.hello()
            update_session(client, kept, source, choice.own_state, console)
            found = follow_job(client, client.start_suggestion(kept.session, suggestion), console)
    write_suggestions(found.suggestions, found.note, console)
    return DONE
