"""Layers of a synthetic shot and their exact composite.

Colours are float32 0..1 RGB multiplied by alpha (display-referred). A pixel's alpha is computed, never thresholded: motion
blur and defocus filter colour and alpha together, so the alpha of a blurred object is known as exactly as a sharp one's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Layer:
    """One moving surface.

    ``texture`` (h, w, 4) premultiplied RGBA; ``region`` (h, w) marks the part of it that is a target of its own, or is None;
    ``opacity`` below 1 makes a reflection or shadow: colours mix, but the matte wanted is still the full shape.
    ``fills`` repeats the texture by mirroring, so that a background has no border.
    """

    texture: Array
    region: Array | None = None
    opacity: float = 1.0
    fills: bool = False


@dataclass(frozen=True)
class Placement:
    """Where a layer is in one frame.

    ``inverse`` (2, 3) maps frame pixels (x, y, 1) to texture pixels; ``bend`` (S, S, 2) is added to those, in texture pixels;
    ``streak`` (dx, dy) is the motion blur in frame pixels, ``defocus`` a Gaussian's sigma, ``gain`` multiplies the colour.
    """

    inverse: Array
    bend: Array | None = None
    streak: tuple[float, float] = (0.0, 0.0)
    defocus: float = 0.0
    gain: float = 1.0


@dataclass(frozen=True)
class Rendered:
    """A layer seen in one frame: colour (S, S, 3) premultiplied, alpha (S, S), region (S, S) at most alpha, or None."""

    colour: Array
    alpha: Array
    region: Array | None
    opacity: float


def render(layer: Layer, placement: Placement, size: int) -> Rendered:
    """The layer in a frame of size x size pixels, by bilinear lookup from its texture shrunk to about the drawn scale."""
    inverse = placement.inverse
    rows, columns = np.mgrid[0:size, 0:size].astype(np.float32)
    x = inverse[0, 0] * columns + inverse[0, 1] * rows + inverse[0, 2]
    y = inverse[1, 0] * columns + inverse[1, 1] * rows + inverse[1, 2]
    if placement.bend is not None:
        x, y = x + placement.bend[..., 0], y + placement.bend[..., 1]
    shrink = float(np.sqrt(abs(np.linalg.det(inverse[:, :2]))))
    texture, region = layer.texture, layer.region
    if shrink > 1.5:  # bilinear lookup alone would alias: the area average of the right size comes first
        height, width = texture.shape[:2]
        target = (max(2, round(width / shrink)), max(2, round(height / shrink)))
        texture = cv2.resize(texture, target, interpolation=cv2.INTER_AREA)
        region = None if region is None else cv2.resize(region, target, interpolation=cv2.INTER_AREA)
        x = (x + 0.5) * (target[0] / width) - 0.5
        y = (y + 0.5) * (target[1] / height) - 0.5
    x, y = x.astype(np.float32), y.astype(np.float32)
    border = cv2.BORDER_REFLECT if layer.fills else cv2.BORDER_CONSTANT
    pixels = cv2.remap(texture, x, y, cv2.INTER_LINEAR, borderMode=border)
    seen = None if region is None else cv2.remap(region, x, y, cv2.INTER_LINEAR, borderMode=border) * pixels[..., 3]
    pixels, seen = blurred(pixels, placement), None if seen is None else blurred(seen, placement)
    return Rendered(pixels[..., :3] * placement.gain, pixels[..., 3], seen, layer.opacity)


def blurred(pixels: Array, placement: Placement) -> Array:
    """Pixels (S, S) or (S, S, 4) under the placement's motion blur and defocus; unchanged when it has none."""
    length = float(np.hypot(*placement.streak))
    if length > 1.5:
        pixels = cv2.filter2D(pixels, -1, streak_kernel(placement.streak), borderType=cv2.BORDER_REPLICATE)
    if placement.defocus > 0:
        pixels = cv2.GaussianBlur(pixels, (0, 0), placement.defocus, borderType=cv2.BORDER_REPLICATE)
    return pixels


def streak_kernel(streak: tuple[float, float]) -> Array:
    """The kernel of a straight motion of ``streak`` pixels (dx, dy), odd square, sums to 1."""
    reach = int(np.ceil(max(abs(streak[0]), abs(streak[1])) / 2))
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1), np.float32)
    for along in np.linspace(-0.5, 0.5, 4 * reach + 1):
        column, row = reach + along * streak[0], reach + along * streak[1]
        left, top = int(np.floor(column)), int(np.floor(row))
        for dy, dx in ((0, 0), (0, 1), (1, 0), (1, 1)):
            weight = (1 - abs(column - left - dx)) * (1 - abs(row - top - dy))
            if weight > 0:
                kernel[top + dy, left + dx] += weight
    return kernel / kernel.sum()


def composite(rendered: list[Rendered]) -> Array:
    """The frame (S, S, 3): layers over one another, the first is the bottom and covers everything."""
    frame = rendered[0].colour
    for layer in rendered[1:]:
        frame = frame * (1 - layer.alpha * layer.opacity)[..., None] + layer.colour * layer.opacity
    return frame


def visible(rendered: list[Rendered], position: int, solid: frozenset[int]) -> Array:
    """How much of what lies at ``position`` the layers above let through, (S, S) in 0..1.

    A translucent layer lets its share through unless it is in ``solid`` (it is a target itself, so its full shape counts and
    the targets of one pixel never sum to more than 1).
    """
    through = np.ones_like(rendered[position].alpha)
    for above in range(position + 1, len(rendered)):
        opacity = 1.0 if above in solid else rendered[above].opacity
        through = through * (1 - rendered[above].alpha * opacity)
    return through
