"""The one place that calls BLAS: row-major matrix products over scipy.linalg.cython_blas.

SciPy's BLAS counts in 32-bit integers in the wheels on PyPI and may count in 64-bit ones in
builds from source, whose cython_blas then has another C signature. A plain cimport would fix the
width when *we* are compiled and refuse to load beside the other kind; so the routines are taken at
import from the capsules that a cimport reads too, and a capsule's name, which is the C signature,
tells the width. One wheel serves both.
"""

from cpython.pycapsule cimport PyCapsule_GetName, PyCapsule_GetPointer
from libc.stdint cimport int64_t

import scipy.linalg.cython_blas as _cython_blas

ctypedef void (*gemm_f32)(char*, char*, int*, int*, int*, float*, float*, int*,
                          float*, int*, float*, float*, int*) noexcept nogil
ctypedef void (*gemm_f64)(char*, char*, int*, int*, int*, double*, double*, int*,
                          double*, int*, double*, double*, int*) noexcept nogil
ctypedef void (*gemm_f32_wide)(char*, char*, int64_t*, int64_t*, int64_t*, float*, float*, int64_t*,
                               float*, int64_t*, float*, float*, int64_t*) noexcept nogil
ctypedef void (*gemm_f64_wide)(char*, char*, int64_t*, int64_t*, int64_t*, double*, double*,
                               int64_t*, double*, int64_t*, double*, double*,
                               int64_t*) noexcept nogil
ctypedef void (*gemv_f32)(char*, int*, int*, float*, float*, int*, float*, int*,
                          float*, float*, int*) noexcept nogil
ctypedef void (*gemv_f64)(char*, int*, int*, double*, double*, int*, double*, int*,
                          double*, double*, int*) noexcept nogil
ctypedef void (*gemv_f32_wide)(char*, int64_t*, int64_t*, float*, float*, int64_t*, float*,
                               int64_t*, float*, float*, int64_t*) noexcept nogil
ctypedef void (*gemv_f64_wide)(char*, int64_t*, int64_t*, double*, double*, int64_t*, double*,
                               int64_t*, double*, double*, int64_t*) noexcept nogil

cdef void* _sgemm
cdef void* _dgemm
cdef void* _sgemv
cdef void* _dgemv
cdef bint _wide


cdef void* _routine(str name) except NULL:
    """Address of one of SciPy's BLAS routines; notes the width of its integers on the way."""
    global _wide
    capsule = _cython_blas.__pyx_capi__[name]
    cdef const char* signature = PyCapsule_GetName(capsule)
    _wide = signature_is_wide(signature.decode())
    return PyCapsule_GetPointer(capsule, signature)


def signature_is_wide(str signature):
    """True where the integers in the C signature of a BLAS routine are 64 bits wide.

    Raises ImportError for a signature that names no integer type that we know.
    """
    arguments = signature[signature.index("(") + 1 : signature.rindex(")")].split(",")
    types = {argument.replace("*", "").strip() for argument in arguments}
    if any("int64" in kind or "long" in kind for kind in types):
        return True
    if "int" in types:
        return False
    raise ImportError(f"scipy.linalg.cython_blas has a signature unknown to fastlstm: {signature}")


_sgemm = _routine("sgemm")
_dgemm = _routine("dgemm")
_sgemv = _routine("sgemv")
_dgemv = _routine("dgemv")


# Width of the integers of SciPy's BLAS.
INTEGER_BITS = 64 if _wide else 32


cdef void gemm(
    real* c,               # OUT (m, n)
    const real* a,         # IN  (m, k), or (k, m) if transpose_a
    const real* b,         # IN  (k, n), or (n, k) if transpose_b
    bint transpose_a,
    bint transpose_b,
    Py_ssize_t m,
    Py_ssize_t n,
    Py_ssize_t k,
    Py_ssize_t ld_c,       # elements from one row to the next
    Py_ssize_t ld_a,
    Py_ssize_t ld_b,
    bint accumulate,
) noexcept nogil:
    """C = op(A)·op(B), or C += op(A)·op(B). Sizes fit BLAS's integers: the validator saw to it."""
    if m == 0 or n == 0:
        return
    if m == 1 and not transpose_a:
        _gemv(c, a, b, transpose_b, n, k, ld_b, accumulate)
    else:
        _gemm(c, a, b, transpose_a, transpose_b, m, n, k, ld_c, ld_a, ld_b, accumulate)


cdef void _gemm(
    real* c, const real* a, const real* b, bint transpose_a, bint transpose_b,
    Py_ssize_t m, Py_ssize_t n, Py_ssize_t k,
    Py_ssize_t ld_c, Py_ssize_t ld_a, Py_ssize_t ld_b, bint accumulate,
) noexcept nogil:
    # BLAS is column-major: a row-major C = A·B is its C' = B'·A', so the operands change places.
    cdef char op_a = b"T" if transpose_a else b"N"
    cdef char op_b = b"T" if transpose_b else b"N"
    cdef real one = 1
    cdef real beta = 1 if accumulate else 0
    cdef int m32 = <int>m, n32 = <int>n, k32 = <int>k
    cdef int a32 = <int>ld_a, b32 = <int>ld_b, c32 = <int>ld_c
    cdef int64_t m64 = m, n64 = n, k64 = k, a64 = ld_a, b64 = ld_b, c64 = ld_c
    if real is float:
        if _wide:
            (<gemm_f32_wide>_sgemm)(&op_b, &op_a, &n64, &m64, &k64, &one, <real*>b, &b64,
                                    <real*>a, &a64, &beta, c, &c64)
        else:
            (<gemm_f32>_sgemm)(&op_b, &op_a, &n32, &m32, &k32, &one, <real*>b, &b32,
                               <real*>a, &a32, &beta, c, &c32)
    else:
        if _wide:
            (<gemm_f64_wide>_dgemm)(&op_b, &op_a, &n64, &m64, &k64, &one, <real*>b, &b64,
                                    <real*>a, &a64, &beta, c, &c64)
        else:
            (<gemm_f64>_dgemm)(&op_b, &op_a, &n32, &m32, &k32, &one, <real*>b, &b32,
                               <real*>a, &a32, &beta, c, &c32)


cdef void _gemv(
    real* y, const real* x, const real* b, bint transpose_b,
    Py_ssize_t n, Py_ssize_t k, Py_ssize_t ld_b, bint accumulate,
) noexcept nogil:
    # One row times a matrix. OpenBLAS packs all of B for a gemm of one row; gemv only reads it.
    cdef char op = b"T" if transpose_b else b"N"
    cdef real one = 1
    cdef real beta = 1 if accumulate else 0
    cdef Py_ssize_t rows = k if transpose_b else n
    cdef Py_ssize_t columns = n if transpose_b else k
    cdef int rows32 = <int>rows, columns32 = <int>columns, b32 = <int>ld_b, step32 = 1
    cdef int64_t rows64 = rows, columns64 = columns, b64 = ld_b, step64 = 1
    if real is float:
        if _wide:
            (<gemv_f32_wide>_sgemv)(&op, &rows64, &columns64, &one, <real*>b, &b64,
                                    <real*>x, &step64, &beta, y, &step64)
        else:
            (<gemv_f32>_sgemv)(&op, &rows32, &columns32, &one, <real*>b, &b32,
                               <real*>x, &step32, &beta, y, &step32)
    else:
        if _wide:
            (<gemv_f64_wide>_dgemv)(&op, &rows64, &columns64, &one, <real*>b, &b64,
                                    <real*>x, &step64, &beta, y, &step64)
        else:
            (<gemv_f64>_dgemv)(&op, &rows32, &columns32, &one, <real*>b, &b32,
                               <real*>x, &step32, &beta, y, &step32)
