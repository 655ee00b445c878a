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
 */
#define FASTLSTM_DECLARE_KERNELS(table, real)                                                      \
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
    } table

FASTLSTM_DECLARE_KERNELS(fastlstm_kernels_f32, float);
FASTLSTM_DECLARE_KERNELS(fastlstm_kernels_f64, double);

/* One instruction set: its name ("avx512", "avx2", "neon", "generic") and its two tables. */
typedef struct fastlstm_isa {
    const char *name;
    fastlstm_kernels_f32 f32;
    fastlstm_kernels_f64 f64;
} fastlstm_isa;

#endif
