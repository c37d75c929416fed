"""Working size, hardening and padding by hand numbers."""

import pytest
import torch

from xmem_core.errors import CoreError
from xmem_core.images import (
    FineCanvas,
    even_shape,
    harden,
    normalise,
    padding_for,
    resize_area,
    shrink,
    split_ids,
    to_grey,
    working_shape,
)
from xmem_core.mattes import make_mattes


@pytest.mark.parametrize(
    ("plate", "shorter", "expected"),
    [
        ((1080, 1920), 480, (480, 853)),
        ((1920, 1080), 480, (853, 480)),
        ((240, 432), 480, (240, 432)),
        ((1080, 1920), 0, (1080, 1920)),
    ],
)
def test_when_a_working_size_is_asked_then_the_shorter_side_has_it_and_nothing_is_enlarged(plate, shorter, expected):
    assert working_shape(*plate, shorter) == expected


def test_when_objects_overlap_then_the_smaller_one_is_in_front():
    alphas = {1: torch.ones(1, 4), 2: torch.tensor([[0.0, 0.7, 0.9, 0.2]])}
    found = harden(alphas, (1, 4), 0.5)
    assert found[1].tolist() == [[1, 0, 0, 1]]
    assert found[2].tolist() == [[0, 1, 1, 0]]


@pytest.mark.parametrize("alpha", [[0.0, 0.2, 0.05, 0.0], [0.0, 0.4, 0.1, 0.0]])
def test_when_an_object_is_faint_everywhere_then_it_is_kept_where_it_is_strongest(alpha):
    assert harden({1: torch.tensor([alpha])}, (1, 4), 0.5)[1].tolist() == [[0, 1, 0, 0]]


def test_when_a_wire_is_thinner_than_a_working_pixel_then_it_does_not_vanish():
    alpha = torch.zeros(1080, 1920)
    alpha[:, 960] = 1.0
    assert harden({1: alpha}, (480, 853), 0.5)[1].sum() >= 480


def test_when_an_object_is_absent_then_its_mask_is_empty():
    assert harden({1: torch.zeros(2, 2), 2: torch.ones(2, 2)}, (2, 2), 0.5)[1].sum() == 0


def test_when_an_object_is_wholly_behind_another_then_it_is_said():
    with pytest.raises(CoreError, match="Object 7 is drawn only where other objects"):
        harden({3: torch.ones(2, 2), 7: torch.ones(2, 2)}, (2, 2), 0.5)


def test_when_an_alpha_is_brought_down_then_it_is_averaged_before_it_is_hardened():
    alpha = torch.tensor([[1.0, 1.0, 0.0, 0.0, 1.0, 1.0], [0.0, 0.2, 0.0, 0.0, 1.0, 1.0]])
    assert harden({1: alpha}, (1, 3), 0.5)[1].tolist() == [[1, 0, 1]]
    assert harden({1: alpha}, (1, 3), 0.6)[1].tolist() == [[0, 0, 1]]


def test_when_any_size_is_padded_then_it_is_a_multiple_of_16_and_crops_back():
    for height in range(1, 40):
        maps = torch.rand(2, height, 50)
        padding = padding_for(height, 50)
        padded = padding.pad(maps)
        assert padded.shape[1] % 16 == padded.shape[2] % 16 == 0
        assert torch.equal(padding.crop(padded), maps)


def test_when_ids_are_split_then_each_object_has_its_mask():
    found = split_ids(torch.tensor([[0, 3], [9, 3]]), (3, 4))
    assert found[3].tolist() == [[0, 1], [0, 1]]
    assert found[4].sum() == 0


def test_when_mattes_are_made_then_they_have_the_plates_size_and_stay_between_0_and_1():
    found = make_mattes(torch.rand(3, 10, 12), 33, 47)
    assert found.shape == (3, 33, 47)
    assert 0 <= found.min() <= found.max() <= 1


def test_when_masks_are_finer_than_the_network_sees_then_they_go_down_by_mean_and_come_back_without_padding():
    canvas = FineCanvas((48, 96), (24, 48), padding_for(24, 48))
    masks = torch.zeros(2, 48, 96)
    masks[0, :, :48], masks[1, ::2] = 1, 1
    seen = canvas.to_network(masks)
    assert seen.shape == (2, 32, 48)  # 24 rows padded to 32
    assert seen[1, 4:28].unique().tolist() == [0.5]
    assert not seen[:, :4].any()
    back = canvas.from_network(seen[None], (48, 96))[0]
    assert torch.equal(back[0] > 0.5, masks[0] > 0.5)
    assert canvas.crop(canvas.lay(masks)) is masks


def test_when_sides_are_odd_then_the_even_shape_has_one_pixel_more():
    assert even_shape(481, 854) == (482, 854)


@pytest.mark.parametrize(
    "shapes", [((480, 854), (360, 640)), ((31, 17), (7, 5)), ((10, 12), (10, 12)), ((9, 9), (1, 1))]
)
@pytest.mark.parametrize("together", [False, True])
def test_when_pictures_are_made_smaller_in_a_loop_then_they_are_the_mean_and_normalised(shapes, together):
    before, after = shapes
    torch.manual_seed(5)
    images = torch.rand(2, 3, *before)
    if together:
        images = images.contiguous(memory_format=torch.channels_last)
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.5)
    with torch.inference_mode():
        found = shrink(images, after, mean, std)
    assert torch.allclose(found, normalise(resize_area(images, after), mean, std), atol=1e-5)
    assert torch.equal(shrink(images, after, mean, std), normalise(resize_area(images, after), mean, std))


def test_when_colours_become_grey_then_they_weigh_as_the_eye_sees_them():
    colours = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1], [2, 2, 2], [-1, 0, 0]])
    for wants_gradients in (False, True):  # in a loop, and in torch
        with torch.set_grad_enabled(wants_gradients):
            grey = to_grey(colours.T.reshape(1, 3, 1, 6))
        assert grey.shape == (1, 1, 1, 6)
        assert grey.flatten().tolist() == [76, 150, 29, 255, 255, 0]
