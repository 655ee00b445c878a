/* Tests of csrc/barrier.h: a program of its own, for the thread sanitizer.
 *
 * Each thread counts its rounds where all can see it, in plain memory: if two of them were not in
 * the same round after a meeting, or one did not see what another wrote, some counter would differ
 * (and the thread sanitizer would speak of a race). */
#define _DEFAULT_SOURCE /* alarm */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "barrier.h"

enum { MOST_THREADS = 16 };

typedef struct {
    fastlstm_barrier barrier;
    long threads, rounds, wrong;
    struct {
        long count;
        char apart[120];
    } at[2][MOST_THREADS]; /* of odd and even rounds: one meeting a round is enough */
} team;

typedef struct {
    team *its;
    long member;
} membership;

static void *work(void *argument)
{
    const membership *of = argument;
    team *its = of->its;
    long wrong = 0;
    for (long round = 1; round <= its->rounds; round++) {
        /* Some come late, so that all orders of arrival are met. */
        for (volatile long k = (of->member * 37 + round * 11) % 64; k > 0; k--)
            ;
        its->at[round % 2][of->member].count = round;
        fastlstm_barrier_wait(&its->barrier, its->threads);
        for (long other = 0; other < its->threads; other++)
            wrong += its->at[round % 2][other].count != round;
    }
    __atomic_add_fetch(&its->wrong, wrong, __ATOMIC_RELAXED);
    return NULL;
}

static int test(long threads, long rounds)
{
    static team all;
    membership of[MOST_THREADS];
    pthread_t workers[MOST_THREADS];
    all = (team){.threads = threads, .rounds = rounds};
    for (long k = 0; k < threads; k++) {
        of[k] = (membership){&all, k};
        if (pthread_create(&workers[k], NULL, work, &of[k]) != 0) {
            perror("barrier");
            exit(2);
        }
    }
    for (long k = 0; k < threads; k++)
        pthread_join(workers[k], NULL);
    int used_up = all.barrier.arrived == 0 && all.barrier.round == rounds;
    printf("barrier of %ld threads, %ld rounds: %ld counters differ%s\n", threads, rounds,
           all.wrong, used_up ? "" : ", and the barrier is not ready for another round");
    return all.wrong == 0 && used_up;
}

/* barrier [rounds]: for two threads; where there may be more threads than cores, a round takes as
 * long as it takes to give one's core away, so there are fewer of them. */
int main(int count, char **arguments)
{
    long rounds = count > 1 ? atol(arguments[1]) : 100000;
    int passed = 1;
    alarm(300); /* ends the program if a barrier never opens */
    passed &= test(1, rounds);
    passed &= test(2, rounds);
    passed &= test(3, rounds / 50 + 1);
    passed &= test(8, rounds / 200 + 1);
    passed &= test(MOST_THREADS, rounds / 400 + 1);
    return passed ? EXIT_SUCCESS : EXIT_FAILURE;
}
