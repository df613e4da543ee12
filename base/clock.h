/* base/clock.h: a stopwatch for the timings that are reported; nothing is decided by it. */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

/* Milliseconds of a monotonic clock; only differences mean something. */
double base_clock_ms(void);

#endif
