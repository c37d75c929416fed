"""Draws a run's curves: training loss and J from log.csv, validation J from validation.csv.

python -m training.plot_curve training/runs/NAME --out curve.png
"""

from __future__ import annotations

import argparse
import csv
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

Array = np.ndarray[Any, Any]
WIDTH, HEIGHT, MARGIN = 900, 300, 60
INK, GRID = (40, 40, 40), (225, 225, 225)


@dataclass(frozen=True)
class Line:
    """One curve: its name, colour (BGR) and points (n, 2) of step and value."""

    name: str
    colour: tuple[int, int, int]
    points: Array


def fetch_column(path: Path, name: str) -> Array:
    """The points (n, 2) of step and one column of a CSV file; rows without a number are left out."""
    with path.open(newline="") as stream:
        rows = [(float(row["step"]), float(row[name])) for row in csv.DictReader(stream)]
    points = np.array(rows, np.float64).reshape(-1, 2)
    return points[np.isfinite(points).all(1)]


def smoothed(points: Array, window: int) -> Array:
    """The points averaged over ``window`` neighbours, ends shortened."""
    if len(points) < window:
        return points
    kernel = np.ones(window) / window
    return np.stack([np.convolve(points[:, axis], kernel, "valid") for axis in (0, 1)], 1)


def draw_panel(title: str, lines: list[Line], last_step: float) -> Array:
    """One plot, HEIGHT x WIDTH x 3 uint8 BGR, its scale fitted to the lines."""
    panel = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    values = np.concatenate([line.points[:, 1] for line in lines])
    low, high = float(values.min()), float(values.max())
    low, high = (low - 0.05, high + 0.05) if high - low < 1e-6 else (low, high)

    def place(points: Array) -> Array:
        x = MARGIN + points[:, 0] / max(last_step, 1) * (WIDTH - 2 * MARGIN)
        y = HEIGHT - MARGIN - (points[:, 1] - low) / (high - low) * (HEIGHT - 2 * MARGIN)
        return np.stack([x, y], 1).round().astype(np.int32)

    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        value, step = low + share * (high - low), share * last_step
        left, right = place(np.array([[0, value], [last_step, value]]))
        cv2.line(panel, tuple(left.tolist()), tuple(right.tolist()), GRID, 1)
        write(panel, f"{value:.3f}", (4, int(left[1]) + 4), INK)
        write(panel, f"{step:.0f}", (int(MARGIN + share * (WIDTH - 2 * MARGIN)) - 12, HEIGHT - MARGIN + 18), INK)
    write(panel, title, (MARGIN, 24), INK)
    for number, line in enumerate(lines):
        points = place(line.points)
        cv2.polylines(panel, [points], isClosed=False, color=line.colour, thickness=1, lineType=cv2.LINE_AA)
        if len(points) < 40:
            for x, y in points.tolist():
                cv2.circle(panel, (x, y), 3, line.colour, -1, cv2.LINE_AA)
        write(panel, line.name, (MARGIN + 260 + 130 * number, 24), line.colour)
    return panel


def write(panel: Array, text: str, place: tuple[int, int], colour: tuple[int, int, int]) -> None:
    """Write small text with its lower left corner at ``place`` (x, y)."""
    cv2.putText(panel, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.42, colour, 1, cv2.LINE_AA)


def plot(run: Path) -> Array:
    """The plots of a run under one another. Raises FileNotFoundError when it has no log yet."""
    log, validation = run / "log.csv", run / "validation.csv"
    loss, j = fetch_column(log, "loss"), fetch_column(log, "j")
    last = float(loss[-1, 0])
    window = max(1, len(loss) // 25)
    panels = [
        draw_panel("training loss (steps)", [Line("smoothed", (200, 80, 0), smoothed(loss, window))], last),
        draw_panel("training J", [Line("smoothed", (0, 120, 0), smoothed(j, window))], last),
    ]
    if validation.exists():
        colours = {"overall": (0, 0, 200), "one_key": (200, 80, 0), "more_keys": (0, 120, 0), "small": (120, 0, 120)}
        lines = [Line(name, colour, fetch_column(validation, name)) for name, colour in colours.items()]
        panels.append(draw_panel("validation J, averaged weights", [line for line in lines if len(line.points)], last))
    return np.vstack(panels)


def main() -> int:
    """0; writes the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, help="where to write the picture; left out: curve.png in the run's folder")
    options = parser.parse_args()
    out = options.out or options.run / "curve.png"
    cv2.imwrite(str(out), plot(options.run))
    print(out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
