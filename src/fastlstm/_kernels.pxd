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
        Py_ssize_t vector
        void (*pack)(float* panels, const float* b, Py_ssize_t ld_b, int transpose_b,
                     Py_ssize_t inner, Py_ssize_t columns) noexcept nogil
        void (*pack_gates)(float* panels, const float* weight, Py_ssize_t inner,
                           Py_ssize_t hidden) noexcept nogil
        void (*multiply)(float* out, Py_ssize_t ld_out, const float* a, Py_ssize_t ld_a,
                         int transpose_a, const float* b, Py_ssize_t ld_b, int transpose_b,
                         Py_ssize_t rows, Py_ssize_t inner, Py_ssize_t columns,
                         int accumulate) noexcept nogil
        void (*multiply_packed)(float* out, Py_ssize_t ld_out, const float* initial,
                                const float* a, Py_ssize_t ld_a, const float* panels,
                                Py_ssize_t rows, Py_ssize_t inner,
                                Py_ssize_t columns) noexcept nogil
        void (*cell_step)(float* h, float* c, float* gates, float* pre, const float* c_prev,
                          const float* h_prev, const float* panels, Py_ssize_t rows,
                          Py_ssize_t hidden, Py_ssize_t ld_h,
                          Py_ssize_t ld_h_prev) noexcept nogil

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
        Py_ssize_t vector
        void (*pack)(double* panels, const double* b, Py_ssize_t ld_b, int transpose_b,
                     Py_ssize_t inner, Py_ssize_t columns) noexcept nogil
        void (*pack_gates)(double* panels, const double* weight, Py_ssize_t inner,
                           Py_ssize_t hidden) noexcept nogil
        void (*multiply)(double* out, Py_ssize_t ld_out, const double* a, Py_ssize_t ld_a,
                         int transpose_a, const double* b, Py_ssize_t ld_b, int transpose_b,
                         Py_ssize_t rows, Py_ssize_t inner, Py_ssize_t columns,
                         int accumulate) noexcept nogil
        void (*multiply_packed)(double* out, Py_ssize_t ld_out, const double* initial,
                                const double* a, Py_ssize_t ld_a, const double* panels,
                                Py_ssize_t rows, Py_ssize_t inner,
                                Py_ssize_t columns) noexcept nogil
        void (*cell_step)(double* h, double* c, double* gates, double* pre, const double* c_prev,
                          const double* h_prev, const double* panels, Py_ssize_t rows,
                          Py_ssize_t hidden, Py_ssize_t ld_h,
                          Py_ssize_t ld_h_prev) noexcept nogil

    ctypedef struct fastlstm_isa:
        const char* name
        fastlstm_kernels_f32 f32
        fastlstm_kernels_f64 f64

    const fastlstm_isa* fastlstm_isa_pick(const char* wanted)
