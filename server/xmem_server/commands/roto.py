"""``xmem roto``: mattes for a whole plate from a few hand-made ones."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import uuid4

from xmem_client import Client, fetch_connection
from xmem_protocol import PropagationSettings, SuggestionSettings
from xmem_server.checks import check_propagation, check_suggestion
from xmem_server.commands.console import DONE, WRONG, Console, fetch_range
from xmem_server.commands.output_folder import lock_output, lock_state
from xmem_server.commands.private_server import PrivateServer, PrivateServerSettings
from xmem_server.commands.roto_run import RotoResult, RotoSettings, run_roto
from xmem_server.commands.serve import add_model_arguments
from xmem_server.commands.session_file import SessionFile, fetch_session_file, save_session_file
from xmem_server.commands.shot_source import ShotSource, SourceSettings, fetch_source
from xmem_server.decoding import Decoder
from xmem_server.key_folder import FORMS, KeyFolderOptions
from xmem_server.weights_store import fetch_model_choice

SUMMARY = "Pull mattes for a whole plate from a few hand-made ones. Run the same command again to go on after a stop."
_DEFAULTS = PropagationSettings(0, 0)
_ON_OFF = {"on": True, "off": False}


@dataclass(frozen=True)
class ServerChoice:
    """Which server a command talks to: one that runs (``connection_file``), else one of its own with this model.

    ``state`` is where its own keeps everything.
    """

    connection_file: Path | None
    model: str
    device: str
    state: Path

    @property
    def own_state(self) -> Path | None:
        """Give where this command's own server keeps everything; None when another server is asked."""
        return self.state if self.connection_file is None else None


# Fields of PropagationSettings that are plain numbers, and what they do
_WHOLE_NUMBERS = {
    "mem_every": "remember every N-th frame",
    "deep_update_every": "refresh the short memory thoroughly every N frames; -1 is the same as --mem-every",
    "top_k": "how many remembered places each pixel is compared with",
    "max_working_frames": "recent frames kept whole",
    "min_working_frames": "recent frames left after a digest is made",
    "prototypes": "places kept from each digest",
    "max_long_term": "places kept in all digests",
    "snapshot_every": "frames computed again at most after an interruption",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add_source_arguments(parser)
    parser.add_argument(
        "--out", type=Path, required=True, metavar="O", help="folder for the mattes: O/OBJECT/FRAME.exr"
    )
    parser.add_argument(
        "--size",
        type=int,
        default=_DEFAULTS.working_size,
        metavar="N",
        help="shorter side of the picture the network sees, in pixels; 0 is the model's own choice. Larger is finer and slower",
    )
    parser.add_argument(
        "--output",
        choices=("exr-half", "exr-float", "png16"),
        default=_DEFAULTS.output,
        help="what a matte is written as",
    )
    parser.add_argument(
        "--layout",
        choices=("per-object", "layered"),
        default=_DEFAULTS.layout,
        help="a folder for each object, or one EXR a frame with a layer for each",
    )
    parser.add_argument(
        "--suggest", type=int, default=0, metavar="COUNT", help="afterwards say which COUNT frames to draw next"
    )
    add_suggestion_arguments(parser)
    add_server_arguments(parser)
    _add_memory_arguments(
        parser.add_argument_group("memory", "how the network remembers; the defaults suit nearly every shot")
    )


def _add_memory_arguments(memory: argparse._ArgumentGroup) -> None:
    memory.add_argument(
        "--threshold",
        type=float,
        default=_DEFAULTS.threshold,
        help="alpha above this counts as inside, for the network; your keys come back untouched",
    )
    memory.add_argument(
        "--permanent",
        choices=("every", "first", "none"),
        default=_DEFAULTS.permanent,
        help="which keys every frame may look at",
    )
    memory.add_argument(
        "--long-term",
        choices=_ON_OFF,
        default="on",
        help="keep a digest of frames long past; without it only recent frames and keys are remembered",
    )
    for field, words in _WHOLE_NUMBERS.items():
        option = f"--{field.replace('_', '-')}"
        memory.add_argument(option, type=int, default=getattr(_DEFAULTS, field), metavar="N", help=words)
    memory.add_argument(
        "--precision",
        choices=("float32", "bfloat16", "float16"),
        default=_DEFAULTS.precision,
        help="float32 is exact; the others are faster on graphics cards",
    )


def add_source_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options that say what to work on."""
    parser.add_argument(
        "--plate", required=True, metavar="P", help="the plate: shot.%%04d.exr, shot.####.exr, a folder, or a video"
    )
    parser.add_argument(
        "--keys",
        type=Path,
        required=True,
        metavar="K",
        help="folder of hand-made mattes, named by frame: alphas of one object, a folder for each object (1, 2, ...), index masks or coloured masks",
    )
    parser.add_argument(
        "--frames",
        metavar="A-B",
        help="range to work on; the whole plate when not given. Negative numbers: --frames=-5-10",
    )
    parser.add_argument(
        "--plate-colorspace",
        default="auto",
        metavar="NAME",
        help="'display' for ready-to-view pixels, an OpenColorIO colour space, or 'auto': float EXR is linear, all else ready to view",
    )
    parser.add_argument("--key-form", choices=FORMS, default="auto", help="what the files in K are; auto looks at them")
    parser.add_argument(
        "--key-channel",
        default="auto",
        metavar="NAME",
        help="channel that holds a key's alpha; auto takes A, else Y, else R",
    )


def add_suggestion_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of suggestion."""
    usual = SuggestionSettings(1)
    parser.add_argument(
        "--alpha",
        type=float,
        default=usual.alpha,
        help="what a suggestion looks at: 0 the whole picture, 1 the object alone",
    )
    parser.add_argument(
        "--min-area",
        type=float,
        default=usual.min_area,
        help="share of the picture below which a matte is too small to judge by",
    )
    parser.add_argument(
        "--object",
        type=int,
        default=usual.object_id,
        metavar="ID",
        help="suggest for this object; 0 is for all of them",
    )
    parser.add_argument(
        "--unsure",
        type=int,
        default=usual.unsure,
        metavar="N",
        help="name N frames more: those whose mattes are the least certain",
    )


def add_server_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options that say who computes."""
    parser.add_argument(
        "--server",
        type=Path,
        metavar="FILE",
        help="connection file of a server that runs; without it the command starts its own and stops it at the end. --model and --device are then the server's",
    )
    parser.add_argument(
        "--state",
        type=Path,
        metavar="DIR",
        help="where the command's own server keeps its copies of plates and keys, and encoded frames; O/.xmem when not given, or where it was last",
    )
    add_model_arguments(parser)


def run(options: argparse.Namespace, console: Console) -> int:
    """Run a propagation; give the exit code."""
    out = options.out.expanduser()
    with lock_output(out) as folder:
        kept = fetch_session_file(folder)
        settings = _fetch_settings(options, out, folder)
        choice = fetch_server_choice(options, folder, kept)
        with Decoder() as decoder:
            source = fetch_source(settings.source, decoder, kept.objects)
            _check_settings(settings, source)
            _remember_state(choice, folder, kept)
            settings = replace(settings, state=choice.own_state)
            with open_client(choice, source_roots(settings.source)) as client:
                result = run_roto(client, source, settings, decoder, console)
    return finish(result, console)


def _remember_state(choice: ServerChoice, folder: Path, kept: SessionFile) -> None:
    """Keep where the state is, unless it is in the folder itself, which may be moved as a whole."""
    state = "" if choice.state == folder.resolve() else str(choice.state)
    if choice.own_state is not None and state != kept.state:
        save_session_file(folder, replace(kept, state=state))


def _check_settings(settings: RotoSettings, source: ShotSource) -> None:
    """Refuse what the server would refuse, before anything is sent to it."""
    check_propagation(replace(settings.propagation, first=source.first, last=source.last), source.shot)
    if settings.suggestion is not None:
        check_suggestion(settings.suggestion, frozenset(source.objects))


def finish(result: RotoResult, console: Console) -> int:
    """Say where everything is; give the exit code."""
    console.write(
        f"{len(result.frames)} frames in {result.out}; {result.frames_per_second:.2f} frames/s; {result.summary}"
    )
    console.write(f"Look at {result.sheet}, then draw where it is wrong and run the same command again.")
    if result.suggestion_failure:
        console.fail(f"The mattes are finished, but no frame is suggested: {result.suggestion_failure}")
    if not result.failed:
        return WRONG if result.suggestion_failure else DONE
    frame, message = min(result.failed.items())
    more = len(result.failed) - 1
    console.fail(
        f"{message if str(frame) in message else f'Frame {frame}: {message}'}"
        + (f" (and {more} more frames failed)" if more else "")
    )
    return WRONG


def fetch_source_settings(options: argparse.Namespace) -> SourceSettings:
    """Give what to work on, from the command line."""
    return SourceSettings(
        plate=str(Path(options.plate).expanduser()),
        keys=options.keys.expanduser(),
        frames=fetch_range(options.frames) if options.frames else None,
        colorspace=options.plate_colorspace,
        key_form=KeyFolderOptions(options.key_form, options.key_channel),
    )


def fetch_suggestion_settings(options: argparse.Namespace, count: int) -> SuggestionSettings:
    """Give how to suggest, from the command line."""
    return SuggestionSettings(count, options.alpha, options.min_area, options.object, options.unsure)


def fetch_server_choice(options: argparse.Namespace, folder: Path, kept: SessionFile) -> ServerChoice:
    """Give which server to talk to, from the command line and from where the last one of ``folder`` kept its state.

    Raises InputError when the model is not there.
    """
    if options.server is not None:
        return ServerChoice(options.server.expanduser(), "", "", folder)
    state = options.state.expanduser() if options.state else Path(kept.state) if kept.state else folder
    return ServerChoice(None, fetch_model_choice(options.model), options.device, state.resolve())


def source_roots(source: SourceSettings) -> tuple[Path, ...]:
    """Give the folders a private server may read by itself."""
    plate = Path(source.plate)
    return tuple(folder.resolve() for folder in (plate if plate.is_dir() else plate.parent, source.keys))


@contextmanager
def open_client(choice: ServerChoice, roots: tuple[Path, ...]) -> Iterator[Client]:
    """Give a client of the chosen server. A private server ends with the context.

    Raises InputError when another command has its state.
    """
    name = f"xmem-{uuid4()}"
    if choice.connection_file is not None:
        connection_file = choice.connection_file
        with Client(lambda: fetch_connection(connection_file), name) as client:
            yield client
        return
    with lock_state(choice.state) as state:
        settings = PrivateServerSettings(state, choice.model, choice.device, roots)
        with PrivateServer(settings) as server, Client(server.fetch_connection, name) as client:
            yield client


def _fetch_settings(options: argparse.Namespace, out: Path, folder: Path) -> RotoSettings:
    return RotoSettings(
        source=fetch_source_settings(options),
        out=out,
        folder=folder,
        suggestion=fetch_suggestion_settings(options, options.suggest) if options.suggest else None,
        propagation=PropagationSettings(
            first=0,
            last=0,
            working_size=options.size,
            threshold=options.threshold,
            permanent=options.permanent,
            long_term=_ON_OFF[options.long_term],
            mem_every=options.mem_every,
            deep_update_every=options.deep_update_every,
            top_k=options.top_k,
            max_working_frames=options.max_working_frames,
            min_working_frames=options.min_working_frames,
            prototypes=options.prototypes,
            max_long_term=options.max_long_term,
            precision=options.precision,
            output=options.output,
            layout=options.layout,
            snapshot_every=options.snapshot_every,
        ),
    )
