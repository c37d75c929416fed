"""Peers without keys, with nonsense, or with no manners: they get nothing, and everybody else is served."""

import contextlib
import socket as tcp

import pytest
import zmq

from tests.server.served import answer, client_of, make_ready, raw_socket, serving, still_serves
from xmem_client import fetch_connection
from xmem_protocol import PREFIX, Envelope, ErrorReply, Ping, pack


def wrong_client_key(connection):
    public, secret = (key.decode() for key in zmq.curve_keypair())
    return connection.__class__(**{**vars(connection), "public_key": public, "secret_key": secret})


def wrong_server_key(connection):
    return connection.__class__(**{**vars(connection), "server_key": zmq.curve_keypair()[0].decode()})


@pytest.mark.parametrize("change", [lambda connection: None, wrong_client_key, wrong_server_key])
def test_when_a_guest_has_no_right_keys_then_it_gets_nothing_and_others_are_served(tmp_path, change):
    with serving(tmp_path) as settings, client_of(settings) as client:
        connection = fetch_connection(settings.connection_file)
        for endpoint in (connection.control, connection.bulk):
            with raw_socket(endpoint, change(connection)) as socket:
                for _ in range(3):
                    socket.send_multipart(pack(Envelope(Ping(), "p", "raw")))
                assert not socket.poll(700)
                still_serves(client)


@pytest.mark.parametrize(
    "frames",
    [
        [b""],
        [PREFIX],
        [PREFIX, b"", b"", b""],
        [PREFIX, b"\xc1", b""],
        [b"HTTP/1.1", b"GET /", b""],
        [PREFIX, b"\x91" * 60_000, b""],
        [b""] * 5000,
    ],
    ids=["empty", "one part", "four parts", "no msgpack", "no prefix", "nested", "many parts"],
)
def test_when_nonsense_comes_then_it_is_refused_and_others_are_served(tmp_path, frames):
    with serving(tmp_path) as settings, client_of(settings) as client:
        connection = fetch_connection(settings.connection_file)
        for endpoint in (connection.control, connection.bulk):
            with raw_socket(endpoint, connection) as socket:
                socket.send_multipart(frames)
                reply = answer(socket)
                assert isinstance(reply.message, ErrorReply)
                assert (reply.id, reply.message.code) == ("", "bad_request")
                still_serves(client)


def test_when_a_header_is_over_the_limit_then_the_peer_is_cut_off_and_others_are_served(tmp_path):
    with serving(tmp_path) as settings, client_of(settings) as client:
        connection = fetch_connection(settings.connection_file)
        with raw_socket(connection.control, connection) as socket:
            socket.send_multipart([PREFIX, bytes(80 * 1024), b""])
            assert not socket.poll(500)
            still_serves(client)
        with raw_socket(connection.bulk, connection) as socket:
            socket.send_multipart(
                [PREFIX, bytes(80 * 1024), b""]
            )  # under the bulk lane's frame limit, not the header's
            assert answer(socket).message.code == "bad_request"
            socket.send_multipart([PREFIX, b"", bytes(5 * 1024 * 1024)])
            assert not socket.poll(500)
            still_serves(client)


def test_when_raw_bytes_come_over_tcp_then_others_are_served(tmp_path):
    with serving(tmp_path) as settings, client_of(settings) as client:
        port = int(fetch_connection(settings.connection_file).control.rsplit(":", 1)[1])
        for content in (b"GET / HTTP/1.1\r\n\r\n", bytes(100_000), b"\xff" + bytes(8) + b"\x7f" + b"\xff" * 200, b""):
            with tcp.create_connection(("127.0.0.1", port)) as connection, contextlib.suppress(OSError):
                connection.sendall(content)
            still_serves(client)


def test_when_a_peer_does_not_read_then_it_is_cut_off_and_others_are_served(tmp_path):
    with serving(tmp_path) as settings, client_of(settings) as client:
        make_ready(client, tmp_path)
        connection = fetch_connection(settings.connection_file)
        with raw_socket(connection.control, connection) as socket:
            socket.rcvhwm = 1
            frames = pack(Envelope(Ping(), "p", "raw"))
            for _ in range(30_000):
                with contextlib.suppress(zmq.Again):
                    socket.send_multipart(frames, zmq.NOBLOCK)
            still_serves(client)
