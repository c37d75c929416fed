"""Memory that is kept between what is in use: given back once it has added up, and not before."""

import json
import mmap
import subprocess
import sys

import pytest

from xmem_server.engines import child_environment
from xmem_server.memory_watch import private_bytes, resident_bytes

MEBIBYTE = 1024**2
# In a process of its own: the heap of this one has room from earlier tests. Pieces are small enough to lie in the heap; one in fifty stays.
HOLES = """
import json, sys
from xmem_server.memory_watch import private_bytes
from xmem_server.worker.host_memory import HostMemory
memory, told = HostMemory(), []
for _ in range(10):
    memory.look()
told.append(private_bytes())
left = [bytes([1]) * 65536 for _ in range(int(sys.argv[1]) * 16)][::50]
told.append(private_bytes())
memory.look()
told.append(private_bytes())
for _ in range(10):
    memory.look()
told.append(private_bytes())
print(json.dumps([each / 1024**2 for each in told]))
"""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux says what a process holds")


def _leave_holes(mebibytes: int) -> list[float]:
    """Give the MiB that a process held before, with so many MiB of holes, and after one look and after several."""
    command = [sys.executable, "-c", HOLES, str(mebibytes)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=child_environment(), timeout=120)
    return [float(each) for each in json.loads(done.stdout)]


def test_when_unused_memory_adds_up_then_it_is_given_back():
    before, with_holes, at_once, later = _leave_holes(200)
    assert with_holes - before > 150  # else there was nothing to give back
    assert with_holes - at_once < 8  # it may be gone at the next look
    assert later - before < 50


def test_when_little_was_left_unused_then_it_is_kept_for_what_comes_next():
    before, with_holes, _, later = _leave_holes(60)
    assert with_holes - before > 40
    assert with_holes - later < 8


def test_when_a_file_is_mapped_then_that_is_not_the_process_own_memory(tmp_path):
    (tmp_path / "file").write_bytes(b"x" * 32 * MEBIBYTE)
    private, resident = private_bytes(), resident_bytes()
    with (tmp_path / "file").open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert mapped.find(b"y") == -1  # all of it was read
        assert resident_bytes() - resident > 24 * MEBIBYTE
        assert private_bytes() - private < 8 * MEBIBYTE
