"""The ``xmem`` command: ``python -m xmem_server`` is the same."""

from __future__ import annotations

import argparse
import importlib
import sys
from typing import NoReturn

from xmem_protocol import InputError
from xmem_server import __version__
from xmem_server.commands.console import Console, run_safely

COMMANDS = {
    "roto": "pull mattes for a whole plate from a few hand-made ones",
    "suggest": "say which frame to draw next, and why",
    "demo": "show the whole job on a small shot that is made on the spot",
    "serve": "run the server that Nuke and the other commands talk to",
    "status": "show how busy a server is, and who waits for what",
    "sessions": "list, export, import, undo, delete what a server keeps",
    "keys": "say who may use a server over the network",
    "install-nuke": "put the plug-in where Nuke finds it",
    "weights": "list, fetch or check network weights",
    "doctor": "look at this machine and say what is missing",
}


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Names the default of every option that has one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default in (None, "", []) else super()._get_help_string(action)


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message[:1].upper()}{message[1:]}. '{self.prog} --help' explains every option.")


def main(argv: list[str] | None = None) -> int:
    """Give the exit code: 0, or 2 with one line on stderr, or 130 when interrupted."""
    arguments = sys.argv[1:] if argv is None else argv
    console = Console()
    return run_safely(lambda: _run(arguments, console), console)


def _run(arguments: list[str], console: Console) -> int:
    top = _Parser(
        prog="xmem",
        description="Soft mattes for a whole shot from a few hand-made ones.",
        epilog="commands:\n" + "\n".join(f"  {name:14}{summary}" for name, summary in COMMANDS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"xmem {__version__}")
    top.add_argument(
        "command", choices=COMMANDS, metavar="COMMAND", help="one of those below; 'xmem COMMAND --help' says more"
    )
    name = top.parse_args(arguments[:1]).command
    module = importlib.import_module(f"xmem_server.commands.{name.replace('-', '_')}")
    parser = _Parser(prog=f"xmem {name}", description=module.SUMMARY, formatter_class=_HelpFormatter)
    module.add_arguments(parser)
    code: int = module.run(parser.parse_args(arguments[1:]), console)
    return code


if __name__ == "__main__":
    sys.exit(main())
