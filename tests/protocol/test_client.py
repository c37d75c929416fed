import hashlib
import time

import pytest

from tests.protocol.stand_in_server import StandInServer, client_of
from xmem_client import CLIENT_VERSION, hash_file
from xmem_protocol import (
    CHUNK_BYTES,
    PREFIX,
    UPLOAD_CREDIT,
    WIRE_MAJOR,
    WIRE_MINOR,
    BeginUpload,
    ConnectionLostError,
    Envelope,
    ErrorReply,
    FetchChunk,
    FileChunk,
    FindMissing,
    Follow,
    Following,
    FrameFailed,
    GetStatus,
    Hello,
    InputError,
    JobDone,
    Missing,
    Pong,
    Progress,
    RemoteProtocolError,
    ServerError,
    Status,
    UploadChunk,
    UploadState,
    Welcome,
)

STATUS = Status("epoch", 1, 0, ())


def status_after(drops):
    """Answer the request after so many were dropped."""
    left = [drops]

    def respond(envelope):
        if left[0]:
            left[0] -= 1
            return []
        return [Envelope(STATUS, envelope.id)]

    return respond


def test_when_requests_are_lost_then_the_same_id_is_sent_until_it_is_answered():
    with StandInServer(status_after(2)) as server, client_of(server) as client:
        assert client.status() == STATUS
        assert [type(envelope.message) for _, envelope in server.seen] == [GetStatus] * 3
        assert len({envelope.id for _, envelope in server.seen}) == 1
        assert {envelope.client for _, envelope in server.seen} == {"nuke-1"}


def test_when_an_answer_comes_twice_or_late_then_it_is_taken_once():
    earlier = []

    def respond(envelope):
        reply = Envelope(Status("epoch", len(earlier), 0, ()), envelope.id)
        earlier.append(reply)
        return [*earlier, reply, Envelope(Pong(), "nobody's")]

    with StandInServer(respond) as server, client_of(server) as client:
        assert [client.status().sessions for _ in range(4)] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "reply",
    [
        [b""],
        [PREFIX, b"\xc1", b""],
        [PREFIX, b"", b"", b""],
        [b"HTTP/1.1", b"", b""],
    ],
)
def test_when_the_server_does_not_speak_the_protocol_then_the_error_says_so(reply):
    with (
        StandInServer(lambda envelope: [reply]) as server,
        client_of(server) as client,
        pytest.raises(RemoteProtocolError),
    ):
        client.status()


def test_when_the_answer_is_of_another_kind_then_the_error_names_both():
    with (
        StandInServer(lambda envelope: [Envelope(Missing(()), envelope.id)]) as server,
        client_of(server) as client,
        pytest.raises(RemoteProtocolError, match="'missing' where 'status'"),
    ):
        client.status()


def test_when_the_server_lives_but_never_answers_then_waiting_ends():
    with (
        StandInServer(lambda envelope: []) as server,
        client_of(server) as client,
        pytest.raises(ConnectionLostError, match="lives but has not answered a get_status"),
    ):
        client.status()


def test_when_the_server_refuses_then_the_error_has_its_code():
    with (
        StandInServer(lambda e: [Envelope(ErrorReply("forbidden", "No."), e.id)]) as server,
        client_of(server) as client,
    ):
        with pytest.raises(ServerError, match="No") as caught:
            client.hello()
        assert caught.value.code == "forbidden"
        (_, envelope) = server.seen[0]
        assert envelope.message == Hello(WIRE_MAJOR, WIRE_MINOR, CLIENT_VERSION)


# -------------------------------------------------------------------------------------------------------------- follow


def test_when_events_come_twice_or_from_another_job_then_each_is_given_once():
    events = [
        Progress("j", 0, "waiting", 0, 0, 0, 0.0, 0.0),
        FrameFailed("j", 1, 1, "x"),
        FrameFailed("j", 1, 1, "x"),
        FrameFailed("k", 2, 1, "another job's"),
        FrameFailed("j", 2, 2, "x"),
        FrameFailed("j", 1, 1, "x"),
        FrameFailed("j", 5, 5, "numbers may be left out"),
        JobDone("j", 6, "done"),
    ]

    def respond(envelope):
        return [Envelope(Following("j", "running"), envelope.id), *(Envelope(event) for event in events)]

    with StandInServer(respond) as server, client_of(server) as client:
        assert [event.seq for event in client.follow("j")] == [0, 1, 2, 5, 6]


def test_when_the_server_forgets_a_follower_then_it_is_asked_again_from_the_last_event():
    def respond(envelope):
        after = envelope.message.after_seq
        event = FrameFailed("j", after + 1, 1, "x") if after < 3 else JobDone("j", 4, "done")
        return [Envelope(Following("j", "running"), envelope.id), Envelope(event)]

    with StandInServer(respond) as server, client_of(server) as client:
        assert [event.seq for event in client.follow("j")] == [1, 2, 3, 4]
        assert [envelope.message for _, envelope in server.seen] == [Follow("j", after) for after in range(4)]


def test_when_half_of_the_window_is_used_then_more_is_granted():
    def respond(envelope):
        first = envelope.message.after_seq + 1
        if first > 100:
            return [Envelope(JobDone("j", 161, "done"))]
        begin = first if first == 1 else first + 32
        return [Envelope(FrameFailed("j", seq, 1, "x")) for seq in range(begin, first + 64)]

    with StandInServer(respond) as server, client_of(server) as client:
        assert [event.seq for event in client.follow("j")] == list(range(1, 162))
        assert [envelope.message.after_seq for _, envelope in server.seen][:4] == [0, 32, 64, 96]


def test_when_the_caller_is_slow_then_that_is_not_taken_for_silence():
    def respond(envelope):
        return [Envelope(FrameFailed("j", 1, 1, "x")), Envelope(JobDone("j", 2, "done"))]

    with StandInServer(respond) as server, client_of(server) as client:
        for event in client.follow("j"):
            if event.seq == 1:
                time.sleep(3.5)  # longer than the total of the timeouts
        assert event == JobDone("j", 2, "done")


# --------------------------------------------------------------------------------------------------------------- files


class UploadingServer:
    """Keeps chunks in memory; ``lose`` chunks are dropped once, ``busy`` ones refused once."""

    def __init__(self, content, lose=(), busy=()):
        self.sha256 = hashlib.sha256(content).hexdigest()
        self.count = -(-len(content) // CHUNK_BYTES)
        self.chunks = {}
        self.lose = list(lose)
        self.busy = list(busy)
        self.sent = []

    def state(self):
        wanted = tuple(chunk for chunk in range(self.count) if chunk not in self.chunks)
        return UploadState(self.sha256, wanted, not wanted)

    def respond(self, envelope):
        message = envelope.message
        if isinstance(message, FindMissing):
            return [Envelope(Missing(message.sha256s), envelope.id)]
        if isinstance(message, Hello):
            return [Envelope(Welcome(1, 0, "0", "e", 2**32, (), ()), envelope.id)]
        if isinstance(message, UploadChunk):
            self.sent.append(message.chunk)
            if message.chunk in self.lose:
                self.lose.remove(message.chunk)
                return []
            if message.chunk in self.busy:
                self.busy.remove(message.chunk)
                return [Envelope(ErrorReply("busy", "Try again."), envelope.id)]
            self.chunks[message.chunk] = envelope.payload
        return [Envelope(self.state(), envelope.id)]


def save(folder, chunks):
    content = b"".join(bytes([number]) * CHUNK_BYTES for number in range(chunks)) + b"the end"
    path = folder / "plate.exr"
    path.write_bytes(content)
    return path, content


@pytest.mark.parametrize(("lose", "busy"), [((), ()), ((2, 6), ()), ((), (0, 1, 2, 3))])
def test_when_a_file_is_uploaded_then_every_chunk_arrives_whatever_is_lost(tmp_path, lose, busy):
    path, content = save(tmp_path, 6)
    uploading = UploadingServer(content, lose, busy)
    with StandInServer(uploading.respond) as server, client_of(server) as client:
        client.store_file(path, uploading.sha256)
    assert b"".join(uploading.chunks[number] for number in range(7)) == content
    assert len(uploading.sent) == 7 + len(lose) + len(busy)


def test_when_an_upload_was_begun_before_then_only_what_is_wanted_travels(tmp_path):
    path, content = save(tmp_path, 3)
    uploading = UploadingServer(content)
    uploading.chunks = {0: content[:CHUNK_BYTES], 2: content[2 * CHUNK_BYTES : 3 * CHUNK_BYTES]}
    with StandInServer(uploading.respond) as server, client_of(server) as client:
        client.store_file(path, uploading.sha256)
    assert sorted(uploading.sent) == [1, 3]


def test_when_chunks_are_not_answered_then_no_more_than_the_credit_is_sent(tmp_path):
    path, content = save(tmp_path, 6)
    uploading = UploadingServer(content, lose=range(7))
    first = []

    def respond(envelope):
        if isinstance(envelope.message, BeginUpload):
            first.append(len(uploading.sent))
        return uploading.respond(envelope)

    with StandInServer(respond) as server, client_of(server) as client:
        client.store_file(path, uploading.sha256)
    assert first[:2] == [0, UPLOAD_CREDIT]


def test_when_the_server_has_a_file_then_nothing_is_sent(tmp_path):
    path, content = save(tmp_path, 1)
    with (
        StandInServer(lambda envelope: [Envelope(Missing(()), envelope.id)]) as server,
        client_of(server) as client,
    ):
        client.store_file(path, hashlib.sha256(content).hexdigest())
        assert [type(envelope.message) for _, envelope in server.seen] == [FindMissing]


class FetchedServer:
    """Gives the chunks of a file, losing some once."""

    def __init__(self, content, lose=(), nbytes=None):
        self.content = content
        self.lose = list(lose)
        self.nbytes = len(content) if nbytes is None else nbytes
        self.asked = []

    def respond(self, envelope):
        message = envelope.message
        assert isinstance(message, FetchChunk)
        self.asked.append(message.chunk)
        if message.chunk in self.lose:
            self.lose.remove(message.chunk)
            return []
        start = message.chunk * CHUNK_BYTES
        chunk = FileChunk(message.sha256, message.chunk, self.nbytes)
        return [Envelope(chunk, envelope.id, payload=self.content[start : start + CHUNK_BYTES])]


@pytest.mark.parametrize("lose", [(), (0,), (1, 4, 6)])
def test_when_a_file_is_fetched_then_it_is_whole_whatever_is_lost(tmp_path, lose):
    _, content = save(tmp_path, 6)
    sha256 = hashlib.sha256(content).hexdigest()
    fetched = FetchedServer(content, lose)
    with StandInServer(fetched.respond) as server, client_of(server) as client:
        client.fetch_file(sha256, len(content), tmp_path / "matte.exr")
    assert (tmp_path / "matte.exr").read_bytes() == content
    assert sorted(fetched.asked) == sorted([*range(7), *lose])
    assert sorted(file.name for file in tmp_path.iterdir()) == ["matte.exr", "plate.exr"]


@pytest.mark.parametrize(("wrong", "words"), [({"nbytes": 99}, "99 bytes"), ({}, "damaged")])
def test_when_the_servers_bytes_are_wrong_then_the_old_file_stays_as_it_was(tmp_path, wrong, words):
    (tmp_path / "matte.exr").write_bytes(b"older")
    fetched = FetchedServer(b"something else", **wrong)
    with (
        StandInServer(fetched.respond) as server,
        client_of(server) as client,
        pytest.raises(RemoteProtocolError, match=words),
    ):
        client.fetch_file("ab" * 32, len(b"something else"), tmp_path / "matte.exr")
    assert (tmp_path / "matte.exr").read_bytes() == b"older"
    assert [file.name for file in tmp_path.iterdir()] == ["matte.exr"]


def test_when_the_file_cannot_be_written_then_one_line_says_so(tmp_path):
    with (
        StandInServer(FetchedServer(b"x").respond) as server,
        client_of(server) as client,
        pytest.raises(InputError, match="cannot be written"),
    ):
        client.fetch_file(hashlib.sha256(b"x").hexdigest(), 1, tmp_path / "missing" / "matte.exr")


def test_when_a_file_cannot_be_read_then_one_line_says_so(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        hash_file(tmp_path / "missing.exr")
