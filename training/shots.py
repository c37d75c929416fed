"""Synthetic shots with exact alpha: pictures moving over pictures, as one camera would have seen them.

A shot depends on its seed, its settings and the bank alone. Targets are whole objects, arbitrary parts of a textured surface, or
what is left of an object without that part.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from training.actors import Actor, an_object, background, look_alike, passer_by, reflection, shadow
from training.bank import ImageBank
from training.camera import photographed
from training.layers import Placement, Rendered, composite, render, visible
from training.motion import Path, inverse_matrix, random_path

Array = np.ndarray[Any, Any]
WHOLE, REGION, REST = "whole", "region", "rest"
MIXED, EVEN = "mixed", "even"
LONGEST_STREAK = 0.16  # motion blur, in frame sizes
TRIES = 12  # scenes tried for one seed before the next seed is taken


@dataclass(frozen=True)
class ShotSettings:
    """Size in pixels (a multiple of 16), frames, objects; a target covers ``smallest`` to ``largest`` of a key frame.

    ``spacing`` is MIXED, as `shot_times` draws, or EVEN over the whole shot.
    """

    size: int = 256
    frames: int = 5
    objects: int = 2
    smallest: float = 0.003
    largest: float = 0.6
    spacing: str = MIXED


@dataclass(frozen=True)
class Shot:
    """``frames`` (T, S, S, 3) uint8 RGB and ``alpha`` (N, T, S, S) float32 0..1; an object that is missing is all 0.

    The alphas of one pixel sum to at most 1.
    """

    frames: Array
    alpha: Array


@dataclass(frozen=True)
class Scene:
    """Actors from bottom to top, the camera's path, shot times of the frames (T,) in 0..1, the shutter in shot time."""

    actors: tuple[Actor, ...]
    camera: Path
    times: Array
    shutter: float


@dataclass(frozen=True)
class Target:
    """Which actor, by position, and which part of it."""

    position: int
    part: str


def make_shot(seed: int, bank: ImageBank, settings: ShotSettings, keys: tuple[int, ...] = (0,)) -> Shot:
    """The shot of a seed; every object in it can be seen on at least one of the frames ``keys`` (0-based)."""
    rng = np.random.default_rng(seed)
    while True:
        for _ in range(TRIES):
            scene = random_scene(rng, bank, settings)
            rendered = render_scene(scene, settings.size)
            alpha = _choose_targets(rng, scene, rendered, settings, keys)
            if alpha is not None:
                frames = np.stack([composite(layers) for layers in rendered])
                return Shot(photographed(rng, frames), alpha)


def random_scene(rng: np.random.Generator, bank: ImageBank, settings: ShotSettings) -> Scene:
    """A background, one to four objects, and now and then a crowd, shadows, a reflection, someone who walks past."""
    size = settings.size
    scenery = bank.surface(rng)
    speed = float(2 ** rng.uniform(-3.5, 1.0))
    actors: list[Actor] = []
    for _ in range(int(rng.choice((1, 2, 2, 3, 3, 4)))):
        actor = an_object(rng, bank, scenery, size, speed)
        if rng.random() < 0.2:
            actors.append(shadow(rng, actor))
        if rng.random() < 0.1:
            actors.append(reflection(rng, actor))
        actors.append(actor)
    if rng.random() < 0.3:
        chosen = actors[int(rng.integers(len(actors)))]
        for _ in range(int(rng.choice((1, 1, 2, 4)))):
            actors.insert(int(rng.integers(len(actors) + 1)), look_alike(rng, chosen, size, speed))
    if rng.random() < 0.25:
        walker = an_object(rng, bank, scenery, size, speed)
        actors.append(passer_by(rng, walker, actors[int(rng.integers(len(actors)))], size))
    camera = random_path(rng, float(rng.choice((0, 0, 0.1, 0.2, 0.4))))
    times = np.linspace(0, 1, settings.frames) if settings.spacing == EVEN else shot_times(rng, settings.frames)
    shutter = rng.uniform(0.1, 0.6) / max(1, settings.frames - 1) if rng.random() < 0.5 else 0.0
    return Scene((background(rng, scenery, size), *actors), camera, times, shutter)


def shot_times(rng: np.random.Generator, frames: int) -> Array:
    """When the frames of a shot were taken, (T,) ascending in 0..1.

    Half are neighbours, as in film; a third have a neighbourhood far from the first frame, and half of those far from the last
    one too, as the middle of a shot is from its keys; the others are spread evenly or by chance over the whole time.
    """
    kind = rng.random()
    if kind < 0.5:
        span = rng.uniform(0.08, 0.6)
        return np.asarray(rng.uniform(0, 1 - span) + np.linspace(0, span, frames))
    if kind < 0.85:
        last = [1.0] if rng.random() < 0.5 else []
        near = frames - 1 - len(last)
        span = rng.uniform(0.05, 0.4)
        start = rng.uniform(0.1, 0.95 - span)
        return np.array([0.0, *(start + np.linspace(0, span, near)), *last])
    if kind < 0.93:
        return np.linspace(0, 1, frames)
    return np.sort(rng.random(frames))


def render_scene(scene: Scene, size: int) -> list[list[Rendered]]:
    """For each frame its layers from bottom to top."""
    return [
        [render(actor.layer, placement(scene, actor, float(time), size), size) for actor in scene.actors]
        for time in scene.times
    ]


def placement(scene: Scene, actor: Actor, time: float, size: int) -> Placement:
    """Where an actor is at a shot time: its own path seen by the moving camera, with the streak of the open shutter."""
    centre = np.array([size / 2, size / 2])

    def seen(moment: float) -> tuple[Array, Array]:
        pose, view = actor.path.at(moment), scene.camera.at(moment) * actor.parallax
        zoom = np.exp(view[2])
        turn = np.array([[np.cos(view[3]), -np.sin(view[3])], [np.sin(view[3]), np.cos(view[3])]])
        own = actor.body.centre + pose[:2] * size
        place = centre + turn @ (own - centre) * zoom + view[:2] * size
        total = pose + view
        total[:2] = (place - actor.body.centre) / size
        return total, place

    pose, place = seen(time)
    streak = (0.0, 0.0)
    if scene.shutter > 0:
        travel = seen(time + scene.shutter)[1] - place
        length = float(np.hypot(*travel))
        travel = travel * min(1.0, LONGEST_STREAK * size / max(length, 1e-6))
        streak = (float(travel[0]), float(travel[1]))
    bend = None if actor.bending is None else actor.bending.at(time)
    matrix = inverse_matrix(actor.body, pose, time, size)
    return Placement(matrix, bend, streak, actor.defocus, 1 + actor.drift * time)


def target_alpha(rendered: list[list[Rendered]], targets: list[Target]) -> Array:
    """The visible alpha of each target in each frame, (N, T, S, S) float32."""
    solid = frozenset(target.position for target in targets)
    alpha = []
    for target in targets:
        for layers in rendered:
            layer = layers[target.position]
            region = np.zeros_like(layer.alpha) if layer.region is None else layer.region
            shape = {WHOLE: layer.alpha, REGION: region, REST: layer.alpha - region}[target.part]
            alpha.append(np.clip(shape * visible(layers, target.position, solid), 0, 1))
    size = alpha[0].shape[0]
    return np.stack(alpha).reshape(len(targets), len(rendered), size, size).astype(np.float32)


def _choose_targets(
    rng: np.random.Generator,
    scene: Scene,
    rendered: list[list[Rendered]],
    settings: ShotSettings,
    keys: tuple[int, ...],
) -> Array | None:
    """Alphas (N, T, S, S) of randomly chosen targets that can be seen on a key frame; None when there is none."""
    candidates = []
    for position, actor in enumerate(scene.actors):
        parts = [] if actor.layer.fills else [WHOLE]
        if actor.layer.region is not None:
            parts += [REGION] if actor.layer.fills else [REGION, REST]
        candidates += [Target(position, part) for part in parts if actor.is_wanted]
    chosen: list[Target] = []
    for index in rng.permutation(len(candidates)):
        target = candidates[index]
        mine = [other.part for other in chosen if other.position == target.position]
        overlaps = bool(mine) and (target.part == WHOLE or WHOLE in mine)
        if overlaps or len(chosen) == settings.objects:
            continue
        covered = [float((target_alpha([rendered[key]], [target]) > 0.5).mean()) for key in keys]
        if settings.smallest <= max(covered) <= settings.largest:
            chosen.append(target)
    if not chosen:
        return None
    alpha = np.zeros((settings.objects, len(rendered), settings.size, settings.size), np.float32)
    alpha[: len(chosen)] = target_alpha(rendered, chosen)
    return alpha


cv2.setNumThreads(1)  # the loader is one process beside the training; OpenCV's own threads would fight for the cores
