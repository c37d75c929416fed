"""The XMem++ server and the ``xmem`` command."""

__version__ = "0.1.0"
