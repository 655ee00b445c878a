/* Tests of the cell's step back, for one real type: dL/dh from the step after as a product over
 * panels, and the cell's backward on what it accumulated. Against the literal definition, to the
 * bit: chains of fused multiply-adds, and then cell_backward; against the next wider type; and in
 * shares of units, as threads do it. Compiled once per FASTLSTM_REAL. */
#include "matrices.h"

/* A step with its inputs. weight is (4*hidden, hidden), all else (rows, hidden), or, of gates,
 * (rows, 4*hidden). */
typedef struct {
    ptrdiff_t rows, hidden;
    real weight[4 * MOST_HIDDEN * MOST_HIDDEN];
    real d_next[MOST_ROWS * 4 * MOST_HIDDEN], gates[MOST_ROWS * 4 * MOST_HIDDEN];
    real d_h[MOST_ROWS * MOST_HIDDEN], d_c[MOST_ROWS * MOST_HIDDEN];
    real d_output[MOST_ROWS * MOST_HIDDEN];
    real c[MOST_ROWS * MOST_HIDDEN], c_prev[MOST_ROWS * MOST_HIDDEN];
} step_back;

typedef struct {
    real gates[MOST_ROWS * 4 * MOST_HIDDEN], d_c[MOST_ROWS * MOST_HIDDEN];
} results;

enum { NO_NEXT = 1, NO_OUTPUT = 2, WITH_GAP = 4, VARIANTS = 8, MOST_SHARES = 20 };

static step_back current;
static results whole, out;

static void random_step_back(step_back *it, ptrdiff_t rows, ptrdiff_t hidden)
{
    ptrdiff_t units = rows * hidden;
    it->rows = rows;
    it->hidden = hidden;
    fill(it->weight, 4 * hidden * hidden);
    fill(it->d_next, 4 * units);
    fill(it->d_h, units);
    fill(it->d_c, units);
    fill(it->d_output, units);
    fill(it->c, units);
    fill(it->c_prev, units);
    for (ptrdiff_t k = 0; k < 4 * units; k++) /* activated */
        it->gates[k] = (real)random_uniform(k / hidden % 4 == 2 ? -1 : 0, 1);
}

/* ------------------------------------------------------------------------------ the oracle ---- */

/* The whole dL/dh_t but for d_output. */
static sum carried(const step_back *it, int variant, ptrdiff_t row, ptrdiff_t unit)
{
    ptrdiff_t H = it->hidden, at = row * H + unit;
    if (variant & NO_NEXT)
        return (sum){it->d_h[at], it->d_h[at], 0};
    return sum_of(0, it->d_next + row * 4 * H, it->weight + unit, H, 4 * H);
}

/* One unit in the next wider type. The tolerances follow the errors through the formulas. */
static int unit_meets(const results *got, const step_back *it, int variant, ptrdiff_t row,
                      ptrdiff_t unit, sum dh_sum)
{
    ptrdiff_t H = it->hidden, at = row * H + unit, gate = row * 4 * H + unit;
    const real *gates = it->gates + gate;
    wide i = gates[0], f = gates[H], g = gates[2 * H], o = gates[3 * H], u = rounding();
    wide dh = dh_sum.value + (variant & NO_OUTPUT ? 0 : it->d_output[at]);
    wide dh_error = dh_sum.tolerance + u * magnitude(dh);
    wide t = wide_tanh(it->c[at]), slope = (1 - t) * (1 + t), c_prev = it->c_prev[at];
    wide t_error = 2 * (wide)TANH_BOUND * u;
    wide dc = it->d_c[at] + dh * o * slope;
    wide dc_error = dh_error + magnitude(dh) * (2 * t_error + 4 * u) + 2 * u * magnitude(dc);
    wide s_i = i * (1 - i), s_f = f * (1 - f), s_g = (1 - g) * (1 + g), s_o = o * (1 - o);
    wide more = dc_error + 6 * u * magnitude(dc); /* and the roundings of what follows */
    return meets(got->d_c[at], dc * f, more) && meets(got->gates[gate], dc * g * s_i, more) &&
           meets(got->gates[gate + H], dc * c_prev * s_f, more * magnitude(c_prev)) &&
           meets(got->gates[gate + 2 * H], dc * i * s_g, more) &&
           meets(got->gates[gate + 3 * H], dh * t * s_o,
                 dh_error + magnitude(dh) * (t_error + 6 * u));
}

/* The literal definition, all pieces by other means; its results are also held against the next
 * wider type, in which nothing comes from the library. */
static void expect_step_back(results *want, const step_back *it, int variant, const call *how)
{
    static real d_h[MOST_ROWS * MOST_HIDDEN];
    static sum sums[MOST_ROWS * MOST_HIDDEN];
    ptrdiff_t H = it->hidden, units = it->rows * H;
    for (ptrdiff_t at = 0; at < units; at++) {
        sums[at] = carried(it, variant, at / H, at % H);
        d_h[at] = sums[at].chain;
    }
    memcpy(want->gates, it->gates, bytes_of(4 * units));
    memcpy(want->d_c, it->d_c, bytes_of(units));
    how->isa->TABLE.cell_backward(want->gates, want->d_c, d_h,
                                  variant & NO_OUTPUT ? NULL : it->d_output, it->c, it->c_prev,
                                  it->rows, H, H);
    long wrong = 0;
    for (ptrdiff_t at = 0; at < units; at++)
        wrong += !unit_meets(want, it, variant, at / H, at % H, sums[at]);
    check(wrong == 0, "f%d %s step back, %td rows of %td, variant %d: %ld units are wrong",
          FASTLSTM_REAL, how->isa->name, it->rows, H, variant, wrong);
}

static long count_different_results(const results *a, const results *b, const step_back *it)
{
    ptrdiff_t units = it->rows * it->hidden;
    return count_different(a->gates, b->gates, 4 * units) + count_different(a->d_c, b->d_c, units);
}

/* ------------------------------------------------------------------------ running the kernel -- */

/* The arguments of a call. */
typedef struct {
    matrix panels, gates, d_c, d_h, d_output, c, c_prev, d_next;
    int variant;
} buffers;

/* For row `first` and the `rows - 1` after it. */
static buffers buffers_of(const step_back *it, ptrdiff_t first, ptrdiff_t rows, int variant,
                          const call *how)
{
    ptrdiff_t H = it->hidden, at = first * H;
    call dense = {.isa = how->isa, .placement = how->placement}, gaps = dense;
    gaps.gap = variant & WITH_GAP ? GAP : 0;
    buffers to = {
        .panels = matrix_of(NULL, round_up(H, how->isa->TABLE.vector), 4 * H, 0, &dense),
        .gates = matrix_of(it->gates + 4 * at, rows, 4 * H, 0, &dense),
        .d_c = matrix_of(it->d_c + at, rows, H, 0, &dense),
        /* What is scratch holds NaN, so that nobody counts on it. */
        .d_h = matrix_of(variant & NO_NEXT ? it->d_h + at : NULL, rows, H, 0, &dense),
        .d_output = matrix_of(it->d_output + at, rows, H, 0, &gaps),
        .c = matrix_of(it->c + at, rows, H, 0, &dense),
        .c_prev = matrix_of(it->c_prev + at, rows, H, 0, &dense),
        .d_next = matrix_of(it->d_next + 4 * at, rows, 4 * H, 0, &dense),
        .variant = variant};
    how->isa->TABLE.pack(to.panels.data, it->weight, H, 0, 4 * H, H);
    return to;
}

/* The step for the units [first, last), in one direction or the other, which no bit depends on. */
static void run_units(buffers *to, ptrdiff_t first, ptrdiff_t last, const call *how)
{
    int no_next = to->variant & NO_NEXT, no_output = to->variant & NO_OUTPUT;
    how->isa->TABLE.cell_step_back(to->gates.data, to->d_c.data, to->d_h.data,
                                   no_output ? NULL : to->d_output.data, to->c.data,
                                   to->c_prev.data, no_next ? NULL : to->d_next.data,
                                   to->panels.data, to->d_c.rows, to->d_c.columns, first, last,
                                   no_output ? 0 : to->d_output.ld, (int)(random_bits() & 1));
}

static void free_input(matrix it, const real *values, const char *what, const call *how)
{
    long written = 0;
    for (ptrdiff_t row = 0; row < it.rows; row++)
        written += count_different(it.data + row * it.ld, values + row * it.columns, it.columns);
    check(written == 0, "f%d %s step back: %s was written to", FASTLSTM_REAL, how->isa->name, what);
    matrix_free(it, NULL, what, how);
}

static void take_results(results *into, buffers *to, const step_back *it, ptrdiff_t first,
                         const call *how)
{
    ptrdiff_t at = first * it->hidden;
    free_input(to->d_output, it->d_output + at, "d_output", how);
    free_input(to->c, it->c + at, "c", how);
    free_input(to->c_prev, it->c_prev + at, "c_prev", how);
    free_input(to->d_next, it->d_next + 4 * at, "d_next", how);
    matrix_free(to->gates, into->gates, "gates", how);
    matrix_free(to->d_c, into->d_c, "d_c", how);
    matrix_free(to->d_h, NULL, "d_h", how);
    matrix_free(to->panels, NULL, "panels", how);
}

/* Row `first` and the `rows - 1` after it, all units at once. */
static void run_step_back(results *into, const step_back *it, ptrdiff_t first, ptrdiff_t rows,
                          int variant, const call *how)
{
    buffers to = buffers_of(it, first, rows, variant, how);
    run_units(&to, 0, it->hidden, how);
    take_results(into, &to, it, first, how);
}

/* ------------------------------------------------------------------------ shares of units ---- */

/* Elements that belong to no unit of [first, last), and are not as they were. */
static long touched_elsewhere(const matrix *now, const real *before, ptrdiff_t hidden,
                              ptrdiff_t first, ptrdiff_t last)
{
    long touched = 0;
    for (ptrdiff_t k = 0; k < now->rows * now->columns; k++) {
        int own = first <= k % hidden && k % hidden < last;
        touched += !own && to_bits(now->data[k]) != to_bits(before[k]);
    }
    return touched;
}

/* One share; nothing of the others is touched. */
static void run_share(buffers *to, ptrdiff_t first, ptrdiff_t last, const call *how)
{
    static real before[3][MOST_ROWS * 4 * MOST_HIDDEN];
    const matrix *written[] = {&to->gates, &to->d_c, &to->d_h};
    ptrdiff_t hidden = to->d_c.columns;
    for (int k = 0; k < 3; k++)
        memcpy(before[k], written[k]->data, bytes_of(written[k]->rows * written[k]->columns));
    run_units(to, first, last, how);
    long touched = 0;
    for (int k = 0; k < 3; k++)
        touched += touched_elsewhere(written[k], before[k], hidden, first, last);
    check(touched == 0, "f%d %s step back of units %td to %td of %td: %ld others were touched",
          FASTLSTM_REAL, how->isa->name, first, last, hidden, touched);
}

/* Shares of whole panels, at random, some of them empty, the last one first. */
static void check_shares(const results *want, const step_back *it, int variant, const call *how)
{
    ptrdiff_t panel = 4 * how->isa->TABLE.vector, last = it->hidden;
    buffers to = buffers_of(it, 0, it->rows, variant, how);
    for (int count = 1; last > 0; count++) {
        ptrdiff_t first = (last - 1) / panel * panel - (ptrdiff_t)(random_bits() % 4) * panel;
        if (first < 0 || count == MOST_SHARES)
            first = 0;
        run_share(&to, first, last, how);
        run_share(&to, first, first, how);
        last = first;
    }
    take_results(&out, &to, it, 0, how);
    check(count_different_results(&out, want, it) == 0,
          "f%d %s step back, %td rows of %td, variant %d: shares of units are not the whole",
          FASTLSTM_REAL, how->isa->name, it->rows, it->hidden, variant);
}

/* ------------------------------------------------------------------------------ the tests ---- */

/* Each row alone has the same bits as among the others. */
static void check_rows_alone(const results *among, const step_back *it, int variant,
                             const call *how)
{
    ptrdiff_t H = it->hidden;
    long different = 0;
    for (ptrdiff_t row = 0; row < it->rows; row++) {
        run_step_back(&out, it, row, 1, variant, how);
        different += count_different(out.gates, among->gates + row * 4 * H, 4 * H) +
                     count_different(out.d_c, among->d_c + row * H, H);
    }
    check(different == 0, "f%d %s step back, %td rows of %td: %ld elements depend on other rows",
          FASTLSTM_REAL, how->isa->name, it->rows, H, different);
}

static void test_step_back(const step_back *it, call how)
{
    for (int variant = 0; variant < WITH_GAP; variant++) {
        expect_step_back(&whole, it, variant, &how);
        for (int gap = 0; gap <= WITH_GAP; gap += WITH_GAP) {
            how.placement = (enum placement)((how.placement + 1) % PLACEMENTS);
            run_step_back(&out, it, 0, it->rows, variant | gap, &how);
            check(count_different_results(&out, &whole, it) == 0,
                  "f%d %s step back, %td rows of %td, variant %d: not the product and the cell",
                  FASTLSTM_REAL, how.isa->name, it->rows, it->hidden, variant | gap);
            check_shares(&whole, it, variant | gap, &how);
        }
        if (variant < 2)
            check_rows_alone(&whole, it, variant, &how);
    }
}

static void test_all_sizes(call how, ptrdiff_t cases)
{
    /* Panels that are whole, narrow, and a pair of them, in either type and width. */
    static const ptrdiff_t wide_ones[] = {128, 97, 129, 64, 200, 65, 96, 192};
    for (ptrdiff_t number = 0; number < cases; number++) {
        ptrdiff_t rows = rows_of_case(number), hidden = columns_of_case(number);
        if (number % 4 == 1) {
            hidden = wide_ones[number / 4 % 8];
            rows = number % 8 == 1 ? 1 + number / 8 % 4 : rows > 20 ? rows - 110 : rows;
        } else if (rows > 20 && hidden > 40) {
            rows -= 100; /* for time's sake */
        }
        how.placement = (enum placement)(number % PLACEMENTS);
        random_step_back(&current, rows, hidden);
        test_step_back(&current, how);
    }
}

/* What is not finite in a row's inputs touches no bit of another row, and in its own row is what
 * the definition makes of it. */
static void test_poisoned(call how)
{
    const real poisons[] = {(real)NAN, (real)INFINITY, -(real)INFINITY};
    static const ptrdiff_t hiddens[] = {19, 70};
    enum { ROWS = 8, INPUTS = 6 };
    for (int size = 0; size < 2; size++) {
        ptrdiff_t H = hiddens[size];
        random_step_back(&current, ROWS, H);
        run_step_back(&whole, &current, 0, ROWS, 0, &how);
        for (ptrdiff_t at = 0; at < ROWS * INPUTS; at++) {
            ptrdiff_t row = at / INPUTS, k = (ptrdiff_t)(random_bits() % (uint64_t)H);
            real *inputs[INPUTS] = {
                current.d_next + row * 4 * H, current.gates + row * 4 * H,
                current.d_c + row * H, current.d_output + row * H,
                current.c + row * H, current.c_prev + row * H};
            real before = inputs[at % INPUTS][k];
            inputs[at % INPUTS][k] = poisons[row % 3];
            run_step_back(&out, &current, 0, ROWS, 0, &how);
            inputs[at % INPUTS][k] = before;
            long spread = 0;
            for (ptrdiff_t unit = 0; unit < ROWS * H; unit++)
                spread += unit / H != row && !same(out.d_c[unit], whole.d_c[unit]);
            for (ptrdiff_t gate = 0; gate < ROWS * 4 * H; gate++)
                spread += gate / (4 * H) != row && !same(out.gates[gate], whole.gates[gate]);
            check(spread == 0, "f%d %s step back: what is not finite in row %td spreads to %ld",
                  FASTLSTM_REAL, how.isa->name, row, spread);
            long finite = 0; /* a NaN or inf times the weights is none of the numbers */
            for (ptrdiff_t unit = row * H; at % INPUTS == 0 && unit < (row + 1) * H; unit++)
                finite += isfinite(out.d_c[unit]) != 0;
            check(finite == 0, "f%d %s step back: a d_next that is not finite gives %ld numbers",
                  FASTLSTM_REAL, how.isa->name, finite);
        }
    }
}

/* No rows, or no units: nothing is read or written, and the pointers may be NULL. */
static void test_nothing(call how)
{
    how.isa->TABLE.cell_step_back(NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 0, 7, 0, 7, 7, 0);
    how.isa->TABLE.cell_step_back(NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 7, 0, 0, 0, 0, 1);
    random_step_back(&current, 0, 7);
    run_step_back(&out, &current, 0, 0, 0, &how);
}

void TYPED(test_step_back)(const isa_list *isas, ptrdiff_t cases)
{
    for (int a = 0; a < isas->count; a++) {
        call how = {.isa = isas->isa[a], .placement = FENCE_AFTER};
        if (how.isa->TABLE.cell_step_back == NULL)
            continue;
        test_all_sizes(how, cases);
        test_poisoned(how);
        test_nothing(how);
    }
}
