"""Which file is which frame: patterns, folders, single files, videos, gaps and duplicates."""

import cv2
import numpy as np
import pytest

from xmem_protocol import InputError
from xmem_server.sequences import fetch_sequence, format_frames


def _touch(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"x")
    return folder


def _names(sequence):
    return {frame: file.path.name for frame, file in sequence.files.items()}


@pytest.mark.parametrize("pattern", ["plate.%04d.exr", "plate.####.exr"])
def test_when_a_pattern_starts_at_1001_then_frames_keep_their_numbers(tmp_path, pattern):
    _touch(tmp_path, "plate.1002.exr", "plate.1001.exr", "plate.1003.exr", "other.1004.exr", "plate.1005.png")
    sequence = fetch_sequence(str(tmp_path / pattern))
    assert _names(sequence) == {1001: "plate.1001.exr", 1002: "plate.1002.exr", 1003: "plate.1003.exr"}
    assert list(sequence.files) == [1001, 1002, 1003]
    assert (sequence.first, sequence.last) == (1001, 1003)
    assert sequence.files[1001].suffix == ".exr"
    assert sequence.files[1001].index == 0


def test_when_numbers_are_negative_then_both_ways_of_padding_are_read(tmp_path):
    _touch(tmp_path / "a", "p.-002.exr", "p.-001.exr", "p.0000.exr", "p.0001.exr")
    _touch(tmp_path / "b", "p.-0002.exr", "p.-0001.exr", "p.0000.exr", "p.0001.exr")
    for folder in "ab":
        assert list(fetch_sequence(str(tmp_path / folder / "p.%04d.exr")).files) == [-2, -1, 0, 1]
        assert list(fetch_sequence(str(tmp_path / folder / "p.####.exr")).files) == [-2, -1, 0, 1]
        assert list(fetch_sequence(str(tmp_path / folder)).files) == [-2, -1, 0, 1]


def test_when_a_number_is_wider_than_its_padding_then_it_still_matches(tmp_path):
    _touch(tmp_path, "p9999.png", "p10000.png", "p7.png")
    assert list(fetch_sequence(str(tmp_path / "p%04d.png")).files) == [9999, 10000]
    assert list(fetch_sequence(str(tmp_path / "p%d.png")).files) == [7, 9999, 10000]


def test_when_a_dash_separates_then_the_number_is_not_negative(tmp_path):
    _touch(tmp_path, "shot-0012.exr", "shot-0013.exr")
    assert list(fetch_sequence(str(tmp_path)).files) == [12, 13]
    assert list(fetch_sequence(str(tmp_path / "shot-%04d.exr")).files) == [12, 13]


def test_when_a_folder_holds_other_files_too_then_they_do_not_matter(tmp_path):
    _touch(tmp_path, "v002_plate.0001.exr", "v002_plate.0002.exr", "notes.txt", ".hidden.0001.exr", "Thumbs.db")
    assert list(fetch_sequence(str(tmp_path)).files) == [1, 2]


def test_when_a_folder_holds_two_sequences_then_the_error_names_both(tmp_path):
    _touch(tmp_path, "bg.0001.exr", "fg.0001.exr")
    with pytest.raises(InputError, match=r"2 sequences \(bg\.#\.exr, fg\.#\.exr\).*as a pattern"):
        fetch_sequence(str(tmp_path))


def test_when_two_files_are_the_same_frame_then_the_error_names_both(tmp_path):
    _touch(tmp_path, "p.1.exr", "p.0001.exr")
    with pytest.raises(InputError, match=r"p\.0001\.exr and p\.1\.exr are both frame 1\."):
        fetch_sequence(str(tmp_path))


def test_when_frames_are_missing_inside_the_range_then_they_are_named(tmp_path):
    _touch(tmp_path, *(f"p.{frame:04d}.exr" for frame in (1001, 1002, 1005, 1008)))
    sequence = fetch_sequence(str(tmp_path / "p.%04d.exr"))
    assert list(sequence.select(1001, 1002)) == [1001, 1002]
    with pytest.raises(
        InputError, match=r"lacks frames 1003-1004, 1006-1007 of 1001-1008; it has frames 1001-1002, 1005, 1008"
    ):
        sequence.select(1001, 1008)
    with pytest.raises(InputError, match=r"lacks frame 1000 of 1000-1002"):
        sequence.select(1000, 1002)
    with pytest.raises(InputError, match="backwards"):
        sequence.select(1002, 1001)


def test_when_a_single_file_is_given_then_its_number_is_its_frame_or_one(tmp_path):
    _touch(tmp_path, "a.1042.exr", "still.png")
    assert list(fetch_sequence(str(tmp_path / "a.1042.exr")).files) == [1042]
    assert list(fetch_sequence(str(tmp_path / "still.png")).files) == [1]


def test_when_a_folder_holds_one_picture_without_a_number_then_it_is_frame_one(tmp_path):
    _touch(tmp_path, "plate.tif")
    assert _names(fetch_sequence(str(tmp_path))) == {1: "plate.tif"}


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("none.%04d.exr", "No file matches .*number of digits"),
        ("none.exr", "does not exist.*pattern with %04d or ####"),
        ("shot_%04d/p.%04d.exr", "in the file name and nowhere else"),
        ("p.%04d.%04d.exr", "one number"),
        ("p_%V.%04d.exr", "one view"),
        ("p.%04d.txt", r"must end in one of \.exr"),
    ],
)
def test_when_nothing_fits_a_pattern_then_the_error_says_what_to_give(tmp_path, pattern, said):
    with pytest.raises(InputError, match=said):
        fetch_sequence(str(tmp_path / pattern))


def test_when_a_folder_is_empty_or_holds_a_video_then_the_error_says_so(tmp_path):
    with pytest.raises(InputError, match="no numbered pictures"):
        fetch_sequence(str(tmp_path))
    _touch(tmp_path, "clip.mov")
    with pytest.raises(InputError, match=r"To use the video, give its path: .*clip\.mov"):
        fetch_sequence(str(tmp_path))


def test_when_a_frame_number_is_absurd_then_it_is_refused(tmp_path):
    _touch(tmp_path, "p.20260101.exr")
    with pytest.raises(InputError, match="would be frame 20260101"):
        fetch_sequence(str(tmp_path))


def test_when_a_video_is_given_then_its_pictures_start_at_frame_one(tmp_path):
    path = tmp_path / "clip.mp4"
    video = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 24, (64, 48))
    for level in range(5):
        video.write(np.full((48, 64, 3), level * 40, np.uint8))
    video.release()
    sequence = fetch_sequence(str(path))
    assert {frame: file.index for frame, file in sequence.files.items()} == {1: 0, 2: 1, 3: 2, 4: 3, 5: 4}
    assert {file.path for file in sequence.files.values()} == {path}


def test_when_many_runs_are_listed_then_only_the_first_five_are(tmp_path):
    assert format_frames([3]) == "frame 3"
    assert format_frames([-2, -1, 0, 5]) == "frames -2-0, 5"
    assert format_frames(range(0, 14, 2)) == "frames 0, 2, 4, 6, 8 and 2 more runs"
