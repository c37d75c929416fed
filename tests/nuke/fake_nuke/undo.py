"""The artist's undo stack: named steps, nesting, and a balance that a fixture checks."""

from __future__ import annotations

from . import state


class UndoStack:
    """Steps that can be taken back; ``depth`` and ``disabled`` must be 0 again when the plug-in is done."""

    def __init__(self):
        self.steps = []  # (name, [function that takes back one change])
        self.redo_names = []
        self.depth = 0
        self.disabled = 0
        self._open = None

    def record(self, name, take_back):
        """Note one change."""
        if self.disabled:
            return
        if self._open is not None:
            self._open[1].append(take_back)
        else:
            self.steps.append((name, [take_back]))

    def begin(self, name):
        if not self.depth:
            self._open = (name, [])
        self.depth += 1

    def end(self):
        if not self.depth:
            raise RuntimeError("Undo.end without Undo.begin")
        self.depth -= 1
        if not self.depth:
            if self._open[1] and not self.disabled:
                self.steps.append(self._open)
            self._open = None

    def cancel(self):
        changes = self._open[1]
        self._open = (self._open[0], [])
        self.end()
        self._take_back(changes)

    def undo(self):
        name, changes = self.steps.pop()
        self._take_back(changes)
        return name

    def _take_back(self, changes):
        self.disabled += 1
        try:
            for take_back in reversed(changes):
                take_back()
        finally:
            self.disabled -= 1
        state.app().note_edit()


class Undo:
    """nuke.Undo: static functions, and a context manager that makes one step."""

    def __init__(self, name="", skip=False):
        self._name = name
        del skip

    def __enter__(self):
        Undo.begin(self._name)
        return self

    def __exit__(self, *_):
        Undo.end()

    @staticmethod
    def begin(name=""):
        state.app().rules.check_thread("Undo.begin")
        state.app().undo.begin(name)

    @staticmethod
    def end():
        state.app().undo.end()

    @staticmethod
    def cancel():
        state.app().undo.cancel()

    @staticmethod
    def disable():
        state.app().rules.check_thread("Undo.disable")
        state.app().undo.disabled += 1

    @staticmethod
    def enable():
        if not state.app().undo.disabled:
            raise RuntimeError("Undo.enable without Undo.disable")
        state.app().undo.disabled -= 1

    @staticmethod
    def disabled():
        return bool(state.app().undo.disabled)

    @staticmethod
    def undo():
        state.app().undo.undo()
