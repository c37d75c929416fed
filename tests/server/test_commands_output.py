"""What an output folder keeps from run to run: one command at a time, objects' numbers, sessions, and no stale matte."""

import contextlib
import io
import json
import shutil
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.server.command_shots import HEIGHT, WIDTH, run_xmem, save_keys, save_plates, start_xmem
from xmem_client import Client, fetch_connection, hash_file
from xmem_protocol import PropagationSettings, ServerError, SuggestionSettings
from xmem_server.__main__ import main
from xmem_server.commands.console import Console
from xmem_server.commands.matte_folder import MatteFolder
from xmem_server.commands.output_folder import check_output, lock_output
from xmem_server.commands.roto import finish
from xmem_server.commands.roto_run import RotoSettings, run_roto
from xmem_server.commands.shot_source import SourceSettings, fetch_source
from xmem_server.decoding import Decoder

COUNT = 4


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The connection file of a real server that all tests here share."""
    folder = tmp_path_factory.mktemp("server")
    connection = folder / "connection.json"
    words = "serve", "--state", folder / "state", "--connection", connection, "--device", "cpu"
    with start_xmem(*words) as process:
        end = time.monotonic() + 120
        while not connection.exists():
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < end
            time.sleep(0.05)
        yield connection
        process.terminate()
        process.communicate(timeout=30)


@pytest.fixture
def shot(tmp_path):
    return save_plates(tmp_path / "plate", COUNT), save_keys(tmp_path / "keys", (1001,), COUNT)


@pytest.fixture
def xmem(server):
    """Run a command in this process against the shared server; give its code and what it said on both ways."""

    def run(command, plate, keys, out, *more):
        option = "--mattes" if command == "suggest" else "--out"
        words = command, "--plate", plate, "--keys", keys, option, out, "--server", server, *more
        said, complaints = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(complaints):
            code = main([str(word) for word in words])
        return code, said.getvalue(), complaints.getvalue()

    return run


def names_below(out):
    return sorted(str(path.relative_to(out)) for path in out.rglob("*.exr") if ".xmem" not in path.parts)


def replaced(out):
    folder = out / ".xmem" / "replaced"
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def frames_of(*objects, first=1001, last=1004):
    return sorted(f"{number}/{frame:05d}.exr" for number in objects for frame in range(first, last + 1))


def save_coloured(folder, frame, *colours):
    """Write a mask with a square of each colour (rrggbb), side by side."""
    folder.mkdir(exist_ok=True)
    mask = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for index, colour in enumerate(colours):
        mask[30:70, 10 + 50 * index : 40 + 50 * index] = list(reversed(bytes.fromhex(colour)))
    cv2.imwrite(str(folder / f"mask.{frame}.png"), mask)


def save_folders(folder, *objects):
    """Write an alpha of each object at frame 1001: bars side by side, in a folder each."""
    for number in objects:
        (folder / str(number)).mkdir(parents=True)
        alpha = np.zeros((HEIGHT, WIDTH), np.uint8)
        alpha[20:80, 40 * number : 40 * number + 30] = 255
        cv2.imwrite(str(folder / str(number) / "key.1001.png"), alpha)
    return folder


# ------------------------------------------------------------------------------------------------- objects' numbers


def test_when_a_new_colour_appears_then_the_old_ones_keep_their_numbers(xmem, tmp_path):
    plate, keys, out = save_plates(tmp_path / "plate", 2), tmp_path / "keys", tmp_path / "out"
    save_coloured(keys, 1001, "00ff00", "ff0000")
    code, said, complaints = xmem("roto", plate, keys, out)
    assert code == 0, complaints
    assert said.count("green (#00ff00) is object 1") == 1
    assert "red (#ff0000) is object 2" in said
    save_coloured(keys, 1002, "00ff00", "ff0000", "0000c8")  # comes first by its value
    code, said, complaints = xmem("roto", plate, keys, out)
    assert code == 0, complaints
    for line in ("green (#00ff00) is object 1", "red (#ff0000) is object 2", "#0000c8 is object 3"):
        assert line in said.splitlines()
    report = json.loads((out / "report.json").read_text())
    assert report["objects"] == {"1": "green (#00ff00)", "2": "red (#ff0000)", "3": "#0000c8"}
    shutil.rmtree(keys)
    save_coloured(keys, 1001, "ff0000")
    assert "red (#ff0000) is object 2" in xmem("roto", plate, keys, out)[1]
    kept = json.loads((out / ".xmem" / "session.json").read_text())
    assert kept["objects"] == {"colour:00ff00": 1, "colour:ff0000": 2, "colour:0000c8": 3}


# ------------------------------------------------------------------------------------------ one command at a time


def test_when_another_command_writes_there_then_the_second_is_refused_and_touches_nothing(xmem, shot, tmp_path):
    out = tmp_path / "out"
    with lock_output(out):
        (out / ".xmem" / "connection.json").write_text("the first's")
        words = "roto", "--plate", shot[0], "--keys", shot[1], "--out", out, "--device", "cpu"
        code, _, complaints = run_xmem(*words)
        assert code == 2
        assert complaints == [f"xmem: Another xmem command is writing to {out}. Wait for it, or choose another --out."]
        assert (out / ".xmem" / "connection.json").read_text() == "the first's"
        assert xmem("suggest", *shot, out)[0] == 2
    assert xmem("roto", *shot, out)[0] == 0


def test_when_two_commands_share_a_state_folder_then_the_second_is_refused(shot, tmp_path):
    state = tmp_path / "state"
    words = "roto", "--plate", shot[0], "--keys", shot[1], "--state", state, "--device", "cpu", "--out"
    with start_xmem(*words, tmp_path / "one") as first:
        end = time.monotonic() + 60
        while not (state / "server.log").exists():
            assert time.monotonic() < end
            time.sleep(0.02)
        code, _, complaints = run_xmem(*words, tmp_path / "two")
        said, _ = first.communicate(timeout=300)
    assert code == 2
    assert complaints == [
        f"xmem: Another xmem command keeps its server's state in {state}. Wait for it, or choose another --state."
    ]
    assert first.returncode == 0
    assert f"MiB of plates are copied below {state}, where up to 16 GiB" in said
    assert not (tmp_path / "one" / ".xmem" / "state").exists()
    # The folder remembers where the state is: nothing is copied again.
    code, said, _ = run_xmem(
        "roto", "--plate", shot[0], "--keys", shot[1], "--device", "cpu", "--out", tmp_path / "one"
    )
    assert code == 0
    assert "MiB of plates" not in said
    assert not (tmp_path / "one" / ".xmem" / "state").exists()


# ------------------------------------------------------------------------------------------------------ stale mattes


def test_when_an_object_is_dropped_then_its_mattes_are_moved_away_and_an_edited_one_is_named(xmem, shot, tmp_path):
    out, keys = tmp_path / "out", save_folders(tmp_path / "folders", 1, 2)
    code, _, complaints = xmem("roto", shot[0], keys, out)
    assert code == 0, complaints
    assert names_below(out) == frames_of(1, 2)
    manifest = json.loads((out / ".xmem" / "manifest.json").read_text())["files"]
    assert sorted(manifest) == frames_of(1, 2)
    (out / "2" / "01003.exr").write_bytes(b"painted by hand")
    (out / "2" / "notes.exr").write_bytes(b"never ours")
    shutil.rmtree(keys / "2")
    code, said, complaints = xmem("roto", shot[0], keys, out, "--frames", "1001-1002")
    assert code == 0, complaints
    assert "3 mattes of earlier runs" in said
    assert replaced(out) == ["2/01001.exr", "2/01002.exr", "2/01004.exr"]
    assert names_below(out) == [*frames_of(1), "2/01003.exr", "2/notes.exr"]
    assert "2/01003.exr" in complaints
    assert "notes" not in complaints


def test_when_a_frame_fails_now_then_its_earlier_matte_is_moved_away(xmem, shot, tmp_path):
    out = tmp_path / "out"
    assert xmem("roto", *shot, out)[0] == 0
    path = tmp_path / "plate" / "plate.1003.png"
    path.write_bytes(path.read_bytes()[:3000])  # the header is whole, the pixels are not
    code, said, _ = xmem("roto", *shot, out)
    assert code == 2
    assert "1 matte of earlier runs" in said
    assert replaced(out) == ["1/01003.exr"]
    assert names_below(out) == [name for name in frames_of(1) if "1003" not in name]


def test_when_a_part_of_the_range_is_run_then_the_mattes_of_the_rest_stay(xmem, shot, tmp_path):
    out = tmp_path / "out"
    assert xmem("roto", *shot, out)[0] == 0
    save_keys(shot[1], (1002,), COUNT)
    code, said, _ = xmem("roto", *shot, out, "--frames", "1001-1002")
    assert code == 0
    assert "earlier runs" not in said
    assert names_below(out) == frames_of(1)
    assert not replaced(out)


def test_when_the_layout_changes_then_only_the_old_layout_inside_the_range_is_moved(xmem, shot, tmp_path):
    out = tmp_path / "out"
    assert xmem("roto", *shot, out)[0] == 0
    code, said, _ = xmem("roto", *shot, out, "--layout", "layered", "--frames", "1001-1003")
    assert code == 0
    assert "3 mattes of earlier runs" in said
    assert names_below(out) == ["01001.exr", "01002.exr", "01003.exr", "1/01004.exr"]
    assert xmem("roto", *shot, out)[0] == 0
    assert names_below(out) == frames_of(1)
    assert replaced(out) == ["01001.exr", "01002.exr", "01003.exr", *frames_of(1, last=1003)]


def test_when_a_matte_was_changed_by_hand_then_a_new_one_does_not_overwrite_it(xmem, shot, tmp_path):
    out = tmp_path / "out"
    assert xmem("roto", *shot, out)[0] == 0
    fresh = (out / "1" / "01003.exr").read_bytes()
    for paint in (b"painted by hand", b"painted again"):
        (out / "1" / "01003.exr").write_bytes(paint)
        code, _, complaints = xmem("roto", *shot, out)
        assert code == 0
        assert "1/01003.exr" in complaints
        assert (out / "1" / "01003.exr").read_bytes() == fresh
    assert (out / ".xmem" / "replaced" / "1" / "01003.exr").read_bytes() == b"painted by hand"
    assert (out / ".xmem" / "replaced" / "1" / "01003.2.exr").read_bytes() == b"painted again"


def test_when_a_manifest_names_files_elsewhere_then_they_are_not_touched(tmp_path):
    outside = tmp_path / "1001.exr"
    outside.write_bytes(b"somebody's")
    out = tmp_path / "out"
    fields = {"sha256": hash_file(outside), "frame": 1001, "object_id": 1}
    (check_output(out) / "manifest.json").write_text(
        json.dumps({"files": {"../1001.exr": fields, str(outside): fields, "1/gone.exr": fields}})
    )
    with MatteFolder(out) as folder:
        assert folder.retire(range(1001, 1002), ()) == ((), ())
    assert outside.read_bytes() == b"somebody's"
    assert json.loads((out / ".xmem" / "manifest.json").read_text()) == {"files": {}}


# ---------------------------------------------------------------------------------------------------------- sessions


def test_when_suggest_spells_the_plate_otherwise_then_the_session_is_found_and_its_file_is_not_written(
    xmem, shot, tmp_path
):
    out = tmp_path / "out"
    assert xmem("roto", *shot, out)[0] == 0
    path = out / ".xmem" / "session.json"
    before = path.read_bytes(), path.stat().st_mtime_ns
    for plate in (shot[0].replace("%04d", "####"), tmp_path / "plate", f"{tmp_path}/keys/../plate/plate.%04d.png"):
        code, said, complaints = xmem("suggest", plate, shot[1], out)
        assert code == 0, complaints
        assert "Draw next:" in said
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    other = save_plates(tmp_path / "other", COUNT)
    code, _, complaints = xmem("suggest", other, shot[1], out)
    assert code == 2
    assert "holds no run of" in complaints
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before


def test_when_the_plate_grows_then_it_is_said_and_going_back_finds_the_old_session(xmem, shot, tmp_path):
    out = tmp_path / "out"
    path = out / ".xmem" / "session.json"
    assert "session" not in xmem("roto", *shot, out)[1]
    first = json.loads(path.read_text())
    shutil.copy(tmp_path / "plate" / "plate.1004.png", tmp_path / "plate" / "plate.1005.png")
    code, said, _ = xmem("roto", *shot, out)
    assert code == 0
    assert [line for line in said.splitlines() if "1001-1005 now, 1001-1004 before" in line]
    second = json.loads(path.read_text())
    assert second["session"] != first["session"]
    assert [entry["session"] for entry in second["history"]] == [first["session"]]
    (tmp_path / "plate" / "plate.1005.png").unlink()
    assert "before" not in xmem("roto", *shot, out)[1]
    assert json.loads(path.read_text())["session"] == first["session"]


# ------------------------------------------------------------------------------------------------------- suggestions


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--object", 7), "Object 7 has no key"),
        (("--alpha", 3), "alpha is 3"),
        (("--min-area", 1.5), "min_area is 1.5"),
        (("--suggest", -1), "-1 suggestions were asked"),
        (("--size", 5000), "working_size is 5000"),
    ],
)
def test_when_a_setting_cannot_be_then_it_is_refused_before_anything_is_sent(shot, tmp_path, capsys, words, said):
    # No server is there: whoever asked for one would say so.
    command = "roto", "--plate", shot[0], "--keys", shot[1], "--out", tmp_path / "out", "--suggest", 2
    assert main([str(word) for word in (*command, "--server", tmp_path / "none.json", *words)]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out" / ".xmem" / "session.json").exists()


class NoSuggestions(Client):
    """A client whose server ends in the middle of suggesting."""

    def start_suggestion(self, session, settings):
        raise ServerError("engine_died", "The engine stopped while it compared frames.")


def test_when_suggesting_fails_then_sheet_and_report_are_there_and_the_code_is_two(server, shot, tmp_path, capsys):
    source_settings = SourceSettings(shot[0], shot[1])
    out = tmp_path / "out"
    settings = RotoSettings(
        source_settings, out, check_output(out), PropagationSettings(0, 0), SuggestionSettings(2)
    )  # fmt: skip
    with Decoder() as decoder, NoSuggestions(lambda: fetch_connection(server), "nuke-7") as client:
        source = fetch_source(source_settings, decoder)
        result = run_roto(client, source, settings, decoder, Console())
    assert finish(result, Console()) == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        "xmem: The mattes are finished, but no frame is suggested: The engine stopped while it compared frames."
    )
    assert (out / "contact_sheet.png").is_file()
    report = json.loads((out / "report.json").read_text())
    assert report["suggestion_note"] == "The engine stopped while it compared frames."
    assert report["frames"] == [1001, 1002, 1003, 1004]
    assert names_below(out) == frames_of(1)


# --------------------------------------------------------------------------------------------------------- disk use


def test_when_plates_are_sent_then_their_size_is_said_and_nothing_when_they_are_there(xmem, shot, tmp_path):
    path = Path(shot[0] % 1002)
    path.write_bytes(path.read_bytes() + bytes(3 * 1024**2))  # bytes behind a PNG's end do not matter
    code, said, complaints = xmem("roto", *shot, tmp_path / "out")
    assert code == 0, complaints
    assert "3 MiB of plates go to the server" in said
    assert "MiB" not in xmem("roto", *shot, tmp_path / "out")[1]
