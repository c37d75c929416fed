"""Memory that is kept between what is in use: given back once it has added up, and not before."""

import mmap
import sys

import pytest

from xmem_server.memory_watch import private_bytes, resident_bytes
from xmem_server.worker.host_memory import HostMemory

MEBIBYTE = 1024**2
PIECE = 64 * 1024  # small enough to lie in the heap, whatever the environment says

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux says what a process holds")


def _leave_holes(mebibytes: int) -> list[bytes]:
    """Give what is left of so many MiB of the heap: one piece in fifty."""
    pieces = [b"x" * PIECE for _ in range(mebibytes * MEBIBYTE // PIECE)]
    return pieces[::50]


def _look(memory: HostMemory) -> None:
    """Look as often as it takes for what is there to count as being there to stay."""
    for _ in range(10):
        memory.look()


def test_when_unused_memory_adds_up_then_it_is_given_back():
    memory = HostMemory()
    _look(memory)
    before = private_bytes()
    left = _leave_holes(200)
    held = private_bytes()
    memory.look()
    assert held - private_bytes() < 8 * MEBIBYTE  # it may be gone at the next look
    _look(memory)
    assert left
    assert held - before > 150 * MEBIBYTE  # else there was nothing to give back
    assert private_bytes() - before < 50 * MEBIBYTE


def test_when_little_was_left_unused_then_it_is_kept_for_what_comes_next():
    memory = HostMemory()
    _look(memory)
    left = _leave_holes(60)
    held = private_bytes()
    _look(memory)
    assert left
    assert held - private_bytes() < 8 * MEBIBYTE


def test_when_a_file_is_mapped_then_that_is_not_the_process_own_memory(tmp_path):
    (tmp_path / "file").write_bytes(b"x" * 32 * MEBIBYTE)
    private, resident = private_bytes(), resident_bytes()
    with (tmp_path / "file").open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert mapped.find(b"y") == -1  # all of it was read
        assert resident_bytes() - resident > 24 * MEBIBYTE
        assert private_bytes() - private < 8 * MEBIBYTE
