"""Keys: alphas exactly as stored, selectors, refusals; and folders of keys in every form."""

import cv2
import numpy as np
import OpenEXR
import pytest
from PIL import Image

from xmem_protocol import ABSENT, PRESENT, InputError
from xmem_server.decoding import Decoder
from xmem_server.key_folder import KeyFolderOptions, describe_label, fetch_key_folder
from xmem_server.keys import fetch_alpha, survey_mask

SOFT = np.random.default_rng(7).random((6, 9)).astype(np.float16)


def _save_exr(path, channels, **attributes):
    path.parent.mkdir(parents=True, exist_ok=True)
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage, **attributes}
    OpenEXR.File(header, dict(channels)).write(str(path))
    return path


def _save_png(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels)
    return path


def _save_palette(path, indices, bits=8):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(indices, np.uint8), "P")
    image.putpalette(
        [0, 0, 0, 128, 0, 0, 0, 128, 0, 0, 0, 0]
    )  # two entries share a colour: only indices tell them apart
    image.save(path, bits=bits)
    return path


def _save_rgb(path, rgb):
    return _save_png(path, np.asarray(rgb, np.uint8)[..., ::-1])


@pytest.fixture(scope="module")
def decoder():
    with Decoder() as started:
        yield started


@pytest.mark.parametrize("compression", ["NO", "RLE", "ZIPS", "ZIP", "PIZ"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_when_an_alpha_is_read_then_it_is_bit_for_bit_as_stored(tmp_path, compression, dtype):
    stored = SOFT.astype(dtype)
    path = _save_exr(tmp_path / "k.exr", {"A": stored}, compression=getattr(OpenEXR, f"{compression}_COMPRESSION"))
    alpha = fetch_alpha(path, ".exr", "channel:A")
    assert alpha.dtype == np.float32
    np.testing.assert_array_equal(alpha.astype(dtype).view(np.uint8), stored.view(np.uint8))


@pytest.mark.parametrize(
    ("channels", "chosen"),
    [("RGBA", "A"), ("YA", "A"), ("RY", "Y"), ("RGB", "R"), (("matte.A", "zz"), "matte.A")],
)
def test_when_the_channel_is_auto_then_alpha_comes_first(tmp_path, channels, chosen):
    stored = {name: np.full((2, 2), (at + 1) / 8, np.float32) for at, name in enumerate(sorted(channels))}
    alpha = fetch_alpha(_save_exr(tmp_path / "k.exr", stored), ".exr", "channel:auto")
    np.testing.assert_array_equal(alpha, stored[chosen])


def test_when_a_layer_is_named_then_it_is_read(tmp_path):
    path = _save_exr(tmp_path / "k.exr", {"object_3.A": SOFT, "A": np.zeros_like(SOFT)})
    np.testing.assert_array_equal(fetch_alpha(path, ".exr", "channel:object_3.A"), SOFT.astype(np.float32))
    with pytest.raises(InputError, match=r"has no channel object_4\.A: it has A, object_3\.A"):
        fetch_alpha(path, ".exr", "channel:object_4.A")


def test_when_the_key_has_its_own_window_then_it_is_placed_on_the_display_window(tmp_path):
    path = _save_exr(
        tmp_path / "k.exr", {"A": np.full((2, 3), 0.5, np.float16)},
        dataWindow=((-1, 1), (1, 2)), displayWindow=((0, 0), (3, 3)),
    )  # fmt: skip
    wanted = np.zeros((4, 4), np.float32)
    wanted[1:3, 0:2] = 0.5
    np.testing.assert_array_equal(fetch_alpha(path, ".exr", "channel:A"), wanted)


@pytest.mark.parametrize(("dtype", "top"), [(np.uint8, 255), (np.uint16, 65535)])
def test_when_an_alpha_png_is_read_then_levels_are_divided_by_their_largest(tmp_path, dtype, top):
    grey = np.array([[0, top // 3, top]], dtype)
    path = _save_png(tmp_path / "k.png", grey)
    np.testing.assert_array_equal(fetch_alpha(path, ".png", "channel:auto"), grey.astype(np.float32) / np.float32(top))
    bgra = np.zeros((1, 3, 4), dtype)
    bgra[..., 3] = grey
    path = _save_png(tmp_path / "rgba.png", bgra)
    np.testing.assert_array_equal(fetch_alpha(path, ".png", "channel:A"), grey.astype(np.float32) / np.float32(top))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_when_an_alpha_is_not_finite_then_the_error_says_how_many_and_where(tmp_path, value):
    alpha = np.zeros((4, 5), np.float32)
    alpha[2, 3] = alpha[3, 1] = value
    with pytest.raises(InputError, match="NaN or infinite in 2 pixels, the first 3 from the left and 2 from the top"):
        fetch_alpha(_save_exr(tmp_path / "k.exr", {"A": alpha}), ".exr", "channel:A")


def test_when_only_overscan_is_broken_then_the_key_is_read(tmp_path):
    alpha = np.array([[np.nan, 0.5, 0.25, 7]], np.float32)
    path = _save_exr(
        tmp_path / "k.exr", {"A": alpha}, dataWindow=((-1, 0), (2, 0)), displayWindow=((0, 0), (1, 0))
    )  # fmt: skip
    assert fetch_alpha(path, ".exr", "channel:A").tolist() == [[0.5, 0.25]]


def test_when_an_alpha_leaves_the_range_a_little_then_it_is_clamped_and_more_is_refused(tmp_path):
    path = _save_exr(tmp_path / "k.exr", {"A": np.array([[-0.0009, 0.5, 1.0009]], np.float32)})
    assert fetch_alpha(path, ".exr", "channel:A").tolist() == [[0, 0.5, 1]]
    path = _save_exr(tmp_path / "k.exr", {"A": np.array([[0, 1.25]], np.float32)})
    with pytest.raises(InputError, match=r"alpha from 0 to 1.25; 0 to 1 was wanted. Clamp it"):
        fetch_alpha(path, ".exr", "channel:A")


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_when_a_palette_png_is_read_then_indices_count_and_not_colours(tmp_path, bits):
    indices = np.random.default_rng(bits).integers(0, 4, (7, 11))
    path = _save_palette(tmp_path / "k.png", indices, bits)
    for index in range(4):
        np.testing.assert_array_equal(
            fetch_alpha(path, ".png", f"index:{index}"), (indices == index).astype(np.float32)
        )
    assert survey_mask(path, ".png").labels == ("index:1", "index:2", "index:3")


def test_when_a_grey_png_is_an_index_mask_then_its_levels_are_indices(tmp_path):
    path = _save_png(tmp_path / "k.png", np.array([[0, 1, 2]], np.uint8))
    assert fetch_alpha(path, ".png", "index:2").tolist() == [[0, 0, 1]]


def test_when_a_palette_png_is_damaged_then_it_is_refused(tmp_path):
    path = _save_palette(tmp_path / "k.png", np.random.default_rng(0).integers(0, 3, (40, 40)))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(InputError, match="damaged PNG"):
        fetch_alpha(path, ".png", "index:1")
    path.write_bytes(data[:60])
    with pytest.raises(InputError, match="damaged PNG"):
        fetch_alpha(path, ".png", "index:1")


def test_when_a_colour_is_selected_then_exactly_its_pixels_are_one(tmp_path):
    path = _save_rgb(tmp_path / "k.png", [[[255, 0, 0], [254, 0, 0], [0, 0, 255]]])
    assert fetch_alpha(path, ".png", "colour:ff0000").tolist() == [[1, 0, 0]]
    assert fetch_alpha(path, ".png", "colour:0000ff").tolist() == [[0, 0, 1]]


@pytest.mark.parametrize(
    ("name", "selector", "said"),
    [
        ("k.exr", "index:1", "an index mask is a palette or grey PNG"),
        ("k.exr", "colour:ff0000", "a coloured mask is an RGB PNG"),
        ("k.jpg", "colour:ff0000", "smears its colours"),
        ("k.png", "index:1", "is a colour PNG, not an index mask"),
        ("grey.png", "colour:ff0000", "is not an 8-bit colour picture"),
        ("k.png", "channel:Z", "has no channel Z: it has R, G, B"),
        ("k.png", "nonsense", "is not channel:NAME, index:N or colour:rrggbb"),
        ("k.png", "index:-1", "is not channel:NAME"),
        ("k.png", "colour:FF0000", "is not channel:NAME"),
    ],
)
def test_when_a_selector_does_not_fit_the_file_then_the_error_says_what_would(tmp_path, name, selector, said):
    _save_exr(tmp_path / "k.exr", {"A": SOFT})
    for picture in ("k.png", "k.jpg"):
        _save_png(tmp_path / picture, np.zeros((4, 4, 3), np.uint8))
    _save_png(tmp_path / "grey.png", np.zeros((4, 4), np.uint8))
    with pytest.raises(InputError, match=said):
        fetch_alpha(tmp_path / name, f".{name.partition('.')[2]}", selector)


# --------------------------------------------------------------------------------------------------- folders of keys


def _said(folder):
    return [(key.frame, key.object_id, key.presence, key.selector) for key in folder.keys]


def test_when_a_folder_holds_index_masks_then_missing_objects_are_absent(tmp_path, decoder):
    _save_palette(tmp_path / "0005.png", [[0, 1], [2, 2]])
    _save_palette(tmp_path / "0009.png", [[0, 1], [1, 1]])
    assert _said(fetch_key_folder(tmp_path, decoder)) == [
        (5, 1, PRESENT, "index:1"),
        (5, 2, PRESENT, "index:2"),
        (9, 1, PRESENT, "index:1"),
        (9, 2, ABSENT, "index:2"),
    ]


def test_when_a_folder_holds_grey_index_masks_then_they_are_told_from_alphas(tmp_path, decoder):
    _save_png(tmp_path / "index" / "1.png", np.array([[0, 1, 3]], np.uint8))
    _save_png(tmp_path / "alpha" / "1.png", np.array([[0, 1, 255]], np.uint8))
    assert [said[1] for said in _said(fetch_key_folder(tmp_path / "index", decoder))] == [1, 3]
    assert _said(fetch_key_folder(tmp_path / "alpha", decoder)) == [(1, 1, PRESENT, "channel:auto")]
    as_index = fetch_key_folder(tmp_path / "alpha", decoder, KeyFolderOptions(form="index"))
    assert [said[1] for said in _said(as_index)] == [1, 255]


def test_when_a_folder_holds_coloured_masks_then_colours_become_numbered_objects(tmp_path, decoder):
    _save_rgb(tmp_path / "1001.png", [[[0, 0, 0], [10, 200, 30]]])
    _save_rgb(tmp_path / "1002.png", [[[255, 0, 255], [10, 200, 30]]])
    found = fetch_key_folder(tmp_path, decoder)
    assert dict(found.objects) == {1: "colour:0ac81e", 2: "colour:ff00ff"}
    assert [said[:3] for said in _said(found)] == [
        (1001, 1, PRESENT), (1001, 2, ABSENT), (1002, 1, PRESENT), (1002, 2, PRESENT),
    ]  # fmt: skip


def test_when_colours_have_numbers_already_then_they_keep_them_and_new_ones_get_free_ones(tmp_path, decoder):
    _save_rgb(tmp_path / "1.png", [[[0, 255, 0], [0, 0, 255], [255, 0, 0]]])
    found = fetch_key_folder(tmp_path, decoder, colours={"colour:00ff00": 1, "colour:ff0000": 4, "colour:123456": 2})
    assert dict(found.objects) == {1: "colour:00ff00", 3: "colour:0000ff", 4: "colour:ff0000"}
    full = {f"colour:{number:06x}": number for number in range(1, 256)}
    with pytest.raises(InputError, match=r"has a new colour \(green \(#00ff00\)\), but all 255"):
        fetch_key_folder(tmp_path, decoder, colours={**full, "colour:ff0000": 255})


def test_when_a_palette_number_is_taken_then_the_new_colour_gets_a_free_one(tmp_path, decoder):
    _save_rgb(tmp_path / "1.png", [[[128, 0, 0], [0, 128, 0]]])  # labels 1 and 2
    found = fetch_key_folder(tmp_path, decoder, colours={"colour:ff0000": 1})
    assert dict(found.objects) == {2: "colour:008000", 3: "colour:800000"}


@pytest.mark.parametrize(
    ("label", "words"),
    [
        ("colour:00ff00", "green (#00ff00)"),
        ("colour:0ac81e", "#0ac81e"),
        ("index:3", "index 3"),
        ("channel:object_2.A", "channel object_2.A"),
        ("folder 2", "folder 2"),
    ],
)
def test_when_a_label_is_described_then_a_person_can_read_it(label, words):
    assert describe_label(label) == words


def test_when_colours_are_those_of_the_label_palette_then_objects_get_its_numbers(tmp_path, decoder):
    _save_rgb(tmp_path / "1.png", [[[0, 0, 0], [0, 128, 0], [128, 128, 128]]])  # labels 2 and 7
    assert dict(fetch_key_folder(tmp_path, decoder).objects) == {2: "colour:008000", 7: "colour:808080"}


def test_when_colour_masks_have_soft_edges_then_the_error_says_so(tmp_path, decoder):
    shades = np.zeros((20, 20, 3), np.uint8)
    shades[..., 0] = np.arange(400).reshape(20, 20) % 250
    shades[..., 1] = np.arange(400).reshape(20, 20) // 250
    _save_png(tmp_path / "1.png", shades)
    with pytest.raises(InputError, match="without anti-aliasing"):
        fetch_key_folder(tmp_path, decoder)


def test_when_a_grey_matte_was_saved_as_rgb_then_it_is_an_alpha(tmp_path, decoder):
    ramp = np.repeat(np.arange(0, 250, 10, dtype=np.uint8).reshape(5, 5, 1), 3, axis=2)
    _save_png(tmp_path / "3.png", ramp)
    assert _said(fetch_key_folder(tmp_path, decoder)) == [(3, 1, PRESENT, "channel:auto")]


def test_when_objects_have_folders_then_a_missing_file_is_not_given_and_zero_is_absent(tmp_path, decoder):
    _save_exr(tmp_path / "1" / "k.0010.exr", {"A": SOFT})
    _save_exr(tmp_path / "1" / "k.0020.exr", {"A": SOFT})
    _save_png(tmp_path / "12" / "0010.png", np.zeros((6, 9), np.uint8))
    assert _said(fetch_key_folder(tmp_path, decoder)) == [
        (10, 1, PRESENT, "channel:auto"),
        (10, 12, ABSENT, "channel:auto"),
        (20, 1, PRESENT, "channel:auto"),
    ]


def test_when_a_folder_holds_alphas_then_they_are_object_one(tmp_path, decoder):
    _save_exr(tmp_path / "k.-005.exr", dict.fromkeys("RGBA", SOFT))
    _save_exr(tmp_path / "k.0003.exr", {**dict.fromkeys("RGB", SOFT), "A": np.zeros_like(SOFT)})
    assert _said(fetch_key_folder(tmp_path, decoder)) == [
        (-5, 1, PRESENT, "channel:auto"), (3, 1, ABSENT, "channel:auto"),
    ]  # fmt: skip
    red = fetch_key_folder(tmp_path, decoder, KeyFolderOptions(channel="R"))
    assert _said(red) == [(-5, 1, PRESENT, "channel:R"), (3, 1, PRESENT, "channel:R")]


def test_when_exrs_have_a_layer_per_object_then_each_is_a_key(tmp_path, decoder):
    _save_exr(tmp_path / "k.0001.exr", {"object_2.A": SOFT, "object_5.A": np.zeros_like(SOFT)})
    _save_exr(tmp_path / "k.0002.exr", {"object_5.A": SOFT})
    assert _said(fetch_key_folder(tmp_path, decoder)) == [
        (1, 2, PRESENT, "channel:object_2.A"),
        (1, 5, ABSENT, "channel:object_5.A"),
        (2, 5, PRESENT, "channel:object_5.A"),
    ]


def test_when_every_key_is_empty_then_the_error_says_so(tmp_path, decoder):
    _save_exr(tmp_path / "alpha" / "k.1.exr", {"A": np.zeros_like(SOFT)})
    _save_palette(tmp_path / "index" / "1.png", [[0, 0]])
    for form in ("alpha", "index"):
        with pytest.raises(InputError, match=r"Every key in .* is empty"):
            fetch_key_folder(tmp_path / form, decoder)


def test_when_a_folder_mixes_forms_then_the_error_names_them(tmp_path, decoder):
    _save_palette(tmp_path / "k1.png", [[0, 1]])
    _save_rgb(tmp_path / "k2.png", [[[255, 0, 0]]])
    with pytest.raises(InputError, match=r"mixes kinds of masks \(palette, rgb\)"):
        fetch_key_folder(tmp_path, decoder)


def test_when_a_folder_has_keys_and_folders_of_keys_then_the_error_says_so(tmp_path, decoder):
    _save_exr(tmp_path / "1" / "k.1.exr", {"A": SOFT})
    _save_exr(tmp_path / "k.1.exr", {"A": SOFT})
    with pytest.raises(InputError, match="also folders of keys"):
        fetch_key_folder(tmp_path, decoder)


@pytest.mark.parametrize("name", ["0", "256"])
def test_when_an_object_folder_has_an_impossible_number_then_it_is_refused(tmp_path, decoder, name):
    _save_exr(tmp_path / name / "k.1.exr", {"A": SOFT})
    with pytest.raises(InputError, match=f"would be object {name}; 1 to 255"):
        fetch_key_folder(tmp_path, decoder)


def test_when_the_folder_is_missing_then_the_error_says_so(tmp_path, decoder):
    with pytest.raises(InputError, match="is not a folder of keys"):
        fetch_key_folder(tmp_path / "none", decoder)
