"""``nuke``: the double as a module that can be imported; ``application``: what a test does to it as the artist."""

import sys
from pathlib import Path

import pytest

from tests.nuke.fake_nuke import Application, make_modules, stop

REPOSITORY = Path(__file__).resolve().parents[2]
PLUGIN_PATH = (REPOSITORY / "gizmos", REPOSITORY / "nuke_plugin")

# One module for all tests, as in one Nuke: what imported it once keeps it. Its state is fresh for each test.
_MODULES = make_modules()


@pytest.fixture
def application(monkeypatch):
    """A fresh Nuke with a window and our plug-in path. At its end it must have nothing to complain of."""
    nuke, fresh = _MODULES["nuke"], make_modules()["nuke"]
    for name, module in _MODULES.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(sys, "path", list(sys.path))
    nuke.GUI, nuke.env = True, fresh.env
    running = Application(nuke, PLUGIN_PATH)
    yield running
    complaints = running.complaints()
    stop()
    assert not complaints, "\n".join(complaints)


@pytest.fixture
def nuke(application):
    """The module ``nuke``."""
    return application.module
