"""How a recurrent layer takes a batch: layouts, lengths, masks and states, checked and packed.

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
        return self.packing.pack(self._time_major(padded))

    def unpack(self, rows: Array) -> Array:
        """(rows, features) -> the caller's (T, B, features), zero at what is not valid.

        Maybe a view.
        """
        return self._as_callers(self.packing.unpack(rows))

    def unpack_output(self, rows: Array, backwards: tuple[bool, ...] = (False,)) -> Array:
        """As `unpack`, but holding outputs at a mask's holes; see `Packing.unpack_output`."""
        return self._as_callers(self.packing.unpack_output(rows, backwards))

    def pack_d_output(self, padded: Array, backwards: tuple[bool, ...] = (False,)) -> Array:
        """The transpose of `unpack_output`; not always a copy."""
        return self.packing.pack_d_output(self._time_major(padded), backwards)

    def _time_major(self, padded: Array) -> Array:
        if not self.batched:
            return padded[:, np.newaxis]
        return padded.swapaxes(0, 1) if self.batch_first else padded

    def _as_callers(self, padded: Array) -> Array:
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
    x: object,
    lengths: object,
    features: int,
    dtype: np.dtype[Any],
    *,
    batch_first: bool,
    mask: object = None,
) -> tuple[Array, Sequences]:
    """Return x as it came, and its layout."""
    batched = getattr(x, "ndim", 3) != 2
    axes = ("B", "T") if batch_first else ("T", "B")
    expected: Shape = (*axes, features) if batched else ("T", features)
    array = check_array("x", x, dtype, expected)
    steps, batch, *_ = array.shape if batched else (len(array), 1)
    if batched and batch_first:
        steps, batch = batch, steps
    if lengths is None and mask is None:
        # Making a layout takes as long as a small call: those of short sequences are kept.
        layout = _kept_layout if steps <= LONGEST_KEPT else _layout
        return array, layout(steps, batch, batched, batch_first)
    _check_rows(steps, batch)
    if mask is not None:
        if lengths is not None:
            raise ValueError("mask: expected either mask or lengths, got both")
        valid = check_array("mask", mask, np.dtype(np.bool_), array.shape[:-1])
        valid = valid[:, np.newaxis] if not batched else valid.T if batch_first else valid
        # A copy: a tape's backward still needs it.
        packing = Packing(steps, batch, mask=valid.copy())
        return array, Sequences(packing, batched, batch_first)
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
