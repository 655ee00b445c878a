"""The machine, and what no program gets more of from it: multiply-adds and bytes a second.

The work is in limits.c, which the system's compiler builds for this processor when it is needed.
"""

from __future__ import annotations

import ctypes
import os
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.timing import median_time

SOURCE = Path(__file__).with_name("limits.c")
# What read_all takes at once: a footprint is rounded up to a multiple.
GRAIN = 512
CACHES = Path("/sys/devices/system/cpu/cpu0/cache")


class BuildError(Exception):
    """There is no compiler, or it does not build the measurements."""


class Limits:
    """What `threads` threads can do together; each call measures for `seconds`."""

    def __init__(self, threads: int, seconds: float = 0.004) -> None:
        self.threads = threads
        self.seconds = seconds
        self._library = _build()
        self._buffers: dict[int, list[np.ndarray[Any, Any]]] = {}

    def fma_rate(self) -> float:
        """Operations a second of float32 multiply-adds that stay in registers."""
        rounds = 10_000

        def work() -> None:
            self._library.fma_chains(rounds, 0.5, 1.0)

        return rounds * self._library.fma_operations() * self._calls_per_second([work])

    def read_rate(self, footprint: int) -> float:
        """Bytes a second of reading `footprint` bytes again and again, each thread its share."""
        size = -(-footprint // (self.threads * GRAIN)) * GRAIN
        if size not in self._buffers:
            self._buffers = {size: [_aligned_bytes(size) for _ in range(self.threads)]}
        rounds = max(1, 4_000_000 // size)

        def reader(address: int) -> Callable[[], None]:
            return lambda: self._library.read_all(address, size, rounds)

        work = [reader(buffer.ctypes.data) for buffer in self._buffers[size]]
        return rounds * size * self._calls_per_second(work)

    def _calls_per_second(self, work: list[Callable[[], None]]) -> float:
        """All threads' together; thread k calls the k-th of `work`, or the only one."""
        calls = work * self.threads if len(work) == 1 else work
        if len(calls) == 1:
            return 1 / median_time(calls[0], self.seconds)
        with ThreadPoolExecutor(self.threads) as pool:
            times = pool.map(median_time, calls, [self.seconds] * self.threads)
            return sum(1 / time for time in times)


def _build() -> ctypes.CDLL:
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        raise BuildError("no C compiler (cc, or CC)")
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "limits.so"
        command = [
            compiler,
            "-O3",
            "-march=native",
            "-shared",
            "-fPIC",
            str(SOURCE),
            "-o",
            str(target),
        ]
        built = subprocess.run(command, capture_output=True, text=True, check=False)
        if built.returncode:
            raise BuildError(f"{compiler} does not build limits.c: {built.stderr.strip()}")
        library = ctypes.CDLL(str(target))
    library.fma_operations.restype = ctypes.c_size_t
    library.fma_chains.argtypes = [ctypes.c_size_t, ctypes.c_float, ctypes.c_float]
    library.fma_chains.restype = ctypes.c_float
    library.read_all.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t]
    library.read_all.restype = ctypes.c_longlong
    return library


def _aligned_bytes(size: int) -> np.ndarray[Any, Any]:
    """Written to, for pages that were never written share one of zeros."""
    memory = np.ones(size + 64, np.uint8)
    offset = -memory.ctypes.data % 64
    return memory[offset : offset + size]


def cache_sizes() -> dict[str, int]:
    """Bytes of each level that holds data, by name; empty where the system does not say."""
    sizes = {}
    for index in sorted(CACHES.glob("index*")):
        if (index / "type").read_text().strip() != "Instruction":
            level, size = ((index / name).read_text().strip() for name in ("level", "size"))
            sizes[f"L{level}"] = int(size.removesuffix("K")) * 1024
    return sizes


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    cpu = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        cpu = found[1] if found else cpu
    return {"cpu": cpu, "cores": os.cpu_count(), "caches": cache_sizes()}


def level_footprints(threads: int) -> dict[str, int]:
    """For each cache level, what fills half of it; all but the last are each core's own."""
    sizes = cache_sizes()
    return {
        level: size // 2 * (1 if level == max(sizes) else threads) for level, size in sizes.items()
    }
