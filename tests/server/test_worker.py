"""The real engine process: plans in, mattes and suggestions out."""

import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import OpenEXR
import pytest

from tests.server.moving_scene import COUNT, FIRST, HEIGHT, WIDTH, ids_at, plan_of, save_scene, wire_key
from xmem_client import hash_file
from xmem_protocol import ABSENT, BAD_INPUT, InputError, Key, PropagationSettings, Suggestion, SuggestionSettings
from xmem_server.decoding import Decoder
from xmem_server.engines import EngineProcess
from xmem_server.mattes import save_matte
from xmem_server.plans import (
    EngineCancelled,
    EngineDone,
    EngineFailed,
    EngineFrameFailed,
    EngineMatte,
    EnginePaused,
    EngineProgress,
    EngineSnapshot,
    EngineSuggestions,
    KeySource,
    MatteSource,
    SuggestionPlan,
)
from xmem_server.worker import engine_loop
from xmem_server.worker.engine_loop import EngineLoop
from xmem_server.worker.suggestion import merge_by_frame

FINAL = (EngineDone, EngineFailed, EngineCancelled, EnginePaused)


@pytest.fixture(scope="module")
def engine():
    process = EngineProcess("compact", "cpu")
    process.start()
    yield process
    process.close()


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    return save_scene(tmp_path_factory.mktemp("scene"))


def finish(engine, plan, on_event=lambda event: None, seconds=120):
    """Hand over a plan and give everything said until its end."""
    engine.submit(plan)
    said, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        for event in engine.events():
            said.append(event)
            on_event(event)
            if isinstance(event, FINAL):
                return said
        time.sleep(0.01)
    raise AssertionError(f"No end after {seconds} seconds: {said}")


def of_kind(said, kind):
    return [event for event in said if isinstance(event, kind)]


def matte_hashes(said):
    return {(e.frame, file.object_id): file.sha256 for e in of_kind(said, EngineMatte) for file in e.files}


def alpha_of(path):
    with OpenEXR.File(str(path), separate_channels=True) as stored:
        return stored.channels()["A"].pixels.copy()


def test_when_a_shot_is_propagated_then_every_frame_has_mattes_that_follow_the_objects(engine, scene, tmp_path):
    said = finish(engine, plan_of(tmp_path, *scene))
    mattes = of_kind(said, EngineMatte)
    assert [event.frame for event in mattes] == list(range(FIRST, FIRST + COUNT))
    assert [event.is_key for event in mattes] == [True] + [False] * (COUNT - 1)
    for event in mattes:
        for file in event.files:
            assert hash_file(Path(file.path)) == file.sha256
            found, truth = alpha_of(file.path) > 0.5, ids_at(event.frame - FIRST) == file.object_id
            overlap = (found & truth).sum() / (found | truth).sum()
            assert overlap > 0.5, f"object {file.object_id} at {event.frame}: {overlap:.2f}"
    assert f"worked at {WIDTH}x{HEIGHT}" in of_kind(said, EngineDone)[0].summary


def test_when_a_second_round_runs_then_no_frame_is_encoded_again(engine, scene, tmp_path):
    first = finish(engine, plan_of(tmp_path, *scene))
    assert f"; {COUNT} frames encoded" in of_kind(first, EngineDone)[0].summary
    second = finish(engine, plan_of(tmp_path, *scene, keyed=(FIRST, FIRST + 5)))
    assert "; 0 frames encoded" in of_kind(second, EngineDone)[0].summary


@pytest.mark.parametrize("is_apart", [False, True])  # whether objects are drawn on frames of their own
def test_when_keys_come_move_and_go_then_each_round_equals_one_that_nothing_was_kept_of(
    engine, scene, tmp_path, is_apart
):
    def draw(folder, keyed):
        plan = plan_of(tmp_path / folder, *scene, keyed=keyed)
        apart = tuple(source for source in plan.keys if (source.key.object_id == 2) == (source.key.frame == keyed[-1]))
        # Memory frames lie otherwise with other keys, and some of them become prototypes.
        settings = replace(plan.settings, mem_every=2, max_working_frames=3, min_working_frames=1)
        return replace(plan, settings=settings, keys=apart if is_apart else plan.keys)

    rounds = [(FIRST, FIRST + 4), (FIRST, FIRST + 4, FIRST + 5), (FIRST + 3, FIRST + 5), (FIRST, FIRST + 3)]
    for number, keyed in enumerate(rounds):
        kept, fresh = (finish(engine, draw(folder, keyed)) for folder in ("kept", f"fresh{number}"))
        assert matte_hashes(kept) == matte_hashes(fresh)
        assert f"; {0 if number else COUNT} frames encoded" in of_kind(kept, EngineDone)[0].summary


def test_when_a_cached_frame_is_broken_then_it_is_encoded_again_with_the_same_result(engine, scene, tmp_path):
    first = finish(engine, plan_of(tmp_path, *scene))
    for file in sorted((tmp_path / "cache").iterdir())[:3]:
        file.write_bytes(file.read_bytes()[:100])
    assert matte_hashes(finish(engine, plan_of(tmp_path, *scene))) == matte_hashes(first)


@pytest.mark.parametrize(("output", "dtype"), [("exr-half", np.float16), ("exr-float", np.float32)])
def test_when_a_key_has_soft_edges_then_its_matte_is_the_artists_alpha_bit_for_bit(
    engine, scene, tmp_path, output, dtype
):
    drawn = np.random.default_rng(3).random((HEIGHT, WIDTH), np.float32)
    with Decoder() as decoder:
        header = decoder.fetch_header(str(scene[0][FIRST]), ".png")
    save_matte(tmp_path / "drawn.exr", drawn, header, "exr-float")
    key = KeySource(wire_key(FIRST, 1, tmp_path / "drawn.exr", "channel:A"), str(tmp_path / "drawn.exr"))
    plan = plan_of(tmp_path, *scene, keys=(key,))
    said = finish(engine, replace(plan, settings=replace(plan.settings, output=output)))
    written = of_kind(said, EngineMatte)[0].files[0]
    assert np.array_equal(alpha_of(written.path), drawn.astype(dtype))


def test_when_an_object_is_absent_at_a_key_then_its_matte_there_is_empty(engine, scene, tmp_path):
    gone = KeySource(Key(FIRST + 4, 2, ABSENT, "", "", ""), "")
    plan = plan_of(tmp_path, *scene)
    said = finish(engine, replace(plan, keys=(*plan.keys, gone)))
    (file,) = [f for e in of_kind(said, EngineMatte) if e.frame == FIRST + 4 for f in e.files if f.object_id == 2]
    assert alpha_of(file.path).max() == 0


def test_when_a_run_goes_on_from_a_snapshot_then_the_rest_is_bit_identical_and_nothing_is_written_twice(
    engine, scene, tmp_path
):
    whole = finish(engine, plan_of(tmp_path / "whole", *scene))
    snapshot = of_kind(whole, EngineSnapshot)[1]
    assert snapshot.frame == FIRST + 5
    done = tuple(range(FIRST, FIRST + 8))  # two frames past the snapshot were finished, too
    rest = finish(engine, plan_of(tmp_path / "rest", *scene, finished=done, snapshot=snapshot.path))
    wanted = {name: sha for name, sha in matte_hashes(whole).items() if name[0] not in done}
    assert matte_hashes(rest) == wanted
    stepped = {e.done for e in of_kind(rest, EngineProgress) if e.stage == "propagating"}
    assert min(stepped) == 6
    # What was kept on the way from the snapshot is what an uninterrupted run keeps.
    later, other = (
        finish(engine, plan_of(tmp_path / name, *scene, keyed=(FIRST, FIRST + 4))) for name in ("rest", "fresh")
    )
    assert matte_hashes(later) == matte_hashes(other)


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"not a snapshot"])
def test_when_a_snapshot_is_broken_then_the_run_starts_over_and_is_right(engine, scene, tmp_path, damage):
    whole = finish(engine, plan_of(tmp_path / "whole", *scene))
    path = Path(of_kind(whole, EngineSnapshot)[0].path)
    path.write_bytes(damage(path.read_bytes()))
    again = finish(engine, plan_of(tmp_path / "again", *scene, finished=(FIRST,), snapshot=str(path)))
    assert matte_hashes(again) == {name: sha for name, sha in matte_hashes(whole).items() if name[0] != FIRST}


def test_when_a_job_makes_room_and_goes_on_then_its_mattes_are_those_of_an_undisturbed_run(engine, scene, tmp_path):
    whole = matte_hashes(finish(engine, plan_of(tmp_path / "whole", *scene)))
    found, done, snapshot = {}, (), ""
    for _ in range(COUNT):
        asked = []

        def pause_once(event, asked=asked):
            if isinstance(event, EngineMatte) and not asked:
                asked.append(event.frame)
                engine.pause("job")

        said = finish(engine, plan_of(tmp_path / "turns", *scene, finished=done, snapshot=snapshot), pause_once)
        found |= matte_hashes(said)
        if isinstance(said[-1], EngineDone):
            break
        assert isinstance(said[-1], EnginePaused)
        done = tuple(sorted({frame for frame, _ in found}))
        snapshot = of_kind(said, EngineSnapshot)[-1].path
    assert isinstance(said[-1], EngineDone)
    assert found == whole


def test_when_a_job_is_cancelled_then_it_stops_between_frames_and_the_engine_goes_on(engine, scene, tmp_path):
    seen = []

    def cancel_after_two(event):
        if isinstance(event, EngineMatte):
            seen.append(event.frame)
            if len(seen) == 2:
                engine.cancel("job")

    said = finish(engine, plan_of(tmp_path, *scene), cancel_after_two)
    assert isinstance(said[-1], EngineCancelled)
    assert len(seen) < COUNT
    assert isinstance(finish(engine, plan_of(tmp_path, *scene))[-1], EngineDone)


def test_when_a_plate_cannot_be_read_then_that_frame_fails_and_the_others_do_not(engine, scene, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(scene[0][FIRST + 4].read_bytes()[:200])
    plates = {**scene[0], FIRST + 4: broken}
    said = finish(engine, plan_of(tmp_path, plates, scene[1]))
    (failed,) = of_kind(said, EngineFrameFailed)
    assert failed.frame == FIRST + 4
    assert f"Frame {FIRST + 4}" in failed.message
    assert len(of_kind(said, EngineMatte)) == COUNT - 1
    assert isinstance(said[-1], EngineDone)


def test_when_the_plate_of_a_key_cannot_be_read_then_the_job_fails_and_names_the_frame(engine, scene, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"nothing")
    (failed,) = of_kind(finish(engine, plan_of(tmp_path, {**scene[0], FIRST: broken}, scene[1])), EngineFailed)
    assert failed.code == BAD_INPUT
    assert f"Frame {FIRST}" in failed.message


def test_when_layers_are_asked_for_then_one_file_holds_every_object(engine, scene, tmp_path):
    plan = plan_of(tmp_path, *scene)
    said = finish(engine, replace(plan, settings=replace(plan.settings, layout="layered")))
    (file,) = of_kind(said, EngineMatte)[3].files
    assert file.object_id == 0
    with OpenEXR.File(file.path, separate_channels=True) as stored:
        assert set(stored.channels()) == {"object_1.A", "object_2.A"}


def suggest(engine, scene, folder, layout="per-object", **settings):
    plan = plan_of(folder, *scene)
    plan = replace(plan, settings=replace(plan.settings, layout=layout))
    said = finish(engine, plan)
    mattes = [
        MatteSource(e.frame, object_id, file.path, file.suffix)
        for e in of_kind(said, EngineMatte)
        for file in e.files
        for object_id in ([file.object_id] if file.object_id else [1, 2])
    ]
    wanted = SuggestionPlan(
        "job",
        "session",
        plan.shot,
        plan.plates,
        plan.keys,
        tuple(mattes),
        SuggestionSettings(**{"count": 2, **settings}),
        plan.settings,
        plan.cache,
    )
    answer = finish(engine, wanted)
    assert isinstance(answer[-1], (EngineDone, EngineFailed))
    return answer


def test_when_suggestions_are_asked_then_new_frames_come_with_reasons(engine, scene, tmp_path):
    (answer,) = of_kind(suggest(engine, scene, tmp_path), EngineSuggestions)
    different = [one for one in answer.suggestions if one.kind == "different"]
    assert len(different) == 2
    assert FIRST not in {one.frame for one in different}
    assert all("key" in one.reason and one.score > 0 for one in different)


def test_when_unsure_frames_are_asked_too_then_the_rules_frames_stay_first_and_no_key_is_named(engine, scene, tmp_path):
    (plain,) = of_kind(suggest(engine, scene, tmp_path / "plain"), EngineSuggestions)
    (both,) = of_kind(suggest(engine, scene, tmp_path / "both", unsure=2), EngineSuggestions)
    by_rule = [one.frame for one in plain.suggestions]
    assert [one.frame for one in both.suggestions][: len(by_rule)] == by_rule
    assert sum("least certain" in one.reason for one in both.suggestions) == 2
    assert FIRST not in {one.frame for one in both.suggestions}


def test_when_mattes_are_layered_then_suggestions_are_the_same(engine, scene, tmp_path):
    (single,) = of_kind(suggest(engine, scene, tmp_path / "single"), EngineSuggestions)
    (layered,) = of_kind(suggest(engine, scene, tmp_path / "layered", layout="layered"), EngineSuggestions)
    assert layered == single


def test_when_nothing_is_left_then_the_answer_is_short_and_says_why(engine, scene, tmp_path):
    (answer,) = of_kind(suggest(engine, scene, tmp_path, count=500), EngineSuggestions)
    assert len([one for one in answer.suggestions if one.kind == "different"]) == COUNT - 1
    assert "Only 9 of 500" in answer.note


def test_when_an_unknown_object_is_asked_about_then_it_says_so(engine, scene, tmp_path):
    failed = suggest(engine, scene, tmp_path, object_id=9)[-1]
    assert "Object 9 has no mattes" in failed.message


@pytest.mark.parametrize(
    ("model", "device", "words"),
    [
        ("/nowhere/XMem.pth", "cpu", "no checkpoint at"),
        ("compact", "cuda:7", "torch sees"),
        ("compact", "tpu", "device"),
    ],
)
def test_when_an_engine_cannot_start_then_it_says_why(model, device, words):
    process = EngineProcess(model, device)
    with pytest.raises(InputError, match=words):
        process.start()
    process.close()


def test_when_the_precision_is_unknown_then_the_job_fails_with_the_choices(engine, scene, tmp_path):
    settings = PropagationSettings(FIRST, FIRST + 1, precision="float8")
    (failed,) = of_kind(finish(engine, plan_of(tmp_path, *scene, settings=settings)), EngineFailed)
    assert "float32" in failed.message


def test_when_alarms_and_rule_name_a_frame_then_it_is_listed_once_with_both_reasons():
    lost = [Suggestion(1010, "lost", 1, 1.0, "object 1 vanishes"), Suggestion(1010, "lost", 2, 0.6, "object 2 shrinks")]
    different = [Suggestion(1007, "different", 0, 2.0, "differs"), Suggestion(1010, "different", 0, 1.0, "differs")]
    found = merge_by_frame(lost, different)
    assert [one.frame for one in found] == [1010, 1007]
    assert found[0].reason == "object 1 vanishes; object 2 shrinks; differs"


def test_when_an_object_is_drawn_inside_another_then_both_have_mattes_on_every_frame(engine, scene, tmp_path):
    everything = np.full((HEIGHT, WIDTH), 255, np.uint8)
    cv2.imwrite(str(tmp_path / "all.png"), everything)
    behind = KeySource(wire_key(FIRST, 1, tmp_path / "all.png", "channel:auto"), str(tmp_path / "all.png"))
    plan = plan_of(tmp_path, *scene)
    said = finish(engine, replace(plan, keys=(behind, plan.keys[1])))
    for event in of_kind(said, EngineMatte):
        assert [file.object_id for file in event.files] == [1, 2]
    truth, found = ids_at(COUNT - 1) == 2, alpha_of(of_kind(said, EngineMatte)[-1].files[1].path) > 0.5
    assert (found & truth).sum() / (found | truth).sum() > 0.5


class EndOfPlansError(Exception):
    """No plan will ever come."""


class PlansInTurn:
    """A channel that hands over plans, None where a wait is in vain; it notes in ``happened`` what it is asked."""

    def __init__(self, plans, happened):
        self._plans = plans
        self._happened = happened

    def next_plan(self, within=None):
        if not self._plans:
            raise EndOfPlansError
        plan = self._plans.pop(0)
        if plan is None and within is not None:
            self._happened.append("waited")
        return plan

    def send(self, event):
        self._happened.append(type(event).__name__)


def test_when_no_plan_follows_then_memory_is_given_back_and_when_one_does_then_it_need_not_wait(monkeypatch):
    happened = []
    monkeypatch.setattr(engine_loop, "release_memory", lambda: happened.append("released"))
    monkeypatch.setattr(EngineLoop, "_work", lambda self, plan, model, decoder: happened.append(plan))
    with pytest.raises(EndOfPlansError):
        EngineLoop(PlansInTurn(["one", "another", None, "late"], happened), "compact", "cpu").run()
    assert happened == ["EngineReady", "one", "another", "waited", "released", "late"]
