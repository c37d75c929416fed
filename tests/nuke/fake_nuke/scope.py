"""What names mean inside an expression or a ``[value ...]``: looked up from one node, at one frame."""

from __future__ import annotations

from .tcl import Substituter

_SUBNAMES = {"x": 0, "y": 1, "r": 2, "t": 3, "w": 0, "h": 1, "z": 2, "red": 0, "green": 1, "blue": 2, "alpha": 3}
_LOOKING = []


def _fetch_text(name):
    return _LOOKING[-1].fetch_text(name)


def _exists(name):
    return _LOOKING[-1].exists(name)


_SUBSTITUTER = Substituter(_fetch_text, _exists)


class Scope:
    """The names seen from ``node`` at ``frame``."""

    def __init__(self, node, frame):
        self._node, self._frame = node, frame

    def substitute(self, text):
        """Give the text with its ``[...]`` evaluated."""
        if "[" not in text and "\\" not in text:
            return text
        _LOOKING.append(self)
        try:
            return str(_SUBSTITUTER.substitute(text))
        finally:
            _LOOKING.pop()

    def run_tcl(self, command):
        """Give what one ``[...]`` of an expression says."""
        return self.substitute(command)

    def fetch_number(self, name):
        """Give the number that a dotted name stands for."""
        if name == "frame":
            return self._frame
        target, rest = self._walk(name)
        if rest in ("width", "height") and target._find_knob(rest) is None:
            return float(getattr(target._format(self._frame), rest)())
        knob_name, _, sub = rest.partition(".")
        knob = target._find_knob(knob_name)
        if knob is None:
            raise ValueError(f"{name}: {target._name} has no knob {knob_name}")
        values = knob._at(self._frame)
        return values[knob._names.index(sub) if sub in knob._names else _SUBNAMES[sub]] if sub else values[0]

    def fetch_text(self, name):
        """Give the text that ``[value NAME]`` says."""
        target, rest = self._walk(name)
        knob = target._find_knob(rest)
        if knob is None:
            raise ValueError(f"{name}: {target._name} has no knob {rest}")
        return knob._evaluated(self._frame) if hasattr(knob, "_evaluated") else knob._script()

    def exists(self, name):
        """Give "1" when a node or knob of that name is there, else "0"."""
        try:
            target, rest = self._walk(name)
        except ValueError:
            return "0"
        return "1" if not rest or target._find_knob(rest) is not None else "0"

    def _walk(self, name):
        """Follow the leading words of a dotted name that are nodes; give the last node and the words left."""
        words = name.split(".")
        node = self._node
        while words:
            found = self._step(node, words[0], first=node is self._node)
            if found is None:
                break
            node = found
            words.pop(0)
        if words and node is self._node and len(words) > 1 and node._find_knob(words[0]) is None:
            raise ValueError(f"{name}: nothing is called {words[0]}")
        return node, ".".join(words)

    def _step(self, node, word, *, first):
        near = {"this": lambda: node, "parent": lambda: node._parent, "root": node._root}
        if word in near:
            return near[word]()
        if word.startswith("input") and (word[5:].isdigit() or word == "input"):
            source = node._source(int(word[5:] or 0))
            if source is None:
                raise ValueError(f"{node._name} has no {word}")
            return source
        if node._find_knob(word) is not None:
            return None
        if first and node._parent is not None:
            return node._parent._find_node(word)
        return node._find_node(word) if hasattr(node, "_find_node") else None
