/* The cache of postings: packed and unpacked it gives the scores of the postings that went in, and
 * it stays within its bytes by letting go what was not asked lately. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "store/postings.h"

enum { EPISODES = 5000, BEST = 64 };

static store_term term_of(const char *text, uint64_t documents)
{
    return (store_term){.text = text, .size = strlen(text), .documents = documents};
}

/* Goal: what comes out is what went in. Method: steps and frequencies of one and of several bytes;
 * the best of a query by bits, scored directly and from the cache. */
static void test_store_postings_keep_scores(void **state)
{
    (void)state;
    static store_postings p;
    store_bm25 b = {0};
    store_text_hit direct[BEST], cached[BEST];
    store_term term = term_of("lamp", 0);
    bool found = false;
    for (uint64_t id = 1; id <= EPISODES; id++) {
        assert_int_equal(store_bm25_set(&b, id, 0, (uint32_t)(5 + id % 40)), BASE_OK);
    }
    store_bm25_posting items[EPISODES];
    for (uint64_t id = 1; id <= EPISODES; id += 1 + id % 3 + (id % 100 == 0 ? 400 : 0)) {
        items[term.documents++] = (store_bm25_posting){id, id % 7 ? 1 + id % 4 : 1000 * id};
    }
    size_t counts[2];
    for (int round = 0; round < 2; round++) {
        store_bm25_begin(&b, 25 * EPISODES, EPISODES);
        store_bm25_term(&b, EPISODES, term.documents);
        assert_int_equal(store_postings_score(&p, &term, &b, &found), BASE_OK);
        assert_int_equal(found, round == 1);
        if (!found) {
            assert_int_equal(store_bm25_postings(&b, items, term.documents), BASE_OK);
            store_postings_begin(&p, &term);
            for (size_t i = 0; i < term.documents; i++) {
                store_postings_add(&p, items[i].id, items[i].frequency);
            }
            store_postings_keep(&p);
        }
        counts[round] = store_bm25_finish(&b, 0, BEST, round ? cached : direct);
    }
    assert_int_equal(counts[0], BEST);
    assert_int_equal(counts[1], BEST);
    for (size_t i = 0; i < BEST; i++) {
        assert_int_equal(direct[i].id, cached[i].id);
        assert_memory_equal(&direct[i].bm25, &cached[i].bm25, sizeof direct[i].bm25);
    }
    store_term same = term_of("lamp", 0);
    assert_true(store_postings_count(&p, &same));
    assert_int_equal(same.documents, term.documents);
    store_postings_refresh(&p, 1, 1); /* another state of the texts: nothing is left */
    assert_false(store_postings_count(&p, &same));
    store_postings_clear(&p);
    store_bm25_free(&b);
}

/* Goal: a full cache lets go, never of what is asked all the time. Method: terms of 2 MB, twice as
 * many as there is room for, one of them asked between. */
static void test_store_postings_stay_within_their_bytes(void **state)
{
    (void)state;
    static store_postings p;
    store_bm25 b = {0};
    char text[16];
    bool found;
    for (int i = 0; i < 64; i++) {
        snprintf(text, sizeof text, "word%d", i);
        store_term term = term_of(text, 700000), first = term_of("word0", 0);
        store_postings_begin(&p, &term);
        for (uint64_t k = 0; k < 700000; k++) {
            store_postings_add(&p, 10000 * (k + 1), 1);
        }
        store_postings_keep(&p);
        assert_true(p.bytes <= STORE_POSTINGS_BYTES);
        assert_int_equal(store_postings_score(&p, &first, &b, &found), BASE_OK);
        assert_true(found);
    }
    assert_in_range(p.count, 16, 40);
    store_postings_clear(&p);
    store_bm25_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_store_postings_keep_scores),
        cmocka_unit_test(test_store_postings_stay_within_their_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
