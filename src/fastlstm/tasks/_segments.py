"""Windows of parallel streams in which texts begin: cut there, each text begins without a past."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastlstm._validate import Array

State = tuple[Array, ...]


@dataclass(frozen=True)
class Segments:
    """The streams of a window (T, B) as sequences of different lengths, S of them.

    Attributes
    ----------
    number, place : ndarray of int64 (T, B)
        Which sequence a step belongs to, and which step of it it is.
    lengths : ndarray of int64 (S,)
    carried : ndarray of bool (B,)
        Whether a stream's first sequence goes on from the window before.
    """

    number: Array
    place: Array
    lengths: Array
    carried: Array

    @classmethod
    def of(cls, begins: Array | None) -> Segments | None:
        """Cut before each True of (T, B); None where there is nothing to cut."""
        if begins is None or not begins.any():
            return None
        steps = begins.shape[0]
        cuts = begins.copy()
        cuts[0] = True
        number = cuts.T.reshape(-1).cumsum().reshape(-1, steps).T - 1
        lengths = np.bincount(number.reshape(-1))
        first = np.flatnonzero(cuts.T.reshape(-1)) % steps
        return cls(number, np.arange(steps)[:, np.newaxis] - first[number], lengths, ~begins[0])

    def cut(self, x: Array) -> Array:
        """(T, B, F) -> (longest, S, F), zero past the ends."""
        padded = np.zeros((self.lengths.max(), len(self.lengths), x.shape[2]), x.dtype)
        padded[self.place, self.number] = x
        return padded

    def join(self, padded: Array) -> Array:
        """(longest, S, F) -> (T, B, F)."""
        joined: Array = padded[self.place, self.number]
        return joined

    def first(self, state: State | None) -> State | None:
        """States (layers, B, H) of the streams before the window -> of the sequences."""
        if state is None:
            return None
        shape = (state[0].shape[0], len(self.lengths))
        begun = tuple(np.zeros((*shape, part.shape[2]), part.dtype) for part in state)
        for part, before in zip(begun, state, strict=True):
            part[:, self.number[0, self.carried]] = before[:, self.carried]
        return begun

    def last(self, state: State) -> State:
        """States (layers, S, H) of the sequences in the end -> of the streams."""
        return tuple(part[:, self.number[-1]] for part in state)
