"""The engine process: the only room of the server that imports torch and ``xmem_core``.

``python -m xmem_server.worker`` loads a model, then takes plans on its stdin and answers on its stdout (``pipes.py``).
"""
