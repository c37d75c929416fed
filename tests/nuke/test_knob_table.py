"""Compares our own table with a scan of a real Nuke where one is at hand (XMEM_NUKE_FACTS names its folder)."""

import json
import os
from pathlib import Path

import pytest

from tests.nuke.knob_table import CLASSES, COMMON

# Not among the 61 classes of the scan; Foundry's public CheckerBoard2 example has it.
NOT_SCANNED = {"CheckerBoard2"}

FACTS = os.environ.get("XMEM_NUKE_FACTS")
# A list too long to repeat: the table has those that are used.
EXCERPTS = {(kind, name) for kind in ("Read", "Write") for name in ("file_type", "colorspace")}
EXCERPTS |= {("Colorspace", "colorspace_in"), ("Colorspace", "colorspace_out")}
# The scan has the value a fresh node has; in the double a Roto without shapes is empty text.
OTHER_DEFAULTS = {"name", "selected", "xpos", "ypos", "curves", "postage_stamp"}


@pytest.fixture(scope="module")
def scan():
    if not FACTS:
        pytest.skip("XMEM_NUKE_FACTS names no folder with knob scans")
    return json.loads(Path(FACTS, "data", "nuke17_0v3_knobs.json").read_text("utf-8"))["classes"]


@pytest.mark.parametrize("kind", sorted(CLASSES.keys() - NOT_SCANNED))
def test_when_a_class_is_compared_with_the_scan_then_inputs_and_knobs_agree(scan, kind):
    seen = scan[kind]
    if kind != "Group":  # its inputs are its Input nodes
        assert CLASSES[kind].inputs == seen["inputs"]["maximum"]
    for name, entry in {**COMMON, **CLASSES[kind].knobs}.items():
        found = seen["knobs"].get(name)
        assert found is not None, f"{kind} has no knob {name}"
        assert found["type"] == (
            entry.kind if entry.kind in {"PythonKnob", "RotoKnob", "ShuffleLinks"} else f"{entry.kind}_Knob"
        )
        if entry.entries:
            agree = (
                set(entry.entries) <= set(found["enum"])
                if (kind, name) in EXCERPTS
                else list(entry.entries) == found["enum"]
            )
            assert agree, f"{kind}.{name}: {entry.entries} is not {found['enum']}"
        if name not in OTHER_DEFAULTS and found.get("script_default"):
            assert entry.default == found["script_default"], f"{kind}.{name}"


def test_when_the_table_is_read_then_every_enumeration_has_its_default():
    for kind, entry in CLASSES.items():
        for name, knob in entry.knobs.items():
            ids = [word.split("\t")[0] for word in knob.entries]
            assert not ids or knob.default in ids, f"{kind}.{name}"
