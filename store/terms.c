/* store/terms.c: see terms.h. Hash: FNV-1a, 64 bit (G. Fowler, L. C. Noll, P. Vo). */
#include "store/terms.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"

#define TERMS_MAX 64 /* of one query: chosen, more add little */
#define COMMON_TERM_EPISODES 1000
#define HASH_START UINT64_C(0xcbf29ce484222325)
#define HASH_PRIME UINT64_C(0x100000001b3)

static uint64_t hash_bytes(uint64_t hash, const void *data, size_t size)
{
    const uint8_t *p = data;
    for (size_t i = 0; i < size; i++) {
        hash = (hash ^ p[i]) * HASH_PRIME;
    }
    return hash;
}

base_status store_terms_add(store_terms *terms, const char *text, size_t size)
{
    if (terms->count == terms->capacity) {
        size_t capacity = terms->capacity ? 2 * terms->capacity : 32, bytes;
        if (!base_size_mul(capacity, sizeof *terms->items, &bytes)) {
            return BASE_LIMIT;
        }
        store_term *items = base_realloc(terms->items, bytes);
        if (!items) {
            return BASE_NO_MEMORY;
        }
        terms->items = items;
        terms->capacity = capacity;
    }
    store_term term = {.offset = terms->text.size, .size = size};
    base_status status = base_buffer_append(&terms->text, text, size);
    if (status == BASE_OK) {
        terms->items[terms->count++] = term;
    }
    return status;
}

void store_terms_free(store_terms *terms)
{
    base_buffer_free(&terms->text);
    base_free(terms->items);
    terms->items = NULL;
    terms->count = terms->capacity = 0;
}

static int compare_texts(const void *a, const void *b)
{
    const store_term *x = a, *y = b;
    size_t common = x->size < y->size ? x->size : y->size;
    int order = memcmp(x->text, y->text, common);
    return order ? order : (x->size > y->size) - (x->size < y->size);
}

static int compare_frequencies(const void *a, const void *b)
{
    const store_term *x = a, *y = b;
    if (x->documents != y->documents) {
        return x->documents < y->documents ? -1 : 1;
    }
    return compare_texts(a, b);
}

void store_terms_distinct(store_terms *terms)
{
    for (size_t i = 0; i < terms->count; i++) {
        terms->items[i].text = terms->text.data + terms->items[i].offset;
    }
    if (terms->count > 1) {
        qsort(terms->items, terms->count, sizeof *terms->items, compare_texts);
    }
    size_t kept = 0;
    for (size_t i = 0; i < terms->count; i++) {
        if (kept == 0 || compare_texts(&terms->items[kept - 1], &terms->items[i]) != 0) {
            terms->items[kept++] = terms->items[i];
        }
    }
    terms->count = kept;
}

size_t store_terms_choose(store_terms *terms, uint64_t total, uint64_t postings_max)
{
    if (terms->count > 1) {
        qsort(terms->items, terms->count, sizeof *terms->items, compare_frequencies);
    }
    uint64_t postings = 0;
    size_t used = 0;
    for (size_t i = 0; i < terms->count && used < TERMS_MAX; i++) {
        store_term term = terms->items[i];
        if (term.documents == 0) {
            continue;
        }
        bool common = total > COMMON_TERM_EPISODES && term.documents > total / 2;
        if (common || (used > 0 && postings + term.documents > postings_max)) {
            break; /* all that follow are more common still */
        }
        postings += term.documents;
        terms->items[i] = terms->items[used];
        terms->items[used++] = term;
    }
    return used;
}

/* --- frequencies ---------------------------------------------------------------------------------
 * */

void store_frequencies_refresh(store_frequencies *f, uint64_t last_episode, uint64_t total)
{
    if (f->last_episode != last_episode || f->total != total ||
        f->count >= STORE_FREQUENCY_SLOTS / 2) {
        memset(f, 0, sizeof *f);
        f->last_episode = last_episode;
        f->total = total;
    }
}

uint64_t store_terms_hash(const char *term, size_t size)
{
    return hash_bytes(HASH_START, term, size);
}

static uint64_t term_hash(const store_term *term)
{
    return store_terms_hash(term->text, term->size) | 1;
}

/* The slot of hash, or the free one where it would go: half of the slots are always free. */
static size_t find_slot(const store_frequencies *f, uint64_t hash)
{
    size_t slot = (size_t)(hash >> 8) & (STORE_FREQUENCY_SLOTS - 1);
    while (f->hash[slot] != 0 && f->hash[slot] != hash) {
        slot = (slot + 1) & (STORE_FREQUENCY_SLOTS - 1);
    }
    return slot;
}

bool store_frequencies_find(const store_frequencies *f, store_term *term)
{
    uint64_t hash = term_hash(term);
    size_t slot = find_slot(f, hash);
    if (f->hash[slot] != hash) {
        return false;
    }
    term->documents = f->documents[slot];
    return true;
}

void store_frequencies_keep(store_frequencies *f, const store_term *term)
{
    if (f->count < STORE_FREQUENCY_SLOTS / 2) {
        uint64_t hash = term_hash(term);
        size_t slot = find_slot(f, hash);
        f->count += f->hash[slot] == 0;
        f->hash[slot] = hash;
        f->documents[slot] = term->documents;
    }
}

uint64_t store_terms_fingerprint(const char *term, size_t size, unsigned column, uint64_t offset)
{
    uint8_t place[12];
    base_put_u32(place, column);
    base_put_u64(place + 4, offset);
    uint64_t hash = hash_bytes(HASH_START, term, size);
    hash = hash_bytes(hash, place, sizeof place);
    hash ^= hash >> 32;
    return hash * UINT64_C(0x9E3779B97F4A7C15);
}
