"""Whatever is wrong: one line that an artist can read, and exit code 2."""

import errno

import cv2
import numpy as np
import OpenEXR
import pytest

from tests.server.command_shots import HEIGHT, WIDTH, disc, save_keys, save_plates
from xmem_protocol import InputError
from xmem_server.__main__ import main
from xmem_server.commands.console import Console, fetch_range, run_safely

COUNT = 4


@pytest.fixture(scope="module")
def shot(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shot")
    return save_plates(folder / "plate", COUNT), save_keys(folder / "keys", (1001,), COUNT)


@pytest.fixture
def complaint(capsys):
    """Give the one line a command ends with on stderr, and check that nothing else is there."""

    def run(*words):
        assert main([str(word) for word in words]) == 2
        said = capsys.readouterr()
        lines = said.err.splitlines()
        assert len(lines) == 1, lines
        assert "Traceback" not in said.err
        return lines[0]

    return run


def roto(plate, keys, out, *more):
    return "roto", "--plate", plate, "--keys", keys, "--out", out, *more


def test_when_no_or_an_unknown_command_is_given_then_the_line_points_to_help(complaint):
    assert "xmem --help" in complaint()
    assert "frobnicate" in complaint("frobnicate")
    assert "--plate" in complaint("roto")
    assert "invalid int value" in complaint(*roto("p", "k", "o", "--size", "big"))


def test_when_help_or_version_is_asked_then_it_is_printed(capsys):
    for words in (["--help"], ["roto", "--help"], ["suggest", "--help"], ["demo", "--help"], ["--version"]):
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == 0
    said = capsys.readouterr().out
    assert "pull mattes" in said
    assert "xmem 0.1.0" in said


def test_when_frames_are_missing_then_the_first_is_named(complaint, shot, tmp_path):
    plate = save_plates(tmp_path / "plate", COUNT)
    (tmp_path / "plate" / "plate.1003.png").unlink()
    assert "1003" in complaint(*roto(plate, shot[1], tmp_path / "out"))
    assert "1005" in complaint(*roto(shot[0], shot[1], tmp_path / "out", "--frames", "1001-1008"))


def test_when_sizes_are_mixed_then_the_frame_and_both_sizes_are_named(complaint, shot, tmp_path):
    plate = save_plates(tmp_path / "plate", COUNT)
    path = tmp_path / "plate" / "plate.1003.png"
    cv2.imwrite(str(path), cv2.resize(cv2.imread(str(path)), (80, 48)))
    said = complaint(*roto(plate, shot[1], tmp_path / "out"))
    assert "Frame 1003 is 80x48" in said
    assert f"{WIDTH}x{HEIGHT}" in said


def test_when_a_key_is_outside_the_range_then_it_is_named(complaint, shot, tmp_path):
    assert "frame 1001, outside the range 1002-1004" in complaint(
        *roto(*shot, tmp_path / "out", "--frames", "1002-1004")
    )


def test_when_every_key_is_empty_or_there_is_none_then_it_says_so(complaint, shot, tmp_path):
    (tmp_path / "keys").mkdir()
    assert "keys" in complaint(*roto(shot[0], tmp_path / "keys", tmp_path / "out"))
    cv2.imwrite(str(tmp_path / "keys" / "key.1001.png"), np.zeros((HEIGHT, WIDTH), np.uint8))
    assert "empty" in complaint(*roto(shot[0], tmp_path / "keys", tmp_path / "out"))
    assert "nowhere" in complaint(*roto(shot[0], tmp_path / "nowhere", tmp_path / "out"))


def test_when_an_alpha_has_a_hole_of_nan_then_the_file_is_named(complaint, shot, tmp_path):
    (tmp_path / "keys").mkdir()
    alpha = disc(1001, COUNT).astype(np.float32) / 255
    alpha[3, 4] = np.nan
    with OpenEXR.File({"type": OpenEXR.scanlineimage}, {"A": OpenEXR.Channel(alpha)}) as file:
        file.write(str(tmp_path / "keys" / "key.1001.exr"))
    assert "key.1001.exr" in complaint(*roto(shot[0], tmp_path / "keys", tmp_path / "out"))


def test_when_a_plate_is_corrupt_or_a_png_called_exr_then_the_file_is_named(complaint, shot, tmp_path):
    plate = save_plates(tmp_path / "plate", COUNT)
    for frame in range(1001, 1001 + COUNT):
        path = tmp_path / "plate" / f"plate.{frame}.png"
        path.rename(path.with_suffix(".exr"))
    said = complaint(*roto(plate.replace(".png", ".exr"), shot[1], tmp_path / "out"))
    assert "PNG" in said
    assert "plate.1001.exr" in said
    (tmp_path / "plate" / "plate.1001.exr").write_bytes(b"\x76\x2f\x31\x01" + b"\0" * 40)
    assert "plate.1001.exr" in complaint(*roto(plate.replace(".png", ".exr"), shot[1], tmp_path / "out"))


def test_when_the_output_cannot_be_written_then_it_is_said_before_any_work(complaint, tmp_path):
    (tmp_path / "out").write_bytes(b"a file is in the way")
    # neither plate nor keys exist: the output is looked at first
    assert "cannot be written" in complaint(*roto("none.%04d.exr", tmp_path / "none", tmp_path / "out"))


def test_when_the_model_or_the_server_is_not_there_then_it_says_what_to_do(complaint, shot, tmp_path):
    assert "xmem weights get XMem" in complaint(*roto(*shot, tmp_path / "out", "--model", "XMem"))
    assert "Is it running?" in complaint(*roto(*shot, tmp_path / "out", "--server", tmp_path / "connection.json"))


def test_when_the_colour_space_is_unknown_then_close_ones_are_named(complaint, shot, tmp_path):
    assert "ACEScg" in complaint(*roto(*shot, tmp_path / "out", "--plate-colorspace", "ACEScgg"))


def test_when_a_range_makes_no_sense_then_it_says_how_one_looks(complaint, shot, tmp_path):
    assert fetch_range("1001-1100") == (1001, 1100)
    assert fetch_range("-5--1") == (-5, -1)
    assert fetch_range("-5") == (-5, -5)
    for text in ("1001-", "a-b", "9-1"):
        with pytest.raises(InputError):
            fetch_range(text)
    assert "1001-1100" in complaint(*roto(*shot, tmp_path / "out", "--frames", "all"))


def test_when_there_is_no_run_to_look_at_then_suggest_says_so(complaint, shot, tmp_path):
    assert "xmem roto" in complaint("suggest", "--plate", shot[0], "--keys", shot[1], "--mattes", tmp_path)


@pytest.mark.parametrize(
    ("bind", "words"),
    [
        ("0.0.0.0", "xmem keys new"),
        ("tcp://0.0.0.0:5570", "xmem keys new"),
        ("tcp://0.0.0.0:no", "--bind looks like"),
        ("tcp://127.0.0.1:5570 --port 5580", "--bind looks like"),
        ("studio-server", "address in numbers"),
    ],
)
def test_when_nobody_is_let_in_or_the_address_is_no_use_then_serve_refuses_in_one_line(tmp_path, capsys, bind, words):
    assert main(["serve", "--bind", *bind.split(" "), "--state", str(tmp_path / "state")]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert (len(lines), words in lines[0]) == (1, True), lines


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/out/1/01001.exr"), 2, "the disk is full"),
        (PermissionError(errno.EACCES, "Permission denied", "/out"), 2, "Permission denied"),
        (InputError("Frame 3 is\nbroken."), 2, "Frame 3 is broken."),
        (KeyboardInterrupt(), 130, "Run the same command again"),
    ],
)
def test_when_a_command_ends_badly_then_one_line_and_the_code_say_how(error, code, words, capsys):
    def work():
        raise error

    assert run_safely(work, Console()) == code
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1
