"""Requests that are being served: asked again meanwhile, they are served once and answered where they were asked last."""

from __future__ import annotations

import threading

from xmem_protocol import BUSY, Envelope, ServerError
from xmem_server.lanes import Route


class WaitingRequests:
    """May be used from any thread. ``most`` bounds what waits: beyond it requests are refused with BUSY."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._routes: dict[tuple[str, str], Route] = {}

    def admit(self, route: Route, envelope: Envelope) -> bool:
        """Note a request; say whether it is to be served now. False when it is being served already."""
        key = (envelope.client, envelope.id)
        with self._lock:
            is_new = key not in self._routes
            if is_new and len(self._routes) >= self._most:
                raise ServerError(BUSY, f"The server has {self._most} requests waiting. Try again in a moment.")
            self._routes[key] = route
            return is_new

    def finish(self, envelope: Envelope) -> Route:
        """Give where the answer goes, and forget the request."""
        with self._lock:
            return self._routes.pop((envelope.client, envelope.id))
