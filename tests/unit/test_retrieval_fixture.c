/* A store written by an earlier version is opened, verified, searched and written to by this one.
 *
 * tests/fixtures/store-1 was written by the program below at format version 1 and is never written
 * anew: a change of formats adds a folder store-2 beside it, and keeps the first readable.
 *     test_retrieval_fixture --write FOLDER
 * It holds versions of a document, a closed episode of another, one that was forgotten, uses, keys
 * and values, half-lives, a vector index and two files of a conversation.
 */
#include "base/file.h"
#include "retrieval/retrieval.h"
#include "store/sessions.h"
#include "store_testing.h"
#include "vector_testing.h"

#define DIM 8
#define ENCODER "fixture:1"

static const uint8_t tag[32] = "fixture";
static const int64_t later = 30 * DAY;

static uint64_t put(store_txn *txn, const char *id, const char *text, int64_t observed_at_us,
                    uint64_t seed)
{
    float vector[DIM];
    lean_vector(seed, vector, DIM);
    store_new_span span = {.end_byte = strlen(text), .section = "Tides", .vector = vector};
    store_new_document doc = {.source = "harbour",
                              .external_id = id,
                              .title = "Log",
                              .text = text,
                              .text_size = strlen(text),
                              .observed_at_us = observed_at_us,
                              .valid_from_us = BASE_TIME_NONE,
                              .valid_to_us = BASE_TIME_NONE,
                              .spans = &span,
                              .span_count = 1,
                              .vector_dim = DIM,
                              .encoder = ENCODER};
    store_put_result result;
    uint64_t first = 0;
    size_t count = 0;
    assert_ok(store_put_document(txn, &doc, &result, &first, &count, err));
    return first;
}

/* --- writing it ------------------------------------------------------------------------------- */

static void write_fixture(const char *folder)
{
    store *s = NULL;
    store_txn *txn;
    bool changed;
    retrieval *r = NULL;
    store_forget_receipt receipt;
    store_options options = {.create = true};
    assert_ok(store_open(folder, &options, &s, err));
    assert_ok(store_begin(s, 10 * DAY, &txn, err));
    put(txn, "crane", "The crane lifts four tonnes.", DAY, 1);
    put(txn, "pilot", "The pilot is called Wim.", DAY, 2);
    uint64_t gone = put(txn, "secret", "The safe opens with 4711.", DAY, 3);
    put(txn, "night", "At night the pilot is called Bo.", 2 * DAY, 4);
    assert_ok(store_commit(txn, err));
    assert_ok(store_begin(s, 11 * DAY, &txn, err));
    put(txn, "crane", "The crane lifts nine tonnes.", 5 * DAY, 5);
    assert_ok(store_put_superseded(txn, 2, 4, &changed, err));
    assert_ok(store_put_use(txn, 4, 11 * DAY, 0.25f, err));
    assert_ok(store_put_kv(txn, 4, tag, "keys and values", 15, err));
    assert_ok(store_put_half_life(txn, "harbour", 86400.0 * 365, 3, err));
    assert_ok(store_commit(txn, err));
    assert_ok(store_begin(s, 12 * DAY, &txn, err));
    assert_ok(store_forget(txn, &gone, 1, &receipt, err));
    assert_ok(store_commit(txn, err));
    assert_ok(store_scrub(s, err));
    assert_ok(store_session_put(s, "chat/pier", 0, store_last_commit(s), "log", 3, err));
    assert_ok(store_session_put(s, "chat/pier", 1, store_last_commit(s), "state", 5, err));
    assert_ok(retrieval_open(s, DIM, &r, err));
    assert_ok(retrieval_flush(r, true, err));
    retrieval_close(r);
    store_close(s);
}

/* --- reading it ------------------------------------------------------------------------------- */

static void copy_folder(const char *from, const char *to)
{
    char **files = NULL;
    size_t count = 0;
    assert_ok(base_dir_walk(from, &files, &count, err));
    for (size_t i = 0; i < count; i++) {
        char path[8192];
        base_buffer data = {0};
        snprintf(path, sizeof path, "%s%s", to, files[i] + strlen(from));
        assert_ok(base_file_read(files[i], 1 << 20, &data, err));
        *strrchr(path, '/') = 0;
        assert_ok(base_dir_create(path, err));
        path[strlen(path)] = '/';
        assert_ok(base_file_replace(path, data.data ? data.data : "", data.size, 0600, err));
        base_buffer_free(&data);
        base_free(files[i]);
    }
    base_free(files);
}

static void assert_index_verifies(store *s)
{
    store_verify_report report = {0};
    assert_ok(retrieval_verify(s, DIM, false, &report, err));
    assert_int_equal(report.count, 0);
    base_free(report.problems);
}

/* The best hit for a text and the vector of a seed. */
static uint64_t best(retrieval *r, const char *text, uint64_t seed, int64_t as_of_us)
{
    float vector[DIM];
    retrieval_hit hits[4];
    size_t count = 0;
    lean_vector(seed, vector, DIM);
    retrieval_query query = {.text = text,
                             .text_size = strlen(text),
                             .vector = vector,
                             .now_us = later,
                             .as_of_us = as_of_us,
                             .about_us = BASE_TIME_NONE,
                             .k = 4,
                             .use_strength = true,
                             .use_bm25 = true};
    assert_ok(retrieval_search(r, &query, hits, &count, err));
    assert_true(count > 0);
    return hits[0].id;
}

static void check_episode(store *s, uint64_t id, const char *text, int64_t observed_at_us,
                          int64_t superseded_at_us, uint64_t superseded_by)
{
    store_episode e;
    float vector[DIM];
    assert_ok(store_get(s, id, &e, err));
    lean_vector(id, vector, DIM); /* the seeds are the ids */
    assert_string_equal(e.text, text);
    assert_string_equal(e.source, "harbour");
    assert_string_equal(e.title, "Log");
    assert_string_equal(e.section, "Tides");
    assert_int_equal(e.observed_at_us, observed_at_us);
    assert_int_equal(e.superseded_at_us, superseded_at_us);
    assert_int_equal(e.superseded_by, superseded_by);
    assert_int_equal(e.vector_dim, DIM);
    for (size_t i = 0; i < DIM; i++) {
        assert_true(fabsf(e.vector[i] - vector[i]) < 1e-6f); /* another libm may round otherwise */
    }
    store_episode_free(&e);
}

static void check_content(store *s)
{
    void *kv = NULL;
    size_t size = 0;
    store_stats stats;
    store_episode forgotten;
    base_buffer state = {0};
    check_episode(s, 1, "The crane lifts four tonnes.", DAY, 5 * DAY, 5);
    check_episode(s, 2, "The pilot is called Wim.", DAY, 2 * DAY, 4);
    check_episode(s, 4, "At night the pilot is called Bo.", 2 * DAY, BASE_TIME_MAX, 0);
    check_episode(s, 5, "The crane lifts nine tonnes.", 5 * DAY, BASE_TIME_MAX, 0);
    assert_int_equal(store_get(s, 3, &forgotten, NULL), BASE_NOT_FOUND);
    assert_ok(store_get_kv(s, 4, tag, &kv, &size, err));
    assert_int_equal(size, 15);
    assert_memory_equal(kv, "keys and values", size);
    base_free(kv);
    assert_ok(store_get_stats(s, &stats, err));
    assert_int_equal(stats.uses, 1);
    assert_int_equal(stats.source_count, 1);
    assert_true(stats.sources[0].half_life_s == 86400.0 * 365);
    store_stats_free(&stats);
    assert_ok(store_session_get(s, "chat/pier", 1, &state, err));
    assert_int_equal(state.size, 5);
    base_buffer_free(&state);
}

/* Goal: everything in it is read as it was written; new commits, a lost catalogue and a lost index
 * are caught up with. */
static void test_the_store_of_an_earlier_version_serves(void **state)
{
    const char *folder = *state;
    char path[8192];
    store *s = NULL;
    store_txn *txn;
    retrieval *r = NULL;
    store_options options = {0};
    copy_folder(EIDETIC_SOURCE_DIR "/tests/fixtures/store-1", folder);
    assert_verifies(folder, 4);
    assert_ok(store_open(folder, &options, &s, err));
    check_content(s);
    assert_ok(retrieval_open(s, DIM, &r, err));
    assert_int_equal(best(r, "what does the crane lift", 5, later), 5);
    assert_int_equal(best(r, "what does the crane lift", 1, 3 * DAY), 1);
    assert_ok(store_begin(s, 20 * DAY, &txn, err));
    put(txn, "crane", "The crane lifts twelve tonnes.", 15 * DAY, 6);
    assert_ok(store_commit(txn, err));
    assert_ok(retrieval_sync(r, err));
    assert_int_equal(best(r, "what does the crane lift", 6, later), 6);
    assert_ok(retrieval_flush(r, true, err));
    assert_index_verifies(s);
    retrieval_close(r);
    store_close(s);
    assert_verifies(folder, 5);

    snprintf(path, sizeof path, "%s/catalog.sqlite", folder);
    assert_int_equal(unlink(path), 0);
    snprintf(path, sizeof path, "%s/index", folder);
    remove_tree(path);
    assert_ok(store_open(folder, &options, &s, err));
    assert_ok(retrieval_open(s, DIM, &r, err));
    assert_int_equal(best(r, "who is called at night", 4, later), 4);
    check_episode(s, 5, "The crane lifts nine tonnes.", 5 * DAY, 15 * DAY, 6);
    retrieval_close(r);
    store_close(s);
    assert_verifies(folder, 5);
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "--write") == 0) {
        write_fixture(argv[2]);
        return 0;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_the_store_of_an_earlier_version_serves, make_folder,
                                        drop_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
