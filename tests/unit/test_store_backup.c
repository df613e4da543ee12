/* Backup and restore: a whole copy of one moment or none, nothing overwritten, nothing forgotten
 * comes along, damage is found before it is restored. */
#include <pthread.h>
#include <sys/stat.h>

#include "base/file.h"
#include "store_testing.h"

typedef struct paths {
    char store[4096], backup[4096], restored[4096];
} paths;

static paths paths_in(const char *folder)
{
    paths p;
    snprintf(p.store, sizeof p.store, "%.4000s/store", folder);
    snprintf(p.backup, sizeof p.backup, "%.4000s/backup/", folder); /* the slash does no harm */
    snprintf(p.restored, sizeof p.restored, "%.4000s/restored", folder);
    return p;
}

static void fill(store *s)
{
    store_txn *txn;
    uint8_t tag[32] = {1};
    put_text(s, "town", "pool", "The pool opens at nine.|It is heated.", 10 * DAY, NULL);
    put_text(s, "town", "pool", "The pool opens at ten.|It is heated.", 20 * DAY, NULL);
    put_text(s, "port", "ferry", "The ferry leaves at dawn.", 15 * DAY, NULL);
    assert_ok(store_begin(s, 30 * DAY, &txn, err));
    assert_ok(store_put_use(txn, 3, 25 * DAY, 0.5f, err));
    assert_ok(store_put_kv(txn, 3, tag, "keys", 4, err));
    assert_ok(store_commit(txn, err));
}

/* Same episodes, states, uses and KV? */
static void assert_same(store *a, store *b)
{
    uint64_t *ids, *other;
    size_t count, other_count;
    assert_ok(store_select(a, NULL, BASE_TIME_NONE, BASE_TIME_MAX, &ids, &count, err));
    assert_ok(store_select(b, NULL, BASE_TIME_NONE, BASE_TIME_MAX, &other, &other_count, err));
    assert_int_equal(count, other_count);
    for (size_t i = 0; i < count; i++) {
        store_episode x = get_episode(a, ids[i]), y = get_episode(b, other[i]);
        assert_int_equal(x.id, y.id);
        assert_string_equal(x.text, y.text);
        assert_int_equal(x.superseded_at_us, y.superseded_at_us);
        assert_int_equal(x.superseded_by, y.superseded_by);
        assert_int_equal(x.use_count, y.use_count);
        store_episode_free(&x);
        store_episode_free(&y);
    }
    base_free(ids);
    base_free(other);
}

/* Goal: what comes back is what was there, and the copy is only for its owner's eyes. */
static void test_store_backup_and_restore_give_the_same_store(void **state)
{
    paths p = paths_in(*state);
    store_backup_receipt receipt, again;
    struct stat info;
    char data[5000];
    uint8_t tag[32] = {1};
    void *kv;
    size_t size;
    store *s = open_store(p.store);
    fill(s);
    assert_ok(store_backup(s, p.backup, &receipt, err));
    assert_int_equal(receipt.episodes, 5);
    assert_int_equal(receipt.documents, 2);
    assert_int_equal(receipt.last_commit, store_last_commit(s));
    assert_int_equal(stat(p.backup, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0700);
    snprintf(data, sizeof data, "%s/data.mdb", p.backup);
    assert_int_equal(stat(data, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0600);
    assert_int_equal(info.st_size, receipt.bytes);
    assert_ok(store_restore(p.backup, p.restored, &again, err));
    assert_int_equal(again.episodes, 5);
    store *r = open_store(p.restored);
    assert_same(s, r);
    store_text_hit hits[4];
    assert_int_equal(find_text(r, "ferry", BASE_TIME_MAX, hits, 4), 1);
    assert_ok(store_get_kv(r, 3, tag, &kv, &size, err));
    assert_memory_equal(kv, "keys", 4);
    base_free(kv);
    put_text(r, "town", "pool", "The pool is closed.", 40 * DAY, NULL); /* it lives on */
    store_close(s);
    store_close(r);
    assert_verifies(p.restored, 6);
}

/* Goal: a folder with anything in it is left alone, by backup and by restore. */
static void test_store_backup_never_overwrites(void **state)
{
    paths p = paths_in(*state);
    store_backup_receipt receipt;
    base_error error = {0};
    store *s = open_store(p.store);
    fill(s);
    char file[6000], path[5000];
    assert_int_equal(mkdir(p.backup, 0700), 0);
    assert_ok(store_backup(s, p.backup, &receipt, err)); /* empty: fine */
    assert_int_equal(store_backup(s, p.backup, &receipt, &error), BASE_EXISTS);
    assert_non_null(strstr(error.text, "not empty"));
    assert_int_equal(store_restore(p.backup, p.store, &receipt, &error), BASE_EXISTS);
    snprintf(file, sizeof file, "%s/file", (char *)*state);
    assert_ok(base_file_replace(file, "mine", 4, 0600, err));
    assert_int_equal(store_backup(s, file, &receipt, &error), BASE_EXISTS);
    /* a folder of somebody else where the partial copy would go */
    snprintf(path, sizeof path, "%s/other.partial", (char *)*state);
    assert_int_equal(mkdir(path, 0700), 0);
    snprintf(file, sizeof file, "%s/notes", path);
    assert_ok(base_file_replace(file, "mine", 4, 0600, err));
    snprintf(path, sizeof path, "%s/other", (char *)*state);
    assert_int_equal(store_backup(s, path, &receipt, &error), BASE_EXISTS);
    assert_int_equal(access(file, R_OK), 0);
    store_close(s);
}

/* Goal: a damaged backup is refused, named, and leaves nothing behind; a missing one is named. */
static void test_store_restore_refuses_a_damaged_backup(void **state)
{
    paths p = paths_in(*state);
    store_backup_receipt receipt;
    base_error error = {0};
    base_buffer bytes = {0};
    char data[5000];
    store *s = open_store(p.store);
    fill(s);
    assert_ok(store_backup(s, p.backup, &receipt, err));
    store_close(s);
    snprintf(data, sizeof data, "%s/data.mdb", p.backup);
    assert_ok(base_file_read(data, 1 << 24, &bytes, err));
    char *at = bytes_in(&bytes, "ferry leaves", 12);
    assert_non_null(at);
    at[0] ^= 1;
    assert_ok(base_file_replace(data, bytes.data, bytes.size, 0600, err));
    assert_int_equal(store_restore(p.backup, p.restored, &receipt, &error), BASE_CORRUPT);
    assert_non_null(strstr(error.text, "data.mdb"));
    assert_int_equal(access(p.restored, F_OK), -1);
    assert_int_equal(store_restore("no/such/backup", p.restored, &receipt, &error), BASE_NOT_FOUND);
    base_buffer_free(&bytes);
}

/* Goal: a forgotten text is in no byte of a backup, though the store was not scrubbed yet. */
static void test_store_backup_holds_nothing_forgotten(void **state)
{
    paths p = paths_in(*state);
    store_backup_receipt receipt;
    store_forget_receipt gone;
    store_txn *txn;
    base_buffer bytes = {0};
    char data[5000];
    store *s = open_store(p.store);
    fill(s);
    uint64_t id = 5;
    assert_ok(store_begin(s, 50 * DAY, &txn, err));
    assert_ok(store_forget(txn, &id, 1, &gone, err));
    assert_ok(store_commit(txn, err));
    assert_ok(store_backup(s, p.backup, &receipt, err));
    store_close(s);
    snprintf(data, sizeof data, "%s/data.mdb", p.backup);
    assert_ok(base_file_read(data, 1 << 24, &bytes, err));
    assert_non_null(bytes_in(&bytes, "heated", 6));
    assert_null(bytes_in(&bytes, "ferry", 5));
    base_buffer_free(&bytes);
}

static void *write_on(void *argument)
{
    for (int i = 0; i < 40; i++) {
        char id[16];
        snprintf(id, sizeof id, "more %d", i);
        put_text(argument, "town", id, "One more paper.", 100 * DAY, NULL);
    }
    return NULL;
}

/* Goal: a backup taken amid writing is one moment: it verifies, holding a prefix of the commits. */
static void test_store_backup_while_writing_is_one_moment(void **state)
{
    paths p = paths_in(*state);
    store_backup_receipt receipt;
    pthread_t writer;
    store *s = open_store(p.store);
    fill(s);
    assert_int_equal(pthread_create(&writer, NULL, write_on, s), 0);
    for (int i = 0; i < 3; i++) {
        char backup[5000], restored[5000];
        snprintf(backup, sizeof backup, "%s/b%d", (char *)*state, i);
        snprintf(restored, sizeof restored, "%s/r%d", (char *)*state, i);
        assert_ok(store_backup(s, backup, &receipt, err));
        assert_ok(store_restore(backup, restored, &receipt, err));
        store *r = open_reader(restored);
        assert_int_equal(store_last_commit(r), receipt.last_commit);
        assert_int_equal(receipt.episodes, 5 + receipt.last_commit - 4);
        store_close(r);
    }
    pthread_join(writer, NULL);
    store_close(s);
}

#define in_folder(test) cmocka_unit_test_setup_teardown(test, make_folder, drop_folder)

int main(void)
{
    const struct CMUnitTest tests[] = {
        in_folder(test_store_backup_and_restore_give_the_same_store),
        in_folder(test_store_backup_never_overwrites),
        in_folder(test_store_restore_refuses_a_damaged_backup),
        in_folder(test_store_backup_holds_nothing_forgotten),
        in_folder(test_store_backup_while_writing_is_one_moment),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
