/* Supersession of versions: order in time, late arrivals, copies, and what as-of sees. */
#include <math.h>

#include "store_testing.h"

static void assert_state(store *s, uint64_t id, int64_t superseded_at_us, uint64_t superseded_by)
{
    store_episode e = get_episode(s, id);
    if (e.superseded_at_us != superseded_at_us || e.superseded_by != superseded_by) {
        fail_msg("episode %llu: superseded at %lld by %llu, expected %lld by %llu",
                 (unsigned long long)id, (long long)e.superseded_at_us,
                 (unsigned long long)e.superseded_by, (long long)superseded_at_us,
                 (unsigned long long)superseded_by);
    }
    store_episode_free(&e);
}

/* Goal: new content closes the old at the new time, links by position, and keeps it readable. */
static void test_store_new_version_closes_the_old(void **state)
{
    store *s = open_store(*state);
    store_put_result result;
    put_text(s, "w", "d", "Rome is big.|The mayor is Anna.|It rains.", 10 * DAY, NULL); /* 1 2 3 */
    put_text(s, "w", "d", "Rome is big.|The mayor is Bert.", 20 * DAY, &result);        /* 4 5 */
    assert_int_equal(result, STORE_PUT_NEW_VERSION);
    assert_state(s, 1, 20 * DAY, 4);
    assert_state(s, 2, 20 * DAY, 5);
    assert_state(s, 3, 20 * DAY, 5);
    assert_state(s, 4, BASE_TIME_MAX, 0);
    assert_state(s, 5, BASE_TIME_MAX, 0);
    store_episode e = get_episode(s, 2);
    assert_string_equal(e.text, "The mayor is Anna.|");
    store_episode_free(&e);
    store_brief old = get_brief(s, 2, 15 * DAY), fresh = get_brief(s, 5, 15 * DAY);
    assert_true(store_strength(&old, 15 * DAY) == 1.0);
    assert_true(store_strength(&fresh, 15 * DAY) == 0.0);
    old = get_brief(s, 2, 20 * DAY);
    fresh = get_brief(s, 5, 20 * DAY);
    assert_true(store_strength(&old, 20 * DAY) == STORE_STRENGTH_SUPERSEDED);
    assert_true(store_strength(&fresh, 20 * DAY) == 1.0);
    store_stats stats;
    assert_ok(store_get_stats(s, &stats, err));
    assert_int_equal(stats.superseded, 3);
    assert_int_equal(stats.versions, 2);
    assert_int_equal(stats.documents, 1);
    store_stats_free(&stats);
    store_close(s);
    assert_verifies(*state, 5);
}

static uint64_t changes_of(store *s, uint64_t id)
{
    store_episode e = get_episode(s, id);
    uint64_t changes = e.changes;
    store_episode_free(&e);
    return changes;
}

/* Goal: changes are counted along a stream of replacements, also for a version that arrives late;
 * words that stand as before have not changed, whatever went beside them. */
static void test_store_changes_are_counted_along_a_stream(void **state)
{
    store *s = open_store(*state);
    put_text(s, "w", "d", "It rains.|Rome is big.|The mayor is Anna.", 10 * DAY, NULL); /* 1 2 3 */
    put_text(s, "w", "d", "Rome is big.|The mayor is Anna.", 20 * DAY, NULL);           /* 4 5 */
    assert_int_equal(changes_of(s, 4), 0);
    assert_int_equal(changes_of(s, 5), 0);
    put_text(s, "w", "d", "Rome is big.|The mayor is Carl.", 40 * DAY, NULL); /* 6 7 */
    assert_int_equal(changes_of(s, 6), 0);
    assert_int_equal(changes_of(s, 7), 1);
    put_text(s, "w", "d", "Rome is big.|The mayor is Bert.", 30 * DAY, NULL); /* 8 9 */
    assert_int_equal(changes_of(s, 9), 1);
    assert_int_equal(changes_of(s, 7), 2);
    store_episode e = get_episode(s, 7);
    assert_int_equal(e.replaced, 9);
    store_episode_free(&e);
    store_txn *txn;
    uint64_t bert = 9, measured;
    assert_ok(store_begin(s, 50 * DAY, &txn, err));
    assert_ok(store_forget(txn, &bert, 1, NULL, err));
    assert_ok(store_put_drift(txn, &measured, err));
    assert_ok(store_commit(txn, err));
    assert_int_equal(measured, 1);
    e = get_episode(s, 7);
    assert_int_equal(e.replaced, 0);
    assert_int_equal(e.changes, 2);
    store_episode_free(&e);
    /* One stream began at day 10 and changed twice until day 40. */
    store_stats stats;
    assert_ok(store_get_stats(s, &stats, err));
    assert_int_equal(stats.sources[0].evidence, 2);
    assert_true(fabs(stats.sources[0].half_life_s / 86400 - 15 * log(2)) < 1e-6);
    store_stats_free(&stats);
    store_close(s);
    assert_verifies(*state, 8); /* with all counts */
}

/* Goal: an older version that arrives last is closed on arrival and closes its predecessor earlier.
 * */
static void test_store_late_version_takes_its_place_in_time(void **state)
{
    store *s = open_store(*state);
    put_text(s, "w", "d", "First.", 10 * DAY, NULL);  /* 1 */
    put_text(s, "w", "d", "Third.", 30 * DAY, NULL);  /* 2 */
    put_text(s, "w", "d", "Second.", 20 * DAY, NULL); /* 3 */
    assert_state(s, 1, 20 * DAY, 3);
    assert_state(s, 3, 30 * DAY, 2);
    assert_state(s, 2, BASE_TIME_MAX, 0);
    put_text(s, "w", "d", "Zeroth.", 5 * DAY, NULL); /* 4 */
    assert_state(s, 4, 10 * DAY, 1);
    assert_state(s, 1, 20 * DAY, 3);
    uint64_t *ids;
    size_t count;
    assert_ok(store_document_episodes(s, 1, 0, &ids, &count, err));
    assert_int_equal(count, 4);
    const uint64_t order[4] = {2, 3, 1, 4};
    assert_memory_equal(ids, order, sizeof order);
    base_free(ids);
    assert_ok(store_document_episodes(s, 1, 3, &ids, &count, err));
    assert_int_equal(count, 1);
    assert_int_equal(ids[0], 3);
    base_free(ids);
    store_close(s);
    assert_verifies(*state, 4);
}

/* Goal: at the same moment the later commit wins; the older is superseded from its own moment on.
 * */
static void test_store_same_moment_goes_by_commit_order(void **state)
{
    store *s = open_store(*state);
    put_text(s, "w", "d", "First.", 10 * DAY, NULL);
    put_text(s, "w", "d", "Second.", 10 * DAY, NULL);
    assert_state(s, 1, 10 * DAY, 2);
    assert_state(s, 2, BASE_TIME_MAX, 0);
    store_close(s);
    assert_verifies(*state, 2);
}

/* Goal: replaying all versions, in any order, is no change. */
static void test_store_replay_of_old_versions_is_unchanged(void **state)
{
    store *s = open_store(*state);
    store_put_result result;
    put_text(s, "w", "d", "First.", 10 * DAY, NULL);
    put_text(s, "w", "d", "Second.", 20 * DAY, NULL);
    put_text(s, "w", "d", "First.", 10 * DAY, &result);
    assert_int_equal(result, STORE_PUT_UNCHANGED);
    put_text(s, "w", "d", "First.", 30 * DAY, &result); /* back to the old text: a new version */
    assert_int_equal(result, STORE_PUT_NEW_VERSION);
    assert_int_equal(store_last_commit(s), 3);
    store_close(s);
}

/* Goal: a file's time that moved without its text is no change; without that mark it is a version.
 * */
static void test_store_guessed_time_alone_is_no_change(void **state)
{
    store *s = open_store(*state);
    store_new_span spans[SPANS_MAX];
    store_put_result result;
    put_text(s, "w", "d", "First.", 10 * DAY, NULL);
    put_text(s, "w", "d", "Second.", 20 * DAY, NULL);
    store_new_document doc = cut_document("w", "d", "Second.", 30 * DAY, spans);
    assert_ok(store_peek_document(s, &doc, &result, err));
    assert_int_equal(result, STORE_PUT_NEW_VERSION);
    doc.observed_at_is_guess = true;
    assert_ok(store_peek_document(s, &doc, &result, err));
    assert_int_equal(result, STORE_PUT_UNCHANGED);
    doc = cut_document("w", "d", "First.", 30 * DAY, spans); /* back to the old text: a change */
    doc.observed_at_is_guess = true;
    assert_ok(store_peek_document(s, &doc, &result, err));
    assert_int_equal(result, STORE_PUT_NEW_VERSION);
    store_close(s);
}

/* Goal: a word-for-word copy is found across positions and takes over the uses. */
static void test_store_copy_inherits_uses(void **state)
{
    store *s = open_store(*state);
    put_text(s, "w", "d", "Stays.|Changes.", 10 * DAY, NULL); /* 1 2 */
    store_txn *txn;
    assert_ok(store_begin(s, 15 * DAY, &txn, err));
    assert_ok(store_put_use(txn, 1, 12 * DAY, 0.5f, err));
    assert_ok(store_put_use(txn, 1, 14 * DAY, 0.5f, err));
    assert_ok(store_put_use(txn, 2, 13 * DAY, 0.5f, err));
    assert_ok(store_commit(txn, err));
    put_text(s, "w", "d", "Changed.|New.|Stays.|End.", 11 * DAY,
             NULL); /* 3 4 5 6: "Stays.|" is 5 */
    assert_state(s, 1, 11 * DAY, 5);
    store_episode copy = get_episode(s, 5), other = get_episode(s, 3);
    assert_int_equal(copy.use_count, 2);
    assert_int_equal(other.use_count, 0);
    store_episode_free(&copy);
    store_episode_free(&other);
    assert_int_equal(get_brief(s, 5, BASE_TIME_MAX).last_use_us, 14 * DAY);
    store_close(s);
    assert_verifies(*state, 6);
}

/* Goal: without a copy the nearest in the same section is the counterpart. */
static void test_store_counterpart_is_in_the_same_section(void **state)
{
    store *s = open_store(*state);
    store_new_span old_spans[SPANS_MAX], new_spans[SPANS_MAX];
    store_new_document old = cut_document("w", "d", "a1|a2|b1|b2", DAY, old_spans);
    store_new_document fresh = cut_document("w", "d", "x1|x2|x3|x4|y1", 2 * DAY, new_spans);
    old_spans[0].section = old_spans[1].section = new_spans[0].section = "A";
    new_spans[1].section = new_spans[2].section = "C";
    old_spans[2].section = old_spans[3].section = new_spans[3].section = new_spans[4].section = "B";
    store_txn *txn;
    store_put_result result;
    uint64_t first;
    size_t count;
    assert_ok(store_begin(s, DAY, &txn, err));
    assert_ok(store_put_document(txn, &old, &result, &first, &count, err));
    assert_ok(store_put_document(txn, &fresh, &result, &first, &count, err));
    assert_int_equal(first, 5);
    assert_ok(store_commit(txn, err));
    assert_state(s, 1, 2 * DAY, 5); /* a1 -> x1, section A */
    assert_state(s, 2, 2 * DAY, 5); /* a2 -> x1, section A */
    assert_state(s, 3, 2 * DAY, 8); /* b1 -> x4, section B */
    assert_state(s, 4, 2 * DAY, 8); /* b2 at place 3 -> x4 at place 3 */
    store_close(s);
    assert_verifies(*state, 9);
}

/* Goal: a document that became empty closes what it said, with nothing to link to. */
static void test_store_empty_version_closes_all(void **state)
{
    store *s = open_store(*state);
    put_text(s, "w", "d", "Something.", DAY, NULL);
    put_text(s, "w", "d", "", 2 * DAY, NULL);
    assert_state(s, 1, 2 * DAY, 0);
    store_close(s);
    assert_verifies(*state, 1);
}

/* Goal: the as-of cut of the text search hides what was not known yet, and still gives k results.
 * */
static void test_store_text_search_cuts_at_as_of(void **state)
{
    store *s = open_store(*state);
    char id[16];
    for (int i = 1; i <= 20; i++) {
        snprintf(id, sizeof id, "d%d", i);
        put_text(s, "w", id, "The capital is here.", i * DAY, NULL);
    }
    store_text_hit hits[10];
    assert_int_equal(find_text(s, "capital", BASE_TIME_MAX, hits, 10), 10);
    assert_int_equal(find_text(s, "capital", 5 * DAY, hits, 10), 5);
    assert_int_equal(find_text(s, "capital", 12 * DAY, hits, 10), 10);
    for (size_t i = 0; i < 10; i++) {
        assert_in_range(hits[i].id, 1, 12);
    }
    assert_int_equal(find_text(s, "capital", 0, hits, 10), 0);
    store_close(s);
}

#define WITH_FOLDER(test) cmocka_unit_test_setup_teardown(test, make_folder, drop_folder)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_FOLDER(test_store_new_version_closes_the_old),
        WITH_FOLDER(test_store_changes_are_counted_along_a_stream),
        WITH_FOLDER(test_store_late_version_takes_its_place_in_time),
        WITH_FOLDER(test_store_same_moment_goes_by_commit_order),
        WITH_FOLDER(test_store_replay_of_old_versions_is_unchanged),
        WITH_FOLDER(test_store_guessed_time_alone_is_no_change),
        WITH_FOLDER(test_store_copy_inherits_uses),
        WITH_FOLDER(test_store_counterpart_is_in_the_same_section),
        WITH_FOLDER(test_store_empty_version_closes_all),
        WITH_FOLDER(test_store_text_search_cuts_at_as_of),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
