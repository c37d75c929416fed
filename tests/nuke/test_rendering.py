from pathlib import Path

import numpy as np
import OpenEXR
import pytest

from tests.nuke.scenes import (
    HEIGHT,
    WIDTH,
    grey,
    make_plate,
    make_roto,
    make_xmem,
    read_exr,
    save_plate,
    square_alpha,
)
from xmem_protocol import InputError
from xmem_server.colour import encode_linear
from xmem_server.keys import fetch_alpha

LEFT, BOTTOM, SIZE = SQUARE = (8, 10, 16)


@pytest.fixture
def rendering(application):
    from xmem_nuke import rendering  # noqa: PLC0415 - Nuke is there from the fixture on

    return rendering


@pytest.fixture
def shot(application):
    from xmem_nuke import shot  # noqa: PLC0415

    return shot


@pytest.fixture
def make(nuke, tmp_path):
    """Give a function that makes a node over a plate that ``save_plate`` writes."""

    def make_node(frames=range(1001, 1004), keys=None, pixels=grey, **windows):
        plate = make_plate(nuke, save_plate(tmp_path / "plate", frames, pixels, **windows), frames[0], frames[-1])
        roto = make_roto(nuke, keys or {frames[0]: SQUARE}, background=plate)
        return make_xmem(nuke, plate, roto, frames[0], frames[-1], tmp_path / "cache")

    return make_node


@pytest.fixture
def render(rendering, shot):
    """Give a function that renders and gives the paths."""

    def render_all(node, *wanted):
        return [Path(done.path) for done in rendering.render_frames(node, shot.fetch_shot(node), wanted)]

    return render_all


def stack(channels):
    return np.stack([channels[letter] for letter in "RGB"], axis=-1).astype(np.float32)


# -------------------------------------------------------------------------------------------------------------- pixels


def test_when_a_plate_is_rendered_then_it_is_display_referred_half_rgb(make, render):
    (path,) = render(make(), ("plate", 1002))
    channels, _ = read_exr(path)
    assert {name: pixels.dtype for name, pixels in channels.items()} == dict.fromkeys("RGB", np.float16)
    np.testing.assert_allclose(stack(channels), encode_linear(grey(1002)), atol=1e-3)


def test_when_a_key_is_rendered_then_it_is_the_roto_exactly(make, render):
    (path,) = render(make(), ("key", 1001))
    channels, _ = read_exr(path)
    assert {name: pixels.dtype for name, pixels in channels.items()} == {"A": np.float32}
    np.testing.assert_array_equal(channels["A"], square_alpha(*SQUARE))


def test_when_the_edge_is_soft_then_the_server_reads_what_nuke_drew(make, render, application):
    node = make(keys={1001: (8.25, 10.5, 16)})
    (path,) = render(node, ("key", 1001))
    drawn = application.fetch_picture(node.input(1), 1001).channels["rgba.alpha"]
    assert 0 < drawn[HEIGHT - 20, 8] < 1
    np.testing.assert_array_equal(fetch_alpha(path, ".exr", "channel:A"), drawn)


def test_when_two_objects_are_drawn_then_one_key_carries_both(nuke, make, render):
    from xmem_nuke.orders import fetch_exr_channel  # noqa: PLC0415

    node = make()
    second = make_roto(nuke, {1001: (40, 4, 8)}, background=node.input(1), output="rgba.red")
    node.setInput(1, second)
    node["objects"].setValue("1=alpha; 2=red")
    node["plate_conversion"].setValue("As is")
    # The second roto draws into the red of the plate below it, so the plate is taken out first.
    black = nuke.nodes.Constant(format="64 48 0 0 64 48 1")
    node.input(1).input(0).setInput(0, black)
    (path,) = render(node, ("key", 1001))
    first, other = (fetch_alpha(path, ".exr", f"channel:{fetch_exr_channel(c)}") for c in ("rgba.alpha", "rgba.red"))
    np.testing.assert_array_equal(first, square_alpha(*SQUARE))
    np.testing.assert_array_equal(other, square_alpha(40, 4, 8))


def test_when_an_object_is_in_a_layer_then_the_key_has_that_layer(nuke, make, render):
    node = make()
    node.setInput(1, make_roto(nuke, {1001: (40, 4, 8)}, background=node.input(0), output="roto2.alpha"))
    node["objects"].setValue("1=roto2.alpha")
    (path,) = render(node, ("key", 1001))
    np.testing.assert_array_equal(fetch_alpha(path, ".exr", "channel:roto2.alpha"), square_alpha(40, 4, 8))


def test_when_the_data_window_is_larger_than_the_format_then_the_format_is_rendered(make, render):
    def overscan(frame):
        picture = np.zeros((HEIGHT + 20, WIDTH + 20, 3), np.float32)
        picture[10:-10, 10:-10] = grey(frame)
        return picture

    window = ((-10, -10), (WIDTH + 9, HEIGHT + 9))
    node = make(pixels=overscan, window=window, display=((0, 0), (WIDTH - 1, HEIGHT - 1)))
    plate, key = render(node, ("plate", 1001), ("key", 1001))
    channels, header = read_exr(plate)
    assert [list(map(int, corner)) for corner in header["dataWindow"]] == [[0, 0], [WIDTH - 1, HEIGHT - 1]]
    np.testing.assert_allclose(stack(channels), encode_linear(grey(1001)), atol=1e-3)
    np.testing.assert_array_equal(read_exr(key)[0]["A"], square_alpha(*SQUARE))


def test_when_the_data_window_is_smaller_than_the_format_then_the_rest_is_black(make, render):
    node = make(
        pixels=lambda frame: grey(frame)[:20, :30], window=((5, 6), (34, 25)), display=((0, 0), (WIDTH - 1, HEIGHT - 1))
    )
    channels, _ = read_exr(render(node, ("plate", 1001))[0])
    expected = np.zeros((HEIGHT, WIDTH, 3), np.float32)
    expected[6:26, 5:35] = encode_linear(grey(1001)[:20, :30])
    np.testing.assert_allclose(stack(channels), expected, atol=1e-3)


def test_when_the_plate_is_anamorphic_then_the_files_say_so(make, render):
    for path in render(make(pixel_aspect=2.0), ("plate", 1001), ("key", 1001)):
        assert read_exr(path)[1]["pixelAspectRatio"] == 2.0


def test_when_proxy_mode_is_on_then_the_full_size_is_rendered(nuke, make, render):
    node = make()
    nuke.root().setProxy(True)
    assert read_exr(render(node, ("plate", 1001))[0])[0]["R"].shape == (HEIGHT, WIDTH)
    assert nuke.root().proxy()


def test_when_frames_are_negative_then_they_are_rendered_under_their_own_number(make, render):
    node = make(frames=range(-2, 1), keys={-2: SQUARE})
    paths = render(node, ("plate", -1), ("key", -2))
    assert [path.name for path in paths] == ["plate.-1.exr", "key.-2.exr"]
    np.testing.assert_allclose(stack(read_exr(paths[0])[0]), encode_linear(grey(-1)), atol=1e-3)


def test_when_the_roto_moves_then_each_frame_is_rendered_at_its_own_time(make, render):
    node = make(keys={1001: (0, 0, 10), 1003: (20, 20, 10)})
    paths = render(node, ("key", 1001), ("key", 1003), ("key", 1002))
    for path, corner in zip(paths, (0, 20, 10), strict=True):
        np.testing.assert_array_equal(read_exr(path)[0]["A"], square_alpha(corner, corner, 10))


def test_when_the_plate_is_held_then_every_frame_shows_the_held_one(nuke, make, render):
    node = make()
    hold = nuke.nodes.FrameHold(inputs=(node.input(0),), firstFrame=1003)
    node.setInput(0, hold)
    paths = render(node, ("plate", 1001), ("plate", 1003))
    assert paths[0].read_bytes() == paths[1].read_bytes()
    np.testing.assert_allclose(stack(read_exr(paths[0])[0]), encode_linear(grey(1003)), atol=1e-3)


# ---------------------------------------------------------------------------------------------------------- leaving alone


def state_of(nuke, application):
    selected = [node.name() for node in nuke.selectedNodes()]
    undo = application.undo
    return (
        application.write_text(), nuke.frame(), nuke.root().proxy(), nuke.root().modified(), selected, len(undo.steps),
        undo.disabled, len(application.groups),
    )  # fmt: skip


@pytest.fixture
def node_at_work(nuke, make):
    """A node in a script that is saved, in proxy mode, at another frame, with the plate selected."""
    node = make()
    node.input(0).selectOnly()
    nuke.root().setFrame(1003)
    nuke.root().setProxy(True)
    nuke.root().setModified(False)
    return node


def test_when_frames_are_rendered_then_the_script_is_untouched_after_each(
    nuke, application, node_at_work, rendering, shot
):
    before = state_of(nuke, application)
    wanted = [("key", 1001), ("plate", 1001), ("plate", 1002)]
    for done, (kind, frame) in zip(
        rendering.render_frames(node_at_work, shot.fetch_shot(node_at_work), wanted), wanted, strict=True
    ):
        assert (done.kind, done.frame) == (kind, frame)
        assert state_of(nuke, application) == before


@pytest.mark.parametrize("trouble", ["cancel_at", "fail_at", "lose_at"])
def test_when_a_render_goes_wrong_then_the_script_is_untouched(nuke, application, node_at_work, render, trouble):
    before = state_of(nuke, application)
    setattr(application.renders, trouble, 1002)
    with pytest.raises(Exception, match="1002"):
        render(node_at_work, ("plate", 1001), ("plate", 1002))
    assert state_of(nuke, application) == before


def test_when_the_artist_works_between_two_frames_then_their_frame_and_selection_stay(
    nuke, node_at_work, rendering, shot
):
    frames = rendering.render_frames(node_at_work, shot.fetch_shot(node_at_work), [("plate", 1001), ("plate", 1002)])
    next(frames)
    nuke.root().setFrame(1002)
    node_at_work.selectOnly()
    next(frames)
    assert nuke.frame() == 1002
    assert nuke.selectedNodes() == [node_at_work]


def test_when_rendering_is_dropped_then_nothing_of_it_is_left(nuke, application, node_at_work, rendering, shot):
    before = state_of(nuke, application)
    frames = rendering.render_frames(node_at_work, shot.fetch_shot(node_at_work), [("plate", 1001), ("plate", 1002)])
    next(frames)
    frames.close()
    assert state_of(nuke, application) == before
    assert [frame for _, frame in application.renders.done] == [1001]


# ------------------------------------------------------------------------------------------------------------- refusals


def test_when_the_artist_cancels_in_nuke_then_it_is_a_cancel_and_no_error(make, render, rendering, application):
    application.renders.cancel_at = 1001
    with pytest.raises(rendering.RenderCancelledError, match="cancelled at frame 1001 of the plate"):
        render(make(), ("plate", 1001))


def test_when_nuke_cannot_render_then_the_artist_is_told_why(make, render, application):
    application.renders.fail_at = 1001
    with pytest.raises(InputError, match="Frame 1001 of the key could not be rendered: Read1: damaged file"):
        render(make(), ("key", 1001))


def test_when_the_file_is_not_there_afterwards_then_the_artist_is_told(make, render, application):
    application.renders.lose_at = 1001
    with pytest.raises(InputError, match="Check the disk"):
        render(make(), ("plate", 1001))


def test_when_an_old_render_is_there_then_it_is_not_taken_for_the_new_one(make, render, application):
    node = make()
    render(node, ("plate", 1001))
    application.renders.lose_at = 1001
    with pytest.raises(InputError, match="Check the disk"):
        render(node, ("plate", 1001))


def test_when_the_cache_cannot_be_written_then_the_artist_is_told(make, render, tmp_path):
    node = make()
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(InputError, match="cannot be written"):
        render(node, ("plate", 1001))


def test_when_nuke_shows_ten_nodes_then_a_long_shot_still_renders_and_reloads(nuke, make, application, render):
    node = make(frames=range(1001, 1013))
    application.limit_nodes()
    for _ in range(2):
        assert len(render(node, ("key", 1001), *(("plate", frame) for frame in range(1001, 1013)))) == 13
    for name in ("MatteRead", "LayersRead"):
        node.node(name)["reload"].execute()
    nuke.root().setFrame(1002)
    assert len(application.rules.seen_nodes) <= 10
    assert node.node("XMemRender")["disable"].value() is True


def test_when_a_full_edition_has_rendered_then_the_group_has_no_write(make, render):
    node = make()
    render(node, ("plate", 1001))
    assert "Write" not in {inner.Class() for inner in node.nodes()}


def test_when_a_key_has_no_colour_file_type_knobs_then_the_server_can_still_tell_its_size(make, render):
    (path,) = render(make(), ("key", 1001))
    assert OpenEXR.File(str(path), header_only=True).header()["compression"] == OpenEXR.ZIPS_COMPRESSION
