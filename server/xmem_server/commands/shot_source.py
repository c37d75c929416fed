"""What a run works on: plate files and key files, looked at and found in order before any work starts."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from xmem_client import Client, hash_file
from xmem_protocol import PRESENT, InputError, Key, Plate, SessionState, Shot
from xmem_server.commands.console import Console
from xmem_server.decoding import Decoder
from xmem_server.headers import VIDEO_SUFFIXES, Header
from xmem_server.key_folder import DEFAULT_OPTIONS, KeyFile, KeyFolderOptions, fetch_key_folder
from xmem_server.report import save_json
from xmem_server.sequences import FrameSequence, PlateFile, fetch_sequence, format_frames

FOLDER = ".xmem"  # below the output folder: the session's name, the private server's state and log


@dataclass(frozen=True)
class SourceSettings:
    """Where plate and keys are and how to read them; ``frames`` None means the whole plate."""

    plate: str
    keys: Path
    frames: tuple[int, int] | None = None
    colorspace: str = "auto"
    key_form: KeyFolderOptions = DEFAULT_OPTIONS


@dataclass(frozen=True)
class ShotSource:
    """A shot whose files were looked at: ``plates`` are those of the asked range, ``colour`` says what is done to them."""

    settings: SourceSettings
    shot: Shot
    first: int
    last: int
    plates: Mapping[int, PlateFile]
    keys: tuple[KeyFile, ...]
    colour: str

    @property
    def key_frames(self) -> tuple[int, ...]:
        """Frame numbers that have a key, in order."""
        return tuple(sorted({key.frame for key in self.keys}))

    @property
    def objects(self) -> tuple[int, ...]:
        """Object ids, in order."""
        return tuple(sorted({key.object_id for key in self.keys}))


def fetch_source(settings: SourceSettings, decoder: Decoder) -> ShotSource:
    """Give the shot, its plates and keys.

    Raises InputError when frames are missing, sizes differ, a file cannot be read, or a key is outside the range.
    """
    sequence = fetch_sequence(settings.plate)
    first, last = settings.frames or (sequence.first, sequence.last)
    plates = sequence.select(first, last)
    keys = fetch_key_folder(settings.keys, decoder, settings.key_form).keys
    _check_key_frames(keys, first, last, settings)
    header = _fetch_common_header(plates, decoder)
    return ShotSource(
        settings=settings,
        shot=_fetch_shot(settings, sequence, header),
        first=first,
        last=last,
        plates=plates,
        keys=keys,
        colour=decoder.describe_transform(settings.colorspace, header.kind),
    )


def _fetch_shot(settings: SourceSettings, sequence: FrameSequence, header: Header) -> Shot:
    name = Path(settings.plate).name[:100]
    return Shot(
        name=name,
        width=header.width,
        height=header.height,
        pixel_aspect=header.pixel_aspect,
        first=sequence.first,
        last=sequence.last,
        colorspace=settings.colorspace,
    )


def _check_key_frames(keys: tuple[KeyFile, ...], first: int, last: int, settings: SourceSettings) -> None:
    outside = sorted({key.frame for key in keys if not first <= key.frame <= last})
    if outside:
        raise InputError(
            f"{settings.keys} has a key at {format_frames(outside)}, outside the range {first}-{last}. "
            "Ask for a range that includes it with --frames, or move the key away."
        )


def _fetch_common_header(plates: Mapping[int, PlateFile], decoder: Decoder) -> Header:
    """Give the header all plates share. Raises InputError naming the first frame of another size."""
    found: Header | None = None
    first = next(iter(plates))
    for frame, file in plates.items():
        if found is not None and file.suffix in VIDEO_SUFFIXES:
            break  # the other pictures of the same video
        try:
            header = decoder.fetch_header(str(file.path), file.suffix)
        except InputError as error:
            raise InputError(f"Frame {frame}: {error}") from error
        found = found or header
        if (header.width, header.height) != (found.width, found.height):
            raise InputError(
                f"Frame {frame} is {header.width}x{header.height} but frame {first} is {found.width}x{found.height}. "
                "Re-render the plate at one format."
            )
    if found is None:
        raise InputError("The range holds no frame.")
    return found


# ------------------------------------------------------------------------------------------------- the output folder


def check_output(out: Path) -> Path:
    """Give the folder for the run's own files below the output folder, made and tried.

    Raises InputError when nothing can be written there.
    """
    folder = out / FOLDER
    probe = folder / f"writable.{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"x")
        probe.unlink()
    except OSError as error:
        raise InputError(f"{out} cannot be written: {error.strerror}. Choose another folder with --out.") from None
    return folder


def fetch_session(folder: Path, shot: Shot) -> str:
    """Give the session's name kept in the folder; a new one when there is none, or it was for another shot."""
    path = folder / "session.json"
    try:
        kept = json.loads(path.read_text("utf-8"))
        if kept["shot"] == asdict(shot):
            return str(kept["session"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # no session yet, or half a file from another version: begin anew
    session = f"{shot.name} {uuid.uuid4()}"
    save_json(path, {"session": session, "shot": asdict(shot)})
    return session


# ---------------------------------------------------------------------------------------------------------- the server


def update_session(client: Client, session: str, source: ShotSource, console: Console) -> SessionState:
    """Give the server's session after making it hold exactly these plates and keys; only what is missing travels."""
    state = client.open_session(session, source.shot)
    hashes: dict[Path, str] = {}
    plates = []
    with console.progress("Sending plates", len(source.plates)) as bar:
        for frame, file in source.plates.items():
            sha256 = hashes.get(file.path) or hashes.setdefault(file.path, _fetch_hash(file.path))
            plates.append((Plate(frame, sha256, file.index, file.suffix), file.path))
        client.put_plates(session, plates, lambda done, _: bar.update(done))
    known = {(key.frame, key.object_id): key for key in state.keys}
    wanted = {(file.frame, file.object_id): (_fetch_key(file), file) for file in source.keys}
    for frame, object_id in known.keys() - wanted.keys():
        state = client.remove_key(session, frame, object_id)
    for place, (key, key_file) in wanted.items():
        if known.get(place) != key:
            state = client.put_key(session, key, key_file.path if key.presence == PRESENT else None)
    return state


def _fetch_key(file: KeyFile) -> Key:
    if file.presence != PRESENT:
        return Key(file.frame, file.object_id, file.presence, "", "", "")
    return Key(file.frame, file.object_id, file.presence, _fetch_hash(file.path), file.suffix, file.selector)


def _fetch_hash(path: Path) -> str:
    try:
        return hash_file(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}. Check that it is still there.") from None
