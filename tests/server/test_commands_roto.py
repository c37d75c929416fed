"""``xmem roto`` and its kin with the real server, engine and shipped model, as an artist runs them."""

import contextlib
import hashlib
import json
import os
import signal
import sys
import time

import cv2
import numpy as np
import pytest

from tests.server.command_shots import HEIGHT, WIDTH, disc, run_xmem, save_keys, save_plates, start_xmem
from xmem_protocol import WIRE_MAJOR, WIRE_MINOR, ConnectionLostError
from xmem_server.commands.private_server import PrivateServer, PrivateServerSettings
from xmem_server.decoding import Decoder

COUNT, LONG = 8, 60


def words_for(plate, keys, out, *more):
    return "roto", "--plate", plate, "--keys", keys, "--out", out, "--device", "cpu", *more


def mattes(out):
    return {
        path.relative_to(out): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(out.glob("[0-9]*/*.exr"))
    }


def is_running(process_id):
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    return True


def wait_for(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def server_process(out):
    with contextlib.suppress(OSError, ValueError, KeyError):
        return json.loads((out / ".xmem" / "connection.json").read_text())["pid"]
    return 0


@pytest.fixture(scope="module")
def shot(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shot")
    return save_plates(folder / "plate", COUNT), save_keys(folder / "keys", (1001,), COUNT)


@pytest.fixture(scope="module")
def long_shot(tmp_path_factory):
    folder = tmp_path_factory.mktemp("long")
    return save_plates(folder / "plate", LONG), save_keys(folder / "keys", (1001,), LONG)


@pytest.fixture(scope="module")
def finished(shot, tmp_path_factory):
    """A run with a suggestion: its folder and what was printed."""
    out = tmp_path_factory.mktemp("finished") / "out"
    code, said, complaints = run_xmem(*words_for(*shot, out, "--suggest", 1))
    assert code == 0, complaints
    return out, said


@pytest.fixture(scope="module")
def whole(long_shot, tmp_path_factory):
    """The mattes of the long shot in one go."""
    out = tmp_path_factory.mktemp("whole") / "out"
    code, _, complaints = run_xmem(*words_for(*long_shot, out))
    assert code == 0, complaints
    return mattes(out)


def test_when_a_plate_is_run_then_every_frame_has_a_matte_and_the_key_is_untouched(finished):
    out, _ = finished
    assert [path.name for path in sorted((out / "1").iterdir())] == [f"{frame:05d}.exr" for frame in range(1001, 1009)]
    with Decoder() as decoder:
        key = decoder.fetch_alpha(str(out / "1" / "01001.exr"), ".exr", "channel:A")
        last = decoder.fetch_alpha(str(out / "1" / "01008.exr"), ".exr", "channel:A")
    assert np.array_equal(key, (disc(1001, COUNT).astype(np.float32) / 255).astype(np.float16).astype(np.float32))
    assert last.shape == (HEIGHT, WIDTH)


def test_when_a_plate_is_run_then_the_sheet_the_report_and_the_suggestion_are_there(finished):
    out, said = finished
    sheet = cv2.imread(str(out / "contact_sheet.png"))
    assert sheet.shape[0] > 8 * HEIGHT
    report = json.loads((out / "report.json").read_text())
    assert report["frames"] == list(range(1001, 1009))
    assert report["keys"] == {"1001": [1]}
    assert report["settings"]["first"] == 1001
    assert report["engine"]["model"] == "compact"
    assert report["versions"]["wire"] == f"{WIRE_MAJOR}.{WIRE_MINOR}"
    assert report["failed"] == {}
    assert "Draw next:" in said
    assert f"frame {report['suggestions'][0]['frame']}: {report['suggestions'][0]['reason']}" in said
    assert str(out / "contact_sheet.png") in said


def test_when_a_command_ends_then_its_server_is_gone_and_nothing_is_half_written(finished):
    out, _ = finished
    assert not server_process(out)
    assert not list(out.rglob("*.part"))
    assert not [path for path in out.glob("[0-9]*/*") if path.suffix != ".exr"]


def test_when_the_same_command_runs_again_then_no_matte_is_written_again(shot, finished, tmp_path):
    out, _ = finished
    (out / "1" / "01005.exr").unlink()
    before = {path: path.stat().st_mtime_ns for path in (out / "1").iterdir()}
    code, _, complaints = run_xmem(*words_for(*shot, out))
    assert code == 0, complaints
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert (out / "1" / "01005.exr").is_file()


def test_when_a_run_is_asked_for_a_suggestion_then_a_frame_without_a_key_is_named(shot, finished):
    out, _ = finished
    words = "suggest", "--plate", shot[0], "--keys", shot[1], "--mattes", out, "--count", 2, "--device", "cpu"
    code, said, complaints = run_xmem(*words)
    assert code == 0, complaints
    assert "Draw next:" in said
    assert "frame 1001:" not in said


def test_when_a_key_is_added_and_removed_then_the_mattes_are_those_of_the_keys_in_the_folder(shot, tmp_path):
    keys = save_keys(tmp_path / "keys", (1001,), COUNT)
    code, _, complaints = run_xmem(*words_for(shot[0], keys, tmp_path / "out", "--layout", "layered"))
    assert code == 0, complaints
    one_key = sorted((path.name, path.read_bytes()) for path in (tmp_path / "out").glob("*.exr"))
    assert len(one_key) == COUNT
    save_keys(keys, (1008,), COUNT)
    assert run_xmem(*words_for(shot[0], keys, tmp_path / "out", "--layout", "layered"))[0] == 0
    assert json.loads((tmp_path / "out" / "report.json").read_text())["keys"] == {"1001": [1], "1008": [1]}
    assert sorted((path.name, path.read_bytes()) for path in (tmp_path / "out").glob("*.exr")) != one_key
    (keys / "key.1008.png").unlink()
    assert run_xmem(*words_for(shot[0], keys, tmp_path / "out", "--layout", "layered"))[0] == 0
    assert sorted((path.name, path.read_bytes()) for path in (tmp_path / "out").glob("*.exr")) == one_key


def test_when_one_plate_frame_cannot_be_decoded_then_the_others_are_kept_and_it_is_named(tmp_path):
    plate = save_plates(tmp_path / "plate", COUNT)
    keys = save_keys(tmp_path / "keys", (1001,), COUNT)
    path = tmp_path / "plate" / "plate.1005.png"
    path.write_bytes(path.read_bytes()[:3000])  # the header is whole, the pixels are not
    code, _, complaints = run_xmem(*words_for(plate, keys, tmp_path / "out"))
    assert code == 2
    assert "1005" in complaints[-1]
    assert "Traceback" not in "".join(complaints)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert list(report["failed"]) == ["1005"]
    names = {path.stem for path in (tmp_path / "out" / "1").iterdir()}
    assert {f"{frame:05d}" for frame in range(1001, 1009) if frame != 1005} <= names


def test_when_the_checkpoint_is_wrong_then_one_line_says_so(shot, tmp_path):
    wrong = tmp_path / "wrong.pth"
    wrong.write_bytes(b"not a checkpoint")
    code, _, complaints = run_xmem(*words_for(*shot, tmp_path / "out", "--model", wrong))
    assert code == 2
    assert len(complaints) == 1
    assert "wrong.pth" in complaints[0]
    assert not server_process(tmp_path / "out")


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_when_it_is_interrupted_then_the_same_command_goes_on_to_the_same_mattes(long_shot, whole, tmp_path):
    out = tmp_path / "out"
    with start_xmem(*words_for(*long_shot, out, "--snapshot-every", 5)) as process:
        wait_for(lambda: len(mattes(out)) >= 8)
        server = server_process(out)
        process.send_signal(signal.SIGINT)
        _, complaints = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Run the same command again" in complaints.splitlines()[-1]
    assert not is_running(server)
    some = {path: path.stat().st_mtime_ns for path in (out / "1").iterdir()}
    assert len(some) < LONG
    code, _, complaints = run_xmem(*words_for(*long_shot, out, "--snapshot-every", 5))
    assert code == 0, complaints
    assert mattes(out) == whole
    assert {path: path.stat().st_mtime_ns for path in some} == some


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_when_the_command_itself_is_killed_then_its_server_ends_too(long_shot, tmp_path):
    out = tmp_path / "out"
    with start_xmem(*words_for(*long_shot, out)) as process:
        wait_for(lambda: len(mattes(out)) >= 1)
        server = server_process(out)
        process.kill()
        process.communicate()
    wait_for(lambda: not is_running(server), 30)


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_when_its_server_is_killed_then_another_takes_over_and_the_mattes_are_the_same(long_shot, whole, tmp_path):
    out = tmp_path / "out"
    with start_xmem(*words_for(*long_shot, out, "--snapshot-every", 5)) as process:
        wait_for(lambda: len(mattes(out)) >= 8)
        killed = server_process(out)
        os.kill(killed, signal.SIGKILL)
        wait_for(lambda: server_process(out) not in (0, killed))
        second = server_process(out)
        _, complaints = process.communicate(timeout=300)
    assert process.returncode == 0, complaints
    assert mattes(out) == whole
    assert not is_running(second)


def test_when_the_disk_is_full_then_one_line_says_so(shot, tmp_path):
    resource = pytest.importorskip("resource")
    plate = save_plates(tmp_path / "plate", 2, size=(1600, 960))
    keys = tmp_path / "keys"
    keys.mkdir()
    cv2.imwrite(str(keys / "key.1001.png"), cv2.resize(disc(1001, 2), (1600, 960)))
    small = min(path.stat().st_size for path in (tmp_path / "plate").iterdir()) // 2
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (small, before[1]))  # a file past this size fails, as on a full disk
    try:
        process = start_xmem(*words_for(plate, keys, tmp_path / "out"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    with process:
        _, complaints = process.communicate(timeout=120)
    assert process.returncode == 2
    assert len(complaints.splitlines()) == 1
    assert "full" in complaints or "too large" in complaints.lower()


def test_when_a_running_server_is_named_then_it_does_the_work_and_stays(shot, finished, tmp_path):
    connection = tmp_path / "connection.json"
    state = tmp_path / "state"
    with start_xmem("serve", "--state", state, "--connection", connection, "--device", "cpu") as server:
        wait_for(connection.exists)
        code, _, complaints = run_xmem(*words_for(*shot, tmp_path / "out", "--server", connection))
        assert code == 0, complaints
        assert mattes(tmp_path / "out") == mattes(finished[0])
        assert not (tmp_path / "out" / ".xmem" / "state").exists()
        assert server.poll() is None
        server.terminate()
        server.communicate(timeout=30)
    assert server.returncode == 0
    assert not connection.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_when_a_private_server_dies_again_and_again_then_it_is_given_up_with_one_line(tmp_path):
    with PrivateServer(PrivateServerSettings(tmp_path, device="cpu")) as server:
        seen = set()
        for _ in range(3):
            server.fetch_connection()
            seen.add(server.process_id)
            os.kill(server.process_id, signal.SIGKILL)
            wait_for(lambda: not server.process_id)
        with pytest.raises(ConnectionLostError, match="stopped 3 times"):
            server.fetch_connection()
    assert len(seen) == 3
    assert not any(is_running(process_id) for process_id in seen)
