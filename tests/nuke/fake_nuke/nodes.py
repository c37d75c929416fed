"""Nodes, groups and the root: names, inputs, knobs. Pictures are made in ``operators``."""
# ruff: noqa: N802 - the names are Nuke's own; keys() of a curve is no dict's

from __future__ import annotations

import re

from . import state
from .images import Box, Format
from .knob_kinds import KINDS
from .number_knobs import Enumeration_Knob
from .operators import evaluate_node, first_readable_frame, hash_node
from .scope import Scope
from .table import COMMON, FILE_TYPE_KNOBS, fetch_class
from .text_knobs import Tab_Knob


class Node:
    """One node. Everything public may be used on the main thread alone, and not after the node is deleted."""

    def __init__(self, kind, parent):
        self._kind, self._parent = kind, parent
        self._entry = fetch_class(kind)
        self._sources = []
        self._knobs = {}
        self._deleted = False
        self._panel_shown = False
        for name, entry in {**COMMON, **self._entry.knobs}.items():
            self._make_knob(name, entry)

    def __getattribute__(self, name):
        if not name.startswith("_"):
            self._touch(name)
        return object.__getattribute__(self, name)

    def __getitem__(self, name):
        self._touch(name)
        knob = self._find_knob(name)
        if knob is None:
            raise NameError(f"knob {name} does not exist")
        return knob

    def Class(self):
        return self._kind

    def name(self):
        return self._name

    def setName(self, name, uncollide=True):
        taken = self._parent._find_node(name) if self._parent else None
        if taken not in (None, self):
            if not uncollide:
                raise ValueError(f"a node called {name} is there already")
            name = self._parent._free_name(name)
        self._knobs["name"].setValue(name)

    def fullName(self):
        return self._full_name()

    def parent(self):
        return self._parent

    def knob(self, name):
        return self._find_knob(name)

    def knobs(self):
        return dict(self._knobs)

    def allKnobs(self):
        return list(self._knobs.values())

    def addKnob(self, knob):
        if not knob._name.isidentifier() and not isinstance(knob, Tab_Knob):
            raise ValueError(f"{knob._name!r} is not a knob name")
        knob._node = self
        knob._spec = knob._spec or []
        self._knobs[knob._name] = knob
        state.app().note_edit()

    def removeKnob(self, knob):
        del self._knobs[knob._name]
        state.app().note_edit()

    def input(self, index):
        return self._source(index)

    def inputs(self):
        return len(self._sources)

    def maxInputs(self):
        return self._most_inputs()

    def setInput(self, index, node):
        state.app().rules.check_idle()
        if index >= self._most_inputs():
            return False
        before = list(self._sources)
        self._connect(index, node)
        state.app().undo.record(f"{self._name} input", lambda: setattr(self, "_sources", before))
        state.app().note_edit()
        state.app().callbacks.input_changed(self)
        return True

    def connectInput(self, index, node):
        return self.setInput(index, node)

    def dependencies(self, _what=3):
        return [source for source in self._sources if source is not None]

    def format(self):
        shape = self._format(state.app().frame())
        # What a format is in proxy mode is not documented; that it shrinks is the worse case.
        return (
            shape
            if not state.app().root.proxy()
            else Format(shape.width() // 2, shape.height() // 2, shape.pixelAspect())
        )

    def width(self):
        return self.format().width()

    def height(self):
        return self.format().height()

    def pixelAspect(self):
        return self.format().pixelAspect()

    def channels(self):
        return sorted(self._picture_for_size(state.app().frame()).channels, key=_channel_order)

    def sample(self, channel, x, y):
        name = channel if "." in channel else f"rgba.{channel}"
        at = Box(int(x), int(y), int(x) + 1, int(y) + 1)
        return float(self._picture(state.app().frame()).crop(name, at)[0, 0])

    def hasError(self):
        try:
            self._picture(state.app().frame())
        except (RuntimeError, ValueError):
            return True
        return False

    def error(self):
        return self.hasError()

    def opHashes(self):
        return [hash_node(self, state.app().frame())]

    def forceValidate(self):
        return None

    def isSelected(self):
        return self._is_selected()

    def setSelected(self, selected):
        self._select(selected)

    def selectOnly(self):
        self._select_only()

    def xpos(self):
        return int(self._knobs["xpos"].value())

    def ypos(self):
        return int(self._knobs["ypos"].value())

    def setXYpos(self, x, y):
        self._knobs["xpos"].setValue(x)
        self._knobs["ypos"].setValue(y)

    def showControlPanel(self, _float=False):
        self._panel_shown = True
        state.app().callbacks.panel_shown(self)

    def hideControlPanel(self):
        self._panel_shown = False

    def shown(self):
        return self._panel_shown

    # ----------------------------------------------------------------------------------- inside the double

    @property
    def _name(self):
        return self._knobs["name"]._text if "name" in self._knobs else ""

    @_name.setter
    def _name(self, name):
        self._knobs["name"]._text = name

    def _is_selected(self):
        return bool(self._knobs["selected"]._channels[0])

    def _select(self, selected):
        self._knobs["selected"]._channels[0] = float(bool(selected))

    def _select_only(self):
        for node in self._parent._nodes:
            node._select(node is self)

    def _touch(self, what):
        state.app().rules.check_thread(f"node {self._name}.{what}")
        if self._deleted:
            raise ValueError("A PythonObject is not attached to a node")
        state.app().rules.see_node(self)

    def _make_knob(self, name, entry):
        cls = KINDS.get(f"{entry.kind}_Knob") or KINDS.get(entry.kind) or state.app().other_knobs[entry.kind]
        knob = cls(name, None, entry.entries) if issubclass(cls, Enumeration_Knob) else cls(name)
        if entry.default:
            knob._read(entry.default)
        knob._default = knob._script()
        knob._node = self
        self._knobs[name] = knob

    def _find_knob(self, name):
        if name in self._knobs:
            return self._knobs[name]
        if self._kind != "Write":
            return None
        of_type = FILE_TYPE_KNOBS.get(self._knobs["file_type"]._word, {})  # they appear once the type is set
        if name in of_type:
            self._make_knob(name, of_type[name])
        return self._knobs.get(name)

    def _source(self, index):
        return self._sources[index] if index < len(self._sources) else None

    def _most_inputs(self):
        return self._entry.inputs

    def _connect(self, index, node):
        self._sources += [None] * (index + 1 - len(self._sources))
        self._sources[index] = node
        while self._sources and self._sources[-1] is None:
            self._sources.pop()

    def _full_name(self):
        above = self._parent
        return self._name if above is None or above._parent is None else f"{above._full_name()}.{self._name}"

    def _root(self):
        return self if self._parent is None else self._parent._root()

    def _scope(self, frame):
        return Scope(self, frame)

    def _picture(self, frame):
        return evaluate_node(self, frame)

    def _format(self, frame):
        return self._picture_for_size(frame).format

    def _picture_for_size(self, frame):
        """Give a picture to tell size and channels from: a Read knows them without the file of the frame."""
        try:
            return self._picture(frame)
        except RuntimeError:
            return self._picture(first_readable_frame(self))


class Group(Node):
    """A node with nodes inside; ``with group:`` makes it the place where nodes are made and looked up."""

    def __init__(self, kind, parent):
        self._nodes = []
        super().__init__(kind, parent)

    def begin(self):
        state.app().rules.check_idle()
        state.app().groups.append(self)
        return self

    def end(self):
        state.app().groups.remove(self)

    def __enter__(self):
        return self.begin()

    def __exit__(self, *_):
        self.end()

    def node(self, name):
        return self._find_node(name)

    def nodes(self):
        return list(self._nodes)

    def numNodes(self):
        return len(self._nodes)

    def output(self):
        return next((node for node in self._nodes if node._kind == "Output"), None)

    # ----------------------------------------------------------------------------------- inside the double

    def _most_inputs(self):
        return sum(node._kind == "Input" for node in self._nodes)

    def _find_node(self, name):
        head, _, rest = name.partition(".")
        found = next((node for node in self._nodes if node._name == head), None)
        return found._find_node(rest) if rest and isinstance(found, Group) else None if rest else found

    def _free_name(self, wanted):
        stem = re.sub(r"\d+$", "", wanted) or wanted
        number = 1
        while self._find_node(f"{stem}{number}") is not None:
            number += 1
        return f"{stem}{number}"


class Root(Group):
    """The script itself: frame, range, format, proxy, colour management."""

    def __init__(self):
        super().__init__("Root", None)
        self._modified = False

    def name(self):
        return self._knobs["name"]._text or "Root"

    def setFrame(self, frame):
        state.app().frames_set.append(frame)
        self._knobs["frame"].setValue(frame)

    def proxy(self):
        return bool(self._knobs["proxy"].value())

    def setProxy(self, proxy):
        self._knobs["proxy"].setValue(bool(proxy))

    def modified(self):
        return self._modified

    def setModified(self, modified):
        self._modified = bool(modified)

    def firstFrame(self):
        return int(self._knobs["first_frame"].value())

    def lastFrame(self):
        return int(self._knobs["last_frame"].value())

    @property
    def _name(self):
        return "root"  # its name knob is the path of the script

    def _find_node(self, name):
        return super()._find_node(name.removeprefix("root."))


def _channel_order(channel):
    order = {"rgba.red": 0, "rgba.green": 1, "rgba.blue": 2, "rgba.alpha": 3}
    return order.get(channel, 4), channel


def make_node(kind, parent):
    """Give a new node of a class, named and placed inside its parent, with nothing told to anyone."""
    node = Group(kind, parent) if kind == "Group" else Node(kind, parent)
    node._name = parent._free_name(re.sub(r"\d+$", "", kind) + "1")
    parent._nodes.append(node)
    return node
