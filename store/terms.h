/* store/terms.h: the terms of a text query: distinct, counted, chosen by how rare they are; and the
 * order-free fingerprint by which verify compares the text index with the texts. No database here.
 */
#ifndef STORE_TERMS_H
#define STORE_TERMS_H

#include <stdint.h>

#include "base/mem.h"

typedef struct store_term {
    const char *text; /* not NUL-terminated; set by store_terms_distinct */
    size_t offset, size;
    uint64_t documents; /* how many episodes hold it */
} store_term;

typedef struct store_terms {
    base_buffer text; /* the terms one after the other */
    store_term *items;
    size_t count, capacity;
} store_terms;

base_status store_terms_add(store_terms *terms, const char *text, size_t size);
/* Sort and drop repeats; from here on items[].text is set and nothing may be added. */
void store_terms_distinct(store_terms *terms);
void store_terms_free(store_terms *terms);

/* Put the terms worth asking first (documents set by the caller), the rarest leading, and return
 * how many they are. The cost of BM25 is linear in the postings of all terms, so terms are taken
 * from the rarest on while their frequencies add up to at most postings_max (the first always);
 * terms that no episode holds are left out, and in a store of more than 1000 episodes those in more
 * than half of them (idf ~ 0). */
size_t store_terms_choose(store_terms *terms, uint64_t total, uint64_t postings_max);

/* Cache of document frequencies: open addressing, keyed by a 64-bit hash of the term. */
#define STORE_FREQUENCY_SLOTS 65536 /* power of two; half of them are used at most: 1 MB */
typedef struct store_frequencies {
    uint64_t hash[STORE_FREQUENCY_SLOTS]; /* 0 = free */
    uint64_t documents[STORE_FREQUENCY_SLOTS];
    size_t count;
    uint64_t last_episode, total; /* state of the catalogue that they belong to */
} store_frequencies;
/* Empty the cache when the texts changed since, or when it is full. */
void store_frequencies_refresh(store_frequencies *f, uint64_t last_episode, uint64_t total);
bool store_frequencies_find(const store_frequencies *f, store_term *term);
void store_frequencies_keep(store_frequencies *f, const store_term *term);

uint64_t store_terms_hash(const char *term, size_t size);

/* One term at one place; the sum over all places of an episode does not depend on their order. */
uint64_t store_terms_fingerprint(const char *term, size_t size, unsigned column, uint64_t offset);

#endif
