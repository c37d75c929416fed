"""Suggestion and lost objects, by hand-made cases."""

import pytest
import torch

from tests.core.random_keys import keys_of
from xmem_core import dissimilarity as core
from xmem_core import keyframes
from xmem_core.dissimilarity import (
    FrameKeys,
    FrameMask,
    dissimilarity,
    look_in_bfloat16,
    make_composite,
)
from xmem_core.errors import CoreError
from xmem_core.keyframes import SuggestionRule, find_lost_objects, suggest_keyframes, summarise_mask


def whole(area=0.5):
    return FrameMask(area, torch.ones(1, 2, 3))


def test_when_frames_are_equal_to_a_key_then_they_are_never_suggested():
    keys = {1: keys_of(1), 2: keys_of(1), 3: keys_of(3), 4: keys_of(3)}
    found = suggest_keyframes(keys, dict.fromkeys(keys, whole()), [1], SuggestionRule(count=4))
    assert [one.frame for one in found] == [3]  # 2 is a hold of 1, and 4 one of 3
    assert found[0].nearest == 1


def test_when_more_is_asked_than_is_left_then_the_answer_is_shorter_and_never_repeats():
    for seed in range(50):
        keys = {frame: keys_of(100 * seed + frame) for frame in range(-4, 4)}
        found = suggest_keyframes(keys, dict.fromkeys(keys, whole()), [-4, 2], SuggestionRule(count=50))
        frames = [one.frame for one in found]
        assert len(set(frames)) == len(frames)
        assert set(frames) <= set(keys) - {-4, 2}


def test_when_masks_are_too_small_then_only_the_others_are_suggested():
    keys = {frame: keys_of(frame) for frame in range(4)}
    masks = {0: whole(0.0), 1: whole(0.001), 2: whole(0.3), 3: whole(0.0)}
    found = suggest_keyframes(keys, masks, [0], SuggestionRule(count=3, min_area=0.0025))
    assert [one.frame for one in found] == [2]


def rank_exhaustively(keys, masks, annotated, rule):
    """Compare every frame with every chosen one, anew for each pick."""
    composites = {frame: make_composite(keys[frame], masks[frame], rule.alpha) for frame in keys}
    chosen = list(annotated)
    while len(chosen) < len(annotated) + rule.count:
        nearest = {
            frame: min(dissimilarity(composites[other], composites[frame]) for other in chosen)
            for frame in keys
            if frame not in chosen and masks[frame].area >= rule.min_area
        }
        if not nearest or max(nearest.values()) <= 0:
            break
        chosen.append(max(nearest, key=lambda frame: (nearest[frame], -frame)))
    return chosen[len(annotated) :]


@pytest.fixture(params=[False, True], ids=["float32", "bfloat16"])
def compared(request, monkeypatch):
    """Which looks were taken, on a processor without and with instructions for bfloat16."""
    taken = []

    def note(look):
        return lambda one, other: taken.append(look) or look(one, other)

    monkeypatch.setattr(core, "_multiplies_bfloat16", lambda: request.param)
    monkeypatch.setattr(core, "look_in_bfloat16", note(look_in_bfloat16))
    monkeypatch.setattr(core, "dissimilarity", note(dissimilarity))
    monkeypatch.setattr(keyframes, "dissimilarity", note(dissimilarity))
    with torch.inference_mode():
        yield taken


def test_when_frames_are_compared_lazily_then_the_ranking_is_that_of_comparing_all_with_all(compared):
    for seed in range(50):
        size = (2 + seed % 5, 3 + seed % 7)  # less than a block, whole blocks, and blocks that the edge cuts
        keys = {frame: keys_of(1000 * seed + frame, size) for frame in range(30)}
        keys[7] = keys[3]  # equal to another frame, which may be a key
        masks = {frame: FrameMask((frame % 5) / 10, torch.rand(1, *size)) for frame in keys}
        annotated = sorted({3, seed % 30, (seed * 7) % 30})
        rule = SuggestionRule(count=6)
        found = suggest_keyframes(keys, masks, annotated, rule)
        assert [one.frame for one in found] == rank_exhaustively(keys, masks, annotated, rule)


def test_when_frames_are_looked_at_roughly_then_scores_and_nearest_frames_are_exact(compared):
    keys = {frame: keys_of(frame, (4, 5)) for frame in range(20)}
    masks = {frame: FrameMask(0.5, torch.rand(1, 4, 5)) for frame in keys}
    composites = {frame: make_composite(keys[frame], masks[frame], 0.5) for frame in keys}
    chosen = [2, 11]
    for one in suggest_keyframes(keys, masks, chosen, SuggestionRule(count=5)):
        scores = {other: dissimilarity(composites[other], composites[one.frame]) for other in chosen}
        assert one.nearest == min(scores, key=scores.__getitem__)
        assert one.score == pytest.approx(scores[one.nearest], rel=1e-5)
        chosen.append(one.frame)


def test_when_neighbours_look_alike_then_most_frames_are_compared_with_few_keys(compared):
    size = (12, 20)
    drift = [keys_of(number, size) for number in range(2)]

    def between(share):
        pairs = zip(vars(drift[0]).values(), vars(drift[1]).values(), strict=True)
        return FrameKeys(*((1 - share) * one + share * other for one, other in pairs))

    keys = {frame: between(frame / 200) for frame in range(200)}
    masks = dict.fromkeys(keys, FrameMask(0.5, torch.ones(1, *size)))
    suggest_keyframes(keys, masks, list(range(0, 200, 20)), SuggestionRule(count=5))
    rough = compared.count(look_in_bfloat16)
    assert rough < 1.8 * len(keys)  # all with all would be more than 2000
    assert len(compared) - rough < (0.3 if rough else 1.4) * len(keys)


def test_when_a_mask_is_summarised_then_area_and_size_are_the_hand_computed_ones():
    mask = torch.zeros(2, 4, 6)
    mask[0, :2, :2] = 1.0
    mask[1, 2:, 4:] = 0.4
    found = summarise_mask(mask, (2, 3))
    assert found.area == pytest.approx(4 / 24)
    assert found.at_keys[0].flatten().tolist() == pytest.approx([1, 0, 0, 0, 0, 0.4])


@pytest.mark.parametrize("wrong", [{"count": 0}, {"alpha": 1.5}, {"min_area": -0.1}])
def test_when_a_rule_makes_no_sense_then_it_is_refused(wrong):
    with pytest.raises(CoreError):
        SuggestionRule(**wrong)


def test_when_nothing_is_annotated_then_suggesting_says_what_to_do():
    with pytest.raises(CoreError, match="Annotate one frame"):
        suggest_keyframes({}, {}, [], SuggestionRule())


STEADY = dict.fromkeys(range(1001, 1021), 0.1)


def test_when_an_object_vanishes_for_some_frames_then_the_middle_is_reported_with_the_reason():
    areas = {3: STEADY | dict.fromkeys(range(1008, 1013), 0.0001)}
    (found,) = find_lost_objects(areas, {3: frozenset({1001})}, 0.0025)
    assert (found.frame, found.first, found.last) == (1010, 1008, 1012)
    assert "object 3 vanishes at frames 1008-1012" in found.reason


@pytest.mark.parametrize("said", [1008, 1010, 1012])
def test_when_the_artist_said_it_is_absent_there_then_nothing_is_reported(said):
    areas = {3: STEADY | dict.fromkeys(range(1008, 1013), 0.0)}
    assert find_lost_objects(areas, {3: frozenset({1001, said})}, 0.0025) == []


def test_when_an_absence_is_explained_elsewhere_then_other_stretches_are_still_reported():
    areas = {3: STEADY | dict.fromkeys((1003, 1004, 1008, 1009, 1010, 1015), 0.0)}
    found = find_lost_objects(areas, {3: frozenset({1008, 1010, 1015})}, 0.0025)
    assert [(lost.first, lost.last) for lost in found] == [(1003, 1004)]


def test_when_one_frame_jumps_in_area_then_that_frame_is_reported():
    (found,) = find_lost_objects({1: STEADY | {1010: 0.3}}, {}, 0.0025)
    assert found.frame == 1010
    assert "grows 3.0 times" in found.reason


def test_when_nothing_is_lost_then_nothing_is_reported():
    assert find_lost_objects({1: STEADY}, {}, 0.0025) == []
    assert find_lost_objects({1: dict.fromkeys(range(5), 0.0)}, {}, 0.0025) == []
