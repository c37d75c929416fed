"""A session in one file, to be opened on another server: shot, plates and keys. A zip without compression, made to be checked.

``session.json`` says what the session is; ``files/<SHA-256>`` are its plates and key mattes. Jobs and undo stay behind: mattes
come again by one run, the same to the last bit with the same version and model.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from xmem_client import Client
from xmem_protocol import InputError, Key, Plate, SessionInfo, SessionState, Shot, XMemError, decode_body

FORMAT = 1
_MANIFEST = "session.json"
_MAX_MANIFEST_BYTES = 64 * 1024 * 1024
_PIECE = 4 * 1024 * 1024
Progress = Callable[[int, int], None]


@dataclasses.dataclass(frozen=True)
class Bundle:
    """What a bundle says of its session."""

    name: str
    shot: Shot
    plates: tuple[Plate, ...]
    keys: tuple[Key, ...]

    @property
    def files(self) -> tuple[str, ...]:
        """Give the SHA-256 of every file, each once."""
        names = [plate.sha256 for plate in self.plates] + [key.sha256 for key in self.keys if key.sha256]
        return tuple(dict.fromkeys(names))


def find_session(client: Client, session: str) -> SessionInfo:
    """Give what the server's list says of a session. Raises InputError naming those it has."""
    sessions = client.fetch_sessions()
    for each in sessions:
        if each.session == session:
            return each
    known = ", ".join(each.session for each in sessions) or "none"
    raise InputError(f"The server has no session {session[:80]!r}. It has: {known[:400]}.")


def save_bundle(client: Client, session: str, path: Path, on_progress: Progress) -> Bundle:
    """Write a session of a server to one file, whole or not at all; give what is in it.

    Raises InputError when the file exists, ServerError when there is no such session.
    """
    if path.exists():
        raise InputError(f"{path} exists already. Choose another name, or remove it first.")
    state = client.open_session(session, find_session(client, session).shot)
    bundle = Bundle(session.rpartition("/")[2], state.shot, client.fetch_plates(session), state.keys)
    partial = path.with_name(f".{path.name}.partial")
    try:
        with tempfile.TemporaryDirectory(dir=path.parent) as folder, zipfile.ZipFile(partial, "w") as archive:
            fields = {"format": FORMAT, **dataclasses.asdict(bundle)}
            archive.writestr(_MANIFEST, json.dumps(fields, indent=1))
            for done, sha256 in enumerate(bundle.files):
                on_progress(done, len(bundle.files))
                fetched = Path(folder) / sha256
                client.fetch_file(sha256, client.fetch_size(sha256), fetched)
                archive.write(fetched, f"files/{sha256}")
                fetched.unlink()
        partial.replace(path)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}. Choose another place.") from error
    finally:
        partial.unlink(missing_ok=True)
    on_progress(len(bundle.files), len(bundle.files))
    return bundle


def fetch_bundle(path: Path) -> Bundle:
    """Give what a bundle says of its session. Raises InputError when it is not a bundle of this format."""
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo(_MANIFEST).file_size > _MAX_MANIFEST_BYTES:
                raise InputError(f"{path} is not a session file: its table of contents is too large.")
            fields: Any = json.loads(archive.read(_MANIFEST))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}. Check the path.") from error
    except (zipfile.BadZipFile, KeyError, ValueError, RecursionError, NotImplementedError, RuntimeError):
        raise InputError(f"{path} is not a session file, or it is cut short. Export or copy it again.") from None
    if not isinstance(fields, dict) or fields.get("format") != FORMAT:
        raise InputError(f"{path} was written by another version. Export it again with this one.")
    try:
        return decode_body(Bundle, fields, "session")
    except XMemError as error:
        raise InputError(f"{path} is not a session file: {error}") from error


def restore_bundle(client: Client, path: Path, name: str, on_progress: Progress) -> SessionState:
    """Give the state of the session made from a bundle under this name; what was made of it already is gone on with.

    Raises InputError for a broken bundle, before anything is changed where that can be seen; ServerError for what the server refuses.
    """
    bundle = fetch_bundle(path)
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(path) as archive:
        missing = client.fetch_missing(bundle.files)
        client.open_session(name, bundle.shot)
        for done, sha256 in enumerate(bundle.files):
            on_progress(done, len(bundle.files))
            if sha256 in missing:
                file = _unpack(archive, path, sha256, Path(folder))
                client.store_file(file, sha256)
                file.unlink()
    by_hash = [(plate, Path()) for plate in bundle.plates]
    client.put_plates(name, by_hash, lambda done, total: None)
    for key in bundle.keys:
        client.put_key(name, key, None)  # its file is there already
    on_progress(len(bundle.files), len(bundle.files))
    return client.open_session(name, bundle.shot)


def _unpack(archive: zipfile.ZipFile, path: Path, sha256: str, folder: Path) -> Path:
    """Give one file of a bundle, checked against its name."""
    target, digest = folder / sha256, hashlib.sha256()
    try:
        with archive.open(f"files/{sha256}") as source, target.open("wb") as out:
            while piece := source.read(_PIECE):
                digest.update(piece)
                out.write(piece)
    except (KeyError, zipfile.BadZipFile, NotImplementedError, RuntimeError):
        raise InputError(f"{path} lacks the file {sha256[:12]}, or it is broken. Export it again.") from None
    if digest.hexdigest() != sha256:
        raise InputError(f"{path}: the file {sha256[:12]} is not what its name says. Export or copy it again.")
    return target
