"""A stream's state, and the one step that carries it on, called from Python.

At batch 1 a small layer's step takes a fraction of a microsecond, less than what checks in Python
take: so the checks stand here, in C, and Python's validator is called only for what they do not
take as it is. It then reports what is wrong, or returns a copy in the right layout.

- The work is that of a sequence of one step: the same functions (step.pxd) over the same panels in
  the same order, so on the packed path stepping gives the bits of one call over the sequence.
- h has two places that take turns, because a step reads all of h_{t-1} while it writes h_t; c is
  carried on in place. h of a layer is the x of the layer above it.
- Pointers lead into arrays that `kept` holds. Panels are never changed, only replaced.
- `counter` is the list whose one number is the version of the parameters. The number is replaced
  at every change, so a look at which object stands there says whether the weights are the same.
- Nothing but one array for the result is allocated in a step, and not even that with `out`.
- A short step keeps the GIL, which takes longer to give away and get back than it is worth. In any
  case `busy` refuses a second thread, and a signal handler, amid a step.
"""

from cpython.buffer cimport PyBUF_C_CONTIGUOUS, PyBUF_FORMAT, PyBUF_WRITABLE, PyBuffer_Release
from cpython.exc cimport PyErr_Clear
from libc.stdint cimport uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

import numpy as np

from fastlstm._core.blas cimport real
from fastlstm._core.step cimport project, step_forward
from fastlstm._core.threads cimport fastlstm_flush_begin, fastlstm_flush_end

cdef extern from "Python.h":
    # Here -1 is an answer, not an exception to carry on: see _look.
    int get_buffer "PyObject_GetBuffer" (object array, Py_buffer* view, int flags)

# Floating-point operations from which a step gives the GIL away: about 20 µs of them.
cdef double LEAST_WORK_WITHOUT_GIL = 1 << 20

IN_USE = (
    "stream: in use already, by another thread or below a signal handler; a stream is one user's, "
    "open one for each"
)


def stale(opened, now):
    """What is wrong with a stream whose weights have changed: their version then and now."""
    return (
        f"stream: stale, the weights changed since it was opened (version {opened} then, {now} "
        "now); reset() opens it again"
    )


cdef object empty = np.empty
cdef object ndarray = np.ndarray


ctypedef struct Weights:
    void* ih                             # (4H, I), or panels
    void* hh                             # (4H, H), or panels
    void* bias                           # (4H,), or panels


cdef void* _address(object array) except NULL:
    """Where the elements of a C-contiguous array are, for as long as somebody holds it."""
    cdef Py_buffer view
    cdef void* address
    if get_buffer(array, &view, PyBUF_C_CONTIGUOUS) < 0:
        raise BufferError("expected a C-contiguous array")
    address = view.buf
    PyBuffer_Release(&view)
    return address


cdef inline bint _look(
    object array, Py_buffer* view, int flags, char kind, Py_ssize_t rows, Py_ssize_t width
) noexcept:
    """Whether a step can use this array as it is; if so, `view` has it until it is released.

    rows = 0 stands for an array without that axis. A format of one letter means that elements are
    aligned and in native byte order.
    """
    cdef bint fits
    if type(array) is not ndarray:
        return False
    if get_buffer(array, view, flags | PyBUF_C_CONTIGUOUS | PyBUF_FORMAT) < 0:
        PyErr_Clear()
        return False
    fits = view.format[0] == kind and view.format[1] == 0
    if rows:
        fits = fits and view.ndim == 2 and view.shape[0] == rows and view.shape[1] == width
    else:
        fits = fits and view.ndim == 1 and view.shape[0] == width
    if not fits:
        PyBuffer_Release(view)
    return fits


cdef void _all_layers(Stepper self, const real* x, real* out) noexcept nogil:
    """One step of all layers: x (rows, I), out (rows, H)."""
    cdef uint64_t mode = fastlstm_flush_begin()
    cdef Py_ssize_t rows = self.rows, hidden = self.hidden
    cdef Py_ssize_t size = rows * hidden, inner = self.features
    cdef real* h = <real*>self.h + (1 - self.turn) * self.layers * size
    cdef real* h_prev = <real*>self.h + self.turn * self.layers * size
    cdef real* c = <real*>self.c
    cdef Weights* own = self.weights
    cdef Py_ssize_t _layer
    for _layer in range(self.layers):
        project(<real*>self.pre, x, <real*>own.ih, <real*>own.bias, rows, inner, self.width,
                hidden, 0, hidden, self.packed)
        step_forward(h, c, <real*>NULL, <real*>self.pre, <real*>NULL if self.zero else h_prev, c,
                     <real*>own.hh, rows, hidden, 0, hidden, hidden, hidden, self.turn, self.packed)
        x, inner = h, hidden
        h, h_prev, c, own = h + size, h_prev + size, c + size, own + 1
    # Only now, so that out may be the very array that x came in.
    memcpy(out, x, size * sizeof(real))
    self.turn, self.zero = 1 - self.turn, False
    fastlstm_flush_end(mode)


cdef class Stepper:
    """What `fastlstm.Stream` adds a face to: state, pointers, and the step."""

    cdef Weights* weights                # one for each layer
    cdef void* h                         # (2, layers, rows, H): now, and after a step, in turns
    cdef void* c                         # (layers, rows, H)
    cdef void* pre                       # (rows, width), scratch
    cdef Py_ssize_t layers, rows, features, hidden, width
    cdef Py_ssize_t axis                 # rows, or 0 where the caller leaves that axis out
    cdef char kind                       # of the elements: f or d
    cdef int turn                        # which half of h is now
    cdef bint zero                       # the state is zero, and its product is left out
    cdef bint packed, release, busy
    cdef tuple shape                     # of the result
    cdef object dtype, h_array, c_array, kept, hold
    cdef list counter
    cdef object version

    def __dealloc__(self):
        free(self.weights)

    def _open(self, list layers, h, c, pre, int features, list counter, version, hold):
        """Begin with these weights and a zero state.

        Takes (W_ih, W_hh, bias) of each layer; h (2, layers, [rows,] H) and c (layers, [rows,] H),
        both zero; scratch (rows, width). `counter[0]` is the version of the parameters, and
        `version` the one that the weights are of. `hold` is None on the packed path; otherwise it
        holds BLAS's pool at one thread.
        """
        cdef Weights* own
        cdef Py_ssize_t layer
        self._enter()
        try:
            own = <Weights*>calloc(len(layers), sizeof(Weights))
            if own is NULL:
                raise MemoryError
            self.counter = None  # not open, until all is in place
            free(self.weights)
            self.weights = own
            for layer, (ih, hh, bias) in enumerate(layers):
                own[layer] = Weights(_address(ih), _address(hh), _address(bias))
            self.h, self.c, self.pre = _address(h), _address(c), _address(pre)
            self.layers, self.axis = len(layers), c.shape[1] if c.ndim == 3 else 0
            self.rows, self.width = pre.shape
            self.features, self.hidden = features, c.shape[c.ndim - 1]
            self.dtype, self.shape = c.dtype, c.shape[1:]
            self.kind = ord(c.dtype.char)
            self.turn, self.zero, self.packed = 0, True, hold is None
            self.release = self._work() >= LEAST_WORK_WITHOUT_GIL
            self.h_array, self.c_array, self.kept, self.hold = h, c, (layers, pre), hold
            self.counter, self.version = counter, version
        finally:
            self.busy = False

    def _state(self):
        """Copies of h and c."""
        self._enter()
        try:
            return self.h_array[self.turn].copy(), self.c_array.copy()
        finally:
            self.busy = False

    def _set_state(self, h, c):
        """Go on from copies of h and c."""
        self._enter()
        try:
            self.h_array[self.turn][...] = h
            self.c_array[...] = c
            self.zero = False
        finally:
            self.busy = False

    def step(self, x_t, *, out=None):
        """Take one step and return h of the last layer after it.

        Parameters
        ----------
        x_t : ndarray (B, I), or (I,) without a batch size
            The input of this step, of the layer's dtype, in any memory layout.
        out : ndarray (B, H), or (H,), optional
            Where to write the result, so that nothing is allocated: C-contiguous and writable. It
            may be x_t itself, which has been read by then.

        Returns
        -------
        h : ndarray (B, H), or (H,)
            `out`, or a fresh array.

        Raises
        ------
        TypeError
            If an argument is no array, or has another dtype; nothing is cast silently.
        ValueError
            If a shape does not fit, or `out` cannot be written in place.
        RuntimeError
            If the weights have changed since the stream was opened or reset, or another thread is
            amid a step. Whatever the error, the state is as before.
        """
        cdef Py_buffer x, h
        self._enter()
        try:
            if not _look(x_t, &x, 0, self.kind, self.axis, self.features):
                x_t = self._take_input(x_t)
                if not _look(x_t, &x, 0, self.kind, self.axis, self.features):
                    raise BufferError("x_t: the array gives no buffer")
            try:
                if out is None:
                    out = target = empty(self.shape, self.dtype)
                else:
                    target = out
                if not _look(target, &h, PyBUF_WRITABLE, self.kind, self.axis, self.hidden):
                    target = self._take_output(out)
                    if not _look(target, &h, PyBUF_WRITABLE, self.kind, self.axis, self.hidden):
                        raise BufferError("out: the array gives no writable buffer")
                try:
                    self._run(x.buf, h.buf)
                finally:
                    PyBuffer_Release(&h)
            finally:
                PyBuffer_Release(&x)
        finally:
            self.busy = False
        return out

    cdef int _enter(self) except -1:
        if self.busy:
            raise RuntimeError(IN_USE)
        self.busy = True
        return 0

    cdef int _run(self, const void* x, void* out) except -1:
        """A step, once all is checked but whether the weights are still the same."""
        if self.counter is None:
            raise RuntimeError("stream: not open")
        if <void*>self.counter[0] is not <void*>self.version:
            raise RuntimeError(stale(self.version, self.counter[0]))
        if not self.packed:
            with self.hold:
                with nogil:
                    self._advance(x, out)
        elif self.release:
            with nogil:
                self._advance(x, out)
        else:
            self._advance(x, out)
        return 0

    cdef void _advance(self, const void* x, void* out) noexcept nogil:
        if self.kind == b"f":
            _all_layers[float](self, <const float*>x, <float*>out)
        else:
            _all_layers[double](self, <const double*>x, <double*>out)

    cdef double _work(self):
        """Floating-point operations of a step."""
        cdef double width = self.features + (2 * self.layers - 1) * self.hidden
        return 8 * width * self.rows * self.hidden
