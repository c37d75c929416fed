"""A picture of a whole run: one row a frame, with the plate, the matte's edge over it, and the alpha.

Pictures are (H, W, 3) float32 RGB display-referred 0..1, alphas (H, W) float32 0..1 of the same size; both are shrunk
to the sheet here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]

PANEL = (330, 240)  # most width and height of one picture on the sheet
_GAP, _LABEL, _HEAD = 6, 78, 34
_GREY, _WHITE, _KEY = (34, 34, 34), (225, 225, 225), (255, 196, 64)
# Objects keep their colour from sheet to sheet. Chosen to differ in lightness too.
_COLOURS = ((80, 255, 120), (255, 90, 90), (90, 170, 255), (255, 220, 70), (230, 110, 255), (100, 240, 240))
_FONT = cv2.FONT_HERSHEY_SIMPLEX


@dataclass(frozen=True)
class SheetRow:
    """One frame on the sheet; ``alphas`` by object id, ``is_key`` whether the artist drew it."""

    frame: int
    picture: Floats
    alphas: Mapping[int, Floats]
    is_key: bool


def pick_frames(frames: Sequence[int], keys: Sequence[int], count: int = 8) -> tuple[int, ...]:
    """Give about ``count`` frames in order: the keys (evenly chosen if there are too many), then the widest gaps' middles."""
    known = sorted(set(keys) & set(frames))
    ordered = sorted(set(frames))
    if len(known) > count:
        known = [known[round(place)] for place in np.linspace(0, len(known) - 1, count)]
    chosen = set(known or ordered[:1])
    while len(chosen) < min(count, len(ordered)):
        chosen.add(max(ordered, key=lambda frame: (min(abs(frame - other) for other in chosen), -frame)))
    return tuple(sorted(chosen))


def fetch_panel_size(width: int, height: int, pixel_aspect: float) -> tuple[int, int]:
    """Give the (width, height) of a picture on the sheet: as large as fits, never enlarged, pixels made square."""
    shown = width * pixel_aspect
    scale = min(PANEL[0] / shown, PANEL[1] / height, 1.0)
    return max(1, round(shown * scale)), max(1, round(height * scale))


def fetch_sheet(title: str, rows: Sequence[SheetRow], panel: tuple[int, int]) -> Bytes:
    """Give the sheet (H, W, 3) uint8 RGB; ``panel`` is the (width, height) of each picture on it."""
    width, height = panel
    sheet = np.full((_HEAD + len(rows) * (height + _GAP), _LABEL + 3 * (width + _GAP), 3), _GREY, np.uint8)
    _write(sheet, title, (_GAP, 22), _WHITE)
    for index, row in enumerate(rows):
        top = _HEAD + index * (height + _GAP)
        _write(sheet, str(row.frame), (_GAP, top + 18), _KEY if row.is_key else _WHITE)
        if row.is_key:
            _write(sheet, "key", (_GAP, top + 40), _KEY)
        picture = _to_bytes(_shrink(row.picture, panel))
        alphas = {number: _shrink(alpha, panel) for number, alpha in row.alphas.items()}
        for column, shown in enumerate((picture, _fetch_edges(picture, alphas), _fetch_alpha(alphas, panel))):
            left = _LABEL + column * (width + _GAP)
            sheet[top : top + height, left : left + width] = shown
    return sheet


def _shrink(pixels: Floats, panel: tuple[int, int]) -> Floats:
    if pixels.shape[1::-1] == panel:
        return pixels
    return np.asarray(cv2.resize(pixels, panel, interpolation=cv2.INTER_AREA), np.float32)


def _to_bytes(picture: Floats) -> Bytes:
    return np.asarray(np.clip(picture * 255.0 + 0.5, 0, 255), np.uint8)


def _fetch_edges(picture: Bytes, alphas: Mapping[int, Floats]) -> Bytes:
    """Give the picture with a line where each object's alpha passes one half."""
    shown = picture.copy()
    for number, alpha in alphas.items():
        inside = (alpha >= 0.5).astype(np.uint8)
        outlines, _ = cv2.findContours(inside, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(shown, outlines, -1, (20, 20, 20), 3, cv2.LINE_AA)
        cv2.drawContours(shown, outlines, -1, _COLOURS[(number - 1) % len(_COLOURS)], 1, cv2.LINE_AA)
    return shown


def _fetch_alpha(alphas: Mapping[int, Floats], panel: tuple[int, int]) -> Bytes:
    """Give alpha as grey; with several objects each in its colour."""
    shown = np.zeros((panel[1], panel[0], 3), np.float32)
    for number, alpha in alphas.items():
        colour = (255, 255, 255) if len(alphas) == 1 else _COLOURS[(number - 1) % len(_COLOURS)]
        shown += alpha[..., None] * np.array(colour, np.float32) / 255.0
    return _to_bytes(shown)


def _write(sheet: Bytes, text: str, place: tuple[int, int], colour: tuple[int, int, int]) -> None:
    cv2.putText(sheet, text, place, _FONT, 0.5, colour, 1, cv2.LINE_AA)
