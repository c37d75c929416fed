"""The shot that speed is measured on, and plans over it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from benchmarks.memory import save_shot
from xmem_client import hash_file
from xmem_protocol import PRESENT, Key, PropagationSettings, Shot, SuggestionSettings
from xmem_server.plans import KeySource, MatteSource, PlateSource, PropagationPlan, SuggestionPlan

FIRST = 1001


@dataclass(frozen=True)
class SpeedShot:
    """Plates and index masks of ``objects`` drifting squares, by frame number from 1001."""

    plates: dict[int, Path]
    masks: dict[int, Path]
    width: int
    height: int
    objects: int

    @property
    def last(self) -> int:
        """The last frame number."""
        return FIRST + len(self.plates) - 1

    def spread(self, keys: int) -> tuple[int, ...]:
        """Give this many frames, evenly spread with both ends."""
        return tuple(sorted({FIRST + round(place * (self.last - FIRST) / (keys - 1)) for place in range(keys)}))


def make_shot(folder: Path, frames: int, size: tuple[int, int], objects: int) -> SpeedShot:
    """Write a shot of (width, height) and give it."""
    plates, masks = save_shot(folder, frames, *size, objects)
    return SpeedShot(plates, masks, *size, objects)


def fetch_propagation(
    shot: SpeedShot,
    work: Path,
    job: str,
    keyed: tuple[int, ...],
    playhead: tuple[int, ...] = (),
    before: tuple[MatteSource, ...] = (),
) -> PropagationPlan:
    """Give the plan of a propagation of the whole shot; jobs below one ``work`` share their encoded frames."""
    scratch = work / job
    scratch.mkdir(parents=True, exist_ok=True)
    keys = tuple(
        KeySource(
            Key(frame, each, PRESENT, hash_file(shot.masks[frame]), ".png", f"index:{each}"), str(shot.masks[frame])
        )
        for frame in keyed
        for each in range(1, shot.objects + 1)
    )
    return PropagationPlan(
        job=job,
        session="speed",
        shot=Shot("speed", shot.width, shot.height, 1.0, FIRST, shot.last, "auto"),
        plates=tuple(
            PlateSource(frame, str(path), hash_file(path), 0, path.suffix) for frame, path in shot.plates.items()
        ),
        keys=keys,
        settings=PropagationSettings(FIRST, shot.last),
        finished=(),
        snapshot="",
        cache=str(work / "cache"),
        scratch=str(scratch),
        playhead=playhead,
        before=before,
    )


def fetch_suggestion(plan: PropagationPlan, job: str, mattes: tuple[MatteSource, ...], count: int) -> SuggestionPlan:
    """Give the plan of a suggestion over a finished propagation's mattes."""
    settings = SuggestionSettings(count)
    return SuggestionPlan(
        job, plan.session, plan.shot, plan.plates, plan.keys, mattes, settings, plan.settings, plan.cache
    )
