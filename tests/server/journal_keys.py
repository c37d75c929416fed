"""Journals keys in a loop and names each on stdout once it is on disk: ``python journal_keys.py STATE ROUND``. To be killed."""

from __future__ import annotations

import sys
from pathlib import Path

from house import NO_RESERVE, SHOT, alpha, upload

from xmem_protocol import Key, PutKey, SessionState
from xmem_server.session_table import Request
from xmem_server.store import Store


def main(folder: str, round_number: int) -> None:
    store = Store(Path(folder), NO_RESERVE)
    if store.sessions.fetch("local", "roto") is None:
        store.sessions.add("local", "roto", SHOT)
    sha256 = upload(store, alpha())
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for frame in range(100_000):
        key = Key(frame, round_number + 1, "present", sha256, ".png", "channel:auto")
        request = Request("nuke-1", f"{round_number}-{frame}", PutKey("roto", key), "roto")
        with store.database.transaction():
            store.sessions.save_key(1, key)
            store.sessions.save_reply(request, SessionState("roto", SHOT, 0, 0, (), ()))
        sys.stdout.write(f"{frame} {round_number + 1}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
