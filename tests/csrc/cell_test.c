/* Tests of the cell for one real type, forward and backward: values against libm in the next wider
 * type, buffers, aliasing, special values, and that a unit's bits depend on nothing but its inputs.
 * Compiled once per FASTLSTM_REAL. */
#include <stdio.h>
#include <string.h>

#include "driver.h"

enum { LONGEST = 35, MOST_ROWS = 5, UNITS = LONGEST * MOST_ROWS };

/* A cell with its inputs, which a run replaces by what the kernel leaves. The gates of row r stand
 * at 4*r*hidden, all else at r*hidden. */
typedef struct {
    ptrdiff_t rows, hidden;
    real gates[4 * UNITS], c_prev[UNITS], c[UNITS];
    real h[UNITS];                                /* forward */
    real d_c[UNITS], d_h[UNITS], d_output[UNITS]; /* backward */
} cell;

/* How a kernel is called. */
typedef struct {
    const fastlstm_isa *isa;
    enum placement placement;
    ptrdiff_t gap;    /* between the rows of h or d_output: elements that nobody may touch */
    int in_place;     /* forward: c is c_prev */
    int has_d_output; /* backward */
} call;

/* ------------------------------------------------------------------------- running a kernel -- */

static size_t bytes_of(ptrdiff_t elements)
{
    return (size_t)elements * sizeof(real);
}

static real *fenced_copy(const real *values, ptrdiff_t elements, enum placement placement)
{
    real *buffer = fenced_alloc(bytes_of(elements), placement);
    if (elements > 0)
        memcpy(buffer, values, bytes_of(elements));
    return buffer;
}

/* Rows `gap` elements apart, the last one without a gap behind it; each bit of the gaps is 1, which
 * is a NaN. */
static real *fenced_rows(const real *values, const cell *it, const call *how)
{
    ptrdiff_t ld = it->hidden + how->gap, used = it->rows > 0 ? it->rows * ld - how->gap : 0;
    real *buffer = fenced_alloc(bytes_of(used), how->placement);
    memset(buffer, 0xFF, bytes_of(used));
    for (ptrdiff_t row = 0; row < it->rows; row++)
        memcpy(buffer + row * ld, values + row * it->hidden, bytes_of(it->hidden));
    return buffer;
}

static void check_unchanged(const real *buffer, const real *values, ptrdiff_t elements,
                            const char *what, const call *how)
{
    check(elements == 0 || memcmp(buffer, values, bytes_of(elements)) == 0,
          "f%d %s: the input %s was written to", FASTLSTM_REAL, how->isa->name, what);
}

/* Takes the rows out, if `values` is not NULL, and looks at the gaps between them. */
static void take_rows(real *values, real *buffer, const cell *it, const call *how)
{
    ptrdiff_t ld = it->hidden + how->gap;
    long touched = 0;
    for (ptrdiff_t row = 0; row < it->rows; row++) {
        if (values != NULL)
            memcpy(values + row * it->hidden, buffer + row * ld, bytes_of(it->hidden));
        for (ptrdiff_t k = it->hidden; k < ld && row < it->rows - 1; k++)
            touched += to_bits(buffer[row * ld + k]) != (bits_t)-1;
    }
    check(touched == 0, "f%d %s: %ld elements between rows were touched", FASTLSTM_REAL,
          how->isa->name, touched);
    fenced_free(buffer, "rows");
}

static void run_forward(cell *it, const call *how)
{
    ptrdiff_t units = it->rows * it->hidden;
    real *gates = fenced_copy(it->gates, 4 * units, how->placement);
    real *c_prev = fenced_copy(it->c_prev, units, how->placement);
    real *c = how->in_place ? c_prev : fenced_alloc(bytes_of(units), how->placement);
    real *h = fenced_rows(it->h, it, how);
    how->isa->TABLE.cell_forward(h, c, gates, c_prev, it->rows, it->hidden, it->hidden + how->gap);
    if (units > 0) {
        memcpy(it->gates, gates, bytes_of(4 * units));
        memcpy(it->c, c, bytes_of(units));
    }
    take_rows(it->h, h, it, how);
    if (!how->in_place) {
        check_unchanged(c_prev, it->c_prev, units, "c_prev", how);
        fenced_free(c, "c");
    }
    fenced_free(c_prev, "c_prev");
    fenced_free(gates, "gates");
}

static void run_backward(cell *it, const call *how)
{
    ptrdiff_t units = it->rows * it->hidden;
    real *gates = fenced_copy(it->gates, 4 * units, how->placement);
    real *d_c = fenced_copy(it->d_c, units, how->placement);
    real *d_h = fenced_copy(it->d_h, units, how->placement);
    real *d_output = how->has_d_output ? fenced_rows(it->d_output, it, how) : NULL;
    real *c = fenced_copy(it->c, units, how->placement);
    real *c_prev = fenced_copy(it->c_prev, units, how->placement);
    how->isa->TABLE.cell_backward(gates, d_c, d_h, d_output, c, c_prev, it->rows, it->hidden,
                                  d_output != NULL ? it->hidden + how->gap : 0);
    if (units > 0) {
        memcpy(it->gates, gates, bytes_of(4 * units));
        memcpy(it->d_c, d_c, bytes_of(units));
    }
    check_unchanged(d_h, it->d_h, units, "d_h", how);
    check_unchanged(c, it->c, units, "c", how);
    check_unchanged(c_prev, it->c_prev, units, "c_prev", how);
    if (d_output != NULL) {
        real after[UNITS];
        take_rows(after, d_output, it, how);
        check_unchanged(after, it->d_output, units, "d_output", how);
    }
    fenced_free(c_prev, "c_prev");
    fenced_free(c, "c");
    fenced_free(d_h, "d_h");
    fenced_free(d_c, "d_c");
    fenced_free(gates, "gates");
}

/* ------------------------------------------------------------------------------- the oracle -- */

typedef struct {
    wide value, tolerance;
} target;

typedef struct {
    target gates[4 * UNITS], c[UNITS], h[UNITS], d_c[UNITS];
} targets;

/* The relative error of one rounding, and the oracle's own where it has no bits to spare. */
static wide rounding(void)
{
    return wide_is_wider() ? (wide)EPSILON : 8 * (wide)EPSILON;
}

/* The relative error of an activation; an ulp is up to two roundings. */
static wide activation_error(void)
{
    return 2 * (wide)(SIGMOID_BOUND > TANH_BOUND ? SIGMOID_BOUND : TANH_BOUND) * rounding();
}

static wide magnitude(wide x)
{
    return WIDE(fabs)(x);
}

/* Unit k of `it` forward. The tolerances follow the errors through the formulas to first order;
 * `least`, the smallest subnormal, stands for what is lost below the normal range. */
static void expect_forward_unit(targets *want, const cell *it, const call *how, ptrdiff_t row,
                                ptrdiff_t k)
{
    (void)how;
    ptrdiff_t H = it->hidden, unit = row * H + k;
    const real *z = it->gates + 4 * row * H + k;
    wide i = wide_sigmoid(z[0]), f = wide_sigmoid(z[H]), g = wide_tanh(z[2 * H]);
    wide o = wide_sigmoid(z[3 * H]), c_prev = it->c_prev[unit];
    wide c = f * c_prev + i * g, t = wide_tanh(c);
    wide u = rounding(), a = activation_error(), least = from_bits(1);
    wide c_error = (2 * a + 2 * u) * (magnitude(f * c_prev) + magnitude(i * g)) +
                   (magnitude(c_prev) + 3) * least;
    /* tanh is steepest towards 0 */
    wide t_error = magnitude(t) - wide_tanh(magnitude(c) - c_error) + a * magnitude(t) + least;
    target *gates = want->gates + 4 * row * H + k;
    gates[0] = (target){i, a * i + least};
    gates[H] = (target){f, a * f + least};
    gates[2 * H] = (target){g, a * magnitude(g) + least};
    gates[3 * H] = (target){o, a * o + least};
    want->c[unit] = (target){c, c_error};
    want->h[unit] = (target){o * t, (a + u) * magnitude(o * t) + o * t_error + 2 * least};
}

/* Unit k of `it` backward, likewise. */
static void expect_backward_unit(targets *want, const cell *it, const call *how, ptrdiff_t row,
                                 ptrdiff_t k)
{
    ptrdiff_t H = it->hidden, unit = row * H + k;
    const real *gate = it->gates + 4 * row * H + k;
    wide i = gate[0], f = gate[H], g = gate[2 * H], o = gate[3 * H], c_prev = it->c_prev[unit];
    wide dh = it->d_h[unit], t = wide_tanh(it->c[unit]), slope = (1 - t) * (1 + t);
    if (how->has_d_output)
        dh += it->d_output[unit];
    wide dc = it->d_c[unit] + dh * o * slope;
    wide u = rounding(), least = from_bits(1), t_error = activation_error() * magnitude(t) + least;
    wide dc_error = u * magnitude(dc) + 6 * u * magnitude(dh * o * slope) +
                    2 * magnitude(dh * o * t) * t_error + 2 * least;
    wide d_i = g * i * (1 - i), d_f = c_prev * f * (1 - f), d_g = i * (1 - g) * (1 + g);
    wide d_o = dh * o * (1 - o); /* times t; the others times dc */
    target *gates = want->gates + 4 * row * H + k;
    dc_error += 5 * u * magnitude(dc);
    gates[0] = (target){dc * d_i, magnitude(d_i) * dc_error + (2 + magnitude(dc * g)) * least};
    gates[H] = (target){dc * d_f, magnitude(d_f) * dc_error + (2 + magnitude(dc * c_prev)) * least};
    gates[2 * H] = (target){dc * d_g, magnitude(d_g) * dc_error + 2 * least};
    gates[3 * H] = (target){d_o * t, magnitude(d_o) * (t_error + 6 * u * magnitude(t)) +
                                         (2 + magnitude(dh * t)) * least};
    want->d_c[unit] = (target){dc * f, f * dc_error + 2 * least};
}

static int meets(real got, target want)
{
    if (want.value != want.value)
        return got != got;
    return got == (real)want.value || magnitude((wide)got - want.value) <= want.tolerance;
}

static void check_targets(const real *got, const target *want, ptrdiff_t elements,
                          const char *what, const cell *it, const call *how)
{
    ptrdiff_t wrong = 0, first = 0;
    for (ptrdiff_t k = elements - 1; k >= 0; k--) {
        if (!meets(got[k], want[k])) {
            wrong++;
            first = k;
        }
    }
    check(wrong == 0,
          "f%d %s, %td rows of %td: %td of %td wrong in %s; element %td is %.17g, not %.17g",
          FASTLSTM_REAL, how->isa->name, it->rows, it->hidden, wrong, elements, what, first,
          wrong > 0 ? (double)got[first] : 0, wrong > 0 ? (double)want[first].value : 0);
}

/* One of the two kernels, with its oracle. */
typedef struct {
    const char *name;
    void (*run)(cell *, const call *);
    void (*expect_unit)(targets *, const cell *, const call *, ptrdiff_t row, ptrdiff_t k);
    int is_backward;
} pass;

static const pass forward = {"forward", run_forward, expect_forward_unit, 0};
static const pass backward = {"backward", run_backward, expect_backward_unit, 1};

static void check_values(const cell *in, const cell *out, const pass *it, const call *how)
{
    static targets want;
    ptrdiff_t units = in->rows * in->hidden;
    for (ptrdiff_t unit = 0; unit < units; unit++)
        it->expect_unit(&want, in, how, unit / in->hidden, unit % in->hidden);
    if (it->is_backward) {
        check_targets(out->gates, want.gates, 4 * units, "d_gates", in, how);
        check_targets(out->d_c, want.d_c, units, "d_c", in, how);
    } else {
        check_targets(out->gates, want.gates, 4 * units, "gates", in, how);
        check_targets(out->c, want.c, units, "c", in, how);
        check_targets(out->h, want.h, units, "h", in, how);
    }
}

/* ------------------------------------------------------------------------------- the inputs -- */

/* Mostly where the activations bend, now and then far out or tiny. */
static real random_pre_activation(void)
{
    static const double reach[] = {1, 4, 4, 4, 12, 12, 120, 1e-5};
    double most = reach[random_bits() % 8];
    return (real)random_uniform(-most, most);
}

/* Activated gates are what backward takes; many are at their bounds or close to them. */
static cell random_cell(ptrdiff_t rows, ptrdiff_t hidden, int activated)
{
    cell it = {.rows = rows, .hidden = hidden};
    for (ptrdiff_t k = 0; k < 4 * rows * hidden; k++) {
        real z = random_pre_activation();
        int is_g = k / hidden % 4 == 2;
        it.gates[k] = !activated ? z : is_g ? (real)wide_tanh(z) : (real)wide_sigmoid(z);
    }
    for (ptrdiff_t k = 0; k < rows * hidden; k++) {
        it.c_prev[k] = random_pre_activation();
        it.c[k] = random_pre_activation();
        it.d_c[k] = random_pre_activation();
        it.d_h[k] = random_pre_activation();
        it.d_output[k] = random_pre_activation();
    }
    return it;
}

/* ------------------------------------------------------------------------------- the tests -- */

static int unit_differs(const cell *a, ptrdiff_t unit_a, const cell *b, ptrdiff_t unit_b)
{
    const real *gates_a = a->gates + 4 * (unit_a - unit_a % a->hidden) + unit_a % a->hidden;
    const real *gates_b = b->gates + 4 * (unit_b - unit_b % b->hidden) + unit_b % b->hidden;
    int differs = to_bits(a->c[unit_a]) != to_bits(b->c[unit_b]) ||
                  to_bits(a->h[unit_a]) != to_bits(b->h[unit_b]) ||
                  to_bits(a->d_c[unit_a]) != to_bits(b->d_c[unit_b]);
    for (int gate = 0; gate < 4; gate++)
        differs |= to_bits(gates_a[gate * a->hidden]) != to_bits(gates_b[gate * b->hidden]);
    return differs;
}

/* How many units of two cells of one shape have not the same results, to the bit. */
static long units_that_differ(const cell *a, const cell *b)
{
    long differ = 0;
    for (ptrdiff_t unit = 0; unit < a->rows * a->hidden; unit++)
        differ += unit_differs(a, unit, b, unit);
    return differ;
}

/* One unit of a cell, as a cell of its own. */
static cell unit_alone(const cell *it, ptrdiff_t unit)
{
    ptrdiff_t row = unit / it->hidden, k = unit % it->hidden;
    cell one = {.rows = 1, .hidden = 1};
    for (ptrdiff_t gate = 0; gate < 4; gate++)
        one.gates[gate] = it->gates[(4 * row + gate) * it->hidden + k];
    one.c_prev[0] = it->c_prev[unit];
    one.c[0] = it->c[unit];
    one.d_c[0] = it->d_c[unit];
    one.d_h[0] = it->d_h[unit];
    one.d_output[0] = it->d_output[unit];
    return one;
}

/* A unit alone leaves the same bits: neither its row, nor its place in a vector or in a tail, nor
 * its neighbours matter. */
static void check_alone(const cell *in, const cell *out, const pass *it, const call *how)
{
    long differ = 0;
    for (ptrdiff_t unit = 0; unit < in->rows * in->hidden; unit++) {
        cell alone = unit_alone(in, unit);
        it->run(&alone, how);
        differ += unit_differs(&alone, 0, out, unit);
    }
    check(differ == 0, "f%d %s %s, %td rows of %td: %ld units depend on their place",
          FASTLSTM_REAL, how->isa->name, it->name, in->rows, in->hidden, differ);
}

/* The values; and the same bits on every placement, with gaps between the rows, and in place. */
static void test_shape(const pass *it, call how, ptrdiff_t rows, ptrdiff_t hidden)
{
    cell in = random_cell(rows, hidden, it->is_backward), want = in;
    it->run(&want, &how);
    check_values(&in, &want, it, &how);
    check_alone(&in, &want, it, &how);
    for (int variant = 0; variant < PLACEMENTS * (it->is_backward ? 2 : 4); variant++) {
        how.placement = (enum placement)(variant % PLACEMENTS);
        how.gap = variant / PLACEMENTS % 2 * 3;
        how.in_place = variant / PLACEMENTS / 2;
        cell out = in;
        it->run(&out, &how);
        check(units_that_differ(&out, &want) == 0,
              "f%d %s %s, %td rows of %td: placement %d, gap %td or in_place %d matters",
              FASTLSTM_REAL, how.isa->name, it->name, rows, hidden, (int)how.placement, how.gap,
              how.in_place);
    }
}

static void test_shapes(const pass *it, call how)
{
    static const ptrdiff_t rows[] = {0, 1, 2, MOST_ROWS};
    for (ptrdiff_t hidden = 0; hidden <= LONGEST; hidden++) {
        for (size_t k = 0; k < sizeof rows / sizeof rows[0]; k++)
            test_shape(it, how, rows[k], hidden);
    }
}

/* A NaN in an input of a unit touches that unit as the formulas say, and no bit of any other. */
static void test_nan(const pass *it, call how, ptrdiff_t hidden)
{
    enum { ROWS = 3, INPUTS = 9 };
    cell in = random_cell(ROWS, hidden, it->is_backward), clean = in;
    it->run(&clean, &how);
    for (ptrdiff_t at = 0; at < ROWS * hidden * INPUTS; at++) {
        ptrdiff_t unit = at / INPUTS, gate = at % INPUTS;
        cell poisoned = in;
        real *gates = poisoned.gates + 4 * (unit - unit % hidden) + unit % hidden;
        real *inputs[INPUTS] = {gates, gates + hidden, gates + 2 * hidden, gates + 3 * hidden,
                                poisoned.c_prev + unit, poisoned.c + unit, poisoned.d_c + unit,
                                poisoned.d_h + unit, poisoned.d_output + unit};
        *inputs[gate] = (real)NAN;
        cell out = poisoned;
        it->run(&out, &how);
        check_values(&poisoned, &out, it, &how);
        check(units_that_differ(&out, &clean) <= 1, "f%d %s %s: a NaN in unit %td spreads",
              FASTLSTM_REAL, how.isa->name, it->name, unit);
    }
}

/* Pre-activations of ±inf, in every combination: the gates are 0 and ±1, and nothing is a NaN. */
static void test_infinite(const fastlstm_isa *isa)
{
    enum { HIDDEN = 32, ROWS = 4, BATCHES = 2 };
    const real z[4] = {(real)INFINITY, -(real)INFINITY, 0, 3};
    for (int batch = 0; batch < BATCHES; batch++) {
        cell in = random_cell(ROWS, HIDDEN, 0);
        for (ptrdiff_t unit = 0; unit < ROWS * HIDDEN; unit++) {
            ptrdiff_t digits = batch * ROWS * HIDDEN + unit;
            real *gates = in.gates + 4 * (unit - unit % HIDDEN) + unit % HIDDEN;
            for (int gate = 0; gate < 4; gate++, digits /= 4)
                gates[gate * HIDDEN] = z[digits % 4];
            if (unit % 5 == 0)
                in.c_prev[unit] = from_bits(to_bits((real)INFINITY) - 1); /* the largest */
        }
        cell out = in;
        call how = {.isa = isa};
        run_forward(&out, &how);
        check_values(&in, &out, &forward, &how);
        long not_finite = 0;
        for (ptrdiff_t unit = 0; unit < ROWS * HIDDEN; unit++)
            not_finite += !isfinite(out.c[unit]) || !isfinite(out.h[unit]);
        check(not_finite == 0, "f%d %s: ±inf in, %ld units are not finite", FASTLSTM_REAL,
              isa->name, not_finite);
    }
}

/* With i = 0 and f = o = 1, c and h are c_prev to the bit, subnormal or not; with f = 1/2, half of
 * it. Backward, d_c goes through f, and the gradient of i is d_c * g * i(1 - i). */
static void test_subnormals(const fastlstm_isa *isa)
{
    real inf = (real)INFINITY;
    call how = {.isa = isa};
    for (int bit = 2; bit <= FRACTION; bit++) { /* the last one is the smallest normal number */
        real x = from_bits((bits_t)1 << bit), half = from_bits((bits_t)1 << (bit - 1));
        real quarter = from_bits((bits_t)1 << (bit - 2));
        cell it = {.rows = 1, .hidden = 2, .gates = {-inf, -inf, inf, 0, 0, 0, inf, inf}};
        it.c_prev[0] = -x;
        it.c_prev[1] = x;
        run_forward(&it, &how);
        check(it.c[0] == -x && it.h[0] == -x && it.c[1] == half && it.h[1] == half,
              "f%d %s: c_prev = %g is not carried", FASTLSTM_REAL, isa->name, (double)x);
        it = (cell){.rows = 1, .hidden = 1, .gates = {(real)0.5, 1, 1, 1}};
        it.d_c[0] = -x;
        run_backward(&it, &how);
        check(it.d_c[0] == -x && it.gates[0] == -quarter, "f%d %s: d_c = %g is not carried",
              FASTLSTM_REAL, isa->name, (double)-x);
    }
}

/* 1 - tanh(c)^2 where tanh(c) is close to 1: as accurate as the kernel's own tanh(c) admits, which
 * is much more than the oracle can ask for. */
static void test_saturated_slope(const fastlstm_isa *isa)
{
    cell in = {.rows = 1, .hidden = LONGEST};
    real t[LONGEST];
    for (ptrdiff_t k = 0; k < LONGEST; k++) {
        in.c[k] = (real)random_uniform(2, 6) * (k % 2 ? 1 : -1);
        in.gates[LONGEST + k] = in.gates[3 * LONGEST + k] = 1; /* f, o */
        in.d_h[k] = 1;
    }
    isa->TABLE.tanh(t, in.c, LONGEST);
    cell out = in;
    run_backward(&out, &(call){.isa = isa});
    for (ptrdiff_t k = 0; k < LONGEST; k++) {
        wide slope = (1 - (wide)t[k]) * (1 + (wide)t[k]);
        check(magnitude((wide)out.d_c[k] - slope) <= 4 * (wide)EPSILON * slope,
              "f%d %s: 1 - tanh(%.17g)^2 is %.17g, not %.17g", FASTLSTM_REAL, isa->name,
              (double)in.c[k], (double)out.d_c[k], (double)slope);
    }
}

/* No rows, or no units: nothing is read or written, and the pointers may be NULL. */
static void test_empty(const fastlstm_isa *isa)
{
    isa->TABLE.cell_forward(NULL, NULL, NULL, NULL, 0, 7, 7);
    isa->TABLE.cell_forward(NULL, NULL, NULL, NULL, 7, 0, 0);
    isa->TABLE.cell_backward(NULL, NULL, NULL, NULL, NULL, NULL, 0, 7, 7);
    isa->TABLE.cell_backward(NULL, NULL, NULL, NULL, NULL, NULL, 7, 0, 0);
}

void TYPED(test_cell)(const isa_list *isas)
{
    for (int a = 0; a < isas->count; a++) {
        const fastlstm_isa *isa = isas->isa[a];
        call plain = {.isa = isa}, with_d_output = {.isa = isa, .has_d_output = 1};
        test_shapes(&forward, plain);
        test_shapes(&backward, plain);
        test_shapes(&backward, with_d_output);
        for (ptrdiff_t hidden = 3; hidden <= 19; hidden += 16) {
            test_nan(&forward, plain, hidden);
            test_nan(&backward, plain, hidden);
            test_nan(&backward, with_d_output, hidden);
        }
        test_infinite(isa);
        test_subnormals(isa);
        test_saturated_slope(isa);
        test_empty(isa);
    }
}
