"""Steps of the optimisers, each in one pass over its arrays, and the sum of squares of a gradient.

An element's result depends on nothing else, and sums have one fixed order, so the number of threads
does not show. Subnormal numbers count as zero in a step: a moment that fades away would else stay
one, and each operation on it take a hundred times as long.
"""

from cython.parallel cimport prange
from libc.math cimport sqrt, sqrtf
from libc.stdint cimport uint64_t

from fastlstm._core.blas cimport real
from fastlstm._core.threads cimport fastlstm_flush_begin, fastlstm_flush_end

cdef enum:
    LANES = 8  # sums of squares side by side
    RUN = 4096  # elements whose squares are added up apart


cdef inline real _root(real x) noexcept nogil:
    if real is float:
        return sqrtf(x)
    else:
        return sqrt(x)


def sgd(
    real[::1] weight,                    # IN/OUT (n,)
    const real[::1] grad,                # IN  (n,)
    real[::1] moment,                    # IN/OUT (n,), or None
    double lr,
    double momentum,
    bint nesterov,
    double weight_decay,
    int threads,
):
    """A step of fastlstm.optim.SGD; n >= 1."""
    cdef Py_ssize_t n = weight.shape[0]
    cdef real* m = NULL if moment is None else &moment[0]
    cdef int parts = <int>min(threads, n)
    cdef int part
    with nogil:
        if parts == 1:
            _sgd_part(&weight[0], &grad[0], m, <real>lr, <real>momentum, nesterov,
                      <real>weight_decay, 0, n)
        else:
            for part in prange(parts, num_threads=parts, schedule="static"):
                _sgd_part(&weight[0], &grad[0], m, <real>lr, <real>momentum, nesterov,
                          <real>weight_decay, n * part // parts, n * (part + 1) // parts)


cdef void _sgd_part(
    real* weight, const real* grad, real* moment, real lr, real momentum, bint nesterov,
    real weight_decay, Py_ssize_t first, Py_ssize_t last,
) noexcept nogil:
    cdef uint64_t mode = fastlstm_flush_begin()
    cdef Py_ssize_t k
    cdef real g
    for k in range(first, last):
        g = grad[k] + weight_decay * weight[k] if weight_decay != 0 else grad[k]
        if moment is not NULL:
            moment[k] = momentum * moment[k] + g
            g = g + momentum * moment[k] if nesterov else moment[k]
        weight[k] -= lr * g
    fastlstm_flush_end(mode)


def adam(
    real[::1] weight,                    # IN/OUT (n,)
    const real[::1] grad,                # IN  (n,)
    real[::1] exp_avg,                   # IN/OUT (n,)
    real[::1] exp_avg_sq,                # IN/OUT (n,)
    double rate,                         # lr / (1 - beta_1^t)
    double root,                         # sqrt(1 - beta_2^t)
    double beta_1,
    double beta_2,
    double eps,
    double weight_decay,                 # of what is added to the gradient
    double kept,                         # what the weight is multiplied by before the step
    int threads,
):
    """A step of fastlstm.optim.Adam or AdamW; n >= 1."""
    cdef Py_ssize_t n = weight.shape[0]
    cdef int parts = <int>min(threads, n)
    cdef int part
    with nogil:
        if parts == 1:
            _adam_part(weight, grad, exp_avg, exp_avg_sq, rate, root, beta_1, beta_2, eps,
                       weight_decay, kept, 0, n)
        else:
            for part in prange(parts, num_threads=parts, schedule="static"):
                _adam_part(weight, grad, exp_avg, exp_avg_sq, rate, root, beta_1, beta_2, eps,
                           weight_decay, kept, n * part // parts, n * (part + 1) // parts)


cdef void _adam_part(
    real[::1] weight, const real[::1] grad, real[::1] exp_avg, real[::1] exp_avg_sq,
    double rate, double root, double beta_1, double beta_2, double eps, double weight_decay,
    double kept, Py_ssize_t first, Py_ssize_t last,
) noexcept nogil:
    cdef uint64_t mode = fastlstm_flush_begin()
    _adam_run(&weight[first], &grad[first], &exp_avg[first], &exp_avg_sq[first], <real>rate,
              <real>root, <real>beta_1, <real>beta_2, <real>(1 - beta_1), <real>(1 - beta_2),
              <real>eps, <real>weight_decay, <real>kept, last - first)
    fastlstm_flush_end(mode)


cdef void _adam_run(
    real* weight, const real* grad, real* exp_avg, real* exp_avg_sq, real rate, real root,
    real beta_1, real beta_2, real rest_1, real rest_2, real eps, real weight_decay, real kept,
    Py_ssize_t n,
) noexcept nogil:
    cdef Py_ssize_t k
    cdef real g
    for k in range(n):
        g = grad[k] + weight_decay * weight[k] if weight_decay != 0 else grad[k]
        # Not m + (1 - beta_1)(g - m), which loses a small gradient beside a large mean.
        exp_avg[k] = beta_1 * exp_avg[k] + rest_1 * g
        exp_avg_sq[k] = beta_2 * exp_avg_sq[k] + rest_2 * (g * g)
        weight[k] = kept * weight[k] - rate * (exp_avg[k] / (_root(exp_avg_sq[k]) / root + eps))


def sum_of_squares(const real[::1] a) -> float:
    """In float64."""
    cdef double total
    with nogil:
        total = _sum_of_squares(&a[0], a.shape[0]) if a.shape[0] else 0
    return total


cdef double _sum_of_squares(const real* a, Py_ssize_t n) noexcept nogil:
    cdef double total = 0
    cdef Py_ssize_t run
    for run in range((n + RUN - 1) // RUN):
        total += _run_of_squares(a + run * RUN, min(RUN, n - run * RUN))
    return total


cdef double _run_of_squares(const real* a, Py_ssize_t n) noexcept nogil:
    cdef double[LANES] sums
    cdef double total = 0
    cdef Py_ssize_t block, lane, k
    for lane in range(LANES):
        sums[lane] = 0
    for block in range(n // LANES):
        for lane in range(LANES):
            sums[lane] += <double>a[block * LANES + lane] * <double>a[block * LANES + lane]
    for k in range(n - n % LANES, n):
        sums[0] += <double>a[k] * <double>a[k]
    for lane in range(LANES):
        total += sums[lane]
    return total
