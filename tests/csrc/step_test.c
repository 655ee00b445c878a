/* Tests of the cell's step, for one real type: a product over panels of gates, and the cell on what
 * it accumulated. Against the two kernels that do the same one after the other, to the bit; against
 * chains of fused multiply-adds and the next wider type; and in shares of units, as threads do it.
 * Compiled once per FASTLSTM_REAL. */
#include "matrices.h"

/* A step with its inputs; pre is (rows, 4*hidden), its columns in the order of the gates, and
 * nobody knows panels but run_step. */
typedef struct {
    ptrdiff_t rows, hidden;
    real weight[4 * MOST_HIDDEN * MOST_HIDDEN];
    real pre[MOST_ROWS * 4 * MOST_HIDDEN];
    real h_prev[MOST_ROWS * MOST_HIDDEN], c_prev[MOST_ROWS * MOST_HIDDEN];
} step;

typedef struct {
    real gates[MOST_ROWS * 4 * MOST_HIDDEN];
    real h[MOST_ROWS * MOST_HIDDEN], c[MOST_ROWS * MOST_HIDDEN];
} stepped;

static step current_step, other_step;
static stepped step_whole, step_out;

enum { NO_GATES = 1, IN_PLACE = 2, NO_STATE = 4, WITH_GAP = 8, VARIANTS = 16, MOST_SHARES = 40 };

static void random_step(step *it, ptrdiff_t rows, ptrdiff_t hidden)
{
    it->rows = rows;
    it->hidden = hidden;
    fill(it->pre, rows * 4 * hidden);
    fill(it->c_prev, rows * hidden);
    fill(it->h_prev, rows * hidden);
    for (ptrdiff_t k = 0; k < 4 * hidden * hidden; k++)
        it->weight[k] = random_value() / 8; /* so that not all gates are at their bounds */
}

/* The columns of pre in the order of panels, for `rows` rows; what has no unit may be anything. */
static void pack_pre(real *to, const real *pre, ptrdiff_t rows, ptrdiff_t hidden, ptrdiff_t vector)
{
    ptrdiff_t width = round_up(hidden, vector) * 4;
    fill(to, rows * width);
    for (ptrdiff_t row = 0; row < rows; row++)
        for (ptrdiff_t k = 0; k < 4 * hidden; k++)
            to[row * width + place_of_gate(k / hidden, k % hidden, 1, vector)] =
                pre[row * 4 * hidden + k];
}

/* The arguments of a call. */
typedef struct {
    matrix panels, pre, c_prev, c, h_prev, h, gates;
    int variant;
} buffers;

/* For row `first` and the `rows - 1` after it. */
static buffers buffers_of(const step *it, ptrdiff_t first, ptrdiff_t rows, int variant,
                          const call *how)
{
    ptrdiff_t H = it->hidden, vector = how->isa->TABLE.vector, units = round_up(H, vector);
    call dense = {.isa = how->isa, .placement = how->placement}, gaps = dense;
    buffers to = {.variant = variant};
    gaps.gap = variant & WITH_GAP ? GAP : 0;
    to.panels = matrix_of(NULL, 4 * units, H, 0, &dense);
    to.pre = matrix_of(NULL, rows, 4 * units, 0, &dense);
    to.c_prev = matrix_of(it->c_prev + first * H, rows, H, 0, &dense);
    to.c = variant & IN_PLACE ? to.c_prev : matrix_of(NULL, rows, H, 0, &dense);
    to.h_prev = matrix_of(it->h_prev + first * H, rows, H, 0, &gaps);
    gaps.gap *= 2; /* ld_h and ld_h_prev differ */
    to.h = matrix_of(NULL, rows, H, 0, &gaps);
    if (!(variant & NO_GATES))
        to.gates = matrix_of(NULL, rows, 4 * H, 0, &dense);
    how->isa->TABLE.pack_gates(to.panels.data, it->weight, H, H);
    pack_pre(to.pre.data, it->pre + first * 4 * H, rows, H, vector);
    return to;
}

/* The step for the units [first, last), in one direction or the other, which no bit depends on. */
static void run_units(buffers *to, ptrdiff_t first, ptrdiff_t last, const call *how)
{
    how->isa->TABLE.cell_step(to->h.data, to->c.data, to->gates.data, to->pre.data,
                              to->c_prev.data, to->variant & NO_STATE ? NULL : to->h_prev.data,
                              to->panels.data, to->h.rows, to->h.columns, first, last, to->h.ld,
                              to->h_prev.ld, (int)(random_bits() & 1));
}

static void take_results(stepped *out, buffers *to, const step *it, ptrdiff_t first,
                         const call *how)
{
    ptrdiff_t units = to->h.rows * to->h.columns, at = first * it->hidden;
    for (ptrdiff_t row = 0; row < to->h.rows; row++)
        check(count_different(to->h_prev.data + row * to->h_prev.ld,
                              it->h_prev + at + row * it->hidden, it->hidden) == 0,
              "f%d %s: h_prev was written to", FASTLSTM_REAL, how->isa->name);
    if (!(to->variant & IN_PLACE)) {
        check(count_different(to->c_prev.data, it->c_prev + at, units) == 0,
              "f%d %s: c_prev was written to", FASTLSTM_REAL, how->isa->name);
        matrix_free(to->c_prev, NULL, "c_prev", how);
    }
    matrix_free(to->h, out->h, "h", how);
    matrix_free(to->c, out->c, "c", how);
    if (to->gates.data != NULL)
        matrix_free(to->gates, out->gates, "gates", how);
    matrix_free(to->h_prev, NULL, "h_prev", how);
    matrix_free(to->pre, NULL, "pre", how);
    matrix_free(to->panels, NULL, "panels", how);
}

/* Row `first` and the `rows - 1` after it, all units at once. */
static void run_step(stepped *out, const step *it, ptrdiff_t first, ptrdiff_t rows, int variant,
                     const call *how)
{
    buffers to = buffers_of(it, first, rows, variant, how);
    run_units(&to, 0, it->hidden, how);
    take_results(out, &to, it, first, how);
}

/* The same by the other kernels: each row times the panels, starting from pre, and then the cell
 * over the pre-activations `z` in the order of the gates. */
static void step_in_two(stepped *out, real *z, const step *it, int has_state,
                        const fastlstm_isa *isa)
{
    static real panels[4 * MOST_HIDDEN * MOST_HIDDEN], initial[MOST_COLUMNS], row_z[MOST_COLUMNS];
    ptrdiff_t H = it->hidden, vector = isa->TABLE.vector, width = round_up(H, vector) * 4;
    isa->TABLE.pack_gates(panels, it->weight, H, H);
    for (ptrdiff_t row = 0; row < it->rows; row++) {
        pack_pre(initial, it->pre + row * 4 * H, 1, H, vector);
        if (has_state)
            isa->TABLE.multiply_packed(row_z, width, initial, 0, it->h_prev + row * H, H, panels, 1,
                                       H, width);
        for (ptrdiff_t k = 0; k < 4 * H; k++)
            z[row * 4 * H + k] = (has_state ? row_z : initial)[place_of_gate(k / H, k % H, 1,
                                                                             vector)];
    }
    memcpy(out->gates, z, bytes_of(it->rows * 4 * H));
    isa->TABLE.cell_forward(out->h, out->c, out->gates, it->c_prev, it->rows, H, H);
}

static long count_different_steps(const stepped *a, const stepped *b, const step *it, int variant)
{
    ptrdiff_t units = it->rows * it->hidden;
    return count_different(a->h, b->h, units) + count_different(a->c, b->c, units) +
           (variant & NO_GATES ? 0 : count_different(a->gates, b->gates, 4 * units));
}

/* One unit in the next wider type. The tolerances follow the errors through the formulas. */
static int unit_meets(const stepped *got, const step *it, const real *z, int has_state,
                      ptrdiff_t row, ptrdiff_t unit)
{
    ptrdiff_t H = it->hidden, at = row * H + unit;
    wide value[4], error[4], u = rounding();
    wide a = 2 * (SIGMOID_BOUND > TANH_BOUND ? SIGMOID_BOUND : TANH_BOUND) * u;
    int all = 1;
    for (ptrdiff_t gate = 0; gate < 4; gate++) {
        ptrdiff_t k = row * 4 * H + gate * H + unit;
        sum s = sum_of(it->pre[k], it->h_prev + row * H, it->weight + (gate * H + unit) * H, 1,
                       has_state ? H : 0);
        value[gate] = gate == 2 ? wide_tanh(s.value) : wide_sigmoid(s.value);
        error[gate] = a * magnitude(value[gate]) + s.tolerance;
        all &= same(z[k], s.chain) && meets(got->gates[k], value[gate], error[gate]);
    }
    wide c_prev = it->c_prev[at], c = value[1] * c_prev + value[0] * value[2];
    wide c_error = magnitude(c_prev) * error[1] + error[0] + error[2] +
                   4 * u * (magnitude(c_prev) + 1);
    wide h_error = error[3] + c_error + (a + 2 * u);
    return all && meets(got->c[at], c, c_error) &&
           meets(got->h[at], value[3] * wide_tanh(c), h_error);
}

static void check_step(const stepped *got, const step *it, const real *z, int has_state,
                       const call *how)
{
    long wrong = 0;
    for (ptrdiff_t k = 0; k < it->rows * it->hidden; k++)
        wrong += !unit_meets(got, it, z, has_state, k / it->hidden, k % it->hidden);
    check(wrong == 0, "f%d %s cell_step, %td rows of %td%s: %ld units are wrong", FASTLSTM_REAL,
          how->isa->name, it->rows, it->hidden, has_state ? "" : ", no h_prev", wrong);
}

static void check_step_rows_alone(const stepped *whole, const step *it, const call *how)
{
    static stepped alone;
    ptrdiff_t H = it->hidden;
    long different = 0;
    for (ptrdiff_t row = 0; row < it->rows; row++) {
        run_step(&alone, it, row, 1, 0, how);
        different += count_different(alone.h, whole->h + row * H, H) +
                     count_different(alone.c, whole->c + row * H, H) +
                     count_different(alone.gates, whole->gates + row * 4 * H, 4 * H);
    }
    check(different == 0, "f%d %s cell_step, %td rows of %td: %ld elements depend on other rows",
          FASTLSTM_REAL, how->isa->name, it->rows, H, different);
}

/* ------------------------------------------------------------------------ shares of units ---- */

/* Whether column k of a matrix, in which each unit has `gates` columns, belongs to a unit of
 * [first, last): a unit's columns are H apart, or, in panels, where place_of_gate says. */
typedef struct {
    ptrdiff_t first, last, hidden, vector;
    int in_panels;
} range;

static int is_of_range(ptrdiff_t column, const range *of)
{
    ptrdiff_t unit = column % of->hidden;
    if (of->in_panels)
        unit = column / (4 * of->vector) * of->vector + column % of->vector;
    return of->first <= unit && (unit < of->last || of->last == of->hidden);
}

/* Elements of other units that are not as they were. */
static long touched_elsewhere(const matrix *now, const real *before, range of, int in_panels)
{
    long touched = 0;
    of.in_panels = in_panels;
    for (ptrdiff_t row = 0; row < now->rows; row++)
        for (ptrdiff_t k = 0; k < now->columns; k++)
            touched += !is_of_range(k, &of) && to_bits(now->data[row * now->ld + k]) !=
                                                   to_bits(before[row * now->ld + k]);
    return touched;
}

static void remember(real *before, const matrix *now)
{
    if (now->rows > 0 && now->data != NULL)
        memcpy(before, now->data, bytes_of((now->rows - 1) * now->ld + now->columns));
}

/* One share; nothing of the others is touched. */
static void run_share(buffers *to, range of, const call *how)
{
    static real before[4][MOST_ROWS * MOST_COLUMNS];
    const matrix *written[] = {&to->h, &to->c, &to->pre, &to->gates};
    for (int k = 0; k < 4; k++)
        remember(before[k], written[k]);
    run_units(to, of.first, of.last, how);
    long touched = 0;
    for (int k = 0; k < 4; k++)
        touched += touched_elsewhere(written[k], before[k], of, written[k] == &to->pre);
    check(touched == 0, "f%d %s cell_step of units %td to %td of %td: %ld others were touched",
          FASTLSTM_REAL, how->isa->name, of.first, of.last, of.hidden, touched);
}

/* Cuts the units at random into shares of whole panels, some of them empty; returns how many. */
static ptrdiff_t random_shares(range shares[MOST_SHARES], ptrdiff_t hidden, ptrdiff_t vector)
{
    ptrdiff_t count = 0;
    for (ptrdiff_t first = 0; first < hidden; count++) {
        ptrdiff_t last = first + (ptrdiff_t)(random_bits() % 5) * vector;
        if (last > hidden || count == MOST_SHARES - 1)
            last = hidden;
        shares[count] = (range){first, last, hidden, vector, 0};
        first = last;
    }
    for (ptrdiff_t k = count - 1; k > 0; k--) { /* threads come in any order */
        ptrdiff_t other = (ptrdiff_t)(random_bits() % (uint64_t)(k + 1));
        range it = shares[k];
        shares[k] = shares[other];
        shares[other] = it;
    }
    return count;
}

static void check_shares(const stepped *whole, const step *it, int variant, const call *how)
{
    range shares[MOST_SHARES];
    ptrdiff_t count = random_shares(shares, it->hidden, how->isa->TABLE.vector);
    buffers to = buffers_of(it, 0, it->rows, variant, how);
    for (ptrdiff_t k = 0; k < count; k++)
        run_share(&to, shares[k], how);
    take_results(&step_out, &to, it, 0, how);
    check(count_different_steps(&step_out, whole, it, variant) == 0,
          "f%d %s cell_step, %td rows of %td, variant %d: %td shares of units are not the whole",
          FASTLSTM_REAL, how->isa->name, it->rows, it->hidden, variant, count);
}

/* ------------------------------------------------------------------------------ the tests ---- */

static void test_step(const step *it, call how)
{
    static stepped in_two[2];
    static real z[2][MOST_ROWS * 4 * MOST_HIDDEN];
    for (int has_state = 0; has_state < 2; has_state++)
        step_in_two(&in_two[has_state], z[has_state], it, has_state, how.isa);
    for (int variant = 0; variant < VARIANTS; variant++) {
        int has_state = !(variant & NO_STATE);
        how.placement = (enum placement)((how.placement + 1) % PLACEMENTS);
        run_step(&step_out, it, 0, it->rows, variant, &how);
        check(count_different_steps(&step_out, &in_two[has_state], it, variant) == 0,
              "f%d %s cell_step, %td rows of %td, variant %d: not the product and then the cell",
              FASTLSTM_REAL, how.isa->name, it->rows, it->hidden, variant);
        check_shares(&in_two[has_state], it, variant, &how);
        if (variant == 0 || variant == NO_STATE)
            check_step(&step_out, it, z[has_state], has_state, &how);
    }
    run_step(&step_whole, it, 0, it->rows, 0, &how);
    how.placement = EXACT;
    check_step_rows_alone(&step_whole, it, &how);
}

/* No state is a state of zeros. */
static void check_zero_state(const step *it, const call *how)
{
    other_step = *it;
    memset(other_step.h_prev, 0, sizeof other_step.h_prev);
    run_step(&step_whole, &other_step, 0, it->rows, 0, how);
    run_step(&step_out, it, 0, it->rows, NO_STATE, how);
    /* A zero keeps its sign where nothing is added to it. */
    for (ptrdiff_t k = 0; k < it->rows * 4 * it->hidden; k++)
        step_out.gates[k] += 0;
    check(count_different_steps(&step_out, &step_whole, it, 0) == 0,
          "f%d %s cell_step, %td rows of %td: no h_prev is not zeros", FASTLSTM_REAL,
          how->isa->name, it->rows, it->hidden);
}

static void test_steps_of_all_sizes(call how, ptrdiff_t cases)
{
    static const ptrdiff_t deep[] = {257, 97, 200, 513, 96, 258}; /* also some blocks of k */
    for (ptrdiff_t number = 0; number < cases; number++) {
        ptrdiff_t rows = rows_of_case(number), hidden = columns_of_case(number);
        if (number % 4 == 1) {
            hidden = deep[number / 4 % 6];
            rows = hidden > 500 ? 7 : rows > 20 ? rows - 110 : rows;
        }
        how.placement = (enum placement)(number % PLACEMENTS);
        random_step(&current_step, rows, hidden);
        test_step(&current_step, how);
        check_zero_state(&current_step, &how);
    }
}

/* What is not finite in a row's inputs touches no bit of another row, and the row itself is what
 * the other kernels make of it. */
static void test_poisoned_steps(call how)
{
    static stepped clean, in_two;
    static real z[MOST_ROWS * 4 * MOST_HIDDEN];
    const real poisons[] = {(real)NAN, (real)INFINITY, -(real)INFINITY};
    static const ptrdiff_t hiddens[] = {19, 101};
    for (int size = 0; size < 2; size++) {
        ptrdiff_t H = hiddens[size], rows = 8;
        random_step(&current_step, rows, H);
        run_step(&clean, &current_step, 0, rows, 0, &how);
        for (ptrdiff_t at = 0; at < 3 * rows; at++) {
            ptrdiff_t row = at / 3, k = (ptrdiff_t)(random_bits() % (uint64_t)H);
            real *inputs[] = {current_step.pre + row * 4 * H, current_step.h_prev + row * H,
                              current_step.c_prev + row * H};
            real before = inputs[at % 3][k];
            inputs[at % 3][k] = poisons[row % 3];
            run_step(&step_out, &current_step, 0, rows, 0, &how);
            step_in_two(&in_two, z, &current_step, 1, how.isa);
            inputs[at % 3][k] = before;
            long spread = count_different_steps(&step_out, &in_two, &current_step, 0);
            for (ptrdiff_t unit = 0; unit < rows * H; unit++)
                spread += unit / H != row && !(same(step_out.h[unit], clean.h[unit]) &&
                                               same(step_out.c[unit], clean.c[unit]));
            check(spread == 0, "f%d %s cell_step: what is not finite in row %td spreads to %ld",
                  FASTLSTM_REAL, how.isa->name, row, spread);
        }
    }
}

/* Few rows take two panels at a time, from wherever their share begins. */
static void test_steps_of_few_rows(call how)
{
    for (ptrdiff_t at = 0; at < 60; at++) {
        ptrdiff_t rows = 1 + at % 4, panels = 1 + at / 4 % 5, more = at / 20 - 1;
        random_step(&current_step, rows, panels * how.isa->TABLE.vector + more);
        test_step(&current_step, how);
    }
}

/* No rows, or no units: nothing is written. */
static void test_nothing(call how)
{
    how.isa->TABLE.cell_step(NULL, NULL, NULL, NULL, NULL, NULL, NULL, 0, 7, 0, 7, 7, 7, 0);
    how.isa->TABLE.cell_step(NULL, NULL, NULL, NULL, NULL, NULL, NULL, 7, 0, 0, 0, 0, 0, 1);
    random_step(&current_step, 0, 7);
    run_step(&step_out, &current_step, 0, 0, 0, &how);
}

void TYPED(test_step)(const isa_list *isas, ptrdiff_t cases)
{
    for (int a = 0; a < isas->count; a++) {
        call how = {.isa = isas->isa[a], .placement = FENCE_AFTER};
        if (how.isa->TABLE.cell_step == NULL)
            continue;
        test_steps_of_all_sizes(how, cases);
        test_steps_of_few_rows(how);
        test_poisoned_steps(how);
        test_nothing(how);
    }
}
