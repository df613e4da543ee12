/* store/check.c: every record and every reference of the tables. Kinds of problems in data.mdb:
 *
 *   page             a table cannot be walked to its end       order      keys out of order
 *   table_count      a table has lost entries                 checksum   a record is damaged
 *   unreachable      a walk meets it, a lookup does not       layout     not as LMDB lays out pages
 *   version          a record of a newer version              format     whole, but makes no sense
 *   missing_X        a reference leads nowhere                stray      nothing refers to a record
 *   missing_episode  gone without being forgotten             hash       text and its hash differ
 *   forgotten_present  forgotten and still there              spans      do not join to the text
 *   state            an old version is not closed             count      a counter is wrong
 *   commit           a gap in the commits                     unreadable_data  nothing opens
 */
#include <math.h>
#include <string.h>

#include "base/bytes.h"
#include "store/check.h"

/* The number by which a person finds a record: the id in its key. */
static uint64_t id_of_key(store_table table, store_slice key)
{
    if (table == STORE_TABLE_SOURCE && key.size == 4) {
        return store_key_number(key.data);
    }
    bool hashed = table == STORE_TABLE_SOURCE_KEY || table == STORE_TABLE_DOCUMENT_KEY;
    return !hashed && key.size >= 8 ? base_get_u64_be(key.data) : 0;
}

void store_check_lmdb(store_check *check, uint64_t id, const char *kind)
{
    store_check_problem(check, STORE_DATA_NAME, id, kind);
}

/* --- records
 * --------------------------------------------------------------------------------------- */

static base_status decode_any(store_table table, store_slice key, store_slice payload)
{
    union {
        store_meta meta;
        store_source source;
        store_document document;
        store_version version;
        store_span_record span;
        store_vector_record vector;
        store_state state;
        store_commit_record commit;
        uint32_t u32;
        uint64_t u64;
        float mass;
    } any;
    static const size_t key_sizes[STORE_TABLE_COUNT] = {4, 4, 32, 8,  32, 12, 20,
                                                        8, 8, 8,  16, 40, 12, 8};
    if (key.size != key_sizes[table]) {
        return BASE_CORRUPT;
    }
    switch (table) {
    case STORE_TABLE_META:
        return store_meta_decode(payload, &any.meta);
    case STORE_TABLE_SOURCE:
        return store_source_decode(payload, &any.source);
    case STORE_TABLE_SOURCE_KEY:
        return store_u32_decode(payload, &any.u32);
    case STORE_TABLE_DOCUMENT:
        return store_document_decode(payload, &any.document);
    case STORE_TABLE_DOCUMENT_KEY:
        return store_u64_decode(payload, &any.u64);
    case STORE_TABLE_VERSION:
        return store_version_decode(payload, &any.version);
    case STORE_TABLE_EPISODE:
        return store_span_decode(payload, &any.span);
    case STORE_TABLE_VECTOR:
        return store_vector_decode(payload, &any.vector);
    case STORE_TABLE_STATE:
        return store_state_decode(payload, &any.state);
    case STORE_TABLE_USE:
        return store_mass_decode(payload, &any.mass);
    case STORE_TABLE_FORGOTTEN:
        return store_ids_check(payload);
    case STORE_TABLE_COMMIT:
        return store_commit_decode(payload, &any.commit);
    case STORE_TABLE_VERSION_TIME:
        return payload.size == 0 ? BASE_OK : BASE_CORRUPT;
    case STORE_TABLE_KV:
    case STORE_TABLE_COUNT:
        break;
    }
    return BASE_OK;
}

/* Key before the present one; keys of one table ascend strictly, which also ends a cycle of pages.
 * */
typedef struct key_order {
    uint8_t last[STORE_KEY_MAX];
    size_t size;
    bool any;
} key_order;

static bool key_follows(key_order *order, store_slice key)
{
    if (key.size == 0 || key.size > STORE_KEY_MAX) {
        return false;
    }
    size_t common = key.size < order->size ? key.size : order->size;
    int difference = order->any ? memcmp(key.data, order->last, common) : 1;
    bool follows = difference > 0 || (difference == 0 && key.size > order->size);
    memcpy(order->last, key.data, key.size);
    order->size = key.size;
    order->any = true;
    return follows;
}

/* Does a lookup lead to the entry that a walk met? */
static bool reachable(store_db_txn *txn, store_table table, store_slice key, store_slice value)
{
    store_slice found;
    store_key k = {.size = key.size};
    memcpy(k.data, key.data, key.size);
    return store_db_get(txn, table, &k, &found, NULL) == BASE_OK && found.data == value.data &&
           found.size == value.size;
}

static base_status check_table(store_check *check, store_db_txn *txn, store_table table,
                               base_error *err)
{
    store_db_cursor *cursor;
    store_slice key, value, payload;
    key_order order = {0};
    uint64_t expected = 0, seen = 0;
    base_status status = store_db_cursor_open(txn, table, &cursor, err);
    if (status != BASE_OK && status != BASE_NO_MEMORY) {
        /* Damage met in one table ends LMDB's transaction for the others too. */
        store_check_lmdb(check, 0, "page");
        check->broken = true;
        return BASE_OK;
    }
    if (status != BASE_OK) {
        return status;
    }
    if (store_db_count(txn, table, &expected, err) != BASE_OK) {
        expected = 0;
    }
    status = store_db_first(cursor, &key, &value, err);
    while (status == BASE_OK) {
        if (!key_follows(&order, key)) {
            store_check_lmdb(check, 0, "order");
            check->broken = true;
            break;
        }
        seen++;
        uint64_t id = id_of_key(table, key);
        if (!reachable(txn, table, key, value)) {
            store_check_lmdb(check, id, "unreachable");
        }
        base_status record = store_record_open(table, key.data, key.size, value, NULL, &payload);
        if (record != BASE_OK) {
            store_check_lmdb(check, id, record == BASE_VERSION ? "version" : "checksum");
        } else if (decode_any(table, key, payload) != BASE_OK) {
            store_check_lmdb(check, id, "format");
        } else if (table == STORE_TABLE_EPISODE) {
            check->episodes++;
        }
        status = store_db_next(cursor, &key, &value, err);
    }
    store_db_cursor_close(cursor);
    if (status != BASE_OK && status != BASE_NOT_FOUND) {
        store_check_lmdb(check, 0, "page");
        check->broken = true;
    } else if (status == BASE_NOT_FOUND && seen != expected) {
        store_check_lmdb(check, 0, "table_count");
        check->broken = true;
    }
    return BASE_OK;
}

base_status store_check_tables(store_check *check, store_db_txn *txn, base_error *err)
{
    base_status status = BASE_OK;
    for (int i = 0; i < STORE_TABLE_COUNT && status == BASE_OK; i++) {
        status = check_table(check, txn, (store_table)i, err);
    }
    return status;
}

/* --- references
 * ------------------------------------------------------------------------------------ */

/* What the walks over single tables share. */
typedef struct reference_state {
    store_check *check;
    store_db_txn *txn;
    store_ids forgotten;
    store_meta meta;    /* as stored */
    store_meta counted; /* as found */
    uint64_t last_commit_seen, next_episode_seen;
    uint64_t chained_document; /* of the version before, in the walk by time */
    uint32_t chained_version;
    /* What sources counted less what is found: 0 at the end, whatever the order (modulo 2^64). */
    uint64_t closed, changed, changes;
} reference_state;

static bool exists(reference_state *r, store_table table, store_key key)
{
    store_slice value;
    return store_db_get(r->txn, table, &key, &value, NULL) == BASE_OK;
}

static void check_span(reference_state *r, store_slice key, store_slice payload)
{
    store_span_record span;
    store_document document;
    store_version version;
    uint8_t hash[32];
    uint64_t id = base_get_u64_be(key.data);
    if (store_span_decode(payload, &span) != BASE_OK) {
        return;
    }
    r->counted.episodes++;
    r->counted.bytes_text += span.text.size;
    base_sha256_of(span.text.data, span.text.size, hash);
    if (memcmp(hash, span.content_hash, 32) != 0) {
        store_check_lmdb(r->check, id, "hash");
    }
    if (store_load_document(r->txn, span.document, &document, NULL) != BASE_OK) {
        store_check_lmdb(r->check, id, "missing_document");
    } else if (document.source != span.source) {
        store_check_lmdb(r->check, id, "format");
    }
    if (store_load_version(r->txn, span.document, span.version, &version, NULL) != BASE_OK) {
        store_check_lmdb(r->check, id, "missing_version");
    } else if (id - version.first_episode != span.ordinal ||
               span.ordinal >= version.episode_count ||
               version.observed_at_us != span.observed_at_us) {
        store_check_lmdb(r->check, id, "format");
    }
    if (id >= r->meta.next_episode) {
        store_check_lmdb(r->check, id, "count");
    }
}

/* Do the live episodes of a version join to its text, with holes only where one was forgotten? */
static void check_version_spans(reference_state *r, uint64_t document, uint32_t number,
                                const store_version *version)
{
    base_sha256 sum;
    uint8_t hash[32];
    uint64_t at = 0;
    bool whole = true;
    base_sha256_begin(&sum);
    for (uint32_t i = 0; i < version->episode_count; i++) {
        store_span_record span;
        uint64_t id = version->first_episode + i;
        base_status status = store_load_span(r->txn, id, &span, NULL, NULL);
        if (status == BASE_NOT_FOUND && !store_ids_contain(&r->forgotten, id)) {
            store_check_lmdb(r->check, id, "missing_episode");
        }
        if (status != BASE_OK) {
            whole = false;
            continue;
        }
        if (span.document != document || span.version != number || span.start_byte < at ||
            (whole && span.start_byte != at)) {
            store_check_lmdb(r->check, id, "spans");
            whole = false;
        }
        at = span.end_byte;
        base_sha256_add(&sum, span.text.data, span.text.size);
    }
    base_sha256_end(&sum, hash);
    if (whole && (at != version->text_size || memcmp(hash, version->content_hash, 32) != 0)) {
        store_check_lmdb(r->check, document, "spans");
    }
}

static void check_version(reference_state *r, store_slice key, store_slice payload)
{
    store_version version;
    store_document document;
    uint64_t id = base_get_u64_be(key.data);
    uint32_t number = store_key_number(key.data + 8);
    if (store_version_decode(payload, &version) != BASE_OK) {
        return;
    }
    r->counted.versions++;
    if (store_load_document(r->txn, id, &document, NULL) != BASE_OK) {
        store_check_lmdb(r->check, id, "missing_document");
    } else if (number == 0 || number > document.versions) {
        store_check_lmdb(r->check, id, "format");
    }
    if (!exists(r, STORE_TABLE_VERSION_TIME,
                store_key_version_time(id, version.observed_at_us, number))) {
        store_check_lmdb(r->check, id, "missing_version_time");
    }
    check_version_spans(r, id, number, &version);
}

/* Every live episode of a version that another follows is closed at that one's time at the latest.
 * */
static void check_closed(reference_state *r, uint64_t document, uint32_t older, int64_t newer_us)
{
    store_version version;
    if (store_load_version(r->txn, document, older, &version, NULL) != BASE_OK) {
        return;
    }
    for (uint32_t i = 0; i < version.episode_count; i++) {
        store_state state;
        uint64_t id = version.first_episode + i;
        if (exists(r, STORE_TABLE_EPISODE, store_key_u64(id)) &&
            store_load_state(r->txn, id, &state, NULL) == BASE_OK &&
            state.superseded_at_us > newer_us) {
            store_check_lmdb(r->check, id, "state");
        }
    }
}

static void check_version_time(reference_state *r, store_slice key, store_slice payload)
{
    store_version version;
    uint64_t document = base_get_u64_be(key.data);
    int64_t time_us = store_key_time(key.data + 8);
    uint32_t number = store_key_number(key.data + 16);
    (void)payload;
    if (store_load_version(r->txn, document, number, &version, NULL) != BASE_OK ||
        version.observed_at_us != time_us) {
        store_check_lmdb(r->check, document, "stray");
    }
    if (r->chained_document == document && r->chained_version) {
        check_closed(r, document, r->chained_version, time_us);
    }
    r->chained_document = document;
    r->chained_version = number;
}

static void check_document(reference_state *r, store_slice key, store_slice payload)
{
    store_document document;
    uint64_t id = base_get_u64_be(key.data), named = 0;
    store_slice name;
    if (store_document_decode(payload, &document) != BASE_OK) {
        return;
    }
    r->counted.documents++;
    store_key hash = store_key_hash(document.key);
    if (store_load(r->txn, STORE_TABLE_DOCUMENT_KEY, &hash, &name, NULL, NULL) != BASE_OK ||
        store_u64_decode(name, &named) != BASE_OK || named != id) {
        store_check_lmdb(r->check, id, "missing_document_key");
    }
    if (!exists(r, STORE_TABLE_SOURCE, store_key_u32(document.source))) {
        store_check_lmdb(r->check, id, "missing_source");
    }
}

static void check_document_key(reference_state *r, store_slice key, store_slice payload)
{
    store_document document;
    uint64_t id;
    if (store_u64_decode(payload, &id) == BASE_OK &&
        (store_load_document(r->txn, id, &document, NULL) != BASE_OK ||
         memcmp(document.key, key.data, 32) != 0)) {
        store_check_lmdb(r->check, id, "stray");
    }
}

static void check_source(reference_state *r, store_slice key, store_slice payload)
{
    store_source source;
    uint8_t hash[32];
    uint32_t id = store_key_number(key.data), named = 0;
    store_slice name;
    if (store_source_decode(payload, &source) != BASE_OK) {
        return;
    }
    base_sha256_of(source.name.data, source.name.size, hash);
    store_key name_key = store_key_hash(hash);
    if (store_load(r->txn, STORE_TABLE_SOURCE_KEY, &name_key, &name, NULL, NULL) != BASE_OK ||
        store_u32_decode(name, &named) != BASE_OK || named != id) {
        store_check_lmdb(r->check, id, "missing_source_key");
    }
    /* Sums over all sources must be the totals. */
    r->counted.next_document += source.documents;
    r->counted.next_episode += source.episodes;
    if (source.counted) {
        r->closed += source.closed;
        r->changed += source.drift.changed;
        r->changes += source.drift.changes;
    }
}

static void check_source_key(reference_state *r, store_slice key, store_slice payload)
{
    uint32_t id;
    (void)key;
    if (store_u32_decode(payload, &id) == BASE_OK &&
        !exists(r, STORE_TABLE_SOURCE, store_key_u32(id))) {
        store_check_lmdb(r->check, id, "stray");
    }
}

/* VECTOR, STATE, USE and KV hang on an episode. */
static bool check_owner(reference_state *r, store_slice key)
{
    uint64_t id = base_get_u64_be(key.data);
    bool there = exists(r, STORE_TABLE_EPISODE, store_key_u64(id));
    if (!there) {
        store_check_lmdb(r->check, id, "stray");
    }
    return there;
}

static void check_vector(reference_state *r, store_slice key, store_slice payload)
{
    store_vector_record vector;
    check_owner(r, key);
    if (store_vector_decode(payload, &vector) != BASE_OK) {
        return;
    }
    r->counted.bytes_vectors += 4 * vector.dim;
    bool finite = vector.dim == r->meta.vector_dim;
    for (size_t i = 0; i < vector.dim && finite; i++) {
        finite = isfinite(base_get_f32(vector.values + 4 * i));
    }
    if (!finite) {
        store_check_lmdb(r->check, base_get_u64_be(key.data), "format");
    }
}

/* Does the source count what replaces what since its first episode? */
static bool is_counted(reference_state *r, store_slice key)
{
    store_span_record span;
    store_source source;
    return store_load_span(r->txn, base_get_u64_be(key.data), &span, NULL, NULL) == BASE_OK &&
           store_load_source(r->txn, span.source, &source, NULL) == BASE_OK && source.counted;
}

static void check_state(reference_state *r, store_slice key, store_slice payload)
{
    store_state state;
    check_owner(r, key);
    if (store_state_decode(payload, &state) != BASE_OK) {
        return;
    }
    bool open = state.superseded_at_us == BASE_TIME_MAX;
    r->counted.superseded += !open;
    if ((!open || state.changes > 0) && is_counted(r, key)) {
        r->closed -= !open;
        r->changed -= open;
        r->changes -= open ? state.changes : 0;
    }
    if (state.replaced && !exists(r, STORE_TABLE_EPISODE, store_key_u64(state.replaced))) {
        store_check_lmdb(r->check, base_get_u64_be(key.data), "missing_predecessor");
    }
    if (state.superseded_by &&
        !exists(r, STORE_TABLE_EPISODE, store_key_u64(state.superseded_by))) {
        store_check_lmdb(r->check, base_get_u64_be(key.data), "missing_successor");
    }
}

static void check_use(reference_state *r, store_slice key, store_slice payload)
{
    (void)payload;
    check_owner(r, key);
    r->counted.uses++;
}

static void check_kv(reference_state *r, store_slice key, store_slice payload)
{
    check_owner(r, key);
    r->counted.kv_entries++;
    r->counted.bytes_kv += payload.size;
}

static void check_forgotten(reference_state *r, store_slice key, store_slice payload)
{
    (void)key;
    for (size_t i = 0; i + 8 <= payload.size; i += 8) {
        uint64_t id = base_get_u64(payload.data + i);
        if (exists(r, STORE_TABLE_EPISODE, store_key_u64(id))) {
            store_check_lmdb(r->check, id, "forgotten_present");
        }
    }
}

static void check_commit(reference_state *r, store_slice key, store_slice payload)
{
    store_commit_record commit;
    uint64_t id = base_get_u64_be(key.data);
    if (store_commit_decode(payload, &commit) != BASE_OK) {
        return;
    }
    if (id != r->last_commit_seen + 1 || commit.first_episode != r->next_episode_seen) {
        store_check_lmdb(r->check, id, "commit");
    }
    r->last_commit_seen = id;
    r->next_episode_seen = commit.next_episode;
}

typedef void check_record(reference_state *r, store_slice key, store_slice payload);

static base_status walk(reference_state *r, store_table table, check_record *visit, base_error *err)
{
    store_db_cursor *cursor;
    store_slice key, value, payload;
    base_status status = store_db_cursor_open(r->txn, table, &cursor, err);
    if (status != BASE_OK) {
        return status;
    }
    status = store_db_first(cursor, &key, &value, err);
    while (status == BASE_OK) {
        /* Damaged ones were named by the walk before. */
        if (store_record_open(table, key.data, key.size, value, NULL, &payload) == BASE_OK &&
            decode_any(table, key, payload) == BASE_OK) {
            visit(r, key, payload);
        }
        status = store_db_next(cursor, &key, &value, err);
    }
    store_db_cursor_close(cursor);
    return status == BASE_NOT_FOUND ? BASE_OK : status;
}

static void check_counters(reference_state *r)
{
    const store_meta *m = &r->meta, *c = &r->counted;
    if (m->episodes != c->episodes || m->documents != c->documents || m->versions != c->versions ||
        m->superseded != c->superseded || m->uses != c->uses || m->kv_entries != c->kv_entries ||
        m->bytes_text != c->bytes_text || m->bytes_vectors != c->bytes_vectors ||
        m->bytes_kv != c->bytes_kv || m->documents != c->next_document ||
        m->episodes != c->next_episode || r->closed != 0 || r->changed != 0 || r->changes != 0) {
        store_check_lmdb(r->check, 0, "count");
    }
    if (r->last_commit_seen != m->last_commit || r->next_episode_seen != m->next_episode) {
        store_check_lmdb(r->check, m->last_commit, "commit");
    }
}

base_status store_check_references(store_check *check, store_db_txn *txn, base_error *err)
{
    static const struct {
        store_table table;
        check_record *visit;
    } walks[] = {{STORE_TABLE_EPISODE, check_span},
                 {STORE_TABLE_VERSION, check_version},
                 {STORE_TABLE_VERSION_TIME, check_version_time},
                 {STORE_TABLE_DOCUMENT, check_document},
                 {STORE_TABLE_DOCUMENT_KEY, check_document_key},
                 {STORE_TABLE_SOURCE, check_source},
                 {STORE_TABLE_SOURCE_KEY, check_source_key},
                 {STORE_TABLE_VECTOR, check_vector},
                 {STORE_TABLE_STATE, check_state},
                 {STORE_TABLE_USE, check_use},
                 {STORE_TABLE_KV, check_kv},
                 {STORE_TABLE_FORGOTTEN, check_forgotten},
                 {STORE_TABLE_COMMIT, check_commit}};
    reference_state r = {.check = check, .txn = txn, .next_episode_seen = 1};
    base_status status = store_load_meta(txn, &r.meta, err);
    if (status == BASE_NOT_FOUND) {
        store_check_lmdb(check, 0, "missing_meta");
        return BASE_OK;
    }
    if (status == BASE_CORRUPT) {
        return BASE_OK; /* named already */
    }
    if (status == BASE_OK) {
        status = store_load_forgotten(txn, 0, &r.forgotten, err);
        if (status == BASE_CORRUPT) {
            status = BASE_OK;
        }
    }
    for (size_t i = 0; i < sizeof walks / sizeof *walks && status == BASE_OK; i++) {
        status = walk(&r, walks[i].table, walks[i].visit, err);
    }
    if (status == BASE_OK) {
        check_counters(&r);
    }
    store_ids_free(&r.forgotten);
    return status;
}
