"""Who asks: the client that a CURVE key belongs to. No keys are made or kept here, and no sockets."""

from __future__ import annotations

from dataclasses import dataclass

LOCAL = "local"  # the name of whoever can read the connection file: the server's own account


@dataclass(frozen=True)
class ClientKey:
    """A client that is let in: its name, its public key (Z85), whether it may touch everybody's sessions, since when (s)."""

    name: str
    public_key: str
    is_supervisor: bool = False
    created: float = 0.0
