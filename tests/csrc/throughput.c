/* Prints how long the kernels take for an element, for one real type. Compiled once per
 * FASTLSTM_REAL. Nothing is asserted: the machine may be busy. */
#define _DEFAULT_SOURCE /* clock_gettime */
#include <stdio.h>
#include <time.h>

#include "driver.h"

enum { ROWS = 16, HIDDEN = 256, UNITS = ROWS * HIDDEN, REPEATS = 300 };

/* What a kernel may change is restored before each run, outside of the clock. */
static struct {
    real gates[4 * UNITS], state[UNITS], grad[UNITS];
} fresh, used;
static real h[UNITS], c[UNITS];

static void run_sigmoid(const fastlstm_isa *isa)
{
    isa->TABLE.sigmoid(h, used.state, UNITS);
}

static void run_tanh(const fastlstm_isa *isa)
{
    isa->TABLE.tanh(h, used.state, UNITS);
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

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

/* The fastest of many runs: what disturbs a run only makes it longer. */
static double nanoseconds_per_unit(void run(const fastlstm_isa *), const fastlstm_isa *isa)
{
    double best = INFINITY;
    for (int k = 0; k < REPEATS; k++) {
        used = fresh;
        double start = now();
        run(isa);
        double passed = now() - start;
        best = passed < best ? passed : best;
    }
    return best / UNITS;
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
        printf("f%d %-8s ns per element: sigmoid %6.3f  tanh %6.3f   "
               "per unit: cell_forward %6.2f  cell_backward %6.2f\n",
               FASTLSTM_REAL, isa->name, nanoseconds_per_unit(run_sigmoid, isa),
               nanoseconds_per_unit(run_tanh, isa), nanoseconds_per_unit(run_cell_forward, isa),
               nanoseconds_per_unit(run_cell_backward, isa));
    }
}
