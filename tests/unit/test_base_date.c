/* Times: RFC 3339 both ways, the civil calendar, and the stretches of time that a text names. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/date.h"
#include "base/rng.h"

static int64_t parse(const char *text)
{
    int64_t t = -1;
    base_error err = {0};
    if (base_time_parse(text, strlen(text), &t, &err) != BASE_OK) {
        fail_msg("%s: %s", text, err.text);
    }
    return t;
}

/* Goal: known instants. Method: values computed by `date -u -d ... +%s`. */
static void test_base_time_parse_reads_known_instants(void **state)
{
    (void)state;
    assert_int_equal(parse("1970-01-01"), 0);
    assert_int_equal(parse("2000-02-29T12:00:00Z"), INT64_C(951825600) * 1000000);
    assert_int_equal(parse("2024-05-01T10:00:00Z"), INT64_C(1714557600) * 1000000);
    assert_int_equal(parse("2024-05-01T10:00:00+02:00"), INT64_C(1714550400) * 1000000);
    assert_int_equal(parse("2024-05-01t10:00:00.25z"), INT64_C(1714557600250000));
    assert_int_equal(parse("1969-12-31T23:59:59.999999Z"), -1);
    assert_int_equal(parse("2024-05"), parse("2024-05-01"));
    assert_int_equal(parse("2024"), parse("2024-01-01"));
    assert_int_equal(parse("1811-01-01"), INT64_C(-5017593600) * 1000000);
    assert_int_equal(parse("2016-12-31T23:59:60Z"), parse("2017-01-01"));
}

/* Goal: anything else is refused with a text. Method: impossible dates, missing parts, trailing
 * bytes. */
static void test_base_time_parse_refuses_impossible_and_malformed(void **state)
{
    (void)state;
    static const char *const bad[] = {"",
                                      "2024-13-01",
                                      "2024-02-30",
                                      "2023-02-29",
                                      "1900-02-29",
                                      "2024-00-10",
                                      "2024-01-00",
                                      "24-01-01",
                                      "2024/01/01",
                                      "2024-1-1",
                                      "2024-01-01T",
                                      "2024-01-01T10:00Z",
                                      "2024-01-01T24:00:00Z",
                                      "2024-01-01T10:60:00Z",
                                      "2024-01-01T10:00:61Z",
                                      "2024-01-01T10:00:60Z",
                                      "2024-01-01T10:00:00",
                                      "2024-01-01T10:00:00+2:00",
                                      "2024-01-01T10:00:00.Z",
                                      "2024-01-01 ",
                                      "2024-01-01T10:00:00ZZ",
                                      "tomorrow",
                                      "-2024-01-01",
                                      "20240101"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        int64_t t = 42;
        base_error err = {0};
        assert_int_equal(base_time_parse(bad[i], strlen(bad[i]), &t, &err), BASE_INVALID);
        assert_int_equal(t, 42);
        assert_true(err.text[0] != '\0');
    }
}

/* Goal: format and parse are inverse. Method: 20,000 drawn instants of the years 1 to 9999, seed 7.
 */
static void test_base_time_format_round_trips(void **state)
{
    (void)state;
    base_rng rng;
    base_rng_seed(&rng, 7);
    int64_t first = parse("0001-01-01"), last = parse("9999-12-31");
    for (int i = 0; i < 20000; i++) {
        int64_t t = first + (int64_t)base_rng_below(&rng, (uint64_t)(last - first));
        char text[BASE_TIME_TEXT_MAX];
        base_time_format(t, text);
        assert_int_equal(parse(text), t);
        char day[BASE_TIME_TEXT_MAX];
        base_time_format_date(t, day);
        assert_int_equal(strncmp(day, text, 10), 0);
        int y, m, d;
        int64_t rest = base_time_to_civil(t, &y, &m, &d);
        assert_int_equal(base_time_from_civil(y, m, d) + rest, t);
        assert_int_equal(base_time_year(t), y);
        assert_true(d >= 1 && d <= base_days_in_month(y, m));
    }
    char text[BASE_TIME_TEXT_MAX] = "x";
    base_time_format(BASE_TIME_NONE, text);
    assert_string_equal(text, "");
    base_time_format(BASE_TIME_MAX, text);
    assert_string_equal(text, "");
    base_time_format(parse("2024-05-01T10:00:00Z"), text);
    assert_string_equal(text, "2024-05-01T10:00:00Z");
    base_time_format(INT64_MAX - 1, text);
    assert_true(strlen(text) < BASE_TIME_TEXT_MAX);
    base_time_format(INT64_MIN + 1, text);
    assert_true(strlen(text) < BASE_TIME_TEXT_MAX);
}

/* One text and the intervals expected in it, as "from/to from/to". */
static void expect(const char *text, const char *wanted)
{
    base_interval found[8];
    size_t n = base_date_intervals(text, strlen(text), found, 8);
    char got[512] = "";
    for (size_t i = 0; i < n; i++) {
        char a[BASE_TIME_TEXT_MAX], b[BASE_TIME_TEXT_MAX];
        base_time_format_date(found[i].from_us, a);
        base_time_format_date(found[i].to_us, b);
        size_t used = strlen(got);
        snprintf(got + used, sizeof got - used, "%s%s/%s", i ? " " : "", a, b);
    }
    if (strcmp(got, wanted) != 0) {
        fail_msg("\"%s\": got \"%s\", wanted \"%s\"", text, got, wanted);
    }
}

/* Goal: every form named in date.h is read. Method: one sentence each, ends exclusive. */
static void test_base_date_intervals_reads_each_form(void **state)
{
    (void)state;
    expect("He was mayor in 1999.", "1999-01-01/2000-01-01");
    expect("on March 5, 2021", "2021-03-05/2021-03-06");
    expect("on 5 March 2021", "2021-03-05/2021-03-06");
    expect("the 5th of March, 2021", "2021-03-05/2021-03-06");
    expect("2021-03-05T10:00:00Z", "2021-03-05/2021-03-06");
    expect("due 03/2021", "2021-03-01/2021-04-01");
    expect("25/12/2020 and 12/25/2020", "2020-12-25/2020-12-26");
    expect("05/03/2021", "2021-01-01/2022-01-01");
    expect("Sept. 2014", "2014-09-01/2014-10-01");
    expect("in the 1970s", "1970-01-01/1980-01-01");
    expect("in the 1970's", "1970-01-01/1980-01-01");
    expect("in early 1970s", "1970-01-01/1973-12-31");
    expect("in the late 18th century", "1760-01-01/1800-01-01");
    expect("from 1811 to 1827", "1811-01-01/1828-01-01");
    expect("1999-2004", "1999-01-01/2005-01-01");
    expect("(1752–1825)", "1752-01-01/1826-01-01");
    expect("the 2003–04 season", "2003-01-01/2005-01-01");
    expect("the 2003-04 season", "2003-01-01/2005-01-01");
    expect("the 1999/00 season", "1999-01-01/2001-01-01");
    expect("1998-11", "1998-11-01/1998-12-01");
    expect("between 1990 and 1995", "1990-01-01/1996-01-01");
    expect("from May 1990 until June 1995", "1990-05-01/1995-07-01");
    expect("from March to June 2021", "2021-03-01/2021-07-01");
    expect("November 5 – January 3, 2021", "2020-11-05/2021-01-04");
    expect("5-7 March 2021", "2021-03-05/2021-03-08");
    expect("1990 to present", "1990-01-01/2030-01-01");
}

/* Goal: open ends reach forty years. Method: each lead word. */
static void test_base_date_intervals_open_ends_reach_forty_years(void **state)
{
    (void)state;
    expect("before Mar 1811", "1771-03-01/1811-03-01");
    expect("prior to the year 1811", "1771-01-01/1811-01-01");
    expect("after 2004", "2005-01-01/2045-01-01");
    expect("since 2010", "2010-01-01/2050-01-01");
    expect("until 29 February 2004", "1964-03-01/2004-03-01");
    expect("from 2010 on", "2010-01-01/2050-01-01");
}

/* Goal: numbers that are no dates stay out. Method: prices, versions, ids, decimals, impossible
 * days. */
static void test_base_date_intervals_leaves_other_numbers_alone(void **state)
{
    (void)state;
    expect("It cost $1999 or 1,999 or 1999.5 or 12.1999.", "");
    expect("v2010 x1999 1999x #1999 20211 199 2500 50%", "");
    expect("You may go 5 times; March on.", "");
    expect("Version 17.0.12 was released.", "");
    expect("on February 30, 2021", "2021-01-01/2022-01-01");
    expect("", "");
}

/* Goal: repeated times count once, max is kept, several are found in order. */
static void test_base_date_intervals_are_distinct_and_bounded(void **state)
{
    (void)state;
    expect("1990, 1991, 1990 and 1992",
           "1990-01-01/1991-01-01 1991-01-01/1992-01-01 1992-01-01/1993-01-01");
    base_interval two[2];
    const char *text = "1990 1991 1992 1993";
    assert_int_equal(base_date_intervals(text, strlen(text), two, 2), 2);
    assert_int_equal(base_date_intervals(text, strlen(text), two, 0), 0);
}

/* Goal: years in figures are listed once, in order, other numbers are not. */
static void test_base_date_years_lists_the_years_named(void **state)
{
    (void)state;
    const char *text = "From 1811 to 1827, in the 1970s, again 1811; $1999, 17.0.12, #2001.";
    int years[8];
    assert_int_equal(base_date_years(text, strlen(text), years, 8), 3);
    assert_int_equal(years[0], 1811);
    assert_int_equal(years[1], 1827);
    assert_int_equal(years[2], 1970);
    assert_int_equal(base_date_years(text, strlen(text), years, 1), 1);
}

/* Goal: any bytes are safe and give ordered intervals. Method: 20,000 drawn strings of calendar
 * scraps, seed 11. */
static void test_base_date_intervals_survives_arbitrary_bytes(void **state)
{
    (void)state;
    static const char *const scraps[] = {"1999", "-", "–",    "March", " ",    "5",       "/",
                                         "2021", ",", "th",   "early", "from", "to",      "between",
                                         "and",  "s", "\xE2", "\xFF",  "31",   "century", "."};
    base_rng rng;
    base_rng_seed(&rng, 11);
    for (int i = 0; i < 20000; i++) {
        char text[256];
        size_t used = 0;
        size_t parts = (size_t)base_rng_below(&rng, 16);
        for (size_t p = 0; p < parts; p++) {
            const char *s = scraps[base_rng_below(&rng, sizeof scraps / sizeof scraps[0])];
            size_t n = strlen(s);
            memcpy(text + used, s, n);
            used += n;
            if (base_rng_below(&rng, 2)) {
                text[used++] = ' ';
            }
        }
        base_interval found[4];
        size_t n = base_date_intervals(text, used, found, 4);
        assert_true(n <= 4);
        for (size_t k = 0; k < n; k++) {
            assert_true(found[k].from_us < found[k].to_us);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_base_time_parse_reads_known_instants),
        cmocka_unit_test(test_base_time_parse_refuses_impossible_and_malformed),
        cmocka_unit_test(test_base_time_format_round_trips),
        cmocka_unit_test(test_base_date_intervals_reads_each_form),
        cmocka_unit_test(test_base_date_intervals_open_ends_reach_forty_years),
        cmocka_unit_test(test_base_date_intervals_leaves_other_numbers_alone),
        cmocka_unit_test(test_base_date_intervals_are_distinct_and_bounded),
        cmocka_unit_test(test_base_date_years_lists_the_years_named),
        cmocka_unit_test(test_base_date_intervals_survives_arbitrary_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
