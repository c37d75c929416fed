"""What a session's cache folder remembers between runs, so that only what changed is rendered, sent and fetched."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from xmem_protocol import InputError

FILE_NAME = "remembered.json"
_VERSION = 1
_MOST_FINGERPRINTS = 50_000  # a long shot looked at in many states; the oldest are forgotten


class Remembered:
    """A JSON file in the cache folder. Losing it costs renders, never a key or a matte. Belongs to one thread.

    ``plates`` are the frames that the server's session was given, with their content; ``mattes`` name the content of the
    files in the folder; ``empty`` are key pictures (content and channel) in which the server found no object. ``provisional`` and
    ``stale`` are frames whose mattes in the folder are a first look, or of earlier keys.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE_NAME
        fields = _read(self._path)
        self._fingerprints: dict[str, str] = fields.get("fingerprints", {})
        self._plates: dict[str, dict[str, str]] = fields.get("plates", {})
        self._sent_keys: dict[str, str] = fields.get("sent_keys", {})
        self.mattes: dict[str, str] = fields.get("mattes", {})
        self.empty: set[str] = set(fields.get("empty", ()))
        self.provisional = _frames_of(fields.get("provisional", ()))
        self.stale = _frames_of(fields.get("stale", ()))

    def fetch_content(self, kind: str, fingerprint: str) -> str:
        """Give the SHA-256 of what was rendered under this fingerprint, empty when that is not known."""
        return self._fingerprints.get(f"{kind} {fingerprint}", "") if fingerprint else ""

    def note_content(self, kind: str, fingerprint: str, sha256: str) -> None:
        """Remember what a fingerprint rendered to; an empty fingerprint says nothing."""
        if fingerprint:
            name = f"{kind} {fingerprint}"
            self._fingerprints.pop(name, None)  # so that it becomes the newest
            self._fingerprints[name] = sha256

    @property
    def sent_keys(self) -> dict[int, str]:
        """Give the fingerprints of the keys that the server has, by frame number."""
        return {int(frame): fingerprint for frame, fingerprint in self._sent_keys.items()}

    def note_sent_keys(self, keys: dict[int, str]) -> None:
        """Remember the fingerprints of the keys that the server has."""
        self._sent_keys = {str(frame): fingerprint for frame, fingerprint in keys.items()}

    def fetch_plates(self, session: str) -> dict[int, str]:
        """Give the plates that this server session was given, by frame number."""
        return {int(frame): sha256 for frame, sha256 in self._plates.get(session, {}).items()}

    def note_plates(self, session: str, plates: dict[int, str]) -> None:
        """Remember the plates of the one session that is in use now."""
        self._plates = {session: {str(frame): sha256 for frame, sha256 in plates.items()}}

    def note_stale(self, first: int, last: int) -> None:
        """Remember that the mattes there are of these frames are of earlier keys."""
        known = _frames_of(int(name.split("/")[1]) for name in self.mattes)
        self.stale |= {frame for frame in known if first <= frame <= last}
        self.provisional -= self.stale

    def note_arrived(self, frame: int, *, is_provisional: bool) -> None:
        """Remember what the mattes of a frame are now."""
        self.stale.discard(frame)
        (self.provisional.add if is_provisional else self.provisional.discard)(frame)

    def save(self) -> None:
        """Write the file in one step. Raises InputError when the folder cannot be written."""
        names = list(self._fingerprints)[-_MOST_FINGERPRINTS:]
        fields = {
            "version": _VERSION,
            "fingerprints": {name: self._fingerprints[name] for name in names},
            "plates": self._plates,
            "sent_keys": self._sent_keys,
            "mattes": self.mattes,
            "empty": sorted(self.empty),
            "provisional": sorted(self.provisional),
            "stale": sorted(self.stale),
        }
        temporary = self._path.with_name(f".{self._path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
        try:
            temporary.write_text(json.dumps(fields), "utf-8")
            temporary.replace(self._path)
        except OSError as error:
            raise InputError(explain_unwritable(self._path.parent, error)) from None
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink()


def _frames_of(numbers: Iterable[object]) -> set[int]:
    return {number for number in numbers if isinstance(number, int)}


def prepare_folder(folder: Path) -> None:
    """Make a folder for the mattes. Raises InputError when that cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(explain_unwritable(folder, error)) from None


def explain_unwritable(folder: Path, error: OSError) -> str:
    """Give one line for a cache folder that cannot be used."""
    return f"The cache directory {folder} cannot be written ({error.strerror}). Choose another one in the Output tab."


def _read(path: Path) -> dict[str, Any]:
    """Give the stored fields; none when there is no such file or it is something else."""
    try:
        fields = json.loads(path.read_text("utf-8"))
        if not isinstance(fields, dict) or fields.get("version") != _VERSION:
            return {}
        kinds = {
            "fingerprints": dict,
            "plates": dict,
            "sent_keys": dict,
            "mattes": dict,
            "empty": list,
            "provisional": list,
            "stale": list,
        }
        return {name: fields[name] for name, kind in kinds.items() if isinstance(fields.get(name), kind)}
    except (OSError, ValueError, RecursionError):
        return {}
