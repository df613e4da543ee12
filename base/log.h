/* base/log.h: leveled messages to a sink that the program sets once; without one, they vanish. */
#ifndef BASE_LOG_H
#define BASE_LOG_H

typedef enum base_log_level {
    BASE_LOG_DEBUG,
    BASE_LOG_INFO,
    BASE_LOG_WARN,
    BASE_LOG_ERROR
} base_log_level;

/* text: one line without newline, valid during the call. May be called from any thread. */
typedef void base_log_sink(void *argument, base_log_level level, const char *text);
void base_log_set(base_log_sink *sink, void *argument);
void base_log(base_log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
