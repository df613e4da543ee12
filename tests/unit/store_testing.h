/* tests/unit/store_testing.h: temporary store folders and documents cut at '|' for the store's
 * tests. */
#ifndef STORE_TESTING_H
#define STORE_TESTING_H

#include "folder_testing.h"
#include "store/store.h"

#define DAY BASE_DAY_US
#define SPANS_MAX 2048

static inline store *open_store(const char *path)
{
    store *s = NULL;
    store_options options = {.create = true};
    assert_ok(store_open(path, &options, &s, err));
    return s;
}

static inline store *open_reader(const char *path)
{
    store *s = NULL;
    store_options options = {.read_only = true};
    assert_ok(store_open(path, &options, &s, err));
    return s;
}

/* A document whose spans end at each '|' (the bar stays in the text) and at the end. */
static inline store_new_document cut_document(const char *source, const char *id, const char *text,
                                              int64_t observed_at_us, store_new_span *spans)
{
    store_new_document doc = {.source = source,
                              .external_id = id,
                              .title = "",
                              .text = text,
                              .text_size = strlen(text),
                              .observed_at_us = observed_at_us,
                              .valid_from_us = BASE_TIME_NONE,
                              .valid_to_us = BASE_TIME_NONE,
                              .spans = spans};
    uint64_t start = 0;
    for (size_t i = 0; i < doc.text_size; i++) {
        if (text[i] == '|' || i + 1 == doc.text_size) {
            memset(&spans[doc.span_count], 0, sizeof spans[0]);
            spans[doc.span_count].start_byte = start;
            spans[doc.span_count].end_byte = start = i + 1;
            doc.span_count++;
            assert_true(doc.span_count < SPANS_MAX);
        }
    }
    return doc;
}

/* Put one document in a commit of its own; returns the first id. */
static inline uint64_t put_text(store *s, const char *source, const char *id, const char *text,
                                int64_t observed_at_us, store_put_result *result)
{
    static store_new_span spans[SPANS_MAX];
    store_new_document doc = cut_document(source, id, text, observed_at_us, spans);
    store_txn *txn;
    store_put_result ignored;
    uint64_t first = 0;
    size_t count = 0;
    assert_ok(store_begin(s, observed_at_us, &txn, err));
    assert_ok(store_put_document(txn, &doc, result ? result : &ignored, &first, &count, err));
    assert_ok(store_commit(txn, err));
    return first;
}

static inline store_episode get_episode(store *s, uint64_t id)
{
    store_episode episode;
    assert_ok(store_get(s, id, &episode, err));
    return episode;
}

static inline store_brief get_brief(store *s, uint64_t id, int64_t as_of_us)
{
    store_brief brief;
    assert_ok(store_get_briefs(s, &id, 1, as_of_us, &brief, err));
    return brief;
}

/* Ids found by a text query, best first. */
static inline size_t find_text(store *s, const char *query, int64_t as_of_us, store_text_hit *hits,
                               size_t k)
{
    size_t count = 0;
    assert_ok(store_search_text(s, query, strlen(query), as_of_us, k, hits, &count, err));
    return count;
}

/* Where the bytes begin in data, NULL when nowhere. */
static inline char *bytes_in(const base_buffer *data, const void *wanted, size_t size)
{
    for (size_t i = 0; i + size <= data->size; i++) {
        if (memcmp(data->data + i, wanted, size) == 0) {
            return data->data + i;
        }
    }
    return NULL;
}

static inline void assert_verifies(const char *path, uint64_t episodes)
{
    store_verify_report report = {0};
    assert_ok(store_verify(path, false, &report, err));
    if (report.count) {
        fail_msg("%zu problems, first: %s %llu %s", report.count, report.problems[0].file,
                 (unsigned long long)report.problems[0].id, report.problems[0].kind);
    }
    assert_int_equal(report.episodes_checked, episodes);
    base_free(report.problems);
}

#endif
