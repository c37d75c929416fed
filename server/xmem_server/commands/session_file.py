"""What an output folder remembers from run to run, in ``session.json``: its session, those before, objects' numbers.

A session is found again by what matters: where the plate is, whatever way it is spelled, its size, colour and extent.
Objects' numbers are only ever added to, so that a colour keeps its number when another one appears.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from xmem_protocol import InputError, Shot
from xmem_server.headers import VIDEO_SUFFIXES
from xmem_server.report import save_json
from xmem_server.sequences import FrameSequence

NAME = "session.json"
_PLACEHOLDER = re.compile(r"%(?:0?\d+)?d|#+")
_LAST_NUMBER = re.compile(r"^(?P<before>.*?)(?:(?<![^._ ])-)?\d+(?P<after>\D*)$")


@dataclass(frozen=True)
class KeptSession:
    """A session of this folder: the server's name for it, where its plate is, and the shot it was opened with."""

    session: str
    plate: str
    shot: Shot


@dataclass(frozen=True)
class SessionFile:
    """``sessions`` newest first; ``objects`` the number of each colour; ``state`` where the server's state is, or ''."""

    sessions: tuple[KeptSession, ...] = ()
    objects: Mapping[str, int] = field(default_factory=dict)
    state: str = ""


def name_plate(pattern: str, sequence: FrameSequence) -> str:
    """Give one name for a plate, however it was spelled: its real folder, and its files' name with # for the number."""
    file = sequence.files[sequence.first]
    folder = file.path.parent.resolve()
    if file.suffix in VIDEO_SUFFIXES:
        return str(folder / file.path.name)
    name = Path(pattern).name
    if _PLACEHOLDER.search(name) and not Path(pattern).exists():
        return str(folder / _PLACEHOLDER.sub("#", name, count=1))
    match = _LAST_NUMBER.match(file.path.stem)
    stem = f"{match['before']}#{match['after']}" if match else file.path.stem
    return str(folder / f"{stem}{file.path.suffix}")


def fetch_session_file(folder: Path) -> SessionFile:
    """Give what the folder remembers; nothing when it has no file, or one of another version."""
    try:
        kept = json.loads((folder / NAME).read_text("utf-8"))
        return SessionFile(
            sessions=tuple(_fetch_session(fields) for fields in (kept, *kept["history"])) if kept["session"] else (),
            objects={str(label): int(number) for label, number in kept["objects"].items()},
            state=str(kept["state"]),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return SessionFile()


def _fetch_session(fields: Mapping[str, Any]) -> KeptSession:
    return KeptSession(str(fields["session"]), str(fields["plate"]), Shot(**fields["shot"]))


def save_session_file(folder: Path, file: SessionFile) -> None:
    """Write what the folder remembers, whole or not at all. Raises InputError when it cannot be written."""
    entries = [asdict(session) for session in file.sessions]
    current = entries[0] if entries else {"session": "", "plate": "", "shot": {}}
    fields = {**current, "objects": dict(file.objects), "state": file.state, "history": entries[1:]}
    save_json(folder / NAME, fields)


def find_session(file: SessionFile, plate: str, shot: Shot) -> KeptSession | None:
    """Give the session of this plate and shot, the newest first, or None. Spelling does not matter."""
    return next(
        (kept for kept in file.sessions if kept.plate == plate and replace(kept.shot, name=shot.name) == shot), None
    )


def update_sessions(file: SessionFile, plate: str, shot: Shot) -> SessionFile:
    """Give the file with this plate's session in front: the one that was there, else a new one."""
    kept = find_session(file, plate, shot) or KeptSession(f"{shot.name} {uuid.uuid4()}", plate, shot)
    return replace(file, sessions=(kept, *(other for other in file.sessions if other != kept)))


def explain_new_session(file: SessionFile, plate: str, shot: Shot) -> str:
    """Give one line that says why this plate needs a new session; empty when the folder had none, or has this one."""
    if not file.sessions or find_session(file, plate, shot) is not None:
        return ""
    kept = file.sessions[0]
    if kept.plate != plate:
        return f"The last run here was of {kept.plate}: this plate gets a session of its own, and the other is kept."
    parts = (
        ("frames", f"{shot.first}-{shot.last}", f"{kept.shot.first}-{kept.shot.last}"),
        ("size", f"{shot.width}x{shot.height}", f"{kept.shot.width}x{kept.shot.height}"),
        ("pixel aspect", f"{shot.pixel_aspect:g}", f"{kept.shot.pixel_aspect:g}"),
        ("colour space", shot.colorspace, kept.shot.colorspace),
    )
    name, now, before = next((part for part in parts if part[1] != part[2]), parts[0])
    return (
        f"The plate's {name}: {now} now, {before} before. A new session begins and every frame is computed again; "
        "the old one is kept, and found again when the plate is as it was."
    )


def check_session(file: SessionFile, plate: str, shot: Shot, out: Path) -> KeptSession:
    """Give the session of this plate. Raises InputError when no run of this folder was of it."""
    kept = find_session(file, plate, shot)
    if kept is not None:
        return kept
    last = file.sessions[0] if file.sessions else None
    of = f"the last was of {last.plate}, {last.shot.first}-{last.shot.last}" if last is not None else "it holds none"
    raise InputError(
        f"{out} holds no run of {plate}, {shot.first}-{shot.last} ({shot.colorspace}): {of}. "
        "Give the --plate and --plate-colorspace of that run, or run 'xmem roto' first."
    )
