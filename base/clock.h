/* base/clock.h: a stopwatch for the timings that are reported; nothing is decided by it
 * but how long ingest/watch.c waits for more changes. */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

/* Milliseconds of a monotonic clock; only differences mean something. */
double base_clock_ms(void);
/* Milliseconds that the calling thread has had of a processor; only differences mean something. */
double base_clock_thread_ms(void);

#endif
