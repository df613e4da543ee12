/* base/status.h: one list of result codes for the whole project, and the error text that goes with
 * one.
 *
 * Every function that can fail returns base_status; BASE_OK is 0. At folder boundaries the last
 * parameter is `base_error *err` (may be NULL): it says what failed, with which object, and the
 * code of the library below. It is written where the failure is known; callers may put context in
 * front (base_error_prefix) and never overwrite it. BASE_NOT_FOUND as an answer carries no text.
 */
#ifndef BASE_STATUS_H
#define BASE_STATUS_H

#include <stddef.h>

/* code, name, what a person reads */
#define BASE_STATUS_MAP(X)                                                      \
    X(OK, "ok", "no error")                                                     \
    X(INVALID, "invalid", "invalid argument or input")                          \
    X(NOT_FOUND, "not_found", "not found")                                      \
    X(EXISTS, "exists", "exists already")                                       \
    X(CORRUPT, "corrupt", "stored data is damaged")                             \
    X(VERSION, "version", "made by another version")                            \
    X(NO_MEMORY, "no_memory", "out of memory")                                  \
    X(IO, "io", "input/output error")                                           \
    X(DISK_FULL, "disk_full", "no space left")                                  \
    X(PERMISSION, "permission", "permission denied")                            \
    X(UNSUPPORTED, "unsupported", "not supported")                              \
    X(BUSY, "busy", "in use by another writer")                                 \
    X(LIMIT, "limit", "a limit was exceeded")                                   \
    X(CANCELLED, "cancelled", "cancelled")                                      \
    X(DEVICE, "device", "the accelerator failed or is missing")

typedef enum base_status {
#define BASE_STATUS_ENUM(code, name, text) BASE_##code,
    BASE_STATUS_MAP(BASE_STATUS_ENUM)
#undef BASE_STATUS_ENUM
    BASE_STATUS_COUNT
} base_status;

typedef struct base_error {
    base_status code;
    int system_code; /* errno, MDB_*, SQLITE_* ... of the library below, 0 if none */
    char text[768];  /* UTF-8, NUL-terminated, one line */
} base_error;

/* Short stable name of a code ("corrupt") and its general text; never NULL. */
const char *base_status_name(base_status status);
const char *base_status_text(base_status status);

/* Record a failure and return its code, so that `return base_fail(err, BASE_INVALID, "...")` reads
 * well. err may be NULL. The text is cut at the size of base_error.text. */
base_status base_fail(base_error *err, base_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* The same from errno: chooses the code (ENOSPC, EACCES, ENOENT, ENOMEM ...) and appends strerror.
 * */
base_status base_fail_errno(base_error *err, int system_errno, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Put context in front of the text that is there. Returns err->code (BASE_OK if err is NULL). */
base_status base_error_prefix(base_error *err, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Assertions are for programmer errors. BASE_ASSERT stays on in release; _HOT only in debug builds.
 * */
_Noreturn void base_assert_failed(const char *expression, const char *file, int line);
#define BASE_ASSERT(x) ((x) ? (void)0 : base_assert_failed(#x, __FILE__, __LINE__))
#ifdef NDEBUG
#define BASE_ASSERT_HOT(x) ((void)0)
#else
#define BASE_ASSERT_HOT(x) BASE_ASSERT(x)
#endif

#endif
