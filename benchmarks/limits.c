/* Work that nothing but one limit of a core bounds: benchmarks/limits.py times it. */
#include <stddef.h>

#if defined(__AVX512F__)
enum { VECTOR = 64, CHAINS = 24 };
#elif defined(__AVX__)
enum { VECTOR = 32, CHAINS = 12 };
#else
enum { VECTOR = 16, CHAINS = 24 };
#endif

typedef float floats __attribute__((vector_size(VECTOR)));
typedef long long integers __attribute__((vector_size(VECTOR)));

/* Floating-point operations of one round of fma_chains. */
size_t fma_operations(void) { return (size_t)CHAINS * (VECTOR / sizeof(float)) * 2; }

/* Multiply-adds from registers to registers, in more chains than a core can have in flight. */
float fma_chains(size_t rounds, float factor, float term)
{
    floats sums[CHAINS];
    const floats a = (floats){0} + factor, b = (floats){0} + term;
    for (int k = 0; k < CHAINS; k++)
        sums[k] = (floats){0} + (float)k;
    for (size_t round = 0; round < rounds; round++) {
#pragma GCC unroll 24
        for (int k = 0; k < CHAINS; k++)
            sums[k] = sums[k] * a + b;
    }
    for (int k = 1; k < CHAINS; k++)
        sums[0] += sums[k];
    return sums[0][0];
}

/* Reads `bytes` (a multiple of 512) at `data` (aligned to 64), again and again; its parity. */
long long read_all(const char *data, size_t bytes, size_t rounds)
{
    enum { AT_ONCE = 8 };
    integers parities[AT_ONCE] = {{0}};
    for (size_t round = 0; round < rounds; round++) {
        for (const char *end = data + bytes, *at = data; at < end; at += AT_ONCE * VECTOR) {
#pragma GCC unroll 8
            for (int k = 0; k < AT_ONCE; k++)
                parities[k] ^= ((const integers *)at)[k];
        }
        __asm__ volatile("" ::: "memory"); /* each round reads anew */
    }
    for (int k = 1; k < AT_ONCE; k++)
        parities[0] ^= parities[k];
    return parities[0][0];
}
