"""The calling thread's flush-to-zero, by way of C's fegetenv: Python has no access to it."""

from __future__ import annotations

import ctypes
import ctypes.util
import platform
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

# Where glibc's fenv_t has the register with the mode: its offset, the bits that flush, and those
# that are no mode but flags of exceptions.
_REGISTERS = {"x86_64": (28, 0x8040, 0x3F), "aarch64": (0, 1 << 24, 0)}


class _Environment:
    def __init__(self) -> None:
        self.offset, self.flush, self.flags = _REGISTERS[platform.machine()]
        self.libm = ctypes.CDLL(ctypes.util.find_library("m"))
        self.buffer = (ctypes.c_ubyte * 128)()

    def read(self) -> int:
        assert self.libm.fegetenv(self.buffer) == 0
        return int(struct.unpack_from("I", self.buffer, self.offset)[0])

    def write(self, register: int) -> None:
        self.read()
        struct.pack_into("I", self.buffer, self.offset, register)
        assert self.libm.fesetenv(self.buffer) == 0


KNOWN = sys.platform == "linux" and platform.machine() in _REGISTERS
needs_the_mode = pytest.mark.skipif(
    not KNOWN, reason="where this system's fenv_t keeps flush-to-zero is not known here"
)


def mode() -> int:
    """The calling thread's floating-point mode: flush-to-zero, rounding, masks; no flags."""
    environment = _Environment()
    return environment.read() & ~environment.flags


def flags() -> int:
    """The exceptions that have come up in the calling thread; 0 where they are kept elsewhere."""
    environment = _Environment()
    return environment.read() & environment.flags


@contextmanager
def flushing(wanted: bool) -> Iterator[None]:
    """Flush-to-zero on or off in the calling thread."""
    environment = _Environment()
    before = environment.read()
    environment.write(before | environment.flush if wanted else before & ~environment.flush)
    try:
        yield
    finally:
        environment.write(before)


def subnormals_work() -> bool:
    """Whether numbers below the normal range are kept, as results and as operands."""
    small, large = np.full(33, 1e-30, np.float32), np.full(33, 1e10, np.float32)
    made = small * np.float32(1e-10)
    used = made * large
    wide = np.full(33, 1e-300) * 1e-20
    return bool(made.all() and used.all() and wide.all()) and 2.0**-1030 * 1.0 != 0.0
