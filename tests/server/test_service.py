import threading
import time

import pytest

from tests.server.house import SHOT, picture, scripted
from tests.server.served import (
    answer,
    client_of,
    make_ready,
    put_key,
    raw_socket,
    save,
    serving,
    settings_of,
    still_serves,
    whole,
)
from xmem_client import Client, fetch_connection
from xmem_protocol import (
    ABSENT,
    PRESENT,
    UNSUPPORTED_VERSION,
    BeginUpload,
    Envelope,
    Follow,
    Following,
    GetStatus,
    Hello,
    InputError,
    JobCancelled,
    JobDone,
    Key,
    MatteReady,
    Ping,
    Plate,
    Pong,
    Progress,
    PropagationSettings,
    RemoveKey,
    ServerError,
    Status,
    SuggestionSettings,
    SuggestionsReady,
    pack,
)
from xmem_server.service import start_server

# ------------------------------------------------------------------------------------------------------ the whole job


def test_when_a_shot_is_propagated_then_every_matte_comes_once_in_order_and_is_fetched(tmp_path):
    with serving(tmp_path, {"wait_at": 1005}) as settings, client_of(settings) as client:
        make_ready(client, tmp_path)
        events = []
        for event in client.follow(client.start_propagation("roto", whole())):
            events.append(event)
            if isinstance(event, Progress):  # the engine waits until somebody has seen where it is
                (tmp_path / "engine" / "go").touch()
        mattes = [event for event in events if isinstance(event, MatteReady)]
        assert [event.frame for event in mattes] == list(range(1001, 1009))
        assert [event.seq for event in events if event.seq] == list(range(1, 10))
        assert [event.is_key for event in mattes] == [True] + [False] * 7
        assert any(isinstance(event, Progress) for event in events)
        assert isinstance(events[-1], JobDone)
        file = mattes[2].files[0]
        client.fetch_file(file.sha256, file.nbytes, tmp_path / "matte.exr")
        assert (tmp_path / "matte.exr").read_bytes() == b"matte of 1003 by 1 keys"


def test_when_the_same_propagation_is_asked_again_then_the_same_job_is_replayed(tmp_path):
    with serving(tmp_path) as settings, client_of(settings) as client:
        make_ready(client, tmp_path)
        job = client.start_propagation("roto", whole())
        first = [event for event in client.follow(job) if event.seq]
        assert client.start_propagation("roto", whole()) == job
        assert [event for event in client.follow(job) if event.seq] == first
        assert [event.seq for event in client.follow(job, after_seq=6)] == [7, 8, 9]
        assert [event.seq for event in client.follow(job, after_seq=9)] == [9]  # the last word, once more


def test_when_suggestions_are_asked_then_they_come_as_an_event(tmp_path):
    with serving(tmp_path) as settings, client_of(settings) as client:
        make_ready(client, tmp_path)
        list(client.follow(client.start_propagation("roto", whole())))
        events = [e for e in client.follow(client.start_suggestion("roto", SuggestionSettings(1))) if e.seq]
        assert isinstance(events[0], SuggestionsReady)
        assert [suggestion.frame for suggestion in events[0].suggestions] == [1008]


def test_when_keys_are_put_and_removed_then_the_state_says_so(tmp_path):
    with serving(tmp_path) as settings, client_of(settings) as client:
        make_ready(client, tmp_path)
        put_key(client, tmp_path, 1004, 2)
        state = client.put_key("roto", Key(1005, 2, ABSENT, "", "", ""), None)
        assert [(key.frame, key.object_id, key.presence) for key in state.keys] == [
            (1001, 1, PRESENT),
            (1004, 2, PRESENT),
            (1005, 2, ABSENT),
        ]
        assert state.plate_count == 8
        assert len(client.remove_key("roto", 1004, 0).keys) == 2
        assert client.open_session("roto", SHOT).revision == 4


def test_when_a_request_cannot_be_done_then_its_reason_reaches_the_client_in_one_line(tmp_path):
    with serving(tmp_path) as settings, client_of(settings) as client:
        client.open_session("roto", SHOT)
        path, sha256 = save(tmp_path / "small.png", picture(1, 32, 32))
        with pytest.raises(ServerError, match="Frame 1001 is 32x32 but the shot is 64x48") as caught:
            client.put_plates("roto", [(Plate(1001, sha256, 0, ".png"), path)], lambda done, total: None)
        assert caught.value.code == "bad_input"
        with pytest.raises(ServerError, match="no session 'other'") as caught:
            client.start_propagation("other", whole())
        assert (caught.value.code, "\n" in str(caught.value)) == ("not_found", False)
        with pytest.raises(ServerError, match="knows no job"):
            list(client.follow("no such job"))
        with pytest.raises(ServerError, match="knows no job"):
            client.cancel("no such job")


# -------------------------------------------------------------------------------------------------- follow and cancel


def test_when_a_job_is_cancelled_from_another_thread_then_the_follower_sees_it_end(tmp_path):
    with serving(tmp_path, {"wait_at": 1004}) as settings, client_of(settings) as client:
        make_ready(client, tmp_path)
        job = client.start_propagation("roto", whole())
        took = []

        def cancel():
            started = time.monotonic()
            client.cancel(job)
            took.append(time.monotonic() - started)

        thread = threading.Thread(target=cancel)
        events = []
        for event in client.follow(job):
            events.append(event)
            if isinstance(event, MatteReady) and event.frame == 1003:
                thread.start()
        thread.join()
        assert isinstance(events[-1], JobCancelled)
        assert took[0] < 1.0  # the promise is 0.1 s; the machine that runs the tests may be busy


def test_when_two_clients_follow_one_job_then_both_see_all_of_it(tmp_path):
    with (
        serving(tmp_path, {"wait_at": 1004}) as settings,
        client_of(settings) as one,
        client_of(settings, "nuke-2") as two,
    ):
        make_ready(one, tmp_path)
        job = one.start_propagation("roto", whole())
        seen = []
        thread = threading.Thread(target=lambda: seen.extend(e.seq for e in two.follow(job) if e.seq))
        thread.start()
        (tmp_path / "engine" / "go").touch()
        assert [event.seq for event in one.follow(job) if event.seq] == list(range(1, 10))
        thread.join()
        assert seen == list(range(1, 10))


def test_when_other_requests_are_made_while_following_then_no_event_is_lost(tmp_path):
    with serving(tmp_path) as settings, client_of(settings) as client:
        make_ready(client, tmp_path)
        job = client.start_propagation("roto", whole())
        seqs = []
        for event in client.follow(job):
            seqs.append(event.seq)
            assert client.status().sessions == 1
        assert [seq for seq in seqs if seq] == list(range(1, 10))


def test_when_a_follower_is_left_and_begun_again_then_it_begins_where_it_is_told(tmp_path):
    with serving(tmp_path) as settings, client_of(settings) as client:
        make_ready(client, tmp_path)
        job = client.start_propagation("roto", whole())
        for event in client.follow(job):
            if event.seq == 3:
                break
        assert [event.seq for event in client.follow(job, after_seq=3) if event.seq] == [4, 5, 6, 7, 8, 9]
        assert [event.seq for event in client.follow(job) if event.seq] == list(range(1, 10))


def test_when_events_are_not_granted_then_only_the_window_is_sent(tmp_path):
    last = SHOT.first + 99
    shot = SHOT.__class__(**{**vars(SHOT), "last": last})
    with serving(tmp_path) as settings, client_of(settings) as client:
        client.open_session("roto", shot)
        path, sha256 = save(tmp_path / "still.png", picture(1))
        frames = range(shot.first, last + 1)
        client.put_plates("roto", [(Plate(f, sha256, 0, ".png"), path) for f in frames], lambda done, total: None)
        put_key(client, tmp_path)
        job = client.start_propagation("roto", PropagationSettings(shot.first, last))
        assert len([event for event in client.follow(job) if event.seq]) == 101
        connection = fetch_connection(settings.connection_file)
        with raw_socket(connection.control, connection) as socket:
            socket.send_multipart(pack(Envelope(Follow(job, 0), "f1", "raw")))
            assert answer(socket).message == Following(job, "done")
            seqs = [answer(socket).message.seq for _ in range(64)]
            assert seqs == list(range(1, 65))
            assert not socket.poll(300)
            socket.send_multipart(pack(Envelope(Follow(job, 40), "f2", "raw")))
            assert answer(socket).message == Following(job, "done")
            assert [answer(socket).message.seq for _ in range(37)] == list(range(65, 102))


def test_when_a_follower_vanishes_then_the_job_goes_on_and_another_sees_it_whole(tmp_path):
    with serving(tmp_path, {"wait_at": 1004}) as settings:
        with client_of(settings, "gone") as gone:
            make_ready(gone, tmp_path)
            job = gone.start_propagation("roto", whole())
            next(event for event in gone.follow(job) if event.seq == 2)
        (tmp_path / "engine" / "go").touch()
        with client_of(settings) as client:
            assert [event.seq for event in client.follow(job) if event.seq] == list(range(1, 10))


# ------------------------------------------------------------------------------------------------- lanes and handshake


def test_when_a_client_says_hello_then_the_server_says_who_it_is(tmp_path):
    with serving(tmp_path, readable_roots=(tmp_path / "cache",)) as settings, client_of(settings) as client:
        welcome = client.hello()
        assert (welcome.wire_major, welcome.readable_roots) == (1, (str(tmp_path / "cache"),))
        assert [(engine.device, engine.model, engine.state) for engine in welcome.engines] == [
            ("cpu", "scripted", "idle")
        ]
        status = client.status()
        assert (status.server_epoch, status.sessions, status.queued) == (welcome.server_epoch, 0, 0)


def test_when_another_wire_version_is_spoken_then_the_answer_names_both(tmp_path):
    with serving(tmp_path) as settings:
        connection = fetch_connection(settings.connection_file)
        with raw_socket(connection.control, connection) as socket:
            socket.send_multipart(pack(Envelope(Hello(2, 0, "9"), "h", "raw")))
            reply = answer(socket)
            assert (reply.id, reply.message.code) == ("h", UNSUPPORTED_VERSION)
            assert "version 2" in reply.message.message


@pytest.mark.parametrize(
    ("lane", "message"), [("control", BeginUpload("ab" * 32, 5)), ("bulk", GetStatus()), ("bulk", Follow("j", 0))]
)
def test_when_a_message_comes_over_the_wrong_lane_then_it_is_refused(tmp_path, lane, message):
    with serving(tmp_path) as settings:
        connection = fetch_connection(settings.connection_file)
        with raw_socket(getattr(connection, lane), connection) as socket:
            socket.send_multipart(pack(Envelope(message, "m", "raw")))
            assert answer(socket).message.code == "bad_request"
            socket.send_multipart(pack(Envelope(Ping(), "p", "raw")))
            assert answer(socket) == Envelope(Pong(), "p")


def test_when_a_request_is_sent_twice_then_it_has_its_effect_once(tmp_path):
    with serving(tmp_path) as settings, client_of(settings) as client:
        make_ready(client, tmp_path)
        connection = fetch_connection(settings.connection_file)
        removal = pack(Envelope(RemoveKey("roto", 1001, 1), "same", "raw"))
        with raw_socket(connection.control, connection) as socket:
            for _ in range(3):
                socket.send_multipart(removal)
            replies = [answer(socket)]
            while socket.poll(300):
                replies.append(answer(socket))
            socket.send_multipart(removal)  # and after it was answered
            replies.append(answer(socket))
        assert len(set(replies)) == 1
        assert client.open_session("roto", SHOT).revision == 2


def test_when_a_request_lacks_its_id_or_client_then_it_is_refused(tmp_path):
    with serving(tmp_path) as settings:
        connection = fetch_connection(settings.connection_file)
        with raw_socket(connection.control, connection) as socket:
            for request_id, client in (("", "raw"), ("x", ""), ("x" * 200, "raw"), ("x", "c" * 200)):
                socket.send_multipart(pack(Envelope(GetStatus(), request_id, client)))
                assert answer(socket).message.code == "bad_request"


# -------------------------------------------------------------------------------------------------- starting, stopping


@pytest.mark.parametrize(
    ("bind", "words"),
    [
        ("tcp://0.0.0.0", "xmem keys new"),
        ("tcp://192.168.1.5", "xmem keys new"),
        ("tcp://*", "address in numbers"),
        ("tcp://[::1]", "address in numbers"),
        ("ipc:///tmp/x", "address in numbers"),
        ("", "address in numbers"),
        ("x", "address in numbers"),
    ],
)
def test_when_the_address_is_no_use_or_nobody_is_allowed_there_then_the_server_does_not_start(tmp_path, bind, words):
    with (
        pytest.raises(InputError, match=words),
        start_server(settings_of(tmp_path, bind=bind), scripted(tmp_path / "engine")),
    ):
        pass
    assert not (tmp_path / "state").exists()


def test_when_a_port_is_taken_then_the_server_does_not_start(tmp_path):
    with serving(tmp_path) as settings:
        port = int(fetch_connection(settings.connection_file).control.rsplit(":", 1)[1])
        (tmp_path / "second").mkdir()
        second = settings_of(tmp_path / "second", control_port=port)
        with pytest.raises(InputError, match="cannot listen"), start_server(second, scripted(tmp_path / "engine")):
            pass
        assert not second.connection_file.exists()


def test_when_the_engine_refuses_then_the_server_does_not_start_and_says_why(tmp_path):
    settings = settings_of(tmp_path)
    engine = scripted(tmp_path / "engine", {"refuse": "model.pth lacks key_encoder.conv1.weight."})
    with pytest.raises(InputError, match="lacks key_encoder"), start_server(settings, engine):
        pass
    assert not settings.connection_file.exists()


def test_when_a_second_server_takes_the_same_state_then_it_does_not_start(tmp_path):
    with serving(tmp_path) as settings, client_of(settings) as client:
        with pytest.raises(InputError), start_server(settings, scripted(tmp_path / "engine")):
            pass
        still_serves(client)


def test_when_the_server_stops_then_its_connection_file_is_gone_and_its_keys_are_kept(tmp_path):
    with serving(tmp_path) as settings:
        before = fetch_connection(settings.connection_file)
    assert not settings.connection_file.exists()
    with serving(tmp_path) as settings:
        after = fetch_connection(settings.connection_file)
    assert (before.server_key, before.public_key) == (after.server_key, after.public_key)


def test_when_the_server_is_stopped_while_any_of_its_threads_starts_then_no_thread_holds_the_process(
    tmp_path, monkeypatch
):
    real = threading.Thread.start
    before = set(threading.enumerate())
    stopped_at = []
    for place in range(100):
        begun = []

        def start(thread, place=place, begun=begun):
            real(thread)
            begun.append(thread.name)
            if len(begun) == place + 1:
                raise KeyboardInterrupt

        with monkeypatch.context() as fault:
            fault.setattr(threading.Thread, "start", start)
            try:
                with start_server(settings_of(tmp_path), scripted(tmp_path / "engine")):
                    pass
            except KeyboardInterrupt:
                stopped_at.append(begun[-1])
        if len(begun) <= place:  # it came up before so many threads were begun
            break
        for thread in set(threading.enumerate()) - before:
            if not thread.daemon:
                thread.join(5)
                assert not thread.is_alive(), f"{thread.name} goes on; stopped at {stopped_at[-1]}"
    assert "sweep" in stopped_at
    assert len(stopped_at) > 3


def test_when_a_session_was_stored_then_the_next_server_has_it(tmp_path):
    with serving(tmp_path) as settings, client_of(settings) as client:
        make_ready(client, tmp_path)
        before = client.open_session("roto", SHOT)
    with serving(tmp_path) as settings, client_of(settings) as client:
        assert client.open_session("roto", SHOT) == before


def test_when_a_lane_receives_status_then_status_is_answered(tmp_path):
    with serving(tmp_path) as settings, Client(fetch_connection(settings.connection_file), "fixed") as client:
        assert isinstance(client.status(), Status)
