"""PNG, JPEG, TIFF and video plates by hand-made pixels, and files that are not what their name says."""

import struct
import zlib

import cv2
import numpy as np
import OpenEXR
import pytest
from PIL import Image

from xmem_protocol import InputError
from xmem_server.colour import encode_linear
from xmem_server.headers import Header, Window
from xmem_server.plates import PlateReader, fetch_header

GRADE = np.linspace(0, 2, 6 * 8, dtype=np.float32).reshape(6, 8)


def _save_exr(path):
    OpenEXR.File({}, {name: GRADE.astype(np.float16) for name in "RGB"}).write(str(path))
    return path


def _plate(path, colorspace="auto", index=0, suffix=None):
    reader = PlateReader()
    try:
        return reader.fetch_plate(path, suffix or path.suffix, index, colorspace)
    finally:
        reader.close()


def _save_picture(path, pixels):
    assert cv2.imwrite(str(path), pixels)
    return path


@pytest.mark.parametrize("suffix", [".png", ".tif", ".tiff"])
@pytest.mark.parametrize(("dtype", "top"), [(np.uint8, 255), (np.uint16, 65535)])
def test_when_a_picture_has_whole_numbers_then_they_are_divided_by_their_largest(tmp_path, suffix, dtype, top):
    rgb = np.random.default_rng(2).integers(0, top, (5, 7, 3), dtype, endpoint=True)
    path = _save_picture(tmp_path / f"p{suffix}", rgb[..., ::-1])
    np.testing.assert_array_equal(_plate(path), rgb.astype(np.float32) / np.float32(top))
    assert fetch_header(path, suffix) == Header(
        7, 5, 1.0, Window(0, 0, 6, 4), Window(0, 0, 6, 4), ("R", "G", "B"), "integer"
    )  # fmt: skip


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg"])
def test_when_a_picture_is_grey_then_all_three_channels_are_it(tmp_path, suffix):
    path = _save_picture(tmp_path / f"p{suffix}", np.full((4, 5), 51, np.uint8))
    np.testing.assert_array_equal(_plate(path), np.full((4, 5, 3), 0.2, np.float32))
    assert fetch_header(path, suffix).channels == ("Y",)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_when_a_picture_has_alpha_then_colour_is_as_stored(tmp_path, suffix, dtype):
    top = np.iinfo(dtype).max
    rgba = np.zeros((3, 4, 4), dtype)
    rgba[..., 0], rgba[..., 3] = top, top // 5  # cv2 order: blue
    path = _save_picture(tmp_path / f"p{suffix}", rgba)
    assert _plate(path)[0, 0].tolist() == [0, 0, 1]
    assert fetch_header(path, suffix).channels == ("R", "G", "B", "A")


def test_when_a_grey_png_has_alpha_then_it_is_read(tmp_path):
    Image.fromarray(np.full((4, 4, 2), [51, 9], np.uint8), "LA").save(tmp_path / "p.png")
    np.testing.assert_array_equal(_plate(tmp_path / "p.png"), np.full((4, 4, 3), 0.2, np.float32))
    assert fetch_header(tmp_path / "p.png", ".png").channels == ("Y", "A")


def test_when_a_png_has_a_palette_then_its_colours_are_read(tmp_path):
    image = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.save(tmp_path / "p.png")
    assert _plate(tmp_path / "p.png").tolist() == [[[1, 0, 0], [0, 0, 1]]]


def test_when_a_tiff_is_float_then_it_is_linear(tmp_path):
    path = _save_picture(tmp_path / "p.tif", np.stack([GRADE] * 3, axis=-1))
    np.testing.assert_array_equal(_plate(path)[..., 0], encode_linear(GRADE))
    assert fetch_header(path, ".tif").kind == "float"


def test_when_a_jpeg_is_read_then_it_is_close_and_right_way_round(tmp_path):
    path = _save_picture(tmp_path / "p.jpeg", np.full((16, 16, 3), (0, 0, 250), np.uint8))
    np.testing.assert_allclose(_plate(path)[8, 8], [250 / 255, 0, 0], atol=0.02)
    assert (fetch_header(path, ".jpeg").width, fetch_header(path, ".jpeg").channels) == (16, ("R", "G", "B"))


@pytest.mark.parametrize(("mode", "name"), [("CMYK", "p.jpg"), ("CMYK", "p.tif"), ("LAB", "p.tif")])
def test_when_a_picture_is_not_rgb_then_the_error_says_to_convert_it(tmp_path, mode, name):
    Image.new(mode, (8, 8)).save(tmp_path / name)
    with pytest.raises(InputError, match="Convert it to RGB"):
        _plate(tmp_path / name)


def test_when_a_tiff_has_one_bit_then_the_error_says_what_can_be_read(tmp_path):
    Image.new("1", (8, 8)).save(tmp_path / "p.tif")
    with pytest.raises(InputError, match="1 bits a channel; 8 or 16 bit"):
        _plate(tmp_path / "p.tif")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
@pytest.mark.parametrize("share", [0.98, 0.5, 0.02])
def test_when_a_picture_is_cut_short_then_it_is_refused(tmp_path, suffix, share):
    noise = np.random.default_rng(1).integers(0, 255, (64, 64, 3), np.uint8)
    path = _save_picture(tmp_path / f"p{suffix}", noise)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(InputError, match=r"p\.\w+ is a damaged \w+: it cannot be decoded"):
        _plate(path)


def test_when_a_png_announces_a_gigantic_picture_then_it_is_refused_by_its_header(tmp_path):
    body = struct.pack(">IIBBBBB", 200_000, 200_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + body + struct.pack(">I", zlib.crc32(b"IHDR" + body))
    (tmp_path / "p.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk)
    with pytest.raises(InputError, match="200000x200000"):
        fetch_header(tmp_path / "p.png", ".png")


@pytest.mark.parametrize(
    ("found", "named", "said"),
    [
        (".png", ".exr", "is a PNG named .exr; rename it to .png or export an EXR"),
        (".jpg", ".png", "is a JPEG named .png; rename it to .jpg or export a PNG"),
        (".exr", ".png", "is an EXR named .png; rename it to .exr or export a PNG"),
        (".exr", ".mp4", "is an EXR named .mp4"),
    ],
)
def test_when_a_file_is_another_kind_than_its_name_then_the_error_says_both(tmp_path, found, named, said):
    real = tmp_path / f"real{found}"
    if found == ".exr":
        _save_exr(real)
    else:
        _save_picture(real, np.zeros((4, 4, 3), np.uint8))
    path = real.rename(tmp_path / f"plate{named}")
    with pytest.raises(InputError, match=said):
        fetch_header(path, named)


@pytest.mark.parametrize(
    ("data", "suffix", "said"),
    [
        (b"", ".exr", r"is empty \(0 bytes\)"),
        (b"hello, this is text", ".exr", "is not an EXR file, or it is damaged at its start"),
        (b"#EXTM3U\nhttp://somewhere/a.ts", ".mp4", "is not a video file"),
        (b"anything", ".psd", "is a .psd file, which cannot be read"),
    ],
)
def test_when_a_file_is_no_picture_then_the_error_says_so(tmp_path, data, suffix, said):
    path = tmp_path / f"p{suffix}"
    path.write_bytes(data)
    with pytest.raises(InputError, match=said):
        fetch_header(path, suffix)


def test_when_a_file_is_missing_then_the_error_names_it(tmp_path):
    with pytest.raises(InputError, match=r"p\.exr does not exist"):
        fetch_header(tmp_path / "p.exr", ".exr")


def test_when_a_stored_file_is_damaged_then_its_hash_is_not_shown(tmp_path):
    path = tmp_path / ("ab" * 32)
    path.write_bytes(b"v/1\x01rubbish")
    with pytest.raises(InputError, match=r"^the stored file is a damaged or unfinished EXR"):
        fetch_header(path, ".exr")


def test_when_a_stored_file_has_no_suffix_then_the_given_one_counts(tmp_path):
    path = _save_exr(tmp_path / ("cd" * 32))
    assert _plate(path, suffix=".EXR").shape == (6, 8, 3)


@pytest.fixture
def video_path(tmp_path):
    path = tmp_path / "v.mp4"
    video = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 24, (64, 48))
    for level in range(12):
        video.write(np.full((48, 64, 3), (0, 0, level * 20), np.uint8))
    video.release()
    return path


def test_when_a_video_is_read_then_each_index_gives_its_picture(video_path):
    header = fetch_header(video_path, ".mp4")
    assert (header.width, header.height, header.pictures, header.kind) == (64, 48, 12, "video")
    reader = PlateReader()
    for index in (0, 1, 2, 7, 3, 11, 0):  # in order, ahead, back, last, first
        pixels = reader.fetch_plate(video_path, ".mp4", index, "auto")
        np.testing.assert_allclose(pixels[24, 32], [index * 20 / 255, 0, 0], atol=0.03)
    reader.close()


def test_when_a_picture_is_past_the_end_then_the_error_says_how_many_there_are(video_path):
    with pytest.raises(InputError, match="after 12 pictures; number 13 was wanted"):
        _plate(video_path, index=12)


def test_when_a_still_is_asked_for_its_second_picture_then_it_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds one picture"):
        _plate(_save_exr(tmp_path / "p.exr"), index=1)


def test_when_a_video_is_named_as_a_picture_then_the_error_says_so(video_path):
    path = video_path.rename(video_path.with_name("plate.png"))
    with pytest.raises(InputError, match=r"is a video named \.png; rename it to \.mov or \.mp4 or export a PNG"):
        fetch_header(path, ".png")


def test_when_a_video_is_damaged_then_it_is_refused(video_path):
    video_path.write_bytes(video_path.read_bytes()[:300])
    with pytest.raises(InputError, match="damaged video"):
        fetch_header(video_path, ".mp4")
