/* Softmax of a row, on the vector type of simd.h; included once per real type.
 *
 * The row is walked three times while it lies in cache: for its largest element, for the
 * exponentials and their sum, and to scale them. SOFTMAX_LANES sums run side by side whatever the
 * width of a vector, and each SOFTMAX_RUN elements they are added up in float64. So the order is
 * the same on every instruction set, and the sum of a long row is as accurate as that of a short
 * one.
 */
#ifndef FASTLSTM_SOFTMAX_ONCE
#define FASTLSTM_SOFTMAX_ONCE
#include <math.h>
#define SOFTMAX_LANES 32
#define SOFTMAX_RUN 1024
#endif

#undef SOFTMAX_VECTORS
#define SOFTMAX_VECTORS (SOFTMAX_LANES / V_WIDTH)

/* The largest of n elements, -inf if there are none; a NaN may be passed over. */
static real KERNEL(largest)(const real *x, ptrdiff_t n)
{
    vec most[SOFTMAX_VECTORS];
    for (int v = 0; v < SOFTMAX_VECTORS; v++)
        most[v] = v_set((real)-INFINITY);
    ptrdiff_t k = 0;
    for (; k <= n - SOFTMAX_LANES; k += SOFTMAX_LANES) {
        FASTLSTM_INDEPENDENT
        for (int v = 0; v < SOFTMAX_VECTORS; v++)
            most[v] = v_max(most[v], v_load(x + k + v * V_WIDTH));
    }
    real lanes[SOFTMAX_LANES], found = (real)-INFINITY;
    for (int v = 0; v < SOFTMAX_VECTORS; v++)
        v_store(lanes + v * V_WIDTH, most[v]);
    for (int lane = 0; lane < SOFTMAX_LANES; lane++)
        found = lanes[lane] > found ? lanes[lane] : found;
    for (; k < n; k++)
        found = x[k] > found ? x[k] : found;
    return found;
}

/* out = exp(x - most) for SOFTMAX_LANES elements, which are added to the sums; out may be x. */
FASTLSTM_INLINE void KERNEL(exp_lanes)(real *out, vec sums[SOFTMAX_VECTORS], const real *x,
                                       vec most)
{
    FASTLSTM_INDEPENDENT
    for (int v = 0; v < SOFTMAX_VECTORS; v++) {
        vec e = v_exp_negative(v_sub(v_load(x + v * V_WIDTH), most));
        v_store(out + v * V_WIDTH, e);
        sums[v] = v_add(sums[v], e);
    }
}

/* out = exp(x - most) for n <= SOFTMAX_RUN elements, which are added to the totals. */
static void KERNEL(exp_run)(real *out, double totals[SOFTMAX_LANES], const real *x, real most,
                            ptrdiff_t n)
{
    real lanes[SOFTMAX_LANES];
    vec sums[SOFTMAX_VECTORS];
    for (int v = 0; v < SOFTMAX_VECTORS; v++)
        sums[v] = v_set(0);
    ptrdiff_t k = 0;
    for (; k <= n - SOFTMAX_LANES; k += SOFTMAX_LANES)
        KERNEL(exp_lanes)(out + k, sums, x + k, v_set(most));
    if (k < n) {
        size_t bytes = (size_t)(n - k) * sizeof(real);
        for (int lane = 0; lane < SOFTMAX_LANES; lane++)
            lanes[lane] = (real)-INFINITY; /* adds nothing */
        memcpy(lanes, x + k, bytes);
        KERNEL(exp_lanes)(lanes, sums, lanes, v_set(most));
        memcpy(out + k, lanes, bytes);
    }
    for (int v = 0; v < SOFTMAX_VECTORS; v++)
        v_store(lanes + v * V_WIDTH, sums[v]);
    for (int lane = 0; lane < SOFTMAX_LANES; lane++)
        totals[lane] += (double)lanes[lane];
}

static double KERNEL(softmax)(real *out, real *most, const real *x, ptrdiff_t n, double factor)
{
    assert(n >= 1 && out != NULL && most != NULL && x != NULL);
    double totals[SOFTMAX_LANES] = {0}, sum = 0;
    *most = KERNEL(largest)(x, n);
    for (ptrdiff_t k = 0; k < n; k += SOFTMAX_RUN)
        KERNEL(exp_run)(out + k, totals, x + k, *most, n - k < SOFTMAX_RUN ? n - k : SOFTMAX_RUN);
    for (int lane = 0; lane < SOFTMAX_LANES; lane++)
        sum += totals[lane];
    vec scale = v_set((real)(factor / sum));
    ptrdiff_t k = 0;
    FASTLSTM_INDEPENDENT
    for (; k <= n - V_WIDTH; k += V_WIDTH)
        v_store(out + k, v_mul(v_load(out + k), scale));
    if (k < n)
        v_store_part(out + k, v_mul(v_load_part(out + k, n - k), scale), n - k);
    return sum;
}
