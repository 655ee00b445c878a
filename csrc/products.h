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
#define cell_arguments FASTLSTM_TYPED(cell_arguments)
#define back_arguments FASTLSTM_TYPED(back_arguments)
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

FASTLSTM_INLINE void KERNEL(store_row)(real *to, int width, const vec row[GATES],
                                       ptrdiff_t columns)
{
    FASTLSTM_UNROLL
    for (int v = 0; v < width; v++, columns -= V_WIDTH)
        v_store_n(to + v * V_WIDTH, row[v], columns < V_WIDTH ? columns : V_WIDTH);
}

/* Accumulators into memory, so that what follows is a loop and not TILE_ROWS copies of its code:
 * an array that is indexed by a variable cannot stay in registers. */
FASTLSTM_INLINE void KERNEL(set_aside)(vec sums[][GATES], vec acc[][GATES], int rows, int width)
{
    FASTLSTM_UNROLL
    for (int r = 0; r < rows; r++) {
        FASTLSTM_UNROLL
        for (int v = 0; v < width; v++)
            sums[r][v] = acc[r][v];
    }
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
    FASTLSTM_UNROLL
    for (int k = 0; k < rows * panels; k++)
        KERNEL(load_row)(acc[k], width,
                         it->initial == NULL ? NULL
                                             : it->initial + k / panels * it->ld_initial +
                                                   k % panels * PANEL,
                         it->columns - k % panels * PANEL);
    KERNEL(accumulate)(acc, rows, panels, width, it->a, transposed ? 1 : it->stride,
                       transposed ? it->stride : 1, it->panel, it->panel_stride, it->inner);
    FASTLSTM_UNROLL
    for (int k = 0; k < rows * panels; k++)
        KERNEL(store_row)(it->out + k / panels * it->ld_out + k % panels * PANEL, width, acc[k],
                          it->columns - k % panels * PANEL);
}

/* The same with a step of the cell as its end; see cell_step in kernels.h. */
typedef struct cell_arguments {
    real *h, *c, *gates; /* gates may be NULL */
    const real *c_prev;
    ptrdiff_t ld_h, hidden, unit; /* unit: the panel's first one */
    const real *pre;
    ptrdiff_t ld_pre;
    const real *h_prev;
    ptrdiff_t ld_h_prev;
    const WEIGHT *panel;
    ptrdiff_t panel_stride, inner;
} cell_arguments;

FASTLSTM_INLINE void KERNEL(cell_tile)(int rows, int panels, const cell_arguments *it)
{
    vec acc[TILE_ROWS][GATES];
    FASTLSTM_UNROLL
    for (int k = 0; k < rows * panels; k++)
        KERNEL(load_row)(acc[k], GATES, it->pre + k / panels * it->ld_pre + k % panels * PANEL,
                         PANEL);
    KERNEL(accumulate)(acc, rows, panels, GATES, it->h_prev, it->ld_h_prev, 1, it->panel,
                       it->panel_stride, it->inner);
    vec sums[TILE_ROWS][GATES];
    KERNEL(set_aside)(sums, acc, rows * panels, GATES);
    for (int k = 0; k < rows * panels; k++) {
        ptrdiff_t row = k / panels, unit = it->unit + k % panels * V_WIDTH;
        ptrdiff_t at = row * it->hidden + unit, left = it->hidden - unit;
        KERNEL(cell_units)(it->h + row * it->ld_h + unit, it->c + at,
                           it->gates != NULL ? it->gates + row * GATES * it->hidden + unit : NULL,
                           it->c_prev + at, sums[k], it->hidden, left < V_WIDTH ? left : V_WIDTH);
    }
}

/* The same with the backward pass of a step as its end; see cell_step_back in kernels.h. All
 * pointers but d_next are at the panel's first unit. */
typedef struct back_arguments {
    real *gates, *d_c;
    const real *initial; /* (rows, hidden); NULL: zeros */
    const real *d_output; /* may be NULL */
    ptrdiff_t ld_d_output;
    const real *c, *c_prev;
    ptrdiff_t hidden, units; /* units: from the panel's first one to the end */
    const real *d_next;
    const WEIGHT *panel;
    ptrdiff_t panel_stride, inner;
} back_arguments;

FASTLSTM_INLINE void KERNEL(back_tile)(int rows, int panels, int width, const back_arguments *it)
{
    vec acc[TILE_ROWS][GATES];
    FASTLSTM_UNROLL
    for (int k = 0; k < rows * panels; k++)
        KERNEL(load_row)(acc[k], width,
                         it->initial == NULL ? NULL
                                             : it->initial + k / panels * it->hidden +
                                                   k % panels * PANEL,
                         it->units - k % panels * PANEL);
    KERNEL(accumulate)(acc, rows, panels, width, it->d_next, GATES * it->hidden, 1, it->panel,
                       it->panel_stride, it->inner);
    vec sums[TILE_ROWS][GATES];
    KERNEL(set_aside)(sums, acc, rows * panels, width);
    for (int k = 0; k < rows * panels; k++) {
        for (int v = 0; v < width; v++) {
            ptrdiff_t row = k / panels, unit = k % panels * PANEL + v * V_WIDTH;
            ptrdiff_t at = row * it->hidden + unit;
            ptrdiff_t n = it->units - unit < V_WIDTH ? it->units - unit : V_WIDTH;
            vec dh = sums[k][v];
            if (it->d_output != NULL)
                dh = v_add(dh, v_load_n(it->d_output + row * it->ld_d_output + unit, n));
            KERNEL(backward_units)(it->gates + row * GATES * it->hidden + unit, it->d_c + at, dh,
                                   it->c + at, it->c_prev + at, it->hidden, n);
        }
    }
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
    }                                                                                              \
    static void KERNEL(tile_back_##rows##_##width)(const back_arguments *it)                       \
    {                                                                                              \
        KERNEL(back_tile)(rows, 1, width, it);                                                     \
    }
#define TILES_OF_ROWS(rows)                                                                        \
    TILES(rows, 1)                                                                                 \
    TILES(rows, 2)                                                                                 \
    TILES(rows, 3)                                                                                 \
    TILES(rows, 4)                                                                                 \
    static void KERNEL(tile_cell_##rows##_4)(const cell_arguments *it)                             \
    {                                                                                              \
        KERNEL(cell_tile)(rows, 1, it);                                                            \
    }
TILES_OF_ROWS(1)
TILES_OF_ROWS(2)
TILES_OF_ROWS(3)
#if TILE_ROWS == 6
TILES_OF_ROWS(4)
TILES_OF_ROWS(5)
TILES_OF_ROWS(6)
#define TILE_TABLE(kind, width)                                                                    \
    {                                                                                              \
        KERNEL(tile_##kind##_1_##width), KERNEL(tile_##kind##_2_##width),                          \
            KERNEL(tile_##kind##_3_##width), KERNEL(tile_##kind##_4_##width),                      \
            KERNEL(tile_##kind##_5_##width), KERNEL(tile_##kind##_6_##width)                       \
    }
#else
#define TILE_TABLE(kind, width)                                                                    \
    {                                                                                              \
        KERNEL(tile_##kind##_1_##width), KERNEL(tile_##kind##_2_##width),                          \
            KERNEL(tile_##kind##_3_##width)                                                        \
    }
#endif
#define TILE_TABLES(kind)                                                                          \
    {                                                                                              \
        TILE_TABLE(kind, 1), TILE_TABLE(kind, 2), TILE_TABLE(kind, 3), TILE_TABLE(kind, 4)         \
    }
/* Few rows fill too few registers to hide the latency of memory and of a fused multiply-add: a
 * pair of panels does. */
#define PAIRS(rows)                                                                                \
    static void KERNEL(tile_plain_pair_##rows)(const tile_arguments *it)                           \
    {                                                                                              \
        KERNEL(tile)(rows, 2, GATES, 0, it);                                                       \
    }                                                                                              \
    static void KERNEL(tile_cell_pair_##rows)(const cell_arguments *it)                            \
    {                                                                                              \
        KERNEL(cell_tile)(rows, 2, it);                                                            \
    }                                                                                              \
    static void KERNEL(tile_back_pair_##rows)(const back_arguments *it)                            \
    {                                                                                              \
        KERNEL(back_tile)(rows, 2, GATES, it);                                                     \
    }
PAIRS(1)
#if PAIR_ROWS == 3
PAIRS(2)
PAIRS(3)
#define PAIR_TABLE(kind)                                                                           \
    {                                                                                              \
        KERNEL(tile_##kind##_pair_1), KERNEL(tile_##kind##_pair_2), KERNEL(tile_##kind##_pair_3)   \
    }
#else
#define PAIR_TABLE(kind)                                                                           \
    {                                                                                              \
        KERNEL(tile_##kind##_pair_1)                                                               \
    }
#endif

/* By width - 1 and rows - 1. */
static void (*const KERNEL(tiles)[2][GATES][TILE_ROWS])(const tile_arguments *) = {
    TILE_TABLES(plain), TILE_TABLES(transposed)};
static void (*const KERNEL(back_tiles)[GATES][TILE_ROWS])(const back_arguments *) =
    TILE_TABLES(back);
static void (*const KERNEL(cell_tiles)[TILE_ROWS])(const cell_arguments *) = TILE_TABLE(cell, 4);
/* By rows - 1. */
static void (*const KERNEL(pairs)[PAIR_ROWS])(const tile_arguments *) = PAIR_TABLE(plain);
static void (*const KERNEL(back_pairs)[PAIR_ROWS])(const back_arguments *) = PAIR_TABLE(back);
static void (*const KERNEL(cell_pairs)[PAIR_ROWS])(const cell_arguments *) = PAIR_TABLE(cell);
#undef TILES
#undef TILES_OF_ROWS
#undef TILE_TABLE
#undef TILE_TABLES
#undef PAIRS
#undef PAIR_TABLE

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
                                    const real *a, ptrdiff_t ld_a, const WEIGHT *panels,
                                    ptrdiff_t rows, ptrdiff_t inner, ptrdiff_t columns)
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
                                 .initial = initial != NULL ? initial + column : NULL,
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

static void KERNEL(cell_step)(real *h, real *c, real *gates, real *pre, const real *c_prev,
                              const real *h_prev, const WEIGHT *panels, ptrdiff_t rows,
                              ptrdiff_t hidden, ptrdiff_t first, ptrdiff_t last, ptrdiff_t ld_h,
                              ptrdiff_t ld_h_prev, int descending)
{
    assert(rows >= 0 && hidden >= 0 && 0 <= first && last <= hidden);
    assert(first % V_WIDTH == 0 && (last % V_WIDTH == 0 || last == hidden));
    assert(rows <= 1 || (ld_h >= hidden && (h_prev == NULL || ld_h_prev >= hidden)));
    assert(rows * hidden == 0 || (h != NULL && c != NULL && pre != NULL && c_prev != NULL));
    assert(h_prev == NULL || rows * hidden == 0 || (h != h_prev && panels != NULL));
    ptrdiff_t ld_pre = (hidden + V_WIDTH - 1) / V_WIDTH * PANEL;
    ptrdiff_t end = (last + V_WIDTH - 1) / V_WIDTH * PANEL;
    ptrdiff_t inner = h_prev != NULL ? hidden : 0;
    ptrdiff_t step = rows > TILE_ROWS ? KERNEL(block_of)(inner, BLOCK_INNER) : inner;
    for (ptrdiff_t left = end - first * GATES, some; left > 0; left -= some) {
        some = KERNEL(next_columns)(rows, left, descending);
        ptrdiff_t column = descending ? first * GATES + left - some : end - left;
        const WEIGHT *panel = panels + column * hidden;
        ptrdiff_t k = 0;
        /* All blocks of k but the last one only accumulate. */
        for (; inner - k > step; k += step)
            KERNEL(multiply_panel)((tile_arguments){.out = pre + column,
                                                    .ld_out = ld_pre,
                                                    .initial = pre + column,
                                                    .ld_initial = ld_pre,
                                                    .a = h_prev + k,
                                                    .stride = ld_h_prev,
                                                    .panel = panel + k * PANEL,
                                                    .inner = step,
                                                    .columns = PANEL},
                                   rows, 0);
        for (ptrdiff_t row = 0, count; row < rows; row += count) {
            count = KERNEL(next_tile)(rows - row);
            cell_arguments it = {.h = h + row * ld_h,
                                 .c = c + row * hidden,
                                 .gates = gates != NULL ? gates + row * GATES * hidden : NULL,
                                 .c_prev = c_prev + row * hidden,
                                 .ld_h = ld_h,
                                 .hidden = hidden,
                                 .unit = column / GATES,
                                 .pre = pre + row * ld_pre + column,
                                 .ld_pre = ld_pre,
                                 .h_prev = h_prev != NULL ? h_prev + row * ld_h_prev + k : NULL,
                                 .ld_h_prev = ld_h_prev,
                                 .panel = panel + k * PANEL,
                                 .panel_stride = PANEL * hidden,
                                 .inner = inner - k};
            if (some > PANEL)
                KERNEL(cell_pairs)[count - 1](&it);
            else
                KERNEL(cell_tiles)[count - 1](&it);
        }
    }
}

static void KERNEL(cell_step_back)(real *gates, real *d_c, real *d_h, const real *d_output,
                                   const real *c, const real *c_prev, const real *d_next,
                                   const WEIGHT *panels, ptrdiff_t rows, ptrdiff_t hidden,
                                   ptrdiff_t first, ptrdiff_t last, ptrdiff_t ld_d_output,
                                   int descending)
{
    assert(rows >= 0 && hidden >= 0 && 0 <= first && last <= hidden);
    assert(first % PANEL == 0 && (last % PANEL == 0 || last == hidden));
    assert(d_output == NULL || rows <= 1 || ld_d_output >= hidden);
    assert(rows * hidden == 0 || (gates != NULL && d_c != NULL && d_h != NULL));
    assert(rows * hidden == 0 || (c != NULL && c_prev != NULL));
    assert(d_next == NULL || rows * hidden == 0 || panels != NULL);
    ptrdiff_t inner = d_next != NULL ? GATES * hidden : 0;
    ptrdiff_t step = rows > TILE_ROWS ? KERNEL(block_of)(inner, BLOCK_INNER) : inner;
    for (ptrdiff_t left = last - first, some; left > 0; left -= some) {
        some = KERNEL(next_columns)(rows, left, descending);
        ptrdiff_t unit = descending ? first + left - some : last - left;
        const WEIGHT *panel = panels + unit * GATES * hidden;
        int width = KERNEL(panel_width)(some);
        const real *initial = d_next != NULL ? NULL : d_h + unit;
        ptrdiff_t k = 0;
        for (; inner - k > step; k += step, initial = d_h + unit)
            KERNEL(multiply_panel)((tile_arguments){.out = d_h + unit,
                                                    .ld_out = hidden,
                                                    .initial = initial,
                                                    .ld_initial = hidden,
                                                    .a = d_next + k,
                                                    .stride = GATES * hidden,
                                                    .panel = panel + k * width * V_WIDTH,
                                                    .inner = step,
                                                    .columns = some},
                                   rows, 0);
        for (ptrdiff_t row = 0, count; row < rows; row += count) {
            count = KERNEL(next_tile)(rows - row);
            ptrdiff_t at = row * hidden + unit;
            back_arguments it = {
                .gates = gates + row * GATES * hidden + unit,
                .d_c = d_c + at,
                .initial = initial != NULL ? initial + row * hidden : NULL,
                .d_output = d_output != NULL ? d_output + row * ld_d_output + unit : NULL,
                .ld_d_output = ld_d_output,
                .c = c + at,
                .c_prev = c_prev + at,
                .hidden = hidden,
                .units = last - unit,
                .d_next = d_next != NULL ? d_next + row * GATES * hidden + k : NULL,
                .panel = panel + k * width * V_WIDTH,
                .panel_stride = PANEL * GATES * hidden,
                .inner = inner - k};
            if (some > PANEL)
                KERNEL(back_pairs)[count - 1](&it);
            else
                KERNEL(back_tiles)[width - 1][count - 1](&it);
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
    real panel[PACK_INNER * PANEL], a_block[PACK_INNER * (PACK_BYTES / sizeof(real))];
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
