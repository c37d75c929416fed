import re
import subprocess
import sys

import numpy as np
import OpenEXR
import pytest

from tests.nuke.conftest import REPOSITORY
from tests.nuke.fake_nuke.tcl import ScriptReader
from tests.nuke.scenes import HEIGHT, WIDTH, grey, make_plate, make_roto, make_xmem, save_plate
from xmem_server.colour import encode_linear

GIZMO = REPOSITORY / "gizmos" / "XMem.gizmo"
VERBS = {
    "run", "update", "suggest", "cancel", "add_key", "remove_key", "next_suggestion", "previous_suggestion",
    "copy_diagnostics", "start_server", "open_panel",
}  # fmt: skip
RGB = ("rgba.red", "rgba.green", "rgba.blue")


@pytest.fixture
def written():
    return ScriptReader().read(GIZMO.read_text("utf-8"))


@pytest.fixture
def plate(nuke, tmp_path):
    return make_plate(nuke, save_plate(tmp_path / "plate", range(1001, 1004), grey), 1001, 1003)


@pytest.fixture
def node(nuke, plate, tmp_path):
    roto = make_roto(nuke, {1001: (8, 8, 16)}, background=plate)
    return make_xmem(nuke, plate, roto, 1001, 1003, tmp_path / "cache")


def save_matte(path, channels):
    path.parent.mkdir(parents=True, exist_ok=True)
    OpenEXR.File(
        {"type": OpenEXR.scanlineimage, "compression": OpenEXR.ZIP_COMPRESSION},
        {name: np.full((HEIGHT, WIDTH), value, np.float16) for name, value in channels.items()},
    ).write(str(path))


def give_mattes(node, folder, value=0.25):
    save_matte(folder / "01002.exr", dict.fromkeys("RGBA", value))
    node["matte_file"].setValue((folder / "%05d.exr").as_posix())


def test_when_the_gizmo_is_parsed_then_it_is_wired_as_intended(written):
    names = [dict(entry.words).get("name") for entry in written]
    wires = {names[at]: [names[i] if i is not None else None for i in entry.inputs] for at, entry in enumerate(written)}
    assert wires["RotoToSend"] == ["roto"]
    assert wires["PlateExposure"] == ["PlateDot"]
    assert wires["PlateConversion"] == ["PlateExposure", "LinearToDisplay", "OCIOToDisplay"]
    assert wires["PlateShoulder"] == ["PlateConversion"]
    assert wires["PlateToSend"] == ["PlateShoulder"]
    assert wires["MatteToAlpha"] == ["PlateDot", "EdgeSoftness"]
    assert wires["LayersUnderPlate"] == ["LayersRead", "PlateDot"]
    assert wires["OutputMode"] == ["MatteToAlpha", "PremultByMatte", "Overlay", "LayersUnderPlate"]
    assert wires["AfterFirstRun"] == ["PlateDot", "OutputMode"]
    assert wires["Output1"] == ["AfterFirstRun"]


def test_when_the_gizmo_is_parsed_then_it_is_a_group_with_no_write_in_it(written):
    assert written[0].kind == "Group"
    assert "Write" not in {entry.kind for entry in written}


def test_when_the_gizmo_is_parsed_then_plate_is_input_0_and_roto_input_1(written):
    numbers = {dict(e.words)["name"]: dict(e.words).get("number", "0") for e in written if e.kind == "Input"}
    assert numbers == {"plate": "0", "roto": "1"}


def test_when_a_button_is_read_then_it_is_one_line_that_calls_its_action(node):
    buttons = {name: knob.value() for name, knob in node.knobs().items() if knob.Class() == "PyScript_Knob"}
    assert buttons.keys() == VERBS
    for name, text in buttons.items():
        assert text == f"import xmem_nuke.actions as a; a.{name}(nuke.thisNode())"


def test_when_a_path_is_looked_for_then_it_is_in_user_knobs_alone():
    assert re.findall(r'file "(.*)"', GIZMO.read_text()) == [
        r"\[value parent.layers_file]",
        r"\[value parent.matte_file]",
    ]


def test_when_the_plug_in_is_missing_then_the_node_still_loads_and_plays(
    nuke, application, monkeypatch, plate, tmp_path
):
    for name in [name for name in sys.modules if name.startswith("xmem_nuke")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "xmem_nuke", None)  # its import raises ImportError, as on a farm
    node = make_xmem(nuke, plate, None, 1001, 1003, tmp_path)
    give_mattes(node, tmp_path / "mattes")
    assert (
        application.fetch_picture(node, 1002).crop("rgba.alpha", application.fetch_picture(node, 1002).box).max()
        == 0.25
    )


def test_when_the_libraries_are_missing_then_the_node_loads_quietly_and_a_button_says_which(
    nuke, application, monkeypatch, plate, tmp_path
):
    ours = ("msgpack", "zmq", "xmem_protocol", "xmem_client", "xmem_nuke")
    for name in [name for name in sys.modules if name.partition(".")[0] in ours]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "msgpack", None)  # the plug-in is there, its vendor folder is not
    node = make_xmem(nuke, plate, None, 1001, 1003, tmp_path)
    application.set_as_artist(node["show_object"], 2)
    application.act(node["run"].execute)
    assert "XMem cannot load msgpack in this Nuke" in node["status"].value()
    assert "xmem install-nuke" in application.printed[-1]


def test_when_there_was_no_run_then_the_plate_passes_untouched(node, application):
    assert set(application.fetch_picture(node, 1002).channels) == set(RGB)


def test_when_a_matte_is_there_then_it_is_the_alpha_of_its_frame(node, application, tmp_path):
    give_mattes(node, tmp_path / "mattes")
    picture = application.fetch_picture(node, 1002)
    np.testing.assert_array_equal(picture.channels["rgba.alpha"], np.full((HEIGHT, WIDTH), 0.25))
    np.testing.assert_allclose(picture.channels["rgba.red"], grey(1002)[..., 0], rtol=1e-3)


@pytest.mark.parametrize(("mode", "red"), [("Premultiplied", 0.25), ("Overlay", 1.0)])
def test_when_the_output_is_changed_then_the_picture_shows_it(node, application, tmp_path, mode, red):
    give_mattes(node, tmp_path / "mattes")
    node["output_mode"].setValue(mode)
    picture = application.fetch_picture(node, 1002)
    np.testing.assert_allclose(picture.channels["rgba.red"], grey(1002)[..., 0] * red, rtol=1e-3)
    green = {"Premultiplied": 0.25, "Overlay": 0.75 + 0.25 * 0.35}[mode]
    np.testing.assert_allclose(picture.channels["rgba.green"], grey(1002)[..., 1] * green, rtol=1e-3)
    assert picture.channels["rgba.alpha"].max() == 0.25


def test_when_layers_are_asked_for_then_each_object_has_one_and_the_plate_stays(node, application, tmp_path):
    save_matte(tmp_path / "layers" / "01002.exr", {"object_1.A": 0.5, "object_2.A": 0.75})
    node["layers_file"].setValue((tmp_path / "layers" / "%05d.exr").as_posix())
    node["output_mode"].setValue("Layers")
    channels = application.fetch_picture(node, 1002).channels
    assert (channels["object_1.alpha"].max(), channels["object_2.alpha"].max()) == (0.5, 0.75)
    np.testing.assert_allclose(channels["rgba.red"], grey(1002)[..., 0], rtol=1e-3)


def test_when_the_output_has_no_mattes_of_its_kind_yet_then_the_plate_passes_untouched(node, application, tmp_path):
    save_matte(tmp_path / "layers" / "01002.exr", {"object_1.A": 0.5})
    node["layers_file"].setValue((tmp_path / "layers" / "%05d.exr").as_posix())
    assert set(application.fetch_picture(node, 1002).channels) == set(RGB)
    node["layers_file"].setValue("")
    give_mattes(node, tmp_path / "mattes")
    node["output_mode"].setValue("Layers")
    assert set(application.fetch_picture(node, 1002).channels) == set(RGB)


def test_when_a_matte_is_missing_then_the_knob_says_what_comes(node, application, tmp_path):
    give_mattes(node, tmp_path / "mattes")
    assert (
        application.fetch_picture(node, 1001).crop("rgba.alpha", application.fetch_picture(node, 1001).box).max() == 0
    )
    node["missing_frames"].setValue("error")
    with pytest.raises(RuntimeError, match=r"01001\.exr"):
        application.fetch_picture(node, 1001)


def test_when_a_frame_is_outside_the_range_then_its_matte_is_black(node, application, tmp_path):
    give_mattes(node, tmp_path / "mattes")
    for frame in (1000, 1001, 1003, 1004):
        save_matte(tmp_path / "mattes" / f"{frame:05d}.exr", dict.fromkeys("RGBA", 1.0))
    got = [application.fetch_picture(node.node("MatteRead"), f).channels["rgba.alpha"].max() for f in range(1000, 1005)]
    assert got == [0, 1, 0.25, 1, 0]


def test_when_the_mattes_are_reloaded_then_the_read_is_another_version(node):
    node["reload"].getLinkedKnob().execute()
    assert node.node("MatteRead")["version"].value() == 1


def converted(application, node, frame=1002):
    picture = application.fetch_picture(node.node("PlateToSend"), frame)
    return np.stack([picture.channels[name] for name in RGB], axis=-1)


def test_when_the_script_is_managed_by_nuke_then_auto_encodes_as_the_server_does_for_linear_files(node, application):
    np.testing.assert_allclose(converted(application, node), encode_linear(grey(1002)), atol=1e-3)


def test_when_values_are_above_1_then_they_keep_their_order_below_1(nuke, application, tmp_path):
    bright = np.linspace(-0.5, 16, WIDTH, dtype=np.float32)
    picture = np.broadcast_to(bright[None, :, None], (HEIGHT, WIDTH, 3))
    plate = make_plate(nuke, save_plate(tmp_path / "bright", [1002], lambda _: picture), 1002, 1002)
    node = make_xmem(nuke, plate, None, 1002, 1002, tmp_path)
    got = converted(application, node)
    np.testing.assert_allclose(got, encode_linear(picture), atol=1e-6)
    assert got.min() == 0
    assert got.max() < 1
    assert (np.diff(got[0, 3:, 0]) > 0).all()


@pytest.mark.parametrize("acescg", [[4.0, 0.18, 0.02], [0.6, -0.05, 0.3]])
def test_when_the_script_is_managed_by_ocio_then_acescg_is_converted_as_the_server_would(
    nuke, application, node, acescg
):
    nuke.root()["colorManagement"].setValue("OCIO")
    nuke.root()["OCIO_config"].setValue("cg-config-v2.1.0_aces-v1.3_ocio-v2.3")
    flat = nuke.nodes.Constant(format="64 48 0 0 64 48 1")
    flat["color"].setValue([*acescg, 0])
    node.setInput(0, flat)
    # AP1 to Rec.709 with the matrix of the ACES documents, then the curve and the shoulder.
    rec709 = np.array([[1.70505, -0.62179, -0.08326], [-0.13026, 1.14080, -0.01055], [-0.02400, -0.12897, 1.15297]])
    linear = rec709 @ acescg
    np.testing.assert_allclose(converted(application, node)[0, 0], encode_linear(linear.astype(np.float32)), atol=2e-3)


def test_when_the_plate_is_taken_as_is_then_nothing_is_converted(nuke, node, application):
    node["plate_conversion"].setValue("As is")
    np.testing.assert_allclose(converted(application, node), grey(1002), rtol=1e-3)
    bright = nuke.nodes.Constant(format="64 48 0 0 64 48 1", color=[0.9, 1.5, -0.1, 0])
    node.setInput(0, bright)
    np.testing.assert_allclose(converted(application, node)[0, 0], [0.9, 1.5, -0.1], rtol=1e-6)


def test_when_a_dark_plate_is_exposed_then_the_network_sees_it_brighter_and_the_output_does_not(node, application):
    node["exposure"].setValue(1)
    np.testing.assert_allclose(converted(application, node), encode_linear(grey(1002) * 2), atol=1e-3)
    np.testing.assert_allclose(
        application.fetch_picture(node, 1002).channels["rgba.red"], grey(1002)[..., 0], rtol=1e-3
    )


def test_when_a_region_is_drawn_then_the_plate_to_send_has_pixels_inside_it_alone(node, application):
    node["region"].setValue([10, 5, 30, 25])
    picture = application.fetch_picture(node.node("PlateToSend"), 1002)
    assert (picture.box.x, picture.box.y, picture.box.r, picture.box.t) == (10, 5, 30, 25)
    assert (picture.format.width(), picture.format.height()) == (WIDTH, HEIGHT)


def test_when_the_node_is_saved_and_loaded_then_it_is_the_same(nuke, application, node, tmp_path):
    give_mattes(node, tmp_path / "mattes")
    node["keyed"].fromScript("{curve K x1001 1 x1003 1}")
    before = {name: knob.toScript() for name, knob in node.knobs().items() if name != "selected"}
    application.read_text(application.write_text())
    loaded = nuke.toNode("XMem1")
    assert {name: loaded[name].toScript() for name in before} == before
    assert application.fetch_picture(loaded, 1002).channels["rgba.alpha"].max() == 0.25


def test_when_the_facts_are_at_hand_then_their_checker_finds_nothing():
    import os  # noqa: PLC0415

    facts = os.environ.get("XMEM_NUKE_FACTS")
    if not facts:
        pytest.skip("XMEM_NUKE_FACTS names no folder with knob scans")
    done = subprocess.run(
        [sys.executable, f"{facts}/tools/knobcheck.py", str(GIZMO)], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "0 findings in 1 files"
