# The C kernels of csrc/, as Cython sees them: the table of the chosen instruction set, and below
# it each kernel with the dtype told apart.

from fastlstm._core.blas cimport real

cdef extern from "dispatch.h" nogil:
    int FASTLSTM_ACTIVATIONS
    int FASTLSTM_VARIANT_SCRATCH

    ctypedef struct fastlstm_variant_f32:
        int kind[3]
        int input_forget
        float alpha[3]
        float beta[3]
        float clip
        const float* peepholes
        const float* gain_c
        const float* bias_c

    ctypedef struct fastlstm_variant_f64:
        int kind[3]
        int input_forget
        double alpha[3]
        double beta[3]
        double clip
        const double* peepholes
        const double* gain_c
        const double* bias_c

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
                                Py_ssize_t ld_initial, const float* a, Py_ssize_t ld_a,
                                const float* panels,
                                Py_ssize_t rows, Py_ssize_t inner,
                                Py_ssize_t columns) noexcept nogil
        void (*cell_step)(float* h, float* c, float* gates, float* pre,
                          const float* c_prev, const float* h_prev, const float* panels,
                          Py_ssize_t rows, Py_ssize_t hidden, Py_ssize_t first, Py_ssize_t last,
                          Py_ssize_t ld_h, Py_ssize_t ld_h_prev,
                          int descending) noexcept nogil
        void (*cell_step_back)(float* gates, float* d_c, float* d_h, const float* d_output,
                               const float* c, const float* c_prev, const float* d_next,
                               const float* panels, Py_ssize_t rows, Py_ssize_t hidden,
                               Py_ssize_t first, Py_ssize_t last, Py_ssize_t ld_d_output,
                               int descending) noexcept nogil
        double (*softmax)(float* out, float* most, const float* x, Py_ssize_t n,
                          double factor) noexcept nogil
        void (*variant_forward)(float* h, float* c, float* z, const float* c_prev,
                                float* scratch, Py_ssize_t rows,
                                Py_ssize_t hidden, Py_ssize_t ld_h,
                                const fastlstm_variant_f32* it) noexcept nogil
        void (*variant_backward)(float* z, float* d_c, const float* d_h, const float* c_prev,
                                 float* sums, float* scratch, Py_ssize_t rows, Py_ssize_t hidden,
                                 const fastlstm_variant_f32* it) noexcept nogil
        void (*normalize)(float* normal, float* scale, const float* x, Py_ssize_t rows,
                          Py_ssize_t n) noexcept nogil
        void (*normalize_back)(float* d_x, const float* d, const float* gain, const float* normal,
                               const float* scale, Py_ssize_t rows,
                               Py_ssize_t n) noexcept nogil

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
                                Py_ssize_t ld_initial, const double* a, Py_ssize_t ld_a,
                                const double* panels,
                                Py_ssize_t rows, Py_ssize_t inner,
                                Py_ssize_t columns) noexcept nogil
        void (*cell_step)(double* h, double* c, double* gates, double* pre,
                          const double* c_prev, const double* h_prev, const double* panels,
                          Py_ssize_t rows, Py_ssize_t hidden, Py_ssize_t first, Py_ssize_t last,
                          Py_ssize_t ld_h, Py_ssize_t ld_h_prev,
                          int descending) noexcept nogil
        void (*cell_step_back)(double* gates, double* d_c, double* d_h, const double* d_output,
                               const double* c, const double* c_prev, const double* d_next,
                               const double* panels, Py_ssize_t rows, Py_ssize_t hidden,
                               Py_ssize_t first, Py_ssize_t last, Py_ssize_t ld_d_output,
                               int descending) noexcept nogil
        double (*softmax)(double* out, double* most, const double* x, Py_ssize_t n,
                          double factor) noexcept nogil
        void (*variant_forward)(double* h, double* c, double* z, const double* c_prev,
                                double* scratch, Py_ssize_t rows,
                                Py_ssize_t hidden, Py_ssize_t ld_h,
                                const fastlstm_variant_f64* it) noexcept nogil
        void (*variant_backward)(double* z, double* d_c, const double* d_h, const double* c_prev,
                                 double* sums, double* scratch, Py_ssize_t rows, Py_ssize_t hidden,
                                 const fastlstm_variant_f64* it) noexcept nogil
        void (*normalize)(double* normal, double* scale, const double* x, Py_ssize_t rows,
                          Py_ssize_t n) noexcept nogil
        void (*normalize_back)(double* d_x, const double* d, const double* gain,
                               const double* normal,
                               const double* scale, Py_ssize_t rows,
                               Py_ssize_t n) noexcept nogil

    ctypedef struct fastlstm_isa:
        const char* name
        fastlstm_kernels_f32 f32
        fastlstm_kernels_f64 f64

    const fastlstm_isa* fastlstm_isa_pick(const char* wanted)


cdef const fastlstm_isa* isa


cdef inline void cell_forward(
    real* h, real* c, real* gates, const real* c_prev,
    Py_ssize_t rows, Py_ssize_t hidden, Py_ssize_t ld_h,
) noexcept nogil:
    if real is float:
        isa.f32.cell_forward(h, c, gates, c_prev, rows, hidden, ld_h)
    else:
        isa.f64.cell_forward(h, c, gates, c_prev, rows, hidden, ld_h)


cdef inline void cell_backward(
    real* gates, real* d_c, const real* d_h, const real* d_output,
    const real* c, const real* c_prev,
    Py_ssize_t rows, Py_ssize_t hidden, Py_ssize_t ld_d_output,
) noexcept nogil:
    if real is float:
        isa.f32.cell_backward(gates, d_c, d_h, d_output, c, c_prev, rows, hidden, ld_d_output)
    else:
        isa.f64.cell_backward(gates, d_c, d_h, d_output, c, c_prev, rows, hidden, ld_d_output)


cdef inline void cell_step(
    real* h, real* c, real* gates, real* pre, const real* c_prev, const real* h_prev,
    const real* panels, Py_ssize_t rows, Py_ssize_t hidden, Py_ssize_t first, Py_ssize_t last,
    Py_ssize_t ld_h, Py_ssize_t ld_h_prev, bint descending,
) noexcept nogil:
    if real is float:
        isa.f32.cell_step(h, c, gates, pre, c_prev, h_prev, panels, rows, hidden, first, last,
                          ld_h, ld_h_prev, descending)
    else:
        isa.f64.cell_step(h, c, gates, pre, c_prev, h_prev, panels, rows, hidden, first, last,
                          ld_h, ld_h_prev, descending)


cdef inline void cell_step_back(
    real* gates, real* d_c, real* d_h, const real* d_output, const real* c, const real* c_prev,
    const real* d_next, const real* panels, Py_ssize_t rows, Py_ssize_t hidden,
    Py_ssize_t first, Py_ssize_t last, Py_ssize_t ld_d_output, bint descending,
) noexcept nogil:
    if real is float:
        isa.f32.cell_step_back(gates, d_c, d_h, d_output, c, c_prev, d_next, panels, rows, hidden,
                               first, last, ld_d_output, descending)
    else:
        isa.f64.cell_step_back(gates, d_c, d_h, d_output, c, c_prev, d_next, panels, rows, hidden,
                               first, last, ld_d_output, descending)


cdef inline void multiply_packed(
    real* out, Py_ssize_t ld_out, const real* initial, Py_ssize_t ld_initial,
    const real* a, Py_ssize_t ld_a,
    const real* panels, Py_ssize_t rows, Py_ssize_t inner, Py_ssize_t columns,
) noexcept nogil:
    if real is float:
        isa.f32.multiply_packed(out, ld_out, initial, ld_initial, a, ld_a, panels, rows, inner,
                                columns)
    else:
        isa.f64.multiply_packed(out, ld_out, initial, ld_initial, a, ld_a, panels, rows, inner,
                                columns)


cdef inline void multiply(
    real* out, Py_ssize_t ld_out, const real* a, Py_ssize_t ld_a, bint transpose_a,
    const real* b, Py_ssize_t ld_b, bint transpose_b,
    Py_ssize_t rows, Py_ssize_t inner, Py_ssize_t columns, bint accumulate,
) noexcept nogil:
    if real is float:
        isa.f32.multiply(out, ld_out, a, ld_a, transpose_a, b, ld_b, transpose_b,
                         rows, inner, columns, accumulate)
    else:
        isa.f64.multiply(out, ld_out, a, ld_a, transpose_a, b, ld_b, transpose_b,
                         rows, inner, columns, accumulate)


cdef inline double softmax(
    real* out, real* most, const real* x, Py_ssize_t n, double factor,
) noexcept nogil:
    if real is float:
        return isa.f32.softmax(out, most, x, n, factor)
    else:
        return isa.f64.softmax(out, most, x, n, factor)


cdef inline void normalize(
    real* normal, real* scale, const real* x, Py_ssize_t rows, Py_ssize_t n,
) noexcept nogil:
    if real is float:
        isa.f32.normalize(normal, scale, x, rows, n)
    else:
        isa.f64.normalize(normal, scale, x, rows, n)


cdef inline void normalize_back(
    real* d_x, const real* d, const real* gain, const real* normal, const real* scale,
    Py_ssize_t rows, Py_ssize_t n,
) noexcept nogil:
    if real is float:
        isa.f32.normalize_back(d_x, d, gain, normal, scale, rows, n)
    else:
        isa.f64.normalize_back(d_x, d, gain, normal, scale, rows, n)
