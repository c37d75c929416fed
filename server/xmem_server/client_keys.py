"""Who is let in: the CURVE keys of clients by name, in one file that a running server reads again when it changes."""

from __future__ import annotations

import dataclasses
import json
import logging
import re
import threading
import time
from collections.abc import Iterable
from pathlib import Path

from xmem_protocol import InputError
from xmem_server.clients import LOCAL, ClientKey
from xmem_server.connection import is_public_key, read_private, save_private

LIST_NAME = "clients.json"  # in the state folder
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_MAX_BYTES = 1024 * 1024  # some 5000 keys
_LOG = logging.getLogger(__name__)


def check_client_name(name: str) -> None:
    """Raise InputError when a key cannot be named so: the name is shown in lists and stands before a session's name."""
    if not _NAME.fullmatch(name) or name == LOCAL:
        raise InputError(
            f"A client's name is 1 to 64 of a-z, 0-9, dot, dash and underscore, and not {LOCAL!r}; got {name[:80]!r}."
        )


def fetch_clients(path: Path) -> tuple[ClientKey, ...]:
    """Give the clients that are let in, in order of name; none when there is no list yet.

    Raises InputError when others may write or read the list, or it is something else.
    """
    if not path.exists():
        return ()
    try:
        fields = json.loads(read_private(path, _MAX_BYTES))["clients"]
        clients = tuple(ClientKey(**{field.name: each[field.name] for field in _FIELDS}) for each in fields)
    except (ValueError, KeyError, TypeError, RecursionError):
        raise InputError(
            f"{path} is not a list of client keys. Restore it, or remove it and allow the keys again."
        ) from None
    for client in clients:
        if not (isinstance(client.name, str) and is_public_key(client.public_key)):
            raise InputError(f"{path} holds a key that is none. Restore it, or remove it and allow the keys again.")
    return clients


_FIELDS = dataclasses.fields(ClientKey)


def save_clients(path: Path, clients: Iterable[ClientKey]) -> None:
    """Write the list in one step; a running server goes by it from its next message on."""
    rows = [dataclasses.asdict(client) for client in sorted(clients, key=lambda client: client.name)]
    save_private(path, json.dumps({"clients": rows}, indent=1))


def allow_client(path: Path, name: str, public_key: str, *, is_supervisor: bool) -> ClientKey:
    """Give the client that is let in from now on. Raises InputError when the name or the key is in the list already."""
    check_client_name(name)
    if not is_public_key(public_key):
        raise InputError("A public key is the 40 letters that 'xmem keys new' prints. Copy all of them, in quotes.")
    known = fetch_clients(path)
    for client in known:
        if client.name == name:
            raise InputError(f"There is a key named {name!r} already. Revoke it first: xmem keys revoke {name}")
        if client.public_key == public_key:
            raise InputError(f"This key is {client.name!r} already.")
    added = ClientKey(name, public_key, is_supervisor, round(time.time(), 3))
    save_clients(path, (*known, added))
    return added


def revoke_client(path: Path, name: str) -> None:
    """Let this client in no more. Raises InputError when there is none of that name."""
    known = fetch_clients(path)
    if name not in {client.name for client in known}:
        names = ", ".join(client.name for client in known) or "none"
        raise InputError(f"There is no key named {name[:80]!r}. Known are: {names}.")
    save_clients(path, (client for client in known if client.name != name))


class ClientList:
    """The live list of clients, and the one local key beside it. May be asked from any thread, for every message.

    The local key belongs to whoever can read the state folder anyway, so it may touch everybody's sessions.
    """

    def __init__(self, path: Path, local_public_key: str) -> None:
        self._path = path
        self._local = ClientKey(LOCAL, local_public_key, is_supervisor=True)
        self._lock = threading.Lock()
        self._stamp: tuple[int, ...] | None = None
        self._clients: dict[str, ClientKey] = {}
        self._clients = {client.public_key: client for client in fetch_clients(path)}  # refuses a bad list at the start

    def fetch(self, public_key: str) -> ClientKey | None:
        """Give the client of this key as the list says now, or None when it is not let in."""
        if public_key == self._local.public_key:
            return self._local
        with self._lock:
            self._renew()
            return self._clients.get(public_key)

    def _renew(self) -> None:
        try:
            status = self._path.stat()
            stamp: tuple[int, ...] = (status.st_mtime_ns, status.st_ino, status.st_size)
        except OSError:
            stamp = ()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._clients = {client.public_key: client for client in fetch_clients(self._path)}
        except InputError as error:
            self._clients = {}  # nobody gets in by a list that cannot be read
            _LOG.error("no client is let in but the local one: %s", error)
