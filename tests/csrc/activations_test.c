/* Tests of sigmoid and tanh for one real type: accuracy against libm in the next wider type,
 * special values, tails. Compiled once per FASTLSTM_REAL. */
#include <stdio.h>

#include "driver.h"

#define BLOCK 4096
#define MANTISSA (((bits_t)1 << FRACTION) - 1)

typedef void elementwise(real *, const real *, ptrdiff_t);

typedef struct {
    const char *name;
    wide (*oracle)(wide);
    elementwise *kernel[MAX_ISAS];
    double bound, worst[MAX_ISAS], worst_to_generic[MAX_ISAS];
    real worst_at[MAX_ISAS];
    long out_of_range[MAX_ISAS], wrong_sign[MAX_ISAS], wrong_nan[MAX_ISAS];
} subject;

/* Libm is slow and half of all floats are tiny: for |x| < 2^-12 the first terms of the series are
 * closer to the truth than the wider type resolves in the narrower one (2^-70 is left over). */
static wide series_sigmoid(wide x)
{
    wide s = x * x;
    return (wide)0.5 + x * ((wide)0.25 - s / 48 * (1 - s / 10));
}

static wide oracle_sigmoid(wide x)
{
    if (x > -0x1p-12 && x < 0x1p-12)
        return series_sigmoid(x);
    return wide_sigmoid(x);
}

static wide oracle_tanh(wide x)
{
    if (x > -0x1p-12 && x < 0x1p-12)
        return x - x * x * x / 3 * (1 - x * x * 2 / 5);
    if (x > 64 || x < -64)
        return x > 0 ? 1 : -1;
    return wide_tanh(x);
}

/* 1 / (the distance between neighbouring reals at the true result) */
static wide ulps_per_unit(wide want)
{
#if FASTLSTM_REAL == 32 /* as below, from the bits: this one runs 2^32 times */
    uint64_t bits;
    memcpy(&bits, &want, sizeof bits);
    int64_t exponent = (int64_t)(bits >> 52 & 0x7FF) - 1023;
    if (exponent < MIN_EXPONENT)
        exponent = MIN_EXPONENT;
    bits = (uint64_t)(1023 + FRACTION - exponent) << 52;
    memcpy(&want, &bits, sizeof want);
    return want;
#else
    int exponent = MIN_EXPONENT + 1;
    if (want != 0)
        WIDE(frexp)(want, &exponent);
    if (exponent - 1 < MIN_EXPONENT)
        exponent = MIN_EXPONENT + 1;
    return WIDE(ldexp)(1, FRACTION - (exponent - 1));
#endif
}

/* Runs every instruction set on n <= BLOCK inputs and keeps the worst error of each. */
static void sweep_block(subject *it, int isa_count, const real *x, ptrdiff_t n)
{
    static wide want[BLOCK], scale[BLOCK];
    static real got[MAX_ISAS][BLOCK];
    for (ptrdiff_t k = 0; k < n; k++) {
        want[k] = it->oracle((wide)x[k]);
        scale[k] = ulps_per_unit(want[k]);
    }
    int is_sigmoid = it->oracle == oracle_sigmoid;
    for (int a = isa_count - 1; a >= 0; a--) {
        const real *generic = got[isa_count - 1];
        it->kernel[a](got[a], x, n);
        for (ptrdiff_t k = 0; k < n; k++) {
            real y = got[a][k];
            if (x[k] != x[k]) {
                it->wrong_nan[a] += y == y;
                continue;
            }
            double error = (double)(WIDE(fabs)((wide)y - want[k]) * scale[k]);
            double apart = (double)(WIDE(fabs)((wide)y - (wide)generic[k]) * scale[k]);
            if (!(error <= it->worst[a])) { /* also a NaN that should not be one */
                it->worst[a] = error;
                it->worst_at[a] = x[k];
            }
            if (!(apart <= it->worst_to_generic[a]))
                it->worst_to_generic[a] = apart;
            it->out_of_range[a] += !(y >= (is_sigmoid ? 0 : -1) && y <= 1);
            it->wrong_sign[a] += (signbit(y) != 0) != (!is_sigmoid && signbit(x[k]));
        }
    }
}

static void report(const subject *it, const isa_list *isas)
{
    for (int a = 0; a < isas->count; a++) {
        const char *isa = isas->isa[a]->name;
        printf("%s f%d %s: worst %.3f ulp at x = %.17g\n", it->name, FASTLSTM_REAL, isa,
               it->worst[a], (double)it->worst_at[a]);
        check(it->worst[a] <= it->bound, "%s f%d %s: off by %.3f ulp at %.17g, bound %.1f",
              it->name, FASTLSTM_REAL, isa, it->worst[a], (double)it->worst_at[a], it->bound);
        check(it->worst_to_generic[a] <= it->bound, "%s f%d %s: %.1f ulp away from generic",
              it->name, FASTLSTM_REAL, isa, it->worst_to_generic[a]);
        check(it->out_of_range[a] == 0, "%s f%d %s: %ld results out of range", it->name,
              FASTLSTM_REAL, isa, it->out_of_range[a]);
        check(it->wrong_sign[a] == 0, "%s f%d %s: %ld results of the wrong sign", it->name,
              FASTLSTM_REAL, isa, it->wrong_sign[a]);
        check(it->wrong_nan[a] == 0, "%s f%d %s: %ld NaNs lost", it->name, FASTLSTM_REAL, isa,
              it->wrong_nan[a]);
    }
}

/* Collects inputs and sweeps them a block at a time. */
static void feed(subject subjects[2], int isa_count, real x, int flush)
{
    static real inputs[BLOCK];
    static ptrdiff_t n;
    if (!flush)
        inputs[n++] = x;
    if (n == BLOCK || (flush && n > 0)) {
        for (int s = 0; s < 2; s++)
            sweep_block(&subjects[s], isa_count, inputs, n);
        n = 0;
    }
}

/* Around the edges of every exponent, both signs; this has 0, inf and NaN too. */
static void feed_edges(subject subjects[2], int isa_count)
{
    bits_t exponents = (bits_t)1 << (FASTLSTM_REAL - 1 - FRACTION);
    for (bits_t e = 0; e < exponents; e++) {
        bits_t edges[] = {0, 1, 2, MANTISSA / 2, MANTISSA / 2 + 1, MANTISSA - 1, MANTISSA};
        for (size_t k = 0; k < sizeof edges / sizeof edges[0]; k++) {
            real x = from_bits(e << FRACTION | edges[k]);
            feed(subjects, isa_count, x, 0);
            feed(subjects, isa_count, -x, 0);
        }
    }
}

#if FASTLSTM_REAL == 32
static void feed_samples(subject subjects[2], int isa_count, uint64_t stride)
{
    for (uint64_t bits = 0; bits <= UINT32_MAX; bits += stride)
        feed(subjects, isa_count, from_bits((bits_t)bits), 0);
}
#else
static void feed_samples(subject subjects[2], int isa_count, uint64_t samples)
{
    for (uint64_t k = 0; k < samples; k++) {
        feed(subjects, isa_count, random_uniform(-2, 2), 0);
        feed(subjects, isa_count, random_uniform(-45, 45), 0);
        feed(subjects, isa_count, random_uniform(-760, 760), 0);
        feed(subjects, isa_count, from_bits(random_bits()), 0); /* any exponent, NaN too */
    }
}
#endif

static void test_accuracy(const isa_list *isas, uint64_t effort)
{
    if (!wide_is_wider()) {
        printf("f%d: no wider type at run time, so no accuracy sweep here\n", FASTLSTM_REAL);
        return;
    }
    static subject subjects[2];
    subjects[0] = (subject){.name = "sigmoid", .oracle = oracle_sigmoid, .bound = SIGMOID_BOUND};
    subjects[1] = (subject){.name = "tanh", .oracle = oracle_tanh, .bound = TANH_BOUND};
    for (int a = 0; a < isas->count; a++) {
        subjects[0].kernel[a] = isas->isa[a]->TABLE.sigmoid;
        subjects[1].kernel[a] = isas->isa[a]->TABLE.tanh;
    }
    feed_edges(subjects, isas->count);
    feed_samples(subjects, isas->count, effort);
    feed(subjects, isas->count, 0, 1);
    report(&subjects[0], isas);
    report(&subjects[1], isas);
}

static void test_special_values(const fastlstm_isa *isa)
{
    real inf = (real)INFINITY, least = from_bits(1), big = from_bits(MANTISSA);
    real x[] = {inf, -inf, 0, -(real)0, least, -least, big, -big, (real)NAN, -(real)NAN};
    real s[10], t[10];
    isa->TABLE.sigmoid(s, x, 10);
    isa->TABLE.tanh(t, x, 10);
    check(s[0] == 1 && s[1] == 0, "%s f%d: sigmoid(inf, -inf)", isa->name, FASTLSTM_REAL);
    check(t[0] == 1 && t[1] == -1, "%s f%d: tanh(inf, -inf)", isa->name, FASTLSTM_REAL);
    check(s[2] == (real)0.5 && s[3] == (real)0.5, "%s f%d: sigmoid(0)", isa->name, FASTLSTM_REAL);
    for (int k = 2; k < 8; k++)
        check(to_bits(t[k]) == to_bits(x[k]), "%s f%d: tanh(%g) gives %g", isa->name,
              FASTLSTM_REAL, (double)x[k], (double)t[k]);
    for (int k = 8; k < 10; k++)
        check(s[k] != s[k] && t[k] != t[k], "%s f%d: NaN is lost", isa->name, FASTLSTM_REAL);
}

/* tanh(x) is x, to the bit, where x^2/3 is far below the last place. */
static void test_tiny(const fastlstm_isa *isa)
{
    long wrong = 0;
    real tiny = (real)ldexp(1, -FRACTION - 3);
    for (bits_t bits = 1; from_bits(bits) < tiny; bits += bits / 64 + 1) {
        real x[2] = {from_bits(bits), -from_bits(bits)}, y[2];
        isa->TABLE.tanh(y, x, 2);
        wrong += y[0] != x[0] || y[1] != x[1];
    }
    check(wrong == 0, "%s f%d: tanh(x) != x for %ld tiny x", isa->name, FASTLSTM_REAL, wrong);
}

/* Down to zero through the subnormals, sigmoid never rises and ends at 0. */
static void test_underflow(const fastlstm_isa *isa)
{
    enum { STEPS = 100000 };
    double low = FASTLSTM_REAL == 32 ? -104.5 : -747, high = FASTLSTM_REAL == 32 ? -86 : -706;
    real previous = -1;
    long falls = 0;
    for (int k = 0; k <= STEPS; k++) {
        real x = (real)(low + (high - low) * k / STEPS), y;
        isa->TABLE.sigmoid(&y, &x, 1);
        falls += y < previous || y < 0;
        if (k == 0)
            check(y == 0, "%s f%d: sigmoid(%g) is not 0", isa->name, FASTLSTM_REAL, (double)x);
        previous = y;
    }
    check(falls == 0, "%s f%d: sigmoid is not monotone near underflow", isa->name, FASTLSTM_REAL);
    check(previous > (real)ldexp(1, MIN_EXPONENT), "%s f%d: sigmoid is flushed too early",
          isa->name, FASTLSTM_REAL);
}

/* Every length up to past two vectors: nothing outside is touched, in place works, and an element
 * has the same bits wherever it stands in a vector or a tail. */
static void test_tails(const char *name, const fastlstm_isa *isa, elementwise *kernel)
{
    enum { LONGEST = 35 };
    for (ptrdiff_t n = 0; n <= LONGEST; n++) {
        for (int p = 0; p < PLACEMENTS; p++) {
            size_t bytes = (size_t)n * sizeof(real);
            real *x = fenced_alloc(bytes, (enum placement)p);
            real *y = fenced_alloc(bytes, (enum placement)p);
            long differ = 0;
            for (ptrdiff_t k = 0; k < n; k++)
                x[k] = (real)random_uniform(-6, 6);
            kernel(y, x, n);
            for (ptrdiff_t k = 0; k < n; k++) {
                real alone;
                kernel(&alone, x + k, 1);
                differ += to_bits(alone) != to_bits(y[k]);
            }
            check(differ == 0, "%s f%d %s: %ld of %td elements depend on their place", name,
                  FASTLSTM_REAL, isa->name, differ, n);
            kernel(x, x, n);
            check(n == 0 || memcmp(x, y, bytes) == 0, "%s f%d %s: in place differs, n = %td", name,
                  FASTLSTM_REAL, isa->name, n);
            fenced_free(y, name);
            fenced_free(x, name);
        }
    }
}

void TYPED(test_activations)(const isa_list *isas, uint64_t effort)
{
    for (int a = 0; a < isas->count; a++) {
        const fastlstm_isa *isa = isas->isa[a];
        test_special_values(isa);
        test_tiny(isa);
        test_underflow(isa);
        test_tails("sigmoid", isa, isa->TABLE.sigmoid);
        test_tails("tanh", isa, isa->TABLE.tanh);
    }
    test_accuracy(isas, effort);
}
