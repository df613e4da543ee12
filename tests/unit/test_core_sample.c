/* Sampling: what each option keeps, how often each token is drawn, and that a seed fixes it all. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <math.h>

#include "base/mem.h"
#include "engine/sample.h"

enum { VOCABULARY = 8, DRAWS = 200000 };

/* ln of 0.30 0.05 0.25 0.05 0.20 0.10 0.04 0.01 */
static const double shares[VOCABULARY] = {0.30, 0.05, 0.25, 0.05, 0.20, 0.10, 0.04, 0.01};

static void draw_many(const sample_options *options, double *found)
{
    float logits[VOCABULARY];
    sample_state *s = NULL;
    size_t counts[VOCABULARY] = {0};
    for (size_t i = 0; i < VOCABULARY; i++) {
        logits[i] = (float)log(shares[i]) + 3.0f;
    }
    assert_int_equal(sample_create(options, VOCABULARY, &s, NULL), BASE_OK);
    for (size_t n = 0; n < DRAWS; n++) {
        int32_t id = sample_next(s, logits);
        assert_in_range(id, 0, VOCABULARY - 1);
        counts[id]++;
    }
    sample_free(s);
    for (size_t i = 0; i < VOCABULARY; i++) {
        found[i] = (double)counts[i] / DRAWS;
    }
}

/* Frequencies against probabilities, within five standard errors of the larger of the two. */
static void expect_shares(const sample_options *options, const double *wanted)
{
    double found[VOCABULARY];
    draw_many(options, found);
    for (size_t i = 0; i < VOCABULARY; i++) {
        double error = 5.0 * sqrt(wanted[i] * (1.0 - wanted[i]) / DRAWS);
        if (fabs(found[i] - wanted[i]) > error) {
            fail_msg("token %zu drawn %.4f times, not %.4f", i, found[i], wanted[i]);
        }
    }
}

/* Goal: temperature alone draws from the softmax. Method: frequencies of 200,000 draws. */
static void test_draws_follow_the_softmax(void **state)
{
    (void)state;
    expect_shares(&(sample_options){.temperature = 1.0f, .top_p = 1.0f, .seed = 1}, shares);
    double hot[VOCABULARY], total = 0.0;
    for (size_t i = 0; i < VOCABULARY; i++) {
        total += hot[i] = sqrt(shares[i]);
    }
    for (size_t i = 0; i < VOCABULARY; i++) {
        hot[i] /= total;
    }
    expect_shares(&(sample_options){.temperature = 2.0f, .top_p = 1.0f, .seed = 2}, hot);
}

/* Goal: each cut keeps exactly the tokens of its definition. Method: worked out by hand. */
static void test_cuts_keep_what_they_say(void **state)
{
    (void)state;
    const double top_3[VOCABULARY] = {0.4, 0, 0.25 / 0.75, 0, 0.2 / 0.75, 0, 0, 0};
    expect_shares(&(sample_options){.temperature = 1, .top_k = 3, .top_p = 1, .seed = 3}, top_3);
    /* 0.30 + 0.25 + 0.20 = 0.75 < 0.8 <= 0.85: four tokens */
    const double nucleus[VOCABULARY] = {0.30 / 0.85, 0, 0.25 / 0.85, 0, 0.20 / 0.85, 0.10 / 0.85};
    expect_shares(&(sample_options){.temperature = 1, .top_p = 0.8f, .seed = 4}, nucleus);
    /* 0.3 * 0.3 = 0.09: the same four */
    expect_shares(&(sample_options){.temperature = 1, .top_p = 1, .min_p = 0.3f, .seed = 5},
                  nucleus);
    /* top-k first: of 0.30 0.25 0.20 the nucleus of 0.7 is 0.30 0.25, since 0.55 >= 0.7 * 0.75 */
    const double both[VOCABULARY] = {0.30 / 0.55, 0, 0.25 / 0.55};
    expect_shares(&(sample_options){.temperature = 1, .top_k = 3, .top_p = 0.7f, .seed = 6}, both);
    const double one[VOCABULARY] = {1.0};
    expect_shares(&(sample_options){.temperature = 1, .top_k = 1, .top_p = 1, .seed = 7}, one);
    expect_shares(&(sample_options){.temperature = 1, .top_p = 0.01f, .seed = 8}, one);
    expect_shares(&(sample_options){.temperature = 1, .top_p = 1, .min_p = 1, .seed = 9}, one);
}

/* Goal: greedy takes the first maximum, whatever the other options say. */
static void test_greedy_takes_the_first_maximum(void **state)
{
    (void)state;
    const float logits[6] = {-3.0f, 1.5f, 2.5f, 2.5f, -INFINITY, 2.5f};
    sample_state *s = NULL;
    assert_int_equal(sample_create(&(sample_options){.top_k = 3, .seed = 1}, 6, &s, NULL), BASE_OK);
    for (int n = 0; n < 100; n++) {
        assert_int_equal(sample_next(s, logits), 2);
    }
    sample_free(s);
}

/* Goal: among equal tokens a cut keeps the smaller ids. */
static void test_cuts_break_ties_by_the_smaller_id(void **state)
{
    (void)state;
    float logits[100];
    sample_state *s = NULL;
    for (size_t i = 0; i < 100; i++) {
        logits[i] = i == 50 ? 2.0f : 1.0f;
    }
    sample_options options = {.temperature = 1, .top_k = 4, .top_p = 1, .seed = 3};
    bool seen[100] = {false};
    assert_int_equal(sample_create(&options, 100, &s, NULL), BASE_OK);
    for (int n = 0; n < 2000; n++) {
        seen[sample_next(s, logits)] = true;
    }
    for (size_t i = 0; i < 100; i++) {
        assert_int_equal(seen[i], i == 50 || i < 3);
    }
    sample_free(s);
}

/* Goal: equal seeds give equal draws, and drawing allocates nothing. Method: 20,000 tokens, all
 * options on, allocations counted. */
static void test_draws_are_repeatable_and_allocate_nothing(void **state)
{
    (void)state;
    enum { LARGE = 20000 };
    static float logits[LARGE];
    base_rng rng;
    sample_options options = {
        .temperature = 0.8f, .top_k = 500, .top_p = 0.95f, .min_p = 0.01f, .seed = 42};
    sample_state *a = NULL, *b = NULL, *c = NULL;
    base_rng_seed(&rng, 11);
    assert_int_equal(sample_create(&options, LARGE, &a, NULL), BASE_OK);
    assert_int_equal(sample_create(&options, LARGE, &b, NULL), BASE_OK);
    options.seed = 43;
    assert_int_equal(sample_create(&options, LARGE, &c, NULL), BASE_OK);
    size_t before = base_mem_count(), differ = 0;
    for (int n = 0; n < 50; n++) {
        for (size_t i = 0; i < LARGE; i++) {
            logits[i] = (float)(2.0 * base_rng_normal(&rng));
        }
        int32_t id = sample_next(a, logits);
        assert_int_equal(id, sample_next(b, logits));
        differ += id != sample_next(c, logits);
    }
    assert_int_equal(base_mem_count(), before);
    assert_true(differ > 25);
    sample_free(a);
    sample_free(b);
    sample_free(c);
}

/* Goal: the nucleus is found without sorting everything. Method: against a full sort by hand. */
static void test_nucleus_of_many_tokens_is_exact(void **state)
{
    (void)state;
    enum { MANY = 3000 };
    static float logits[MANY];
    static bool inside[MANY];
    base_rng rng;
    base_rng_seed(&rng, 17);
    for (size_t i = 0; i < MANY; i++) {
        logits[i] = (float)(3.0 * base_rng_normal(&rng));
    }
    double total = 0.0, sum = 0.0;
    size_t kept = 0, outside = 0;
    for (size_t i = 0; i < MANY; i++) {
        total += exp((double)logits[i]);
    }
    while (sum < 0.5 * total) {
        size_t best = MANY;
        for (size_t i = 0; i < MANY; i++) {
            if (!inside[i] && (best == MANY || logits[i] > logits[best])) {
                best = i;
            }
        }
        inside[best] = true;
        sum += exp((double)logits[best]);
        kept++;
    }
    sample_options options = {.temperature = 1, .top_p = 0.5f, .seed = 3};
    sample_state *s = NULL;
    static bool drawn[MANY];
    assert_int_equal(sample_create(&options, MANY, &s, NULL), BASE_OK);
    for (int n = 0; n < 30000; n++) {
        drawn[sample_next(s, logits)] = true;
    }
    size_t found = 0;
    for (size_t i = 0; i < MANY; i++) {
        found += drawn[i];
        outside += drawn[i] && !inside[i];
    }
    assert_int_equal(outside, 0);
    assert_int_equal(found, kept);
    sample_free(s);
}

/* Goal: impossible options are refused, and running out of memory is reported. */
static void test_impossible_options_are_refused(void **state)
{
    (void)state;
    const sample_options bad[] = {
        {.temperature = -1}, {.temperature = NAN}, {.temperature = INFINITY},
        {.top_p = -0.1f},    {.top_p = 1.1f},      {.top_p = NAN},
        {.min_p = -0.1f},    {.min_p = 1.1f},      {.min_p = NAN},
    };
    base_error err;
    sample_state *s = NULL;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(sample_create(&bad[i], 10, &s, &err), BASE_INVALID);
    }
    sample_options good = {.temperature = 1};
    assert_int_equal(sample_create(&good, 0, &s, &err), BASE_INVALID);
    for (size_t n = 1; n <= 2; n++) {
        base_mem_fail_at(n);
        assert_int_equal(sample_create(&good, 10, &s, &err), BASE_NO_MEMORY);
        base_mem_fail_at(0);
    }
    assert_null(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_draws_follow_the_softmax),
        cmocka_unit_test(test_cuts_keep_what_they_say),
        cmocka_unit_test(test_greedy_takes_the_first_maximum),
        cmocka_unit_test(test_cuts_break_ties_by_the_smaller_id),
        cmocka_unit_test(test_draws_are_repeatable_and_allocate_nothing),
        cmocka_unit_test(test_nucleus_of_many_tokens_is_exact),
        cmocka_unit_test(test_impossible_options_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
