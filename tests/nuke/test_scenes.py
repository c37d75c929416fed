"""Awkward scenes on the double of Nuke with the real server: each does the right thing, or says clearly why not."""

import numpy as np
import pytest

from tests.nuke.comp import Comp, RealServer, comp_of, marks
from tests.nuke.scenes import HEIGHT, WIDTH, add_square, make_plate, make_roto, make_xmem, read_exr, save_plate

EDGE = 10  # pixels of overscan on each side
ACES = "cg-config-v2.1.0_aces-v1.3_ocio-v2.3"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = RealServer(tmp_path_factory.mktemp("server")).start()
    yield server
    server.stop()


@pytest.fixture
def comp(application, tmp_path, server):
    with comp_of(application, tmp_path, server.connection_file) as comp:
        yield comp


def drawn_as_half(comp, frame, channel="rgba.alpha"):
    roto = comp.node.input(1)
    return comp.application.fetch_picture(roto, frame).crop(channel, box_of(comp, frame)).astype(np.float16)


def box_of(comp, frame):
    return comp.application.fetch_picture(comp.node.node("RotoToSend"), frame).box


def test_when_two_objects_are_drawn_then_one_key_is_rendered_and_each_has_its_matte(comp):
    nuke = comp.nuke
    second = make_roto(nuke, {1001: (40, 20, 12), 1006: (44, 20, 12)}, output="mask2.alpha")
    second.setInput(0, comp.roto)
    comp.node.setInput(1, second)
    comp.node["objects"].setValue("1=alpha; 2=mask2.alpha")
    rendered = comp.do("run")
    assert comp.status.startswith("Done"), comp.status
    assert [name for name in rendered if name.startswith("key")] == ["key 1001", "key 1003", "key 1006"]
    for object_id, channel in ((1, "rgba.alpha"), (2, "mask2.alpha")):
        comp.node["show_object"].setValue(object_id)
        for frame in (1001, 1006):
            np.testing.assert_array_equal(comp.alpha(frame), drawn_as_half(comp, frame, channel))
        assert comp.alpha(1004).shape == (HEIGHT, WIDTH)
    comp.node["output_mode"].setValue("Layers")
    assert comp.do("run") == []
    layers = comp.application.fetch_picture(comp.node, 1001).channels
    np.testing.assert_array_equal(layers["object_1.alpha"], drawn_as_half(comp, 1001))
    np.testing.assert_array_equal(layers["object_2.alpha"], drawn_as_half(comp, 1001, "mask2.alpha"))


def bright_overscan(frame):
    """Scene-linear ACEScg far above 1, with pixels outside of the format."""
    picture = np.full((HEIGHT + 2 * EDGE, WIDTH + 2 * EDGE, 3), 0.05, np.float32)
    left = EDGE + 8 + 2 * frame
    picture[EDGE + 16 : EDGE + 32, left : left + 16] = [12.0, 3.0, 0.5]
    return picture


class AwkwardComp(Comp):
    """An anamorphic ACEScg plate with overscan at frames -2 to 2, in proxy mode."""

    def __init__(self, application, folder, connection_file):
        self.application, self.nuke, self.folder = application, application.module, folder
        root = self.nuke.root()
        root["colorManagement"].setValue("OCIO")
        root["OCIO_config"].setValue(ACES)
        pattern = save_plate(
            folder / "plate", range(-2, 3), bright_overscan, pixel_aspect=2.0,
            window=((-EDGE, -EDGE), (WIDTH + EDGE - 1, HEIGHT + EDGE - 1)), display=((0, 0), (WIDTH - 1, HEIGHT - 1)),
        )  # fmt: skip
        self.plate = make_plate(self.nuke, pattern, -2, 2)
        self.keys = {frame: (8 + 2 * frame, 16, 16) for frame in (-2, 2)}
        self.roto = make_roto(self.nuke, self.keys, background=self.plate)
        self.node = make_xmem(self.nuke, self.plate, self.roto, -2, 2, folder / "cache")
        self.node["server"].setValue(str(connection_file))
        root["first_frame"].setValue(-2)
        root["last_frame"].setValue(2)
        root.setFrame(0)
        root.setProxy(True)
        application.renders.done.clear()


def test_when_the_plate_is_awkward_in_every_way_then_mattes_fit_it(application, tmp_path, server):
    with comp_of(application, tmp_path, server.connection_file, kind=AwkwardComp) as comp:
        comp.do("run")
        assert comp.status.startswith("Done"), comp.status
        assert comp.nuke.root().proxy()
        assert comp.nuke.frame() == 0
        assert comp.node["matte_file"].value().endswith("/1/%05d.exr")
        folder = tmp_path / "cache" / comp.session / "1"
        for frame in range(-2, 3):
            channels, header = read_exr(folder / f"{frame:05d}.exr")
            assert channels["A"].shape == (HEIGHT, WIDTH)
            assert header["pixelAspectRatio"] == 2.0
            picture = application.fetch_picture(comp.node, frame)
            inside = picture.crop("rgba.alpha", box_of(comp, frame))
            np.testing.assert_array_equal(inside, channels["A"].astype(np.float32))
            # The plate keeps its overscan, where the matte is black.
            assert (picture.box.x, picture.box.r) == (-EDGE, WIDTH + EDGE)
            assert picture.channels["rgba.alpha"].sum(dtype=np.float64) == inside.sum(dtype=np.float64)
        for frame in (-2, 2):
            np.testing.assert_array_equal(
                read_exr(folder / f"{frame:05d}.exr")[0]["A"].astype(np.float16), drawn_as_half(comp, frame)
            )


def test_when_the_roto_is_not_connected_then_the_artist_is_told_and_nothing_is_rendered(comp):
    comp.node.setInput(1, None)
    assert comp.do("run") == []
    assert "The roto input of XMem1 is not connected. Connect a Roto node" in comp.status


def test_when_the_roto_is_keyed_on_every_frame_then_the_artist_chooses_and_run_goes_on(application, tmp_path, server):
    with comp_of(application, tmp_path, server.connection_file, last=1020) as comp:
        comp.node.setInput(
            1, make_roto(comp.nuke, {f: (f - 993, 8, 16) for f in range(1001, 1021)}, background=comp.plate)
        )
        assert comp.do("run") == []
        assert "The roto has keys on 20 of the frames 1001 to 1020" in comp.status
        comp.node["thin_keys"].setValue("Every Nth key")
        comp.node["thin_step"].setValue(7)
        rendered = comp.do("run")
        assert [name for name in rendered if name.startswith("key")] == ["key 1001", "key 1008", "key 1015"]
        assert marks(comp.node["keyed"]) == [1001, 1008, 1015]


def test_when_a_second_shape_is_added_without_a_key_of_its_own_frame_then_it_is_in_the_next_update(comp):
    comp.do("run")
    add_square(comp.nuke, comp.roto, {1001: (40, 30, 10)})
    rendered = comp.do("update")
    assert rendered == ["key 1001", "key 1003", "key 1006"]
    np.testing.assert_array_equal(comp.alpha(1003), drawn_as_half(comp, 1003))
