"""What ends a command with one line instead of a traceback."""

from __future__ import annotations


class CommandError(Exception):
    """A command cannot do what it was asked to; the message is one line for its user.

    Attributes
    ----------
    status : int
        The exit status: 2 where the user has to change something before any work begins, 1 where
        the work failed.
    """

    def __init__(self, message: str, *, status: int = 2) -> None:
        super().__init__(message)
        self.status = status


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, with a message that says what was saved and how to go on."""
