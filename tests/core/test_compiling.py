"""Where compiled loops are kept."""

import shutil
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
