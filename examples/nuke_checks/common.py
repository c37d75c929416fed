"""What the checks share: the list of what is assumed, and small graphs of 64x48 pixels. ``nuke_smoke.py`` is the program."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nuke

REPOSITORY = Path(__file__).resolve().parents[2]
SIZE = "64 48 0 0 64 48 1"

Answer = tuple[bool, object]  # whether it is so, and what was seen
Check = Callable[[Path], Answer]  # gets a folder for its files
CHECKS: list[Check] = []


def assumed(check: Check) -> Check:
    """Put a check on the list; the first line of its docstring says what is assumed."""
    CHECKS.append(check)
    return check


def make_constant(red: float, green: float = 0.0, blue: float = 0.0) -> Any:
    """Give a flat picture of 64x48."""
    constant = nuke.nodes.Constant()
    constant["format"].fromScript(SIZE)
    constant["channels"].setValue("rgba")
    constant["color"].setValue([red, green, blue, 1.0])
    return constant


def make_xmem(red: float = 0.25) -> Any:
    """Give an XMem node over a flat picture."""
    node = nuke.createNode("XMem", inpanel=False)
    node.setInput(0, make_constant(red, red / 2, red / 4))
    return node


def look(node: Any, channel: str = "red") -> float:
    """Give one value from the middle of a node's picture."""
    return float(node.sample(channel, 32.5, 24.5))


def is_close(got: float, wanted: float) -> bool:
    """Tell whether two values are the same but for rounding."""
    return abs(got - wanted) < 2e-3
