"""What a propagation does when the device's memory does not suffice: one step less greedy at a time, then it says so.

The steps change how much is held at once, not what is computed: mattes stay the same up to rounding. The working size is the
artist's to lower, so no step does that.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from xmem_core.affinity import BLOCK_VALUES
from xmem_core.memory import Footprint
from xmem_protocol import OUT_OF_MEMORY, ServerError
from xmem_server.worker.features import FeatureBudget
from xmem_server.worker.host_memory import trim_host_memory

_SMALL_BLOCK = BLOCK_VALUES // 16
_SMALL_HOST_BYTES = 32 * 1024**2


@dataclass(frozen=True)
class _Greed:
    footprint: Footprint
    budget: FeatureBudget


def _one_object(greed: _Greed) -> _Greed:
    return replace(greed, footprint=replace(greed.footprint, objects=1))


def _small_reads(greed: _Greed) -> _Greed:
    return replace(greed, footprint=replace(greed.footprint, block_values=_SMALL_BLOCK))


def _rows_on_host(greed: _Greed) -> _Greed:
    return replace(greed, footprint=replace(greed.footprint, rows_device=torch.device("cpu")))


def _one_frame(greed: _Greed) -> _Greed:
    return replace(
        greed, budget=replace(greed.budget, batch=1, host_bytes=_SMALL_HOST_BYTES, device_bytes=_SMALL_HOST_BYTES)
    )


_STEPS: tuple[tuple[str, Callable[[_Greed], _Greed]], ...] = (
    ("objects one at a time", _one_object),
    ("memory read in small blocks", _small_reads),
    ("memory rows in host memory", _rows_on_host),
    ("frames encoded one at a time", _one_frame),
)


class MemoryLadder:
    """How greedy a job may be now, and how it got there."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._greed = _Greed(Footprint(), FeatureBudget())
        self._left = [step for step in _STEPS if device.type != "cpu" or step[1] is not _rows_on_host]
        self._taken: list[str] = []

    @property
    def footprint(self) -> Footprint:
        """What one step of the propagation may take."""
        return self._greed.footprint

    @property
    def budget(self) -> FeatureBudget:
        """What the feature cache may take."""
        return self._greed.budget

    @property
    def is_climbed(self) -> bool:
        """Whether memory was short."""
        return bool(self._taken)

    def climb(self) -> None:
        """Take the next step. Raises ServerError OUT_OF_MEMORY, naming what the artist can do, when there is none left."""
        if not self._left:
            raise ServerError(
                OUT_OF_MEMORY,
                f"There is not enough memory on {self._device} for this shot at this working size, not even with "
                f"{self.describe()}. Lower the working size, or close what else uses that memory, then run again.",
            )
        name, step = self._left.pop(0)
        self._taken.append(name)
        self._greed = step(self._greed)

    def describe(self) -> str:
        """Give the steps that were taken, in words; empty when none was."""
        return ", ".join(self._taken)


def release_memory() -> None:
    """Give back to the device and to the system what no tensor uses any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    trim_host_memory()


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether this is how an allocation fails: on the device, in the host's torch, or in Python."""
    text = str(error).lower()
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in text
