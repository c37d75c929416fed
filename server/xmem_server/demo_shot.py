"""The demo's own shot: plates that look filmed, and the exact matte of the animal in every one of them.

A stuffed animal hops across a table, turns its back, waves, passes behind an out-of-focus plant while a cloud dims the
lamp, in front of a pot of its own colour; hand-held camera, motion blur, lens, grain. Everything is computed from a
seed, so there is no licence to mind, and the matte is known because the same rays measured it.

:func:`save_shot` writes it; frames are numbered from 1001 as on any plate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from xmem_protocol import InputError
from xmem_server import demo_render, demo_scene
from xmem_server.demo_render import Layer, Thing
from xmem_server.demo_scene import Floats
from xmem_server.picture_files import save_png

_OPEN = (-0.11, 0.11)  # moments of a frame at which the shutter is open: about the usual 180 degrees, in two halves


@dataclass(frozen=True)
class ShotSettings:
    """What the demo shot is: how many frames from which number, its size in pixels, and the seed of its chances."""

    frames: int = 36
    first: int = 1001
    width: int = 480
    height: int = 270
    seed: int = 7


@dataclass(frozen=True)
class ShotFolders:
    """Where :func:`save_shot` put the shot: ``plate`` and ``alpha`` are patterns with ``%04d``; masks are index PNG."""

    plate: Path
    alpha: Path
    mask: Path


@dataclass(frozen=True)
class ShotFrame:
    """One frame: display-referred uint8 RGB (H, W, 3), and alpha float32 (H, W) 0..1 of what is visible of the animal."""

    frame: int
    picture: NDArray[np.uint8]
    alpha: Floats


def fetch_frames(settings: ShotSettings) -> Iterator[ShotFrame]:
    """Give every frame of the shot in order; the same settings give the same pixels."""
    room = demo_render.Room(settings.seed)
    noise = demo_scene.SolidNoise(settings.seed)
    plant = _fetch_plant(settings)
    for index in range(settings.frames):
        yield _fetch_frame(settings, index, (room, noise, plant))


def _fetch_frame(
    settings: ShotSettings, index: int, made: tuple[demo_render.Room, demo_scene.SolidNoise, Layer]
) -> ShotFrame:
    room, noise, plant = made
    size = (settings.height, settings.width)
    last = max(settings.frames - 1, 1)
    moment = index / last
    light, camera = demo_render.fetch_light(moment), demo_render.fetch_camera(moment)
    pot = _fetch_pot(noise)
    still = demo_render.fetch_layer(pot, camera, light, size)
    animal = _average([_fetch_animal_layer((index + part) / last, noise, size) for part in _OPEN])
    picture = room.fetch_picture([_fetch_animal(moment, noise), pot], camera, light, size)
    for layer in (still, animal):
        picture = picture * (1.0 - layer.alpha[..., None]) + layer.colour
    front = _fetch_plant_seen(plant, moment, light, size)
    picture = picture * (1.0 - front.alpha[..., None]) + front.colour
    alpha = animal.alpha * (1.0 - front.alpha)
    source = np.random.default_rng([settings.seed, 2, index])
    return ShotFrame(settings.first + index, _fetch_filmed(picture, source), np.asarray(alpha, np.float32))


def _fetch_animal(moment: float, noise: demo_scene.SolidNoise) -> Thing:
    pose = demo_scene.fetch_pose(moment)

    def surface(points: Floats) -> demo_scene.Surface:
        return demo_scene.fetch_animal_surface(demo_scene.update_to_rest(points, pose), noise)

    return Thing(demo_scene.fetch_animal(pose), surface, (pose.x, pose.lift + 0.68, pose.z), 1.08)


def _fetch_pot(noise: demo_scene.SolidNoise) -> Thing:
    def surface(points: Floats) -> demo_scene.Surface:
        return demo_scene.fetch_pot_surface(points, noise)

    return Thing(demo_scene.pot, surface, demo_scene.POT_CENTRE, 0.62)


def _fetch_animal_layer(moment: float, noise: demo_scene.SolidNoise, size: tuple[int, int]) -> Layer:
    camera, light = demo_render.fetch_camera(moment), demo_render.fetch_light(moment)
    return demo_render.fetch_layer(_fetch_animal(moment, noise), camera, light, size)


def _average(layers: list[Layer]) -> Layer:
    """Give the layers mixed in equal shares: colour and alpha blur alike, as in a shutter."""
    share = np.float32(1.0 / len(layers))
    return Layer(
        np.asarray(sum(layer.colour * share for layer in layers), np.float32),
        np.asarray(sum(layer.alpha * share for layer in layers), np.float32),
    )


# ------------------------------------------------------------------------------------------------ the plant in front


def _fetch_plant(settings: ShotSettings) -> Layer:
    """Give the plant near the lens, far out of focus, on a canvas twice as wide as the picture."""
    source = np.random.default_rng([settings.seed, 3])
    height, width = settings.height * 2, settings.width * 4  # drawn at twice the size
    alpha, shade = np.zeros((height, width), np.float32), np.zeros((height, width), np.float32)
    for root, lean, count in ((0.50, 0.035, 5), (0.585, -0.03, 2)):
        down = np.linspace(0.0, 1.0, 40)
        stem_x = (root + lean * np.sin(down * 2.4)) * width
        stem = np.stack([stem_x, (1.08 - 1.2 * down) * height], axis=1).astype(np.int32)
        for canvas, value in ((alpha, 1.0), (shade, 0.4)):
            cv2.polylines(canvas, [stem], isClosed=False, color=value, thickness=width // 130, lineType=cv2.LINE_AA)
        for leaf in range(count):
            place = stem[int(6 + leaf * 32 / count)]
            side = 1 if leaf % 2 else -1
            reach = height * source.uniform(0.13, 0.20)
            centre = (int(place[0] + side * reach * 0.8), int(place[1] - reach * 0.25))
            angle = -side * source.uniform(15, 40)
            axes = (int(reach * 0.85), int(reach * 0.27))
            cv2.ellipse(alpha, (centre, (axes[0] * 2, axes[1] * 2), angle), 1.0, -1, cv2.LINE_AA)
            cv2.ellipse(shade, (centre, (axes[0] * 2, axes[1] * 2), angle), source.uniform(0.3, 0.9), -1, cv2.LINE_AA)
    blur = height / 75
    alpha, shade = demo_render.fetch_blurred(alpha, blur), demo_render.fetch_blurred(shade, blur * 1.6)
    half = (width // 2, height // 2)
    small_alpha = np.asarray(cv2.resize(alpha, half, interpolation=cv2.INTER_AREA), np.float32)
    small_shade = np.asarray(cv2.resize(shade, half, interpolation=cv2.INTER_AREA), np.float32)
    colour = (small_alpha * (0.15 + small_shade))[..., None] * np.array([0.030, 0.062, 0.022], np.float32)
    return Layer(np.asarray(colour, np.float32), np.asarray(np.clip(small_alpha, 0.0, 1.0), np.float32))


def _fetch_plant_seen(plant: Layer, moment: float, light: demo_render.Light, size: tuple[int, int]) -> Layer:
    """Give the plant in the picture: it moves against the camera, fast because it is near, and sways a little."""
    height, width = size
    shift = -0.5 * width + width * (0.16 - 0.30 * moment) + 0.006 * width * np.sin(moment * 17.0)
    sway = 0.012 * np.sin(moment * 11.0)
    move = np.array([[1.0, sway, shift - sway * height], [0.0, 1.0, 0.0]], np.float32)
    colour = cv2.warpAffine(plant.colour, move, (width, height), flags=cv2.INTER_LINEAR)
    alpha = cv2.warpAffine(plant.alpha, move, (width, height), flags=cv2.INTER_LINEAR)
    return Layer(np.asarray(colour * (light.lamp + light.room)[:, 0], np.float32), np.asarray(alpha, np.float32))


# -------------------------------------------------------------------------------------------------- lens, film, files


def _fetch_filmed(picture: Floats, source: np.random.Generator) -> NDArray[np.uint8]:
    """Give linear light as the camera records it: vignette, soft lens, film curve, grain, 8 bit display-referred RGB."""
    height, width = picture.shape[:2]
    rows, columns = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    picture = picture * (1.0 - 0.20 * (rows * rows + columns * columns) * 0.5)[..., None]
    picture = picture + (demo_render.fetch_blurred(picture, 9.0) - picture) * 0.05
    picture = demo_render.fetch_blurred(picture, 0.42)
    curve = picture * (2.51 * picture + 0.03) / (picture * (2.43 * picture + 0.59) + 0.14)  # the usual filmic fit
    shown = np.clip(curve, 0.0, 1.0) ** (1 / 2.2)
    grain = source.standard_normal((height, width, 3), np.float32) * 0.6 + source.standard_normal(
        (height, width, 1), np.float32
    )
    grain = demo_render.fetch_blurred(grain, 0.55)
    shown = shown + grain * (0.020 * (1.15 - shown))
    return np.asarray(np.clip(shown * 255.0 + 0.5, 0, 255), np.uint8)


def save_shot(folder: Path, settings: ShotSettings, on_frame: Callable[[int, int], None]) -> ShotFolders:
    """Give the places of the shot, written below a folder: 8-bit PNG plates, 16-bit PNG alpha, index PNG masks.

    ``on_frame`` is told (frames done, frames in all) after each. Raises InputError when a file cannot be written.
    """
    places = ShotFolders(
        folder / "plate" / "plate.%04d.png", folder / "truth" / "alpha.%04d.png", folder / "truth" / "mask.%04d.png"
    )
    for place in (places.plate, places.alpha):
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{place.parent} cannot be made: {error.strerror}. Choose another folder.") from None
    for shot in fetch_frames(settings):
        save_png(Path(str(places.plate) % shot.frame), shot.picture[..., ::-1])
        save_png(Path(str(places.alpha) % shot.frame), np.asarray(np.rint(shot.alpha * 65535.0), np.uint16))
        save_png(Path(str(places.mask) % shot.frame), (shot.alpha >= 0.5).astype(np.uint8))
        on_frame(shot.frame - settings.first + 1, settings.frames)
    return places
