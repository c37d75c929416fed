"""Nuke runs this in sessions with a window. Whatever fails here is one line in the console and a menu entry that says so."""

import nuke

try:
    from xmem_nuke import actions, bootstrap

    actions.build_menu(bootstrap.prepare())
except Exception as error:  # noqa: BLE001 - Nuke must start, whatever this is
    XMEM_TROUBLE = f"XMem: the menu cannot be built ({type(error).__name__}: {error}). Run 'xmem install-nuke' again."
    nuke.tprint(XMEM_TROUBLE)
    nuke.menu("Nuke").addCommand("XMem/XMem does not work: why", lambda: nuke.message(XMEM_TROUBLE))
