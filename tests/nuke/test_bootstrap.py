import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from xmem_nuke import bootstrap
from xmem_nuke.bootstrap import name_vendor_folder
from xmem_nuke.server_launch import (
    RECORD_NAME,
    LaunchSettings,
    ServerLaunch,
    fetch_command,
    fetch_connection_file,
    scrub_environment,
)
from xmem_protocol import InputError
from xmem_server.commands import install_nuke
from xmem_server.commands.serve import fetch_state_folder

PLUGIN = Path(bootstrap.__file__).parents[1]


def prepare_in_a_bare_python(plugin, *more):
    """Run the plug-in's start in a Python that has no packages of its own; give what it printed."""
    code = "import sys; sys.path.insert(0, sys.argv[1])\nfrom pathlib import Path\nfrom xmem_nuke import bootstrap\n"
    code += "print(bootstrap.prepare(Path(sys.argv[2])))\nprint('zmq' in sys.modules)\n" + "\n".join(more)
    command = [sys.executable, "-I", "-S", "-c", code, str(PLUGIN), str(plugin)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def fill(plugin, *libraries):
    folder = plugin / "vendor" / name_vendor_folder(sys.version_info[:2], sys.platform, platform.machine())
    for library in libraries:
        (folder / library).mkdir(parents=True)
        (folder / library / "__init__.py").write_text("raise OSError('made for another glibc')")
    return folder


@pytest.mark.parametrize(
    ("version", "system", "machine", "name"),
    [
        ((3, 10), "linux", "x86_64", "py310-linux-x86_64"),
        ((3, 11), "win32", "AMD64", "py311-windows-x86_64"),
        ((3, 11), "darwin", "arm64", "py311-macos-arm64"),
        ((3, 9), "linux", "aarch64", "py39-linux-arm64"),
    ],
)
def test_when_a_nuke_starts_then_the_folder_of_its_python_and_machine_is_chosen(version, system, machine, name):
    assert name_vendor_folder(version, system, machine) == name


def test_when_the_libraries_are_there_then_nothing_is_said_and_nothing_of_them_is_loaded(tmp_path):
    folder = fill(tmp_path, "zmq", "msgpack")  # both would raise when loaded
    said = prepare_in_a_bare_python(tmp_path, f"print({str(folder)!r} == sys.path[0])")
    assert said == ["", "False", "True"]


def test_when_there_is_no_vendor_folder_then_one_line_says_what_to_do(tmp_path):
    said = prepare_in_a_bare_python(tmp_path)[0]
    assert said.startswith("XMem: zmq and msgpack for this Nuke (py3")
    assert "Run 'xmem install-nuke'" in said


def test_when_it_was_made_for_another_nuke_then_the_line_says_for_which(tmp_path):
    (tmp_path / "vendor" / "py37-linux-x86_64").mkdir(parents=True)
    assert "it is made for py37-linux-x86_64" in prepare_in_a_bare_python(tmp_path)[0]


def test_when_one_library_is_missing_then_it_is_named(tmp_path):
    fill(tmp_path, "zmq")
    assert "lacks msgpack" in prepare_in_a_bare_python(tmp_path)[0]


def test_when_in_a_checkout_then_the_gizmos_are_beside_the_plugin(tmp_path):
    assert (bootstrap.fetch_gizmo_folder() / "XMem.gizmo").is_file()
    (tmp_path / "gizmos").mkdir()
    assert bootstrap.fetch_gizmo_folder(tmp_path) == tmp_path / "gizmos"


def test_when_a_server_is_started_then_nothing_of_nukes_environment_reaches_it():
    nukes = {
        "PYTHONHOME": "/opt/Nuke16.0v3",
        "PYTHONPATH": "/opt/Nuke16.0v3/plugins",
        "NUKE_PATH": "/show/nuke",
        "QT_PLUGIN_PATH": "/opt/Nuke16.0v3/qt",
        "PATH": os.pathsep.join(("/usr/bin", "/opt/Nuke16.0v3", "/opt/Nuke16.0v3/bin")),
        "LD_LIBRARY_PATH": "/opt/Nuke16.0v3",
        "HOME": "/home/artist",
        "CUDA_VISIBLE_DEVICES": "1",
    }
    assert scrub_environment(nukes) == {
        "PATH": "/usr/bin",
        "HOME": "/home/artist",
        "CUDA_VISIBLE_DEVICES": "1",
        "PYTHONUTF8": "1",
        "PYTHONNOUSERSITE": "1",
    }


def test_when_the_server_is_looked_for_then_the_variable_wins_over_the_record_and_the_path(tmp_path):
    record = tmp_path / RECORD_NAME
    assert record.name == install_nuke.RECORD
    (tmp_path / "xmem").write_text("#!/bin/sh\n")
    (tmp_path / "xmem").chmod(0o755)
    on_path = {"PATH": str(tmp_path)}
    assert fetch_command(on_path, record) == [str(tmp_path / "xmem")]
    record.write_text(f'{{"python": "{sys.executable}"}}')
    assert fetch_command(on_path, record) == [sys.executable, "-m", "xmem_server"]
    (tmp_path / "python").write_text("")
    chosen = {**on_path, "XMEM_PYTHON": str(tmp_path / "python")}
    assert fetch_command(chosen, record)[0] == str(tmp_path / "python")


def test_when_no_server_is_installed_then_the_message_says_how(tmp_path):
    with pytest.raises(InputError, match="xmem install-nuke"):
        fetch_command({"PATH": ""}, tmp_path / RECORD_NAME)


def test_when_nothing_is_chosen_then_the_connection_file_is_where_serve_writes_it(monkeypatch, tmp_path):
    monkeypatch.delenv("XMEM_CONNECTION", raising=False)
    assert fetch_connection_file() == fetch_state_folder() / "connection.json"
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert fetch_connection_file() == fetch_state_folder() / "connection.json"
    monkeypatch.setenv("XMEM_CONNECTION", "/show/connection.json")
    assert fetch_connection_file() == Path("/show/connection.json")
    assert fetch_connection_file(" /mine.json ") == Path("/mine.json")


def test_when_the_server_cannot_start_then_its_last_words_are_shown(tmp_path, monkeypatch):
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\necho 'The model nowhere.pth is not there.' >&2\nexit 2\n")
    program.chmod(0o755)
    monkeypatch.setenv("XMEM_PYTHON", str(program))
    launch = ServerLaunch(LaunchSettings(tmp_path / "state" / "connection.json"), tmp_path / RECORD_NAME)
    launch.start()
    launch._thread.join(20)
    (seen,) = launch.fetch_happenings()
    assert "The model nowhere.pth is not there." in seen.message
    assert launch.is_over
