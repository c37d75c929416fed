"""What the double's nodes do to pictures, against expectations made by hand."""

import numpy as np
import pytest

from tests.nuke.scenes import add_square, make_roto, square_alpha


def test_when_a_square_is_drawn_then_it_covers_its_pixels_and_no_others(nuke, application):
    roto = make_roto(nuke, {1: (3, 4, 5)})
    roto["format"].setValue("20 16 0 0 20 16 1")
    add_square(nuke, roto, {1: (12.5, 0, 2)})
    alpha = application.fetch_picture(roto, 1).channels["rgba.alpha"]
    expected = square_alpha(3, 4, 5, 20, 16)
    expected[14:, 12:15] = [0.5, 1, 0.5]
    np.testing.assert_array_equal(alpha, expected)


def test_when_a_merge_is_over_then_the_alpha_weighs(nuke, application):
    below, above = nuke.nodes.Constant(channels="rgba"), nuke.nodes.Constant(channels="rgba")
    below["color"].setValue([1, 1, 1, 1])
    above["color"].setValue([0.25, 0, 0, 0.5])
    merge = nuke.nodes.Merge2()
    merge.setInput(0, below)
    merge.setInput(1, above)
    picture = application.fetch_picture(merge, 1)
    assert [picture.channels[f"rgba.{name}"][0, 0] for name in ("red", "green", "blue", "alpha")] == [0.75, 0.5, 0.5, 1]


@pytest.mark.parametrize(
    ("operation", "red"), [("over", 0.75), ("plus", 1.25), ("multiply", 0.25), ("max", 1), ("min", 0.25)]
)
def test_when_pictures_are_merged_then_the_operation_says_how(nuke, application, operation, red):
    below, above = nuke.nodes.Constant(channels="rgba"), nuke.nodes.Constant(channels="rgba")
    below["color"].setValue([1, 0, 0, 1])
    above["color"].setValue([0.25, 0, 0, 0.5])
    merge = nuke.nodes.Merge2(inputs=(below, above), operation=operation)
    assert application.fetch_picture(merge, 1).channels["rgba.red"][0, 0] == red


def test_when_a_merge_is_not_modelled_then_it_is_said(nuke, application):
    merge = nuke.nodes.Merge2(inputs=(nuke.nodes.Constant(), nuke.nodes.Constant()), operation="hypot")
    with pytest.raises(NotImplementedError, match="hypot"):
        application.fetch_picture(merge, 1)


def test_when_a_checkerboard_is_made_then_boxes_and_cross_lie_around_the_centre(nuke, application):
    board = nuke.nodes.CheckerBoard2(format="8 6 0 0 8 6 1", boxsize=2, centerlinewidth=1)
    board["color2"].setValue([0.2, 0.2, 0.2, 1])
    channels = application.fetch_picture(board, 1).channels
    odd, even, line = [0.5, 0.5, 0.2, 0.2, 1, 0.5, 0.2, 0.2], [0.1, 0.1, 0.5, 0.5, 1, 0.1, 0.5, 0.5], [1.0] * 8
    np.testing.assert_allclose(channels["rgba.red"], [odd, even, line, odd, odd, even], rtol=1e-6)
    assert channels["rgba.blue"][2, 0] == 0  # the cross is yellow
    assert set(np.unique(channels["rgba.alpha"])) == {1.0}


def test_when_channels_are_shuffled_then_each_comes_from_where_it_is_said(nuke, application):
    color = nuke.nodes.Constant(channels="rgba", color=[0.1, 0.2, 0.3, 0.4])
    shuffle = nuke.nodes.Shuffle2(inputs=(color,))
    assert application.fetch_picture(shuffle, 1).channels["rgba.green"][0, 0] == np.float32(0.2)
    shuffle["mappings"].fromScript(
        "4 rgba.alpha 0 3 rgba.red 0 0 black -1 -1 rgba.green 0 1 rgba.red 0 0 rgba.blue 0 2 white -1 -1 rgba.alpha 0 3"
    )
    application.read_text(application.write_text())
    channels = application.fetch_picture(nuke.toNode("Shuffle1"), 1).channels
    got = [float(channels[f"rgba.{name}"][0, 0]) for name in ("red", "green", "blue", "alpha")]
    assert got == pytest.approx([0.4, 0, 0.1, 1])


def test_when_a_shuffle_is_not_modelled_then_it_is_said(nuke, application):
    shuffle = nuke.nodes.Shuffle2(inputs=(nuke.nodes.Constant(),))
    shuffle["mappings"].fromScript("1 rgba.red 0 0 rgba.alpha 0 3")
    with pytest.raises(NotImplementedError, match="rgba of input B"):
        application.fetch_picture(shuffle, 1)


def test_when_a_view_is_shown_then_opencolorio_makes_it(nuke, application):
    nuke.root()["OCIO_config"].setValue("cg-config-v2.1.0_aces-v1.3_ocio-v2.3")
    shown = nuke.nodes.OCIODisplay(inputs=(nuke.nodes.Constant(color=[0.18] * 4),), display="sRGB - Display")
    shown["view"].setValue("Un-tone-mapped")
    assert application.fetch_picture(shown, 1).channels["rgba.red"][0, 0] == pytest.approx(0.4614, abs=1e-3)
