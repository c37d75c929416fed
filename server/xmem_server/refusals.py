"""What a client is told when its request cannot be served."""

from __future__ import annotations

import errno
import logging
import sqlite3

from xmem_protocol import (
    BAD_INPUT,
    INTERNAL,
    LIMIT_EXCEEDED,
    STORAGE_FULL,
    ErrorReply,
    InputError,
    LocalProtocolError,
    RemoteProtocolError,
    ServerError,
)

_LOG = logging.getLogger(__name__)
_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})
_MAX_MESSAGE = 2000  # letters; an error is one line


def refusal_of(error: Exception, request: str) -> ErrorReply:
    """Give the error reply for whatever a request of this type raised; what nobody foresaw goes to the log in full."""
    code, message = _explain(error)
    if code == INTERNAL and not isinstance(error, ServerError):
        _LOG.error("request=%s failed: %s", request, message, exc_info=error)
        message = "Something went wrong inside the server; its log says what. Try again, or restart the server."
    return ErrorReply(code, " ".join(message.split())[:_MAX_MESSAGE].replace("\0", "?"))


def _explain(error: Exception) -> tuple[str, str]:
    if isinstance(error, (ServerError, RemoteProtocolError)):
        return error.code, str(error)
    if isinstance(error, InputError):
        return BAD_INPUT, str(error)
    if isinstance(error, LocalProtocolError):
        return LIMIT_EXCEEDED, f"The answer is too large to send. {error}"
    is_full = isinstance(error, OSError) and error.errno in _NO_SPACE
    if is_full or (isinstance(error, sqlite3.OperationalError) and "full" in str(error)):
        return STORAGE_FULL, "The server's disk is full; nothing was stored. Free space there, then send it again."
    return INTERNAL, f"{type(error).__name__}: {error}"
