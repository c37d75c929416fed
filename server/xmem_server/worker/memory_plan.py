"""What memory a job will take, said before it begins, and the working size that fits into what it may take.

The estimate is arithmetic over sizes with constants measured for each network (docs/performance.md: how, and how far off it was).
It is of the engine process's peak on a CPU; a card's use has not been measured.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TypeVar

import torch

from xmem_core.best_rows import KEPT_PER_READ, MOST_READ
from xmem_core.images import MULTIPLE, working_shape
from xmem_core.kernels import padded
from xmem_core.motion import CARRIED_FRAMES
from xmem_core.network import NetworkConfig
from xmem_protocol import InputError, PropagationSettings, Shot
from xmem_server.plans import PropagationPlan, SuggestionPlan
from xmem_server.worker.features import BATCH_PIXELS, FeatureBudget
from xmem_server.worker.motion_cache import PAIRS_KEPT
from xmem_server.worker.optical_flow import CELL

GIBIBYTE = 1024**3
SMALLEST_SIZE = 96  # pixels of the shorter side: below, nothing is seen any more
_FLOAT = 4  # bytes
_BEST_ROW = 12  # a similarity and a place
_MOTION = 2 * 3 * 2 / CELL**2  # bytes for each pixel: two ways of three half floats on a coarser grid
_SHARE = 0.8  # of what there is, when no limit was given

_Plan = TypeVar("_Plan", PropagationPlan, SuggestionPlan)


@dataclass(frozen=True)
class NetworkCosts:
    """Bytes: the process at rest; a frame's kept features, per working pixel; and what computing takes, as measured.

    ``encoding`` is per working pixel of a batch, ``decoding`` per working pixel and object, ``matte`` per pixel of the mattes and
    object, ``plate`` per pixel of the plate. ``scatter`` is how many times their own bytes motion and carried masks hold: they lie
    in the heap between what is used and freed again.
    """

    resting: int
    features: float
    encoding: float
    decoding: float
    matte: float
    plate: float
    scatter: float


COSTS = {
    "compact": NetworkCosts(540 * 1024**2, 11.3, 77.0, 9.0, 28.6, 5.1, 2.7),
    "xmem": NetworkCosts(1600 * 1024**2, 130.0, 60.0, 300.0, 40.0, 75.0, 0.0),
}


@dataclass(frozen=True)
class Load:
    """How large a job is: its shot, the frames of its range, frames with keys, objects."""

    shot: Shot
    frames: int
    keyed: int
    objects: int


def estimate_bytes(load: Load, settings: PropagationSettings, config: NetworkConfig, size: int) -> int:
    """Give the engine process's peak for a job at a working size (its shorter side in pixels), in bytes."""
    costs, budget = COSTS[config.architecture], FeatureBudget()
    shot = load.shot
    matte_size = max(size, config.matte_size)
    matte_pixels = _area(working_shape(shot.height, shot.width, matte_size))
    pixels = _area(working_shape(shot.height, shot.width, size), MULTIPLE)
    positions = pixels // MULTIPLE**2
    batch = max(1, min(budget.batch, BATCH_PIXELS // matte_pixels))
    image = matte_pixels * (1 if config.architecture == "compact" else 3 * _FLOAT)
    kept = min(budget.host_bytes, load.frames * round(costs.features * pixels + image))
    motion = min(load.frames, PAIRS_KEPT + CARRIED_FRAMES) * _MOTION * matte_pixels
    carried = motion + min(load.frames, CARRIED_FRAMES) * (load.objects + 1) * matte_pixels
    working = min(settings.max_working_frames, 1 + load.frames // settings.mem_every)
    long_term = min(settings.max_long_term, load.frames // settings.mem_every * settings.prototypes)
    rows = (load.keyed + working) * positions + (long_term if settings.long_term else 0)
    columns = 4 * config.key_dim + 4 + load.objects * config.value_dim
    found = 2 * positions * padded(KEPT_PER_READ * min(settings.top_k, MOST_READ)) * _BEST_ROW
    computing = pixels * (batch * costs.encoding + load.objects * costs.decoding)
    pictures = load.objects * matte_pixels * costs.matte + shot.width * shot.height * costs.plate
    return round(
        costs.resting + kept + carried * costs.scatter + rows * columns * _FLOAT * 1.25 + found + computing + pictures
    )


def _area(shape: tuple[int, int], multiple: int = 1) -> int:
    height, width = (-(-side // multiple) * multiple for side in shape)
    return height * width


def fetch_memory(device: torch.device, limit: int) -> int:
    """Give the bytes that a job may take: the limit, or four fifths of what the device has."""
    if limit:
        return limit
    if device.type == "cuda":
        return int(_SHARE * torch.cuda.get_device_properties(device).total_memory)
    return int(_SHARE * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")) if hasattr(os, "sysconf") else 2**62


def settle_size(plan: _Plan, config: NetworkConfig, memory: int) -> _Plan:
    """Give the plan with a working size that fits into memory (bytes), and a note that says what it will take.

    The model's own size is lowered as far as need be. A size that the artist chose is not: InputError says what fits.
    """
    settings = plan.settings if isinstance(plan, PropagationPlan) else plan.propagation
    objects = len({source.key.object_id for source in plan.keys})
    keyed = len({source.key.frame for source in plan.keys})
    load = Load(plan.shot, settings.last - settings.first + 1, keyed, objects)
    wanted = settings.working_size or min(config.working_size, plan.shot.width, plan.shot.height)
    need = estimate_bytes(load, settings, config, wanted)
    if need <= memory:
        return _note(plan, settings, f"about {_say(need)} of memory")
    fitting = wanted - wanted % MULTIPLE
    while fitting >= SMALLEST_SIZE and estimate_bytes(load, settings, config, fitting) > memory:
        fitting -= MULTIPLE
    if fitting < SMALLEST_SIZE:
        raise InputError(
            f"This shot takes about {_say(need)} of memory at working size {wanted}, and at any other more than the "
            f"{_say(memory)} that the engine may take. Start the server with more --engine-memory, or send smaller plates."
        )
    if settings.working_size:
        raise InputError(
            f"Working size {wanted} takes about {_say(need)} of memory; the engine may take {_say(memory)}. "
            f"Choose {fitting} or less, or 0 to have it chosen."
        )
    taken = estimate_bytes(load, settings, config, fitting)
    words = (
        f"about {_say(taken)} of memory at working size {fitting}; {wanted} would take {_say(need)} of {_say(memory)}"
    )
    return _note(plan, replace(settings, working_size=fitting), words)


def _note(plan: _Plan, settings: PropagationSettings, note: str) -> _Plan:
    if isinstance(plan, PropagationPlan):
        return replace(plan, settings=settings, note=note)
    return replace(plan, propagation=settings)


def _say(nbytes: int) -> str:
    return f"{nbytes / GIBIBYTE:.1f} GiB"
