"""The speed benchmark's short form runs and writes what it promises."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.speed.plot import draw_ratios
from tests.server.served import import_paths

RATIOS = {"first_propagation", "second_propagation_exact", "first_corrected_frame", "suggestion"}


@pytest.mark.slow
def test_when_the_short_form_runs_then_it_writes_all_ratios_and_a_plot(tmp_path):
    command = [sys.executable, "-m", "benchmarks.speed", "--quick", "--json", str(tmp_path / "speed.json")]
    root = Path(__file__).parents[2]
    environment = import_paths()
    subprocess.run(command, check=True, timeout=300, cwd=root, env=environment)
    figures = json.loads((tmp_path / "speed.json").read_text())
    assert figures["ratios"].keys() == RATIOS
    assert all(ratio > 0 for ratio in figures["ratios"].values())
    draw_ratios(figures, tmp_path / "speed.png")
    assert (tmp_path / "speed.png").stat().st_size > 1000
