"""The kind a file's first bytes say it is, checked against what its name says."""

from __future__ import annotations

from pathlib import Path

from xmem_protocol import InputError
from xmem_server.headers import (
    EXR_SUFFIXES,
    JPEG_SUFFIXES,
    PNG_SUFFIXES,
    STILL_SUFFIXES,
    TIFF_SUFFIXES,
    VIDEO_SUFFIXES,
    display_name,
)

EXR = "EXR"
PNG = "PNG"
JPEG = "JPEG"
TIFF = "TIFF"
MOVIE = "video"

_HEAD_BYTES = 16
_MAGIC = (
    (0, b"v/1\x01", EXR),
    (0, b"\x89PNG\r\n\x1a\n", PNG),
    (0, b"\xff\xd8\xff", JPEG),
    (0, b"II*\0", TIFF),
    (0, b"MM\0*", TIFF),
    (0, b"II+\0", TIFF),
    (0, b"MM\0+", TIFF),
    (4, b"ftyp", MOVIE),  # MP4 and today's QuickTime
    (4, b"moov", MOVIE),  # older QuickTime starts with any of its atoms
    (4, b"mdat", MOVIE),
    (4, b"wide", MOVIE),
    (4, b"free", MOVIE),
    (4, b"skip", MOVIE),
    (0, b"\x1a\x45\xdf\xa3", MOVIE),  # Matroska, WebM
    (8, b"AVI ", MOVIE),
    (0, b"\x06\x0e\x2b\x34\x02\x05\x01\x01", MOVIE),  # MXF
)
_SUFFIXES = {EXR: EXR_SUFFIXES, PNG: PNG_SUFFIXES, JPEG: JPEG_SUFFIXES, TIFF: TIFF_SUFFIXES, MOVIE: VIDEO_SUFFIXES}
_USUAL = {EXR: ".exr", PNG: ".png", JPEG: ".jpg", TIFF: ".tif", MOVIE: ".mov or .mp4"}


def fetch_file_kind(path: Path, suffix: str) -> str:
    """Give EXR, PNG, JPEG, TIFF or MOVIE, from the file's first bytes.

    Raises InputError when the file is missing, empty, not a picture, or another kind than its suffix says: a PNG named
    .exr decodes, but the next program down the line will not open it. Playlists and scripts that a video library would
    follow to other files are none of the kinds.
    """
    name = display_name(path)
    named = next((kind for kind, suffixes in _SUFFIXES.items() if suffix.lower() in suffixes), None)
    if named is None:
        readable = " ".join(sorted(STILL_SUFFIXES | VIDEO_SUFFIXES))
        raise InputError(
            f"{name} is a {suffix or 'nameless'} file, which cannot be read; {readable} can. Export one of these."
        )
    head = _fetch_head(path, name)
    if not head:
        raise InputError(f"{name} is empty (0 bytes). Render or copy it again.")
    found = next((kind for offset, magic, kind in _MAGIC if head[offset : offset + len(magic)] == magic), None)
    if found is None:
        raise InputError(
            f"{name} is not {_article(named)} file, or it is damaged at its start. Render or copy it again."
        )
    if found != named:
        raise InputError(
            f"{name} is {_article(found)} named {suffix}; rename it to {_USUAL[found]} or export {_article(named)}."
        )
    return found


def _article(kind: str) -> str:
    return f"an {kind}" if kind == EXR else f"a {kind}"


def _fetch_head(path: Path, name: str) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_HEAD_BYTES)
    except FileNotFoundError:
        raise InputError(f"{name} does not exist in {path.parent}. Check the path, or render it.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}. Check the path and its permissions.") from error
