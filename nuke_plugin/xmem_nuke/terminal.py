"""The same job without a window, for a farm: ``nuke -t terminal.py SCRIPT.nk NODE``, or ``terminal.run(node)`` in any script.

It renders, sends, waits for the mattes and fetches them, all in this call, then gives the exit code. The mattes are in the
node's cache directory, where the saved script looks for them.
"""

from __future__ import annotations

import sys
import time
from typing import Any

_PAUSE = 0.01
_SAY_EVERY = 5.0  # seconds between two lines of progress
DONE, WRONG = 0, 2


def run(node: Any) -> int:
    """Run one XMem node to its end; give 0, or 2 when it could not be done. The console says how it goes."""
    from xmem_nuke.actions import fetch_controller, say  # noqa: PLC0415 - Nuke is there when this is called
    from xmem_nuke.states import describe  # noqa: PLC0415

    controller = fetch_controller()
    session = node["session"].value()
    controller.run(node)
    session = node["session"].value() or session
    said_at = time.monotonic()
    while controller.is_busy:
        controller.tick()
        if time.monotonic() - said_at > _SAY_EVERY:
            said_at = time.monotonic()
            say(describe(controller.fetch_state(session), controller.server))
        time.sleep(_PAUSE)
    state = controller.fetch_state(session)
    say(describe(state))
    return WRONG if state.is_error else DONE


def main(arguments: list[str]) -> int:
    """Open a script and run one of its XMem nodes; give the exit code."""
    from xmem_nuke.actions import find_node, open_script, say  # noqa: PLC0415

    if len(arguments) != 2:  # a script and a node
        say("Give a script and the name of an XMem node: nuke -t terminal.py comp.nk XMem1")
        return WRONG
    open_script(arguments[0])
    node = find_node(arguments[1])
    if node is None:
        say(f"{arguments[0]} has no XMem node called {arguments[1]}. Give the name that the node shows.")
        return WRONG
    return run(node)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
