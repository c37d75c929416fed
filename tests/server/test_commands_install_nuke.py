import os
import platform
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from xmem_nuke.bootstrap import name_vendor_folder
from xmem_server.__main__ import main
from xmem_server.commands.install_nuke import LINE
from xmem_server.nuke_wheels import PYTHONS, Vendor, fetch_machine, fetch_tags, fetch_targets

REAL_WHEELS = os.environ.get("XMEM_NUKE_WHEELS", "")  # a folder with the real wheels of pyzmq and msgpack


def make_wheel(folder, name, version, tags):
    """Write the smallest wheel that pip installs."""
    path = folder / f"{name}-{version}-{tags}.whl"
    meta = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{'zmq' if name == 'pyzmq' else name}/__init__.py", f"__version__ = {version!r}\n")
        wheel.writestr(f"{meta}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        wheel.writestr(f"{meta}/WHEEL", f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: false\nTag: {tags}\n")
        wheel.writestr(f"{meta}/RECORD", "")
    return path


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheels")
    for python in ("cp310", "cp311"):
        make_wheel(folder, "pyzmq", "26.4.0", f"{python}-{python}-manylinux_2_17_x86_64")
        make_wheel(folder, "msgpack", "1.1.2", f"{python}-{python}-manylinux_2_17_x86_64")
    make_wheel(folder, "pyzmq", "27.3.0", "cp311-cp311-manylinux_2_28_x86_64")
    return folder


def install(folder, wheels, *more):
    command = ["install-nuke", "--dir", str(folder), "--machine", "linux-x86_64", *more]
    return main(command if wheels is None else [*command, "--wheels", str(wheels)])


def test_when_installed_then_plugin_gizmo_and_libraries_are_where_nuke_looks(tmp_path, wheels, capsys):
    folder = tmp_path / ".nuke"
    assert install(folder, wheels, "--nuke", "16") == 0
    plugin = folder / "XMem"
    assert (plugin / "gizmos" / "XMem.gizmo").read_text().startswith("Group {")
    for name in ("init.py", "menu.py", "xmem_nuke/job.py", "xmem_client/client.py", "xmem_protocol/packing.py"):
        assert (plugin / name).is_file()
    assert "27.3.0" in (plugin / "vendor" / "py311-linux-x86_64" / "zmq" / "__init__.py").read_text()
    assert sys.executable in (plugin / "server.json").read_text()
    assert (folder / "init.py").read_text() == LINE + "\n"
    said = capsys.readouterr().out
    assert LINE in said
    assert "Libraries for Nuke 16 (Python 3.11, linux-x86_64): msgpack 1.1.2, pyzmq 27.3.0" in said


def test_when_the_artist_has_an_init_file_then_it_is_kept_and_gets_the_line_once(tmp_path, wheels):
    (tmp_path / "init.py").write_bytes(b"# caf\xe9, in an old encoding\r\nimport nuke")
    assert install(tmp_path, wheels, "--nuke", "15") == 0
    assert install(tmp_path, wheels, "--nuke", "15") == 0
    expected = b"# caf\xe9, in an old encoding\r\nimport nuke\n" + LINE.encode() + b"\n"
    assert (tmp_path / "init.py").read_bytes() == expected


def test_when_uninstalled_then_only_what_was_installed_is_gone(tmp_path, wheels):
    before = b"import nuke\nnuke.knobDefault('Blur.size', '3')\n"
    (tmp_path / "init.py").write_bytes(before)
    assert install(tmp_path, wheels, "--nuke", "15") == 0
    assert install(tmp_path, None, "--uninstall") == 0
    assert [path.name for path in tmp_path.iterdir()] == ["init.py"]
    assert (tmp_path / "init.py").read_bytes() == before


def test_when_installed_for_another_nuke_then_the_first_ones_libraries_stay(tmp_path, wheels):
    assert install(tmp_path, wheels, "--nuke", "15") == 0
    assert install(tmp_path, wheels, "--nuke", "17") == 0
    names = sorted(path.name for path in (tmp_path / "XMem" / "vendor").iterdir())
    assert names == ["py310-linux-x86_64", "py311-linux-x86_64"]


def test_when_a_fresh_install_is_taken_back_then_nothing_is_left(tmp_path, wheels):
    assert install(tmp_path, wheels, "--nuke", "15") == 0
    assert install(tmp_path, None, "--uninstall") == 0
    assert list(tmp_path.iterdir()) == []


def test_when_this_linux_is_old_then_only_wheels_that_load_there_are_taken():
    here = fetch_machine()
    if not here.startswith("linux"):
        pytest.skip("a Linux machine's wheels")
    assert not [tag for tag in fetch_tags(here, ("glibc", "2.17")) if "2_28" in tag]
    assert [tag for tag in fetch_tags(here, ("glibc", "2.34")) if "2_28" in tag]


def test_when_a_wheel_is_missing_then_nothing_changes_and_the_message_says_which(tmp_path, wheels, capsys):
    assert install(tmp_path, wheels, "--nuke", "14") == 2
    said = capsys.readouterr().err
    assert "Nuke 14 (Python 3.9, linux-x86_64)" in said
    assert "pyzmq" in said
    assert list(tmp_path.iterdir()) == []


def test_when_the_folder_is_somebody_elses_then_it_is_left_alone(tmp_path, wheels, capsys):
    (tmp_path / "XMem").mkdir()
    (tmp_path / "XMem" / "precious.txt").write_text("mine")
    assert install(tmp_path, wheels, "--nuke", "15") == 2
    assert install(tmp_path, None, "--uninstall") == 2
    assert (tmp_path / "XMem" / "precious.txt").read_text() == "mine"
    assert "was not made by" in capsys.readouterr().err


def test_when_wheels_is_no_folder_then_that_is_said(tmp_path, capsys):
    assert install(tmp_path, tmp_path / "none", "--nuke", "15") == 2
    assert "is not a folder" in capsys.readouterr().err


def test_when_every_nuke_is_wanted_then_each_python_is_filled_once():
    assert fetch_targets("all", "linux-x86_64") == (
        Vendor("14", "3.9", "linux-x86_64"),
        Vendor("15", "3.10", "linux-x86_64"),
        Vendor("16 and 17", "3.11", "linux-x86_64"),
    )


def test_when_a_folder_is_filled_then_it_has_the_name_that_nuke_looks_for():
    for system, machine in (("linux", "x86_64"), ("win32", "AMD64"), ("darwin", "arm64"), ("linux", "aarch64")):
        name = name_vendor_folder((3, 11), system, machine)
        assert fetch_targets("17", name.partition("-")[2])[0].name == name
    assert name_vendor_folder((3, 11), sys.platform, platform.machine()).endswith(fetch_machine())


def _find_python(version):
    known = Path.home() / ".pyenv" / "versions"
    places = [shutil.which(f"python{version}"), *sorted(map(str, known.glob(f"{version}.*/bin/python")))]
    for place in filter(None, places):
        code = "import sys; print('%d.%d' % sys.version_info[:2])"
        done = subprocess.run([place, "-c", code], capture_output=True, text=True, check=False)
        if done.stdout.strip() == version:
            return place
    return None


@pytest.mark.parametrize("nuke", ["14", "15", "16"])
@pytest.mark.skipif(not REAL_WHEELS, reason="needs real wheels: set XMEM_NUKE_WHEELS to a folder that has them")
def test_when_installed_then_the_client_speaks_in_that_nukes_python(tmp_path, nuke):
    python = _find_python(PYTHONS[nuke])
    if python is None:
        pytest.skip(f"no Python {PYTHONS[nuke]} on this machine")
    assert main(["install-nuke", "--dir", str(tmp_path), "--nuke", nuke, "--wheels", REAL_WHEELS]) == 0
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from xmem_nuke import bootstrap\n"
        "assert bootstrap.prepare() == '', bootstrap.prepare()\n"
        "import zmq, xmem_client, xmem_nuke.controller, xmem_nuke.server_launch, xmem_nuke.watching\n"
        "from xmem_protocol import Envelope, Ping, pack, unpack\n"
        "context = zmq.Context()\n"
        "left, right = context.socket(zmq.PAIR), context.socket(zmq.PAIR)\n"
        "left.bind('inproc://wire'); right.connect('inproc://wire')\n"
        "left.send_multipart(pack(Envelope(Ping(), 'one', 'nuke')))\n"
        "print(unpack(right.recv_multipart()), zmq.__file__)\n"
        "left.close(); right.close(); context.term()\n"
    )
    done = subprocess.run(
        [python, "-I", "-S", "-c", code, str(tmp_path / "XMem")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Envelope(message=Ping(), id='one', client='nuke'" in done.stdout
    assert str(tmp_path) in done.stdout
