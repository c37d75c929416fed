"""What one client may ask for: how often, how many sessions, how much of an upload at a time. All of it in memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from xmem_protocol import BUSY, LIMIT_EXCEEDED, ServerError

_GIB = 1024**3


@dataclass(frozen=True)
class ClientLimits:
    """Limits per client: requests a second on each lane and how many at once, sessions, uploads begun and their bytes.

    ``upload_seconds`` is how long an upload may lie untouched before it is dropped.
    """

    control_per_second: float = 500.0
    control_burst: int = 2000
    bulk_per_second: float = 2000.0
    bulk_burst: int = 4000
    sessions: int = 1000
    uploads: int = 64
    upload_bytes: int = 64 * _GIB
    upload_seconds: float = 6 * 3600.0


class RateLimit:
    """Lets each client make ``per_second`` requests, and ``burst`` of them at once. Belongs to one thread."""

    def __init__(self, per_second: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second = per_second
        self._burst = burst
        self._clock = clock
        self._left: dict[str, tuple[float, float]] = {}

    def admits(self, client: str) -> bool:
        """Say whether this client may make one more request now, and count it."""
        now = self._clock()
        left, since = self._left.get(client, (float(self._burst), now))
        left = min(self._burst, left + (now - since) * self._per_second)
        is_admitted = left >= 1
        self._left[client] = (left - is_admitted, now)
        return is_admitted


class UploadQuota:
    """Counts what each client has begun to upload, before anything is allocated for it. Any thread."""

    def __init__(self, limits: ClientLimits, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._clock = clock
        self._lock = threading.Lock()
        self._begun: dict[tuple[str, str], tuple[int, float]] = {}

    def begin(self, client: str, sha256: str, nbytes: int) -> None:
        """Count an upload that begins or goes on. Raises ServerError when the client has too many, or too large ones."""
        now = self._clock()
        with self._lock:
            for key, (_, touched) in list(self._begun.items()):
                if now - touched > self._limits.upload_seconds:
                    del self._begun[key]
            others = [size for (owner, name), (size, _) in self._begun.items() if owner == client and name != sha256]
            if len(others) >= self._limits.uploads:
                raise ServerError(BUSY, f"{len(others)} uploads are unfinished. Finish those first.")
            if sum(others) + nbytes > self._limits.upload_bytes:
                most = self._limits.upload_bytes // _GIB
                raise ServerError(
                    LIMIT_EXCEEDED, f"Unfinished uploads would be more than {most} GiB. Finish some first."
                )
            self._begun[client, sha256] = (nbytes, now)

    def touch(self, client: str, sha256: str, *, is_over: bool) -> None:
        """Note that an upload went on, or is over."""
        with self._lock:
            known = self._begun.pop((client, sha256), None)
            if known is not None and not is_over:
                self._begun[client, sha256] = (known[0], self._clock())
