"""The error of this package, and why there is one.

``CoreError`` is raised for input a caller outside may have caused: a wrong checkpoint, a mask of the wrong size, a
frame without features. Its text is one line that can be shown to an artist. Anything else that escapes is a bug.
"""


class CoreError(ValueError):
    """Input that the core cannot work with; ``str()`` says what was wanted, what came and what to do."""
