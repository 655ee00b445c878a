/* What the parts of the C driver share: counting checks, fenced buffers, random numbers.
 *
 * The tests of the kernels, and throughput.c, are compiled once per real type, with
 * -DFASTLSTM_REAL=32 or 64; the oracle is libm in the next wider type.
 */
#ifndef FASTLSTM_DRIVER_H
#define FASTLSTM_DRIVER_H

#include <stddef.h>
#include <stdint.h>

#include "dispatch.h"

/* Counts one check; prints the message if it failed. */
void check(int passed, const char *format, ...)
#ifdef __GNUC__
    __attribute__((format(printf, 2, 3)))
#endif
    ;
long checks_failed(void);
long checks_passed(void);

/* A buffer in which no access outside of it goes unseen: malloc'ed to the byte, for the sanitizers
 * and valgrind, or against a page without access, behind it or before it, which any build sees.
 * What lies beside it on its own pages is a canary that fenced_free checks. */
enum placement { EXACT, FENCE_AFTER, FENCE_BEFORE, PLACEMENTS };
void *fenced_alloc(size_t bytes, enum placement placement);
void fenced_free(void *buffer, const char *what);

/* Random numbers from a fixed seed, the same on every machine. */
uint64_t random_bits(void);
double random_uniform(double low, double high);

#define MAX_ISAS 4
typedef struct {
    const fastlstm_isa *isa[MAX_ISAS]; /* best first, generic last */
    int count;
} isa_list;

/* stride: every how many-th bit pattern of float is tried (1: all of them);
 * samples: how many random doubles of each kind are; cases: how many sizes of products. */
void test_activations_f32(const isa_list *isas, uint64_t stride);
void test_activations_f64(const isa_list *isas, uint64_t samples);
void test_cell_f32(const isa_list *isas);
void test_cell_f64(const isa_list *isas);
void test_products_f32(const isa_list *isas, ptrdiff_t cases);
void test_products_f64(const isa_list *isas, ptrdiff_t cases);
void test_softmax_f32(const isa_list *isas);
void test_softmax_f64(const isa_list *isas);
void test_step_f32(const isa_list *isas, ptrdiff_t cases);
void test_step_f64(const isa_list *isas, ptrdiff_t cases);
void test_step_back_f32(const isa_list *isas, ptrdiff_t cases);
void test_step_back_f64(const isa_list *isas, ptrdiff_t cases);
void test_variants_f32(const isa_list *isas, ptrdiff_t cases);
void test_variants_f64(const isa_list *isas, ptrdiff_t cases);
void test_flush(void);
void print_throughput_f32(const isa_list *isas);
void print_throughput_f64(const isa_list *isas);

#endif

#ifdef FASTLSTM_REAL
/* The bounds are those that csrc/activations.h states, in ulp of the true result. */
#if FASTLSTM_REAL == 32
typedef float real;
typedef double wide;
typedef uint32_t bits_t;
#define TABLE f32
#define TYPED(name) name##_f32
#define WIDE(function) function
#define EPSILON 0x1p-24
#define FRACTION 23
#define MIN_EXPONENT (-126)
#define SIGMOID_BOUND 2.5
#define TANH_BOUND 2.6
#else
typedef double real;
typedef long double wide;
typedef uint64_t bits_t;
#define TABLE f64
#define TYPED(name) name##_f64
#define WIDE(function) function##l
#define EPSILON 0x1p-53
#define FRACTION 52
#define MIN_EXPONENT (-1022)
#define SIGMOID_BOUND 3.0
#define TANH_BOUND 3.0
#endif

#include <math.h>
#include <string.h>

static inline real from_bits(bits_t bits)
{
    real x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static inline bits_t to_bits(real x)
{
    bits_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

/* Whether `wide` has bits to spare: valgrind computes long double in double, and on some machines
 * the two are the same type. */
static inline int wide_is_wider(void)
{
    volatile wide one = 1, least = 1;
    for (int k = 0; k < FRACTION + 5; k++)
        least /= 2;
    return one + least != one;
}

static inline wide wide_sigmoid(wide x)
{
    wide e = WIDE(exp)(-WIDE(fabs)(x));
    return x < 0 ? e / (1 + e) : 1 / (1 + e);
}

static inline wide wide_tanh(wide x)
{
    return WIDE(tanh)(x);
}
#endif
