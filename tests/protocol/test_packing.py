import random

import msgpack
import pytest

import xmem_protocol
from tests.protocol.samples import KEY, SAMPLES, SHA, SHOT
from xmem_protocol import (
    MAX_HEADER_BYTES,
    MAX_PAYLOAD_BYTES,
    MAX_REPLY_BYTES,
    MESSAGE_TYPES,
    PREFIX,
    UNSUPPORTED_VERSION,
    Envelope,
    FindMissing,
    Follow,
    Key,
    LocalProtocolError,
    Ping,
    Progress,
    RemoteProtocolError,
    SessionState,
    UploadChunk,
    pack,
    unpack,
)

SEEDS = 2000


def _frames(header: object, payload: bytes = b"") -> list[bytes]:
    return [PREFIX, msgpack.packb(header), payload]


def _header(**changes: object) -> dict[str, object]:
    return {"v": 1, "type": "follow", "id": "r1", "client": "c", "body": {"job": "j", "after_seq": 3}, **changes}


def test_when_every_type_is_packed_then_a_sample_of_each_exists():
    assert {type(sample) for sample in SAMPLES} == set(MESSAGE_TYPES.values())


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.TYPE)
def test_when_a_message_is_packed_and_unpacked_then_it_is_the_same(sample):
    envelope = Envelope(sample, "request-1", "client-1", b"\0payload\xff")
    assert unpack(pack(envelope)) == envelope


def test_when_a_plain_message_is_packed_then_its_bytes_are_these():
    prefix, header, payload = pack(Envelope(Follow("j", 3), "r1", "c"))
    assert (prefix, payload) == (b"XMPP/1", b"")
    assert msgpack.unpackb(header) == _header()


def test_when_all_public_names_are_asked_then_the_package_has_them():
    assert all(hasattr(xmem_protocol, name) for name in xmem_protocol.__all__)


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.TYPE)
def test_when_a_header_is_cut_anywhere_then_it_is_refused(sample):
    prefix, header, payload = pack(Envelope(sample, "r", "c"))
    for length in range(len(header)):
        with pytest.raises(RemoteProtocolError):
            unpack([prefix, header[:length], payload])


def test_when_bytes_are_random_or_mutated_then_only_remote_protocol_error_is_raised():
    packed = [pack(Envelope(sample, "r", "c", b"xyz")) for sample in SAMPLES]
    accepted = 0
    for seed in range(SEEDS):
        source = random.Random(seed)
        frames = list(source.choice(packed))
        if seed % 4 == 0:
            frames[1] = source.randbytes(source.randrange(200))
        else:
            mutated = bytearray(frames[1])
            for _ in range(source.randint(1, 4)):
                mutated[source.randrange(len(mutated))] = source.randrange(256)
            frames[1] = bytes(mutated)
        if seed % 50 == 0:
            frames = frames[: source.randrange(3)] or [b""] * source.randrange(9)
        try:
            envelope = unpack(frames)
        except RemoteProtocolError:
            continue
        accepted += 1
        assert unpack(pack(envelope)) == envelope
    assert 0 < accepted < SEEDS  # some changes are inside text, and still a message


@pytest.mark.parametrize("count", [0, 1, 2, 4, 20_000])
def test_when_a_message_has_not_three_parts_then_it_is_refused(count):
    with pytest.raises(RemoteProtocolError, match="3 parts"):
        unpack([PREFIX] * count)


@pytest.mark.parametrize(
    "header",
    [
        _header(body={"job": "j", "after_seq": True}),
        _header(body={"job": "j", "after_seq": 3.0}),
        _header(body={"job": "j", "after_seq": "3"}),
        _header(body={"job": "j", "after_seq": None}),
        _header(body={"job": "j", "after_seq": 2**53 + 1}),
        _header(body={"job": "j", "after_seq": -(2**60)}),
        _header(body={"job": b"j", "after_seq": 3}),
        _header(body={"job": "j\0k", "after_seq": 3}),
        _header(body={"job": ["j"], "after_seq": 3}),
        _header(body={"after_seq": 3}),
        _header(body=[]),
        _header(body=None),
        _header(type="no_such_type"),
        _header(type=""),
        _header(type="event"),
        _header(type=7),
        _header(id=7),
        _header(client=None),
        _header(body={"job": "j" * 5000, "after_seq": 3}),
        [1, 2],
        7,
        None,
    ],
)
def test_when_a_field_is_not_what_its_type_says_then_it_is_refused(header):
    with pytest.raises(RemoteProtocolError):
        unpack(_frames(header))


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf"), True, "2.5", None])
def test_when_a_float_is_not_a_finite_number_then_it_is_refused(number):
    body = {**vars(Progress("j", 0, "waiting", 0, 0, 0, 0.0, 0.0)), "frames_per_second": number}
    with pytest.raises(RemoteProtocolError, match="frames_per_second"):
        unpack(_frames(_header(type="progress", body=body)))


def test_when_a_float_comes_as_a_whole_number_then_it_is_taken():
    body = {**vars(Progress("j", 0, "waiting", 0, 0, 0, 0.0, 0.0)), "frames_per_second": 2}
    assert unpack(_frames(_header(type="progress", body=body))).message.frames_per_second == 2.0


@pytest.mark.parametrize("version", [0, 2, True, "1", None, 1.0])
def test_when_the_version_is_another_then_the_refusal_says_so_and_names_the_request(version):
    with pytest.raises(RemoteProtocolError, match="version") as caught:
        unpack(_frames(_header(v=version, type="from_the_future", body=7)))
    assert (caught.value.code, caught.value.request_id) == (UNSUPPORTED_VERSION, "r1")


def test_when_a_known_request_is_wrong_inside_then_the_refusal_names_its_id():
    with pytest.raises(RemoteProtocolError) as caught:
        unpack(_frames(_header(body={})))
    assert (caught.value.code, caught.value.request_id) == ("bad_request", "r1")


def test_when_a_key_comes_twice_then_it_is_refused():
    once, again = msgpack.packb({"job": "j", "after_seq": 3}), msgpack.packb("after_seq") + msgpack.packb(9)
    body = bytes([once[0] + 1]) + once[1:] + again
    header = msgpack.packb({"v": 1, "type": "follow", "id": "r1", "client": "c"})
    whole = bytes([header[0] + 1]) + header[1:] + msgpack.packb("body") + body
    with pytest.raises(RemoteProtocolError, match="twice"):
        unpack([PREFIX, whole, b""])


def test_when_extra_fields_come_then_they_are_ignored():
    body = {"job": "j", "after_seq": 3, "from_the_future": {"deep": [1, 2, {"er": None}]}}
    assert unpack(_frames(_header(body=body, trace="t"))).message == Follow("j", 3)


def test_when_a_field_with_a_default_is_missing_then_the_default_is_taken():
    frames = _frames(_header(type="start_suggestion", body={"session": "s", "settings": {"count": 2}}))
    assert unpack(frames).message.settings.min_area == 0.0025


@pytest.mark.parametrize(
    "value",
    [msgpack.ExtType(5, b"x"), msgpack.Timestamp(1), b"binary", {1: 2}],
    ids=["extension", "timestamp", "binary", "number as key"],
)
def test_when_a_header_holds_what_no_message_needs_then_it_is_refused(value):
    with pytest.raises(RemoteProtocolError):
        unpack(_frames(_header(extra=value)))


def test_when_a_header_is_nested_without_end_then_it_is_refused():
    with pytest.raises(RemoteProtocolError):
        unpack([PREFIX, b"\x91" * 60_000, b""])


def test_when_a_header_announces_more_than_it_has_then_it_is_refused():
    with pytest.raises(RemoteProtocolError):
        unpack([PREFIX, b"\xdd\xff\xff\xff\xff", b""])


def test_when_the_prefix_is_another_then_the_error_asks_whether_this_is_the_server():
    with pytest.raises(RemoteProtocolError, match="XMPP/1"):
        unpack([b"HTTP/1.1", b"", b""])


def test_when_a_part_is_over_its_limit_then_both_sides_refuse_it():
    long_text = "x" * 4000
    big = FindMissing((long_text,) * 20)
    with pytest.raises(LocalProtocolError, match=str(MAX_HEADER_BYTES)):
        pack(Envelope(big, "r", "c"))
    frames = pack(Envelope(big, "r", "c"), MAX_REPLY_BYTES)
    with pytest.raises(RemoteProtocolError, match="larger"):
        unpack(frames)
    assert unpack(frames, MAX_REPLY_BYTES).message == big
    with pytest.raises(LocalProtocolError, match="payload"):
        pack(Envelope(UploadChunk(SHA, 0), "r", "c", bytes(MAX_PAYLOAD_BYTES + 1)))
    with pytest.raises(RemoteProtocolError, match="larger"):
        unpack([PREFIX, pack(Envelope(Ping()))[1], bytes(MAX_PAYLOAD_BYTES + 1)])


def test_when_a_session_has_ten_thousand_keys_then_its_state_fits_a_reply():
    keys = tuple(Key(frame, 255, KEY.presence, SHA, ".exr", KEY.selector) for frame in range(1_000_000, 1_010_000))
    state = Envelope(SessionState("s", SHOT, 1, 10_000, keys, ()), "r")
    assert unpack(pack(state, MAX_REPLY_BYTES), MAX_REPLY_BYTES) == state


@pytest.mark.parametrize("value", [object(), 2**70, "\ud800"], ids=["object", "too large", "half a letter"])
def test_when_a_value_cannot_travel_then_packing_says_so(value):
    with pytest.raises(LocalProtocolError, match="follow"):
        pack(Envelope(Follow("j", value), "r", "c"))
