/* Matrix products over packed panels, on the vector type of simd.h; included once per real type.
 *
 * B is packed into panels of 4 vectors of columns, [panel][k][4][V_WIDTH]; the last panel has as
 * many vectors as there are columns left for. In a product that feeds the cell, the 4 vectors are
 * the gates i, f, g, o of the same V_WIDTH hidden units, so that the gate math runs on what was
 * just accumulated. Columns past the end are zeros.
 *
 * Panels hold elements of type WEIGHT, which LOAD_WEIGHTS widens to a vector and STORE_WEIGHTS
 * narrows from one. Both are set where this file is included, so that weights of a smaller type
 * are one more inclusion and no second kernel.
 *
 * A tile keeps the results of up to TILE_ROWS rows of A with one panel in registers, so each
 * loaded weight serves all of them. Whatever the tile, an element of the result starts from its
 * initial value and adds a[k]*b[k] for k = 0, 1, 2, … with one rounding each; between two blocks
 * of k it is set aside with all its bits. So the bits of a row depend neither on the other rows
 * nor on how rows and panels are shared out to tiles and threads.
 */
#ifndef FASTLSTM_PRODUCTS_ONCE
#define FASTLSTM_PRODUCTS_ONCE
#define GATES 4
#if defined(FASTLSTM_ISA_AVX2)
#define TILE_ROWS 3 /* 12 accumulators of 16 registers */
#else
#define TILE_ROWS 6 /* 24 accumulators of 32 registers */
#endif
#define PAIR_ROWS (TILE_ROWS / 2) /* so many rows leave room for a pair of panels */
#define BLOCK_INNER 256 /* k at a time, where a panel serves several tiles: 64 KiB stay in L2 */
#define BLOCK_ROWS 120 /* rows of A at a time, which stay in L2 over all panels */
/* The same where both are packed on the way, on the stack: together below 100 KiB, for threads
 * whose stacks are small. Long pieces of rows, so that the processor sees their next lines coming. */
#define PACK_INNER 96
#define PACK_BYTES 768 /* of a row of A, when A is transposed */
#define PACK_ROWS (PACK_BYTES / (ptrdiff_t)sizeof(real))
#if defined(__clang__)
#define FASTLSTM_UNROLL _Pragma("unroll")
#elif defined(__GNUC__)
#define FASTLSTM_UNROLL _Pragma("GCC unroll 8")
#else
#define FASTLSTM_UNROLL
#endif
/* Where there are registers enough: compilers would rather load a weight again for each row. */
#if defined(FASTLSTM_ISA_AVX512) && defined(__GNUC__)
#define KEEP_IN_REGISTER(x) __asm__("" : "+v"(x))
#else
#define KEEP_IN_REGISTER(x) ((void)0)
#endif
#define PANEL (GATES * V_WIDTH) /* columns of a whole panel */
#define tile_arguments FASTLSTM_TYPED(tile_arguments)
/* DO for each number of rows that a tile may have, and for those that leave room for a pair. */
#if TILE_ROWS == 6
#define EACH_ROWS(DO) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6)
#define EACH_PAIR(DO) DO(1) DO(2) DO(3)
#else
#define EACH_ROWS(DO) DO(1) DO(2) DO(3)
#define EACH_PAIR(DO) DO(1)
#endif
/* The functions that these made, tile_KIND_ROWS_WIDTH and tile_KIND_pair_ROWS, as initialisers: by
 * rows - 1, by width - 1 and rows - 1, and by rows - 1. */
#if TILE_ROWS == 6
#define TILE_TABLE(kind, width)                                                                    \
    {                                                                                              \
        KERNEL(tile_##kind##_1_##width), KERNEL(tile_##kind##_2_##width),                          \
            KERNEL(tile_##kind##_3_##width), KERNEL(tile_##kind##_4_##width),                      \
            KERNEL(tile_##kind##_5_##width), KERNEL(tile_##kind##_6_##width)                       \
    }
#define PAIR_TABLE(kind)                                                                           \
    {                                                                                              \
        KERNEL(tile_##kind##_pair_1), KERNEL(tile_##kind##_pair_2), KERNEL(tile_##kind##_pair_3)   \
    }
#else
#define TILE_TABLE(kind, width)                                                                    \
    {                                                                                              \
        KERNEL(tile_##kind##_1_##width), KERNEL(tile_##kind##_2_##width),                          \
            KERNEL(tile_##kind##_3_##width)                                                        \
    }
#define PAIR_TABLE(kind)                                                                           \
    {                                                                                              \
        KERNEL(tile_##kind##_pair_1)                                                               \
    }
#endif
#define TILE_TABLES(kind)                                                                          \
    {                                                                                              \
        TILE_TABLE(kind, 1), TILE_TABLE(kind, 2), TILE_TABLE(kind, 3), TILE_TABLE(kind, 4)         \
    }
#endif

/* --------------------------------------------------------------------------- packing --------- */

/* Vectors in the panel that begins `columns` before the end. */
FASTLSTM_INLINE int KERNEL(panel_width)(ptrdiff_t columns)
{
    return columns >= PANEL ? GATES : (int)((columns + V_WIDTH - 1) / V_WIDTH);
}

/* Up to V_WIDTH neighbouring columns of B for `inner` k, into one of the vectors of a panel whose
 * rows are `stride` elements long. B is (inner, columns), or (columns, inner) if transposed. */
static void KERNEL(pack_vector)(WEIGHT *panel, ptrdiff_t stride, const real *b, ptrdiff_t ld_b,
                                int transposed, ptrdiff_t column, ptrdiff_t columns,
                                ptrdiff_t inner)
{
    ptrdiff_t n = columns - column < V_WIDTH ? columns - column : V_WIDTH;
    if (n < V_WIDTH)
        for (ptrdiff_t k = 0; k < inner; k++)
            STORE_WEIGHTS(panel + k * stride, v_set(0));
    if (transposed) {
        for (ptrdiff_t lane = 0; lane < n; lane++)
            for (ptrdiff_t k = 0; k < inner; k++)
                panel[k * stride + lane] = (WEIGHT)b[(column + lane) * ld_b + k];
    } else {
        for (ptrdiff_t k = 0; k < inner; k++)
            STORE_WEIGHTS(panel + k * stride, v_load_n(b + k * ld_b + column, n));
    }
}

static void KERNEL(pack)(WEIGHT *panels, const real *b, ptrdiff_t ld_b, int transposed,
                         ptrdiff_t inner, ptrdiff_t columns)
{
    assert(inner >= 0 && columns >= 0);
    assert((transposed ? columns : inner) <= 1 || ld_b >= (transposed ? inner : columns));
    assert(inner * columns == 0 || (panels != NULL && b != NULL));
    for (ptrdiff_t column = 0; column < columns; column += PANEL, panels += PANEL * inner) {
        int width = KERNEL(panel_width)(columns - column);
        for (int v = 0; v < width; v++)
            KERNEL(pack_vector)(panels + v * V_WIDTH, width * V_WIDTH, b, ld_b, transposed,
                                column + v * V_WIDTH, columns, inner);
    }
}

static void KERNEL(pack_gates)(WEIGHT *panels, const real *weight, ptrdiff_t inner,
                               ptrdiff_t hidden)
{
    assert(inner >= 0 && hidden >= 0);
    assert(inner * hidden == 0 || (panels != NULL && weight != NULL));
    for (ptrdiff_t unit = 0; unit < hidden; unit += V_WIDTH, panels += PANEL * inner)
        for (int g = 0; g < GATES; g++)
            KERNEL(pack_vector)(panels + g * V_WIDTH, PANEL, weight + g * hidden * inner, inner, 1,
                                unit, hidden, inner);
}

/* --------------------------------------------------------------------------- tiles ----------- */

/* acc[r*panels + p] += row r of A times panel p, of `width` vectors, over `inner` k. Where it is
 * inlined, rows, panels and width are constants and so is one of the strides. */
FASTLSTM_INLINE void KERNEL(accumulate)(vec acc[][GATES], int rows, int panels, int width,
                                        const real *a, ptrdiff_t row_stride,
                                        ptrdiff_t inner_stride, const WEIGHT *panel,
                                        ptrdiff_t panel_stride, ptrdiff_t inner)
{
    for (ptrdiff_t k = 0; k < inner; k++) {
        FASTLSTM_UNROLL
        for (int p = 0; p < panels; p++) {
            const WEIGHT *weights = panel + p * panel_stride + k * width * V_WIDTH;
            vec w[GATES];
            FASTLSTM_UNROLL
            for (int v = 0; v < width; v++) {
                w[v] = LOAD_WEIGHTS(weights + v * V_WIDTH);
                KEEP_IN_REGISTER(w[v]);
            }
            FASTLSTM_UNROLL
            for (int r = 0; r < rows; r++) {
                vec x = v_set(a[r * row_stride + k * inner_stride]);
                FASTLSTM_UNROLL
                for (int v = 0; v < width; v++)
                    acc[r * panels + p][v] = v_fma(x, w[v], acc[r * panels + p][v]);
            }
        }
    }
}

/* A row of a panel's columns, of which `columns` are there; NULL gives zeros. */
FASTLSTM_INLINE void KERNEL(load_row)(vec row[GATES], int width, const real *from,
                                      ptrdiff_t columns)
{
    FASTLSTM_UNROLL
    for (int v = 0; v < width; v++, columns -= V_WIDTH)
        row[v] = from == NULL ? v_set(0)
                              : v_load_n(from + v * V_WIDTH, columns < V_WIDTH ? columns : V_WIDTH);
}

/* What the accumulators of a tile begin with; rows are ld_from elements apart, NULL gives zeros. */
FASTLSTM_INLINE void KERNEL(load_tile)(vec acc[][GATES], int rows, int panels, int width,
                                       const real *from, ptrdiff_t ld_from, ptrdiff_t columns)
{
    FASTLSTM_UNROLL
    for (int k = 0; k < rows * panels; k++) {
        ptrdiff_t column = k % panels * PANEL;
        KERNEL(load_row)(acc[k], width, from == NULL ? NULL : from + k / panels * ld_from + column,
                         columns - column);
    }
}

FASTLSTM_INLINE void KERNEL(store_row)(real *to, int width, const vec row[GATES],
                                       ptrdiff_t columns)
{
    FASTLSTM_UNROLL
    for (int v = 0; v < width; v++, columns -= V_WIDTH)
        v_store_n(to + v * V_WIDTH, row[v], columns < V_WIDTH ? columns : V_WIDTH);
}

/* One tile of a product: out = initial + A·panel. */
typedef struct tile_arguments {
    real *out;
    ptrdiff_t ld_out;
    const real *initial; /* NULL: zeros; ld_initial 0: the same for all rows */
    ptrdiff_t ld_initial;
    const real *a;
    ptrdiff_t stride; /* of A: from row to row, or, if A is transposed, from k to k */
    const WEIGHT *panel;
    ptrdiff_t panel_stride; /* to the second panel of a pair */
    ptrdiff_t inner, columns;
} tile_arguments;

FASTLSTM_INLINE void KERNEL(tile)(int rows, int panels, int width, int transposed,
                                  const tile_arguments *it)
{
    vec acc[TILE_ROWS][GATES];
    KERNEL(load_tile)(acc, rows, panels, width, it->initial, it->ld_initial, it->columns);
    KERNEL(accumulate)(acc, rows, panels, width, it->a, transposed ? 1 : it->stride,
                       transposed ? it->stride : 1, it->panel, it->panel_stride, it->inner);
    FASTLSTM_UNROLL
    for (int k = 0; k < rows * panels; k++)
        KERNEL(store_row)(it->out + k / panels * it->ld_out + k % panels * PANEL, width, acc[k],
                          it->columns - k % panels * PANEL);
}

/* A function for each number of rows, and for each width of the panel where it is not whole. */
#define TILES(rows, width)                                                                         \
    static void KERNEL(tile_plain_##rows##_##width)(const tile_arguments *it)                      \
    {                                                                                              \
        KERNEL(tile)(rows, 1, width, 0, it);                                                       \
    }                                                                                              \
    static void KERNEL(tile_transposed_##rows##_##width)(const tile_arguments *it)                 \
    {                                                                                              \
        KERNEL(tile)(rows, 1, width, 1, it);                                                       \
    }
#define TILES_OF_ROWS(rows) TILES(rows, 1) TILES(rows, 2) TILES(rows, 3) TILES(rows, 4)
/* Few rows fill too few registers to hide the latency of memory and of a fused multiply-add: a
 * pair of panels does. */
#define PAIRS(rows)                                                                                \
    static void KERNEL(tile_plain_pair_##rows)(const tile_arguments *it)                           \
    {                                                                                              \
        KERNEL(tile)(rows, 2, GATES, 0, it);                                                       \
    }
EACH_ROWS(TILES_OF_ROWS)
EACH_PAIR(PAIRS)
#undef TILES
#undef TILES_OF_ROWS
#undef PAIRS

static void (*const KERNEL(tiles)[2][GATES][TILE_ROWS])(const tile_arguments *) = {
    TILE_TABLES(plain), TILE_TABLES(transposed)};
static void (*const KERNEL(pairs)[PAIR_ROWS])(const tile_arguments *) = PAIR_TABLE(plain);

/* Rows of the next tile, where `rows` are left: as even as can be, so that none is left narrow. */
FASTLSTM_INLINE ptrdiff_t KERNEL(next_tile)(ptrdiff_t rows)
{
    ptrdiff_t tiles = (rows + TILE_ROWS - 1) / TILE_ROWS;
    return (rows + tiles - 1) / tiles;
}

/* Columns to take next, where `left` are left: a panel, or a pair of panels for few rows. From
 * the end if `descending`: a step that begins with the panels that the step before ended with
 * still finds them in the cache. */
FASTLSTM_INLINE ptrdiff_t KERNEL(next_columns)(ptrdiff_t rows, ptrdiff_t left, int descending)
{
    if (descending && left % PANEL != 0)
        return left % PANEL;
    if (rows <= PAIR_ROWS && left >= 2 * PANEL)
        return 2 * PANEL;
    return left < PANEL ? left : PANEL;
}

/* --------------------------------------------------------------------------- products -------- */

/* k at a time, at most `most` and as even as can be. */
FASTLSTM_INLINE ptrdiff_t KERNEL(block_of)(ptrdiff_t inner, ptrdiff_t most)
{
    ptrdiff_t blocks = (inner + most - 1) / most;
    return blocks > 0 ? (inner + blocks - 1) / blocks : 0;
}

/* out = initial + A·panel for `rows` rows and some k; a pair of panels if there are so many
 * columns. */
static void KERNEL(multiply_panel)(tile_arguments it, ptrdiff_t rows, int transposed)
{
    if (it.columns == 2 * PANEL) {
        assert(rows >= 1 && rows <= PAIR_ROWS && !transposed);
        KERNEL(pairs)[rows - 1](&it);
        return;
    }
    int width = KERNEL(panel_width)(it.columns);
    while (rows > 0) {
        ptrdiff_t count = KERNEL(next_tile)(rows);
        KERNEL(tiles)[transposed][width - 1][count - 1](&it);
        rows -= count;
        it.out += count * it.ld_out;
        it.a += count * (transposed ? 1 : it.stride);
        if (it.initial != NULL)
            it.initial += count * it.ld_initial;
    }
}

static void KERNEL(multiply_packed)(real *out, ptrdiff_t ld_out, const real *initial,
                                    ptrdiff_t ld_initial, const real *a, ptrdiff_t ld_a,
                                    const WEIGHT *panels, ptrdiff_t rows, ptrdiff_t inner,
                                    ptrdiff_t columns)
{
    assert(rows >= 0 && inner >= 1 && columns >= 0);
    assert(rows <= 1 || (ld_a >= inner && ld_out >= columns));
    assert(rows * columns == 0 || (out != NULL && a != NULL && panels != NULL));
    for (ptrdiff_t row = 0; row < rows; row += BLOCK_ROWS) {
        ptrdiff_t count = rows - row < BLOCK_ROWS ? rows - row : BLOCK_ROWS;
        ptrdiff_t step = count > TILE_ROWS ? KERNEL(block_of)(inner, BLOCK_INNER) : inner;
        for (ptrdiff_t column = 0, some; column < columns; column += some) {
            some = KERNEL(next_columns)(count, columns - column, 0);
            tile_arguments it = {.out = out + row * ld_out + column,
                                 .ld_out = ld_out,
                                 .initial =
                                     initial != NULL ? initial + row * ld_initial + column : NULL,
                                 .ld_initial = ld_initial,
                                 .a = a + row * ld_a,
                                 .stride = ld_a,
                                 .panel = panels + column * inner,
                                 .panel_stride = PANEL * inner,
                                 .columns = some};
            ptrdiff_t width = KERNEL(panel_width)(some) * V_WIDTH;
            for (ptrdiff_t k = 0; k < inner; k += step) {
                it.inner = inner - k < step ? inner - k : step;
                KERNEL(multiply_panel)(it, count, 0);
                it.initial = it.out;
                it.ld_initial = ld_out;
                it.a += it.inner;
                it.panel += it.inner * width;
            }
        }
    }
}

static void KERNEL(multiply)(real *out, ptrdiff_t ld_out, const real *a, ptrdiff_t ld_a,
                             int transpose_a, const real *b, ptrdiff_t ld_b, int transpose_b,
                             ptrdiff_t rows, ptrdiff_t inner, ptrdiff_t columns, int accumulate)
{
    assert(rows >= 0 && inner >= 1 && columns >= 0 && (rows <= 1 || ld_out >= columns));
    assert((transpose_a ? inner : rows) <= 1 || ld_a >= (transpose_a ? rows : inner));
    assert((transpose_b ? columns : inner) <= 1 || ld_b >= (transpose_b ? inner : columns));
    assert(rows * columns == 0 || (out != NULL && a != NULL && b != NULL));
    real panel[PACK_INNER * PANEL], a_block[PACK_INNER * PACK_ROWS];
    ptrdiff_t step = KERNEL(block_of)(inner, PACK_INNER);
    for (ptrdiff_t row = 0; row < rows; row += PACK_ROWS) {
        ptrdiff_t count = rows - row < PACK_ROWS ? rows - row : PACK_ROWS;
        for (ptrdiff_t k = 0; k < inner; k += step) {
            ptrdiff_t depth = inner - k < step ? inner - k : step;
            tile_arguments it = {.ld_out = ld_out,
                                 .ld_initial = ld_out,
                                 .a = transpose_a ? a_block : a + row * ld_a + k,
                                 .stride = transpose_a ? PACK_ROWS : ld_a,
                                 .panel = panel,
                                 .inner = depth};
            if (transpose_a) {
                /* Rows of A that are a power of 2 apart would push each other out of L1. */
                for (ptrdiff_t j = 0; j < depth; j++)
                    memcpy(a_block + j * PACK_ROWS, a + (k + j) * ld_a + row,
                           (size_t)count * sizeof(real));
            }
            for (ptrdiff_t column = 0; column < columns; column += PANEL) {
                it.columns = columns - column < PANEL ? columns - column : PANEL;
                KERNEL(pack)(panel, transpose_b ? b + column * ld_b + k : b + k * ld_b + column,
                             ld_b, transpose_b, depth, it.columns);
                it.out = out + row * ld_out + column;
                it.initial = k > 0 || accumulate ? it.out : NULL;
                KERNEL(multiply_panel)(it, count, transpose_a);
            }
        }
    }
}
