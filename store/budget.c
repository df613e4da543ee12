/* store/budget.c: keys and values on disk kept below a number of bytes.
 *
 * What goes first is worth least: strength x (uses that counted + a little for what has had no
 * chance yet), at the commit's clock; of equals, the episode that was observed earlier. Only KV
 * goes: text, vector and history stay, and the KV can be computed again. LMDB reuses the freed
 * pages; the file itself shrinks with the next scrub.
 */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/mem.h"
#include "store/internal.h"

/* As in splice_weakest: unused is not worthless. */
#define UNUSED_WORTH 0.05

typedef struct kv_entry {
    store_key key;
    uint64_t size; /* of the payload */
    double worth;
    int64_t observed_at_us;
} kv_entry;

typedef struct kv_entries {
    kv_entry *items;
    size_t count, capacity;
    uint64_t bytes;
} kv_entries;

static base_status no_memory(base_error *err)
{
    return base_fail(err, BASE_NO_MEMORY, "no memory for the list of keys and values");
}

static base_status add_entry(kv_entries *list, store_slice key, store_slice value, base_error *err)
{
    size_t frame = STORE_RECORD_HEAD + key.size + STORE_RECORD_TAIL;
    if (list->count == list->capacity) {
        size_t capacity = list->capacity ? 2 * list->capacity : 64;
        kv_entry *grown = base_realloc(list->items, capacity * sizeof *grown);
        if (!grown) {
            return no_memory(err);
        }
        list->items = grown;
        list->capacity = capacity;
    }
    kv_entry *entry = &list->items[list->count++];
    *entry = (kv_entry){.size = value.size > frame ? value.size - frame : 0};
    entry->key.size = key.size < sizeof entry->key.data ? key.size : sizeof entry->key.data;
    memcpy(entry->key.data, key.data, entry->key.size);
    list->bytes += entry->size;
    return BASE_OK;
}

/* Every KV record; their pages are not read. */
static base_status list_entries(store_txn *txn, kv_entries *list, base_error *err)
{
    store_db_cursor *cursor;
    store_slice key, value;
    base_status status = store_db_cursor_open(txn->db, STORE_TABLE_KV, &cursor, err);
    if (status != BASE_OK) {
        return status;
    }
    status = store_db_first(cursor, &key, &value, err);
    while (status == BASE_OK) {
        status = add_entry(list, key, value, err);
        if (status == BASE_OK) {
            status = store_db_next(cursor, &key, &value, err);
        }
    }
    store_db_cursor_close(cursor);
    return status == BASE_NOT_FOUND ? BASE_OK : status;
}

static base_status value_entries(store_txn *txn, kv_entries *list, base_error *err)
{
    uint64_t *ids = base_calloc(list->count, sizeof *ids);
    store_brief *briefs = base_calloc(list->count, sizeof *briefs);
    base_status status = ids && briefs ? BASE_OK : no_memory(err);
    for (size_t i = 0; i < list->count && status == BASE_OK; i++) {
        ids[i] = base_get_u64_be(list->items[i].key.data);
    }
    if (status == BASE_OK) {
        status = store_load_briefs(txn->s, txn->db, ids, list->count, txn->clock_us, briefs, err);
    }
    for (size_t i = 0; i < list->count && status == BASE_OK; i++) {
        kv_entry *entry = &list->items[i];
        store_state state = {0};
        if (briefs[i].id == 0) {
            continue; /* of nothing, or of a damaged episode: worth nothing */
        }
        status = store_load_state(txn->db, ids[i], &state, err);
        entry->worth = store_strength(&briefs[i], txn->clock_us) *
                       ((double)state.use_count + UNUSED_WORTH);
        entry->observed_at_us = briefs[i].observed_at_us;
    }
    base_free(ids);
    base_free(briefs);
    return status;
}

static int by_worth(const void *a, const void *b)
{
    const kv_entry *x = a, *y = b;
    if (x->worth != y->worth) {
        return x->worth < y->worth ? -1 : 1;
    }
    if (x->observed_at_us != y->observed_at_us) {
        return x->observed_at_us < y->observed_at_us ? -1 : 1;
    }
    return memcmp(x->key.data, y->key.data, sizeof x->key.data);
}

base_status store_trim_kv(store_txn *txn, uint64_t budget_bytes, store_trim_receipt *receipt,
                          base_error *err)
{
    kv_entries list = {0};
    store_trim_receipt ignored;
    receipt = receipt ? receipt : &ignored;
    *receipt = (store_trim_receipt){0};
    if (txn->meta.bytes_kv <= budget_bytes) {
        return BASE_OK;
    }
    base_status status = list_entries(txn, &list, err);
    if (status == BASE_OK && list.count > 0) {
        status = value_entries(txn, &list, err);
    }
    if (status == BASE_OK && list.count > 0) {
        qsort(list.items, list.count, sizeof *list.items, by_worth);
    }
    /* Some room beside, so that the next few answers need not look again. */
    uint64_t kept = budget_bytes - budget_bytes / 10, left = list.bytes;
    for (size_t i = 0; i < list.count && left > kept && status == BASE_OK; i++) {
        const kv_entry *entry = &list.items[i];
        status = store_db_delete(txn->db, STORE_TABLE_KV, &entry->key, err);
        left -= entry->size;
        receipt->entries++;
        receipt->bytes += entry->size;
    }
    if (status == BASE_OK) {
        txn->changed = txn->changed || receipt->entries > 0;
        txn->meta.kv_entries = list.count - receipt->entries;
        txn->meta.bytes_kv = left;
    }
    base_free(list.items);
    return status;
}
