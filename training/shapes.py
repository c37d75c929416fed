"""Shapes of objects and of parts: random outlines, regions cut along a picture's own edges, hair-like fringes.

All are float32 in 0..1 with soft (antialiased) borders, so that the alpha of a shot is known, not thresholded.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

Array = np.ndarray[Any, Any]
OVERSAMPLE = 2  # outlines are drawn this much larger, then shrunk by area: exact soft borders


def blob(rng: np.random.Generator, size: int) -> Array:
    """A random outline, size x size float32, filling most of the square: wobbly, polygonal, articulated or cloud-like."""
    side = size * OVERSAMPLE
    mask = np.zeros((side, side), np.uint8)
    kind = rng.random()
    if kind < 0.4:
        cv2.fillPoly(mask, [_wobbly_outline(rng, side)], 255)
    elif kind < 0.55:
        corners = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(3, 8))))
        points = np.stack([np.cos(corners) * rng.uniform(0.5, 1), np.sin(corners)], 1) * side * 0.46 + side / 2
        cv2.fillPoly(mask, [points.astype(np.int32)], 255)
    elif kind < 0.78:
        _draw_limbs(rng, mask)
    else:
        mask = _cloud(rng, side)
    if mask.mean() < 255 * 0.01:
        cv2.circle(mask, (side // 2, side // 2), side // 3, 255, -1)
    return cv2.resize(mask, (size, size), interpolation=cv2.INTER_AREA).astype(np.float32) / 255


def _wobbly_outline(rng: np.random.Generator, side: int) -> Array:
    angle = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    radius = np.ones(72)
    for harmonic in range(1, int(rng.integers(3, 9))):
        radius += rng.uniform(-0.45, 0.45) / harmonic**0.7 * np.cos(harmonic * angle + rng.uniform(0, 2 * np.pi))
    radius = np.clip(radius, 0.12, None) / radius.max()
    flat = rng.uniform(0.35, 1)
    points = np.stack([radius * np.cos(angle), radius * np.sin(angle) * flat], 1) * side * 0.47 + side / 2
    return points.astype(np.int32)


def _draw_limbs(rng: np.random.Generator, mask: Array) -> None:
    """Thick strokes that hang together, with a head on one of them: people-like and bike-like silhouettes."""
    side = mask.shape[0]
    start = rng.uniform(0.25, 0.75, 2) * side
    for _ in range(int(rng.integers(2, 8))):
        end = np.clip(start + rng.uniform(-0.5, 0.5, 2) * side, side * 0.06, side * 0.94)
        width = max(2, int(side * rng.uniform(0.02, 0.17)))
        cv2.line(mask, (int(start[0]), int(start[1])), (int(end[0]), int(end[1])), 255, width)
        if rng.random() < 0.3:
            radius = int(side * rng.uniform(0.04, 0.15))
            cv2.ellipse(
                mask, (int(end[0]), int(end[1])), (radius, int(radius * rng.uniform(0.6, 1.2))), 0, 0, 360, 255, -1
            )
        if rng.random() < 0.6:
            start = end


def _cloud(rng: np.random.Generator, side: int) -> Array:
    noise = cv2.resize(rng.normal(size=(6, 6)).astype(np.float32), (side, side), interpolation=cv2.INTER_CUBIC)
    rows, columns = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    mask = ((noise - 2.2 * (columns**2 + rows**2) ** 2 + rng.uniform(0, 0.8)) > 0).astype(np.uint8)
    count, labels, found, _ = cv2.connectedComponentsWithStats(mask)
    if count > 1:
        mask = (labels == 1 + np.argmax(found[1:, cv2.CC_STAT_AREA])).astype(np.uint8)
    return mask * 255


def fringed(rng: np.random.Generator, alpha: Array) -> Array:
    """``alpha`` with fine strands growing out of its border: hair, grass, fur. Same shape."""
    contours, _ = cv2.findContours((alpha > 0.5).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    if not contours:
        return alpha
    outline = max(contours, key=len)[:, 0]
    size = alpha.shape[0]
    strands = np.zeros(alpha.shape, np.uint8)
    lean, length = rng.uniform(0, 2 * np.pi), size * rng.uniform(0.02, 0.1)
    first, count = int(rng.integers(len(outline))), int(len(outline) * rng.uniform(0.2, 1))
    for step in range(0, count, 2):
        root = outline[(first + step) % len(outline)]
        angle = lean + rng.normal() * 0.5
        reach = length * rng.uniform(0.4, 1.3)
        tip = (int(root[0] + np.cos(angle) * reach), int(root[1] + np.sin(angle) * reach))
        cv2.line(strands, (int(root[0]), int(root[1])), tip, int(rng.integers(110, 256)), 1, cv2.LINE_AA)
    return np.maximum(alpha, strands.astype(np.float32) / 255)


def edge_region(rng: np.random.Generator, picture: Array) -> Array:
    """A region of a picture (HxWx3 uint8) that ends where the picture's own edges are: flood fill or watershed.

    Float32 HxW; a random patch when the picture has no usable region (1.5 % to 45 % of it).
    """
    height, width = picture.shape[:2]
    small = cv2.resize(picture, (128, 128), interpolation=cv2.INTER_AREA)
    small = cv2.medianBlur(small, 5)
    for _ in range(3):
        region = _flood(rng, small) if rng.random() < 0.5 else _watershed(rng, small)
        region = cv2.morphologyEx(region, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
        region = cv2.morphologyEx(region, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
        if 0.015 < (region > 0).mean() < 0.45:
            large = cv2.resize(region.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
            sharpness = max(2.0, 128 / max(height, width) * 4)  # the border stays about two pixels wide
            return np.clip((large - 0.5) * sharpness + 0.5, 0, 1).astype(np.float32)
    return patch(rng, height, width)


def _flood(rng: np.random.Generator, small: Array) -> Array:
    mask = np.zeros((130, 130), np.uint8)
    tolerance = (int(rng.choice((6, 9, 13, 18))),) * 3
    seed = (int(rng.integers(16, 112)), int(rng.integers(16, 112)))
    flags = 4 | (1 << 8) | cv2.FLOODFILL_MASK_ONLY
    cv2.floodFill(small.copy(), mask, seed, 0, tolerance, tolerance, flags)
    return mask[1:-1, 1:-1]


def _watershed(rng: np.random.Generator, small: Array) -> Array:
    """One watershed basin with the basins of alike colour that touch its box: object-like pieces with curved borders."""
    count = int(rng.integers(12, 40))
    markers = np.zeros((128, 128), np.int32)
    spots = rng.integers(4, 124, (count, 2))
    for number, (row, column) in enumerate(spots):
        cv2.circle(markers, (int(column), int(row)), 2, number + 1, -1)
    labels = cv2.watershed(small, markers)
    colours = small[spots[:, 0], spots[:, 1]].astype(np.float32)
    chosen = int(rng.integers(count))
    near = np.abs(spots - spots[chosen]).max(1) < rng.uniform(15, 60)
    alike = np.abs(colours - colours[chosen]).max(1) < rng.uniform(10, 60)
    members = np.flatnonzero(near & alike) + 1
    region = np.isin(labels, np.append(members, chosen + 1)).astype(np.uint8)
    return cv2.dilate(region, np.ones((3, 3), np.uint8))  # closes the one-pixel lines between basins


def patch(rng: np.random.Generator, height: int, width: int) -> Array:
    """A blob of 15 % to 60 % of the shorter side somewhere in height x width, float32: a part with no edge of its own."""
    side = max(4, int(min(height, width) * rng.uniform(0.15, 0.6)))
    top, left = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
    region = np.zeros((height, width), np.float32)
    region[top : top + side, left : left + side] = blob(rng, side)
    return region
