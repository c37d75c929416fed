"""One propagation as a client runs it: send, start, follow, fetch, suggest, and say what came of it."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from xmem_client import Client
from xmem_protocol import (
    EngineInfo,
    Event,
    FrameFailed,
    JobCancelled,
    JobDone,
    JobFailed,
    MatteReady,
    Progress,
    PropagationSettings,
    ServerError,
    Suggestion,
    SuggestionSettings,
    SuggestionsReady,
    XMemError,
)
from xmem_server import contact_sheet
from xmem_server.commands.console import Console, ProgressBar
from xmem_server.commands.matte_folder import REPLACED, MatteFolder
from xmem_server.commands.output_folder import FOLDER
from xmem_server.commands.session_file import (
    KeptSession,
    explain_new_session,
    fetch_session_file,
    save_session_file,
    update_sessions,
)
from xmem_server.commands.shot_source import ShotSource, SourceSettings, update_session
from xmem_server.decoding import Decoder
from xmem_server.key_folder import COLOUR, INDEX, describe_label
from xmem_server.picture_files import save_png
from xmem_server.report import Report, save_report

SHEET, REPORT = "contact_sheet.png", "report.json"
_STAGES = {
    "waiting": "Waiting for the engine",
    "decoding": "Reading plates",
    "encoding": "Looking at plates",
    "annotating": "Learning your keys",
    "previewing": "Looking around the playhead",
    "propagating": "Pulling mattes",
    "comparing": "Comparing frames",
}


@dataclass(frozen=True)
class RotoSettings:
    """One run: what on, where to, how, and whether to suggest afterwards.

    ``folder`` keeps the session's name, so that the next run goes on with it; ``state`` is where a private server keeps
    its copies, None for a server that runs by itself. The range in ``propagation`` is not looked at: the source's is taken.
    """

    source: SourceSettings
    out: Path
    folder: Path
    propagation: PropagationSettings
    suggestion: SuggestionSettings | None = None
    state: Path | None = None


@dataclass(frozen=True)
class RotoResult:
    """What a run left: matte files by frame and object (0: layered), frames that failed and why, and the rest of its story.

    ``suggestion_failure`` is why nothing could be suggested, empty when that went well or was not asked.
    """

    out: Path
    frames: tuple[int, ...]
    files: Mapping[int, Mapping[int, Path]]
    failed: Mapping[int, str]
    frames_per_second: float
    summary: str
    suggestions: tuple[Suggestion, ...]
    suggestion_note: str
    suggestion_failure: str
    sheet: Path


@dataclass
class _Followed:
    """What has come of a job so far."""

    files: dict[int, dict[int, Path]] = field(default_factory=dict)
    failed: dict[int, str] = field(default_factory=dict)
    frames_per_second: float = 0.0
    suggestions: tuple[Suggestion, ...] = ()
    note: str = ""
    failure: str = ""
    summary: str = ""


def run_roto(
    client: Client, source: ShotSource, settings: RotoSettings, decoder: Decoder, console: Console
) -> RotoResult:
    """Give what a whole run left in its output folder.

    Raises XMemError when it cannot be finished. KeyboardInterrupt passes through once the job is cancelled.
    """
    marks = {"start": time.monotonic()}
    welcome = client.hello()
    kept = _begin_session(settings.folder, source, console)
    update_session(client, kept, source, settings.state, console)
    marks["sending"] = time.monotonic()
    propagation = dataclasses.replace(settings.propagation, first=source.first, last=source.last)
    with MatteFolder(settings.out) as folder:
        done = follow_job(client, client.start_propagation(kept.session, propagation, batch=True), console, folder)
        _retire(folder, source, console)
    marks["propagating"] = time.monotonic()
    if settings.suggestion is not None:
        _suggest(client, kept.session, settings.suggestion, done, console)
        marks["suggesting"] = time.monotonic()
    sheet = _save_sheet(source, settings, done, decoder)
    marks["contact sheet"] = time.monotonic()
    engine = welcome.engines[0] if welcome.engines else None
    _save_report(source, settings.out, propagation, (done, engine, marks))
    return RotoResult(
        out=settings.out,
        frames=tuple(sorted(done.files)),
        files=done.files,
        failed=done.failed,
        frames_per_second=done.frames_per_second,
        summary=done.summary,
        suggestions=done.suggestions,
        suggestion_note=done.note,
        suggestion_failure=done.failure,
        sheet=sheet,
    )


def _begin_session(folder: Path, source: ShotSource, console: Console) -> KeptSession:
    """Give the folder's session of this plate, remembered with the numbers of the objects; say what is new and who is who."""
    before = fetch_session_file(folder)
    why_new = explain_new_session(before, source.plate, source.shot)
    if why_new:
        console.write(why_new)
    named = {object_id: label for object_id, label in source.labels.items() if label.startswith((COLOUR, INDEX))}
    colours = {label: object_id for object_id, label in named.items() if label.startswith(COLOUR)}
    for object_id, label in named.items():
        console.write(f"{describe_label(label)} is object {object_id}")
    after = update_sessions(before, source.plate, source.shot)
    after = dataclasses.replace(after, objects={**before.objects, **colours})
    if after != before:
        save_session_file(folder, after)
    return after.sessions[0]


def _suggest(client: Client, session: str, settings: SuggestionSettings, done: _Followed, console: Console) -> None:
    """Add to what came of a run which frames to draw next, or why that cannot be said: the mattes are there all the same."""
    try:
        found = follow_job(client, client.start_suggestion(session, settings), console)
    except XMemError as error:
        done.failure = str(error)
        return
    done.suggestions, done.note = found.suggestions, found.note
    write_suggestions(done.suggestions, done.note, console)


def _retire(folder: MatteFolder, source: ShotSource, console: Console) -> None:
    """Move what earlier runs left and this one does not stand for, and say so."""
    moved, changed = folder.retire(range(source.first, source.last + 1), source.objects)
    place = f"{FOLDER}/{REPLACED}"
    if moved:
        console.write(f"{_count(moved)} of earlier runs, which this run did not make, moved to {place}")
    if folder.set_aside:
        console.warn(
            f"{_count(folder.set_aside)} had been changed since a run wrote them; the changed files were moved to {place} "
            f"to make room for new ones: {_name(folder.set_aside)}"
        )
    if changed:
        console.warn(
            f"{_count(changed)} of earlier runs had been changed by somebody and were left among this run's: {_name(changed)}"
        )


def _count(names: tuple[str, ...]) -> str:
    return f"{len(names)} matte{'s' if len(names) > 1 else ''}"


def _name(names: tuple[str, ...]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def follow_job(client: Client, job: str, console: Console, folder: MatteFolder | None = None) -> _Followed:
    """Give what came of a job, its mattes written to ``folder`` as they come.

    Raises ServerError when it fails. On KeyboardInterrupt the job is cancelled.
    """
    followed = _Followed()
    stages = _Stages(console)
    try:
        for event in client.follow(job):
            _take(event, followed, stages)
            if isinstance(event, MatteReady) and folder is not None:
                followed.files[event.frame] = {
                    file.object_id: folder.fetch(client, file, event.frame) for file in event.files
                }
    except KeyboardInterrupt:
        client.cancel(job)
        raise
    finally:
        stages.close()
    return followed


def _take(event: Event, followed: _Followed, stages: _Stages) -> None:
    match event:
        case Progress():
            stages.update(event)
            if event.stage == "propagating":
                followed.frames_per_second = event.frames_per_second or followed.frames_per_second
        case FrameFailed():
            followed.failed[event.frame] = event.message
        case SuggestionsReady():
            followed.suggestions, followed.note = event.suggestions, event.note
        case JobDone():
            followed.summary = event.summary
            stages.finish()
        case JobFailed():
            raise ServerError(event.code, event.message)
        case JobCancelled():
            raise ServerError("cancelled", "The job was cancelled from elsewhere. Run the same command again to go on.")
        case _:
            pass


class _Stages:
    """A bar for each stage of a job, one after another."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._stage, self._total = "", 0
        self._note = ""
        self._bar: ProgressBar | None = None

    def update(self, event: Progress) -> None:
        if event.note and event.note != self._note:
            self._note = event.note
            self._console.write(f"The engine takes {event.note}")
        if event.stage != self._stage:
            if _rank(event.stage) > _rank(self._stage):
                self.finish()
            else:  # the server or the engine died, and the job began again
                self.close()
            self._stage, self._total = event.stage, event.total
        if event.total == 0:
            return  # nothing to count yet
        if self._bar is None:
            self._total = event.total
            self._bar = self._console.progress(_STAGES.get(event.stage, event.stage), event.total)
        self._bar.update(event.done)

    def finish(self) -> None:
        """Fill the bar: the next stage began, or the job is done."""
        if self._bar is not None:
            self._bar.update(self._total)
        self.close()

    def close(self) -> None:
        """Leave the bar as it is."""
        if self._bar is not None:
            self._bar.close()
        self._bar = None


def _rank(stage: str) -> int:
    """Give the place of a stage in a job; -1 for one that is not shown."""
    return list(_STAGES).index(stage) if stage in _STAGES else -1


def write_suggestions(suggestions: tuple[Suggestion, ...], note: str, console: Console) -> None:
    """Say which frames to draw next, and why."""
    if suggestions:
        console.write("Draw next:")
    for suggestion in suggestions:
        console.write(f"  frame {suggestion.frame}: {suggestion.reason}")
    if note:
        console.write(f"  {note}")


# --------------------------------------------------------------------------------------------------- what is left behind


def _save_sheet(source: ShotSource, settings: RotoSettings, done: _Followed, decoder: Decoder) -> Path:
    """Give where the contact sheet is."""
    shot = source.shot
    panel = contact_sheet.fetch_panel_size(shot.width, shot.height, shot.pixel_aspect)
    rows = []
    for frame in contact_sheet.pick_frames(sorted(done.files.keys() - done.failed.keys()), source.key_frames):
        plate = source.plates[frame]
        size = (min(panel[1], shot.height), min(panel[0], shot.width))
        picture = decoder.fetch_plate(str(plate.path), plate.suffix, plate.index, shot.colorspace, size)
        alphas = _fetch_alphas(done.files[frame], source.objects, decoder)
        rows.append(contact_sheet.SheetRow(frame, picture, alphas, frame in source.key_frames))
    title = f"{shot.name}  {source.first}-{source.last}  keys: {len(source.key_frames)}"
    sheet = contact_sheet.fetch_sheet(title, rows, panel)
    path = settings.out / SHEET
    save_png(path, sheet[..., ::-1])
    return path


def _fetch_alphas(
    files: Mapping[int, Path], objects: tuple[int, ...], decoder: Decoder
) -> dict[int, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    if 0 in files:
        path = files[0]
        return {number: decoder.fetch_alpha(str(path), path.suffix, f"channel:object_{number}.A") for number in objects}
    return {number: decoder.fetch_alpha(str(path), path.suffix, "channel:auto") for number, path in files.items()}


def _save_report(
    source: ShotSource,
    out: Path,
    propagation: PropagationSettings,
    story: tuple[_Followed, EngineInfo | None, Mapping[str, float]],
) -> None:
    done, engine, marks = story
    times = list(marks.items())
    keys = {frame: tuple(key.object_id for key in source.keys if key.frame == frame) for frame in source.key_frames}
    report = Report(
        plate=source.settings.plate,
        shot=source.shot,
        settings=propagation,
        engine=engine,
        colour=source.colour,
        summary=done.summary,
        frames=tuple(sorted(done.files)),
        keys=keys,
        objects={object_id: describe_label(label) for object_id, label in source.labels.items()},
        failed=done.failed,
        frames_per_second=round(done.frames_per_second, 3),
        seconds={name: round(at - times[index][1], 2) for index, (name, at) in enumerate(times[1:])},
        suggestions=done.suggestions,
        suggestion_note=done.note or done.failure,
    )
    save_report(out / REPORT, report)
