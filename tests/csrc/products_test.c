/* Tests of packing and of the products over packed panels, for one real type. Against a literal
 * definition: panels to the bit; products to the bit as one chain of fused multiply-adds in the
 * order of k, and within the errors of its roundings in the next wider type. Compiled once per
 * FASTLSTM_REAL. */
#include "matrices.h"

/* --------------------------------------------------------------------------------- packing ---- */
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

enum start { FROM_ZERO, FROM_START, FROM_INITIAL };

static void run_multiply_packed(real *out, const product *it, enum start from, const call *how)
{
    call dense = {.isa = how->isa, .placement = how->placement};
    ptrdiff_t size = round_up(it->columns, how->isa->TABLE.vector) * it->inner;
    matrix a = matrix_of(it->a, it->rows, it->inner, 0, how);
    matrix to = matrix_of(from == FROM_START ? it->start : NULL, it->rows, it->columns, 0, how);
    matrix panels = matrix_of(NULL, size, 1, 0, &dense);
    real *initial = from == FROM_START ? to.data : NULL;
    how->isa->TABLE.pack(panels.data, it->b, it->inner, 1, it->inner, it->columns);
    if (from == FROM_INITIAL)
        initial = matrix_of(it->initial, it->columns, 1, 0, &dense).data;
    how->isa->TABLE.multiply_packed(to.data, to.ld, initial, from == FROM_START ? to.ld : 0, a.data,
                                    a.ld, panels.data, it->rows, it->inner, it->columns);
    matrix_free(to, out, "out", how);
    matrix_free(a, NULL, "a", how);
    matrix_free(panels, NULL, "panels", &dense);
    if (from == FROM_INITIAL)
        fenced_free(initial, "initial");
}

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
        how->isa->TABLE.multiply_packed(alone, it->columns, it->initial, 0, a, it->inner,
                                        panels_of_b, 1, it->inner, it->columns);
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
    run_multiply_packed(packed, it, FROM_ZERO, &how);
    check_product(packed, want[FROM_ZERO], it, "multiply_packed, no initial", &how);
    how.gap = GAP - how.gap;
    run_multiply_packed(packed, it, FROM_START, &how);
    check_product(packed, want[FROM_START], it, "multiply_packed, added", &how);
    run_multiply_packed(packed, it, FROM_INITIAL, &how);
    check_product(packed, want[FROM_INITIAL], it, "multiply_packed", &how);
    run_multiply(out, it, 0, 1, 0, &how);
    check_rows_alone(out, packed, it, &how);
}

static product current;

static void test_products_of_all_sizes(call how, ptrdiff_t cases)
{
    for (ptrdiff_t number = 0; number < cases; number++) {
        how.gap = number % 2 * GAP;
        how.placement = (enum placement)(number % PLACEMENTS);
        ptrdiff_t rows = rows_of_case(number), inner = inner_of_case(number);
        if (rows > 20 && inner > 200 && number % 3 != 0)
            rows -= 100; /* for time's sake */
        random_product(&current, rows, inner, columns_of_case(number));
        test_product(&current, how);
    }
}

/* Few rows take two whole panels at a time, then one, then what is left. */
static void test_products_of_few_rows(call how)
{
    static const ptrdiff_t inners[] = {1, 97, 257, 64};
    ptrdiff_t panel = 4 * how.isa->TABLE.vector;
    for (ptrdiff_t at = 0; at < 60; at++) {
        ptrdiff_t rows = 1 + at % 4, whole = 1 + at / 4 % 5, more = at / 20 - 1;
        how.placement = (enum placement)(at % PLACEMENTS);
        random_product(&current, rows, inners[at / 4 % 4], whole * panel + more);
        test_product(&current, how);
    }
}

/* What is subnormal stays: an operand, a term, a result; and what is set aside between blocks. */
static void test_subnormal_products(call how)
{
    static real out[MOST_ROWS * MOST_COLUMNS];
    static sum want[MOST_ROWS * MOST_COLUMNS];
    static const ptrdiff_t rows[] = {1, 7}, inner[] = {3, 257};
    for (int variant = 0; variant < 4; variant++) {
        random_product(&current, rows[variant % 2], inner[variant / 2], 37);
        for (ptrdiff_t k = 0; k < current.rows * current.inner; k++)
            current.a[k] *= from_bits((bits_t)1 << (FRACTION - 8));
        for (ptrdiff_t k = 0; k < current.columns; k++)
            current.initial[k] = from_bits(1);
        expect_product(want, &current, FROM_INITIAL);
        run_multiply_packed(out, &current, FROM_INITIAL, &how);
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
        real *a = current.a + row * current.inner + k, a_before = *a;
        real *b = current.b + column * current.inner + (k + 1) % 99, b_before = *b;
        for (int packed = 0; packed < 2; packed++) {
            long spread = 0;
            if (packed)
                run_multiply_packed(clean, &current, FROM_INITIAL, &how);
            else
                run_multiply(clean, &current, 1, 0, 0, &how);
            *a = poisons[row % 3];
            *b = poisons[row / 3 % 3];
            if (packed) {
                expect_product(want, &current, FROM_INITIAL);
                run_multiply_packed(out, &current, FROM_INITIAL, &how);
                for (ptrdiff_t at = 0; at < current.rows * current.columns; at++)
                    spread += !same(out[at], want[at].chain);
            } else {
                run_multiply(out, &current, 1, 0, 0, &how);
            }
            *a = a_before;
            *b = b_before;
            for (ptrdiff_t at = 0; at < current.rows * current.columns; at++) {
                int touched = at / current.columns == row || at % current.columns == column;
                spread += touched ? isfinite(out[at]) != 0 : !same(out[at], clean[at]);
            }
            check(spread == 0, "f%d %s: what is not finite in row %td is not in its place in %ld",
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
    run_multiply_packed(out, &current, FROM_INITIAL, &how);
    check(out[0] == 0, "f%d %s: a product of no rows writes", FASTLSTM_REAL, how.isa->name);
}

void TYPED(test_products)(const isa_list *isas, ptrdiff_t cases)
{
    for (int a = 0; a < isas->count; a++) {
        const fastlstm_isa *isa = isas->isa[a];
        call how = {.isa = isa, .placement = FENCE_AFTER};
        int none = isa->TABLE.vector == 0;
        check((isa->TABLE.pack == NULL) == none && (isa->TABLE.pack_gates == NULL) == none &&
                  (isa->TABLE.multiply == NULL) == none &&
                  (isa->TABLE.multiply_packed == NULL) == none &&
                  (isa->TABLE.cell_step == NULL) == none &&
                  (isa->TABLE.cell_step_back == NULL) == none,
              "f%d %s: some of the products are there, and some are not", FASTLSTM_REAL, isa->name);
        if (none)
            continue;
        test_packing(how);
        test_products_of_all_sizes(how, cases);
        test_products_of_few_rows(how);
        test_subnormal_products(how);
        test_poisoned_products(how);
        test_no_rows(how);
    }
}
