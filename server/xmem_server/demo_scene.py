"""The things in the demo shot, as distance fields: a stuffed animal that waves, and a clay pot of the same colour.

A distance field gives, for points in space, how far the nearest surface is; following it along a ray finds what the
camera sees, exactly enough to measure mattes against. Everything here is a pure function of points and time.

Space: x right, y up, z away from the camera; the table top is y = 0; the animal is about 1.4 units tall.
Points are float32 (3, N): a row of x, of y and of z, which is what makes this fast. Colours are linear-light RGB, alike.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Field = Callable[[Floats], Floats]

FAR = 12.0  # rays that have gone this far have hit nothing
_LATTICE = 32  # a power of two, so that wrapping is a bit mask


@dataclass(frozen=True)
class Pose:
    """Where the animal is at one moment: position on the table, turn in radians, and how its parts are bent."""

    x: float
    z: float
    lift: float
    yaw: float
    squash: float
    lean: float
    wave: float
    tail: float


def fetch_pose(moment: float) -> Pose:
    """Give the animal's pose at a moment from 0 (first frame) to 1 (last frame): it hops across, turning as it goes."""
    hop = moment * 4.0 * np.pi
    height = abs(float(np.sin(hop)))
    return Pose(
        x=-1.12 + 2.05 * moment,
        z=0.22 * float(np.sin(moment * np.pi)),
        lift=0.16 * height,
        yaw=-0.85 + 2.9 * moment * (0.85 + 0.15 * moment),
        squash=0.06 * (0.5 - height),
        lean=0.12 * float(np.sin(hop + 0.6)),
        wave=0.9 * float(np.sin(moment * 7.0 * np.pi)),
        tail=0.5 * float(np.sin(moment * 5.0 * np.pi + 1.0)),
    )


def _length(points: Floats) -> Floats:
    squares: Floats = points[0] * points[0] + points[1] * points[1] + points[2] * points[2]
    return np.sqrt(squares)


def column(x: float, y: float, z: float) -> Floats:
    """Give one point or colour as (3, 1), to reckon with many."""
    return np.array([[x], [y], [z]], np.float32)


def _blend(first: Floats, second: Floats, width: float) -> Floats:
    """Give the union of two fields, rounded over ``width`` where they meet."""
    overlap = np.maximum(width - np.abs(first - second), 0.0)
    return np.asarray(np.minimum(first, second) - overlap * overlap * np.float32(0.25 / width), np.float32)


def _egg(points: Floats, centre: tuple[float, float, float], radii: tuple[float, float, float]) -> Floats:
    """Give the (close to exact) distance to an ellipsoid."""
    shrink = 1.0 / column(*radii)
    scaled = (points - column(*centre)) * shrink
    size = _length(scaled)
    return np.asarray(size * (size - 1.0) / np.maximum(_length(scaled * shrink), np.float32(1e-4)), np.float32)


def _bone(points: Floats, start: Floats, end: Floats, radius: float) -> Floats:
    """Give the distance to a line with round ends."""
    along = end - start
    offset = points - start
    along_x, along_y, along_z = along[:, 0]
    part = offset[0] * along_x + offset[1] * along_y + offset[2] * along_z
    part *= np.float32(1.0 / float((along * along).sum()))
    np.clip(part, 0.0, 1.0, out=part)
    offset -= along * part
    return np.asarray(_length(offset) - np.float32(radius), np.float32)


def update_to_rest(points: Floats, pose: Pose) -> Floats:
    """Give points of the world in the animal's own space, where it stands upright at the origin and faces -z."""
    sine, cosine = np.float32(np.sin(pose.yaw)), np.float32(np.cos(pose.yaw))
    x = points[0] - np.float32(pose.x)
    y = (points[1] - np.float32(pose.lift)) * np.float32(1.0 + pose.squash)
    z = points[2] - np.float32(pose.z)
    rest = np.stack([cosine * x - sine * z, y, sine * x + cosine * z])
    rest[0] -= np.float32(pose.lean) * np.clip(y, 0.0, 1.6) ** 2
    return rest


def _animal_body(rest: Floats) -> Floats:
    mirrored = rest.copy()
    np.abs(mirrored[0], out=mirrored[0])
    shape = _egg(rest, (0.0, 0.44, 0.0), (0.33, 0.40, 0.29))
    shape = _blend(shape, _egg(rest, (0.0, 1.0, -0.04), (0.29, 0.25, 0.25)), 0.16)
    shape = _blend(shape, _egg(rest, (0.0, 0.93, -0.25), (0.13, 0.10, 0.14)), 0.08)
    shape = _blend(shape, _bone(mirrored, column(0.16, 1.16, 0.0), column(0.25, 1.40, 0.02), 0.075), 0.06)
    return _blend(shape, _egg(mirrored, (0.19, 0.08, -0.12), (0.13, 0.09, 0.2)), 0.1)


def _animal_limbs(rest: Floats, pose: Pose) -> Floats:
    raised = column(0.62, 0.92 + 0.16 * np.sin(pose.wave), -0.08)
    hand = raised + column(0.20 * np.cos(1.2 + pose.wave), 0.26 * np.sin(1.2 + pose.wave), -0.05)
    limbs = _blend(_bone(rest, column(0.24, 0.66, 0.0), raised, 0.085), _bone(rest, raised, hand, 0.095), 0.05)
    limbs = _blend(limbs, _bone(rest, column(-0.26, 0.62, 0.0), column(-0.42, 0.34, -0.16), 0.09), 0.03)
    middle = column(0.22 * np.sin(pose.tail), 0.30, 0.52)
    tip = middle + column(0.30 * np.sin(pose.tail + 0.5), 0.34, 0.10)
    tail = _blend(_bone(rest, column(0.0, 0.22, 0.22), middle, 0.085), _bone(rest, middle, tip, 0.12), 0.12)
    return np.asarray(np.minimum(limbs, tail), np.float32)


def fetch_animal(pose: Pose) -> Field:
    """Give the animal's distance field in this pose."""

    def distance(points: Floats) -> Floats:
        rest = update_to_rest(points, pose)
        shape = _blend(_animal_body(rest), _animal_limbs(rest, pose), 0.07)
        return np.asarray(shape * np.float32(0.85), np.float32)  # bending stretches space, so step shorter

    return distance


POT_CENTRE = (0.92, 0.40, 1.0)


def pot(points: Floats) -> Floats:
    """Give the distance field of the clay pot that stands behind the animal's path."""
    shape = _egg(points, (0.92, 0.36, 1.0), (0.38, 0.37, 0.38))
    around = np.hypot(points[0] - np.float32(0.92), points[2] - np.float32(1.0))
    rim = np.hypot(around - np.float32(0.22), points[1] - np.float32(0.76)) - np.float32(0.055)
    neck = np.maximum(np.abs(around - np.float32(0.2)) - np.float32(0.04), np.abs(points[1] - np.float32(0.7)) - 0.08)
    return _blend(shape, np.minimum(rim, neck.astype(np.float32)), 0.06)


# ------------------------------------------------------------------------------------------------------------ surfaces


class SolidNoise:
    """Noise that fills space, so that a pattern sticks to a turning, bending surface. The same seed gives the same noise."""

    def __init__(self, seed: int) -> None:
        self._lattice = np.random.default_rng(seed).random(_LATTICE**3, np.float32)

    def sample(self, points: Floats) -> Floats:
        """Give smooth noise 0..1 at points, one bump per unit."""
        cell = np.floor(points)
        part = points - cell
        part = part * part * (3.0 - 2.0 * part)
        low = cell.astype(np.int32) & (_LATTICE - 1)
        high = (low + 1) & (_LATTICE - 1)
        planes = []
        for z in (low[2], high[2]):
            rows = []
            for y in (low[1], high[1]):
                base = (z * _LATTICE + y) * _LATTICE
                left, right = self._lattice[base + low[0]], self._lattice[base + high[0]]
                rows.append(left + (right - left) * part[0])
            planes.append(rows[0] + (rows[1] - rows[0]) * part[1])
        return np.asarray(planes[0] + (planes[1] - planes[0]) * part[2], np.float32)

    def sample_octaves(self, points: Floats, octaves: int) -> Floats:
        """Give noise 0..1 with finer and weaker noise on top, ``octaves`` layers."""
        total = np.zeros(points.shape[1], np.float32)
        for octave in range(octaves):
            total += self.sample(points * np.float32(2.03**octave) + np.float32(7.7 * octave)) * np.float32(0.5**octave)
        return np.asarray(total / np.float32(2.0 - 0.5 ** (octaves - 1)), np.float32)


@dataclass(frozen=True)
class Surface:
    """What light does at points: colour (3, N) linear, bump (N,) and gloss (N,) 0..1."""

    colour: Floats
    bump: Floats
    gloss: Floats


def _step(values: Floats, start: float, end: float) -> Floats:
    part = np.clip((values - np.float32(start)) / np.float32(end - start), 0.0, 1.0)
    return np.asarray(part * part * (3.0 - 2.0 * part), np.float32)


def _mix(first: Floats, second: tuple[float, float, float], share: Floats) -> Floats:
    return np.asarray(first + (column(*second) - first) * share, np.float32)


CLAY = (0.36, 0.135, 0.045)  # the pot's colour and most of the animal's: that is what makes the shot hard


def fetch_animal_surface(rest: Floats, noise: SolidNoise) -> Surface:
    """Give the surface at points in the animal's own space: fur with a pale front, dark tips and a banded back."""
    coarse = noise.sample_octaves(rest * np.float32(5.0), 3)
    fur = noise.sample_octaves(rest * column(34.0, 17.0, 34.0), 2)
    colour = np.broadcast_to(column(*CLAY), rest.shape)
    x, y, z = rest
    wobble = (coarse - 0.5) * 0.16
    front = _step(-z + wobble, 0.12, 0.19) * _step(0.27 - np.abs(x + wobble), 0.0, 0.08) * _step(1.02 - y, 0.0, 0.1)
    colour = _mix(colour, (0.62, 0.50, 0.36), front)
    bands = _step(np.sin((y + wobble) * 26.0), 0.25, 0.6) * _step(z + wobble, 0.02, 0.12) * _step(1.12 - y, 0.0, 0.1)
    colour = _mix(colour, (0.075, 0.035, 0.022), bands)
    tips = np.maximum(_step(y + wobble, 1.32, 1.38), _step(0.12 - y + wobble * 0.3, 0.0, 0.05))
    tips = np.maximum(tips, _step(np.abs(x) + wobble * 0.4, 0.66, 0.72))
    colour = _mix(colour, (0.05, 0.03, 0.025), tips)
    eye = np.hypot(np.hypot(np.abs(x) - np.float32(0.125), y - np.float32(1.06)), z + np.float32(0.27))
    nose = np.hypot(np.hypot(x, y - np.float32(0.96)), z + np.float32(0.39))
    dark = np.maximum(_step(-eye, -0.062, -0.048), _step(-nose, -0.06, -0.045))
    colour = _mix(colour * (0.55 + 0.55 * coarse + 0.45 * (fur - 0.5)), (0.006, 0.006, 0.007), dark)
    bump, gloss = np.asarray((fur - 0.5) * (1.0 - dark), np.float32), np.asarray(0.06 + 0.94 * dark, np.float32)
    return Surface(np.asarray(colour, np.float32), bump, gloss)


def fetch_pot_surface(points: Floats, noise: SolidNoise) -> Surface:
    """Give the surface at points of the pot: rough clay, turned on a wheel."""
    coarse = noise.sample_octaves(points * column(6.0, 11.0, 6.0) + np.float32(3.0), 4)
    rings = np.sin(points[1] * 70.0 + coarse * 3.0)
    colour = column(*CLAY) * (0.62 + 0.62 * coarse + 0.05 * rings)
    return Surface(
        np.asarray(colour, np.float32), np.asarray(rings * 0.06, np.float32), np.full(points.shape[1], 0.12, np.float32)
    )
