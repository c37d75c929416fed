"""Small pictures of the keys in the cache folder: drawn by the server, named after what they show, fetched once."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from xmem_nuke.remembered import prepare_folder
from xmem_protocol import InputError, Key, ServerError, XMemError

if TYPE_CHECKING:
    from xmem_client import Client

HEIGHT = 96  # pixels: sharp in a row of two lines on a screen at 200 %
_FOLDER = "thumbnails"
_MOST = 200  # a roto with more keys than that is not looked at picture by picture
_NAME = re.compile(r"(-?\d+)\.[0-9a-f]{8}\.png")


def fetch_thumbnails(
    client: Client, session: str, keys: Sequence[Key], plates: dict[int, str], cache: Path
) -> Iterator[tuple[int, Path]]:
    """Give frame and picture of every key, fetching those that are not in the cache yet.

    One that cannot be drawn is left out, and a server that goes away is its other callers' business: no picture is worth
    an error.
    """
    folder = cache / _FOLDER
    with contextlib.suppress(InputError):
        prepare_folder(folder)
    for frame in sorted({key.frame for key in keys})[:_MOST]:
        shown = (plates.get(frame, ""), [key for key in keys if key.frame == frame])
        path = folder / f"{frame:05d}.{hashlib.sha256(repr(shown).encode()).hexdigest()[:8]}.png"
        try:
            if not path.exists():
                client.fetch_thumbnail(session, frame, HEIGHT, path)
                _drop_older(path)
        except ServerError:
            continue
        except XMemError:
            return
        yield frame, path


def find_thumbnails(cache: Path) -> dict[int, str]:
    """Give the pictures that an earlier run left in the cache folder, by frame."""
    paths: list[Path] = []
    with contextlib.suppress(OSError):
        paths = sorted((cache / _FOLDER).iterdir())
    matches = ((_NAME.fullmatch(path.name), path) for path in paths)
    return {int(match.group(1)): str(path) for match, path in matches if match}


def _drop_older(path: Path) -> None:
    for other in path.parent.glob(f"{path.name.partition('.')[0]}.*.png"):
        if other != path:
            with contextlib.suppress(OSError):
                other.unlink()
