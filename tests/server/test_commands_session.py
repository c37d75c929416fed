"""The names under which an output folder finds its session again."""

from dataclasses import replace
from types import MappingProxyType

import pytest

from xmem_protocol import Shot
from xmem_server.commands.session_file import (
    SessionFile,
    explain_new_session,
    fetch_session_file,
    find_session,
    name_plate,
    save_session_file,
    update_sessions,
)
from xmem_server.sequences import FrameSequence, PlateFile, fetch_sequence

SHOT = Shot("d.%04d.png", 64, 48, 1.0, 1001, 1008, "auto")


def save_frames(folder, pattern, *frames):
    folder.mkdir(parents=True, exist_ok=True)
    for frame in frames:
        (folder / (pattern % frame)).write_bytes(b"")
    return folder


@pytest.mark.parametrize(
    ("pattern", "spellings", "name"),
    [
        ("d.%04d.png", ("d.%04d.png", "d.####.png", "d.%d.png", "", "../plate/d.%04d.png"), "d.#.png"),
        ("d.%04d.v2.png", ("d.%04d.v2.png", "d.####.v2.png"), "d.#.v2.png"),
        ("%04d.exr", ("%04d.exr", "####.exr", ""), "#.exr"),
        ("d.-%03d.exr", ("d.-%03d.exr", "d.-###.exr"), "d.-#.exr"),
    ],
)
def test_when_a_plate_is_spelled_in_any_way_then_it_has_one_name(tmp_path, pattern, spellings, name):
    plate = save_frames(tmp_path / "plate", pattern, 1001, 1002)
    for spelling in spellings:
        whole = str(plate / spelling)
        assert name_plate(whole, fetch_sequence(whole)) == str(plate / name)


def test_when_a_plate_is_another_one_then_it_has_another_name(tmp_path):
    plate = save_frames(tmp_path / "plate", "d.%04d.png", 1001)
    save_frames(plate, "e.%04d.png", 1001)
    other = save_frames(tmp_path / "other", "d.%04d.png", 1001)
    names = {
        name_plate(str(path), fetch_sequence(str(path)))
        for path in (plate / "d.%04d.png", plate / "e.%04d.png", other / "d.%04d.png", other)
    }
    assert len(names) == 3
    for video in ("take1.mov", "take2.mov"):
        path = tmp_path / video
        sequence = FrameSequence(str(path), MappingProxyType({1: PlateFile(path, 0, ".mov")}))
        assert name_plate(str(path), sequence) == str(path)


def test_when_sessions_are_kept_then_each_is_found_by_its_plate_and_extent_whatever_its_name(tmp_path):
    assert fetch_session_file(tmp_path) == SessionFile()
    first = update_sessions(SessionFile(objects={"colour:00ff00": 1}, state="/disk"), "/a/d.#.png", SHOT)
    longer = update_sessions(first, "/a/d.#.png", replace(SHOT, last=1009))
    save_session_file(tmp_path, longer)
    kept = fetch_session_file(tmp_path)
    assert kept == longer
    assert len({session.session for session in kept.sessions}) == 2
    assert find_session(kept, "/a/d.#.png", replace(SHOT, name="d.####.png")) == first.sessions[0]
    assert find_session(kept, "/a/d.#.png", replace(SHOT, colorspace="ACEScg")) is None
    assert find_session(kept, "/b/d.#.png", SHOT) is None
    back = update_sessions(kept, "/a/d.#.png", SHOT)
    assert back.sessions == (kept.sessions[1], kept.sessions[0])


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{}", b'{"session": "s", "shot": {}, "plate": "", "history": []}', b"\xff", b'{"session": 1'],
)
def test_when_the_file_is_of_another_version_or_broken_then_the_folder_remembers_nothing(tmp_path, content):
    (tmp_path / "session.json").write_bytes(content)
    assert fetch_session_file(tmp_path) == SessionFile()


@pytest.mark.parametrize(
    ("shot", "plate", "said"),
    [
        (SHOT, "/a/d.#.png", ""),
        (replace(SHOT, name="d.####.png"), "/a/d.#.png", ""),
        (replace(SHOT, last=1009), "/a/d.#.png", "frames: 1001-1009 now, 1001-1008 before"),
        (replace(SHOT, width=65), "/a/d.#.png", "size: 65x48 now, 64x48 before"),
        (replace(SHOT, colorspace="ACEScg"), "/a/d.#.png", "colour space: ACEScg now, auto before"),
        (SHOT, "/b/d.#.png", "The last run here was of /a/d.#.png"),
    ],
)
def test_when_a_new_session_is_needed_then_one_line_says_why(shot, plate, said):
    kept = update_sessions(SessionFile(), "/a/d.#.png", SHOT)
    line = explain_new_session(kept, plate, shot)
    assert said in line
    assert bool(line) == bool(said)
    assert explain_new_session(SessionFile(), plate, shot) == ""
