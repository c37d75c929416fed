"""What became of a node's keys since they were sent, seen without rendering anything."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from xmem_nuke.activity import fetch_cache
from xmem_nuke.host import Host, Node
from xmem_nuke.job import matte_folder
from xmem_nuke.orders import KEY
from xmem_nuke.remembered import Remembered
from xmem_nuke.states import EDITED, IN_MEMORY, NEW, KeyRow, NodeState, SuggestionRow, update_key_rows
from xmem_nuke.thumbnails import find_thumbnails

if TYPE_CHECKING:
    from xmem_nuke.shot import Shot

_BUDGET = 0.05  # seconds of the main thread; keys that were not reached keep what is known of them
_FRAME = re.compile(r"(-?\d+)\.exr")


def look_at_keys(host: Host, node: Node, state: NodeState, sent: Mapping[tuple[str, int], str] | None) -> NodeState:
    """Give the state with its keys as they are in Nuke now.

    ``sent`` are the fingerprints of what the server has; None when this Nuke sent nothing, and the cache folder knows.
    Raises InputError when the node cannot be run as it is, NodeGoneError when there is no node.
    """
    shot = host.fetch_shot(node)
    provisional, stale = state.provisional, state.stale
    if sent is None:
        remembered = Remembered(fetch_cache(shot))
        sent = {(KEY, frame): known for frame, known in remembered.sent_keys.items()}
        provisional, stale = frozenset(remembered.provisional), frozenset(remembered.stale)
    known = {row.frame: row for row in state.keys}
    if not known:
        known = {frame: KeyRow(frame, (), (), IN_MEMORY) for frame in host.fetch_keyed(node)}
    suggestions = state.suggestions
    if not suggestions:
        marked = host.fetch_suggested(node)
        suggestions = tuple(SuggestionRow(frame, "", 0.0, "Suggested earlier.") for frame in marked)
    began = time.monotonic()
    pictures = find_thumbnails(fetch_cache(shot))
    rows = []
    for frame in shot.key_frames:
        row = known.get(frame) or KeyRow(frame, (), (), NEW)
        if (KEY, frame) in sent and time.monotonic() - began < _BUDGET:
            is_same = host.fetch_fingerprint(node, shot, KEY, frame) in ("", sent[KEY, frame])
            row = dataclasses.replace(row, state=IN_MEMORY if is_same else EDITED)
        rows.append(dataclasses.replace(row, thumbnail=pictures.get(frame, "")))
    looked = dataclasses.replace(
        state,
        name=shot.node_name,
        first=shot.first,
        last=shot.last,
        suggestions=suggestions,
        mattes=_fetch_mattes(shot),
        provisional=provisional,
        stale=stale,
    )
    return update_key_rows(looked, rows)


def _fetch_mattes(shot: Shot) -> frozenset[int]:
    """Give the frames that have a matte in the cache folder."""
    numbers = [drawn.object_id for drawn in shot.objects]
    found: frozenset[int] = frozenset()
    for folder in (matte_folder(fetch_cache(shot), number) for number in (*numbers[:1], 0)):
        found |= _fetch_frames(folder)
    return found


def _fetch_frames(folder: Path) -> frozenset[int]:
    names: list[str] = []
    with contextlib.suppress(OSError):
        names = [path.name for path in folder.iterdir()]
    matches = (_FRAME.fullmatch(name) for name in names)
    return frozenset(int(match.group(1)) for match in matches if match)
