/* The general cell: peepholes, clipping, coupled gates, other activations, and layer
 * normalisation, as kernels.h describes them. Included once per real type.
 *
 * It works on rows of H units, one pass after another over scratch that lies in the L1 cache, and
 * not on tiles of a product as the plain cell of steps.h does: each option is then one pass more or
 * less. Backward computes the activations again from the pre-activations, which are all that is
 * kept, because the slope of some of them cannot be told from their values.
 */
#ifndef FASTLSTM_VARIANTS_ONCE
#define FASTLSTM_VARIANTS_ONCE
/* What normalisation adds to the variance, as PyTorch's LayerNorm does by default. */
#define NORM_EPSILON 1e-5
#define variant FASTLSTM_TYPED(fastlstm_variant)
#endif

/* --------------------------------------------------------------------------- activations ----- */

/* `kind` is an enum fastlstm_activation; out may be x. The loops of plain C are the compiler's to
 * make vectors of; exp and log are libm's, for activations that hardly anybody asks for. */
static void KERNEL(activate)(real *out, const real *x, ptrdiff_t n, int kind, real alpha, real beta)
{
    switch (kind) {
    case FASTLSTM_SIGMOID:
        KERNEL(sigmoid)(out, x, n);
        break;
    case FASTLSTM_TANH:
        KERNEL(tanh)(out, x, n);
        break;
    case FASTLSTM_AFFINE:
        for (ptrdiff_t k = 0; k < n; k++)
            out[k] = alpha * x[k] + beta;
        break;
    case FASTLSTM_RELU:
        for (ptrdiff_t k = 0; k < n; k++)
            out[k] = x[k] < 0 ? 0 : x[k];
        break;
    case FASTLSTM_LEAKY_RELU:
        for (ptrdiff_t k = 0; k < n; k++)
            out[k] = x[k] < 0 ? alpha * x[k] : x[k];
        break;
    case FASTLSTM_THRESHOLDED_RELU:
        for (ptrdiff_t k = 0; k < n; k++)
            out[k] = x[k] <= alpha ? 0 : x[k];
        break;
    case FASTLSTM_SCALED_TANH:
        for (ptrdiff_t k = 0; k < n; k++)
            out[k] = beta * x[k];
        KERNEL(tanh)(out, out, n);
        for (ptrdiff_t k = 0; k < n; k++)
            out[k] = alpha * out[k];
        break;
    case FASTLSTM_HARD_SIGMOID:
        for (ptrdiff_t k = 0; k < n; k++) {
            real y = alpha * x[k] + beta;
            out[k] = y < 0 ? 0 : y > 1 ? 1 : y;
        }
        break;
    case FASTLSTM_ELU:
        for (ptrdiff_t k = 0; k < n; k++)
            out[k] = x[k] < 0 ? alpha * (real)expm1((double)x[k]) : x[k];
        break;
    case FASTLSTM_SOFTSIGN:
        for (ptrdiff_t k = 0; k < n; k++) {
            real size = x[k] < 0 ? -x[k] : x[k], sign = x[k] < 0 ? -1 : 1;
            out[k] = size == (real)INFINITY ? sign : x[k] / (1 + size);
        }
        break;
    default:
        assert(kind == FASTLSTM_SOFTPLUS);
        for (ptrdiff_t k = 0; k < n; k++) {
            double past = x[k] > 0 ? (double)x[k] : 0; /* so that exp does not overflow */
            out[k] = (real)(past + log1p(exp(x[k] > 0 ? -(double)x[k] : (double)x[k])));
        }
    }
}

/* d *= dy/dx, at y = activation(x) */
static void KERNEL(times_slope)(real *d, const real *x, const real *y, ptrdiff_t n, int kind,
                                real alpha, real beta)
{
    switch (kind) {
    case FASTLSTM_SIGMOID:
        for (ptrdiff_t k = 0; k < n; k++)
            d[k] *= y[k] * (1 - y[k]);
        break;
    case FASTLSTM_TANH:
        for (ptrdiff_t k = 0; k < n; k++)
            d[k] *= (1 - y[k]) * (1 + y[k]);
        break;
    case FASTLSTM_AFFINE:
        for (ptrdiff_t k = 0; k < n; k++)
            d[k] *= alpha;
        break;
    case FASTLSTM_RELU:
        for (ptrdiff_t k = 0; k < n; k++)
            d[k] = x[k] > 0 ? d[k] : 0;
        break;
    case FASTLSTM_LEAKY_RELU:
        for (ptrdiff_t k = 0; k < n; k++)
            d[k] *= x[k] < 0 ? alpha : 1;
        break;
    case FASTLSTM_THRESHOLDED_RELU:
        for (ptrdiff_t k = 0; k < n; k++)
            d[k] = x[k] > alpha ? d[k] : 0;
        break;
    case FASTLSTM_SCALED_TANH:
        for (ptrdiff_t k = 0; k < n; k++) {
            real t = (real)tanh((double)(beta * x[k]));
            d[k] *= alpha * beta * (1 - t) * (1 + t);
        }
        break;
    case FASTLSTM_HARD_SIGMOID:
        for (ptrdiff_t k = 0; k < n; k++)
            d[k] = y[k] > 0 && y[k] < 1 ? d[k] * alpha : 0;
        break;
    case FASTLSTM_ELU:
        for (ptrdiff_t k = 0; k < n; k++)
            d[k] *= x[k] < 0 ? y[k] + alpha : 1;
        break;
    case FASTLSTM_SOFTSIGN:
        for (ptrdiff_t k = 0; k < n; k++) {
            real below = 1 + (x[k] < 0 ? -x[k] : x[k]);
            d[k] /= below * below;
        }
        break;
    default:
        assert(kind == FASTLSTM_SOFTPLUS);
        for (ptrdiff_t k = 0; k < n; k++)
            d[k] = (real)((double)d[k] / (1 + exp(-(double)x[k])));
    }
}

/* --------------------------------------------------------------------------- normalisation --- */

static real KERNEL(sum_of_lanes)(vec sums)
{
    real lanes[V_WIDTH], sum = 0;
    v_store(lanes, sums);
    for (int lane = 0; lane < V_WIDTH; lane++)
        sum += lanes[lane];
    return sum;
}

/* The sum of n elements, in the order of the lanes of a vector. */
static real KERNEL(sum)(const real *x, ptrdiff_t n)
{
    vec sums = v_set(0);
    ptrdiff_t k = 0;
    for (; k <= n - V_WIDTH; k += V_WIDTH)
        sums = v_add(sums, v_load(x + k));
    if (k < n)
        sums = v_add(sums, v_load_part(x + k, n - k));
    return KERNEL(sum_of_lanes)(sums);
}

static real KERNEL(sum_of_products)(const real *x, const real *y, ptrdiff_t n)
{
    vec sums = v_set(0);
    ptrdiff_t k = 0;
    for (; k <= n - V_WIDTH; k += V_WIDTH)
        sums = v_fma(v_load(x + k), v_load(y + k), sums);
    if (k < n)
        sums = v_fma(v_load_part(x + k, n - k), v_load_part(y + k, n - k), sums);
    return KERNEL(sum_of_lanes)(sums);
}

static void KERNEL(normalize)(real *normal, real *scale, const real *x, ptrdiff_t rows,
                              ptrdiff_t n)
{
    assert(rows >= 0 && n >= 1);
    for (ptrdiff_t row = 0; row < rows; row++, x += n, normal += n) {
        real mean = KERNEL(sum)(x, n) / (real)n;
        for (ptrdiff_t k = 0; k < n; k++)
            normal[k] = x[k] - mean;
        real variance = KERNEL(sum_of_products)(normal, normal, n) / (real)n;
        scale[row] = (real)(1 / sqrt((double)variance + NORM_EPSILON));
        for (ptrdiff_t k = 0; k < n; k++)
            normal[k] *= scale[row];
    }
}

static void KERNEL(normalize_back)(real *d_x, const real *d, const real *gain, const real *normal,
                                   const real *scale, ptrdiff_t rows, ptrdiff_t n)
{
    assert(rows >= 0 && n >= 1);
    for (ptrdiff_t row = 0; row < rows; row++, d += n, d_x += n, normal += n) {
        for (ptrdiff_t k = 0; k < n; k++)
            d_x[k] = d[k] * gain[k];
        real mean = KERNEL(sum)(d_x, n) / (real)n;
        real along = KERNEL(sum_of_products)(d_x, normal, n) / (real)n;
        for (ptrdiff_t k = 0; k < n; k++)
            d_x[k] = scale[row] * (d_x[k] - mean - normal[k] * along);
    }
}

/* --------------------------------------------------------------------------- the cell -------- */

static void KERNEL(clip)(real *z, ptrdiff_t n, real limit)
{
    if (limit == (real)INFINITY)
        return;
    for (ptrdiff_t k = 0; k < n; k++)
        z[k] = z[k] < -limit ? -limit : z[k] > limit ? limit : z[k];
}

/* i, f, g (H each, one after another) of one row's pre-activations, and c from them. */
static void KERNEL(variant_state)(real *gates, real *c, const real *z, const real *c_prev,
                                  ptrdiff_t hidden, const variant *it)
{
    real *i = gates, *f = gates + hidden, *g = gates + 2 * hidden;
    KERNEL(activate)(i, z, hidden, it->kind[0], it->alpha[0], it->beta[0]);
    if (it->input_forget)
        for (ptrdiff_t k = 0; k < hidden; k++)
            f[k] = 1 - i[k];
    else
        KERNEL(activate)(f, z + hidden, hidden, it->kind[0], it->alpha[0], it->beta[0]);
    KERNEL(activate)(g, z + 2 * hidden, hidden, it->kind[1], it->alpha[1], it->beta[1]);
    for (ptrdiff_t k = 0; k < hidden; k++)
        c[k] = f[k] * c_prev[k] + i[k] * g[k];
}

/* What of c goes through the last activation: c, or c normalised, times gain, plus bias. */
static void KERNEL(variant_seen)(real *seen, real *normal, real *scale, const real *c,
                                 ptrdiff_t hidden, const variant *it)
{
    if (it->gain_c == NULL) {
        memcpy(seen, c, (size_t)hidden * sizeof(real));
        return;
    }
    KERNEL(normalize)(normal, scale, c, 1, hidden);
    for (ptrdiff_t k = 0; k < hidden; k++)
        seen[k] = normal[k] * it->gain_c[k] + it->bias_c[k];
}

static void KERNEL(variant_forward_row)(real *h, real *c, real *z, const real *c_prev,
                                        real *scratch, ptrdiff_t hidden, const variant *it)
{
    real *o = scratch, *seen = scratch + hidden, *normal = scratch + 2 * hidden, scale;
    real *z_o = z + 3 * hidden;
    const real *p = it->peepholes;
    if (p != NULL)
        for (ptrdiff_t k = 0; k < hidden; k++) {
            z[k] += p[k] * c_prev[k];
            z[hidden + k] += p[hidden + k] * c_prev[k];
        }
    KERNEL(clip)(z, 3 * hidden, it->clip);
    KERNEL(variant_state)(scratch, c, z, c_prev, hidden, it);
    if (p != NULL)
        for (ptrdiff_t k = 0; k < hidden; k++)
            z_o[k] += p[2 * hidden + k] * c[k];
    KERNEL(clip)(z_o, hidden, it->clip);
    KERNEL(activate)(o, z_o, hidden, it->kind[0], it->alpha[0], it->beta[0]);
    KERNEL(variant_seen)(seen, normal, &scale, c, hidden, it);
    KERNEL(activate)(seen, seen, hidden, it->kind[2], it->alpha[2], it->beta[2]);
    for (ptrdiff_t k = 0; k < hidden; k++)
        h[k] = o[k] * seen[k];
}

static void KERNEL(variant_forward)(real *h, real *c, real *z, const real *c_prev, real *scratch,
                                    ptrdiff_t rows, ptrdiff_t hidden, ptrdiff_t ld_h,
                                    const variant *it)
{
    assert(rows >= 0 && hidden >= 1 && (rows <= 1 || ld_h >= hidden));
    for (ptrdiff_t row = 0; row < rows; row++)
        KERNEL(variant_forward_row)(h + row * ld_h, c + row * hidden, z + row * 4 * hidden,
                                    c_prev + row * hidden, scratch, hidden, it);
}

/* From dL/dy to dL/dz, where y = activation(clipped z): nothing flows through a clipped one. */
static void KERNEL(through_gate)(real *d, const real *z, const real *y, ptrdiff_t hidden, int slot,
                                 const variant *it)
{
    KERNEL(times_slope)(d, z, y, hidden, it->kind[slot], it->alpha[slot], it->beta[slot]);
    for (ptrdiff_t k = 0; k < hidden; k++)
        d[k] = z[k] <= -it->clip || z[k] >= it->clip ? 0 : d[k];
}

static void KERNEL(variant_backward_row)(real *z, real *d_c, const real *d_h, const real *c_prev,
                                         real *sums, real *scratch, ptrdiff_t hidden,
                                         const variant *it)
{
    size_t width = (size_t)hidden * sizeof(real);
    real *i = scratch, *f = i + hidden, *g = f + hidden, *o = g + hidden, *c = o + hidden;
    real *normal = c + hidden, *seen = normal + hidden, *t = seen + hidden;
    real *d = t + hidden, *d_i = d, *d_f = d_i + hidden, *d_g = d_f + hidden, *d_o = d_g + hidden;
    real *d_seen = d_o + hidden, *z_o = z + 3 * hidden, scale;
    const real *p = it->peepholes;
    KERNEL(variant_state)(scratch, c, z, c_prev, hidden, it);
    KERNEL(activate)(o, z_o, hidden, it->kind[0], it->alpha[0], it->beta[0]);
    KERNEL(variant_seen)(seen, normal, &scale, c, hidden, it);
    KERNEL(activate)(t, seen, hidden, it->kind[2], it->alpha[2], it->beta[2]);
    for (ptrdiff_t k = 0; k < hidden; k++) {
        d_o[k] = d_h[k] * t[k];
        d_seen[k] = d_h[k] * o[k];
    }
    KERNEL(times_slope)(d_seen, seen, t, hidden, it->kind[2], it->alpha[2], it->beta[2]);
    if (it->gain_c != NULL) {
        for (ptrdiff_t k = 0; k < hidden; k++)
            sums[3 * hidden + k] = d_seen[k] * normal[k];
        memcpy(sums + 4 * hidden, d_seen, width);
        KERNEL(normalize_back)(d_seen, d_seen, it->gain_c, normal, &scale, 1, hidden);
    }
    KERNEL(through_gate)(d_o, z_o, o, hidden, 0, it);
    for (ptrdiff_t k = 0; k < hidden; k++)
        d_c[k] += d_seen[k];
    if (p != NULL)
        for (ptrdiff_t k = 0; k < hidden; k++) {
            sums[2 * hidden + k] = d_o[k] * c[k];
            d_c[k] += d_o[k] * p[2 * hidden + k];
        }
    for (ptrdiff_t k = 0; k < hidden; k++) {
        real through_f = d_c[k] * c_prev[k];
        d_i[k] = d_c[k] * g[k] - (it->input_forget ? through_f : 0);
        d_f[k] = it->input_forget ? 0 : through_f;
        d_g[k] = d_c[k] * i[k];
        d_c[k] *= f[k];
    }
    KERNEL(through_gate)(d_i, z, i, hidden, 0, it);
    if (!it->input_forget)
        KERNEL(through_gate)(d_f, z + hidden, f, hidden, 0, it);
    KERNEL(through_gate)(d_g, z + 2 * hidden, g, hidden, 1, it);
    if (p != NULL)
        for (ptrdiff_t k = 0; k < hidden; k++) {
            sums[k] = d_i[k] * c_prev[k];
            sums[hidden + k] = d_f[k] * c_prev[k];
            d_c[k] += d_i[k] * p[k] + d_f[k] * p[hidden + k];
        }
    memcpy(z, d, 4 * width);
}

static void KERNEL(variant_backward)(real *z, real *d_c, const real *d_h, const real *c_prev,
                                     real *sums, real *scratch, ptrdiff_t rows, ptrdiff_t hidden,
                                     const variant *it)
{
    assert(rows >= 0 && hidden >= 1);
    assert(sums != NULL || (it->peepholes == NULL && it->gain_c == NULL));
    for (ptrdiff_t row = 0; row < rows; row++) {
        ptrdiff_t at = row * hidden;
        KERNEL(variant_backward_row)(z + 4 * at, d_c + at, d_h + at, c_prev + at,
                                     sums != NULL ? sums + 5 * at : NULL, scratch, hidden, it);
    }
}
