/* The kernels: sigmoid, tanh, the gate math of the LSTM cell forward and backward; softmax; the
 * general cell.
 *
 * Written once. The build compiles this file once per instruction set (dispatch.h has the recipe),
 * and the file includes itself once per real type, so each object holds one fastlstm_isa with a
 * table for float and one for double, and exports nothing else: code for wide instructions cannot
 * leak into other objects through shared inline functions.
 */
#ifndef FASTLSTM_REAL

#include <assert.h>

#include "kernels.h"

#define FASTLSTM_REAL 32
#include "kernels.c"
#undef FASTLSTM_REAL
#define FASTLSTM_REAL 64
#include "kernels.c"
#undef FASTLSTM_REAL

#if defined(FASTLSTM_ISA_AVX512)
#define ISA_TABLE fastlstm_isa_avx512
#define ISA_NAME "avx512"
#elif defined(FASTLSTM_ISA_AVX2)
#define ISA_TABLE fastlstm_isa_avx2
#define ISA_NAME "avx2"
#elif defined(FASTLSTM_ISA_NEON)
#define ISA_TABLE fastlstm_isa_neon
#define ISA_NAME "neon"
#else
#define ISA_TABLE fastlstm_isa_generic
#define ISA_NAME "generic"
#endif

/* Plain C has no products of its own: there BLAS is faster. */
#ifdef FASTLSTM_ISA_GENERIC
#define PRODUCTS(type) 0, NULL, NULL, NULL, NULL, NULL, NULL
#else
#define PRODUCTS(type)                                                                             \
    (FASTLSTM_VECTOR_BYTES / (ptrdiff_t)sizeof(real_##type)), pack_##type, pack_gates_##type,      \
        multiply_##type, multiply_packed_##type, cell_step_##type, cell_step_back_##type
#endif
#define KERNELS(type)                                                                              \
    {                                                                                              \
        sigmoid_##type, tanh_##type, cell_forward_##type, cell_backward_##type, PRODUCTS(type),    \
            softmax_##type, variant_forward_##type, variant_backward_##type, normalize_##type,     \
            normalize_back_##type                                                                  \
    }

extern const fastlstm_isa ISA_TABLE;
const fastlstm_isa ISA_TABLE = {.name = ISA_NAME, .f32 = KERNELS(f32), .f64 = KERNELS(f64)};

#else /* FASTLSTM_REAL: the body, for one real type */

#include "simd.h"

#include "activations.h"

#define KERNEL(name) FASTLSTM_TYPED(name)

static void KERNEL(sigmoid)(real *out, const real *x, ptrdiff_t n)
{
    assert(n >= 0 && (n == 0 || (out != NULL && x != NULL)));
    ptrdiff_t k = 0;
    FASTLSTM_INDEPENDENT
    for (; k <= n - V_WIDTH; k += V_WIDTH)
        v_store(out + k, v_sigmoid(v_load(x + k)));
    if (k < n)
        v_store_part(out + k, v_sigmoid(v_load_part(x + k, n - k)), n - k);
}

static void KERNEL(tanh)(real *out, const real *x, ptrdiff_t n)
{
    assert(n >= 0 && (n == 0 || (out != NULL && x != NULL)));
    ptrdiff_t k = 0;
    FASTLSTM_INDEPENDENT
    for (; k <= n - V_WIDTH; k += V_WIDTH)
        v_store(out + k, v_tanh(v_load(x + k)));
    if (k < n)
        v_store_part(out + k, v_tanh(v_load_part(x + k, n - k)), n - k);
}

/* n <= V_WIDTH hidden units of one row, from the pre-activations of i, f, g, o. h, c, c_prev point
 * at the first unit, gates at its i, or nowhere if nobody wants them; the other gates of the same
 * unit lie `hidden` elements apart. */
FASTLSTM_INLINE void KERNEL(cell_units)(real *h, real *c, real *gates, const real *c_prev,
                                        const vec pre[4], ptrdiff_t hidden, ptrdiff_t n)
{
    vec i = v_sigmoid(pre[0]), f = v_sigmoid(pre[1]);
    vec g = v_tanh(pre[2]), o = v_sigmoid(pre[3]);
    vec c_new = v_fma(f, v_load_n(c_prev, n), v_mul(i, g));
    if (gates != NULL) {
        v_store_n(gates, i, n);
        v_store_n(gates + hidden, f, n);
        v_store_n(gates + 2 * hidden, g, n);
        v_store_n(gates + 3 * hidden, o, n);
    }
    v_store_n(c, c_new, n);
    v_store_n(h, v_mul(o, v_tanh(c_new)), n);
}

FASTLSTM_INLINE void KERNEL(forward_units)(real *h, real *c, real *gates, const real *c_prev,
                                           ptrdiff_t hidden, ptrdiff_t n)
{
    vec pre[4] = {v_load_n(gates, n), v_load_n(gates + hidden, n), v_load_n(gates + 2 * hidden, n),
                  v_load_n(gates + 3 * hidden, n)};
    KERNEL(cell_units)(h, c, gates, c_prev, pre, hidden, n);
}

static void KERNEL(cell_forward)(real *h, real *c, real *gates, const real *c_prev,
                                 ptrdiff_t rows, ptrdiff_t hidden, ptrdiff_t ld_h)
{
    assert(rows >= 0 && hidden >= 0 && (rows <= 1 || ld_h >= hidden));
    assert(rows * hidden == 0 || (h != NULL && c != NULL && gates != NULL && c_prev != NULL));
    for (ptrdiff_t row = 0; row < rows && hidden > 0; row++) {
        real *h_row = h + row * ld_h, *c_row = c + row * hidden;
        real *gates_row = gates + row * 4 * hidden;
        const real *c_prev_row = c_prev + row * hidden;
        ptrdiff_t k = 0;
        FASTLSTM_INDEPENDENT
        for (; k <= hidden - V_WIDTH; k += V_WIDTH)
            KERNEL(forward_units)(h_row + k, c_row + k, gates_row + k, c_prev_row + k, hidden,
                                  V_WIDTH);
        if (k < hidden)
            KERNEL(forward_units)(h_row + k, c_row + k, gates_row + k, c_prev_row + k, hidden,
                                  hidden - k);
    }
}

/* n <= V_WIDTH hidden units of one row, as in forward_units. dh is the whole dL/dh_t.
 * 1 - t^2 is written (1-t)*(1+t), which keeps its relative accuracy where t is close to 1. */
FASTLSTM_INLINE void KERNEL(backward_units)(real *gates, real *d_c, vec dh, const real *c,
                                            const real *c_prev, ptrdiff_t hidden, ptrdiff_t n)
{
    vec one = v_set(1);
    vec i = v_load_n(gates, n), f = v_load_n(gates + hidden, n);
    vec g = v_load_n(gates + 2 * hidden, n), o = v_load_n(gates + 3 * hidden, n);
    vec t = v_tanh(v_load_n(c, n));
    vec d_tanh = v_mul(v_mul(dh, o), v_mul(v_sub(one, t), v_add(one, t)));
    vec dc = v_add(v_load_n(d_c, n), d_tanh);
    vec di = v_mul(dc, g), df = v_mul(dc, v_load_n(c_prev, n));
    vec dg = v_mul(dc, i), d_o = v_mul(dh, t);
    v_store_n(d_c, v_mul(dc, f), n);
    v_store_n(gates, v_mul(di, v_mul(i, v_sub(one, i))), n);
    v_store_n(gates + hidden, v_mul(df, v_mul(f, v_sub(one, f))), n);
    v_store_n(gates + 2 * hidden, v_mul(dg, v_mul(v_sub(one, g), v_add(one, g))), n);
    v_store_n(gates + 3 * hidden, v_mul(d_o, v_mul(o, v_sub(one, o))), n);
}

/* One row. The test for d_output stands outside the loops: plain C is vectorised only so. */
static void KERNEL(backward_row)(real *gates, real *d_c, const real *d_h, const real *d_output,
                                 const real *c, const real *c_prev, ptrdiff_t hidden)
{
    ptrdiff_t k = 0;
    if (d_output != NULL) {
        FASTLSTM_INDEPENDENT
        for (; k <= hidden - V_WIDTH; k += V_WIDTH)
            KERNEL(backward_units)(gates + k, d_c + k, v_add(v_load(d_h + k), v_load(d_output + k)),
                                   c + k, c_prev + k, hidden, V_WIDTH);
    } else {
        FASTLSTM_INDEPENDENT
        for (; k <= hidden - V_WIDTH; k += V_WIDTH)
            KERNEL(backward_units)(gates + k, d_c + k, v_load(d_h + k), c + k, c_prev + k, hidden,
                                   V_WIDTH);
    }
    if (k < hidden) {
        ptrdiff_t n = hidden - k;
        vec dh = v_load_part(d_h + k, n);
        if (d_output != NULL)
            dh = v_add(dh, v_load_part(d_output + k, n));
        KERNEL(backward_units)(gates + k, d_c + k, dh, c + k, c_prev + k, hidden, n);
    }
}

static void KERNEL(cell_backward)(real *gates, real *d_c, const real *d_h, const real *d_output,
                                  const real *c, const real *c_prev, ptrdiff_t rows,
                                  ptrdiff_t hidden, ptrdiff_t ld_d_output)
{
    assert(rows >= 0 && hidden >= 0);
    assert(d_output == NULL || rows <= 1 || ld_d_output >= hidden);
    assert(rows * hidden == 0 || (gates != NULL && d_c != NULL && d_h != NULL));
    assert(rows * hidden == 0 || (c != NULL && c_prev != NULL));
    for (ptrdiff_t row = 0; row < rows && hidden > 0; row++) {
        ptrdiff_t at = row * hidden;
        const real *d_output_row = d_output != NULL ? d_output + row * ld_d_output : NULL;
        KERNEL(backward_row)(gates + 4 * at, d_c + at, d_h + at, d_output_row, c + at,
                             c_prev + at, hidden);
    }
}

#ifndef FASTLSTM_ISA_GENERIC
#define WEIGHT real
#define LOAD_WEIGHTS v_load
#define STORE_WEIGHTS v_store
#include "products.h"

#include "steps.h"
#undef WEIGHT
#undef LOAD_WEIGHTS
#undef STORE_WEIGHTS
#endif

#include "softmax.h"

#include "variants.h"

#undef KERNEL

#endif
