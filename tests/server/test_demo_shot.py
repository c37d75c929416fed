import cv2
import numpy as np
import pytest

from xmem_protocol import InputError
from xmem_server import demo_render, demo_scene
from xmem_server.demo_shot import ShotSettings, fetch_frames, save_shot

SMALL = ShotSettings(frames=4, width=160, height=90)


@pytest.fixture(scope="module")
def frames():
    return list(fetch_frames(SMALL))


def test_when_the_shot_is_made_twice_then_every_pixel_is_the_same(frames):
    again = list(fetch_frames(SMALL))
    for first, second in zip(frames, again, strict=True):
        assert np.array_equal(first.picture, second.picture)
        assert np.array_equal(first.alpha, second.alpha)


def test_when_the_shot_is_made_then_frames_count_from_1001_and_alphas_are_soft(frames):
    assert [shot.frame for shot in frames] == [1001, 1002, 1003, 1004]
    for shot in frames:
        assert shot.picture.shape == (90, 160, 3)
        assert shot.picture.dtype == np.uint8
        assert shot.alpha.shape == (90, 160)
        assert shot.alpha.min() == 0.0
        assert shot.alpha.max() <= 1.0
        assert ((shot.alpha > 0.05) & (shot.alpha < 0.95)).sum() > 50
        assert 0.02 < (shot.alpha >= 0.5).mean() < 0.3


def test_when_the_shot_goes_on_then_the_animal_moves_and_is_partly_hidden(frames):
    columns = np.arange(160)
    places = [float((shot.alpha * columns).sum() / shot.alpha.sum()) for shot in frames]
    assert places[-1] - places[0] > 30
    areas = [shot.alpha.sum() for shot in frames]
    assert min(areas) < 0.8 * max(areas)


def test_when_another_seed_is_given_then_the_picture_is_another():
    one = next(iter(fetch_frames(ShotSettings(frames=1, width=96, height=54, seed=1))))
    two = next(iter(fetch_frames(ShotSettings(frames=1, width=96, height=54, seed=2))))
    assert not np.array_equal(one.picture, two.picture)


def test_when_a_ball_is_drawn_then_its_alpha_is_the_area_it_covers():
    # A ball of radius 0.5 straight ahead: its outline is a circle, whose area is known.
    def field(points):
        return np.asarray(np.sqrt((points * points).sum(axis=0)) - np.float32(0.5), np.float32)

    def surface(points):
        grey = np.full_like(points, 0.5)
        return demo_scene.Surface(grey, np.zeros(points.shape[1], np.float32), np.zeros(points.shape[1], np.float32))

    camera = demo_render.Camera(demo_scene.column(0.0, 0.0, -6.0), 0.0, 0.0)
    thing = demo_render.Thing(field, surface, (0.0, 0.0, 0.0), 0.6)
    layer = demo_render.fetch_layer(thing, camera, demo_render.fetch_light(0.0), (180, 200))
    # The outline is where rays touch the ball: a circle in the picture (focal length 5 half-heights of 90 pixels).
    radius = 5.0 * 90 * 0.5 / np.sqrt(6.0**2 - 0.5**2)
    assert layer.alpha.sum() == pytest.approx(np.pi * radius**2, rel=0.003)
    assert layer.alpha[90, 100] == 1.0
    assert layer.alpha[0, 0] == 0.0
    assert np.all(layer.colour[layer.alpha == 0] == 0)
    shares = layer.alpha * 16
    assert np.allclose(shares, np.rint(shares))


def test_when_the_shot_is_saved_then_plates_alphas_and_masks_agree(tmp_path, frames):
    told = []
    places = save_shot(tmp_path, SMALL, lambda done, total: told.append((done, total)))
    assert told[-1] == (4, 4)
    for shot in frames:
        plate = cv2.imread(str(places.plate) % shot.frame, cv2.IMREAD_UNCHANGED)
        assert np.array_equal(plate[..., ::-1], shot.picture)
        alpha = cv2.imread(str(places.alpha) % shot.frame, cv2.IMREAD_UNCHANGED)
        assert alpha.dtype == np.uint16
        assert np.abs(alpha / 65535.0 - shot.alpha).max() < 1e-4
        mask = cv2.imread(str(places.mask) % shot.frame, cv2.IMREAD_UNCHANGED)
        assert np.array_equal(mask, (shot.alpha >= 0.5).astype(np.uint8))


def test_when_the_shot_cannot_be_saved_then_the_error_names_the_place(tmp_path):
    blocked = tmp_path / "plate"
    blocked.write_bytes(b"")
    with pytest.raises(InputError, match="plate"):
        save_shot(tmp_path, SMALL, lambda done, total: None)
