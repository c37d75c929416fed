"""Menus, panels and messages: what a session with a window has."""
# ruff: noqa: N802 - the names are Nuke's own; keys() of a curve is no dict's

from __future__ import annotations

from . import state


class MenuItem:
    """One entry; ``invoke`` presses it."""

    def __init__(self, name, command=None, **options):
        self._name, self._command, self._options = name, command, options

    def name(self):
        return self._name

    def invoke(self):
        if callable(self._command):
            self._command()
        else:
            exec(self._command, {"nuke": state.app().module})


class Menu(MenuItem):
    """A menu of entries; a path with slashes makes the menus on its way, a name given again replaces."""

    def __init__(self, name):
        super().__init__(name)
        self._items = {}

    def addCommand(self, name, command=None, shortcut=None, icon=None, tooltip=None, **options):
        head, _, rest = name.partition("/")
        if rest:
            return self.addMenu(head).addCommand(rest, command, shortcut, icon, tooltip, **options)
        self._items[name] = MenuItem(name, command, shortcut=shortcut, icon=icon, tooltip=tooltip, **options)
        return self._items[name]

    def addMenu(self, name, icon=None, tooltip=None, index=-1):
        del icon, tooltip, index
        if not isinstance(self._items.get(name), Menu):
            self._items[name] = Menu(name)
        return self._items[name]

    def addSeparator(self):
        return None

    def findItem(self, path):
        head, _, rest = path.partition("/")
        found = self._items.get(head)
        return found.findItem(rest) if rest and isinstance(found, Menu) else None if rest else found

    def menu(self, name):
        return self.findItem(name)

    def removeItem(self, name):
        self._items.pop(name, None)

    def items(self):
        return list(self._items.values())


class ProgressTask:
    """nuke.ProgressTask: its bar is there until the object is gone."""

    def __init__(self, title=""):
        state.app().progress_tasks.append(title)
        self._title = title

    def setProgress(self, percent):
        if not isinstance(percent, int):
            raise TypeError("setProgress takes an int")

    def setMessage(self, text):
        if not isinstance(text, str):
            raise TypeError("setMessage takes text")

    def isCancelled(self):
        return state.app().is_progress_cancelled

    def __del__(self):
        if state.running() and self._title in state.app().progress_tasks:
            state.app().progress_tasks.remove(self._title)
