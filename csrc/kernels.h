/* The table of kernels that every instruction set fills, for float and for double.
 *
 * Why a table: kernels.c is compiled once per instruction set, and dispatch.c picks one of the
 * results at run time. Callers hold a pointer to a table and know nothing of instruction sets.
 *
 * Pointers need only be aligned to an element. Sizes and strides count elements. Buffers do not
 * overlap, except where "may be" says that two arguments may be the same pointer. Nothing is
 * allocated, printed or checked (asserts speak in debug builds only), and no kernel touches the
 * floating-point mode.
 */
#ifndef FASTLSTM_KERNELS_H
#define FASTLSTM_KERNELS_H

#include <stddef.h>

/* sigmoid, tanh
 *   Elementwise on n elements. out may be x. Error bounds: activations.h.
 *
 * cell_forward: one time step of the LSTM cell for `rows` sequences.
 *   gates  (rows, 4*hidden)  in: pre-activations in the order i, f, g, o; out: activated gates
 *   c_prev (rows, hidden)    cell state before the step
 *   c      (rows, hidden)    out: cell state after the step, f*c_prev + i*g; may be c_prev
 *   h      (rows, hidden)    out: hidden state o*tanh(c); rows are ld_h >= hidden elements apart
 *
 * cell_backward: the gradient of one time step. L is the loss, tanh(c) is computed again.
 *   gates    (rows, 4*hidden)  in: activated gates i, f, g, o; out: dL/d(pre-activations)
 *   d_c      (rows, hidden)    in: dL/dc_t from step t+1; out: dL/dc_{t-1}, the carry through f_t
 *   d_h      (rows, hidden)    dL/dh_t from step t+1
 *   d_output (rows, hidden)    dL/dh_t from the outputs, added to d_h; NULL for none; rows are
 *                              ld_d_output >= hidden elements apart
 *   c        (rows, hidden)    cell state after the step
 *   c_prev   (rows, hidden)    cell state before the step
 *
 * The products over packed panels (products.h, steps.h) are NULL, and vector is 0, in plain C.
 *
 * vector: hidden units, or a quarter of the columns, in a panel. Panels have room for
 *   ceil(columns / vector) * vector * inner elements, or, of gates,
 *   ceil(hidden / vector) * 4*vector * inner.
 *
 * pack, pack_gates: B into panels.
 *   b       (inner, columns), or (columns, inner) if transpose_b; rows are ld_b elements apart
 *   weight  (4*hidden, inner), its rows in the order i, f, g, o
 *
 * multiply: out = A·B, or out += A·B if accumulate. inner >= 1.
 *   out  (rows, columns), rows are ld_out elements apart
 *   a    (rows, inner), or (inner, rows) if transpose_a; b (inner, columns), or transposed
 *
 * multiply_packed: out = initial + A·B, with B in panels. inner >= 1.
 *   initial  (rows, columns), rows are ld_initial elements apart, 0 for the same row throughout;
 *            may be out, of the same stride; NULL for zeros
 *
 * cell_step: a product with a step of the cell as its end, for `rows` sequences and the hidden
 * units [first, last); these bounds are multiples of vector, or last is hidden. What belongs to
 * other units is left alone, so threads may share out the units of a step.
 *   pre     (rows, ceil(hidden/vector)*4*vector)  in: what x and the bias give, as multiply_packed
 *                                                 leaves it over panels of gates; scratch after
 *   h_prev  (rows, hidden)    hidden state before the step, rows are ld_h_prev elements apart; NULL
 *                             for zeros
 *   panels  of gates, from the recurrent weights (4*hidden, hidden)
 *   gates   (rows, 4*hidden)  out: activated gates in the order i, f, g, o; may be NULL
 *   h, c, c_prev              as in cell_forward; h does not overlap h_prev
 *   descending                go through the units from the last one, to the same bits: a caller
 *                             that alternates finds more of the panels in the cache
 *
 * cell_step_back: the gradient of one time step, with the product that carries dL/dh back from the
 * step after it, for `rows` sequences and the hidden units [first, last); these bounds are
 * multiples of 4*vector, or last is hidden.
 *   d_next  (rows, 4*hidden)  dL/d(pre-activations) of the step after; NULL if there is none
 *   panels  of the recurrent weights (4*hidden, hidden)
 *   d_h     (rows, hidden)    in: dL/dh_t from elsewhere, if d_next is NULL; scratch after
 *   gates, d_c, d_output, c, c_prev   as in cell_backward; descending as in cell_step
 *
 * softmax: out = factor * softmax(x) of n >= 1 elements; out may be x.
 *   most  the largest element, if there is no NaN
 *   Returns the sum of exp(x - most), so that log(sum) + most is the log of the sum of exp(x).
 *   NaN throughout if there is a NaN, a +inf, or nothing but -inf.
 *
 * variant_forward: one time step of the general cell (see fastlstm_activation and below) for `rows`
 * sequences.
 *   z       (rows, 4*hidden)  in: what x and h_prev give; out: pre-activations, with peepholes and
 *                             clipped; in the order i, f, g, o
 *   c, c_prev, h              as in cell_forward; c is not c_prev
 *   scratch FASTLSTM_VARIANT_SCRATCH * hidden elements
 *
 * variant_backward: its gradient.
 *   z       (rows, 4*hidden)  in: as variant_forward left it; out: dL/d(pre-activations)
 *   d_c, c_prev               as in cell_backward
 *   d_h     (rows, hidden)    dL/dh_t, all of it
 *   sums    (rows, 5*hidden)  out: what each row adds to the gradients of the peepholes (3), gain_c
 *                             and bias_c, where there are such; else it may be NULL
 *
 * normalize: normal = (x - mean) * scale with scale = 1 / sqrt(variance + 1e-5), over the n >= 1
 * elements of each row (Ba, Kiros & Hinton 2016); normal may be x.
 *   normal, x (rows, n); scale (rows)
 * normalize_back: d_x from d = dL/d(gain * normal + bias); d_x may be d.
 */
enum fastlstm_activation { /* y of x, with the names and the defaults of ONNX */
    FASTLSTM_SIGMOID,
    FASTLSTM_TANH,
    FASTLSTM_AFFINE,           /* alpha*x + beta */
    FASTLSTM_RELU,             /* max(0, x) */
    FASTLSTM_LEAKY_RELU,       /* x, or alpha*x for x < 0 */
    FASTLSTM_THRESHOLDED_RELU, /* x for x > alpha, else 0 */
    FASTLSTM_SCALED_TANH,      /* alpha * tanh(beta*x) */
    FASTLSTM_HARD_SIGMOID,     /* min(1, max(0, alpha*x + beta)) */
    FASTLSTM_ELU,              /* x, or alpha * (exp(x) - 1) for x < 0 */
    FASTLSTM_SOFTSIGN,         /* x / (1 + |x|) */
    FASTLSTM_SOFTPLUS,         /* log(1 + exp(x)) */
    FASTLSTM_ACTIVATIONS
};

#define FASTLSTM_VARIANT_SCRATCH 13

/* A general cell. Peepholes (3*hidden) are of i, f, o: i and f see c_{t-1}, o sees c_t. With
 * input_forget, f = 1 - i. With gain_c and bias_c (hidden), c is normalised before the last
 * activation: h = o * h_activation(gain_c * normal(c) + bias_c). */
#define FASTLSTM_DECLARE_VARIANT(name, real)                                                       \
    typedef struct name {                                                                          \
        int kind[3]; /* enum fastlstm_activation: of i, f, o; of g; of c */                        \
        int input_forget;                                                                          \
        real alpha[3], beta[3];                                                                    \
        real clip;             /* pre-activations stay in [-clip, clip]; infinity for none */      \
        const real *peepholes; /* or NULL */                                                       \
        const real *gain_c, *bias_c; /* or NULL */                                                 \
    } name

FASTLSTM_DECLARE_VARIANT(fastlstm_variant_f32, float);
FASTLSTM_DECLARE_VARIANT(fastlstm_variant_f64, double);

#define FASTLSTM_DECLARE_KERNELS(table, variant, real)                                             \
    typedef struct table {                                                                         \
        void (*sigmoid)(real *out, const real *x, ptrdiff_t n);                                    \
        void (*tanh)(real *out, const real *x, ptrdiff_t n);                                       \
        void (*cell_forward)(real *h, real *c, real *gates, const real *c_prev, ptrdiff_t rows,    \
                             ptrdiff_t hidden, ptrdiff_t ld_h);                                    \
        void (*cell_backward)(real *gates, real *d_c, const real *d_h, const real *d_output,       \
                              const real *c, const real *c_prev, ptrdiff_t rows,                   \
                              ptrdiff_t hidden, ptrdiff_t ld_d_output);                            \
        ptrdiff_t vector;                                                                          \
        void (*pack)(real *panels, const real *b, ptrdiff_t ld_b, int transpose_b,                 \
                     ptrdiff_t inner, ptrdiff_t columns);                                          \
        void (*pack_gates)(real *panels, const real *weight, ptrdiff_t inner, ptrdiff_t hidden);   \
        void (*multiply)(real *out, ptrdiff_t ld_out, const real *a, ptrdiff_t ld_a,               \
                         int transpose_a, const real *b, ptrdiff_t ld_b, int transpose_b,          \
                         ptrdiff_t rows, ptrdiff_t inner, ptrdiff_t columns, int accumulate);      \
        void (*multiply_packed)(real *out, ptrdiff_t ld_out, const real *initial,                  \
                                ptrdiff_t ld_initial, const real *a, ptrdiff_t ld_a,               \
                                const real *panels, ptrdiff_t rows, ptrdiff_t inner,               \
                                ptrdiff_t columns);                                                \
        void (*cell_step)(real *h, real *c, real *gates, real *pre, const real *c_prev,            \
                          const real *h_prev, const real *panels, ptrdiff_t rows,                  \
                          ptrdiff_t hidden, ptrdiff_t first, ptrdiff_t last, ptrdiff_t ld_h,       \
                          ptrdiff_t ld_h_prev, int descending);                                    \
        void (*cell_step_back)(real *gates, real *d_c, real *d_h, const real *d_output,            \
                               const real *c, const real *c_prev, const real *d_next,              \
                               const real *panels, ptrdiff_t rows, ptrdiff_t hidden,               \
                               ptrdiff_t first, ptrdiff_t last, ptrdiff_t ld_d_output,             \
                               int descending);                                                    \
        double (*softmax)(real *out, real *most, const real *x, ptrdiff_t n, double factor);       \
        void (*variant_forward)(real *h, real *c, real *z, const real *c_prev, real *scratch,      \
                                ptrdiff_t rows, ptrdiff_t hidden, ptrdiff_t ld_h,                  \
                                const variant *it);                                                \
        void (*variant_backward)(real *z, real *d_c, const real *d_h, const real *c_prev,          \
                                 real *sums, real *scratch, ptrdiff_t rows, ptrdiff_t hidden,      \
                                 const variant *it);                                               \
        void (*normalize)(real *normal, real *scale, const real *x, ptrdiff_t rows, ptrdiff_t n);  \
        void (*normalize_back)(real *d_x, const real *d, const real *gain, const real *normal,     \
                               const real *scale, ptrdiff_t rows, ptrdiff_t n);                    \
    } table

FASTLSTM_DECLARE_KERNELS(fastlstm_kernels_f32, fastlstm_variant_f32, float);
FASTLSTM_DECLARE_KERNELS(fastlstm_kernels_f64, fastlstm_variant_f64, double);

/* One instruction set: its name ("avx512", "avx2", "neon", "generic") and its two tables. */
typedef struct fastlstm_isa {
    const char *name;
    fastlstm_kernels_f32 f32;
    fastlstm_kernels_f64 f64;
} fastlstm_isa;

#endif
