"""The server as a process: exit codes, its one line, and what it must never import."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.server.house import scripted
from tests.server.served import ServerProcess, import_paths, settings_of

SERVED = str(Path(__file__).with_name("served.py"))


def run_refused(folder, *options):
    """Give the exit code and the lines of a server that cannot start."""
    process = subprocess.run(
        [sys.executable, SERVED, str(folder), *options],
        env=import_paths(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return process.returncode, process.stderr.splitlines()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["bind=tcp://0.0.0.0"], "xmem keys new"),
        (["control_port=70000"], "A port is 1 to 65535"),
        (["state={folder}/a-file/state"], "state folder"),
        (["connection_file={folder}/nowhere/connection.json"], "is not a folder"),
    ],
)
def test_when_the_server_cannot_start_then_it_says_why_in_one_line_and_ends_with_two(tmp_path, options, words):
    (tmp_path / "a-file").write_text("in the way")
    scripted(tmp_path / "engine")
    code, lines = run_refused(tmp_path, *(option.format(folder=tmp_path) for option in options))
    assert (code, len(lines)) == (2, 1)
    assert words in lines[0]


def test_when_the_checkpoint_is_wrong_then_the_engines_reason_is_the_one_line(tmp_path):
    scripted(tmp_path / "engine", {"refuse": "model.pth lacks key_encoder.conv1.weight."})
    assert run_refused(tmp_path) == (2, ["xmem: model.pth lacks key_encoder.conv1.weight."])


def test_when_localhost_is_named_then_the_server_listens_there(tmp_path):
    scripted(tmp_path / "engine")
    with ServerProcess(tmp_path, options=["bind=tcp://localhost"]) as server:
        assert server.wait_ready().control.startswith("tcp://127.0.0.1:")


def test_when_secrets_are_shown_then_they_are_not(tmp_path):
    with ServerProcess(tmp_path) as server:
        connection = server.wait_ready()
    assert connection.secret_key not in repr(connection)
    assert settings_of(tmp_path).state.is_dir()


def test_when_the_network_process_is_imported_then_nothing_that_opens_pictures_or_computes_is():
    program = "import sys, xmem_server.service; print({'torch', 'cv2', 'OpenEXR', 'PyOpenColorIO'} & set(sys.modules))"
    found = subprocess.run(
        [sys.executable, "-c", program], env=import_paths(), capture_output=True, text=True, check=True
    )
    assert found.stdout == "set()\n"
