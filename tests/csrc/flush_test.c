/* Tests of csrc/flush.h: what counts as zero between its two calls, and that the mode of the thread
 * is then what it was, with the flags of exceptions that came up meanwhile. */
#include <fenv.h>
#include <float.h>
#include <string.h>

#include "driver.h"
#include "flush.h"

#ifndef FASTLSTM_UNDER_VALGRIND /* which has neither such a mode nor flags */

/* Whether the machine has such a mode, and flush.h knows of it. */
#ifdef FLUSH_BITS
enum { FLUSHES = 1 };
#else
enum { FLUSHES = 0 };
#endif

/* Bits: a subnormal result, as a float and as a double, and a subnormal operand, likewise, are
 * kept. volatile: at run time, and between the calls before and after. */
static int kept(void)
{
    static volatile float small_float = FLT_MIN, half_float = 0.5F, subnormal_float = FLT_MIN / 4;
    static volatile double small = DBL_MIN, half = 0.5, subnormal = DBL_MIN / 4;
    volatile float made_float = small_float * half_float, used_float = subnormal_float * 4;
    volatile double made = small * half, used = subnormal * 4;
    uint32_t bits_float;
    uint64_t bits;
    memcpy(&bits_float, (const void *)&made_float, sizeof bits_float);
    memcpy(&bits, (const void *)&made, sizeof bits);
    /* Looked at as bits: in a comparison a subnormal would count as zero, too. */
    return (bits_float != 0) | (bits != 0) << 1 | (used_float > 0) << 2 | (used > 0) << 3;
}

enum { NOTHING = 0, ALL = 15 };

static void test_mode(void)
{
    check(kept() == ALL, "flush: subnormals are flushed before (%d)", kept());
    uint64_t before = fastlstm_flush_begin();
    check(kept() == (FLUSHES ? NOTHING : ALL), "flush: %d of the subnormals are kept", kept());
    fastlstm_flush_end(before);
    check(kept() == ALL, "flush: subnormals are flushed after (%d)", kept());
}

/* A caller that flushes itself goes on to do so. */
static void test_nested(void)
{
    uint64_t outer = fastlstm_flush_begin();
    uint64_t inner = fastlstm_flush_begin();
    check(kept() == (FLUSHES ? NOTHING : ALL), "flush: %d are kept inside of two", kept());
    fastlstm_flush_end(inner);
    check(kept() == (FLUSHES ? NOTHING : ALL), "flush: the caller's mode is lost (%d)", kept());
    fastlstm_flush_end(outer);
    check(kept() == ALL, "flush: subnormals are flushed after two (%d)", kept());
}

/* One way to round, seen in a quotient. */
static double third(void)
{
    static volatile double one = 1, three = 3;
    volatile double quotient = one / three;
    return quotient;
}

static void test_rounding_and_flags(void)
{
    static volatile double zero, one = 1;
    double nearest = third();
    feclearexcept(FE_ALL_EXCEPT);
    fesetround(FE_UPWARD);
    double up = third();
    feraiseexcept(FE_INVALID);
    uint64_t before = fastlstm_flush_begin();
    check(third() == up && up != nearest, "flush: the rounding mode is not kept inside");
    volatile double infinite = one / zero;
    fastlstm_flush_end(before);
    check(third() == up, "flush: the rounding mode is not kept");
    check(fetestexcept(FE_INVALID) != 0, "flush: a flag from before is down");
    check(infinite > 0 && fetestexcept(FE_DIVBYZERO) != 0, "flush: a flag from inside is down");
    fesetround(FE_TONEAREST);
    feclearexcept(FE_ALL_EXCEPT);
    check(third() == nearest, "flush: the rounding mode cannot be set any more");
}

void test_flush(void)
{
    test_mode();
    test_nested();
    test_rounding_and_flags();
}
#else
void test_flush(void)
{
}
#endif
