"""Knobs of numbers and of enumerations: constants, animated, or expressions."""

# ruff: noqa: N801, N802, SIM118 - the names are Nuke's own; keys() of a curve is no dict's

from __future__ import annotations

from . import state
from .curves import AnimationCurve
from .expressions import evaluate_expression
from .knobs import Knob
from .tcl import join_list, split_list


class Array_Knob(Knob):
    """Numbers, one or more channels; each a constant, a curve or an expression."""

    _width = 1
    _names = ("x", "y", "z", "w")

    def __init__(self, name="", label=None):
        super().__init__(name, label)
        self._channels = [0.0] * self._width  # float, AnimationCurve or str (an expression)

    def value(self, index=None):
        return self._shape(lambda channel: self._evaluate(channel, state.app().frame()), index)

    def getValue(self, index=None):
        return Array_Knob.value(self, index)

    def valueAt(self, time, index=None):
        return self._shape(lambda channel: self._evaluate(channel, time), index)

    def getValueAt(self, time, index=None):
        return self.valueAt(time, index)

    def setValue(self, value, index=None):
        self._change(lambda: self._set(value, index))
        return True

    def setValueAt(self, value, time, index=0):
        def apply():
            curve = self._channels[index]
            if not isinstance(curve, AnimationCurve):
                raise NotImplementedError("setValueAt before setAnimated; the double does not model that")
            self._set_key(curve, time, value)

        self._change(apply)
        return True

    def setAnimated(self, index=0):
        self._change(lambda: self._channels.__setitem__(index, self._new_curve()))
        return True

    def clearAnimated(self, _index=-1):
        frame = state.app().frame()
        values = [self._evaluate(channel, frame) for channel in self._channels]
        self._change(lambda: setattr(self, "_channels", values))
        return True

    def isAnimated(self, index=0):
        return isinstance(self._channels[index], AnimationCurve)

    def hasExpression(self, index=0):
        return isinstance(self._channels[index], str)

    def setExpression(self, text, index=0):
        self._change(lambda: self._channels.__setitem__(index, text))
        return True

    def animation(self, index=0):
        curve = self._channels[index]
        return curve if isinstance(curve, AnimationCurve) else None

    def animations(self):
        return [curve for curve in self._channels if isinstance(curve, AnimationCurve)]

    def getKeyList(self):
        return sorted({key.x for curve in self.animations() for key in curve.keys()})

    def getNumKeys(self, index=0):
        return self._channels[index].size() if self.isAnimated(index) else 0

    def isKeyAt(self, time, index=0):
        return self.isAnimated(index) and any(key.x == time for key in self._channels[index].keys())

    def removeKeyAt(self, time, index=0):
        def apply():
            curve = self._channels[index]
            curve._keys = [key for key in curve._keys if key.x != time]

        if not self.isAnimated(index):
            return False
        self._change(apply)
        return True

    # ----------------------------------------------------------------------------------- inside the double

    def _new_curve(self):
        return AnimationCurve(self._curve_changed)

    def _curve_changed(self):
        if self._node is not None:
            state.app().note_edit()
            state.app().callbacks.knob_changed(self._node, self)

    def _set_key(self, curve, time, value):
        quiet = AnimationCurve()
        quiet._keys = curve._keys
        quiet.setKey(time, value)
        curve._keys = quiet._keys

    def _set(self, value, index):
        values = list(value) if isinstance(value, (list, tuple)) else [value] * len(self._channels)
        chosen = range(len(values)) if index is None else [index]
        for at in chosen:
            number = float(values[at] if isinstance(value, (list, tuple)) else value)
            old = self._channels[at]
            if isinstance(old, str):
                raise NotImplementedError(
                    f"{self._name} has an expression; what setValue does then is not modelled: clear it"
                )
            if isinstance(old, AnimationCurve):
                self._set_key(old, state.app().frame(), number)
            else:
                self._channels[at] = number

    def _shape(self, evaluate, index):
        values = [float(evaluate(channel)) for channel in self._channels]
        if index is not None:
            return values[index]
        return values[0] if len(values) == 1 else values

    def _evaluate(self, channel, frame):
        if isinstance(channel, AnimationCurve):
            return channel.evaluate(frame)
        if isinstance(channel, str):
            scope = self._node._scope(frame)
            return float(evaluate_expression(channel, scope.fetch_number, scope.run_tcl))
        return channel

    def _at(self, frame):
        """Give all channels at a frame, for the evaluation of pictures."""
        return [float(self._evaluate(channel, frame)) for channel in self._channels]

    def _hash_value(self, frame):
        return self._at(frame)

    def _script(self):
        words = []
        for channel in self._channels:
            if isinstance(channel, AnimationCurve):
                words.append(join_list([channel.toScript()]) if channel.size() != 1 else "{" + channel.toScript() + "}")
            elif isinstance(channel, str):
                words.append("{" + join_list([channel]) + "}")
            else:
                words.append(f"{channel:.9g}")
        if len(set(words)) == 1 and len(words) > 1 and self._collapses:
            words = words[:1]
        return " ".join(words)

    _collapses = False

    def _read(self, text):
        words = split_list(text)
        if len(words) == 1 and self._width > 1 and self._collapses:
            words *= self._width
        if len(words) != self._width:
            raise ValueError(f"{self._name}: {self._width} values were wanted, {text!r} came")
        self._channels = [self._read_word(word) for word in words]

    def _read_word(self, word):
        try:
            return float(word)
        except ValueError:
            inner = split_list(word)
        if inner[:1] == ["curve"]:
            curve = self._new_curve()
            curve._read(inner)
            return curve
        return inner[0] if len(inner) == 1 else word


class Double_Knob(Array_Knob):
    pass


class Int_Knob(Array_Knob):
    def value(self):
        return int(Array_Knob.value(self))


class Boolean_Knob(Array_Knob):
    def value(self):
        return bool(Array_Knob.value(self))

    def _script(self):
        channel = self._channels[0]
        return (
            {0.0: "false", 1.0: "true"}[float(bool(channel))]
            if isinstance(channel, (int, float))
            else super()._script()
        )

    def _read(self, text):
        super()._read({"true": "1", "false": "0"}.get(text, text))


class Disable_Knob(Boolean_Knob):
    pass


class ColorChip_Knob(Array_Knob):
    def _read(self, text):
        super()._read(str(int(text, 16)) if text.startswith("0x") else text)

    def _script(self):
        return f"0x{int(self._channels[0]):08x}"


class XY_Knob(Array_Knob):
    _width = 2


class WH_Knob(Array_Knob):
    _width = 2
    _names = ("w", "h")
    _collapses = True


class BBox_Knob(Array_Knob):
    _width = 4
    _names = ("x", "y", "r", "t")

    def x(self):
        return self.value(0)

    def y(self):
        return self.value(1)

    def r(self):
        return self.value(2)

    def t(self):
        return self.value(3)


class AColor_Knob(Array_Knob):
    _width = 4
    _names = ("r", "g", "b", "a")
    _collapses = True


class Enumeration_Knob(Array_Knob):
    """One of some words; stored as the word, its number is its place."""

    def __init__(self, name="", label=None, entries=()):
        super().__init__(name, label)
        self._entries = [entry for entry in entries if entry]
        self._ids = [entry.split("\t")[0] for entry in self._entries]
        self._word = self._ids[0] if self._ids else ""
        self._expression = ""

    def value(self):
        number = self._index()
        return self._ids[number] if self._ids else self._word

    def getValue(self):
        return float(self._index())

    def values(self):
        return list(self._entries)

    def numValues(self):
        return len(self._entries)

    def enumName(self, index):
        return self._entries[index].split("\t")[-1]

    def setValue(self, value):
        self._change(lambda: self._choose(value))
        return True

    def _choose(self, value):
        if isinstance(value, str):
            self._read(value)
        else:
            self._word = self._ids[int(value)]

    def _index(self):
        if self._expression:
            scope = self._node._scope(state.app().frame())
            return int(evaluate_expression(self._expression, scope.fetch_number, scope.run_tcl))
        return self._ids.index(self._word) if self._ids else 0

    def _at(self, _frame):
        return [float(self._index())]

    def _script(self):
        return "{" + join_list([self._expression]) + "}" if self._expression else self._word

    def _read(self, text):
        if text.startswith("{") and len(split_list(text)) == 1:  # two words are a choice of a list that is open
            self._expression = self._read_word(split_list(text)[0])
        elif not self._ids or text in self._ids:
            self._word, self._expression = text, ""
        else:
            raise ValueError(f"{self._name}: {text!r} is none of {self._ids}")
