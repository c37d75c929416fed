"""Small plates and keys for the commands: a bright disc that crosses a textured wall, frames from 1001."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np

from tests.server.served import import_paths

WIDTH, HEIGHT = 160, 96


def wall():
    noise = np.random.default_rng(5).integers(0, 120, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 1.5)


def disc(frame, count):
    """Give the disc's alpha, uint8, where it is at this frame of a shot of ``count``."""
    alpha = np.zeros((HEIGHT, WIDTH), np.uint8)
    place = (30 + round(100 * (frame - 1001) / max(1, count - 1)), 48)
    cv2.circle(alpha, place, 18, 255, -1, cv2.LINE_AA)
    return alpha


def save_plates(folder, count, size=None):
    folder.mkdir(parents=True, exist_ok=True)
    for frame in range(1001, 1001 + count):
        share = disc(frame, count)[..., None] / 255.0
        picture = (wall() * (1 - share) + np.array([40, 160, 250]) * share).astype(np.uint8)
        if size:
            picture = cv2.resize(picture, size)
        cv2.imwrite(str(folder / f"plate.{frame}.png"), picture)
    return str(folder / "plate.%04d.png")


def save_keys(folder, frames, count):
    folder.mkdir(parents=True, exist_ok=True)
    for frame in frames:
        cv2.imwrite(str(folder / f"key.{frame}.png"), disc(frame, count))
    return folder


def start_xmem(*words):
    """Start the command as a process of its own, as an artist does."""
    return subprocess.Popen(
        [sys.executable, "-m", "xmem_server", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**import_paths(), "OMP_NUM_THREADS": "1"},
        cwd=Path(__file__).parents[2],
    )


def run_xmem(*words):
    """Give the exit code, what was said on stdout and the lines on stderr."""
    with start_xmem(*words) as process:
        said, complaints = process.communicate(timeout=300)
    return process.returncode, said, complaints.splitlines()
