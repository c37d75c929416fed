"""What a session accepts: each function raises InputError in the artist's words, and gives nothing back."""

from __future__ import annotations

import math
import re

from xmem_protocol import (
    ABSENT,
    MAX_FRAME_NUMBER,
    MAX_OBJECT_ID,
    MAX_SIDE,
    MAX_THUMBNAIL_HEIGHT,
    PRESENT,
    InputError,
    Key,
    Plate,
    PropagationSettings,
    Shot,
    SuggestionSettings,
)
from xmem_server.files import check_sha256

MIN_SIDE = 16  # one cell of the network's key grid
MAX_FRAMES = 100_000  # more than an hour at 24 frames per second
_NAME_LENGTH = 200
_SUFFIX = re.compile(r"\.[a-z0-9]{1,8}")
_SELECTOR = re.compile(r"channel:[^\x00-\x1f]{1,200}|index:\d{1,5}|colour:[0-9a-f]{6}")
_CHOICES = {
    "permanent": ("every", "first", "none"),
    "precision": ("float32", "bfloat16", "float16"),
    "output": ("exr-half", "exr-float", "png16"),
    "layout": ("per-object", "layered"),
}
_RANGES = {
    "mem_every": (1, 10_000),
    "top_k": (1, 10_000),
    "max_working_frames": (2, 10_000),
    "min_working_frames": (1, 9_999),
    "prototypes": (1, 10_000),
    "max_long_term": (1, 1_000_000),
    "snapshot_every": (1, 1_000_000),
}


def check_session_name(name: str) -> None:
    """Refuse names that cannot be shown on one line."""
    if not 0 < len(name) <= _NAME_LENGTH or not name.isprintable():
        raise InputError(f"A session's name is 1 to {_NAME_LENGTH} printable letters; got {name[:80]!r}.")


def check_shot(shot: Shot) -> None:
    """Refuse a shot that cannot be."""
    if not (MIN_SIDE <= shot.width <= MAX_SIDE and MIN_SIDE <= shot.height <= MAX_SIDE):
        raise InputError(f"The shot is {shot.width}x{shot.height}; each side must be {MIN_SIDE} to {MAX_SIDE} pixels.")
    if not (math.isfinite(shot.pixel_aspect) and 0.01 <= shot.pixel_aspect <= 100):
        raise InputError(f"The shot's pixel aspect is {shot.pixel_aspect:g}; 1 is usual, 2 is anamorphic. Correct it.")
    if max(abs(shot.first), abs(shot.last)) > MAX_FRAME_NUMBER:
        raise InputError(
            f"Frame numbers go from -{MAX_FRAME_NUMBER} to {MAX_FRAME_NUMBER}; got {shot.first}-{shot.last}."
        )
    if shot.last < shot.first:
        raise InputError(f"The shot ends at frame {shot.last}, before it begins at {shot.first}. Swap them.")
    if shot.last - shot.first >= MAX_FRAMES:
        raise InputError(f"The shot has {shot.last - shot.first + 1} frames; {MAX_FRAMES} is the most. Split it.")
    if not shot.colorspace or len(shot.colorspace) > _NAME_LENGTH or len(shot.name) > _NAME_LENGTH:
        raise InputError("The shot needs a colour space ('display', 'auto' or an OpenColorIO name) and a short name.")


def check_same_shot(name: str, known: Shot, wanted: Shot) -> None:
    """Refuse another shot under a name that has one, naming the first difference."""
    for field, words in (("width", "pixels wide"), ("height", "pixels high")):
        if getattr(known, field) != getattr(wanted, field):
            raise InputError(
                f"Session {name!r} was made for a shot {getattr(known, field)} {words}; this one is {getattr(wanted, field)}. "
                "Use another session name for another plate."
            )
    for field in ("first", "last", "pixel_aspect", "colorspace", "name"):
        if getattr(known, field) != getattr(wanted, field):
            raise InputError(
                f"Session {name!r} was made for a shot with {field.replace('_', ' ')} {getattr(known, field)}; "
                f"this one has {getattr(wanted, field)}. Use another session name for another shot."
            )


def check_frame(frame: int, shot: Shot) -> None:
    """Refuse a frame outside the shot."""
    if not shot.first <= frame <= shot.last:
        raise InputError(f"Frame {frame} is outside the shot ({shot.first}-{shot.last}).")


def check_thumbnail_height(height: int) -> None:
    """Refuse a thumbnail that is none."""
    if not 1 <= height <= MAX_THUMBNAIL_HEIGHT:
        raise InputError(f"A thumbnail is 1 to {MAX_THUMBNAIL_HEIGHT} pixels high; {height} was asked.")


def check_plate(plate: Plate, shot: Shot) -> None:
    """Refuse a plate whose words make no sense; its file is looked at elsewhere."""
    check_frame(plate.frame, shot)
    check_sha256(plate.sha256)
    if not _SUFFIX.fullmatch(plate.suffix):
        raise InputError(
            f"Frame {plate.frame}: {plate.suffix[:20]!r} is not a file ending such as .exr. Rename the plate."
        )
    if not 0 <= plate.index <= MAX_FRAME_NUMBER:
        raise InputError(f"Frame {plate.frame}: picture {plate.index} of its file cannot be; they count from 0.")


def check_key(key: Key, shot: Shot) -> None:
    """Refuse a key whose words make no sense; its file is looked at elsewhere."""
    check_frame(key.frame, shot)
    where = name_key(key)
    if not 1 <= key.object_id <= MAX_OBJECT_ID:
        raise InputError(f"Object {key.object_id} at frame {key.frame}: objects are numbered 1 to {MAX_OBJECT_ID}.")
    if key.presence == ABSENT:
        if key.sha256 or key.suffix or key.selector:
            raise InputError(f"{where} is marked absent, yet comes with a matte. Send one or the other.")
        return
    if key.presence != PRESENT:
        raise InputError(f"{where} is {key.presence[:20]!r}; it can be {PRESENT!r} or {ABSENT!r}.")
    check_sha256(key.sha256)
    if not _SUFFIX.fullmatch(key.suffix):
        raise InputError(f"{where}: {key.suffix[:20]!r} is not a file ending such as .exr. Rename the matte.")
    if not _SELECTOR.fullmatch(key.selector):
        raise InputError(
            f"{where}: {key.selector[:40]!r} says nothing; use channel:NAME, index:NUMBER or colour:rrggbb."
        )


def name_key(key: Key) -> str:
    """Give the words for a key at the start of a sentence."""
    return f"The key of object {key.object_id} at frame {key.frame}"


def check_propagation(settings: PropagationSettings, shot: Shot) -> None:
    """Refuse settings that no propagation of this shot can have."""
    check_frame(settings.first, shot)
    check_frame(settings.last, shot)
    if settings.last < settings.first:
        raise InputError(f"The range ends at frame {settings.last}, before it begins at {settings.first}. Swap them.")
    _check_working_size(settings.working_size, shot)
    if not 0 < settings.threshold < 1:
        raise InputError(f"threshold is {settings.threshold:g}; it must be above 0 and below 1 (0.5 is usual).")
    for name, choices in _CHOICES.items():
        if getattr(settings, name) not in choices:
            raise InputError(f"{name} is {getattr(settings, name)[:40]!r}; it can be {', '.join(choices)}.")
    for name, (least, most) in _RANGES.items():
        if not least <= getattr(settings, name) <= most:
            raise InputError(f"{name} is {getattr(settings, name)}; it must be {least} to {most}.")
    if settings.deep_update_every != -1 and not 1 <= settings.deep_update_every <= 10_000:
        raise InputError(
            f"deep_update_every is {settings.deep_update_every}; it must be 1 to 10000, or -1 for mem_every."
        )
    if settings.min_working_frames >= settings.max_working_frames:
        raise InputError(
            f"min_working_frames ({settings.min_working_frames}) must be below max_working_frames "
            f"({settings.max_working_frames})."
        )
    if settings.layout == "layered" and settings.output == "png16":
        raise InputError("A PNG cannot hold layers. Use an EXR output, or layout per-object.")


def check_playhead(playhead: tuple[int, ...], shot: Shot) -> None:
    """Refuse a playhead that is not one frame of the shot, or none."""
    if len(playhead) > 1:
        raise InputError(f"There is one playhead; {len(playhead)} frames were given. Give one, or none.")
    for frame in playhead:
        check_frame(frame, shot)


def _check_working_size(size: int, shot: Shot) -> None:
    side = min(shot.width, shot.height)
    if size and not MIN_SIDE <= size <= side:
        raise InputError(
            f"working_size is {size}; it must be {MIN_SIDE} to {side} (the plate's shorter side), or 0 for the model's own."
        )


def check_suggestion(settings: SuggestionSettings, objects: frozenset[int]) -> None:
    """Refuse settings that no suggestion can have; ``objects`` are those that the session's keys name."""
    if not 1 <= settings.count <= MAX_FRAMES:
        raise InputError(f"{settings.count} suggestions were asked; ask for 1 or more.")
    if not 0 <= settings.unsure <= MAX_FRAMES:
        raise InputError(f"{settings.unsure} unsure frames were asked; ask for 0 or more.")
    if not 0 <= settings.alpha <= 1:
        raise InputError(f"alpha is {settings.alpha:g}; it must be 0 (the whole picture) to 1 (the object alone).")
    if not 0 <= settings.min_area < 1:
        raise InputError(f"min_area is {settings.min_area:g}; it is a share of the picture, 0 to 1 (0.0025 is usual).")
    if settings.object_id and settings.object_id not in objects:
        known = ", ".join(str(number) for number in sorted(objects))
        raise InputError(f"Object {settings.object_id} has no key; the objects are {known}. 0 means all of them.")
