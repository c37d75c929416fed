"""Peers that send without end and vanish: the server's process must outlive them."""

import contextlib
import subprocess
import sys
import time
from pathlib import Path

import pytest
import zmq

from tests.server.served import ServerProcess, client_of, import_paths
from xmem_client import fetch_connection
from xmem_protocol import Envelope, Ping, Welcome, pack


def flood_and_vanish(connection, endpoint):
    """Send faster than the server reads, so that it stops reading, then close without a word."""
    context = zmq.Context()
    socket = context.socket(zmq.DEALER)
    socket.linger = 0
    socket.sndhwm = 100_000
    socket.curve_serverkey = connection.server_key.encode()
    socket.curve_publickey = connection.public_key.encode()
    socket.curve_secretkey = connection.secret_key.encode()
    socket.connect(endpoint)
    frames = pack(Envelope(Ping(), "p", "raw"))
    for _ in range(20_000):
        with contextlib.suppress(zmq.Again):
            socket.send_multipart(frames, zmq.NOBLOCK)
    time.sleep(0.1)
    socket.close()
    context.term()


@pytest.mark.parametrize("lane", ["control", "bulk"])
def test_when_peers_flood_and_vanish_then_the_server_lives_on(tmp_path, lane):
    with ServerProcess(tmp_path) as server:
        connection = server.wait_ready()
        for _ in range(4):
            flood_and_vanish(connection, getattr(connection, lane))
        time.sleep(1.5)  # longer than any heartbeat
        with client_of(server.settings) as client:
            assert isinstance(client.hello(), Welcome)
        assert fetch_connection(server.settings.connection_file) == connection
        assert server.is_alive()


def test_when_a_flooding_peer_vanishes_from_a_busy_lane_then_the_process_lives_on():
    program = Path(__file__).with_name("slow_lane.py")
    assert subprocess.run([sys.executable, str(program)], env=import_paths(), check=False).returncode == 0
