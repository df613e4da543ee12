/* The log: levels and lines reach the sink, whole and one at a time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>
#include <pthread.h>

#include "base/log.h"

typedef struct record {
    char text[2048];
    base_log_level level;
    int lines, bad;
} record;

static void keep(void *argument, base_log_level level, const char *text)
{
    record *r = argument;
    snprintf(r->text, sizeof r->text, "%s", text);
    r->level = level;
    r->lines++;
    /* A line of the threads below consists of one letter. */
    for (const char *p = text; *p; p++) {
        r->bad += *p != text[0];
    }
}

/* Goal: formatted, with its level, line ends turned into blanks; nothing without a sink. */
static void test_base_log_gives_lines_to_the_sink(void **state)
{
    (void)state;
    record r = {0};
    base_log(BASE_LOG_ERROR, "nobody listens");
    base_log_set(keep, &r);
    base_log(BASE_LOG_WARN, "%s has\n%d", "it", 3);
    assert_string_equal(r.text, "it has 3");
    assert_int_equal(r.level, BASE_LOG_WARN);
    base_log_set(NULL, NULL);
    base_log(BASE_LOG_ERROR, "nobody listens");
    assert_int_equal(r.lines, 1);
}

/* Goal: a line that is too long is cut, not overrun. */
static void test_base_log_cuts_long_lines(void **state)
{
    (void)state;
    record r = {0};
    char text[5000];
    memset(text, 'a', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    base_log_set(keep, &r);
    base_log(BASE_LOG_INFO, "%s", text);
    base_log_set(NULL, NULL);
    assert_in_range(strlen(r.text), 500, 2000);
    assert_int_equal(r.bad, 0);
}

static void *chatter(void *argument)
{
    const char *letter = argument;
    char text[600];
    memset(text, letter[0], sizeof text - 1);
    text[sizeof text - 1] = '\0';
    for (int i = 0; i < 500; i++) {
        base_log(BASE_LOG_DEBUG, "%s", text);
    }
    return NULL;
}

/* Goal: lines of several threads do not mix. */
static void test_base_log_keeps_threads_apart(void **state)
{
    (void)state;
    static char letters[4][2] = {"a", "b", "c", "d"};
    record r = {0};
    pthread_t threads[4];
    base_log_set(keep, &r);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, chatter, letters[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
    }
    base_log_set(NULL, NULL);
    assert_int_equal(r.lines, 2000);
    assert_int_equal(r.bad, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_base_log_gives_lines_to_the_sink),
        cmocka_unit_test(test_base_log_cuts_long_lines),
        cmocka_unit_test(test_base_log_keeps_threads_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
