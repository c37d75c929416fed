"""The knob classes by name, and by the numbers that addUserKnob uses."""

from __future__ import annotations

from . import number_knobs, text_knobs
from .knobs import Knob

KINDS = {
    name: found
    for module in (number_knobs, text_knobs)
    for name, found in vars(module).items()
    if isinstance(found, type) and issubclass(found, Knob) and found is not Knob
}

# The numbers of nuke.KnobType, for addUserKnob.
_NUMBERS = {
    1: "String", 2: "File", 3: "Int", 4: "Enumeration", 6: "Boolean", 7: "Double", 10: "ChannelMask", 11: "Channel", 12: "XY",
    15: "BBox", 20: "Tab", 22: "PyScript", 26: "Text", 28: "Multiline_String", 41: "Link",
}  # fmt: skip
USER_KINDS = {number: KINDS[f"{name}_Knob"] for number, name in _NUMBERS.items()}
