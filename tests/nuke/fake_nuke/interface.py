"""The module that the plug-in imports as ``nuke``: only names that real Nuke has."""
# ruff: noqa: A002, N802 - the names are Nuke's own; keys() of a curve is no dict's

from __future__ import annotations

import sys
import types
from pathlib import Path

from . import constants, curves, executing, images, knob_kinds, knobs, main_thread, menus, nodes, outlines, state, undo

_EVENTS = ("KnobChanged", "OnCreate", "OnDestroy", "OnScriptLoad", "OnScriptClose", "OnScriptSave")
_KNOBS = (
    "Array_Knob", "Int_Knob", "Double_Knob", "Boolean_Knob", "XY_Knob", "WH_Knob", "BBox_Knob", "AColor_Knob",
    "Enumeration_Knob", "String_Knob", "EvalString_Knob", "File_Knob", "Text_Knob", "Tab_Knob", "Script_Knob",
    "PyScript_Knob", "Link_Knob", "Channel_Knob", "ChannelMask_Knob", "Format_Knob",
)  # fmt: skip
_ENV = {
    "NukeVersionMajor": 17, "NukeVersionMinor": 1, "NukeVersionRelease": 1, "NukeVersionString": "17.1v1",
    "LINUX": True, "MACOS": False, "WIN32": False, "nc": False, "indie": False, "ple": False, "assist": False,
    "nukex": False, "studio": False, "hiero": False, "gui": True, "interactive": True, "numCPUs": 2, "threads": 2,
    "ExecutablePath": "/usr/local/Nuke17.1v1/Nuke17.1", "ExternalPython": False,
}  # fmt: skip


class NodeMakers:
    """nuke.nodes: ``nuke.nodes.Write(...)`` makes a node and nothing else: no selection, no connection."""

    def __getattr__(self, kind):
        def make(inputs=(), **values):
            node = state.app().create(kind, values, is_by_hand=False)
            for index, source in enumerate(inputs):
                node.setInput(index, source)
            return node

        return make


def make_modules():
    """Give fresh modules by the names they are imported by."""
    nuke = types.ModuleType("nuke", "The double of Nuke.")
    nuke.__path__ = []
    rotopaint = types.ModuleType("nuke.rotopaint")
    for found, name in (
        (outlines.Layer, "Layer"), (outlines.Shape, "Shape"), (outlines.Stroke, "Stroke"),
        (outlines.CurvePoint, "AnimControlPoint"), (outlines.ShapePoint, "ShapeControlPoint"),
    ):  # fmt: skip
        setattr(rotopaint, name, found)
    nuke.rotopaint = rotopaint
    for name in vars(constants):
        if name.isupper():
            setattr(nuke, name, getattr(constants, name))
    for name in _KNOBS:
        setattr(nuke, name, knob_kinds.KINDS[name])
    nuke.Node, nuke.Group, nuke.Root, nuke.Knob = nodes.Node, nodes.Group, nodes.Root, knobs.Knob
    nuke.AnimationKey, nuke.AnimationCurve = curves.AnimationKey, curves.AnimationCurve
    nuke.Undo, nuke.ProgressTask, nuke.FrameRanges = undo.Undo, menus.ProgressTask, executing.FrameRanges
    nuke.Menu, nuke.MenuItem = menus.Menu, menus.MenuItem
    nuke.CancelledError, nuke.Format = executing.CancelledError, images.Format
    nuke.GUI, nuke.INTERACTIVE, nuke.env, nuke.nodes = True, True, dict(_ENV), NodeMakers()
    nuke.executeInMainThread = main_thread.execute_in_main_thread
    nuke.executeInMainThreadWithResult = main_thread.execute_in_main_thread_with_result
    nuke.execute = nuke.render = executing.execute
    for function in _FUNCTIONS:
        setattr(nuke, function.__name__, function)
    for event in _EVENTS:
        _add_registration(nuke, event)
    nukescripts, panels = types.ModuleType("nukescripts"), types.ModuleType("nukescripts.panels")
    nukescripts.__path__, nukescripts.panels = [], panels
    panels.registerWidgetAsPanel = _register_widget_as_panel
    return {"nuke": nuke, "nuke.rotopaint": rotopaint, "nukescripts": nukescripts, "nukescripts.panels": panels}


def _add_registration(nuke, event):
    kind = event[0].lower() + event[1:]

    def add(call, args=(), kwargs=None, nodeClass="*", node=None):
        state.app().callbacks.registered[kind].append((call, args, kwargs or {}, nodeClass, node))

    def remove(call, args=(), kwargs=None, nodeClass="*", node=None):
        entry = (call, args, kwargs or {}, nodeClass, node)
        if entry in state.app().callbacks.registered[kind]:
            state.app().callbacks.registered[kind].remove(entry)

    setattr(nuke, f"add{event}", add)
    setattr(nuke, f"remove{event}", remove)


def root():
    state.app().rules.check_thread("nuke.root")
    return state.app().root


def frame(number=None):
    state.app().rules.check_thread("nuke.frame")
    if number is not None:
        state.app().root.setFrame(number)
    return int(state.app().frame())


def toNode(name):
    state.app().rules.check_thread("nuke.toNode")
    return state.app().find_node(name)


def thisNode():
    state.app().rules.check_thread("nuke.thisNode")
    return state.app().callbacks.nodes[-1] if state.app().callbacks.nodes else state.app().root


def thisKnob():
    state.app().rules.check_thread("nuke.thisKnob")
    return state.app().callbacks.knobs[-1]


def thisGroup():
    state.app().rules.check_thread("nuke.thisGroup")
    return state.app().groups[-1]


def createNode(kind, knobs="", inpanel=True):
    if knobs:
        raise NotImplementedError("the double does not read createNode's knobs text")
    del inpanel
    return state.app().create(kind, {}, is_by_hand=True)


def delete(node):
    state.app().delete(node)


def allNodes(filter=None, group=None, recurseGroups=False):
    state.app().rules.check_thread("nuke.allNodes")
    if recurseGroups:
        raise NotImplementedError("the double lists one group")
    found = [node for node in (group or state.app().groups[-1])._nodes if filter in (None, node._kind)]
    for node in found:
        state.app().rules.see_node(node)
    return found


def selectedNodes(filter=None):
    return [node for node in allNodes(filter) if node.isSelected()]


def nodeCopy(target):
    _only_clipboard(target)
    from .script_text import write_script  # noqa: PLC0415 - a circle otherwise

    state.app().clipboard = write_script(selectedNodes())


def nodePaste(source):
    _only_clipboard(source)
    return state.app().paste(state.app().clipboard)


def _only_clipboard(target):
    if target not in ("%clipboard%", "%clipboard"):
        raise NotImplementedError("the double copies to %clipboard% alone")


def scriptReadText(text):
    state.app().paste(text)


def scriptClear():
    state.app().clear()


def scriptName():
    return state.app().script_name


def script_directory():
    return str(Path(state.app().script_name).parent) if state.app().script_name else ""


def scriptSaveAs(filename=None, overwrite=-1):
    if Path(filename).exists() and not int(overwrite) == 1:
        raise RuntimeError(f"{filename} exists")
    state.app().callbacks.run_script_event("onScriptSave")
    Path(filename).write_text(state.app().write_text(), "utf-8")
    state.app().script_name = str(filename)
    state.app().root.setModified(False)


def scriptOpen(filename):
    state.app().read_text(Path(filename).read_text("utf-8"))
    state.app().script_name = str(filename)


def undo_():
    state.app().undo.undo()


undo_.__name__ = "undo"


def message(text):
    state.app().messages.append(text)


def warning(text):
    state.app().printed.append(text)


def tprint(*words, sep=" ", end="\n", file=None):
    del end, file
    state.app().printed.append(sep.join(map(str, words)))


def menu(name):
    if not state.app().module.GUI:
        raise RuntimeError("not in GUI mode")
    return state.app().menus[name]


def getPaneFor(name):
    return state.app().panes.get(name)


def pluginAddPath(paths, addToSysPath=True):
    for path in [paths] if isinstance(paths, str) else paths:
        if path not in state.app().plugin_path:
            state.app().plugin_path.insert(0, path)
        if addToSysPath and path not in sys.path:
            sys.path.insert(0, path)


def pluginAppendPath(path, addToSysPath=True):
    state.app().plugin_path.append(path)
    if addToSysPath and path not in sys.path:
        sys.path.append(path)


def pluginPath():
    return tuple(state.app().plugin_path)


def addFormat(text):
    return state.app().formats.add(text)


class PythonPanel:
    """What registerWidgetAsPanel gives with ``create``: a panel with the widget in it."""

    def __init__(self, widget):
        self.widget = widget
        self.pane = None

    def addToPane(self, pane=None):
        self.pane = pane
        return self


def _register_widget_as_panel(widget, name, id, create=False):
    """The widget is an expression that is evaluated when the panel is opened, in a place where nothing is imported."""
    app = state.app()

    def open_panel():
        return PythonPanel(eval(widget, {"nuke": app.module})())

    app.panels[id] = open_panel
    app.menus["Pane"].addCommand(name, open_panel)
    return open_panel() if create else None


_FUNCTIONS = (
    root, frame, toNode, thisNode, thisKnob, thisGroup, createNode, delete, allNodes, selectedNodes, nodeCopy, nodePaste,
    scriptReadText, scriptClear, scriptName, script_directory, scriptSaveAs, scriptOpen, undo_, message, warning, tprint,
    menu, getPaneFor, pluginAddPath, pluginAppendPath, pluginPath, addFormat,
)  # fmt: skip
