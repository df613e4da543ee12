/* base/date.c: civil dates and RFC 3339 text. The dates that running text speaks of are read by
 * base/date_text.c.
 *
 * Days are counted by the usual shift of the year's start to March (Hinnant, "chrono-compatible
 * low-level date algorithms", 2013: days_from_civil and civil_from_days).
 */
#include "base/date.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define SECOND_US INT64_C(1000000)

/* --- civil dates ----------------------------------------------------------------------------- */

static int64_t days_from_civil(int64_t year, int month, int day)
{
    year -= month <= 2;
    int64_t era = (year >= 0 ? year : year - 399) / 400;
    int64_t year_of_era = year - era * 400;
    int64_t day_of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    int64_t day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    return era * 146097 + day_of_era - 719468;
}

static void civil_from_days(int64_t days, int64_t *year, int *month, int *day)
{
    days += 719468;
    int64_t era = (days >= 0 ? days : days - 146096) / 146097;
    int64_t day_of_era = days - era * 146097;
    int64_t year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    int64_t day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    int64_t shifted = (5 * day_of_year + 2) / 153;
    *day = (int)(day_of_year - (153 * shifted + 2) / 5 + 1);
    *month = (int)(shifted < 10 ? shifted + 3 : shifted - 9);
    *year = year_of_era + era * 400 + (*month <= 2);
}

static bool is_leap(int year)
{
    return (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
}

int base_days_in_month(int year, int month)
{
    static const int days[12] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    return month == 2 && is_leap(year) ? 29 : days[month - 1];
}

int64_t base_time_from_civil(int year, int month, int day)
{
    return days_from_civil(year, month, day) * BASE_DAY_US;
}

/* Days since 1970 and the microseconds into that day, both for times before 1970 as well. */
static int64_t split_days(int64_t time_us, int64_t *rest_us)
{
    int64_t days = time_us / BASE_DAY_US;
    int64_t rest = time_us % BASE_DAY_US;
    if (rest < 0) {
        rest += BASE_DAY_US;
        days--;
    }
    *rest_us = rest;
    return days;
}

int64_t base_time_to_civil(int64_t time_us, int *year, int *month, int *day)
{
    int64_t rest_us, wide_year;
    civil_from_days(split_days(time_us, &rest_us), &wide_year, month, day);
    *year = (int)wide_year;
    return rest_us;
}

int base_time_year(int64_t time_us)
{
    int year, month, day;
    base_time_to_civil(time_us, &year, &month, &day);
    return year;
}

int64_t base_time_now(void)
{
    struct timespec now;
    if (clock_gettime(CLOCK_REALTIME, &now) != 0) {
        return 0;
    }
    return (int64_t)now.tv_sec * SECOND_US + now.tv_nsec / 1000;
}

/* --- RFC 3339 -------------------------------------------------------------------------------- */

/* count digits at text[*at]; false when there are fewer. */
static bool take_digits(const char *text, size_t length, size_t *at, size_t count, int *value)
{
    if (count > length - *at) {
        return false;
    }
    int v = 0;
    for (size_t i = 0; i < count; i++) {
        char c = text[*at + i];
        if (c < '0' || c > '9') {
            return false;
        }
        v = v * 10 + (c - '0');
    }
    *at += count;
    *value = v;
    return true;
}

static bool take_char(const char *text, size_t length, size_t *at, char c)
{
    if (*at < length && text[*at] == c) {
        (*at)++;
        return true;
    }
    return false;
}

/* What follows 'T': hh:mm:ss[.fraction](Z|+hh:mm|-hh:mm). *out gets microseconds relative to
 * midnight UTC of the date before it. */
static bool take_clock_time(const char *text, size_t length, size_t *at, int64_t *out_us)
{
    int hour, minute, second;
    if (!take_digits(text, length, at, 2, &hour) || !take_char(text, length, at, ':') ||
        !take_digits(text, length, at, 2, &minute) || !take_char(text, length, at, ':') ||
        !take_digits(text, length, at, 2, &second)) {
        return false;
    }
    if (hour > 23 || minute > 59 || second > 60) {
        return false;
    }
    int64_t fraction_us = 0;
    if (take_char(text, length, at, '.')) {
        int64_t unit = 100000;
        size_t first = *at;
        while (*at < length && text[*at] >= '0' && text[*at] <= '9') {
            fraction_us += unit * (text[*at] - '0'); /* digits below the microsecond add nothing */
            unit /= 10;
            (*at)++;
        }
        if (*at == first) {
            return false;
        }
    }
    int offset_minutes = 0;
    if (!take_char(text, length, at, 'Z') && !take_char(text, length, at, 'z')) {
        int sign = take_char(text, length, at, '+') ? 1 : take_char(text, length, at, '-') ? -1 : 0;
        int h, m;
        if (sign == 0 || !take_digits(text, length, at, 2, &h) ||
            !take_char(text, length, at, ':') || !take_digits(text, length, at, 2, &m) || h > 23 ||
            m > 59) {
            return false;
        }
        offset_minutes = sign * (h * 60 + m);
    }
    int64_t minutes = hour * 60 + minute - offset_minutes;
    if (second == 60 && ((minutes % 1440) + 1440) % 1440 != 1439) {
        return false; /* a leap second stands only at 23:59:60 UTC; it counts as the next second */
    }
    *out_us = minutes * 60 * SECOND_US + second * SECOND_US + fraction_us;
    return true;
}

base_status base_time_parse(const char *text, size_t length, int64_t *time_us, base_error *err)
{
    size_t at = 0;
    int shown = length < 60 ? (int)length : 60;
    int year, month = 1, day = 1;
    int64_t clock_us = 0;
    if (!take_digits(text, length, &at, 4, &year)) {
        goto malformed;
    }
    if (at < length) {
        if (!take_char(text, length, &at, '-') || !take_digits(text, length, &at, 2, &month)) {
            goto malformed;
        }
        if (at < length) {
            if (!take_char(text, length, &at, '-') || !take_digits(text, length, &at, 2, &day)) {
                goto malformed;
            }
        }
    }
    if (month < 1 || month > 12 || day < 1 || day > base_days_in_month(year, month)) {
        return base_fail(err, BASE_INVALID, "impossible date \"%.*s\"", shown, text);
    }
    if (at < length) {
        /* RFC 3339 §5.6 allows a lower-case t, and a space for readability. */
        if (at != 10 || !(take_char(text, length, &at, 'T') || take_char(text, length, &at, 't') ||
                          take_char(text, length, &at, ' '))) {
            goto malformed;
        }
        if (!take_clock_time(text, length, &at, &clock_us) || at != length) {
            return base_fail(err, BASE_INVALID,
                             "impossible or incomplete time of day in \"%.*s\" (wanted "
                             "hh:mm:ss with Z or an offset such as +02:00)",
                             shown, text);
        }
    }
    *time_us = base_time_from_civil(year, month, day) + clock_us;
    return BASE_OK;
malformed:
    return base_fail(err, BASE_INVALID,
                     "\"%.*s\" is not a time (wanted 2024-05-01 or 2024-05-01T10:00:00Z)", shown,
                     text);
}

void base_time_format_date(int64_t time_us, char out[BASE_TIME_TEXT_MAX])
{
    if (time_us == BASE_TIME_NONE || time_us == BASE_TIME_MAX) {
        out[0] = '\0';
        return;
    }
    int year, month, day;
    base_time_to_civil(time_us, &year, &month, &day);
    snprintf(out, BASE_TIME_TEXT_MAX, "%04d-%02d-%02d", year, month, day);
}

void base_time_format(int64_t time_us, char out[BASE_TIME_TEXT_MAX])
{
    base_time_format_date(time_us, out);
    if (out[0] == '\0') {
        return;
    }
    int64_t rest;
    split_days(time_us, &rest);
    int64_t seconds = rest / SECOND_US;
    size_t used = strlen(out);
    int n = snprintf(out + used, BASE_TIME_TEXT_MAX - used, "T%02d:%02d:%02d",
                     (int)(seconds / 3600), (int)(seconds / 60 % 60), (int)(seconds % 60));
    used += (size_t)n;
    if (rest % SECOND_US != 0) {
        n = snprintf(out + used, BASE_TIME_TEXT_MAX - used, ".%06d", (int)(rest % SECOND_US));
        used += (size_t)n;
    }
    snprintf(out + used, BASE_TIME_TEXT_MAX - used, "Z");
}
