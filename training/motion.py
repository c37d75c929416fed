"""How layers move: smooth paths of position, scale, rotation, shear and aspect, and slow elastic bending."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

Array = np.ndarray[Any, Any]
# One standard deviation of travel over a shot at speed 1: frame sizes, log scale, radians, shear, log aspect.
SPREAD = np.array([0.35, 0.35, 0.3, 0.5, 0.12, 0.12])


@dataclass(frozen=True)
class Path:
    """A smooth path over shot time 0..1: (x, y in frame sizes, log scale, rotation, shear, log aspect)."""

    velocity: Array
    acceleration: Array
    swing: Array
    pace: float
    phase: float

    def at(self, time: float) -> Array:
        """The six values at one time; zero at time 0 but for the swing."""
        swing = self.swing * (np.sin(self.pace * time + self.phase) - np.sin(self.phase))
        return self.velocity * time + self.acceleration * time * time + swing


STILL = Path(np.zeros(6), np.zeros(6), np.zeros(6), 1.0, 0.0)


def random_path(rng: np.random.Generator, speed: float) -> Path:
    """A path of about ``speed`` (1 crosses a third of the frame), sometimes swinging to and fro."""
    spread = SPREAD * speed
    return Path(
        rng.normal(size=6) * spread,
        rng.normal(size=6) * spread * 0.5,
        rng.normal(size=6) * spread * rng.choice((0.0, 0.2, 0.5)),
        rng.uniform(3, 20),
        rng.uniform(0, 2 * np.pi),
    )


def crossing_path(rng: np.random.Generator, start: Array, goal: Array) -> Path:
    """A path that carries a layer at ``start`` over ``goal`` (both (2,), in frame sizes) between times 0.3 and 0.7."""
    velocity = np.zeros(6)
    velocity[:2] = (goal - start) / rng.uniform(0.3, 0.7)
    return Path(velocity, np.zeros(6), np.zeros(6), 1.0, 0.0)


@dataclass(frozen=True)
class Body:
    """The fixed part of a layer's placement: centre (x, y in frame pixels), scale, rotation, and its texture's size."""

    centre: Array
    scale: float
    rotation: float
    texture_width: int
    texture_height: int
    turn: float = 0.0  # how much of its width it loses over the shot, as a thing that turns away does


def inverse_matrix(body: Body, pose: Array, time: float, size: int) -> Array:
    """The (2, 3) matrix from frame pixels to texture pixels for a pose (six values of a Path)."""
    angle = body.rotation + pose[3]
    aspect = np.exp(pose[5]) * (1 - body.turn * time)
    tall = np.exp(-pose[5])
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    forward = turn @ np.array([[aspect, pose[4]], [0, tall]]) * body.scale * np.exp(np.clip(pose[2], -1.5, 1.5))
    inverse = np.linalg.inv(forward)
    centre = body.centre + pose[:2] * size
    middle = np.array([body.texture_width / 2 - 0.5, body.texture_height / 2 - 0.5])
    return np.hstack([inverse, (middle - inverse @ centre)[:, None]])


@dataclass(frozen=True)
class Bending:
    """A slow elastic warp: two smooth fields (S, S, 2) in texture pixels, mixed differently at each time."""

    first: Array
    second: Array
    pace: float
    phase: float

    def at(self, time: float) -> Array:
        """The displacement (S, S, 2) at one time."""
        return self.first * np.cos(self.phase + self.pace * time) + self.second * np.sin(
            self.phase * 1.7 + self.pace * time
        )


def random_bending(rng: np.random.Generator, size: int, amplitude: float) -> Bending:
    """A warp of about ``amplitude`` texture pixels over a frame of size x size."""

    def field() -> Array:
        coarse = rng.normal(size=(4, 4, 2)).astype(np.float32) * amplitude
        return cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)

    return Bending(field(), field(), rng.uniform(1, 7), rng.uniform(0, 2 * np.pi))
