/* Prints how long the kernels take for an element, and how many operations a second the products
 * reach, for one real type. Compiled once per FASTLSTM_REAL. Nothing is asserted: the machine may
 * be busy. */
#define _DEFAULT_SOURCE /* clock_gettime */
#include <stdio.h>
#include <time.h>

#include "driver.h"

enum { ROWS = 16, HIDDEN = 256, UNITS = ROWS * HIDDEN, MOST_ROWS = 64, REPEATS = 300 };

/* What a kernel may change is restored before each run, outside of the clock. */
static struct {
    real gates[4 * UNITS], state[UNITS], grad[UNITS];
} fresh, used;
static real h[UNITS], c[UNITS];

/* The products: the panels of (HIDDEN, 4*HIDDEN), and up to MOST_ROWS rows. */
static real panels[HIDDEN * 4 * HIDDEN], activated[MOST_ROWS * 4 * HIDDEN];
static real pre[MOST_ROWS * 4 * HIDDEN], states[3][MOST_ROWS * HIDDEN];
static real d_next[MOST_ROWS * 4 * HIDDEN], weight_grad[4 * HIDDEN * HIDDEN];
static ptrdiff_t rows_of_product;

static void run_sigmoid(const fastlstm_isa *isa)
{
    isa->TABLE.sigmoid(h, used.state, UNITS);
}

static void run_tanh(const fastlstm_isa *isa)
{
    isa->TABLE.tanh(h, used.state, UNITS);
}

static void run_softmax(const fastlstm_isa *isa)
{
    isa->TABLE.softmax(h, c, used.state, UNITS, 1);
}

static void run_cell_forward(const fastlstm_isa *isa)
{
    isa->TABLE.cell_forward(h, c, used.gates, used.state, ROWS, HIDDEN, HIDDEN);
}

static void run_cell_backward(const fastlstm_isa *isa)
{
    isa->TABLE.cell_backward(used.gates, used.grad, fresh.grad, fresh.grad, fresh.state,
                             used.state, ROWS, HIDDEN, HIDDEN);
}

static void run_multiply_packed(const fastlstm_isa *isa)
{
    isa->TABLE.multiply_packed(pre, 4 * HIDDEN, NULL, 0, states[0], HIDDEN, panels, rows_of_product,
                               HIDDEN, 4 * HIDDEN);
}

static void run_cell_step(const fastlstm_isa *isa)
{
    isa->TABLE.cell_step(states[1], states[2], activated, pre, states[2], states[0], panels,
                         rows_of_product, HIDDEN, 0, HIDDEN, HIDDEN, HIDDEN, 0);
}

static void run_cell_step_back(const fastlstm_isa *isa)
{
    isa->TABLE.cell_step_back(activated, states[2], states[1], states[0], states[0], states[0],
                              d_next, panels, rows_of_product, HIDDEN, 0, HIDDEN, HIDDEN, 0);
}

/* A weight gradient: the transposed gradients of the gates times the states, over many rows. */
static void run_multiply(const fastlstm_isa *isa)
{
    isa->TABLE.multiply(weight_grad, HIDDEN, d_next, 4 * HIDDEN, 1, states[0], HIDDEN, 0,
                        4 * HIDDEN, rows_of_product, HIDDEN, 0);
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

/* The fastest of many runs: what disturbs a run only makes it longer. */
static double nanoseconds(void run(const fastlstm_isa *), const fastlstm_isa *isa)
{
    double best = INFINITY;
    for (int k = 0; k < REPEATS; k++) {
        used = fresh;
        double start = now();
        run(isa);
        double passed = now() - start;
        best = passed < best ? passed : best;
    }
    return best;
}

static double nanoseconds_per_unit(void run(const fastlstm_isa *), const fastlstm_isa *isa)
{
    return nanoseconds(run, isa) / UNITS;
}

/* A multiplication and an addition for each of the weights; those of the cell do not count. */
static double gigaflops(void run(const fastlstm_isa *), const fastlstm_isa *isa, ptrdiff_t rows)
{
    rows_of_product = rows;
    return (double)(2 * rows * HIDDEN * 4 * HIDDEN) / nanoseconds(run, isa);
}

static void print_steps(const char *name, void run(const fastlstm_isa *), const fastlstm_isa *isa)
{
    printf("f%d %-8s GFLOP/s: %s of %d units, 1 row %6.1f  8 rows %6.1f  64 rows %6.1f\n",
           FASTLSTM_REAL, isa->name, name, HIDDEN, gigaflops(run, isa, 1), gigaflops(run, isa, 8),
           gigaflops(run, isa, MOST_ROWS));
}

static void print_products(const fastlstm_isa *isa)
{
    for (ptrdiff_t k = 0; k < MOST_ROWS * HIDDEN; k++)
        states[0][k] = (real)random_uniform(-1, 1);
    for (ptrdiff_t k = 0; k < HIDDEN * 4 * HIDDEN; k++)
        panels[k] = (real)random_uniform(-0.1, 0.1);
    for (ptrdiff_t k = 0; k < MOST_ROWS * 4 * HIDDEN; k++)
        d_next[k] = (real)random_uniform(-1, 1);
    memset(pre, 0, sizeof pre);
    printf("f%d %-8s GFLOP/s: multiply_packed %dx%dx%d %6.1f   multiply, a transposed, %dx%dx%d "
           "%6.1f\n",
           FASTLSTM_REAL, isa->name, MOST_ROWS, HIDDEN, 4 * HIDDEN,
           gigaflops(run_multiply_packed, isa, MOST_ROWS), 4 * HIDDEN, MOST_ROWS, HIDDEN,
           gigaflops(run_multiply, isa, MOST_ROWS));
    print_steps("cell_step", run_cell_step, isa);
    /* Its results are its inputs: these must stay ordinary numbers for as many runs. */
    for (ptrdiff_t k = 0; k < MOST_ROWS * 4 * HIDDEN; k++)
        activated[k] = 0;
    print_steps("cell_step_back", run_cell_step_back, isa);
}

void TYPED(print_throughput)(const isa_list *isas)
{
    for (ptrdiff_t k = 0; k < 4 * UNITS; k++)
        fresh.gates[k] = (real)random_uniform(0.1, 0.9);
    for (ptrdiff_t k = 0; k < UNITS; k++) {
        fresh.state[k] = (real)random_uniform(-4, 4);
        fresh.grad[k] = (real)random_uniform(-1, 1);
    }
    for (int a = 0; a < isas->count; a++) {
        const fastlstm_isa *isa = isas->isa[a];
        printf("f%d %-8s ns per element: sigmoid %6.3f  tanh %6.3f  softmax %6.3f   "
               "per unit: cell_forward %6.2f  cell_backward %6.2f\n",
               FASTLSTM_REAL, isa->name, nanoseconds_per_unit(run_sigmoid, isa),
               nanoseconds_per_unit(run_tanh, isa), nanoseconds_per_unit(run_softmax, isa),
               nanoseconds_per_unit(run_cell_forward, isa),
               nanoseconds_per_unit(run_cell_backward, isa));
        if (isa->TABLE.multiply != NULL)
            print_products(isa);
    }
}
