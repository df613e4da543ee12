/* UTF-8: every code point survives, every malformed form of RFC 3629 §3 is named at its byte, cuts
 * never split. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/text.h"

/* Goal: encode and decode are inverse. Method: all 1,112,064 scalar values. */
static void test_base_utf8_every_scalar_value_round_trips(void **state)
{
    (void)state;
    for (uint32_t c = 0; c <= 0x10FFFF; c++) {
        if (c >= 0xD800 && c <= 0xDFFF) {
            continue;
        }
        char bytes[4];
        size_t n = base_utf8_encode(c, bytes);
        uint32_t back;
        assert_int_equal(base_utf8_decode(bytes, n, &back), n);
        assert_int_equal(back, c);
        assert_int_equal(base_utf8_check(bytes, n), n);
        if (n > 1) {
            assert_int_equal(base_utf8_decode(bytes, n - 1, &back), 1);
            assert_int_equal(back, 0xFFFFFFFF);
        }
    }
}

/* Goal: malformed input is found at its offset. Method: one example of each forbidden form behind
 * two good bytes. */
static void test_base_utf8_check_names_the_first_bad_byte(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "ab\x80",             /* lone continuation */
        "ab\xC0\xAF",         /* overlong "/" */
        "ab\xC1\xBF",         /* overlong */
        "ab\xE0\x80\xAF",     /* overlong, three bytes */
        "ab\xED\xA0\x80",     /* surrogate */
        "ab\xF0\x80\x80\xAF", /* overlong, four bytes */
        "ab\xF4\x90\x80\x80", /* above U+10FFFF */
        "ab\xF5\x80\x80\x80", /* never a lead */
        "ab\xFF",             /* never */
        "ab\xE2\x82",         /* cut off */
        "ab\xC3(",            /* no continuation */
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(base_utf8_check(bad[i], strlen(bad[i])), 2);
    }
    const char *good = "naïve 日本 \xF0\x9F\x98\x80";
    assert_int_equal(base_utf8_check(good, strlen(good)), strlen(good));
    assert_int_equal(base_utf8_check("", 0), 0);
}

/* Goal: a cut never splits a code point and never passes the limit. Method: all limits of a mixed
 * text. */
static void test_base_utf8_cut_falls_between_code_points(void **state)
{
    (void)state;
    const char *text = "aé日\xF0\x9F\x98\x80z";
    size_t length = strlen(text);
    for (size_t limit = 0; limit <= length + 2; limit++) {
        size_t n = base_utf8_cut(text, length, limit);
        assert_true(n <= limit && n <= length);
        assert_int_equal(base_utf8_check(text, n), n);
        assert_int_equal(base_utf8_check(text + n, length - n), length - n);
        assert_true(limit - n <= 3 || n == length);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_base_utf8_every_scalar_value_round_trips),
        cmocka_unit_test(test_base_utf8_check_names_the_first_bad_byte),
        cmocka_unit_test(test_base_utf8_cut_falls_between_code_points),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
