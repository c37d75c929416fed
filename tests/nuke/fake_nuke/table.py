"""The table of classes that the double is made of; it lies beside the double so that a test can compare it with a scan."""

from __future__ import annotations

from tests.nuke.knob_table import CLASSES, COMMON, FILE_TYPE_KNOBS, ROOT

__all__ = ["CLASSES", "COMMON", "FILE_TYPE_KNOBS", "fetch_class"]


def fetch_class(kind):
    """Give the entry of a node class. Raises as Nuke does for one that does not exist."""
    if kind == "Root":
        return ROOT
    if kind not in CLASSES:
        raise RuntimeError(f"{kind}: Unknown command")
    return CLASSES[kind]
