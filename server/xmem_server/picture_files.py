"""Pictures the commands leave for people to look at."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from xmem_protocol import InputError


def save_png(path: Path, pixels: NDArray[np.uint8] | NDArray[np.uint16]) -> None:
    """Write a picture (blue first when it has three channels) as PNG, whole or not at all.

    Raises InputError when the place cannot be written.
    """
    made, packed = cv2.imencode(".png", np.ascontiguousarray(pixels))
    waiting = path.with_name(path.name + ".part")
    try:
        waiting.write_bytes(packed.tobytes())
        waiting.replace(path)
    except OSError as error:
        made = False
        reason = error.strerror or type(error).__name__
        raise InputError(f"{path} cannot be written: {reason}. Free some space or choose another folder.") from None
    finally:
        if not made:
            waiting.unlink(missing_ok=True)
