"""Nuke runs this in every session, also on a farm. Whatever fails here is one line in the console."""

import nuke

try:
    from xmem_nuke import bootstrap

    XMEM_TROUBLE = bootstrap.prepare()
    nuke.pluginAddPath(bootstrap.fetch_gizmo_folder().as_posix(), addToSysPath=False)
except Exception as error:  # noqa: BLE001 - Nuke must start, whatever this is
    XMEM_TROUBLE = (
        f"XMem: the plug-in cannot be loaded ({type(error).__name__}: {error}). Run 'xmem install-nuke' again."
    )
if XMEM_TROUBLE:
    nuke.tprint(XMEM_TROUBLE)
