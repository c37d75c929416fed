"""What the gizmo does in a real Nuke."""

from __future__ import annotations

from pathlib import Path

import nuke

from nuke_checks.common import Answer, assumed, is_close, look, make_xmem


@assumed
def check_gizmo(_folder: Path) -> Answer:
    """createNode('XMem') gives a Group with our knobs and two inputs."""
    node = nuke.createNode("XMem", inpanel=False)
    knobs = [name for name in ("run", "keyed", "session", "matte_file", "region") if node.knob(name) is None]
    return node.Class() == "Group" and not knobs and node.maxInputs() == 2, [node.Class(), knobs, node.maxInputs()]


@assumed
def check_pass_through(_folder: Path) -> Answer:
    """Input 0 is the plate, and it passes untouched before the first run ([string length] in an expression)."""
    got = look(make_xmem(0.25))
    return is_close(got, 0.25), got


@assumed
def check_conversion(_folder: Path) -> Answer:
    """0.25 is encoded as sRGB, through an Expression whose channel knobs are left at their defaults."""
    node = make_xmem(0.25)
    node["plate_conversion"].setValue("Linear to sRGB")
    got = [look(node.node("PlateToSend"), channel) for channel in ("red", "green", "blue")]
    return all(map(is_close, got, (0.5371, 0.3888, 0.2767))), got


@assumed
def check_shoulder(_folder: Path) -> Answer:
    """The soft shoulder keeps 4.0 below 1, at 0.967."""
    node = make_xmem(4.0)
    node["plate_conversion"].setValue("Linear to sRGB")
    got = look(node.node("PlateToSend"))
    return is_close(got, 0.9674), got


@assumed
def check_exposure(_folder: Path) -> Answer:
    """One expression on Grade.multiply holds for all channels: exposure 1 doubles."""
    node = make_xmem(0.25)
    node["exposure"].setValue(1)
    got = [look(node.node("PlateExposure"), channel) for channel in ("red", "green", "blue")]
    return all(map(is_close, got, (0.5, 0.25, 0.125))), got


@assumed
def check_colour_management(_folder: Path) -> Answer:
    """Auto follows root.colorManagement in an expression: 0 for Nuke, 1 for OCIO."""
    node, got = make_xmem(), []
    for management in ("Nuke", "OCIO"):
        nuke.root()["colorManagement"].setValue(management)
        got.append(node.node("PlateConversion")["which"].value())
    return got == [1, 2], got


@assumed
def check_colour_role(_folder: Path) -> Answer:
    """This OCIO config has a role color_picking, and 0.18 of scene_linear is near 0.46 in it."""
    nuke.root()["colorManagement"].setValue("OCIO")
    got = look(make_xmem(0.18).node("OCIOToDisplay"))
    return abs(got - 0.46) < 0.08, got


@assumed
def check_region(_folder: Path) -> Answer:
    """The region crops what is sent, with input.width in the expressions of Crop.box."""
    node = make_xmem()
    whole = [node.node("PlateToSend")["box"].value(at) for at in range(4)]
    node["region"].setValue([10, 5, 30, 25])
    part = [node.node("PlateToSend")["box"].value(at) for at in range(4)]
    return (whole, part) == ([0, 0, 64, 48], [10, 5, 30, 25]), [whole, part]


@assumed
def check_read_expressions(_folder: Path) -> Answer:
    """The Read's first frame and on_error follow expressions."""
    node = nuke.createNode("XMem", inpanel=False)
    node["first_frame"].clearAnimated()
    node["first_frame"].setValue(1001)
    node["missing_frames"].setValue("error")
    read = node.node("MatteRead")
    got = [read["first"].value(), read["on_error"].value()]
    return got == [1001, "error"], got


@assumed
def check_missing_matte(folder: Path) -> Answer:
    """A Read without its file is black, and no error, when on_error is black."""
    node = make_xmem()
    node["matte_file"].setValue((folder / "none.%05d.exr").as_posix())
    got = [look(node, "red"), look(node, "alpha")]
    return is_close(got[0], 0.25) and got[1] == 0, got


@assumed
def check_negative_frame(_folder: Path) -> Answer:
    """A negative frame is -0002 in %05d."""
    read = nuke.nodes.Read()
    read["file"].setValue("/m/%05d.exr")
    got = read["file"].evaluate(-2)
    return got == "/m/-0002.exr", got


@assumed
def check_reload(_folder: Path) -> Answer:
    """Pressing reload on the Read raises its version."""
    read = nuke.createNode("XMem", inpanel=False).node("MatteRead")
    before = read["version"].value()
    read["reload"].execute()
    return read["version"].value() == before + 1, [before, read["version"].value()]


@assumed
def check_marks(_folder: Path) -> Answer:
    """The marks of keyed come back from fromScript as whole frames."""
    knob = nuke.createNode("XMem", inpanel=False)["keyed"]
    knob.fromScript("{curve K x1001 1 K x1047 1}")
    got = [list(knob.getKeyList()), knob.isAnimated(), knob.isKeyAt(1047)]
    return got == [[1001, 1047], True, True], got


@assumed
def check_paste(_folder: Path) -> Answer:
    """Knob values and marks survive copy and paste, and onCreate runs for the copy when its knobs have their values."""
    node = nuke.createNode("XMem", inpanel=False)
    node["keyed"].fromScript("{curve K x1001 1}")
    node["objects"].setValue("1=alpha; 2=red")
    node["onCreate"].setValue("nuke.thisNode()['model'].setValue(nuke.thisNode()['objects'].value())")
    node.setSelected(True)
    nuke.nodeCopy("%clipboard%")
    copy = nuke.nodePaste("%clipboard%")
    got = [copy.name() != node.name(), list(copy["keyed"].getKeyList()), copy["objects"].value(), copy["model"].value()]
    return got == [True, [1001], "1=alpha; 2=red", "1=alpha; 2=red"], got
