"""The error tree that both sides share; the package docstring draws it."""

from __future__ import annotations

from xmem_protocol.limits import BAD_REQUEST


class XMemError(Exception):
    """Anything this product raises on purpose; ``str()`` is one line that an artist can read."""


class LocalProtocolError(XMemError):
    """This side misused the protocol."""


class RemoteProtocolError(XMemError):
    """The peer sent something that is not the protocol.

    ``code`` is the error code it is answered with; ``request_id`` the request's own id when that much could be read.
    """

    def __init__(self, message: str, code: str = BAD_REQUEST, request_id: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.request_id = request_id


class InputError(XMemError):
    """A file, a number or a setting given by the artist cannot be used."""


class ConnectionLostError(XMemError):
    """Nobody answers at the server's address."""


class ServerError(XMemError):
    """The server answered with an error; ``code`` is one of this package's error codes."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
