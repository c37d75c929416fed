"""Script text in and out: reading makes nodes, writing says them again so that reading gives the same."""

from __future__ import annotations

from . import state
from .constants import DISABLED, DO_NOT_WRITE, INVISIBLE, STARTLINE
from .knob_kinds import USER_KINDS
from .nodes import Group, make_node
from .number_knobs import Enumeration_Knob
from .tcl import OUTSIDE, ScriptReader, join_list, split_list
from .text_knobs import Link_Knob, PyScript_Knob, Text_Knob

_FLAGS = {
    "INVISIBLE": INVISIBLE,
    "HIDDEN": INVISIBLE,
    "DISABLED": DISABLED,
    "DO_NOT_WRITE": DO_NOT_WRITE,
    "STARTLINE": STARTLINE,
}
_PSEUDO = ("inputs", "addUserKnob", "selected")


def read_script(text, parent, pasted_below=None):
    """Make the nodes of a script inside a group, wire them, then tell onCreate of each. Gives the outermost nodes."""
    written = ScriptReader().read(text)
    made = []
    for entry in written:
        above = parent if entry.parent is None else made[entry.parent]
        made.append(above if entry.kind == "Root" else make_node(entry.kind, above))
    for node, entry in zip(made, written, strict=True):
        _read_knobs(node, entry.words)
        sources = [pasted_below if at == OUTSIDE else None if at is None else made[at] for at in entry.inputs]
        for index, source in enumerate(sources):
            node._connect(index, source)
    state.app().note_edit()
    outermost = [
        node for node, entry in zip(made, written, strict=True) if entry.parent is None and entry.kind != "Root"
    ]
    for node, entry in zip(made, written, strict=True):
        if entry.kind != "Root":
            state.app().callbacks.node_created(node)
    return outermost


def write_script(nodes, *, root=None):
    """Give the text of these nodes and the wires between them; ``root`` is written first when given."""
    lines = ["#! nuke", "version 17.0 v3"]
    if root is not None:
        lines += ["Root {", *_knob_lines(root), "}"]
    lines += _node_lines(nodes)
    return "\n".join(lines) + "\n"


def _read_knobs(node, words):
    for name, text in words:
        if name == "addUserKnob":
            _add_user_knob(node, text)
        elif name == "name" and node._parent is not None:
            node._name = ""  # its own first name is not in the way
            taken = node._parent._find_node(text)
            node._name = text if taken is None else node._parent._free_name(text)
        elif name not in _PSEUDO:
            knob = node._find_knob(name)
            if knob is None:
                raise NameError(f"{node._kind} {node._name}: no knob called {name}")
            knob._read(text)


def _add_user_knob(node, text):
    words = split_list(text)
    number, name = int(words[0]), words[1] if len(words) > 1 else ""
    fields, flags = _read_fields(words[2:])
    if number not in USER_KINDS:
        raise NotImplementedError(f"the double does not model user knobs of type {number}")
    kind = USER_KINDS[number]
    if issubclass(kind, Enumeration_Knob):
        knob = kind(name, fields.get("l"), split_list(fields["M"]))
    else:
        knob = kind(name, fields.get("l"))
    if issubclass(kind, (PyScript_Knob, Text_Knob, Link_Knob)):
        knob._text = fields.get("T", "")
    for flag in flags:
        knob._flags |= _FLAGS[flag[1:]] if flag[0] == "+" else 0
    knob._spec, knob._node, knob._tooltip = words, node, fields.get("t", "")
    knob._default = knob._script()
    key = name or f"divider{len(node._knobs)}"
    if key in node._knobs:
        raise ValueError(f"{node._name} has two knobs called {name}")
    node._knobs[key] = knob


def _read_fields(words):
    fields, flags = {}, []
    at = 0
    while at < len(words):
        if words[at][0] in "+-" and words[at][1:].isupper():
            flags.append(words[at])
            at += 1
        elif words[at] in ("l", "t", "T", "M", "R", "n"):
            taken = 3 if words[at] == "R" else 2
            fields[words[at]] = words[at + 1]
            at += taken
        else:
            raise ValueError(f"addUserKnob: {words[at]!r} is not understood")
    return fields, flags


def _node_lines(nodes):
    lines, done = [], {}
    for node in _in_order(nodes):
        sources = [done.get(id(source)) for source in node._sources]
        lines += [f"push ${name}" if name else "push 0" for name in reversed(sources)]
        lines += [f"{node._kind} {{", f" inputs {len(sources)}", *_knob_lines(node), "}"]
        if isinstance(node, Group):
            lines += [*_node_lines(node._nodes), "end_group"]
        done[id(node)] = f"N{len(done)}_{id(node):x}"
        lines.append(f"set {done[id(node)]} [stack 0]")
    return lines


def _in_order(nodes):
    """Give the nodes so that each comes after those it is wired to."""
    ordered, waiting = [], list(nodes)
    wanted = set(map(id, nodes))
    while waiting:
        for node in waiting:
            if all(source in ordered or id(source) not in wanted for source in node._sources if source is not None):
                ordered.append(node)
                waiting.remove(node)
                break
        else:
            raise ValueError("the nodes are wired in a circle")
    return ordered


def _knob_lines(node):
    lines = []
    for name, knob in node._knobs.items():
        if knob._spec:
            lines.append(f" addUserKnob {join_list([join_list(knob._spec)])}")
        if (name == "name" and node._parent) or (
            not knob._is_default() and name not in ("name", "selected") and not knob._flags & DO_NOT_WRITE
        ):
            lines.append(f" {name} {join_list([knob._script()])}")
    return lines
