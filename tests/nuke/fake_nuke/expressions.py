"""Nuke's numeric expressions, over numbers or whole pictures: what our gizmo needs of the language; the rest raises."""

from __future__ import annotations

import re

import numpy as np

_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+)|(?P<name>[A-Za-z_][\w.]*)|(?P<tcl>\[)"
    r"|(?P<operator>\|\||&&|==|!=|<=|>=|[-+*/%<>!?:(),]))"
)
_LEVELS = (("||",), ("&&",), ("==", "!="), ("<", "<=", ">", ">="), ("+", "-"), ("*", "/", "%"))
_BINARY = {
    "||": lambda a, b: np.logical_or(a, b) * 1.0,
    "&&": lambda a, b: np.logical_and(a, b) * 1.0,
    "==": lambda a, b: np.equal(a, b) * 1.0,
    "!=": lambda a, b: np.not_equal(a, b) * 1.0,
    "<": lambda a, b: np.less(a, b) * 1.0,
    "<=": lambda a, b: np.less_equal(a, b) * 1.0,
    ">": lambda a, b: np.greater(a, b) * 1.0,
    ">=": lambda a, b: np.greater_equal(a, b) * 1.0,
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.divide,
    "%": np.fmod,
}
_FUNCTIONS = {
    "pow": np.power,
    "max": np.maximum,
    "min": np.minimum,
    "abs": np.abs,
    "isnan": lambda a: np.isnan(a) * 1.0,
}


def evaluate_expression(text, fetch_name, run_tcl):
    """Give the value of an expression. ``fetch_name`` gives a number for a dotted name, ``run_tcl`` a text for ``[...]``."""
    with np.errstate(all="ignore"):
        parser = _Parser(text, fetch_name, run_tcl)
        value = parser.ternary()
    if parser.kind:
        raise ValueError(f"expression {text!r}: {parser.word!r} is not understood")
    return value


class _Parser:
    def __init__(self, text, fetch_name, run_tcl):
        self._text, self._fetch_name, self._run_tcl = text, fetch_name, run_tcl
        self._at = 0
        self._next()

    def _next(self):
        if not self._text[self._at :].strip():
            self.kind, self.word = "", ""
            return
        found = _TOKEN.match(self._text, self._at)
        if not found:
            raise ValueError(f"expression {self._text!r} stops at {self._text[self._at :]!r}")
        self.kind, self.word, self._at = found.lastgroup, found[found.lastgroup], found.end()
        if self.kind == "tcl":
            end = _matching_bracket(self._text, self._at - 1)
            self.word, self._at = self._text[self._at - 1 : end], end

    def _take(self, word):
        if self.word != word:
            raise ValueError(f"expression {self._text!r}: {word!r} was wanted, {self.word!r} came")
        self._next()

    def ternary(self):
        condition = self._binary(0)
        if self.word != "?":
            return condition
        self._next()
        yes = self.ternary()
        self._take(":")
        no = self.ternary()
        return np.where(condition, yes, no)

    def _binary(self, level):
        if level == len(_LEVELS):
            return self._unary()
        value = self._binary(level + 1)
        while self.kind == "operator" and self.word in _LEVELS[level]:
            operator = _BINARY[self.word]
            self._next()
            value = operator(value, self._binary(level + 1))
        return value

    def _unary(self):
        if self.kind == "operator" and self.word in ("-", "!"):
            negate = self.word == "-"
            self._next()
            value = self._unary()
            return np.negative(value) if negate else np.logical_not(value) * 1.0
        return self._atom()

    def _atom(self):
        kind, word = self.kind, self.word
        self._next()
        if kind == "number":
            return float(word)
        if kind == "tcl":
            return float(self._run_tcl(word))
        if kind == "name":
            return self._call(word) if self.word == "(" else self._fetch_name(word)
        if word == "(":
            value = self.ternary()
            self._take(")")
            return value
        raise ValueError(f"expression {self._text!r}: {word!r} is not understood")

    def _call(self, name):
        if name not in _FUNCTIONS:
            raise NotImplementedError(f"the double does not model {name}() in expressions")
        self._take("(")
        arguments = [self.ternary()]
        while self.word == ",":
            self._next()
            arguments.append(self.ternary())
        self._take(")")
        return _FUNCTIONS[name](*arguments)


def _matching_bracket(text, start):
    depth = 0
    for at in range(start, len(text)):
        depth += {"[": 1, "]": -1}.get(text[at], 0)
        if not depth:
            return at + 1
    raise ValueError(f"expression {text!r}: a bracket is not closed")
