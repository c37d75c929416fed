"""Where the shot generator takes pictures from: the packed Debian images, or procedural textures that need no download."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from training.shapes import blob

Array = np.ndarray[Any, Any]
TRAINING, VALIDATION = "training", "validation"
HELD_OUT = 16  # one picture in 16, by the checksum of its name, is only ever seen in validation


class ImageBank(Protocol):
    """A source of pictures; every draw depends on the generator alone."""

    def surface(self, rng: np.random.Generator) -> Array:
        """An opaque picture, HxWx3 uint8 RGB, at least 200 pixels a side."""

    def cutout(self, rng: np.random.Generator) -> Array:
        """A picture with transparency, HxWx4 uint8 RGBA, colours not multiplied by alpha."""


class PackedBank:
    """The pictures that ``training.sources`` packed. Raises FileNotFoundError naming the command when there are none."""

    def __init__(self, folder: Path, split: str = TRAINING, left_out: tuple[str, ...] = ()) -> None:
        entries = []
        self._bytes = {}
        for index in sorted(folder.glob("*.json")):
            found = json.loads(index.read_text())
            if found and index.stem not in left_out:
                entries += found
                self._bytes[index.stem] = np.memmap(index.with_suffix(".bin"), np.uint8, "r")
        if not entries:
            raise FileNotFoundError(f"Wanted packed images in {folder}; run `python -m training.sources` first.")
        held = [zlib.crc32(entry["name"].encode()) % HELD_OUT == 0 for entry in entries]
        wanted = split == VALIDATION
        kept = [entry for entry, is_held in zip(entries, held, strict=True) if is_held == wanted]
        self.photos = [entry for entry in kept if entry["kind"] == "photo"]
        self.textures = [entry for entry in kept if entry["kind"] == "texture"]
        cutouts = [entry for entry in kept if entry["kind"] == "cutout"]
        # Many clip-art cutouts have a dozen colours; the rich ones look like photographs and are drawn as often.
        self.rich = [entry for entry in cutouts if entry["richness"] > 300]
        self.plain = [entry for entry in cutouts if entry["richness"] <= 300]

    def surface(self, rng: np.random.Generator) -> Array:
        """See ImageBank; photographs are the scarce item and are drawn as often as all others."""
        return self._draw(rng, self.photos, self.textures, 0.5)[..., :3]

    def cutout(self, rng: np.random.Generator) -> Array:
        """See ImageBank."""
        return self._draw(rng, self.rich, self.plain, 0.7)

    def _draw(self, rng: np.random.Generator, first: list[Any], second: list[Any], share: float) -> Array:
        chosen = first if first and (rng.random() < share or not second) else second
        entry = chosen[int(rng.integers(len(chosen)))]
        content = self._bytes[entry["package"]][entry["offset"] : entry["offset"] + entry["nbytes"]]
        pixels = cv2.imdecode(content, cv2.IMREAD_UNCHANGED)
        if pixels is None:
            raise ValueError(
                f"{entry['name']} of {entry['package']} is damaged; delete its packed files and pack again."
            )
        order = cv2.COLOR_BGRA2RGBA if pixels.shape[2] == 4 else cv2.COLOR_BGR2RGB
        return cv2.cvtColor(pixels, order)


class ProceduralBank:
    """Coloured noise over several octaves, stripes and checks; blobs of it as cutouts. For tests and a first look."""

    side = 224

    def surface(self, rng: np.random.Generator) -> Array:
        """See ImageBank."""
        side = self.side
        picture = np.zeros((side, side, 3), np.float32)
        for cells in (2, 5, 12, 40, 112):
            noise = rng.normal(size=(cells, cells, 3)).astype(np.float32)
            picture += cv2.resize(noise, (side, side), interpolation=cv2.INTER_CUBIC) * cells**-0.4
        if rng.random() < 0.5:
            rows, columns = np.mgrid[0:side, 0:side].astype(np.float32)
            angle, period = rng.uniform(0, np.pi), rng.uniform(6, 50)
            wave = np.sin((rows * np.sin(angle) + columns * np.cos(angle)) * 2 * np.pi / period)
            picture += np.sign(wave)[..., None] * rng.normal(size=3).astype(np.float32) * 0.5
        picture = 127 + 50 * picture @ rng.normal(size=(3, 3)).astype(np.float32) * 0.6
        return np.clip(picture + rng.uniform(-40, 40, 3).astype(np.float32), 0, 255).astype(np.uint8)

    def cutout(self, rng: np.random.Generator) -> Array:
        """See ImageBank."""
        alpha = (blob(rng, self.side) * 255).astype(np.uint8)
        return np.dstack([self.surface(rng), alpha])


def fetch_bank(folder: Path | None, split: str = TRAINING, left_out: tuple[str, ...] = ()) -> ImageBank:
    """The packed images in ``folder`` without the packages ``left_out``, or the procedural bank for None."""
    return ProceduralBank() if folder is None else PackedBank(folder, split, left_out)
