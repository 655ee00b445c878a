/* Tests of packing, of the products over packed panels and of the cell's step, for one real type.
 * Against a literal definition: panels to the bit; products to the bit as one chain of fused
 * multiply-adds in the order of k, and within the errors of its roundings in the next wider type.
 * Compiled once per FASTLSTM_REAL. */
#include <stdio.h>
#include <string.h>

#include "driver.h"

#if FASTLSTM_REAL == 32
#define REAL(function) function##f
#else
#define REAL(function) function
#endif

enum {
    MOST_ROWS = 125,
    MOST_INNER = 200,
    MOST_UNITS = 208, /* 200, rounded up to a vector */
    MOST_COLUMNS = 4 * MOST_UNITS,
    GAP = 3 /* between the rows of a matrix with gaps: elements that nobody may touch */
};

/* How a kernel is called. */
typedef struct {
    const fastlstm_isa *isa;
    enum placement placement;
    ptrdiff_t gap;
} call;

static size_t bytes_of(ptrdiff_t elements)
{
    return (size_t)elements * sizeof(real);
}

/* The same bits; one NaN is as good as another. */
static int same(real a, real b)
{
    return to_bits(a) == to_bits(b) || (a != a && b != b);
}

static long count_different(const real *a, const real *b, ptrdiff_t elements)
{
    long different = 0;
    for (ptrdiff_t k = 0; k < elements; k++)
        different += !same(a[k], b[k]);
    return different;
}

/* ---------------------------------------------------------------------- matrices with gaps ---- */

/* Rows `gap` elements apart, the last one without a gap behind it; each bit of the gaps, and of a
 * matrix without values, is 1, which is a NaN. */
typedef struct {
    real *data;
    ptrdiff_t rows, columns, ld;
} matrix;

/* values (rows, columns), or NULL; the matrix is (columns, rows) if transposed. */
static matrix matrix_of(const real *values, ptrdiff_t rows, ptrdiff_t columns, int transposed,
                        const call *how)
{
    matrix it = {.rows = transposed ? columns : rows, .columns = transposed ? rows : columns};
    it.ld = it.columns + how->gap;
    ptrdiff_t used = it.rows * it.columns > 0 ? it.rows * it.ld - how->gap : 0;
    it.data = fenced_alloc(bytes_of(used), how->placement);
    memset(it.data, 0xFF, bytes_of(used));
    for (ptrdiff_t row = 0; values != NULL && row < rows; row++)
        for (ptrdiff_t k = 0; k < columns; k++)
            it.data[transposed ? k * it.ld + row : row * it.ld + k] = values[row * columns + k];
    return it;
}

/* Looks at the gaps, takes the rows out if `values` is not NULL, and frees the matrix. */
static void matrix_free(matrix it, real *values, const char *what, const call *how)
{
    long touched = 0;
    for (ptrdiff_t row = 0; row < it.rows; row++) {
        if (values != NULL)
            memcpy(values + row * it.columns, it.data + row * it.ld, bytes_of(it.columns));
        for (ptrdiff_t k = it.columns; k < it.ld && row < it.rows - 1; k++)
            touched += to_bits(it.data[row * it.ld + k]) != (bits_t)-1;
    }
    check(touched == 0, "f%d %s: %ld elements between the rows of %s were touched", FASTLSTM_REAL,
          how->isa->name, touched, what);
    fenced_free(it.data, what);
}

/* ------------------------------------------------------------------------------ the oracle ---- */

/* start + a·b: as the kernels round it, and as it is, within the errors of that many roundings. */
typedef struct {
    real chain;
    wide value, tolerance;
} sum;

static wide magnitude(wide x)
{
    return WIDE(fabs)(x);
}

/* The relative error of one rounding, and the oracle's own where it has no bits to spare. */
static wide rounding(void)
{
    static wide it; /* asking takes long beside a short sum */
    if (it == 0)
        it = wide_is_wider() ? (wide)EPSILON * (wide)1.001 : 4 * (wide)EPSILON;
    return it;
}

static sum sum_of(real start, const real *a, const real *b, ptrdiff_t b_step, ptrdiff_t inner)
{
    sum it = {.chain = start, .value = start};
    wide most = magnitude(start);
    for (ptrdiff_t k = 0; k < inner; k++) {
        wide term = (wide)a[k] * b[k * b_step];
        it.chain = REAL(fma)(a[k], b[k * b_step], it.chain);
        it.value += term;
        most += magnitude(term);
    }
    it.tolerance = (wide)inner * (rounding() * most + from_bits(1));
    return it;
}

static int meets(real got, wide want, wide tolerance)
{
    return magnitude((wide)got - want) <= tolerance;
}

/* ------------------------------------------------------------------------------ the inputs ---- */

/* Now and then a zero or something small, so that not all terms weigh the same. */
static real random_value(void)
{
    uint64_t kind = random_bits() % 16;
    double most = kind == 1 ? 1e-3 : 2;
    return kind == 0 ? 0 : (real)random_uniform(-most, most);
}

static void fill(real *values, ptrdiff_t elements)
{
    for (ptrdiff_t k = 0; k < elements; k++)
        values[k] = random_value();
}

/* The sizes where tiles and blocks begin and end. The counts of these lists and of columns and
 * units (70) have no common divisors, so that all of them meet in the long run. */
static ptrdiff_t rows_of_case(ptrdiff_t number)
{
    ptrdiff_t k = number * 10 % 27;
    return k < 20 ? 1 + k : 99 + k; /* 1 … 20, 119 … 125 */
}

static ptrdiff_t inner_of_case(ptrdiff_t number)
{
    ptrdiff_t k = number * 5 % 17;
    return k < 5 ? 1 + k : k < 8 ? 90 + k : 184 + k; /* 1 … 5, 95 … 97, 192 … 200 */
}

static ptrdiff_t columns_of_case(ptrdiff_t number)
{
    return 1 + number * 33 % 70;
}

/* --------------------------------------------------------------------------------- packing ---- */

static ptrdiff_t round_up(ptrdiff_t n, ptrdiff_t to)
{
    return (n + to - 1) / to * to;
}

/* Elements in a row of the panel that a column of B stands in: the last one may be narrow. */
static ptrdiff_t width_of_panel(ptrdiff_t column, ptrdiff_t columns, ptrdiff_t vector)
{
    ptrdiff_t left = round_up(columns, vector) - column / (4 * vector) * (4 * vector);
    return left < 4 * vector ? left : 4 * vector;
}

/* Where a column of B, or gate `gate` of a unit, stands in panels, for k = 0. */
static ptrdiff_t place_of_column(ptrdiff_t column, ptrdiff_t inner, ptrdiff_t vector)
{
    return column / (4 * vector) * (4 * vector) * inner + column % (4 * vector);
}

static ptrdiff_t place_of_gate(ptrdiff_t gate, ptrdiff_t unit, ptrdiff_t inner, ptrdiff_t vector)
{
    return unit / vector * (4 * vector) * inner + gate * vector + unit % vector;
}

static void check_panels(real *panels, const real *want, ptrdiff_t elements, const char *what,
                         ptrdiff_t inner, ptrdiff_t columns, const call *how)
{
    long wrong = 0;
    for (ptrdiff_t k = 0; k < elements; k++)
        wrong += to_bits(panels[k]) != to_bits(want[k]);
    check(wrong == 0, "f%d %s %s, %td of %td: %ld of %td elements of the panels are wrong",
          FASTLSTM_REAL, how->isa->name, what, inner, columns, wrong, elements);
    fenced_free(panels, what);
}

static void test_pack(ptrdiff_t inner, ptrdiff_t columns, int transposed, const call *how)
{
    static real values[MOST_INNER * MOST_COLUMNS], want[MOST_INNER * MOST_COLUMNS];
    ptrdiff_t vector = how->isa->TABLE.vector, elements = round_up(columns, vector) * inner;
    fill(values, inner * columns);
    memset(want, 0, sizeof want);
    for (ptrdiff_t k = 0; k < inner; k++)
        for (ptrdiff_t column = 0; column < columns; column++)
            want[place_of_column(column, inner, vector) +
                 k * width_of_panel(column, columns, vector)] = values[k * columns + column];
    matrix b = matrix_of(values, inner, columns, transposed, how);
    real *panels = fenced_alloc(bytes_of(elements), how->placement);
    memset(panels, 0xFF, bytes_of(elements));
    how->isa->TABLE.pack(panels, b.data, b.ld, transposed, inner, columns);
    check_panels(panels, want, elements, transposed ? "pack, transposed" : "pack", inner, columns,
                 how);
    matrix_free(b, NULL, "b", how);
}

static void test_pack_gates(ptrdiff_t inner, ptrdiff_t hidden, const call *how)
{
    static real values[MOST_COLUMNS * MOST_INNER], want[MOST_COLUMNS * MOST_INNER];
    ptrdiff_t vector = how->isa->TABLE.vector, elements = round_up(hidden, vector) * 4 * inner;
    call dense = {.isa = how->isa, .placement = how->placement};
    fill(values, 4 * hidden * inner);
    memset(want, 0, sizeof want);
    for (ptrdiff_t row = 0; row < 4 * hidden; row++)
        for (ptrdiff_t k = 0; k < inner; k++)
            want[place_of_gate(row / hidden, row % hidden, inner, vector) + k * 4 * vector] =
                values[row * inner + k];
    matrix weight = matrix_of(values, 4 * hidden, inner, 0, &dense);
    real *panels = fenced_alloc(bytes_of(elements), how->placement);
    memset(panels, 0xFF, bytes_of(elements));
    how->isa->TABLE.pack_gates(panels, weight.data, inner, hidden);
    check_panels(panels, want, elements, "pack_gates", inner, hidden, how);
    matrix_free(weight, NULL, "weight", &dense);
}

static void test_packing(call how)
{
    static const ptrdiff_t inners[] = {1, 2, 5, 17};
    for (ptrdiff_t columns = 1; columns <= 140; columns++) {
        ptrdiff_t inner = inners[columns % 4];
        for (int variant = 0; variant < 2 * PLACEMENTS; variant++) {
            how.placement = (enum placement)(variant % PLACEMENTS);
            how.gap = (columns + variant) % 3 == 0 ? 0 : GAP;
            test_pack(inner, columns, variant / PLACEMENTS, &how);
            if (columns <= 40)
                test_pack_gates(inner, columns, &how);
        }
    }
}

/* -------------------------------------------------------------------------------- products ---- */

/* A product with its inputs: start is what multiply adds to, initial what multiply_packed does.
 * b and the weights of a cell's step are (columns, inner). */
typedef struct {
    ptrdiff_t rows, inner, columns;
    real a[MOST_ROWS * MOST_INNER], b[MOST_COLUMNS * MOST_INNER];
    real initial[MOST_COLUMNS], start[MOST_ROWS * MOST_COLUMNS];
} product;

static real panels_of_b[MOST_COLUMNS * MOST_INNER];

static void random_product(product *it, ptrdiff_t rows, ptrdiff_t inner, ptrdiff_t columns)
{
    it->rows = rows;
    it->inner = inner;
    it->columns = columns;
    fill(it->a, rows * inner);
    fill(it->b, columns * inner);
    fill(it->initial, columns);
    fill(it->start, rows * columns);
}

static void run_multiply(real *out, const product *it, int transpose_a, int transpose_b,
                         int accumulate, const call *how)
{
    matrix a = matrix_of(it->a, it->rows, it->inner, transpose_a, how);
    matrix b = matrix_of(it->b, it->columns, it->inner, !transpose_b, how);
    matrix to = matrix_of(accumulate ? it->start : NULL, it->rows, it->columns, 0, how);
    how->isa->TABLE.multiply(to.data, to.ld, a.data, a.ld, transpose_a, b.data, b.ld, transpose_b,
                             it->rows, it->inner, it->columns, accumulate);
    matrix_free(to, out, "out", how);
    matrix_free(a, NULL, "a", how);
    matrix_free(b, NULL, "b", how);
}

static void run_multiply_packed(real *out, const product *it, int has_initial, const call *how)
{
    call dense = {.isa = how->isa, .placement = how->placement};
    ptrdiff_t size = round_up(it->columns, how->isa->TABLE.vector) * it->inner;
    matrix a = matrix_of(it->a, it->rows, it->inner, 0, how);
    matrix to = matrix_of(NULL, it->rows, it->columns, 0, how);
    matrix panels = matrix_of(NULL, size, 1, 0, &dense);
    real *initial = NULL;
    how->isa->TABLE.pack(panels.data, it->b, it->inner, 1, it->inner, it->columns);
    if (has_initial)
        initial = matrix_of(it->initial, it->columns, 1, 0, &dense).data;
    how->isa->TABLE.multiply_packed(to.data, to.ld, initial, a.data, a.ld, panels.data, it->rows,
                                    it->inner, it->columns);
    matrix_free(to, out, "out", how);
    matrix_free(a, NULL, "a", how);
    matrix_free(panels, NULL, "panels", &dense);
    if (initial != NULL)
        fenced_free(initial, "initial");
}

enum start { FROM_ZERO, FROM_START, FROM_INITIAL };

static void expect_product(sum *want, const product *it, enum start from)
{
    for (ptrdiff_t row = 0; row < it->rows; row++)
        for (ptrdiff_t column = 0; column < it->columns; column++) {
            ptrdiff_t at = row * it->columns + column;
            real start = from == FROM_START     ? it->start[at]
                         : from == FROM_INITIAL ? it->initial[column]
                                                : 0;
            want[at] = sum_of(start, it->a + row * it->inner, it->b + column * it->inner, 1,
                              it->inner);
        }
}

static void check_product(const real *got, const sum *want, const product *it, const char *what,
                          const call *how)
{
    long off = 0, other = 0;
    for (ptrdiff_t k = 0; k < it->rows * it->columns; k++) {
        off += !meets(got[k], want[k].value, want[k].tolerance);
        other += !same(got[k], want[k].chain);
    }
    check(off == 0, "f%d %s %s, %td·%td·%td: %ld elements are wrong", FASTLSTM_REAL,
          how->isa->name, what, it->rows, it->inner, it->columns, off);
    check(other == 0, "f%d %s %s, %td·%td·%td: %ld elements have other bits than the chain",
          FASTLSTM_REAL, how->isa->name, what, it->rows, it->inner, it->columns, other);
}

/* Each row alone has the same bits as among the others. */
static void check_rows_alone(const real *multiplied, const real *packed, const product *it,
                             const call *how)
{
    real alone[MOST_COLUMNS];
    long different = 0;
    how->isa->TABLE.pack(panels_of_b, it->b, it->inner, 1, it->inner, it->columns);
    for (ptrdiff_t row = 0; row < it->rows; row++) {
        const real *a = it->a + row * it->inner;
        how->isa->TABLE.multiply(alone, it->columns, a, it->inner, 0, it->b, it->inner, 1, 1,
                                 it->inner, it->columns, 0);
        different += count_different(alone, multiplied + row * it->columns, it->columns);
        how->isa->TABLE.multiply_packed(alone, it->columns, it->initial, a, it->inner, panels_of_b,
                                        1, it->inner, it->columns);
        different += count_different(alone, packed + row * it->columns, it->columns);
    }
    check(different == 0, "f%d %s, %td·%td·%td: %ld elements depend on the other rows",
          FASTLSTM_REAL, how->isa->name, it->rows, it->inner, it->columns, different);
}

static void test_product(const product *it, call how)
{
    static sum want[3][MOST_ROWS * MOST_COLUMNS];
    static real out[MOST_ROWS * MOST_COLUMNS], packed[MOST_ROWS * MOST_COLUMNS];
    for (int from = 0; from < 3; from++)
        expect_product(want[from], it, (enum start)from);
    for (int variant = 0; variant < 8; variant++) {
        int accumulate = variant / 4;
        how.placement = (enum placement)((how.placement + 1) % PLACEMENTS);
        run_multiply(out, it, variant & 1, variant >> 1 & 1, accumulate, &how);
        check_product(out, want[accumulate ? FROM_START : FROM_ZERO], it,
                      variant & 1 ? "multiply, a transposed" : "multiply", &how);
        how.gap = GAP - how.gap;
    }
    run_multiply_packed(packed, it, 0, &how);
    check_product(packed, want[FROM_ZERO], it, "multiply_packed, no initial", &how);
    how.gap = GAP - how.gap;
    run_multiply_packed(packed, it, 1, &how);
    check_product(packed, want[FROM_INITIAL], it, "multiply_packed", &how);
    run_multiply(out, it, 0, 1, 0, &how);
    check_rows_alone(out, packed, it, &how);
}

static product current, poisoned;

static void test_products_of_all_sizes(call how, ptrdiff_t cases)
{
    for (ptrdiff_t number = 0; number < cases; number++) {
        how.gap = number % 2 * GAP;
        how.placement = (enum placement)(number % PLACEMENTS);
        random_product(&current, rows_of_case(number), inner_of_case(number),
                       columns_of_case(number));
        test_product(&current, how);
    }
}

/* What is subnormal stays: an operand, a term, a result; and what is set aside between blocks. */
static void test_subnormal_products(call how)
{
    static real out[MOST_ROWS * MOST_COLUMNS];
    static sum want[MOST_ROWS * MOST_COLUMNS];
    static const ptrdiff_t rows[] = {1, 7}, inner[] = {3, 97};
    for (int variant = 0; variant < 4; variant++) {
        random_product(&current, rows[variant % 2], inner[variant / 2], 37);
        for (ptrdiff_t k = 0; k < current.rows * current.inner; k++)
            current.a[k] *= from_bits((bits_t)1 << (FRACTION - 8));
        for (ptrdiff_t k = 0; k < current.columns; k++)
            current.initial[k] = from_bits(1);
        expect_product(want, &current, FROM_INITIAL);
        run_multiply_packed(out, &current, 1, &how);
        check_product(out, want, &current, "multiply_packed, subnormal", &how);
        expect_product(want, &current, FROM_ZERO);
        run_multiply(out, &current, 0, 0, 0, &how);
        check_product(out, want, &current, "multiply, subnormal", &how);
        long subnormal = 0;
        for (ptrdiff_t k = 0; k < current.rows * current.columns; k++)
            subnormal += fpclassify(out[k]) == FP_SUBNORMAL;
        check(subnormal > 0, "f%d: no result is subnormal", FASTLSTM_REAL);
    }
}

/* What is not finite in a row of A, or in a column of B, stays there, as the chain says. */
static void test_poisoned_products(call how)
{
    static real clean[MOST_ROWS * MOST_COLUMNS], out[MOST_ROWS * MOST_COLUMNS];
    static sum want[MOST_ROWS * MOST_COLUMNS];
    const real poisons[] = {(real)NAN, (real)INFINITY, -(real)INFINITY};
    random_product(&current, 13, 99, 45);
    for (ptrdiff_t row = 0; row < current.rows; row++) {
        ptrdiff_t k = (ptrdiff_t)(random_bits() % 99), column = row * 3 + 1;
        poisoned = current;
        poisoned.a[row * current.inner + k] = poisons[row % 3];
        poisoned.b[column * current.inner + (k + 1) % 99] = poisons[row / 3 % 3];
        expect_product(want, &poisoned, FROM_INITIAL);
        for (int packed = 0; packed < 2; packed++) {
            long spread = 0;
            if (packed) {
                run_multiply_packed(clean, &current, 1, &how);
                run_multiply_packed(out, &poisoned, 1, &how);
                for (ptrdiff_t at = 0; at < current.rows * current.columns; at++)
                    spread += !same(out[at], want[at].chain);
            } else {
                run_multiply(clean, &current, 1, 0, 0, &how);
                run_multiply(out, &poisoned, 1, 0, 0, &how);
            }
            for (ptrdiff_t at = 0; at < current.rows * current.columns; at++) {
                int touched = at / current.columns == row || at % current.columns == column;
                spread += touched ? isfinite(out[at]) != 0 : !same(out[at], clean[at]);
            }
            check(spread == 0, "f%d %s: what is not finite in row %td is not in its place in %ld",
                  FASTLSTM_REAL, how.isa->name, row, spread);
        }
    }
}

/* ----------------------------------------------------------------------- steps of the cell ---- */

/* A step with its inputs; pre is (rows, 4*hidden), its columns in the order of the gates, and
 * nobody knows panels but run_step. */
typedef struct {
    ptrdiff_t rows, hidden;
    real weight[4 * MOST_INNER * MOST_INNER];
    real pre[MOST_ROWS * 4 * MOST_INNER];
    real h_prev[MOST_ROWS * MOST_INNER], c_prev[MOST_ROWS * MOST_INNER];
} step;

typedef struct {
    real gates[MOST_ROWS * 4 * MOST_INNER];
    real h[MOST_ROWS * MOST_INNER], c[MOST_ROWS * MOST_INNER];
} stepped;

enum { NO_GATES = 1, IN_PLACE = 2, NO_STATE = 4, WITH_GAP = 8, VARIANTS = 16 };

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

/* Row `first` and the `rows - 1` after it. */
static void run_step(stepped *out, const step *it, ptrdiff_t first, ptrdiff_t rows, int variant,
                     const call *how)
{
    ptrdiff_t H = it->hidden, vector = how->isa->TABLE.vector, units = round_up(H, vector);
    call dense = {.isa = how->isa, .placement = how->placement}, gaps = dense;
    gaps.gap = variant & WITH_GAP ? GAP : 0;
    matrix panels = matrix_of(NULL, 4 * units, H, 0, &dense);
    matrix pre = matrix_of(NULL, rows, 4 * units, 0, &dense);
    matrix c_prev = matrix_of(it->c_prev + first * H, rows, H, 0, &dense);
    matrix c = variant & IN_PLACE ? c_prev : matrix_of(NULL, rows, H, 0, &dense);
    matrix h_prev = matrix_of(it->h_prev + first * H, rows, H, 0, &gaps);
    gaps.gap *= 2; /* ld_h and ld_h_prev differ */
    matrix h = matrix_of(NULL, rows, H, 0, &gaps);
    matrix gates = {NULL};
    if (!(variant & NO_GATES))
        gates = matrix_of(NULL, rows, 4 * H, 0, &dense);
    how->isa->TABLE.pack_gates(panels.data, it->weight, H, H);
    pack_pre(pre.data, it->pre + first * 4 * H, rows, H, vector);
    how->isa->TABLE.cell_step(h.data, c.data, gates.data, pre.data, c_prev.data,
                              variant & NO_STATE ? NULL : h_prev.data, panels.data, rows, H, 0, H,
                              h.ld, h_prev.ld, variant & 1);
    matrix_free(h, out->h, "h", how);
    matrix_free(c, out->c, "c", how);
    if (gates.data != NULL)
        matrix_free(gates, out->gates, "gates", how);
    if (!(variant & IN_PLACE)) {
        check(count_different(c_prev.data, it->c_prev + first * H, rows * H) == 0,
              "f%d %s: c_prev was written to", FASTLSTM_REAL, how->isa->name);
        matrix_free(c_prev, NULL, "c_prev", how);
    }
    matrix_free(h_prev, NULL, "h_prev", how);
    matrix_free(pre, NULL, "pre", how);
    matrix_free(panels, NULL, "panels", how);
}

/* The same by the other kernels: each row times the panels, starting from pre, and then the cell
 * over the pre-activations `z` in the order of the gates. */
static void step_in_two(stepped *out, real *z, const step *it, int has_state,
                        const fastlstm_isa *isa)
{
    static real panels[4 * MOST_UNITS * MOST_INNER], initial[MOST_COLUMNS], row_z[MOST_COLUMNS];
    ptrdiff_t H = it->hidden, vector = isa->TABLE.vector, width = round_up(H, vector) * 4;
    isa->TABLE.pack_gates(panels, it->weight, H, H);
    for (ptrdiff_t row = 0; row < it->rows; row++) {
        pack_pre(initial, it->pre + row * 4 * H, 1, H, vector);
        if (has_state)
            isa->TABLE.multiply_packed(row_z, width, initial, it->h_prev + row * H, H, panels, 1, H,
                                       width);
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

static step current_step, other_step;
static stepped step_whole, step_out;

static void test_step(const step *it, call how)
{
    static stepped in_two[2];
    static real z[2][MOST_ROWS * 4 * MOST_INNER];
    for (int has_state = 0; has_state < 2; has_state++)
        step_in_two(&in_two[has_state], z[has_state], it, has_state, how.isa);
    for (int variant = 0; variant < VARIANTS; variant++) {
        int has_state = !(variant & NO_STATE);
        how.placement = (enum placement)((how.placement + 1) % PLACEMENTS);
        run_step(&step_out, it, 0, it->rows, variant, &how);
        check(count_different_steps(&step_out, &in_two[has_state], it, variant) == 0,
              "f%d %s cell_step, %td rows of %td, variant %d: not the product and then the cell",
              FASTLSTM_REAL, how.isa->name, it->rows, it->hidden, variant);
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
    static const ptrdiff_t deep[] = {97, 193, 95, 200, 96, 192}; /* more than a block of k */
    for (ptrdiff_t number = 0; number < cases; number++) {
        ptrdiff_t rows = rows_of_case(number), hidden = columns_of_case(number);
        if (number % 4 == 1) {
            hidden = deep[number / 4 % 6];
            rows = rows > 20 ? rows - 110 : rows;
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
    static real z[MOST_ROWS * 4 * MOST_INNER];
    const real poisons[] = {(real)NAN, (real)INFINITY, -(real)INFINITY};
    static const ptrdiff_t hiddens[] = {19, 101};
    for (int size = 0; size < 2; size++) {
        ptrdiff_t H = hiddens[size], rows = 8;
        random_step(&current_step, rows, H);
        run_step(&clean, &current_step, 0, rows, 0, &how);
        for (ptrdiff_t at = 0; at < 3 * rows; at++) {
            ptrdiff_t row = at / 3, k = (ptrdiff_t)(random_bits() % (uint64_t)H);
            other_step = current_step;
            real *inputs[] = {other_step.pre + row * 4 * H, other_step.h_prev + row * H,
                              other_step.c_prev + row * H};
            inputs[at % 3][k] = poisons[row % 3];
            run_step(&step_out, &other_step, 0, rows, 0, &how);
            step_in_two(&in_two, z, &other_step, 1, how.isa);
            long spread = count_different_steps(&step_out, &in_two, &other_step, 0);
            for (ptrdiff_t unit = 0; unit < rows * H; unit++)
                spread += unit / H != row && !(same(step_out.h[unit], clean.h[unit]) &&
                                               same(step_out.c[unit], clean.c[unit]));
            check(spread == 0, "f%d %s cell_step: what is not finite in row %td spreads to %ld",
                  FASTLSTM_REAL, how.isa->name, row, spread);
        }
    }
}

/* No rows: nothing is written. */
static void test_no_rows(call how)
{
    static real out[8];
    random_product(&current, 0, 5, 7);
    run_multiply(out, &current, 0, 0, 0, &how);
    run_multiply(out, &current, 1, 0, 1, &how);
    run_multiply_packed(out, &current, 1, &how);
    random_step(&current_step, 0, 7);
    run_step(&step_out, &current_step, 0, 0, 0, &how);
    check(out[0] == 0, "f%d %s: a product of no rows writes", FASTLSTM_REAL, how.isa->name);
}

void TYPED(test_products)(const isa_list *isas, ptrdiff_t cases)
{
    for (int a = 0; a < isas->count; a++) {
        const fastlstm_isa *isa = isas->isa[a];
        call how = {.isa = isa, .placement = FENCE_AFTER};
        int none = isa->TABLE.multiply == NULL;
        check((isa->TABLE.vector == 0) == none && (isa->TABLE.pack == NULL) == none &&
                  (isa->TABLE.pack_gates == NULL) == none &&
                  (isa->TABLE.multiply_packed == NULL) == none &&
                  (isa->TABLE.cell_step == NULL) == none,
              "f%d %s: some of the products are there, and some are not", FASTLSTM_REAL, isa->name);
        if (none)
            continue;
        test_packing(how);
        test_products_of_all_sizes(how, cases);
        test_subnormal_products(how);
        test_poisoned_products(how);
        test_steps_of_all_sizes(how, cases);
        test_poisoned_steps(how);
        test_no_rows(how);
    }
}
