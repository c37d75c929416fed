"""What each node class does to pictures, for the handful that we use; any other class or setting raises."""

from __future__ import annotations

import hashlib

import numpy as np
import PyOpenColorIO as OpenColorIO

from . import state
from .checkers import draw_checkers
from .expressions import evaluate_expression
from .files import read_picture
from .images import Box, Format, Picture, full_box, select_channels
from .outlines import draw_shapes
from .shuffling import shuffle

RGB = ("rgba.red", "rgba.green", "rgba.blue")
RGBA = (*RGB, "rgba.alpha")
# Knobs that change how a node looks or is edited, not its picture.
_COSMETIC = {
    "name", "label", "help", "tile_color", "note_font", "note_font_size", "note_font_color", "icon", "xpos", "ypos",
    "selected", "postage_stamp", "hide_input", "onCreate", "onDestroy", "knobChanged", "updateUI", "autolabel", "bookmark",
}  # fmt: skip


def evaluate_node(node, frame):
    """Give a node's picture at a frame; kept until the script changes."""
    cache = state.app().pictures
    key = (id(node), frame)
    if key not in cache:
        cache[key] = _evaluate(node, frame)
    return cache[key]


def hash_node(node, frame):
    """Give a number that takes in everything above a node as it is at a frame (what Nuke's own takes in is not verified)."""
    return int.from_bytes(_digest(node, frame)[:8], "big")


def first_readable_frame(node):
    """Give the first frame of the first Read above a node, the frame that its format was taken from."""
    if node._kind == "Read":
        return node._knobs["first"]._at(0)[0]
    found = (first_readable_frame(source) for source in _sources(node) if source is not None)
    return next((frame for frame in found if frame is not None), None)


def _digest(node, frame):
    text = hashlib.sha256(node._kind.encode())
    for name, knob in sorted(node._knobs.items()):
        if name not in _COSMETIC and not knob._spec:
            text.update(repr((name, knob._hash_value(frame))).encode())
    above = {"TimeOffset": _offset_frame, "FrameHold": _held_frame}.get(node._kind, _same_frame)(node, frame)
    for source in _sources(node):
        text.update(_digest(source, above) if source is not None else b"none")
    return text.digest()


def _sources(node):
    if node._kind == "Input":
        return [node._parent._source(int(node._knobs["number"]._at(0)[0]))]
    if node._kind == "Group":
        return [node.output()]
    return node._sources


def _evaluate(node, frame):
    if "disable" in node._knobs and node._knobs["disable"]._at(frame)[0]:
        return _input(node, 0, frame)
    if node._kind not in _OPERATORS:
        raise NotImplementedError(f"the double does not evaluate {node._kind}")
    return _OPERATORS[node._kind](node, frame)


def _input(node, index, frame):
    source = _sources(node)[index] if index < len(_sources(node)) else None
    if source is None:
        shape = state.app().formats.find("0")
        return Picture(shape, full_box(shape))
    return evaluate_node(source, frame)


def _pass(node, frame):
    return _input(node, 0, frame)


def _same_frame(_node, frame):
    return frame


def _offset_frame(node, frame):
    return frame - node._knobs["time_offset"]._at(frame)[0]


def _held_frame(node, frame):
    return node._knobs["firstFrame"]._at(frame)[0]


def _time_offset(node, frame):
    return _input(node, 0, _offset_frame(node, frame))


def _frame_hold(node, frame):
    return _input(node, 0, _held_frame(node, frame))


def _constant(node, frame):
    shape = state.app().formats.find(node._knobs["format"]._text)
    box = full_box(shape)
    color = node._knobs["color"]._at(frame)
    chosen = select_channels(node._knobs["channels"]._text, RGBA)
    channels = {name: np.full(box.shape, color[at], np.float32) for at, name in enumerate(RGBA) if name in chosen}
    return Picture(shape, box, channels)


def _checkers(node, frame):
    shape = state.app().formats.find(node._knobs["format"]._text)
    return draw_checkers(shape, RGBA, lambda name: node._knobs[name]._at(frame))


def _shuffle(node, frame):
    return shuffle(node, _input(node, 0, frame))


def _switch(node, frame):
    which = int(node._knobs["which"]._at(frame)[0])
    return _input(node, min(max(which, 0), len(node._sources) - 1), frame)


def _copy(node, frame):
    base, extra = _input(node, 0, frame), _input(node, 1, frame)
    box = base.box.union(extra.box)
    channels = {name: base.crop(name, box) for name in base.channels}
    wanted = select_channels(node._knobs["channels"]._text, extra.channels)
    channels.update({name: extra.crop(name, box) for name in wanted})
    for at in range(4):
        source, target = node._knobs[f"from{at}"]._text, node._knobs[f"to{at}"]._text
        if "none" not in (source, target):
            channels[target] = extra.crop(source, box)
    return Picture(base.format, box, channels)


def _grade(node, frame):
    picture = _input(node, 0, frame)
    value = {name: node._knobs[name]._at(frame) for name in _GRADE}
    out = dict(picture.channels)
    for name in select_channels(node._knobs["channels"]._text, out) & out.keys():
        at = RGBA.index(name)
        black, white = value["blackpoint"][at], value["whitepoint"][at]
        gain = value["multiply"][at] * (value["white"][at] - value["black"][at]) / (white - black)
        graded = out[name] * np.float32(gain) + np.float32(value["add"][at] + value["black"][at] - gain * black)
        if value["gamma"][at] != 1 or node._knobs["reverse"]._at(frame)[0]:
            raise NotImplementedError("the double grades without gamma and reverse")
        out[name] = _clamped(node, frame, graded)
    return _masked(node, frame, picture, out)


_GRADE = ("blackpoint", "whitepoint", "black", "white", "multiply", "add", "gamma")


def _clamped(node, frame, pixels):
    if node._knobs["black_clamp"]._at(frame)[0]:
        pixels = np.maximum(pixels, 0)
    return np.minimum(pixels, 1) if node._knobs["white_clamp"]._at(frame)[0] else pixels


def _masked(node, frame, before, channels):
    """Give the picture with new channels, mixed with the old ones by the mask input and the mix knob."""
    mix = node._knobs["mix"]._at(frame)[0]
    source = node._source(1)
    if source is None and mix == 1:
        return Picture(before.format, before.box, channels)
    mask = np.float32(mix)
    if source is not None:
        mask = evaluate_node(source, frame).crop(node._knobs["maskChannelMask"]._text, before.box) * mask
    mixed = {name: before.crop(name, before.box) * (1 - mask) + pixels * mask for name, pixels in channels.items()}
    return Picture(before.format, before.box, mixed)


def _clamp(node, frame):
    picture = _input(node, 0, frame)
    out = dict(picture.channels)
    low, high = node._knobs["minimum"]._at(frame), node._knobs["maximum"]._at(frame)
    for name in select_channels(node._knobs["channels"]._text, out) & set(RGBA) & out.keys():
        out[name] = np.clip(out[name], low[RGBA.index(name)], high[RGBA.index(name)])
    return Picture(picture.format, picture.box, out)


def _colorspace(node, frame):
    way = node._knobs["colorspace_in"]._word, node._knobs["colorspace_out"]._word
    if way != ("RGB", "sRGB"):
        raise NotImplementedError(f"the double converts RGB to sRGB, not {way[0]} to {way[1]}")
    picture = _input(node, 0, frame)
    return Picture(
        picture.format,
        picture.box,
        {name: _encode_srgb(pixels) if name in RGB else pixels for name, pixels in picture.channels.items()},
    )


def _encode_srgb(pixels):
    high = 1.055 * np.power(np.maximum(pixels, 0.0031308), np.float32(1 / 2.4)) - 0.055
    return np.where(pixels <= 0.0031308, pixels * 12.92, high).astype(np.float32)


def _ocio_colorspace(node, frame):
    config = fetch_ocio_config(node._root())
    spaces = node._knobs["in_colorspace"]._word, node._knobs["out_colorspace"]._word
    try:
        processor = config.getProcessor(*spaces).getDefaultCPUProcessor()
    except OpenColorIO.Exception as error:
        raise RuntimeError(f"{node._name}: {error}") from error
    return _processed(processor, _input(node, 0, frame))


def _ocio_display(node, frame):
    knobs = node._knobs
    if [knobs[name]._at(frame)[0] for name in ("gain", "gamma", "invert")] != [1, 1, 0]:
        raise NotImplementedError("the double shows without gain, gamma and invert")
    config = fetch_ocio_config(node._root())
    display = knobs["display"]._word
    transform = OpenColorIO.DisplayViewTransform(
        src=knobs["colorspace"]._word,
        display=config.getDefaultDisplay() if display == "default" else display,
        view=knobs["view"]._word,
    )
    try:
        processor = config.getProcessor(transform).getDefaultCPUProcessor()
    except OpenColorIO.Exception as error:
        raise RuntimeError(f"{node._name}: {error}") from error
    return _processed(processor, _input(node, 0, frame))


def _processed(processor, picture):
    pixels = np.ascontiguousarray(np.stack([picture.crop(name, picture.box) for name in RGB], axis=-1))
    if pixels.size:
        processor.applyRGB(pixels)
    converted = {name: np.ascontiguousarray(pixels[..., at]) for at, name in enumerate(RGB)}
    return Picture(picture.format, picture.box, {**picture.channels, **converted})


def fetch_ocio_config(root):
    """Give the config that the root's knobs name: a built-in one of OpenColorIO, or a file."""
    name = root._knobs["OCIO_config"]._word
    if name == "custom":
        return OpenColorIO.Config.CreateFromFile(root._knobs["customOCIOConfigPath"]._evaluated(0))
    return OpenColorIO.Config.CreateFromBuiltinConfig(name)


def _expression(node, frame):
    picture = _input(node, 0, frame)
    out = dict(picture.channels)
    letters = dict(zip("rgba", RGBA, strict=True))

    def fetch(name):
        if name in letters:
            return picture.crop(letters[name], picture.box)
        return node._scope(frame).fetch_number(name)

    for at, name in enumerate(RGBA):
        text = node._knobs[f"expr{at}"]._text
        if text:
            value = evaluate_expression(text, fetch, node._scope(frame).run_tcl)
            out[name] = np.broadcast_to(np.asarray(value, np.float32), picture.box.shape)
    return _masked(node, frame, picture, out)


def _crop(node, frame):
    if node._knobs["reformat"]._at(frame)[0] or node._knobs["intersect"]._at(frame)[0]:
        raise NotImplementedError("the double crops without reformat and intersect")
    picture = _input(node, 0, frame)
    box = Box(*(round(edge) for edge in node._knobs["box"]._at(frame)))
    return Picture(picture.format, box, {name: picture.crop(name, box) for name in picture.channels})


def _premult(node, frame):
    picture = _input(node, 0, frame)
    alpha = picture.crop(node._knobs["alpha"]._text, picture.box)
    chosen = select_channels(node._knobs["channels"]._text, picture.channels)
    return Picture(
        picture.format,
        picture.box,
        {name: pixels * alpha if name in chosen else pixels for name, pixels in picture.channels.items()},
    )


def _merge(node, frame):
    base, over = _input(node, 0, frame), _input(node, 1, frame)
    operation = node._knobs["operation"]._word
    if operation not in _MERGES:
        raise NotImplementedError(f"the double does not model merging by {operation}")
    box = base.box.union(over.box)
    alpha = over.crop("rgba.alpha", box)
    names = (base.channels.keys() | over.channels.keys()) & set(RGBA)
    merged = {name: _MERGES[operation](over.crop(name, box), base.crop(name, box), alpha) for name in names}
    kept = {name: base.crop(name, box) for name in base.channels.keys() - set(RGBA)}
    return Picture(base.format, box, {**kept, **merged})


_MERGES = {
    "over": lambda a, b, alpha: a + b * (1 - alpha),
    "plus": lambda a, b, _: a + b,
    "multiply": lambda a, b, _: a * b,
    "max": lambda a, b, _: np.maximum(a, b),
    "min": lambda a, b, _: np.minimum(a, b),
}


def _roto(node, frame):
    source = node._source(0)
    if source is None:
        shape = state.app().formats.find(node._knobs["format"]._text)
        picture = Picture(shape, full_box(shape))
    else:
        picture = evaluate_node(source, frame)
    # Only what lies in the format is drawn (cliptype format, the default).
    box = picture.box.union(full_box(picture.format))
    drawn = draw_shapes(node._knobs["curves"], frame, picture.format)
    inside = Picture(picture.format, full_box(picture.format), {"drawn": drawn}).crop("drawn", box)
    channels = {name: picture.crop(name, box) for name in picture.channels}
    for name in select_channels(node._knobs["output"]._text, channels):
        below = channels.get(name, np.zeros(box.shape, np.float32))
        channels[name] = inside + below * (1 - inside)
    return Picture(picture.format, box, channels)


def _read(node, frame):
    number = _clip_frame(node, frame)
    if number is None:
        shape = _read_format(node)
        return Picture(shape, full_box(shape), _flat(full_box(shape), 0.0))
    path = state.fill_frame(node._knobs["file"]._evaluated(number), number)
    try:
        picture = read_picture(path)
    except RuntimeError:
        return _missing(node, path)
    state.app().files_read.append(path)
    if not node._knobs["raw"]._at(frame)[0] and not path.endswith(".exr"):
        raise NotImplementedError("the double reads PNG raw alone")
    return picture


def _clip_frame(node, frame):
    """Give the frame to read, None for black."""
    first, last = node._knobs["first"]._at(frame)[0], node._knobs["last"]._at(frame)[0]
    if first <= frame <= last:
        return frame
    end, where = (first, "before") if frame < first else (last, "after")
    way = node._knobs[where]._word
    if way not in ("hold", "black"):
        raise NotImplementedError(f"the double does not model {where} {way}")
    return end if way == "hold" else None


def _missing(node, path):
    way = node._knobs["on_error"].value()
    if way == "error":
        raise RuntimeError(f"{node._name}: {path}: No such file or directory")
    if way != "black":
        raise NotImplementedError(f"the double does not model on_error {way}")
    shape = _read_format(node)
    return Picture(shape, full_box(shape), _flat(full_box(shape), 0.0))


def _read_format(node):
    return state.app().formats.find(node._knobs["format"]._text)


def _flat(box, value):
    return {name: np.full(box.shape, value, np.float32) for name in RGBA}


def halve(picture):
    """Give a picture as a render in proxy mode sees it: half the size."""
    shape = Format(picture.format.width() // 2, picture.format.height() // 2, picture.format.pixelAspect())
    box = full_box(shape)
    whole = Box(0, 0, shape.width() * 2, shape.height() * 2)
    return Picture(shape, box, {name: picture.crop(name, whole)[::2, ::2] for name in picture.channels})


_OPERATORS = {
    "Input": _pass, "Output": _pass, "Dot": _pass, "NoOp": _pass, "Write": _pass, "Group": _pass, "Viewer": _pass,
    "TimeOffset": _time_offset, "FrameHold": _frame_hold, "Constant": _constant, "Switch": _switch, "Copy": _copy,
    "Grade": _grade, "Clamp": _clamp, "Colorspace": _colorspace, "OCIOColorSpace": _ocio_colorspace, "OCIODisplay": _ocio_display,
    "Expression": _expression, "Crop": _crop, "Premult": _premult, "Merge2": _merge, "Roto": _roto, "RotoPaint": _roto,
    "Read": _read, "CheckerBoard2": _checkers, "Shuffle2": _shuffle,
}  # fmt: skip
