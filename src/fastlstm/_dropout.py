"""The dropouts of an LSTM: masks over the rows of a batch and over recurrent weights.

A mask is 0 with probability p, else 1 / (1 - p), so that expectations stay. One forward draws all
of its masks from one generator, layer by layer, and the tape keeps them for backward.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fastlstm._random import dropout_mask
from fastlstm._validate import Array
from fastlstm.packing import Packing

# Rows whose factors are gathered at a time, where lengths differ.
ROWS = 1024


@dataclass(frozen=True)
class Dropouts:
    """How probable it is that something is zeroed; see `LSTM`."""

    on_input: float = 0.0
    between_layers: float = 0.0
    locked: bool = False
    on_weights: float = 0.0
    on_state: float = 0.0
    zoneout: tuple[float, float] = (0.0, 0.0)  # of c and of h


@dataclass(frozen=True)
class RowMask:
    """What the rows of a batch are multiplied by: each its own factors, or those of its sequence.

    Attributes
    ----------
    factors : ndarray (rows, features), or (B, features) in packed order if `locked`
    """

    packing: Packing
    factors: Array
    locked: bool

    def times(self, rows: Array, *, out: Array) -> Array:
        """Multiply (rows, features) into `out`, which may be the rows themselves."""
        if not self.locked:
            return np.multiply(rows, self.factors, out=out)
        if self.packing.equal:
            steps = self.packing.steps, *self.factors.shape
            np.multiply(rows.reshape(steps), self.factors, out=out.reshape(steps))
            return out
        for _, _, some in self.packing.runs(ROWS):
            factors = self.factors[self.packing.sequences[some]]
            np.multiply(rows[some], factors, out=out[some])
        return out


class Masks:
    """Draws the masks of one forward; None stands for a mask that would change nothing."""

    def __init__(self, dropouts: Dropouts, rng: np.random.Generator | None) -> None:
        self._dropouts, self._rng = dropouts, rng

    def on_input(self, packing: Packing, rows: Array, *, first: bool) -> RowMask | None:
        """Of the input of a layer, the first one or another: (rows, features)."""
        own = self._dropouts
        p, locked = (own.on_input, True) if first else (own.between_layers, own.locked)
        if self._rng is None or not p:
            return None
        if not locked:
            return RowMask(packing, dropout_mask(self._rng, rows.shape, p, rows.dtype), False)
        # In the caller's order: how long the others are says nothing about a sequence's mask.
        shape = 1, packing.batch, rows.shape[1]
        factors = packing.sort(dropout_mask(self._rng, shape, p, rows.dtype))[0]
        return RowMask(packing, factors, True)

    def on_weights(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array | None:
        """Of recurrent weights, for all sequences and steps."""
        p = self._dropouts.on_weights
        if self._rng is None or not p:
            return None
        return dropout_mask(self._rng, shape, p, dtype)

    def on_state(self, packing: Packing, width: int, dtype: np.dtype[Any]) -> Array | None:
        """Of h_{t-1} at all steps: (B, width) in packed order."""
        p = self._dropouts.on_state
        if self._rng is None or not p:
            return None
        mask: Array = packing.sort(dropout_mask(self._rng, (1, packing.batch, width), p, dtype))[0]
        return mask

    def held(self, packing: Packing, hidden: int, width: int) -> tuple[Array | None, Array | None]:
        """Which units of c (rows, hidden) and of h (rows, width) keep their value: 0 or 1."""
        rng = self._rng
        if rng is None:
            return None, None
        p_c, p_h = self._dropouts.zoneout
        sizes = (p_c, hidden), (p_h, width)
        held_c, held_h = (
            (rng.random((packing.rows, size), np.float32) < p).view(np.uint8) if p else None
            for p, size in sizes
        )
        return held_c, held_h

    @property
    def touch_the_cell(self) -> bool:
        """Whether the loop itself has masks to apply."""
        own = self._dropouts
        return self._rng is not None and (own.on_state > 0 or own.zoneout != (0.0, 0.0))


NO_MASKS = Masks(Dropouts(), None)
