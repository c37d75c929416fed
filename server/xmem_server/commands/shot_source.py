"""What a run works on: plate files and key files, looked at and found in order before any work starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from xmem_client import Client, hash_file
from xmem_protocol import PRESENT, InputError, Key, Plate, SessionState, Shot
from xmem_server.commands.console import Console
from xmem_server.commands.session_file import KeptSession, name_plate
from xmem_server.decoding import Decoder
from xmem_server.headers import VIDEO_SUFFIXES, Header
from xmem_server.key_folder import DEFAULT_OPTIONS, NO_COLOURS, KeyFile, KeyFolderOptions, fetch_key_folder
from xmem_server.sequences import FrameSequence, PlateFile, fetch_sequence, format_frames

_MIB = 1024**2
_FEATURES_GIB = 16  # what an engine keeps on disk of encoded frames at most (worker.features)


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
    """A shot whose files were looked at: ``plates`` are those of the asked range, ``colour`` says what is done to them.

    ``plate`` is the plate's one name, however it was spelled; ``labels`` what each object id stands for in the key files.
    """

    settings: SourceSettings
    shot: Shot
    first: int
    last: int
    plates: Mapping[int, PlateFile]
    keys: tuple[KeyFile, ...]
    colour: str
    plate: str
    labels: Mapping[int, str]

    @property
    def key_frames(self) -> tuple[int, ...]:
        """Frame numbers that have a key, in order."""
        return tuple(sorted({key.frame for key in self.keys}))

    @property
    def objects(self) -> tuple[int, ...]:
        """Object ids, in order."""
        return tuple(sorted({key.object_id for key in self.keys}))


def fetch_source(settings: SourceSettings, decoder: Decoder, colours: Mapping[str, int] = NO_COLOURS) -> ShotSource:
    """Give the shot, its plates and keys; ``colours`` are the object ids that colours of masks have already.

    Raises InputError when frames are missing, sizes differ, a file cannot be read, or a key is outside the range.
    """
    sequence = fetch_sequence(settings.plate)
    first, last = settings.frames or (sequence.first, sequence.last)
    plates = sequence.select(first, last)
    keys = fetch_key_folder(settings.keys, decoder, settings.key_form, colours)
    _check_key_frames(keys.keys, first, last, settings)
    header = _fetch_common_header(plates, decoder)
    return ShotSource(
        settings=settings,
        shot=_fetch_shot(settings, sequence, header),
        first=first,
        last=last,
        plates=plates,
        keys=keys.keys,
        colour=decoder.describe_transform(settings.colorspace, header.kind),
        plate=name_plate(settings.plate, sequence),
        labels=keys.objects,
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


# ---------------------------------------------------------------------------------------------------------- the server


def update_session(
    client: Client, kept: KeptSession, source: ShotSource, state: Path | None, console: Console
) -> SessionState:
    """Give the server's session after making it hold exactly these plates and keys; only what is missing travels.

    ``state`` is where a private server keeps its copies, None for a server that runs by itself.
    """
    session = kept.session
    answer = client.open_session(session, kept.shot)
    hashes = {file.path: "" for file in source.plates.values()}
    with console.progress("Looking for changed plates", len(hashes)) as bar:
        for number, path in enumerate(hashes, start=1):
            hashes[path] = hash_file(path)
            bar.update(number)
    _write_size(client, hashes, state, console)
    plates = [
        (Plate(frame, hashes[file.path], file.index, file.suffix), file.path) for frame, file in source.plates.items()
    ]
    with console.progress("Sending plates", len(plates)) as bar:
        client.put_plates(session, plates, lambda done, _: bar.update(done))
    known = {(key.frame, key.object_id): key for key in answer.keys}
    wanted = {(file.frame, file.object_id): (_fetch_key(file), file) for file in source.keys}
    for frame, object_id in known.keys() - wanted.keys():
        answer = client.remove_key(session, frame, object_id)
    for place, (key, key_file) in wanted.items():
        if known.get(place) != key:
            answer = client.put_key(session, key, key_file.path if key.presence == PRESENT else None)
    return answer


def _write_size(client: Client, hashes: Mapping[Path, str], state: Path | None, console: Console) -> None:
    """Say how much disk is about to be used; nothing when the server has every plate already."""
    missing = client.fetch_missing(hashes.values())
    sizes = {sha256: path.stat().st_size for path, sha256 in hashes.items() if sha256 in missing}
    if not sizes:
        return
    size = f"{max(1, round(sum(sizes.values()) / _MIB))} MiB of plates"
    if state is None:
        console.write(f"{size} go to the server, which keeps them.")
        return
    console.write(f"{size} are copied below {state}, where up to {_FEATURES_GIB} GiB of encoded frames are kept too.")


def _fetch_key(file: KeyFile) -> Key:
    if file.presence != PRESENT:
        return Key(file.frame, file.object_id, file.presence, "", "", "")
    return Key(file.frame, file.object_id, file.presence, hash_file(file.path), file.suffix, file.selector)
