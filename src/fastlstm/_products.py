"""Matrix products for everything outside of the time loop, on the same path and threads."""

from __future__ import annotations

import numpy as np

from fastlstm import _core
from fastlstm._validate import Array
from fastlstm._weights import is_packed
from fastlstm.threads import team

# A sum waits for memory: an addition takes as long as so many operations of a product.
OPERATIONS_PER_SUM = 16.0
# What an element of a softmax costs, in the same measure.
OPERATIONS_PER_EXPONENTIAL = 40.0


def matmul(
    a: Array,
    b: Array,
    *,
    transpose_a: bool = False,
    transpose_b: bool = False,
    out: Array | None = None,
    accumulate: bool = False,
) -> Array:
    """op(A)·op(B) of two C-contiguous matrices of one dtype, into `out` or added to it."""
    rows, inner = a.shape
    if transpose_a:
        rows, inner = inner, rows
    columns = b.shape[0 if transpose_b else 1]
    if out is None:
        out = np.empty((rows, columns), a.dtype)
    if inner == 0 and not accumulate:
        out[...] = 0
    elif rows and columns and inner:
        # The packed kernels pack B as they go, which needs rows of B to read at a time: of Wᵀ,
        # layers keep panels (see `linear`), and without them BLAS turns W.
        packed = is_packed(a.dtype) and not transpose_b
        with team(2.0 * rows * columns * inner, blas=not packed) as threads:
            _core.matmul(out, a, b, transpose_a, transpose_b, accumulate, threads, packed)
    return out


def matmul_batch(
    a: Array,
    b: Array,
    *,
    transpose_a: bool = False,
    transpose_b: bool = False,
    out: Array | None = None,
    accumulate: bool = False,
) -> Array:
    """op(A[i])·op(B[i]) for each i of two C-contiguous stacks of matrices, or added to `out`.

    On the packed path what one product is does not depend on the others, nor on zeros at the ends
    of what is summed.
    """
    batch, rows, inner = a.shape
    if transpose_a:
        rows, inner = inner, rows
    columns = b.shape[1 if transpose_b else 2]
    if out is None:
        out = np.empty((batch, rows, columns), a.dtype)
    if inner == 0 and not accumulate:
        out[...] = 0
    elif out.size and inner:
        packed = is_packed(a.dtype)
        with team(2.0 * out.size * inner, blas=not packed) as threads:
            _core.matmul_batch(out, a, b, transpose_a, transpose_b, accumulate, threads, packed)
    return out


def softmax_batch(x: Array, lengths: Array) -> Array:
    """Softmax over the first lengths[i] elements of each row of x[i], zeros behind them."""
    out = np.empty_like(x)
    if x.size:
        with team(OPERATIONS_PER_EXPONENTIAL * x.size, blas=False) as threads:
            _core.softmax_batch(out, x, lengths, threads)
    return out


def linear(
    x: Array, weight: Array, bias: Array | None, panels: Array | None, *, out: Array | None = None
) -> Array:
    """x·Wᵀ + b of C-contiguous x (n, I) and W (O, I), each sum beginning at its bias.

    `panels` are those of Wᵀ; where there are none, BLAS serves.
    """
    output = np.empty((len(x), len(weight)), x.dtype) if out is None else out
    if panels is None:
        if bias is not None:
            output[...] = bias
        return matmul(x, weight, transpose_b=True, out=output, accumulate=bias is not None)
    if len(x):
        with team(2.0 * len(x) * weight.size, blas=False) as threads:
            _core.matmul_panels(output, bias, x, panels, False, threads)
    return output


def sum_rows(a: Array, *, out: Array | None = None, accumulate: bool = False) -> Array:
    """Sum over the rows of a C-contiguous (rows, columns) matrix: (columns,)."""
    if out is None:
        out = np.empty(a.shape[1], a.dtype)
    size = a.size
    if size:
        with team(OPERATIONS_PER_SUM * size, blas=False) as threads:
            _core.sum_rows(out, np.empty(out.shape, out.dtype), a, accumulate, threads)
    elif not accumulate:
        out[...] = 0
    return out


def scatter_add_rows(out: Array, ids: Array, rows: Array) -> None:
    """out[ids[n]] += rows[n] for n in order. `ids` lie in range: the validator saw to it."""
    if rows.size:
        _core.scatter_add_rows(out, ids, rows)
