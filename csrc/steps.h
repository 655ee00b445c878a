/* Steps of the cell: products over packed panels (products.h) whose tiles end in the gate math, so
 * that no pre-activation and no gradient of h goes to memory between the two. Included once per
 * real type.
 */
#ifndef FASTLSTM_STEPS_ONCE
#define FASTLSTM_STEPS_ONCE
#define cell_arguments FASTLSTM_TYPED(cell_arguments)
#define back_arguments FASTLSTM_TYPED(back_arguments)
#endif

/* --------------------------------------------------------------------------- tiles ----------- */

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

/* A tile with a step of the cell as its end; see cell_step in kernels.h. */
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
    KERNEL(load_tile)(acc, rows, panels, GATES, it->pre, it->ld_pre, panels * PANEL);
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

/* A tile with the backward pass of a step as its end; see cell_step_back in kernels.h. All
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
    KERNEL(load_tile)(acc, rows, panels, width, it->initial, it->hidden, it->units);
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

/* A function for each number of rows. All panels of gates are whole. */
#define CELL_TILES(rows)                                                                           \
    static void KERNEL(tile_cell_##rows##_4)(const cell_arguments *it)                             \
    {                                                                                              \
        KERNEL(cell_tile)(rows, 1, it);                                                            \
    }
#define CELL_PAIRS(rows)                                                                           \
    static void KERNEL(tile_cell_pair_##rows)(const cell_arguments *it)                            \
    {                                                                                              \
        KERNEL(cell_tile)(rows, 2, it);                                                            \
    }
#define BACK_TILES(rows, width)                                                                    \
    static void KERNEL(tile_back_##rows##_##width)(const back_arguments *it)                       \
    {                                                                                              \
        KERNEL(back_tile)(rows, 1, width, it);                                                     \
    }
#define BACK_TILES_OF_ROWS(rows)                                                                   \
    BACK_TILES(rows, 1) BACK_TILES(rows, 2) BACK_TILES(rows, 3) BACK_TILES(rows, 4)
#define BACK_PAIRS(rows)                                                                           \
    static void KERNEL(tile_back_pair_##rows)(const back_arguments *it)                            \
    {                                                                                              \
        KERNEL(back_tile)(rows, 2, GATES, it);                                                     \
    }
EACH_ROWS(CELL_TILES)
EACH_PAIR(CELL_PAIRS)
EACH_ROWS(BACK_TILES_OF_ROWS)
EACH_PAIR(BACK_PAIRS)
#undef CELL_TILES
#undef CELL_PAIRS
#undef BACK_TILES
#undef BACK_TILES_OF_ROWS
#undef BACK_PAIRS

static void (*const KERNEL(cell_tiles)[TILE_ROWS])(const cell_arguments *) = TILE_TABLE(cell, 4);
static void (*const KERNEL(cell_pairs)[PAIR_ROWS])(const cell_arguments *) = PAIR_TABLE(cell);
static void (*const KERNEL(back_tiles)[GATES][TILE_ROWS])(const back_arguments *) =
    TILE_TABLES(back);
static void (*const KERNEL(back_pairs)[PAIR_ROWS])(const back_arguments *) = PAIR_TABLE(back);

/* --------------------------------------------------------------------------- steps ----------- */

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
