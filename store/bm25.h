/* store/bm25.h: BM25 over postings that someone else reads. No database here.
 *
 *   score(d) = sum over terms t of idf(t) * f * (k1 + 1) / (f + k1 * (1 - b + b * |d| / avg))
 *   idf(t) = ln((N - n + 0.5) / (n + 0.5)), at least 1e-6;  f = times that t is in d;  k1 = 1.2, b
 * = 0.75
 *
 * S. Robertson and H. Zaragoza, The Probabilistic Relevance Framework: BM25 and Beyond (2009), eq.
 * 3.15; idf and constants as in SQLite's bm25(), to whose values the tests compare. FTS5's own
 * function looks up the length of each row in a table, which costs ten times as much as the rest.
 */
#ifndef STORE_BM25_H
#define STORE_BM25_H

#include "base/mem.h"
#include "store/store.h"

/* What is known of each episode; the index of the arrays is the id. 16 bytes per id. Postings jump
 * through memory, so what one of them needs lies together. */
typedef struct store_bm25_slot {
    uint32_t tokens; /* 0 = no such episode */
    float score;     /* 0 outside of a query */
} store_bm25_slot;

typedef struct store_bm25 {
    int64_t *observed_at_us;
    store_bm25_slot *slots;
    uint64_t *touched; /* ids with a score */
    size_t touched_count, touched_capacity;
    uint64_t capacity;     /* ids below it have room */
    double idf, per_token; /* of the term; k1 * b / average length */
} store_bm25;

base_status store_bm25_set(store_bm25 *b, uint64_t id, int64_t observed_at_us, uint32_t tokens);
void store_bm25_free(store_bm25 *b);
/* Ids of episodes with observed_at <= as_of, ascending, into ids (NULL: none); returns how many. */
size_t store_bm25_known(const store_bm25 *b, int64_t as_of_us, uint64_t *ids);
/* One query: begin, for each term term + its postings (each episode once), then finish. */
void store_bm25_begin(store_bm25 *b, uint64_t total_tokens, uint64_t episodes);
void store_bm25_term(store_bm25 *b, uint64_t episodes, uint64_t documents);
typedef struct store_bm25_posting {
    uint64_t id, frequency;
} store_bm25_posting;
base_status store_bm25_postings(store_bm25 *b, const store_bm25_posting *items, size_t count);
/* The k best with observed_at <= as_of, best first, ties by id. Also ends a query that failed (k =
 * 0). */
size_t store_bm25_finish(store_bm25 *b, int64_t as_of_us, size_t k, store_text_hit *hits);

#endif
