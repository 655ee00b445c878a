/* Checks, fenced buffers and random numbers for the C driver. See driver.h. */
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "driver.h"

#define CANARY 0xA5
#define MESSAGES 40

static long passed_count, failed_count;

void check(int passed, const char *format, ...)
{
    if (passed) {
        passed_count++;
        return;
    }
    if (failed_count++ < MESSAGES) {
        va_list arguments;
        va_start(arguments, format);
        fputs("FAILED: ", stdout);
        vprintf(format, arguments);
        putchar('\n');
        va_end(arguments);
    }
}

long checks_failed(void)
{
    return failed_count;
}

long checks_passed(void)
{
    return passed_count;
}

/* What fenced_free has to know, in a list of the living buffers. */
typedef struct block {
    struct block *next;
    unsigned char *buffer, *pages;
    size_t bytes, usable; /* usable: bytes of the pages that may be accessed, from `pages` on */
    size_t mapped;
    unsigned char *base;
} block;

static block *living;

static void *checked(void *pointer)
{
    if (pointer == NULL || pointer == MAP_FAILED) {
        perror("driver");
        exit(2);
    }
    return pointer;
}

void *fenced_alloc(size_t bytes, enum placement placement)
{
    block *it = checked(calloc(1, sizeof *it));
    it->bytes = bytes;
    it->next = living;
    living = it;
    if (placement == EXACT) {
        it->buffer = checked(malloc(bytes > 0 ? bytes : 1));
        return it->buffer;
    }
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    it->usable = (bytes / page + 1) * page;
    it->mapped = it->usable + page;
    it->base = checked(
        mmap(NULL, it->mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    unsigned char *fence = placement == FENCE_AFTER ? it->base + it->usable : it->base;
    if (mprotect(fence, page, PROT_NONE) != 0)
        checked(NULL);
    it->pages = placement == FENCE_AFTER ? it->base : it->base + page;
    it->buffer = placement == FENCE_AFTER ? fence - bytes : it->pages;
    memset(it->pages, CANARY, it->usable);
    return it->buffer;
}

void fenced_free(void *buffer, const char *what)
{
    block **link = &living;
    while (*link != NULL && (*link)->buffer != buffer)
        link = &(*link)->next;
    block *it = checked(*link);
    *link = it->next;
    if (it->base == NULL) {
        free(it->buffer);
    } else {
        size_t overwritten = 0;
        for (unsigned char *byte = it->pages; byte < it->buffer; byte++)
            overwritten += *byte != CANARY;
        for (unsigned char *byte = it->buffer + it->bytes; byte < it->pages + it->usable; byte++)
            overwritten += *byte != CANARY;
        check(overwritten == 0, "%s: %zu bytes outside of the buffer were overwritten", what,
              overwritten);
        munmap(it->base, it->mapped);
    }
    free(it);
}

/* splitmix64 (Steele, Lea and Flood, 2014) */
uint64_t random_bits(void)
{
    static uint64_t state = 20240607;
    uint64_t z = state += UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

double random_uniform(double low, double high)
{
    return low + (high - low) * ((double)(random_bits() >> 11) * 0x1p-53);
}
