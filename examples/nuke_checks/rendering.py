"""What temporary renders and operator hashes do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nuke

from nuke_checks.common import Answer, assumed, is_close, look, make_constant, make_xmem


def render(node: Any, frame: int, path: Path, channels: str, datatype: str) -> None:
    """Render as the plug-in does: a Write inside the group, gone afterwards."""
    with node:
        write = nuke.nodes.Write()
    try:
        write.setInput(0, node.node("PlateToSend"))
        write["file"].setValue(path.as_posix())
        write["file_type"].setValue("exr")
        write["datatype"].setValue(datatype)
        write["compression"].setValue("Zip (1 scanline)")
        write["channels"].setValue(channels)
        write["raw"].setValue(True)
        nuke.execute(write, frame, frame, 1)
    finally:
        nuke.delete(write)


def list_exr_channels(path: Path) -> list[tuple[str, int]]:
    """Give the channels in an EXR header with their types (1 half, 2 float)."""
    data = path.read_bytes()
    at = data.index(b"channels\0chlist\0") + len(b"channels\0chlist\0") + 4
    found = []
    while data[at]:
        end = data.index(b"\0", at)
        found.append((data[at:end].decode("ascii"), data[end + 1]))
        at = end + 17  # the zero, then type, linear flag with padding, and two samplings of four bytes each
    return found


@assumed
def check_render(folder: Path) -> Answer:
    """The temporary Write gives a half EXR with R, G and B."""
    render(make_xmem(), 1001, folder / "plate.1001.exr", "rgb", "16 bit half")
    got = list_exr_channels(folder / "plate.1001.exr")
    return sorted(got) == [("B", 1), ("G", 1), ("R", 1)], got


@assumed
def check_key_render(folder: Path) -> Answer:
    """A key's EXR is float when asked for, with A alone."""
    render(make_xmem(), 1, folder / "key.exr", "alpha", "32 bit float")
    got = list_exr_channels(folder / "key.exr")
    return got == [("A", 2)], got


@assumed
def check_layer_name(folder: Path) -> Answer:
    """The channel alpha of a layer roto2 is called roto2.alpha in the file."""
    nuke.Layer("roto2", ["roto2.red", "roto2.green", "roto2.blue", "roto2.alpha"])
    node = make_xmem()
    copy = nuke.nodes.Copy()
    copy.setInput(0, node.input(0))
    copy.setInput(1, node.input(0))
    copy["to0"].setValue("roto2.alpha")
    node.setInput(0, copy)
    render(node, 1, folder / "layer.exr", "all", "32 bit float")
    got = [name for name, _ in list_exr_channels(folder / "layer.exr")]
    return "roto2.alpha" in got, got


@assumed
def check_untouched(folder: Path) -> Answer:
    """Selection and modified flag are as before after a render with undo off."""
    node, root = make_xmem(), nuke.root()
    node.setSelected(True)
    root.setFrame(7)
    root.setModified(False)
    nuke.Undo.disable()
    try:
        render(node, 3, folder / "untouched.exr", "rgb", "16 bit half")
        frame_after = nuke.frame()
        root.setFrame(7)
        root.setModified(False)
    finally:
        nuke.Undo.enable()
    got = {"frame after execute": frame_after, "modified": root.modified(), "still selected": node.isSelected()}
    return not root.modified() and node.isSelected(), got


@assumed
def check_reload_of_changed_file(folder: Path) -> Answer:
    """Pressing reload shows a file that was written anew under the same name."""
    node, path = make_xmem(0.25), folder / "matte.exr"
    node["plate_conversion"].setValue("As is")
    read = node.node("MatteRead")
    node["matte_file"].setValue(path.as_posix())
    seen = []
    for red in (0.25, 0.75):
        node.input(0)["color"].setValue([red, 0, 0, 1])
        render(node, 1, path, "rgb", "32 bit float")
        nuke.root().setFrame(1)
        read["reload"].execute()
        seen.append(look(read))
    return is_close(seen[0], 0.25) and is_close(seen[1], 0.75), seen


@assumed
def check_proxy(_folder: Path) -> Answer:
    """format() is the full size while proxy is switched off."""
    constant, root = make_constant(0.5), nuke.root()
    root.setProxy(True)
    in_proxy = constant.format().width()
    root.setProxy(False)
    full = constant.format().width()
    return full == 64, {"width in proxy mode": in_proxy, "width": full}


@assumed
def check_hash_of_change(_folder: Path) -> Answer:
    """The opHashes are the same when nothing changed and others after a change above, seen from inside the group."""
    node = make_xmem()
    source = node.node("PlateToSend")

    def fetch() -> list[int]:
        source.forceValidate()
        return list(source.opHashes())

    first, again = fetch(), fetch()
    node.input(0)["color"].setValue([0.5, 0, 0, 1])
    other = fetch()
    return any(first) and first == again and first != other, [first, again, other]


@assumed
def check_hash_of_frame(_folder: Path) -> Answer:
    """The opHashes of an animated node are those of the script's current frame."""
    node = make_xmem()
    node.input(0)["color"].fromScript("{curve K x1 0.1 x2 0.2} 0 0 1")
    source, found = node.node("PlateToSend"), []
    for frame in (1, 2, 1):
        nuke.root().setFrame(frame)
        source.forceValidate()
        found.append(list(source.opHashes()))
    return found[0] == found[2] != found[1], found
