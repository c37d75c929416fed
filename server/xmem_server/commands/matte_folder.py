"""The mattes below an output folder, and ``manifest.json``, which says what this folder's runs wrote there.

Nothing is ever deleted. A matte of an earlier run that the present one does not make again is moved out of the way, but
only when it is still as it was written: a file that somebody changed stays, and is named.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from types import TracebackType

from xmem_client import Client, hash_file
from xmem_protocol import InputError, MatteFile
from xmem_server.commands.output_folder import FOLDER
from xmem_server.report import save_json

MANIFEST, REPLACED = "manifest.json", "replaced"
_SAVE_EVERY = 1.0  # seconds: a kill loses the memory of what was written since, never a matte


@dataclass(frozen=True)
class WrittenMatte:
    """A matte as it was written; ``object_id`` 0 is the layered file of all objects."""

    sha256: str
    frame: int
    object_id: int


class MatteFolder:
    """A context manager: what was written is remembered on the way out, however that is."""

    def __init__(self, out: Path) -> None:
        self._out = out
        self._manifest = out / FOLDER / MANIFEST
        self._replaced = out / FOLDER / REPLACED
        self._written = _fetch_manifest(self._manifest)
        self._vouched: set[str] = set()
        self._saved_at = time.monotonic()
        self._set_aside: list[str] = []
        self._is_new = False

    def __enter__(self) -> MatteFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._save()
            return
        with contextlib.suppress(InputError):  # what went wrong first is what should be read
            self._save()

    @property
    def set_aside(self) -> tuple[str, ...]:
        """Give the files that were changed by somebody and then moved, because this run has a matte of that name."""
        return tuple(self._set_aside)

    def fetch(self, client: Client, file: MatteFile, frame: int) -> Path:
        """Give where a matte is; one that is there already with the same bytes is not written again.

        Raises InputError when it cannot be written.
        """
        number = f"{frame:05d}{file.suffix}"
        name = f"{file.object_id}/{number}" if file.object_id else number
        path = self._out / name
        found = hash_file(path) if path.is_file() else ""
        if found != file.sha256:
            known = self._written.get(name)
            if found and (known is None or known.sha256 != found):
                self._move(name)
                self._set_aside.append(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            client.fetch_file(file.sha256, file.nbytes, path)
        self._vouched.add(name)
        self._note(name, WrittenMatte(file.sha256, frame, file.object_id))
        return path

    def retire(self, frames: range, objects: Collection[int]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Move away what earlier runs wrote and this one did not; give the names moved, and those left as changed since.

        Looked at are the frames of this run, and on every frame the objects that are not among ``objects`` any more.
        """
        moved, changed = [], []
        for name, matte in sorted(self._written.items()):
            is_dropped = matte.object_id != 0 and matte.object_id not in objects
            if name in self._vouched or not (matte.frame in frames or is_dropped):
                continue
            path = self._out / name
            if not path.is_file():
                self._forget(name)
            elif hash_file(path) == matte.sha256:
                self._move(name)
                self._forget(name)
                moved.append(name)
            else:
                changed.append(name)
        self._remove_empty_folders(moved)
        return tuple(moved), tuple(changed)

    def _move(self, name: str) -> None:
        """Move a file below ``replaced``, beside those of the same name that are there already."""
        target = self._replaced / name
        target.parent.mkdir(parents=True, exist_ok=True)
        place, count = target, 1
        while place.exists():
            count += 1
            place = target.with_name(f"{target.stem}.{count}{target.suffix}")
        (self._out / name).rename(place)

    def _remove_empty_folders(self, names: Iterable[str]) -> None:
        for folder in {(self._out / name).parent for name in names} - {self._out}:
            with contextlib.suppress(OSError):  # not empty
                folder.rmdir()

    def _note(self, name: str, matte: WrittenMatte) -> None:
        if self._written.get(name) == matte:
            return
        self._written[name] = matte
        self._is_new = True
        if time.monotonic() - self._saved_at > _SAVE_EVERY:
            self._save()

    def _forget(self, name: str) -> None:
        del self._written[name]
        self._is_new = True

    def _save(self) -> None:
        if self._is_new:
            save_json(self._manifest, {"files": {name: asdict(matte) for name, matte in self._written.items()}})
            self._is_new = False
        self._saved_at = time.monotonic()


def _fetch_manifest(path: Path) -> dict[str, WrittenMatte]:
    """Give what earlier runs wrote, by name; nothing when there is no manifest, or one of another version."""
    try:
        files = json.loads(path.read_text("utf-8"))["files"]
        return {
            name: WrittenMatte(str(fields["sha256"]), int(fields["frame"]), int(fields["object_id"]))
            for name, fields in files.items()
            if not PurePosixPath(name).is_absolute() and ".." not in PurePosixPath(name).parts
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
