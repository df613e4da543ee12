/* Retrieval over a real store: the cut at as-of, strength, copies, forgetting down to the bytes,
 * and an index that can be lost, damaged or overtaken without harm. */
#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/rng.h"
#include "retrieval/internal.h"
#include "vector_testing.h"

#define DIM 16
#define DAY BASE_DAY_US

static char folder[64];

static int make_store(void **state)
{
    (void)state;
    snprintf(folder, sizeof folder, "retrieval_search_XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_store(void **state)
{
    (void)state;
    char **files;
    size_t count;
    if (base_dir_walk(folder, &files, &count, NULL) == BASE_OK) {
        for (size_t i = 0; i < count; i++) {
            unlink(files[i]);
            base_free(files[i]);
        }
        base_free(files);
    }
    char index[96];
    snprintf(index, sizeof index, "%s/index", folder);
    rmdir(index);
    return rmdir(folder);
}

#define assert_ok(call)                                                                      \
    do {                                                                                     \
        base_error assert_err = {0};                                                         \
        base_error *err = &assert_err;                                                       \
        base_status assert_status = (call);                                                  \
        if (assert_status != BASE_OK) {                                                      \
            fail_msg("%s: %s: %s", #call, base_status_name(assert_status), assert_err.text); \
        }                                                                                    \
    } while (0)

static store *open_it(bool read_only)
{
    store *s = NULL;
    store_options options = {.create = !read_only, .read_only = read_only};
    assert_ok(store_open(folder, &options, &s, err));
    return s;
}

/* Put a one-episode document with vector v [DIM] in a commit of its own; returns its id. */
static uint64_t put_vector(store *s, store_kind kind, const char *id, const char *title,
                           const char *text, int64_t observed, const float *v)
{
    store_new_span span = {.end_byte = strlen(text), .vector = v};
    store_new_document doc = {.source = "test",
                              .external_id = id,
                              .title = title,
                              .text = text,
                              .text_size = strlen(text),
                              .observed_at_us = observed,
                              .valid_from_us = BASE_TIME_NONE,
                              .valid_to_us = BASE_TIME_NONE,
                              .kind = kind,
                              .spans = &span,
                              .span_count = 1,
                              .vector_dim = DIM,
                              .encoder = "drawn"};
    store_txn *txn;
    store_put_result result;
    uint64_t first = 0;
    size_t count;
    assert_ok(store_begin(s, observed, &txn, err));
    assert_ok(store_put_document(txn, &doc, &result, &first, &count, err));
    assert_ok(store_commit(txn, err));
    return first;
}

static uint64_t put_as(store *s, store_kind kind, const char *id, const char *title,
                       const char *text, int64_t observed, uint64_t vector_seed)
{
    float v[DIM];
    lean_vector(vector_seed, v, DIM);
    return put_vector(s, kind, id, title, text, observed, v);
}

static uint64_t put(store *s, const char *id, const char *title, const char *text, int64_t observed,
                    uint64_t vector_seed)
{
    return put_as(s, STORE_DOCUMENT, id, title, text, observed, vector_seed);
}

/* Put n documents in one commit, ids "d0".., vectors by seed 1000 + i. */
static void put_many(store *s, size_t n, size_t from)
{
    store_txn *txn;
    assert_ok(store_begin(s, DAY, &txn, err));
    for (size_t i = from; i < from + n; i++) {
        char id[24], text[48];
        float v[DIM];
        lean_vector(1000 + i, v, DIM);
        snprintf(id, sizeof id, "d%zu", i);
        int size = snprintf(text, sizeof text, "Document number %zu.", i);
        store_new_span span = {.end_byte = (uint64_t)size, .vector = v};
        store_new_document doc = {.source = "many",
                                  .external_id = id,
                                  .title = "",
                                  .text = text,
                                  .text_size = (size_t)size,
                                  .observed_at_us = (int64_t)(i % 100) * DAY,
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
    }
    assert_ok(store_commit(txn, err));
}

static void forget(store *s, const uint64_t *ids, size_t count)
{
    store_txn *txn;
    store_forget_receipt receipt;
    assert_ok(store_begin(s, 500 * DAY, &txn, err));
    assert_ok(store_forget(txn, ids, count, &receipt, err));
    assert_ok(store_commit(txn, err));
}

static retrieval *open_retrieval(store *s)
{
    retrieval *r = NULL;
    assert_ok(retrieval_open(s, DIM, &r, err));
    return r;
}

static size_t search(retrieval *r, uint64_t vector_seed, const char *text, int64_t as_of,
                     bool use_strength, size_t k, retrieval_hit *hits)
{
    float v[DIM];
    lean_vector(vector_seed, v, DIM);
    retrieval_query q = {.text = text,
                         .text_size = text ? strlen(text) : 0,
                         .vector = vector_seed ? v : NULL,
                         .now_us = as_of,
                         .as_of_us = as_of,
                         .about_us = BASE_TIME_NONE,
                         .k = k,
                         .use_strength = use_strength,
                         .use_time = true,
                         .use_bm25 = true};
    size_t count = 99;
    assert_ok(retrieval_search(r, &q, hits, &count, err));
    for (size_t i = 0; i + 1 < count; i++) {
        assert_true(hits[i].score >= hits[i + 1].score);
    }
    return count;
}

static uint64_t problems(store *s, bool repair)
{
    store_verify_report report = {0};
    assert_ok(retrieval_verify(s, DIM, repair, &report, err));
    for (size_t i = 0; i < report.count; i++) {
        print_message("problem: %s %d %s\n", report.problems[i].file, (int)report.problems[i].id,
                      report.problems[i].kind);
    }
    base_free(report.problems);
    return report.count;
}

/* Files in index/ whose name ends in .faiss. */
static size_t segment_files(void)
{
    char index[96];
    snprintf(index, sizeof index, "%s/index", folder);
    DIR *dir = opendir(index);
    size_t n = 0;
    for (struct dirent *d = dir ? readdir(dir) : NULL; d; d = readdir(dir)) {
        n += strstr(d->d_name, ".faiss") != NULL;
    }
    if (dir) {
        closedir(dir);
    }
    return n;
}

/* Goal: the nearest vector wins, BM25 adds what vectors miss, either works alone. */
static void test_retrieval_search_fuses_vectors_and_words(void **state)
{
    (void)state;
    store *s = open_it(false);
    uint64_t a = put(s, "a", "Harbour", "The ferry leaves at nine.", DAY, 1);
    uint64_t b = put(s, "b", "Town hall", "The mayor is Ruth Ekdal.", DAY, 2);
    uint64_t c = put(s, "c", "Library", "The library owns a globe.", DAY, 3);
    retrieval *r = open_retrieval(s);
    retrieval_hit hits[8];
    assert_int_equal(search(r, 1, NULL, 9 * DAY, true, 8, hits), 3);
    assert_int_equal(hits[0].id, a);
    assert_true(hits[0].similarity > 0.999f);
    assert_float_equal(hits[0].strength, 1, 1e-6);
    assert_int_equal(search(r, 0, "mayor", 9 * DAY, true, 8, hits), 1);
    assert_int_equal(hits[0].id, b);
    assert_true(hits[0].bm25 > 0);
    /* the vector says c a little, the words say b */
    float v[DIM];
    lean_vector(3, v, DIM);
    size_t n = search(r, 3, "mayor Ruth Ekdal", 9 * DAY, true, 2, hits);
    assert_int_equal(n, 2);
    assert_true((hits[0].id == b && hits[1].id == c) || (hits[0].id == c && hits[1].id == b));
    assert_true(hits[0].similarity != 0 && hits[1].similarity != 0);
    assert_int_equal(search(r, 1, "ferry", 9 * DAY, true, 0, hits), 0);
    retrieval_close(r);
    store_close(s);
}

/* Goal: nothing observed after as-of, or outside its validity, is found, however near. Method: 300
 * documents of 100 days, each day asked; the tail and a segment give the same. */
static void test_retrieval_search_cuts_at_as_of(void **state)
{
    (void)state;
    store *s = open_it(false);
    put_many(s, 300, 0);
    retrieval *r = open_retrieval(s);
    retrieval_hit first[10], hits[10];
    for (int round = 0; round < 2; round++) {
        for (int64_t day = -1; day < 100; day += 9) {
            size_t n = search(r, 1000 + (uint64_t)day + 2, NULL, day * DAY, true, 10, hits);
            size_t known = 3 * (size_t)(day + 1);
            assert_int_equal(n, known < 10 ? known : 10);
            for (size_t i = 0; i < n; i++) {
                store_brief brief;
                assert_ok(store_get_briefs(s, &hits[i].id, 1, day * DAY, &brief, err));
                assert_true(brief.observed_at_us <= day * DAY);
            }
            if (day == 53) {
                if (round == 0) {
                    memcpy(first, hits, sizeof hits);
                } else {
                    for (size_t i = 0; i < n; i++) {
                        assert_int_equal(first[i].id, hits[i].id);
                        assert_float_equal(first[i].score, hits[i].score, 1e-5);
                    }
                }
            }
        }
        assert_ok(retrieval_flush(r, true, err));
        assert_int_equal(segment_files(), 1);
    }
    retrieval_close(r);
    store_close(s);
}

/* Goal: a superseded version ranks below its successor with strength, is found as of its own time,
 * and ranks by similarity alone without strength. */
static void test_retrieval_strength_puts_the_newer_version_first(void **state)
{
    (void)state;
    store *s = open_it(false);
    uint64_t old = put(s, "hours", "Opening hours", "The clinic opens at nine.", 10 * DAY, 5);
    uint64_t new =
        put(s, "hours", "Opening hours", "The clinic opens at eight.", 20 * DAY, 5 + DIM);
    retrieval *r = open_retrieval(s);
    retrieval_hit hits[4];
    const char *question = "When does the clinic open? At nine?";
    assert_int_equal(search(r, 5, question, 30 * DAY, true, 4, hits), 2);
    assert_int_equal(hits[0].id, new);
    assert_float_equal(hits[1].strength, 0.1, 1e-6);
    assert_int_equal(search(r, 5, question, 30 * DAY, false, 4, hits), 2);
    assert_int_equal(hits[0].id, old);
    assert_int_equal(search(r, 5, question, 15 * DAY, true, 4, hits), 1);
    assert_int_equal(hits[0].id, old);
    assert_float_equal(hits[0].strength, 1, 1e-6);
    retrieval_close(r);
    store_close(s);
}

/* Goal: what held on the day that a question names goes first and is as strong as it was then, also
 * where the day comes from outside; the end of the chain goes first otherwise. */
static void test_retrieval_a_past_day_asks_for_what_held_then(void **state)
{
    (void)state;
    store *s = open_it(false);
    const char *texts[] = {"The clinic opens at nine.", "The clinic opens at eight.",
                           "The clinic opens at ten."};
    uint64_t ids[3];
    for (size_t i = 0; i < 3; i++) {
        ids[i] = put(s, "hours", "Opening hours", texts[i], (int64_t)(10 + 10 * i) * DAY, 5 + i);
    }
    retrieval *r = open_retrieval(s);
    retrieval_hit hits[4];
    assert_int_equal(
        search(r, 0, "When did the clinic open on 25 January 1970?", 60 * DAY, true, 4, hits), 3);
    assert_int_equal(hits[0].id, ids[1]);
    assert_float_equal(hits[0].strength, 1, 1e-6);
    assert_int_equal(search(r, 0, "When does the clinic open?", 60 * DAY, true, 4, hits), 3);
    assert_int_equal(hits[0].id, ids[2]);
    /* Nothing held yet, and a year is no moment. */
    search(r, 0, "When did the clinic open on 2 January 1970?", 60 * DAY, true, 4, hits);
    assert_int_equal(hits[0].id, ids[2]);
    search(r, 0, "When did the clinic open in 1970?", 800 * DAY, true, 4, hits);
    assert_int_equal(hits[0].id, ids[2]);
    retrieval_close(r);
    store_close(s);
}

/* Goal: age makes what holds score less, not less relevant; what was superseded both. */
static void test_retrieval_age_alone_leaves_relevance(void **state)
{
    (void)state;
    store *s = open_it(false);
    store_set_default_half_life(s, 365 * 86400.0);
    put(s, "hours", "Opening hours", "The clinic opens at nine.", 10 * DAY, 5);
    uint64_t new =
        put(s, "hours", "Opening hours", "The clinic opens at eight.", 20 * DAY, 5 + DIM);
    retrieval *r = open_retrieval(s);
    retrieval_hit fresh[4], aged[4];
    const char *question = "When does the clinic open?";
    assert_int_equal(search(r, 5, question, 20 * DAY, true, 4, fresh), 2);
    assert_int_equal(search(r, 5, question, 20000 * DAY, true, 4, aged), 2);
    assert_int_equal(aged[0].id, new);
    assert_float_equal(aged[0].strength, STORE_STRENGTH_FLOOR, 1e-6);
    assert_float_equal(aged[0].score, STORE_STRENGTH_FLOOR * fresh[0].score, 1e-5);
    assert_float_equal(aged[0].relevance, fresh[0].score, 1e-5);
    assert_true(aged[1].relevance < 0.1f * fresh[1].relevance);
    retrieval_close(r);
    store_close(s);
}

/* Goal: of two documents that say nearly the same, the one observed later goes first with strength,
 * the nearer one without; documents that are alike in score only keep their order, and so does what
 * came later than as-of. */
static void test_retrieval_twins_are_ordered_by_time(void **state)
{
    (void)state;
    store *s = open_it(false);
    /* seeds 5 and 5 + DIM lean towards one axis, 6 towards another */
    uint64_t older = put(s, "a", "Mayor in May", "The mayor is Ruth.", 10 * DAY, 5);
    uint64_t newer = put(s, "b", "Mayor in June", "The mayor is Olaf.", 20 * DAY, 5 + DIM);
    uint64_t other = put(s, "c", "Harbour", "The ferry is blue.", 30 * DAY, 6);
    float a[DIM], b[DIM];
    lean_vector(5, a, DIM);
    lean_vector(5 + DIM, b, DIM);
    float cosine = 0;
    for (size_t i = 0; i < DIM; i++) {
        cosine += a[i] * b[i];
    }
    retrieval *r = open_retrieval(s);
    r->weights.twin_cosine = cosine - 0.01f;
    r->weights.twin_margin = 1.0f - cosine + 0.01f; /* the query is the older one's vector */
    retrieval_hit hits[4];
    assert_int_equal(search(r, 5, NULL, 40 * DAY, true, 4, hits), 3);
    assert_int_equal(hits[0].id, newer);
    assert_int_equal(hits[1].id, older);
    assert_int_equal(hits[2].id, other);
    assert_float_equal(hits[1].strength, 1, 1e-6); /* an order, no supersession */
    search(r, 5, NULL, 40 * DAY, false, 4, hits);
    assert_int_equal(hits[0].id, older);
    search(r, 5, NULL, 15 * DAY, true, 4, hits);
    assert_int_equal(hits[0].id, older);
    r->weights.twin_cosine = cosine + 0.01f;
    search(r, 5, NULL, 40 * DAY, true, 4, hits);
    assert_int_equal(hits[0].id, older);
    retrieval_close(r);
    store_close(s);
}

/* Goal: a question that a user once asked is marked; asked again in the same words it is left out,
 * in other words it stays, and what a user told stays in any case. */
static void test_retrieval_a_question_asked_before_is_no_answer(void **state)
{
    (void)state;
    store *s = open_it(false);
    uint64_t asked = put_as(s, STORE_TURN_USER, "turn", "chat", "Who is the mayor?", 10 * DAY, 5);
    uint64_t told = put_as(s, STORE_TURN_USER, "told", "chat", "The mayor is Ruth.", 10 * DAY, 5);
    uint64_t faq = put(s, "faq", "Questions", "Who is the mayor?", 10 * DAY, 5);
    retrieval *r = open_retrieval(s);
    float v[DIM];
    lean_vector(5, v, DIM);
    retrieval_query q = {.vector = v,
                         .now_us = 20 * DAY,
                         .as_of_us = 20 * DAY,
                         .about_us = BASE_TIME_NONE,
                         .k = 4,
                         .use_bm25 = true};
    const char *questions[] = {"mayor: WHO is the mayor?", "Who has been the mayor?",
                               "the mayor is Ruth, who else?"};
    for (size_t i = 0; i < 3; i++) {
        for (int skips = 0; skips < 2; skips++) {
            retrieval_hit hits[4];
            size_t count, seen = 0;
            q.text = questions[i];
            q.text_size = strlen(q.text);
            q.skip_repeats = skips;
            assert_ok(retrieval_search(r, &q, hits, &count, err));
            for (size_t k = 0; k < count; k++) {
                uint64_t id = hits[k].id;
                assert_int_equal(hits[k].asks, id == asked);
                seen |= id == asked ? 1 : id == told ? 2 : id == faq ? 4 : 8;
            }
            assert_int_equal(seen, skips && i != 1 ? 6 : 7);
        }
    }
    retrieval_close(r);
    store_close(s);
}

/* Goal: copies are one hit, the newest known at as-of; the same words under another title are not a
 * copy. */
static void test_retrieval_collapses_copies_into_the_newest(void **state)
{
    (void)state;
    store *s = open_it(false);
    uint64_t a = put(s, "a", "Notice", "The pool is closed.", 10 * DAY, 7);
    uint64_t b = put(s, "b", "Notice", "The pool is closed.", 20 * DAY, 7);
    uint64_t c = put(s, "c", "Other town", "The pool is closed.", 15 * DAY, 7 + DIM);
    retrieval *r = open_retrieval(s);
    retrieval_hit hits[4];
    assert_int_equal(search(r, 7, "pool", 30 * DAY, false, 4, hits), 2);
    assert_int_equal(hits[0].id, b);
    assert_int_equal(hits[1].id, c);
    assert_int_equal(search(r, 7, "pool", 30 * DAY, false, 1, hits), 1);
    assert_int_equal(hits[0].id, b);
    assert_int_equal(search(r, 7, "pool", 12 * DAY, true, 4, hits), 1);
    assert_int_equal(hits[0].id, a);
    retrieval_close(r);
    store_close(s);
}

/* Does any file of the index folder hold these bytes? */
static bool on_disk(const void *bytes, size_t size)
{
    char index[96];
    snprintf(index, sizeof index, "%s/index", folder);
    char **files;
    size_t count;
    bool found = false;
    assert_ok(base_dir_walk(index, &files, &count, err));
    for (size_t i = 0; i < count; i++) {
        base_map map;
        assert_ok(base_map_open(files[i], &map, err));
        for (size_t at = 0; at + size <= map.size && !found; at++) {
            found = memcmp(map.data + at, bytes, size) == 0;
        }
        base_map_close(&map);
        base_free(files[i]);
    }
    base_free(files);
    return found;
}

/* Goal: a forgotten episode is not found at once, in this handle and after reopening, and its
 * vector's bytes leave the disk with the next opening for writing. */
static void test_retrieval_forgotten_vectors_leave_the_disk(void **state)
{
    (void)state;
    store *s = open_it(false);
    put_many(s, 40, 0);
    retrieval *r = open_retrieval(s);
    assert_ok(retrieval_flush(r, true, err));
    put_many(s, 2, 40); /* these stay in the tail */
    retrieval_hit hits[4];
    assert_ok(retrieval_sync(r, err));
    search(r, 1007, NULL, 200 * DAY, true, 1, hits);
    uint64_t ids[2] = {hits[0].id, 0};
    search(r, 1041, NULL, 200 * DAY, true, 1, hits);
    ids[1] = hits[0].id;
    assert_true(ids[0] < ids[1]);
    float gone[DIM];
    lean_vector(1007, gone, DIM);
    assert_true(on_disk(gone, sizeof gone));
    forget(s, ids, 2);
    assert_ok(retrieval_sync(r, err));
    for (int round = 0; round < 3; round++) {
        size_t n = search(r, 1007, NULL, 200 * DAY, true, 4, hits);
        n += search(r, 1041, NULL, 200 * DAY, true, 4, hits);
        assert_int_equal(n, 8);
        for (size_t i = 0; i < 4; i++) {
            assert_true(hits[i].id != ids[0] && hits[i].id != ids[1]);
        }
        assert_int_equal(problems(s, false), 0);
        if (round == 0) {
            /* The forget ended here: who opens it next for writing finishes it. */
            assert_true(on_disk(gone, sizeof gone));
            retrieval_close(r);
            r = open_retrieval(s);
            assert_false(on_disk(gone, sizeof gone));
        } else if (round == 1) {
            assert_ok(retrieval_flush(r, true, err));
            assert_false(on_disk(gone, sizeof gone));
        }
    }
    retrieval_close(r);
    store_close(s);
}

/* The manifest on disk; retrieval_manifest_free. */
static retrieval_manifest read_manifest(void)
{
    char index[96];
    retrieval_manifest m = {0};
    snprintf(index, sizeof index, "%s/index", folder);
    assert_ok(retrieval_manifest_read(index, &m, err));
    return m;
}

/* Goal: what is forgotten in two segments, one of which is rewritten at once and the other not, is
 * found in neither, and is gone from the disk after the next opening, which leaves the first
 * segment as it is. Method: 5 of 40 (too few to rewrite unasked) and 6 of 15. */
static void test_retrieval_forgets_from_two_segments(void **state)
{
    (void)state;
    store *s = open_it(false);
    put_many(s, 40, 0);
    retrieval *r = open_retrieval(s);
    assert_ok(retrieval_flush(r, true, err));
    put_many(s, 15, 40);
    assert_ok(retrieval_flush(r, true, err));
    assert_int_equal(r->manifest.count, 2);
    uint64_t ids[11];
    size_t numbers[11];
    for (size_t i = 0; i < 11; i++) {
        retrieval_hit hit;
        numbers[i] = i < 5 ? 3 + 4 * i : 41 + 2 * (i - 5);
        search(r, 1000 + numbers[i], NULL, 200 * DAY, true, 1, &hit);
        ids[i] = hit.id;
    }
    forget(s, ids, 11);
    assert_ok(retrieval_flush(r, false, err));
    assert_int_equal(r->dead_count, 5);
    assert_true(r->manifest.commit < r->commit); /* else the next opening would not look */
    retrieval_manifest before = read_manifest();
    assert_int_equal(before.entries[0].count, 40);
    assert_int_equal(before.entries[1].count, 9);
    retrieval_close(r);
    store_close(s);
    for (int round = 0; round < 3; round++) { /* read only; finishing what is left; after that */
        s = open_it(round == 0);
        r = open_retrieval(s);
        assert_int_equal(r->dead_count, round == 0 ? 5 : 0);
        assert_int_equal(problems(s, false), 0);
        for (size_t i = 0; i < 11; i++) {
            float gone[DIM];
            retrieval_hit hits[44];
            size_t n = search(r, 1000 + numbers[i], NULL, 200 * DAY, true, 44, hits);
            assert_int_equal(n, 44);
            for (size_t k = 0; k < n; k++) {
                assert_true(hits[k].id != ids[i]);
            }
            lean_vector(1000 + numbers[i], gone, DIM);
            assert_int_equal(on_disk(gone, sizeof gone), round == 0 && i < 5);
        }
        retrieval_manifest after = read_manifest();
        assert_int_equal(after.count, 2);
        assert_int_equal(after.entries[0].count, round == 0 ? 40 : 35);
        assert_string_equal(after.entries[1].file, before.entries[1].file);
        retrieval_manifest_free(&after);
        assert_ok(retrieval_flush(r, true, err));
        retrieval_close(r);
        store_close(s);
    }
    retrieval_manifest_free(&before);
}

/* The centres of the lists of a segment, which training alone changes (segment_file.c). */
static void read_centres(const retrieval_entry *e, float *centres, size_t size)
{
    char path[160];
    base_map map;
    snprintf(path, sizeof path, "%s/index/%s", folder, e->file);
    assert_ok(base_map_open(path, &map, err));
    assert_true(map.size > 172 + size);
    memcpy(centres, map.data + 172, size);
    base_map_close(&map);
}

/* Goal: a large segment is trained once: what comes in is added to it, what is forgotten is cut
 * out, both agree with the records; only when it has outgrown its lists is it trained anew. Method:
 * the centres on disk of segments of 6,000 and 9,100. */
static void test_retrieval_large_segments_grow_and_shrink_untrained(void **state)
{
    (void)state;
    float first[64 * DIM], now[64 * DIM];
    store *s = open_it(false);
    put_many(s, 6000, 0);
    retrieval *r = open_retrieval(s);
    assert_ok(retrieval_flush(r, true, err));
    assert_int_equal(r->manifest.count, 1);
    char kind[RETRIEVAL_KIND_MAX];
    snprintf(kind, sizeof kind, "%s", r->manifest.entries[0].kind);
    assert_non_null(strstr(kind, "Refine"));
    read_centres(&r->manifest.entries[0], first, sizeof first);
    put_many(s, 3100, 6000);
    assert_ok(retrieval_flush(r, true, err));
    assert_int_equal(r->manifest.count, 1);
    assert_int_equal(r->manifest.entries[0].count, 9100);
    read_centres(&r->manifest.entries[0], now, sizeof now);
    assert_memory_equal(now, first, sizeof now);
    assert_int_equal(problems(s, false), 0);
    uint64_t *ids = NULL;
    size_t count;
    assert_ok(store_select(s, NULL, BASE_TIME_NONE, BASE_TIME_MAX, &ids, &count, err));
    assert_int_equal(count, 9100);
    forget(s, ids, 1); /* the first, the last, and some between */
    forget(s, ids + 9099, 1);
    forget(s, ids + 3000, 200);
    put_many(s, 10, 9100);
    assert_ok(retrieval_flush(r, true, err));
    assert_int_equal(r->dead_count, 0);
    assert_int_equal(r->manifest.entries[0].count, 9100 - 202);
    assert_int_equal(r->manifest.entries[0].first_id, ids[1]);
    assert_int_equal(r->manifest.entries[0].last_id, ids[9098]);
    read_centres(&r->manifest.entries[0], now, sizeof now);
    assert_memory_equal(now, first, sizeof now);
    retrieval_close(r);
    assert_int_equal(problems(s, false), 0);
    r = open_retrieval(s);
    retrieval_hit hit;
    static const size_t kept[] = {1, 2999, 3200, 6000, 9098, 9105};
    for (size_t i = 0; i < sizeof kept / sizeof kept[0]; i++) {
        assert_int_equal(search(r, 1000 + kept[i], NULL, 200 * DAY, true, 1, &hit), 1);
        assert_true(hit.similarity > 0.999f);
    }
    assert_int_equal(search(r, 1000 + 3100, NULL, 200 * DAY, true, 1, &hit), 1);
    assert_true(hit.similarity < 0.999f);
    /* As of a day when one of them was known, the least similar, it is found all the same. */
    float away[DIM];
    lean_vector(1000 + 3100, away, DIM);
    for (size_t i = 0; i < DIM; i++) {
        away[i] = -away[i];
    }
    uint64_t early = put_vector(s, STORE_DOCUMENT, "early", "", "First.", -5 * DAY, away);
    for (int round = 0; round < 2; round++) { /* in the tail; in the segment */
        retrieval_hit found[4];
        assert_ok(retrieval_sync(r, err));
        assert_int_equal(search(r, 1000 + 3100, NULL, -1 * DAY, true, 4, found), 1);
        assert_int_equal(found[0].id, early);
        assert_true(found[0].similarity < -0.99f);
        put_many(s, 2000, 20000);
        assert_ok(retrieval_flush(r, true, err));
    }
    assert_true(r->manifest.covered >= early);
    /* A vector beyond all that it was trained on: trained anew, on what is there. */
    float beyond[DIM] = {-0.9f, 0.436f};
    put_vector(s, STORE_DOCUMENT, "beyond", "", "Far out.", DAY, beyond);
    put_many(s, 5000, 10000);
    assert_ok(retrieval_flush(r, true, err));
    read_centres(&r->manifest.entries[0], now, sizeof now);
    assert_true(memcmp(now, first, sizeof now) != 0);
    /* Most of it forgotten: too few for its lists, so made anew, of the kind for as many. */
    base_free(ids);
    assert_ok(store_select(s, NULL, BASE_TIME_NONE, BASE_TIME_MAX, &ids, &count, err));
    forget(s, ids, count - 2000);
    assert_ok(retrieval_flush(r, true, err));
    assert_string_equal(r->manifest.entries[0].kind, "IDMap2,Flat");
    retrieval_close(r);
    assert_int_equal(problems(s, false), 0);
    assert_true(retrieval_faiss_suits(kind, 60000, DIM));
    assert_false(retrieval_faiss_suits(kind, 160000, DIM));
    base_free(ids);
    store_close(s);
}

/* Goal: an index whose every byte in turn is damaged, or cut, or deleted, gives the same results as
 * before, and verify names the file. Method: flip at 20 places in each file, cut each file, remove
 * each file. */
static void test_retrieval_damaged_index_is_rebuilt(void **state)
{
    (void)state;
    store *s = open_it(false);
    put_many(s, 60, 0);
    retrieval *r = open_retrieval(s);
    assert_ok(retrieval_flush(r, true, err));
    retrieval_hit want[5], hits[5];
    assert_int_equal(search(r, 1010, NULL, 200 * DAY, true, 5, want), 5);
    retrieval_close(r);
    assert_int_equal(problems(s, false), 0);
    base_rng rng;
    base_rng_seed(&rng, 9);
    char index[96];
    snprintf(index, sizeof index, "%s/index", folder);
    for (int round = 0; round < 44; round++) {
        char **files;
        size_t count;
        assert_ok(base_dir_walk(index, &files, &count, err));
        const char *victim = NULL;
        for (size_t i = 0; i < count; i++) {
            bool manifest = strstr(files[i], "manifest") != NULL;
            bool segment = strstr(files[i], ".faiss") != NULL;
            victim = (round % 2 ? manifest : segment) ? files[i] : victim;
        }
        assert_non_null(victim);
        base_buffer data = {0};
        assert_ok(base_file_read(victim, 1 << 20, &data, err));
        if (round < 40) {
            data.data[base_rng_below(&rng, data.size)] ^= (char)(1 << base_rng_below(&rng, 8));
        } else {
            data.size = round < 42 ? data.size / 2 : 0;
        }
        int fd = open(victim, O_WRONLY | O_TRUNC);
        assert_true(write(fd, data.data, data.size) == (ssize_t)data.size);
        close(fd);
        if (round >= 42) {
            unlink(victim);
        }
        base_buffer_free(&data);
        for (size_t i = 0; i < count; i++) {
            base_free(files[i]);
        }
        base_free(files);
        bool index_gone = round == 43; /* no manifest: no index, which is no damage */
        store_verify_report report = {0};
        assert_ok(retrieval_verify(s, DIM, round % 3 == 0, &report, err));
        assert_int_equal(report.count, index_gone ? 0 : 1);
        if (!index_gone) {
            assert_memory_equal(report.problems[0].file, "index/", 6);
            assert_int_equal(report.repaired, round % 3 == 0);
        }
        base_free(report.problems);
        r = open_retrieval(s); /* rebuilds what verify did not */
        assert_int_equal(search(r, 1010, NULL, 200 * DAY, true, 5, hits), 5);
        for (size_t i = 0; i < 5; i++) {
            assert_int_equal(hits[i].id, want[i].id);
        }
        assert_ok(retrieval_flush(r, true, err));
        retrieval_close(r);
        assert_int_equal(problems(s, false), 0);
        assert_int_equal(segment_files(), 1);
    }
    store_close(s);
}

/* Goal: an index of another store or another dimension is not believed. */
static void test_retrieval_foreign_index_is_rebuilt(void **state)
{
    (void)state;
    store *s = open_it(false);
    put_many(s, 30, 0);
    retrieval *r = open_retrieval(s);
    assert_ok(retrieval_flush(r, true, err));
    retrieval_close(r);
    store_close(s);
    char path[128];
    static const char *const names[] = {"data.mdb", "lock.mdb", "catalog.sqlite",
                                        "catalog.sqlite-wal", "catalog.sqlite-shm"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        unlink(path);
    }
    s = open_it(false);
    put_many(s, 30, 500); /* the same ids, other episodes */
    r = open_retrieval(s);
    retrieval_hit hits[1];
    assert_int_equal(search(r, 1510, NULL, 200 * DAY, true, 1, hits), 1);
    assert_true(hits[0].similarity > 0.999f);
    retrieval_close(r);
    assert_int_equal(problems(s, false), 0);
    store_close(s);
}

/* Goal: many small flushes end in few segments and lose nothing. Method: 64 commits with a forced
 * flush each. */
static void test_retrieval_segments_are_merged(void **state)
{
    (void)state;
    store *s = open_it(false);
    retrieval *r = open_retrieval(s);
    for (size_t i = 0; i < 64; i++) {
        put_many(s, 1 + i % 3, 10 * i);
        assert_ok(retrieval_flush(r, true, err));
        assert_true(segment_files() <= 8);
    }
    retrieval_hit hits[1];
    for (size_t i = 0; i < 64; i++) {
        assert_int_equal(search(r, 1000 + 10 * i, NULL, 200 * DAY, true, 1, hits), 1);
        assert_true(hits[0].similarity > 0.999f);
    }
    retrieval_close(r);
    assert_int_equal(problems(s, false), 0);
    store_close(s);
}

/* Goal: two handles on one store, each flushing, see each other's episodes and leave a whole index.
 */
static void test_retrieval_two_writers_of_segments_agree(void **state)
{
    (void)state;
    store *s = open_it(false);
    retrieval *a = open_retrieval(s), *b = open_retrieval(s);
    retrieval_hit hits[1];
    for (size_t i = 0; i < 10; i++) {
        put_many(s, 5, 10 * i);
        assert_ok(retrieval_flush(i % 2 ? a : b, true, err));
        assert_ok(retrieval_sync(a, err));
        assert_ok(retrieval_sync(b, err));
        assert_int_equal(search(a, 1000 + 10 * i, NULL, 200 * DAY, true, 1, hits), 1);
        assert_true(hits[0].similarity > 0.999f);
        assert_int_equal(search(b, 1000 + 10 * i, NULL, 200 * DAY, true, 1, hits), 1);
        assert_true(hits[0].similarity > 0.999f);
    }
    retrieval_close(a);
    retrieval_close(b);
    assert_int_equal(problems(s, false), 0);
    store_close(s);
}

/* Goal: reading needs no write permission and writes nothing. */
static void test_retrieval_read_only_writes_nothing(void **state)
{
    (void)state;
    store *s = open_it(false);
    put_many(s, 10, 0);
    store_close(s);
    s = open_it(true);
    retrieval *r = open_retrieval(s);
    retrieval_hit hits[1];
    assert_int_equal(search(r, 1003, NULL, 200 * DAY, true, 1, hits), 1);
    assert_ok(retrieval_flush(r, true, err));
    char index[96];
    snprintf(index, sizeof index, "%s/index", folder);
    struct stat st;
    assert_int_equal(stat(index, &st), -1);
    retrieval_close(r);
    store_close(s);
}

/* Goal: out of memory at any allocation is reported and leaks nothing (leak sanitizer), and the
 * handle works after. */
static void test_retrieval_search_survives_failing_allocations(void **state)
{
    (void)state;
    store *s = open_it(false);
    put_many(s, 20, 0);
    retrieval *r = open_retrieval(s);
    assert_ok(retrieval_flush(r, true, err));
    put_many(s, 5, 20);
    assert_ok(retrieval_sync(r, err));
    retrieval_hit hits[3];
    float v[DIM];
    lean_vector(1004, v, DIM);
    retrieval_query q = {.text = "Document number 4",
                         .text_size = 17,
                         .vector = v,
                         .as_of_us = 200 * DAY,
                         .about_us = BASE_TIME_NONE,
                         .k = 3,
                         .use_strength = true,
                         .use_time = true,
                         .use_bm25 = true};
    base_status status = BASE_NO_MEMORY;
    size_t n = 0;
    while (status != BASE_OK && n < 2000) {
        size_t count;
        base_error error = {0};
        base_mem_fail_at(++n);
        status = retrieval_search(r, &q, hits, &count, &error);
        base_mem_fail_at(0);
        if (status != BASE_OK) {
            assert_int_equal(status, BASE_NO_MEMORY);
            assert_true(error.text[0] != '\0');
        }
    }
    assert_int_equal(status, BASE_OK);
    assert_true(n > 3);
    assert_true(hits[0].similarity > 0.999f);
    retrieval_close(r);
    store_close(s);
}

#define with_store(test) cmocka_unit_test_setup_teardown(test, make_store, remove_store)

int main(void)
{
    const struct CMUnitTest tests[] = {
        with_store(test_retrieval_search_fuses_vectors_and_words),
        with_store(test_retrieval_search_cuts_at_as_of),
        with_store(test_retrieval_strength_puts_the_newer_version_first),
        with_store(test_retrieval_a_past_day_asks_for_what_held_then),
        with_store(test_retrieval_age_alone_leaves_relevance),
        with_store(test_retrieval_twins_are_ordered_by_time),
        with_store(test_retrieval_a_question_asked_before_is_no_answer),
        with_store(test_retrieval_collapses_copies_into_the_newest),
        with_store(test_retrieval_forgotten_vectors_leave_the_disk),
        with_store(test_retrieval_forgets_from_two_segments),
        with_store(test_retrieval_large_segments_grow_and_shrink_untrained),
        with_store(test_retrieval_damaged_index_is_rebuilt),
        with_store(test_retrieval_foreign_index_is_rebuilt),
        with_store(test_retrieval_segments_are_merged),
        with_store(test_retrieval_two_writers_of_segments_agree),
        with_store(test_retrieval_read_only_writes_nothing),
        with_store(test_retrieval_search_survives_failing_allocations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
