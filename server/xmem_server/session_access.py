"""Whose session is meant, and who may have it."""

from __future__ import annotations

from xmem_protocol import FORBIDDEN, NOT_FOUND, ServerError
from xmem_server.clients import ClientKey
from xmem_server.job_table import JobRecord
from xmem_server.session_table import SessionRecord
from xmem_server.store import Store


class SessionAccess:
    """Finds sessions and jobs for a client: its own, or anybody's for a supervisor. Any thread."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def fetch_session(self, client: ClientKey, name: str) -> SessionRecord:
        """Give the session a client means. Raises ServerError NOT_FOUND, or FORBIDDEN when it is another's."""
        session = self._store.sessions.fetch(*resolve(client, name))
        if session is None:
            raise ServerError(NOT_FOUND, f"The server knows no session {name[:80]!r}. Open it first.")
        return session

    def fetch_job(self, client: ClientKey, job: str) -> JobRecord:
        """Give the job of this name. Raises ServerError NOT_FOUND, or FORBIDDEN when it is another's."""
        record = self._store.jobs.fetch(job)
        if record is None:
            raise ServerError(NOT_FOUND, f"The server knows no job {job[:80]!r}.")
        if not client.is_supervisor and self._store.sessions.fetch_number(record.session).owner != client.name:
            raise ServerError(FORBIDDEN, f"Job {job[:80]!r} belongs to another client. Ask for a supervisor's key.")
        return record


def name_for(client: ClientKey, session: SessionRecord) -> str:
    """Give the name by which this client opens a session."""
    return session.name if session.owner == client.name else f"@{session.owner}/{session.name}"


def resolve(client: ClientKey, name: str) -> tuple[str, str]:
    """Give the owner and the name of the session that a client means: its own, or ``@OWNER/NAME`` for a supervisor.

    Raises ServerError FORBIDDEN when it is another's and the client is no supervisor.
    """
    if not name.startswith("@"):
        return client.name, name
    owner, _, own_name = name[1:].partition("/")
    if owner != client.name and not client.is_supervisor:
        raise ServerError(FORBIDDEN, f"Session {name[:80]!r} belongs to another client. Ask for a supervisor's key.")
    return owner, own_name
