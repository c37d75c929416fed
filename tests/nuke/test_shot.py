import dataclasses

import pytest

from tests.nuke.scenes import add_square, grey, make_plate, make_roto, make_xmem, save_plate
from xmem_protocol import InputError

SQUARE = (8, 8, 16)


@pytest.fixture
def shot(application):
    from xmem_nuke import shot  # noqa: PLC0415 - Nuke is there from the fixture on

    return shot


@pytest.fixture
def plate(nuke, tmp_path):
    return make_plate(nuke, save_plate(tmp_path / "plate", [1001], grey), 1001, 1100)


@pytest.fixture
def make(nuke, plate, tmp_path):
    """Give a function that makes the node for a Roto with these keys."""

    def make_node(keys, first=1001, last=1100):
        roto = make_roto(nuke, keys, background=plate)
        return make_xmem(nuke, plate, roto, first, last, tmp_path / "cache")

    return make_node


def test_when_a_shot_is_fetched_then_it_says_all_there_is_to_know(shot, make, tmp_path):
    node = make({1001: SQUARE, 1050: SQUARE, 1100: SQUARE})
    got = shot.fetch_shot(node)
    assert dataclasses.replace(got, session="") == shot.Shot(
        node_name="XMem1",
        session="",
        width=64,
        height=48,
        pixel_aspect=1.0,
        first=1001,
        last=1100,
        colorspace="display",
        proxy=False,
        objects=(shot.ObjectChannel(1, "rgba.alpha"),),
        key_frames=(1001, 1050, 1100),
        key_objects=((1,), (1,), (1,)),
        cache_dir=(tmp_path / "cache").as_posix(),
        warnings=(),
    )
    assert got.session == node["session"].value()


def test_when_a_shot_is_fetched_then_the_script_is_as_it_was(shot, nuke, make, application):
    node = make({1001: SQUARE})
    nuke.root().setFrame(1042)
    nuke.root().setProxy(True)
    nuke.root().setModified(False)
    steps, text = len(application.undo.steps), application.write_text()
    shot.fetch_shot(node)
    assert (len(application.undo.steps), application.write_text()) == (steps, text)
    assert (nuke.frame(), nuke.root().proxy(), nuke.root().modified()) == (1042, True, False)


@pytest.mark.parametrize(("index", "name"), [(0, "plate"), (1, "roto")])
def test_when_an_input_is_not_connected_then_the_artist_is_told_which(shot, make, index, name):
    node = make({1001: SQUARE})
    node.setInput(index, None)
    with pytest.raises(InputError, match=rf"^The {name} input of XMem1 is not connected\. Connect"):
        shot.fetch_shot(node)


def test_when_the_range_is_empty_then_the_artist_is_told(shot, make):
    node = make({1001: SQUARE}, first=1010, last=1001)
    with pytest.raises(InputError, match="frame range 1010 to 1001 is empty"):
        shot.fetch_shot(node)


def test_when_proxy_mode_is_on_then_the_size_is_the_full_one(shot, nuke, make):
    node = make({1001: SQUARE})
    nuke.root().setProxy(True)
    got = shot.fetch_shot(node)
    assert (got.width, got.height, got.proxy) == (64, 48, True)


def test_when_frames_are_negative_then_they_stay_so(shot, nuke, plate, tmp_path):
    roto = make_roto(nuke, {-10: SQUARE, 0: SQUARE, 5: SQUARE}, background=plate)
    got = shot.fetch_shot(make_xmem(nuke, plate, roto, -10, 5, tmp_path))
    assert (got.first, got.last, got.key_frames) == (-10, 5, (-10, 0, 5))


def test_when_the_plate_is_anamorphic_then_its_pixel_aspect_is_kept(shot, nuke, tmp_path):
    plate = make_plate(nuke, save_plate(tmp_path / "wide", [1001], grey, pixel_aspect=2.0), 1001, 1001)
    got = shot.fetch_shot(
        make_xmem(nuke, plate, make_roto(nuke, {1001: SQUARE}, background=plate), 1001, 1001, tmp_path)
    )
    assert got.pixel_aspect == 2.0


def test_when_the_roto_has_another_size_then_the_artist_is_told_both(shot, nuke, plate, tmp_path):
    node = make_xmem(nuke, plate, make_roto(nuke, {1001: SQUARE}), 1001, 1100, tmp_path)
    with pytest.raises(InputError, match=r"The roto input is 1920x1080 but the plate is 64x48\. Connect the Roto's bg"):
        shot.fetch_shot(node)


def test_when_the_roto_has_another_pixel_aspect_then_the_artist_is_told_both(shot, nuke, plate, tmp_path):
    roto = make_roto(nuke, {1001: SQUARE})
    roto["format"].setValue("64 48 0 0 64 48 2")
    with pytest.raises(InputError, match="pixel aspect 2 but the plate has 1"):
        shot.fetch_shot(make_xmem(nuke, plate, roto, 1001, 1100, tmp_path))


# ------------------------------------------------------------------------------------------------------------- objects


def test_when_two_objects_are_named_then_each_has_its_channel(shot, nuke, plate, tmp_path):
    first = make_roto(nuke, {1001: SQUARE}, background=plate)
    second = make_roto(nuke, {1010: SQUARE}, background=first, output="rgba.red")
    node = make_xmem(nuke, plate, second, 1001, 1100, tmp_path)
    node["objects"].setValue(" 3 = red; 1=alpha ;")
    got = shot.fetch_shot(node)
    assert got.objects == (shot.ObjectChannel(1, "rgba.alpha"), shot.ObjectChannel(3, "rgba.red"))
    assert got.key_frames == (1001, 1010)
    assert got.key_objects == ((1,), (3,))


def test_when_a_key_is_added_by_hand_then_all_objects_are_keyed_there(shot, nuke, plate, tmp_path):
    first = make_roto(nuke, {1001: SQUARE, 1020: SQUARE}, background=plate)
    second = make_roto(nuke, {1010: SQUARE}, background=first, output="rgba.red")
    node = make_xmem(nuke, plate, second, 1001, 1100, tmp_path)
    node["objects"].setValue("1=alpha; 3=red")
    node["manual_keys"].setValue("1020 1030")
    got = shot.fetch_shot(node)
    assert dict(zip(got.key_frames, got.key_objects, strict=True)) == {
        1001: (1,), 1010: (3,), 1020: (1, 3), 1030: (1, 3),
    }  # fmt: skip


@pytest.mark.parametrize("trouble", ["a node between", "another channel", "no key in the range"])
def test_when_the_rotos_cannot_be_told_apart_then_every_key_is_of_all_objects(shot, nuke, plate, tmp_path, trouble):
    first = make_roto(nuke, {1001: SQUARE, 1020: SQUARE}, background=plate)
    keyed = 1 if trouble == "no key in the range" else 1010
    second = make_roto(nuke, {keyed: SQUARE}, background=first, output="rgba.red")
    below = nuke.nodes.Shuffle2(inputs=(second,)) if trouble == "a node between" else second
    if trouble == "another channel":
        second["output"].setValue("rgba")
    node = make_xmem(nuke, plate, below, 1001, 1100, tmp_path)
    node["objects"].setValue("1=alpha; 3=red")
    got = shot.fetch_shot(node)
    assert set(got.key_objects) == {(1, 3)}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("alpha", "Objects says 'alpha'"),
        ("1:alpha", "Objects says '1:alpha'"),
        ("0=alpha", "Object 0 is not between 1 and 255"),
        ("300=alpha", "Object 300 is not between 1 and 255"),
        ("1=alpha; 1=red", "names object 1 twice"),
        ("1=roto2.alpha", "no channel roto2.alpha for object 1: it has rgba.red"),
        ("", "Objects is empty"),
    ],
)
def test_when_objects_cannot_be_understood_then_the_artist_is_told_what_to_write(shot, make, text, words):
    node = make({1001: SQUARE})
    node["objects"].setValue(text)
    with pytest.raises(InputError, match=words):
        shot.fetch_shot(node)


# ------------------------------------------------------------------------------------------------------------ key frames


def test_when_points_layers_and_tangents_are_keyed_then_all_their_frames_count(shot, nuke, make):
    node = make({1001: SQUARE})
    curves = node.input(1)["curves"]
    curves.rootLayer[0][2].leftTangent.addPositionKey(1020, (0, 0))
    curves.rootLayer[0][1].featherCenter.addPositionKey(1030, (0, 0))
    curves.rootLayer.getTransform().addTransformKey(1040)
    inner = nuke.rotopaint.Layer(curves)
    curves.rootLayer.append(inner)
    add_square(nuke, node.input(1), {1050.4: SQUARE}, curves.rootLayer[1]).getTransform().addTransformKey(1060)
    assert shot.fetch_roto_key_frames(node) == (1001, 1020, 1030, 1040, 1050, 1060)


def test_when_a_shape_is_hidden_or_not_alive_then_its_keys_do_not_count(shot, nuke, make):
    node = make({1001: SQUARE, 1010: SQUARE})
    root = node.input(1)["curves"].rootLayer
    root[0].setVisible(1010, False)
    single = add_square(nuke, node.input(1), {1020: SQUARE, 1030: SQUARE})
    single.getAttributes().set(0, "ltt", 2)
    single.getAttributes().set(0, "ltn", 1030)
    single.getAttributes().set(0, "ltm", 1030)
    assert shot.fetch_roto_key_frames(node) == (1001, 1030)


def test_when_a_stroke_is_painted_then_its_frame_counts(shot, nuke, make, plate):
    node = make({1001: SQUARE})
    paint = nuke.nodes.RotoPaint()
    paint.setInput(0, node.input(1))
    stroke = nuke.rotopaint.Stroke()
    point = nuke.rotopaint.AnimControlPoint()
    point.addPositionKey(1015, (3, 3))
    stroke.append(point)
    paint["curves"].rootLayer.append(stroke)
    node.setInput(1, paint)
    assert shot.fetch_roto_key_frames(node) == (1001, 1015)


def test_when_the_roto_is_disabled_then_its_keys_do_not_count(shot, make):
    node = make({1001: SQUARE})
    node.input(1)["disable"].setValue(True)
    assert shot.fetch_roto_key_frames(node) == ()


def test_when_the_roto_is_offset_in_time_then_its_keys_are_too(shot, nuke, make):
    node = make({1001: SQUARE, 1010: SQUARE})
    offset = nuke.nodes.TimeOffset(time_offset=5)
    offset.setInput(0, node.input(1))
    node.setInput(1, offset)
    assert shot.fetch_roto_key_frames(node) == (1006, 1015)


def test_when_a_hold_is_between_then_the_keys_above_are_left_out_and_the_artist_is_told(shot, nuke, make):
    node = make({1001: SQUARE})
    hold = nuke.nodes.FrameHold(firstFrame=1001)
    hold.setInput(0, node.input(1))
    node.setInput(1, hold)
    node["manual_keys"].setValue("1005")
    got = shot.fetch_shot(node)
    assert got.key_frames == (1005,)
    assert got.warnings == ("FrameHold1 (FrameHold) changes time, so roto keys above it are not used.",)


def test_when_the_roto_is_inside_a_group_then_it_is_found(shot, nuke, make):
    node = make({1001: SQUARE})
    roto = node.input(1)
    group = nuke.nodes.Group()
    with group:
        inner = make_roto(nuke, {1033: SQUARE})
        output = nuke.nodes.Output()
        output.setInput(0, inner)
        entry = nuke.nodes.Input()
        inner.setInput(0, entry)
    group.setInput(0, roto)
    node.setInput(1, group)
    assert shot.fetch_roto_key_frames(node) == (1001, 1033)


def test_when_others_have_painted_on_the_plate_then_their_keys_do_not_count(shot, nuke, make):
    node = make({1001: SQUARE})
    paint = make_roto(nuke, {1044: SQUARE}, background=node.input(0))
    node.setInput(0, paint)
    node.input(1).setInput(0, paint)
    assert shot.fetch_roto_key_frames(node) == (1001,)


def test_when_one_roto_feeds_both_inputs_then_its_keys_count(shot, make):
    node = make({1001: SQUARE, 1010: SQUARE})
    node.setInput(0, node.input(1))
    assert shot.fetch_roto_key_frames(node) == (1001, 1010)


def test_when_a_switch_or_a_disabled_node_leaves_a_roto_out_then_its_keys_do_not_count(shot, nuke, make):
    node = make({1001: SQUARE})
    other, third = (make_roto(nuke, {frame: SQUARE}) for frame in (1020, 1030))
    switch = nuke.nodes.Switch(inputs=(node.input(1), other), which=0)
    merge = nuke.nodes.Merge2(inputs=(switch, third), disable=True)
    node.setInput(1, merge)
    assert shot.fetch_roto_key_frames(node) == (1001,)
    switch["which"].setValue(1)
    merge["disable"].setValue(False)
    assert shot.fetch_roto_key_frames(node) == (1020, 1030)


def test_when_keys_are_added_and_removed_then_they_change_what_the_roto_says(shot, make):
    node = make({1001: SQUARE, 1010: SQUARE, 1020: SQUARE})
    node["manual_keys"].setValue("1005 1099")
    node["removed_keys"].setValue("1010, 1099")
    assert shot.fetch_shot(node).key_frames == (1001, 1005, 1020, 1099)
    node["use_roto_keys"].setValue(False)
    assert shot.fetch_shot(node).key_frames == (1005, 1099)


def test_when_keys_lie_outside_the_range_then_they_are_left_out_and_named(shot, make):
    got = shot.fetch_shot(make({990: SQUARE, 1001: SQUARE, 1200: SQUARE}))
    assert got.key_frames == (1001,)
    assert got.warnings == ("Keys outside the frame range 1001 to 1100 are left out: 990, 1200.",)


def test_when_there_is_no_key_at_all_then_the_artist_is_told_what_to_do(shot, make):
    node = make({1001: SQUARE})
    node["use_roto_keys"].setValue(False)
    with pytest.raises(InputError, match=r"no key between frame 1001 and 1100\. Draw the object"):
        shot.fetch_shot(node)


def test_when_a_roto_was_drawn_once_outside_the_range_then_the_artist_is_told_how_to_use_it(shot, nuke, make):
    node = make({1: SQUARE})
    with pytest.raises(InputError, match=r"All keys lie outside the frame range 1001 to 1100: 1\. Go to a frame"):
        shot.fetch_shot(node)
    node["manual_keys"].setValue("1050")
    assert shot.fetch_shot(node).key_frames == (1050,)


# -------------------------------------------------------------------------------------------------------------- thinning


EVERY_FRAME = dict.fromkeys(range(1001, 1101), SQUARE)


def test_when_the_roto_has_a_key_on_every_frame_then_the_artist_must_choose(shot, make):
    node = make(EVERY_FRAME)
    with pytest.raises(
        InputError, match=r"keys on 100 of the frames 1001 to 1100; a few good keys are enough\. Set Which"
    ):
        shot.fetch_shot(node)
    node["thin_keys"].setValue("All keys")
    assert shot.fetch_shot(node).key_frames == tuple(range(1001, 1101))


def test_when_every_nth_key_is_chosen_then_the_first_and_each_nth_after_it_are_taken(shot, make):
    node = make(EVERY_FRAME)
    node["thin_keys"].setValue("Every Nth key")
    node["thin_step"].setValue(30)
    assert shot.fetch_shot(node).key_frames == (1001, 1031, 1061, 1091)
    node["thin_step"].setValue(0)
    with pytest.raises(InputError, match="N is 0"):
        shot.fetch_shot(node)


def test_when_keys_that_all_shapes_share_are_chosen_then_only_those_are_taken(shot, nuke, make):
    node = make(EVERY_FRAME)
    add_square(nuke, node.input(1), {1001: SQUARE, 1050: SQUARE})
    node["thin_keys"].setValue("Where all shapes have a key")
    assert shot.fetch_shot(node).key_frames == (1001, 1050)


def test_when_shapes_share_no_key_then_the_artist_is_told(shot, nuke, make):
    node = make({1001: SQUARE})
    add_square(nuke, node.input(1), {1050: SQUARE})
    node["thin_keys"].setValue("Where all shapes have a key")
    with pytest.raises(InputError, match="No frame has a key on all 2 roto shapes"):
        shot.fetch_shot(node)


# ------------------------------------------------------------------------------------------------------- cache, editions


def test_when_no_cache_is_chosen_then_it_is_beside_the_script(shot, nuke, make, tmp_path):
    node = make({1001: SQUARE})
    node["cache_dir"].setValue("")
    assert "not saved" in shot.fetch_shot(node).warnings[0]
    nuke.scriptSaveAs(str(tmp_path / "comp.nk"))
    got = shot.fetch_shot(node)
    assert (got.cache_dir, got.warnings) == ((tmp_path / "xmem_cache").as_posix(), ())


def test_when_the_cache_is_relative_then_it_is_under_the_script(shot, nuke, make, tmp_path):
    node = make({1001: SQUARE})
    node["cache_dir"].setValue("mattes")
    with pytest.raises(InputError, match="is relative and the script is not saved"):
        shot.fetch_shot(node)
    nuke.scriptSaveAs(str(tmp_path / "comp.nk"))
    assert shot.fetch_shot(node).cache_dir == (tmp_path / "mattes").as_posix()


def test_when_the_cache_has_letters_that_nuke_reads_as_code_then_the_artist_is_told(shot, make):
    node = make({1001: SQUARE})
    node["cache_dir"].setValue("/tmp/shot#3")
    with pytest.raises(InputError, match="contains #, which Nuke reads as code"):
        shot.fetch_shot(node)


def test_when_nuke_shows_ten_nodes_then_a_shot_takes_few_of_them(shot, nuke, make, application):
    node = make({1001: SQUARE})
    roto = node.input(1)
    for _ in range(20):
        above = nuke.nodes.NoOp()
        above.setInput(0, roto.input(0))
        roto.setInput(0, above)
    application.limit_nodes()
    assert shot.fetch_shot(node).key_frames == (1001,)
    assert len(application.rules.seen_nodes) <= 5


def test_when_nuke_shows_ten_nodes_and_the_roto_is_far_then_the_artist_is_told(shot, nuke, make, application):
    node = make({1001: SQUARE})
    for _ in range(6):
        below = nuke.nodes.NoOp()
        below.setInput(0, node.input(1))
        node.setInput(1, below)
    node["manual_keys"].setValue("1001")
    application.limit_nodes()
    got = shot.fetch_shot(node)
    assert got.key_frames == (1001,)
    assert "this edition of Nuke shows Python few nodes" in got.warnings[0]
