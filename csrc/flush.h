/* Flush-to-zero for the calling thread: subnormal results and operands count as zero.
 *
 * Why: states and gradients that decay towards zero pass through the subnormal numbers, where many
 * processors take a hundred times as long for an operation. Whoever turns it on restores what was
 * before: the mode belongs to the thread, and the rest of its program has other wishes.
 *
 * Included by the compiled core, as static functions.
 */
#ifndef FASTLSTM_FLUSH_H
#define FASTLSTM_FLUSH_H

#include <stdint.h>

#if defined(__SSE2__) || defined(_M_X64)
#include <xmmintrin.h>
#define FLUSH_BITS 0x8040u /* FTZ, DAZ */

static inline uint64_t fastlstm_flush_begin(void)
{
    unsigned before = _mm_getcsr();
    _mm_setcsr(before | FLUSH_BITS);
    return before;
}

static inline void fastlstm_flush_end(uint64_t before)
{
    /* The flags of exceptions that came up meanwhile stay up. */
    _mm_setcsr((_mm_getcsr() & ~FLUSH_BITS) | ((unsigned)before & FLUSH_BITS));
}
#elif defined(__aarch64__) && defined(__GNUC__)
#define FLUSH_BITS (UINT64_C(1) << 24) /* FZ, for operands and results */

static inline uint64_t fastlstm_flush_begin(void)
{
    uint64_t before;
    __asm__ volatile("mrs %0, fpcr" : "=r"(before));
    __asm__ volatile("msr fpcr, %0" : : "r"(before | FLUSH_BITS) : "memory");
    return before;
}

static inline void fastlstm_flush_end(uint64_t before)
{
    __asm__ volatile("msr fpcr, %0" : : "r"(before) : "memory");
}
#else
static inline uint64_t fastlstm_flush_begin(void)
{
    return 0;
}

static inline void fastlstm_flush_end(uint64_t before)
{
    (void)before;
}
#endif

#endif
