/* Asks the processor which of the built instruction sets it can run. See dispatch.h.
 *
 * Compiled with baseline flags only: it runs before anything is known about the processor.
 */
#include "dispatch.h"

#include <string.h>

#if defined(FASTLSTM_HAVE_AVX512) || defined(FASTLSTM_HAVE_AVX2)
#define ASK_X86 1
#endif

#ifdef FASTLSTM_HAVE_AVX512
extern const fastlstm_isa fastlstm_isa_avx512;
#endif
#ifdef FASTLSTM_HAVE_AVX2
extern const fastlstm_isa fastlstm_isa_avx2;
#endif
#ifdef FASTLSTM_HAVE_NEON
extern const fastlstm_isa fastlstm_isa_neon;
#endif
extern const fastlstm_isa fastlstm_isa_generic;

#if defined(ASK_X86) && defined(_MSC_VER) && !defined(__clang__)
#include <immintrin.h>
#include <intrin.h>

/* MSVC has no __builtin_cpu_supports. xcr0_bits: register state that the system must save. */
static int leaf7_supports(int ebx_bits, int ecx1_bits, unsigned long long xcr0_bits)
{
    int leaf[4];
    __cpuid(leaf, 0);
    if (leaf[0] < 7)
        return 0;
    __cpuid(leaf, 1);
    if ((leaf[2] & ecx1_bits) != ecx1_bits || (_xgetbv(0) & xcr0_bits) != xcr0_bits)
        return 0;
    __cpuidex(leaf, 7, 0);
    return (leaf[1] & ebx_bits) == ebx_bits;
}

/* Leaf 1 ecx: FMA is bit 12, OSXSAVE 27, AVX 28. Leaf 7 ebx: AVX2 is bit 5, AVX-512 F 16, DQ 17,
 * CD 28 (/arch:AVX512 uses it too), BW 30, VL 31. XCR0: SSE is bit 1, AVX 2, AVX-512 5 to 7. */
#define LEAF1_AVX_FMA ((1 << 12) | (1 << 27) | (1 << 28))

static int has_avx2(void)
{
    return leaf7_supports(1 << 5, LEAF1_AVX_FMA, 0x06);
}

#ifdef FASTLSTM_HAVE_AVX512
static int has_avx512(void)
{
    return leaf7_supports((int)0xD0030020u, LEAF1_AVX_FMA, 0xE6);
}
#endif
#elif defined(ASK_X86)
/* These ask the operating system's support of the wider registers as well. */
static int has_avx2(void)
{
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

#ifdef FASTLSTM_HAVE_AVX512
static int has_avx512(void)
{
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
}
#endif
#endif

#ifdef FASTLSTM_HAVE_NEON
static int has_neon(void)
{
    return 1; /* part of the aarch64 baseline */
}
#endif

static int has_generic(void)
{
    return 1;
}

/* Best first. */
static const struct {
    const fastlstm_isa *isa;
    int (*supported)(void);
} built[] = {
#ifdef FASTLSTM_HAVE_AVX512
    {&fastlstm_isa_avx512, has_avx512},
#endif
#ifdef FASTLSTM_HAVE_AVX2
    {&fastlstm_isa_avx2, has_avx2},
#endif
#ifdef FASTLSTM_HAVE_NEON
    {&fastlstm_isa_neon, has_neon},
#endif
    {&fastlstm_isa_generic, has_generic},
};

const fastlstm_isa *fastlstm_isa_at(ptrdiff_t index)
{
    for (size_t k = 0; k < sizeof built / sizeof built[0]; k++) {
        if (built[k].supported() && index-- == 0)
            return built[k].isa;
    }
    return NULL;
}

const fastlstm_isa *fastlstm_isa_pick(const char *wanted)
{
    const fastlstm_isa *isa;
    for (ptrdiff_t k = 0; (isa = fastlstm_isa_at(k)) != NULL; k++) {
        if (wanted == NULL || strcmp(wanted, isa->name) == 0)
            return isa;
    }
    return NULL;
}
