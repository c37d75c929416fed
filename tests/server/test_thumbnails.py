import cv2
import numpy as np
import pytest

from tests.server.house import HEIGHT, SHOT, WIDTH, House
from xmem_protocol import InputError, MakeThumbnail, ThumbnailMade
from xmem_server.decoding import Decoder
from xmem_server.thumbnails import fetch_average, pack_png


@pytest.fixture(scope="module")
def decoder():
    with Decoder() as decoder:
        yield decoder


@pytest.fixture
def house(tmp_path, decoder):
    with House(tmp_path, decoder) as house:
        house.ready()
        yield house


def fetch_picture(house, frame, height):
    made = house.ask(MakeThumbnail("roto", frame, height))
    content = house.store.file_path(made.sha256).read_bytes()
    assert made == ThumbnailMade(frame, made.sha256, len(content))
    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)


def test_when_a_key_frames_thumbnail_is_asked_then_its_alpha_is_drawn_over_the_plate(house):
    with_key = fetch_picture(house, 1001, HEIGHT).astype(int)
    plain = cv2.imdecode(np.frombuffer(house.store.file_path(plate_of(house, 1001)).read_bytes(), np.uint8), 1)
    changed = np.abs(with_key - plain).max(axis=2) > 1
    assert changed[10:20, 10:30].mean() > 0.9  # where the key of house.alpha is
    changed[10:20, 10:30] = False
    assert not changed.any()


def plate_of(house, frame):
    session = house.store.sessions.fetch("local", "roto")
    return house.store.sessions.fetch_plates(session.number)[frame].sha256


def test_when_a_small_one_is_asked_then_it_has_that_height_and_the_shots_proportions(house):
    assert fetch_picture(house, 1003, 24).shape == (24, round(24 * WIDTH / HEIGHT), 3)


def test_when_it_is_asked_twice_then_it_is_the_same_file(house):
    assert house.ask(MakeThumbnail("roto", 1001, 16)) == house.ask(MakeThumbnail("roto", 1001, 16))


@pytest.mark.parametrize("height", [0, -1, 513])
def test_when_the_height_is_no_thumbnails_then_that_is_said(house, height):
    with pytest.raises(InputError, match="pixels high"):
        house.ask(MakeThumbnail("roto", 1001, height))


def test_when_a_frame_has_no_plate_then_that_is_said(tmp_path, decoder):
    with House(tmp_path, decoder) as house:
        house.open()
        with pytest.raises(InputError, match="Frame 1002 has no plate yet"):
            house.ask(MakeThumbnail("roto", 1002, 16))
        with pytest.raises(InputError, match="outside the shot"):
            house.ask(MakeThumbnail("roto", SHOT.last + 1, 16))


def test_when_an_alpha_is_made_smaller_then_each_pixel_is_a_mean():
    alpha = np.float32([[0, 1, 1, 1], [0, 1, 0, 0], [1, 1, 0, 0]])
    np.testing.assert_allclose(fetch_average(alpha, (1, 2)), [[4 / 6, 2 / 6]], rtol=1e-6)
    np.testing.assert_array_equal(fetch_average(alpha, (3, 8))[0], [0, 0, 1, 1, 1, 1, 1, 1])


def test_when_a_picture_is_packed_then_another_reader_reads_it():
    picture = np.random.default_rng(1).integers(0, 255, (5, 7, 3), dtype=np.uint8)
    read = cv2.imdecode(np.frombuffer(pack_png(picture), np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(read[..., ::-1], picture)
