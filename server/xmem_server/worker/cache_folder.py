"""What can be computed again, kept on disk by a name that says what it was computed from; the least recently used goes first."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

SUFFIX = ".safetensors"


class CacheFolder:
    """Tensors by name, within a budget of bytes. Any thread may call; several processes may share the folder.

    A name is anything that JSON can say. What is broken or gone is None to whoever asks, and a full disk only means that
    something is not kept.
    """

    def __init__(self, folder: Path, budget: int) -> None:
        self._folder = folder
        self._budget = budget
        self._lock = threading.Lock()
        self._total: int | None = None  # bytes; who only asks need not look at all that is there
        folder.mkdir(parents=True, exist_ok=True)

    def load(self, name: Any, device: torch.device) -> dict[str, Tensor] | None:
        """Give what is kept under a name, on a CPU as the system maps its file; it counts as used now."""
        path = self._path(name)
        try:
            tensors: dict[str, Tensor] = load_file(path, device=str(device))
            os.utime(path)
        except (SafetensorError, OSError):
            return None
        return tensors

    def load_part(self, name: Any, wanted: tuple[str, ...], device: torch.device) -> tuple[Tensor, ...] | None:
        """Give some of the tensors that are kept under a name, reading those alone: for what is looked at once. It counts as used now."""
        path = self._path(name)
        try:
            with safe_open(path, framework="pt", device=str(device), backend="pread") as stored:
                found = tuple(stored.get_tensor(each) for each in wanted)
            os.utime(path)
        except (SafetensorError, OSError):
            return None
        return found

    def has(self, name: Any) -> bool:
        """Whether something is kept under a name."""
        return self._path(name).exists()

    def save(self, name: Any, tensors: Mapping[str, Tensor]) -> None:
        """Keep tensors under a name, and let go of the oldest until all fit into the budget."""
        path = self._path(name)
        temporary = path.with_suffix(f".{os.getpid()}.{threading.get_ident()}.tmp")
        try:
            save_file({each: value.cpu().contiguous() for each, value in tensors.items()}, temporary)
            size = temporary.stat().st_size
            temporary.replace(path)
        except (OSError, SafetensorError):
            temporary.unlink(missing_ok=True)
            return
        with self._lock:
            if self._total is None:
                self._total = sum(status.st_size for status, _ in self._list())
            else:
                self._total += size
            if self._total > self._budget:
                self._total = self._trim()

    def _trim(self) -> int:
        """Remove the oldest down to nine tenths of the budget, so that this is not done again at once; give the bytes that are left."""
        entries = sorted(self._list(), key=lambda entry: entry[0].st_mtime)
        total = sum(status.st_size for status, _ in entries)
        for status, path in entries:
            if total <= self._budget * 0.9:
                break
            try:
                path.unlink(missing_ok=True)
            except PermissionError:
                continue  # Windows: somebody is reading it
            total -= status.st_size
        return total

    def _list(self) -> list[tuple[os.stat_result, Path]]:
        found = []
        for entry in os.scandir(self._folder):
            try:
                found.append((entry.stat(), Path(entry.path)))
            except FileNotFoundError:
                continue  # somebody else's, just renamed
        return found

    def _path(self, name: Any) -> Path:
        return self._folder / f"{digest(name)}{SUFFIX}"


def digest(name: Any) -> str:
    """Give 64 hexadecimal digits for anything that JSON can say."""
    return hashlib.sha256(json.dumps(name).encode()).hexdigest()
