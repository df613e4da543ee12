/* --kv-budget: what is worth least goes first, and nothing but keys and values goes. */
#include "store_testing.h"

static uint8_t tag[32] = {9};

static bool has_kv(store *s, uint64_t id)
{
    void *data = NULL;
    size_t size = 0;
    base_status status = store_get_kv(s, id, tag, &data, &size, NULL);
    if (status == BASE_OK) {
        base_free(data);
    }
    return status == BASE_OK;
}

static store_trim_receipt trim(store *s, uint64_t budget, int64_t now_us)
{
    store_txn *txn;
    store_trim_receipt receipt;
    assert_ok(store_begin(s, now_us, &txn, err));
    assert_ok(store_trim_kv(txn, budget, &receipt, err));
    assert_ok(store_commit(txn, err));
    return receipt;
}

/* Five current episodes and a superseded one, each with 1,000 bytes of KV; 2 and 4 were used. */
static store *fill(const char *path)
{
    store *s = open_store(path);
    char bytes[1000];
    memset(bytes, 'k', sizeof bytes);
    put_text(s, "w", "old", "It was so.", DAY, NULL);
    put_text(s, "w", "a", "One.|Two.|Three.|Four.", 2 * DAY, NULL);
    put_text(s, "w", "old", "It is otherwise.", 3 * DAY, NULL);
    store_txn *txn;
    assert_ok(store_begin(s, 4 * DAY, &txn, err));
    for (uint64_t id = 1; id <= 6; id++) {
        assert_ok(store_put_kv(txn, id, tag, bytes, sizeof bytes, err));
    }
    assert_ok(store_put_use(txn, 2, 4 * DAY, 0.5f, err));
    assert_ok(store_put_use(txn, 4, 4 * DAY, 0.5f, err));
    assert_ok(store_commit(txn, err));
    return s;
}

static void test_the_superseded_goes_first_then_the_unused_the_used_last(void **state)
{
    const char *path = *state;
    store *s = fill(path);
    store_stats stats;
    store_trim_receipt receipt = trim(s, 6000, 5 * DAY);
    assert_int_equal(receipt.entries, 0); /* within the budget */
    receipt = trim(s, 5600, 5 * DAY);
    assert_int_equal(receipt.entries, 1);
    assert_int_equal(receipt.bytes, 1000);
    assert_false(has_kv(s, 1));
    receipt = trim(s, 2999, 5 * DAY); /* 9/10 of it hold two */
    assert_int_equal(receipt.entries, 3);
    for (uint64_t id = 1; id <= 6; id++) {
        assert_int_equal(has_kv(s, id), id == 2 || id == 4);
    }
    assert_ok(store_get_stats(s, &stats, err));
    assert_int_equal(stats.kv_entries, 2);
    assert_int_equal(stats.bytes_kv, 2000);
    assert_int_equal(stats.episodes, 6);
    store_stats_free(&stats);
    receipt = trim(s, 0, 5 * DAY);
    assert_int_equal(receipt.entries, 2);
    store_episode e = get_episode(s, 2);
    assert_int_equal(e.text_size, strlen("One.|"));
    store_episode_free(&e);
    store_close(s);
    assert_verifies(path, 6);
}

static void test_an_aborted_trim_leaves_all(void **state)
{
    store *s = fill(*state);
    store_txn *txn;
    assert_ok(store_begin(s, 5 * DAY, &txn, err));
    assert_ok(store_trim_kv(txn, 0, NULL, err));
    store_abort(txn);
    for (uint64_t id = 1; id <= 6; id++) {
        assert_true(has_kv(s, id));
    }
    store_close(s);
    assert_verifies(*state, 6);
}

#define WITH_FOLDER(test) cmocka_unit_test_setup_teardown(test, make_folder, drop_folder)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_FOLDER(test_the_superseded_goes_first_then_the_unused_the_used_last),
        WITH_FOLDER(test_an_aborted_trim_leaves_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
