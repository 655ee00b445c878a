# What the threads of a parallel region share: how many they are, their barrier, flush-to-zero.

from libc.stdint cimport uint64_t

cdef extern from "barrier.h" nogil:
    ctypedef struct fastlstm_barrier:
        long arrived
        long round
    void fastlstm_barrier_wait(fastlstm_barrier* barrier, long threads)

cdef extern from "flush.h" nogil:
    uint64_t fastlstm_flush_begin()
    void fastlstm_flush_end(uint64_t before)

cdef extern from *:
    """
    #ifdef _OPENMP
    #include <omp.h>
    #define FASTLSTM_TEAM_SIZE() omp_get_num_threads()
    #define FASTLSTM_TEAM_MEMBER() omp_get_thread_num()
    #else
    #define FASTLSTM_TEAM_SIZE() 1
    #define FASTLSTM_TEAM_MEMBER() 0
    #endif
    """
    int team_size "FASTLSTM_TEAM_SIZE" () nogil
    int team_member "FASTLSTM_TEAM_MEMBER" () nogil
