"""The cells of a run of steps whose pre-activations are complete: gates and c made anew.

In the time loop a step's product needs h of the step before. Where that is known already, products
run over many rows at once (_recompute.py), and what is left here is one cell after another, each
sequence and each hidden unit for itself, so that threads have nothing to wait for.
"""

from cython.parallel cimport prange
from libc.stdint cimport uint64_t

from fastlstm._core.blas cimport real
from fastlstm._core.rows cimport alive
from fastlstm._core.step cimport step_forward
from fastlstm._core.threads cimport fastlstm_flush_begin, fastlstm_flush_end


def cells(
    real[:, ::1] c,                      # OUT (N, H)
    real[:, ::1] gates,                  # OUT (N, 4H) activated, if packed
    real[:, ::1] h,                      # scratch (B, H)
    real[:, ::1] pre,                    # IN  rows of these steps, spent; not packed: OUT gates
    const real[:, ::1] c_0,              # IN  (B, H)
    const real[::1] weight_hh,           # not read
    const Py_ssize_t[::1] offsets,       # IN  (T + 1,)
    Py_ssize_t first, Py_ssize_t last,   # the steps; c of what was before them is there
    const Py_ssize_t[::1] blocks,        # IN  boundaries of blocks of sequences
    const Py_ssize_t[::1] shares,        # IN  boundaries of shares of units, of whole vectors
    bint backwards,
    bint packed,
):
    """Run the cells of the steps first to last, a part for each block and share."""
    cdef int n_shares = <int>shares.shape[0] - 1
    cdef int parts = (<int>blocks.shape[0] - 1) * n_shares
    cdef int part
    with nogil:
        if parts == 1:
            _cells_part(c, gates, h, pre, c_0, weight_hh, offsets, first, last, blocks[0],
                        blocks[1], shares[0], shares[1], backwards, packed)
        else:
            for part in prange(parts, num_threads=parts, schedule="static"):
                _cells_part(c, gates, h, pre, c_0, weight_hh, offsets, first, last,
                            blocks[part // n_shares], blocks[part // n_shares + 1],
                            shares[part % n_shares], shares[part % n_shares + 1],
                            backwards, packed)


cdef void _cells_part(
    real[:, ::1] c, real[:, ::1] gates, real[:, ::1] h, real[:, ::1] pre,
    const real[:, ::1] c_0, const real[::1] weight_hh, const Py_ssize_t[::1] offsets,
    Py_ssize_t first, Py_ssize_t last, Py_ssize_t sequence, Py_ssize_t sequence_end,
    Py_ssize_t unit, Py_ssize_t unit_end, bint backwards, bint packed,
) noexcept nogil:
    """Some sequences and units through all of the steps, in the direction's order."""
    cdef uint64_t mode = fastlstm_flush_begin()
    cdef Py_ssize_t hidden = c.shape[1]
    cdef Py_ssize_t step = -1 if backwards else 1
    cdef Py_ssize_t t = last - 1 if backwards else first
    cdef Py_ssize_t _step, row, row_pre, rows, entered
    for _step in range(last - first):
        row, row_pre = offsets[t] + sequence, offsets[t] - offsets[first] + sequence
        rows = alive(offsets, t, sequence, sequence_end)
        # Sequences that have the step before, too: the others begin with c_0.
        entered = min(rows, alive(offsets, t - step, sequence, sequence_end))
        if entered > 0:
            step_forward(
                &h[sequence, 0], &c[row, 0], &gates[row, 0], &pre[row_pre, 0], <real*>NULL,
                &c[offsets[t - step] + sequence, 0], &weight_hh[0], entered, hidden, unit,
                unit_end, hidden, hidden, t & 1, packed)
        if entered < rows:
            step_forward(
                &h[sequence + entered, 0], &c[row + entered, 0], &gates[row + entered, 0],
                &pre[row_pre + entered, 0], <real*>NULL, &c_0[sequence + entered, 0],
                &weight_hh[0], rows - entered, hidden, unit, unit_end, hidden, hidden, t & 1,
                packed)
        t = t + step
    fastlstm_flush_end(mode)
