"""The node classes, knobs and enumerations of Nuke that this project uses, written by hand. Nothing else exists in the double.

Each class: how many inputs it takes, and its knobs. A knob is its class without ``_Knob``, its default as script text,
and for an enumeration its entries. ``test_knob_table`` compares all this with a scan of a real Nuke where one is at hand.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class KnobEntry:
    """``kind``: the class of the knob; ``default``: script text; ``entries``: what an enumeration offers, in its order."""

    kind: str
    default: str = ""
    entries: tuple[str, ...] = ()


@dataclass(frozen=True)
class ClassEntry:
    """``inputs``: the most, a mask included; ``knobs``: those of the class alone, COMMON are added to every class."""

    inputs: int
    knobs: dict[str, KnobEntry]


def _enum(entries, default=""):
    words = tuple(entries.split("|"))
    return KnobEntry("Enumeration", default or words[0].split("\t")[0], words)


STRING, FILE, EVAL, PYTHON = (KnobEntry(kind) for kind in ("String", "File", "EvalString", "PythonKnob"))
SCRIPT, PYSCRIPT, FORMAT = KnobEntry("Script"), KnobEntry("PyScript"), KnobEntry("Format", "0")
ZERO, ONE = KnobEntry("Array", "0"), KnobEntry("Array", "1")
NO, YES = KnobEntry("Boolean", "false"), KnobEntry("Boolean", "true")
COLOR_ZERO, COLOR_ONE = KnobEntry("AColor", "0"), KnobEntry("AColor", "1")
NONE, ALPHA, RGBA = (KnobEntry("Channel", text) for text in ("none", "rgba.alpha", "rgba"))
MASK_NONE, MASK_RGB, MASK_ALL = (KnobEntry("ChannelMask", text) for text in ("none", "rgb", "all"))

COMMON = {
    "name": STRING,
    "label": KnobEntry("Multiline_Eval_String"),
    "help": EVAL,
    "onCreate": PYTHON,
    "onDestroy": PYTHON,
    "knobChanged": PYTHON,
    "updateUI": PYTHON,
    "autolabel": PYTHON,
    "tile_color": KnobEntry("ColorChip", "0"),
    "note_font": KnobEntry("Font", "Verdana"),
    "note_font_size": KnobEntry("Array", "11"),
    "note_font_color": KnobEntry("ColorChip", "0"),
    "icon": FILE,
    "xpos": ZERO,
    "ypos": ZERO,
    "selected": NO,
}
_SOURCE = {"disable": KnobEntry("Disable", "false")}  # of every class that makes a picture
_PICTURE = {**_SOURCE, "hide_input": NO, "postage_stamp": NO}  # and of those that change one
_MASKED = {
    "maskChannelInput": NONE,
    "maskChannelMask": ALPHA,
    "invert_mask": NO,
    "mix": ONE,
}
_ENDS = "hold|loop|bounce|black"
_SPACES = "default|linear|sRGB|rec709|Cineon|Gamma1.8|Gamma2.2|Gamma2.4|Gamma2.6"  # the head of Nuke's own list
_CURVES = (
    "1.80\tgamma 1.80|2.20\tgamma 2.20|2.40\tgamma 2.40|2.60\tgamma 2.60|rec709\trec709 (~1.95)|sRGB\tsRGB (~2.20)"
    "|Cineon|RGB\tLinear"
)
_OPERATIONS = (
    "atop|average|color-burn|color-dodge|conjoint-over|copy|difference|disjoint-over|divide|exclusion|from|geometric"
    "|hard-light|hypot\t\t\tdiagonal|in|mask|matte|max|min|minus|multiply|out|over|overlay|plus|screen|soft-light|stencil"
    "|under|xor"
)
UNSHUFFLED = '"4 rgba.red 0 0 rgba.red 0 0 rgba.green 0 1 rgba.green 0 1 rgba.blue 0 2 rgba.blue 0 2 rgba.alpha 0 3 rgba.alpha 0 3"'
_BLUR_FILTERS = "box|triangle|quadratic|gaussian"
_FILE_TYPES = " |cin|dpx|exr|gif|hdr|jpeg|mov\t\t\tffmpeg|mxf|null|pic|png|sgi|targa|tiff|xpm|yuv"

# Knobs that a Write has once its file_type is set; no scan shows them (Foundry's public exrWriter example does).
FILE_TYPE_KNOBS = {
    "exr": {
        "datatype": _enum("16 bit half|32 bit float"),
        "compression": _enum(
            "none|Zip (1 scanline)|Zip (16 scanlines)|PIZ Wavelet (32 scanlines)|RLE|B44|B44A|DWAA|DWAB",
            "Zip (1 scanline)",
        ),
        "autocrop": NO,
    },
    "png": {"datatype": _enum("8 bit|16 bit")},
}

_ROTO = {
    **_PICTURE,
    "curves": KnobEntry("RotoKnob"),
    "cliptype": _enum("none\tno clip|bbox|format|union bbox+format|intersect bbox+format", "format"),
    "format": FORMAT,
    "premultiply": MASK_NONE,
    "replace": NO,
    "opacity": ONE,
    "feather_on": YES,
    "motionblur_on": NO,
}

CLASSES = {
    "Input": ClassEntry(0, {"number": ZERO}),
    "Output": ClassEntry(1, {"hide_input": NO}),
    "Dot": ClassEntry(1, {"hide_input": NO}),
    "NoOp": ClassEntry(1, {}),
    "Group": ClassEntry(0, {**_PICTURE, "lock_connections": NO, "bookmark": NO}),
    "Switch": ClassEntry(10000, {**_PICTURE, "which": ZERO}),
    "Constant": ClassEntry(
        0,
        {**_SOURCE, "channels": KnobEntry("Channel", "rgb"), "color": COLOR_ZERO, "format": FORMAT},
    ),
    # From Foundry's public CheckerBoard2 example; not among the classes of the scan at hand.
    "CheckerBoard2": ClassEntry(
        0,
        {
            **_SOURCE,
            "format": FORMAT,
            "boxsize": KnobEntry("WH", "64"),
            "color0": KnobEntry("AColor", "0.1 0.1 0.1 1"), "color1": KnobEntry("AColor", "0.5 0.5 0.5 1"),
            "color2": KnobEntry("AColor", "0.1 0.1 0.1 1"), "color3": KnobEntry("AColor", "0.5 0.5 0.5 1"),
            "linecolor": COLOR_ONE, "linewidth": KnobEntry("WH", "0"),
            "centerlinecolor": KnobEntry("AColor", "1 1 0 1"), "centerlinewidth": KnobEntry("WH", "3"),
        },
    ),
    "Copy": ClassEntry(
        3,
        {
            **_PICTURE,
            "from0": ALPHA, "to0": ALPHA, "from1": NONE, "to1": NONE,
            "from2": NONE, "to2": NONE, "from3": NONE, "to3": NONE,
            "channels": MASK_NONE,
            "bbox": _enum("union|B\tB side|A\tA side"),
            "metainput": _enum("B|A|All"),
            "rangeinput": _enum("B|A|All"),
            "mix": ONE,
        },
    ),
    "Grade": ClassEntry(
        2,
        {
            **_PICTURE,
            **_MASKED,
            "channels": MASK_RGB,
            "blackpoint": COLOR_ZERO, "whitepoint": COLOR_ONE, "black": COLOR_ZERO, "white": COLOR_ONE,
            "multiply": COLOR_ONE, "add": COLOR_ZERO, "gamma": COLOR_ONE,
            "reverse": NO, "black_clamp": YES, "white_clamp": NO,
        },
    ),
    "Clamp": ClassEntry(
        2,
        {
            **_PICTURE, **_MASKED, "channels": MASK_ALL,
            "minimum": COLOR_ZERO, "minimum_enable": YES, "maximum": COLOR_ONE, "maximum_enable": YES,
            "MinClampTo_enable": NO, "MaxClampTo_enable": NO,
        },
    ),
    "Colorspace": ClassEntry(
        2,
        {**_PICTURE, **_MASKED, "channels": MASK_RGB, "colorspace_in": _enum(_CURVES, "RGB"), "colorspace_out": _enum(_CURVES, "RGB")},
    ),
    "OCIOColorSpace": ClassEntry(
        2,
        {
            **_PICTURE, **_MASKED, "channels": MASK_RGB,
            # The entries are those of the config in use; the double takes any name that its config knows.
            "in_colorspace": KnobEntry("Enumeration", "scene_linear"),
            "out_colorspace": KnobEntry("Enumeration", "scene_linear"),
        },
    ),
    "OCIODisplay": ClassEntry(
        2,
        {
            **_PICTURE,
            "colorspace": KnobEntry("Enumeration", "scene_linear"),  # as above, and so for the two below
            "display": KnobEntry("Enumeration", "default"),
            "view": KnobEntry("Enumeration", "sRGB"),
            "gain": ONE,
            "gamma": ONE,
            "invert": NO,
        },
    ),
    "Expression": ClassEntry(
        2, {**_PICTURE, **_MASKED, "expr0": EVAL, "expr1": EVAL, "expr2": EVAL, "expr3": EVAL}
    ),
    "Crop": ClassEntry(
        1,
        {
            **_PICTURE,
            "box": KnobEntry("BBox", "0 0 2048 1556"),
            "softness": KnobEntry("WH", "0"),
            "reformat": NO, "intersect": NO, "crop": YES,
        },
    ),
    "Blur": ClassEntry(
        2,
        {**_PICTURE, **_MASKED, "channels": MASK_ALL, "size": KnobEntry("WH", "0"), "filter": _enum(_BLUR_FILTERS, "gaussian"), "crop": YES},
    ),
    "Premult": ClassEntry(1, {**_PICTURE, "channels": MASK_RGB, "alpha": ALPHA, "invert": NO}),
    "Merge2": ClassEntry(
        101,
        {**_PICTURE, "operation": _enum(_OPERATIONS, "over"), "Achannels": RGBA, "Bchannels": RGBA, "output": RGBA, "mix": ONE},
    ),
    # Input 0 is B, input 1 is A. Each mapping: a channel, the socket it leaves (0, 1; -1 for black and white), its place
    # there, a channel, the socket it goes to, its place there.
    "Shuffle2": ClassEntry(
        2,
        {
            **_PICTURE,
            "in1": RGBA, "in2": NONE, "out1": RGBA, "out2": NONE,
            "fromInput1": KnobEntry("Enumeration", "{0} B"), "fromInput2": KnobEntry("Enumeration", "{0} B"),
            "mappings": KnobEntry("ShuffleLinks", UNSHUFFLED),
        },
    ),
    "TimeOffset": ClassEntry(1, {**_PICTURE, "time_offset": ZERO, "reverse_input": NO}),
    "FrameHold": ClassEntry(1, {**_PICTURE, "firstFrame": ONE, "increment": ZERO}),
    "Roto": ClassEntry(5, {**_ROTO, "output": KnobEntry("ChannelMask", "alpha")}),
    "RotoPaint": ClassEntry(5, {**_ROTO, "output": KnobEntry("ChannelMask", "rgba")}),
    "Read": ClassEntry(
        0,
        {
            **_SOURCE,
            "file": FILE,
            "file_type": KnobEntry("Enumeration", " ", (" ", "exr", "jpeg", "png", "tiff")),  # of 39
            "first": KnobEntry("Int", "1"), "last": KnobEntry("Int", "1"),
            "origfirst": KnobEntry("Int", "1"), "origlast": KnobEntry("Int", "1"), "origset": NO,
            "before": _enum(_ENDS), "after": _enum(_ENDS),
            "frame_mode": _enum("expression|start at|offset"), "frame": STRING,
            "on_error": _enum("error|black|checkerboard|nearest frame"),
            "raw": NO, "premultiplied": NO, "auto_alpha": NO,
            "colorspace": _enum(_SPACES),
            "localizationPolicy": _enum("on|fromAutoLocalizePath\tfrom auto-localize path|onDemand\ton demand|off", "fromAutoLocalizePath"),
            "reload": SCRIPT, "version": ZERO, "format": FORMAT,
        },
    ),
    "Write": ClassEntry(
        1,
        {
            **_PICTURE,
            "file": FILE,
            "file_type": _enum(_FILE_TYPES),
            "channels": MASK_RGB,
            "raw": NO, "premultiplied": NO, "create_directories": NO, "use_limit": NO,
            "colorspace": _enum(_SPACES),
            "on_error": _enum("error|black|checkerboard|read input"),
            "first": ONE, "last": ONE, "render_order": ONE,
            "beforeRender": PYTHON, "afterRender": PYTHON, "beforeFrameRender": PYTHON, "afterFrameRender": PYTHON,
            "Render": PYSCRIPT,
        },
    ),
    "Viewer": ClassEntry(10000, {}),
}  # fmt: skip

# The root is in no scan of node classes; these are seen in the Root blocks of saved scripts.
ROOT = ClassEntry(
    0,
    {
        "frame": KnobEntry("Double", "1"),
        "first_frame": KnobEntry("Double", "1"),
        "last_frame": KnobEntry("Double", "100"),
        "fps": KnobEntry("Double", "24"),
        "format": FORMAT,
        "proxy": NO,
        "colorManagement": _enum("Nuke|OCIO"),
        "OCIO_config": KnobEntry("Enumeration", "nuke-default"),
        "customOCIOConfigPath": FILE,
        "workingSpaceLUT": KnobEntry("Enumeration", "linear"),
    },
)
