import time
from pathlib import Path

import pytest

from tests.nuke.pictures import EMPTY, HEIGHT, WIDTH, box, plate_channels, save_exr
from tests.server.served import FAST, ServerProcess
from xmem_nuke.job import Job, make_connector, matte_path
from xmem_nuke.orders import (
    CANCELLED,
    DONE,
    FAILED,
    KEY,
    PLATE,
    Content,
    Ended,
    FrameSent,
    KeysAccepted,
    MatteArrived,
    Rendered,
    RenderWanted,
    RunOrder,
    ServerSeen,
    SuggestionsArrived,
    SuggestOrder,
    ThumbnailArrived,
    fetch_exr_channel,
)
from xmem_nuke.thumbnails import find_thumbnails
from xmem_protocol import PropagationSettings, Shot, SuggestionSettings

SHOT = Shot("node", WIDTH, HEIGHT, 1.0, 1001, 1004, "display")
FRAMES = range(1001, 1005)


class Desk:
    """The main thread's part of a job: fingerprints, renders, and a record of what was said."""

    def __init__(self, folder, connection_file):
        self.folder = folder
        self.cache = folder / "cache"
        self.connect = make_connector(connection_file, FAST)
        self.plates = dict.fromkeys(FRAMES, "a")  # frame -> state of the graph upstream
        self.keys = {1001: "k"}
        self.alpha = {"A": box(8)}
        self.objects = ((1, "rgba.alpha"),)
        self.rendered = []

    def order(self, shot=SHOT, session="session-1"):
        return RunOrder(session, shot, self.objects, PropagationSettings(shot.first, shot.last), self.cache)

    def contents(self):
        keys = [Content(KEY, frame, state and f"{frame} {state}") for frame, state in self.keys.items()]
        return (*keys, *(Content(PLATE, frame, state and f"{frame} {state}") for frame, state in self.plates.items()))

    def render(self, kind, frame):
        self.rendered.append((kind, frame))
        path = self.folder / "renders" / f"{kind}.{frame}.exr"
        seed = frame + len(self.plates.get(frame, ""))
        return Rendered(kind, frame, save_exr(path, plate_channels(seed) if kind == PLATE else self.alpha))

    def run(self, order=None, until=Ended, seconds=30):
        """Do an order to its end, or to the first happening of a kind; give what was said and the job."""
        self.rendered.clear()
        job = Job(order or self.order(), self.connect)
        job.start()
        if not isinstance(order, SuggestOrder):
            job.give_contents(self.contents())
        return self.go_on(job, until, seconds), job

    def go_on(self, job, until=Ended, seconds=30):
        said, end = [], time.monotonic() + seconds
        while True:
            assert time.monotonic() < end, said
            for happening in job.fetch_happenings():
                said.append(happening)
                if isinstance(happening, RenderWanted):
                    for kind, frame in happening.frames:
                        job.give_rendered(self.render(kind, frame))
                if isinstance(happening, (until, Ended)):
                    return said
            time.sleep(0.01)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with ServerProcess(tmp_path_factory.mktemp("server")) as server:
        server.wait_ready()
        yield server


@pytest.fixture
def desk(tmp_path, server):
    return Desk(tmp_path, server.settings.connection_file)


def sent(said):
    return [(event.kind, event.frame, event.travelled) for event in said if isinstance(event, FrameSent)]


def test_when_a_shot_runs_then_the_keys_go_first_and_every_matte_is_in_the_cache(desk):
    said, job = desk.run(desk.order(session="whole"))
    assert said[-1] == Ended(DONE, "scripted")
    assert isinstance(said[0], ServerSeen)
    assert said[0].model == "scripted"
    assert desk.rendered == [(KEY, 1001), *((PLATE, frame) for frame in FRAMES)]
    assert [event.frame for event in said if isinstance(event, MatteArrived)] == list(FRAMES)
    assert matte_path(desk.cache, 1, 1003).read_bytes() == b"matte of 1003 by 1 keys"
    assert not list((desk.folder / "renders").iterdir())
    assert job.join(5)


def test_when_nothing_changed_then_nothing_is_rendered_and_no_matte_is_fetched_again(desk):
    desk.run(desk.order(session="same"))
    before = {path: path.stat().st_mtime_ns for path in (desk.cache / "1").iterdir()}
    said, _ = desk.run(desk.order(session="same"))
    assert said[-1].how == DONE
    assert desk.rendered == []
    assert {path: path.stat().st_mtime_ns for path in (desk.cache / "1").iterdir()} == before


def test_when_one_key_is_edited_then_that_key_alone_is_rendered_and_travels(desk):
    desk.keys = {1001: "k", 1003: "k"}
    desk.run(desk.order(session="edit"))
    desk.keys[1003] = "other"
    desk.alpha = {"A": box(20)}
    said, _ = desk.run(desk.order(session="edit"))
    assert sent(said) == [(KEY, 1003, True)]
    assert said[-1].how == DONE
    assert matte_path(desk.cache, 1, 1002).read_bytes() == b"matte of 1002 by 2 keys"


def test_when_a_node_upstream_of_the_plate_changes_then_those_frames_are_rendered_again(desk):
    desk.run(desk.order(session="grade"))
    desk.plates[1002] = "graded"
    said, _ = desk.run(desk.order(session="grade"))
    assert sent(said) == [(PLATE, 1002, True)]


def test_when_there_is_no_fingerprint_then_frames_are_rendered_but_same_pixels_do_not_travel(desk):
    desk.plates = dict.fromkeys(FRAMES, "")
    desk.run(desk.order(session="blind"))
    said, _ = desk.run(desk.order(session="blind"))
    assert sent(said) == [(PLATE, frame, False) for frame in FRAMES]


def test_when_a_key_is_taken_away_then_the_server_forgets_it(desk):
    desk.keys = {1001: "k", 1004: "k"}
    desk.run(desk.order(session="remove"))
    del desk.keys[1004]
    said, _ = desk.run(desk.order(session="remove"))
    accepted = next(event for event in said if isinstance(event, KeysAccepted))
    assert [(key.frame, key.presence) for key in accepted.keys] == [(1001, "present")]


def test_when_keys_are_sent_then_each_has_a_thumbnail_which_is_fetched_again_only_after_an_edit(desk):
    desk.keys = {1001: "k", 1003: "k"}
    said, _ = desk.run(desk.order(session="pictures"))
    pictures = {event.frame: event.path for event in said if isinstance(event, ThumbnailArrived)}
    assert pictures.keys() == {1001, 1003}
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in pictures.values())
    before = pictures[1001].stat().st_mtime_ns
    desk.keys[1003] = "other"
    desk.alpha = {"A": box(20)}
    said, _ = desk.run(desk.order(session="pictures"))
    again = {event.frame: event.path for event in said if isinstance(event, ThumbnailArrived)}
    assert again[1001] == pictures[1001]
    assert pictures[1001].stat().st_mtime_ns == before
    assert again[1003] != pictures[1003]
    assert find_thumbnails(desk.cache) == {frame: str(path) for frame, path in again.items()}


def test_when_two_objects_share_a_key_then_the_one_not_drawn_there_is_absent(desk):
    desk.objects = ((1, "rgba.red"), (2, "matte.left"))
    desk.alpha = {"R": box(8), "matte.left": EMPTY}
    said, _ = desk.run(desk.order(session="two"))
    accepted = next(event for event in said if isinstance(event, KeysAccepted))
    assert [(key.object_id, key.presence, key.selector) for key in accepted.keys] == [
        (1, "present", "channel:R"),
        (2, "absent", ""),
    ]
    assert desk.rendered.count((KEY, 1001)) == 1


def test_when_nothing_is_drawn_on_any_key_then_the_artist_is_told_to_draw(desk):
    desk.alpha = {"A": EMPTY}
    said, _ = desk.run(desk.order(session="empty"))
    assert said[-1].how == FAILED
    assert "Draw a matte on at least one frame" in said[-1].message


def test_when_the_range_grows_then_only_the_new_frame_is_rendered(desk):
    desk.run(desk.order(session="short"))
    desk.plates[1005] = "a"
    longer = Shot("node", WIDTH, HEIGHT, 1.0, 1001, 1005, "display")
    said, _ = desk.run(desk.order(longer, "longer"))
    assert sent(said) == [(PLATE, 1005, True)]
    assert said[-1].how == DONE


def test_when_suggestions_are_asked_then_they_come_with_a_reason(desk):
    desk.run(desk.order(session="suggest"))
    said, _ = desk.run(SuggestOrder("suggest", SuggestionSettings(1)))
    arrived = next(event for event in said if isinstance(event, SuggestionsArrived))
    assert arrived.suggestions[0].frame == 1004
    assert arrived.suggestions[0].reason == "It differs most."


def test_when_suggestions_are_asked_before_a_run_then_the_answer_says_to_run(desk):
    said, _ = desk.run(SuggestOrder("never-run", SuggestionSettings(1)))
    assert said[-1].how == FAILED
    assert "never-run" in said[-1].message


def test_when_no_server_was_started_then_the_message_asks_whether_it_runs(tmp_path):
    desk = Desk(tmp_path, tmp_path / "nowhere.json")
    said, _ = desk.run()
    assert said[-1].how == FAILED
    assert "Is it running?" in said[-1].message


def test_when_the_cache_cannot_be_written_then_the_message_names_the_knob(desk):
    desk.cache = Path("/proc/nowhere")
    said, _ = desk.run(desk.order(session="readonly"))
    assert said[-1].how == FAILED
    assert "Output tab" in said[-1].message


def test_when_cancelled_while_frames_are_rendered_then_the_job_ends_at_once(desk):
    job = Job(desk.order(session="cancel"), desk.connect)
    job.start()
    job.give_contents(desk.contents())
    desk.go_on(job, ServerSeen)
    job.cancel()
    assert desk.go_on(job)[-1].how == CANCELLED
    assert job.join(5)


def test_when_cancelled_while_the_server_works_then_run_again_goes_on(tmp_path):
    with ServerProcess(tmp_path, {"wait_at": 1003}) as server:
        server.wait_ready()
        desk = Desk(tmp_path, server.settings.connection_file)
        _, job = desk.run(until=MatteArrived)
        job.cancel()
        assert desk.go_on(job)[-1].how == CANCELLED
        (tmp_path / "engine" / "go").touch()
        said, _ = desk.run()
        assert said[-1].how == DONE
        assert desk.rendered == []
        assert len(list((desk.cache / "1").iterdir())) == len(FRAMES)


def test_when_the_server_dies_and_comes_back_mid_run_then_the_job_goes_on_by_itself(tmp_path):
    with ServerProcess(tmp_path, {"wait_at": 1003}) as server:
        server.wait_ready()
        desk = Desk(tmp_path, server.settings.connection_file)
        _, job = desk.run(until=MatteArrived)
        server.kill()
        (tmp_path / "engine" / "go").touch()
        server.start()
        assert desk.go_on(job)[-1].how == DONE
        assert len(list((desk.cache / "1").iterdir())) == len(FRAMES)


@pytest.mark.parametrize(
    ("channel", "stored"),
    [
        ("rgba.alpha", "A"),
        ("alpha", "A"),
        ("rgba.red", "R"),
        ("A", "A"),
        ("matte.red", "matte.red"),
        ("depth.Z", "depth.Z"),
    ],
)
def test_when_a_nuke_channel_is_named_then_it_is_the_name_in_the_file(channel, stored):
    assert fetch_exr_channel(channel) == stored
