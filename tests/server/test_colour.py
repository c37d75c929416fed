"""Colour: hand numbers of the formula, what OpenColorIO gives, and what is refused."""

import os

import numpy as np
import pytest

from xmem_protocol import InputError
from xmem_server.colour import convert_channel, convert_pixels, encode_linear, fetch_colour_id, fetch_transform
from xmem_server.headers import FLOAT, INTEGER, VIDEO


@pytest.fixture(autouse=True)
def _no_facility_config(monkeypatch):
    monkeypatch.delenv("OCIO", raising=False)


def _convert(colorspace, kind, rgb):
    transform = fetch_transform(colorspace, kind)
    stored = np.asarray(rgb, np.float32).reshape(1, 1, 3)
    pixels = np.stack([convert_channel(transform, stored[..., at]) for at in range(3)], axis=-1)
    return convert_pixels(transform, pixels)[0, 0]


@pytest.mark.parametrize(
    ("linear", "display"),
    [
        (0.0, 0.0),
        (0.002, 12.92 * 0.002),
        (0.18, 0.461356),
        (0.5, 0.735357),
        (1.0, 0.9),  # e = 1, t = 1: half of the room above the knee
        (4.0, 0.8 + 0.2 * (1.824832 - 0.8) / 0.2 / (1 + (1.824832 - 0.8) / 0.2)),
        (-3.0, 0.0),
        (65504, 0.999624),  # e = 107.1045, t = 531.5225
        (np.inf, 0.999624),
        (-np.inf, 0.0),
        (np.nan, 0.0),
    ],
)
def test_when_linear_values_are_encoded_then_they_match_the_formula_by_hand(linear, display):
    assert encode_linear(np.array([linear], np.float32))[0] == pytest.approx(display, abs=2e-5)


def test_when_every_half_value_is_encoded_then_the_curve_never_falls_nor_leaves_the_range():
    halves = np.arange(65536, dtype=np.uint16).view(np.float16).astype(np.float32)
    ordered = np.sort(halves[np.isfinite(halves)])
    encoded = encode_linear(ordered)
    assert encoded.dtype == np.float32
    assert (np.diff(encoded) >= 0).all()
    assert encoded[0] == 0
    assert 0.99 < encoded[-1] <= 1


def test_when_values_lie_above_one_then_they_keep_their_gradation():
    encoded = encode_linear(np.array([0.8, 1, 2, 4, 8, 16, 64, 1000], np.float32))
    assert (np.diff(encoded) > 0.001).all()
    assert (encoded < 1).all()


def test_when_the_knee_is_crossed_then_the_curve_has_no_step_and_no_kink():
    at_knee = ((0.8 + 0.055) / 1.055) ** 2.4
    x = np.float32(at_knee) + np.array([-2e-3, -1e-3, 0, 1e-3, 2e-3], np.float32)
    slopes = np.diff(encode_linear(x)) / np.diff(x)
    assert slopes.max() / slopes.min() < 1.05


@pytest.mark.parametrize("kind", [INTEGER, VIDEO])
def test_when_a_file_has_whole_numbers_then_auto_leaves_them_display_referred(kind):
    transform = fetch_transform("auto", kind)
    assert transform == fetch_transform("display", kind)
    levels = np.array([[0, 51, 255]], np.uint8)
    np.testing.assert_array_equal(convert_channel(transform, levels), np.array([[0, 0.2, 1]], np.float32))
    wide = np.array([[0, 13107, 65535]], np.uint16)
    np.testing.assert_array_equal(convert_channel(transform, wide), np.array([[0, 0.2, 1]], np.float32))


@pytest.mark.parametrize("colorspace", ["auto", "ACEScg"])
def test_when_channels_of_8_bit_are_converted_together_then_each_gets_what_it_gets_alone(colorspace):
    levels = np.random.default_rng(5).permutation(np.arange(256 * 3) % 256).astype(np.uint8).reshape(16, 16, 3)
    transform = fetch_transform(colorspace, INTEGER)
    together = convert_channel(transform, levels)
    assert together.dtype == np.float32
    for at in range(3):
        np.testing.assert_array_equal(together[..., at], convert_channel(transform, levels[..., at]))
        np.testing.assert_array_equal(together[..., at], levels[..., at].astype(np.float32) / np.float32(255))


def test_when_a_float_file_is_display_referred_then_it_is_only_clipped():
    assert _convert("display", FLOAT, [0.25, 1.5, -0.5]).tolist() == [0.25, 1, 0]
    assert _convert("display", FLOAT, [np.nan, np.inf, -np.inf]).tolist() == [0, 1, 0]


def test_when_half_goes_through_its_table_then_it_equals_the_formula():
    halves = np.random.default_rng(3).normal(0.5, 2, (17, 13)).astype(np.float16)
    transform = fetch_transform("auto", FLOAT)
    np.testing.assert_array_equal(convert_channel(transform, halves), encode_linear(halves.astype(np.float32)))
    np.testing.assert_array_equal(convert_channel(transform, halves.astype(np.float32)), encode_linear(halves))


@pytest.mark.parametrize("name", ["Linear Rec.709 (sRGB)", "lin_rec709", "Utility - Linear - sRGB"])
def test_when_ocio_converts_linear_rec709_then_it_agrees_with_auto(name):
    for rgb in ([0.18, 0.18, 0.18], [0.5, 0.02, 0.001], [1, 2, 8]):
        np.testing.assert_allclose(_convert(name, FLOAT, rgb), _convert("auto", FLOAT, rgb), atol=2e-4)


def test_when_acescg_is_converted_then_grey_stays_grey_and_primaries_move():
    grey = _convert("ACEScg", FLOAT, [0.18, 0.18, 0.18])
    np.testing.assert_allclose(grey, 0.4614, atol=1e-3)
    red = _convert("ACEScg", FLOAT, [0.5, 0, 0])
    assert red[0] > _convert("auto", FLOAT, [0.5, 0, 0])[0]  # AP1's red lies outside Rec.709
    assert (red >= 0).all()


def test_when_a_camera_space_of_the_studio_config_is_named_then_it_is_found():
    transform = fetch_transform("ARRI LogC3 (EI800)", FLOAT)
    assert "studio-config" in transform.config
    # LogC3 puts 18 % grey at code value 0.391
    np.testing.assert_allclose(_convert("ARRI LogC3 (EI800)", FLOAT, [0.391, 0.391, 0.391]), 0.461, atol=3e-3)


def test_when_ocio_gets_nan_and_infinity_then_pixels_are_finite():
    pixels = _convert("ACEScg", FLOAT, [np.nan, np.inf, -np.inf])
    assert np.isfinite(pixels).all()
    assert pixels.min() >= 0
    assert pixels.max() <= 1


def test_when_a_space_is_unknown_then_close_names_are_offered():
    with pytest.raises(InputError, match=r"'ACESgc' is not in the OpenColorIO config.*Close to it: .*ACEScg"):
        fetch_transform("ACESgc", FLOAT)
    with pytest.raises(InputError, match="auto and display always work"):
        fetch_transform("%%%%", FLOAT)
    with pytest.raises(InputError, match="''"):
        fetch_transform("", FLOAT)


def test_when_the_facility_config_is_broken_then_the_error_names_it(monkeypatch, tmp_path):
    monkeypatch.setenv("OCIO", str(tmp_path / "gone.ocio"))
    with pytest.raises(InputError, match=r"gone\.ocio that \$OCIO names cannot be used.*unset it"):
        fetch_transform("ACEScg", FLOAT)
    broken = tmp_path / "broken.ocio"
    broken.write_text("this is: [not a config")
    monkeypatch.setenv("OCIO", str(broken))
    with pytest.raises(InputError, match=r"broken\.ocio"):
        fetch_transform("ACEScg", FLOAT)
    assert fetch_transform("auto", FLOAT).method == "linear"  # needs no config


def _config(spaces):
    return (
        "ocio_profile_version: 1\nroles:\n  default: plate\ndisplays:\n  d:\n    - !<View> {name: v, colorspace: plate}\n"
        "colorspaces:\n  - !<ColorSpace>\n    name: plate\n    to_reference: !<MatrixTransform> "
        "{matrix: [2, 0, 0, 0, 0, 2, 0, 0, 0, 0, 2, 0, 0, 0, 0, 1]}\n" + spaces
    )


def test_when_the_facility_config_is_set_then_it_wins(monkeypatch, tmp_path):
    config = tmp_path / "show.ocio"
    config.write_text(_config("  - !<ColorSpace>\n    name: sRGB\n"))
    monkeypatch.setenv("OCIO", str(config))
    transform = fetch_transform("plate", FLOAT)
    assert transform.config == str(config)
    assert "plate to sRGB" in transform.describe()
    assert _convert("plate", FLOAT, [0.1, 0.2, 0.3]) == pytest.approx([0.2, 0.4, 0.6], abs=1e-6)  # doubled
    with pytest.raises(InputError, match=r"'ACEScg' is not in the OpenColorIO config .*show\.ocio"):
        fetch_transform("ACEScg", FLOAT)


def test_when_the_facility_config_has_no_srgb_then_the_error_says_so(monkeypatch, tmp_path):
    config = tmp_path / "bare.ocio"
    config.write_text(_config(""))
    monkeypatch.setenv("OCIO", str(config))
    with pytest.raises(InputError, match="no sRGB colour space"):
        fetch_transform("plate", FLOAT)


def test_when_a_transform_is_described_then_the_line_says_what_it_does():
    assert "as stored" in fetch_transform("display", FLOAT).describe()
    assert "linear Rec.709 to sRGB" in fetch_transform("auto", FLOAT).describe()
    assert "ACEScg to sRGB" in fetch_transform("acescg", FLOAT).describe()


def test_when_colours_are_asked_for_their_ids_then_each_meaning_has_one_of_its_own(monkeypatch):
    ids = {name: fetch_colour_id(name) for name in ("display", "auto", "ACEScg", "ACES2065-1")}
    assert len(set(ids.values())) == 4
    assert {name: fetch_colour_id(name) for name in ids} == ids
    assert fetch_colour_id("acescg") == ids["ACEScg"]  # another spelling of the same space
    monkeypatch.setattr("xmem_server.colour.CURVE_VERSION", 99)
    assert not {fetch_colour_id(name) for name in ids} & set(ids.values())


def test_when_a_config_is_edited_then_its_id_and_its_pixels_change(monkeypatch, tmp_path):
    config = tmp_path / "show.ocio"
    srgb = "  - !<ColorSpace>\n    name: sRGB\n"
    config.write_text(_config(srgb))
    monkeypatch.setenv("OCIO", str(config))
    doubled = fetch_colour_id("plate")
    assert _convert("plate", FLOAT, [0.1, 0.2, 0.3]) == pytest.approx([0.2, 0.4, 0.6], abs=1e-6)
    config.write_text(_config(srgb).replace("[2,", "[1,"))
    os.utime(config, ns=(1, 1))  # the clock of a file may be coarser than this test
    assert _convert("plate", FLOAT, [0.1, 0.2, 0.3]) == pytest.approx([0.1, 0.4, 0.6], abs=1e-6)
    assert fetch_colour_id("plate") != doubled
    config.write_text(_config(srgb) + "# a word of the colour department\n")
    assert fetch_colour_id("plate") == doubled  # the same numbers come out


def test_when_a_look_up_table_of_the_config_is_edited_then_its_id_and_its_pixels_change(monkeypatch, tmp_path):
    table = tmp_path / "plate.spi1d"
    head = "Version 1\nFrom 0.0 1.0\nLength 2\nComponents 1\n{\n0.0\n"
    table.write_text(head + "1.0\n}\n")
    config = tmp_path / "show.ocio"
    config.write_text(
        _config("  - !<ColorSpace>\n    name: sRGB\n").replace(
            "!<MatrixTransform> {matrix: [2, 0, 0, 0, 0, 2, 0, 0, 0, 0, 2, 0, 0, 0, 0, 1]}",
            "!<FileTransform> {src: plate.spi1d, interpolation: linear}",
        )
    )
    monkeypatch.setenv("OCIO", str(config))
    first = fetch_colour_id("plate")
    assert _convert("plate", FLOAT, [0.2, 0.4, 0.6]) == pytest.approx([0.2, 0.4, 0.6], abs=1e-6)
    table.write_text(head + "0.5\n}\n")
    assert fetch_colour_id("plate") != first
    assert _convert("plate", FLOAT, [0.2, 0.4, 0.6]) == pytest.approx([0.1, 0.2, 0.3], abs=1e-6)
