"""A lane that is slow to take its first message, and a peer that floods it meanwhile and vanishes.

As a program it ends with 0 when the lane lives on. A process of its own, because libzmq ends the process when it fails.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
import threading
import time
from pathlib import Path

import zmq

from xmem_protocol import Envelope, Ping, Pong, pack
from xmem_server.client_keys import ClientList
from xmem_server.connection import keep_keys
from xmem_server.lanes import Lane, LaneSettings
from xmem_server.service import open_context

SLEEP = 2.5  # seconds: longer than the heartbeats that once were on


def main() -> int:
    folder = Path(tempfile.mkdtemp())
    keys = keep_keys(folder / "keys.json")
    clients = ClientList(folder / "clients.json", keys.client_public)
    stack = contextlib.ExitStack()
    context, _ = open_context(stack, clients)
    first = threading.Event()

    def receive(route, client, envelope):
        if not first.is_set():
            first.set()
            time.sleep(SLEEP)
        return Pong()

    settings = LaneSettings("slow", "tcp://127.0.0.1", 0, 64 * 1024, 8, 8, 10_000.0, 10_000)
    lane = Lane(context, settings, keys, clients, receive, lambda route: None)
    lane.start()
    flood(lane.endpoint, keys, 200)
    time.sleep(SLEEP + 0.5)
    flood(lane.endpoint, keys, 1)
    code = 0 if lane.is_alive() else 1
    lane.stop()
    stack.close()
    return code


def flood(endpoint, keys, count):
    context = zmq.Context()
    socket = context.socket(zmq.DEALER)
    socket.linger = 0
    socket.curve_serverkey = keys.server_public.encode()
    socket.curve_publickey = keys.client_public.encode()
    socket.curve_secretkey = keys.client_secret.encode()
    socket.connect(endpoint)
    for _ in range(count):
        socket.send_multipart(pack(Envelope(Ping(), "p", "raw")))
    time.sleep(0.5)
    socket.close()
    context.term()


if __name__ == "__main__":
    sys.exit(main())
