"""Packing: sequences of several lengths as rows without gaps, as the time loop reads them.

Sequences are sorted by length, the longest first, and their steps laid out step by step: all
sequences that have a step 0, then all that have a step 1, and so on. What lies past an end does
not exist here, so no work is spent on it, and products over many steps are products over exactly
these rows. A batch of equal lengths is its own packed form and is not copied.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from fastlstm._validate import Array, compact


class Packing:
    """The row layout of a batch. Nothing of it changes, so calls and threads may share it.

    Parameters
    ----------
    steps, batch : int
        T and B of the padded array.
    lengths : ndarray of int64 (batch,), optional
        Valid steps of each sequence; all `steps` by default.

    Attributes
    ----------
    rows : int
        Number of packed rows: the sum of all lengths.
    equal : bool
        Whether each of T steps has all B sequences: the padded array is the packed one.
    offsets : ndarray of intp (T + 1,)
        The rows of step t are offsets[t] to offsets[t + 1]; T counts only steps that some
        sequence has.
    """

    def __init__(self, steps: int, batch: int, lengths: Array | None = None) -> None:
        self.steps, self.batch = steps, batch
        self._order: Array | None = None
        self._rows: Array | None = None
        if lengths is None or bool((lengths == steps).all()):
            active = np.full(steps if batch else 0, batch, np.intp)
        else:
            self._order = np.argsort(-lengths, kind="stable")
            longest = int(lengths.max())
            # active[t]: how many sequences are longer than t.
            ends = np.bincount(lengths, minlength=longest + 1)
            active = (batch - np.cumsum(ends))[:longest].astype(np.intp)
            self._rows = np.concatenate(
                [t * batch + self._order[:n] for t, n in enumerate(active)]
                or [np.empty(0, np.int64)]
            )
        self.active = frozen(active)
        self.offsets = frozen(np.concatenate([[0], np.cumsum(active)]).astype(np.intp))
        self.rows = int(self.offsets[-1])
        self.equal = self._rows is None
        self._chunks: dict[int, tuple[Array, int]] = {}
        self._runs: dict[int, tuple[tuple[int, int, slice], ...]] = {}
        self._blocks: dict[int, Array] = {}

    @cached_property
    def sequences(self) -> Array:
        """Which sequence each row belongs to, in packed order: intp (rows,)."""
        return frozen(np.arange(self.rows) - np.repeat(self.offsets[:-1], self.active))

    def pack(self, padded: Array) -> Array:
        """(T, B, features) in any layout -> (rows, features), C-contiguous; not always a copy."""
        features = padded.shape[2]
        if self._rows is None:
            return compact(padded).reshape(self.steps * self.batch, features)
        step, column = np.divmod(self._rows, self.batch)
        return np.ascontiguousarray(padded[step, column])

    def unpack(self, packed: Array) -> Array:
        """(rows, features) -> a (T, B, features), zero past the ends; not always a copy."""
        features = packed.shape[1]
        if self._rows is None:
            return packed.reshape(self.steps, self.batch, features)
        padded = np.zeros((self.steps * self.batch, features), packed.dtype)
        padded[self._rows] = packed
        return padded.reshape(self.steps, self.batch, features)

    def sort(self, states: Array) -> Array:
        """(layers, B, H) in the caller's order -> a C-contiguous copy in packed order."""
        ordered = states if self._order is None else states[:, self._order]
        return np.array(ordered, order="C")

    def unsort(self, states: Array) -> Array:
        """The inverse of `sort`; not always a copy."""
        if self._order is None:
            return states
        restored = np.empty_like(states)
        restored[:, self._order] = states
        return restored

    def chunks(self, rows: int) -> tuple[Array, int]:
        """Boundaries (n + 1,) of runs of steps with about `rows` rows each, and the most rows.

        A run has one step at the least. Rows per step only shrink, so runs cut to have enough
        rows at their first step have no more than that later.
        """
        found = self._chunks.get(rows)
        if found is None:
            bounds = frozen(self._cut_chunks(rows))
            found = self._chunks[rows] = bounds, int(np.diff(self.offsets[bounds]).max(initial=0))
        return found

    def runs(self, rows: int) -> tuple[tuple[int, int, slice], ...]:
        """The same cuts for Python: a run's first step, the one after its last, and its rows."""
        found = self._runs.get(rows)
        if found is None:
            bounds = self.chunks(rows)[0]
            steps, ends = bounds.tolist(), self.offsets[bounds].tolist()
            cuts = zip(steps, steps[1:], map(slice, ends, ends[1:]), strict=False)
            found = self._runs[rows] = tuple(cuts)
        return found

    def _cut_chunks(self, rows: int) -> Array:
        longest = len(self.active)
        per_step = max(1, int(self.active[0]) if longest else 1)
        stride = max(1, rows // per_step)
        return np.append(np.arange(0, longest, stride), longest).astype(np.intp)

    def blocks(self, count: int) -> Array:
        """Boundaries of at most `count` blocks of sequences with about the same number of rows."""
        found = self._blocks.get(count)
        if found is None:
            found = self._blocks[count] = frozen(self._cut_blocks(count))
        return found

    def _cut_blocks(self, count: int) -> Array:
        count = max(1, min(count, self.batch))
        if count == 1:
            return np.array([0, self.batch], np.intp)
        # The length of sequence b is the number of steps at which more than b are active.
        lengths = np.searchsorted(-self.active, -np.arange(self.batch), side="left")
        targets = np.arange(1, count) * (self.rows / count)
        cuts = np.searchsorted(np.cumsum(lengths), targets, side="left") + 1
        return np.concatenate([[0], np.minimum(cuts, self.batch), [self.batch]]).astype(np.intp)


def frozen(array: Array) -> Array:
    """The array itself, read-only: calls and threads may share it."""
    array.flags.writeable = False
    return array
