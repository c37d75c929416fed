"""The ``xmem`` command's own commands, one module each: ``SUMMARY``, ``add_arguments(parser)`` and ``run(options, console)``.

``run`` gives the exit code. A module is imported only when its command is asked for, so that ``xmem serve`` never loads
what reads pictures. Errors are one line on stderr, in the artist's words; results go to stdout, progress to stderr.
"""
