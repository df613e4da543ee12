/* store/forget.c: episodes are removed for good, and everything that hangs on them.
 *
 * Forgetting the newest version does not make the older one current again: that its content was
 * replaced stays known (superseded_at), only the link to the replacement goes. A version keeps the
 * hash of its whole text while an episode of it is left, so that the same document ingested again
 * does not bring forgotten parts back; a document without episodes leaves nothing. The ids stay in
 * FORGOTTEN for those who follow by commit id. */
#include <string.h>

#include "base/bytes.h"
#include "store/check.h"

/* What one forget touches beyond its episodes. */
typedef struct touched {
    struct touched_version {
        uint64_t document;
        uint32_t version, source;
        uint64_t episodes; /* forgotten in it */
    } * items;
    size_t count, capacity;
} touched;

static base_status out_of_memory(base_error *err)
{
    return base_fail(err, BASE_NO_MEMORY, "out of memory");
}

static base_status touch(touched *t, const store_span_record *span, base_error *err)
{
    if (t->count > 0) {
        struct touched_version *last = &t->items[t->count - 1];
        if (last->document == span->document && last->version == span->version) {
            last->episodes++; /* ids of a version are neighbours */
            return BASE_OK;
        }
    }
    if (t->count == t->capacity) {
        size_t capacity = t->capacity ? 2 * t->capacity : 16, size;
        struct touched_version *items = NULL;
        if (base_size_mul(capacity, sizeof *items, &size)) {
            items = base_realloc(t->items, size);
        }
        if (!items) {
            return out_of_memory(err);
        }
        t->items = items;
        t->capacity = capacity;
    }
    t->items[t->count].document = span->document;
    t->items[t->count].version = span->version;
    t->items[t->count].source = span->source;
    t->items[t->count].episodes = 1;
    t->count++;
    return BASE_OK;
}

/* Keep the texts until the catalogue has taken them out (its index has no copy). span NULL:
 * unreadable. */
static base_status keep_removed(store_txn *txn, uint64_t id, const store_span_record *span,
                                base_error *err)
{
    if (txn->removed_count == txn->removed_capacity) {
        size_t capacity = txn->removed_capacity ? 2 * txn->removed_capacity : 64, size;
        store_removed *items = NULL;
        if (base_size_mul(capacity, sizeof *items, &size)) {
            items = base_realloc(txn->removed, size);
        }
        if (!items) {
            return out_of_memory(err);
        }
        txn->removed = items;
        txn->removed_capacity = capacity;
    }
    store_removed *removed = &txn->removed[txn->removed_count];
    memset(removed, 0, sizeof *removed);
    removed->id = id;
    if (span) {
        removed->title = store_slice_copy(span->title);
        removed->title_size = span->title.size;
        removed->text = store_slice_copy(span->text);
        removed->text_size = span->text.size;
    }
    txn->removed_count++;
    return span && (!removed->title || !removed->text) ? out_of_memory(err) : BASE_OK;
}

/* Delete one record; its size is added to *bytes. *found tells whether it was there. */
static base_status drop(store_txn *txn, store_table table, const store_key *key, uint64_t *bytes,
                        bool *found, base_error *err)
{
    store_slice value;
    *found = false;
    base_status status = store_db_get(txn->db, table, key, &value, err);
    if (status == BASE_NOT_FOUND) {
        return BASE_OK;
    }
    if (status == BASE_OK) {
        *found = true;
        *bytes += value.size;
        status = store_db_delete(txn->db, table, key, err);
    }
    return status;
}

/* Delete all records of a table whose key begins with the episode id. */
static base_status drop_all(store_txn *txn, store_table table, uint64_t id, uint64_t *count,
                            uint64_t *bytes, uint64_t *payload_bytes, base_error *err)
{
    store_key start = store_key_u64(id);
    for (;;) {
        store_db_cursor *cursor;
        store_slice key, value;
        base_status status = store_db_cursor_open(txn->db, table, &cursor, err);
        if (status != BASE_OK) {
            return status;
        }
        status = store_db_seek(cursor, &start, &key, &value, err);
        if (status == BASE_OK && (key.size < 8 || memcmp(key.data, start.data, 8) != 0)) {
            status = BASE_NOT_FOUND;
        }
        if (status == BASE_OK) {
            size_t frame = STORE_RECORD_HEAD + key.size + STORE_RECORD_TAIL;
            (*count)++;
            *bytes += value.size;
            *payload_bytes += value.size > frame ? value.size - frame : 0;
            status = store_db_cursor_delete(cursor, err);
        }
        store_db_cursor_close(cursor);
        if (status != BASE_OK) {
            return status == BASE_NOT_FOUND ? BASE_OK : status;
        }
    }
}

/* Counters go down to 0 at most: after damage they may be too small. */
static void subtract(uint64_t *counter, uint64_t amount)
{
    *counter -= amount < *counter ? amount : *counter;
}

static base_status forget_vector(store_txn *txn, uint64_t id, store_forget_receipt *receipt,
                                 base_error *err)
{
    store_key key = store_key_u64(id);
    store_slice payload;
    store_vector_record vector;
    bool found = false;
    uint64_t size = 0;
    if (store_load(txn->db, STORE_TABLE_VECTOR, &key, &payload, NULL, NULL) == BASE_OK &&
        store_vector_decode(payload, &vector) == BASE_OK) {
        size = 4 * vector.dim;
    }
    base_status status = drop(txn, STORE_TABLE_VECTOR, &key, &receipt->bytes, &found, err);
    if (found) {
        receipt->vectors++;
        subtract(&txn->meta.bytes_vectors, size);
    }
    return status;
}

static base_status forget_state(store_txn *txn, uint64_t id, store_forget_receipt *receipt,
                                base_error *err)
{
    store_key key = store_key_u64(id);
    store_state state;
    bool found = false;
    if (store_load_state(txn->db, id, &state, NULL) == BASE_OK &&
        state.superseded_at_us != BASE_TIME_MAX) {
        subtract(&txn->meta.superseded, 1);
    }
    return drop(txn, STORE_TABLE_STATE, &key, &receipt->bytes, &found, err);
}

/* One episode with all that carries its id. */
static base_status forget_episode(store_txn *txn, uint64_t id, touched *t, store_ids *gone,
                                  store_forget_receipt *receipt, base_error *err)
{
    store_key key = store_key_u64(id);
    store_span_record span;
    bool found = false;
    uint64_t uses = 0, ignored = 0, kv = 0, kv_bytes = 0;
    base_status status = store_load_span(txn->db, id, &span, NULL, err);
    if (status == BASE_NOT_FOUND) {
        return BASE_OK;
    }
    if (status == BASE_OK) {
        store_state state;
        status = touch(t, &span, err);
        if (status == BASE_OK) {
            status = keep_removed(txn, id, &span, err);
        }
        if (status == BASE_OK && store_load_state(txn->db, id, &state, NULL) == BASE_OK) {
            store_place place = {span.document, span.source};
            status = store_leave_stream(txn, place, &state, true, err);
        }
        subtract(&txn->meta.bytes_text, span.text.size);
    } else if (status == BASE_CORRUPT) {
        status = keep_removed(txn, id, NULL, err); /* unreadable is not unforgettable */
    }
    if (status == BASE_OK) {
        status = drop(txn, STORE_TABLE_EPISODE, &key, &receipt->bytes, &found, err);
    }
    if (status == BASE_OK) {
        status = forget_vector(txn, id, receipt, err);
    }
    if (status == BASE_OK) {
        status = forget_state(txn, id, receipt, err);
    }
    if (status == BASE_OK) {
        status = drop_all(txn, STORE_TABLE_USE, id, &uses, &receipt->bytes, &ignored, err);
    }
    if (status == BASE_OK) {
        status = drop_all(txn, STORE_TABLE_KV, id, &kv, &receipt->bytes, &kv_bytes, err);
    }
    if (status == BASE_OK && store_ids_add(gone, id) != BASE_OK) {
        status = out_of_memory(err);
    }
    subtract(&txn->meta.episodes, 1);
    subtract(&txn->meta.uses, uses);
    subtract(&txn->meta.kv_entries, kv);
    subtract(&txn->meta.bytes_kv, kv_bytes);
    receipt->kv += kv;
    receipt->episodes++;
    receipt->fts++;
    txn->changed = true;
    return status;
}

/* --- what is left without episodes
 * ------------------------------------------------------------------- */

static base_status version_is_empty(store_txn *txn, const store_version *version, bool *empty,
                                    base_error *err)
{
    *empty = true;
    for (uint32_t i = 0; i < version->episode_count && *empty; i++) {
        store_slice value;
        store_key key = store_key_u64(version->first_episode + i);
        base_status status = store_db_get(txn->db, STORE_TABLE_EPISODE, &key, &value, err);
        if (status == BASE_OK) {
            *empty = false;
        } else if (status != BASE_NOT_FOUND) {
            return status;
        }
    }
    return BASE_OK;
}

static base_status count_source(store_txn *txn, uint32_t id, uint64_t documents, uint64_t episodes,
                                uint64_t *bytes, base_error *err)
{
    store_source source;
    store_key key = store_key_u32(id);
    base_status status = store_load_source(txn->db, id, &source, err);
    if (status != BASE_OK) {
        return status == BASE_NOT_FOUND ? BASE_OK : status;
    }
    subtract(&source.documents, documents);
    subtract(&source.episodes, episodes);
    if (source.documents > 0) {
        return store_save_status(txn, store_source_encode(&txn->payload, &source),
                                 STORE_TABLE_SOURCE, &key, false, err);
    }
    uint8_t hash[32];
    bool found;
    base_sha256_of(source.name.data, source.name.size, hash);
    store_key name = store_key_hash(hash);
    status = drop(txn, STORE_TABLE_SOURCE_KEY, &name, bytes, &found, err);
    return status == BASE_OK ? drop(txn, STORE_TABLE_SOURCE, &key, bytes, &found, err) : status;
}

/* Versions that still exist of a document? */
static base_status document_is_empty(store_txn *txn, uint64_t document, bool *empty,
                                     base_error *err)
{
    store_db_cursor *cursor;
    store_slice key, value;
    store_key start = store_key_u64(document);
    base_status status = store_db_cursor_open(txn->db, STORE_TABLE_VERSION, &cursor, err);
    if (status != BASE_OK) {
        return status;
    }
    status = store_db_seek(cursor, &start, &key, &value, err);
    *empty =
        status == BASE_NOT_FOUND || (status == BASE_OK && memcmp(key.data, start.data, 8) != 0);
    store_db_cursor_close(cursor);
    return status == BASE_NOT_FOUND ? BASE_OK : status;
}

static base_status drop_document(store_txn *txn, uint64_t id, uint64_t *bytes, base_error *err)
{
    store_document document;
    store_key key = store_key_u64(id);
    bool found;
    base_status status = store_load_document(txn->db, id, &document, err);
    if (status == BASE_OK) {
        uint32_t source = document.source;
        store_key hash = store_key_hash(document.key);
        status = drop(txn, STORE_TABLE_DOCUMENT_KEY, &hash, bytes, &found, err);
        if (status == BASE_OK) {
            status = drop(txn, STORE_TABLE_DOCUMENT, &key, bytes, &found, err);
        }
        if (status == BASE_OK) {
            subtract(&txn->meta.documents, 1);
            status = count_source(txn, source, 1, 0, bytes, err);
        }
    }
    return status == BASE_NOT_FOUND ? BASE_OK : status;
}

/* Remove a version when its last episode went, then the document when its last version went. */
static base_status drop_empty(store_txn *txn, const struct touched_version *t, uint64_t *bytes,
                              base_error *err)
{
    store_version version;
    bool empty = false, found;
    base_status status = store_load_version(txn->db, t->document, t->version, &version, err);
    if (status == BASE_NOT_FOUND) {
        return BASE_OK; /* seen before in this call */
    }
    if (status == BASE_OK) {
        status = version_is_empty(txn, &version, &empty, err);
    }
    if (status != BASE_OK || !empty) {
        return status;
    }
    store_key time = store_key_version_time(t->document, version.observed_at_us, t->version);
    store_key key = store_key_version(t->document, t->version);
    status = drop(txn, STORE_TABLE_VERSION_TIME, &time, bytes, &found, err);
    if (status == BASE_OK) {
        status = drop(txn, STORE_TABLE_VERSION, &key, bytes, &found, err);
    }
    if (status == BASE_OK) {
        subtract(&txn->meta.versions, 1);
        status = document_is_empty(txn, t->document, &empty, err);
    }
    return status == BASE_OK && empty ? drop_document(txn, t->document, bytes, err) : status;
}

static bool is_gone(const store_ids *gone, uint64_t id)
{
    return id != 0 && store_ids_contain(gone, id);
}

/* No state may name a forgotten episode as its replacement or as what it replaced. */
static base_status unlink_states(store_txn *txn, const store_ids *gone, base_error *err)
{
    store_key at = store_key_u64(0);
    for (;;) {
        store_db_cursor *cursor;
        store_slice key, value, payload;
        store_state state = {0};
        uint64_t id = 0;
        base_status status = store_db_cursor_open(txn->db, STORE_TABLE_STATE, &cursor, err);
        if (status != BASE_OK) {
            return status;
        }
        status = store_db_seek(cursor, &at, &key, &value, err);
        while (status == BASE_OK) {
            if (key.size == 8 &&
                store_record_open(STORE_TABLE_STATE, key.data, 8, value, NULL, &payload) ==
                    BASE_OK &&
                store_state_decode(payload, &state) == BASE_OK &&
                (is_gone(gone, state.superseded_by) || is_gone(gone, state.replaced))) {
                id = base_get_u64_be(key.data);
                break;
            }
            status = store_db_next(cursor, &key, &value, err);
        }
        store_db_cursor_close(cursor);
        if (status != BASE_OK) {
            return status == BASE_NOT_FOUND ? BASE_OK : status;
        }
        store_state unlinked = state;
        unlinked.superseded_by = is_gone(gone, state.superseded_by) ? 0 : state.superseded_by;
        unlinked.replaced = is_gone(gone, state.replaced) ? 0 : state.replaced;
        status = store_save_state(txn, id, &state, &unlinked, err);
        if (status != BASE_OK || id == UINT64_MAX) {
            return status;
        }
        at = store_key_u64(id + 1);
    }
}

base_status store_save_forgotten(store_txn *txn, const store_ids *gone, base_error *err)
{
    base_status status = BASE_OK;
    base_buffer_clear(&txn->payload);
    for (size_t i = 0; i < gone->count && status == BASE_OK; i++) {
        uint8_t id[8];
        base_put_u64(id, gone->items[i]);
        store_chain_add(txn, id, sizeof id);
        status = base_buffer_append(&txn->payload, id, sizeof id);
    }
    store_key key = store_key_part(txn->commit, txn->forgotten_parts++);
    return store_save_status(txn, status, STORE_TABLE_FORGOTTEN, &key, false, err);
}

base_status store_forget(store_txn *txn, const uint64_t *ids, size_t count,
                         store_forget_receipt *receipt, base_error *err)
{
    store_ids wanted = {0}, gone = {0};
    touched t = {0};
    store_forget_receipt total = {0};
    base_status status = BASE_OK;
    for (size_t i = 0; i < count && status == BASE_OK; i++) {
        status = store_ids_add(&wanted, ids[i]);
    }
    if (status != BASE_OK) {
        out_of_memory(err);
    }
    store_ids_sort(&wanted);
    for (size_t i = 0; i < wanted.count && status == BASE_OK; i++) {
        status = forget_episode(txn, wanted.items[i], &t, &gone, &total, err);
    }
    for (size_t i = 0; i < t.count && status == BASE_OK; i++) {
        status = count_source(txn, t.items[i].source, 0, t.items[i].episodes, &total.bytes, err);
    }
    for (size_t i = 0; i < t.count && status == BASE_OK; i++) {
        status = drop_empty(txn, &t.items[i], &total.bytes, err);
    }
    if (status == BASE_OK && gone.count > 0) {
        status = unlink_states(txn, &gone, err);
    }
    if (status == BASE_OK && gone.count > 0) {
        status = store_save_forgotten(txn, &gone, err);
        txn->meta.flags |= STORE_META_SCRUB_PENDING;
    }
    store_ids_free(&wanted);
    store_ids_free(&gone);
    base_free(t.items);
    if (status == BASE_OK && receipt) {
        *receipt = total;
    }
    return status;
}
