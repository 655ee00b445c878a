"""The kernels of csrc/ for Python: which set serves, how it was built, activations and packing.

kernels.pxd types them for the other compiled modules, which reach the C code through `isa` alone:
only this module is linked with it.
"""

import os

cdef extern from *:
    """
    #ifdef _OPENMP
    #define FASTLSTM_OPENMP 1
    #else
    #define FASTLSTM_OPENMP 0
    #endif
    #ifdef NDEBUG
    #define FASTLSTM_DEBUG 0
    #else
    #define FASTLSTM_DEBUG 1
    #endif
    #ifndef FASTLSTM_COMPILER
    #define FASTLSTM_COMPILER "unknown"
    #endif
    #ifndef FASTLSTM_FLAGS
    #define FASTLSTM_FLAGS ""
    #endif
    """
    int FASTLSTM_OPENMP
    int FASTLSTM_DEBUG
    const char* FASTLSTM_COMPILER
    const char* FASTLSTM_FLAGS

OPENMP = bool(FASTLSTM_OPENMP)
DEBUG = bool(FASTLSTM_DEBUG)
COMPILER = FASTLSTM_COMPILER.decode()
FLAGS = FASTLSTM_FLAGS.decode()


cdef const fastlstm_isa* _pick_isa() except NULL:
    """The kernels for this processor, or those that FASTLSTM_ISA names."""
    wanted = os.environ.get("FASTLSTM_ISA", "").strip().lower()
    encoded = wanted.encode()
    cdef const char* name = encoded
    cdef const fastlstm_isa* found = fastlstm_isa_pick(name if encoded else NULL)
    if found is NULL:
        raise ImportError(
            f"FASTLSTM_ISA={wanted}: unknown, or not supported by this processor or this build; "
            "expected avx512, avx2, neon or generic"
        )
    return found


isa = _pick_isa()
ISA = isa.name.decode()
# Elements of a vector in panels, by the size of an element; 0: no packed products, BLAS serves.
VECTOR = {4: isa.f32.vector, 8: isa.f64.vector}


def sigmoid(real[::1] out, const real[::1] x):
    """out = 1 / (1 + exp(-x))."""
    if x.shape[0]:
        if real is float:
            isa.f32.sigmoid(&out[0], &x[0], x.shape[0])
        else:
            isa.f64.sigmoid(&out[0], &x[0], x.shape[0])


def tanh(real[::1] out, const real[::1] x):
    """out = tanh(x)."""
    if x.shape[0]:
        if real is float:
            isa.f32.tanh(&out[0], &x[0], x.shape[0])
        else:
            isa.f64.tanh(&out[0], &x[0], x.shape[0])


def pack(real[::1] panels, const real[:, ::1] b, bint transpose_b):
    """Panels of b (inner, columns), or (columns, inner), for a product with it on the right."""
    cdef Py_ssize_t inner = b.shape[1] if transpose_b else b.shape[0]
    cdef Py_ssize_t columns = b.shape[0] if transpose_b else b.shape[1]
    with nogil:
        if real is float:
            isa.f32.pack(&panels[0], &b[0, 0], b.shape[1], transpose_b, inner, columns)
        else:
            isa.f64.pack(&panels[0], &b[0, 0], b.shape[1], transpose_b, inner, columns)


def pack_gates(real[::1] panels, const real[:, ::1] weight):
    """Panels of gates of weight (4H, inner), for a product with its transpose on the right."""
    cdef Py_ssize_t inner = weight.shape[1], hidden = weight.shape[0] // 4
    with nogil:
        if real is float:
            isa.f32.pack_gates(&panels[0], &weight[0, 0], inner, hidden)
        else:
            isa.f64.pack_gates(&panels[0], &weight[0, 0], inner, hidden)
