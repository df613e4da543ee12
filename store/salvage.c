/* store/salvage.c: what can be had from a damaged store, made consistent again, in a child process.
 *
 * 1. Gather valid records into a new environment: out of the tables, when these can be walked, and
 *    out of the bytes of data.mdb (every record says which it is, record.h). In the bytes
 *    lie old copies too; of several the one of the newest commit counts, and none of a commit that
 *    is not known as finished: by the newest head, or by the catalogue, which follows a commit when
 *    it is durable (the head may be what is damaged). What FORGOTTEN names is left out.
 * 2. Make it consistent: heads that are lost are made up from the episodes that need them, the
 *    tables that only repeat others are written anew, old versions are closed, counters counted.
 *    Episodes that a version lost are named ("lost") and join FORGOTTEN, so that all who follow
 *    drop them.
 *
 * Kinds of problems: lost (an episode), lost_document_id, lost_source_name, lost_content_hash (made
 * up), lost_head. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/file.h"
#include "store/check.h"

typedef struct work {
    const store_salvage *salvage;
    store_check *check;
    store_txn txn; /* of the new environment; no store behind it */
    store_db *db;
    size_t pending; /* bytes put since the new environment was last committed */
    store_ids forgotten, lost;
    uint64_t chain_document; /* of the version before, in the walk by time */
    uint32_t chain_version;
    uint64_t commit_seen, next_episode_seen; /* in the walk over the commits */
} work;

#define BATCH_BYTES ((size_t)64 << 20) /* bounds LMDB's dirty pages */

/* --- 1. gather
 * --------------------------------------------------------------------------------------- */

/* Of two copies of one record of the same commit: which one? The state that is closed earlier, else
 * the one at hand: all else of one commit is equal or counted anew. */
static bool replaces(store_table table, store_slice old, store_slice fresh)
{
    store_state a, b;
    return table == STORE_TABLE_STATE && store_state_decode(old, &a) == BASE_OK &&
           store_state_decode(fresh, &b) == BASE_OK && b.superseded_at_us < a.superseded_at_us;
}

static base_status put_salvaged(work *w, store_table table, const store_key *key,
                                const uint8_t *record, size_t size, base_error *err)
{
    store_slice value = {record, size}, fresh, payload;
    uint64_t commit = 0, old_commit = 0;
    if (store_record_open(table, key->data, key->size, value, &commit, &fresh) != BASE_OK) {
        return BASE_OK;
    }
    base_status status = store_load(w->txn.db, table, key, &payload, &old_commit, err);
    if (status == BASE_OK &&
        (old_commit > commit || (old_commit == commit && !replaces(table, payload, fresh)))) {
        return BASE_OK;
    }
    if (status != BASE_OK && status != BASE_NOT_FOUND) {
        return status;
    }
    status = store_db_put(w->txn.db, table, key, record, size, false, err);
    w->pending += size;
    if (status == BASE_OK && w->pending > BATCH_BYTES) {
        w->pending = 0;
        status = store_db_commit(w->txn.db, err);
        w->txn.db = NULL;
        if (status == BASE_OK) {
            status = store_db_begin(w->db, true, &w->txn.db, err);
        }
    }
    return status;
}

static base_status gather_table(work *w, store_db_txn *from, store_table table, base_error *err)
{
    store_db_cursor *cursor;
    store_slice key, value;
    base_status status = store_db_cursor_open(from, table, &cursor, err);
    if (status != BASE_OK) {
        return status;
    }
    status = store_db_first(cursor, &key, &value, err);
    while (status == BASE_OK) {
        if (key.size <= STORE_KEY_MAX) {
            store_key k = {.size = key.size};
            memcpy(k.data, key.data, key.size);
            status = put_salvaged(w, table, &k, value.data, value.size, err);
        }
        if (status == BASE_OK) {
            status = store_db_next(cursor, &key, &value, err);
        }
    }
    store_db_cursor_close(cursor);
    return status == BASE_NOT_FOUND ? BASE_OK : status;
}

static base_status gather_tables(work *w, base_error *err)
{
    store_db_options options = {.read_only = true, .quiet_abort = true};
    store_db *db;
    store_db_txn *from;
    base_status status = store_db_open(w->salvage->folder, &options, &db, err);
    if (status != BASE_OK) {
        return status;
    }
    status = store_db_begin(db, false, &from, err);
    for (int i = 0; i < STORE_TABLE_COUNT && status == BASE_OK; i++) {
        status = gather_table(w, from, (store_table)i, err);
    }
    store_db_abort(from);
    store_db_close(db);
    return status;
}

typedef base_status visit_record(work *w, store_table table, const store_key *key, uint64_t commit,
                                 const uint8_t *record, size_t size, base_error *err);

/* Every valid record among the bytes of a file. */
static base_status scan_bytes(work *w, const base_map *map, visit_record *visit, base_error *err)
{
    base_status status = BASE_OK;
    const uint8_t *end = map->data + map->size;
    const uint8_t *p = map->size ? memchr(map->data, 'e', map->size) : NULL;
    while (p && status == BASE_OK) {
        store_table table;
        store_key key;
        uint64_t commit;
        size_t size = 1;
        if (store_record_probe(p, (size_t)(end - p), &table, &key, &commit, &size)) {
            status = visit(w, table, &key, commit, p, size, err);
        } else {
            size = 1;
        }
        p += size;
        p = p < end ? memchr(p, 'e', (size_t)(end - p)) : NULL;
    }
    return status;
}

/* The newest commit that a head speaks of: it is written with the commit that it names. */
static base_status visit_meta(work *w, store_table table, const store_key *key, uint64_t commit,
                              const uint8_t *record, size_t size, base_error *err)
{
    (void)size;
    (void)err;
    store_meta meta;
    store_slice payload = {record + STORE_RECORD_HEAD + key->size, base_get_u32(record + 4)};
    if (table == STORE_TABLE_META && store_meta_decode(payload, &meta) == BASE_OK &&
        meta.last_commit == commit && commit >= w->txn.meta.last_commit) {
        w->txn.meta = meta;
    }
    return BASE_OK;
}

static base_status visit_all(work *w, store_table table, const store_key *key, uint64_t commit,
                             const uint8_t *record, size_t size, base_error *err)
{
    if (w->txn.meta.last_commit > 0 && commit > w->txn.meta.last_commit &&
        commit > w->salvage->finished) {
        return BASE_OK;
    }
    return put_salvaged(w, table, key, record, size, err);
}

/* What only forgetting takes away, which make_consistent does again: not keys and values, which a
 * budget takes away, too. */
static base_status visit_lasting(work *w, store_table table, const store_key *key, uint64_t commit,
                                 const uint8_t *record, size_t size, base_error *err)
{
    return table == STORE_TABLE_KV ? BASE_OK : visit_all(w, table, key, commit, record, size, err);
}

static base_status gather_bytes(work *w, visit_record *visit, base_error *err)
{
    char path[STORE_PATH_SIZE];
    base_map map;
    base_status status = base_path_join(path, sizeof path, w->salvage->folder, STORE_DATA_NAME);
    if (status != BASE_OK) {
        return base_fail(err, status, "path is too long: %.80s...", w->salvage->folder);
    }
    status = base_map_open(path, &map, err);
    if (status != BASE_OK) {
        return status;
    }
    status = scan_bytes(w, &map, visit_meta, err);
    if (status == BASE_OK) {
        status = scan_bytes(w, &map, visit, err);
    }
    base_map_close(&map);
    return status;
}

/* Out of the tables where they can be walked, and then out of the bytes what a walk passes because
 * LMDB's own words beside a whole record are spoilt. */
static base_status gather(work *w, base_error *err)
{
    if (w->salvage->raw) {
        return gather_bytes(w, visit_all, err);
    }
    base_status status = gather_tables(w, err);
    return status == BASE_OK ? gather_bytes(w, visit_lasting, err) : status;
}

/* --- 2. walks over the new environment, which may write as they go
 * ----------------------------------- */

typedef base_status visit_entry(work *w, const store_key *key, store_slice payload,
                                base_error *err);

/* The next key of the same length; false when there is none. */
static bool count_up(store_key *key)
{
    for (size_t i = key->size; i-- > 0;) {
        if (++key->data[i] != 0) {
            return true;
        }
    }
    return false;
}

/* Visit each record of a table. The payload is a copy: visits write. Missing entries are skipped.
 * */
static base_status for_each(work *w, store_table table, visit_entry *visit, base_error *err)
{
    store_key at = {.size = 1};
    base_buffer copy = {0};
    base_status status = BASE_OK;
    while (status == BASE_OK) {
        store_db_cursor *cursor;
        store_slice key, value, payload;
        status = store_db_cursor_open(w->txn.db, table, &cursor, err);
        if (status != BASE_OK) {
            break;
        }
        status = store_db_seek(cursor, &at, &key, &value, err);
        if (status == BASE_OK) {
            status = store_open_record(table, key, value, &payload, NULL, err);
        }
        if (status == BASE_OK) {
            store_key here = {.size = key.size};
            memcpy(here.data, key.data, key.size);
            base_buffer_clear(&copy);
            status = base_buffer_append(&copy, payload.data, payload.size);
            at = here;
        }
        store_db_cursor_close(cursor);
        if (status == BASE_OK) {
            payload = store_slice_of(copy.data, copy.size);
            store_key here = at;
            status = visit(w, &here, payload, err);
            if (status == BASE_OK && !count_up(&at)) {
                break;
            }
        }
    }
    base_buffer_free(&copy);
    return status == BASE_NOT_FOUND ? BASE_OK : status;
}

static base_status drop(work *w, store_table table, const store_key *key, base_error *err)
{
    base_status status = store_db_delete(w->txn.db, table, key, err);
    return status == BASE_NOT_FOUND ? BASE_OK : status;
}

static bool episode_exists(work *w, uint64_t id)
{
    store_slice value;
    store_key key = store_key_u64(id);
    return store_db_get(w->txn.db, STORE_TABLE_EPISODE, &key, &value, NULL) == BASE_OK;
}

static base_status drop_forgotten(work *w, const store_key *key, store_slice payload,
                                  base_error *err)
{
    (void)payload;
    return store_ids_contain(&w->forgotten, base_get_u64_be(key->data))
               ? drop(w, STORE_TABLE_EPISODE, key, err)
               : BASE_OK;
}

/* Leave out what hangs on no episode, and count the rest. */
static base_status keep_vector(work *w, const store_key *key, store_slice payload, base_error *err)
{
    store_vector_record vector;
    if (!episode_exists(w, base_get_u64_be(key->data)) ||
        store_vector_decode(payload, &vector) != BASE_OK) {
        return drop(w, STORE_TABLE_VECTOR, key, err);
    }
    w->txn.meta.vector_dim = (uint32_t)vector.dim;
    w->txn.meta.bytes_vectors += 4 * vector.dim;
    return BASE_OK;
}

static base_status keep_kv(work *w, const store_key *key, store_slice payload, base_error *err)
{
    if (!episode_exists(w, base_get_u64_be(key->data))) {
        return drop(w, STORE_TABLE_KV, key, err);
    }
    w->txn.meta.kv_entries++;
    w->txn.meta.bytes_kv += payload.size;
    return BASE_OK;
}

/* Use counts start at 0 again; a state that leads nowhere is opened. */
static base_status reset_state(work *w, const store_key *key, store_slice payload, base_error *err)
{
    store_state state;
    uint64_t id = base_get_u64_be(key->data);
    if (!episode_exists(w, id) || store_state_decode(payload, &state) != BASE_OK) {
        return drop(w, STORE_TABLE_STATE, key, err);
    }
    if (state.superseded_by && !episode_exists(w, state.superseded_by)) {
        if (!store_ids_contain(&w->forgotten, state.superseded_by)) {
            state.superseded_at_us = BASE_TIME_MAX; /* the chain of versions closes it again */
        }
        state.superseded_by = 0;
    }
    if (state.replaced && !episode_exists(w, state.replaced)) {
        state.replaced = 0;
    }
    state.use_count = 0;
    return store_save_status(&w->txn, store_state_encode(&w->txn.payload, &state),
                             STORE_TABLE_STATE, key, false, err);
}

static base_status keep_use(work *w, const store_key *key, store_slice payload, base_error *err)
{
    float mass;
    store_state state;
    uint64_t id = base_get_u64_be(key->data);
    if (!episode_exists(w, id) || store_mass_decode(payload, &mass) != BASE_OK) {
        return drop(w, STORE_TABLE_USE, key, err);
    }
    w->txn.meta.uses++;
    if (!(mass >= STORE_USE_MASS_MIN)) {
        return BASE_OK;
    }
    base_status status = store_load_state(w->txn.db, id, &state, err);
    store_state counted = state;
    counted.use_count++;
    return status == BASE_OK ? store_save_state(&w->txn, id, &state, &counted, err) : status;
}

static base_status count_state(work *w, const store_key *key, store_slice payload, base_error *err)
{
    store_state state;
    store_span_record span;
    if (store_state_decode(payload, &state) != BASE_OK) {
        return BASE_OK;
    }
    w->txn.meta.superseded += state.superseded_at_us != BASE_TIME_MAX;
    base_status status = store_load_span(w->txn.db, base_get_u64_be(key->data), &span, NULL, err);
    store_place place = {span.document, span.source};
    return status == BASE_OK ? store_count_stream(&w->txn, place, &state, err) : status;
}

/* --- heads
 * -------------------------------------------------------------------------------------------- */

static base_status count_source(work *w, uint32_t id, uint64_t documents, uint64_t episodes,
                                base_error *err);

/* A source without a record gets a name that says so. */
static base_status need_source(work *w, uint32_t id, base_error *err)
{
    char name[64];
    store_source source;
    base_status status = store_load_source(w->txn.db, id, &source, err);
    if (status != BASE_NOT_FOUND && status != BASE_CORRUPT) {
        return status;
    }
    store_check_lmdb(w->check, id, "lost_source_name");
    snprintf(name, sizeof name, "recovered source %u", id);
    memset(&source, 0, sizeof source);
    source.half_life_s = INFINITY;
    source.counted = true;
    source.name = store_slice_of(name, strlen(name));
    store_key key = store_key_u32(id);
    return store_save_status(&w->txn, store_source_encode(&w->txn.payload, &source),
                             STORE_TABLE_SOURCE, &key, false, err);
}

static base_status need_document(work *w, uint64_t id, uint32_t source, uint32_t version,
                                 base_error *err)
{
    char name[64];
    store_document document;
    base_status status = store_load_document(w->txn.db, id, &document, err);
    if (status == BASE_OK && document.versions >= version) {
        return BASE_OK;
    }
    if (status == BASE_NOT_FOUND) {
        store_check_lmdb(w->check, id, "lost_document_id");
        snprintf(name, sizeof name, "recovered document %llu", (unsigned long long)id);
        memset(&document, 0, sizeof document);
        document.source = source;
        document.external_id = store_slice_of(name, strlen(name));
        base_sha256_of(name, strlen(name), document.key);
    } else if (status != BASE_OK) {
        return status;
    }
    document.versions = version > document.versions ? version : document.versions;
    store_key key = store_key_u64(id);
    return store_save_status(&w->txn, store_document_encode(&w->txn.payload, &document),
                             STORE_TABLE_DOCUMENT, &key, false, err);
}

/* A version without a record, from one of its episodes; it grows as more of them come by. */
static base_status need_version(work *w, uint64_t id, const store_span_record *span,
                                base_error *err)
{
    store_version version;
    base_status status =
        store_load_version(w->txn.db, span->document, span->version, &version, err);
    if (status == BASE_OK && span->ordinal < version.episode_count) {
        return BASE_OK;
    }
    if (status == BASE_NOT_FOUND) {
        store_check_lmdb(w->check, span->document, "lost_content_hash");
        memset(&version, 0, sizeof version);
        version.first_episode = id - span->ordinal;
        version.kind = span->kind;
        version.observed_at_us = span->observed_at_us;
        version.valid_from_us = span->valid_from_us;
        version.valid_to_us = span->valid_to_us;
        version.ingested_at_us = span->ingested_at_us;
        version.title = span->title;
    } else if (status != BASE_OK) {
        return status;
    }
    version.episode_count = span->ordinal + 1;
    version.text_size = span->end_byte;
    store_key key = store_key_version(span->document, span->version);
    return store_save_status(&w->txn, store_version_encode(&w->txn.payload, &version),
                             STORE_TABLE_VERSION, &key, false, err);
}

static base_status keep_episode(work *w, const store_key *key, store_slice payload, base_error *err)
{
    store_span_record span;
    uint64_t id = base_get_u64_be(key->data);
    if (store_span_decode(payload, &span) != BASE_OK || span.ordinal > id) {
        return drop(w, STORE_TABLE_EPISODE, key, err);
    }
    base_status status = count_source(w, span.source, 0, 1, err);
    if (status == BASE_OK) {
        status = need_document(w, span.document, span.source, span.version, err);
    }
    if (status == BASE_OK) {
        status = need_version(w, id, &span, err);
    }
    w->txn.meta.episodes++;
    w->txn.meta.bytes_text += span.text.size;
    if (id >= w->txn.meta.next_episode) {
        w->txn.meta.next_episode = id + 1;
    }
    return status;
}

/* Name what a version lost. Its hash is made anew when it was made up (all zero) and all is there.
 * */
static base_status keep_version(work *w, const store_key *key, store_slice payload, base_error *err)
{
    static const uint8_t none[32];
    store_version version;
    uint64_t document = base_get_u64_be(key->data), left = 0;
    base_sha256 sum;
    if (store_version_decode(payload, &version) != BASE_OK) {
        return drop(w, STORE_TABLE_VERSION, key, err);
    }
    base_status status = BASE_OK;
    base_sha256_begin(&sum);
    for (uint32_t i = 0; i < version.episode_count && status == BASE_OK; i++) {
        store_span_record span;
        uint64_t id = version.first_episode + i;
        status = store_load_span(w->txn.db, id, &span, NULL, err);
        if (status == BASE_OK) {
            left++;
            base_sha256_add(&sum, span.text.data, span.text.size);
        } else if (status == BASE_NOT_FOUND) {
            status = BASE_OK;
            if (!store_ids_contain(&w->forgotten, id)) {
                store_check_lmdb(w->check, id, "lost");
                status = store_ids_add(&w->lost, id);
            }
        }
    }
    if (status == BASE_OK && left == 0 && version.episode_count > 0) {
        return drop(w, STORE_TABLE_VERSION, key, err);
    }
    if (status == BASE_OK && memcmp(version.content_hash, none, 32) == 0) {
        base_sha256_end(&sum, version.content_hash);
        status = store_save_status(&w->txn, store_version_encode(&w->txn.payload, &version),
                                   STORE_TABLE_VERSION, key, false, err);
    }
    if (status == BASE_OK) {
        store_key time = store_key_version_time(document, version.observed_at_us,
                                                store_key_number(key->data + 8));
        base_buffer_clear(&w->txn.payload);
        status = store_save(&w->txn, STORE_TABLE_VERSION_TIME, &time, false, err);
    }
    w->txn.meta.versions++;
    return status;
}

static base_status drop_version_time(work *w, const store_key *key, store_slice payload,
                                     base_error *err)
{
    (void)payload;
    return drop(w, STORE_TABLE_VERSION_TIME, key, err);
}

static base_status drop_document_key(work *w, const store_key *key, store_slice payload,
                                     base_error *err)
{
    (void)payload;
    return drop(w, STORE_TABLE_DOCUMENT_KEY, key, err);
}

static base_status drop_source_key(work *w, const store_key *key, store_slice payload,
                                   base_error *err)
{
    (void)payload;
    return drop(w, STORE_TABLE_SOURCE_KEY, key, err);
}

/* Does any version of a document exist? */
static bool document_has_versions(work *w, uint64_t id)
{
    store_db_cursor *cursor;
    store_slice key, value;
    store_key start = store_key_u64(id);
    if (store_db_cursor_open(w->txn.db, STORE_TABLE_VERSION, &cursor, NULL) != BASE_OK) {
        return false;
    }
    bool found = store_db_seek(cursor, &start, &key, &value, NULL) == BASE_OK &&
                 memcmp(key.data, start.data, 8) == 0;
    store_db_cursor_close(cursor);
    return found;
}

static base_status save_u64(work *w, store_table table, const store_key *key, uint64_t value,
                            size_t size, base_error *err)
{
    uint8_t bytes[8];
    base_put_u64(bytes, value);
    base_buffer_clear(&w->txn.payload);
    base_status status = base_buffer_append(&w->txn.payload, bytes, size);
    return store_save_status(&w->txn, status, table, key, false, err);
}

static base_status keep_document(work *w, const store_key *key, store_slice payload,
                                 base_error *err)
{
    store_document document;
    uint64_t id = base_get_u64_be(key->data);
    if (store_document_decode(payload, &document) != BASE_OK || !document_has_versions(w, id)) {
        return drop(w, STORE_TABLE_DOCUMENT, key, err);
    }
    store_key hash = store_key_hash(document.key);
    w->txn.meta.documents++;
    if (id >= w->txn.meta.next_document) {
        w->txn.meta.next_document = id + 1;
    }
    base_status status = count_source(w, document.source, 1, 0, err);
    return status == BASE_OK ? save_u64(w, STORE_TABLE_DOCUMENT_KEY, &hash, id, 8, err) : status;
}

/* Close each version at the time of the next. Keys of VERSION_TIME are in that order. */
static base_status close_chain(work *w, const store_key *key, store_slice payload, base_error *err)
{
    store_version older, newer;
    uint64_t document = base_get_u64_be(key->data);
    uint32_t number = store_key_number(key->data + 16);
    base_status status = BASE_OK;
    (void)payload;
    if (w->chain_document == document && w->chain_version) {
        status = store_load_version(w->txn.db, document, w->chain_version, &older, err);
        if (status == BASE_OK) {
            status = store_load_version(w->txn.db, document, number, &newer, err);
        }
        if (status == BASE_OK) {
            status = store_close_version(&w->txn, &older, &newer, err);
        }
    }
    w->chain_document = document;
    w->chain_version = number;
    return status;
}

/* --- sources and commits
 * ------------------------------------------------------------------------------ */

static base_status save_source(work *w, uint32_t id, const store_source *source, base_error *err)
{
    store_key key = store_key_u32(id);
    return store_save_status(&w->txn, store_source_encode(&w->txn.payload, source),
                             STORE_TABLE_SOURCE, &key, false, err);
}

static base_status reset_source(work *w, const store_key *key, store_slice payload, base_error *err)
{
    store_source source;
    uint32_t id = store_key_number(key->data);
    if (store_source_decode(payload, &source) != BASE_OK) {
        return drop(w, STORE_TABLE_SOURCE, key, err);
    }
    source.documents = source.episodes = 0;
    if (id >= w->txn.meta.next_source) {
        w->txn.meta.next_source = id + 1;
    }
    return save_source(w, id, &source, err);
}

static base_status count_source(work *w, uint32_t id, uint64_t documents, uint64_t episodes,
                                base_error *err)
{
    store_source source;
    base_status status = need_source(w, id, err);
    if (status == BASE_OK) {
        status = store_load_source(w->txn.db, id, &source, err);
    }
    if (status == BASE_OK) {
        source.documents += documents;
        source.episodes += episodes;
        status = save_source(w, id, &source, err);
    }
    return status;
}

static base_status keep_source(work *w, const store_key *key, store_slice payload, base_error *err)
{
    store_source source;
    uint8_t hash[32];
    if (store_source_decode(payload, &source) != BASE_OK || source.documents == 0) {
        return drop(w, STORE_TABLE_SOURCE, key, err);
    }
    base_sha256_of(source.name.data, source.name.size, hash);
    store_key name = store_key_hash(hash);
    return save_u64(w, STORE_TABLE_SOURCE_KEY, &name, store_key_number(key->data), 4, err);
}

/* What was measured is counted anew at the end (count_state). */
static base_status uncount_source(work *w, const store_key *key, store_slice payload,
                                  base_error *err)
{
    store_source source;
    if (store_source_decode(payload, &source) != BASE_OK) {
        return BASE_OK;
    }
    source.drift = (store_drift){.last_observed_us = source.drift.last_observed_us};
    source.closed = 0;
    source.counted = true;
    return save_source(w, store_key_number(key->data), &source, err);
}

static base_status uncount_document(work *w, const store_key *key, store_slice payload,
                                    base_error *err)
{
    store_document document;
    if (store_document_decode(payload, &document) != BASE_OK || document.drift.changed == 0) {
        return BASE_OK;
    }
    document.drift = (store_drift){0};
    return store_save_status(&w->txn, store_document_encode(&w->txn.payload, &document),
                             STORE_TABLE_DOCUMENT, key, false, err);
}

static base_status save_commit(work *w, uint64_t id, const store_commit_record *commit,
                               base_error *err)
{
    store_key key = store_key_u64(id);
    return store_save_status(&w->txn, store_commit_encode(&w->txn.payload, commit),
                             STORE_TABLE_COMMIT, &key, false, err);
}

/* Fill gaps in the commits: what they wrote is known by its own records. */
static base_status fill_commits(work *w, uint64_t before, uint64_t next_episode, base_error *err)
{
    base_status status = BASE_OK;
    while (w->commit_seen + 1 < before && status == BASE_OK) {
        w->commit_seen++;
        store_commit_record commit = {.first_episode = w->next_episode_seen,
                                      .next_episode = next_episode,
                                      .chain = w->commit_seen};
        status = save_commit(w, w->commit_seen, &commit, err);
        w->next_episode_seen = next_episode;
    }
    return status;
}

static base_status keep_commit(work *w, const store_key *key, store_slice payload, base_error *err)
{
    store_commit_record commit;
    uint64_t id = base_get_u64_be(key->data);
    if (store_commit_decode(payload, &commit) != BASE_OK) {
        return drop(w, STORE_TABLE_COMMIT, key, err);
    }
    base_status status = fill_commits(w, id, commit.first_episode, err);
    if (status == BASE_OK && commit.first_episode != w->next_episode_seen) {
        commit.first_episode = w->next_episode_seen;
        if (commit.next_episode < commit.first_episode) {
            commit.next_episode = commit.first_episode;
        }
        status = save_commit(w, id, &commit, err);
    }
    w->commit_seen = id;
    w->next_episode_seen = commit.next_episode;
    return status;
}

/* --- all of it
 * ------------------------------------------------------------------------------------------ */

/* What is known of the head, its counters at 0. */
static base_status begin_head(work *w, base_error *err)
{
    store_meta old = w->txn.meta;
    base_status status = store_load_meta(w->txn.db, &old, err);
    if (status == BASE_NOT_FOUND) {
        store_check_lmdb(w->check, 0, "lost_head");
        status = BASE_OK;
    }
    if (status != BASE_OK) {
        return status;
    }
    store_meta meta = {.format = STORE_FORMAT_VERSION,
                       .flags = old.flags,
                       .last_commit = old.last_commit,
                       .next_episode = old.next_episode ? old.next_episode : 1,
                       .next_document = old.next_document ? old.next_document : 1,
                       .next_source = old.next_source ? old.next_source : 1,
                       .vector_dim = old.vector_dim,
                       .dropped_writes = old.dropped_writes};
    memcpy(meta.encoder, old.encoder, sizeof meta.encoder);
    w->txn.meta = meta;
    status = store_load_forgotten(w->txn.db, 0, &w->forgotten, err);
    if (status == BASE_OK && w->forgotten.count > 0 &&
        w->forgotten.items[w->forgotten.count - 1] >= w->txn.meta.next_episode) {
        w->txn.meta.next_episode = w->forgotten.items[w->forgotten.count - 1] + 1;
    }
    return status;
}

/* The commit of the repair itself, with the lost episodes as forgotten ones. */
static base_status finish_head(work *w, base_error *err)
{
    store_db_cursor *cursor;
    store_slice key, value;
    store_commit_record last = {0};
    base_status status = store_db_cursor_open(w->txn.db, STORE_TABLE_COMMIT, &cursor, err);
    if (status != BASE_OK) {
        return status;
    }
    status = store_db_last(cursor, &key, &value, err);
    if (status == BASE_OK && base_get_u64_be(key.data) > w->txn.meta.last_commit) {
        w->txn.meta.last_commit = base_get_u64_be(key.data);
    }
    store_db_cursor_close(cursor);
    if (status == BASE_NOT_FOUND) {
        status = BASE_OK;
    }
    w->txn.commit = w->txn.meta.last_commit + 1;
    if (status == BASE_OK) {
        status = for_each(w, STORE_TABLE_COMMIT, keep_commit, err);
    }
    if (w->next_episode_seen > w->txn.meta.next_episode) {
        w->txn.meta.next_episode = w->next_episode_seen;
    }
    if (status == BASE_OK) {
        status = fill_commits(w, w->txn.commit, w->txn.meta.next_episode, err);
    }
    if (status == BASE_OK) {
        status = store_begin_chain(&w->txn, err);
    }
    if (status == BASE_OK && w->txn.meta.last_commit > 0) {
        status = store_load_commit(w->txn.db, w->txn.meta.last_commit, &last, err);
    }
    w->txn.clock_us = last.clock_us;
    w->txn.first_episode = w->next_episode_seen;
    store_ids_sort(&w->lost);
    if (status == BASE_OK && w->lost.count > 0) {
        status = store_save_forgotten(&w->txn, &w->lost, err);
    }
    return status == BASE_OK ? store_save_commit(&w->txn, err) : status;
}

static base_status make_consistent(work *w, base_error *err)
{
    static const struct {
        store_table table;
        visit_entry *visit;
    } walks[] = {{STORE_TABLE_VERSION_TIME, drop_version_time},
                 {STORE_TABLE_DOCUMENT_KEY, drop_document_key},
                 {STORE_TABLE_SOURCE_KEY, drop_source_key},
                 {STORE_TABLE_EPISODE, drop_forgotten},
                 {STORE_TABLE_SOURCE, reset_source},
                 {STORE_TABLE_EPISODE, keep_episode},
                 {STORE_TABLE_VECTOR, keep_vector},
                 {STORE_TABLE_KV, keep_kv},
                 {STORE_TABLE_STATE, reset_state},
                 {STORE_TABLE_USE, keep_use},
                 {STORE_TABLE_VERSION, keep_version},
                 {STORE_TABLE_DOCUMENT, keep_document},
                 {STORE_TABLE_SOURCE, keep_source},
                 {STORE_TABLE_VERSION_TIME, close_chain},
                 {STORE_TABLE_SOURCE, uncount_source},
                 {STORE_TABLE_DOCUMENT, uncount_document}};
    base_status status = begin_head(w, err);
    w->txn.commit = w->txn.meta.last_commit + 1;
    w->next_episode_seen = 1;
    for (size_t i = 0; i < sizeof walks / sizeof *walks && status == BASE_OK; i++) {
        status = for_each(w, walks[i].table, walks[i].visit, err);
    }
    /* Closing kept the count of what it closed; the states closed before come on top. */
    w->txn.meta.superseded = 0;
    if (status == BASE_OK) {
        status = for_each(w, STORE_TABLE_STATE, count_state, err);
    }
    return status == BASE_OK ? finish_head(w, err) : status;
}

base_status store_salvage_records(void *argument, store_check *check, base_error *err)
{
    work w = {.salvage = argument, .check = check};
    store_db_options options = {.create = true};
    base_status status = store_remove_folder(w.salvage->fresh_folder, err);
    if (status == BASE_OK) {
        status = base_dir_create(w.salvage->fresh_folder, err);
    }
    if (status == BASE_OK) {
        status = store_db_open(w.salvage->fresh_folder, &options, &w.db, err);
    }
    if (status == BASE_OK) {
        status = store_db_begin(w.db, true, &w.txn.db, err);
    }
    if (status == BASE_OK) {
        status = gather(&w, err);
    }
    if (status == BASE_OK) {
        status = make_consistent(&w, err);
    }
    if (status == BASE_OK) {
        status = store_db_commit(w.txn.db, err);
        w.txn.db = NULL;
    }
    store_db_abort(w.txn.db);
    store_db_close(w.db);
    base_buffer_free(&w.txn.payload);
    base_buffer_free(&w.txn.sealed);
    store_ids_free(&w.forgotten);
    store_ids_free(&w.lost);
    return status;
}
