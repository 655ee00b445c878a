/* What the tests of the products and of the cell's steps share, for one real type: matrices with
 * fences and gaps, sums as the kernels round them, random values, sizes, and places in panels.
 * Included where FASTLSTM_REAL is set. */
#ifndef FASTLSTM_MATRICES_H
#define FASTLSTM_MATRICES_H

#include <string.h>

#include "driver.h"

#if FASTLSTM_REAL == 32
#define REAL(function) function##f
#else
#define REAL(function) function
#endif

enum {
    MOST_ROWS = 125,
    MOST_INNER = 520,
    MOST_HIDDEN = 528, /* a whole number of vectors */
    MOST_COLUMNS = 4 * MOST_HIDDEN,
    GAP = 3 /* between the rows of a matrix with gaps: elements that nobody may touch */
};

/* How a kernel is called. */
typedef struct {
    const fastlstm_isa *isa;
    enum placement placement;
    ptrdiff_t gap;
} call;

static inline size_t bytes_of(ptrdiff_t elements)
{
    return (size_t)elements * sizeof(real);
}

/* The same bits; one NaN is as good as another. */
static inline int same(real a, real b)
{
    return to_bits(a) == to_bits(b) || (a != a && b != b);
}

static inline long count_different(const real *a, const real *b, ptrdiff_t elements)
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
static inline matrix matrix_of(const real *values, ptrdiff_t rows, ptrdiff_t columns,
                               int transposed, const call *how)
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
static inline void matrix_free(matrix it, real *values, const char *what, const call *how)
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

static inline wide magnitude(wide x)
{
    return WIDE(fabs)(x);
}

/* The relative error of one rounding, and the oracle's own where it has no bits to spare. */
static inline wide rounding(void)
{
    static wide it; /* asking takes long beside a short sum */
    if (it == 0)
        it = wide_is_wider() ? (wide)EPSILON * (wide)1.001 : 4 * (wide)EPSILON;
    return it;
}

static inline sum sum_of(real start, const real *a, const real *b, ptrdiff_t b_step,
                         ptrdiff_t inner)
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

static inline int meets(real got, wide want, wide tolerance)
{
    return magnitude((wide)got - want) <= tolerance;
}

/* ------------------------------------------------------------------------------ the inputs ---- */

/* Now and then a zero or something small, so that not all terms weigh the same. */
static inline real random_value(void)
{
    uint64_t kind = random_bits() % 16;
    double most = kind == 1 ? 1e-3 : 2;
    return kind == 0 ? 0 : (real)random_uniform(-most, most);
}

static inline void fill(real *values, ptrdiff_t elements)
{
    for (ptrdiff_t k = 0; k < elements; k++)
        values[k] = random_value();
}

/* The sizes where tiles and blocks begin and end. The counts of these lists and of columns and
 * units (70) have no common divisors, so that all of them meet in the long run. */
static inline ptrdiff_t rows_of_case(ptrdiff_t number)
{
    ptrdiff_t k = number * 10 % 27;
    return k < 20 ? 1 + k : 99 + k; /* 1 … 20, 119 … 125 */
}

static inline ptrdiff_t inner_of_case(ptrdiff_t number)
{
    static const ptrdiff_t inners[] = {1,  2,   3,   4,   5,   63,  64,  65, 127,
                                       97, 128, 129, 200, 255, 256, 257, 513};
    return inners[number * 5 % 17];
}

static inline ptrdiff_t columns_of_case(ptrdiff_t number)
{
    return 1 + number * 33 % 70;
}

/* --------------------------------------------------------------------------------- panels ---- */

static inline ptrdiff_t round_up(ptrdiff_t n, ptrdiff_t to)
{
    return (n + to - 1) / to * to;
}

/* Elements in a row of the panel that a column of B stands in: the last one may be narrow. */
static inline ptrdiff_t width_of_panel(ptrdiff_t column, ptrdiff_t columns, ptrdiff_t vector)
{
    ptrdiff_t left = round_up(columns, vector) - column / (4 * vector) * (4 * vector);
    return left < 4 * vector ? left : 4 * vector;
}

/* Where a column of B, or gate `gate` of a unit, stands in panels, for k = 0. */
static inline ptrdiff_t place_of_column(ptrdiff_t column, ptrdiff_t inner, ptrdiff_t vector)
{
    return column / (4 * vector) * (4 * vector) * inner + column % (4 * vector);
}

static inline ptrdiff_t place_of_gate(ptrdiff_t gate, ptrdiff_t unit, ptrdiff_t inner,
                                      ptrdiff_t vector)
{
    return unit / vector * (4 * vector) * inner + gate * vector + unit % vector;
}

#endif
