/* Runs the tests of csrc/ on every instruction set that this machine has. See usage(). */
#include <errno.h>
#include <fenv.h>
#include <float.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "driver.h"

typedef struct {
    uint64_t stride, samples, cases;
    int throughput, help;
    const char *without[MAX_ISAS];
    int without_count;
} options;

static void usage(FILE *stream)
{
    fputs("driver [options]: tests the C kernels on every instruction set of this machine\n"
          "  --stride N     try every N-th bit pattern of float (default 257)\n"
          "  --full         try all 2^32 of them, which takes some minutes\n"
          "  --samples N    try 4*N random doubles (default 20000)\n"
          "  --cases N      try N sizes of products (default 150)\n"
          "  --without SET  leave out avx512, avx2 or neon, if it is there; may be repeated\n"
          "  --throughput   measure the kernels instead of testing them\n",
          stream);
}

/* ---------------------------------------------------------------------- the command line ----- */

/* A whole number from 1 on, or 0 if the text is none. */
static uint64_t positive(const char *text)
{
    char *end;
    errno = 0;
    unsigned long long number = strtoull(text, &end, 10);
    return *text < '0' || *text > '9' || *end != '\0' || errno != 0 ? 0 : number;
}

static int leave_out(options *into, const char *name)
{
    static const char *const names[] = {"avx512", "avx2", "neon"};
    for (size_t k = 0; k < sizeof names / sizeof names[0]; k++) {
        if (strcmp(name, names[k]) == 0 && into->without_count < MAX_ISAS) {
            into->without[into->without_count++] = names[k];
            return 1;
        }
    }
    return 0;
}

/* Each returns whether it knows the option. */
static int set_flag(options *into, const char *name)
{
    if (strcmp(name, "--full") == 0)
        into->stride = 1;
    else if (strcmp(name, "--throughput") == 0)
        into->throughput = 1;
    else if (strcmp(name, "--help") == 0)
        into->help = 1;
    else
        return 0;
    return 1;
}

static int set_value(options *into, const char *name, const char *value)
{
    if (strcmp(name, "--stride") == 0)
        return (into->stride = positive(value)) > 0;
    if (strcmp(name, "--samples") == 0)
        return (into->samples = positive(value)) > 0;
    if (strcmp(name, "--cases") == 0)
        return (into->cases = positive(value)) > 0 && into->cases <= INT32_MAX;
    return strcmp(name, "--without") == 0 && leave_out(into, value);
}

/* Returns 0 if the arguments make no sense. */
static int parse(options *into, int count, char **arguments)
{
    for (int k = 1; k < count; k++) {
        const char *name = arguments[k], *value = k + 1 < count ? arguments[k + 1] : "";
        if (set_flag(into, name))
            continue;
        if (!set_value(into, name, value)) {
            fprintf(stderr, "driver: cannot understand %s %s\n", name, value);
            return 0;
        }
        k++; /* the value */
    }
    return 1;
}

/* ------------------------------------------------------------------- the instruction sets ---- */

static int is_left_out(const options *from, const char *name)
{
    for (int k = 0; k < from->without_count; k++) {
        if (strcmp(from->without[k], name) == 0)
            return 1;
    }
    return 0;
}

static isa_list instruction_sets(const options *from)
{
    isa_list list = {.count = 0};
    const fastlstm_isa *isa;
    printf("instruction sets:");
    for (ptrdiff_t k = 0; (isa = fastlstm_isa_at(k)) != NULL && list.count < MAX_ISAS; k++) {
        int left_out = is_left_out(from, isa->name);
        if (!left_out)
            list.isa[list.count++] = isa;
        printf(" %s%s", isa->name, left_out ? " (left out)" : "");
    }
    putchar('\n');
    return list;
}

static void test_dispatch(void)
{
    const fastlstm_isa *isa;
    ptrdiff_t count = 0;
    for (; (isa = fastlstm_isa_at(count)) != NULL; count++)
        check(fastlstm_isa_pick(isa->name) == isa, "dispatch: %s is not found", isa->name);
    check(count > 0 && count <= MAX_ISAS, "dispatch: %td instruction sets", count);
    check(fastlstm_isa_at(count + 1) == NULL && fastlstm_isa_at(-1) == NULL,
          "dispatch: there are instruction sets past the ends");
    check(fastlstm_isa_pick(NULL) == fastlstm_isa_at(0), "dispatch: NULL does not give the best");
    check(count > 0 && strcmp(fastlstm_isa_at(count - 1)->name, "generic") == 0,
          "dispatch: generic is not the last");
    check(fastlstm_isa_pick("") == NULL && fastlstm_isa_pick("AVX2") == NULL &&
              fastlstm_isa_pick("avx") == NULL,
          "dispatch: an unknown name gives an instruction set");
}

/* Nothing has changed the floating-point mode: rounding to nearest, subnormals not flushed. */
static void test_floating_point_mode(void)
{
    volatile float smallest_float = FLT_MIN;
    volatile double smallest = DBL_MIN;
    check(fegetround() == FE_TONEAREST, "the rounding mode has changed");
    smallest_float = smallest_float / 2;
    smallest = smallest / 2;
    check(smallest_float > 0 && smallest > 0, "subnormal results are flushed to zero");
    check(smallest_float * 2 == FLT_MIN && smallest * 2 == DBL_MIN,
          "subnormal operands are read as zero");
}

int main(int count, char **arguments)
{
    options chosen = {.stride = 257, .samples = 20000, .cases = 150};
    setvbuf(stdout, NULL, _IOLBF, BUFSIZ); /* so that nothing is lost if a kernel crashes */
    if (!parse(&chosen, count, arguments) || chosen.help) {
        usage(chosen.help ? stdout : stderr);
        return chosen.help ? EXIT_SUCCESS : 2;
    }
    isa_list isas = instruction_sets(&chosen);
    if (chosen.throughput) {
        print_throughput_f32(&isas);
        print_throughput_f64(&isas);
        return EXIT_SUCCESS;
    }
    test_dispatch();
    test_cell_f32(&isas);
    test_cell_f64(&isas);
    test_products_f32(&isas, (ptrdiff_t)chosen.cases);
    test_products_f64(&isas, (ptrdiff_t)chosen.cases);
    test_softmax_f32(&isas);
    test_softmax_f64(&isas);
    test_step_f32(&isas, (ptrdiff_t)chosen.cases);
    test_step_f64(&isas, (ptrdiff_t)chosen.cases);
    test_step_back_f32(&isas, (ptrdiff_t)chosen.cases);
    test_step_back_f64(&isas, (ptrdiff_t)chosen.cases);
    test_variants_f32(&isas, (ptrdiff_t)chosen.cases);
    test_variants_f64(&isas, (ptrdiff_t)chosen.cases);
    test_activations_f32(&isas, chosen.stride);
    test_activations_f64(&isas, chosen.samples);
    test_flush();
    test_floating_point_mode();
    printf("%ld passed, %ld failed\n", checks_passed(), checks_failed());
    return checks_failed() == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
