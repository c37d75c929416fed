"""A strict double of Nuke, for tests: what is documented or was measured, and an error for everything else.

It knows the classes, knobs and enumerations of ``tests/nuke/knob_table.py`` and the API names of ``interface.py``. It
reads the shipped gizmo through Tcl, evaluates its nodes with numpy, and renders real EXR files. Nothing here makes a
plug-in right; it makes one wrong in the ways that are known.
"""

from .application import Application
from .interface import make_modules
from .state import stop

__all__ = ["Application", "make_modules", "stop"]
