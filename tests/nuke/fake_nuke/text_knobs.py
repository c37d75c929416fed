"""Knobs of text: plain, evaluated, file names, channels, formats, Python; and buttons."""

# ruff: noqa: N801, N802 - the names are Nuke's own; keys() of a curve is no dict's

from __future__ import annotations

from . import state
from .knobs import Knob


class Text_Knob(Knob):
    """A line of text on the panel."""

    def __init__(self, name="", label=None):
        super().__init__(name, label)
        self._text = ""

    def value(self):
        return self._text

    def setValue(self, value):
        if not isinstance(value, str):
            raise TypeError(f"{self._name}: text was wanted, {value!r} came")
        self._change(lambda: setattr(self, "_text", value))

    def _script(self):
        return self._text

    def _read(self, text):
        self._text = text


class String_Knob(Knob):
    """Text as it is."""

    def __init__(self, name="", label=None):
        super().__init__(name, label)
        self._text = ""

    def value(self):
        return self._text

    def getText(self):
        return self._text

    def setValue(self, value):
        if not isinstance(value, str):
            raise TypeError(f"{self._name}: text was wanted, {value!r} came")
        self._change(lambda: setattr(self, "_text", value))
        return True

    def setText(self, value):
        self.setValue(value)

    def _script(self):
        return self._text

    def _read(self, text):
        self._text = text


class EvalString_Knob(String_Knob):
    """Text in which ``[...]`` is evaluated."""

    def evaluate(self, frame=None):
        return self._evaluated(state.app().frame() if frame is None else frame)

    def _evaluated(self, frame):
        return self._node._scope(frame).substitute(self._text)

    def _hash_value(self, frame):
        return self._evaluated(frame)


class Multiline_Eval_String_Knob(EvalString_Knob):
    pass


class File_Knob(EvalString_Knob):
    def getEvaluatedValue(self):
        return self.evaluate()

    def _evaluated(self, frame):
        return state.fill_frame(super()._evaluated(frame), frame)


class Multiline_String_Knob(String_Knob):
    pass


class PythonKnob(String_Knob):
    pass


class Font_Knob(Text_Knob):
    pass


class Channel_Knob(Text_Knob):
    pass


class ChannelMask_Knob(Channel_Knob):
    pass


class Format_Knob(Text_Knob):
    """Holds a format by name or by numbers; ``0`` is the root's."""

    def value(self):
        return state.app().formats.find(self._text)

    def name(self):
        return self._name

    def setValue(self, value):
        text = value if isinstance(value, str) else value._script()
        state.app().formats.find(text)
        self._change(lambda: setattr(self, "_text", text))


class Tab_Knob(Knob):
    pass


class Script_Knob(String_Knob):
    """A button with a Tcl command; only Nuke's own reload is modelled."""

    def execute(self):
        if self._name != "reload":
            raise NotImplementedError(f"the double does not model pressing {self._name}")
        version = self._node["version"]
        version.setValue(version.value() + 1)


class PyScript_Knob(Script_Knob):
    """A button with Python text."""

    def command(self):
        return self._text

    def execute(self):
        state.app().callbacks.press(self._node, self)


class Link_Knob(Text_Knob):
    """Shows another knob of the node's inside."""

    def getLink(self):
        return self._text

    def getLinkedKnob(self):
        node, _, knob = self._text.rpartition(".")
        return self._node.node(node)[knob]
