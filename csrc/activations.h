/* exp, sigmoid and tanh on the vector type of simd.h, which includes this file's twin per type.
 *
 * Included once per real type, like simd.h. Both functions rest on one polynomial, expm1 on
 * |r| <= ln(2)/2, so there is no branch and no special case for small arguments.
 *
 * q(r) ~ (expm1(r) - r) / r^2 is a minimax fit of our own: a Remez exchange in 60-digit
 * arithmetic, constant term held at 1/2, minimising the relative error of expm1, over
 * 1.0005 * ln(2)/2. What the fit leaves is below 0.25 * 2^-24 (float) and 0.25 * 2^-53 (double).
 *
 * Errors in ulp of the true result (below the normal range: in smallest subnormals). The bounds are
 * those of tests/csrc; the worst ones were seen by its driver, `make -C tests/csrc full`:
 *
 *              float, all 2^32 of them              double, 2*10^7 random ones
 *   sigmoid    worst 2.402, bound 2.5               worst 2.292, bound 3
 *   tanh       worst 2.517 (2.554), bound 2.6       worst 2.475 (2.546), bound 3
 *
 * In brackets plain C, which has no fused multiply-add; its sigmoid is no worse. AVX-512, AVX2 and
 * NEON give the same bits. NaN gives NaN, ±inf their limits, and tanh(±0) is ±0.
 */
#ifndef FASTLSTM_ACTIVATIONS_ONCE
#define FASTLSTM_ACTIVATIONS_ONCE
#define v_expm1_reduced FASTLSTM_TYPED(v_expm1_reduced)
#define v_reduce FASTLSTM_TYPED(v_reduce)
#define v_exp_negative FASTLSTM_TYPED(v_exp_negative)
#define v_sigmoid FASTLSTM_TYPED(v_sigmoid)
#define v_tanh FASTLSTM_TYPED(v_tanh)
#endif

/* LN2_HI has so many trailing zeros that n * LN2_HI is exact for every n that occurs, with and
 * without fused multiply-add. EXP_LOWEST: below it, exp rounds to 0. TANH_HIGHEST: twice an
 * argument from which on tanh rounds to 1. */
#undef LOG2_E
#undef LN2_HI
#undef LN2_LO
#undef EXP_LOWEST
#undef TANH_HIGHEST
#if FASTLSTM_REAL == 32
#define LOG2_E 0x1.715476p+0f
#define LN2_HI 0x1.62e4p-1f
#define LN2_LO 0x1.7f7d1cp-20f
#define EXP_LOWEST (-104.0f)
#define TANH_HIGHEST 20.0f

/* expm1(r), |r| <= ln(2)/2 */
FASTLSTM_INLINE vec v_expm1_reduced(vec r)
{
    vec q = v_set(0x1.6c5574p-10f);
    q = v_fma(q, r, v_set(0x1.1223a8p-7f));
    q = v_fma(q, r, v_set(0x1.5555bap-5f));
    q = v_fma(q, r, v_set(0x1.5554b6p-3f));
    q = v_fma(q, r, v_set(0.5f));
    return v_fma(v_mul(r, r), q, r);
}
#else
#define LOG2_E 0x1.71547652b82fep+0
#define LN2_HI 0x1.62e42feep-1
#define LN2_LO 0x1.a39ef35793c76p-33
#define EXP_LOWEST (-746.0)
#define TANH_HIGHEST 44.0

/* expm1(r), |r| <= ln(2)/2 */
FASTLSTM_INLINE vec v_expm1_reduced(vec r)
{
    vec q = v_set(0x1.ae492bb825bf0p-26);
    q = v_fma(q, r, v_set(0x1.2897867e02b26p-22));
    q = v_fma(q, r, v_set(0x1.71de977ff8302p-19));
    q = v_fma(q, r, v_set(0x1.a019b38074078p-16));
    q = v_fma(q, r, v_set(0x1.a01a01719bed0p-13));
    q = v_fma(q, r, v_set(0x1.6c16c17a0649ap-10));
    q = v_fma(q, r, v_set(0x1.1111111118d55p-7));
    q = v_fma(q, r, v_set(0x1.5555555553afbp-5));
    q = v_fma(q, r, v_set(0x1.555555555553ep-3));
    q = v_fma(q, r, v_set(0.5));
    return v_fma(v_mul(r, r), q, r);
}
#endif

/* x = n*ln(2) + r with |r| <= ln(2)/2: stores the whole number n, returns r */
FASTLSTM_INLINE vec v_reduce(vec *n, vec x)
{
    *n = v_round(v_mul(x, v_set(LOG2_E)));
    vec r = v_fma(*n, v_set(-LN2_HI), x);
    return v_fma(*n, v_set(-LN2_LO), r);
}

/* exp(x), x <= 0; -inf gives 0, results below the normal range are subnormal */
FASTLSTM_INLINE vec v_exp_negative(vec x)
{
    vec n;
    vec r = v_reduce(&n, v_max(v_set(EXP_LOWEST), x));
    return v_scale_down(v_add(v_expm1_reduced(r), v_set(1)), n);
}

/* 1 / (1 + exp(-x)). With e = exp(-|x|) <= 1 it is 1/(1+e) for x >= 0 and e/(1+e) below, so that
 * neither overflow nor cancellation occurs. */
FASTLSTM_INLINE vec v_sigmoid(vec x)
{
    vec zero = v_set(0), one = v_set(1);
    vec e = v_exp_negative(v_sub(zero, v_abs(x)));
    return v_div(v_select(v_less(x, zero), e, one), v_add(one, e));
}

/* tanh(x) = sign(x) * em / (em + 2) with em = expm1(2|x|) = 2^n * expm1(r) + (2^n - 1). For n = 0,
 * em is expm1(r) itself, so small arguments keep their relative accuracy. */
FASTLSTM_INLINE vec v_tanh(vec x)
{
    vec n, magnitude = v_abs(x);
    vec r = v_reduce(&n, v_min(v_set(TANH_HIGHEST), v_add(magnitude, magnitude)));
    vec power = v_pow2(n);
    vec em = v_fma(power, v_expm1_reduced(r), v_sub(power, v_set(1)));
    return v_copysign(v_div(em, v_add(em, v_set(2))), x);
}
