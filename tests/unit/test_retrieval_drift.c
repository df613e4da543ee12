/* Drift: half-lives follow measured change, per stream. One source for two simulated years, in
 * which half of the things change every week and half never do. The long form is
 * EIDETIC_DRIFT_THINGS=400. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/rng.h"
#include "folder_testing.h"
#include "retrieval/supersede.h"

#define DIM 32
#define DAY BASE_DAY_US
#define WEEK_S (7 * 86400.0)
enum { THINGS = 24, THINGS_MAX = 2000, WEEKS = 104 };

/* A unit vector for a thing, with some noise. */
static void vector_of(uint64_t thing, uint64_t noise, float v[DIM])
{
    base_rng rng;
    float norm = 0;
    base_rng_seed(&rng, 1000 + thing);
    for (size_t i = 0; i < DIM; i++) {
        v[i] = (float)base_rng_normal(&rng);
    }
    base_rng_seed(&rng, noise);
    for (size_t i = 0; i < DIM; i++) {
        v[i] += 0.4f * (float)base_rng_normal(&rng);
        norm += v[i] * v[i];
    }
    for (size_t i = 0; i < DIM; i++) {
        v[i] /= sqrtf(norm);
    }
}

/* What thing says in a week; returns the id of its episode. */
static uint64_t say(store_txn *txn, uint64_t thing, int week)
{
    char id[48], text[96];
    float v[DIM];
    snprintf(id, sizeof id, "kiln%d-%d", (int)thing, week);
    int size = snprintf(text, sizeof text, "The mode of Kiln%d is Setting%d.", (int)thing,
                        (int)thing * 1000 + week);
    vector_of(thing, 7 * thing + (uint64_t)week, v);
    store_new_span span = {.end_byte = (uint64_t)size, .vector = v};
    store_new_document doc = {.source = "kilns",
                              .external_id = id,
                              .title = "",
                              .text = text,
                              .text_size = (size_t)size,
                              .observed_at_us = (1000 + 7 * week) * DAY,
                              .valid_from_us = BASE_TIME_NONE,
                              .valid_to_us = BASE_TIME_NONE,
                              .spans = &span,
                              .span_count = 1,
                              .vector_dim = DIM,
                              .encoder = "drawn"};
    store_put_result result;
    uint64_t first;
    size_t count;
    assert_ok(store_put_document(txn, &doc, &result, &first, &count, err));
    return first;
}

/* Share of the things [from, to) whose newest episode comes first when asked for. */
static double recall(retrieval *r, const uint64_t *newest, int from, int to, int64_t as_of_us)
{
    int found = 0;
    for (int i = from; i < to; i++) {
        char text[64];
        float v[DIM];
        retrieval_hit hits[5];
        size_t count = 0;
        snprintf(text, sizeof text, "the mode of Kiln%d", i);
        vector_of((uint64_t)i, 90000 + (uint64_t)i, v);
        retrieval_query q = {.text = text,
                             .text_size = strlen(text),
                             .vector = v,
                             .now_us = as_of_us,
                             .as_of_us = as_of_us,
                             .about_us = BASE_TIME_NONE,
                             .k = 5,
                             .use_strength = true,
                             .use_time = true,
                             .use_bm25 = true};
        assert_ok(retrieval_search(r, &q, hits, &count, err));
        found += count > 0 && hits[0].id == newest[i];
    }
    return (double)found / (to - from);
}

static int count_things(void)
{
    const char *wanted = getenv("EIDETIC_DRIFT_THINGS");
    int things = wanted ? (int)strtol(wanted, NULL, 10) / 2 * 2 : THINGS;
    assert_in_range(things, 2, THINGS_MAX);
    return things;
}

static void test_half_lives_follow_measured_change(void **state)
{
    const int things = count_things(), changing = things / 2;
    store *s = NULL;
    retrieval *r = NULL;
    store_txn *txn;
    store_options options = {.create = true};
    uint64_t newest[THINGS_MAX], measured = 0;
    assert_ok(store_open(*state, &options, &s, err));
    assert_ok(store_begin(s, 2000 * DAY, &txn, err));
    for (int week = 0; week < WEEKS; week++) {
        for (int i = 0; i < (week == 0 ? things : changing); i++) {
            newest[i] = say(txn, (uint64_t)i, week);
        }
    }
    assert_ok(store_commit(txn, err));
    assert_ok(retrieval_open(s, DIM, &r, err));
    retrieval_supersede_receipt receipt;
    retrieval_supersede_options how = {.now_us = 2000 * DAY};
    assert_ok(retrieval_supersede(r, &how, &receipt, err));
    assert_true(receipt.closed >= (uint64_t)((WEEKS - 1) * changing));

    store_brief briefs[THINGS_MAX];
    int64_t begin_us = (1000 + 7) * DAY, end_us = (1000 + 7 * (WEEKS - 1)) * DAY;
    assert_ok(store_get_briefs(s, newest, (size_t)things, end_us, briefs, err));
    for (int i = 0; i < things; i++) {
        assert_true(isinf(briefs[i].half_life_s)); /* nothing decays before it was asked for */
    }
    assert_ok(store_begin(s, end_us, &txn, err));
    assert_ok(store_put_drift(txn, &measured, err));
    assert_ok(store_commit(txn, err));
    assert_int_equal(measured, 1);

    assert_ok(store_get_briefs(s, newest, (size_t)things, end_us, briefs, err));
    double weeks_min = INFINITY, weeks_max = 0;
    int forgotten = 0;
    for (int i = 0; i < things; i++) {
        double weeks = briefs[i].half_life_s / WEEK_S;
        if (i < changing) {
            weeks_min = fmin(weeks_min, weeks);
            weeks_max = fmax(weeks_max, weeks);
        } else {
            forgotten += store_strength(&briefs[i], end_us) < 0.5;
        }
    }
    uint64_t first_unchanged = newest[changing];
    assert_true(first_unchanged != 0);
    double fresh = recall(r, newest, changing, things, begin_us);
    double aged = recall(r, newest, changing, things, end_us);
    double current = recall(r, newest, 0, changing, end_us);
    print_message("half-life of what changes weekly: %.2f to %.2f weeks; recall of the unchanged: "
                  "fresh %.3f, after two years %.3f; of the current value %.3f; false-forget rate "
                  "%.3f\n",
                  weeks_min, weeks_max, fresh, aged, current,
                  (double)forgotten / (things - changing));
    assert_true(weeks_min >= 0.5 && weeks_max <= 2.0);
    assert_true(fresh >= 0.9);
    assert_true(aged >= fresh - 0.02);
    /* Of the current value more than a hundred older ones are as near. */
    assert_true(current >= 0.9);
    assert_int_equal(forgotten, 0);

    store_stats stats;
    assert_ok(store_get_stats(s, &stats, err));
    assert_int_equal(stats.source_count, 1);
    assert_int_equal(stats.sources[0].evidence, (WEEKS - 1) * changing);
    assert_true(stats.sources[0].half_life_s / WEEK_S > 0.5);
    assert_true(stats.sources[0].half_life_s / WEEK_S < 2.0);
    store_stats_free(&stats);

    /* Again: nothing has changed, so nothing is written. */
    uint64_t commit = store_last_commit(s);
    assert_ok(store_begin(s, end_us, &txn, err));
    assert_ok(store_put_drift(txn, &measured, err));
    assert_ok(store_commit(txn, err));
    assert_int_equal(store_last_commit(s), commit);
    retrieval_close(r);
    store_close(s);
    store_verify_report report = {0};
    assert_ok(store_verify(*state, false, &report, err));
    assert_int_equal(report.count, 0);
    base_free(report.problems);
}

/* Goal: the estimate itself: shrinkage, and what outlives many intervals is held to be lasting. */
static void test_estimate_of_a_half_life(void **state)
{
    (void)state;
    store_drift none = {.streams = 10, .last_observed_us = 1000 * DAY};
    store_drift unmeasured = {.streams = 1};
    store_stream any = {0, 0, BASE_TIME_MAX};
    assert_true(isinf(store_half_life(&none, &unmeasured, &any)));
    /* Ten of twenty streams, each changed ten times in a hundred days. */
    store_drift d = {.streams = 20,
                     .changed = 10,
                     .changes = 100,
                     .first_sum_s = 10 * 900 * 86400.0,
                     .last_observed_us = 1000 * DAY};
    store_drift alone = {.streams = 1};
    double ten_days = 10 * 86400 * log(2);
    store_stream stream = {
        .changes = 10, .first_observed_us = 900 * DAY, .until_us = BASE_TIME_MAX};
    assert_true(fabs(store_half_life(&d, &alone, &stream) / ten_days - 1) < 0.01);
    /* A slower stream is drawn to the source by one change's worth. */
    stream.changes = 1;
    double slow = store_half_life(&d, &alone, &stream);
    assert_true(slow > 4 * ten_days && slow < 6 * ten_days);
    /* Without a change: new, as likely as not one that changes; old, a lasting one. */
    stream = (store_stream){0, 1000 * DAY, BASE_TIME_MAX};
    double fresh = store_half_life(&d, &alone, &stream);
    assert_true(fresh > ten_days && fresh < 3 * ten_days);
    stream.first_observed_us = 900 * DAY;
    assert_true(store_half_life(&d, &alone, &stream) > 1000 * ten_days);
    /* What came later does not count at an earlier moment. */
    stream.until_us = 900 * DAY;
    assert_true(fabs(store_half_life(&d, &alone, &stream) / fresh - 1) < 1e-9);
}

/* Goal: a new stream in a document takes after the document more than after the source. */
static void test_documents_stand_between_source_and_stream(void **state)
{
    (void)state;
    store_drift source = {.streams = 40,
                          .changed = 20,
                          .changes = 200,
                          .first_sum_s = 20 * 900 * 86400.0,
                          .last_observed_us = 1000 * DAY};
    store_drift still = {.streams = 10}, alone = {.streams = 1};
    store_drift quick = {
        .streams = 10, .changed = 9, .changes = 900, .first_sum_s = 9 * 900 * 86400.0};
    store_stream stream = {0, 1000 * DAY, BASE_TIME_MAX};
    double one_day = 86400 * log(2);
    double among_still = store_half_life(&source, &still, &stream);
    double among_quick = store_half_life(&source, &quick, &stream);
    double unknown = store_half_life(&source, &alone, &stream);
    assert_true(among_still > 4 * unknown);
    assert_true(among_quick < unknown / 8);
    assert_true(among_quick > one_day && among_quick < 1.5 * one_day);
    /* A stream's own changes are no evidence for its neighbours' rate. */
    store_drift own = {.streams = 2, .changed = 1, .changes = 50, .first_sum_s = 900 * 86400.0};
    stream = (store_stream){50, 900 * DAY, BASE_TIME_MAX};
    assert_true(
        fabs(store_half_life(&source, &own, &stream) / store_half_life(&source, &alone, &stream) -
             1) < 1e-9);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_half_lives_follow_measured_change, make_folder,
                                        drop_folder),
        cmocka_unit_test(test_estimate_of_a_half_life),
        cmocka_unit_test(test_documents_stand_between_source_and_stream),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
