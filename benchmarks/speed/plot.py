"""The speed table as a picture: a pair of bars for each thing an artist waits for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

WIDTH, ROW, LEFT, TOP = 1100, 86, 330, 70
INK, PALE, PLAIN, OURS = (50, 50, 50), (120, 120, 120), (170, 170, 170), (95, 127, 79)  # BGR
NAMES = {
    "first_propagation": "first propagation",
    "second_propagation_exact": "one more key, exact",
    "first_corrected_frame": "first corrected frame",
    "suggestion": "suggestion",
}


def draw_ratios(figures: dict[str, Any], path: Path) -> None:
    """Write a PNG: seconds of the reference's way and of ours, for every shot that was measured."""
    rows = []
    for shot in figures["shots"]:
        for name, ratio in shot["ratios"].items():
            plain = shot["plain"]["suggestion" if name == "suggestion" else "propagation"]
            rows.append((f"{NAMES[name]}, {shot['objects']} obj.", plain, shot["ours"][name], ratio))
    picture = np.full((TOP + ROW * len(rows) + 20, WIDTH, 3), 255, np.uint8)
    longest = max(row[1] for row in rows)
    settings = figures["settings"]
    title = f"{settings['frames']} frames of 854x480, {settings['keys']} keys, {figures['machine']['threads']} threads: seconds"
    _write(picture, title, (20, 36), 0.75, INK)
    for place, (name, plain, ours, ratio) in enumerate(rows):
        top = TOP + place * ROW
        _write(picture, name, (20, top + 38), 0.62, INK)
        _draw_bar(picture, top + 8, plain / longest, PLAIN, f"{plain:.1f} plain")
        _draw_bar(picture, top + 38, ours / longest, OURS, f"{ours:.2f}, {ratio:.1f} times faster")
    cv2.imwrite(str(path), picture)


def _draw_bar(picture: np.ndarray[Any, Any], top: int, share: float, colour: tuple[int, int, int], words: str) -> None:
    right = LEFT + max(2, round(share * (WIDTH - LEFT - 290)))
    cv2.rectangle(picture, (LEFT, top), (right, top + 24), colour, -1)
    _write(picture, words, (right + 8, top + 19), 0.55, PALE)


def _write(
    picture: np.ndarray[Any, Any], words: str, place: tuple[int, int], size: float, colour: tuple[int, int, int]
) -> None:
    cv2.putText(picture, words, place, cv2.FONT_HERSHEY_SIMPLEX, size, colour, 1, cv2.LINE_AA)
