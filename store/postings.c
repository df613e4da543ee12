/* store/postings.c: see postings.h. The entries are few, so they are searched one by one. */
#include "store/postings.h"

#include <string.h>

static void free_entry(store_postings_entry *e)
{
    base_free(e->term);
    base_free(e->items);
    *e = (store_postings_entry){0};
}

static void drop_open(store_postings *p)
{
    free_entry(&p->open);
    p->open_capacity = 0;
    p->opened = false;
}

void store_postings_clear(store_postings *p)
{
    for (size_t i = 0; i < p->count; i++) {
        free_entry(&p->entries[i]);
    }
    drop_open(p);
    p->count = p->total = 0;
}

void store_postings_refresh(store_postings *p, uint64_t commit, uint64_t episodes)
{
    if (p->commit != commit || p->episodes != episodes) {
        store_postings_clear(p);
        p->commit = commit;
        p->episodes = episodes;
    }
}

static const store_postings_entry *find(const store_postings *p, const store_term *term)
{
    for (size_t i = 0; i < p->count; i++) {
        const store_postings_entry *e = &p->entries[i];
        if (e->size == term->size && memcmp(e->term, term->text, e->size) == 0) {
            return e;
        }
    }
    return NULL;
}

base_status store_postings_score(const store_postings *p, const store_term *term, store_bm25 *b,
                                 bool *found)
{
    const uint64_t frequencies = (UINT64_C(1) << STORE_POSTINGS_FREQUENCY_BITS) - 1;
    const store_postings_entry *e = find(p, term);
    base_status status = BASE_OK;
    *found = e != NULL;
    for (size_t i = 0; e && i < e->count && status == BASE_OK; i++) {
        status = store_bm25_posting(b, e->items[i] >> STORE_POSTINGS_FREQUENCY_BITS,
                                    e->items[i] & frequencies);
    }
    return status;
}

void store_postings_begin(store_postings *p, const store_term *term)
{
    drop_open(p);
    if (term->documents < STORE_POSTINGS_WORTH || term->documents > STORE_POSTINGS_MAX ||
        term->size == 0) {
        return;
    }
    if (p->count == STORE_POSTINGS_TERMS || p->total + term->documents > STORE_POSTINGS_MAX) {
        store_postings_clear(p);
    }
    p->open.term = base_strndup(term->text, term->size);
    p->open.size = term->size;
    p->open_capacity = (size_t)term->documents;
    p->open.items = base_alloc(p->open_capacity * sizeof *p->open.items);
    p->opened = p->open.term && p->open.items;
}

void store_postings_add(store_postings *p, uint64_t id, uint64_t frequency)
{
    const uint64_t frequencies = (UINT64_C(1) << STORE_POSTINGS_FREQUENCY_BITS) - 1;
    if (!p->opened) {
        return;
    }
    if (p->open.count == p->open_capacity || id > UINT64_MAX >> STORE_POSTINGS_FREQUENCY_BITS) {
        drop_open(p); /* more than were counted: not this time */
        return;
    }
    frequency = frequency < frequencies ? frequency : frequencies;
    p->open.items[p->open.count++] = id << STORE_POSTINGS_FREQUENCY_BITS | frequency;
}

void store_postings_keep(store_postings *p)
{
    if (p->opened) {
        p->total += p->open.count;
        p->entries[p->count++] = p->open;
        p->open = (store_postings_entry){0};
    }
    drop_open(p);
}
