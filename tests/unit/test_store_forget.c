/* Forgetting: gone from every record, from the search, and after a scrub from every byte of the
 * folder. */
#include <sys/wait.h>

#include "store_testing.h"

static bool file_has(const char *path, const char *wanted)
{
    size_t size = strlen(wanted);
    FILE *file = fopen(path, "rb");
    if (!file) {
        return false;
    }
    fseek(file, 0, SEEK_END);
    size_t length = (size_t)ftell(file);
    rewind(file);
    char *bytes = test_malloc(length + 1);
    size_t got = fread(bytes, 1, length, file);
    fclose(file);
    bool found = false;
    for (size_t i = 0; i + size <= got && !found; i++) {
        found = memcmp(bytes + i, wanted, size) == 0;
    }
    test_free(bytes);
    return found;
}

/* Does any file below folder hold these bytes? */
static bool folder_has(const char *folder, const char *wanted)
{
    DIR *stream = opendir(folder);
    struct dirent *entry;
    bool found = false;
    while (stream && (entry = readdir(stream)) && !found) {
        char path[4096];
        struct stat info;
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        if (entry->d_name[0] != '.' && lstat(path, &info) == 0) {
            found = S_ISDIR(info.st_mode) ? folder_has(path, wanted) : file_has(path, wanted);
        }
    }
    if (stream) {
        closedir(stream);
    }
    return found;
}

static store_forget_receipt forget(store *s, const uint64_t *ids, size_t count)
{
    store_txn *txn;
    store_forget_receipt receipt = {0};
    assert_ok(store_begin(s, 99 * DAY, &txn, err));
    assert_ok(store_forget(txn, ids, count, &receipt, err));
    assert_ok(store_commit(txn, err));
    return receipt;
}

/* Some documents around one with a secret: words that FTS keeps as terms, a title, an id, a vector,
 * KV. */
static uint64_t put_secret(store *s)
{
    store_new_span spans[SPANS_MAX];
    char id[16], text[64];
    for (int i = 0; i < 30; i++) {
        snprintf(id, sizeof id, "d%d", i);
        snprintf(text, sizeof text, "Plain fact %d.|More of %d.", i, i);
        put_text(s, "w", id, text, DAY, NULL);
    }
    float vector[4] = {0.5f, 0.5f, 0.5f, 0.5f};
    uint8_t tag[32] = {3};
    store_new_document doc = cut_document(
        "private", "secretdocid", "The zanzibarcode is 0815.|It opens the vaultdoor.", DAY, spans);
    doc.title = "Hushhushtitle";
    doc.vector_dim = 4;
    doc.encoder = "e";
    spans[0].vector = spans[1].vector = vector;
    store_txn *txn;
    store_put_result result;
    uint64_t first;
    size_t count;
    assert_ok(store_begin(s, DAY, &txn, err));
    assert_ok(store_put_document(txn, &doc, &result, &first, &count, err));
    assert_ok(store_put_kv(txn, first, tag, "kvkvkvzanzibarkvkvkv", 20, err));
    assert_ok(store_put_use(txn, first, DAY, 0.5f, err));
    assert_ok(store_commit(txn, err));
    for (int i = 30; i < 60; i++) {
        snprintf(id, sizeof id, "d%d", i);
        snprintf(text, sizeof text, "Plain fact %d.|More of %d.", i, i);
        put_text(s, "w", id, text, DAY, NULL);
    }
    return first;
}

/* Goal: forget and scrub leave no byte of text, title, id, KV or index term in any file. Method:
 * search all files of the folder, with the store open and after closing it. */
static void test_store_forget_and_scrub_leave_no_bytes(void **state)
{
    static const char *const traces[] = {"zanzibarcode",  "vaultdoor",     "zanzibar",
                                         "Hushhushtitle", "hushhushtitle", "secretdocid"};
    store *s = open_store(*state);
    uint64_t first = put_secret(s), ids[2] = {first, first + 1};
    assert_true(folder_has(*state, "zanzibarcode"));
    store_forget_receipt receipt = forget(s, ids, 2);
    assert_int_equal(receipt.episodes, 2);
    assert_int_equal(receipt.vectors, 2);
    assert_int_equal(receipt.kv, 1);
    assert_int_equal(receipt.fts, 2);
    assert_true(receipt.bytes > 100);
    assert_ok(store_scrub(s, err));
    for (size_t i = 0; i < sizeof traces / sizeof *traces; i++) {
        if (folder_has(*state, traces[i])) {
            fail_msg("\"%s\" is still there", traces[i]);
        }
    }
    store_episode e;
    store_text_hit hit;
    assert_int_equal(store_get(s, first, &e, NULL), BASE_NOT_FOUND);
    assert_int_equal(find_text(s, "zanzibarcode", BASE_TIME_MAX, &hit, 1), 0);
    assert_int_equal(find_text(s, "fact 44", BASE_TIME_MAX, &hit, 1), 1);
    put_text(s, "w", "later", "Life goes on.", DAY, NULL);
    store_close(s);
    for (size_t i = 0; i < sizeof traces / sizeof *traces; i++) {
        assert_false(folder_has(*state, traces[i]));
    }
    assert_verifies(*state, 121);
}

/* Goal: a scrub that never came (killed after the forget) is done by the next open. */
static void test_store_next_open_finishes_the_scrub(void **state)
{
    store *s = open_store(*state);
    uint64_t first = put_secret(s), ids[2] = {first, first + 1};
    forget(s, ids, 2);
    store_close(s);
    s = open_store(*state);
    assert_false(folder_has(*state, "zanzibarcode"));
    assert_false(folder_has(*state, "vaultdoor"));
    store_close(s);
    assert_verifies(*state, 120);
}

/* Goal: an aborted forget (dry run) tells the receipt and changes nothing. */
static void test_store_aborted_forget_changes_nothing(void **state)
{
    store *s = open_store(*state);
    uint64_t first = put_secret(s);
    store_txn *txn;
    store_forget_receipt receipt;
    assert_ok(store_begin(s, DAY, &txn, err));
    assert_ok(store_forget(txn, &first, 1, &receipt, err));
    store_abort(txn);
    assert_int_equal(receipt.episodes, 1);
    store_episode e = get_episode(s, first);
    assert_string_equal(e.title, "Hushhushtitle");
    store_episode_free(&e);
    store_close(s);
    assert_verifies(*state, 122);
}

/* Goal: forgetting one sentence keeps the rest of its document; what follows by commit learns the
 * id; the same document again does not bring it back. */
static void test_store_forget_one_span_keeps_the_document(void **state)
{
    store *s = open_store(*state);
    store_put_result result;
    put_text(s, "w", "d", "Keep this.|Drop this.|Keep that.", DAY, NULL);
    uint64_t before = store_last_commit(s), id = 2, *ids;
    size_t count;
    forget(s, &id, 1);
    assert_ok(store_forgotten(s, before, &ids, &count, err));
    assert_int_equal(count, 1);
    assert_int_equal(ids[0], 2);
    base_free(ids);
    assert_ok(store_forgotten(s, before + 1, &ids, &count, err));
    assert_int_equal(count, 0);
    assert_ok(store_document_episodes(s, 1, 0, &ids, &count, err));
    assert_int_equal(count, 2);
    base_free(ids);
    put_text(s, "w", "d", "Keep this.|Drop this.|Keep that.", DAY, &result);
    assert_int_equal(result, STORE_PUT_UNCHANGED);
    store_stats stats;
    assert_ok(store_get_stats(s, &stats, err));
    assert_int_equal(stats.episodes, 2);
    assert_int_equal(stats.sources[0].episodes, 2);
    store_stats_free(&stats);
    assert_ok(store_scrub(s, err));
    store_close(s);
    assert_verifies(*state, 2);
}

/* Goal: forgetting the replacement leaves the old version closed, with no link to what is gone. */
static void test_store_forget_the_newest_keeps_the_old_closed(void **state)
{
    store *s = open_store(*state);
    put_text(s, "w", "d", "Old.", DAY, NULL);
    uint64_t id = put_text(s, "w", "d", "New.", 2 * DAY, NULL);
    forget(s, &id, 1);
    store_episode e = get_episode(s, 1);
    assert_int_equal(e.superseded_at_us, 2 * DAY);
    assert_int_equal(e.superseded_by, 0);
    store_episode_free(&e);
    id = 1;
    forget(s, &id, 1);
    store_stats stats;
    assert_ok(store_get_stats(s, &stats, err));
    assert_int_equal(stats.episodes + stats.documents + stats.versions + stats.superseded, 0);
    assert_int_equal(stats.source_count, 0);
    store_stats_free(&stats);
    assert_int_equal(put_text(s, "w", "d", "Old.", DAY, NULL), 3); /* ids are never used again */
    assert_ok(store_scrub(s, err));
    store_close(s);
    assert_verifies(*state, 1);
}

/* Goal: another process that has the store open sees the scrubbed files at its next call, and can
 * write. */
static void test_store_scrub_is_seen_by_other_processes(void **state)
{
    store *s = open_store(*state);
    uint64_t first = put_secret(s), ids[2] = {first, first + 1};
    store_close(s);
    int to_child[2], to_parent[2];
    char byte = 'x';
    assert_int_equal(pipe(to_child), 0);
    assert_int_equal(pipe(to_parent), 0);
    pid_t child = fork();
    if (child == 0) {
        store *other = NULL;
        store_options options = {0};
        store_episode e;
        store_text_hit hit;
        size_t count;
        store_txn *txn;
        store_new_span span = {.end_byte = 4};
        store_new_document doc = {.source = "c",
                                  .text = "Hey.",
                                  .text_size = 4,
                                  .observed_at_us = DAY,
                                  .valid_from_us = BASE_TIME_NONE,
                                  .valid_to_us = BASE_TIME_NONE,
                                  .spans = &span,
                                  .span_count = 1};
        store_put_result result;
        uint64_t id;
        int code = 0;
        if (store_open(*state, &options, &other, NULL) != BASE_OK) {
            _exit(1);
        }
        if (store_get(other, first, &e, NULL) != BASE_OK) {
            _exit(2);
        }
        store_episode_free(&e);
        if (write(to_parent[1], &byte, 1) != 1 || read(to_child[0], &byte, 1) != 1) {
            _exit(3);
        }
        if (store_get(other, first, &e, NULL) != BASE_NOT_FOUND) {
            _exit(4);
        }
        if (store_search_text(other, "zanzibarcode", 12, BASE_TIME_MAX, 1, &hit, &count, NULL) !=
                BASE_OK ||
            count != 0) {
            _exit(5);
        }
        if (store_begin(other, DAY, &txn, NULL) != BASE_OK ||
            store_put_document(txn, &doc, &result, &id, &count, NULL) != BASE_OK ||
            store_commit(txn, NULL) != BASE_OK) {
            code = 6;
        }
        store_close(other);
        _exit(code);
    }
    assert_int_equal(read(to_parent[0], &byte, 1), 1);
    s = open_store(*state);
    forget(s, ids, 2);
    assert_ok(store_scrub(s, err));
    assert_int_equal(write(to_child[1], &byte, 1), 1);
    int code;
    assert_int_equal(waitpid(child, &code, 0), child);
    assert_true(WIFEXITED(code));
    assert_int_equal(WEXITSTATUS(code), 0);
    store_text_hit hit;
    assert_int_equal(find_text(s, "hey", BASE_TIME_MAX, &hit, 1), 1);
    store_close(s);
    assert_false(folder_has(*state, "zanzibarcode"));
    assert_verifies(*state, 121);
    for (int i = 0; i < 2; i++) {
        close(to_child[i]);
        close(to_parent[i]);
    }
}

#define WITH_FOLDER(test) cmocka_unit_test_setup_teardown(test, make_folder, drop_folder)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_FOLDER(test_store_forget_and_scrub_leave_no_bytes),
        WITH_FOLDER(test_store_next_open_finishes_the_scrub),
        WITH_FOLDER(test_store_aborted_forget_changes_nothing),
        WITH_FOLDER(test_store_forget_one_span_keeps_the_document),
        WITH_FOLDER(test_store_forget_the_newest_keeps_the_old_closed),
        WITH_FOLDER(test_store_scrub_is_seen_by_other_processes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
