/* The statistics of the harness: known values, and the same draw for the same seed. */
#include "folder_testing.h"

#include <math.h>

#include "eval/results.h"
#include "eval/stats.h"

static bool near(double a, double b, double tolerance)
{
    return fabs(a - b) <= tolerance;
}

/* Exact two-sided p by hand: 2 * sum C(n, i) / 2^n. 1 of 10: 2 * (1 + 10) / 1024. 3 of 15: 2 * (1 +
 * 15 + 105 + 455) / 32768. 0 of 5: 2 / 32. Even splits and nothing at all give 1. */
static void test_eval_stats_mcnemar_equals_hand_computed(void **state)
{
    (void)state;
    assert_true(near(eval_stats_mcnemar(1, 9), 22.0 / 1024, 1e-12));
    assert_true(near(eval_stats_mcnemar(9, 1), 22.0 / 1024, 1e-12));
    assert_true(near(eval_stats_mcnemar(12, 3), 2 * 576.0 / 32768, 1e-12));
    assert_true(near(eval_stats_mcnemar(0, 5), 2.0 / 32, 1e-12));
    assert_true(near(eval_stats_mcnemar(5, 5), 1, 1e-12));
    assert_true(near(eval_stats_mcnemar(0, 0), 1, 0));
    assert_true(near(eval_stats_mcnemar(0, 1), 1, 1e-12));
    double large = eval_stats_mcnemar(1000, 1200); /* normal approximation: z = 4.26, 2.0e-5 */
    assert_true(large > 1.5e-5 && large < 2.6e-5);
}

static void fill(eval_sum *groups, size_t count, size_t yes, double size)
{
    for (size_t i = 0; i < count; i++) {
        groups[i] = (eval_sum){i < yes ? size : 0, size};
    }
}

/* A share of 0.3 over 200 independent rows has the standard error sqrt(0.3 * 0.7 / 200) = 0.0324:
 * the interval is about 1.96 of it to both sides. Groups of 10 equal rows must not make it
 * narrower.
 */
static void test_eval_stats_interval_has_the_width_of_theory(void **state)
{
    eval_sum groups[200];
    double low, high, low10, high10;
    (void)state;
    fill(groups, 200, 60, 1);
    assert_ok(eval_stats_interval(groups, 200, true, 1, &low, &high, err));
    assert_true(near(low, 0.3 - 1.96 * 0.0324, 0.008));
    assert_true(near(high, 0.3 + 1.96 * 0.0324, 0.008));
    fill(groups, 200, 60, 10);
    assert_ok(eval_stats_interval(groups, 200, true, 1, &low10, &high10, err));
    assert_true(near(low, low10, 1e-12) && near(high, high10, 1e-12));
}

/* Where all agree the bootstrap would be certain of it. The exact bound after n equal draws is
 * 0.025^(1/n): 0 of 100 says at most 3.62 %. One group says nothing. */
static void test_eval_stats_interval_of_unanimous_groups_is_not_a_point(void **state)
{
    eval_sum groups[100];
    double low, high;
    (void)state;
    fill(groups, 100, 0, 1);
    assert_ok(eval_stats_interval(groups, 100, true, 1, &low, &high, err));
    assert_true(low == 0 && near(high, 0.03622, 1e-4));
    fill(groups, 100, 100, 3);
    assert_ok(eval_stats_interval(groups, 100, true, 1, &low, &high, err));
    assert_true(near(low, 1 - 0.03622, 1e-4) && high == 1);
    assert_ok(eval_stats_interval(groups, 1, true, 1, &low, &high, err));
    assert_true(isnan(low) && isnan(high));
    assert_ok(eval_stats_interval(groups, 0, true, 1, &low, &high, err));
    assert_true(isnan(low) && isnan(high));
}

static void test_eval_stats_bootstrap_is_fixed_by_its_seed(void **state)
{
    eval_sum groups[50];
    double low[3], high[3];
    (void)state;
    for (size_t i = 0; i < 50; i++) {
        groups[i] = (eval_sum){(double)(i * i % 17), 1 + (double)(i % 3)};
    }
    assert_ok(eval_stats_interval(groups, 50, false, 7, &low[0], &high[0], err));
    assert_ok(eval_stats_interval(groups, 50, false, 7, &low[1], &high[1], err));
    assert_ok(eval_stats_interval(groups, 50, false, 8, &low[2], &high[2], err));
    assert_true(low[0] == low[1] && high[0] == high[1]);
    assert_true(low[0] != low[2] || high[0] != high[2]);
    assert_true(near(low[0], low[2], 0.3) && near(high[0], high[2], 0.3));
}

/* b is a with 20 of 100 yes turned to no: the difference is 0.2 with standard error
 * sqrt(0.2 * 0.8 / 100) = 0.04 when drawn together; drawn apart it would be 0.07. */
static void test_eval_stats_difference_draws_both_arms_together(void **state)
{
    eval_sum a[100], b[100];
    double low, high, p;
    (void)state;
    fill(a, 100, 60, 1);
    fill(b, 100, 40, 1);
    assert_ok(eval_stats_difference(a, b, 100, 3, &low, &high, &p, err));
    assert_true(near(low, 0.2 - 1.96 * 0.04, 0.015) && near(high, 0.2 + 1.96 * 0.04, 0.015));
    assert_true(p < 0.002);
    assert_ok(eval_stats_difference(a, a, 100, 3, &low, &high, &p, err));
    assert_true(low == 0 && high == 0 && p == 1);
}

/* --- figures over rows ------------------------------------------------------------------------ */

static eval_row row(const char *arm, const char *question, int contains)
{
    eval_row r = EVAL_ROW_EMPTY;
    r.arm = arm;
    r.question = question;
    r.contains = (int8_t)contains;
    return r;
}

/* Six questions in two arms; what is not measured enters nothing. */
static void test_eval_stats_figures_count_only_what_was_measured(void **state)
{
    static const char *arms[] = {"a", "b"};
    eval_row rows[] = {
        row("a", "1", 1), row("a", "2", 1), row("a", "3", 0), row("a", "4", -1), row("a", "5", 1),
        row("b", "1", 1), row("b", "3", 1), row("b", "2", 0), row("b", "5", 0),  row("b", "9", 0),
    };
    eval_run run = {.arms = arms,
                    .arm_count = 2,
                    .rows = rows,
                    .row_count = sizeof rows / sizeof *rows,
                    .identity = {.seed = 1}};
    eval_estimate e;
    eval_pair pair;
    (void)state;
    rows[0].citations = 3;
    rows[0].citations_right = 2;
    rows[1].citations = 1;
    rows[1].citations_right = 1;
    rows[0].rank = 2;
    rows[1].rank = 0;
    rows[0].abstained = 0;
    rows[1].abstained = 1;
    rows[2].abstained = 1;
    rows[1].answerable = 1;
    rows[2].answerable = 0;
    assert_ok(eval_run_figure(&run, "a", EVAL_METRIC_CONTAINS, &e, err));
    assert_true(near(e.value, 0.75, 1e-12) && e.n == 4 && e.groups == 4);
    assert_ok(eval_run_figure(&run, "a", EVAL_METRIC_CITATION_PRECISION, &e, err));
    assert_true(near(e.value, 0.75, 1e-12) && e.n == 2);
    assert_ok(eval_run_figure(&run, "a", EVAL_METRIC_MRR, &e, err));
    assert_true(near(e.value, 0.25, 1e-12));
    assert_ok(eval_run_figure(&run, "a", EVAL_METRIC_ABSTAIN_PRECISION, &e, err));
    assert_true(near(e.value, 0.5, 1e-12) && e.n == 2);
    assert_ok(eval_run_figure(&run, "a", EVAL_METRIC_ABSTAIN_RECALL, &e, err));
    assert_true(near(e.value, 1, 1e-12) && e.n == 1);
    assert_ok(eval_run_figure(&run, "a", EVAL_METRIC_STALE, &e, err));
    assert_true(isnan(e.value) && e.n == 0);
    /* common: 1, 2, 3, 5; a alone is right on 2 and 5, b alone on 3 */
    assert_ok(eval_run_pair(&run, "a", "b", EVAL_METRIC_CONTAINS, &pair, err));
    assert_int_equal(pair.a.n, 4);
    assert_true(near(pair.difference, 0.25, 1e-12) && pair.has_mcnemar);
    assert_int_equal(pair.only_a, 2);
    assert_int_equal(pair.only_b, 1);
    assert_true(near(pair.p_mcnemar, 1, 1e-12));
}

/* Ten questions of one document are one group: the interval must be that of two groups, not of
 * twenty questions. */
static void test_eval_stats_clusters_are_resampled_whole(void **state)
{
    static const char *arms[] = {"a"};
    eval_row rows[20];
    char names[20][8];
    eval_run run = {.arms = arms, .arm_count = 1, .rows = rows, .row_count = 20};
    eval_estimate apart, together;
    (void)state;
    for (int i = 0; i < 20; i++) {
        snprintf(names[i], sizeof names[i], "q%d", i);
        rows[i] = row("a", names[i], i < 10);
    }
    assert_ok(eval_run_figure(&run, "a", EVAL_METRIC_CONTAINS, &apart, err));
    for (int i = 0; i < 20; i++) {
        rows[i].cluster = i < 10 ? "d1" : "d2";
    }
    assert_ok(eval_run_figure(&run, "a", EVAL_METRIC_CONTAINS, &together, err));
    assert_int_equal(apart.groups, 20);
    assert_int_equal(together.groups, 2);
    assert_true(together.low == 0 && together.high == 1);
    assert_true(apart.low > 0.2 && apart.high < 0.8);
}

static void test_eval_stats_buckets_keep_their_edges(void **state)
{
    static const char *arms[] = {"a"};
    static const int64_t updates[] = {1, 2, 3, 4, 5, 8, 9, 400};
    eval_row rows[8];
    eval_run run = {.arms = arms, .arm_count = 1, .rows = rows, .row_count = 8};
    eval_bucket buckets[EVAL_BUCKET_MAX];
    size_t count;
    (void)state;
    for (int i = 0; i < 8; i++) {
        static const char *names[] = {"0", "1", "2", "3", "4", "5", "6", "7"};
        rows[i] = row("a", names[i], i % 2);
        rows[i].updates = updates[i];
        rows[i].age_s = i == 0 ? 0 : 86400.0 * (double)updates[i];
        rows[i].distance = i * 1000;
    }
    assert_ok(
        eval_run_along(&run, "a", EVAL_METRIC_CONTAINS, EVAL_AXIS_UPDATES, buckets, &count, err));
    static const char *labels[] = {"1", "2", "3–4", "5–8", "9–16", "257–512"};
    static const size_t sizes[] = {1, 1, 2, 2, 1, 1};
    assert_int_equal(count, 6);
    for (size_t i = 0; i < count; i++) {
        assert_string_equal(buckets[i].label, labels[i]);
        assert_int_equal(buckets[i].y.n, sizes[i]);
    }
    assert_true(near(buckets[3].x, sqrt(40), 1e-9));
    assert_ok(eval_run_along(&run, "a", EVAL_METRIC_CONTAINS, EVAL_AXIS_AGE, buckets, &count, err));
    assert_int_equal(count, 4); /* 0; 2 to 5; 8 and 9; 400 days */
    assert_string_equal(buckets[0].label, "< 1 d");
    assert_string_equal(buckets[3].label, "1–3 y");
    assert_ok(
        eval_run_along(&run, "a", EVAL_METRIC_CONTAINS, EVAL_AXIS_DISTANCE, buckets, &count, err));
    assert_int_equal(count, 3); /* 0, 1000; 2000 to 4000; 5000 to 7000 */
    assert_string_equal(buckets[1].label, "1 K–4 K");
    assert_int_equal(buckets[0].y.n, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_eval_stats_mcnemar_equals_hand_computed),
        cmocka_unit_test(test_eval_stats_interval_has_the_width_of_theory),
        cmocka_unit_test(test_eval_stats_interval_of_unanimous_groups_is_not_a_point),
        cmocka_unit_test(test_eval_stats_bootstrap_is_fixed_by_its_seed),
        cmocka_unit_test(test_eval_stats_difference_draws_both_arms_together),
        cmocka_unit_test(test_eval_stats_figures_count_only_what_was_measured),
        cmocka_unit_test(test_eval_stats_clusters_are_resampled_whole),
        cmocka_unit_test(test_eval_stats_buckets_keep_their_edges),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
