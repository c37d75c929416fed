"""Sends one message of two gigabytes in parts, as far as the server can see without end: ``python endless_message.py CONNECTION``. To be killed."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from tests.server.served import raw_socket
from xmem_client import fetch_connection

if __name__ == "__main__":
    connection = fetch_connection(Path(sys.argv[1]))
    with raw_socket(connection.bulk, connection) as peer:
        peer.send_multipart([bytes(4 * 1024**2)] * 500, copy=False)
        time.sleep(600)
