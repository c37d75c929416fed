"""The running double: the script and everything around it, and what a test may do to it as the artist or the world."""

from __future__ import annotations

from pathlib import Path

from . import state
from .callbacks import Callbacks
from .executing import Renders
from .images import Format, Formats
from .main_thread import MainThread
from .menus import Menu
from .nodes import Group, Root, make_node
from .outlines import RotoKnob
from .script_text import read_script, write_script
from .shuffling import ShuffleLinks
from .undo import UndoStack

_MENU_NAMES = ("Nuke", "Pane", "Nodes", "Properties", "Animation", "Viewer", "Node Graph", "Axis")


class Application:
    """One Nuke. Attributes are for tests; the plug-in sees ``module`` alone, as ``nuke``."""

    def __init__(self, module, plugin_path):
        state.start(self)
        self.module = module
        self.rules = state.Rules()
        self.undo = UndoStack()
        self.callbacks = Callbacks()
        self.main_thread = MainThread()
        self.renders = Renders()
        self.formats = Formats()
        self.formats.fetch_root = self._fetch_root_format
        self.other_knobs = {"RotoKnob": RotoKnob, "ShuffleLinks": ShuffleLinks}
        self.plugin_path = [str(path) for path in plugin_path]
        self.pictures, self.files_read, self.frames_set = {}, [], []
        self.messages, self.printed, self.progress_tasks = [], [], []
        self.is_progress_cancelled = False
        self.clipboard = ""
        self.panels = {}
        self.panes = {"Properties.1": object()}
        self.menus = {name: Menu(name) for name in _MENU_NAMES}
        self.groups = []
        self.root = None
        self.clear()

    # ------------------------------------------------------------------------------------------- for tests

    def clear(self):
        """Start an empty script of 1920x1080."""
        for node in list(self.root._nodes) if self.root else []:
            self.delete(node)
        self.groups.clear()
        self.root = Root()
        self.groups.append(self.root)
        self.root._knobs["format"]._text = "1920 1080 0 0 1920 1080 1 HD_1080"
        self.undo.__init__()
        self.pictures.clear()
        self.rules.seen_nodes.clear()

    def limit_nodes(self, count=10, edition="nc"):
        """Become an edition that shows Python few nodes, from now on."""
        self.module.env[edition] = True
        self.rules.node_limit = count
        self.rules.seen_nodes.clear()

    def act(self, call):
        """Do something as the artist: the event loop calls it, and the watchdog looks."""
        return self.main_thread.hold(call)

    def pump(self, until=lambda: False, seconds=20.0):
        """Let the event loop run until a condition holds, or until nothing is left to do."""
        self.main_thread.pump(until, seconds)

    def set_as_artist(self, knob, value):
        """Set a knob in an open panel."""
        noisy, self.callbacks.is_noisy = self.callbacks.is_noisy, True
        try:
            self.act(lambda: knob.setValue(value))
        finally:
            self.callbacks.is_noisy = noisy

    def fetch_picture(self, node, frame):
        """Give what a viewer on this node shows at a frame: an ``images.Picture``."""
        return node._picture(frame)

    def write_text(self):
        """Give the whole script as text."""
        return write_script(self.root._nodes, root=self.root)

    def read_text(self, text):
        """Load a script in place of the present one."""
        self.callbacks.run_script_event("onScriptClose")
        self.clear()
        read_script(text, self.root)
        self.root._modified = False
        self.callbacks.run_script_event("onScriptLoad")

    def complaints(self):
        """Give what must not be when a test ends."""
        found = [*self.rules.broken, *self.callbacks.errors, *self.main_thread.errors]
        if self.undo.depth or self.undo.disabled:
            found.append(f"undo was left {self.undo.depth} deep and {self.undo.disabled} times disabled")
        if len(self.groups) != 1:
            found.append(f"{len(self.groups) - 1} groups were begun and not ended")
        if self.progress_tasks:
            found.append(f"progress bars were left: {self.progress_tasks}")
        return found

    # ------------------------------------------------------------------------------------------- for the double

    @property
    def script_name(self):
        return self.root._knobs["name"]._text

    @script_name.setter
    def script_name(self, path):
        self.root._knobs["name"]._text = path

    def frame(self):
        return self.root._knobs["frame"]._channels[0]

    def note_edit(self):
        """Forget pictures and mark the script modified."""
        self.pictures.clear()
        if self.root is not None:
            self.root._modified = True

    def find_node(self, name):
        return self.root if name == "root" else self.groups[-1]._find_node(name) or self.root._find_node(name)

    def create(self, kind, knobs, *, is_by_hand):
        """Make a node in the current group; by hand, it is selected and connected, and may be a gizmo of the plug-in path."""
        self.rules.check_thread(f"making a {kind}")
        self.rules.check_idle()
        parent, selected = self.groups[-1], [node for node in self.groups[-1]._nodes if node._is_selected()]
        gizmo = next((path for path in self._gizmos(kind) if path.is_file()), None)
        if gizmo and not is_by_hand:
            raise RuntimeError(f"{kind}: a gizmo that is a Group is made with createNode")
        if gizmo:
            node = read_script(gizmo.read_text("utf-8"), parent)[0]
        else:
            node = make_node(kind, parent)
            self.note_edit()
            self.callbacks.node_created(node)
        for name, value in knobs.items():
            node[name].setValue(value)
        if is_by_hand:
            if selected and node._most_inputs():
                node._connect(0, selected[0])
            node._select_only()
        self.undo.record(f"create {node._name}", lambda: self.delete(node))
        return node

    def delete(self, node):
        """Take a node out of the script, and its wires."""
        self.rules.check_thread("nuke.delete")
        self.rules.check_idle()
        self.callbacks.node_destroyed(node)
        node._parent._nodes.remove(node)
        for other in node._parent._nodes:
            other._sources = [None if source is node else source for source in other._sources]
        for inner in [node, *(node._nodes if isinstance(node, Group) else [])]:
            inner._deleted = True
        self.note_edit()
        self.undo.record(f"delete {node._name}", _cannot_undo_delete)

    def paste(self, text, below=None):
        """Make the nodes of a text in the current group; gives the last, selected."""
        made = read_script(text, self.groups[-1], below)
        for node in self.groups[-1]._nodes:
            node._select(node in made)
        return made[-1]

    def _gizmos(self, kind):
        return [Path(folder) / f"{kind}.gizmo" for folder in self.plugin_path]

    def _fetch_root_format(self):
        text = self.root._knobs["format"]._text if self.root else ""
        return self.formats.find(text) if text not in ("", "0") else Format(2048, 1556, 1.0, "2K_Super_35(full-ap)")


def _cannot_undo_delete():
    raise NotImplementedError("the double does not undo a deletion")
