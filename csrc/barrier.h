/* A light barrier for the threads that share out the hidden units of a step.
 *
 * Why not OpenMP's own: a step of a small batch takes microseconds. All threads arrive within a
 * fraction of one, so they spin, briefly; after that they give their core away, because where
 * there are more threads than cores the one that is waited for needs it.
 *
 * Included by the time loop, as static functions. A barrier starts as zeros.
 */
#ifndef FASTLSTM_BARRIER_H
#define FASTLSTM_BARRIER_H

#if defined(_MSC_VER) && !defined(__clang__)
#include <intrin.h>
#include <windows.h>
#define BARRIER_ADD(p) (_InterlockedExchangeAdd((p), 1) + 1)
#define BARRIER_LOAD(p) _InterlockedOr((p), 0)
#define BARRIER_STORE(p, value) _InterlockedExchange((p), (value))
#define BARRIER_YIELD() SwitchToThread()
#define BARRIER_PAUSE() YieldProcessor()
#else
#include <sched.h>
#define BARRIER_ADD(p) __atomic_add_fetch((p), 1, __ATOMIC_ACQ_REL)
#define BARRIER_LOAD(p) __atomic_load_n((p), __ATOMIC_ACQUIRE)
#define BARRIER_STORE(p, value) __atomic_store_n((p), (value), __ATOMIC_RELEASE)
#define BARRIER_YIELD() sched_yield()
#if defined(__x86_64__) || defined(__i386__)
#define BARRIER_PAUSE() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define BARRIER_PAUSE() __asm__ volatile("yield")
#else
#define BARRIER_PAUSE() ((void)0)
#endif
#endif

enum { BARRIER_SPINS = 300 }; /* some microseconds */

/* On cache lines of their own: arrivals must not disturb those who watch for the next round. */
typedef struct fastlstm_barrier {
    long arrived;
    char apart[128 - sizeof(long)];
    long round;
    char end[128 - sizeof(long)];
} fastlstm_barrier;

/* Returns when `threads` threads are here; what each wrote before, all see after. */
static inline void fastlstm_barrier_wait(fastlstm_barrier *barrier, long threads)
{
    long round = BARRIER_LOAD(&barrier->round);
    if (BARRIER_ADD(&barrier->arrived) == threads) {
        BARRIER_STORE(&barrier->arrived, 0);
        BARRIER_STORE(&barrier->round, round + 1);
        return;
    }
    for (int spins = 0; BARRIER_LOAD(&barrier->round) == round; spins++) {
        if (spins < BARRIER_SPINS)
            BARRIER_PAUSE();
        else
            BARRIER_YIELD();
    }
}

#endif
