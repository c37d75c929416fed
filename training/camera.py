"""What the camera and the codec do to finished frames: exposure, colour, focus, shake, grain, compression."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

Array = np.ndarray[Any, Any]


def photographed(rng: np.random.Generator, frames: Array) -> Array:
    """Frames (T, S, S, 3) float32 0..1 as 8-bit RGB (T, S, S, 3) with drift, blur, grain and compression of one camera."""
    count, size = frames.shape[:2]
    gain, lift, gamma = 1 + rng.uniform(-0.25, 0.25), rng.uniform(-0.1, 0.1), 2 ** rng.uniform(-0.5, 0.5)
    drift = np.linspace(1, 1 + rng.uniform(-0.15, 0.15), count)[:, None] * np.ones(3)
    if rng.random() < 0.3:  # white balance wanders
        drift = drift * (1 + np.linspace(0, 1, count)[:, None] * rng.uniform(-0.12, 0.12, 3))
    if rng.random() < 0.15:  # flicker
        drift = drift * rng.uniform(0.92, 1.08, (count, 1))
    pixels = np.clip(frames * gain + lift, 0, 1) ** gamma * drift[:, None, None].astype(np.float32)
    saturation = rng.choice((1.0, 1.0, 0.6, 0.2, 1.3))
    grey = pixels.mean(-1, keepdims=True)
    pixels = np.clip(grey + (pixels - grey) * saturation, 0, 1) * 255
    focus = rng.uniform(0.4, 1.3) if rng.random() < 0.3 else 0.0
    grain = float(rng.choice((0, 0, 2, 5, 9)))
    quality = int(rng.integers(35, 92)) if rng.random() < 0.35 else 0
    done = np.empty((count, size, size, 3), np.uint8)
    for index, frame in enumerate(pixels):
        one = cv2.GaussianBlur(frame, (0, 0), focus) if focus else frame
        if grain:
            one = one + rng.standard_normal((size, size, 1), np.float32) * grain
        one = np.clip(one + 0.5, 0, 255).astype(np.uint8)
        if quality:
            coded = cv2.imencode(".jpg", one, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
            one = cv2.imdecode(coded, cv2.IMREAD_COLOR)
        done[index] = one
    return done
