"""How a frame is known before it is rendered. Main thread only.

What Nuke's operator hash covers has not been seen in a real Nuke; it is asked for here and nowhere else, and
``examples/nuke_smoke.py`` checks what is assumed: it takes in everything above the node, at the script's current frame.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import nuke

from xmem_nuke.rendering import KEY, SOURCES
from xmem_nuke.shot import Shot, untouched_script

_CONVERSION = ("plate_conversion", "exposure", "region")


def fetch_fingerprint(node: Any, shot: Shot, kind: str, frame: int) -> str:
    """Give 64 hexadecimal digits that change when the rendered frame may; "" when Nuke gives no dependable hash.

    The same digits mean the same picture; an empty answer means that the frame must be rendered to know it.
    """
    with untouched_script():
        if nuke.frame() != frame:
            nuke.root().setFrame(frame)
        hashes = _fetch_op_hashes(node.node(SOURCES[kind]))
        settings = [] if kind == KEY else [node[name].toScript() for name in _CONVERSION]
    if not hashes:
        return ""
    channels = [pair.channel for pair in shot.objects] if kind == KEY else []
    what = [kind, frame, hashes, settings, channels, shot.width, shot.height, shot.pixel_aspect]
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()


def _fetch_op_hashes(source: Any) -> list[int]:
    """Give the hashes of a node's operators, empty when there are none or they are all zero (not made yet)."""
    try:
        source.forceValidate()  # else the hash may be of the frame that was shown last
        hashes = [int(number) for number in source.opHashes()]
    except (AttributeError, RuntimeError, TypeError, ValueError):
        return []
    return hashes if any(hashes) else []
