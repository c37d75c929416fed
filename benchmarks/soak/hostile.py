"""Clients that crash and peers that attack."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import zmq

from benchmarks.kills import Ledger as KilledLedger
from benchmarks.mutations import Mutator
from benchmarks.soak.ledger import Gate, Ledger
from tests.protocol.samples import SAMPLES
from tests.server.served import import_paths, raw_socket
from xmem_client import Connection, fetch_connection
from xmem_protocol import PREFIX, BeginUpload, Envelope, GetStatus, Ping, pack
from xmem_server.connection import make_key_pair

_LONGEST_LIFE = 6.0  # seconds before a crashing client is killed


class CrashingClient(threading.Thread):
    """Starts a client process, kills it at a random moment, starts the next one."""

    def __init__(self, name: str, key_file: Path, gate: Gate, ledger: Ledger, seed: int) -> None:
        super().__init__(name=name)
        self._key_file = key_file
        self._gate = gate
        self._ledger = ledger
        self._random = random.Random(seed)
        self.said = KilledLedger()

    def run(self) -> None:
        """Act until the gate says that it is over."""
        folder = self._key_file.with_suffix(".files")
        folder.mkdir()
        while True:
            with self._gate.passing() as is_on:
                if not is_on:
                    return
                self._live_once(folder)
                self._ledger.count("crash")

    def _live_once(self, folder: Path) -> None:
        command = [sys.executable, "-m", "benchmarks.killed_client", str(self._key_file), str(folder)]
        seed = str(self._random.randrange(2**31))
        client = subprocess.Popen([*command, seed, "--prepare"], stdout=subprocess.PIPE, text=True, env=import_paths())
        killer = threading.Timer(self._random.uniform(0.5, _LONGEST_LIFE), client.kill)
        killer.start()
        if client.stdout is not None:
            with client.stdout as lines:
                for line in lines:
                    self.said.note(line)
        client.wait()
        killer.cancel()
        for left in folder.iterdir():
            left.unlink()


class Attacker(threading.Thread):
    """A peer with a valid key and none of the manners, and a stranger by turns."""

    def __init__(self, key_file: Path, gate: Gate, ledger: Ledger, seed: int) -> None:
        super().__init__(name="attacker")
        self._key_file = key_file
        self._gate = gate
        self._ledger = ledger
        self._random = random.Random(seed)
        self._mutator = Mutator(SAMPLES, seed)
        self._attacks: tuple[Callable[[Connection], None], ...] = (
            self._send_raw,
            self._knock,
            self._send_spoiled,
            self._send_spoiled,
            self._send_parts,
            self._flood,
            self._stay_half_open,
            self._begin_uploads,
        )

    def run(self) -> None:
        """Attack until the gate says that it is over."""
        connection = fetch_connection(self._key_file)
        while True:
            with self._gate.passing() as is_on:
                if not is_on:
                    return
                attack = self._random.choice(self._attacks)
                with contextlib.suppress(OSError, zmq.ZMQError):  # a server that starts again refuses connections
                    attack(connection)
                self._ledger.count(f"attack {attack.__name__.strip('_')}")
            time.sleep(self._random.uniform(0, 1))

    def _endpoint(self, connection: Connection) -> str:
        return self._random.choice((connection.control, connection.bulk))

    def _connect(self, connection: Connection) -> socket.socket:
        return socket.create_connection(("127.0.0.1", int(self._endpoint(connection).rsplit(":", 1)[1])), 2)

    def _send_raw(self, connection: Connection) -> None:
        with self._connect(connection) as peer:
            peer.sendall(self._random.choice((b"GET / HTTP/1.1\r\n\r\n", bytes(100_000), os.urandom(5000))))

    def _knock(self, connection: Connection) -> None:
        """Come with a key that nobody allowed; whatever is heard then is a finding."""
        public, secret = make_key_pair()
        stranger = Connection(connection.control, connection.bulk, connection.server_key, public, secret)
        with raw_socket(self._endpoint(stranger), stranger) as peer:
            peer.send_multipart(pack(Envelope(Ping(), "p", "stranger")))
            if peer.poll(300):
                self._ledger.accuse("a stranger was answered")

    def _send_spoiled(self, connection: Connection) -> None:
        with raw_socket(self._endpoint(connection), connection) as peer:
            for _ in range(50):
                peer.send_multipart(self._mutator.fetch() or [b""])
            peer.poll(200)

    def _send_parts(self, connection: Connection) -> None:
        with raw_socket(self._endpoint(connection), connection) as peer:
            peer.send_multipart(self._random.choice(([b""] * 20_000, [PREFIX, b"", bytes(9 * 1024**2)], [b"x"])))
            peer.poll(200)

    def _flood(self, connection: Connection) -> None:
        frames = pack(Envelope(GetStatus(), "p", "flood"))
        with raw_socket(self._endpoint(connection), connection) as peer:
            for _ in range(5000):
                with contextlib.suppress(zmq.Again):
                    peer.send_multipart(frames, zmq.NOBLOCK)

    def _stay_half_open(self, connection: Connection) -> None:
        with contextlib.ExitStack() as peers:
            for _ in range(50):
                peers.enter_context(self._connect(connection))
            time.sleep(0.5)

    def _begin_uploads(self, connection: Connection) -> None:
        with raw_socket(connection.bulk, connection) as peer:
            for _ in range(20):
                peer.send_multipart(pack(Envelope(BeginUpload(self._random.randbytes(32).hex(), 4096), "u", "raw")))
            peer.poll(200)
