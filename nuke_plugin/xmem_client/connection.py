"""Where a server is and the keys to talk to it."""

from __future__ import annotations

import dataclasses
import json
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from xmem_protocol import InputError

MAX_CONNECTION_FILE_BYTES = 16 * 1024
_Z85_KEY_LENGTH = 40  # 32 bytes


@dataclass(frozen=True)
class Connection:
    """The two endpoints of a server, its public key, and this client's key pair (CURVE, Z85 text)."""

    control: str
    bulk: str
    server_key: str
    public_key: str
    secret_key: str = field(repr=False)


def fetch_connection(path: Path) -> Connection:
    """Give what a running server wrote in its connection file.

    Raises InputError when there is no such file, when others than its owner may read it, or when it is something else.
    """
    text = _read_private(Path(path))
    try:
        fields = json.loads(text)
        connection = Connection(**{field.name: fields[field.name] for field in dataclasses.fields(Connection)})
    except (ValueError, KeyError, TypeError, RecursionError):
        raise InputError(f"{path} is not a connection file of the XMem server. Start the server again.") from None
    if not all(isinstance(value, str) for value in dataclasses.astuple(connection)):
        raise InputError(f"{path} is not a connection file of the XMem server. Start the server again.")
    if any(
        len(key) != _Z85_KEY_LENGTH for key in (connection.server_key, connection.public_key, connection.secret_key)
    ):
        raise InputError(f"{path} holds a key of the wrong length. Start the server again.")
    return connection


def _read_private(path: Path) -> str:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise InputError(f"No XMem server is known at {path} ({error.strerror}). Is it running?") from None
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)  # of the open file, so that it cannot be exchanged in between
        if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_CONNECTION_FILE_BYTES:
            raise InputError(f"{path} is not a connection file of the XMem server.")
        if os.name == "posix" and status.st_mode & 0o077:
            raise InputError(f"{path} can be read by others, and it holds a secret key. Run: chmod 600 {path}")
        return file.read().decode("utf-8", "replace")
