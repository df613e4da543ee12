/* base/clock.c: see clock.h. */
#include "base/clock.h"

#include <time.h>

static double read_ms(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec * 1e-6;
}

double base_clock_ms(void)
{
    return read_ms(CLOCK_MONOTONIC);
}

double base_clock_thread_ms(void)
{
    return read_ms(CLOCK_THREAD_CPUTIME_ID);
}
