"""Packing: sequences of several lengths as rows without gaps, as the time loop reads them.

Sequences are sorted by length, the longest first, and their steps laid out step by step: all
sequences that have a step 0, then all that have a step 1, and so on. What lies past an end does
not exist here, so no work is spent on it, and products over many steps are products over exactly
these rows. A batch of equal lengths is its own packed form and is not copied.

A mask is no more than another packing: the valid steps of a sequence move to its front, and the
time loop runs them as if there had never been a hole. Only outputs know about holes, which repeat
the step before.
"""

from __future__ import annotations

from collections.abc import Iterator
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
        Valid steps of each sequence, which are its first ones; all `steps` by default.
    mask : ndarray of bool (steps, batch), optional
        Which steps are valid, wherever they are, instead of `lengths`. Kept, not copied.

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

    def __init__(
        self, steps: int, batch: int, lengths: Array | None = None, *, mask: Array | None = None
    ) -> None:
        self.steps, self.batch = steps, batch
        self._order: Array | None = None
        self._rows: Array | None = None
        self._mask: Array | None = None
        if mask is not None:
            lengths = mask.sum(axis=0)
        if lengths is None or bool((lengths == steps).all()):
            active = np.full(steps if batch else 0, batch, np.intp)
        else:
            order = np.argsort(-lengths, kind="stable")
            # Whether the sequence at this place has a step t: rows of steps, the longest first.
            runs = np.arange(lengths.max())[:, np.newaxis] < lengths[order]
            active = runs.sum(axis=1, dtype=np.intp)
            self._order, self._mask = order, mask
            self._rows = _find_rows(runs, order, mask)
        self.active = frozen(active)
        self.offsets = frozen(np.concatenate([[0], np.cumsum(active)]).astype(np.intp))
        self.rows = int(self.offsets[-1])
        self.equal = self._rows is None
        self._held: dict[bool, tuple[Array, Array]] = {}
        self._chunks: dict[int, tuple[Array, int]] = {}
        self._runs: dict[int, tuple[tuple[int, int, slice], ...]] = {}
        self._blocks: dict[int, Array] = {}

    @cached_property
    def sequences(self) -> Array:
        """Which sequence each row belongs to, in packed order: intp (rows,)."""
        return frozen(np.arange(self.rows) - np.repeat(self.offsets[:-1], self.active))

    def part(self, first: int, last: int) -> Packing:
        """The layout of the rows of some steps, first to last, which stand behind each other."""
        active = self.active[first:last]
        return Packing(last - first, int(active[0]), _lengths(active, int(active[0])))

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

    def unpack_output(self, packed: Array, backwards: tuple[bool, ...]) -> Array:
        """As `unpack`, but at a mask's holes the output of the step before is held.

        Before is meant in the order of the direction: packed has equal shares of columns for
        directions that run `backwards` or not. Where no step is before, the output is zero.
        """
        padded = self.unpack(packed)
        for columns, holes, before in self._holes(packed.shape[1], backwards):
            own = padded.reshape(-1, packed.shape[1])[:, columns]
            own[holes] = own[before]
        return padded

    def pack_d_output(self, padded: Array, backwards: tuple[bool, ...]) -> Array:
        """The transpose of `unpack_output`: (T, B, features) -> (rows, features).

        What held a step's output adds its gradient to that step's.
        """
        packed = self.pack(padded)
        for columns, holes, before in self._holes(padded.shape[2], backwards):
            step, sequence = np.divmod(holes, self.batch)
            first = np.flatnonzero(np.diff(before, prepend=-1))  # of all that hold the same step
            row_of = np.empty(self.steps * self.batch, np.intp)
            row_of[self._rows] = np.arange(self.rows)
            with np.errstate(all="ignore"):  # a gradient may be infinite
                sums = np.add.reduceat(padded[step, sequence, columns], first, axis=0)
                packed[row_of[before[first]], columns] += sums
        return packed

    def _holes(
        self, features: int, backwards: tuple[bool, ...]
    ) -> Iterator[tuple[slice, Array, Array]]:
        """Of each direction: its columns, the holes, and the step before each of them.

        Both as step * B + sequence, those that hold the same step in one piece. Holes that have
        no step before them are left out.
        """
        if self._mask is None:
            return
        width = features // len(backwards)
        for k, direction in enumerate(backwards):
            found = self._held.get(direction)
            if found is None:
                found = self._held[direction] = self._find_held(direction)
            if len(found[0]):
                yield slice(k * width, (k + 1) * width), *found

    def _find_held(self, backwards: bool) -> tuple[Array, Array]:
        assert self._mask is not None
        mask = self._mask.T[:, ::-1] if backwards else self._mask.T  # (B, T), as it is run
        last = np.maximum.accumulate(np.where(mask, np.arange(self.steps), -1), axis=1)
        sequence, hole = np.nonzero(~mask & (last >= 0))
        before = last[sequence, hole]
        if backwards:
            hole, before = self.steps - 1 - hole, self.steps - 1 - before
        return hole * self.batch + sequence, before * self.batch + sequence

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
        lengths = _lengths(self.active, self.batch)
        targets = np.arange(1, count) * (self.rows / count)
        cuts = np.searchsorted(np.cumsum(lengths), targets, side="left") + 1
        return np.concatenate([[0], np.minimum(cuts, self.batch), [self.batch]]).astype(np.intp)


def _find_rows(runs: Array, order: Array, mask: Array | None) -> Array:
    """Of each packed row, step * B + sequence: where it is in the padded array."""
    batch = len(order)
    run, place = np.divmod(np.flatnonzero(runs), batch)
    sequence = order[place]
    if mask is None:
        return run * batch + sequence
    steps = np.argsort(~mask, axis=0, kind="stable")  # of each sequence, the valid ones first
    return steps[run, sequence] * batch + sequence


def _lengths(active: Array, batch: int) -> Array:
    """Of each sequence, in packed order: the number of steps at which more than b are active."""
    return np.searchsorted(-active, -np.arange(batch), side="left")


def frozen(array: Array) -> Array:
    """The array itself, read-only: calls and threads may share it."""
    array.flags.writeable = False
    return array
