"""The shipped weights' first steps again: the documented command, start and data give the logged curve.

Slow (half an hour on one core), and needs the packed training images: ``XMEM_TRAINING_IMAGES=training/downloads/packed``. The start is
read from the repository's history.
"""

import csv
import json
import os
import re
import subprocess
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from training.train import TrainSettings, start_state, train

ROOT = Path(__file__).parents[2]
LOG = ROOT / "training" / "logs" / "second"
STEPS = 200
ROWS = 20  # of ten steps each


def read_log(path):
    with path.open() as stream:
        rows = list(csv.DictReader(stream))
    return {name: np.array([float(row[name]) for row in rows]) for name in ("step", "loss", "j", "rate")}


def logged_settings():
    """Give the settings of the logged run, without its paths."""
    known = {field.name for field in fields(TrainSettings)} - {"out", "init", "packed", "left_out"}
    logged = json.loads((LOG / "settings.json").read_text())
    return {name: value for name, value in logged.items() if name in known}


def test_when_the_log_is_read_then_it_is_a_whole_run_with_the_documented_rates():
    log, settings = read_log(LOG / "log.csv"), logged_settings()
    assert log["step"][-1] == settings["steps"]
    assert settings["minutes"] == 0  # by steps, so that it can be repeated
    assert np.isfinite(log["loss"]).all()
    assert log["rate"].max() <= settings["rate"]
    card = (ROOT / "docs" / "model-card.md").read_text()
    for name in ("steps", "rate", "size", "working", "frames", "batch", "encoder_share"):
        written = re.search(rf"--{name.replace('_', '-')} ([\d.e-]+)", card)
        assert written, f"the model card's command lacks {name}"
        assert float(written.group(1)) == settings[name], name


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_when_the_documented_command_runs_two_hundred_steps_then_its_curve_is_the_logged_one(tmp_path):
    packed = os.environ.get("XMEM_TRAINING_IMAGES")
    if not packed:
        pytest.skip("XMEM_TRAINING_IMAGES does not name the packed training images")
    start = tmp_path / "start.safetensors"
    blob = (LOG / "start.txt").read_text().split()[0]
    start.write_bytes(
        subprocess.run(["git", "cat-file", "blob", blob], cwd=ROOT, capture_output=True, check=True).stdout
    )
    settings = replace(TrainSettings(out=tmp_path), **logged_settings())
    settings = replace(
        settings, init=start, packed=Path(packed), stop_after=STEPS, validation_clips=0, checkpoint_minutes=1e9
    )
    torch.set_num_threads(1)
    train(settings, start_state(settings))
    found, logged = read_log(tmp_path / "log.csv"), read_log(LOG / "log.csv")
    assert np.array_equal(found["step"], logged["step"][:ROWS])
    for name, most in (("loss", 0.02), ("j", 0.02)):
        # The same clips in the same order: rows move together, and differ by rounding that grows from step to step.
        assert np.abs(found[name] - logged[name][:ROWS]).mean() < most, name
        assert np.corrcoef(found[name], logged[name][:ROWS])[0, 1] > 0.9, name
