"""A small moving shot as files: two textured objects drift over a background. The truth is exact."""

import cv2
import numpy as np

from xmem_client import hash_file
from xmem_protocol import PRESENT, Key, Plate, PropagationSettings, Shot
from xmem_server.plans import KeySource, PlateSource, PropagationPlan

HEIGHT, WIDTH, FIRST, COUNT = 112, 160, 1001, 10
SHOT = Shot("moving", WIDTH, HEIGHT, 1.0, FIRST, FIRST + COUNT - 1, "auto")


def blotches(seed, height, width, colour):
    """Give (height, width, 3) BGR 0..255 of soft blotches around a colour."""
    coarse = np.random.default_rng(seed).random((6, 6, 3)).astype(np.float32)
    soft = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(np.array(colour) + 90 * (soft - 0.5), 0, 255)


def ids_at(index):
    ids = np.zeros((HEIGHT, WIDTH), np.uint8)
    ids[8:56, 10 + 2 * index : 58 + 2 * index] = 1
    ids[64:104, 110 - 2 * index : 150 - 2 * index] = 2
    return ids


def save_scene(folder):
    """Write plates and index masks below a folder; give the plate and mask paths by frame number."""
    folder.mkdir(parents=True, exist_ok=True)
    background = blotches(0, HEIGHT, WIDTH, (80, 110, 80))
    textures = {1: blotches(1, 48, 48, (50, 150, 220)), 2: blotches(2, 40, 40, (200, 80, 50))}
    plates, masks = {}, {}
    for index in range(COUNT):
        picture, ids = background.copy(), ids_at(index)
        for object_id, texture in textures.items():
            picture[ids == object_id] = texture.reshape(-1, 3)
        frame = FIRST + index
        plates[frame], masks[frame] = folder / f"plate.{frame}.png", folder / f"mask.{frame}.png"
        cv2.imwrite(str(plates[frame]), picture.astype(np.uint8))
        cv2.imwrite(str(masks[frame]), ids)
    return plates, masks


def wire_plates(plates):
    """Give what a client sends of plates."""
    return [(Plate(frame, hash_file(path), 0, path.suffix), path) for frame, path in plates.items()]


def wire_key(frame, object_id, path, selector=None):
    return Key(frame, object_id, PRESENT, hash_file(path), path.suffix, selector or f"index:{object_id}")


def plan_of(folder, plates, masks, keyed=(FIRST,), **changes):
    """Give a propagation plan over the scene, its cache and scratch below a folder."""
    for name in ("cache", "scratch"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    keys = [KeySource(wire_key(f, o, masks[f]), str(masks[f])) for f in keyed for o in (1, 2)]
    sources = [PlateSource(f, str(path), hash_file(path), 0, path.suffix) for f, path in plates.items()]
    fields = {
        "job": "job",
        "session": "session",
        "shot": SHOT,
        "plates": tuple(sources),
        "keys": tuple(keys),
        "settings": PropagationSettings(FIRST, FIRST + COUNT - 1, snapshot_every=3),
        "finished": (),
        "snapshot": "",
        "cache": str(folder / "cache"),
        "scratch": str(folder / "scratch"),
    }
    return PropagationPlan(**{**fields, **changes})
