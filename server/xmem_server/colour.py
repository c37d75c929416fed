"""From what a plate's numbers mean to what the network expects: sRGB-encoded, display-referred, 0..1.

Three ways, chosen by the shot's ``colorspace``:

- ``display``: the numbers are display-referred already and pass as they are, clipped to 0..1.
- ``auto``: 8 and 16 bit files and videos pass as ``display``; float files are linear Rec.709 and are encoded as below.
- any other word is a colour space of OpenColorIO: from ``$OCIO`` when that is set, else from the built-in ACES configs.
  It is converted to sRGB by the config's un-tone-mapped view (or its sRGB colour space), then softened as below.

Encoding of a linear value x, without any exposure change: the sRGB curve

    e(x) = 12.92 x                        for x <= 0.0031308
    e(x) = 1.055 x^(1/2.4) - 0.055        above, beyond 1 too

then a shoulder from KNEE = 0.8 on, so that values above 1 keep their gradation and nothing exceeds 1:

    s(e) = e                              for e <= KNEE, negative values become 0
    s(e) = KNEE + (1 - KNEE) t / (1 + t)  with t = (e - KNEE) / (1 - KNEE)

which is continuous with a continuous slope, and grows everywhere: 0.18 -> 0.461, 1 -> 0.9, 4 -> 0.967, 16 -> 0.985.
NaN becomes 0 (stray pixels of a render); infinity and all beyond counts as the largest half value, 65504.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import PyOpenColorIO as OpenColorIO

from xmem_protocol import InputError
from xmem_server.headers import FLOAT

DISPLAY = "display"
AUTO = "auto"
LINEAR = "linear"
OCIO = "ocio"
KNEE = 0.8
CURVE_VERSION = 1  # of what this module does to a plate's numbers: raise it whenever they may come out otherwise

BUILT_IN_CONFIGS = ("ocio://default", "ocio://studio-config-latest")  # the short list first, the camera spaces after
_UNTONEMAPPED = "Un-tone-mapped"
_SRGB_DISPLAY = "sRGB - Display"
_SRGB_SPACES = (  # what configs call sRGB-encoded Rec.709, newest first
    "sRGB Encoded Rec.709 (sRGB)",
    "srgb_rec709_scene",
    "sRGB - Texture",
    "Utility - sRGB - Texture",
    "srgb_tx",
    "Output - sRGB",
    "sRGB",
    "out_srgb",
)
_CONFIGS_KEPT = 8  # read, and conversions made of them: more than one run ever needs
_STRIP_ROWS = 128  # temporary arrays stay small beside the plate
_HALF_MAX = np.float32(65504)  # an overflowed highlight is a highlight; a colour transform cannot take infinity
# A missing file is not a kind of OpenColorIO.Exception in these bindings.
_OCIO_ERRORS = (OpenColorIO.Exception, OpenColorIO.ExceptionMissingFile)

Pixels = npt.NDArray[np.float32]


@dataclass(frozen=True)
class ColourTransform:
    """How one plate's numbers become display-referred ones.

    ``method`` is DISPLAY, LINEAR or OCIO; ``config`` and ``space`` are empty but for OCIO, where they name the
    OpenColorIO config and its colour space in the config's own spelling. ``stamp`` tells one state of the config's file
    from another, so that an edited config is read again.
    """

    method: str
    config: str = ""
    space: str = ""
    stamp: str = ""

    def describe(self) -> str:
        """Give one line for the report."""
        if self.method == DISPLAY:
            return "display-referred as stored, clipped to 0..1"
        if self.method == LINEAR:
            return f"linear Rec.709 to sRGB, shoulder from {KNEE}"
        return f"{self.space} to sRGB without tone mapping by OpenColorIO ({self.config}), shoulder from {KNEE}"


def fetch_transform(colorspace: str, kind: str) -> ColourTransform:
    """Give the transform for the artist's word and the file's kind (FLOAT, INTEGER or VIDEO of ``headers``).

    Raises InputError for a colour space that OpenColorIO does not know, naming the closest ones, and for a broken $OCIO.
    """
    if colorspace == DISPLAY or (colorspace == AUTO and kind != FLOAT):
        return ColourTransform(DISPLAY)
    if colorspace == AUTO:
        return ColourTransform(LINEAR)
    configs = _config_names()
    for config in configs:
        stamp = _fetch_stamp(config)
        space = _fetch_config(config, stamp).getColorSpace(colorspace) if colorspace else None
        if space is not None:
            transform = ColourTransform(OCIO, config, space.getName(), stamp)
            _fetch_cpu_processor(transform)
            return transform
    raise _unknown_space(colorspace, configs)


def fetch_colour_id(colorspace: str) -> str:
    """Give the id of what the artist's word does to numbers now: another one whenever a plate may come out otherwise.

    For an OpenColorIO name it follows from the conversion itself, its look-up tables too, not from the config's name;
    the config and its tables are read from disk again, here and for the plates after. Raises InputError as
    ``fetch_transform`` does.
    """
    if colorspace in (DISPLAY, AUTO):
        return f"{colorspace}/{CURVE_VERSION}"
    if any(map(_fetch_stamp, _config_names())):
        for cached in (_fetch_config, _fetch_processor, _fetch_cpu_processor):
            cached.cache_clear()
    transform = fetch_transform(colorspace, FLOAT)
    return f"{OCIO}/{CURVE_VERSION}/{_fetch_processor(transform).getCacheID()}"


def encode_linear(pixels: npt.NDArray[Any]) -> Pixels:
    """Give linear Rec.709 values sRGB-encoded and softened: any shape, float32 0..1. The formula is this module's."""
    linear = _finite(pixels)
    low = linear * np.float32(12.92)
    high = np.float32(1.055) * np.power(np.maximum(linear, np.float32(0.0031308)), np.float32(1 / 2.4)) - np.float32(
        0.055
    )
    return soften(np.where(linear <= np.float32(0.0031308), low, high))


def soften(encoded: Pixels) -> Pixels:
    """Give display-encoded values in 0..1: unchanged up to KNEE, an endless shoulder above, 0 for negative ones."""
    span = np.float32(1 - KNEE)
    excess = np.maximum(encoded - np.float32(KNEE), 0) / span
    shoulder = np.float32(KNEE) + span * (excess / (1 + excess))
    return np.where(encoded <= np.float32(KNEE), np.maximum(encoded, 0), np.minimum(shoulder, 1)).astype(
        np.float32, copy=False
    )


def convert_channel(transform: ColourTransform, channel: npt.NDArray[Any]) -> Pixels:
    """Give one channel, HxW as stored, as float32: display-referred, unless the transform needs all three together.

    For DISPLAY and LINEAR that is all; for OCIO the numbers are only made float and finite, and ``convert_pixels``
    follows. Values of 8 and 16 bit and half files go through a table, which is exact: they have 65536 values at most.
    8-bit channels may be given together, (H, W, 3), which takes less time.
    """
    if channel.dtype == np.uint8:
        return np.asarray(cv2.LUT(np.ascontiguousarray(channel), _fetch_table(transform.method, "uint8")), np.float32)
    if channel.dtype in (np.uint16, np.float16):
        codes = np.ascontiguousarray(channel).view(np.uint16)
        return _fetch_table(transform.method, channel.dtype.name).take(codes)
    result = np.empty(channel.shape, np.float32)
    for rows in _strips(channel.shape[0]):
        result[rows] = _CONVERSIONS[transform.method](channel[rows].astype(np.float32))
    return result


@functools.lru_cache(maxsize=9)
def _fetch_table(method: str, samples: str) -> Pixels:
    """Give what each value of uint8, uint16 or float16 samples becomes, by its bits; not to be written to."""
    if samples == "float16":
        return _CONVERSIONS[method](np.arange(65536, dtype=np.uint16).view(np.float16).astype(np.float32))
    top = np.float32(np.iinfo(samples).max)
    return _CONVERSIONS[method](np.arange(top + 1, dtype=np.float32) / top)


def convert_pixels(transform: ColourTransform, pixels: Pixels) -> Pixels:
    """Give display-referred HxWx3 in place of what ``convert_channel`` gave; the same array, changed, to save memory."""
    if transform.method != OCIO:
        return pixels
    processor = _fetch_cpu_processor(transform)
    for rows in _strips(pixels.shape[0]):
        strip = pixels[rows]
        processor.applyRGB(strip)
        strip[...] = soften(_finite(strip))
    return pixels


def _strips(height: int) -> Iterator[slice]:
    for start in range(0, height, _STRIP_ROWS):
        yield slice(start, start + _STRIP_ROWS)


def _clip(pixels: Pixels) -> Pixels:
    return np.clip(_finite(pixels), 0, 1)


def _finite(pixels: npt.NDArray[Any]) -> Pixels:
    known = np.nan_to_num(pixels.astype(np.float32, copy=False), nan=0.0)
    return np.clip(known, -_HALF_MAX, _HALF_MAX)


_CONVERSIONS: dict[str, Callable[[npt.NDArray[Any]], Pixels]] = {DISPLAY: _clip, LINEAR: encode_linear, OCIO: _finite}


def _config_names() -> tuple[str, ...]:
    """Give the configs to look in: $OCIO alone when it is set, for a facility's config is the only one that is right."""
    chosen = os.environ.get("OCIO", "").strip()
    return (chosen,) if chosen else BUILT_IN_CONFIGS


def _fetch_stamp(config: str) -> str:
    """Give what changes when a config's file is edited or exchanged; "" for a built-in config, and where there is no file."""
    try:
        status = Path(config).stat()
    except OSError:
        return ""
    return f"{status.st_ino}.{status.st_size}.{status.st_mtime_ns}"


@functools.lru_cache(maxsize=_CONFIGS_KEPT)
def _fetch_config(name: str, stamp: str) -> Any:
    """Give the config; ``stamp`` is its file's, so that an edited one is read again."""
    if stamp:
        OpenColorIO.ClearAllCaches()  # look-up tables are remembered by their path
    try:
        return OpenColorIO.Config.CreateFromFile(name)
    except _OCIO_ERRORS as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(
            f"The OpenColorIO config {name} that $OCIO names cannot be used ({reason}). "
            "Correct $OCIO, unset it, or set the plate's colour space to auto or display."
        ) from error


@functools.lru_cache(maxsize=_CONFIGS_KEPT)
def _fetch_processor(transform: ColourTransform) -> Any:
    config = _fetch_config(transform.config, transform.stamp)
    with _conversion_errors(transform):
        for display in (_SRGB_DISPLAY, config.getDefaultDisplay()):
            if display in config.getDisplays() and _UNTONEMAPPED in config.getViews(display):
                view = OpenColorIO.DisplayViewTransform(src=transform.space, display=display, view=_UNTONEMAPPED)
                return config.getProcessor(view)
        target = next((name for name in _SRGB_SPACES if config.getColorSpace(name) is not None), None)
        if target is None:
            raise InputError(
                f"The OpenColorIO config {transform.config} has no sRGB colour space that is known here. "
                "Set the plate's colour space to auto or display, or render the plate for display."
            )
        return config.getProcessor(transform.space, target)


@functools.lru_cache(maxsize=_CONFIGS_KEPT)
def _fetch_cpu_processor(transform: ColourTransform) -> Any:
    with _conversion_errors(transform):
        return _fetch_processor(transform).getDefaultCPUProcessor()


@contextlib.contextmanager
def _conversion_errors(transform: ColourTransform) -> Iterator[None]:
    try:
        yield
    except _OCIO_ERRORS as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(
            f"{transform.space} of the OpenColorIO config {transform.config} cannot be converted to sRGB ({reason}). "
            "Choose another colour space."
        ) from error


def _unknown_space(colorspace: str, configs: tuple[str, ...]) -> InputError:
    known = {DISPLAY.lower(): DISPLAY, AUTO.lower(): AUTO}
    for config in configs:
        for space in _fetch_config(config, _fetch_stamp(config)).getColorSpaces():
            for name in (space.getName(), *space.getAliases()):
                known.setdefault(name.lower(), space.getName())
    close = difflib.get_close_matches(colorspace.lower(), known, n=4, cutoff=0.5)
    names = ", ".join(dict.fromkeys(known[name] for name in close)) or "none; auto and display always work"
    return InputError(
        f"Colour space {colorspace!r} is not in the OpenColorIO config {configs[0]}. Close to it: {names}."
    )
