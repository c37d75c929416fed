"""The questions for a real Nuke, asked of the double: the program must run to its end within ten nodes a script."""

import json
import runpy
import sys

import pytest

from tests.nuke.conftest import REPOSITORY

PROGRAM = REPOSITORY / "examples" / "nuke_smoke.py"
# What the double does not model, so that the program's way of reporting a failure is seen too.
UNKNOWN_HERE = {"check_layer_name", "check_colour_role"}  # nuke.Layer, and the config that Nuke ships


@pytest.fixture
def report(nuke, application, tmp_path, monkeypatch):
    application.limit_nodes()
    monkeypatch.setattr(sys, "argv", [str(PROGRAM), str(tmp_path / "report.json")])
    for name in [name for name in sys.modules if name.startswith("nuke_checks")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(SystemExit):
        runpy.run_path(str(PROGRAM), run_name="__main__")
    application.callbacks.errors.clear()
    for name in [name for name in sys.modules if name.startswith("nuke_checks")]:
        del sys.modules[name]
    return json.loads((tmp_path / "report.json").read_text())


def test_when_the_smoke_script_runs_on_the_double_then_all_it_models_is_as_assumed(report, capsys):
    answers = {entry["check"]: entry["answer"] for entry in report["checks"]}
    wrong = [entry for entry in report["checks"] if entry["answer"] != "yes" and entry["check"] not in UNKNOWN_HERE]
    assert wrong == []
    assert {name for name, answer in answers.items() if answer == "error"} == UNKNOWN_HERE
    assert len(answers) >= 30


def test_when_a_check_fails_then_the_report_says_how(report):
    entry = next(entry for entry in report["checks"] if entry["check"] == "check_layer_name")
    assert "Traceback" in entry["detail"]
    assert report["nuke"]["NukeVersionString"] == "17.1v1"
