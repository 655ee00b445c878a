# The matrix path: row-major products over SciPy's BLAS. See blas.pyx.

ctypedef fused real:
    float
    double

cdef void gemm(
    real* c,
    const real* a,
    const real* b,
    bint transpose_a,
    bint transpose_b,
    Py_ssize_t m,
    Py_ssize_t n,
    Py_ssize_t k,
    Py_ssize_t ld_c,
    Py_ssize_t ld_a,
    Py_ssize_t ld_b,
    bint accumulate,
) noexcept nogil
