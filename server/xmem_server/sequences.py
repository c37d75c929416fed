"""Which file holds which frame: ``%04d``, ``####``, a folder, one file or a video. Frame numbers are the files' own."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from xmem_protocol import MAX_FRAME_NUMBER, InputError
from xmem_server.decoding import Decoder
from xmem_server.headers import STILL_SUFFIXES, VIDEO_SUFFIXES

FIRST_VIDEO_FRAME = 1  # as Nuke's own Read numbers a movie

_PLACEHOLDER = re.compile(r"%(?:0?(\d+))?d|(#+)")
_VIEW = re.compile(r"%[vV]")
# The last number of a name. A dash is a minus only at the start or behind a separator: shot-0012 is frame 12.
_LAST_NUMBER = re.compile(r"^(?P<before>.*?)(?P<number>(?:(?<![^._ ])-)?\d+)(?P<after>\D*)$")


@dataclass(frozen=True)
class PlateFile:
    """Where one frame is: a file, and the picture's place in it (0 for a still). ``suffix`` is lower-case with its dot."""

    path: Path
    index: int
    suffix: str


@dataclass(frozen=True)
class FrameSequence:
    """The frames of a plate or of a set of keys, in order of frame number; read-only, never empty."""

    pattern: str
    files: Mapping[int, PlateFile]

    @property
    def first(self) -> int:
        """The lowest frame number."""
        return min(self.files)

    @property
    def last(self) -> int:
        """The highest frame number."""
        return max(self.files)

    def select(self, first: int, last: int) -> Mapping[int, PlateFile]:
        """Give the files of the frames ``first`` to ``last``, both included; InputError naming the missing ones."""
        if first > last:
            raise InputError(f"Frames {first}-{last} run backwards. Give the first frame first.")
        missing = [frame for frame in range(first, last + 1) if frame not in self.files]
        if missing:
            raise InputError(
                f"{self.pattern} lacks {format_frames(missing)} of {first}-{last}; it has "
                f"{format_frames(self.files)}. Render the missing frames or choose a range without them."
            )
        return MappingProxyType({frame: self.files[frame] for frame in range(first, last + 1)})


def fetch_sequence(pattern: str) -> FrameSequence:
    """Give the frames that a pattern, a folder, a picture or a video names.

    ``%04d`` and ``####`` stand for the frame number, padded to that width at least, with a minus in front when negative
    (printf counts the minus in the width; both ways are read). A folder must hold one numbered sequence; other files in
    it do not matter. A picture without a number in its name is frame 1. A video's first picture is frame 1, as in Nuke.
    Gaps are allowed here; ``select`` refuses them. Raises InputError when nothing is found, two files are the same frame,
    or a folder holds several sequences.
    """
    path = Path(pattern)
    if path.is_dir():
        return _fetch_folder(path)
    if path.exists():
        return _fetch_file(path)
    found = list(_PLACEHOLDER.finditer(path.name))
    if _PLACEHOLDER.search(str(path.parent)) or len(found) > 1 or _VIEW.search(path.name):
        raise InputError(
            f"{pattern} must have one %04d or #### in the file name and nowhere else. Write one view and one number."
        )
    if not found:
        raise InputError(f"{pattern} does not exist. Give a file, a folder, a video, or a pattern with %04d or ####.")
    return _fetch_pattern(path, found[0])


def format_frames(frames: Iterable[int]) -> str:
    """Give frame numbers in words for a message: ``frame 7``, ``frames 1-4, 9`` (at most five runs)."""
    ordered = sorted(frames)
    runs: list[list[int]] = []
    for frame in ordered:
        if runs and frame == runs[-1][1] + 1:
            runs[-1][1] = frame
        else:
            runs.append([frame, frame])
    words = [str(start) if start == end else f"{start}-{end}" for start, end in runs[:5]]
    more = f" and {len(runs) - 5} more runs" if len(runs) > 5 else ""
    return f"{'frame' if len(ordered) == 1 else 'frames'} {', '.join(words)}{more}"


def list_numbered(folder: Path) -> dict[str, dict[int, PlateFile]]:
    """Give the numbered pictures of a folder by their pattern (``plate.#.exr``), each as {frame: file}.

    Raises InputError when two files of one pattern are the same frame (``plate.1.exr`` and ``plate.0001.exr``).
    """
    groups: dict[str, dict[int, PlateFile]] = {}
    for path in _pictures(folder):
        match = _LAST_NUMBER.match(path.stem)
        if match:
            group = f"{match['before']}#{match['after']}{path.suffix.lower()}"
            _add(groups.setdefault(group, {}), int(match["number"]), path)
    return groups


def _fetch_folder(folder: Path) -> FrameSequence:
    groups = list_numbered(folder)
    if len(groups) > 1:
        names = ", ".join(sorted(groups)[:5])
        raise InputError(
            f"{folder} holds {len(groups)} sequences ({names}). Give one of them as a pattern, with %04d or ####."
        )
    if groups:
        ((_, files),) = groups.items()
        return _sequence(str(folder), files)
    pictures = _pictures(folder)
    if len(pictures) == 1:
        return _fetch_file(pictures[0])
    videos = sorted(path.name for path in _entries(folder) if path.suffix.lower() in VIDEO_SUFFIXES)
    if videos:
        raise InputError(f"{folder} holds no numbered pictures. To use the video, give its path: {folder / videos[0]}.")
    raise InputError(
        f"{folder} holds no numbered pictures ({' '.join(sorted(STILL_SUFFIXES))}). Check the folder, or render the plate."
    )


def _fetch_file(path: Path) -> FrameSequence:
    suffix = path.suffix.lower()
    if suffix in VIDEO_SUFFIXES:
        with Decoder() as decoder:
            count = decoder.fetch_header(str(path), suffix).pictures
        files = {FIRST_VIDEO_FRAME + index: PlateFile(path, index, suffix) for index in range(count)}
        return _sequence(str(path), files)
    if suffix not in STILL_SUFFIXES:
        readable = " ".join(sorted(STILL_SUFFIXES | VIDEO_SUFFIXES))
        raise InputError(f"{path} cannot be read; {readable} can. Export one of these.")
    match = _LAST_NUMBER.match(path.stem)
    files = {}
    _add(files, int(match["number"]) if match else FIRST_VIDEO_FRAME, path)
    return _sequence(str(path), files)


def _fetch_pattern(path: Path, placeholder: re.Match[str]) -> FrameSequence:
    width = len(placeholder[2]) if placeholder[2] else int(placeholder[1] or 1)
    before, after = path.name[: placeholder.start()], path.name[placeholder.end() :]
    numbered = re.compile(re.escape(before) + r"(-?\d+)" + re.escape(after))
    if path.suffix.lower() not in STILL_SUFFIXES:
        raise InputError(f"{path} must end in one of {' '.join(sorted(STILL_SUFFIXES))}. Give a pattern of pictures.")
    files: dict[int, PlateFile] = {}
    for entry in _entries(path.parent):
        match = numbered.fullmatch(entry.name)
        if match and match[1] in _spellings(int(match[1]), width):
            _add(files, int(match[1]), entry)
    if not files:
        raise InputError(f"No file matches {path}. Check the path and the number of digits.")
    return _sequence(str(path), files)


def _spellings(frame: int, width: int) -> tuple[str, ...]:
    """Give how a frame number of this width is written; printf counts the minus, others do not."""
    return (f"{frame:0{width}d}", f"-{-frame:0{width}d}") if frame < 0 else (f"{frame:0{width}d}",)


def _add(files: dict[int, PlateFile], frame: int, path: Path) -> None:
    if abs(frame) > MAX_FRAME_NUMBER:
        raise InputError(f"{path.name} would be frame {frame}; {MAX_FRAME_NUMBER} is the most. Rename the sequence.")
    if frame in files:
        raise InputError(f"{files[frame].path.name} and {path.name} are both frame {frame}. Remove one of them.")
    files[frame] = PlateFile(path, 0, path.suffix.lower())


def _sequence(pattern: str, files: Mapping[int, PlateFile]) -> FrameSequence:
    return FrameSequence(pattern, MappingProxyType(dict(sorted(files.items()))))


def _pictures(folder: Path) -> list[Path]:
    return [
        path for path in _entries(folder) if path.suffix.lower() in STILL_SUFFIXES and not path.name.startswith(".")
    ]


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_file())
    except OSError as error:
        raise InputError(f"{folder} cannot be listed: {error.strerror}. Check the path and its permissions.") from error
