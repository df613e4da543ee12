/* The rules of suite `events`: where they fire, by hand; and how often at a given rate. */
#include "folder_testing.h"

#include <math.h>

#include "base/rng.h"
#include "eval/detector.h"

enum { MANY = 1000 };

static void assert_fires(eval_rule rule, double h, const double *z, const char *expected)
{
    bool fired[16];
    size_t count = strlen(expected), events = 0;
    assert_true(count <= sizeof fired / sizeof *fired);
    size_t said = eval_detect(rule, h, z, count, fired);
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(fired[i], expected[i] == '!');
        events += fired[i];
    }
    assert_int_equal(said, events);
}

static void test_eval_detector_quantile_fires_from_the_threshold_on(void **state)
{
    (void)state;
    assert_fires(EVAL_RULE_QUANTILE, 0.5, (const double[]){0.2, -1, 1.5, 0.5}, "..!!");
}

/* g = 0.5, 1, 1.5, 0 (behind an event), 0 (not below), 0.5, 2. */
static void test_eval_detector_cusum_equals_hand_computed(void **state)
{
    (void)state;
    assert_fires(EVAL_RULE_CUSUM, 1.5, (const double[]){1, 1, 1, 0.5, -3, 1, 2}, "..!...!");
}

/* mean = -0.001, -0.001999, -0.000997, 0.000004, 0.001004, 0.002003, 0.003001, so
 * m - min m = 0, 0, 0.900997, 1.800993, then from 0 again 0.898996, 1.796993, 2.693992. */
static void test_eval_detector_page_hinkley_equals_hand_computed(void **state)
{
    (void)state;
    const double z[] = {-1, -1, 1, 1, 1, 1, 1};
    assert_fires(EVAL_RULE_PAGE_HINKLEY, 1.8005, z, "...!..!");
    assert_fires(EVAL_RULE_PAGE_HINKLEY, 1.8015, z, "....!..");
}

/* The quantile: exactly the highest 15 %. The other rules: as many, or a few less, as a lower
 * threshold may fire at several places more. */
static void test_eval_detector_meets_the_rate(void **state)
{
    static double z[MANY];
    static bool fired[MANY];
    base_rng rng;
    double least = 1, most = 0;
    (void)state;
    base_rng_seed(&rng, 7);
    for (size_t i = 0; i < MANY; i++) {
        z[i] = base_rng_unit(&rng);
    }
    assert_int_equal(eval_detect_at_rate(EVAL_RULE_QUANTILE, 0.15, z, MANY, fired), 150);
    for (size_t i = 0; i < MANY; i++) {
        least = fired[i] ? fmin(least, z[i]) : least;
        most = fired[i] ? most : fmax(most, z[i]);
    }
    assert_true(least > most);
    for (eval_rule rule = EVAL_RULE_CUSUM; rule < EVAL_RULE_COUNT; rule++) {
        size_t events = eval_detect_at_rate(rule, 0.15, z, MANY, fired);
        assert_in_range(events, 140, 150);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_eval_detector_quantile_fires_from_the_threshold_on),
        cmocka_unit_test(test_eval_detector_cusum_equals_hand_computed),
        cmocka_unit_test(test_eval_detector_page_hinkley_equals_hand_computed),
        cmocka_unit_test(test_eval_detector_meets_the_rate),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
