/* Picks the instruction set that the kernels use.
 *
 * The build says which sets exist, the processor and the operating system say which of them may
 * run. Nothing is cached here and nothing is global: the caller picks once and keeps the pointer.
 * The environment variable FASTLSTM_ISA is read by the caller, which also raises.
 *
 * How to build (one object per line; every object gets the common flags):
 *
 *   common, gcc and clang: -std=c11 -O3 -ffp-contract=off -fno-math-errno -fno-trapping-math
 *   common, MSVC:          /std:c11 /O2 /fp:precise
 *
 *   source      macros                      gcc and clang                     MSVC
 *   kernels.c   FASTLSTM_ISA_GENERIC        (baseline)                        (baseline)
 *   kernels.c   FASTLSTM_ISA_AVX2           -mavx2 -mfma                      /arch:AVX2
 *   kernels.c   FASTLSTM_ISA_AVX512         -mavx512f -mavx512dq -mavx512bw   /arch:AVX512
 *                                           -mavx512vl -mavx2 -mfma
 *   kernels.c   FASTLSTM_ISA_NEON           (baseline of aarch64)             (baseline)
 *   dispatch.c  FASTLSTM_HAVE_AVX512,       (baseline)                        (baseline)
 *               FASTLSTM_HAVE_AVX2,
 *               FASTLSTM_HAVE_NEON: one for each object that is linked beside generic
 *
 * x86-64 links avx512, avx2 and generic; aarch64 links neon and generic; anything else links
 * generic alone. Never -ffast-math, not at the link either: it would change the floating-point
 * mode of the whole process. Add -DNDEBUG for release (asserts off).
 */
#ifndef FASTLSTM_DISPATCH_H
#define FASTLSTM_DISPATCH_H

#include "kernels.h"

/* The instruction set called `wanted`, or the best one for NULL. NULL if there is none of that
 * name in this build, or if the processor or the operating system does not support it. */
const fastlstm_isa *fastlstm_isa_pick(const char *wanted);

/* The index-th instruction set that can run here, best first ("generic" is the last), or NULL past
 * the end. Walk it from 0 to list what is available. */
const fastlstm_isa *fastlstm_isa_at(ptrdiff_t index);

#endif
