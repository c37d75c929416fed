"""The way up from a node to the rotos above it. Main thread only, though it imports no Nuke: nodes are handed in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

ROTOS = ("Roto", "RotoPaint")

# Nodes that show another frame's picture: a key at a frame above is not a key at it below.
TIME_CHANGING = frozenset(
    ("AppendClip", "FrameBlend", "FrameHold", "FrameRange", "Kronos", "OFlow2", "Retime", "TimeClip", "TimeWarp")
)

# Nodes that leave a roto's alpha in the channel that the roto drew it in; the insides of a group are walked through.
KEEPS_CHANNELS = frozenset(
    (*ROTOS, "Crop", "Dot", "Group", "Input", "NoOp", "Output", "Switch", "TimeOffset", "Transform")
)


class UpstreamWalk:
    """Walks what is above a node, nearest first, each node once; ``most`` nodes are looked at, ``why`` says why no more."""

    def __init__(self, most: int, why: str) -> None:
        self.warnings: list[str] = []
        self._left, self._why = most, why
        self._seen: set[tuple[str, int]] = set()

    def find_rotos(self, start: Any) -> Iterator[tuple[Any, int]]:
        """Yield each Roto and RotoPaint in use, with the frames by which its keys are shifted on the way down."""
        for node, offset in self.find_nodes(start):
            if is_roto(node):
                yield node, offset

    def find_nodes(self, start: Any) -> Iterator[tuple[Any, int]]:
        """Yield each node, ``start`` first, with that shift. Branches that a Switch or a disabled node leaves out are left out."""
        pending = [(start, 0)] if start is not None else []
        while pending:
            node, offset = pending.pop(0)
            if (node.fullName(), offset) in self._seen:
                continue
            self._seen.add((node.fullName(), offset))
            self._left -= 1
            yield node, offset
            kind, in_use = node.Class(), not _is_disabled(node)
            if kind in TIME_CHANGING and in_use:
                self._warn(f"{node.name()} ({kind}) changes time, so roto keys above it are not used.")
                continue
            if kind == "TimeOffset" and in_use:
                offset += int(node["time_offset"].value())
            pending.extend((source, offset) for source in self._sources(node))

    def _sources(self, node: Any) -> list[Any]:
        sources = [source for source in _list_sources(node) if source is not None]
        if sources and self._left < len(sources):
            self._warn(f"Roto keys above {node.name()} were not looked for: {self._why}. Use Add key here.")
            return []
        return sources

    def _warn(self, line: str) -> None:
        if line not in self.warnings:
            self.warnings.append(line)


def is_roto(node: Any) -> bool:
    """Whether a node draws shapes, and is in use."""
    return node.Class() in ROTOS and not _is_disabled(node)


def _list_sources(node: Any) -> list[Any]:
    inputs = [node.input(index) for index in range(node.inputs())]
    if _is_disabled(node):
        return inputs[:1]
    if node.Class() == "Switch" and inputs:
        which = int(node["which"].value())
        return [inputs[min(max(which, 0), len(inputs) - 1)]]
    if hasattr(node, "output"):  # a group: what it shows comes from inside
        return [*inputs, node.output()]
    return inputs


def _is_disabled(node: Any) -> bool:
    knob = node.knob("disable")
    return knob is not None and bool(knob.value())
