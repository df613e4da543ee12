/* store/postings.h: a cache of the postings of frequent terms: which episodes hold a term, and how
 * often. The words that cost BM25 its time are the same in one question after another, and reading
 * their postings from the text index costs more than ten times as much as adding up scores. No
 * database here. All entries belong to one state of the catalogue; another state empties the cache.
 *
 * An entry is a string of variable-length integers (7 bits a byte, the lowest first, the top bit
 * set where more follow): for each posting 2 * (id - id before) + (frequency > 1), then, where the
 * last bit is set, frequency - 2. That is two bytes for a term in one of a hundred episodes. What
 * was not asked since the hand came by last goes first ("clock": F. Corbato, A Paging Experiment
 * with the Multics System, 1968).
 */
#ifndef STORE_POSTINGS_H
#define STORE_POSTINGS_H

#include "store/bm25.h"
#include "store/terms.h"

#define STORE_POSTINGS_BYTES ((size_t)64 << 20) /* of all entries */
#define STORE_POSTINGS_WORTH 128                /* shorter lists are read anew */
#define STORE_POSTINGS_BUCKETS 8192             /* power of two */

typedef struct store_postings_entry {
    struct store_postings_entry *next; /* of its bucket */
    char *term;                        /* [size] */
    size_t size, count, bytes;
    uint8_t *data; /* [bytes] */
    bool asked;    /* since the hand came by */
} store_postings_entry;

typedef struct store_postings {
    store_postings_entry **buckets;  /* [STORE_POSTINGS_BUCKETS], NULL while empty */
    size_t count, bytes;             /* entries; of them */
    size_t hand;                     /* bucket that is looked at next when room is needed */
    uint64_t last_episode, episodes; /* the state that they belong to */
    store_postings_entry *open;      /* being read, not in a bucket */
    size_t open_capacity;
    uint64_t open_id; /* last one taken in */
} store_postings;

/* Empty the cache when the texts changed since. */
void store_postings_refresh(store_postings *p, uint64_t last_episode, uint64_t episodes);
/* Add the term's postings to the scores of b. *found: it was in the cache. Errors as
 * store_bm25_postings'. */
base_status store_postings_score(store_postings *p, const store_term *term, store_bm25 *b,
                                 bool *found);
/* In how many episodes a cached term is. */
bool store_postings_count(const store_postings *p, store_term *term);
/* Begin to take in a term, add its postings by ascending id, and keep it. What is too short, or has
 * no memory, is not kept: that is no error. */
void store_postings_begin(store_postings *p, const store_term *term);
void store_postings_add(store_postings *p, uint64_t id, uint64_t frequency);
void store_postings_keep(store_postings *p);
void store_postings_clear(store_postings *p);

#endif
