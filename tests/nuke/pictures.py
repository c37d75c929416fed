"""Small real EXR files, as Nuke's Write leaves them: what a rendered plate or key is in these tests."""

import numpy as np
import OpenEXR

WIDTH, HEIGHT = 64, 48


def save_exr(path, channels):
    """Write float channels (name -> HxW) as half, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    pixels = {name: values.astype(np.float16) for name, values in channels.items()}
    header = {"compression": OpenEXR.ZIPS_COMPRESSION, "type": OpenEXR.scanlineimage}
    OpenEXR.File(header, pixels).write(str(temporary))
    temporary.replace(path)
    return path


def plate_channels(seed):
    """Give a grey field with a bright square that moves with the seed."""
    pixels = np.full((HEIGHT, WIDTH), 0.2, np.float32)
    left = 8 + seed % 16
    pixels[16:32, left : left + 16] = 0.9
    return {"R": pixels, "G": pixels * 0.5, "B": pixels * 0.3}


def box(left, top=16, size=16, value=1.0):
    """Give the alpha of a square."""
    alpha = np.zeros((HEIGHT, WIDTH), np.float32)
    alpha[top : top + size, left : left + size] = value
    return alpha


EMPTY = np.zeros((HEIGHT, WIDTH), np.float32)
