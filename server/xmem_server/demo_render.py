"""The demo shot's camera and light: what one frame looks like, with the exact alpha of the animal in it.

Colours are linear-light RGB float32 until :func:`fetch_picture`, which gives display-referred values. Pictures are
(H, W, 3), alphas (H, W), rows from the top.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from xmem_server.demo_scene import FAR, Field, Floats, Surface, column

_FOCAL = 5.0  # in half-heights of the picture: a portrait lens
_OFFSETS = (np.stack(np.meshgrid(np.arange(4), np.arange(4)), axis=-1).reshape(-1, 2).astype(np.float32) + 0.5) / 4
_MARCH = 120  # steps along a ray; only those that graze a surface need many
_BATCH = 40_000  # rays followed together: many, so that the cost of calling numpy does not count


@dataclass(frozen=True)
class Camera:
    """Where the camera is and how it is turned (radians) at one moment."""

    place: Floats
    pan: float
    tilt: float


@dataclass(frozen=True)
class Light:
    """The light at one frame: direction to the lamp, the lamp's colour, and the room's."""

    towards: Floats
    lamp: Floats
    room: Floats


@dataclass(frozen=True)
class Thing:
    """Something to draw: its distance field, its surface, and a ball (centre, radius) that it is wholly inside."""

    field: Field
    surface: Callable[[Floats], Surface]
    centre: tuple[float, float, float]
    radius: float


@dataclass(frozen=True)
class Layer:
    """A picture premultiplied by its alpha, and that alpha."""

    colour: Floats
    alpha: Floats


def fetch_camera(moment: float) -> Camera:
    """Give the hand-held camera at a moment 0..1: a slow slide to the right with a little unrest."""
    unrest = 0.012 * np.sin(moment * 23.0) + 0.008 * np.sin(moment * 41.0 + 1.0)
    place = column(-0.30 + 0.62 * moment, 1.30 + 0.05 * np.sin(moment * 5.0) + unrest, -5.6 + 0.25 * moment)
    return Camera(place, float(-0.055 * (moment - 0.5) + unrest * 0.4), float(-0.115 + 0.3 * unrest))


def fetch_light(moment: float) -> Light:
    """Give the light at a moment 0..1: a cloud passes, so a warm lamp dims and the room turns cooler."""
    cloud = 1.0 / (1.0 + np.exp(-14.0 * (moment - 0.62)))
    flicker = 1.0 + 0.03 * np.sin(moment * 61.0)
    towards = column(-0.62 + 0.2 * moment, 0.68, -0.52)
    lamp = column(3.1, 2.55, 1.95) * np.float32((1.0 - 0.58 * cloud) * flicker)
    room = column(0.34, 0.40, 0.52) * np.float32(1.0 - 0.12 * cloud)
    return Light(_fetch_unit(towards), lamp, room)


def _rays(camera: Camera, size: tuple[int, int], columns: Floats, rows: Floats) -> Floats:
    """Give the unit direction (3, N) through each picture position, in pixels from the top left corner."""
    height, width = size
    x = (columns - np.float32(width / 2)) * np.float32(2.0 / height)
    y = (np.float32(height / 2) - rows) * np.float32(2.0 / height)
    up_sine, up_cosine = np.float32(np.sin(camera.tilt)), np.float32(np.cos(camera.tilt))
    side_sine, side_cosine = np.float32(np.sin(camera.pan)), np.float32(np.cos(camera.pan))
    ahead = np.float32(_FOCAL)
    y, z = y * up_cosine + ahead * up_sine, ahead * up_cosine - y * up_sine
    turned = np.stack([x * side_cosine + z * side_sine, y, z * side_cosine - x * side_sine])
    return np.asarray(turned / np.sqrt((turned * turned).sum(axis=0)), np.float32)


def _follow(thing: Thing, start: Floats, rays: Floats, near: Floats | None = None) -> Floats:
    """Give how far along each ray the thing's surface is; FAR where the ray hits nothing.

    ``near`` is a distance before which nothing can be hit, FAR for rays not to follow at all.
    """
    offset = column(*thing.centre) - start
    along = (rays * offset).sum(axis=0)
    beside = np.float32(thing.radius**2) - ((offset * offset).sum() - along * along)
    found = np.full(rays.shape[1], FAR, np.float32)
    wanted = np.flatnonzero(beside > 0.0 if near is None else (beside > 0.0) & (near < FAR))
    for part in np.array_split(wanted, max(1, len(wanted) // _BATCH)):
        half = np.sqrt(beside[part])
        begin = along[part] - half if near is None else np.maximum(near[part], along[part] - half)
        found[part] = _follow_batch(thing.field, start, rays[:, part], (begin, along[part] + half))
    return found


def _follow_batch(field: Field, start: Floats, rays: Floats, reach: tuple[Floats, Floats]) -> Floats:
    depth, end = reach[0].copy(), reach[1]
    gaps = np.full(len(depth), np.inf, np.float32)
    going = np.arange(len(depth))
    for _ in range(_MARCH):
        gap = field(start + rays[:, going] * depth[going])
        gaps[going] = gap
        depth[going] += gap
        going = going[(np.abs(gap) > 0.0005) & (depth[going] < end[going])]
        if not len(going):
            break
    return np.asarray(np.where((depth >= end) | (gaps > 0.001), FAR, depth), np.float32)


def _normals(field: Field, points: Floats) -> Floats:
    normals = np.zeros_like(points)
    for corner in (column(1, -1, -1), column(-1, -1, 1), column(-1, 1, -1), column(1, 1, 1)):
        normals += corner * field(points + corner * np.float32(0.004))
    return _fetch_unit(normals)


def _fetch_unit(vectors: Floats) -> Floats:
    size = np.sqrt((vectors * vectors).sum(axis=0))
    return np.asarray(vectors / np.maximum(size, 1e-6), np.float32)


def _shadow(field: Field, points: Floats, light: Light, steps: int) -> Floats:
    """Give how much of the lamp reaches each point, 0..1, soft with distance."""
    seen = np.ones(points.shape[1], np.float32)
    depth = np.full(points.shape[1], 0.05, np.float32)
    for _ in range(steps):
        gap = field(points + light.towards * depth)
        seen = np.minimum(seen, np.clip(0.5 + 4.0 * gap / depth, 0.0, 1.0))
        depth += np.clip(gap, 0.03, 0.22)
    return seen


def _shade(thing: Thing, points: Floats, rays: Floats, light: Light) -> Floats:
    """Give the colour (3, N) that points of a surface send to the camera."""
    field, surface = thing.field, thing.surface(points)
    normals = _fetch_unit(_normals(field, points) + surface.bump * column(0.30, 0.45, 0.30))
    facing = (normals * light.towards).sum(axis=0)
    lit = np.clip((facing + 0.18) / 1.18, 0.0, 1.0) * _shadow(field, points + normals * np.float32(0.02), light, 6)
    open_sky = np.clip(0.25 + 3.0 * field(points + normals * np.float32(0.2)), 0.0, 1.0)
    sky = (0.55 + 0.45 * normals[1]) * open_sky
    table = np.clip(-normals[1], 0.0, 1.0) * open_sky * np.float32(0.25)
    edge = np.clip(1.0 + (normals * rays).sum(axis=0), 0.0, 1.0) ** 3
    half = _fetch_unit(light.towards - rays)
    shine = np.clip((normals * half).sum(axis=0), 0.0, 1.0) ** (8.0 + 150.0 * surface.gloss) * surface.gloss
    colour = surface.colour * ((lit + table) * light.lamp + sky * light.room) + (edge * open_sky * 0.10) * light.room
    return np.asarray(colour + (shine * lit) * light.lamp * np.float32(0.4), np.float32)


def _split_pixels(depth: Floats) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Give the places (in the flat picture) of pixels wholly inside a shape, and of those on an outline, from its depth."""
    hit = (depth < FAR).astype(np.uint8)
    around = np.ones((3, 3), np.uint8)
    outline = cv2.dilate(hit, around) > cv2.erode(hit, around)
    limb_before_limb = (cv2.dilate(depth, around) - cv2.erode(depth, around) > 0.3) & (hit > 0)
    edge = outline | limb_before_limb
    return np.flatnonzero((hit > 0) & ~edge), np.flatnonzero(edge)


def fetch_blurred(picture: Floats, radius: float) -> Floats:
    """Give a picture or an alpha blurred like a Gaussian of this standard deviation in pixels."""
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), radius), np.float32)


def _fetch_nearest(thing: Thing, camera: Camera, size: tuple[int, int]) -> Floats:
    """Give, for each pixel, a distance before which nothing is hit, from a quarter of the rays: it saves most of the work."""
    half = (size[0] // 2, size[1] // 2)
    rows, columns = np.mgrid[0 : half[0], 0 : half[1]].astype(np.float32).reshape(2, -1)
    rays = _rays(camera, half, columns + np.float32(0.5), rows + np.float32(0.5))
    least = _fetch_least(_follow(thing, camera.place, rays).reshape(half))
    return np.asarray(cv2.resize(least, (size[1], size[0]), interpolation=cv2.INTER_NEAREST), np.float32).ravel()


def _fetch_least(depth: Floats) -> Floats:
    """Give a little less than the least depth (H, W) around each pixel; FAR where there is nothing around."""
    least = np.asarray(cv2.erode(depth, np.ones((3, 3), np.uint8)), np.float32)
    return np.asarray(np.where(least < FAR, least - 0.06, FAR), np.float32)


def fetch_layer(thing: Thing, camera: Camera, light: Light, size: tuple[int, int]) -> Layer:
    """Give a thing alone, as the camera sees it at one moment, in a picture of size (height, width).

    Inside the outline one ray a pixel is enough; on it every pixel is measured with 4 x 4 rays, so alpha there is a
    share of 16.
    """
    rows, columns = np.mgrid[0 : size[0], 0 : size[1]].astype(np.float32).reshape(2, -1)
    rays = _rays(camera, size, columns + np.float32(0.5), rows + np.float32(0.5))
    depth = _follow(thing, camera.place, rays, _fetch_nearest(thing, camera, size))
    inner, border = _split_pixels(depth.reshape(size))
    across = np.asarray(columns[border, None] + _OFFSETS[None, :, 0], np.float32)
    down = np.asarray(rows[border, None] + _OFFSETS[None, :, 1], np.float32)
    fine = _rays(camera, size, across.ravel(), down.ravel())
    far = _follow(
        thing, camera.place, fine, np.repeat(_fetch_least(depth.reshape(size)).ravel()[border], len(_OFFSETS))
    )
    hit = np.flatnonzero(far < FAR)
    rays, far = np.concatenate([rays[:, inner], fine[:, hit]], axis=1), np.concatenate([depth[inner], far[hit]])
    owner = np.concatenate([inner, border[hit // len(_OFFSETS)]])
    share = np.concatenate([np.ones(len(inner)), np.full(len(hit), 1.0 / len(_OFFSETS))])
    colour = np.zeros((*size, 3), np.float32)
    for part in np.array_split(np.arange(len(owner)), 1 + len(owner) // _BATCH):
        sent = _shade(thing, camera.place + rays[:, part] * far[part], rays[:, part], light) * share[part]
        for channel in range(3):
            colour[..., channel] += np.bincount(owner[part], sent[channel], size[0] * size[1]).reshape(size)
    alpha = np.bincount(owner, share, size[0] * size[1]).reshape(size)
    return Layer(colour, np.minimum(alpha, 1.0).astype(np.float32))


# ------------------------------------------------------------------------------------------------- the set around them


class Room:
    """The table and the far, out-of-focus wall. Built once from a seed; :meth:`fetch_picture` is then pure."""

    def __init__(self, seed: int) -> None:
        source = np.random.default_rng([seed, 1])
        self._wall = _fetch_wall(source)
        self._table = _fetch_table(source)

    def fetch_picture(self, shadows: list[Thing], camera: Camera, light: Light, size: tuple[int, int]) -> Floats:
        """Give the room (H, W, 3) as the camera sees it, with the soft shadows of things on the table."""
        height, width = fine = (size[0] * 2, size[1] * 2)
        rays, ground = _fetch_ground(camera, fine)
        wall = self._fetch_wall_seen(rays, fine) * (light.room[:, 0] * np.float32(1.9))
        _, coarse_ground = _fetch_ground(camera, size)
        lamp, room = (
            cv2.resize(part.reshape(size), (width, height)) for part in _fetch_light_left(shadows, coarse_ground, light)
        )
        table = self._fetch_table_seen(ground, fine)
        table *= lamp[..., None] * light.lamp[:, 0] + room[..., None] * light.room[:, 0]
        table += cv2.flip(wall, 0) * np.float32(0.05)
        focus = np.clip(np.abs(ground[2] - 0.2) / 2.6 - 0.25, 0.0, 1.0).reshape(height, width, 1)
        table += (fetch_blurred(table, 5.0) - table) * focus
        share = np.clip((ground[2] - 2.6) / 0.8, 0.0, 1.0).astype(np.float32).reshape(fine)
        picture = table + (wall - table) * fetch_blurred(share, 6.0)[..., None]
        return np.asarray(cv2.resize(picture, (size[1], size[0]), interpolation=cv2.INTER_AREA), np.float32)

    def _fetch_wall_seen(self, rays: Floats, size: tuple[int, int]) -> Floats:
        across = (np.arctan2(rays[0], rays[2]) * 1100.0 + self._wall.shape[1] / 2).reshape(size)
        down = (self._wall.shape[0] * 0.62 - rays[1] * 1100.0).reshape(size)
        return np.asarray(
            cv2.remap(self._wall, across, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT), np.float32
        )

    def _fetch_table_seen(self, ground: Floats, size: tuple[int, int]) -> Floats:
        across = (np.clip(ground[0], -20, 20) * 200.0 + 1000.0).reshape(size).astype(np.float32)
        down = (np.clip(ground[2], -20, 20) * 200.0 + 1000.0).reshape(size).astype(np.float32)
        return np.asarray(
            cv2.remap(self._table, across, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT), np.float32
        )


def _fetch_ground(camera: Camera, size: tuple[int, int]) -> tuple[Floats, Floats]:
    """Give the ray of every pixel, and where it meets the table (very far when it never does)."""
    rows, columns = np.mgrid[0 : size[0], 0 : size[1]].astype(np.float32).reshape(2, -1)
    rays = _rays(camera, size, columns + np.float32(0.5), rows + np.float32(0.5))
    depth = np.where(rays[1] < -1e-4, -camera.place[1] / np.minimum(rays[1], -1e-4), np.float32(1e4))
    return rays, np.asarray(camera.place + rays * depth, np.float32)


def _fetch_light_left(things: list[Thing], ground: Floats, light: Light) -> tuple[Floats, Floats]:
    """Give how much of the lamp's and of the room's light reaches the table beside things, each 0..1."""
    lamp, room = np.full(ground.shape[1], 0.68, np.float32), np.full(ground.shape[1], 0.85, np.float32)
    for thing in things:
        offset = ground - column(*thing.centre)
        along = (offset * light.towards).sum(axis=0)
        shaded = np.flatnonzero((offset * offset).sum(axis=0) - along * along < (thing.radius + 0.1) ** 2)
        lamp[shaded] *= _shadow(thing.field, ground[:, shaded] + column(0, 0.01, 0), light, 12)
        near = np.flatnonzero(np.hypot(offset[0], offset[2]) < thing.radius + 0.3)
        room[near] *= np.clip(0.25 + 3.2 * thing.field(ground[:, near] + column(0, 0.12, 0)), 0.0, 1.0)
    return lamp, room


def _fetch_grey_noise(
    source: np.random.Generator, size: tuple[int, int], start: tuple[int, int], octaves: int
) -> Floats:
    """Give noise 0..1 of size (height, width); its coarsest layer has ``start`` cells down and across."""
    total = np.zeros(size, np.float32)
    for octave in range(octaves):
        cells = source.random((start[0] * 2**octave + 1, start[1] * 2**octave + 1), np.float32)
        total += cv2.resize(cells, (size[1], size[0]), interpolation=cv2.INTER_CUBIC) * np.float32(0.5**octave)
    return np.asarray(total / np.float32(2.0 - 0.5 ** (octaves - 1)), np.float32)


def _fetch_wall(source: np.random.Generator) -> Floats:
    """Give the far wall: plaster, a window's glow, and lamps far out of focus."""
    height, width = 520, 1500
    noise = _fetch_grey_noise(source, (height, width), (3, 8), 5)
    wall = (0.16 + 0.34 * noise)[..., None] * np.array([0.42, 0.52, 0.60], np.float32)
    fall = np.linspace(1.25, 0.45, width, dtype=np.float32)[None, :, None]
    wall = fetch_blurred(wall * fall, 5.0)
    for left, right in ((330, 470), (500, 640)):
        wall[60:300, left:right] += np.array([0.55, 0.62, 0.66], np.float32)
    wall = fetch_blurred(wall, 16.0)
    tints = np.array([[1.0, 0.55, 0.22], [1.0, 0.75, 0.45], [0.55, 0.75, 1.0], [0.9, 0.35, 0.25]], np.float32)
    for _ in range(46):
        centre = (int(source.integers(150, width - 150)), int(source.integers(90, 400)))
        radius = int(source.integers(9, 20))
        disc = np.zeros((height, width), np.float32)
        cv2.circle(disc, centre, radius, 1.0, -1, cv2.LINE_AA)
        cv2.circle(disc, centre, radius - 1, 1.35, 1, cv2.LINE_AA)
        tint = tints[source.integers(0, len(tints))] * source.uniform(0.12, 0.55)
        wall += fetch_blurred(disc, 1.2)[..., None] * tint.astype(np.float32)
    return np.asarray(wall, np.float32)


def _fetch_table(source: np.random.Generator) -> Floats:
    """Give the table top: planks of weathered wood, 200 texels a unit."""
    height, width = 2000, 2000
    grain = _fetch_grey_noise(source, (height, width), (60, 3), 5)
    stains = _fetch_grey_noise(source, (height, width), (5, 5), 4)
    value = 0.55 + 0.9 * (grain - 0.5) + 0.7 * (stains - 0.5)
    for index, row in enumerate(range(0, height, 125)):
        value[row : row + 125] *= 0.82 + 0.36 * source.random()
        value[row : row + 5] *= 0.35
        value[row : row + 125, int(source.integers(0, width - 6)) + index % 2 :][:, :4] *= 0.4
    return np.asarray(np.clip(value, 0.03, 1.2)[..., None] * np.array([0.27, 0.20, 0.145], np.float32), np.float32)
