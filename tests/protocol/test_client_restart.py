import signal
import threading
import time

import pytest

from tests.server.house import SHOT
from tests.server.served import FAST, ServerProcess, client_of, make_ready, whole
from xmem_client import Client, Timeouts, fetch_connection
from xmem_protocol import (
    ConnectionLostError,
    InputError,
    JobDone,
    MatteReady,
    ServerError,
)


def test_when_the_server_is_killed_while_a_job_is_followed_then_the_job_is_resumed_and_nothing_is_missed(tmp_path):
    with ServerProcess(tmp_path, {"wait_at": 1005}) as server:
        server.wait_ready()
        with client_of(server.settings) as client:
            make_ready(client, tmp_path)
            job = client.start_propagation("roto", whole())
            events = []
            for event in client.follow(job):
                if event.seq:
                    events.append(event)
                if event.seq == 4 and len(events) == 4:
                    server.kill()
                    (tmp_path / "engine" / "go").touch()
                    server.start()
            mattes = [event.frame for event in events if isinstance(event, MatteReady)]
            assert mattes == list(range(1001, 1009))
            assert [event.seq for event in events] == list(range(1, 10))
            assert isinstance(events[-1], JobDone)


def test_when_the_server_is_killed_between_requests_then_what_was_acknowledged_is_there(tmp_path):
    with ServerProcess(tmp_path) as server:
        server.wait_ready()
        with client_of(server.settings) as client:
            make_ready(client, tmp_path)
            before = client.open_session("roto", SHOT)
            server.kill()
            threading.Timer(0.5, server.start).start()
            assert client.open_session("roto", SHOT) == before


def test_when_another_clients_job_is_interrupted_then_following_it_says_to_start_it_again(tmp_path):
    with ServerProcess(tmp_path, {"wait_at": 1005}) as server:
        server.wait_ready()
        with client_of(server.settings, "owner") as owner:
            make_ready(owner, tmp_path)
            job = owner.start_propagation("roto", whole())
            next(event for event in owner.follow(job) if event.seq == 4)
        server.kill()
        server.start()
        with client_of(server.settings, "other") as other:
            server.wait_ready()
            with pytest.raises(ServerError, match="Start it again") as caught:
                list(other.follow(job, after_seq=4))
            assert caught.value.code == "engine_died"
            (tmp_path / "engine" / "go").touch()
            assert other.start_propagation("roto", whole()) == job
            assert [event.seq for event in other.follow(job, after_seq=4) if event.seq] == [5, 6, 7, 8, 9]


def test_when_the_server_stays_away_then_the_error_comes_in_time_and_says_so(tmp_path):
    patience = Timeouts(ping=0.2, silence=0.5, backoff_first=0.1, backoff_last=0.3, resend=1.0, total=2.0)
    with ServerProcess(tmp_path, {"wait_at": 1005}) as server:
        server.wait_ready()
        with client_of(server.settings, timeouts=patience) as client:
            make_ready(client, tmp_path)
            job = client.start_propagation("roto", whole())
            following = client.follow(job)
            next(event for event in following if event.seq == 4)
            server.kill()
            started = time.monotonic()
            with pytest.raises(ConnectionLostError, match="Is it running"):
                list(following)
            with pytest.raises(ConnectionLostError):
                client.status()
            with pytest.raises(ConnectionLostError):
                client.cancel(job)
            assert 5.0 < time.monotonic() - started < 12.0


def test_when_the_server_is_told_to_stop_then_it_leaves_with_zero(tmp_path):
    with ServerProcess(tmp_path) as server:
        for number in (signal.SIGTERM, signal.SIGINT):
            server.wait_ready()
            assert server.end(number) == 0
            assert not server.settings.connection_file.exists()
            server.start()


def test_when_there_never_was_a_server_then_the_first_request_says_so_at_once(tmp_path):
    with (
        Client(lambda: fetch_connection(tmp_path / "connection.json"), "nuke-1", FAST) as client,
        pytest.raises(InputError, match="Is it running"),
    ):
        client.hello()
