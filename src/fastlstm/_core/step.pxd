# One step of a layer in one direction, on either matrix path: what the time loop repeats and a
# stream does once. Raw pointers to the first row; sizes as in csrc/kernels.h. On the packed path a
# call may be for some hidden units only, [unit, unit_end); on BLAS it is for all of them. A caller
# that alternates `descending` from step to step finds more of the weights in the cache.

from libc.string cimport memcpy

from fastlstm._core.blas cimport gemm, real
from fastlstm._core.kernels cimport (
    cell_backward, cell_forward, cell_step, cell_step_back, multiply_packed,
)


cdef inline Py_ssize_t padded(Py_ssize_t unit, Py_ssize_t hidden, Py_ssize_t width) noexcept nogil:
    """Column of pre-activations, of which there are `width`, where the gates of a unit begin."""
    return width if unit == hidden else 4 * unit


cdef inline void project(
    real* pre,                           # OUT (rows, width)
    const real* x,                       # IN  (rows, I)
    const real* weight_ih,               # IN  (4H, I), or panels
    const real* bias,                    # IN  (4H,), or panels
    Py_ssize_t rows, Py_ssize_t inner, Py_ssize_t width, Py_ssize_t hidden,
    Py_ssize_t unit, Py_ssize_t unit_end, bint packed,
) noexcept nogil:
    """pre = bias + x·W_ihᵀ."""
    cdef Py_ssize_t column = padded(unit, hidden, width)
    cdef Py_ssize_t row
    if rows == 0:
        return
    if packed:
        multiply_packed(
            pre + column, width, bias + column, 0, x, inner, weight_ih + column * inner,
            rows, inner, padded(unit_end, hidden, width) - column)
        return
    for row in range(rows):
        memcpy(pre + row * width, bias, width * sizeof(real))
    gemm(pre, x, weight_ih, False, True, rows, width, inner, width, inner, inner, True)


cdef inline void step_forward(
    real* h, real* c, real* gates, real* pre, const real* h_prev, const real* c_prev,
    const real* weight_hh, Py_ssize_t rows, Py_ssize_t hidden,
    Py_ssize_t unit, Py_ssize_t unit_end, Py_ssize_t ld_h, Py_ssize_t ld_h_prev,
    bint descending, bint packed,
) noexcept nogil:
    """pre + h_{t-1}·W_hhᵀ, then the cell. NULL as h_prev is zero."""
    if packed:
        cell_step(h, c, gates, pre, c_prev, h_prev, weight_hh, rows, hidden, unit, unit_end,
                  ld_h, ld_h_prev, descending)
        return
    if h_prev is not NULL:
        gemm(pre, h_prev, weight_hh, False, True,
             rows, 4 * hidden, hidden, 4 * hidden, ld_h_prev, hidden, True)
    cell_forward(h, c, pre, c_prev, rows, hidden, ld_h)


cdef inline void step_backward(
    real* gates, real* d_c, real* d_h, const real* d_output, const real* c, const real* c_prev,
    const real* d_next, const real* weight_hh, Py_ssize_t rows, Py_ssize_t hidden,
    Py_ssize_t unit, Py_ssize_t unit_end, Py_ssize_t ld_d_output,
    bint descending, bint packed,
) noexcept nogil:
    """dh = d_gates_{t+1}·W_hh, then the cell's backward. NULL as d_next: dh waits in d_h."""
    if packed:
        cell_step_back(gates, d_c, d_h, d_output, c, c_prev, d_next, weight_hh, rows, hidden,
                       unit, unit_end, ld_d_output, descending)
        return
    if d_next is not NULL:
        carry_back(d_h, d_next, weight_hh, rows, hidden, unit, unit_end, packed)
    cell_backward(gates, d_c, d_h, d_output, c, c_prev, rows, hidden, ld_d_output)


cdef inline void carry_back(
    real* d_h, const real* d_gates, const real* weight_hh, Py_ssize_t rows, Py_ssize_t hidden,
    Py_ssize_t unit, Py_ssize_t unit_end, bint packed,
) noexcept nogil:
    """dh_{t-1} = d_gates_t·W_hh."""
    if packed:
        multiply_packed(d_h + unit, hidden, <real*>NULL, 0, d_gates, 4 * hidden,
                        weight_hh + unit * 4 * hidden, rows, 4 * hidden, unit_end - unit)
    else:
        gemm(d_h, d_gates, weight_hh, False, False,
             rows, hidden, 4 * hidden, hidden, 4 * hidden, hidden, False)
