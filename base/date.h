/* base/date.h: points in time as int64 microseconds since 1970-01-01T00:00:00Z (proleptic
 * Gregorian, no leap seconds), RFC 3339 text, and the years, dates and intervals that a text speaks
 * of.
 */
#ifndef BASE_DATE_H
#define BASE_DATE_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

#define BASE_TIME_NONE INT64_MIN /* "not given" */
#define BASE_TIME_MAX INT64_MAX  /* "for ever" */
#define BASE_DAY_US INT64_C(86400000000)

/* RFC 3339 ("2024-05-01T10:00:00Z", with offset or fraction) or a plain date ("2024-05-01", also
 * "2024-05", "2024" = the first moment of it). BASE_INVALID for anything else and for impossible
 * dates (month 13, 30 February). */
base_status base_time_parse(const char *text, size_t length, int64_t *time_us, base_error *err);

/* "2024-05-01T10:00:00Z" (fraction only when not 0). BASE_TIME_NONE and BASE_TIME_MAX give "". */
#define BASE_TIME_TEXT_MAX 40
void base_time_format(int64_t time_us, char out[BASE_TIME_TEXT_MAX]);
void base_time_format_date(int64_t time_us, char out[BASE_TIME_TEXT_MAX]); /* "2024-05-01" */

/* midnight UTC; month 1..12, day 1..31 */
int64_t base_time_from_civil(int year, int month, int day);
/* The civil date of a time in UTC; returns the microseconds into that day. */
int64_t base_time_to_civil(int64_t time_us, int *year, int *month, int *day);
int base_time_year(int64_t time_us);
int base_days_in_month(int year, int month); /* month 1..12 */

/* The wall clock. Only cli/ calls it; everything below gets times passed in. */
int64_t base_time_now(void);

/* A stretch of time that a text mentions: [from_us, to_us). */
typedef struct base_interval {
    int64_t from_us, to_us;
} base_interval;

/* Find years (1000-2199), dates ("March 5, 2021", "5 March 2021", "2021-03-05", "03/2021"), decades
 * ("1970s", "early 1970s"), and ranges ("1811 to 1827", "1999-2004", "between 1990 and 1995", "from
 * ... until ...", "before Mar 1811", "after 2004", "since 2010") in UTF-8 text. Open ends are +-40
 * years. Writes at most max, returns how many. No list of names or relations of any data set: only
 * calendar words. */
size_t base_date_intervals(const char *text, size_t length, base_interval *out, size_t max);

/* The years (1000-2199) that a text names in figures, each once, in order: 1811 and 1827 in "from
 * 1811 to 1827". Writes at most max, returns how many. */
size_t base_date_years(const char *text, size_t length, int *out, size_t max);

#endif
