"""Who may talk to the server: CURVE keys kept in the state folder, and the connection file that clients read.

Both hold secrets, so both are made readable by their owner alone, from their first moment, and refused when others may
read them. Only the one client key in the connection file is let in.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

import zmq

from xmem_protocol import InputError

_MAX_BYTES = 16 * 1024
_Z85_KEY_LENGTH = 40  # 32 bytes


@dataclass(frozen=True)
class Keys:
    """The key pairs of the server and of its one kind of client (CURVE, Z85 text)."""

    server_public: str
    server_secret: str = field(repr=False)
    client_public: str
    client_secret: str = field(repr=False)


@dataclass(frozen=True)
class Endpoints:
    """Where the two lanes listen, as ``tcp://ADDRESS:PORT``."""

    control: str
    bulk: str


def keep_keys(path: Path) -> Keys:
    """Give the keys kept at ``path``; made when there are none. Kept over restarts, so that clients find the server again.

    Raises InputError when others may read the file, or it is not a key file.
    """
    if not path.exists():
        save_private(path, json.dumps(dataclasses.asdict(_make_keys())))
    text = _read_private(path)
    try:
        fields = json.loads(text)
        keys = Keys(**{field.name: fields[field.name] for field in dataclasses.fields(Keys)})
        is_valid = all(isinstance(key, str) and len(key) == _Z85_KEY_LENGTH for key in dataclasses.astuple(keys))
    except (ValueError, KeyError, TypeError, RecursionError):
        is_valid = False
    if not is_valid:
        raise InputError(
            f"{path} is not a key file. Remove it: new keys are made, and clients read the connection file."
        )
    return keys


def save_connection(path: Path, keys: Keys, endpoints: Endpoints) -> None:
    """Write the file that clients read, in one step."""
    fields = {
        "control": endpoints.control,
        "bulk": endpoints.bulk,
        "server_key": keys.server_public,
        "public_key": keys.client_public,
        "secret_key": keys.client_secret,
        "pid": os.getpid(),
    }
    save_private(path, json.dumps(fields, indent=1))


def remove_connection(path: Path) -> None:
    """Remove this process's own connection file: nobody answers there any more."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        if json.loads(path.read_text("utf-8")).get("pid") == os.getpid():
            path.unlink()


def save_private(path: Path, text: str) -> None:
    """Write a file only its owner can read: never another mode, never half, never through another's link."""
    temporary = path.with_name(f".{path.name}.{os.urandom(4).hex()}.tmp")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        temporary.replace(path)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}. Choose a folder you may write to.") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _make_keys() -> Keys:
    server_public, server_secret = zmq.curve_keypair()
    client_public, client_secret = zmq.curve_keypair()
    return Keys(*(key.decode("ascii") for key in (server_public, server_secret, client_public, client_secret)))


def _read_private(path: Path) -> str:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from None
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)  # of the open file, so that it cannot be exchanged in between
        if not stat.S_ISREG(status.st_mode) or status.st_size > _MAX_BYTES:
            raise InputError(f"{path} is not a key file. Remove it: new keys are made.")
        if os.name == "posix" and status.st_mode & 0o077:
            raise InputError(f"{path} can be read by others, and it holds secret keys. Run: chmod 600 {path}")
        return file.read().decode("utf-8", "replace")
