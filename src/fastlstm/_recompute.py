"""Activation checkpointing: backward makes gates and c anew, a segment of steps at a time.

h of every step is there, as the layer's output. So the pre-activations of many steps come from two
products over all of their rows at once; what is left is c, element by element from step to step,
beginning with the c that was kept where the segment begins. On the packed path each element of a
product adds the same terms in the same order as it did step by step, so the gates have the same
bits as those of the forward pass, and so have the gradients.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from fastlstm import _core, _products, _scratch
from fastlstm._gradients import Run, Segment, previous_h, views_serve
from fastlstm._validate import Array
from fastlstm._weights import ForwardWeights, WeightCache, unit_shares
from fastlstm.packing import Packing
from fastlstm.threads import team

# An element of a step of the cell takes as long as so many operations of a product.
OPERATIONS_PER_CELL = 100.0


def whole(packing: Packing, run_rows: int) -> tuple[Segment, ...]:
    """All steps as one segment, of runs of about `run_rows` rows."""
    last = len(packing.active)
    return (Segment(0, last, slice(0, packing.rows), packing, packing.runs(run_rows)),)


def segments(packing: Packing, run_rows: int) -> tuple[Segment, ...]:
    """At most √T segments of about √T steps each, of whole runs: longer ones where a run is longer.

    So what is kept, c where a segment begins, grows with √T, and so does what one segment needs.
    """
    runs = packing.runs(run_rows)
    if not runs:
        return whole(packing, run_rows)
    steps = runs[0][1] - runs[0][0]
    each = math.ceil(math.sqrt(len(packing.active)) / steps)
    return tuple(_segment(packing, runs[k : k + each]) for k in range(0, len(runs), each))


def _segment(packing: Packing, runs: tuple[tuple[int, int, slice], ...]) -> Segment:
    first, last = runs[0][0], runs[-1][1]
    rows = slice(runs[0][2].start, runs[-1][2].stop)
    return Segment(first, last, rows, packing.part(first, last), runs)


def activations(
    packing: Packing, run: Run, weights: WeightCache, suffix: str, chunk_rows: int, backwards: bool
) -> Iterator[tuple[Segment, Array, Array, Array]]:
    """Each segment in the order in which backward comes by: with c before it, its c and its gates.

    What was made anew serves until the next one is asked for.
    """
    if run.kept is not None:
        (segment,) = run.segments
        yield segment, run.starts[0], *run.kept
        return
    own = weights.forward(suffix, run.hh_mask)
    for k in in_order(len(run.segments), not backwards):
        segment, c_0 = run.segments[k], run.starts[k]
        c, gates = _recompute(packing, run, segment, c_0, own, chunk_rows, backwards)
        yield segment, c_0, c, gates
        _scratch.give(c, gates)


def in_order(count: int, backwards: bool) -> range:
    """0 to count - 1, or from the last to the first."""
    return range(count - 1, -1, -1) if backwards else range(count)


def _recompute(
    packing: Packing,
    run: Run,
    segment: Segment,
    c_0: Array,
    weights: ForwardWeights,
    chunk_rows: int,
    backwards: bool,
) -> tuple[Array, Array]:
    """c and gates of the rows of a segment."""
    dtype, hidden, part = run.h.dtype, run.h.shape[1], segment.packing
    c = _scratch.take((part.rows, hidden), dtype)
    gates = _scratch.take((part.rows, 4 * hidden), dtype)
    chunks, widest = part.runs(chunk_rows), part.chunks(chunk_rows)[1]
    # BLAS leaves the gates where it made their pre-activations.
    pre = _scratch.take((widest, len(weights.bias)), dtype) if weights.packed else gates
    h = np.empty((part.batch, hidden), dtype)  # made as well, and known already
    scratch = None if views_serve(packing, run) else np.empty((widest, hidden), dtype)
    for first, last, rows in reversed(chunks) if backwards else chunks:
        own = pre[: rows.stop - rows.start] if weights.packed else gates[rows]
        _project(
            own, packing, run, weights, segment.first + first, segment.first + last, backwards,
            scratch,
        )  # fmt: skip
        with team(OPERATIONS_PER_CELL * own.size, blas=False) as threads:
            _core.cells(
                c, gates, h, own, c_0, weights.hh, part.offsets, first, last,
                *_split(part, hidden, threads, weights.packed, dtype), backwards, weights.packed,
            )  # fmt: skip
    if pre is not gates:
        _scratch.give(pre)
    return c, gates


def _project(
    pre: Array,
    packing: Packing,
    run: Run,
    weights: ForwardWeights,
    first: int,
    last: int,
    backwards: bool,
    scratch: Array | None,
) -> None:
    """pre = bias + x·W_ihᵀ + h_{t-1}·W_hhᵀ for all rows of some steps."""
    start = int(packing.offsets[first])
    x = run.x[start : start + len(pre)]
    _add_product(pre, x, weights.ih, weights.bias, weights.packed)
    for rows, h_prev in previous_h(packing, run, first, last, backwards, scratch):
        own = pre[rows.start - start : rows.stop - start]
        _add_product(own, h_prev, weights.hh, None, weights.packed)


def _add_product(pre: Array, x: Array, weight: Array, bias: Array | None, packed: bool) -> None:
    """pre = bias + x·Wᵀ, or pre += x·Wᵀ without a bias, of W as ForwardWeights has it."""
    if packed:
        with team(2.0 * pre.size * x.shape[1], blas=False) as threads:
            _core.matmul_panels(pre, bias, x, weight, bias is None, threads)
        return
    if bias is not None:
        pre[...] = bias
    matrix = weight.reshape(-1, x.shape[1])
    _products.matmul(x, matrix, transpose_b=True, out=pre, accumulate=True)


def _split(
    packing: Packing, hidden: int, threads: int, packed: bool, dtype: np.dtype[Any]
) -> tuple[Array, Array]:
    """The cells need nobody's but their own past: units are shared out, or, on BLAS, sequences."""
    if packed:
        return packing.blocks(1), unit_shares(hidden, threads, _core.VECTOR[dtype.itemsize])
    return packing.blocks(threads), unit_shares(hidden, 1, hidden)
