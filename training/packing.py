"""Turn candidate image files into one ``.bin`` and one ``.json`` a package: filtered, shrunk, with its package kept."""

from __future__ import annotations

import io
import json
import zipfile
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

Image.MAX_IMAGE_PIXELS = None  # sky panoramas are larger than Pillow's limit against hostile files; these are not

PHOTO_SIDE = 1280  # long side kept of a photograph: crops of 384 px still show real detail
TEXTURE_SIDE = 512
CUTOUT_SIDE = 384


@dataclass(frozen=True)
class Candidate:
    """One image file of a package (``member`` names it inside a zip, else is empty)."""

    path: Path
    member: str
    package: str
    role: str
    has_cutouts: bool


@dataclass(frozen=True)
class Packed:
    """One encoded image: ``kind`` photo, texture or cutout; ``richness`` counts its colours (32 levels a channel)."""

    kind: str
    package: str
    name: str
    width: int
    height: int
    richness: int
    content: bytes


def open_image(candidate: Candidate) -> Image.Image:
    """The image as Pillow RGB or RGBA, colours 8 bit as stored."""
    if candidate.member:
        image: Image.Image = Image.open(io.BytesIO(open_archive(candidate.path).read(candidate.member)))
    else:
        image = Image.open(candidate.path)
        if image.format == "JPEG":
            image.draft("RGB", (2 * PHOTO_SIDE, 2 * PHOTO_SIDE))
    if image.mode == "P":
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    return image if image.mode in ("RGB", "RGBA") else image.convert("RGB")


@lru_cache(maxsize=1)
def open_archive(path: Path) -> zipfile.ZipFile:
    """The zip file, kept open: reading the list of 0ad's 30,000 members takes longer than reading one of them."""
    return zipfile.ZipFile(path)


def colour_count(rgb: np.ndarray[Any, Any]) -> int:
    """How many different colours (5 bits a channel) the pixels (..., 3) uint8 have."""
    return len(np.unique((rgb >> 3).reshape(-1, 3).astype(np.int32) @ np.array([1, 32, 1024])))


def detail(rgb: np.ndarray[Any, Any]) -> float:
    """Mean step between neighbouring pixels, 0..255, of an image shrunk to 128x128: flat drawings score below 4."""
    grey = cv2.resize(rgb, (128, 128), interpolation=cv2.INTER_AREA).astype(np.float32).mean(2)
    return float(np.abs(np.diff(grey, axis=1)).mean() + np.abs(np.diff(grey, axis=0)).mean())


def shrink(image: Image.Image, side: int) -> np.ndarray[Any, Any]:
    """The image as HxWx3|4 uint8 with its long side at most ``side``."""
    scale = side / max(image.size)
    if scale < 1:
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        image = image.resize(size, Image.Resampling.LANCZOS)
    return np.asarray(image)


def tiles(image: Image.Image) -> list[Image.Image]:
    """A photograph's opaque part cut into pieces no wider than twice their height (panoramas give several)."""
    if image.mode == "RGBA":
        alpha = np.asarray(image.getchannel("A").resize((64, 64), Image.Resampling.BOX))
        rows = np.flatnonzero((alpha > 247).mean(1) > 0.97)
        if len(rows) < 12:
            return []
        top, bottom = int(rows[0] / 64 * image.height), int((rows[-1] + 1) / 64 * image.height)
        image = image.convert("RGB").crop((0, top, image.width, bottom))
    count = max(1, image.width // (2 * image.height))
    step = image.width // count
    return [image.crop((i * step, 0, (i + 1) * step, image.height)) for i in range(count)]


def pack_opaque(candidate: Candidate, image: Image.Image) -> list[Packed]:
    """The photographs or textures one image gives; none when it is small, flat or poor in colours."""
    found = []
    side = PHOTO_SIDE if candidate.role == "photo" else TEXTURE_SIDE
    least_detail = 2.0 if candidate.role == "photo" else 4.0  # a calm sky is a good photograph, a flat texture is not
    # The alpha of a game's texture is gloss or a team's colour, not transparency: its colours count everywhere.
    for number, tile in enumerate(tiles(image) if candidate.role == "photo" else [image]):
        rgb = shrink(tile.convert("RGB"), side)
        if min(rgb.shape[:2]) < 200:
            continue
        richness = colour_count(cv2.resize(rgb, (128, 128), interpolation=cv2.INTER_AREA))
        if richness < 350 or detail(rgb) < least_detail:
            continue
        name = f"{candidate.path.name}:{candidate.member}:{number}"
        content = cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()
        height, width = rgb.shape[:2]
        found.append(Packed(candidate.role, candidate.package, name, width, height, richness, content))
    return found


def pack_cutout(candidate: Candidate, image: Image.Image) -> list[Packed]:
    """The cutout one RGBA image gives, trimmed to its alpha; none when it is mostly soft, empty, full or in bits."""
    if min(image.size) < 100:
        return []
    pixels = shrink(image, CUTOUT_SIDE)
    alpha = pixels[..., 3]
    if not 0.06 < (alpha > 127).mean() < 0.93:
        return []
    rows, columns = np.where(alpha > 20)
    pixels = pixels[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    alpha = pixels[..., 3]
    solid = (alpha > 127).astype(np.uint8)
    in_bits = cv2.connectedComponents(solid)[0] - 1 > 12
    if min(alpha.shape) < 48 or in_bits or ((alpha > 25) & (alpha < 230)).mean() > 0.35:
        return []
    richness = colour_count(pixels[..., :3][solid > 0])
    content = cv2.imencode(".png", np.ascontiguousarray(pixels[..., [2, 1, 0, 3]]))[1].tobytes()
    height, width = alpha.shape
    name = f"{candidate.path.name}:{candidate.member}"
    return [Packed("cutout", candidate.package, name, width, height, richness, content)]


def pack_candidate(candidate: Candidate) -> list[Packed]:
    """What one file gives; a file Pillow cannot read gives nothing."""
    try:
        image = open_image(candidate)
        image.load()
        if image.mode == "RGBA" and candidate.has_cutouts:
            small = np.asarray(image.getchannel("A").resize((64, 64), Image.Resampling.BOX))
            if (small > 127).mean() < 0.97:
                return pack_cutout(candidate, image)
        return pack_opaque(candidate, image) if candidate.role != "none" else []
    except (OSError, ValueError, NotImplementedError, SyntaxError):
        return []


def pack(candidates: list[Candidate], folder: Path, package: str, processes: int) -> Counter[str]:
    """How many images of each kind one package gave; written to folder/PACKAGE.bin and .json, complete or absent."""
    folder.mkdir(parents=True, exist_ok=True)
    counts: Counter[str] = Counter()
    seen: set[bytes] = set()
    index = []
    partial = folder / f"{package}.partial"
    with partial.open("wb") as out:
        for packed in _packed(candidates, processes):
            if packed.content in seen:
                continue
            seen.add(packed.content)
            entry = {key: value for key, value in vars(packed).items() if key != "content"}
            index.append({**entry, "offset": out.tell(), "nbytes": len(packed.content)})
            out.write(packed.content)
            counts[packed.kind] += 1
    partial.rename(folder / f"{package}.bin")
    (folder / f"{package}.json").write_text(json.dumps(index, indent=0))
    return counts


def _packed(candidates: list[Candidate], processes: int) -> Iterable[Packed]:
    if processes <= 1:
        for candidate in candidates:
            yield from pack_candidate(candidate)
        return
    with ProcessPoolExecutor(processes) as pool:
        for found in pool.map(pack_candidate, candidates, chunksize=16):
            yield from found
