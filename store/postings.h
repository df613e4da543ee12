/* store/postings.h: a cache of the postings of frequent terms: which episodes hold a term, and how
 * often. The words that cost BM25 its time are the same in one question after another, and reading
 * their postings from the text index costs more than ten times as much as adding up scores. No
 * database here. All entries belong to one state of the catalogue; another state empties the cache.
 */
#ifndef STORE_POSTINGS_H
#define STORE_POSTINGS_H

#include "store/bm25.h"
#include "store/terms.h"

#define STORE_POSTINGS_TERMS 512          /* entries at most */
#define STORE_POSTINGS_MAX (4U << 20)     /* postings of all entries: 32 MB */
#define STORE_POSTINGS_WORTH 128          /* shorter lists are read anew */
#define STORE_POSTINGS_FREQUENCY_BITS 16U /* a higher frequency counts as the highest */

typedef struct store_postings_entry {
    char *term; /* [size] */
    size_t size, count;
    uint64_t *items; /* [count] id << 16 | frequency, ascending */
} store_postings_entry;

typedef struct store_postings {
    store_postings_entry entries[STORE_POSTINGS_TERMS];
    size_t count, total;       /* entries; postings of them */
    uint64_t commit, episodes; /* the state that they belong to */
    store_postings_entry open; /* being read */
    size_t open_capacity;
    bool opened;
} store_postings;

/* Empty the cache when the catalogue changed since. */
void store_postings_refresh(store_postings *p, uint64_t commit, uint64_t episodes);
/* Add the term's postings to the scores of b. *found: it was in the cache. Errors as
 * store_bm25_posting's. */
base_status store_postings_score(const store_postings *p, const store_term *term, store_bm25 *b,
                                 bool *found);
/* Begin to take in a term, add its postings by ascending id, and keep it. What does not fit, or has
 * no memory, is not kept: that is no error. */
void store_postings_begin(store_postings *p, const store_term *term);
void store_postings_add(store_postings *p, uint64_t id, uint64_t frequency);
void store_postings_keep(store_postings *p);
void store_postings_clear(store_postings *p);

#endif
