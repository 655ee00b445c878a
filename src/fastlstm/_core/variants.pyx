"""The general time loop: every cell that is not the plain one, forward and backward.

Peepholes, clipping, coupled gates, other activations, layer normalisation, projection, zoneout and
recurrent dropout are options of one loop. Its rows and their order are those of time_loop.pyx,
whose design note says what they are; what differs:

- The state of all sequences runs along in h_n and c_n, row b for sequence b, so a step always works
  on the rows [first, alive) of them, whoever has just entered. That costs a copy a step.
- A step is a product and then the cell (csrc/variants.h), not one fused function. On the packed
  path each sum still begins at what x gives and adds its terms in one fixed order, so a sequence
  has the same bits in any batch, on any number of threads, and step by step.
- z, the pre-activations, are kept and not the gates; backward computes the gates again.
- Threads share out the sequences, never the hidden units: a projection and a normalisation need
  all of a sequence's units.
- Arrays that only some options need are None without them. Where nothing is kept for backward,
  arrays of rows stand for one step only, with a row for each sequence.

Arguments are trusted: the validator stood before.
"""

from cython.parallel cimport parallel
from libc.math cimport INFINITY
from libc.stdint cimport uint64_t
from libc.string cimport memcpy

from fastlstm._core.blas cimport gemm, real
from fastlstm._core.kernels cimport (
    FASTLSTM_ACTIVATIONS, FASTLSTM_VARIANT_SCRATCH, fastlstm_variant_f32, fastlstm_variant_f64,
    isa, multiply_packed, normalize as normalize_rows, normalize_back as normalize_rows_back,
)
from fastlstm._core.rows cimport alive
from fastlstm._core.threads cimport (
    fastlstm_flush_begin, fastlstm_flush_end, team_member, team_size,
)

# Elements of scratch that a thread needs for each hidden unit.
SCRATCH = FASTLSTM_VARIANT_SCRATCH


cdef class Cell:
    """A general cell for the kernels: its options, and its weights of one dtype."""

    cdef fastlstm_variant_f32 f32
    cdef fastlstm_variant_f64 f64
    cdef readonly double zoneout_h, zoneout_c
    cdef object kept                     # the arrays that the pointers lead into

    def __init__(self, activations, bint input_forget, clip, zoneout):
        """activations: three (index, alpha, beta); clip: None for none; zoneout: of c and of h."""
        cdef int k
        for k, (kind, alpha, beta) in enumerate(activations):
            assert 0 <= kind < FASTLSTM_ACTIVATIONS
            self.f32.kind[k] = self.f64.kind[k] = kind
            self.f64.alpha[k], self.f64.beta[k] = alpha, beta
            self.f32.alpha[k], self.f32.beta[k] = <float>self.f64.alpha[k], <float>self.f64.beta[k]
        self.f32.input_forget = self.f64.input_forget = input_forget
        self.f64.clip = INFINITY if clip is None else clip
        self.f32.clip = <float>self.f64.clip
        self.zoneout_c, self.zoneout_h = zoneout

    def weigh(self, const real[::1] like, const real[::1] peepholes, const real[::1] gain_c,
              const real[::1] bias_c):
        """Take weights; None for those that the cell does not have. `like` tells the dtype."""
        self.kept = peepholes, gain_c, bias_c
        if real is float:
            self.f32.peepholes = NULL if peepholes is None else &peepholes[0]
            self.f32.gain_c = NULL if gain_c is None else &gain_c[0]
            self.f32.bias_c = NULL if bias_c is None else &bias_c[0]
        else:
            self.f64.peepholes = NULL if peepholes is None else &peepholes[0]
            self.f64.gain_c = NULL if gain_c is None else &gain_c[0]
            self.f64.bias_c = NULL if bias_c is None else &bias_c[0]


cdef inline void _cell_forward(
    Cell cell, real* h, real* c, real* z, const real* c_prev, real* scratch,
    Py_ssize_t rows, Py_ssize_t hidden, Py_ssize_t ld_h,
) noexcept nogil:
    if real is float:
        isa.f32.variant_forward(h, c, z, c_prev, scratch, rows, hidden, ld_h, &cell.f32)
    else:
        isa.f64.variant_forward(h, c, z, c_prev, scratch, rows, hidden, ld_h, &cell.f64)


cdef inline void _cell_backward(
    Cell cell, real* z, real* d_c, const real* d_h, const real* c_prev, real* sums, real* scratch,
    Py_ssize_t rows, Py_ssize_t hidden,
) noexcept nogil:
    if real is float:
        isa.f32.variant_backward(z, d_c, d_h, c_prev, sums, scratch, rows, hidden, &cell.f32)
    else:
        isa.f64.variant_backward(z, d_c, d_h, c_prev, sums, scratch, rows, hidden, &cell.f64)


# --- pieces of a step ----------------------------------------------------------------------------

cdef inline void _product(
    real* out, Py_ssize_t ld_out, const real* a, Py_ssize_t ld_a, const real* weight,
    bint transposed, Py_ssize_t rows, Py_ssize_t inner, Py_ssize_t columns, bint accumulate,
    bint packed,
) noexcept nogil:
    """out = a·W, or added to it; W (inner, columns), (columns, inner) if transposed, or panels."""
    if rows == 0:
        return
    if packed:
        multiply_packed(out, ld_out, out if accumulate else NULL, ld_out, a, ld_a, weight,
                        rows, inner, columns)
    else:
        gemm(out, a, weight, False, transposed, rows, columns, inner, ld_out, ld_a,
             inner if transposed else columns, accumulate)


cdef inline void _hold(
    real* new, const real* old, Py_ssize_t ld_new, const unsigned char* held, double share,
    Py_ssize_t rows, Py_ssize_t width,
) noexcept nogil:
    """Zoneout: new = old where a unit is held, or, without a mask, the expectation of that."""
    cdef Py_ssize_t _row, k
    cdef real keep = <real>share, take = <real>(1 - share)
    for _row in range(rows):
        if held is not NULL:
            for k in range(width):
                if held[k]:
                    new[k] = old[k]
            held += width
        else:
            for k in range(width):
                new[k] = keep * old[k] + take * new[k]
        new += ld_new
        old += width


cdef inline void _hold_back(
    real* d_old, real* d_new, const unsigned char* held, double share,
    Py_ssize_t rows, Py_ssize_t width,
) noexcept nogil:
    """Share dL/d(what _hold made) out: it comes in d_new, and d_old is written."""
    cdef Py_ssize_t k
    cdef real keep = <real>share, take = <real>(1 - share)
    for k in range(rows * width):
        if held is not NULL:
            d_old[k] = d_new[k] if held[k] else 0
            d_new[k] = 0 if held[k] else d_new[k]
        else:
            d_old[k] = keep * d_new[k]
            d_new[k] = take * d_new[k]


cdef inline void _multiply(
    real* out, const real* a, const real* b, Py_ssize_t size
) noexcept nogil:
    cdef Py_ssize_t k
    for k in range(size):
        out[k] = a[k] * b[k]


cdef inline void _add(real* out, const real* a, Py_ssize_t size) noexcept nogil:
    cdef Py_ssize_t k
    for k in range(size):
        out[k] += a[k]


cdef inline void _copy_rows(
    real* out, Py_ssize_t ld_out, const real* rows, Py_ssize_t ld_rows, Py_ssize_t count,
    Py_ssize_t width,
) noexcept nogil:
    cdef Py_ssize_t row
    for row in range(count):
        memcpy(out + row * ld_out, rows + row * ld_rows, width * sizeof(real))


cdef void _scale_and_shift(
    real* z, const real* normal, const real* gain, const real* bias, Py_ssize_t rows,
    Py_ssize_t width, bint accumulate,
) noexcept nogil:
    """z = gain * normal + bias, or added to it; no bias for NULL."""
    cdef Py_ssize_t _row, k
    cdef real y
    for _row in range(rows):
        for k in range(width):
            y = gain[k] * normal[k]
            if bias is not NULL:
                y = y + bias[k]
            z[k] = z[k] + y if accumulate else y
        z += width
        normal += width


# --- forward -------------------------------------------------------------------------------------

cdef void _forward_block(
    Cell cell, real[:, :] h, real[:, ::1] c, real[:, ::1] m, real[:, ::1] z,
    real[:, ::1] normal, real[::1] scale, real[:, ::1] h_n, real[:, ::1] c_n,
    const real[::1] weight_hh, const real[::1] weight_hr,
    const real[::1] gain_hh, const real[::1] bias_hh,
    const real[:, ::1] drop_h, const unsigned char[:, ::1] held_c,
    const unsigned char[:, ::1] held_h, real[:, ::1] dropped_h, real[::1] scratch,
    const Py_ssize_t[::1] offsets, Py_ssize_t first_step, Py_ssize_t last_step,
    Py_ssize_t first, Py_ssize_t last, bint backwards, bint keep, bint packed,
) noexcept nogil:
    """The steps of a run of them, for the sequences [first, last)."""
    cdef uint64_t mode = fastlstm_flush_begin()
    cdef Py_ssize_t hidden = c_n.shape[1], width = h_n.shape[1], gates = 4 * hidden
    cdef Py_ssize_t ld_h = h.strides[0] // <Py_ssize_t>sizeof(real)
    cdef Py_ssize_t i, t, rows, row, kept, row_z
    cdef const real* h_prev
    for i in range(last_step - first_step):
        t = last_step - 1 - i if backwards else first_step + i
        rows = alive(offsets, t, first, last)
        if rows == 0:
            continue
        row = offsets[t] + first
        row_z = row - offsets[first_step]
        kept = row if keep else first    # row of what is kept for backward
        h_prev = &h_n[first, 0]
        if drop_h is not None:
            _multiply(&dropped_h[kept, 0], h_prev, &drop_h[first, 0], rows * width)
            h_prev = &dropped_h[kept, 0]
        if gain_hh is not None:
            _product(&normal[kept, 0], gates, h_prev, width, &weight_hh[0], True, rows, width,
                     gates, False, packed)
            normalize_rows(&normal[kept, 0], &scale[kept], &normal[kept, 0], rows, gates)
            _scale_and_shift(&z[row_z, 0], &normal[kept, 0], &gain_hh[0],
                             &bias_hh[0] if bias_hh is not None else NULL, rows, gates, True)
        else:
            _product(&z[row_z, 0], gates, h_prev, width, &weight_hh[0], True, rows, width, gates,
                     True, packed)
        if weight_hr is None:
            _cell_forward(cell, &h[row, 0], &c[kept, 0], &z[row_z, 0], &c_n[first, 0],
                          &scratch[0], rows, hidden, ld_h)
        else:
            _cell_forward(cell, &m[kept, 0], &c[kept, 0], &z[row_z, 0], &c_n[first, 0],
                          &scratch[0], rows, hidden, hidden)
            _product(&h[row, 0], ld_h, &m[kept, 0], hidden, &weight_hr[0], True, rows, hidden,
                     width, False, packed)
        if held_c is not None or cell.zoneout_c > 0:
            _hold(&c[kept, 0], &c_n[first, 0], hidden,
                  &held_c[row, 0] if held_c is not None else NULL, cell.zoneout_c, rows, hidden)
        if held_h is not None or cell.zoneout_h > 0:
            _hold(&h[row, 0], &h_n[first, 0], ld_h,
                  &held_h[row, 0] if held_h is not None else NULL, cell.zoneout_h, rows, width)
        _copy_rows(&h_n[first, 0], width, &h[row, 0], ld_h, rows, width)
        _copy_rows(&c_n[first, 0], hidden, &c[kept, 0], hidden, rows, hidden)
    fastlstm_flush_end(mode)


def variant_forward(
    Cell cell,
    real[:, :] h,                        # OUT (N, P), unit stride along P; P = H if not projected
    real[:, ::1] c,                      # OUT (N, H) if keep, else scratch (B, H)
    real[:, ::1] m,                      # OUT (N, H), or scratch (B, H): h before projection
    real[:, ::1] z,                      # IN  what x gives, rows of these steps; OUT as kept
    real[:, ::1] normal,                 # OUT (N, 4H), or scratch (B, 4H): h·W_hhᵀ, normalised
    real[::1] scale,                     # OUT (N,), or scratch (B,)
    real[:, ::1] h_n,                    # IN/OUT (B, P) state
    real[:, ::1] c_n,                    # IN/OUT (B, H)
    const real[::1] weight_hh,           # IN  (4H, P), or panels of its transpose
    const real[::1] weight_hr,           # IN  (P, H), or panels of its transpose; or None
    const real[::1] gain_hh,             # IN  (4H,) if normalised
    const real[::1] bias_hh,             # IN  (4H,) if normalised, and with biases
    const real[:, ::1] drop_h,           # IN  (B, P) what h_{t-1} is multiplied with; or None
    const unsigned char[:, ::1] held_c,  # IN  (N, H) which units zoneout holds; or None
    const unsigned char[:, ::1] held_h,  # IN  (N, P)
    real[:, ::1] dropped_h,              # OUT (N, P), or scratch (B, P): h_{t-1} with drop_h
    real[:, ::1] scratch,                # (threads, SCRATCH * H)
    const Py_ssize_t[::1] offsets,       # IN  (T + 1,)
    Py_ssize_t first_step, Py_ssize_t last_step,
    const Py_ssize_t[::1] blocks,        # IN  boundaries of blocks of sequences, one a thread
    bint backwards,
    bint keep,
    bint packed,
):
    """Run the steps [first_step, last_step) of one layer in one direction, from h_n and c_n on."""
    cdef Py_ssize_t threads = blocks.shape[0] - 1
    cdef Py_ssize_t team, k
    with nogil:
        if threads == 1:
            _forward_block(cell, h, c, m, z, normal, scale, h_n, c_n, weight_hh, weight_hr,
                           gain_hh, bias_hh, drop_h, held_c, held_h, dropped_h, scratch[0],
                           offsets, first_step, last_step, blocks[0], blocks[1], backwards, keep,
                           packed)
        else:
            with parallel(num_threads=threads):
                k, team = team_member(), team_size()
                _forward_block(cell, h, c, m, z, normal, scale, h_n, c_n, weight_hh, weight_hr,
                               gain_hh, bias_hh, drop_h, held_c, held_h, dropped_h, scratch[k],
                               offsets, first_step, last_step, blocks[threads * k // team],
                               blocks[threads * (k + 1) // team], backwards, keep, packed)


# --- backward ------------------------------------------------------------------------------------

cdef void _backward_block(
    Cell cell, real[:, ::1] z, real[:, ::1] d_raw, real[:, ::1] d_projected, real[:, ::1] sums,
    real[:, ::1] d_h, real[:, ::1] d_c, const real[:, :] d_output, const real[:, ::1] c,
    const real[:, ::1] c_0, const real[:, ::1] normal, const real[::1] scale,
    const real[::1] weight_hh, const real[::1] weight_hr, const real[::1] gain_hh,
    const real[:, ::1] drop_h, const unsigned char[:, ::1] held_c,
    const unsigned char[:, ::1] held_h, real[:, ::1] d_m, real[:, ::1] c_prev,
    real[:, ::1] past_h, real[:, ::1] past_c, real[::1] scratch,
    const Py_ssize_t[::1] offsets, Py_ssize_t first, Py_ssize_t last, bint backwards, bint packed,
) noexcept nogil:
    """BPTT of the sequences [first, last); row b of d_h and d_c as in time_loop.pyx."""
    cdef uint64_t mode = fastlstm_flush_begin()
    cdef Py_ssize_t hidden = d_c.shape[1], width = d_h.shape[1], gates = 4 * hidden
    cdef Py_ssize_t steps = offsets.shape[0] - 1, step = -1 if backwards else 1
    cdef Py_ssize_t i, t, b, rows, row, entered
    cdef bint holds_c = held_c is not None or cell.zoneout_c > 0
    cdef bint holds_h = held_h is not None or cell.zoneout_h > 0
    cdef real* d_new
    cdef const real* d_gates
    for i in range(steps):
        t = i if backwards else steps - 1 - i
        rows = alive(offsets, t, first, last)
        if rows == 0:
            continue
        row = offsets[t] + first
        d_new = &d_h[first, 0]
        for b in range(rows):
            _add(d_new + b * width, &d_output[row + b, 0], width)
        if holds_h:
            _hold_back(&past_h[first, 0], d_new, &held_h[row, 0] if held_h is not None else NULL,
                       cell.zoneout_h, rows, width)
        if holds_c:
            _hold_back(&past_c[first, 0], &d_c[first, 0],
                       &held_c[row, 0] if held_c is not None else NULL, cell.zoneout_c, rows,
                       hidden)
        if weight_hr is not None:
            memcpy(&d_projected[row, 0], d_new, rows * width * sizeof(real))
            _product(&d_m[first, 0], hidden, d_new, width, &weight_hr[0], False, rows, width,
                     hidden, False, packed)
            d_new = &d_m[first, 0]
        # c before the step: of the step before, or of the beginning for sequences that enter.
        entered = min(rows, alive(offsets, t - step, first, last))
        if entered > 0:
            memcpy(&c_prev[first, 0], &c[offsets[t - step] + first, 0],
                   entered * hidden * sizeof(real))
        if entered < rows:
            memcpy(&c_prev[first + entered, 0], &c_0[first + entered, 0],
                   (rows - entered) * hidden * sizeof(real))
        _cell_backward(cell, &z[row, 0], &d_c[first, 0], d_new, &c_prev[first, 0],
                       &sums[row, 0] if sums is not None else NULL, &scratch[0], rows, hidden)
        d_gates = &z[row, 0]
        if gain_hh is not None:
            normalize_rows_back(&d_raw[row, 0], d_gates, &gain_hh[0], &normal[row, 0],
                                &scale[row], rows, gates)
            d_gates = &d_raw[row, 0]
        _product(&d_h[first, 0], width, d_gates, gates, &weight_hh[0], False, rows, gates, width,
                 False, packed)
        if drop_h is not None:
            _multiply(&d_h[first, 0], &d_h[first, 0], &drop_h[first, 0], rows * width)
        if holds_h:
            _add(&d_h[first, 0], &past_h[first, 0], rows * width)
        if holds_c:
            _add(&d_c[first, 0], &past_c[first, 0], rows * hidden)
    fastlstm_flush_end(mode)


def variant_backward(
    Cell cell,
    real[:, ::1] z,                      # IN  as kept; OUT gradients of pre-activations (N, 4H)
    real[:, ::1] d_raw,                  # OUT (N, 4H) those of h·W_hhᵀ, if normalised
    real[:, ::1] d_projected,            # OUT (N, P) those of h, if projected
    real[:, ::1] sums,                   # OUT (N, 5H) as csrc/kernels.h has them; or None
    real[:, ::1] d_h,                    # IN  dL/dh_n, OUT dL/dh_0 (B, P)
    real[:, ::1] d_c,                    # IN  dL/dc_n, OUT dL/dc_0 (B, H)
    const real[:, :] d_output,           # IN  (N, P), unit stride along P
    const real[:, ::1] c,                # IN  (N, H)
    const real[:, ::1] c_0,              # IN  (B, H)
    const real[:, ::1] normal,           # IN  (N, 4H) if normalised
    const real[::1] scale,               # IN  (N,) if normalised
    const real[::1] weight_hh,           # IN  (4H, P), or panels
    const real[::1] weight_hr,           # IN  (P, H), or panels; or None
    const real[::1] gain_hh,             # IN  (4H,) if normalised
    const real[:, ::1] drop_h,           # IN  as in forward
    const unsigned char[:, ::1] held_c,
    const unsigned char[:, ::1] held_h,
    real[:, ::1] d_m,                    # scratch (B, H) if projected
    real[:, ::1] c_prev,                 # scratch (B, H)
    real[:, ::1] past_h,                 # scratch (B, P) with zoneout
    real[:, ::1] past_c,                 # scratch (B, H) with zoneout
    real[:, ::1] scratch,                # (threads, SCRATCH * H)
    const Py_ssize_t[::1] offsets,       # IN  (T + 1,)
    const Py_ssize_t[::1] blocks,        # IN  boundaries of blocks of sequences, one a thread
    bint backwards,
    bint packed,
):
    """Carry gradients back through all steps of one layer in one direction."""
    cdef Py_ssize_t threads = blocks.shape[0] - 1
    cdef Py_ssize_t team, k
    with nogil:
        if threads == 1:
            _backward_block(cell, z, d_raw, d_projected, sums, d_h, d_c, d_output, c, c_0, normal,
                            scale, weight_hh, weight_hr, gain_hh, drop_h, held_c, held_h, d_m,
                            c_prev, past_h, past_c, scratch[0], offsets, blocks[0], blocks[1],
                            backwards, packed)
        else:
            with parallel(num_threads=threads):
                k, team = team_member(), team_size()
                _backward_block(cell, z, d_raw, d_projected, sums, d_h, d_c, d_output, c, c_0,
                                normal, scale, weight_hh, weight_hr, gain_hh, drop_h, held_c,
                                held_h, d_m, c_prev, past_h, past_c, scratch[k], offsets,
                                blocks[threads * k // team], blocks[threads * (k + 1) // team],
                                backwards, packed)


# --- layer normalisation of what x gives ---------------------------------------------------------

def normalize(
    real[:, ::1] z,                      # OUT (n, 4H): gain * normal + bias
    real[:, ::1] normal,                 # IN  x·W_ihᵀ; OUT normalised
    real[::1] scale,                     # OUT (n,)
    const real[::1] gain,                # IN  (4H,)
    const real[::1] bias,                # IN  (4H,); or None
):
    """Normalise each row, and scale and shift it."""
    cdef Py_ssize_t rows = normal.shape[0], width = normal.shape[1]
    if rows == 0:
        return
    with nogil:
        normalize_rows(&normal[0, 0], &scale[0], &normal[0, 0], rows, width)
        _scale_and_shift(&z[0, 0], &normal[0, 0], &gain[0], &bias[0] if bias is not None else NULL,
                         rows, width, False)


def normalize_back(
    real[:, ::1] d_raw,                  # OUT (n, 4H): dL/d(x·W_ihᵀ)
    const real[:, ::1] d_z,              # IN  (n, 4H)
    const real[::1] gain,                # IN  (4H,)
    const real[:, ::1] normal,           # IN  (n, 4H)
    const real[::1] scale,               # IN  (n,)
):
    """The gradient of `normalize`."""
    if d_z.shape[0]:
        with nogil:
            normalize_rows_back(&d_raw[0, 0], &d_z[0, 0], &gain[0], &normal[0, 0], &scale[0],
                                d_z.shape[0], d_z.shape[1])
