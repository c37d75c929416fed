"""Scenes on the double: a plate of real EXR files, a Roto with keyed squares, and an XMem node wired to both."""

import numpy as np
import OpenEXR

WIDTH, HEIGHT = 64, 48


def save_plate(folder, frames, pixels, *, window=None, display=None, pixel_aspect=1.0):
    """Write one EXR a frame; ``pixels`` gives HxWx3 float32 for a frame. Gives the pattern and the size that is shown."""
    folder.mkdir(exist_ok=True)
    for frame in frames:
        picture = np.asarray(pixels(frame), np.float32)
        height, width = picture.shape[:2]
        header = {
            "type": OpenEXR.scanlineimage,
            "compression": OpenEXR.ZIP_COMPRESSION,
            "dataWindow": window or ((0, 0), (width - 1, height - 1)),
            "displayWindow": display or ((0, 0), (width - 1, height - 1)),
            "pixelAspectRatio": pixel_aspect,
        }
        channels = {letter: np.ascontiguousarray(picture[..., at]) for at, letter in enumerate("RGB")}
        OpenEXR.File(header, channels).write(str(folder / f"plate.{frame:04d}.exr"))
    return (folder / "plate.%04d.exr").as_posix()


def grey(frame, width=WIDTH, height=HEIGHT):
    """A picture that differs from frame to frame: grey, lighter to the right."""
    ramp = np.linspace(0.1, 0.4, width, dtype=np.float32) + np.float32((frame % 10) * 0.01)
    return np.broadcast_to(ramp[None, :, None], (height, width, 3))


def make_plate(nuke, pattern, first, last):
    """Give a Read of these files."""
    return nuke.nodes.Read(
        file_type="exr", file=pattern, first=first, last=last, origfirst=first, origlast=last, raw=True
    )


def make_roto(nuke, keys, *, background=None, output="alpha"):
    """Give a Roto with one square for each entry of ``keys``: frame -> (left, bottom, size)."""
    roto = nuke.nodes.Roto()
    roto["output"].setValue(output)
    if background is not None:
        roto.setInput(0, background)
    add_square(nuke, roto, keys)
    return roto


def add_square(nuke, roto, keys, layer=None):
    """Add a square to a Roto and give the shape that is in it."""
    rotopaint = nuke.rotopaint
    layer = layer if layer is not None else roto["curves"].rootLayer
    shape = rotopaint.Shape(roto["curves"], type="bezier")
    for right, up in ((0, 0), (1, 0), (1, 1), (0, 1)):
        point = rotopaint.AnimControlPoint()
        for frame, (left, bottom, size) in keys.items():
            point.addPositionKey(frame, (left + right * size, bottom + up * size))
        shape.append(point)
    layer.append(shape)
    return layer[len(layer) - 1]


def make_xmem(nuke, plate, roto, first, last, cache):
    """Give an XMem node with its inputs, range and cache set, as an artist would."""
    node = nuke.createNode("XMem")
    node.setInput(0, plate)
    node.setInput(1, roto)
    for name, frame in (("first_frame", first), ("last_frame", last)):
        node[name].clearAnimated()
        node[name].setValue(frame)
    node["cache_dir"].setValue(cache.as_posix())
    return node


def read_exr(path):
    """Give the channels and the header of an EXR."""
    opened = OpenEXR.File(str(path), separate_channels=True)
    return {name: channel.pixels for name, channel in opened.channels().items()}, opened.header()


def square_alpha(left, bottom, size, width=WIDTH, height=HEIGHT):
    """Give the alpha that a square on whole pixels has, HxW with rows from the top down."""
    alpha = np.zeros((height, width), np.float32)
    alpha[height - bottom - size : height - bottom, left : left + size] = 1
    return alpha
