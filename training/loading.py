"""Batches of synthetic clips for a training step, by number: the same step always gets the same clips, resumed or not."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from training.bank import TRAINING, ImageBank, fetch_bank
from training.clip_forward import plan_clip
from training.shots import ShotSettings, make_shot
from xmem_server.worker.optical_flow import measure_motion

STEP_SEEDS = 1_000_003  # shots of different runs start this far apart: no run sees another's shots


@dataclass(frozen=True)
class ClipSource:
    """Where clips come from: packed images (None for procedural ones), packages left out, shot settings, the run's seed."""

    packed: Path | None
    left_out: tuple[str, ...]
    shot: ShotSettings
    batch: int
    seed: int


class ClipDataset(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """Clip number i, of step i // batch: frames (T, 3, S, S) uint8 RGB, alpha (N, T, S, S) uint8, 255 is 1, and its motion."""

    def __init__(self, source: ClipSource, split: str = TRAINING) -> None:
        self.source = source
        self.split = split
        self.bank: ImageBank | None = None

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor, Tensor]:
        source = self.source
        if self.bank is None:
            self.bank = fetch_bank(source.packed, self.split, source.left_out)
        plan = plan_clip((source.seed, number // source.batch), source.shot.frames)
        shot = make_shot(source.seed * STEP_SEEDS * 1000 + number, self.bank, source.shot, plan.keys)
        alpha = torch.from_numpy((shot.alpha * 255).round().astype("uint8"))
        frames = torch.from_numpy(shot.frames).permute(0, 3, 1, 2).contiguous()
        return frames, alpha, clip_motion(shot.frames)


def clip_motion(frames: np.ndarray[Any, Any]) -> Tensor:
    """Give the motion between neighbours of frames (T, S, S, 3) uint8 RGB, as in ClipInput without the clips: float16."""
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
    pairs = [np.stack(measure_motion(*pair)) for pair in itertools.pairwise(grey)]
    return torch.from_numpy(np.stack(pairs)).half()


class StepSampler(Sampler[int]):
    """The clip numbers of steps ``first`` to ``last`` - 1, in order."""

    def __init__(self, first: int, last: int, batch: int) -> None:
        self.numbers = range(first * batch, last * batch)

    def __iter__(self) -> Iterator[int]:
        return iter(self.numbers)

    def __len__(self) -> int:
        return len(self.numbers)


def _start_worker(_number: int) -> None:
    torch.set_num_threads(1)


def step_loader(source: ClipSource, first: int, last: int, workers: int) -> DataLoader[tuple[Tensor, Tensor, Tensor]]:
    """Batches for steps ``first`` to ``last`` - 1: frames (B, T, 3, S, S), alpha (B, N, T, S, S), both uint8, and motion."""
    return DataLoader(
        ClipDataset(source),
        batch_size=source.batch,
        sampler=StepSampler(first, last, source.batch),
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        worker_init_fn=_start_worker,
    )
