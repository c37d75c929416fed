"""Mattes as files: bit-exact, on the right windows, readable by a simple reader, whole or absent."""

import hashlib
import struct
import zlib

import cv2
import numpy as np
import OpenEXR
import pytest

from xmem_protocol import STORAGE_FULL, InputError, ServerError
from xmem_server import mattes
from xmem_server.headers import Header, Window
from xmem_server.keys import fetch_alpha
from xmem_server.mattes import save_layered, save_matte
from xmem_server.plates import fetch_header

ALPHA = np.random.default_rng(5).random((5, 7)).astype(np.float32)


DISPLAY = Window(0, 0, 6, 4)


def _header(data=None, display=DISPLAY, aspect=1.0):
    return Header(display.width, display.height, aspect, data or display, display, ("R", "G", "B"), "float")


def _channels(path):
    part = OpenEXR.File(str(path), separate_channels=True).parts[0]
    return {name: channel.pixels for name, channel in part.channels.items()}, part.header


def test_when_a_half_matte_is_saved_then_it_is_rounded_once_and_in_every_channel(tmp_path):
    path = tmp_path / "m.exr"
    written = save_matte(path, ALPHA, _header(aspect=2.0), "exr-half")
    channels, header = _channels(path)
    assert sorted(channels) == ["A", "B", "G", "R"]
    for pixels in channels.values():
        assert pixels.dtype == np.float16
        np.testing.assert_array_equal(pixels, ALPHA.astype(np.float16))
    assert header["compression"] == OpenEXR.ZIP_COMPRESSION
    assert header["type"] == OpenEXR.scanlineimage
    assert header["pixelAspectRatio"] == 2.0
    assert written.nbytes == path.stat().st_size
    assert written.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_when_a_half_key_is_saved_as_a_matte_then_every_bit_is_the_artists(tmp_path):
    every = np.arange(0x3C01, dtype=np.uint16).view(np.float16)  # every half from 0 to 1, denormals included
    stored = np.resize(every, (123, 125))
    OpenEXR.File({}, {"A": stored}).write(str(tmp_path / "key.exr"))
    key = fetch_alpha(tmp_path / "key.exr", ".exr", "channel:auto")
    save_matte(tmp_path / "matte.exr", key, fetch_header(tmp_path / "key.exr", ".exr"), "exr-half")
    np.testing.assert_array_equal(_channels(tmp_path / "matte.exr")[0]["A"].view(np.uint16), stored.view(np.uint16))


def test_when_float_is_asked_for_then_the_matte_is_bit_for_bit(tmp_path):
    save_matte(tmp_path / "m.exr", ALPHA, _header(), "exr-float")
    channels, _ = _channels(tmp_path / "m.exr")
    assert channels["A"].dtype == np.float32
    np.testing.assert_array_equal(channels["A"], ALPHA)


def test_when_png_is_asked_for_then_levels_are_the_nearest(tmp_path):
    alpha = np.array([[0, 0.25, 1, 1 / 65535, 0.49 / 65535]], np.float32)
    save_matte(tmp_path / "m.png", alpha, _header(display=Window(0, 0, 4, 0)), "png16")
    stored = cv2.imread(str(tmp_path / "m.png"), cv2.IMREAD_UNCHANGED)
    assert stored.dtype == np.uint16
    assert stored.tolist() == [[0, 16384, 65535, 1, 0]]


@pytest.mark.parametrize(
    ("data", "display"),
    [
        (Window(0, 0, 6, 4), Window(0, 0, 6, 4)),
        (Window(1, 1, 3, 3), Window(0, 0, 6, 4)),  # smaller
        (Window(-64, -32, 70, 36), Window(0, 0, 6, 4)),  # overscan, of which a matte would know nothing
        (Window(12, 22, 20, 30), Window(10, 20, 16, 24)),  # across the edge
    ],
)
def test_when_the_plate_has_windows_then_the_matte_covers_its_display_window_and_nothing_else(tmp_path, data, display):
    path = tmp_path / "m.exr"
    save_matte(path, ALPHA, _header(data, display), "exr-float")
    back = fetch_header(path, ".exr")
    assert back.display_window == display
    assert back.data_window == display
    np.testing.assert_array_equal(_channels(path)[0]["A"], ALPHA)


def test_when_objects_are_saved_together_then_each_has_its_layer_and_nothing_else_is_there(tmp_path):
    path = tmp_path / "m.exr"
    save_layered(path, {1: ALPHA, 12: 1 - ALPHA}, _header(), "exr-half")
    channels, _ = _channels(path)
    assert sorted(channels) == ["object_1.A", "object_12.A"]
    np.testing.assert_array_equal(channels["object_12.A"], (1 - ALPHA).astype(np.float16))


def test_when_layers_are_asked_of_a_png_then_the_error_says_what_to_choose(tmp_path):
    with pytest.raises(InputError, match="Choose exr-half or exr-float"):
        save_layered(tmp_path / "m.png", {1: ALPHA}, _header(), "png16")
    with pytest.raises(InputError, match="no object"):
        save_layered(tmp_path / "m.exr", {}, _header(), "exr-half")


def test_when_the_output_is_unknown_or_the_size_is_wrong_then_it_is_refused(tmp_path):
    with pytest.raises(InputError, match="Output 'tiff' is not known"):
        save_matte(tmp_path / "m.exr", ALPHA, _header(), "tiff")
    with pytest.raises(InputError, match="is 7x5 but the plate is 2x2"):
        save_matte(tmp_path / "m.exr", ALPHA, _header(display=Window(0, 0, 1, 1)), "exr-half")


def test_when_a_matte_is_saved_again_then_it_is_replaced_and_nothing_is_left_beside_it(tmp_path):
    for alpha in (ALPHA, np.zeros_like(ALPHA)):
        save_matte(tmp_path / "m.exr", alpha, _header(), "exr-half")
    assert not _channels(tmp_path / "m.exr")[0]["A"].any()
    assert [path.name for path in tmp_path.iterdir()] == ["m.exr"]


def test_when_the_same_matte_is_saved_twice_then_the_bytes_are_the_same(tmp_path):
    first = save_matte(tmp_path / "a.exr", ALPHA, _header(), "exr-half")
    assert save_matte(tmp_path / "b.exr", ALPHA, _header(), "exr-half") == first


def test_when_the_folder_cannot_be_written_then_the_error_names_it(tmp_path):
    with pytest.raises(InputError, match=r"none/m\.exr cannot be written: No such file"):
        save_matte(tmp_path / "none" / "m.exr", ALPHA, _header(), "exr-half")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match="cannot be written"):
        save_matte(tmp_path / "file" / "m.exr", ALPHA, _header(), "exr-half")


def test_when_the_disk_is_full_then_the_old_file_stays_and_nothing_is_left(tmp_path, monkeypatch):
    save_matte(tmp_path / "m.exr", ALPHA, _header(), "exr-half")
    before = (tmp_path / "m.exr").read_bytes()

    def fail(file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(mattes, "sync_file", fail)
    with pytest.raises(ServerError, match="is full") as caught:
        save_matte(tmp_path / "m.exr", 1 - ALPHA, _header(), "exr-half")
    assert caught.value.code == STORAGE_FULL
    assert (tmp_path / "m.exr").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["m.exr"]


def test_when_a_reader_knows_only_scanlines_and_zip_then_it_can_read_the_matte(tmp_path):
    """A reader of its own, from the file format's description: what other programs need to agree on."""
    path = tmp_path / "m.exr"
    save_matte(path, ALPHA, _header(), "exr-half")
    data = path.read_bytes()
    assert struct.unpack("<II", data[:8]) == (20000630, 2)  # version 2, no tiles, parts or deep pixels
    at = 8
    names = []
    while data[at]:
        name_end = data.index(b"\0", at)
        kind_end = data.index(b"\0", name_end + 1)
        (size,) = struct.unpack_from("<I", data, kind_end + 1)
        names.append(data[at:name_end].decode())
        at = kind_end + 5 + size
    assert {"channels", "compression", "dataWindow", "displayWindow", "lineOrder", "pixelAspectRatio"} <= set(names)
    (chunk,) = struct.unpack_from("<Q", data, at + 1)  # one block of up to 16 lines
    first_line, size = struct.unpack_from("<iI", data, chunk)
    block = data[chunk + 8 : chunk + 8 + size]
    whole = 5 * 4 * 7 * 2
    if size < whole:
        block = np.frombuffer(zlib.decompress(block), np.uint8).astype(np.int64)
        block = ((np.cumsum(block) - 128 * np.arange(whole)) % 256).astype(np.uint8)
        block = block.reshape(2, -1).T.tobytes()  # the halves hold the even and the odd bytes
    lines = np.frombuffer(block, np.float16).reshape(5, 4, 7)
    assert first_line == 0
    for channel in range(4):
        np.testing.assert_array_equal(lines[:, channel], ALPHA.astype(np.float16))
