/* base/status.c: names and texts of the result codes, error text, assertions. */
#include "base/status.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const names[] = {
#define NAME(code, name, text) name,
    BASE_STATUS_MAP(NAME)
#undef NAME
};

static const char *const texts[] = {
#define TEXT(code, name, text) text,
    BASE_STATUS_MAP(TEXT)
#undef TEXT
};

const char *base_status_name(base_status status)
{
    return (unsigned)status < BASE_STATUS_COUNT ? names[status] : "unknown";
}

const char *base_status_text(base_status status)
{
    return (unsigned)status < BASE_STATUS_COUNT ? texts[status] : "unknown error";
}

base_status base_fail(base_error *err, base_status status, const char *format, ...)
{
    if (err) {
        va_list args;
        va_start(args, format);
        err->code = status;
        err->system_code = 0;
        vsnprintf(err->text, sizeof err->text, format, args);
        va_end(args);
    }
    return status;
}

static base_status status_of_errno(int system_errno)
{
    switch (system_errno) {
    case ENOSPC:
    case EDQUOT:
        return BASE_DISK_FULL;
    case EACCES:
    case EPERM:
    case EROFS:
        return BASE_PERMISSION;
    case ENOENT:
    case ENOTDIR:
        return BASE_NOT_FOUND;
    case EEXIST:
        return BASE_EXISTS;
    case ENOMEM:
        return BASE_NO_MEMORY;
    case EINVAL:
        return BASE_INVALID;
    case EAGAIN:
    case EBUSY:
        return BASE_BUSY;
    default:
        return BASE_IO;
    }
}

base_status base_fail_errno(base_error *err, int system_errno, const char *format, ...)
{
    base_status status = status_of_errno(system_errno);
    if (err) {
        va_list args;
        va_start(args, format);
        err->code = status;
        err->system_code = system_errno;
        int used = vsnprintf(err->text, sizeof err->text, format, args);
        va_end(args);
        if (used >= 0 && (size_t)used < sizeof err->text) {
            snprintf(err->text + used, sizeof err->text - (size_t)used, ": %s",
                     strerror(system_errno));
        }
    }
    return status;
}

base_status base_error_prefix(base_error *err, const char *format, ...)
{
    if (!err) {
        return BASE_OK;
    }
    char old[sizeof err->text];
    memcpy(old, err->text, sizeof old);
    va_list args;
    va_start(args, format);
    int used = vsnprintf(err->text, sizeof err->text, format, args);
    va_end(args);
    if (used >= 0 && (size_t)used < sizeof err->text) {
        size_t room = sizeof err->text - (size_t)used;
        int kept = room > 3 ? (int)room - 3 : 0; /* ": " and NUL */
        snprintf(err->text + used, room, ": %.*s", kept, old);
    }
    return err->code;
}

_Noreturn void base_assert_failed(const char *expression, const char *file, int line)
{
    fprintf(stderr, "%s:%d: assertion failed: %s\n", file, line, expression);
    abort();
}
