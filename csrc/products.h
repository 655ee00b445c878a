/* Matrix products over packed panels, on the vector type of simd.h; included once per real type.
 *
 * B is packed into panels of 4 vectors of columns, [panel][k][4][V_WIDTH]. In a product that feeds
 * the cell, the 4 vectors are the gates i, f, g, o of the same V_WIDTH hidden units, so that the
 * gate math runs on what was just accumulated. Columns past the end are zeros.
 *
 * A tile keeps the results of up to TILE_ROWS rows of A with one panel in registers, so each
 * loaded weight serves all of them. Whatever the tile, an element of the result starts from its
 * initial value and adds a[k]*b[k] for k = 0, 1, 2, … with one rounding each; between two blocks
 * of k it is set aside with all its bits. So the bits of a row depend neither on the other rows
 * nor on how rows are shared out to tiles and threads.
 */
#ifndef FASTLSTM_PRODUCTS_ONCE
#define FASTLSTM_PRODUCTS_ONCE
#define GATES 4
#if defined(FASTLSTM_ISA_AVX2)
#define TILE_ROWS 3 /* 12 accumulators of 16 registers */
#else
#define TILE_ROWS 6 /* 24 accumulators of 32 registers */
#endif
#define BLOCK_INNER 96 /* k at a time, where a panel serves several tiles: 24 KiB stay in L1 */
#define BLOCK_ROWS 120 /* rows of A at a time, which stay in L2 over all panels */
#if defined(__clang__)
#define FASTLSTM_UNROLL _Pragma("unroll")
#elif defined(__GNUC__)
#define FASTLSTM_UNROLL _Pragma("GCC unroll 8")
#else
#define FASTLSTM_UNROLL
#endif
#define PANEL (GATES * V_WIDTH) /* columns of a panel */
#define tile_arguments FASTLSTM_TYPED(tile_arguments)
#define cell_arguments FASTLSTM_TYPED(cell_arguments)
#endif

/* --------------------------------------------------------------------------- packing --------- */

/* Up to V_WIDTH neighbouring columns of B for `inner` k, into one of the 4 vectors of a panel.
 * B is (inner, columns), or (columns, inner) if transposed. */
static void KERNEL(pack_vector)(real *panel, const real *b, ptrdiff_t ld_b, int transposed,
                                ptrdiff_t column, ptrdiff_t columns, ptrdiff_t inner)
{
    ptrdiff_t n = columns - column < V_WIDTH ? columns - column : V_WIDTH;
    if (n < V_WIDTH)
        for (ptrdiff_t k = 0; k < inner; k++)
            v_store(panel + k * PANEL, v_set(0));
    if (transposed) {
        for (ptrdiff_t lane = 0; lane < n; lane++)
            for (ptrdiff_t k = 0; k < inner; k++)
                panel[k * PANEL + lane] = b[(column + lane) * ld_b + k];
    } else if (n > 0) {
        for (ptrdiff_t k = 0; k < inner; k++)
            v_store(panel + k * PANEL, v_load_n(b + k * ld_b + column, n));
    }
}

static void KERNEL(pack)(real *panels, const real *b, ptrdiff_t ld_b, int transposed,
                         ptrdiff_t inner, ptrdiff_t columns)
{
    assert(inner >= 0 && columns >= 0);
    assert((transposed ? columns : inner) <= 1 || ld_b >= (transposed ? inner : columns));
    assert(inner * columns == 0 || (panels != NULL && b != NULL));
    for (ptrdiff_t column = 0; column < columns; column += PANEL, panels += PANEL * inner)
        for (int v = 0; v < GATES; v++)
            KERNEL(pack_vector)(panels + v * V_WIDTH, b, ld_b, transposed, column + v * V_WIDTH,
                                columns, inner);
}

static void KERNEL(pack_gates)(real *panels, const real *weight, ptrdiff_t inner, ptrdiff_t hidden)
{
    assert(inner >= 0 && hidden >= 0);
    assert(inner * hidden == 0 || (panels != NULL && weight != NULL));
    for (ptrdiff_t unit = 0; unit < hidden; unit += V_WIDTH, panels += PANEL * inner)
        for (int g = 0; g < GATES; g++)
            KERNEL(pack_vector)(panels + g * V_WIDTH, weight + g * hidden * inner, inner, 1, unit,
                                hidden, inner);
}

/* --------------------------------------------------------------------------- tiles ----------- */

/* acc[r*panels + p] += row r of A times panel p, over `inner` k. Where it is inlined, rows and
 * panels are constants and so is one of the strides. */
FASTLSTM_INLINE void KERNEL(accumulate)(vec acc[][GATES], int rows, int panels, const real *a,
                                        ptrdiff_t row_stride, ptrdiff_t inner_stride,
                                        const real *panel, ptrdiff_t panel_stride, ptrdiff_t inner)
{
    for (ptrdiff_t k = 0; k < inner; k++) {
        FASTLSTM_UNROLL
        for (int p = 0; p < panels; p++) {
            const real *weights = panel + p * panel_stride + k * PANEL;
            vec w0 = v_load(weights), w1 = v_load(weights + V_WIDTH);
            vec w2 = v_load(weights + 2 * V_WIDTH), w3 = v_load(weights + 3 * V_WIDTH);
            FASTLSTM_UNROLL
            for (int r = 0; r < rows; r++) {
                vec x = v_set(a[r * row_stride + k * inner_stride]);
                vec *row = acc[r * panels + p];
                row[0] = v_fma(x, w0, row[0]);
                row[1] = v_fma(x, w1, row[1]);
                row[2] = v_fma(x, w2, row[2]);
                row[3] = v_fma(x, w3, row[3]);
            }
        }
    }
}

/* A row of a panel's columns, of which `columns` are there; NULL gives zeros. */
FASTLSTM_INLINE void KERNEL(load_row)(vec row[GATES], const real *from, ptrdiff_t columns)
{
    FASTLSTM_UNROLL
    for (int v = 0; v < GATES; v++, columns -= V_WIDTH) {
        if (from == NULL || columns <= 0)
            row[v] = v_set(0);
        else
            row[v] = v_load_n(from + v * V_WIDTH, columns < V_WIDTH ? columns : V_WIDTH);
    }
}

FASTLSTM_INLINE void KERNEL(store_row)(real *to, const vec row[GATES], ptrdiff_t columns)
{
    FASTLSTM_UNROLL
    for (int v = 0; v < GATES; v++, columns -= V_WIDTH) {
        if (columns > 0)
            v_store_n(to + v * V_WIDTH, row[v], columns < V_WIDTH ? columns : V_WIDTH);
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
    const real *panel;
    ptrdiff_t inner, columns;
} tile_arguments;

FASTLSTM_INLINE void KERNEL(tile)(int rows, int transposed, const tile_arguments *it)
{
    vec acc[TILE_ROWS][GATES];
    FASTLSTM_UNROLL
    for (int r = 0; r < rows; r++)
        KERNEL(load_row)(acc[r], it->initial != NULL ? it->initial + r * it->ld_initial : NULL,
                         it->columns);
    if (transposed)
        KERNEL(accumulate)(acc, rows, 1, it->a, 1, it->stride, it->panel, 0, it->inner);
    else
        KERNEL(accumulate)(acc, rows, 1, it->a, it->stride, 1, it->panel, 0, it->inner);
    FASTLSTM_UNROLL
    for (int r = 0; r < rows; r++)
        KERNEL(store_row)(it->out + r * it->ld_out, acc[r], it->columns);
}

/* The same for a step of the cell, whose gates the columns are; see cell_step in kernels.h. */
typedef struct cell_arguments {
    real *h, *c, *gates; /* gates may be NULL */
    const real *c_prev;
    ptrdiff_t ld_h, hidden, unit; /* unit: the panel's first one */
    const real *pre;
    ptrdiff_t ld_pre;
    const real *h_prev;
    ptrdiff_t ld_h_prev;
    const real *panel;
    ptrdiff_t panel_stride, inner;
} cell_arguments;

FASTLSTM_INLINE void KERNEL(cell_tile)(int rows, int panels, const cell_arguments *it)
{
    vec acc[TILE_ROWS][GATES];
    FASTLSTM_UNROLL
    for (int k = 0; k < rows * panels; k++)
        KERNEL(load_row)(acc[k], it->pre + k / panels * it->ld_pre + k % panels * PANEL, PANEL);
    KERNEL(accumulate)(acc, rows, panels, it->h_prev, it->ld_h_prev, 1, it->panel,
                       it->panel_stride, it->inner);
    FASTLSTM_UNROLL
    for (int k = 0; k < rows * panels; k++) {
        ptrdiff_t row = k / panels, unit = it->unit + k % panels * V_WIDTH;
        ptrdiff_t at = row * it->hidden + unit, left = it->hidden - unit;
        KERNEL(cell_units)(it->h + row * it->ld_h + unit, it->c + at,
                           it->gates != NULL ? it->gates + row * GATES * it->hidden + unit : NULL,
                           it->c_prev + at, acc[k], it->hidden, left < V_WIDTH ? left : V_WIDTH);
    }
}

#define TILES(rows)                                                                                \
    static void KERNEL(tile_plain_##rows)(const tile_arguments *it)                                \
    {                                                                                              \
        KERNEL(tile)(rows, 0, it);                                                                 \
    }                                                                                              \
    static void KERNEL(tile_transposed_##rows)(const tile_arguments *it)                           \
    {                                                                                              \
        KERNEL(tile)(rows, 1, it);                                                                 \
    }                                                                                              \
    static void KERNEL(tile_cell_##rows)(const cell_arguments *it)                                 \
    {                                                                                              \
        KERNEL(cell_tile)(rows, 1, it);                                                            \
    }
TILES(1)
TILES(2)
TILES(3)
#if TILE_ROWS == 6
TILES(4)
TILES(5)
TILES(6)
#define TILE_TABLE(kind)                                                                           \
    {                                                                                              \
        KERNEL(tile_##kind##_1), KERNEL(tile_##kind##_2), KERNEL(tile_##kind##_3),                 \
            KERNEL(tile_##kind##_4), KERNEL(tile_##kind##_5), KERNEL(tile_##kind##_6)              \
    }
#else
#define TILE_TABLE(kind)                                                                           \
    {                                                                                              \
        KERNEL(tile_##kind##_1), KERNEL(tile_##kind##_2), KERNEL(tile_##kind##_3)                  \
    }
#endif
/* One row fills too few registers to hide the latency of a fused multiply-add: two panels do. */
static void KERNEL(tile_cell_pair)(const cell_arguments *it)
{
    KERNEL(cell_tile)(1, 2, it);
}

static void (*const KERNEL(tiles)[2][TILE_ROWS])(const tile_arguments *) = {
    TILE_TABLE(plain), TILE_TABLE(transposed)};
static void (*const KERNEL(cell_tiles)[TILE_ROWS])(const cell_arguments *) = TILE_TABLE(cell);
#undef TILES
#undef TILE_TABLE

/* Rows of the next tile, where `rows` are left: as even as can be, so that none is left narrow. */
FASTLSTM_INLINE ptrdiff_t KERNEL(next_tile)(ptrdiff_t rows)
{
    ptrdiff_t tiles = (rows + TILE_ROWS - 1) / TILE_ROWS;
    return (rows + tiles - 1) / tiles;
}

/* --------------------------------------------------------------------------- products -------- */

/* out = initial + A·panel for `rows` rows and some k. */
static void KERNEL(multiply_panel)(tile_arguments it, ptrdiff_t rows, int transposed)
{
    while (rows > 0) {
        ptrdiff_t count = KERNEL(next_tile)(rows);
        KERNEL(tiles)[transposed][count - 1](&it);
        rows -= count;
        it.out += count * it.ld_out;
        it.a += count * (transposed ? 1 : it.stride);
        if (it.initial != NULL)
            it.initial += count * it.ld_initial;
    }
}

static void KERNEL(multiply_packed)(real *out, ptrdiff_t ld_out, const real *initial,
                                    const real *a, ptrdiff_t ld_a, const real *panels,
                                    ptrdiff_t rows, ptrdiff_t inner, ptrdiff_t columns)
{
    assert(rows >= 0 && inner >= 1 && columns >= 0);
    assert(rows <= 1 || (ld_a >= inner && ld_out >= columns));
    assert(rows * columns == 0 || (out != NULL && a != NULL && panels != NULL));
    for (ptrdiff_t row = 0; row < rows; row += BLOCK_ROWS) {
        ptrdiff_t count = rows - row < BLOCK_ROWS ? rows - row : BLOCK_ROWS;
        ptrdiff_t step = count > TILE_ROWS ? BLOCK_INNER : inner;
        for (ptrdiff_t column = 0; column < columns; column += PANEL) {
            tile_arguments it = {.out = out + row * ld_out + column,
                                 .ld_out = ld_out,
                                 .initial = initial != NULL ? initial + column : NULL,
                                 .a = a + row * ld_a,
                                 .stride = ld_a,
                                 .panel = panels + column * inner,
                                 .columns = columns - column};
            for (ptrdiff_t k = 0; k < inner; k += step) {
                it.inner = inner - k < step ? inner - k : step;
                KERNEL(multiply_panel)(it, count, 0);
                it.initial = it.out;
                it.ld_initial = ld_out;
                it.a += it.inner;
                it.panel += it.inner * PANEL;
            }
        }
    }
}

static void KERNEL(cell_step)(real *h, real *c, real *gates, real *pre, const real *c_prev,
                              const real *h_prev, const real *panels, ptrdiff_t rows,
                              ptrdiff_t hidden, ptrdiff_t ld_h, ptrdiff_t ld_h_prev)
{
    assert(rows >= 0 && hidden >= 0);
    assert(rows <= 1 || (ld_h >= hidden && (h_prev == NULL || ld_h_prev >= hidden)));
    assert(rows * hidden == 0 || (h != NULL && c != NULL && pre != NULL && c_prev != NULL));
    assert(h_prev == NULL || rows * hidden == 0 || (h != h_prev && panels != NULL));
    ptrdiff_t columns = (hidden + V_WIDTH - 1) / V_WIDTH * PANEL;
    ptrdiff_t inner = h_prev != NULL ? hidden : 0;
    ptrdiff_t step = rows > TILE_ROWS ? BLOCK_INNER : inner;
    for (ptrdiff_t column = 0; column < columns;) {
        ptrdiff_t unit = column / GATES;
        const real *panel = panels + column * hidden;
        int pair = rows == 1 && column + 2 * PANEL <= columns;
        ptrdiff_t k = 0;
        /* All blocks of k but the last one only accumulate. */
        for (; inner - k > step; k += step)
            KERNEL(multiply_panel)((tile_arguments){.out = pre + column,
                                                    .ld_out = columns,
                                                    .initial = pre + column,
                                                    .ld_initial = columns,
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
                                 .unit = unit,
                                 .pre = pre + row * columns + column,
                                 .ld_pre = columns,
                                 .h_prev = h_prev != NULL ? h_prev + row * ld_h_prev + k : NULL,
                                 .ld_h_prev = ld_h_prev,
                                 .panel = panel + k * PANEL,
                                 .panel_stride = PANEL * hidden,
                                 .inner = inner - k};
            if (pair)
                KERNEL(tile_cell_pair)(&it);
            else
                KERNEL(cell_tiles)[count - 1](&it);
        }
        column += pair ? 2 * PANEL : PANEL;
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
    real panel[BLOCK_INNER * PANEL], a_block[BLOCK_INNER * BLOCK_ROWS];
    for (ptrdiff_t row = 0; row < rows; row += BLOCK_ROWS) {
        ptrdiff_t count = rows - row < BLOCK_ROWS ? rows - row : BLOCK_ROWS;
        for (ptrdiff_t k = 0; k < inner; k += BLOCK_INNER) {
            ptrdiff_t depth = inner - k < BLOCK_INNER ? inner - k : BLOCK_INNER;
            tile_arguments it = {.ld_out = ld_out,
                                 .ld_initial = ld_out,
                                 .a = transpose_a ? a_block : a + row * ld_a + k,
                                 .stride = transpose_a ? BLOCK_ROWS : ld_a,
                                 .panel = panel,
                                 .inner = depth};
            if (transpose_a) {
                /* Rows of A that are a power of 2 apart would push each other out of L1. */
                for (ptrdiff_t j = 0; j < depth; j++)
                    memcpy(a_block + j * BLOCK_ROWS, a + (k + j) * ld_a + row,
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
