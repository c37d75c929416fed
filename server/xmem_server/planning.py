"""Plans for engines, made from what the journal knows, and the identity of a job: pure functions.

Two propagations with the same identity give the same mattes, so they are one job.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from xmem_protocol import (
    PRESENT,
    InputError,
    Key,
    MatteFile,
    Plate,
    PropagationSettings,
    Shot,
    SuggestionSettings,
)
from xmem_server import __version__
from xmem_server.plans import KeySource, MatteSource, PlateSource, PropagationPlan, SuggestionPlan

RESULT_VERSION = 11  # of the way from plates and keys to mattes: raise it whenever mattes may come out otherwise
_NOT_IN_IDENTITY = ("snapshot_every",)  # changes how a run can be resumed, never a pixel


@dataclasses.dataclass(frozen=True)
class Material:
    """What a propagation works on; ``keys`` in order of frame, then object; ``plates`` by frame number.

    ``colour_id`` is what the shot's colour space does to numbers now (``Decoder.fetch_colour_id``).
    """

    session: str
    shot: Shot
    keys: tuple[Key, ...]
    plates: Mapping[int, Plate]
    colour_id: str


def fetch_propagation_plan(
    job: str,
    material: Material,
    settings: PropagationSettings,
    playhead: tuple[int, ...] = (),
    before: tuple[MatteSource, ...] = (),
) -> PropagationPlan:
    """Give the plan of a propagation, without paths; ``before`` are the mattes that there were of earlier keys.

    Its plates are those of the range and, outside it, of the frames with keys: every key repairs the whole shot.
    Raises InputError when the material is not complete.
    """
    if not any(key.presence == PRESENT for key in material.keys):
        raise InputError("No object is drawn yet. Draw a matte on at least one frame, then start again.")
    frames = set(range(settings.first, settings.last + 1)) | {key.frame for key in material.keys}
    missing = sorted(frames - material.plates.keys())
    if missing:
        raise InputError(_explain_missing(missing, settings))
    return PropagationPlan(
        job=job,
        session=material.session,
        shot=material.shot,
        plates=tuple(_source(material.plates[frame]) for frame in sorted(frames)),
        keys=tuple(KeySource(key, "") for key in material.keys),
        settings=settings,
        finished=(),
        snapshot="",
        cache="",
        scratch="",
        colour_id=material.colour_id,
        playhead=playhead,
        before=before,
    )


def _explain_missing(missing: list[int], settings: PropagationSettings) -> str:
    inside = [frame for frame in missing if settings.first <= frame <= settings.last]
    if not inside:
        return f"Frame {missing[0]} has a key but no plate. Send its plate, or remove the key."
    count = "" if len(inside) == 1 else f" and {len(inside) - 1} more of {settings.first}-{settings.last}"
    return f"Frame {inside[0]}{count} has no plate. Render the missing frames, or ask for a range that is complete."


def _source(plate: Plate) -> PlateSource:
    return PlateSource(plate.frame, "", plate.sha256, plate.index, plate.suffix)


def fetch_suggestion_plan(
    job: str,
    propagation: PropagationPlan,
    results: tuple[tuple[int, MatteFile], ...],
    settings: SuggestionSettings,
) -> SuggestionPlan:
    """Give the plan of a suggestion over a finished propagation and its mattes, without paths."""
    return SuggestionPlan(
        job=job,
        session=propagation.session,
        shot=propagation.shot,
        plates=propagation.plates,
        keys=propagation.keys,
        mattes=fetch_matte_sources(results, propagation.keys),
        settings=settings,
        propagation=propagation.settings,
        cache="",
        colour_id=propagation.colour_id,
    )


def fetch_propagation_identity(plan: PropagationPlan, model_sha256: str) -> str:
    """Give the name of everything the mattes depend on: version, model, shot, colour, settings, keys in order, plates."""
    settings = dataclasses.asdict(plan.settings)
    for name in _NOT_IN_IDENTITY:
        del settings[name]
    return _digest(
        "propagation",
        [__version__, RESULT_VERSION],
        model_sha256,
        dataclasses.asdict(plan.shot),
        plan.colour_id,
        settings,
        [dataclasses.asdict(source.key) for source in plan.keys],
        [[plate.frame, plate.sha256, plate.index, plate.suffix] for plate in plan.plates],
    )


def fetch_suggestion_identity(
    propagation_identity: str, results: tuple[tuple[int, MatteFile], ...], settings: SuggestionSettings
) -> str:
    """Give the name of everything the suggestions depend on: the mattes too, for a frame that failed may come later."""
    mattes = [[frame, file.object_id, file.sha256] for frame, file in results]
    return _digest("suggestion", propagation_identity, mattes, dataclasses.asdict(settings))


def _digest(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def update_paths(
    plates: tuple[PlateSource, ...], keys: tuple[KeySource, ...], file_path: Callable[[str], Path]
) -> tuple[tuple[PlateSource, ...], tuple[KeySource, ...]]:
    """Give plates and keys with where their files are on this machine now; an absent key has none."""
    return (
        tuple(dataclasses.replace(plate, path=str(file_path(plate.sha256))) for plate in plates),
        tuple(
            dataclasses.replace(source, path=str(file_path(source.key.sha256)) if source.key.sha256 else "")
            for source in keys
        ),
    )


def fetch_matte_sources(
    results: tuple[tuple[int, MatteFile], ...], keys: tuple[KeySource, ...]
) -> tuple[MatteSource, ...]:
    """Give the mattes of a finished propagation, each ``path`` still the file's SHA-256.

    A layered file (object 0) is named once for every object.
    """
    objects = sorted({source.key.object_id for source in keys})
    return tuple(
        MatteSource(frame, object_id, file.sha256, file.suffix)
        for frame, file in results
        for object_id in ([file.object_id] if file.object_id else objects)
    )


def update_matte_paths(mattes: tuple[MatteSource, ...], file_path: Callable[[str], Path]) -> tuple[MatteSource, ...]:
    """Give mattes with where their files are on this machine now, in place of their SHA-256."""
    return tuple(dataclasses.replace(matte, path=str(file_path(matte.path))) for matte in mattes)
