"""Windows of parallel streams in which texts begin: cut there, each text begins without a past."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastlstm._validate import Array

State = tuple[Array, ...]


def begun(state: State | None, begins: Array | None) -> State | None:
    """States (layers, B, H), zero for streams in which a text begins at the first of steps (T, B).

    None stands for zeros.
    """
    if state is None or begins is None or not begins[0].any():
        return state
    return tuple(np.where(begins[0, :, np.newaxis], 0, part) for part in state)


@dataclass(frozen=True)
class Segments:
    """The streams of a window (T, B) as sequences of different lengths, S of them.

    Attributes
    ----------
    number, place : ndarray of int64 (T, B)
        Which sequence a step belongs to, and which step of it it is.
    lengths : ndarray of int64 (S,)
    """

    number: Array
    place: Array
    lengths: Array

    @classmethod
    def of(cls, begins: Array | None) -> Segments | None:
        """Cut before each True of (T, B) but the first step's; None where there is none."""
        if begins is None or not begins[1:].any():
            return None
        steps = begins.shape[0]
        cuts = begins.copy()
        cuts[0] = True
        number = cuts.T.reshape(-1).cumsum().reshape(-1, steps).T - 1
        lengths = np.bincount(number.reshape(-1))
        first = np.flatnonzero(cuts.T.reshape(-1)) % steps
        return cls(number, np.arange(steps)[:, np.newaxis] - first[number], lengths)

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
        spread = tuple(np.zeros((*shape, part.shape[2]), part.dtype) for part in state)
        for part, before in zip(spread, state, strict=True):
            part[:, self.number[0]] = before
        return spread

    def last(self, state: State) -> State:
        """States (layers, S, H) of the sequences in the end -> of the streams."""
        return tuple(part[:, self.number[-1]] for part in state)
