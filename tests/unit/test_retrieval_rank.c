/* Ranking: the score is monotone in each part, strength scales it, and the time term rewards
 * agreement. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "retrieval/rank.h"

static const retrieval_weights *const W = &retrieval_weights_default;

static float term(const char *question, int64_t about_us, const char *text, int64_t valid_from_us,
                  int64_t valid_to_us, int64_t observed_at_us)
{
    retrieval_times q = {0}, e = {0};
    retrieval_times_add_text(&q, question, strlen(question));
    if (about_us != BASE_TIME_NONE) {
        retrieval_times_add(&q, about_us, about_us + 1);
    }
    retrieval_times_add_text(&e, text, strlen(text));
    retrieval_time_match match;
    retrieval_match_times(&q, &e, valid_from_us, valid_to_us, observed_at_us, &match);
    return retrieval_time_term(W, &match);
}

static float text_term(const char *question, const char *text)
{
    return term(question, BASE_TIME_NONE, text, BASE_TIME_NONE, BASE_TIME_NONE,
                base_time_from_civil(2021, 7, 10));
}

/* Goal: more of anything never lowers the score; strength scales, a negative sum counts as 0. */
static void test_retrieval_score_is_monotone(void **state)
{
    (void)state;
    float base = retrieval_score(W, 0.4f, 5, 0.2f, 0, -1);
    assert_true(retrieval_score(W, 0.5f, 5, 0.2f, 0, -1) > base);
    assert_true(retrieval_score(W, 0.4f, 9, 0.2f, 0, -1) > base);
    assert_true(retrieval_score(W, 0.4f, 5, 0.9f, 0, -1) > base);
    assert_float_equal(retrieval_score(W, 0.4f, 5, 0.2f, 0, 1), base, 1e-6);
    assert_true(retrieval_score(W, 0.4f, 5, 0.2f, 0, 0.1f) < base);
    assert_float_equal(retrieval_score(W, 0.4f, 5, 0.2f, 0, 0), 0, 0);
    assert_float_equal(retrieval_score(W, -0.9f, 0, 0, 0, 0.5f), 0, 0);
    assert_float_equal(retrieval_score(W, -0.9f, 0, 0, 0, -1), 0, 0);
}

static float number_share(const char *question, const char *text)
{
    retrieval_numbers numbers;
    unsigned found = 0;
    retrieval_numbers_find(&numbers, question, strlen(question));
    retrieval_numbers_match(&numbers, text, strlen(text), &found);
    return retrieval_numbers_share(&numbers, found);
}

/* Goal: a number counts whole or as the begin of one with more parts, never as part of another. */
static void test_retrieval_numbers_are_told_apart(void **state)
{
    (void)state;
    const char *line = "Which version of the 2.14 line is the newest?";
    assert_float_equal(number_share(line, "2.14.9 is out."), 1, 0);
    assert_float_equal(number_share(line, "The 2.14 line ends."), 1, 0);
    assert_float_equal(number_share(line, "2.140 and 2.1.4 are out, 12.14 too."), 0, 0);
    assert_float_equal(number_share("PEP 389", "PEP: 389"), 1, 0);
    assert_float_equal(number_share("PEP 389", "PEP 3890, 3.89, A389"), 1, 0); /* A389 */
    assert_float_equal(number_share("Flats 7 and 12", "Flat 12"), 0.5, 0);
    assert_float_equal(number_share("Who was mayor in 1994?", "1994"), 0, 0); /* a time */
    assert_float_equal(number_share("Who is mayor?", "7"), 0, 0);
    assert_float_equal(number_share("1 2 3 4 5 6 7 8 9 10", "1 2 3 4 5 6 7 8"), 1, 0);
    float base = retrieval_score(W, 0.4f, 5, 0.2f, 0, -1);
    assert_true(retrieval_score(W, 0.4f, 5, 0.2f, 0.5f, -1) > base);
}

/* Goal: without a time in the question the term is 0; it stays within 0..1. */
static void test_retrieval_time_term_is_bounded_and_silent_without_times(void **state)
{
    (void)state;
    assert_float_equal(text_term("Who owned the house?", "He owned it in 1811."), 0, 0);
    float full = text_term("Who owned it from 1811 to 1827?", "Peter owned it from 1811 to 1827.");
    assert_true(full > 0.8f && full <= 1.0f);
    assert_float_equal(text_term("Who owned it in 1811?", "No time is named."), 0, 0);
}

/* Goal: the closer the times, the higher the term. Method: the same question against texts farther
 * and farther off. */
static void test_retrieval_time_term_falls_with_distance(void **state)
{
    (void)state;
    const char *question = "Who owned it from 1811 to 1827?";
    float both = text_term(question, "Peter owned it from 1811 to 1827.");
    float one = text_term(question, "Peter bought it in 1811.");
    float inside = text_term(question, "Peter lived there in 1820.");
    float near = text_term(question, "Peter sold it in 1829.");
    float far = text_term(question, "Jacqueline bought it in 1964.");
    assert_true(both > one && one > inside && inside > near && near > far);
    assert_float_equal(far, 0, 0);
}

/* Goal: --about counts against the text, validity and observed_at. Method: one time, three kinds of
 * evidence. */
static void test_retrieval_time_term_knows_validity_and_observation(void **state)
{
    (void)state;
    int64_t about = base_time_from_civil(2015, 6, 1);
    int64_t y2010 = base_time_from_civil(2010, 1, 1), y2020 = base_time_from_civil(2020, 1, 1);
    float none = term("Who?", about, "Text.", BASE_TIME_NONE, BASE_TIME_NONE, y2020);
    assert_float_equal(none, 0, 0);
    assert_true(term("Who?", about, "Text.", y2010, y2020, y2020) > 0);
    assert_true(term("Who?", about, "Text.", y2010, BASE_TIME_NONE, y2020) > 0);
    assert_float_equal(term("Who?", about, "Text.", y2020, BASE_TIME_NONE, y2020), 0, 0);
    assert_true(term("Who?", about, "From 2010 to 2020.", BASE_TIME_NONE, BASE_TIME_NONE, y2020) >
                0);
    assert_true(term("In 2015?", BASE_TIME_NONE, "Text.", BASE_TIME_NONE, BASE_TIME_NONE, about) >
                0);
}

/* Goal: open ends at the limits of int64 do not overflow (checked by the undefined-behaviour
 * sanitizer). */
static void test_retrieval_times_survive_the_ends_of_time(void **state)
{
    (void)state;
    retrieval_times q = {0}, e = {0};
    retrieval_times_add(&q, BASE_TIME_NONE, BASE_TIME_MAX);
    retrieval_times_add(&e, BASE_TIME_NONE, 5);
    retrieval_times_add(&e, 5, BASE_TIME_MAX);
    retrieval_times_add(&e, 7, 7); /* empty: left out */
    assert_int_equal(e.interval_count, 2);
    retrieval_time_match match;
    retrieval_match_times(&q, &e, BASE_TIME_NONE, BASE_TIME_NONE, 0, &match);
    assert_float_equal(match.inside, 1, 0);
    for (int i = 0; i < 40; i++) {
        retrieval_times_add(&e, i, i + 1);
    }
    assert_int_equal(e.interval_count, RETRIEVAL_TIMES_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_retrieval_score_is_monotone),
        cmocka_unit_test(test_retrieval_numbers_are_told_apart),
        cmocka_unit_test(test_retrieval_time_term_is_bounded_and_silent_without_times),
        cmocka_unit_test(test_retrieval_time_term_falls_with_distance),
        cmocka_unit_test(test_retrieval_time_term_knows_validity_and_observation),
        cmocka_unit_test(test_retrieval_times_survive_the_ends_of_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
