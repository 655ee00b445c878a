"""The time loop: an LSTM layer in one direction, forward and backward, over packed rows.

Design. What stands here is all that happens for each time step; nothing else in the package is
compiled but the kernels (csrc/) and the way to SciPy's BLAS (_blas.pyx).

- Rows. Sequences come packed (packing.py): sorted by length, step by step, so that the rows of
  step t are offsets[t] to offsets[t + 1] and the sequences that live at t are the first ones.
  Nothing past an end exists here. Let n(t) be the number of living sequences.
- Order. `backwards` runs the steps from the last to the first (the reverse direction). In either
  order, sequence b enters at its first step in that order with its initial state, which waits in
  row b of h_n and c_n; when it leaves, its last state takes that place. A sequence of length 0
  never enters, so its state stays.
- Segments. The state before step t is therefore in two places: rows [0, m) of the step processed
  before, and rows [m, n(t)) of h_n, c_n, for the sequences that enter. Each step works on these
  two segments, one of which is empty on all but few steps.
- Two matrix paths. `packed`: the kernels of csrc/products.h over weights in panels, where each
  element starts from the bias and adds its terms in one fixed order, so that a sequence has the
  same bits in any batch, on any number of threads, and step by step. Otherwise BLAS, over weights
  row by row, and the gate math after it. _weights.py decides which one serves.
- Forward, for a chunk of steps at a time so that it stays in cache: pre = bias + x·W_ihᵀ for all
  rows of the chunk, then for each step pre + h_{t-1}·W_hhᵀ and, on it, the cell. Training keeps
  the activated gates and c for all rows, inference the running c alone.
- Backward, step by step in the opposite order: the cell's backward turns gates into their
  gradients in place, then dh_{t-1} = d_gates·W_hh. The gradients of weights and x are products
  over all rows at once, by the caller (_stack.py), from the d_gates that are left.
- Threads. One parallel region for the whole sequence. The projection is shared out by rows, the
  recurrence by blocks of sequences, each of which a thread takes through all steps without a
  barrier; blocks hold about the same number of rows. While a region of several threads may call
  BLAS, threads.py holds BLAS's own pool at one thread. With one thread OpenMP is not entered.

Arguments are trusted: the validator stood before. The debug build checks bounds.
"""

from cython.parallel cimport parallel, prange
from libc.string cimport memcpy

from fastlstm._core.blas cimport gemm, real
from fastlstm._core.kernels cimport cell_backward, cell_forward, cell_step, multiply_packed


# --- forward -------------------------------------------------------------------------------------

cdef inline Py_ssize_t _alive(
    const Py_ssize_t[::1] offsets, Py_ssize_t t, Py_ssize_t first, Py_ssize_t last
) noexcept nogil:
    """Sequences of the block [first, last) that have a step t; none outside of the sequence."""
    if t < 0 or t >= offsets.shape[0] - 1:
        return 0
    return max(0, min(offsets[t + 1] - offsets[t], last) - first)


cdef void _project(
    real[:, ::1] pre,                    # OUT rows of the chunk
    const real[:, ::1] x,                # IN  (N, I)
    const real[::1] weight_ih,           # IN  (4H, I), or panels
    const real[::1] bias,                # IN  (4H,), or panels
    Py_ssize_t row,                      # the first row to work on, of x,
    Py_ssize_t end,                      # and the one after the last
    Py_ssize_t pre_row,                  # row of x that row 0 of pre stands for
    bint packed,
) noexcept nogil:
    """pre = bias + x·W_ihᵀ for rows [row, end)."""
    cdef Py_ssize_t width = pre.shape[1]
    cdef Py_ssize_t inner = x.shape[1]
    cdef Py_ssize_t i
    if row >= end:
        return
    if packed:
        multiply_packed(&pre[row - pre_row, 0], width, &bias[0], &x[row, 0], inner,
                         &weight_ih[0], end - row, inner, width)
        return
    for i in range(row, end):
        memcpy(&pre[i - pre_row, 0], &bias[0], width * sizeof(real))
    gemm(&pre[row - pre_row, 0], &x[row, 0], &weight_ih[0], False, True,
         end - row, width, inner, width, inner, inner, True)


cdef void _forward_segment(
    real* h, real* c, real* gates, real* pre, const real* h_prev, const real* c_prev,
    const real* weight_hh, Py_ssize_t rows, Py_ssize_t hidden,
    Py_ssize_t ld_h, Py_ssize_t ld_h_prev, bint packed,
) noexcept nogil:
    """One step for some sequences: pre + h_{t-1}·W_hhᵀ, then the cell. NULL as h_prev is zero."""
    if packed:
        cell_step(h, c, gates, pre, c_prev, h_prev, weight_hh, rows, hidden, ld_h, ld_h_prev)
        return
    if h_prev is not NULL:
        gemm(pre, h_prev, weight_hh, False, True,
             rows, 4 * hidden, hidden, 4 * hidden, ld_h_prev, hidden, True)
    cell_forward(h, c, pre, c_prev, rows, hidden, ld_h)


cdef void _forward_block(
    real[:, :] h,                        # OUT (N, H)
    real[:, ::1] c,                      # OUT (N, H) if keep, else unused
    real[:, ::1] gates,                  # OUT (N, 4H) if keep and packed, else unused
    real[:, ::1] pre,                    # IN  rows of the chunk; OUT gates if not packed
    real[:, ::1] h_n,                    # IN/OUT (B, H)
    real[:, ::1] c_n,                    # IN/OUT (B, H)
    const real[::1] weight_hh,           # IN  (4H, H), or panels
    const Py_ssize_t[::1] offsets,       # IN  (T + 1,)
    Py_ssize_t chunk_first, Py_ssize_t chunk_last, bint backwards,
    Py_ssize_t first, Py_ssize_t last,   # the block of sequences
    bint keep, bint zero_state, bint packed,
) noexcept nogil:
    """The recurrence of a block of sequences over the steps of a chunk."""
    cdef Py_ssize_t hidden = h_n.shape[1]
    cdef Py_ssize_t ld_h = h.strides[0] // <Py_ssize_t>sizeof(real)
    cdef Py_ssize_t step = -1 if backwards else 1
    cdef Py_ssize_t t = chunk_last - 1 if backwards else chunk_first
    cdef Py_ssize_t pre_row = _pre_row(offsets, chunk_first, keep, packed)
    cdef Py_ssize_t _step, rows, entered, row, row_prev
    cdef real* c_rows
    cdef real* kept = NULL
    for _step in range(chunk_last - chunk_first):
        rows = _alive(offsets, t, first, last)
        if rows > 0:
            entered = min(rows, _alive(offsets, t - step, first, last))
            row = offsets[t] + first
            c_rows = &c[row, 0] if keep else &c_n[first, 0]
            if entered > 0:
                row_prev = offsets[t - step] + first
                if keep and packed:
                    kept = &gates[row, 0]
                _forward_segment(
                    &h[row, 0], c_rows, kept, &pre[row - pre_row, 0], &h[row_prev, 0],
                    &c[row_prev, 0] if keep else c_rows,
                    &weight_hh[0], entered, hidden, ld_h, ld_h, packed)
            if entered < rows:
                if keep and packed:
                    kept = &gates[row + entered, 0]
                _forward_segment(
                    &h[row + entered, 0], c_rows + entered * hidden, kept,
                    &pre[row + entered - pre_row, 0],
                    <real*>NULL if zero_state else &h_n[first + entered, 0],
                    &c_n[first + entered, 0],
                    &weight_hh[0], rows - entered, hidden, ld_h, hidden, packed)
            _leave(h, c, h_n, c_n, row, first, _alive(offsets, t + step, first, last), rows, keep)
        t = t + step


cdef inline Py_ssize_t _pre_row(
    const Py_ssize_t[::1] offsets, Py_ssize_t chunk_first, bint keep, bint packed
) noexcept nogil:
    """Row of x that row 0 of `pre` stands for: BLAS leaves all gates there if they are kept."""
    return 0 if keep and not packed else offsets[chunk_first]


cdef void _leave(
    real[:, :] h, real[:, ::1] c, real[:, ::1] h_n, real[:, ::1] c_n,
    Py_ssize_t row, Py_ssize_t first, Py_ssize_t staying, Py_ssize_t rows, bint keep,
) noexcept nogil:
    """Sequences that have no further step hand their state over: h_n[b], c_n[b] = h, c."""
    cdef Py_ssize_t i
    cdef size_t width = h_n.shape[1] * sizeof(real)
    for i in range(staying, rows):
        memcpy(&h_n[first + i, 0], &h[row + i, 0], width)
        if keep:
            memcpy(&c_n[first + i, 0], &c[row + i, 0], width)


def forward(
    real[:, :] h,                        # OUT (N, H), unit stride along H
    real[:, ::1] c,                      # OUT (N, H) if keep, else ignored
    real[:, ::1] gates,                  # OUT (N, 4H) activated if keep and packed, else ignored
    real[:, ::1] pre,                    # scratch for a chunk; not packed, and keep: OUT (N, 4H)
    real[:, ::1] h_n,                    # IN  (B, H) initial state, OUT final state
    real[:, ::1] c_n,                    # IN  (B, H) initial state, OUT final state
    const real[:, ::1] x,                # IN  (N, I)
    const real[::1] weight_ih,           # IN  (4H, I), or panels
    const real[::1] weight_hh,           # IN  (4H, H), or panels
    const real[::1] bias,                # IN  (4H,), or panels
    const Py_ssize_t[::1] offsets,       # IN  (T + 1,)
    const Py_ssize_t[::1] chunks,        # IN  boundaries of runs of steps
    const Py_ssize_t[::1] blocks,        # IN  boundaries of blocks of sequences
    bint backwards,
    bint keep,
    bint zero_state,
    bint packed,
):
    """Run one layer in one direction over all steps, on as many threads as there are blocks."""
    cdef Py_ssize_t n_chunks = chunks.shape[0] - 1
    cdef int threads = <int>(blocks.shape[0] - 1)
    cdef Py_ssize_t i, chunk
    cdef int part
    with nogil:
        if threads == 1:
            for i in range(n_chunks):
                chunk = n_chunks - 1 - i if backwards else i
                _project_part(pre, x, weight_ih, bias, offsets, chunks, chunk, 0, 1, keep, packed)
                _forward_block(h, c, gates, pre, h_n, c_n, weight_hh, offsets, chunks[chunk],
                               chunks[chunk + 1], backwards, 0, blocks[1], keep, zero_state,
                               packed)
        else:
            with parallel(num_threads=threads):
                for i in range(n_chunks):
                    chunk = n_chunks - 1 - i if backwards else i
                    # Each prange ends in a barrier: the recurrence finds the chunk projected.
                    for part in prange(threads, schedule="static"):
                        _project_part(pre, x, weight_ih, bias, offsets, chunks, chunk,
                                      part, threads, keep, packed)
                    for part in prange(threads, schedule="static"):
                        _forward_block(h, c, gates, pre, h_n, c_n, weight_hh, offsets,
                                       chunks[chunk], chunks[chunk + 1], backwards, blocks[part],
                                       blocks[part + 1], keep, zero_state, packed)


cdef void _project_part(
    real[:, ::1] pre, const real[:, ::1] x, const real[::1] weight_ih, const real[::1] bias,
    const Py_ssize_t[::1] offsets, const Py_ssize_t[::1] chunks,
    Py_ssize_t chunk, Py_ssize_t part, Py_ssize_t parts, bint keep, bint packed,
) noexcept nogil:
    """The projection of one of `parts` equal shares of a chunk's rows."""
    cdef Py_ssize_t row = offsets[chunks[chunk]]
    cdef Py_ssize_t rows = offsets[chunks[chunk + 1]] - row
    _project(pre, x, weight_ih, bias, row + rows * part // parts, row + rows * (part + 1) // parts,
             _pre_row(offsets, chunks[chunk], keep, packed), packed)


# --- backward ------------------------------------------------------------------------------------

cdef void _backward_block(
    real[:, ::1] gates,                  # IN activated gates, OUT their gradients (N, 4H)
    real[:, ::1] d_h,                    # IN  dL/dh_n, OUT dL/dh_0 (B, H)
    real[:, ::1] d_c,                    # IN  dL/dc_n, OUT dL/dc_0 (B, H)
    const real[:, :] d_output,           # IN  (N, H)
    const real[:, ::1] c,                # IN  (N, H)
    const real[:, ::1] c_0,              # IN  (B, H)
    const real[::1] weight_hh,           # IN  (4H, H), or panels
    const Py_ssize_t[::1] offsets,       # IN  (T + 1,)
    bint backwards, Py_ssize_t first, Py_ssize_t last, bint packed,
) noexcept nogil:
    """BPTT of a block of sequences over all steps.

    Row b of d_h and d_c holds what flows into the sequence's state from later steps. Before its
    last step (in the order of the forward pass) that is the gradient of its final state.
    """
    cdef Py_ssize_t hidden = d_h.shape[1]
    cdef Py_ssize_t ld_d_output = d_output.strides[0] // <Py_ssize_t>sizeof(real)
    cdef Py_ssize_t steps = offsets.shape[0] - 1
    cdef Py_ssize_t step = -1 if backwards else 1
    cdef Py_ssize_t t = 0 if backwards else steps - 1
    cdef Py_ssize_t _step, rows, entered, row
    for _step in range(steps):
        rows = _alive(offsets, t, first, last)
        if rows > 0:
            entered = min(rows, _alive(offsets, t - step, first, last))
            row = offsets[t] + first
            if entered > 0:
                cell_backward(&gates[row, 0], &d_c[first, 0], &d_h[first, 0], &d_output[row, 0],
                               &c[row, 0], &c[offsets[t - step] + first, 0],
                               entered, hidden, ld_d_output)
            if entered < rows:
                cell_backward(&gates[row + entered, 0], &d_c[first + entered, 0],
                               &d_h[first + entered, 0], &d_output[row + entered, 0],
                               &c[row + entered, 0], &c_0[first + entered, 0],
                               rows - entered, hidden, ld_d_output)
            if packed:
                multiply_packed(&d_h[first, 0], hidden, NULL, &gates[row, 0], 4 * hidden,
                                 &weight_hh[0], rows, 4 * hidden, hidden)
            else:
                gemm(&d_h[first, 0], &gates[row, 0], &weight_hh[0], False, False,
                     rows, hidden, 4 * hidden, hidden, 4 * hidden, hidden, False)
        t = t - step


def backward(
    real[:, ::1] gates,                  # IN activated gates, OUT their gradients (N, 4H)
    real[:, ::1] d_h,                    # IN  dL/dh_n, OUT dL/dh_0 (B, H)
    real[:, ::1] d_c,                    # IN  dL/dc_n, OUT dL/dc_0 (B, H)
    const real[:, :] d_output,           # IN  (N, H), unit stride along H
    const real[:, ::1] c,                # IN  (N, H)
    const real[:, ::1] c_0,              # IN  (B, H)
    const real[::1] weight_hh,           # IN  (4H, H), or panels for this product
    const Py_ssize_t[::1] offsets,       # IN  (T + 1,)
    const Py_ssize_t[::1] blocks,        # IN  boundaries of blocks of sequences
    bint backwards,
    bint packed,
):
    """Carry gradients back through all steps of one layer in one direction."""
    cdef int threads = <int>(blocks.shape[0] - 1)
    cdef int part
    with nogil:
        if threads == 1:
            _backward_block(gates, d_h, d_c, d_output, c, c_0, weight_hh, offsets, backwards,
                            0, blocks[1], packed)
        else:
            for part in prange(threads, num_threads=threads, schedule="static"):
                _backward_block(gates, d_h, d_c, d_output, c, c_0, weight_hh, offsets, backwards,
                                blocks[part], blocks[part + 1], packed)


def previous_h(
    real[:, ::1] out,                    # OUT (N, H)
    const real[:, :] h,                  # IN  (N, H)
    const real[:, ::1] h_0,              # IN  (B, H)
    const Py_ssize_t[::1] offsets,       # IN  (T + 1,)
    bint backwards,
):
    """h_{t-1} of every row: with it the gradient of W_hh is one product over all rows."""
    cdef Py_ssize_t step = -1 if backwards else 1
    cdef Py_ssize_t batch = h_0.shape[0]
    cdef size_t width = h_0.shape[1] * sizeof(real)
    cdef Py_ssize_t t, b, entered
    with nogil:
        for t in range(offsets.shape[0] - 1):
            entered = min(_alive(offsets, t, 0, batch), _alive(offsets, t - step, 0, batch))
            for b in range(entered):
                memcpy(&out[offsets[t] + b, 0], &h[offsets[t - step] + b, 0], width)
            for b in range(entered, _alive(offsets, t, 0, batch)):
                memcpy(&out[offsets[t] + b, 0], &h_0[b, 0], width)
