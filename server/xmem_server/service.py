"""The server: one store, one engine, two lanes, and the order in which they start and stop."""

from __future__ import annotations

import contextlib
import dataclasses
import ipaddress
import logging
import os
import signal
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import NoReturn

import zmq
import zmq.auth.thread

from xmem_protocol import MAX_HEADER_BYTES, MAX_PAYLOAD_BYTES, InputError, ServerError, XMemError
from xmem_server.bulk import MAX_UPLOAD_BYTES, BulkDesk
from xmem_server.client_keys import LIST_NAME, ClientList, fetch_clients
from xmem_server.connection import Endpoints, Keys, keep_keys, remove_connection, save_connection
from xmem_server.control import ControlDesk, ServerFacts
from xmem_server.decoding import Decoder
from xmem_server.engines import Engine, EngineProcess
from xmem_server.files import StorageLimits
from xmem_server.lanes import ZAP_DOMAIN, Lane, LaneSettings
from xmem_server.limits import ClientLimits
from xmem_server.memory_watch import StartedAgain, resident_bytes, start_again, take_started_again
from xmem_server.plans import EngineReady
from xmem_server.session import SessionHost
from xmem_server.store import Store

_LOG = logging.getLogger(__name__)
_CONTROL_HIGH_WATER = 1000  # messages per peer and direction: small ones
_BULK_RECEIVE_HIGH_WATER = 8  # messages of 4 MiB per peer: twice the credit
_BULK_SEND_HIGH_WATER = 32  # chunks asked for twice after a break may wait together
_SUPERVISE_SECONDS = 0.1
_SWEEP_SECONDS = 600.0
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True, kw_only=True)
class ServeSettings:
    """Where the server listens, what it keeps where, and what computes.

    ``bind`` is ``tcp://ADDRESS``; port 0 takes a free one, on the loopback alone. ``readable_roots`` are folders from which
    files may be taken by path, on this machine, instead of travelling. ``memory_limit`` is in bytes: a network process that
    holds more starts itself again. ``engine_memory``, in bytes, bounds what a job may take; 0 is four fifths of what there is.
    """

    state: Path
    connection_file: Path
    model: str = "compact"
    device: str = "auto"
    bind: str = "tcp://127.0.0.1"
    control_port: int = 0
    bulk_port: int = 0
    readable_roots: tuple[Path, ...] = ()
    limits: ClientLimits = field(default_factory=ClientLimits)
    memory_limit: int = 2 * 1024**3
    engine_memory: int = 0
    storage: StorageLimits = field(default_factory=StorageLimits)


def serve(settings: ServeSettings) -> int:
    """Serve until SIGTERM or SIGINT; give the exit code: 0 stopped as asked, 1 a part of it died, 2 it cannot start.

    Belongs on the main thread of its own process: it sets signal handlers and logs to stderr.
    """
    _log_to_stderr()
    for number in _STOP_SIGNALS:
        signal.signal(number, _stop_once)
    before = take_started_again()
    if before is not None:
        settings = dataclasses.replace(settings, control_port=before.control_port, bulk_port=before.bulk_port)
    try:
        engine = EngineProcess(settings.model, settings.device, memory=settings.engine_memory)
        with start_server(settings, engine, before.engine if before else None) as server:
            _supervise(server, settings)
    except XMemError as error:
        sys.stderr.write(f"xmem: {error}\n")
        return 2
    except KeyboardInterrupt:
        _LOG.info("stopped as asked")
        return 0
    _LOG.error("a thread of the server died; its last words are above")
    return 1


def _supervise(server: Server, settings: ServeSettings) -> None:
    """Return when a thread of the server has died; start the process again when it holds too much memory."""
    while server.is_alive():
        time.sleep(_SUPERVISE_SECONDS)
        if resident_bytes() > settings.memory_limit:
            start_again(server.carry_over())


class _Sweeper:
    """Tidies the store now and then, on a thread of its own: looking through many files takes time that nobody else has."""

    def __init__(self, store: Store, upload_seconds: float) -> None:
        self._store = store
        self._upload_seconds = upload_seconds
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sweep")

    def start(self) -> None:
        """Begin; ``stop`` ends it, whether this came to its end or not."""
        self._thread.start()

    def stop(self) -> None:
        """Finish the present sweep."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(_SWEEP_SECONDS):
            try:
                self._store.sweep(self._upload_seconds)
            except (OSError, ServerError, sqlite3.Error) as error:
                _LOG.warning("the store was not swept: %s", error)


@contextlib.contextmanager
def start_server(settings: ServeSettings, engine: Engine, known: EngineReady | None = None) -> Iterator[Server]:
    """Give a running server, engine ready and connection file written; it stops when the context is left.

    ``known`` is what the engine was before the process was started again: then nobody waits for it.

    Raises InputError when the address is not on the loopback and no client keys are allowed, the state folder cannot be used,
    or the engine refuses.
    """
    check_bind(settings)
    with contextlib.ExitStack() as stack:
        store = Store(settings.state, settings.storage)
        stack.callback(store.close)
        keys = keep_keys(store.folder / "keys.json")
        _remove_stale(settings.connection_file)
        stack.callback(engine.close)
        if known is not None:
            engine.expect(known)
        ready = known or engine.start()
        _LOG.info("engine device=%s model=%s sha256=%s", ready.device, ready.model, ready.model_sha256[:12])
        decoder = stack.enter_context(Decoder())
        clients = ClientList(store.folder / LIST_NAME, keys.client_public)
        context, is_judge_alive = open_context(stack, clients)
        facts = ServerFacts(os.urandom(8).hex(), MAX_UPLOAD_BYTES, tuple(str(root) for root in settings.readable_roots))
        control_desk, bulk_desk = ControlDesk(facts), BulkDesk(store, settings.readable_roots, settings.limits)
        control = Lane(context, _control_lane(settings), keys, clients, control_desk.receive, control_desk.lost)
        stack.callback(control.stop)
        bulk = Lane(context, _bulk_lane(settings), keys, clients, bulk_desk.receive, bulk_desk.lost)
        stack.callback(bulk.stop)
        host = SessionHost(store, engine, decoder, control_desk.wake, settings.limits)
        stack.callback(host.close)
        stack.callback(bulk_desk.stop)
        stack.callback(control_desk.stop)
        control_desk.start(host, control.send)
        bulk_desk.start(bulk.send)
        control.start()
        bulk.start()
        endpoints = Endpoints(control.endpoint, bulk.endpoint)
        save_connection(settings.connection_file, keys, _reached_from_here(endpoints), os.getpid())
        stack.callback(remove_connection, settings.connection_file)
        _LOG.info("serving control=%s bulk=%s state=%s", endpoints.control, endpoints.bulk, store.folder)
        threads = (is_judge_alive, control.is_alive, bulk.is_alive, control_desk.is_alive)
        sweeper = _Sweeper(store, settings.limits.upload_seconds)
        stack.callback(sweeper.stop)  # before it starts: who stops the server may do so at any moment
        sweeper.start()
        yield Server(endpoints, keys, ready, threads)


@dataclass(frozen=True)
class Server:
    """A running server: where it listens, the keys to it, its engine, whether all of its threads run."""

    endpoints: Endpoints
    keys: Keys
    engine: EngineReady
    threads: tuple[Callable[[], bool], ...]

    def is_alive(self) -> bool:
        """Whether every thread of the server runs."""
        return all(is_alive() for is_alive in self.threads)

    def carry_over(self) -> StartedAgain:
        """Give what the process keeps when it starts itself again."""
        return StartedAgain(_port_of(self.endpoints.control), _port_of(self.endpoints.bulk), self.engine)


def check_bind(settings: ServeSettings) -> None:
    """Raise InputError unless the server would listen on possible ports, and beyond the loopback for allowed keys alone."""
    scheme, _, address = settings.bind.partition("://")
    try:
        numeric = ipaddress.IPv4Address("127.0.0.1" if address == "localhost" else address)
    except ValueError:
        numeric = None
    if scheme != "tcp" or numeric is None:
        raise InputError(
            f"The server listens on an address in numbers, as tcp://127.0.0.1 or tcp://0.0.0.0; got {settings.bind!r}."
        )
    for port in (settings.control_port, settings.bulk_port):
        if not 0 <= port <= 65535:
            raise InputError(f"A port is 1 to 65535, or 0 for a free one; got {port}.")
    if numeric.is_loopback:
        return
    if not fetch_clients(settings.state / LIST_NAME):
        raise InputError(
            f"{settings.bind} can be reached from the network and no client key is allowed yet. Make one first: "
            f"xmem keys new NAME FILE --host HOST --state {settings.state}"
        )
    if not (settings.control_port and settings.bulk_port):
        raise InputError("Beyond this machine the server needs a port that its clients know, as --port 5570.")


class _OneLine(logging.Formatter):
    """Gives every record on one line, tracebacks too."""

    def format(self, record: logging.LogRecord) -> str:
        """Give the line."""
        return " | ".join(super().format(record).splitlines())


def _log_to_stderr() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])


def _remove_stale(connection_file: Path) -> None:
    """Remove what a killed server left: nobody answers there. Raises InputError when the folder is no use."""
    if not connection_file.parent.is_dir():
        raise InputError(f"{connection_file.parent} is not a folder; the connection file goes there. Make it first.")
    with contextlib.suppress(OSError):  # what cannot be removed cannot be replaced either, and then that is said
        connection_file.unlink()


class _Judge:
    """Lets the listed CURVE keys in; the authenticator calls it for every handshake."""

    def __init__(self, clients: ClientList) -> None:
        self._clients = clients

    def callback(self, domain: str, key: bytes) -> bool:
        """Whether this key (Z85) may enter."""
        client = self._clients.fetch(key.decode("ascii", "replace"))
        if client is None:
            _LOG.warning("refused a handshake, reason=unknown_key domain=%s", domain)
        return client is not None


def open_context(
    stack: contextlib.ExitStack, clients: ClientList
) -> tuple[zmq.Context[zmq.Socket[bytes]], Callable[[], bool]]:
    """Give a ZeroMQ context in which every handshake is judged, and whether the judge lives; both end with the stack."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    stack.callback(context.term)
    authenticator = zmq.auth.thread.ThreadAuthenticator(context, log=logging.getLogger(f"{__name__}.zap"))
    stack.callback(authenticator.stop)  # before it starts, as with the sweeper
    authenticator.start()
    authenticator.configure_curve_callback(domain=ZAP_DOMAIN, credentials_provider=_Judge(clients))
    return context, authenticator.is_alive


def _reached_from_here(endpoints: Endpoints) -> Endpoints:
    """Give the endpoints as a client on this machine names them: nobody connects to *all addresses*."""
    return Endpoints(*(each.replace("//0.0.0.0:", "//127.0.0.1:") for each in dataclasses.astuple(endpoints)))


def _control_lane(settings: ServeSettings) -> LaneSettings:
    return LaneSettings(
        name="control",
        bind=_numeric(settings.bind),
        port=settings.control_port,
        max_frame=MAX_HEADER_BYTES,
        receive_high_water=_CONTROL_HIGH_WATER,
        send_high_water=_CONTROL_HIGH_WATER,
        per_second=settings.limits.control_per_second,
        burst=settings.limits.control_burst,
    )


def _bulk_lane(settings: ServeSettings) -> LaneSettings:
    return LaneSettings(
        name="bulk",
        bind=_numeric(settings.bind),
        port=settings.bulk_port,
        max_frame=MAX_PAYLOAD_BYTES,
        receive_high_water=_BULK_RECEIVE_HIGH_WATER,
        send_high_water=_BULK_SEND_HIGH_WATER,
        per_second=settings.limits.bulk_per_second,
        burst=settings.limits.bulk_burst,
    )


def _port_of(endpoint: str) -> int:
    return int(endpoint.rsplit(":", 1)[1])


def _numeric(bind: str) -> str:
    return bind.replace("//localhost", "//127.0.0.1")  # ZeroMQ binds to numbers only


def _stop_once(number: int, frame: FrameType | None) -> NoReturn:
    """Stop by KeyboardInterrupt; a second signal does not interrupt the stopping."""
    for stop_signal in _STOP_SIGNALS:
        signal.signal(stop_signal, signal.SIG_IGN)
    raise KeyboardInterrupt
