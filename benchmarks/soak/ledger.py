"""What clients saw acknowledged, and the gate that stops everybody for an audit."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

Keys = dict[tuple[int, int], str]  # (frame, object) -> SHA-256 of the alpha


@dataclass
class ClientLedger:
    """One client's own: keys as acknowledged, and its jobs."""

    keys: Keys = field(default_factory=dict)
    jobs: set[str] = field(default_factory=set)


@dataclass
class Ledger:
    """What happened so far. Any thread; hold ``lock`` to change more than a counter."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    clients: dict[str, ClientLedger] = field(default_factory=dict)
    results: dict[tuple[tuple[int, int, str], ...], dict[int, str]] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)
    steps: int = 0

    def count(self, action: str) -> None:
        """Note one step."""
        with self.lock:
            self.counts[action] += 1
            self.steps += 1

    def accuse(self, finding: str) -> None:
        """Note something that must not be."""
        sys.stderr.write(f"found: {finding[:1000]}\n")
        with self.lock:
            self.violations.append(finding[:1000])

    def note_result(self, keys: Keys, mattes: dict[int, str]) -> None:
        """Note the mattes of a finished job; the same keys must always give the same bytes."""
        identity = tuple(sorted((frame, object_id, sha256) for (frame, object_id), sha256 in keys.items()))
        with self.lock:
            is_same = self.results.setdefault(identity, mattes) == mattes
        if not is_same:
            self.accuse(f"the same {len(keys)} keys gave other mattes than before")


class Gate:
    """Lets actions through until it is closed; closing waits for those under way."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._active = 0
        self._is_open = True
        self.is_over = False

    @contextlib.contextmanager
    def passing(self) -> Iterator[bool]:
        """Wait until the gate is open; give whether there is still something to do."""
        with self._condition:
            self._condition.wait_for(lambda: self._is_open or self.is_over)
            self._active += 1
        try:
            yield not self.is_over
        finally:
            with self._condition:
                self._active -= 1
                self._condition.notify_all()

    @contextlib.contextmanager
    def closed(self) -> Iterator[None]:
        """Have nobody act meanwhile."""
        with self._condition:
            self._is_open = False
            self._condition.wait_for(lambda: self._active == 0)
        try:
            yield
        finally:
            with self._condition:
                self._is_open = True
                self._condition.notify_all()

    def end(self) -> None:
        """Send everybody home."""
        with self._condition:
            self.is_over = True
            self._condition.notify_all()
