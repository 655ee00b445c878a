# The C kernels of csrc/, as Cython sees them.

cdef extern from "dispatch.h" nogil:
    ctypedef struct fastlstm_kernels_f32:
        void (*sigmoid)(float* out, const float* x, Py_ssize_t n) noexcept nogil
        void (*tanh)(float* out, const float* x, Py_ssize_t n) noexcept nogil
        void (*cell_forward)(float* h, float* c, float* gates, const float* c_prev,
                             Py_ssize_t rows, Py_ssize_t hidden,
                             Py_ssize_t ld_h) noexcept nogil
        void (*cell_backward)(float* gates, float* d_c, const float* d_h, const float* d_output,
                              const float* c, const float* c_prev,
                              Py_ssize_t rows, Py_ssize_t hidden,
                              Py_ssize_t ld_d_output) noexcept nogil

    ctypedef struct fastlstm_kernels_f64:
        void (*sigmoid)(double* out, const double* x, Py_ssize_t n) noexcept nogil
        void (*tanh)(double* out, const double* x, Py_ssize_t n) noexcept nogil
        void (*cell_forward)(double* h, double* c, double* gates, const double* c_prev,
                             Py_ssize_t rows, Py_ssize_t hidden,
                             Py_ssize_t ld_h) noexcept nogil
        void (*cell_backward)(double* gates, double* d_c, const double* d_h,
                              const double* d_output, const double* c, const double* c_prev,
                              Py_ssize_t rows, Py_ssize_t hidden,
                              Py_ssize_t ld_d_output) noexcept nogil

    ctypedef struct fastlstm_isa:
        const char* name
        fastlstm_kernels_f32 f32
        fastlstm_kernels_f64 f64

    const fastlstm_isa* fastlstm_isa_pick(const char* wanted)
