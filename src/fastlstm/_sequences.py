"""How a recurrent layer takes a batch: layouts, lengths and states, checked and packed.

Callers have (T, B, features), (B, T, features) or a single (T, features), and states
(runs, B, H) or (runs, H), where runs = layers · directions; below there are only packed rows and
(runs, B, H) in packed order.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from fastlstm._validate import Array, Shape, check_array, check_extent, check_lengths
from fastlstm.packing import Packing

# Steps of the longest batch of equal lengths whose layout is kept for later calls.
LONGEST_KEPT = 4096


@dataclass(frozen=True)
class Sequences:
    """The layout of one batch, and the ways into packed form and back."""

    packing: Packing
    batched: bool  # False: the caller left the batch axis out
    batch_first: bool

    def pack(self, padded: Array) -> Array:
        """The caller's (T, B, features) -> (rows, features); not always a copy."""
        if not self.batched:
            padded = padded[:, np.newaxis]
        elif self.batch_first:
            padded = padded.swapaxes(0, 1)
        return self.packing.pack(padded)

    def unpack(self, rows: Array) -> Array:
        """(rows, features) -> the caller's (T, B, features), zero past the ends; maybe a view."""
        padded = self.packing.unpack(rows)
        if not self.batched:
            return padded[:, 0]
        return padded.swapaxes(0, 1) if self.batch_first else padded

    def pack_state(self, state: Array) -> Array:
        """The caller's state -> a copy (runs, B, H) in packed order."""
        return self.packing.sort(state if self.batched else state[:, np.newaxis])

    def unpack_state(self, state: Array) -> Array:
        """The inverse of `pack_state`; maybe a view."""
        state = self.packing.unsort(state)
        return state if self.batched else state[:, 0]


def check_sequences(
    x: object, lengths: object, features: int, dtype: np.dtype[Any], *, batch_first: bool
) -> tuple[Array, Sequences]:
    """Return x as it came, and its layout."""
    batched = getattr(x, "ndim", 3) != 2
    axes = ("B", "T") if batch_first else ("T", "B")
    expected: Shape = (*axes, features) if batched else ("T", features)
    array = check_array("x", x, dtype, expected)
    steps, batch, *_ = array.shape if batched else (len(array), 1)
    if batched and batch_first:
        steps, batch = batch, steps
    if lengths is None:
        # Making a layout takes as long as a small call: those of short sequences are kept.
        layout = _kept_layout if steps <= LONGEST_KEPT else _layout
        return array, layout(steps, batch, batched, batch_first)
    _check_rows(steps, batch)
    if not batched and isinstance(lengths, (int, np.integer)):
        lengths = np.array([lengths])
    lengths = check_lengths(lengths, batch, steps)
    return array, Sequences(Packing(steps, batch, lengths), batched, batch_first)


def _check_rows(steps: int, batch: int) -> None:
    check_extent("x, its rows T * B", max(steps, 1), max(batch, 1))


def _layout(steps: int, batch: int, batched: bool, batch_first: bool) -> Sequences:
    """The layout of sequences of equal lengths."""
    _check_rows(steps, batch)
    return Sequences(Packing(steps, batch), batched, batch_first)


_kept_layout = lru_cache(maxsize=64)(_layout)


def check_state(
    name: str, value: object, dtype: np.dtype[Any], shape: tuple[int, ...], *, required: bool
) -> Array | None:
    """Return a state, or a state's gradient, in the caller's layout; None if that is allowed."""
    if value is None and not required:
        return None
    return check_array(name, value, dtype, shape)


def state_shape(
    padded_shape: Shape, runs: int, hidden_size: int, *, batch_first: bool
) -> tuple[int, ...]:
    """Shape of the states that belong to an x or an output of this shape, as the caller has it."""
    if len(padded_shape) == 2:
        return (runs, hidden_size)
    batch = int(padded_shape[0 if batch_first else 1])
    check_extent("x, its batch in the states", runs, batch, hidden_size)
    return (runs, batch, hidden_size)
