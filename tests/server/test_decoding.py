"""The decode process: what it answers, what it refuses, and that nothing takes its parent down."""

import os
import signal
import struct
import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path

import cv2
import numpy as np
import OpenEXR
import pytest
import torch

from xmem_protocol import InputError
from xmem_server import keys, plates
from xmem_server.decoding import Decoder
from xmem_server.headers import DecodeLimits, Window

GREY = np.random.default_rng(9).random((40, 60)).astype(np.float16)


@pytest.fixture
def decoder():
    with Decoder() as started:
        yield started


@pytest.fixture
def plate_path(tmp_path):
    path = tmp_path / "plate.1001.exr"
    OpenEXR.File({"pixelAspectRatio": 2.0}, {"R": GREY, "G": GREY / 2, "B": GREY / 4, "A": GREY}).write(str(path))
    return str(path)


def _save_big_png(path, side):
    """Write a black grey PNG of side x side that is small on disk."""
    packer = zlib.compressobj(1)
    row = bytes(side + 1)
    body = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    with path.open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        for kind, data in (
            (b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)),
            (b"IDAT", body),
            (b"IEND", b""),
        ):
            file.write(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)))
    return str(path)


def test_when_a_header_is_asked_for_then_it_equals_the_one_read_here(decoder, plate_path):
    header = decoder.fetch_header(plate_path, ".exr")
    assert header == plates.fetch_header(Path(plate_path), ".exr")
    assert (header.width, header.height, header.pixel_aspect) == (60, 40, 2.0)
    assert header.data_window == Window(0, 0, 59, 39)


def test_when_a_plate_is_asked_for_then_its_pixels_equal_those_read_here(decoder, plate_path):
    pixels = decoder.fetch_plate(plate_path, ".exr", 0, "auto")
    assert pixels.dtype == np.float32
    np.testing.assert_array_equal(pixels, plates.PlateReader().fetch_plate(Path(plate_path), ".exr", 0, "auto"))


def test_when_a_size_is_given_then_the_plate_is_averaged_down_to_it(decoder, plate_path):
    whole = decoder.fetch_plate(plate_path, ".exr", 0, "auto")
    half = decoder.fetch_plate(plate_path, ".exr", 0, "auto", (20, 30))
    np.testing.assert_allclose(half, whole.reshape(20, 2, 30, 2, 3).mean(axis=(1, 3)), atol=1e-6)


def test_when_an_alpha_is_asked_for_then_every_bit_comes_through(decoder, plate_path):
    alpha = decoder.fetch_alpha(plate_path, ".exr", "channel:auto")
    np.testing.assert_array_equal(alpha, GREY.astype(np.float32))
    np.testing.assert_array_equal(alpha, keys.fetch_alpha(Path(plate_path), ".exr", "channel:A"))


def test_when_mattes_are_saved_then_they_read_back(decoder, plate_path, tmp_path):
    header = decoder.fetch_header(plate_path, ".exr")
    alpha = GREY.astype(np.float32)
    written = decoder.save_matte(str(tmp_path / "m.exr"), alpha, header, "exr-half")
    assert written.nbytes == (tmp_path / "m.exr").stat().st_size
    np.testing.assert_array_equal(decoder.fetch_alpha(str(tmp_path / "m.exr"), ".exr", "channel:A"), alpha)
    decoder.save_layered(str(tmp_path / "l.exr"), {4: alpha, 2: 1 - alpha}, header, "exr-float")
    np.testing.assert_array_equal(decoder.fetch_alpha(str(tmp_path / "l.exr"), ".exr", "channel:object_2.A"), 1 - alpha)
    np.testing.assert_array_equal(decoder.fetch_alpha(str(tmp_path / "l.exr"), ".exr", "channel:object_4.A"), alpha)


def test_when_a_matte_comes_rounded_then_its_file_is_the_one_of_the_same_matte_unrounded(decoder, plate_path, tmp_path):
    header = decoder.fetch_header(plate_path, ".exr")
    alpha = np.random.default_rng(3).random((40, 60), np.float32)
    alpha[:10] *= 1e-6  # numbers that half precision holds with few digits
    rounded = torch.from_numpy(alpha).half().numpy()
    one = decoder.save_matte(str(tmp_path / "one.exr"), alpha, header, "exr-half")
    assert decoder.save_matte(str(tmp_path / "other.exr"), rounded, header, "exr-half") == one
    layers = decoder.save_layered(str(tmp_path / "l.exr"), {1: alpha, 2: alpha}, header, "exr-half")
    assert decoder.save_layered(str(tmp_path / "m.exr"), {1: rounded, 2: rounded}, header, "exr-half") == layers
    assert decoder.save_layered(str(tmp_path / "n.exr"), {1: rounded, 2: alpha}, header, "exr-half") == layers
    assert decoder.save_matte(str(tmp_path / "d.exr"), alpha.astype(np.float64), header, "exr-half") == one


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no niceness")
def test_when_a_decoder_is_to_stand_back_then_its_process_does(plate_path):
    own = os.getpriority(os.PRIO_PROCESS, 0)
    with Decoder(DecodeLimits(niceness=5)) as decoder:
        decoder.fetch_header(plate_path, ".exr")
        assert os.getpriority(os.PRIO_PROCESS, decoder.process_id) == max(own, 5)


def test_when_a_matte_has_the_wrong_size_or_no_folder_then_the_error_is_the_artists(decoder, plate_path, tmp_path):
    header = decoder.fetch_header(plate_path, ".exr")
    with pytest.raises(InputError, match="is 3x2 but the plate is 60x40"):
        decoder.save_matte(str(tmp_path / "m.exr"), np.zeros((2, 3), np.float32), header, "exr-half")
    with pytest.raises(InputError, match="cannot be written"):
        decoder.save_matte(str(tmp_path / "no" / "m.exr"), GREY.astype(np.float32), header, "exr-half")
    with pytest.raises(InputError, match="no object"):
        decoder.save_layered(str(tmp_path / "m.exr"), {}, header, "exr-half")


def test_when_files_are_bad_then_each_gives_one_line_and_the_child_lives(decoder, plate_path, tmp_path):
    decoder.fetch_header(plate_path, ".exr")
    child = decoder.process_id
    data = Path(plate_path).read_bytes()
    (tmp_path / "cut.exr").write_bytes(data[: len(data) // 2])
    (tmp_path / "odd.exr").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    OpenEXR.File({}, {"A": np.full((2, 2), np.nan, np.float32)}).write(str(tmp_path / "nan.exr"))
    calls = {
        "damaged or unfinished": lambda: decoder.fetch_plate(str(tmp_path / "cut.exr"), ".exr", 0, "auto"),
        "is a PNG named .exr": lambda: decoder.fetch_header(str(tmp_path / "odd.exr"), ".exr"),
        "NaN or infinite": lambda: decoder.fetch_alpha(str(tmp_path / "nan.exr"), ".exr", "channel:A"),
        "does not exist": lambda: decoder.fetch_header(str(tmp_path / "none.exr"), ".exr"),
        "'Foo' is not in": lambda: decoder.fetch_plate(plate_path, ".exr", 0, "Foo"),
        "is not channel:NAME": lambda: decoder.fetch_alpha(plate_path, ".exr", "?"),
    }
    for said, call in calls.items():
        with pytest.raises(InputError, match=said) as caught:
            call()
        assert "\n" not in str(caught.value)
    assert decoder.process_id == child
    assert decoder.fetch_header(plate_path, ".exr").width == 60


def test_when_a_library_prints_a_warning_then_the_answers_stay_readable(decoder, plate_path, tmp_path):
    data = Path(plate_path).read_bytes()
    (tmp_path / "cut.exr").write_bytes(data[:-40])
    for _ in range(3):  # OpenEXR prints about this file on standard output
        with pytest.raises(InputError, match="unfinished"):
            decoder.fetch_plate(str(tmp_path / "cut.exr"), ".exr", 0, "auto")
        assert decoder.fetch_alpha(plate_path, ".exr", "channel:A").shape == (40, 60)


def test_when_a_picture_is_too_large_then_it_is_refused_by_its_header(decoder, tmp_path):
    path = _save_big_png(tmp_path / "big.png", 20_000)
    with pytest.raises(InputError, match="20000x20000 pixels"):
        decoder.fetch_plate(path, ".png", 0, "auto")


def test_when_decoding_needs_more_than_the_memory_limit_then_it_is_refused_and_the_next_call_works(
    tmp_path, plate_path
):
    path = _save_big_png(tmp_path / "big.png", 16_000)  # 256 MB decoded, 3 GB as float RGB
    limits = DecodeLimits(memory_bytes=1024**3, max_pixels=1 << 40)
    with Decoder(limits) as decoder:
        with pytest.raises(InputError, match=r"big\.png could not be decoded within the memory limit of 1\.0 GiB"):
            decoder.fetch_plate(path, ".png", 0, "auto")
        assert decoder.fetch_header(plate_path, ".exr").width == 60


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_when_the_child_runs_then_its_address_space_is_limited(plate_path):
    with Decoder(DecodeLimits(memory_bytes=3 * 1024**3)) as decoder:
        decoder.fetch_header(plate_path, ".exr")
        lines = Path(f"/proc/{decoder.process_id}/limits").read_text().splitlines()
        line = next(line for line in lines if line.startswith("Max address space"))
        assert line.split()[3:5] == [str(3 * 1024**3)] * 2


def test_when_the_child_is_killed_between_calls_then_the_next_call_works(decoder, plate_path):
    decoder.fetch_header(plate_path, ".exr")
    first = decoder.process_id
    os.kill(first, signal.SIGKILL)
    time.sleep(0.2)
    assert decoder.fetch_header(plate_path, ".exr").width == 60
    assert decoder.process_id != first


def _die_each_time(decoder, signal_number, times):
    """Give a thread that ends, by this signal, as many children of the decoder as it is told, once they have begun."""

    def run():
        ended = set()
        deadline = time.monotonic() + 30
        while len(ended) < times and time.monotonic() < deadline:
            child = decoder.process_id
            if child is not None and child not in ended:
                os.kill(child, signal_number)
                ended.add(child)
            time.sleep(0.005)

    return threading.Thread(target=run)


@pytest.mark.skipif(sys.platform == "win32", reason="stops the child with a signal")
def test_when_the_child_is_killed_in_a_call_then_a_fresh_one_answers_it(decoder, plate_path):
    wanted = decoder.fetch_plate(plate_path, ".exr", 0, "auto")
    first = decoder.process_id
    os.kill(first, signal.SIGSTOP)  # so that the call is certainly under way when the kill comes
    killer = threading.Timer(0.5, os.kill, (first, signal.SIGKILL))
    killer.start()
    np.testing.assert_array_equal(decoder.fetch_plate(plate_path, ".exr", 0, "auto"), wanted)
    killer.join()
    assert decoder.process_id != first


@pytest.mark.skipif(sys.platform == "win32", reason="stops the child with a signal")
@pytest.mark.parametrize(
    ("signal_number", "said"),
    [
        (signal.SIGKILL, "was stopped twice. Try again, or export the file again."),
        (signal.SIGTERM, "was stopped twice. Try again, or export the file again."),
        (signal.SIGABRT, "could not be decoded within the memory limit"),
        (signal.SIGSEGV, "could not be decoded within the memory limit"),
    ],
)
def test_when_the_child_dies_twice_in_a_call_then_the_cause_is_told_and_the_next_call_works(
    decoder, plate_path, signal_number, said
):
    killer = _die_each_time(decoder, signal_number, 2)
    killer.start()
    with pytest.raises(InputError, match=r"^plate\.1001\.exr could not be decoded") as caught:
        decoder.fetch_plate(plate_path, ".exr", 0, "auto")
    killer.join()
    assert said in str(caught.value)
    assert decoder.process_id is None
    assert decoder.fetch_header(plate_path, ".exr").width == 60


@pytest.mark.skipif(sys.platform == "win32", reason="stops the child with a signal")
def test_when_the_child_is_killed_while_it_writes_then_the_matte_is_written_whole(decoder, plate_path, tmp_path):
    header = decoder.fetch_header(plate_path, ".exr")
    decoder.close()
    killer = _die_each_time(decoder, signal.SIGKILL, 1)
    killer.start()
    decoder.save_matte(str(tmp_path / "m.exr"), GREY.astype(np.float32), header, "exr-half")
    killer.join()
    assert [path.name for path in tmp_path.glob("m*")] == ["m.exr"]
    np.testing.assert_array_equal(decoder.fetch_alpha(str(tmp_path / "m.exr"), ".exr", "channel:A"), GREY)


def test_when_a_file_takes_too_long_then_it_is_given_up(plate_path):
    with Decoder(DecodeLimits(timeout_seconds=0.01)) as decoder:  # no process starts in that time
        with pytest.raises(InputError, match=r"plate\.1001\.exr took longer than 0\.01 s"):
            decoder.fetch_plate(plate_path, ".exr", 0, "auto")
        assert decoder.process_id is None


def test_when_threads_share_a_decoder_then_each_gets_its_own_answer(decoder, tmp_path):
    for level in range(8):
        OpenEXR.File({}, {"A": np.full((4, level + 1), level / 8, np.float32)}).write(str(tmp_path / f"{level}.exr"))
    found = {}

    def ask(level):
        for _ in range(10):
            found[level] = decoder.fetch_alpha(str(tmp_path / f"{level}.exr"), ".exr", "channel:A")

    threads = [threading.Thread(target=ask, args=(level,)) for level in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for level, alpha in found.items():
        np.testing.assert_array_equal(alpha, np.full((4, level + 1), level / 8, np.float32))


def test_when_a_video_is_read_in_order_then_its_pictures_come(decoder, tmp_path):
    path = str(tmp_path / "v.mp4")
    video = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*"mp4v"), 24, (64, 48))
    for level in range(6):
        video.write(np.full((48, 64, 3), level * 40, np.uint8))
    video.release()
    assert decoder.fetch_header(path, ".mp4").pictures == 6
    for index in range(6):
        np.testing.assert_allclose(decoder.fetch_plate(path, ".mp4", index, "auto"), index * 40 / 255, atol=0.02)


def test_when_a_transform_is_described_then_no_file_is_needed(decoder):
    assert "linear Rec.709" in decoder.describe_transform("auto", "float")
    with pytest.raises(InputError, match="Close to it"):
        decoder.describe_transform("ACESgc", "float")


def test_when_a_colour_is_named_then_its_id_comes_from_the_child(decoder):
    assert decoder.fetch_colour_id("auto") != decoder.fetch_colour_id("display")
    assert decoder.fetch_colour_id("ACEScg") == decoder.fetch_colour_id("acescg")
    with pytest.raises(InputError, match="Close to it"):
        decoder.fetch_colour_id("ACESgc")


def test_when_a_decoder_is_closed_then_its_child_is_gone_and_it_may_be_used_again(plate_path):
    decoder = Decoder()
    assert decoder.process_id is None
    decoder.fetch_header(plate_path, ".exr")
    child = decoder.process_id
    decoder.close()
    decoder.close()
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)
    assert decoder.fetch_header(plate_path, ".exr").width == 60
    decoder.close()


def test_when_the_parent_dies_then_the_child_ends_by_itself(plate_path):
    program = (
        "import sys, os\nfrom xmem_server.decoding import Decoder\nd = Decoder()\n"
        f"d.fetch_header({plate_path!r}, '.exr')\nsys.stdout.write(str(d.process_id)); sys.stdout.flush()\nos._exit(1)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ran = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    child = Path(f"/proc/{int(ran.stdout)}/exe")
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and child.exists():
        time.sleep(0.05)
    assert not child.exists()


def test_when_the_parents_side_is_imported_then_no_image_library_is():
    program = (
        "import sys, xmem_server.decoding, xmem_server.sequences, xmem_server.key_folder\n"
        "sys.exit(any(name.split('.')[0] in ('cv2', 'OpenEXR', 'PyOpenColorIO', 'torch') for name in sys.modules))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", program], env=environment, check=False).returncode == 0


def test_when_a_decoder_is_started_then_its_child_is_there_before_the_first_file_and_takes_it(plate_path):
    with Decoder() as decoder:
        decoder.start()
        child = decoder.process_id
        assert child is not None
        assert decoder.fetch_header(plate_path, ".exr").width == 60
        assert decoder.process_id == child
