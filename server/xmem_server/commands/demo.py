"""``xmem demo``: the whole job on a shot made on the spot, with one key and then with three, scored against the truth."""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from xmem_client import Client
from xmem_protocol import PropagationSettings, Suggestion, SuggestionSettings
from xmem_server.commands.console import DONE, WRONG, Console
from xmem_server.commands.output_folder import FOLDER, check_output, lock_output
from xmem_server.commands.roto import ServerChoice, open_client
from xmem_server.commands.roto_run import RotoResult, RotoSettings, run_roto
from xmem_server.commands.serve import add_model_arguments
from xmem_server.commands.shot_source import SourceSettings, fetch_source
from xmem_server.decoding import Decoder
from xmem_server.demo_shot import ShotFolders, ShotSettings, save_shot
from xmem_server.scoring import Score, score_frames
from xmem_server.weights_store import fetch_model_choice

SUMMARY = "Show the whole job on a small shot that is made on the spot: one key, a suggestion, three keys, and how good they are."


@dataclass(frozen=True)
class _Demo:
    """What both runs share."""

    out: Path
    shot: ShotSettings
    files: ShotFolders
    client: Client
    decoder: Decoder
    console: Console


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    usual = ShotSettings()
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("xmem-demo"),
        metavar="DIR",
        help="folder for plates, keys, mattes and contact sheets",
    )
    parser.add_argument("--count", type=int, default=usual.frames, metavar="N", help="frames in the shot")
    parser.add_argument("--width", type=int, default=usual.width, help="width of the shot in pixels")
    parser.add_argument("--height", type=int, default=usual.height, help="height of the shot in pixels")
    parser.add_argument(
        "--seed", type=int, default=usual.seed, help="another number makes another table, wall and grain"
    )
    add_model_arguments(parser)


def run(options: argparse.Namespace, console: Console) -> int:
    """Run the demo; give the exit code."""
    began = time.monotonic()
    out = options.out.expanduser()
    choice = ServerChoice(None, fetch_model_choice(options.model), options.device, (out / FOLDER).resolve())
    shot = ShotSettings(frames=max(4, options.count), width=options.width, height=options.height, seed=options.seed)
    with lock_output(out):
        with console.progress("Making the shot", shot.frames) as bar:
            files = save_shot(out, shot, lambda done, _: bar.update(done))
        console.write(
            f"A shot of {shot.frames} frames, {shot.width}x{shot.height}, with its exact matte: {files.plate.parent}"
        )
        with Decoder() as decoder, open_client(choice, (out.resolve(),)) as client:
            failed = _run_twice(_Demo(out, shot, files, client, decoder, console))
    console.write(f"Done in {time.monotonic() - began:.0f} s.")
    return WRONG if failed else DONE


def _run_twice(demo: _Demo) -> int:
    """Give how many things failed in both runs: frames, and the suggestion."""
    first, last = demo.shot.first, demo.shot.first + demo.shot.frames - 1
    before = _roto(demo, "1-key", (first,), SuggestionSettings(3))
    suggested = _choose(before.suggestions, (first, last))
    # Without a frame worth suggesting the middle is what an artist would take.
    third = suggested.frame if suggested is not None else (first + last) // 2
    keys = tuple(sorted((first, third, last)))
    after = _roto(demo, "3-keys", keys, None)
    write = demo.console.write
    write(_describe("1 key ", (first,), _score(demo, before, keys)))
    if suggested is not None:
        write(f"The server suggests frame {suggested.frame}: {suggested.reason}")
    else:
        write(f"The server suggests no frame. {before.suggestion_note}")
    write(_describe("3 keys", keys, _score(demo, after, keys)))
    write(
        f"J and F are shares of 100, measured against the exact matte on the same frames; {len(keys)} key frames are not scored."
    )
    for result in (before, after):
        write(f"Look at {result.sheet}")
    if before.suggestion_failure:
        demo.console.fail(before.suggestion_failure)
    return len(before.failed) + len(after.failed) + bool(before.suggestion_failure)


def _roto(demo: _Demo, name: str, frames: Sequence[int], suggestion: SuggestionSettings | None) -> RotoResult:
    keys = _save_keys(demo, demo.out / f"keys-{name}", frames)
    source_settings = SourceSettings(str(demo.files.plate), keys)
    settings = RotoSettings(
        source=source_settings,
        out=demo.out / f"mattes-{name}",
        folder=check_output(demo.out),
        propagation=PropagationSettings(0, 0),
        suggestion=suggestion,
        state=demo.out / FOLDER,
    )
    check_output(settings.out)
    return run_roto(demo.client, fetch_source(source_settings, demo.decoder), settings, demo.decoder, demo.console)


def _save_keys(demo: _Demo, folder: Path, frames: Sequence[int]) -> Path:
    """Give the folder with the exact matte of these frames and no others: what an artist would have drawn."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for frame in frames:
        shutil.copyfile(str(demo.files.alpha) % frame, folder / f"key.{frame}.png")
    return folder


def _choose(suggestions: Sequence[Suggestion], taken: Sequence[int]) -> Suggestion | None:
    return next((suggestion for suggestion in suggestions if suggestion.frame not in taken), None)


def _score(demo: _Demo, result: RotoResult, keys: Sequence[int]) -> Score:
    """Give J and F over the frames that are a key in neither run."""

    def fetch_mask(path: Path | str) -> NDArray[np.bool_]:
        alpha = demo.decoder.fetch_alpha(str(path), Path(path).suffix, "channel:auto")
        return np.asarray(alpha >= 0.5)

    scored = [frame for frame in result.frames if frame not in keys]
    return score_frames(
        (fetch_mask(result.files[frame][1]), fetch_mask(str(demo.files.alpha) % frame)) for frame in scored
    )


def _describe(name: str, keys: Sequence[int], score: Score) -> str:
    frames = ", ".join(str(frame) for frame in keys)
    return f"{name} ({frames}): J {100 * score.j:.1f}  F {100 * score.f:.1f}  mean {100 * score.mean:.1f}  over {score.frames} frames"
