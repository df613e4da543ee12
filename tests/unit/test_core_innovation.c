/* The innovation test: its rate converges, its gap holds, and only observed tokens teach it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <math.h>

#include "base/rng.h"
#include "engine/innovation.h"

/* Entropies like a language model's: half of the tokens sure, the others spread. */
static float next_entropy(base_rng *rng, double scale)
{
    double u = base_rng_unit(rng);
    return (float)(scale * (u < 0.5 ? 0.6 * u : -log(1.0 - base_rng_unit(rng)) * 1.5));
}

/* Goal: the share of tokens that exceed the threshold becomes the target. Method: gap 1, so that
 * events are exceedings; 20,000 tokens after 2,000 to settle, three targets and scales. */
static void test_rate_of_events_converges_to_the_target(void **state)
{
    (void)state;
    const float targets[] = {0.05f, 0.15f, 0.40f};
    const double scales[] = {0.5, 1.0, 3.0};
    for (size_t i = 0; i < 9; i++) {
        innovation s;
        base_rng rng;
        base_rng_seed(&rng, 7 + i);
        innovation_begin(&s, &(innovation_options){.target_rate = targets[i % 3], .gap = 1});
        for (int n = 0; n < 2000; n++) {
            innovation_observe(&s, next_entropy(&rng, scales[i / 3]));
        }
        size_t events = 0;
        double sum = 0.0, square = 0.0;
        for (int n = 0; n < 20000; n++) {
            events += innovation_observe(&s, next_entropy(&rng, scales[i / 3]));
            sum += (double)s.threshold;
            square += (double)s.threshold * (double)s.threshold;
        }
        double rate = (double)events / 20000.0;
        if (fabs(rate - (double)targets[i % 3]) > 0.01) {
            fail_msg("rate %.4f, target %.4f", rate, (double)targets[i % 3]);
        }
        double mean = sum / 20000.0, deviation = sqrt(square / 20000.0 - mean * mean);
        /* At rest the variance is step * p(1 - p) / (2 * density), and here the density of the
         * tail is p / (1.5 * scale); the step is 0.05 nats. */
        double expected = sqrt(0.05 * (1.0 - (double)targets[i % 3]) * 1.5 * scales[i / 3] / 2.0);
        assert_true(deviation < 1.5 * expected);
    }
}

/* Goal: it follows a change of the text. Method: entropies double; the old rate comes back. */
static void test_threshold_follows_a_change(void **state)
{
    (void)state;
    innovation s;
    base_rng rng;
    base_rng_seed(&rng, 3);
    innovation_begin(&s, &(innovation_options){.gap = 1});
    for (int n = 0; n < 3000; n++) {
        innovation_observe(&s, next_entropy(&rng, 1.0));
    }
    float before = s.threshold;
    for (int n = 0; n < 3000; n++) {
        innovation_observe(&s, next_entropy(&rng, 2.0));
    }
    assert_true(s.threshold > 1.5f * before);
    assert_true(s.threshold < 2.5f * before);
}

/* Goal: never two events within the gap. Method: entropies that nearly always exceed. */
static void test_gap_holds(void **state)
{
    (void)state;
    for (size_t gap = 1; gap <= 20; gap += 3) {
        innovation s;
        base_rng rng;
        size_t last = 0, events = 0;
        base_rng_seed(&rng, gap);
        innovation_begin(&s, &(innovation_options){.threshold = 0.01f, .gap = gap});
        for (size_t n = 1; n <= 5000; n++) {
            if (innovation_observe(&s, 2.0f + 4.0f * (float)base_rng_unit(&rng))) {
                assert_true(last == 0 || n - last >= gap);
                last = n;
                events++;
            }
        }
        assert_true(events > 100);
        assert_int_equal(events, s.events);
        assert_int_equal(s.seen, 5000);
    }
}

/* Goal: the first token may fire; after a forced consultation the gap runs again. */
static void test_forced_consultation_restarts_the_gap(void **state)
{
    (void)state;
    innovation s;
    innovation_begin(&s, NULL);
    assert_true(innovation_observe(&s, 9.0f));
    innovation_begin(&s, NULL);
    innovation_forced(&s);
    for (int n = 1; n < 8; n++) {
        assert_false(innovation_observe(&s, 9.0f));
    }
    assert_true(innovation_observe(&s, 9.0f));
    for (int n = 1; n < 6; n++) {
        assert_false(innovation_observe(&s, 9.0f));
    }
    innovation_forced(&s);
    for (int n = 1; n < 8; n++) {
        assert_false(innovation_observe(&s, 9.0f));
    }
    assert_true(innovation_observe(&s, 9.0f));
    assert_int_equal(s.events, 2);
}

/* Goal: defaults are those of the header, and the first threshold decides. */
static void test_starts_at_three_nats(void **state)
{
    (void)state;
    innovation s;
    innovation_begin(&s, NULL);
    assert_true(s.threshold == 3.0f);
    assert_int_equal(s.options.gap, 8);
    assert_int_equal(s.options.stride, 1);
    assert_true(s.options.target_rate == 0.15f);
    assert_false(innovation_observe(&s, 2.99f));
    assert_true(innovation_observe(&s, 3.01f));
}

/* Goal: only observed entropies teach. Method: a forced consultation and NaN leave the
 * threshold. */
static void test_only_observed_entropies_move_the_threshold(void **state)
{
    (void)state;
    innovation s;
    base_rng rng;
    base_rng_seed(&rng, 9);
    innovation_begin(&s, NULL);
    for (int n = 0; n < 500; n++) {
        float before = s.threshold;
        innovation_forced(&s);
        assert_false(innovation_observe(&s, NAN));
        assert_true(s.threshold == before);
        innovation_observe(&s, next_entropy(&rng, 1.0));
        assert_true(s.threshold != before);
    }
}

/* Goal: with a stride, the tokens between teach nothing and never fire, but count for the gap. */
static void test_stride_looks_at_every_nth_token(void **state)
{
    (void)state;
    innovation s;
    innovation_begin(&s, &(innovation_options){.stride = 4, .gap = 6});
    for (int n = 0; n < 400; n++) {
        float before = s.threshold;
        bool fired = innovation_observe(&s, 50.0f);
        if (n % 4 != 0) {
            assert_false(fired);
            assert_true(s.threshold == before);
        } else {
            assert_int_equal(fired, n % 8 == 0); /* 6 tokens on, the next looked at is the 8th */
            assert_true(s.threshold > before);
        }
    }
}

/* Goal: an event that could not be used fires again when it asked to, however sure the model is
 * there, for INNOVATION_OPEN_MAX tokens in all; then the gap has passed and the test is as new. */
static void test_open_event_fires_again_without_entropy(void **state)
{
    (void)state;
    innovation s;
    innovation_begin(&s, NULL);
    assert_true(innovation_observe(&s, 9.0f));
    for (int n = 0; n < INNOVATION_OPEN_MAX / 2; n++) {
        assert_true(innovation_again(&s, 2));
        assert_false(innovation_observe(&s, 9.0f));
        assert_true(innovation_observe(&s, 0.0f));
    }
    assert_false(innovation_again(&s, 1));
    assert_int_equal(s.events, 1);
    assert_false(innovation_observe(&s, 0.0f));
    assert_true(innovation_observe(&s, 9.0f));
    assert_true(innovation_again(&s, 1));
    innovation_forced(&s);
    assert_false(innovation_observe(&s, 0.0f));
}

/* Goal: the threshold stays a number that entropies can exceed. Method: a thousand sure tokens. */
static void test_threshold_never_falls_below_zero(void **state)
{
    (void)state;
    innovation s;
    innovation_begin(&s, NULL);
    for (int n = 0; n < 1000; n++) {
        assert_false(innovation_observe(&s, 0.0f));
        assert_true(s.threshold >= 0.0f);
    }
    assert_true(innovation_observe(&s, 0.5f));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rate_of_events_converges_to_the_target),
        cmocka_unit_test(test_threshold_follows_a_change),
        cmocka_unit_test(test_gap_holds),
        cmocka_unit_test(test_forced_consultation_restarts_the_gap),
        cmocka_unit_test(test_starts_at_three_nats),
        cmocka_unit_test(test_only_observed_entropies_move_the_threshold),
        cmocka_unit_test(test_stride_looks_at_every_nth_token),
        cmocka_unit_test(test_open_event_fires_again_without_entropy),
        cmocka_unit_test(test_threshold_never_falls_below_zero),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
