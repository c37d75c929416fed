"""The cast of a synthetic shot: backgrounds, objects, look-alikes, shadows, reflections, passers-by."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np

from training.bank import ImageBank
from training.layers import Layer
from training.motion import STILL, Bending, Body, Path, crossing_path, random_bending, random_path
from training.shapes import blob, edge_region, fringed, patch

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Actor:
    """A layer with everything that decides where it is at a time.

    ``parallax`` is the share of the camera's travel it takes part in; ``drift`` the change of its brightness over the shot.
    ``is_wanted`` says whether it may be chosen as a target.
    """

    layer: Layer
    body: Body
    path: Path = STILL
    bending: Bending | None = None
    parallax: float = 1.0
    drift: float = 0.0
    defocus: float = 0.0
    is_wanted: bool = True


def random_crop(rng: np.random.Generator, picture: Array, side: int, least: float, most: float) -> Array:
    """A square crop of ``least`` to ``most`` of the shorter side, as side x side x 3 uint8, mirrored half the time."""
    height, width = picture.shape[:2]
    shorter = min(height, width)
    cut = max(int(shorter * rng.uniform(least, most)), min(64, shorter))
    top, left = int(rng.integers(height - cut + 1)), int(rng.integers(width - cut + 1))
    method = cv2.INTER_AREA if cut > side else cv2.INTER_CUBIC
    crop = cv2.resize(picture[top : top + cut, left : left + cut], (side, side), interpolation=method)
    return np.ascontiguousarray(crop[:, ::-1]) if rng.random() < 0.5 else crop


def recoloured(rng: np.random.Generator, picture: Array, strength: float) -> Array:
    """The picture (..., 3) uint8 with another brightness, contrast and tint; channels swapped now and then."""
    pixels = picture.astype(np.float32) * (1 + rng.uniform(-strength, strength)) + rng.uniform(-strength, strength) * 60
    pixels = pixels * (1 + rng.uniform(-strength, strength, 3).astype(np.float32) * 0.5)
    if rng.random() < strength:
        pixels = pixels[..., rng.permutation(3)]
    return np.clip(pixels, 0, 255).astype(np.uint8)


def premultiplied(colour: Array, alpha: Array) -> Array:
    """RGBA (h, w, 4) float32 premultiplied, from colour (h, w, 3) uint8 and alpha (h, w) float32 0..1."""
    pixels = np.empty((*alpha.shape, 4), np.float32)
    pixels[..., :3] = colour.astype(np.float32) / 255 * alpha[..., None]
    pixels[..., 3] = alpha
    return pixels


def background(rng: np.random.Generator, picture: Array, size: int) -> Actor:
    """A picture that fills the frame with room to move; in three shots of ten a part of it is a target."""
    colour = random_crop(rng, picture, int(size * 1.5), 0.4, 1.0)
    if rng.random() < 0.3:
        colour = recoloured(rng, colour, 0.25)
    region = _parts(rng, colour) if rng.random() < 0.35 else None
    side = colour.shape[0]
    scale = size * rng.uniform(1.0, 1.35) / side
    body = Body(np.array([size / 2, size / 2]), scale, rng.normal() * 0.05, side, side)
    layer = Layer(premultiplied(colour, np.ones((side, side), np.float32)), region, fills=True)
    return Actor(layer, body, parallax=rng.uniform(0.5, 1), defocus=rng.uniform(0.5, 3) if rng.random() < 0.2 else 0.0)


def _parts(rng: np.random.Generator, colour: Array) -> Array:
    """One to three regions of a surface as one target: along its edges, or patches with no edge at all."""
    height, width = colour.shape[:2]
    region = np.zeros((height, width), np.float32)
    for _ in range(int(rng.choice((1, 1, 1, 2, 3)))):
        piece = edge_region(rng, colour) if rng.random() < 0.6 else patch(rng, height, width)
        region = np.maximum(region, piece)
    return region


def _cutout_look(rng: np.random.Generator, bank: ImageBank, side: int) -> tuple[Array, Array]:
    pixels = bank.cutout(rng)
    height, width = pixels.shape[:2]
    scale = side / max(height, width)
    size = (max(8, int(width * scale)), max(8, int(height * scale)))
    pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    colour, alpha = pixels[..., :3], pixels[..., 3].astype(np.float32) / 255
    if rng.random() < 0.5:
        colour = recoloured(rng, colour, 0.2)
    if rng.random() < 0.3:  # a drawing gets the surface of a photograph
        surface = random_crop(rng, bank.surface(rng), side, 0.2, 1.0)[: size[1], : size[0]]
        share = rng.uniform(0.2, 0.5)
        colour = cv2.addWeighted(np.ascontiguousarray(colour), 1 - share, np.ascontiguousarray(surface), share, 0)
    if rng.random() < 0.5:
        colour, alpha = colour[:, ::-1], alpha[:, ::-1]
    return np.ascontiguousarray(colour), np.ascontiguousarray(alpha)


def _piece_look(rng: np.random.Generator, picture: Array, side: int) -> tuple[Array, Array]:
    """A piece cut out of a picture along its own edges, trimmed to its box."""
    colour = random_crop(rng, picture, side, 0.3, 1.0)
    alpha = edge_region(rng, colour)
    rows, columns = np.where(alpha > 0.1)
    if len(rows) < 64:
        return colour, blob(rng, side)
    box = (slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1))
    return np.ascontiguousarray(colour[box]), np.ascontiguousarray(alpha[box])


def _painted_look(rng: np.random.Generator, bank: ImageBank, picture: Array, side: int) -> tuple[Array, Array]:
    """A random outline, or a cutout's, filled with one or several surfaces."""
    if rng.random() < 0.6:
        alpha = blob(rng, side)
    else:
        alpha = (
            cv2.resize(bank.cutout(rng)[..., 3], (side, side), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
        )
    colour = recoloured(rng, random_crop(rng, picture, side, 0.15, 0.9), 0.25)
    for _ in range(int(rng.integers(0, 4))):
        other = recoloured(rng, random_crop(rng, bank.surface(rng), side, 0.1, 0.6), 0.25)
        colour = np.where(patch(rng, side, side)[..., None] > 0.5, other, colour)
    return colour, alpha


def _random_body(rng: np.random.Generator, shape: tuple[int, ...], size: int) -> Body:
    """Where and how large: a third of all objects are small, 4 % to 18 % of the frame's width."""
    extent = np.exp(rng.uniform(np.log(0.05), np.log(0.18)) if rng.random() < 0.33 else rng.uniform(np.log(0.18), 0.0))
    height, width = shape[:2]
    rotation = rng.uniform(-0.2, 0.2) if rng.random() < 0.75 else rng.uniform(-np.pi, np.pi)
    turn = rng.uniform(0, 0.5) if rng.random() < 0.25 else 0.0
    return Body(rng.uniform(0.12, 0.88, 2) * size, extent * size / max(height, width), rotation, width, height, turn)


def an_object(rng: np.random.Generator, bank: ImageBank, scenery: Array, size: int, speed: float) -> Actor:
    """One object with its own look, part, body and path; ``scenery`` is the background's picture (some objects match it)."""
    picture = scenery if rng.random() < 0.15 else bank.surface(rng)
    kind = rng.random()
    if kind < 0.45:
        colour, alpha = _cutout_look(rng, bank, size)
    elif kind < 0.68:
        colour, alpha = _piece_look(rng, picture, size)
    else:
        colour, alpha = _painted_look(rng, bank, picture, size)
    if rng.random() < 0.12:
        alpha = fringed(rng, alpha)
    region = _parts(rng, colour) if rng.random() < 0.4 else None
    opacity = rng.uniform(0.45, 0.85) if rng.random() < 0.08 else 1.0
    body = _random_body(rng, alpha.shape, size)
    amplitude = float(rng.choice((0, 0.01, 0.03, 0.05))) * min(1.0, speed + 0.3) * size
    return Actor(
        Layer(premultiplied(colour, alpha), region, opacity),
        body,
        random_path(rng, speed * float(rng.choice((0.15, 1, 1)))),
        random_bending(rng, size, amplitude) if amplitude > 0 else None,
        parallax=rng.uniform(0.8, 1.2),
        drift=rng.uniform(-0.15, 0.15) * min(1.0, speed * 2),
        defocus=rng.uniform(0.5, 2.5) if rng.random() < 0.08 else 0.0,
    )


def look_alike(rng: np.random.Generator, actor: Actor, size: int, speed: float) -> Actor:
    """The same surface elsewhere, a little larger or smaller, on its own path: a distractor, or one of a crowd."""
    centre = np.clip(actor.body.centre + rng.normal(size=2) * size * 0.25, 0.05 * size, 0.95 * size)
    body = replace(
        actor.body,
        centre=centre,
        scale=actor.body.scale * rng.uniform(0.7, 1.3),
        rotation=actor.body.rotation + rng.normal() * 0.2,
    )
    return replace(actor, body=body, path=random_path(rng, speed), layer=replace(actor.layer, region=None))


def shadow(rng: np.random.Generator, actor: Actor) -> Actor:
    """A soft dark shape that follows an object, below it and to one side."""
    alpha = cv2.GaussianBlur(actor.layer.texture[..., 3], (0, 0), rng.uniform(1, 6))
    texture = premultiplied(np.full((*alpha.shape, 3), 10, np.uint8), alpha)
    reach = actor.body.scale * max(alpha.shape)
    offset = np.array([rng.uniform(-0.3, 0.3), rng.uniform(0.05, 0.35)]) * reach
    body = replace(actor.body, centre=actor.body.centre + offset)
    layer = Layer(texture, None, rng.uniform(0.25, 0.65))
    return replace(actor, layer=layer, body=body, is_wanted=bool(rng.random() < 0.15))


def reflection(rng: np.random.Generator, actor: Actor) -> Actor:
    """The object upside down below itself, as in water or on a floor; a target like any other."""
    texture = np.ascontiguousarray(actor.layer.texture[::-1])
    reach = actor.body.scale * actor.body.texture_height
    body = replace(
        actor.body,
        centre=actor.body.centre + np.array([0, reach * rng.uniform(0.8, 1.1)]),
        rotation=-actor.body.rotation,
    )
    return replace(actor, layer=Layer(texture, None, rng.uniform(0.3, 0.7)), body=body, bending=None)


def passer_by(rng: np.random.Generator, actor: Actor, hidden: Actor, size: int) -> Actor:
    """``actor`` made to cross the place of ``hidden`` from outside the frame, so that it hides it for a while."""
    angle = rng.uniform(0, 2 * np.pi)
    start = np.array([0.5 + 0.9 * np.cos(angle), 0.5 + 0.9 * np.sin(angle)])
    body = replace(
        actor.body, centre=start * size, scale=max(actor.body.scale, hidden.body.scale * rng.uniform(0.7, 1.5))
    )
    return replace(actor, body=body, path=crossing_path(rng, start, hidden.body.centre / size))
