/* Every allocation of the store fails once, in turn: the answer is NO_MEMORY or a right result,
 * never a crash, a leak (the sanitizers see to that) or a damaged store. SQLite and LMDB allocate
 * on their own. */
#include "store_testing.h"

typedef base_status scenario(const char *path, store *s);

/* Run with the n-th allocation failing, for n = 1, 2 ... until none fails any more. */
static size_t fail_each(const char *path, scenario *run, bool opens_itself)
{
    store *s = opens_itself ? NULL : open_store(path);
    size_t nth = 0, refused = 0;
    for (bool failed = true; failed;) {
        nth++;
        size_t before = base_mem_count();
        base_mem_fail_at(nth);
        base_status status = run(path, s);
        base_mem_fail_at(0);
        failed = base_mem_count() - before >= nth;
        if (status != BASE_OK && status != BASE_NO_MEMORY) {
            fail_msg("allocation %zu: %s", nth, base_status_name(status));
        }
        if (!failed) {
            assert_int_equal(status, BASE_OK);
        }
        refused += status == BASE_NO_MEMORY;
        assert_true(nth < 3000);
    }
    store_close(s);
    assert_true(nth > 3);
    return refused;
}

static void fill(const char *path)
{
    store *s = open_store(path);
    put_text(s, "w", "a", "One red thing.|Two red things.|Three.", DAY, NULL);
    put_text(s, "w", "a", "One red thing.|Two blue things.", 2 * DAY, NULL);
    uint8_t tag[32] = {1};
    uint64_t gone = 3;
    store_txn *txn;
    assert_ok(store_begin(s, DAY, &txn, err));
    assert_ok(store_put_kv(txn, 4, tag, "0123456789", 10, err));
    assert_ok(store_put_use(txn, 4, DAY, 0.5f, err));
    assert_ok(store_forget(txn, &gone, 1, NULL, err));
    assert_ok(store_commit(txn, err));
    assert_ok(store_scrub(s, err));
    store_close(s);
}

static base_status open_and_close(const char *path, store *s)
{
    store_options options = {0};
    (void)s;
    store *opened = NULL;
    base_status status = store_open(path, &options, &opened, NULL);
    if (status == BASE_OK) {
        store_close(opened);
    }
    return status;
}

static bool visit_none(void *argument, const store_view *view)
{
    (void)argument;
    return view->id > 0;
}

static base_status read_all(const char *path, store *s)
{
    store_episode e;
    store_brief brief;
    store_stats stats;
    store_text_hit hits[4];
    uint64_t id = 4, *ids, damaged;
    uint8_t tag[32] = {1};
    size_t count;
    void *data;
    (void)path;
    base_status status = store_get(s, 4, &e, NULL);
    if (status == BASE_OK) {
        store_episode_free(&e);
        status = store_get_briefs(s, &id, 1, DAY, &brief, NULL);
    }
    if (status == BASE_OK) {
        status = store_get_kv(s, 4, tag, &data, &count, NULL);
    }
    if (status == BASE_OK) {
        base_free(data);
        status = store_scan(s, 0, visit_none, NULL, &damaged, NULL);
    }
    if (status == BASE_OK) {
        status = store_forgotten(s, 0, &ids, &count, NULL);
    }
    if (status == BASE_OK) {
        base_free(ids);
        status = store_document_episodes(s, 1, 0, &ids, &count, NULL);
    }
    if (status == BASE_OK) {
        base_free(ids);
        status = store_select(s, "w", BASE_TIME_NONE, BASE_TIME_MAX, &ids, &count, NULL);
    }
    if (status == BASE_OK) {
        base_free(ids);
        status = store_get_stats(s, &stats, NULL);
    }
    if (status == BASE_OK) {
        store_stats_free(&stats);
        status = store_search_text(s, "red blue things", 15, BASE_TIME_MAX, 4, hits, &count, NULL);
        if (status == BASE_OK) {
            assert_int_equal(count, 4);
        }
    }
    return status;
}

static base_status write_and_abort(const char *path, store *s)
{
    static const uint8_t tag[32] = {2};
    store_new_span spans[SPANS_MAX];
    store_new_document doc = cut_document("w", "a", "One red thing.|New.|Newer.", 3 * DAY, spans);
    store_txn *txn;
    store_put_result result;
    store_forget_receipt receipt;
    uint64_t first = 0, gone = 5;
    size_t count;
    float vector[2] = {1.0f, 0.0f};
    (void)path;
    spans[0].vector = vector;
    doc.vector_dim = 2;
    base_status status = store_begin(s, DAY, &txn, NULL);
    if (status != BASE_OK) {
        return status;
    }
    status = store_put_document(txn, &doc, &result, &first, &count, NULL);
    if (status == BASE_OK) {
        status = store_put_use(txn, first, DAY, 0.5f, NULL);
    }
    if (status == BASE_OK) {
        status = store_put_kv(txn, first, tag, "abc", 3, NULL);
    }
    if (status == BASE_OK) {
        status = store_put_half_life(txn, "w", 60.0, 1, NULL);
    }
    if (status == BASE_OK) {
        status = store_forget(txn, &gone, 1, &receipt, NULL);
    }
    store_abort(txn);
    return status;
}

static base_status write_and_commit(const char *path, store *s)
{
    static int64_t day = 10;
    store_new_span spans[SPANS_MAX];
    store_new_document doc = cut_document("w", "b", "Some text.|And more.", day++ * DAY, spans);
    store_txn *txn;
    store_put_result result;
    uint64_t first;
    size_t count;
    (void)path;
    base_status status = store_begin(s, DAY, &txn, NULL);
    if (status != BASE_OK) {
        return status;
    }
    status = store_put_document(txn, &doc, &result, &first, &count, NULL);
    if (status != BASE_OK) {
        store_abort(txn);
        return status;
    }
    return store_commit(txn, NULL);
}

/* Its child makes most of the allocations: there is no counting them here. */
static void fail_in_verify(const char *path)
{
    size_t refused = 0;
    for (size_t nth = 1; nth < 80; nth++) {
        store_verify_report report = {0};
        base_mem_fail_at(nth);
        base_status status = store_verify(path, false, &report, NULL);
        base_mem_fail_at(0);
        if (status == BASE_OK && report.count > 0) {
            fail_msg("allocation %zu: taken for damage: %s", nth, report.problems[0].kind);
        }
        assert_true(status == BASE_OK || status == BASE_NO_MEMORY);
        refused += status == BASE_NO_MEMORY;
        base_free(report.problems);
    }
    assert_in_range(refused, 3, 78);
}

static base_status scrub(const char *path, store *s)
{
    (void)path;
    return store_scrub(s, NULL);
}

/* Goal: see the head of the file; reading. */
static void test_store_reading_survives_lack_of_memory(void **state)
{
    fill(*state);
    assert_true(fail_each(*state, read_all, false) > 10);
    assert_true(fail_each(*state, open_and_close, true) > 2);
    fail_in_verify(*state);
    assert_verifies(*state, 4);
}

/* Goal: see the head of the file; writing. What a failed commit left is all or nothing. */
static void test_store_writing_survives_lack_of_memory(void **state)
{
    fill(*state);
    assert_true(fail_each(*state, write_and_abort, false) > 10);
    assert_true(fail_each(*state, write_and_commit, false) > 5);
    fail_each(*state, scrub, false);
    store *s = open_store(*state);
    store_stats stats;
    assert_ok(store_get_stats(s, &stats, err));
    uint64_t episodes = stats.episodes;
    store_stats_free(&stats);
    store_text_hit hits[4];
    assert_true(find_text(s, "some text", BASE_TIME_MAX, hits, 4) > 0);
    store_close(s);
    assert_verifies(*state, episodes);
}

#define WITH_FOLDER(test) cmocka_unit_test_setup_teardown(test, make_folder, drop_folder)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_FOLDER(test_store_reading_survives_lack_of_memory),
        WITH_FOLDER(test_store_writing_survives_lack_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
