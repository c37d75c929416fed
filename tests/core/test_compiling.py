"""Where compiled loops are kept, and their threads."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from xmem_core import kernels
from xmem_core.kernels.compiling import name_cache_folder

SOURCES = Path(kernels.__file__).parent


@pytest.mark.parametrize("name", sorted(path.name for path in SOURCES.glob("*.py")))
def test_when_any_of_the_loops_files_changes_then_what_was_compiled_before_is_not_found(tmp_path, name):
    copy = tmp_path / "kernels"
    shutil.copytree(SOURCES, copy, ignore=shutil.ignore_patterns("__pycache__"))
    before = name_cache_folder(copy)
    assert before == name_cache_folder(copy)
    with (copy / name).open("a", encoding="utf-8") as file:
        file.write("# another word\n")
    assert name_cache_folder(copy).parent == before.parent == copy / "__pycache__"
    assert name_cache_folder(copy) != before


def test_when_nobody_may_write_beside_the_loops_then_they_are_kept_in_the_users_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("os.access", lambda *_: False)
    assert name_cache_folder(SOURCES).parent == tmp_path / "xmem"


BEGIN_IN_A_THREAD = """
import threading
import torch
from xmem_core import kernels

def count():
    print(torch.get_num_threads())
    kernels.compile_all()
    print(torch.get_num_threads())

torch.set_num_threads(1)
thread = threading.Thread(target=count)
thread.start()
thread.join()
print(torch.get_num_threads())
"""


def test_when_loops_begin_in_a_thread_then_torch_has_as_many_threads_there_as_elsewhere():
    said = subprocess.run(
        [sys.executable, "-c", BEGIN_IN_A_THREAD],
        env={**os.environ, "OMP_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.split() == ["1", "1", "1"]
