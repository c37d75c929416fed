"""Python that Nuke runs of its own accord: onCreate, knobChanged with all its noise, buttons, registered functions."""

from __future__ import annotations

import traceback
from contextlib import contextmanager

from . import state
from .knobs import Knob


class Callbacks:
    """Who is told of what. ``is_noisy``: as in 17.1, every change is told, also one by a program with the panel closed."""

    def __init__(self):
        self.is_noisy = True
        self.errors = []
        self.nodes = []  # thisNode, innermost last
        self.knobs = []
        self.registered = {
            "knobChanged": [],
            "onCreate": [],
            "onDestroy": [],
            "onScriptLoad": [],
            "onScriptClose": [],
            "onScriptSave": [],
        }
        self._depth = 0

    def knob_changed(self, node, knob, *, by_artist=False):
        """Tell of a changed knob."""
        if self.is_noisy or by_artist or node._panel_shown:
            self._tell_knob(node, knob)

    def input_changed(self, node):
        """Tell of a changed wire, as Nuke does: through a knob that is not there."""
        self._tell_knob(node, _noise("inputChange"))

    def panel_shown(self, node):
        """Tell of a panel that was opened."""
        self._tell_knob(node, _noise("showPanel"))

    def node_created(self, node):
        """Run onCreate, as on every creation: by hand, by script, by paste."""
        self._run_text(node, None, node._knobs["onCreate"]._text, is_callback=False)
        self._run_registered("onCreate", node, None)

    def node_destroyed(self, node):
        """Run onDestroy."""
        self._run_text(node, None, node._knobs["onDestroy"]._text, is_callback=False)
        self._run_registered("onDestroy", node, None)

    def press(self, node, knob):
        """Run the Python of a button; what it raises comes out."""
        with self._context(node, knob, is_callback=False):
            exec(compile(knob._text, f"<{node._name}.{knob._name}>", "exec"), {"nuke": state.app().module})

    def run_text_of(self, node, name):
        """Run one of a node's Python knobs, as beforeFrameRender."""
        self._run_text(node, None, node._knobs[name]._text, is_callback=True)

    def run_script_event(self, event):
        """Tell of a script that was loaded, saved or closed."""
        self._run_registered(event, state.app().root, None)

    def _tell_knob(self, node, knob):
        if self._depth > 20:
            raise RecursionError(f"knobChanged of {node._name} changes knobs without end")
        self._depth += 1
        try:
            self._run_text(node, knob, node._knobs["knobChanged"]._text, is_callback=True)
            self._run_registered("knobChanged", node, knob)
        finally:
            self._depth -= 1

    def _run_text(self, node, knob, text, *, is_callback):
        if text:
            with self._caught(node), self._context(node, knob, is_callback=is_callback):
                exec(compile(text, f"<{node._name}>", "exec"), {"nuke": state.app().module})

    def _run_registered(self, event, node, knob):
        for call, args, kwargs, kind, only in list(self.registered[event]):
            if kind in ("*", node._kind) and only in (None, node):
                with self._caught(node), self._context(node, knob, is_callback=event == "knobChanged"):
                    call(*args, **kwargs)

    @contextmanager
    def _caught(self, node):
        """Nuke prints what a callback raises and goes on; here it is kept for the fixture to fail on."""
        try:
            yield
        except Exception:  # noqa: BLE001
            self.errors.append(f"callback of {node._name}: {traceback.format_exc()}")

    @contextmanager
    def _context(self, node, knob, *, is_callback):
        app = state.app()
        self.nodes.append(node)
        self.knobs.append(knob)
        inside = [node] if hasattr(node, "_nodes") and node is not app.root else []
        app.groups.extend(inside)
        app.rules.in_callback += is_callback
        try:
            yield
        finally:
            app.rules.in_callback -= is_callback
            if inside:
                app.groups.pop()
            self.nodes.pop()
            self.knobs.pop()


def _noise(name):
    return Knob(name)
