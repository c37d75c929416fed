import pytest

from tests.nuke.scenes import grey, make_plate, make_roto, make_xmem, save_plate

SQUARE = (8, 10, 16)
FRAMES = (1001, 1002, 1003)


@pytest.fixture
def scene(nuke, application, tmp_path):
    plate = make_plate(nuke, save_plate(tmp_path / "plate", FRAMES, grey), 1001, 1003)
    grade = nuke.nodes.Grade()
    grade.setInput(0, plate)
    roto = make_roto(nuke, dict.fromkeys(FRAMES, SQUARE), background=plate)
    return make_xmem(nuke, grade, roto, 1001, 1003, tmp_path / "cache")


@pytest.fixture
def fetch(application):
    from xmem_nuke.fingerprints import fetch_fingerprint  # noqa: PLC0415 - Nuke is there from the fixture on
    from xmem_nuke.shot import fetch_shot  # noqa: PLC0415

    def fetch_all(node):
        shot = fetch_shot(node)
        return {
            (kind, frame): fetch_fingerprint(node, shot, kind, frame) for kind in ("plate", "key") for frame in FRAMES
        }

    return fetch_all


def changed(before, after):
    return {what for what in before if before[what] != after[what]}


PLATES = {("plate", frame) for frame in FRAMES}
KEYS = {("key", frame) for frame in FRAMES}


def test_when_nothing_changed_then_every_fingerprint_is_the_same(scene, fetch):
    first = fetch(scene)
    assert fetch(scene) == first
    assert len(set(first.values())) == 6
    assert all(len(digits) == 64 for digits in first.values())


def test_when_one_key_is_edited_then_its_frame_alone_changes(nuke, scene, fetch):
    before = fetch(scene)
    scene.input(1)["curves"].rootLayer[0][0].center.addPositionKey(1002, (4, 4))
    assert changed(before, fetch(scene)) == {("key", 1002)}


def test_when_a_grade_above_the_plate_changes_then_every_plate_does(scene, fetch):
    before = fetch(scene)
    scene.input(0)["multiply"].setValue(1.5)
    assert changed(before, fetch(scene)) == PLATES


@pytest.mark.parametrize(
    ("knob", "value"), [("plate_conversion", "As is"), ("exposure", 1), ("region", [0, 0, 10, 10])]
)
def test_when_the_conversion_changes_then_every_plate_does(scene, fetch, knob, value):
    before = fetch(scene)
    scene[knob].setValue(value)
    assert changed(before, fetch(scene)) == PLATES


def test_when_the_channel_of_an_object_changes_then_every_key_does(scene, fetch):
    before = fetch(scene)
    scene["objects"].setValue("1=red")
    assert changed(before, fetch(scene)) == KEYS


def test_when_knobs_that_no_pixel_depends_on_change_then_nothing_does(scene, fetch):
    before = fetch(scene)
    for name, value in (("edge_softness", 3), ("show_object", 2), ("threshold", 0.3), ("xpos", 50), ("label", "hero")):
        scene[name].setValue(value)
    assert fetch(scene) == before


def test_when_fingerprints_are_fetched_then_the_script_is_untouched(nuke, application, scene, fetch):
    nuke.root().setFrame(1002)
    nuke.root().setModified(False)
    steps = len(application.undo.steps)
    fetch(scene)
    assert (nuke.frame(), nuke.root().modified(), len(application.undo.steps)) == (1002, False, steps)


@pytest.mark.parametrize("answer", [[], [0], None])
def test_when_nuke_gives_no_hash_then_there_is_no_fingerprint(scene, fetch, monkeypatch, nuke, answer):
    monkeypatch.setattr(nuke.Node, "opHashes", lambda _: answer)
    assert set(fetch(scene).values()) == {""}


def test_when_this_nuke_has_no_such_call_then_there_is_no_fingerprint(scene, fetch, monkeypatch, nuke):
    monkeypatch.delattr(nuke.Node, "opHashes")
    assert set(fetch(scene).values()) == {""}
