"""Filmed pictures on the double of Nuke with the real server: the demo shot always, real clips when XMEM_CLIPS names them."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.nuke.comp import Comp, RealServer, comp_of
from tests.nuke.scenes import make_plate, make_xmem
from xmem_server.demo_shot import ShotSettings, save_shot
from xmem_server.scoring import score_region

CLIPS = os.environ.get("XMEM_CLIPS", "")
CORNERS = 24  # of the polygon that the artist draws


@dataclass(frozen=True)
class Footage:
    """A plate and what is to be cut out of it: ``truth`` gives a frame's mask, HxW bool."""

    pattern: str
    first: int
    last: int
    keys: tuple
    truth: object


def demo(folder):
    places = save_shot(folder, ShotSettings(frames=9, width=240, height=136), lambda _done, _total: None)
    return Footage(
        places.plate.as_posix(),
        1001,
        1009,
        (1001, 1005, 1009),
        lambda frame: cv2.imread(str(places.mask) % frame, cv2.IMREAD_UNCHANGED) == 1,
    )


def clip(name):
    folder = Path(CLIPS) / name
    meta = json.loads((folder / "meta.json").read_text())
    return Footage(
        (folder / "frames" / f"%05d.{meta['frame_ext']}").as_posix(),
        0,
        9,
        (0, 5, 9),
        lambda frame: cv2.imread(str(folder / "masks" / f"{frame:05d}.png"), cv2.IMREAD_GRAYSCALE) > 0,
    )


def outline(mask):
    """Give the corners of a polygon around a mask, in Nuke's coordinates, always in the same order."""
    height = mask.shape[0]
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    largest = max(contours, key=len)[:, 0, :]
    middle = largest.mean(axis=0)
    points = largest - middle
    angles = np.arctan2(points[:, 1], points[:, 0])
    corners = []
    for angle in np.linspace(-np.pi, np.pi, CORNERS, endpoint=False):
        x, y = middle + points[np.argmin(np.abs(np.angle(np.exp(1j * (angles - angle)))))]
        corners.append((float(x) + 0.5, height - float(y) - 0.5))
    return corners


class ShotComp(Comp):
    """A script with footage in it, and a Roto drawn around the object on some frames."""

    def __init__(self, application, folder, connection_file, footage):
        self.application, self.nuke, self.folder, self.footage = application, application.module, folder, footage
        self.plate = make_plate(self.nuke, footage.pattern, footage.first, footage.last)
        self.roto = self.nuke.nodes.Roto()
        self.roto["output"].setValue("alpha")
        self.roto.setInput(0, self.plate)
        outlines = {frame: outline(footage.truth(frame)) for frame in footage.keys}
        shape = self.nuke.rotopaint.Shape(self.roto["curves"], type="bezier")
        for corner in range(CORNERS):
            point = self.nuke.rotopaint.AnimControlPoint()
            for frame, corners in outlines.items():
                point.addPositionKey(frame, corners[corner])
            shape.append(point)
        self.roto["curves"].rootLayer.append(shape)
        self.keys = dict(outlines)
        self.node = make_xmem(self.nuke, self.plate, self.roto, footage.first, footage.last, folder / "cache")
        self.node["server"].setValue(str(connection_file))
        self.node["plate_conversion"].setValue("As is")  # the pictures are display-referred and read raw
        application.renders.done.clear()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = RealServer(tmp_path_factory.mktemp("server")).start()
    yield server
    server.stop()


def work_through(application, tmp_path, server, footage):
    """Run, look at every matte, suggest, correct one key, update."""
    frames = range(footage.first, footage.last + 1)
    with comp_of(application, tmp_path, server.connection_file, ShotComp, footage=footage) as comp:
        rendered = comp.do("run")
        assert comp.status.startswith("Done"), comp.status
        assert rendered == [*(f"key {frame}" for frame in footage.keys), *(f"plate {frame}" for frame in frames)]
        for frame in footage.keys:
            drawn = comp.alpha(frame, comp.roto)
            np.testing.assert_array_equal(comp.alpha(frame), drawn.astype(np.float16))
        between = [frame for frame in frames if frame not in footage.keys]
        ours, copied = [], []
        for frame in between:
            nearest = min(footage.keys, key=lambda key, frame=frame: abs(key - frame))
            ours.append(score_region(comp.alpha(frame) >= 0.5, footage.truth(frame)))
            copied.append(score_region(comp.alpha(nearest, comp.roto) >= 0.5, footage.truth(frame)))
        assert np.mean(ours) > np.mean(copied)
        comp.do("suggest")
        assert comp.state.suggestions, comp.status
        for point, (x, y) in zip(comp.roto["curves"].rootLayer[0], comp.keys[footage.keys[1]], strict=True):
            point.center.addPositionKey(footage.keys[1], (x + 2, y))
        assert comp.do("update") == [f"key {footage.keys[1]}"]
        assert (comp.state.sent_keys, comp.state.sent_plates) == (1, 0)
        drawn = comp.alpha(footage.keys[1], comp.roto)
        np.testing.assert_array_equal(comp.alpha(footage.keys[1]), drawn.astype(np.float16))


def test_when_the_demo_shot_is_worked_through_then_mattes_beat_copies_of_the_keys(application, tmp_path, server):
    work_through(application, tmp_path, server, demo(tmp_path / "demo"))


@pytest.mark.skipif(not CLIPS, reason="XMEM_CLIPS is not set")
@pytest.mark.parametrize("name", ["alpha-dancer", "dogs-jump"])
def test_when_a_real_clip_is_worked_through_then_mattes_beat_copies_of_the_keys(application, tmp_path, server, name):
    work_through(application, tmp_path, server, clip(name))
