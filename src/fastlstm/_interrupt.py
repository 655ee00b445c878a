"""Ctrl-C while something is under way that should be finished first."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

Result = TypeVar("Result")


class Interrupt:
    """What Ctrl-C did: the first one sets `requested`, any further one raises at once."""

    def __init__(self) -> None:
        self.requested = False
        self._cutting = False

    def handle(self, _signal: int, _frame: FrameType | None) -> None:
        """The signal handler."""
        again, self.requested = self.requested, True
        if again or self._cutting:
            raise KeyboardInterrupt

    def cut_short(self, function: Callable[[], Result]) -> Result | None:
        """What the function returns, or None if Ctrl-C came before its end or earlier."""
        self._cutting = True
        try:
            return None if self.requested else function()
        except KeyboardInterrupt:
            if not self.requested:
                raise
            return None
        finally:
            self._cutting = False


@contextmanager
def deferred_interrupt() -> Iterator[Interrupt]:
    """Hold KeyboardInterrupt back until the block ends, but for a second Ctrl-C.

    Only where Ctrl-C means KeyboardInterrupt: in the main thread, and not where SIGINT is ignored
    or has a handler outside of Python. The handler before is put back in any case.
    """
    interrupt = Interrupt()
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield interrupt
        return
    signal.signal(signal.SIGINT, interrupt.handle)
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, before)
    if interrupt.requested:
        raise KeyboardInterrupt
