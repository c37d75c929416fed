import dataclasses

import cv2
import numpy as np
import pytest

from tests.server.house import LOCAL_CLIENT, SHOT, House, alpha, picture, sha256_of, upload
from xmem_protocol import (
    BAD_REQUEST,
    NOT_FOUND,
    STORAGE_FULL,
    Envelope,
    FindMissing,
    GetStatus,
    InputError,
    Key,
    Missing,
    Plate,
    PutKey,
    PutPlates,
    RemoveKey,
    ServerError,
)
from xmem_server.decoding import Decoder
from xmem_server.session_content import MAX_KEYS


@pytest.fixture(scope="module")
def decoder():
    with Decoder() as decoder:
        yield decoder


@pytest.fixture
def house(tmp_path, decoder):
    with House(tmp_path, decoder) as house:
        yield house


def absent(frame, object_id=1):
    return Key(frame, object_id, "absent", "", "", "")


def places(state):
    return [(key.frame, key.object_id) for key in state.keys]


def test_when_a_session_opens_then_it_is_empty_and_opens_again(house):
    state = house.open()
    assert (state.session, state.shot, state.revision, state.plate_count, state.keys, state.jobs) == (
        "roto",
        SHOT,
        0,
        0,
        (),
        (),
    )
    assert house.open() == state
    assert house.host.session_count(LOCAL_CLIENT) == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"width": 128}, "64 pixels wide; this one is 128"),
        ({"height": 96}, "48 pixels high; this one is 96"),
        ({"first": 1}, "first 1001; this one has 1"),
        ({"last": 1100}, "last 1008; this one has 1100"),
        ({"pixel_aspect": 2.0}, "pixel aspect 1.0; this one has 2.0"),
        ({"colorspace": "ACEScg"}, "colorspace display; this one has ACEScg"),
    ],
)
def test_when_a_session_opens_with_another_shot_then_the_difference_is_named(house, change, words):
    house.open()
    with pytest.raises(InputError, match=words):
        house.open(shot=dataclasses.replace(SHOT, **change))
    assert house.open().shot == SHOT


@pytest.mark.parametrize(
    "change",
    [
        {"width": 0},
        {"height": 20_000},
        {"pixel_aspect": 0.0},
        {"first": 1009},
        {"last": 10**9},
        {"first": -9_000_000},
        {"colorspace": ""},
    ],
)
def test_when_a_shot_cannot_be_then_no_session_opens(house, change):
    with pytest.raises(InputError):
        house.open(shot=dataclasses.replace(SHOT, **change))
    assert house.host.session_count(LOCAL_CLIENT) == 0


@pytest.mark.parametrize("name", ["", "two\nlines", "x" * 201])
def test_when_a_session_name_cannot_be_shown_then_it_is_refused(house, name):
    with pytest.raises(InputError, match="name"):
        house.open(name)


def test_when_a_session_name_looks_like_a_path_then_it_stays_below_the_state_folder(house):
    house.ready("../../outside")
    house.start("../../outside")
    assert not (house.store.folder.parent.parent / "outside").exists()
    assert (house.store.folder / "sessions" / "1" / "cache").exists()


def test_when_a_session_is_unknown_then_requests_for_it_are_not_found(house):
    for message in (PutPlates("none", ()), PutKey("none", absent(1001)), RemoveKey("none", 1001, 1)):
        with pytest.raises(ServerError) as caught:
            house.ask(message)
        assert caught.value.code == NOT_FOUND


def test_when_a_message_is_no_session_request_then_it_is_refused(house):
    with pytest.raises(ServerError) as caught:
        house.ask(GetStatus())
    assert caught.value.code == BAD_REQUEST


def test_when_plates_are_put_then_they_are_counted_once(house):
    house.open()
    assert house.put_plates().plate_count == 8
    assert house.put_plates(first=1004).plate_count == 8


def test_when_a_plate_has_another_size_then_the_frame_and_both_sizes_are_named(house):
    house.open()
    plates = (house.plate(1001), house.plate(1002, picture(1, 80, 60)))
    with pytest.raises(
        InputError, match=r"Frame 1002 is 80x60 but the shot is 64x48. Re-render the plate at one format."
    ):
        house.ask(PutPlates("roto", plates))
    assert house.open().plate_count == 0


def test_when_a_plate_cannot_be_used_then_the_frame_is_named(house):
    house.open()
    good = house.plate(1001)
    refused = [
        (dataclasses.replace(good, frame=1200), r"Frame 1200 is outside the shot \(1001-1008\)\."),
        (dataclasses.replace(good, suffix="/../x"), "Frame 1001"),
        (dataclasses.replace(good, suffix=".exr"), r"^Frame 1001's plate is a PNG named \.exr; rename it"),
        (dataclasses.replace(good, index=1), "Frame 1001 is picture 2 of a file that has 1"),
        (dataclasses.replace(good, index=-1), "Frame 1001"),
        (Plate(1001, upload(house.store, b"no picture"), 0, ".png"), "^Frame 1001's plate is not a PNG"),
    ]
    for plate, words in refused:
        with pytest.raises(InputError, match=words):
            house.ask(PutPlates("roto", (plate,)))
    with pytest.raises(InputError, match="Frame 1001 is given two plates"):
        house.ask(PutPlates("roto", (good, good)))
    with pytest.raises(ServerError, match=r"Frame 1001.*Upload it first"):
        house.ask(PutPlates("roto", (dataclasses.replace(good, sha256="a" * 64),)))
    assert house.open().plate_count == 0


def test_when_files_are_asked_for_then_the_missing_ones_are_named(house):
    stored = upload(house.store, b"here")
    assert house.ask(FindMissing((stored, "a" * 64))) == Missing(("a" * 64,))


def test_when_keys_are_added_replaced_and_removed_then_the_revision_counts_the_changes(house):
    house.open()
    assert (house.put_key(1005).revision, house.put_key(1001).revision) == (1, 2)
    state = house.put_key(1001, 2)
    assert places(state) == [(1001, 1), (1001, 2), (1005, 1)]
    replaced = house.put_key(1001, 1, value=128)
    assert (places(replaced), replaced.revision) == (places(state), 4)
    assert replaced.keys[0].sha256 == sha256_of(alpha(128))
    assert house.put_key(1001, 1, value=128).revision == 4  # said already
    assert places(house.ask(RemoveKey("roto", 1001, 2))) == [(1001, 1), (1005, 1)]
    house.ask(PutKey("roto", absent(1001, 3)))
    assert places(house.ask(RemoveKey("roto", 1001, 0))) == [(1005, 1)]
    assert house.open().revision == 7
    assert house.ask(RemoveKey("roto", 1001, 0)).revision == 7  # gone already


def test_when_an_absent_key_is_put_then_no_file_is_needed_and_none_may_come(house):
    house.open()
    assert house.ask(PutKey("roto", absent(1003))).keys == (absent(1003),)
    with pytest.raises(InputError, match="marked absent, yet comes with a matte"):
        house.ask(PutKey("roto", dataclasses.replace(house.key(1003), presence="absent")))


def test_when_a_key_cannot_be_used_then_it_is_refused_and_nothing_changes(house):
    house.open()
    good = house.key(1002)
    infinite = np.full((48, 64), np.inf, np.float32)
    tiff = cv2.imencode(".tiff", infinite)[1].tobytes()
    refused = [
        (dataclasses.replace(good, frame=1200), r"Frame 1200 is outside the shot \(1001-1008\)\."),
        (dataclasses.replace(good, object_id=0), "numbered 1 to 255"),
        (dataclasses.replace(good, object_id=256), "numbered 1 to 255"),
        (dataclasses.replace(good, presence="maybe"), "'maybe'"),
        (dataclasses.replace(good, selector="channel:"), "channel:NAME"),
        (
            dataclasses.replace(good, selector="channel:matte"),
            "^The key of object 1 at frame 1002 has no channel matte",
        ),
        (dataclasses.replace(good, suffix=".exr"), "^The key of object 1 at frame 1002 is a PNG named"),
        (
            dataclasses.replace(good, sha256=upload(house.store, tiff), suffix=".tiff"),
            "^The key of object 1 at frame 1002 has an alpha that is NaN",
        ),
        (house.key(1002, value=0), "The key of object 1 at frame 1002 is empty; draw the object or mark it absent."),
        (
            dataclasses.replace(good, sha256=upload(house.store, alpha(255, 80, 60))),
            "The key of object 1 at frame 1002 is 80x60 but the shot is 64x48",
        ),
    ]
    for key, words in refused:
        with pytest.raises(InputError, match=words):
            house.ask(PutKey("roto", key))
    with pytest.raises(ServerError, match="Upload it first"):
        house.ask(PutKey("roto", dataclasses.replace(good, sha256="a" * 64)))
    assert house.open().revision == 0


def test_when_a_request_is_sent_again_then_it_has_its_effect_once(house):
    house.open()
    put, remove = PutKey("roto", house.key(1001)), RemoveKey("roto", 1001, 1)
    first = house.ask(put, "put-1")
    assert house.ask(put, "put-1") == first
    house.ask(remove, "remove-1")
    again = house.ask(put, "put-1")  # a copy that was long on its way does not bring the key back
    assert (again.keys, again.revision) == ((), 2)
    assert (
        house.ask(put, "put-1", client="nuke-2").revision == 3
    )  # another client's request of that name is another one


def test_when_a_request_that_failed_is_sent_again_then_it_is_tried_again(house):
    house.open()
    key = dataclasses.replace(house.key(1001), sha256=sha256_of(alpha(200)))
    with pytest.raises(ServerError, match="Upload it first"):
        house.ask(PutKey("roto", key), "put-1")
    upload(house.store, alpha(200))
    assert house.ask(PutKey("roto", key), "put-1").revision == 1


def test_when_a_request_id_is_used_for_something_else_then_it_is_refused(house):
    house.open()
    house.ask(PutKey("roto", house.key(1001)), "put-1")
    with pytest.raises(ServerError) as caught:
        house.ask(PutKey("roto", house.key(1002)), "put-1")
    assert caught.value.code == BAD_REQUEST
    for request_id, client in (("", "nuke-1"), ("put-2", "")):
        with pytest.raises(ServerError, match="needs an id"):
            house.host.answer(LOCAL_CLIENT, Envelope(RemoveKey("roto", 1001, 1), request_id, client))


def test_when_the_server_restarts_then_sessions_plates_keys_and_answers_are_there(tmp_path, decoder):
    with House(tmp_path, decoder) as house:
        house.ready()
        message = PutKey("roto", house.key(1004, 2))
        before = house.ask(message, "put-1")
    with House(tmp_path, decoder) as house:
        assert house.open() == before
        assert house.ask(message, "put-1") == before


def test_when_a_session_has_all_the_keys_it_can_hold_then_one_more_is_refused(house, monkeypatch):
    monkeypatch.setattr("xmem_server.session_content.MAX_KEYS", 2)
    assert MAX_KEYS == 10_000
    house.open()
    house.put_key(1001)
    house.put_key(1002)
    with pytest.raises(ServerError, match="2 keys at most"):
        house.put_key(1003)
    assert house.put_key(1002, value=90).revision == 3  # another matte for a key that is there


def test_when_the_disk_is_full_then_the_key_is_refused_and_can_be_sent_again(house):
    house.open()
    house.put_key(1001)
    key = house.key(1002)
    pages = house.store.database.fetch_one("PRAGMA page_count")[0]
    house.store.database.fetch(f"PRAGMA max_page_count = {pages}")
    codes = set()
    for number in range(400):  # until the free room in the last pages is used
        try:
            house.ask(PutKey("roto", dataclasses.replace(key, object_id=1 + number % 255, frame=1002 + number // 255)))
        except ServerError as error:
            codes.add(error.code)
            break
    assert codes == {STORAGE_FULL}
    revision = house.store.sessions.fetch("local", "roto").revision
    house.store.database.fetch("PRAGMA max_page_count = 1000000")
    assert house.ask(PutKey("roto", dataclasses.replace(key, frame=1008))).revision == revision + 1
