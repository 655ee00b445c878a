"""Memory that one call is done with, kept for the next.

Why: the arrays of a training step are as large as its tape, and the allocator hands such memory
back to the system when they go. The next step gets it page by page, each page zeroed first, which
takes longer than to fill it, in small layers longer than the step's arithmetic.

An array has one owner: who took it gives it back when nobody else can see it any more, or lets
the garbage collector have it. So nothing is shared between calls that run at the same time.
"""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy as np

from fastlstm._validate import Array

SMALLEST = 1 << 16  # bytes; the allocator keeps less than this itself
MOST = 1 << 27  # bytes that are kept altogether

_kept: list[Array] = []  # blocks of bytes, the one given last at the end
# Only ever tried, never waited for: whoever finds it taken does without what is kept. So a thread
# that forks while another one holds it leaves no child waiting.
_lock = threading.Lock()


def take(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """An uninitialised array, C-contiguous, which the caller owns."""
    size = math.prod(shape) * dtype.itemsize
    if size < SMALLEST:
        return np.empty(shape, dtype)
    block = _find(_rounded(size))
    if block is None:
        block = np.empty(_rounded(size), np.uint8)
    return block[:size].view(dtype).reshape(shape)


def copy(array: Array) -> Array:
    """A C-contiguous copy, which the caller owns."""
    taken = take(array.shape, array.dtype)
    taken[...] = array
    return taken


def give(*arrays: Array) -> None:
    """Give back what `take` or `copy` returned, or views of it; the owner forgets it."""
    blocks = [array.base for array in arrays if array.base is not None]
    blocks = [block for block in blocks if block.dtype == np.uint8]
    if blocks and _lock.acquire(blocking=False):
        try:
            _kept.extend(blocks)
            total = sum(block.size for block in _kept)
            while total > MOST:
                total -= _kept.pop(0).size
        finally:
            _lock.release()


def _find(size: int) -> Array | None:
    """Take a block of this size out of those that are kept."""
    if not _lock.acquire(blocking=False):
        return None
    try:
        for k in reversed(range(len(_kept))):
            if _kept[k].size == size:
                return _kept.pop(k)
        return None
    finally:
        _lock.release()


def _rounded(size: int) -> int:
    """One of four sizes between a power of two and the next, so that like sizes share blocks."""
    step = 1 << max(0, size.bit_length() - 3)
    return -(-size // step) * step
