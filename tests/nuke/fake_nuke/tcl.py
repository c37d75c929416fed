"""Nuke script text is Tcl: a stripped interpreter reads .nk and .gizmo files, and evaluates ``[...]`` in string knobs."""

from __future__ import annotations

import re

try:
    import tkinter
except ImportError as error:
    raise ImportError("The double of Nuke reads scripts with Tcl: install Python's tkinter (python3-tk).") from error
from dataclasses import dataclass, field

OUTSIDE = -1  # an input that the script takes from where it is pasted


@dataclass
class Written:
    """A node as a script says it: ``parent`` and ``inputs`` are indices into the list of all, None for outside or nothing."""

    kind: str
    words: list[tuple[str, str]]
    inputs: list[int | None] = field(default_factory=list)
    parent: int | None = None


class ScriptReader:
    """Runs script text in an interpreter that knows Nuke's commands and nothing else; anything more is an error."""

    def __init__(self):
        self.nodes: list[Written] = []
        self._stacks: list[list[int | None]] = [[]]
        self._groups: list[int] = []
        self._tcl = tkinter.Tcl()
        self._tcl.eval("interp create -safe nk")
        for name in self._tcl.splitlist(self._tcl.eval("nk eval {info commands}")):
            if name not in ("rename", "unknown"):
                self._tcl.eval(f"catch {{nk hide {name}}}")
        commands = {
            "unknown": self._add_node, "push": self._push, "set": self._set, "stack": self._stack,
            "end_group": self._end_group, "version": _ignore, "define_window_layout_xml": _ignore, "add_layer": _ignore,
        }  # fmt: skip
        for name, command in commands.items():
            self._tcl.createcommand(f"py_{name}", command)
            self._tcl.eval(f"nk alias {name} py_{name}")

    def read(self, text):
        """Give the nodes of a script; what it takes from ``$cut_paste_input`` is OUTSIDE."""
        self._tcl.call("interp", "invokehidden", "nk", "-global", "set", "cut_paste_input", "outside")
        self._tcl.call("nk", "eval", text)
        if self._groups:
            raise ValueError(f"{len(self._groups)} groups are not ended")
        return self.nodes

    def _stack(self, depth):
        stack = self._stacks[-1]
        return _word(stack[-1 - int(depth)] if len(stack) > int(depth) else None)

    def _set(self, name, value=None):
        if value is None:
            raise ValueError(f"set {name} without a value")
        if name == "cut_paste_input":
            return ""
        self._tcl.call("interp", "invokehidden", "nk", "-global", "set", name, value)
        return value

    def _push(self, word):
        self._stacks[-1].append(OUTSIDE if word == "outside" else _index(word))
        return ""

    def _end_group(self):
        self._stacks.pop()
        self._groups.pop()
        return ""

    def _add_node(self, kind, body="", *rest):
        if rest:
            raise ValueError(f"{kind}: unexpected {rest[:2]}")
        words = list(self._tcl.splitlist(body))
        if len(words) % 2:
            raise ValueError(f"{kind}: an odd number of words")
        pairs = list(zip(words[::2], words[1::2], strict=True))
        stack = self._stacks[-1]
        default = "0" if kind == "Root" else "1"
        count = sum(int(part) for part in dict(pairs).get("inputs", default).split("+"))
        inputs = [stack.pop() if stack else None for _ in range(count)]
        self.nodes.append(Written(kind, pairs, inputs, self._groups[-1] if self._groups else None))
        if kind not in ("Root", "Viewer"):
            stack.append(len(self.nodes) - 1)
        if kind == "Group":
            self._groups.append(len(self.nodes) - 1)
            self._stacks.append([])
        return ""


def _ignore(*_):
    return ""


def _word(index):
    return "0" if index is None else f"n{index}"


def _index(word):
    return None if word == "0" else int(word[1:])


class Substituter:
    """Evaluates the ``[...]`` of string and file knobs with Tcl's own string commands and Nuke's value and exists."""

    def __init__(self, fetch_value, exists):
        self._tcl = tkinter.Tcl()
        self._tcl.eval("interp create -safe nk")
        kept = ("string", "subst", "lindex", "split", "join", "expr", "rename", "unknown")
        for name in self._tcl.splitlist(self._tcl.eval("nk eval {info commands}")):
            if name not in kept:
                self._tcl.eval(f"catch {{nk hide {name}}}")
        self._tcl.createcommand("py_value", fetch_value)
        self._tcl.createcommand("py_exists", exists)
        self._tcl.eval("nk alias value py_value; nk alias exists py_exists")

    def substitute(self, text):
        """Give the text with its commands replaced by what they say."""
        return self._tcl.call("nk", "eval", self._tcl.call("list", "subst", "-novariables", text))


_LISTS = tkinter.Tcl()


def split_list(text):
    """Give the words of a Tcl list."""
    return list(_LISTS.splitlist(text))


def join_list(words):
    """Give a Tcl list of these words."""
    return " ".join(_quote(word) for word in words)


def _quote(word):
    """Give one word so that a list holds it as it is: braces where they balance, backslashes elsewhere."""
    if word and not re.search(r'[\s"\[\]{}$;\\]', word) and not word.startswith("#"):
        return word
    depth = 0
    for letter in word:
        depth += {"{": 1, "}": -1}.get(letter, 0)
        if depth < 0:
            break
    if depth or "\\" in word:
        return (
            '"'
            + re.sub(r'([\\"\[$])', r"\\\1", word).replace("\n", "\\n").replace("{", "\\{").replace("}", "\\}")
            + '"'
        )
    return "{" + word + "}"
