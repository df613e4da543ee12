/* The store through its public header: what is put comes back, across reopening, versions and
 * times. */
#include "store_testing.h"

/* Goal: every field comes back as it was put. Method: one document with all fields, read by id. */
static void test_store_gives_back_what_was_put(void **state)
{
    store *s = open_store(*state);
    const char *text = "Ada lived in London.|She wrote notes.| Ünïcödé too.";
    store_new_span spans[SPANS_MAX];
    float vectors[3][4] = {{1, 0, 0, 0}, {0, 1, 0, 0}, {0, 0, 0.6f, 0.8f}};
    store_new_document doc = cut_document("wiki", "ada", text, 100 * DAY, spans);
    doc.title = "Ada Lovelace";
    doc.valid_from_us = 90 * DAY;
    doc.valid_to_us = 900 * DAY;
    doc.kind = STORE_TURN_USER;
    doc.vector_dim = 4;
    doc.encoder = "mini 1234";
    spans[1].section = "Work";
    for (size_t i = 0; i < 3; i++) {
        spans[i].vector = vectors[i];
    }
    store_put_result result;
    assert_ok(store_peek_document(s, &doc, &result, err));
    assert_int_equal(result, STORE_PUT_NEW);
    store_txn *txn;
    uint64_t first;
    size_t count;
    assert_ok(store_begin(s, 200 * DAY, &txn, err));
    assert_ok(store_put_document(txn, &doc, &result, &first, &count, err));
    assert_ok(store_commit(txn, err));
    assert_int_equal(result, STORE_PUT_NEW);
    assert_int_equal(first, 1);
    assert_int_equal(count, 3);
    assert_int_equal(store_last_commit(s), 1);
    store_close(s);

    s = open_store(*state);
    store_episode e = get_episode(s, 2);
    assert_int_equal(e.id, 2);
    assert_int_equal(e.commit, 1);
    assert_int_equal(e.version, 1);
    assert_int_equal(e.ordinal, 1);
    assert_int_equal(e.start_byte, 21);
    assert_int_equal(e.end_byte, 38);
    assert_int_equal(e.kind, STORE_TURN_USER);
    assert_int_equal(e.observed_at_us, 100 * DAY);
    assert_int_equal(e.valid_from_us, 90 * DAY);
    assert_int_equal(e.valid_to_us, 900 * DAY);
    assert_int_equal(e.ingested_at_us, 200 * DAY);
    assert_string_equal(e.source, "wiki");
    assert_string_equal(e.external_id, "ada");
    assert_string_equal(e.title, "Ada Lovelace");
    assert_string_equal(e.section, "Work");
    assert_string_equal(e.text, "She wrote notes.|");
    assert_int_equal(e.text_size, strlen(e.text));
    assert_int_equal(e.vector_dim, 4);
    assert_memory_equal(e.vector, vectors[1], sizeof vectors[1]);
    assert_int_equal(e.superseded_at_us, BASE_TIME_MAX);
    assert_int_equal(e.superseded_by, 0);
    assert_int_equal(e.use_count, 0);
    store_episode_free(&e);
    store_episode missing;
    assert_int_equal(store_get(s, 4, &missing, NULL), BASE_NOT_FOUND);
    size_t dim;
    char *encoder, *name;
    assert_ok(store_vector_info(s, &dim, &encoder, err));
    assert_int_equal(dim, 4);
    assert_string_equal(encoder, "mini 1234");
    base_free(encoder);
    store_brief brief = get_brief(s, 2, BASE_TIME_MAX);
    assert_ok(store_source_name(s, brief.source, &name, err));
    assert_string_equal(name, "wiki");
    base_free(name);
    store_close(s);
    assert_verifies(*state, 3);
}

/* Goal: the spans of a document are its text, byte for byte. Method: put 300 spans, join them. */
static void test_store_spans_join_to_the_text(void **state)
{
    store *s = open_store(*state);
    char text[300 * 12 + 1];
    size_t used = 0;
    for (int i = 0; i < 300; i++) {
        used += (size_t)snprintf(text + used, sizeof text - used, "Fact %d.|", i);
    }
    put_text(s, "facts", "all", text, DAY, NULL);
    uint64_t *ids;
    size_t count;
    assert_ok(store_document_episodes(s, 1, 0, &ids, &count, err));
    assert_int_equal(count, 300);
    base_buffer joined = {0};
    for (size_t i = 0; i < count; i++) {
        store_episode e = get_episode(s, ids[i]);
        assert_int_equal(e.ordinal, i);
        base_buffer_append(&joined, e.text, e.text_size);
        store_episode_free(&e);
    }
    assert_string_equal(joined.data, text);
    base_buffer_free(&joined);
    base_free(ids);
    store_close(s);
}

static bool count_view(void *argument, const store_view *view)
{
    uint64_t *seen = argument;
    assert_true(view->id > seen[1]);
    assert_true(view->text_size > 0);
    seen[0]++;
    seen[1] = view->id;
    return seen[0] < seen[2];
}

/* Goal: a scan shows each episode once, by id, from any place, and stops when told. */
static void test_store_scan_visits_in_order(void **state)
{
    store *s = open_store(*state);
    put_text(s, "a", "1", "One.|Two.|Three.", DAY, NULL);
    put_text(s, "a", "2", "Four.|Five.", DAY, NULL);
    uint64_t seen[3] = {0, 0, UINT64_MAX}, damaged = 7;
    assert_ok(store_scan(s, 0, count_view, seen, &damaged, err));
    assert_int_equal(seen[0], 5);
    assert_int_equal(damaged, 0);
    uint64_t later[3] = {0, 2, 2};
    assert_ok(store_scan(s, 2, count_view, later, &damaged, err));
    assert_int_equal(later[0], 2);
    assert_int_equal(later[1], 4);
    store_close(s);
}

/* Goal: unchanged content changes nothing. Method: put twice, compare commit, result and counts. */
static void test_store_same_content_changes_nothing(void **state)
{
    store *s = open_store(*state);
    store_put_result result;
    put_text(s, "a", "1", "One.|Two.", DAY, &result);
    assert_int_equal(result, STORE_PUT_NEW);
    put_text(s, "a", "1", "One.|Two.", DAY, &result);
    assert_int_equal(result, STORE_PUT_UNCHANGED);
    assert_int_equal(store_last_commit(s), 1);
    put_text(s, "a", "", "No id.", DAY, &result);
    assert_int_equal(result, STORE_PUT_NEW);
    put_text(s, "a", NULL, "No id.", DAY, &result);
    assert_int_equal(result, STORE_PUT_UNCHANGED);
    put_text(s, "b", "1", "One.|Two.", DAY, &result);
    assert_int_equal(result, STORE_PUT_NEW);
    store_stats stats;
    assert_ok(store_get_stats(s, &stats, err));
    assert_int_equal(stats.documents, 3);
    assert_int_equal(stats.episodes, 5);
    assert_int_equal(stats.source_count, 2);
    assert_string_equal(stats.sources[0].source, "a");
    assert_int_equal(stats.sources[0].episodes, 3);
    assert_int_equal(stats.sources[0].documents, 2);
    store_stats_free(&stats);
    store_close(s);
    assert_verifies(*state, 5);
}

/* Goal: an aborted transaction leaves nothing behind; ids go on as if it had not been. */
static void test_store_abort_leaves_nothing(void **state)
{
    store *s = open_store(*state);
    put_text(s, "a", "1", "One.", DAY, NULL);
    store_new_span spans[SPANS_MAX];
    store_new_document doc = cut_document("a", "2", "Two.", DAY, spans);
    store_txn *txn;
    store_put_result result;
    uint64_t first;
    size_t count;
    assert_ok(store_begin(s, DAY, &txn, err));
    assert_ok(store_put_document(txn, &doc, &result, &first, &count, err));
    store_abort(txn);
    assert_int_equal(store_last_commit(s), 1);
    store_episode e;
    assert_int_equal(store_get(s, 2, &e, NULL), BASE_NOT_FOUND);
    assert_int_equal(put_text(s, "a", "2", "Two.", DAY, NULL), 2);
    store_close(s);
    assert_verifies(*state, 2);
}

/* Goal: documents that break the contract are refused by name, and the transaction stays usable. */
static void test_store_refuses_bad_documents(void **state)
{
    store *s = open_store(*state);
    store_new_span spans[SPANS_MAX];
    store_new_document good = cut_document("a", "1", "One.|T\xc3\xb6.", DAY, spans);
    store_txn *txn;
    store_put_result result;
    uint64_t first;
    size_t count;
    base_error error;
    assert_ok(store_begin(s, DAY, &txn, err));

    store_new_document doc = good;
    doc.source = "";
    assert_int_equal(store_put_document(txn, &doc, &result, &first, &count, &error), BASE_INVALID);
    assert_non_null(strstr(error.text, "source"));
    doc = good;
    doc.text = "One.|T\xff\xff.";
    assert_int_equal(store_put_document(txn, &doc, &result, &first, &count, &error), BASE_INVALID);
    assert_non_null(strstr(error.text, "byte 6"));
    doc = good;
    doc.text = "One.|T\0\0.";
    assert_int_equal(store_put_document(txn, &doc, &result, &first, &count, &error), BASE_INVALID);
    doc = good;
    doc.observed_at_us = BASE_TIME_NONE;
    assert_int_equal(store_put_document(txn, &doc, &result, &first, &count, &error), BASE_INVALID);
    doc = good;
    doc.span_count = 1;
    assert_int_equal(store_put_document(txn, &doc, &result, &first, &count, &error), BASE_INVALID);
    doc = good;
    spans[0].end_byte = spans[1].start_byte = 7; /* between the two bytes of a letter */
    assert_int_equal(store_put_document(txn, &doc, &result, &first, &count, &error), BASE_INVALID);
    spans[0].end_byte = spans[1].start_byte = 5;
    float vector[2] = {1, 0};
    spans[0].vector = vector;
    doc.vector_dim = STORE_VECTOR_DIM_MAX + 1;
    assert_int_equal(store_put_document(txn, &doc, &result, &first, &count, &error), BASE_INVALID);

    doc.vector_dim = 2;
    doc.encoder = "one";
    assert_ok(store_put_document(txn, &doc, &result, &first, &count, err));
    doc.external_id = "other";
    doc.vector_dim = 1;
    assert_int_equal(store_put_document(txn, &doc, &result, &first, &count, &error), BASE_INVALID);
    doc.vector_dim = 2;
    doc.encoder = "two";
    assert_int_equal(store_put_document(txn, &doc, &result, &first, &count, &error), BASE_INVALID);
    assert_non_null(strstr(error.text, "encoder"));
    assert_ok(store_commit(txn, err));
    store_close(s);
    assert_verifies(*state, 2);
}

/* Goal: KV bytes come back under their tag, replaced by a second put, counted in the stats. */
static void test_store_keeps_kv_by_tag(void **state)
{
    store *s = open_store(*state);
    put_text(s, "a", "1", "One.", DAY, NULL);
    uint8_t tag[32] = {1, 2, 3}, other[32] = {1, 2, 4};
    size_t size = 300000;
    uint8_t *blob = test_malloc(size);
    for (size_t i = 0; i < size; i++) {
        blob[i] = (uint8_t)(i * 31 + i / 251);
    }
    store_txn *txn;
    assert_ok(store_begin(s, DAY, &txn, err));
    assert_ok(store_put_kv(txn, 1, tag, "short", 5, err));
    assert_ok(store_put_kv(txn, 1, tag, blob, size, err));
    assert_int_equal(store_put_kv(txn, 9, tag, blob, size, NULL), BASE_NOT_FOUND);
    assert_ok(store_commit(txn, err));
    void *data;
    size_t got;
    assert_ok(store_get_kv(s, 1, tag, &data, &got, err));
    assert_int_equal(got, size);
    assert_memory_equal(data, blob, size);
    base_free(data);
    assert_int_equal(store_get_kv(s, 1, other, &data, &got, NULL), BASE_NOT_FOUND);
    store_stats stats;
    assert_ok(store_get_stats(s, &stats, err));
    assert_int_equal(stats.kv_entries, 1);
    assert_int_equal(stats.bytes_kv, size);
    store_stats_free(&stats);
    test_free(blob);
    store_close(s);
    assert_verifies(*state, 1);
}

/* Goal: the last use at or before as-of refreshes; small masses do not; one moment counts once. */
static void test_store_uses_count_up_to_as_of(void **state)
{
    store *s = open_store(*state);
    put_text(s, "a", "1", "One.|Two.", DAY, NULL);
    store_txn *txn;
    assert_ok(store_begin(s, 50 * DAY, &txn, err));
    assert_ok(store_put_use(txn, 1, 10 * DAY, 0.5f, err));
    assert_ok(store_put_use(txn, 1, 10 * DAY, 0.4f, err));
    assert_ok(store_put_use(txn, 1, 20 * DAY, 0.05f, err));
    assert_ok(store_put_use(txn, 1, 30 * DAY, 0.01f, err));
    assert_ok(store_put_use(txn, 2, 5 * DAY, 0.2f, err));
    assert_int_equal(store_put_use(txn, 3, 5 * DAY, 0.2f, NULL), BASE_NOT_FOUND);
    assert_ok(store_commit(txn, err));
    assert_true(get_brief(s, 1, 9 * DAY).last_use_us == BASE_TIME_NONE);
    assert_int_equal(get_brief(s, 1, 10 * DAY).last_use_us, 10 * DAY);
    assert_int_equal(get_brief(s, 1, 19 * DAY).last_use_us, 10 * DAY);
    assert_int_equal(get_brief(s, 1, BASE_TIME_MAX).last_use_us, 20 * DAY);
    assert_int_equal(get_brief(s, 2, BASE_TIME_MAX).last_use_us, 5 * DAY);
    store_episode e = get_episode(s, 1);
    assert_int_equal(e.use_count, 2);
    store_episode_free(&e);
    store_close(s);
    assert_verifies(*state, 2);
}

/* Goal: a measured half-life wins over the handle's default; unknown ids give id 0. */
static void test_store_briefs_carry_half_lives(void **state)
{
    store *s = open_store(*state);
    put_text(s, "fast", "1", "One.", DAY, NULL);
    put_text(s, "slow", "1", "Two.", DAY, NULL);
    store_txn *txn;
    assert_ok(store_begin(s, DAY, &txn, err));
    assert_ok(store_put_half_life(txn, "fast", 3600.0, 12, err));
    assert_int_equal(store_put_half_life(txn, "fast", -1.0, 12, NULL), BASE_INVALID);
    assert_int_equal(store_put_half_life(txn, "none", 1.0, 12, NULL), BASE_NOT_FOUND);
    assert_ok(store_commit(txn, err));
    uint64_t ids[3] = {1, 99, 2};
    store_brief briefs[3];
    assert_ok(store_get_briefs(s, ids, 3, BASE_TIME_MAX, briefs, err));
    assert_true(briefs[0].half_life_s == 3600.0);
    assert_int_equal(briefs[1].id, 0);
    assert_true(briefs[2].half_life_s > 1e300);
    store_set_default_half_life(s, 60.0);
    assert_ok(store_get_briefs(s, ids, 3, BASE_TIME_MAX, briefs, err));
    assert_true(briefs[0].half_life_s == 3600.0);
    assert_true(briefs[2].half_life_s == 60.0);
    store_close(s);
}

/* Goal: selection by source and half-open time range. */
static void test_store_select_by_source_and_time(void **state)
{
    store *s = open_store(*state);
    put_text(s, "a", "1", "One.|Two.", DAY, NULL);
    put_text(s, "b", "1", "Three.", 2 * DAY, NULL);
    put_text(s, "a", "2", "Four.", 3 * DAY, NULL);
    uint64_t *ids;
    size_t count;
    assert_ok(store_select(s, NULL, BASE_TIME_NONE, BASE_TIME_MAX, &ids, &count, err));
    assert_int_equal(count, 4);
    base_free(ids);
    assert_ok(store_select(s, "a", BASE_TIME_NONE, 3 * DAY, &ids, &count, err));
    assert_int_equal(count, 2);
    assert_int_equal(ids[1], 2);
    base_free(ids);
    assert_ok(store_select(s, NULL, 2 * DAY, BASE_TIME_MAX, &ids, &count, err));
    assert_int_equal(count, 2);
    assert_int_equal(ids[0], 3);
    base_free(ids);
    assert_ok(store_select(s, "zzz", BASE_TIME_NONE, BASE_TIME_MAX, &ids, &count, err));
    assert_int_equal(count, 0);
    store_close(s);
}

/* Goal: dropped writes are counted, also by a handle that may not write. */
static void test_store_counts_dropped_writes(void **state)
{
    store *s = open_store(*state);
    put_text(s, "a", "1", "One.", DAY, NULL);
    assert_ok(store_count_dropped(s, 3, err));
    store_close(s);
    s = open_reader(*state);
    assert_ok(store_count_dropped(s, 2, err));
    store_stats stats;
    assert_ok(store_get_stats(s, &stats, err));
    assert_int_equal(stats.dropped_writes, 5);
    store_stats_free(&stats);
    store_close(s);
}

/* Goal: no store, no folder, wrong type: clear codes and nothing created. */
static void test_store_open_says_what_is_missing(void **state)
{
    char path[4096 + 16];
    store *s = NULL;
    base_error error;
    store_options options = {0};
    snprintf(path, sizeof path, "%s/none", (const char *)*state);
    assert_int_equal(store_open(path, &options, &s, &error), BASE_NOT_FOUND);
    assert_non_null(strstr(error.text, "none"));
    assert_int_equal(access(path, F_OK), -1);
    options.read_only = options.create = true;
    assert_int_equal(store_open(path, &options, &s, &error), BASE_NOT_FOUND);
    FILE *file = fopen(path, "w");
    fclose(file);
    options.read_only = false;
    assert_int_not_equal(store_open(path, &options, &s, &error), BASE_OK);
}

/* Goal: one process cannot open a folder twice (LMDB's locks forbid it) and is told so. */
static void test_store_second_open_is_refused(void **state)
{
    store *s = open_store(*state), *again = NULL;
    store_options options = {.create = true};
    assert_int_equal(store_open(*state, &options, &again, NULL), BASE_BUSY);
    store_close(s);
    s = open_store(*state);
    store_close(s);
}

#define WITH_FOLDER(test) cmocka_unit_test_setup_teardown(test, make_folder, drop_folder)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_FOLDER(test_store_gives_back_what_was_put),
        WITH_FOLDER(test_store_spans_join_to_the_text),
        WITH_FOLDER(test_store_scan_visits_in_order),
        WITH_FOLDER(test_store_same_content_changes_nothing),
        WITH_FOLDER(test_store_abort_leaves_nothing),
        WITH_FOLDER(test_store_refuses_bad_documents),
        WITH_FOLDER(test_store_keeps_kv_by_tag),
        WITH_FOLDER(test_store_uses_count_up_to_as_of),
        WITH_FOLDER(test_store_briefs_carry_half_lives),
        WITH_FOLDER(test_store_select_by_source_and_time),
        WITH_FOLDER(test_store_counts_dropped_writes),
        WITH_FOLDER(test_store_open_says_what_is_missing),
        WITH_FOLDER(test_store_second_open_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
