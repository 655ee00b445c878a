"""The time loop: an LSTM layer in one direction, forward and backward, over packed rows.

Design. What stands here is all that happens for each time step of a sequence, over the functions
of step.pxd, which a stream (stream.pyx) shares, and the kernels of csrc/.

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
- Two matrix paths. `packed`: the kernels of csrc/steps.h over weights in panels, where each
  element starts from the bias and adds its terms in one fixed order, so that a sequence has the
  same bits in any batch, on any number of threads, and step by step. Otherwise BLAS, over weights
  row by row, and the gate math after it. _weights.py decides which one serves.
- Forward, for a chunk of steps at a time so that it stays in cache: pre = bias + x·W_ihᵀ for all
  rows of the chunk, then for each step pre + h_{t-1}·W_hhᵀ and, on it, the cell. Training keeps
  the activated gates and c for all rows, inference the running c alone.
- Backward, step by step in the opposite order: dh = d_gates_{t+1}·W_hh and, on it, the cell's
  backward, which turns gates into their gradients in place. The gradients of weights and x are
  products over all rows at once, by the caller (_stack.py), from the d_gates that are left.
- Threads. One parallel region for the whole sequence, in one of two ways, which give the same
  bits. By sequences: each thread takes a block of them through all steps, without a barrier but
  for the projection of a chunk, which is shared out by rows; blocks hold about the same number of
  rows. By hidden units, for batches that are too small for that: each thread has all sequences
  and some units, whose weights stay in its own cache, and the threads meet at a barrier once a
  step (csrc/barrier.h), when all of h_t, or of d_gates_t, is there. It needs the packed path.
  While a region of several threads may call BLAS, threads.py holds BLAS's own pool at one thread.
  With one thread OpenMP is not entered.
- Subnormal numbers count as zero in here (csrc/flush.h); each thread's mode is restored.

Arguments are trusted: the validator stood before. The debug build checks bounds.
"""

from cython.parallel cimport parallel
from libc.stdint cimport uint64_t
from libc.string cimport memcpy, memset

from fastlstm._core.blas cimport real
from fastlstm._core.rows cimport alive
from fastlstm._core.step cimport carry_back, project, step_backward, step_forward
from fastlstm._core.threads cimport (
    fastlstm_barrier, fastlstm_barrier_wait, fastlstm_flush_begin, fastlstm_flush_end,
    team_member, team_size,
)

cdef struct Part:
    # What one thread of a team does: a block of sequences and a share of the hidden units, of
    # which one is all there are.
    Py_ssize_t first, last
    Py_ssize_t unit, unit_end
    int member, team
    bint by_units
    fastlstm_barrier* barrier


cdef inline Part _part_of(
    const Py_ssize_t[::1] blocks, const Py_ssize_t[::1] shares, fastlstm_barrier* barrier,
    int member, int team,
) noexcept nogil:
    """The part of a member of a team, which may be smaller than it was asked to be."""
    cdef Part part
    cdef Py_ssize_t n_blocks = blocks.shape[0] - 1
    cdef Py_ssize_t n_shares = shares.shape[0] - 1
    part.by_units = n_shares > 1
    part.member, part.team, part.barrier = member, team, barrier
    part.first, part.last = blocks[0], blocks[n_blocks]
    part.unit, part.unit_end = shares[0], shares[n_shares]
    if part.by_units:
        part.unit = shares[n_shares * member // team]
        part.unit_end = shares[n_shares * (member + 1) // team]
    else:
        part.first = blocks[n_blocks * member // team]
        part.last = blocks[n_blocks * (member + 1) // team]
    return part


cdef inline void _meet(Part part) noexcept nogil:
    if part.team > 1:
        fastlstm_barrier_wait(part.barrier, part.team)


cdef inline int _threads(const Py_ssize_t[::1] blocks, const Py_ssize_t[::1] shares) noexcept nogil:
    return <int>max(blocks.shape[0], shares.shape[0]) - 1


# --- forward -------------------------------------------------------------------------------------

cdef inline Py_ssize_t _pre_row(
    const Py_ssize_t[::1] offsets, Py_ssize_t chunk_first, bint keep, bint packed
) noexcept nogil:
    """Row of x that row 0 of `pre` stands for: BLAS leaves all gates there if they are kept."""
    return 0 if keep and not packed else offsets[chunk_first]


cdef void _project_chunk(
    real[:, ::1] pre, const real[:, ::1] x, const real[::1] weight_ih, const real[::1] bias,
    const Py_ssize_t[::1] offsets, Py_ssize_t chunk_first, Py_ssize_t chunk_last,
    Py_ssize_t hidden, Part part, bint keep, bint packed,
) noexcept nogil:
    """A thread's part of the projection of a chunk: its units, or an equal share of the rows."""
    cdef Py_ssize_t row = offsets[chunk_first]
    cdef Py_ssize_t rows = offsets[chunk_last] - row
    cdef Py_ssize_t end = row + rows
    if not part.by_units:
        end = row + rows * (part.member + 1) // part.team
        row = row + rows * part.member // part.team
    if row < end:
        project(&pre[row - _pre_row(offsets, chunk_first, keep, packed), 0], &x[row, 0],
                &weight_ih[0], &bias[0], end - row, x.shape[1], pre.shape[1], hidden,
                part.unit, part.unit_end, packed)


cdef void _forward_steps(
    real[:, :] h,                        # OUT (N, H)
    real[:, ::1] c,                      # OUT (N, H) if keep, else unused
    real[:, ::1] gates,                  # OUT (N, 4H) if keep and packed, else unused
    real[:, ::1] pre,                    # IN  rows of the chunk; OUT gates if not packed
    real[:, ::1] h_n,                    # IN/OUT (B, H)
    real[:, ::1] c_n,                    # IN/OUT (B, H)
    const real[::1] weight_hh,           # IN  (4H, H), or panels
    const Py_ssize_t[::1] offsets,       # IN  (T + 1,)
    Py_ssize_t chunk_first, Py_ssize_t chunk_last, bint backwards, Part part,
    bint keep, bint zero_state, bint packed,
) noexcept nogil:
    """The recurrence of a thread's part over the steps of a chunk."""
    cdef Py_ssize_t hidden = h_n.shape[1], first = part.first
    cdef Py_ssize_t ld_h = h.strides[0] // <Py_ssize_t>sizeof(real)
    cdef Py_ssize_t ld_pre = pre.shape[1]
    cdef Py_ssize_t step = -1 if backwards else 1
    cdef Py_ssize_t t = chunk_last - 1 if backwards else chunk_first
    cdef Py_ssize_t _step, row, row_prev = 0
    # Sequences of the block that have the step before this one, this one, and the one after.
    cdef Py_ssize_t entered, rows = alive(offsets, t - step, first, part.last)
    cdef Py_ssize_t staying = alive(offsets, t, first, part.last)
    # Plain pointers: a step of a small layer takes less than to pass a memoryview on.
    cdef real* h_rows = &h[0, 0]
    cdef real* h_first = &h_n[0, 0] + first * hidden
    cdef real* c_first = &c_n[0, 0] + first * hidden
    cdef real* pre_rows = &pre[0, 0] - _pre_row(offsets, chunk_first, keep, packed) * ld_pre
    cdef real* all_c = &c[0, 0] if keep else NULL
    cdef real* all_gates = &gates[0, 0] if keep and packed else NULL
    cdef real* c_rows
    cdef real* kept = NULL
    for _step in range(chunk_last - chunk_first):
        entered, rows = min(rows, staying), staying
        staying = alive(offsets, t + step, first, part.last)
        row = offsets[t] + first
        c_rows = all_c + row * hidden if keep else c_first
        if entered > 0:
            row_prev = offsets[t - step] + first
            if all_gates is not NULL:
                kept = all_gates + row * 4 * hidden
            step_forward(
                h_rows + row * ld_h, c_rows, kept, pre_rows + row * ld_pre,
                h_rows + row_prev * ld_h, all_c + row_prev * hidden if keep else c_rows,
                &weight_hh[0], entered, hidden, part.unit, part.unit_end, ld_h, ld_h, t & 1, packed)
        if entered < rows:
            if all_gates is not NULL:
                kept = all_gates + (row + entered) * 4 * hidden
            step_forward(
                h_rows + (row + entered) * ld_h, c_rows + entered * hidden, kept,
                pre_rows + (row + entered) * ld_pre,
                NULL if zero_state else h_first + entered * hidden, c_first + entered * hidden,
                &weight_hh[0], rows - entered, hidden, part.unit, part.unit_end, ld_h, hidden,
                t & 1, packed)
        if part.by_units:
            _meet(part)
        if staying < rows:
            _leave(h_rows + row * ld_h, ld_h, c_rows if keep else NULL, h_first, c_first, hidden,
                   staying, rows, part)
        t = t + step


cdef void _leave(
    const real* h, Py_ssize_t ld_h, const real* c, real* h_n, real* c_n, Py_ssize_t hidden,
    Py_ssize_t staying, Py_ssize_t rows, Part part,
) noexcept nogil:
    """Sequences that have no further step hand their state over: h_n[b], c_n[b] = h, c."""
    cdef Py_ssize_t b, unit = part.unit
    cdef size_t width = (part.unit_end - unit) * sizeof(real)
    for b in range(staying, rows):
        memcpy(h_n + b * hidden + unit, h + b * ld_h + unit, width)
        if c is not NULL:
            memcpy(c_n + b * hidden + unit, c + b * hidden + unit, width)


cdef void _forward_part(
    real[:, :] h, real[:, ::1] c, real[:, ::1] gates, real[:, ::1] pre,
    real[:, ::1] h_n, real[:, ::1] c_n, const real[:, ::1] x,
    const real[::1] weight_ih, const real[::1] weight_hh, const real[::1] bias,
    const Py_ssize_t[::1] offsets, const Py_ssize_t[::1] chunks,
    bint backwards, bint keep, bint zero_state, bint packed, Part part,
) noexcept nogil:
    """What one thread does of a layer in one direction."""
    cdef uint64_t mode = fastlstm_flush_begin()
    cdef Py_ssize_t n_chunks = chunks.shape[0] - 1
    cdef Py_ssize_t i, chunk
    for i in range(n_chunks):
        chunk = n_chunks - 1 - i if backwards else i
        _project_chunk(pre, x, weight_ih, bias, offsets, chunks[chunk], chunks[chunk + 1],
                       h_n.shape[1], part, keep, packed)
        if not part.by_units:
            _meet(part)
        _forward_steps(h, c, gates, pre, h_n, c_n, weight_hh, offsets, chunks[chunk],
                       chunks[chunk + 1], backwards, part, keep, zero_state, packed)
        if not part.by_units:
            _meet(part)
    fastlstm_flush_end(mode)


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
    const Py_ssize_t[::1] blocks,        # IN  boundaries of blocks of sequences: one, or
    const Py_ssize_t[::1] shares,        # IN  boundaries of shares of units: one; of whole panels
    bint backwards,
    bint keep,
    bint zero_state,
    bint packed,
):
    """Run one layer in one direction over all steps, a thread for each block or share."""
    cdef int threads = _threads(blocks, shares)
    cdef fastlstm_barrier barrier
    memset(&barrier, 0, sizeof(barrier))
    with nogil:
        if threads == 1:
            _forward_part(h, c, gates, pre, h_n, c_n, x, weight_ih, weight_hh, bias, offsets,
                          chunks, backwards, keep, zero_state, packed,
                          _part_of(blocks, shares, &barrier, 0, 1))
        else:
            with parallel(num_threads=threads):
                _forward_part(h, c, gates, pre, h_n, c_n, x, weight_ih, weight_hh, bias, offsets,
                              chunks, backwards, keep, zero_state, packed,
                              _part_of(blocks, shares, &barrier, team_member(), team_size()))


# --- backward ------------------------------------------------------------------------------------

cdef void _backward_part(
    real[:, ::1] gates,                  # IN activated gates, OUT their gradients (N, 4H)
    real[:, ::1] d_h,                    # IN  dL/dh_n, OUT dL/dh_0 (B, H)
    real[:, ::1] d_c,                    # IN  dL/dc_n, OUT dL/dc_0 (B, H)
    const real[:, :] d_output,           # IN  (N, H)
    const real[:, ::1] c,                # IN  (N, H)
    const real[:, ::1] c_0,              # IN  (B, H)
    const real[::1] weight_hh,           # IN  (4H, H), or panels
    const Py_ssize_t[::1] offsets,       # IN  (T + 1,)
    bint backwards, bint packed, Part part,
) noexcept nogil:
    """BPTT of a thread's part over all steps.

    Row b of d_h and d_c holds what flows into the sequence's state from later steps. Before its
    last step (in the order of the forward pass) that is the gradient of its final state.
    """
    cdef uint64_t mode = fastlstm_flush_begin()
    cdef Py_ssize_t hidden = d_h.shape[1], first = part.first
    cdef Py_ssize_t ld_d_output = d_output.strides[0] // <Py_ssize_t>sizeof(real)
    cdef Py_ssize_t steps = offsets.shape[0] - 1
    cdef Py_ssize_t step = -1 if backwards else 1
    cdef Py_ssize_t t = 0 if backwards else steps - 1
    cdef Py_ssize_t _step, row, begin, end, row_next = 0, row_prev = 0
    # Sequences of the block that have the step after this one, this one, and the one before.
    cdef Py_ssize_t later, entered, rows = 0, earlier = alive(offsets, t, first, part.last)
    cdef const real* c_prev
    for _step in range(steps):
        later, rows = min(rows, earlier), earlier
        earlier = alive(offsets, t - step, first, part.last)
        entered = min(rows, earlier)
        row = offsets[t] + first
        if entered > 0:
            row_prev = offsets[t - step] + first
        # In segments of sequences that agree in whether they have a step after and before.
        begin = 0
        while begin < rows:
            end = rows
            if begin < later:
                end = min(end, later)
            if begin < entered:
                end = min(end, entered)
                c_prev = &c[row_prev + begin, 0]
            else:
                c_prev = &c_0[first + begin, 0]
            step_backward(
                &gates[row + begin, 0], &d_c[first + begin, 0], &d_h[first + begin, 0],
                &d_output[row + begin, 0], &c[row + begin, 0], c_prev,
                &gates[row_next + begin, 0] if begin < later else NULL,
                &weight_hh[0], end - begin, hidden, part.unit, part.unit_end, ld_d_output,
                t & 1, packed)
            begin = end
        if part.by_units:
            _meet(part)
        if entered < rows:
            carry_back(&d_h[first + entered, 0], &gates[row + entered, 0], &weight_hh[0],
                       rows - entered, hidden, part.unit, part.unit_end, packed)
        row_next = row
        t = t - step
    fastlstm_flush_end(mode)


def backward(
    real[:, ::1] gates,                  # IN activated gates, OUT their gradients (N, 4H)
    real[:, ::1] d_h,                    # IN  dL/dh_n, OUT dL/dh_0 (B, H)
    real[:, ::1] d_c,                    # IN  dL/dc_n, OUT dL/dc_0 (B, H)
    const real[:, :] d_output,           # IN  (N, H), unit stride along H
    const real[:, ::1] c,                # IN  (N, H)
    const real[:, ::1] c_0,              # IN  (B, H)
    const real[::1] weight_hh,           # IN  (4H, H), or panels for this product
    const Py_ssize_t[::1] offsets,       # IN  (T + 1,)
    const Py_ssize_t[::1] blocks,        # IN  boundaries of blocks of sequences: one, or
    const Py_ssize_t[::1] shares,        # IN  boundaries of shares of units: one; of whole panels
    bint backwards,
    bint packed,
):
    """Carry gradients back through all steps of one layer in one direction."""
    cdef int threads = _threads(blocks, shares)
    cdef fastlstm_barrier barrier
    memset(&barrier, 0, sizeof(barrier))
    with nogil:
        if threads == 1:
            _backward_part(gates, d_h, d_c, d_output, c, c_0, weight_hh, offsets, backwards,
                           packed, _part_of(blocks, shares, &barrier, 0, 1))
        else:
            with parallel(num_threads=threads):
                _backward_part(gates, d_h, d_c, d_output, c, c_0, weight_hh, offsets, backwards,
                               packed,
                               _part_of(blocks, shares, &barrier, team_member(), team_size()))


def previous_h(
    real[:, ::1] out,                    # OUT at least the rows of these steps
    const real[:, :] h,                  # IN  (N, H)
    const real[:, ::1] h_0,              # IN  (B, H)
    const Py_ssize_t[::1] offsets,       # IN  (T + 1,)
    Py_ssize_t first, Py_ssize_t last,   # the steps
    bint backwards,
):
    """h_{t-1} of every row of a run of steps: the gradient of W_hh is a product over them."""
    cdef Py_ssize_t step = -1 if backwards else 1
    cdef Py_ssize_t batch = h_0.shape[0]
    cdef size_t width = h_0.shape[1] * sizeof(real)
    cdef Py_ssize_t t, b, entered, row
    with nogil:
        for t in range(first, last):
            entered = min(alive(offsets, t, 0, batch), alive(offsets, t - step, 0, batch))
            row = offsets[t] - offsets[first]
            for b in range(entered):
                memcpy(&out[row + b, 0], &h[offsets[t - step] + b, 0], width)
            for b in range(entered, alive(offsets, t, 0, batch)):
                memcpy(&out[row + b, 0], &h_0[b, 0], width)
