"""A server that misbehaves on purpose: one ROUTER for both lanes, doing what a test's function says."""

from __future__ import annotations

import contextlib
import threading

import zmq

from xmem_client import Client, Connection, Timeouts
from xmem_protocol import Envelope, Ping, Pong, pack, unpack

QUICK = Timeouts(ping=0.1, silence=0.3, backoff_first=0.05, backoff_last=0.1, resend=0.4, total=3.0, answer=2.0)


class StandInServer:
    """Calls ``respond(envelope)`` for every request but pings, which are answered; it gives envelopes to send back."""

    def __init__(self, respond):
        self.respond = respond
        self.seen = []
        self._context = zmq.Context()
        self._router = self._context.socket(zmq.ROUTER)
        self._router.linger = 0
        self._router.curve_server = True
        server_public, self._router.curve_secretkey = zmq.curve_keypair()
        self._router.curve_publickey = server_public
        port = self._router.bind_to_random_port("tcp://127.0.0.1")
        public, secret = zmq.curve_keypair()
        address = f"tcp://127.0.0.1:{port}"
        self.connection = Connection(address, address, server_public.decode(), public.decode(), secret.decode())
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stopping.set()
        self._thread.join()
        self._router.close()
        self._context.term()

    def _run(self):
        while not self._stopping.is_set():
            if not self._router.poll(20):
                continue
            route, *frames = self._router.recv_multipart()
            envelope = unpack(frames)
            if isinstance(envelope.message, Ping):
                self._router.send_multipart([route, *pack(Envelope(Pong(), envelope.id))])
                continue
            self.seen.append((route, envelope))
            for reply in self.respond(envelope):
                self._router.send_multipart([route, *(reply if isinstance(reply, list) else pack(reply))])


@contextlib.contextmanager
def client_of(server, timeouts=QUICK):
    with Client(server.connection, "nuke-1", timeouts) as client:
        yield client
