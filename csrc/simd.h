/* One vector type and a small set of operations on it, for each instruction set and real type.
 *
 * Why: the kernels are written once, on `vec`, and compiled once per instruction set, which is
 * chosen by exactly one of FASTLSTM_ISA_AVX512, FASTLSTM_ISA_AVX2, FASTLSTM_ISA_NEON and
 * FASTLSTM_ISA_GENERIC. This file is included once per real type, with FASTLSTM_REAL 32 or 64 and
 * hence without an include guard; kernels.c shows how. The operations' names gain _f32 or _f64
 * through the macros in the first part, so both types live in one object.
 *
 * A tail of n < V_WIDTH elements goes through a partial load and store and otherwise through the
 * very same code, so a tail rounds like a full vector. Every fused multiply-add is written out as
 * v_fma; the compiler is told to contract nothing.
 *
 *   v_load_n, v_store_n    n elements, 1 <= n <= V_WIDTH, unaligned; lanes past n load as 0
 *   v_set                  broadcast
 *   v_add v_sub v_mul v_div v_fma(a, b, c) = a*b + c, rounded once except in plain C
 *   v_min(bound, x), v_max(bound, x)   a NaN in x is returned
 *   v_round                to the nearest whole number, |x| < 2^21
 *   v_pow2                 2^n for a whole-number n with a normal result; NaN gives anything
 *   v_scale_down(x, n)     x * 2^n, rounded once, n <= 0 whole; 0.5 <= x < 2 and n not below the
 *                          exponent of the smallest subnormal by more than 2
 *   v_abs, v_copysign(magnitude, sign)
 *   v_less(a, b), v_select(mask, a, b) = mask ? a : b
 */
#ifndef FASTLSTM_SIMD_ONCE
#define FASTLSTM_SIMD_ONCE

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(FASTLSTM_ISA_AVX512) || defined(FASTLSTM_ISA_AVX2)
#include <immintrin.h>
#elif defined(FASTLSTM_ISA_NEON)
#include <arm_neon.h>
#elif !defined(FASTLSTM_ISA_GENERIC)
#error "define one FASTLSTM_ISA_... macro, see dispatch.h"
#endif

#if defined(_MSC_VER) && !defined(__clang__)
#define FASTLSTM_INLINE static __forceinline
#else
#define FASTLSTM_INLINE static inline __attribute__((always_inline))
#endif

#if defined(FASTLSTM_ISA_AVX512)
#define FASTLSTM_VECTOR_BYTES 64
#elif defined(FASTLSTM_ISA_AVX2)
#define FASTLSTM_VECTOR_BYTES 32
#else
#define FASTLSTM_VECTOR_BYTES 16
#endif

/* Before a loop over vectors: its iterations are independent. Only plain C needs to be told, there
 * the compiler makes the vectors (an output may be the very same buffer as an input). */
#if !defined(FASTLSTM_ISA_GENERIC)
#define FASTLSTM_INDEPENDENT
#elif defined(__clang__)
#define FASTLSTM_INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#elif defined(__GNUC__)
#define FASTLSTM_INDEPENDENT _Pragma("GCC ivdep")
#elif defined(_MSC_VER)
#define FASTLSTM_INDEPENDENT __pragma(loop(ivdep))
#else
#define FASTLSTM_INDEPENDENT
#endif

#define FASTLSTM_GLUE_(a, b) a##b
#define FASTLSTM_GLUE(a, b) FASTLSTM_GLUE_(a, b)
#define FASTLSTM_TYPED(name) FASTLSTM_GLUE(name, FASTLSTM_SUFFIX)

#define real FASTLSTM_TYPED(real)
#define vec FASTLSTM_TYPED(vec)
#define vmask FASTLSTM_TYPED(vmask)
#define v_load_part FASTLSTM_TYPED(v_load_part)
#define v_store_part FASTLSTM_TYPED(v_store_part)
#define v_load_n FASTLSTM_TYPED(v_load_n)
#define v_store_n FASTLSTM_TYPED(v_store_n)
#define v_load FASTLSTM_TYPED(v_load)
#define v_store FASTLSTM_TYPED(v_store)
#define v_set FASTLSTM_TYPED(v_set)
#define v_add FASTLSTM_TYPED(v_add)
#define v_sub FASTLSTM_TYPED(v_sub)
#define v_mul FASTLSTM_TYPED(v_mul)
#define v_div FASTLSTM_TYPED(v_div)
#define v_fma FASTLSTM_TYPED(v_fma)
#define v_min FASTLSTM_TYPED(v_min)
#define v_max FASTLSTM_TYPED(v_max)
#define v_round FASTLSTM_TYPED(v_round)
#define v_pow2 FASTLSTM_TYPED(v_pow2)
#define v_scale_down FASTLSTM_TYPED(v_scale_down)
#define v_exponent FASTLSTM_TYPED(v_exponent)
#define v_lanes FASTLSTM_TYPED(v_lanes)
#define v_bits FASTLSTM_TYPED(v_bits)
#define v_from_bits FASTLSTM_TYPED(v_from_bits)
#define v_abs FASTLSTM_TYPED(v_abs)
#define v_copysign FASTLSTM_TYPED(v_copysign)
#define v_less FASTLSTM_TYPED(v_less)
#define v_select FASTLSTM_TYPED(v_select)
#endif /* FASTLSTM_SIMD_ONCE */

/* The format of the real type: bits of the fraction, bias of the exponent, and 1.5 * 2^fraction:
 * added to a whole number, it leaves that number in the low bits. SCALE_STEP: see v_scale_down. */
#undef FASTLSTM_SUFFIX
#undef REAL_BITS
#undef REAL_FRACTION
#undef REAL_BIAS
#undef REAL_SIGN
#undef REAL_MAGIC
#undef REAL_SCALE_STEP
#undef REAL_SCALE_BACK
#if FASTLSTM_REAL == 32
typedef float real_f32;
#define FASTLSTM_SUFFIX _f32
#define REAL_BITS uint32_t
#define REAL_FRACTION 23
#define REAL_BIAS 127
#define REAL_SIGN UINT32_C(0x80000000)
#define REAL_MAGIC 0x1.8p23f
#define REAL_SCALE_STEP 64
#define REAL_SCALE_BACK 0x1p-64f
#elif FASTLSTM_REAL == 64
typedef double real_f64;
#define FASTLSTM_SUFFIX _f64
#define REAL_BITS uint64_t
#define REAL_FRACTION 52
#define REAL_BIAS 1023
#define REAL_SIGN UINT64_C(0x8000000000000000)
#define REAL_MAGIC 0x1.8p52
#define REAL_SCALE_STEP 512
#define REAL_SCALE_BACK 0x1p-512
#else
#error "FASTLSTM_REAL is 32 or 64"
#endif

#undef V_WIDTH
#undef X86
#undef NEON
#undef NEON_SIGN

#if defined(FASTLSTM_ISA_AVX512)
/* ---------------------------------------------------------------- AVX-512 F, DQ (BW, VL) ----- */
#if FASTLSTM_REAL == 32
typedef __m512 vec_f32;
typedef __mmask16 vmask_f32;
#define V_WIDTH 16
#define X86(op) _mm512_##op##_ps
#else
typedef __m512d vec_f64;
typedef __mmask8 vmask_f64;
#define V_WIDTH 8
#define X86(op) _mm512_##op##_pd
#endif

FASTLSTM_INLINE vec v_load(const real *p) { return X86(loadu)(p); }
FASTLSTM_INLINE void v_store(real *p, vec x) { X86(storeu)(p, x); }
FASTLSTM_INLINE vec v_load_part(const real *p, ptrdiff_t n)
{
    return X86(maskz_loadu)((vmask)((1u << n) - 1u), p);
}
FASTLSTM_INLINE void v_store_part(real *p, vec x, ptrdiff_t n)
{
    X86(mask_storeu)(p, (vmask)((1u << n) - 1u), x);
}
FASTLSTM_INLINE vec v_set(real x) { return X86(set1)(x); }
FASTLSTM_INLINE vec v_add(vec a, vec b) { return X86(add)(a, b); }
FASTLSTM_INLINE vec v_sub(vec a, vec b) { return X86(sub)(a, b); }
FASTLSTM_INLINE vec v_mul(vec a, vec b) { return X86(mul)(a, b); }
FASTLSTM_INLINE vec v_div(vec a, vec b) { return X86(div)(a, b); }
FASTLSTM_INLINE vec v_fma(vec a, vec b, vec c) { return X86(fmadd)(a, b, c); }
FASTLSTM_INLINE vec v_min(vec bound, vec x) { return X86(min)(bound, x); }
FASTLSTM_INLINE vec v_max(vec bound, vec x) { return X86(max)(bound, x); }
FASTLSTM_INLINE vec v_round(vec x)
{
    return X86(roundscale)(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
FASTLSTM_INLINE vec v_pow2(vec n) { return X86(scalef)(v_set(1), n); }
FASTLSTM_INLINE vec v_scale_down(vec x, vec n) { return X86(scalef)(x, n); }
FASTLSTM_INLINE vec v_abs(vec x) { return X86(andnot)(v_set((real)-0.0), x); }
FASTLSTM_INLINE vec v_copysign(vec magnitude, vec sign)
{
    return X86(or)(v_abs(magnitude), X86(and)(v_set((real)-0.0), sign));
}
#if FASTLSTM_REAL == 32
FASTLSTM_INLINE vmask v_less(vec a, vec b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
#else
FASTLSTM_INLINE vmask v_less(vec a, vec b) { return _mm512_cmp_pd_mask(a, b, _CMP_LT_OQ); }
#endif
FASTLSTM_INLINE vec v_select(vmask m, vec a, vec b) { return X86(mask_blend)(m, b, a); }

#elif defined(FASTLSTM_ISA_AVX2)
/* ---------------------------------------------------------------------------- AVX2, FMA ----- */
#if FASTLSTM_REAL == 32
typedef __m256 vec_f32;
typedef __m256 vmask_f32;
#define V_WIDTH 8
#define X86(op) _mm256_##op##_ps
FASTLSTM_INLINE vec v_exponent(vec x)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(x), REAL_FRACTION));
}
#else
typedef __m256d vec_f64;
typedef __m256d vmask_f64;
#define V_WIDTH 4
#define X86(op) _mm256_##op##_pd
FASTLSTM_INLINE vec v_exponent(vec x)
{
    return _mm256_castsi256_pd(_mm256_slli_epi64(_mm256_castpd_si256(x), REAL_FRACTION));
}
#endif

/* The first n lanes of a real each. */
FASTLSTM_INLINE __m256i v_lanes(ptrdiff_t n)
{
    static const int32_t window[16] = {-1, -1, -1, -1, -1, -1, -1, -1};
    return _mm256_loadu_si256((const __m256i *)(const void *)(window + 8 - n * (FASTLSTM_REAL / 32)));
}
FASTLSTM_INLINE vec v_load(const real *p) { return X86(loadu)(p); }
FASTLSTM_INLINE void v_store(real *p, vec x) { X86(storeu)(p, x); }
FASTLSTM_INLINE vec v_load_part(const real *p, ptrdiff_t n)
{
    return X86(maskload)(p, v_lanes(n));
}
FASTLSTM_INLINE void v_store_part(real *p, vec x, ptrdiff_t n)
{
    X86(maskstore)(p, v_lanes(n), x);
}
FASTLSTM_INLINE vec v_set(real x) { return X86(set1)(x); }
FASTLSTM_INLINE vec v_add(vec a, vec b) { return X86(add)(a, b); }
FASTLSTM_INLINE vec v_sub(vec a, vec b) { return X86(sub)(a, b); }
FASTLSTM_INLINE vec v_mul(vec a, vec b) { return X86(mul)(a, b); }
FASTLSTM_INLINE vec v_div(vec a, vec b) { return X86(div)(a, b); }
FASTLSTM_INLINE vec v_fma(vec a, vec b, vec c) { return X86(fmadd)(a, b, c); }
FASTLSTM_INLINE vec v_min(vec bound, vec x) { return X86(min)(bound, x); }
FASTLSTM_INLINE vec v_max(vec bound, vec x) { return X86(max)(bound, x); }
FASTLSTM_INLINE vec v_round(vec x)
{
    return X86(round)(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
FASTLSTM_INLINE vec v_abs(vec x) { return X86(andnot)(v_set((real)-0.0), x); }
FASTLSTM_INLINE vec v_copysign(vec magnitude, vec sign)
{
    return X86(or)(v_abs(magnitude), X86(and)(v_set((real)-0.0), sign));
}
FASTLSTM_INLINE vmask v_less(vec a, vec b) { return X86(cmp)(a, b, _CMP_LT_OQ); }
FASTLSTM_INLINE vec v_select(vmask m, vec a, vec b) { return X86(blendv)(b, a, m); }

#elif defined(FASTLSTM_ISA_NEON)
/* ----------------------------------------------------------------------- NEON (aarch64) ----- */
#if FASTLSTM_REAL == 32
typedef float32x4_t vec_f32;
typedef uint32x4_t vmask_f32;
#define V_WIDTH 4
#define NEON(op) op##_f32
#define NEON_SIGN vdupq_n_u32(REAL_SIGN)
FASTLSTM_INLINE vec v_exponent(vec x)
{
    return vreinterpretq_f32_u32(vshlq_n_u32(vreinterpretq_u32_f32(x), REAL_FRACTION));
}
#else
typedef float64x2_t vec_f64;
typedef uint64x2_t vmask_f64;
#define V_WIDTH 2
#define NEON(op) op##_f64
#define NEON_SIGN vdupq_n_u64(REAL_SIGN)
FASTLSTM_INLINE vec v_exponent(vec x)
{
    return vreinterpretq_f64_u64(vshlq_n_u64(vreinterpretq_u64_f64(x), REAL_FRACTION));
}
#endif

FASTLSTM_INLINE vec v_load(const real *p) { return NEON(vld1q)(p); }
FASTLSTM_INLINE void v_store(real *p, vec x) { NEON(vst1q)(p, x); }
FASTLSTM_INLINE vec v_load_part(const real *p, ptrdiff_t n)
{
    real lanes[V_WIDTH] = {0};
    for (ptrdiff_t k = 0; k < n; k++)
        lanes[k] = p[k];
    return v_load(lanes);
}
FASTLSTM_INLINE void v_store_part(real *p, vec x, ptrdiff_t n)
{
    real lanes[V_WIDTH];
    v_store(lanes, x);
    for (ptrdiff_t k = 0; k < n; k++)
        p[k] = lanes[k];
}
FASTLSTM_INLINE vec v_set(real x) { return NEON(vdupq_n)(x); }
FASTLSTM_INLINE vec v_add(vec a, vec b) { return NEON(vaddq)(a, b); }
FASTLSTM_INLINE vec v_sub(vec a, vec b) { return NEON(vsubq)(a, b); }
FASTLSTM_INLINE vec v_mul(vec a, vec b) { return NEON(vmulq)(a, b); }
FASTLSTM_INLINE vec v_div(vec a, vec b) { return NEON(vdivq)(a, b); }
FASTLSTM_INLINE vec v_fma(vec a, vec b, vec c) { return NEON(vfmaq)(c, a, b); }
FASTLSTM_INLINE vec v_min(vec bound, vec x) { return NEON(vminq)(bound, x); }
FASTLSTM_INLINE vec v_max(vec bound, vec x) { return NEON(vmaxq)(bound, x); }
FASTLSTM_INLINE vec v_round(vec x) { return NEON(vrndnq)(x); }
FASTLSTM_INLINE vec v_abs(vec x) { return NEON(vabsq)(x); }
FASTLSTM_INLINE vec v_copysign(vec magnitude, vec sign)
{
    return NEON(vbslq)(NEON_SIGN, sign, magnitude);
}
FASTLSTM_INLINE vmask v_less(vec a, vec b) { return NEON(vcltq)(a, b); }
FASTLSTM_INLINE vec v_select(vmask m, vec a, vec b) { return NEON(vbslq)(m, a, b); }

#else
/* ----------------------------------------------------------------------------- plain C ------- */
/* One lane and no branch: the compiler makes vectors of the loop around it. */
#define V_WIDTH 1
#if FASTLSTM_REAL == 32
typedef float vec_f32;
typedef int vmask_f32;
#else
typedef double vec_f64;
typedef int vmask_f64;
#endif

FASTLSTM_INLINE REAL_BITS v_bits(vec x)
{
    REAL_BITS bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}
FASTLSTM_INLINE vec v_from_bits(REAL_BITS bits)
{
    vec x;
    memcpy(&x, &bits, sizeof x);
    return x;
}
FASTLSTM_INLINE vec v_exponent(vec x) { return v_from_bits(v_bits(x) << REAL_FRACTION); }
FASTLSTM_INLINE vec v_load(const real *p) { return *p; }
FASTLSTM_INLINE void v_store(real *p, vec x) { *p = x; }
FASTLSTM_INLINE vec v_load_part(const real *p, ptrdiff_t n) { return n > 0 ? *p : (real)0; }
FASTLSTM_INLINE void v_store_part(real *p, vec x, ptrdiff_t n)
{
    if (n > 0)
        *p = x;
}
FASTLSTM_INLINE vec v_set(real x) { return x; }
FASTLSTM_INLINE vec v_add(vec a, vec b) { return a + b; }
FASTLSTM_INLINE vec v_sub(vec a, vec b) { return a - b; }
FASTLSTM_INLINE vec v_mul(vec a, vec b) { return a * b; }
FASTLSTM_INLINE vec v_div(vec a, vec b) { return a / b; }
FASTLSTM_INLINE vec v_fma(vec a, vec b, vec c) { return a * b + c; }
FASTLSTM_INLINE vec v_min(vec bound, vec x) { return bound < x ? bound : x; }
FASTLSTM_INLINE vec v_max(vec bound, vec x) { return bound > x ? bound : x; }
FASTLSTM_INLINE vec v_round(vec x) { return (x + REAL_MAGIC) - REAL_MAGIC; }
FASTLSTM_INLINE vec v_abs(vec x) { return v_from_bits(v_bits(x) & ~REAL_SIGN); }
FASTLSTM_INLINE vec v_copysign(vec magnitude, vec sign)
{
    return v_from_bits((v_bits(magnitude) & ~REAL_SIGN) | (v_bits(sign) & REAL_SIGN));
}
FASTLSTM_INLINE vmask v_less(vec a, vec b) { return a < b; }
FASTLSTM_INLINE vec v_select(vmask m, vec a, vec b) { return m ? a : b; }
#endif

/* ------------------------------------------------------------------- for all the sets -------- */
FASTLSTM_INLINE vec v_load_n(const real *p, ptrdiff_t n)
{
    return n == V_WIDTH ? v_load(p) : v_load_part(p, n);
}
FASTLSTM_INLINE void v_store_n(real *p, vec x, ptrdiff_t n)
{
    if (n == V_WIDTH)
        v_store(p, x);
    else
        v_store_part(p, x, n);
}

#ifndef FASTLSTM_ISA_AVX512 /* which has an instruction for both */
/* n + bias, held in the low bits of n + bias + 1.5*2^fraction, is shifted to the exponent. */
FASTLSTM_INLINE vec v_pow2(vec n)
{
    return v_exponent(v_add(n, v_set(REAL_MAGIC + REAL_BIAS)));
}
/* In two steps: x * 2^(n+step) is exact, and the last product alone rounds, to subnormals too. */
FASTLSTM_INLINE vec v_scale_down(vec x, vec n)
{
    vec scaled = v_mul(x, v_pow2(v_add(n, v_set(REAL_SCALE_STEP))));
    return v_mul(scaled, v_set(REAL_SCALE_BACK));
}
#endif
