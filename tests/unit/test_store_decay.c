/* The strength formula (semantics, strength): values computed by hand. */
#include <math.h>

#include "store_testing.h"

#define WEEK (7 * DAY)
#define WEEK_S (7.0 * 86400.0)

static store_brief fact(void)
{
    store_brief brief = {.id = 1,
                         .observed_at_us = 100 * DAY,
                         .valid_from_us = BASE_TIME_NONE,
                         .valid_to_us = BASE_TIME_NONE,
                         .superseded_at_us = BASE_TIME_MAX,
                         .last_use_us = BASE_TIME_NONE,
                         .half_life_s = WEEK_S};
    return brief;
}

static void assert_strength(const store_brief *brief, int64_t as_of_us, double expected)
{
    double got = store_strength(brief, as_of_us);
    if (!(fabs(got - expected) <= 1e-12)) {
        fail_msg("strength %.15g, expected %.15g", got, expected);
    }
}

/* Goal: half after one half-life, a floor of 0.25 from the second on. */
static void test_store_strength_halves_down_to_the_floor(void **state)
{
    (void)state;
    store_brief b = fact();
    assert_strength(&b, 100 * DAY, 1.0);
    assert_strength(&b, 100 * DAY + WEEK, 0.5);
    assert_strength(&b, 100 * DAY + WEEK / 2, sqrt(0.5));
    assert_strength(&b, 100 * DAY + 2 * WEEK, 0.25);
    assert_strength(&b, 100 * DAY + 50 * WEEK, STORE_STRENGTH_FLOOR);
}

/* Goal: not known yet is 0; outside the interval of validity is 0, which is half open. */
static void test_store_strength_is_zero_outside_its_time(void **state)
{
    (void)state;
    store_brief b = fact();
    assert_strength(&b, 100 * DAY - 1, 0.0);
    b.valid_from_us = 110 * DAY;
    b.valid_to_us = 120 * DAY;
    b.half_life_s = INFINITY;
    assert_strength(&b, 110 * DAY - 1, 0.0);
    assert_strength(&b, 110 * DAY, 1.0);
    assert_strength(&b, 120 * DAY - 1, 1.0);
    assert_strength(&b, 120 * DAY, 0.0);
    store_brief none = {0};
    assert_strength(&none, 100 * DAY, 0.0);
}

/* Goal: superseded is a tenth without a floor, from its moment on and not before. */
static void test_store_strength_of_superseded_has_no_floor(void **state)
{
    (void)state;
    store_brief b = fact();
    b.superseded_at_us = 100 * DAY + WEEK;
    assert_strength(&b, 100 * DAY + WEEK - WEEK / 2, sqrt(0.5));
    assert_strength(&b, 100 * DAY + WEEK, 0.05);
    assert_strength(&b, 100 * DAY + 11 * WEEK, 0.1 * exp2(-11.0));
    b.half_life_s = INFINITY;
    assert_strength(&b, 100 * DAY + 11 * WEEK, 0.1);
}

/* Goal: a use refreshes from its moment on; a later use does not count for an earlier as-of. */
static void test_store_strength_refreshes_by_use(void **state)
{
    (void)state;
    store_brief b = fact();
    b.last_use_us = 100 * DAY + 3 * WEEK;
    assert_strength(&b, 100 * DAY + 3 * WEEK, 1.0);
    assert_strength(&b, 100 * DAY + 4 * WEEK, 0.5);
    assert_strength(&b, 100 * DAY + WEEK, 0.5);
    b.last_use_us = 50 * DAY; /* before it was observed: no matter */
    assert_strength(&b, 100 * DAY + WEEK, 0.5);
}

/* Goal: an infinite half-life never fades, at any distance and at the end of time. */
static void test_store_strength_without_measured_change_stays(void **state)
{
    (void)state;
    store_brief b = fact();
    b.half_life_s = INFINITY;
    assert_strength(&b, 100 * DAY, 1.0);
    assert_strength(&b, 1000000 * DAY, 1.0);
    assert_strength(&b, BASE_TIME_MAX, 1.0);
    b.half_life_s = 1e-6;
    assert_strength(&b, BASE_TIME_MAX, STORE_STRENGTH_FLOOR);
    b.observed_at_us = INT64_MIN + 1;
    assert_strength(&b, INT64_MAX - 1, STORE_STRENGTH_FLOOR);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_store_strength_halves_down_to_the_floor),
        cmocka_unit_test(test_store_strength_is_zero_outside_its_time),
        cmocka_unit_test(test_store_strength_of_superseded_has_no_floor),
        cmocka_unit_test(test_store_strength_refreshes_by_use),
        cmocka_unit_test(test_store_strength_without_measured_change_stays),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
