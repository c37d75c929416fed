"""Whose turn it is at the engine: interactive work before batch, then whoever had the least of it lately."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

SLICE_SECONDS = 8.0  # a job runs at least so long before another client's takes over: a change costs a second or two
HALF_LIFE_SECONDS = 60.0  # what a client had a minute ago counts half


@dataclass(frozen=True)
class Claim:
    """A job that waits or runs: whose it is, whether it is batch work, its place in the order of asking."""

    job: str
    owner: str
    is_batch: bool
    place: int


class FairShare:
    """Seconds of engine that each client had, fading. ``clock`` gives seconds that never go back."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._used: dict[str, tuple[float, float]] = {}

    def charge(self, owner: str, seconds: float) -> None:
        """Count engine time that a client has just had."""
        self._used[owner] = (self.used(owner) + seconds, self._clock())

    def used(self, owner: str) -> float:
        """Give the seconds this client had, those of long ago counted less."""
        seconds, since = self._used.get(owner, (0.0, 0.0))
        return float(seconds * 0.5 ** ((self._clock() - since) / HALF_LIFE_SECONDS))

    def order(self, claims: Iterable[Claim]) -> list[Claim]:
        """Give the claims in the order in which they would run now."""
        waiting = list(claims)
        used = {
            owner: self.used(owner) for owner in {claim.owner for claim in waiting}
        }  # once: it fades while one looks
        return sorted(waiting, key=lambda claim: (claim.is_batch, used[claim.owner], claim.owner, claim.place))

    def is_before(self, waiting: Claim, running: Claim, ran_seconds: float) -> bool:
        """Say whether a waiting job should take over from one that has run so long."""
        if waiting.is_batch != running.is_batch:
            return running.is_batch
        if waiting.owner == running.owner or ran_seconds < SLICE_SECONDS:
            return False
        return self.used(waiting.owner) < self.used(running.owner) + ran_seconds
