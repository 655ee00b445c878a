"""Products, sums and softmax for the rest of the network, each summed in one fixed order.

In products subnormal numbers count as zero, as they do in the time loop.
"""

from cython.parallel cimport prange
from libc.stdint cimport uint64_t
from libc.string cimport memset

from fastlstm._core.blas cimport gemm, real
from fastlstm._core.kernels cimport isa, multiply, multiply_packed, softmax
from fastlstm._core.threads cimport fastlstm_flush_begin, fastlstm_flush_end

cdef enum:
    RUN = 256  # rows that sum_rows adds up apart
    LANES = 8  # sums that a row's mean is added up in
    FEW_ROWS = 120  # for a thread, of which each would read all of the panels for itself


def matmul(
    real[:, ::1] out,                    # OUT (m, n)
    const real[:, ::1] a,                # IN  (m, k), or (k, m) if transpose_a
    const real[:, ::1] b,                # IN  (k, n), or (n, k) if transpose_b
    bint transpose_a,
    bint transpose_b,
    bint accumulate,
    int threads,
    bint packed,
):
    """out = op(A)·op(B), or out += op(A)·op(B); rows of the output are shared out to threads."""
    cdef Py_ssize_t m = out.shape[0]
    cdef Py_ssize_t k = a.shape[0] if transpose_a else a.shape[1]
    cdef int parts = <int>min(threads, m)
    cdef int part
    with nogil:
        if parts == 1:
            _matmul_rows(out, a, b, transpose_a, transpose_b, accumulate, 0, m, k, packed)
        else:
            for part in prange(parts, num_threads=parts, schedule="static"):
                _matmul_rows(out, a, b, transpose_a, transpose_b, accumulate,
                             m * part // parts, m * (part + 1) // parts, k, packed)


cdef void _matmul_rows(
    real[:, ::1] out, const real[:, ::1] a, const real[:, ::1] b,
    bint transpose_a, bint transpose_b, bint accumulate,
    Py_ssize_t row, Py_ssize_t end, Py_ssize_t k, bint packed,
) noexcept nogil:
    cdef uint64_t mode = fastlstm_flush_begin()
    cdef const real* a_rows = &a[0, row] if transpose_a else &a[row, 0]
    if packed:
        multiply(&out[row, 0], out.shape[1], a_rows, a.shape[1], transpose_a, &b[0, 0],
                 b.shape[1], transpose_b, end - row, k, out.shape[1], accumulate)
    else:
        gemm(&out[row, 0], a_rows, &b[0, 0], transpose_a, transpose_b, end - row, out.shape[1], k,
             out.shape[1], a.shape[1], b.shape[1], accumulate)
    fastlstm_flush_end(mode)


def matmul_batch(
    real[:, :, ::1] out,                 # OUT (batch, m, n)
    const real[:, :, ::1] a,             # IN  (batch, m, k), or (batch, k, m) if transpose_a
    const real[:, :, ::1] b,             # IN  (batch, k, n), or (batch, n, k) if transpose_b
    bint transpose_a,
    bint transpose_b,
    bint accumulate,
    int threads,
    bint packed,
):
    """out[i] = op(A[i])·op(B[i]), or out[i] += it, for each i; these are shared out to threads."""
    cdef Py_ssize_t k = a.shape[1] if transpose_a else a.shape[2]
    cdef Py_ssize_t i
    with nogil:
        if threads == 1:
            for i in range(out.shape[0]):
                _matmul_rows(out[i], a[i], b[i], transpose_a, transpose_b, accumulate,
                             0, out.shape[1], k, packed)
        else:
            for i in prange(out.shape[0], num_threads=threads, schedule="static"):
                _matmul_rows(out[i], a[i], b[i], transpose_a, transpose_b, accumulate,
                             0, out.shape[1], k, packed)


def matmul_panels(
    real[:, ::1] out,                    # OUT (m, n)
    const real[::1] initial,             # IN  (n,), or None for zeros
    const real[:, ::1] a,                # IN  (m, k)
    const real[::1] panels,              # IN  of B (k, n), see kernels.h
    bint accumulate,
    int threads,
):
    """out = initial + A·B, or out += A·B; rows are shared out to threads, or few rows' panels."""
    cdef Py_ssize_t m = out.shape[0], n = out.shape[1]
    cdef Py_ssize_t width = 4 * (isa.f32.vector if real is float else isa.f64.vector)
    cdef bint by_panels = m < threads * FEW_ROWS and n > width
    cdef Py_ssize_t units = (n + width - 1) // width if by_panels else m
    cdef const real* start = NULL if initial is None else &initial[0]
    cdef int parts = <int>min(threads, units)
    cdef int part
    cdef Py_ssize_t first, last
    with nogil:
        if parts == 1:
            _matmul_panels_part(out, start, a, panels, accumulate, 0, m, 0, n)
        else:
            for part in prange(parts, num_threads=parts, schedule="static"):
                first, last = units * part // parts, units * (part + 1) // parts
                if by_panels:
                    _matmul_panels_part(out, start, a, panels, accumulate, 0, m, first * width,
                                        min(last * width, n))
                else:
                    _matmul_panels_part(out, start, a, panels, accumulate, first, last, 0, n)


cdef void _matmul_panels_part(
    real[:, ::1] out, const real* initial, const real[:, ::1] a, const real[::1] panels,
    bint accumulate, Py_ssize_t row, Py_ssize_t end, Py_ssize_t first, Py_ssize_t last,
) noexcept nogil:
    cdef uint64_t mode = fastlstm_flush_begin()
    cdef Py_ssize_t inner = a.shape[1], ld_initial = 0
    if accumulate:
        initial, ld_initial = &out[row, first], out.shape[1]
    elif initial is not NULL:
        initial = initial + first
    multiply_packed(&out[row, first], out.shape[1], initial, ld_initial,
                    &a[row, 0], inner, &panels[first * inner], end - row, inner, last - first)
    fastlstm_flush_end(mode)


def sum_rows(
    real[::1] out,                       # OUT (columns,)
    real[::1] partial,                   # scratch (columns,)
    const real[:, ::1] a,                # IN  (rows, columns)
    bint accumulate,
    int threads,
):
    """out = the sum over the rows of `a`, or out += it; columns are shared out to threads.

    Runs of rows are summed apart, so that a sum of very many rows does not drown the next one in
    its own rounding.
    """
    cdef Py_ssize_t columns = a.shape[1]
    cdef int parts = <int>min(threads, columns)
    cdef int part
    with nogil:
        if not accumulate:
            out[:] = 0
        if parts == 1:
            _sum_columns(out, partial, a, 0, columns)
        else:
            for part in prange(parts, num_threads=parts, schedule="static"):
                _sum_columns(out, partial, a, columns * part // parts,
                             columns * (part + 1) // parts)


cdef void _sum_columns(
    real[::1] out, real[::1] partial, const real[:, ::1] a, Py_ssize_t first, Py_ssize_t last,
) noexcept nogil:
    cdef Py_ssize_t run, row, column
    for run in range((a.shape[0] + RUN - 1) // RUN):
        for column in range(first, last):
            partial[column] = 0
        for row in range(run * RUN, min((run + 1) * RUN, a.shape[0])):
            for column in range(first, last):
                partial[column] += a[row, column]
        for column in range(first, last):
            out[column] += partial[column]


def scatter_add_rows(real[:, ::1] out, const long long[::1] ids, const real[:, ::1] rows):
    """out[ids[n]] += rows[n], n in order."""
    cdef Py_ssize_t n, column
    with nogil:
        for n in range(ids.shape[0]):
            for column in range(rows.shape[1]):
                out[ids[n], column] += rows[n, column]


def softmax_batch(
    real[:, :, ::1] out,                 # OUT (batch, rows, n)
    const real[:, :, ::1] x,             # IN  (batch, rows, n)
    const long long[::1] lengths,        # IN  (batch,), each from 0 to n
    int threads,
):
    """Softmax over the first lengths[i] elements of each row of x[i]; the others become 0."""
    cdef Py_ssize_t i
    with nogil:
        if threads == 1:
            for i in range(out.shape[0]):
                _softmax_rows(out[i], x[i], lengths[i])
        else:
            for i in prange(out.shape[0], num_threads=threads, schedule="static"):
                _softmax_rows(out[i], x[i], lengths[i])


cdef void _softmax_rows(real[:, ::1] out, const real[:, ::1] x, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t row
    cdef real most
    for row in range(out.shape[0]):
        if n:
            softmax(&out[row, 0], &most, &x[row, 0], n, 1.0)
        if n < out.shape[1]:
            memset(&out[row, n], 0, (out.shape[1] - n) * sizeof(real))


def cross_entropy(
    real[:, ::1] d_logits,               # OUT (rows, classes)
    double[::1] sums,                    # OUT (rows,)
    double[::1] shifted,                 # OUT (rows,)
    const real[:, ::1] logits,           # IN  (rows, classes)
    const long long[::1] targets,        # IN  (rows,)
    long long ignored,                   # target of a row that does not count
    double counted,                      # rows that do
    double smoothing,                    # part of the target that is spread over all classes
    int threads,
):
    """The gradient of softmax cross-entropy; a row's loss is log(sums) - shifted.

    Of a row that does not count, the logits are not read, and gradient and loss are 0.
    """
    cdef Py_ssize_t rows = logits.shape[0]
    cdef int parts = <int>min(threads, rows)
    cdef int part
    with nogil:
        if parts == 1:
            _cross_entropy_rows(d_logits, sums, shifted, logits, targets, ignored, counted,
                                smoothing, 0, rows)
        else:
            for part in prange(parts, num_threads=parts, schedule="static"):
                _cross_entropy_rows(d_logits, sums, shifted, logits, targets, ignored, counted,
                                    smoothing, rows * part // parts, rows * (part + 1) // parts)


cdef void _cross_entropy_rows(
    real[:, ::1] d_logits, double[::1] sums, double[::1] shifted,
    const real[:, ::1] logits, const long long[::1] targets,
    long long ignored, double counted, double smoothing, Py_ssize_t row, Py_ssize_t end,
) noexcept nogil:
    cdef Py_ssize_t classes = logits.shape[1], target
    cdef real most
    for row in range(row, end):
        if targets[row] == ignored:
            memset(&d_logits[row, 0], 0, classes * sizeof(real))
            sums[row], shifted[row] = 1, 0
        else:
            target = targets[row]
            sums[row] = softmax(&d_logits[row, 0], &most, &logits[row, 0], classes, 1 / counted)
            shifted[row] = (1 - smoothing) * (<double>logits[row, target] - most)
            d_logits[row, target] -= <real>((1 - smoothing) / counted)
            if smoothing:
                shifted[row] += smoothing * _spread(
                    &d_logits[row, 0], &logits[row, 0], most, classes,
                    <real>(smoothing / counted / classes))


cdef double _spread(
    real* d_logits, const real* logits, real most, Py_ssize_t classes, real share,
) noexcept nogil:
    """Take a share off each class's gradient; return the mean of logits - most."""
    cdef double[LANES] sums
    cdef double total = 0
    cdef Py_ssize_t k, lane, block, whole = classes - classes % LANES
    for lane in range(LANES):
        sums[lane] = 0
    for block in range(classes // LANES):
        for lane in range(LANES):
            k = block * LANES + lane
            sums[lane] += <double>logits[k] - most
            d_logits[k] -= share
    for k in range(whole, classes):
        sums[0] += <double>logits[k] - most
        d_logits[k] -= share
    for lane in range(LANES):
        total += sums[lane]
    return total / classes
