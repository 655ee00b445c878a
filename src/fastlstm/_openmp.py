"""Loads the compiled core with threads that wait for each other politely.

By default a thread of GNU's OpenMP spins for milliseconds at a barrier before it sleeps. Where
somebody else wants the processor, the spinning keeps the very thread that it waits for from a
core, and two threads become many times slower than one; with a short spin they do not. libgomp
reads the setting once, when the core brings it along. A setting of the user's stands, and the
environment is left as it was.
"""

from __future__ import annotations

import os

SPINS = "5000"  # some tens of microseconds: from one call to the next
_SETTINGS = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")


def _load_core() -> None:
    ours = not any(name in os.environ for name in _SETTINGS)
    if ours:
        os.environ["GOMP_SPINCOUNT"] = SPINS
    try:
        from fastlstm import _core  # noqa: F401
    finally:
        if ours:
            del os.environ["GOMP_SPINCOUNT"]


_load_core()
