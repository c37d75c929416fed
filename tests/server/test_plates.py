"""Plates: every kind of file by hand-made pixels, windows, layers, and files that are not what they say."""

import io
import struct

import numpy as np
import OpenEXR
import pytest

from xmem_protocol import InputError
from xmem_server.colour import encode_linear
from xmem_server.headers import DecodeLimits, Window, check_picture_size
from xmem_server.plates import PlateReader, fetch_header

GRADE = np.linspace(0, 2, 6 * 8, dtype=np.float32).reshape(6, 8)
LOSSLESS = ["NO", "RLE", "ZIPS", "ZIP", "PIZ", "PXR24"]
LOSSY = ["B44", "B44A", "DWAA", "DWAB"]


def _save_exr(path, channels, **attributes):
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage, **attributes}
    OpenEXR.File(header, dict(channels)).write(str(path))
    return path


def _rgb(dtype=np.float16, scale=(1.0, 0.5, 0.25)):
    return {name: (GRADE * factor).astype(dtype) for name, factor in zip("RGB", scale, strict=True)}


def _plate(path, colorspace="auto", index=0, suffix=None):
    reader = PlateReader()
    try:
        return reader.fetch_plate(path, suffix or path.suffix, index, colorspace)
    finally:
        reader.close()


def _forge_window(path, window):
    """Overwrite the data window in an EXR's header."""
    data = bytearray(path.read_bytes())
    at = data.index(b"dataWindow\0box2i\0") + len(b"dataWindow\0box2i\0") + 4
    data[at : at + 16] = struct.pack("<4i", *window)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("compression", LOSSLESS)
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_when_a_lossless_exr_is_read_then_every_value_is_encoded_exactly(tmp_path, compression, dtype):
    stored = {name: pixels.astype(np.float16).astype(dtype) for name, pixels in _rgb().items()}  # PXR24 keeps 24 bits
    path = _save_exr(tmp_path / "p.exr", stored, compression=getattr(OpenEXR, f"{compression}_COMPRESSION"))
    pixels = _plate(path)
    assert pixels.dtype == np.float32
    assert pixels.shape == (6, 8, 3)
    for at, name in enumerate("RGB"):
        np.testing.assert_array_equal(pixels[..., at], encode_linear(stored[name]))


@pytest.mark.parametrize("compression", LOSSY)
def test_when_a_lossy_exr_is_read_then_it_is_close(tmp_path, compression):
    stored = _rgb()
    path = _save_exr(tmp_path / "p.exr", stored, compression=getattr(OpenEXR, f"{compression}_COMPRESSION"))
    np.testing.assert_allclose(_plate(path)[..., 0], encode_linear(stored["R"]), atol=0.1)


def test_when_an_exr_is_tiled_then_it_is_read(tmp_path):
    tiles = OpenEXR.TileDescription()
    tiles.xSize = tiles.ySize = 4
    path = _save_exr(tmp_path / "p.exr", _rgb(), type=OpenEXR.tiledimage, tiles=tiles)
    np.testing.assert_array_equal(_plate(path)[..., 2], encode_linear(_rgb()["B"]))


def test_when_alpha_is_in_the_plate_then_it_is_not_looked_at(tmp_path):
    path = _save_exr(tmp_path / "p.exr", {**_rgb(), "A": np.zeros_like(GRADE)})
    np.testing.assert_array_equal(_plate(path)[..., 1], encode_linear(_rgb()["G"]))


def test_when_the_data_window_has_overscan_then_the_display_window_is_cut_out(tmp_path):
    whole = np.arange(48 * 80, dtype=np.float32).reshape(48, 80) / 4096
    path = _save_exr(
        tmp_path / "p.exr",
        dict.fromkeys("RGB", whole),
        dataWindow=((-64, -32), (15, 15)),
        displayWindow=((0, 0), (9, 7)),
    )
    header = fetch_header(path, ".exr")
    assert (header.width, header.height) == (10, 8)
    assert header.data_window == Window(-64, -32, 15, 15)
    assert header.display_window == Window(0, 0, 9, 7)
    np.testing.assert_array_equal(_plate(path, "display")[..., 0], whole[32:40, 64:74])


def test_when_the_data_window_is_smaller_then_the_rest_is_black(tmp_path):
    path = _save_exr(
        tmp_path / "p.exr",
        dict.fromkeys("RGB", np.ones((2, 3), np.float32)),
        dataWindow=((12, 21), (14, 22)),
        displayWindow=((10, 20), (15, 24)),
    )
    wanted = np.zeros((5, 6), np.float32)
    wanted[1:3, 2:5] = 1
    np.testing.assert_array_equal(_plate(path, "display")[..., 0], wanted)


def test_when_the_windows_do_not_meet_then_the_plate_is_black(tmp_path):
    path = _save_exr(
        tmp_path / "p.exr", dict.fromkeys("RGB", np.ones((2, 2), np.float32)),
        dataWindow=((100, 100), (101, 101)), displayWindow=((0, 0), (3, 3)),
    )  # fmt: skip
    assert not _plate(path).any()


def test_when_pixels_are_nan_or_infinite_then_they_become_black_or_bright(tmp_path):
    pixels = np.full((2, 2), 0.5, np.float16)
    pixels[0] = [np.nan, np.inf]
    plate = _plate(_save_exr(tmp_path / "p.exr", dict.fromkeys("RGB", pixels)))
    assert plate[0, 0].tolist() == [0, 0, 0]
    assert (plate[0, 1] > 0.999).all()
    assert (plate <= 1).all()


@pytest.mark.parametrize(
    ("channels", "chosen"),
    [
        (["Y"], "YYY"),
        (["R"], "RRR"),
        (["A", "Y"], "YYY"),
        (["R", "G"], "RRR"),
        (["beauty.R", "beauty.G", "beauty.B"], ["beauty.R", "beauty.G", "beauty.B"]),
        (["albedo.R", "albedo.G", "albedo.B", "rgba.R", "rgba.G", "rgba.B"], ["rgba.R", "rgba.G", "rgba.B"]),
        (["albedo.R", "albedo.G", "albedo.B", "R", "G", "B"], "RGB"),
        (["Y", "light.R", "light.G", "light.B"], "YYY"),
        (["diffuse.red", "diffuse.green", "diffuse.blue", "z.R"], ["diffuse.red", "diffuse.green", "diffuse.blue"]),
    ],
)
def test_when_channels_are_unusual_then_the_main_colour_is_chosen(tmp_path, channels, chosen):
    stored = {name: np.full((2, 2), (at + 1) / 16, np.float32) for at, name in enumerate(channels)}
    pixels = _plate(_save_exr(tmp_path / "p.exr", stored), "display")
    assert pixels[0, 0].tolist() == [float(stored[name][0, 0]) for name in chosen]


def test_when_no_channel_is_colour_then_the_error_lists_what_there_is(tmp_path):
    path = _save_exr(tmp_path / "p.exr", {"A": GRADE, "depth.Z": GRADE})
    with pytest.raises(InputError, match=r"p\.exr has no colour: its channels are A, depth\.Z\. Render R, G and B"):
        _plate(path)


def test_when_an_exr_has_parts_then_the_first_with_colour_is_read(tmp_path):
    path = tmp_path / "p.exr"
    depth = OpenEXR.Part({"name": "depth", "type": OpenEXR.scanlineimage}, {"Z": GRADE})
    beauty = OpenEXR.Part({"name": "beauty", "type": OpenEXR.scanlineimage}, _rgb(np.float32))
    OpenEXR.File([depth, beauty]).write(str(path))
    np.testing.assert_array_equal(_plate(path)[..., 0], encode_linear(GRADE))
    assert set(fetch_header(path, ".exr").channels) == {"Z", "R", "G", "B"}


@pytest.mark.parametrize("share", [0.999, 0.7, 0.5, 0.2, 0.01])
def test_when_an_exr_is_cut_short_then_it_is_refused(tmp_path, share):
    noise = np.random.default_rng(1).random((64, 64)).astype(np.float16)
    path = _save_exr(tmp_path / "p.exr", dict.fromkeys("RGB", noise))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(InputError, match=r"p\.exr is a damaged or unfinished EXR.*again"):
        _plate(path)


@pytest.mark.parametrize("seed", range(20))
def test_when_bytes_of_an_exr_are_wrong_then_it_is_read_or_refused_never_worse(tmp_path, seed):
    random = np.random.default_rng(seed)
    path = _save_exr(tmp_path / "p.exr", _rgb())
    data = np.frombuffer(path.read_bytes(), np.uint8).copy()
    data[random.integers(8, len(data), 6)] = random.integers(0, 256, 6)
    path.write_bytes(data.tobytes())
    try:
        pixels = _plate(path)
    except InputError:
        return
    assert pixels.dtype == np.float32


def test_when_a_header_announces_a_gigantic_picture_then_nothing_is_allocated(tmp_path):
    path = _forge_window(_save_exr(tmp_path / "p.exr", _rgb()), (0, 0, 199_999, 199_999))
    for read in (_plate, lambda path: fetch_header(path, ".exr")):
        with pytest.raises(InputError, match="200000x200000"):
            read(path)


@pytest.mark.parametrize(
    ("window", "said"), [((2_000_000, 0, 2_000_007, 5), "from the origin"), ((0, 0, -5, -5), "damaged|no pixels")]
)
def test_when_a_window_is_absurd_then_it_is_refused(tmp_path, window, said):
    with pytest.raises(InputError, match=said):
        fetch_header(_forge_window(_save_exr(tmp_path / "p.exr", _rgb()), window), ".exr")


def test_when_channels_would_take_too_much_memory_then_the_file_is_refused(tmp_path):
    path = _save_exr(tmp_path / "p.exr", {f"layer{at}.R": GRADE for at in range(40)})
    with pytest.raises(InputError, match="with all its channels"):
        fetch_header(path, ".exr", DecodeLimits(memory_bytes=2 * 40 * 48 * 4 - 1))
    assert fetch_header(path, ".exr", DecodeLimits(memory_bytes=2 * 40 * 48 * 4)).width == 8


def test_when_an_exr_is_deep_then_the_error_says_to_flatten_it(tmp_path):
    samples = np.empty((2, 2), dtype=object)
    for at in np.ndindex(2, 2):
        samples[at] = np.ones(3, np.float32)
    OpenEXR.File(
        {"type": OpenEXR.deepscanline, "compression": OpenEXR.ZIPS_COMPRESSION}, {"R": samples}
    ).write(str(tmp_path / "p.exr"))  # fmt: skip
    with pytest.raises(InputError, match=r"p\.exr is a deep EXR.*DeepToImage"):
        fetch_header(tmp_path / "p.exr", ".exr")


def test_when_channels_are_subsampled_then_the_error_says_so(tmp_path):
    path = _save_exr(tmp_path / "p.exr", {"Y": GRADE})
    data = bytearray(path.read_bytes())
    at = data.index(b"Y\0" + struct.pack("<i", 2)) + 2 + 8  # name, pixel type, flags, then the samplings
    data[at : at + 8] = struct.pack("<ii", 2, 2)
    path.write_bytes(data)
    with pytest.raises(InputError, match="subsampled"):
        fetch_header(path, ".exr")


def test_when_pixels_are_not_square_then_the_header_says_so(tmp_path):
    path = _save_exr(tmp_path / "p.exr", _rgb(), pixelAspectRatio=2.0)
    assert fetch_header(path, ".exr").pixel_aspect == 2.0


def test_when_a_plate_has_another_size_than_the_shot_then_the_error_says_both():
    check_picture_size("Frame 1001", (2048, 1152), (2048, 1152), "Render it again.")
    with pytest.raises(InputError, match=r"Frame 1042 is 1920x1080 but the shot is 2048x1152\. Render it"):
        check_picture_size("Frame 1042", (1920, 1080), (2048, 1152), "Render it again.")


def test_when_an_exr_is_written_by_another_stream_then_it_is_the_same(tmp_path):
    stream = io.BytesIO()
    OpenEXR.File({}, _rgb()).write(stream)
    (tmp_path / "p.exr").write_bytes(stream.getvalue())
    np.testing.assert_array_equal(_plate(tmp_path / "p.exr")[..., 0], encode_linear(_rgb()["R"]))
