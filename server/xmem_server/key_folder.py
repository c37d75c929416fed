"""Keys from a folder: index masks, coloured masks, one sub-folder of alphas per object, or alphas of object 1.

What a key says of an object follows from the form. A mask labels every pixel, so an object that is in another mask of
the folder and not in this one is *absent* here. With sub-folders an object without a file at a frame is *not given*
there, and one whose alpha is all 0 is *absent*.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from xmem_protocol import ABSENT, MAX_OBJECT_ID, PRESENT, InputError
from xmem_server.decoding import Decoder
from xmem_server.headers import MAX_LABELS, MaskSurvey
from xmem_server.sequences import PlateFile, fetch_sequence, list_numbered

AUTO = "auto"
ALPHA = "alpha"
INDEX = "index"
COLOUR = "colour"
FORMS = (AUTO, ALPHA, INDEX, COLOUR)

_LAYER_START, _LAYER_END = "object_", ".A"  # as our own layered mattes are written
_COLOUR = "colour:"
# A grey mask whose brightest pixel is below this is an index mask: as an alpha it would be nearly invisible.
_MAX_GREY_INDEX = 32


@dataclass(frozen=True)
class KeyFolderOptions:
    """How to read a folder of keys.

    ``form`` is one of FORMS: ``auto`` looks at the files. ``channel`` is the channel that holds an alpha, ``auto`` for A,
    else Y, else R, else the first.
    """

    form: str = AUTO
    channel: str = AUTO


@dataclass(frozen=True)
class KeyFile:
    """What one file says of one object at one frame; ``selector`` as in ``xmem_protocol.Key``.

    ``presence`` is PRESENT or ABSENT. The file is named in both cases; an absent key needs none of its pixels.
    """

    frame: int
    object_id: int
    presence: str
    path: Path
    suffix: str
    selector: str


@dataclass(frozen=True)
class KeyFolder:
    """The keys of a folder in order of frame and object, and what each object id stands for (for the report)."""

    keys: tuple[KeyFile, ...]
    objects: Mapping[int, str]


DEFAULT_OPTIONS = KeyFolderOptions()
NO_COLOURS: Mapping[str, int] = MappingProxyType({})
_COLOUR_NAMES = {
    "ff0000": "red",
    "00ff00": "green",
    "0000ff": "blue",
    "ffff00": "yellow",
    "ff00ff": "magenta",
    "00ffff": "cyan",
    "ffffff": "white",
}


def fetch_key_folder(
    folder: Path,
    decoder: Decoder,
    options: KeyFolderOptions = DEFAULT_OPTIONS,
    colours: Mapping[str, int] = NO_COLOURS,
) -> KeyFolder:
    """Give the keys below a folder; every file is decoded once, to know which objects are in it.

    Sub-folders named by a number are objects (``keys/2/1001.exr``). Else the files are index masks (palette PNG, or grey
    up to 32), coloured masks (8-bit RGB: one object per colour, black is background), multi-layer EXR with
    ``object_<id>.A``, or alphas of object 1. ``colours`` are the numbers that colours (``colour:rrggbb``) have already:
    they keep them. New ones get those of the usual label palette if all are from it, else the lowest free ones in order
    of their hexadecimal value. Raises InputError when the files are of several forms, or every key is empty.
    """
    if options.form not in FORMS:
        raise InputError(f"Key form {options.form!r} is not known; {', '.join(FORMS)} are. Choose one of these.")
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder of keys. Give the folder that holds them.")
    object_folders = _object_folders(folder)
    if object_folders:
        keys = [
            key
            for object_id, files in object_folders.items()
            for key in _alpha_keys(files, object_id, f"channel:{options.channel}", decoder)
        ]
        return _whole(folder, keys, {object_id: f"folder {object_id}" for object_id in object_folders})
    files = fetch_sequence(str(folder)).files
    layers = _object_layers(files, decoder) if options.form in (AUTO, ALPHA) and options.channel == AUTO else {}
    if layers:
        keys = [
            key
            for object_id in sorted({object_id for ids in layers.values() for object_id in ids})
            for key in _alpha_keys(
                {frame: files[frame] for frame, ids in layers.items() if object_id in ids},
                object_id,
                f"channel:{_LAYER_START}{object_id}{_LAYER_END}",
                decoder,
            )
        ]
        return _whole(folder, keys, {key.object_id: key.selector for key in keys})
    return _fetch_masks(folder, files, decoder, options, colours)


def describe_label(label: str) -> str:
    """Give the words for what an object stands for: ``green (#00ff00)``, ``#0ac81e``, ``index 3``, else as it is."""
    if not label.startswith(_COLOUR):
        return label.replace(":", " ")
    colour = label.removeprefix(_COLOUR)
    return f"{_COLOUR_NAMES[colour]} (#{colour})" if colour in _COLOUR_NAMES else f"#{colour}"


def _fetch_masks(
    folder: Path,
    files: Mapping[int, PlateFile],
    decoder: Decoder,
    options: KeyFolderOptions,
    colours: Mapping[str, int],
) -> KeyFolder:
    if options.form == ALPHA or options.channel != AUTO:
        keys = _alpha_keys(files, 1, f"channel:{options.channel}", decoder)
        return _whole(folder, keys, {1: f"channel {options.channel}"})
    surveys = {frame: decoder.survey_mask(str(file.path), file.suffix) for frame, file in files.items()}
    form = options.form if options.form != AUTO else _tell_form(folder, surveys)
    if form == ALPHA:
        keys = [_key(frame, files[frame], 1, "channel:auto", survey.peak) for frame, survey in surveys.items()]
        return _whole(folder, keys, {1: "channel auto"})
    ids = _number_labels(folder, form, surveys, colours)
    keys = [
        _key(frame, files[frame], object_id, label, float(label in survey.labels))
        for frame, survey in surveys.items()
        for label, object_id in ids.items()
    ]
    return _whole(folder, keys, {object_id: label for label, object_id in ids.items()})


def _tell_form(folder: Path, surveys: Mapping[int, MaskSurvey]) -> str:
    forms = {survey.form for survey in surveys.values()}
    if forms == {"palette"}:
        return INDEX
    if forms == {"grey"}:
        return INDEX if 255 * max(survey.peak for survey in surveys.values()) <= _MAX_GREY_INDEX else ALPHA
    if forms == {"rgb"}:
        labels = {label for survey in surveys.values() for label in survey.labels}
        return ALPHA if labels and all(_is_grey(label) for label in labels) else COLOUR
    if forms == {"alpha"}:
        return ALPHA
    raise InputError(
        f"{folder} mixes kinds of masks ({', '.join(sorted(forms))}). Save all keys the same way, or say which form they are."
    )


def _is_grey(label: str) -> bool:
    colour = label.removeprefix(_COLOUR)
    return colour[0:2] == colour[2:4] == colour[4:6]


def _number_labels(
    folder: Path, form: str, surveys: Mapping[int, MaskSurvey], colours: Mapping[str, int]
) -> dict[str, int]:
    """Give the object id of every label in the folder's masks, in order of id, the same whichever masks come first."""
    start = f"{form}:"
    labels = {label for survey in surveys.values() for label in survey.labels}
    if any(not label.startswith(start) for label in labels):
        raise InputError(
            f"{folder} does not hold {form} masks alone. Export them all as {form} masks, or choose another form."
        )
    if form == INDEX:
        return {
            label: int(label.removeprefix(start))
            for label in sorted(labels, key=lambda label: int(label.removeprefix(start)))
        }
    if len(labels) >= MAX_LABELS:
        raise InputError(
            f"{folder} has coloured masks with {len(labels)} colours or more; {MAX_OBJECT_ID} objects is the most. "
            "Soft edges make a colour of every shade: export the masks without anti-aliasing."
        )
    return _number_colours(folder, labels, colours)


def _number_colours(folder: Path, labels: set[str], colours: Mapping[str, int]) -> dict[str, int]:
    ids = {label: colours[label] for label in labels & colours.keys()}
    taken = set(colours.values())
    palette = _label_palette()
    if labels <= palette.keys():
        ids |= {label: palette[label] for label in labels - ids.keys() if palette[label] not in taken}
        taken |= set(ids.values())
    free = (number for number in range(1, MAX_OBJECT_ID + 1) if number not in taken)
    for label in sorted(labels - ids.keys()):
        number = next(free, 0)
        if not number:
            raise InputError(
                f"{folder} has a new colour ({describe_label(label)}), but all {MAX_OBJECT_ID} object numbers were given "
                "to colours of earlier runs. Choose another --out to begin anew."
            )
        ids[label] = number
    return dict(sorted(ids.items(), key=lambda pair: pair[1]))


def _label_palette() -> dict[str, int]:
    """Give the palette that segmentation data sets share: the bits of the number spread over red, green and blue."""
    palette = {}
    for number in range(1, MAX_OBJECT_ID + 1):
        rgb = [0, 0, 0]
        for bit in range(8):
            rgb[bit % 3] |= ((number >> bit) & 1) << (7 - bit // 3)
        palette[f"{_COLOUR}{rgb[0]:02x}{rgb[1]:02x}{rgb[2]:02x}"] = number
    return palette


def _object_folders(folder: Path) -> dict[int, Mapping[int, PlateFile]]:
    found: dict[int, Mapping[int, PlateFile]] = {}
    for below in sorted(path for path in folder.iterdir() if path.is_dir() and path.name.isdecimal()):
        object_id = int(below.name)
        if not 1 <= object_id <= MAX_OBJECT_ID:
            raise InputError(
                f"{below} would be object {object_id}; 1 to {MAX_OBJECT_ID} are possible. Rename the folder."
            )
        if object_id in found:
            raise InputError(f"{folder} has two folders for object {object_id}. Remove or rename one.")
        found[object_id] = fetch_sequence(str(below)).files
    if found and list_numbered(folder):
        raise InputError(f"{folder} holds keys and also folders of keys. Keep one of the two.")
    return found


def _object_layers(files: Mapping[int, PlateFile], decoder: Decoder) -> dict[int, set[int]]:
    """Give, for each frame whose EXR has channels ``object_<id>.A``, the ids; nothing when no file has any."""
    layers: dict[int, set[int]] = {}
    for frame, file in files.items():
        if file.suffix != ".exr":
            continue
        for channel in decoder.fetch_header(str(file.path), file.suffix).channels:
            number = channel.removeprefix(_LAYER_START).removesuffix(_LAYER_END)
            if (
                channel == f"{_LAYER_START}{number}{_LAYER_END}"
                and number.isdecimal()
                and 1 <= int(number) <= MAX_OBJECT_ID
            ):
                layers.setdefault(frame, set()).add(int(number))
    return layers


def _alpha_keys(files: Mapping[int, PlateFile], object_id: int, selector: str, decoder: Decoder) -> list[KeyFile]:
    return [
        _key(frame, file, object_id, selector, float(decoder.fetch_alpha(str(file.path), file.suffix, selector).max()))
        for frame, file in files.items()
    ]


def _key(frame: int, file: PlateFile, object_id: int, selector: str, peak: float) -> KeyFile:
    return KeyFile(frame, object_id, PRESENT if peak > 0 else ABSENT, file.path, file.suffix, selector)


def _whole(folder: Path, keys: list[KeyFile], objects: Mapping[int, str]) -> KeyFolder:
    if not any(key.presence == PRESENT for key in keys):
        raise InputError(
            f"Every key in {folder} is empty. Draw the object on at least one frame and export the keys again."
        )
    return KeyFolder(tuple(sorted(keys, key=lambda key: (key.frame, key.object_id))), dict(sorted(objects.items())))
