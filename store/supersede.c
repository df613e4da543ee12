/* store/supersede.c: a new version of a document closes the one before it in time (semantics,
 * supersession).
 *
 * Versions are ordered by (observed_at, commit order). A version that arrives late is closed on
 * arrival by its successor and closes its predecessor earlier than the successor did. An episode
 * that was closed at an earlier time by something else stays closed at that time. Each closed
 * episode is linked to its counterpart in the replacing version: the same text word for word
 * (nearest in position), else the nearest in the same section, else the nearest. A copy takes over
 * the uses of the original. */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "store/check.h"

/* One episode of the replacing version, as a partner to look for. */
typedef struct partner {
    uint8_t hash[32]; /* of the text */
    uint64_t section; /* first 8 bytes of SHA-256 of the section */
    uint32_t ordinal;
    store_place place;
    uint64_t id;
} partner;

/* The live episodes of a version in three orders. */
typedef struct partners {
    partner *by_ordinal, *by_hash, *by_section;
    size_t count;
} partners;

static void partners_free(partners *p)
{
    base_free(p->by_ordinal);
    base_free(p->by_hash);
    base_free(p->by_section);
}

static int compare_ordinals(const partner *x, const partner *y)
{
    return (x->ordinal > y->ordinal) - (x->ordinal < y->ordinal);
}

static int compare_hashes(const void *a, const void *b)
{
    const partner *x = a, *y = b;
    int order = memcmp(x->hash, y->hash, sizeof x->hash);
    return order ? order : compare_ordinals(x, y);
}

static int compare_sections(const void *a, const void *b)
{
    const partner *x = a, *y = b;
    if (x->section != y->section) {
        return x->section < y->section ? -1 : 1;
    }
    return compare_ordinals(x, y);
}

static int compare_places(const void *a, const void *b)
{
    return compare_ordinals(a, b);
}

static uint64_t section_hash(store_slice section)
{
    uint8_t digest[32];
    base_sha256_of(section.data, section.size, digest);
    return base_get_u64(digest);
}

/* Load span i of a version; BASE_NOT_FOUND when it was forgotten. */
static base_status load_partner(store_txn *txn, uint64_t id, partner *out, base_error *err)
{
    store_span_record span;
    base_status status = store_load_span(txn->db, id, &span, NULL, err);
    if (status == BASE_OK) {
        memcpy(out->hash, span.content_hash, sizeof out->hash);
        out->section = section_hash(span.section);
        out->ordinal = span.ordinal;
        out->place = (store_place){span.document, span.source};
        out->id = id;
    }
    return status;
}

static partner *copy_sorted(const partner *items, size_t count,
                            int (*compare)(const void *, const void *))
{
    partner *copy = base_calloc(count ? count : 1, sizeof *copy);
    if (copy && count) {
        memcpy(copy, items, count * sizeof *copy);
        qsort(copy, count, sizeof *copy, compare);
    }
    return copy;
}

static base_status load_partners(store_txn *txn, const store_version *version, partners *out,
                                 base_error *err)
{
    base_status status = BASE_OK;
    out->by_ordinal = base_calloc(version->episode_count + (size_t)1, sizeof *out->by_ordinal);
    if (!out->by_ordinal) {
        return base_fail(err, BASE_NO_MEMORY, "out of memory");
    }
    for (uint32_t i = 0; i < version->episode_count && status == BASE_OK; i++) {
        status = load_partner(txn, version->first_episode + i, &out->by_ordinal[out->count], err);
        if (status == BASE_OK) {
            out->count++;
        } else if (status == BASE_NOT_FOUND) {
            status = BASE_OK;
        }
    }
    if (status == BASE_OK) {
        out->by_hash = copy_sorted(out->by_ordinal, out->count, compare_hashes);
        out->by_section = copy_sorted(out->by_ordinal, out->count, compare_sections);
        if (!out->by_hash || !out->by_section) {
            status = base_fail(err, BASE_NO_MEMORY, "out of memory");
        }
    }
    return status;
}

/* First item that is not below wanted. */
static size_t lower_bound(const partner *items, size_t count, const partner *wanted,
                          int (*compare)(const void *, const void *))
{
    size_t low = 0, high = count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (compare(&items[middle], wanted) < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static uint32_t distance(uint32_t a, uint32_t b)
{
    return a > b ? a - b : b - a;
}

/* Of the neighbours of wanted that `same` accepts, the nearer by ordinal (the earlier when equal).
 * */
static const partner *nearest(const partner *items, size_t count, const partner *wanted,
                              int (*compare)(const void *, const void *),
                              bool (*same)(const partner *, const partner *))
{
    size_t at = lower_bound(items, count, wanted, compare);
    const partner *after = at < count && same(&items[at], wanted) ? &items[at] : NULL;
    const partner *before = at > 0 && same(&items[at - 1], wanted) ? &items[at - 1] : NULL;
    if (!after || !before) {
        return after ? after : before;
    }
    return distance(after->ordinal, wanted->ordinal) < distance(before->ordinal, wanted->ordinal)
               ? after
               : before;
}

static bool same_text(const partner *a, const partner *b)
{
    return memcmp(a->hash, b->hash, sizeof a->hash) == 0;
}

static bool same_section(const partner *a, const partner *b)
{
    return a->section == b->section;
}

static bool any_place(const partner *a, const partner *b)
{
    (void)a;
    (void)b;
    return true;
}

static const partner *find_counterpart(const partners *p, const partner *wanted, bool *copy)
{
    const partner *found = nearest(p->by_hash, p->count, wanted, compare_hashes, same_text);
    *copy = found != NULL;
    if (!found) {
        found = nearest(p->by_section, p->count, wanted, compare_sections, same_section);
    }
    if (!found) {
        found = nearest(p->by_ordinal, p->count, wanted, compare_places, any_place);
    }
    return found;
}

/* Give the uses of one episode to its copy. */
static base_status copy_uses(store_txn *txn, uint64_t from, uint64_t to, base_error *err)
{
    store_db_cursor *cursor;
    store_slice key, value, payload;
    store_key at = store_key_use(from, INT64_MIN);
    base_status status = BASE_OK;
    for (;;) {
        /* Writing moves pages under a cursor's borrowed bytes: a fresh seek for each. */
        int64_t time_us;
        float mass = 0.0f;
        status = store_db_cursor_open(txn->db, STORE_TABLE_USE, &cursor, err);
        if (status != BASE_OK) {
            return status;
        }
        status = store_db_seek(cursor, &at, &key, &value, err);
        if (status == BASE_OK && (key.size != at.size || memcmp(key.data, at.data, 8) != 0)) {
            status = BASE_NOT_FOUND;
        }
        if (status == BASE_OK) {
            status = store_open_record(STORE_TABLE_USE, key, value, &payload, NULL, err);
        }
        if (status == BASE_OK && store_mass_decode(payload, &mass) != BASE_OK) {
            status = store_fail_record(err, BASE_CORRUPT, STORE_TABLE_USE, key.data, key.size);
        }
        time_us = status == BASE_OK ? store_key_time(key.data + 8) : 0;
        store_db_cursor_close(cursor);
        if (status != BASE_OK) {
            return status == BASE_NOT_FOUND ? BASE_OK : status;
        }
        status = store_put_use(txn, to, time_us, mass, err);
        if (status != BASE_OK || time_us == INT64_MAX) {
            return status;
        }
        at = store_key_use(from, time_us + 1);
    }
}

base_status store_close_version(store_txn *txn, const store_version *older,
                                const store_version *newer, base_error *err)
{
    partners found = {0}, old = {0};
    base_status status = load_partners(txn, newer, &found, err);
    if (status == BASE_OK) {
        status = load_partners(txn, older, &old, err);
    }
    for (uint32_t i = 0; i < older->episode_count && status == BASE_OK; i++) {
        partner wanted;
        store_state before;
        status = load_partner(txn, older->first_episode + i, &wanted, err);
        if (status == BASE_NOT_FOUND) {
            status = BASE_OK;
            continue;
        }
        if (status == BASE_OK) {
            status = store_load_state(txn->db, wanted.id, &before, err);
        }
        if (status != BASE_OK || before.superseded_at_us <= newer->observed_at_us) {
            continue;
        }
        bool copy = false;
        const partner *counterpart = find_counterpart(&found, &wanted, &copy);
        store_state after = before;
        after.superseded_at_us = newer->observed_at_us;
        after.superseded_by = counterpart ? counterpart->id : 0;
        status = store_save_state(txn, wanted.id, &before, &after, err);
        if (status == BASE_OK) {
            status = store_leave_stream(txn, wanted.place, &before, false, err);
        }
        /* What stood there before has not changed because its neighbour went. */
        bool stood = !copy && counterpart &&
                     nearest(old.by_hash, old.count, counterpart, compare_hashes, same_text);
        if (status == BASE_OK && counterpart && !stood) {
            store_link link = {.older = wanted.id,
                               .newer = counterpart->id,
                               .older_before = before,
                               .older_observed_us = older->observed_at_us,
                               .newer_place = counterpart->place,
                               .changed = !copy};
            status = store_join_stream(txn, &link, err);
        }
        if (status == BASE_OK && copy && before.use_count > 0) {
            status = copy_uses(txn, wanted.id, counterpart->id, err);
        }
    }
    partners_free(&found);
    partners_free(&old);
    return status;
}

/* The version before or after the given one in time; *number 0 when there is none. */
static base_status find_neighbour(store_txn *txn, const store_key *here, bool after,
                                  uint32_t *number, base_error *err)
{
    store_db_cursor *cursor;
    store_slice key, value;
    *number = 0;
    base_status status = store_db_cursor_open(txn->db, STORE_TABLE_VERSION_TIME, &cursor, err);
    if (status != BASE_OK) {
        return status;
    }
    status = store_db_seek(cursor, here, &key, &value, err);
    if (status == BASE_OK) {
        status = after ? store_db_next(cursor, &key, &value, err)
                       : store_db_previous(cursor, &key, &value, err);
    }
    if (status == BASE_OK && key.size == here->size && memcmp(key.data, here->data, 8) == 0) {
        *number = store_key_number(key.data + 16);
    }
    store_db_cursor_close(cursor);
    return status == BASE_NOT_FOUND ? BASE_OK : status;
}

static base_status load_neighbour(store_txn *txn, uint64_t document, uint32_t version,
                                  store_version *out, base_error *err)
{
    base_status status = store_load_version(txn->db, document, version, out, err);
    if (status == BASE_NOT_FOUND) {
        status = base_fail(err, BASE_CORRUPT, "version %u of document %llu has no record", version,
                           (unsigned long long)document);
    }
    out->title.data = NULL; /* borrowed from before the next write */
    out->title.size = 0;
    return status;
}

base_status store_supersede(store_txn *txn, uint64_t document, uint32_t version,
                            int64_t observed_at_us, base_error *err)
{
    store_key here = store_key_version_time(document, observed_at_us, version);
    uint32_t before = 0, after = 0;
    store_version current, other;
    base_status status = find_neighbour(txn, &here, false, &before, err);
    if (status == BASE_OK) {
        status = find_neighbour(txn, &here, true, &after, err);
    }
    if (status == BASE_OK && (before || after)) {
        status = load_neighbour(txn, document, version, &current, err);
    }
    /* In the order of time: what a stream has gone through is handed on. */
    if (status == BASE_OK && before) {
        status = load_neighbour(txn, document, before, &other, err);
        if (status == BASE_OK) {
            status = store_close_version(txn, &other, &current, err);
        }
    }
    if (status == BASE_OK && after) {
        status = load_neighbour(txn, document, after, &other, err);
        if (status == BASE_OK) {
            status = store_close_version(txn, &current, &other, err);
        }
    }
    return status;
}
