/* store/postings.c: see postings.h. A table of buckets; the hand of the clock goes around them. */
#include "store/postings.h"

#include <string.h>

#define POSTING_BYTES_MAX 20 /* two integers of 64 bits */
#define OPEN_BYTES_MIN 1024
#define BATCH 128 /* postings scored at once */

static void free_entry(store_postings_entry *e)
{
    if (e) {
        base_free(e->term);
        base_free(e->data);
        base_free(e);
    }
}

static size_t bytes_of(const store_postings_entry *e)
{
    return sizeof *e + e->size + e->bytes;
}

static void drop_open(store_postings *p)
{
    free_entry(p->open);
    p->open = NULL;
    p->open_capacity = 0;
}

void store_postings_clear(store_postings *p)
{
    for (size_t i = 0; p->buckets && i < STORE_POSTINGS_BUCKETS; i++) {
        for (store_postings_entry *e = p->buckets[i], *next; e; e = next) {
            next = e->next;
            free_entry(e);
        }
    }
    base_free(p->buckets);
    p->buckets = NULL;
    drop_open(p);
    p->count = p->bytes = p->hand = 0;
}

void store_postings_refresh(store_postings *p, uint64_t last_episode, uint64_t episodes)
{
    if (p->last_episode != last_episode || p->episodes != episodes) {
        store_postings_clear(p);
        p->last_episode = last_episode;
        p->episodes = episodes;
    }
}

static size_t bucket_of(const char *term, size_t size)
{
    return (size_t)(store_terms_hash(term, size) >> 16) & (STORE_POSTINGS_BUCKETS - 1);
}

static store_postings_entry *find(const store_postings *p, const store_term *term)
{
    store_postings_entry *e = p->buckets ? p->buckets[bucket_of(term->text, term->size)] : NULL;
    while (e && (e->size != term->size || memcmp(e->term, term->text, e->size) != 0)) {
        e = e->next;
    }
    return e;
}

/* --- integers --------------------------------------------------------------------------------- */

static size_t put_number(uint8_t *p, uint64_t value)
{
    size_t n = 0;
    while (value >= 0x80) {
        p[n++] = (uint8_t)(value | 0x80);
        value >>= 7;
    }
    p[n++] = (uint8_t)value;
    return n;
}

static uint64_t get_number(const uint8_t **p)
{
    uint64_t value = **p & 0x7F;
    for (unsigned shift = 7; *(*p)++ & 0x80; shift += 7) {
        value |= (uint64_t)(**p & 0x7F) << shift;
    }
    return value;
}

/* --- asking ----------------------------------------------------------------------------------- */

bool store_postings_count(const store_postings *p, store_term *term)
{
    const store_postings_entry *e = find(p, term);
    if (e) {
        term->documents = e->count;
    }
    return e != NULL;
}

base_status store_postings_score(store_postings *p, const store_term *term, store_bm25 *b,
                                 bool *found)
{
    store_postings_entry *e = find(p, term);
    base_status status = BASE_OK;
    *found = e != NULL;
    if (!e) {
        return BASE_OK;
    }
    e->asked = true;
    uint64_t id = 0;
    const uint8_t *at = e->data, *end = at + e->bytes;
    while (at < end && status == BASE_OK) {
        store_bm25_posting items[BATCH];
        size_t n = 0;
        for (; n < BATCH && at < end; n++) {
            uint64_t step = get_number(&at);
            id += step >> 1;
            items[n].id = id;
            items[n].frequency = step & 1 ? get_number(&at) + 2 : 1;
        }
        status = store_bm25_postings(b, items, n);
    }
    return status;
}

/* --- taking in -------------------------------------------------------------------------------- */

void store_postings_begin(store_postings *p, const store_term *term)
{
    drop_open(p);
    if (term->documents < STORE_POSTINGS_WORTH || term->size == 0) {
        return;
    }
    if (!p->buckets) {
        p->buckets = base_calloc(STORE_POSTINGS_BUCKETS, sizeof *p->buckets);
    }
    store_postings_entry *e = p->buckets ? base_calloc(1, sizeof *e) : NULL;
    if (!e) {
        return;
    }
    e->term = base_strndup(term->text, term->size);
    e->size = term->size;
    p->open = e;
    p->open_id = 0;
    if (!e->term) {
        drop_open(p);
    }
}

void store_postings_add(store_postings *p, uint64_t id, uint64_t frequency)
{
    store_postings_entry *e = p->open;
    if (!e) {
        return;
    }
    if (e->bytes + POSTING_BYTES_MAX > p->open_capacity) {
        size_t capacity = p->open_capacity ? 2 * p->open_capacity : OPEN_BYTES_MIN;
        uint8_t *grown =
            capacity <= STORE_POSTINGS_BYTES / 4 ? base_realloc(e->data, capacity) : NULL;
        if (!grown) {
            drop_open(p);
            return;
        }
        e->data = grown;
        p->open_capacity = capacity;
    }
    e->bytes += put_number(e->data + e->bytes, (id - p->open_id) << 1 | (frequency > 1));
    if (frequency > 1) {
        e->bytes += put_number(e->data + e->bytes, frequency - 2);
    }
    e->count++;
    p->open_id = id;
}

/* Let go what was not asked since the hand came by, until there is room. */
static void make_room(store_postings *p, size_t bytes)
{
    while (p->count > 0 && p->bytes + bytes > STORE_POSTINGS_BYTES) {
        for (store_postings_entry **link = &p->buckets[p->hand]; *link;) {
            store_postings_entry *e = *link;
            if (e->asked) {
                e->asked = false;
                link = &e->next;
                continue;
            }
            *link = e->next;
            p->bytes -= bytes_of(e);
            p->count--;
            free_entry(e);
        }
        p->hand = (p->hand + 1) & (STORE_POSTINGS_BUCKETS - 1);
    }
}

void store_postings_keep(store_postings *p)
{
    store_postings_entry *e = p->open;
    if (!e) {
        return;
    }
    uint8_t *fitted = base_realloc(e->data, e->bytes + 1);
    e->data = fitted ? fitted : e->data;
    make_room(p, bytes_of(e));
    size_t bucket = bucket_of(e->term, e->size);
    e->asked = true;
    e->next = p->buckets[bucket];
    p->buckets[bucket] = e;
    p->bytes += bytes_of(e);
    p->count++;
    p->open = NULL;
    drop_open(p);
}
