"""Who may talk to the server: CURVE keys kept in the state folder, and the connection file that clients read.

Both hold secrets, so both are made readable by their owner alone, from their first moment, and refused when others may
read them. The client key in the connection file is the local one; others are in the list of `client_keys`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import stat
import struct
from dataclasses import dataclass, field
from pathlib import Path

import zmq
from zmq.utils import z85

from xmem_protocol import InputError

_MAX_BYTES = 16 * 1024
_Z85_KEY_LENGTH = 40
_KEY_BYTES = 32


@dataclass(frozen=True)
class Keys:
    """The key pairs of the server and of the local client (CURVE, Z85 text)."""

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
    text = read_private(path, _MAX_BYTES)
    try:
        fields = json.loads(text)
        keys = Keys(**{field.name: fields[field.name] for field in dataclasses.fields(Keys)})
        is_valid = all(is_public_key(key) for key in dataclasses.astuple(keys))
    except (ValueError, KeyError, TypeError, RecursionError):
        is_valid = False
    if not is_valid:
        raise InputError(
            f"{path} is not a key file. Remove it: new keys are made, and clients read the connection file."
        )
    return keys


def save_connection(path: Path, keys: Keys, endpoints: Endpoints, process_id: int = 0) -> None:
    """Write the file that clients read, in one step; ``process_id`` of the server when it is this machine's."""
    fields = {
        "control": endpoints.control,
        "bulk": endpoints.bulk,
        "server_key": keys.server_public,
        "public_key": keys.client_public,
        "secret_key": keys.client_secret,
        "pid": process_id,
    }
    save_private(path, json.dumps(fields, indent=1))


def is_public_key(value: object) -> bool:
    """Say whether this is a CURVE key in Z85 text."""
    try:
        return isinstance(value, str) and len(value) == _Z85_KEY_LENGTH and len(z85.decode(value)) == _KEY_BYTES
    except (ValueError, KeyError, struct.error):
        return False


def make_key_pair() -> tuple[str, str]:
    """Give a new public and secret key."""
    public, secret = zmq.curve_keypair()
    return public.decode("ascii"), secret.decode("ascii")


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
    return Keys(*make_key_pair(), *make_key_pair())


def read_private(path: Path, most_bytes: int) -> str:
    """Give the text of a file that its owner alone can read. Raises InputError for any other."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from None
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)  # of the open file, so that it cannot be exchanged in between
        if not stat.S_ISREG(status.st_mode) or status.st_size > most_bytes:
            raise InputError(f"{path} is not a key file of the XMem server. Restore it, or remove it.")
        if os.name == "posix" and status.st_mode & 0o077:
            raise InputError(f"{path} can be read by others, and it holds secret keys. Run: chmod 600 {path}")
        return file.read().decode("utf-8", "replace")
