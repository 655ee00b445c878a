"""What the backward pass of one direction reads, and how it sums the gradients of its weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from fastlstm import _core, _products, _scratch
from fastlstm._validate import Array
from fastlstm.packing import Packing


class Segment(NamedTuple):
    """Steps that backward takes in one go: of some runs, into which a sum over rows is cut."""

    first: int
    last: int  # the step after
    rows: slice
    packing: Packing  # of these steps alone
    runs: tuple[tuple[int, int, slice], ...]  # as Packing.runs has them, in steps of all

    def within(self, bounds: Array) -> Array:
        """Of boundaries in steps of all, those inside, between this segment's own."""
        inside = bounds[(bounds > self.first) & (bounds < self.last)]
        return np.concatenate([[self.first], inside, [self.last]]).astype(np.intp)


@dataclass
class Run:
    """What backward needs of one layer in one direction."""

    x: Array  # (rows, layer input)
    h: Array  # (rows, H), a column slice of the layer's output
    h_0: Array  # (B, H)
    zero_state: bool
    segments: tuple[Segment, ...]
    starts: dict[int, Array]  # c with which each segment begins, (B, H) of its sequences
    # c (rows, H) and gates (rows, 4H), activated; None where they are made anew, by segments.
    kept: tuple[Array, Array] | None
    hh_mask: Array | None  # (4H, H), on W_hh
    h_before: None = None  # h_{t-1} is had from h and h_0

    @property
    def hidden_size(self) -> int:
        return int(self.h.shape[1])

    def release(self) -> None:
        """Give the arrays back that nobody else sees."""
        if self.kept is not None:
            _scratch.give(*self.kept)


class Rows(Protocol):
    """What of a run the gradients of its weights are made of: `Run`, or that of a general cell."""

    x: Array  # (rows, layer input)
    h: Array  # (rows, P); P = H where h is not projected
    h_0: Array  # (B, P)
    zero_state: bool
    segments: tuple[Segment, ...]
    hh_mask: Array | None  # (4H, P)

    @property
    def h_before(self) -> Array | None:
        """h_{t-1} of each row (rows, P), where it is not that of h and h_0."""

    @property
    def hidden_size(self) -> int:
        """H."""


class WeightSums:
    """Gradients of W_ih, W_hh and the bias, from those of the pre-activations.

    Summed over runs of steps in the order in which backward comes by, so that it does not matter
    how many of them a segment has. Within a run rows are added from the first to the last.
    """

    def __init__(self, packing: Packing, run: Rows, backwards: bool) -> None:
        self._packing, self._run, self._backwards = packing, run, backwards
        gates, dtype = 4 * run.hidden_size, run.h.dtype
        self.d_ih = np.empty((gates, run.x.shape[1]), dtype)
        self.d_hh = np.empty((gates, run.h.shape[1]), dtype)
        self.d_bias = np.empty(gates, dtype)
        self._begun = self._begun_hh = False
        self._scratch = None
        if not views_serve(packing, run):
            runs = [rows for segment in run.segments for *_, rows in segment.runs]
            widest = max((rows.stop - rows.start for rows in runs), default=0)
            self._scratch = np.empty((widest, run.h.shape[1]), dtype)

    def add(
        self,
        segment: Segment,
        d_gates: Array,
        d_ih: Array | None = None,
        d_hh: Array | None = None,
    ) -> None:
        """Add what the rows of the segment give, d_gates (rows, 4H).

        Where the products with x and h are not simply added up, d_ih and d_hh are the gradients of
        the two.
        """
        d_ih = d_gates if d_ih is None else d_ih
        d_hh = d_gates if d_hh is None else d_hh
        x, start = self._run.x, segment.rows.start
        for first, last, rows in segment.runs if self._backwards else reversed(segment.runs):
            some = slice(rows.start - start, rows.stop - start)
            _products.matmul(
                d_ih[some], x[rows], transpose_a=True, out=self.d_ih, accumulate=self._begun
            )
            _products.sum_rows(d_gates[some], out=self.d_bias, accumulate=self._begun)
            self._begun = True
            for part, h_prev in previous_h(
                self._packing, self._run, first, last, self._backwards, self._scratch
            ):
                own = d_hh[part.start - start : part.stop - start]
                _products.matmul(
                    own, h_prev, transpose_a=True, out=self.d_hh, accumulate=self._begun_hh
                )
                self._begun_hh = True

    def finish(self) -> tuple[Array, Array, Array]:
        """d_ih, d_hh, d_bias; of no rows, zeros."""
        if not self._begun:
            self.d_ih[...], self.d_bias[...] = 0, 0
        if not self._begun_hh:
            self.d_hh[...] = 0
        if self._run.hh_mask is not None:
            self.d_hh *= self._run.hh_mask
        return self.d_ih, self.d_hh, self.d_bias


def views_serve(packing: Packing, run: Rows) -> bool:
    """Whether `previous_h` can do without scratch."""
    return run.h_before is not None or (packing.equal and run.h.flags.c_contiguous)


def previous_h(
    packing: Packing, run: Rows, first: int, last: int, backwards: bool, scratch: Array | None
) -> Iterator[tuple[slice, Array]]:
    """h_{t-1} of the rows of some steps, in one piece or two: the rows, and what came before each.

    Without scratch, of contiguous rows of equal lengths, pieces are views of h and h_0.
    """
    offsets = packing.offsets
    begin, end = int(offsets[first]), int(offsets[last])
    if run.h_before is not None:
        yield slice(begin, end), run.h_before[begin:end]
        return
    if scratch is not None:
        h_prev = scratch[: end - begin]
        _core.previous_h(h_prev, run.h, run.h_0, offsets, first, last, backwards)
        yield slice(begin, end), h_prev
        return
    batch, rows = packing.batch, packing.rows
    if backwards:
        entered = min(end, rows - batch)
        if begin < entered:
            yield slice(begin, entered), run.h[begin + batch : entered + batch]
        if end == rows and not run.zero_state:
            yield slice(rows - batch, rows), run.h_0
    else:
        entered = max(begin, batch)
        if begin == 0 and not run.zero_state:
            yield slice(0, batch), run.h_0
        if entered < end:
            yield slice(entered, end), run.h[entered - batch : end - batch]
