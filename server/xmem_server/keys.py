"""Keys: an object's alpha exactly as the artist's file stores it, and what a mask file holds."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from xmem_protocol import InputError
from xmem_server.exr import fetch_exr_channel, fetch_exr_header
from xmem_server.file_kinds import EXR, JPEG, MOVIE, PNG, fetch_file_kind
from xmem_server.headers import MAX_LABELS, DecodeLimits, MaskSurvey, display_name
from xmem_server.plates import DEFAULT_LIMITS, on_display_window
from xmem_server.png_index import PALETTE, fetch_indices, read_png_header
from xmem_server.stills import Channels, fetch_still_channels, read_file_bytes

SLACK = 0.001  # a filter or a lossy EXR leaves this much around 0 and 1; more is a mistake that should be seen
_AUTO = "auto"
_AUTO_ORDER = ("A", "Y", "R")
_COLOUR = re.compile(r"[0-9a-f]{6}")

Alpha = npt.NDArray[np.float32]


def fetch_alpha(path: Path, suffix: str, selector: str, limits: DecodeLimits = DEFAULT_LIMITS) -> Alpha:
    """Give one object's alpha: HxW float32 0..1 on the display window, as stored.

    Half and float pass bit for bit, integers are divided by their largest value. ``selector`` is as in
    ``xmem_protocol.Key``: ``channel:NAME``, ``channel:auto`` (A, else Y, else R, else the first), ``index:N`` or
    ``colour:rrggbb`` (both give 0 and 1). Values up to SLACK outside 0..1 are clamped. What the data window does not
    cover is 0. Raises InputError on damage, NaN, infinity, values further outside, or a selector that does not fit.
    """
    way, _, value = selector.partition(":")
    file_kind = fetch_file_kind(path, suffix)
    if file_kind == MOVIE:
        raise InputError(
            f"{display_name(path)} is a video; a key is a still. Export the annotated frame as EXR or PNG."
        )
    if way == "channel" and value:
        return _fetch_channel_alpha(path, file_kind, value, limits)
    if way == "index" and value.isdecimal():
        return _fetch_index_alpha(path, file_kind, int(value), limits)
    if way == "colour" and _COLOUR.fullmatch(value):
        return _fetch_colour_alpha(path, file_kind, value, limits)
    raise InputError(f"Selector {selector!r} is not channel:NAME, index:N or colour:rrggbb. Write it as one of these.")


def survey_mask(path: Path, suffix: str, limits: DecodeLimits = DEFAULT_LIMITS) -> MaskSurvey:
    """Give what a mask file holds, so that a folder of them can be told to be index masks, coloured masks or alphas.

    A survey of an alpha looks at ``channel:auto``. Raises InputError as ``fetch_alpha`` does.
    """
    file_kind = fetch_file_kind(path, suffix)
    if file_kind == PNG:
        data = read_file_bytes(path, limits)
        if read_png_header(data, display_name(path)).colour_type == PALETTE:
            return _survey_levels("palette", fetch_indices(data, display_name(path)))
    if file_kind not in (EXR, JPEG, MOVIE):
        _, channels = fetch_still_channels(path, file_kind, limits)
        if channels.keys() == {"Y"} and channels["Y"].dtype == np.uint8:
            return _survey_levels("grey", channels["Y"])
        if "R" in channels and channels["R"].dtype == np.uint8 and _is_opaque(channels):
            return _survey_colours(channels)
    alpha = fetch_alpha(path, suffix, "channel:auto", limits)
    return MaskSurvey("alpha", (), float(alpha.max()))


def _fetch_channel_alpha(path: Path, file_kind: str, channel: str, limits: DecodeLimits) -> Alpha:
    name = display_name(path)
    if file_kind == EXR:
        chosen = _choose_channel(fetch_exr_header(path, limits).channels, channel, name)
        header, stored = fetch_exr_channel(path, chosen, limits)
    else:
        header, channels = fetch_still_channels(path, file_kind, limits)
        stored = channels[_choose_channel(header.channels, channel, name)]
    alpha = stored.astype(np.float32)
    if stored.dtype in (np.uint8, np.uint16):
        alpha /= np.float32(np.iinfo(stored.dtype).max)
    return _checked(on_display_window(alpha, header), name)


def _choose_channel(channels: tuple[str, ...], wanted: str, name: str) -> str:
    if wanted == _AUTO:
        return next((channel for channel in _AUTO_ORDER if channel in channels), channels[0])
    if wanted not in channels:
        have = ", ".join(channels[:20])
        raise InputError(f"{name} has no channel {wanted}: it has {have}. Choose one of these, or auto.")
    return wanted


def _checked(alpha: Alpha, name: str) -> Alpha:
    """Give the alpha with the slack around 0..1 clamped; NaN, infinity and values further outside are refused."""
    broken = ~np.isfinite(alpha)
    if broken.any():
        count, (y, x) = int(broken.sum()), np.argwhere(broken)[0]
        raise InputError(
            f"{name} has an alpha that is NaN or infinite in {count} pixels, the first {x} from the left and {y} from the "
            "top. Remove them (an Expression node: isnan(a) ? 0 : a) and render the key again."
        )
    low, high = float(alpha.min()), float(alpha.max())
    if low < -SLACK or high > 1 + SLACK:
        raise InputError(
            f"{name} has an alpha from {low:.4g} to {high:.4g}; 0 to 1 was wanted. Clamp it and render the key again."
        )
    return np.clip(alpha, 0, 1)


def _fetch_index_alpha(path: Path, file_kind: str, index: int, limits: DecodeLimits) -> Alpha:
    name = display_name(path)
    if file_kind == PNG:
        levels: npt.NDArray[Any] = fetch_indices(read_file_bytes(path, limits), name)
    elif file_kind in (EXR, JPEG):
        raise InputError(
            f"{name} is {'an EXR' if file_kind == EXR else 'a JPEG'}; an index mask is a palette or grey PNG. Export it as one."
        )
    else:
        _, channels = fetch_still_channels(path, file_kind, limits)
        if channels.keys() != {"Y"} or channels["Y"].dtype == np.float32:
            raise InputError(
                f"{name} is not a grey TIFF of whole numbers, so it has no indices. Export the mask as a palette PNG."
            )
        levels = channels["Y"]
    return (levels == index).astype(np.float32)


def _fetch_colour_alpha(path: Path, file_kind: str, colour: str, limits: DecodeLimits) -> Alpha:
    name = display_name(path)
    if file_kind in (EXR, JPEG):
        why = "has no exact 8-bit colours" if file_kind == EXR else "smears its colours"
        raise InputError(
            f"{name} is of a kind ({file_kind}) that {why}; a coloured mask is an RGB PNG. Export it as one."
        )
    _, channels = fetch_still_channels(path, file_kind, limits)
    if "R" not in channels or channels["R"].dtype != np.uint8:
        raise InputError(
            f"{name} is not an 8-bit colour picture; colour:{colour} needs one. Export the mask as an RGB PNG."
        )
    return (_pack_colours(channels) == int(colour, 16)).astype(np.float32)


def _pack_colours(channels: Channels) -> npt.NDArray[np.uint32]:
    """Give HxW numbers 0xrrggbb."""
    red, green, blue = (channels[name].astype(np.uint32) for name in "RGB")
    return np.asarray((red << 16) | (green << 8) | blue, np.uint32)


def _is_opaque(channels: Channels) -> bool:
    return "A" not in channels or bool((channels["A"] == 255).all())


def _survey_levels(form: str, levels: npt.NDArray[Any]) -> MaskSurvey:
    found = np.unique(levels)
    labels = tuple(f"index:{level}" for level in found if level)[:MAX_LABELS]
    return MaskSurvey(form, labels, float(found[-1]) / 255)


def _survey_colours(channels: Channels) -> MaskSurvey:
    found = np.unique(_pack_colours(channels))
    labels = tuple(f"colour:{colour:06x}" for colour in found if colour)[:MAX_LABELS]
    return MaskSurvey("rgb", labels, max(float(channels[name].max()) for name in "RGB") / 255)
