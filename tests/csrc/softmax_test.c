/* Tests of softmax for one real type: values against libm in the next wider type, lengths, special
 * values, and that the vector sets give the same bits. Compiled once per FASTLSTM_REAL. */
#include <stdio.h>

#include "driver.h"

enum { LONGEST = 100003 };

/* A row, what the first instruction set made of it, and what the one under test does. */
static real row[LONGEST], first[LONGEST], out[LONGEST];
static wide exponentials[LONGEST];

typedef struct {
    real most;
    double sum;
} sums;

static size_t bytes_of(ptrdiff_t elements)
{
    return (size_t)elements * sizeof(real);
}

static void random_row(ptrdiff_t n, double low, double high)
{
    for (ptrdiff_t k = 0; k < n; k++)
        row[k] = (real)random_uniform(low, high);
}

/* `out` = factor * softmax(row), between fences; in place or not, the bits are the same. */
static sums run(const fastlstm_isa *isa, ptrdiff_t n, double factor, enum placement placement)
{
    sums got, in_place;
    real *x = fenced_alloc(bytes_of(n), placement), *y = fenced_alloc(bytes_of(n), placement);
    memcpy(x, row, bytes_of(n));
    got.sum = isa->TABLE.softmax(y, &got.most, x, n, factor);
    check(memcmp(x, row, bytes_of(n)) == 0, "f%d %s softmax: the input was written to",
          FASTLSTM_REAL, isa->name);
    memcpy(out, y, bytes_of(n));
    in_place.sum = isa->TABLE.softmax(x, &in_place.most, x, n, factor);
    check(memcmp(x, y, bytes_of(n)) == 0 && memcmp(&in_place.sum, &got.sum, sizeof got.sum) == 0 &&
              to_bits(in_place.most) == to_bits(got.most),
          "f%d %s softmax of %td: in place differs", FASTLSTM_REAL, isa->name, n);
    fenced_free(y, "softmax");
    fenced_free(x, "softmax");
    return got;
}

/* The distance to the largest element is rounded before its exponential is taken, which has 2 ulp
 * of its own; a run of the sum adds 32 elements to a lane. What is left of subnormal exponentials
 * is scaled. */
static void check_values(sums got, const fastlstm_isa *isa, ptrdiff_t n, double factor)
{
    wide most = row[0], sum = 0;
    for (ptrdiff_t k = 0; k < n; k++)
        most = row[k] > most ? (wide)row[k] : most;
    for (ptrdiff_t k = 0; k < n; k++)
        sum += exponentials[k] = WIDE(exp)((wide)row[k] - most);
    long wrong = 0;
    for (ptrdiff_t k = 0; k < n; k++) {
        wide want = (wide)factor * exponentials[k] / sum;
        wide error = want * EPSILON * (48 + most - (wide)row[k]) +
                     (wide)from_bits(1) * (1 + (wide)factor / sum);
        wrong += !(WIDE(fabs)((wide)out[k] - want) <= error);
    }
    check(wrong == 0, "f%d %s softmax of %td: %ld elements are off", FASTLSTM_REAL, isa->name, n,
          wrong);
    check((wide)got.most == most, "f%d %s softmax of %td: not the largest element", FASTLSTM_REAL,
          isa->name, n);
    check(WIDE(fabs)((wide)got.sum - sum) <= sum * 40 * EPSILON,
          "f%d %s softmax of %td: the sum is %.17g", FASTLSTM_REAL, isa->name, n, got.sum);
}

/* Around vectors, lanes and runs; spread little, as far as exp reaches, and farther. */
static void test_lengths(const isa_list *isas)
{
    static const ptrdiff_t lengths[] = {100, 127, 128, 1023, 1024, 1025, 1056, 2050, 10000, LONGEST};
    static const double spreads[] = {1, 8, FASTLSTM_REAL == 32 ? 60 : 400, 2000};
    for (ptrdiff_t number = 1; number <= 79; number++) {
        ptrdiff_t n = number < 70 ? number : lengths[number - 70];
        double spread = spreads[number % 4], factor = number % 3 == 0 ? 1 : 1.0 / 700;
        random_row(n, -spread, spread);
        sums of_first = {0};
        for (int a = 0; a < isas->count; a++) {
            const fastlstm_isa *isa = isas->isa[a];
            sums got = run(isa, n, factor, (enum placement)(number % PLACEMENTS));
            if (wide_is_wider())
                check_values(got, isa, n, factor);
            if (a == 0) {
                memcpy(first, out, bytes_of(n));
                of_first = got;
            }
            /* Plain C has no fused multiply-add. */
            check(strcmp(isa->name, "generic") == 0 ||
                      (memcmp(first, out, bytes_of(n)) == 0 && of_first.sum == got.sum),
                  "f%d %s softmax of %td: not the bits of %s", FASTLSTM_REAL, isa->name, n,
                  isas->isa[0]->name);
        }
    }
}

/* What cannot be counted makes all of its row NaN, wherever it stands. */
static void test_no_numbers(const fastlstm_isa *isa)
{
    static const ptrdiff_t lengths[] = {1, 5, 33, 70, 1030};
    const real poisons[] = {(real)NAN, (real)INFINITY};
    for (size_t size = 0; size < sizeof lengths / sizeof lengths[0]; size++) {
        ptrdiff_t n = lengths[size];
        for (ptrdiff_t at = 0; at < 2 * n; at += n > 70 ? 37 : 1) {
            random_row(n, -3, 3);
            row[at / 2] = poisons[at % 2];
            long numbers = isa->TABLE.softmax(out, &first[0], row, n, 1) == 0;
            for (ptrdiff_t k = 0; k < n; k++)
                numbers += out[k] == out[k];
            check(numbers == 0, "f%d %s softmax of %td, %g at %td: %ld are numbers", FASTLSTM_REAL,
                  isa->name, n, (double)row[at / 2], at / 2, numbers);
        }
        for (ptrdiff_t k = 0; k < n; k++)
            row[k] = -(real)INFINITY;
        double sum = isa->TABLE.softmax(out, &first[0], row, n, 1);
        check(sum != sum && out[n - 1] != out[n - 1], "f%d %s softmax of %td -inf is a number",
              FASTLSTM_REAL, isa->name, n);
    }
}

/* A class that cannot be has no share, and the others have what they have without it: here the
 * exponentials are powers of e^0 alone, so that sums are exact. */
static void test_impossible(const fastlstm_isa *isa)
{
    real big = (real)(FASTLSTM_REAL == 32 ? 3.0e38 : 1.5e308);
    for (ptrdiff_t n = 2; n <= 70; n++) {
        for (ptrdiff_t k = 0; k < n; k++)
            row[k] = k % 2 == 0 ? big : k % 4 == 1 ? -(real)INFINITY : -big;
        real most, share = (real)(1 / (double)((n + 1) / 2));
        double sum = isa->TABLE.softmax(out, &most, row, n, 1);
        long wrong = !(most == big && sum == (double)((n + 1) / 2));
        for (ptrdiff_t k = 0; k < n; k++)
            wrong += out[k] != (k % 2 == 0 ? share : 0);
        check(wrong == 0, "f%d %s softmax of %td with -inf: %ld are wrong", FASTLSTM_REAL,
              isa->name, n, wrong);
    }
}

void TYPED(test_softmax)(const isa_list *isas)
{
    test_lengths(isas);
    for (int a = 0; a < isas->count; a++) {
        test_no_numbers(isas->isa[a]);
        test_impossible(isas->isa[a]);
    }
}
