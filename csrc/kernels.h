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
