/* Tests of the general cell for one real type: its activations one by one, whole steps forward and
 * backward with random options, and normalisation, against the formulas in the next wider type.
 * Compiled once per FASTLSTM_REAL. */
#include <stdio.h>
#include <string.h>

#include "driver.h"

enum { LONGEST = 35, MOST_ROWS = 4, UNITS = LONGEST * MOST_ROWS };

typedef TYPED(fastlstm_variant) variant;

/* A cell with its inputs, which a run replaces by what the kernel leaves. The gates of row r stand
 * at 4*r*hidden, sums at 5*r*hidden, all else at r*hidden. */
typedef struct {
    ptrdiff_t rows, hidden;
    variant options; /* its pointers are set when it is run */
    int has_peepholes, is_normalized;
    real peepholes[3 * LONGEST], gain_c[LONGEST], bias_c[LONGEST];
    real z[4 * UNITS], c_prev[UNITS], c[UNITS], h[UNITS]; /* forward */
    real d_c[UNITS], d_h[UNITS], sums[5 * UNITS];         /* backward, with z and c_prev */
} cell;

typedef struct {
    const fastlstm_isa *isa;
    enum placement placement;
    ptrdiff_t gap; /* between the rows of h */
} call;

static const char *const names[] = {
    "sigmoid",     "tanh",         "affine", "relu",     "leaky_relu", "thresholded_relu",
    "scaled_tanh", "hard_sigmoid", "elu",    "softsign", "softplus"};

static size_t bytes_of(ptrdiff_t elements)
{
    return (size_t)elements * sizeof(real);
}

static wide magnitude(wide x)
{
    return WIDE(fabs)(x);
}

/* The relative error of one rounding, and the oracle's own where it has no bits to spare. */
static wide rounding(void)
{
    return wide_is_wider() ? (wide)EPSILON : 8 * (wide)EPSILON;
}

/* ------------------------------------------------------------------------- running a kernel -- */

/* Buffers of one run, in the order in which they were made. */
typedef struct {
    real *buffer[12];
    const real *values[12]; /* of an input that must stay as it is */
    ptrdiff_t elements[12];
    int count;
} buffers;

static real *place(buffers *all, const real *values, ptrdiff_t elements, int is_input,
                   const call *how)
{
    real *buffer = fenced_alloc(bytes_of(elements), how->placement);
    memset(buffer, 0xFF, bytes_of(elements)); /* a NaN, for what is written before it is read */
    if (values != NULL && elements > 0)
        memcpy(buffer, values, bytes_of(elements));
    all->buffer[all->count] = buffer;
    all->values[all->count] = is_input ? values : NULL;
    all->elements[all->count++] = elements;
    return buffer;
}

static void release(buffers *all, const call *how)
{
    while (all->count-- > 0) {
        const real *values = all->values[all->count];
        size_t bytes = bytes_of(all->elements[all->count]);
        check(values == NULL || bytes == 0 || memcmp(values, all->buffer[all->count], bytes) == 0,
              "f%d %s variant: input %d was written to", FASTLSTM_REAL, how->isa->name, all->count);
        fenced_free(all->buffer[all->count], "variant");
    }
}

static variant options_of(const cell *it, buffers *all, const call *how)
{
    variant options = it->options;
    options.peepholes = NULL;
    options.gain_c = options.bias_c = NULL;
    if (it->has_peepholes)
        options.peepholes = place(all, it->peepholes, 3 * it->hidden, 1, how);
    if (it->is_normalized) {
        options.gain_c = place(all, it->gain_c, it->hidden, 1, how);
        options.bias_c = place(all, it->bias_c, it->hidden, 1, how);
    }
    return options;
}

static void run_forward(cell *it, const call *how)
{
    buffers all = {.count = 0};
    ptrdiff_t units = it->rows * it->hidden, ld_h = it->hidden + how->gap;
    variant options = options_of(it, &all, how);
    real *z = place(&all, it->z, 4 * units, 0, how), *c = place(&all, NULL, units, 0, how);
    real *c_prev = place(&all, it->c_prev, units, 1, how);
    real *h = place(&all, NULL, it->rows > 0 ? it->rows * ld_h - how->gap : 0, 0, how);
    real *scratch = place(&all, NULL, FASTLSTM_VARIANT_SCRATCH * it->hidden, 0, how);
    how->isa->TABLE.variant_forward(h, c, z, c_prev, scratch, it->rows, it->hidden, ld_h, &options);
    memcpy(it->z, z, bytes_of(4 * units));
    memcpy(it->c, c, bytes_of(units));
    long touched = 0;
    for (ptrdiff_t row = 0; row < it->rows; row++) {
        memcpy(it->h + row * it->hidden, h + row * ld_h, bytes_of(it->hidden));
        for (ptrdiff_t k = it->hidden; k < ld_h && row < it->rows - 1; k++)
            touched += to_bits(h[row * ld_h + k]) != (bits_t)-1;
    }
    check(touched == 0, "f%d %s variant: %ld elements between rows were touched", FASTLSTM_REAL,
          how->isa->name, touched);
    release(&all, how);
}

static void run_backward(cell *it, const call *how)
{
    buffers all = {.count = 0};
    ptrdiff_t units = it->rows * it->hidden;
    variant options = options_of(it, &all, how);
    int has_sums = it->has_peepholes || it->is_normalized;
    real *z = place(&all, it->z, 4 * units, 0, how), *d_c = place(&all, it->d_c, units, 0, how);
    real *d_h = place(&all, it->d_h, units, 1, how);
    real *c_prev = place(&all, it->c_prev, units, 1, how);
    real *sums = has_sums ? place(&all, NULL, 5 * units, 0, how) : NULL;
    real *scratch = place(&all, NULL, FASTLSTM_VARIANT_SCRATCH * it->hidden, 0, how);
    how->isa->TABLE.variant_backward(z, d_c, d_h, c_prev, sums, scratch, it->rows, it->hidden,
                                     &options);
    memcpy(it->z, z, bytes_of(4 * units));
    memcpy(it->d_c, d_c, bytes_of(units));
    memset(it->sums, 0xFF, sizeof it->sums);
    if (has_sums)
        memcpy(it->sums, sums, bytes_of(5 * units));
    release(&all, how);
}

/* ------------------------------------------------------------------------------ activations -- */

static wide activation(int kind, wide x, wide alpha, wide beta)
{
    wide largest = from_bits(to_bits((real)INFINITY) - 1);
    switch (kind) {
    case FASTLSTM_SIGMOID:
        return wide_sigmoid(x);
    case FASTLSTM_TANH:
        return wide_tanh(x);
    case FASTLSTM_AFFINE:
        return alpha * x + beta;
    case FASTLSTM_RELU:
        return x < 0 ? 0 : x;
    case FASTLSTM_LEAKY_RELU:
        return x < 0 ? alpha * x : x;
    case FASTLSTM_THRESHOLDED_RELU:
        return x <= alpha ? 0 : x;
    case FASTLSTM_SCALED_TANH:
        return alpha * wide_tanh(beta * x);
    case FASTLSTM_HARD_SIGMOID: {
        wide y = alpha * x + beta;
        return y < 0 ? 0 : y > 1 ? 1 : y;
    }
    case FASTLSTM_ELU:
        return x < 0 ? alpha * WIDE(expm1)(x) : x;
    case FASTLSTM_SOFTSIGN: /* not isinf, which valgrind gets wrong for a long double */
        return magnitude(x) > largest ? (x < 0 ? -1 : 1) : x / (1 + magnitude(x));
    default:
        return x > 0 ? x + WIDE(log1p)(WIDE(exp)(-x)) : WIDE(log1p)(WIDE(exp)(x));
    }
}

static wide slope(int kind, wide x, wide alpha, wide beta)
{
    wide y = activation(kind, x, alpha, beta), below = 1 + magnitude(x);
    switch (kind) {
    case FASTLSTM_SIGMOID:
        return y * wide_sigmoid(-x);
    case FASTLSTM_TANH:
        return (1 - y) * (1 + y);
    case FASTLSTM_AFFINE:
        return alpha;
    case FASTLSTM_RELU:
        return x > 0;
    case FASTLSTM_LEAKY_RELU:
        return x < 0 ? alpha : 1;
    case FASTLSTM_THRESHOLDED_RELU:
        return x > alpha;
    case FASTLSTM_SCALED_TANH: {
        wide t = wide_tanh(beta * x);
        return alpha * beta * (1 - t) * (1 + t);
    }
    case FASTLSTM_HARD_SIGMOID:
        return y > 0 && y < 1 ? alpha : 0;
    case FASTLSTM_ELU:
        return x < 0 ? alpha * WIDE(exp)(x) : 1;
    case FASTLSTM_SOFTSIGN:
        return 1 / below / below;
    default:
        return wide_sigmoid(x);
    }
}

/* How wrong y may be, to first order: roundings, libm's last place, and what sigmoid and tanh of
 * activations.h may be off (an ulp is up to two roundings). */
static wide activation_error(int kind, wide x, wide y, wide alpha, wide beta)
{
    wide u = rounding(), t = wide_tanh(beta * x);
    switch (kind) {
    case FASTLSTM_SIGMOID:
        return 2 * (wide)SIGMOID_BOUND * u * magnitude(y);
    case FASTLSTM_TANH:
        return 2 * (wide)TANH_BOUND * u * magnitude(y);
    case FASTLSTM_AFFINE:
    case FASTLSTM_HARD_SIGMOID:
        return u * (magnitude(alpha * x) + magnitude(alpha * x + beta));
    case FASTLSTM_SCALED_TANH:
        return u * magnitude(alpha) *
               (magnitude(beta * x) * (1 - t * t) + (1 + 2 * (wide)TANH_BOUND) * magnitude(t));
    default:
        return 5 * u * magnitude(y);
    }
}

static wide slope_error(int kind, wide x, wide y, wide alpha, wide beta)
{
    wide u = rounding(), t = wide_tanh(beta * x), own = slope(kind, x, alpha, beta);
    wide error = activation_error(kind, x, y, alpha, beta);
    switch (kind) {
    case FASTLSTM_SIGMOID:
        return error * magnitude(1 - 2 * y) + 3 * u * own;
    case FASTLSTM_TANH:
        return 2 * error * magnitude(y) + 3 * u * own;
    case FASTLSTM_SCALED_TANH:
        error = u * (2 * magnitude(t) + magnitude(beta * x) * (1 - t * t));
        return magnitude(alpha * beta) * (2 * error * magnitude(t) + 5 * u * (1 - t * t));
    case FASTLSTM_ELU:
        return x < 0 ? error + u * magnitude(own) : 0;
    default:
        return 6 * u * magnitude(own);
    }
}

static int meets(real got, wide want, wide error)
{
    if (want != want)
        return got != got;
    return got == (real)want || magnitude((wide)got - want) <= error + 4 * (wide)from_bits(1);
}

/* A cell whose h is an activation of c_prev, and whose d_c is its slope: i = f = o = 1, g = 0. */
static cell bare_activation(int kind, real alpha, real beta, ptrdiff_t hidden)
{
    cell it = {.rows = 1, .hidden = hidden};
    it.options.kind[0] = it.options.kind[1] = FASTLSTM_AFFINE;
    it.options.kind[2] = kind;
    it.options.beta[0] = 1;
    it.options.alpha[2] = alpha;
    it.options.beta[2] = beta;
    it.options.clip = (real)INFINITY;
    return it;
}

/* Values and slopes at some points; those at a kink, to rounding, are left out. */
static void check_activation(int kind, real alpha, real beta, const real *x, ptrdiff_t n,
                             const call *how)
{
    cell it = bare_activation(kind, alpha, beta, n);
    memcpy(it.c_prev, x, bytes_of(n));
    cell back = it;
    for (ptrdiff_t k = 0; k < n; k++)
        back.d_h[k] = 1;
    run_forward(&it, how);
    run_backward(&back, how);
    for (ptrdiff_t k = 0; k < n; k++) {
        wide y = activation(kind, x[k], alpha, beta), line = alpha * (wide)x[k] + beta;
        check(meets(it.h[k], y, activation_error(kind, x[k], y, alpha, beta)),
              "f%d %s %s(%.17g) is %.17g, not %.17g", FASTLSTM_REAL, how->isa->name, names[kind],
              (double)x[k], (double)it.h[k], (double)y);
        wide from_kink = magnitude(line) < magnitude(line - 1) ? line : line - 1;
        if (x[k] != x[k] ||
            (kind == FASTLSTM_HARD_SIGMOID && magnitude(from_kink) < 8 * rounding()))
            continue;
        check(meets(back.d_c[k], slope(kind, x[k], alpha, beta),
                    slope_error(kind, x[k], y, alpha, beta)),
              "f%d %s: the slope of %s at %.17g is %.17g, not %.17g", FASTLSTM_REAL,
              how->isa->name, names[kind], (double)x[k], (double)back.d_c[k],
              (double)slope(kind, x[k], alpha, beta));
    }
}

/* Where it bends, far out, and close to 0 down to the subnormals; infinite, and NaN. */
static void test_activation(int kind, const call *how)
{
    static const real alphas[] = {1, (real)0.3, (real)-0.4, 2}, betas[] = {0, (real)0.5, 1, -1};
    real inf = (real)INFINITY, least = from_bits(1), x[LONGEST];
    const real special[] = {
        0, -(real)0, 1, -1, least, -least, (real)1e-30, (real)-1e-30, (real)1e30, (real)-1e30,
        inf, -inf, (real)NAN, from_bits(to_bits(inf) - 1), -from_bits(to_bits(inf) - 1), 100, -100,
        800, -800, (real)ldexp(1, MIN_EXPONENT), (real)-ldexp(1, MIN_EXPONENT)};
    enum { SPECIAL = sizeof special / sizeof special[0] };
    /* An infinite x times 0, or minus infinity, is a NaN, and rightly so: beta is not 0 then. */
    for (int a = 0; a < 4; a++) {
        int zero_times = kind == FASTLSTM_SCALED_TANH && betas[a] == 0;
        check_activation(kind, alphas[a], zero_times ? (real)0.7 : betas[a], special, SPECIAL, how);
        for (int round = 0; round < 20; round++) {
            static const double reach[] = {1, 4, 12, 100, 1e-3};
            double most = reach[round % 5];
            for (ptrdiff_t k = 0; k < LONGEST; k++)
                x[k] = (real)random_uniform(-most, most);
            check_activation(kind, alphas[a], betas[a], x, 1 + (round * 7) % LONGEST, how);
        }
    }
}

/* None of these makes a NaN of what is infinite or very large. */
static void test_no_nan_far_out(const call *how)
{
    real far[] = {(real)INFINITY, -(real)INFINITY, (real)1e30, (real)-1e30};
    for (int kind = 0; kind < FASTLSTM_ACTIVATIONS; kind++) {
        cell it = bare_activation(kind, (real)0.5, (real)0.5, 4);
        memcpy(it.c_prev, far, sizeof far);
        cell back = it;
        for (int k = 0; k < 4; k++)
            back.d_h[k] = 1;
        run_forward(&it, how);
        run_backward(&back, how);
        for (int k = 0; k < 4; k++)
            check(it.h[k] == it.h[k] && back.d_c[k] == back.d_c[k],
                  "f%d %s %s(%g) is %g, its slope %g", FASTLSTM_REAL, how->isa->name, names[kind],
                  (double)far[k], (double)it.h[k], (double)back.d_c[k]);
    }
}

/* --------------------------------------------------------------------------- the whole cell -- */

typedef struct {
    wide z[4 * UNITS], c[UNITS], h[UNITS];              /* forward */
    wide d_z[4 * UNITS], d_c[UNITS], sums[5 * UNITS];   /* backward */
    wide tolerance[MOST_ROWS];                          /* of all that belongs to a row */
} targets;

/* What one row of a cell consists of, of its own z or of a given one. */
typedef struct {
    wide i[LONGEST], f[LONGEST], g[LONGEST], o[LONGEST], c[LONGEST];
    wide normal[LONGEST], scale, seen[LONGEST], t[LONGEST];
} parts;

static wide clipped(wide z, const cell *it)
{
    wide limit = it->options.clip;
    return z < -limit ? -limit : z > limit ? limit : z;
}

static wide gate_of(const cell *it, int slot, wide x)
{
    return activation(it->options.kind[slot], x, it->options.alpha[slot], it->options.beta[slot]);
}

/* i, f, g and c of pre-activations z that are ready; what of c is seen. */
static void fill_parts(parts *to, const cell *it, const wide *z, const real *c_prev)
{
    ptrdiff_t H = it->hidden;
    wide mean = 0, variance = 0;
    for (ptrdiff_t k = 0; k < H; k++) {
        to->i[k] = gate_of(it, 0, z[k]);
        to->f[k] = it->options.input_forget ? 1 - to->i[k] : gate_of(it, 0, z[H + k]);
        to->g[k] = gate_of(it, 1, z[2 * H + k]);
        to->c[k] = to->f[k] * c_prev[k] + to->i[k] * to->g[k];
        mean += to->c[k] / (wide)H;
    }
    for (ptrdiff_t k = 0; k < H; k++)
        variance += (to->c[k] - mean) * (to->c[k] - mean) / (wide)H;
    to->scale = 1 / WIDE(sqrt)(variance + (wide)1e-5);
    for (ptrdiff_t k = 0; k < H; k++) {
        to->normal[k] = (to->c[k] - mean) * to->scale;
        to->seen[k] = it->is_normalized ? it->gain_c[k] * to->normal[k] + it->bias_c[k] : to->c[k];
        to->t[k] = gate_of(it, 2, to->seen[k]);
    }
}

static wide larger(wide a, wide b)
{
    return a > magnitude(b) ? a : magnitude(b);
}

/* Inputs are of order 1, and so are the terms of all sums but for these factors. */
static wide tolerance_of_row(const cell *it, const parts *of)
{
    wide most = 1, amplified = it->is_normalized ? 1 + of->scale : 1;
    for (ptrdiff_t k = 0; k < it->hidden; k++)
        most = larger(larger(larger(larger(most, of->c[k]), of->i[k]), of->g[k]), of->t[k]);
    return 250 * rounding() * most * most * amplified * amplified;
}

static void expect_forward_row(targets *want, const cell *it, ptrdiff_t row)
{
    static parts of;
    ptrdiff_t H = it->hidden;
    const real *z = it->z + 4 * row * H, *p = it->peepholes, *c_prev = it->c_prev + row * H;
    wide *ready = want->z + 4 * row * H;
    for (ptrdiff_t k = 0; k < 4 * H; k++) {
        int gate = (int)(k / H);
        wide peep = it->has_peepholes && gate < 2 ? (wide)p[k] * c_prev[k % H] : 0;
        ready[k] = clipped(z[k] + peep, it);
    }
    fill_parts(&of, it, ready, c_prev);
    for (ptrdiff_t k = 0; k < H; k++) {
        wide peep = it->has_peepholes ? p[2 * H + k] * of.c[k] : 0;
        ready[3 * H + k] = clipped(z[3 * H + k] + peep, it);
        of.o[k] = gate_of(it, 0, ready[3 * H + k]);
        want->c[row * H + k] = of.c[k];
        want->h[row * H + k] = of.o[k] * of.t[k];
    }
    want->tolerance[row] = tolerance_of_row(it, &of);
}

/* dL/dz of one that is clipped is 0. */
static wide through_gate(const cell *it, int slot, wide d, wide z)
{
    wide limit = it->options.clip;
    if (z <= -limit || z >= limit)
        return 0;
    return d * slope(it->options.kind[slot], z, it->options.alpha[slot], it->options.beta[slot]);
}

/* dL/dc through the last activation and the normalisation before it: into d_seen. */
static void expect_seen(wide *d_seen, const cell *it, const parts *of, const real *d_h, wide *sums)
{
    ptrdiff_t H = it->hidden;
    wide mean = 0, along = 0;
    for (ptrdiff_t k = 0; k < H; k++) {
        d_seen[k] = d_h[k] * of->o[k] *
                    slope(it->options.kind[2], of->seen[k], it->options.alpha[2],
                          it->options.beta[2]);
        if (!it->is_normalized)
            continue;
        sums[3 * H + k] = d_seen[k] * of->normal[k];
        sums[4 * H + k] = d_seen[k];
        d_seen[k] *= it->gain_c[k];
        mean += d_seen[k] / (wide)H;
        along += d_seen[k] * of->normal[k] / (wide)H;
    }
    for (ptrdiff_t k = 0; k < H && it->is_normalized; k++)
        d_seen[k] = of->scale * (d_seen[k] - mean - of->normal[k] * along);
}

static void expect_backward_row(targets *want, const cell *it, ptrdiff_t row)
{
    static parts of;
    static wide z[4 * LONGEST], d_seen[LONGEST];
    ptrdiff_t H = it->hidden;
    const real *p = it->peepholes, *c_prev = it->c_prev + row * H;
    wide *d_z = want->d_z + 4 * row * H, *sums = want->sums + 5 * row * H;
    for (ptrdiff_t k = 0; k < 4 * H; k++)
        z[k] = it->z[4 * row * H + k];
    fill_parts(&of, it, z, c_prev);
    for (ptrdiff_t k = 0; k < H; k++)
        of.o[k] = gate_of(it, 0, z[3 * H + k]);
    expect_seen(d_seen, it, &of, it->d_h + row * H, sums);
    for (ptrdiff_t k = 0; k < H; k++) {
        wide *d_i = d_z + k, *d_f = d_i + H, *d_g = d_f + H, *d_o = d_g + H;
        *d_o = through_gate(it, 0, it->d_h[row * H + k] * of.t[k], z[3 * H + k]);
        wide d_c = it->d_c[row * H + k] + d_seen[k] + (it->has_peepholes ? *d_o * p[2 * H + k] : 0);
        wide d_kept = d_c * c_prev[k], coupled = it->options.input_forget ? d_kept : 0;
        *d_i = through_gate(it, 0, d_c * of.g[k] - coupled, z[k]);
        *d_f = it->options.input_forget ? 0 : through_gate(it, 0, d_kept, z[H + k]);
        *d_g = through_gate(it, 1, d_c * of.i[k], z[2 * H + k]);
        want->d_c[row * H + k] = d_c * of.f[k];
        if (!it->has_peepholes)
            continue;
        want->d_c[row * H + k] += *d_i * p[k] + *d_f * p[H + k];
        sums[k] = *d_i * c_prev[k];
        sums[H + k] = *d_f * c_prev[k];
        sums[2 * H + k] = *d_o * of.c[k];
    }
    want->tolerance[row] = tolerance_of_row(it, &of);
}

static void check_row(const real *got, const wide *want, wide tolerance, ptrdiff_t n,
                      const char *what, const cell *it, const call *how)
{
    for (ptrdiff_t k = 0; k < n; k++)
        if (!meets(got[k], want[k], tolerance * (1 + magnitude(want[k])))) {
            const int *kind = it->options.kind;
            check(0, "f%d %s variant (%s, %s, %s, %d%d%d), %td units: %s[%td] is %.17g, not %.17g",
                  FASTLSTM_REAL, how->isa->name, names[kind[0]], names[kind[1]], names[kind[2]],
                  it->options.input_forget, it->has_peepholes, it->is_normalized, it->hidden, what,
                  k, (double)got[k], (double)want[k]);
            return;
        }
    check(1, "%s", what);
}

static void check_values(const cell *in, const cell *out, int is_backward, const call *how)
{
    static targets want;
    ptrdiff_t H = in->hidden;
    for (ptrdiff_t row = 0; row < in->rows; row++) {
        ptrdiff_t at = row * H;
        (is_backward ? expect_backward_row : expect_forward_row)(&want, in, row);
        wide error = want.tolerance[row];
        if (!is_backward) {
            check_row(out->z + 4 * at, want.z + 4 * at, error, 4 * H, "z", in, how);
            check_row(out->c + at, want.c + at, error, H, "c", in, how);
            check_row(out->h + at, want.h + at, error, H, "h", in, how);
            continue;
        }
        check_row(out->z + 4 * at, want.d_z + 4 * at, error, 4 * H, "d_z", in, how);
        check_row(out->d_c + at, want.d_c + at, error, H, "d_c", in, how);
        const real *sums = out->sums + 5 * at;
        if (in->has_peepholes)
            check_row(sums, want.sums + 5 * at, error, 3 * H, "sums", in, how);
        if (in->is_normalized)
            check_row(sums + 3 * H, want.sums + 5 * at + 3 * H, error, 2 * H, "sums", in, how);
    }
}

static void fill(real *values, ptrdiff_t n, double most)
{
    for (ptrdiff_t k = 0; k < n; k++)
        values[k] = (real)random_uniform(-most, most);
}

/* Inputs of order 1, and options by the bits of a random number. */
static cell random_cell(ptrdiff_t rows, ptrdiff_t hidden)
{
    cell it = {.rows = rows, .hidden = hidden};
    uint64_t bits = random_bits();
    for (int slot = 0; slot < 3; slot++) {
        it.options.kind[slot] = (int)(random_bits() % FASTLSTM_ACTIVATIONS);
        it.options.alpha[slot] = (real)random_uniform(0.2, 1);
        it.options.beta[slot] = (real)random_uniform(0.2, 1);
    }
    if (bits & 1) { /* the plain ones, half of the time */
        it.options.kind[0] = FASTLSTM_SIGMOID;
        it.options.kind[1] = it.options.kind[2] = FASTLSTM_TANH;
    }
    it.options.input_forget = bits >> 1 & 1;
    it.options.clip = bits >> 2 & 1 ? (real)1.5 : (real)INFINITY;
    it.has_peepholes = bits >> 3 & 1;
    it.is_normalized = bits >> 4 & 1;
    fill(it.z, 4 * rows * hidden, 3);
    fill(it.c_prev, rows * hidden, 2);
    fill(it.d_c, rows * hidden, 2);
    fill(it.d_h, rows * hidden, 2);
    fill(it.peepholes, 3 * hidden, 1);
    fill(it.gain_c, hidden, 1);
    fill(it.bias_c, hidden, 1);
    return it;
}

static cell row_alone(const cell *it, ptrdiff_t row)
{
    cell one = *it;
    ptrdiff_t H = it->hidden;
    one.rows = 1;
    memcpy(one.z, it->z + 4 * row * H, bytes_of(4 * H));
    memcpy(one.c_prev, it->c_prev + row * H, bytes_of(H));
    memcpy(one.d_c, it->d_c + row * H, bytes_of(H));
    memcpy(one.d_h, it->d_h + row * H, bytes_of(H));
    return one;
}

/* Whether two rows have not the same results, to the bit; sums also where nothing is written. */
static int row_differs(const cell *a, ptrdiff_t row_a, const cell *b, ptrdiff_t row_b,
                       int is_backward)
{
    ptrdiff_t H = a->hidden, at = row_a * H, in = row_b * H;
    int differs = memcmp(a->z + 4 * at, b->z + 4 * in, bytes_of(4 * H)) != 0;
    if (is_backward)
        return differs || memcmp(a->d_c + at, b->d_c + in, bytes_of(H)) != 0 ||
               memcmp(a->sums + 5 * at, b->sums + 5 * in, bytes_of(5 * H)) != 0;
    return differs || memcmp(a->c + at, b->c + in, bytes_of(H)) != 0 ||
           memcmp(a->h + at, b->h + in, bytes_of(H)) != 0;
}

/* sums of options that are not there are left alone. */
static void check_sums_left_alone(const cell *it, const call *how)
{
    long touched = 0;
    for (ptrdiff_t k = 0; k < 5 * it->rows * it->hidden; k++) {
        int of_peepholes = k / it->hidden % 5 < 3;
        if (!(of_peepholes ? it->has_peepholes : it->is_normalized))
            touched += to_bits(it->sums[k]) != (bits_t)-1;
    }
    check(touched == 0, "f%d %s variant: %ld sums of options that are not there", FASTLSTM_REAL,
          how->isa->name, touched);
}

/* The values; and the same bits for a row alone, on every placement, with gaps between rows. */
static void test_pass(int is_backward, const cell *in, call how)
{
    void (*run)(cell *, const call *) = is_backward ? run_backward : run_forward;
    cell want = *in;
    run(&want, &how);
    check_values(in, &want, is_backward, &how);
    if (is_backward)
        check_sums_left_alone(&want, &how);
    long differ = 0;
    for (ptrdiff_t row = 0; row < in->rows; row++) {
        cell alone = row_alone(in, row);
        run(&alone, &how);
        differ += row_differs(&alone, 0, &want, row, is_backward);
    }
    for (int k = 1; k < 2 * PLACEMENTS; k++) {
        how.placement = (enum placement)(k % PLACEMENTS);
        how.gap = k / PLACEMENTS * 3;
        cell again = *in;
        run(&again, &how);
        for (ptrdiff_t row = 0; row < in->rows; row++)
            differ += row_differs(&again, row, &want, row, is_backward);
    }
    check(differ == 0, "f%d %s variant, %td rows of %td: %ld rows depend on their place",
          FASTLSTM_REAL, how.isa->name, in->rows, in->hidden, differ);
}

static void test_cells(const call *how, ptrdiff_t cases)
{
    for (ptrdiff_t number = 0; number < cases; number++) {
        ptrdiff_t rows = number % (MOST_ROWS + 1), hidden = 1 + number / 3 % LONGEST;
        cell it = random_cell(rows, hidden);
        test_pass(0, &it, *how);
        run_forward(&it, how); /* z as it leaves it */
        test_pass(1, &it, *how);
    }
}

/* What is NaN in a row's inputs touches no bit of another row, and in its own row makes its unit's
 * results NaN, or, normalised, h of all units. */
static void test_nan(const call *how)
{
    enum { ROWS = 3, HIDDEN = 19, INPUTS = 5 };
    for (int number = 0; number < 60; number++) {
        cell in = random_cell(ROWS, HIDDEN);
        in.options.kind[0] = FASTLSTM_SIGMOID;
        in.options.kind[1] = in.options.kind[2] = FASTLSTM_TANH;
        cell clean = in, poisoned = in;
        ptrdiff_t row = number % ROWS, k = (ptrdiff_t)(random_bits() % HIDDEN);
        int at = number % INPUTS;
        if (at == 4)
            poisoned.c_prev[row * HIDDEN + k] = (real)NAN;
        else
            poisoned.z[(4 * row + at) * HIDDEN + k] = (real)NAN;
        run_forward(&clean, how);
        run_forward(&poisoned, how);
        long spread = 0;
        for (ptrdiff_t other = 0; other < ROWS; other++)
            spread += other != row && row_differs(&poisoned, other, &clean, other, 0);
        check(spread == 0, "f%d %s variant: a NaN spreads to %ld rows", FASTLSTM_REAL,
              how->isa->name, spread);
        if (at == 1 && in.options.input_forget)
            continue; /* what f would be has no effect */
        const real *h = poisoned.h + row * HIDDEN;
        long finite = h[k] == h[k];
        for (ptrdiff_t unit = 0; unit < HIDDEN; unit++)
            finite += in.is_normalized && at != 3 && h[unit] == h[unit];
        check(finite == 0, "f%d %s variant: a NaN is lost in %ld units", FASTLSTM_REAL,
              how->isa->name, finite);
    }
}

/* Pre-activations of ±inf, in every combination: nothing is a NaN, forward or backward. */
static void test_infinite(const call *how)
{
    enum { HIDDEN = 32, ROWS = 4 };
    const real z[4] = {(real)INFINITY, -(real)INFINITY, 0, 3};
    for (int number = 0; number < 16; number++) {
        cell it = random_cell(ROWS, HIDDEN);
        it.options.kind[0] = FASTLSTM_SIGMOID;
        it.options.kind[1] = number & 1 ? FASTLSTM_SOFTSIGN : FASTLSTM_TANH;
        it.options.kind[2] = number & 2 ? FASTLSTM_ELU : FASTLSTM_TANH;
        for (ptrdiff_t unit = 0; unit < ROWS * HIDDEN; unit++) {
            ptrdiff_t digits = number * ROWS * HIDDEN + unit;
            real *gates = it.z + 4 * (unit - unit % HIDDEN) + unit % HIDDEN;
            for (int gate = 0; gate < 4; gate++, digits /= 4)
                gates[gate * HIDDEN] = z[digits % 4];
        }
        long not_finite = 0;
        run_forward(&it, how);
        cell back = it;
        run_backward(&back, how);
        for (ptrdiff_t unit = 0; unit < ROWS * HIDDEN; unit++)
            not_finite += !isfinite(it.c[unit]) || !isfinite(it.h[unit]) ||
                          !isfinite(back.d_c[unit]);
        for (ptrdiff_t k = 0; k < 4 * ROWS * HIDDEN; k++)
            not_finite += !isfinite(back.z[k]);
        check(not_finite == 0, "f%d %s variant: ±inf in, %ld results are not finite",
              FASTLSTM_REAL, how->isa->name, not_finite);
    }
}

/* With gates of 1 and 0, c and h are c_prev to the bit, subnormal or not, and d_c goes through. */
static void test_subnormals(const call *how)
{
    for (int bit = 0; bit <= FRACTION; bit++) {
        real x = from_bits((bits_t)1 << bit);
        cell it = bare_activation(FASTLSTM_RELU, 0, 0, 2);
        it.c_prev[0] = x;
        it.c_prev[1] = -x;
        it.d_c[0] = -x;
        cell back = it;
        run_forward(&it, how);
        run_backward(&back, how);
        check(it.c[0] == x && it.h[0] == x && it.c[1] == -x && it.h[1] == 0 && back.d_c[0] == -x,
              "f%d %s variant: %g is not carried", FASTLSTM_REAL, how->isa->name, (double)x);
    }
}

/* ---------------------------------------------------------------------------- normalisation -- */

static void check_normalized(const real *x, const real *d, const real *gain, ptrdiff_t n,
                             double offset, const call *how)
{
    buffers all = {.count = 0};
    real *in = place(&all, x, 2 * n, 1, how), *normal = place(&all, NULL, 2 * n, 0, how);
    real *scale = place(&all, NULL, 2, 0, how), *d_in = place(&all, d, 2 * n, 1, how);
    real *gains = place(&all, gain, n, 1, how), *d_x = place(&all, NULL, 2 * n, 0, how);
    real *same = place(&all, x, 2 * n, 0, how), *d_same = place(&all, d, 2 * n, 0, how);
    real *scale_again = place(&all, NULL, 2, 0, how);
    how->isa->TABLE.normalize(normal, scale, in, 2, n);
    how->isa->TABLE.normalize(same, scale_again, same, 2, n);
    how->isa->TABLE.normalize_back(d_x, d_in, gains, normal, scale, 2, n);
    how->isa->TABLE.normalize_back(d_same, d_same, gains, same, scale, 2, n);
    check(memcmp(normal, same, bytes_of(2 * n)) == 0 && memcmp(d_x, d_same, bytes_of(2 * n)) == 0,
          "f%d %s normalize: in place differs, n = %td", FASTLSTM_REAL, how->isa->name, n);
    for (ptrdiff_t row = 0; row < 2; row++) {
        wide mean = 0, variance = 0, d_mean = 0, along = 0, u = rounding();
        for (ptrdiff_t k = 0; k < n; k++)
            mean += x[row * n + k] / (wide)n;
        for (ptrdiff_t k = 0; k < n; k++)
            variance += (x[row * n + k] - mean) * (x[row * n + k] - mean) / (wide)n;
        wide s = 1 / WIDE(sqrt)(variance + (wide)1e-5);
        for (ptrdiff_t k = 0; k < n; k++) {
            wide d_k = (wide)d[row * n + k] * gain[k];
            d_mean += d_k / (wide)n;
            along += d_k * (x[row * n + k] - mean) * s / (wide)n;
        }
        /* The mean is rounded, and what is left of x without it is amplified. */
        wide error = 20 * u * (1 + s * (1 + (wide)offset)) * (1 + s * (1 + (wide)offset));
        for (ptrdiff_t k = row * n; k < (row + 1) * n; k++) {
            wide y = (x[k] - mean) * s;
            wide back = s * ((wide)d[k] * gain[k - row * n] - d_mean - y * along);
            check(meets(normal[k], y, error), "f%d %s normalize, n = %td: %.17g, not %.17g",
                  FASTLSTM_REAL, how->isa->name, n, (double)normal[k], (double)y);
            check(meets(d_x[k], back, error * s * 4),
                  "f%d %s normalize_back, n = %td: %.17g, not %.17g", FASTLSTM_REAL,
                  how->isa->name, n, (double)d_x[k], (double)back);
        }
    }
    release(&all, how);
}

static void test_normalize(call how)
{
    static const ptrdiff_t sizes[] = {1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 31, 33, 64, 70};
    real x[140], d[140], gain[70];
    for (size_t k = 0; k < sizeof sizes / sizeof sizes[0]; k++) {
        for (int p = 0; p < PLACEMENTS; p++) {
            double offset = p == 0 ? 0 : p == 1 ? 30 : -5;
            how.placement = (enum placement)p;
            fill(x, 140, 2);
            fill(d, 140, 2);
            fill(gain, 70, 2);
            for (int j = 0; j < 140; j++)
                x[j] += (real)offset;
            check_normalized(x, d, gain, sizes[k], offset < 0 ? -offset : offset, &how);
        }
        for (int j = 0; j < 140; j++)
            x[j] = 3; /* all alike: nothing is left, and 1e-5 keeps it finite */
        check_normalized(x, d, gain, sizes[k], 3, &how);
    }
    how.isa->TABLE.normalize(NULL, NULL, NULL, 0, 7);
    how.isa->TABLE.normalize_back(NULL, NULL, NULL, NULL, NULL, 0, 7);
}

void TYPED(test_variants)(const isa_list *isas, ptrdiff_t cases)
{
    for (int a = 0; a < isas->count; a++) {
        call how = {.isa = isas->isa[a], .placement = FENCE_AFTER};
        for (int kind = 0; kind < FASTLSTM_ACTIVATIONS; kind++)
            test_activation(kind, &how);
        test_no_nan_far_out(&how);
        test_cells(&how, cases);
        test_nan(&how);
        test_infinite(&how);
        test_subnormals(&how);
        test_normalize(how);
    }
}
