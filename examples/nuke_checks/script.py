"""What rotos, names, threads and the plug-in as a whole do."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from typing import Any

import nuke
import nuke.rotopaint

from nuke_checks.common import REPOSITORY, Answer, assumed, is_close, look, make_constant, make_xmem


def make_roto() -> tuple[Any, Any]:
    """Give a Roto with one square keyed at 1 and 10, and its shape."""
    roto = nuke.nodes.Roto()
    shape = nuke.rotopaint.Shape(roto["curves"], type="bezier")
    for x, y in ((0, 0), (10, 0), (10, 10), (0, 10)):
        point = nuke.rotopaint.AnimControlPoint(x, y)
        for frame in (1, 10):
            point.addPositionKey(frame, (x + frame, y))
        shape.append(point)
    roto["curves"].rootLayer.append(shape)
    return roto, roto["curves"].rootLayer[0]


@assumed
def check_roto_times(_folder: Path) -> Answer:
    """The points of a shape say their key times, and layers and shapes their transform's."""
    roto, shape = make_roto()
    got = [
        [list(point.center.getControlPointKeyTimes()) for point in shape][:1],
        list(shape.getTransform().getTransformKeyTimes()),
        list(roto["curves"].rootLayer.getTransform().getTransformKeyTimes()),
        isinstance(shape, nuke.rotopaint.Shape),
    ]
    return set(got[0][0]) >= {1, 10} and got[3], got


@assumed
def check_roto_visibility(_folder: Path) -> Answer:
    """Shapes and the root layer say getVisible and getAttributes, with the lifetime under ltt, ltn and ltm."""
    roto, shape = make_roto()
    shape.setVisible(10, False)  # noqa: FBT003 - Nuke's own signature
    attributes = shape.getAttributes()
    names = [attributes.kLifeTimeTypeAttribute, attributes.kLifeTimeNAttribute, attributes.kLifeTimeMAttribute]
    got = [
        shape.getVisible(1),
        shape.getVisible(10),
        roto["curves"].rootLayer.getVisible(1),
        names,
        names[0] in attributes,
    ]
    roto["curves"].rootLayer.getAttributes()
    return got[:4] == [True, False, True, ["ltt", "ltn", "ltm"]], got


@assumed
def check_roto_hash(_folder: Path) -> Answer:
    """An edit of one roto key leaves opHashes at the other keys alone (else Update renders every key again)."""
    roto, shape = make_roto()
    found = []
    for round_of in range(2):
        for frame in (1, 10):
            nuke.root().setFrame(frame)
            roto.forceValidate()
            found.append(list(roto.opHashes()))
        if not round_of:
            shape[0].center.addPositionKey(10, (3, 3))
            roto["curves"].changed()
    return found[0] == found[2] and found[1] != found[3], found


@assumed
def check_time_offset(_folder: Path) -> Answer:
    """TimeOffset 5 shows a frame five frames later."""
    constant = make_constant(0)
    constant["color"].fromScript("{curve K x1 0.1 x10 0.9} 0 0 1")
    offset = nuke.nodes.TimeOffset()
    offset["time_offset"].setValue(5)
    offset.setInput(0, constant)
    got = []
    for frame in (14, 15):
        nuke.root().setFrame(frame)
        got.append(look(offset))
    return is_close(got[0], 0.1) and is_close(got[1], 0.9), got


@assumed
def check_identity(_folder: Path) -> Answer:
    """One node is one Python object, and a deleted one raises ValueError."""
    node = nuke.nodes.NoOp()
    same = nuke.toNode(node.name()) is node
    nuke.delete(node)
    try:
        node.fullName()
    except ValueError as error:
        return same, [same, str(error)]
    return False, [same, "nothing was raised"]


@assumed
def check_script_name(_folder: Path) -> Answer:
    """The root's name knob is empty for a script that is not saved."""
    got = nuke.root()["name"].value()
    return not got, got


@assumed
def check_hash_mark(_folder: Path) -> Answer:
    """# in a file knob becomes the frame when it is evaluated."""
    read = nuke.nodes.Read()
    read["file"].setValue("/m/####.exr")
    got = read["file"].evaluate(7)
    return got == "/m/0007.exr", got


@assumed
def check_posting(_folder: Path) -> Answer:
    """What a thread posts with executeInMainThread is not run in nuke -t."""
    seen: list[str] = []
    thread = threading.Thread(target=nuke.executeInMainThread, args=(lambda: seen.append("ran"),))
    thread.start()
    thread.join()
    time.sleep(0.5)
    return not seen, seen


@assumed
def check_libraries(_folder: Path) -> Answer:
    """Both msgpack and pyzmq of our vendor folder can be loaded."""
    sys.path.insert(0, str(REPOSITORY / "nuke_plugin"))
    from xmem_nuke import bootstrap  # noqa: PLC0415 - the plug-in is found once its folder is on the path

    trouble = bootstrap.prepare()
    if trouble:
        return False, trouble
    import msgpack  # noqa: PLC0415
    import zmq  # noqa: PLC0415

    return True, [zmq.__version__, zmq.zmq_version(), list(msgpack.version)]


@assumed
def check_plugin(folder: Path) -> Answer:
    """The plug-in reads a shot, renders a key and a plate, and fingerprints them."""
    sys.path.insert(0, str(REPOSITORY / "nuke_plugin"))
    from xmem_nuke.fingerprints import fetch_fingerprint  # noqa: PLC0415
    from xmem_nuke.rendering import render_frames  # noqa: PLC0415
    from xmem_nuke.shot import fetch_shot  # noqa: PLC0415

    node = make_xmem()
    roto, _ = make_roto()
    roto.setInput(0, node.input(0))
    node.setInput(1, roto)
    node["cache_dir"].setValue(folder.as_posix())
    shot = fetch_shot(node)
    frames = [Path(done.path).stat().st_size for done in render_frames(node, shot, [("key", 1), ("plate", 1)])]
    prints = [fetch_fingerprint(node, shot, kind, 1) for kind in ("key", "plate")]
    return shot.key_frames == (1, 10) and all(frames) and all(prints), [list(shot.key_frames), frames, prints]
