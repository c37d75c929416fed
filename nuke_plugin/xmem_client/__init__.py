"""The client side of the wire: what the Nuke panel, the ``xmem`` command and scripts use to reach a server."""

from xmem_client.client import CLIENT_VERSION, Client
from xmem_client.connection import Connection, fetch_connection
from xmem_client.files import hash_file
from xmem_client.following import FINAL_EVENTS
from xmem_client.lane import Source, Timeouts

__all__ = [
    "CLIENT_VERSION",
    "FINAL_EVENTS",
    "Client",
    "Connection",
    "Source",
    "Timeouts",
    "fetch_connection",
    "hash_file",
]
