"""What all knobs share: names, flags, who is told of a change. An unknown attribute raises, as in Nuke."""

# ruff: noqa: N802 - the names are Nuke's own; keys() of a curve is no dict's

from __future__ import annotations

from . import state
from .constants import INVISIBLE, NO_UNDO


class Knob:
    """Base of all knobs. Everything public may be used on the main thread alone."""

    def __init__(self, name="", label=None):
        self._name, self._label = name, name if label is None else label
        self._node = None
        self._flags = 0
        self._tooltip = ""
        self._spec = None  # the words of addUserKnob for a user knob
        self._enabled = True
        self._default = None

    def __getattribute__(self, name):
        if not name.startswith("_"):
            state.app().rules.check_thread(f"knob {object.__getattribute__(self, '_name')}.{name}")
        return object.__getattribute__(self, name)

    def Class(self):
        return type(self).__name__

    def name(self):
        return self._name

    def setName(self, name):
        self._name = name

    def label(self):
        return self._label

    def setLabel(self, label):
        self._label = label

    def tooltip(self):
        return self._tooltip

    def setTooltip(self, text):
        self._tooltip = text

    def node(self):
        return self._node

    def setFlag(self, flag):
        self._flags |= flag

    def clearFlag(self, flag):
        self._flags &= ~flag

    def getFlag(self, flag):
        return bool(self._flags & flag)

    def setVisible(self, visible):
        self._flags = self._flags & ~INVISIBLE if visible else self._flags | INVISIBLE

    def visible(self):
        return not self._flags & INVISIBLE

    def enabled(self):
        return self._enabled

    def setEnabled(self, enabled):
        self._enabled = bool(enabled)

    def fullyQualifiedName(self, _channel=-1):
        return f"{self._node._full_name()}.{self._name}"

    def toScript(self, _quote=True):
        return self._script()

    def fromScript(self, text):
        self._change(lambda: self._read(text))

    def value(self):
        raise NotImplementedError(f"the double does not model {self.Class()}.value()")

    def getValue(self):
        return self.value()

    def setValue(self, value):
        raise NotImplementedError(f"the double does not model {self.Class()}.setValue({value!r})")

    # ----------------------------------------------------------------------------------- inside the double

    def _script(self):
        return ""

    def _read(self, text):
        raise NotImplementedError(f"the double does not read a {self.Class()}: {text!r}")

    def _is_default(self):
        return self._script() == self._default

    def _hash_value(self, _frame):
        return self._script()

    def _change(self, apply):
        """Apply a change: undoable, marks the script modified, and tells knobChanged."""
        before = self._script()
        apply()
        if self._script() == before or self._node is None:
            return
        if not self._flags & NO_UNDO:
            state.app().undo.record(f"{self._node._name}.{self._name}", lambda: self._read(before))
        state.app().note_edit()
        state.app().callbacks.knob_changed(self._node, self)
