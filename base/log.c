/* base/log.c: format one line and hand it to the sink. One lock around the sink keeps lines of
 * different threads apart; a sink must therefore not log itself. */
#include "base/log.h"

#include <pthread.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#define LINE_SIZE 1024

static pthread_mutex_t sink_lock = PTHREAD_MUTEX_INITIALIZER;
static base_log_sink *sink_function; /* guarded by sink_lock */
static void *sink_argument;          /* guarded by sink_lock */

void base_log_set(base_log_sink *sink, void *argument)
{
    pthread_mutex_lock(&sink_lock);
    sink_function = sink;
    sink_argument = argument;
    pthread_mutex_unlock(&sink_lock);
}

void base_log(base_log_level level, const char *format, ...)
{
    char line[LINE_SIZE];
    va_list args;
    va_start(args, format);
    int length = vsnprintf(line, sizeof line, format, args);
    va_end(args);
    if (length < 0) {
        return;
    }
    for (char *p = line; *p; p++) {
        if (*p == '\n' || *p == '\r') {
            *p = ' ';
        }
    }
    pthread_mutex_lock(&sink_lock);
    if (sink_function) {
        sink_function(sink_argument, level, line);
    }
    pthread_mutex_unlock(&sink_lock);
}
