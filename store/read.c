/* store/read.c: everything that reads records: one episode, briefs for ranking, the scan, lists of
 * ids. Each call is one read transaction. */
#include <math.h>
#include <string.h>

#include "base/bytes.h"
#include "base/log.h"
#include "store/internal.h"

static base_status out_of_memory(base_error *err)
{
    return base_fail(err, BASE_NO_MEMORY, "out of memory");
}

void store_episode_free(store_episode *episode)
{
    if (episode) {
        base_free(episode->source);
        base_free(episode->external_id);
        base_free(episode->title);
        base_free(episode->section);
        base_free(episode->text);
        base_free(episode->vector);
        memset(episode, 0, sizeof *episode);
    }
}

/* --- one episode ---------------------------------------------------------------------------------
 * */

static base_status copy_text(store_slice slice, char **out, base_error *err)
{
    *out = store_slice_copy(slice);
    return *out ? BASE_OK : out_of_memory(err);
}

/* Names of the document, which live in their own records. */
static base_status fill_names(store_db_txn *txn, const store_span_record *span, store_episode *out,
                              base_error *err)
{
    store_source source;
    store_document document;
    base_status status = store_load_source(txn, span->source, &source, err);
    if (status == BASE_OK) {
        status = copy_text(source.name, &out->source, err);
    }
    if (status == BASE_OK) {
        status = store_load_document(txn, span->document, &document, err);
    }
    if (status == BASE_OK) {
        status = copy_text(document.external_id, &out->external_id, err);
    }
    if (status == BASE_NOT_FOUND) {
        status = base_fail(err, BASE_CORRUPT, "episode %llu refers to a missing record",
                           (unsigned long long)out->id);
    }
    return status;
}

static base_status fill_vector(store_db_txn *txn, store_episode *out, base_error *err)
{
    store_key key = store_key_u64(out->id);
    store_slice payload;
    store_vector_record vector;
    base_status status = store_load(txn, STORE_TABLE_VECTOR, &key, &payload, NULL, err);
    if (status == BASE_NOT_FOUND) {
        return BASE_OK;
    }
    if (status == BASE_OK && store_vector_decode(payload, &vector) != BASE_OK) {
        status = store_fail_record(err, BASE_CORRUPT, STORE_TABLE_VECTOR, key.data, key.size);
    }
    if (status != BASE_OK) {
        return status;
    }
    out->vector = base_alloc(vector.dim * sizeof *out->vector);
    if (!out->vector) {
        return out_of_memory(err);
    }
    store_vector_copy(&vector, out->vector);
    out->vector_dim = vector.dim;
    return BASE_OK;
}

static base_status fill_episode(store_db_txn *txn, const store_span_record *span,
                                store_episode *out, base_error *err)
{
    out->document = span->document;
    out->version = span->version;
    out->ordinal = span->ordinal;
    out->start_byte = span->start_byte;
    out->end_byte = span->end_byte;
    out->kind = span->kind;
    out->observed_at_us = span->observed_at_us;
    out->valid_from_us = span->valid_from_us;
    out->valid_to_us = span->valid_to_us;
    out->ingested_at_us = span->ingested_at_us;
    memcpy(out->content_hash, span->content_hash, sizeof out->content_hash);
    out->text_size = span->text.size;
    base_status status = copy_text(span->title, &out->title, err);
    if (status == BASE_OK) {
        status = copy_text(span->section, &out->section, err);
    }
    if (status == BASE_OK) {
        status = copy_text(span->text, &out->text, err);
    }
    if (status == BASE_OK) {
        status = fill_names(txn, span, out, err);
    }
    if (status == BASE_OK) {
        status = fill_vector(txn, out, err);
    }
    store_state state;
    if (status == BASE_OK) {
        status = store_load_state(txn, out->id, &state, err);
    }
    if (status == BASE_OK) {
        out->superseded_at_us = state.superseded_at_us;
        out->superseded_by = state.superseded_by;
        out->replaced = state.replaced;
        out->changes = state.changes;
        out->use_count = state.use_count;
    }
    return status;
}

static base_status load_episode(store_db_txn *txn, uint64_t id, store_episode *out, base_error *err)
{
    store_span_record span;
    *out = (store_episode){.id = id};
    base_status status = store_load_span(txn, id, &span, &out->commit, err);
    if (status == BASE_OK) {
        status = fill_episode(txn, &span, out, err);
    }
    if (status != BASE_OK) {
        store_episode_free(out);
    }
    return status;
}

base_status store_get(store *s, uint64_t id, store_episode *out, base_error *err)
{
    store_reader reader;
    store_episode episode;
    base_status status = store_read_begin(s, &reader, err);
    if (status == BASE_OK) {
        status = load_episode(reader.txn, id, &episode, err);
        store_read_end(s, &reader);
    }
    if (status == BASE_OK) {
        *out = episode;
    }
    return status;
}

base_status store_get_each(store *s, const uint64_t *ids, size_t count, store_episode *out,
                           base_error *err)
{
    store_reader reader;
    base_status status = store_read_begin(s, &reader, err);
    if (status != BASE_OK) {
        return status;
    }
    size_t n = 0;
    for (; n < count && status == BASE_OK; n++) {
        status = load_episode(reader.txn, ids[n], &out[n], err);
        if (status == BASE_NOT_FOUND || status == BASE_CORRUPT) {
            status = BASE_OK;
        }
    }
    store_read_end(s, &reader);
    while (status != BASE_OK && n > 0) {
        store_episode_free(&out[--n]);
    }
    return status;
}

/* --- briefs
 * ------------------------------------------------------------------------------------------ */

/* Latest use that counted at or before as_of; BASE_TIME_NONE when there is none. */
static base_status last_use(store_db_cursor *cursor, uint64_t id, int64_t as_of_us,
                            int64_t *time_us, base_error *err)
{
    store_slice key, value, payload;
    store_key start = store_key_use(id, as_of_us);
    *time_us = BASE_TIME_NONE;
    base_status status = store_db_seek(cursor, &start, &key, &value, err);
    if (status == BASE_NOT_FOUND) {
        status = store_db_last(cursor, &key, &value, err);
    } else if (status == BASE_OK &&
               (key.size != start.size || memcmp(key.data, start.data, start.size) != 0)) {
        status = store_db_previous(cursor, &key, &value, err);
    }
    while (status == BASE_OK && key.size == start.size && memcmp(key.data, start.data, 8) == 0) {
        float mass;
        status = store_open_record(STORE_TABLE_USE, key, value, &payload, NULL, err);
        if (status == BASE_OK && store_mass_decode(payload, &mass) != BASE_OK) {
            status = store_fail_record(err, BASE_CORRUPT, STORE_TABLE_USE, key.data, key.size);
        }
        if (status != BASE_OK) {
            return status;
        }
        if (mass >= STORE_USE_MASS_MIN) {
            *time_us = store_key_time(key.data + 8);
            return BASE_OK;
        }
        status = store_db_previous(cursor, &key, &value, err);
    }
    return status == BASE_NOT_FOUND ? BASE_OK : status;
}

typedef struct brief_context {
    store_db_txn *txn;
    store_db_cursor *uses;
    int64_t as_of_us;
    double default_half_life_s;
    uint32_t source; /* of half_life_s and drift: neighbours often share it */
    double half_life_s;
    bool measured;
    store_drift drift;
    uint64_t document; /* of document_drift */
    store_drift document_drift;
} brief_context;

/* Half-life of an episode's stream, where its source has a measured one. */
static base_status measured_half_life(brief_context *context, const store_span_record *span,
                                      const store_state *state, double *half_life_s,
                                      base_error *err)
{
    store_document document;
    store_version version;
    base_status status = BASE_OK;
    if (context->document != span->document) {
        status = store_load_document(context->txn, span->document, &document, err);
        if (status == BASE_OK) {
            status = store_load_version(context->txn, span->document, span->version, &version, err);
        }
        if (status == BASE_NOT_FOUND) {
            return base_fail(err, BASE_CORRUPT, "document %llu has no record",
                             (unsigned long long)span->document);
        }
        if (status != BASE_OK) {
            return status;
        }
        context->document = span->document;
        context->document_drift = document.drift;
        context->document_drift.streams = version.episode_count;
    }
    store_stream stream = {
        .changes = state->changes,
        .first_observed_us = state->first_observed_us != BASE_TIME_NONE ? state->first_observed_us
                                                                        : span->observed_at_us,
        .until_us = context->as_of_us < state->superseded_at_us ? context->as_of_us
                                                                : state->superseded_at_us};
    *half_life_s = store_half_life(&context->drift, &context->document_drift, &stream);
    return BASE_OK;
}

static base_status fill_brief(brief_context *context, uint64_t id, store_brief *out,
                              base_error *err)
{
    store_span_record span;
    store_state state;
    memset(out, 0, sizeof *out);
    base_status status = store_load_span(context->txn, id, &span, NULL, err);
    if (status == BASE_NOT_FOUND) {
        return BASE_OK;
    }
    if (status == BASE_OK) {
        status = store_load_state(context->txn, id, &state, err);
    }
    if (status == BASE_OK) {
        status = last_use(context->uses, id, context->as_of_us, &out->last_use_us, err);
    }
    if (status == BASE_OK && context->source != span.source) {
        store_source source;
        status = store_load_source(context->txn, span.source, &source, err);
        if (status == BASE_NOT_FOUND) {
            status =
                base_fail(err, BASE_CORRUPT, "episode %llu has no source", (unsigned long long)id);
        }
        if (status == BASE_OK) {
            context->source = span.source;
            context->half_life_s = source.half_life_s;
            context->measured = !source.given && !isinf(source.half_life_s);
            store_source_drift(&source, &context->drift);
        }
    }
    if (status != BASE_OK) {
        return status;
    }
    out->id = id;
    out->document = span.document;
    out->version = span.version;
    out->ordinal = span.ordinal;
    out->source = span.source;
    out->kind = span.kind;
    out->observed_at_us = span.observed_at_us;
    out->valid_from_us = span.valid_from_us;
    out->valid_to_us = span.valid_to_us;
    out->superseded_at_us = state.superseded_at_us;
    out->superseded_by = state.superseded_by;
    double half_life_s = context->half_life_s;
    if (context->measured) {
        status = measured_half_life(context, &span, &state, &half_life_s, err);
    }
    out->half_life_s = isinf(half_life_s) ? context->default_half_life_s : half_life_s;
    return status;
}

base_status store_load_briefs(store *s, store_db_txn *txn, const uint64_t *ids, size_t count,
                              int64_t as_of_us, store_brief *briefs, base_error *err)
{
    brief_context context = {.txn = txn, .as_of_us = as_of_us};
    pthread_mutex_lock(&s->small_lock);
    context.default_half_life_s = s->default_half_life_s;
    pthread_mutex_unlock(&s->small_lock);
    base_status status = store_db_cursor_open(txn, STORE_TABLE_USE, &context.uses, err);
    for (size_t i = 0; i < count && status == BASE_OK; i++) {
        status = fill_brief(&context, ids[i], &briefs[i], err);
        if (status == BASE_CORRUPT) {
            /* A damaged episode does not exist for the ranking; verify names it. */
            base_log(BASE_LOG_WARN, "left out of the ranking: %s",
                     err ? err->text : "a damaged record");
            memset(&briefs[i], 0, sizeof briefs[i]);
            status = BASE_OK;
        }
    }
    store_db_cursor_close(context.uses);
    return status;
}

base_status store_get_briefs(store *s, const uint64_t *ids, size_t count, int64_t as_of_us,
                             store_brief *briefs, base_error *err)
{
    store_reader reader;
    base_status status = store_read_begin(s, &reader, err);
    if (status != BASE_OK) {
        return status;
    }
    status = store_load_briefs(s, reader.txn, ids, count, as_of_us, briefs, err);
    store_read_end(s, &reader);
    return status;
}

base_status store_get_kv(store *s, uint64_t episode, const uint8_t tag[32], void **data,
                         size_t *size, base_error *err)
{
    store_reader reader;
    store_slice payload;
    store_key key = store_key_kv(episode, tag);
    base_status status = store_read_begin(s, &reader, err);
    if (status != BASE_OK) {
        return status;
    }
    status = store_load(reader.txn, STORE_TABLE_KV, &key, &payload, NULL, err);
    if (status == BASE_OK) {
        char *copy = base_alloc(payload.size);
        if (copy) {
            memcpy(copy, payload.data, payload.size);
            *data = copy;
            *size = payload.size;
        } else {
            status = out_of_memory(err);
        }
    }
    store_read_end(s, &reader);
    return status;
}

/* --- the scan
 * ------------------------------------------------------------------------------------------- */

typedef struct scan_state {
    store_db_cursor *episodes, *vectors;
    store_slice vector_key, vector_value;
    base_status vector_status; /* of the vector cursor: BASE_NOT_FOUND behind the last */
    float *values;             /* [STORE_VECTOR_DIM_MAX] */
} scan_state;

/* The vector of id into view: both tables are walked side by side. */
static void scan_vector(scan_state *scan, uint64_t id, store_view *view)
{
    store_slice payload;
    store_vector_record vector;
    view->vector = NULL;
    view->vector_dim = 0;
    while (scan->vector_status == BASE_OK && scan->vector_key.size == 8 &&
           base_get_u64_be(scan->vector_key.data) < id) {
        scan->vector_status =
            store_db_next(scan->vectors, &scan->vector_key, &scan->vector_value, NULL);
    }
    if (scan->vector_status == BASE_OK && scan->vector_key.size == 8 &&
        base_get_u64_be(scan->vector_key.data) == id &&
        store_record_open(STORE_TABLE_VECTOR, scan->vector_key.data, 8, scan->vector_value, NULL,
                          &payload) == BASE_OK &&
        store_vector_decode(payload, &vector) == BASE_OK) {
        store_vector_copy(&vector, scan->values);
        view->vector = scan->values;
        view->vector_dim = vector.dim;
    }
}

static base_status scan_all(scan_state *scan, uint64_t after, store_visit *visit, void *argument,
                            uint64_t *damaged, base_error *err)
{
    store_slice key, value, payload;
    store_key start = store_key_u64(after + 1);
    base_status status = store_db_seek(scan->episodes, &start, &key, &value, err);
    scan->vector_status =
        store_db_seek(scan->vectors, &start, &scan->vector_key, &scan->vector_value, NULL);
    while (status == BASE_OK) {
        store_span_record span;
        store_view view;
        if (key.size == 8 &&
            store_record_open(STORE_TABLE_EPISODE, key.data, key.size, value, &view.commit,
                              &payload) == BASE_OK &&
            store_span_decode(payload, &span) == BASE_OK) {
            view.id = base_get_u64_be(key.data);
            view.document = span.document;
            view.text = (const char *)span.text.data;
            view.text_size = span.text.size;
            scan_vector(scan, view.id, &view);
            if (!visit(argument, &view)) {
                return BASE_OK;
            }
        } else {
            (*damaged)++;
        }
        status = store_db_next(scan->episodes, &key, &value, err);
    }
    return status == BASE_NOT_FOUND ? BASE_OK : status;
}

base_status store_scan(store *s, uint64_t after, store_visit *visit, void *argument,
                       uint64_t *damaged, base_error *err)
{
    store_reader reader;
    uint64_t bad = 0;
    scan_state scan = {.values = base_alloc(STORE_VECTOR_DIM_MAX * sizeof *scan.values)};
    if (!scan.values) {
        return out_of_memory(err);
    }
    base_status status = store_read_begin(s, &reader, err);
    if (status != BASE_OK) {
        base_free(scan.values);
        return status;
    }
    status = store_db_cursor_open(reader.txn, STORE_TABLE_EPISODE, &scan.episodes, err);
    if (status == BASE_OK) {
        status = store_db_cursor_open(reader.txn, STORE_TABLE_VECTOR, &scan.vectors, err);
    }
    if (status == BASE_OK && after < UINT64_MAX) {
        status = scan_all(&scan, after, visit, argument, &bad, err);
    }
    store_db_cursor_close(scan.episodes);
    store_db_cursor_close(scan.vectors);
    store_read_end(s, &reader);
    base_free(scan.values);
    if (status == BASE_OK && damaged) {
        *damaged = bad;
    }
    return status;
}

/* --- lists of ids
 * ------------------------------------------------------------------------------------------ */

/* Hand the ids over, or free them. */
static base_status give_ids(base_status status, store_ids *list, uint64_t **ids, size_t *count)
{
    if (status == BASE_OK) {
        *ids = list->items;
        *count = list->count;
    } else {
        store_ids_free(list);
    }
    return status;
}

base_status store_forgotten(store *s, uint64_t after_commit, uint64_t **ids, size_t *count,
                            base_error *err)
{
    store_reader reader;
    store_ids list = {0};
    base_status status = store_read_begin(s, &reader, err);
    if (status != BASE_OK) {
        return status;
    }
    status = store_load_forgotten(reader.txn, after_commit, &list, err);
    store_read_end(s, &reader);
    return give_ids(status, &list, ids, count);
}

/* Live episodes of one version, in order. */
static base_status add_version(store_db_txn *txn, uint64_t document, uint32_t version,
                               store_ids *list, base_error *err)
{
    store_version record;
    base_status status = store_load_version(txn, document, version, &record, err);
    for (uint32_t i = 0; status == BASE_OK && i < record.episode_count; i++) {
        store_slice value;
        store_key key = store_key_u64(record.first_episode + i);
        status = store_db_get(txn, STORE_TABLE_EPISODE, &key, &value, err);
        if (status == BASE_OK && store_ids_add(list, record.first_episode + i) != BASE_OK) {
            status = out_of_memory(err);
        } else if (status == BASE_NOT_FOUND) {
            status = BASE_OK; /* forgotten */
        }
    }
    return status;
}

/* All versions, newest in time first. */
static base_status add_versions(store_db_txn *txn, uint64_t document, store_ids *list,
                                base_error *err)
{
    store_db_cursor *cursor;
    store_slice key, value;
    store_key end = store_key_version_time(document, INT64_MAX, UINT32_MAX);
    base_status status = store_db_cursor_open(txn, STORE_TABLE_VERSION_TIME, &cursor, err);
    if (status != BASE_OK) {
        return status;
    }
    /* No version has this key: the entry before the place where it would be is the newest. */
    status = store_db_seek(cursor, &end, &key, &value, err);
    if (status == BASE_NOT_FOUND) {
        status = store_db_last(cursor, &key, &value, err);
    } else if (status == BASE_OK) {
        status = store_db_previous(cursor, &key, &value, err);
    }
    while (status == BASE_OK && key.size == end.size && memcmp(key.data, end.data, 8) == 0) {
        uint32_t version = store_key_number(key.data + 16);
        status = add_version(txn, document, version, list, err);
        if (status == BASE_OK) {
            status = store_db_previous(cursor, &key, &value, err);
        }
    }
    store_db_cursor_close(cursor);
    return status == BASE_NOT_FOUND ? BASE_OK : status;
}

base_status store_document_episodes(store *s, uint64_t document, uint32_t version, uint64_t **ids,
                                    size_t *count, base_error *err)
{
    store_reader reader;
    store_document record;
    store_ids list = {0};
    base_status status = store_read_begin(s, &reader, err);
    if (status != BASE_OK) {
        return status;
    }
    status = store_load_document(reader.txn, document, &record, err);
    if (status == BASE_OK) {
        status = version ? add_version(reader.txn, document, version, &list, err)
                         : add_versions(reader.txn, document, &list, err);
    }
    store_read_end(s, &reader);
    return give_ids(status, &list, ids, count);
}

base_status store_find_source(store_db_txn *txn, const char *name, uint32_t *source,
                              base_error *err)
{
    uint8_t hash[32];
    store_slice payload;
    base_sha256_of(name, strlen(name), hash);
    store_key key = store_key_hash(hash);
    base_status status = store_load(txn, STORE_TABLE_SOURCE_KEY, &key, &payload, NULL, err);
    if (status == BASE_OK && store_u32_decode(payload, source) != BASE_OK) {
        status = store_fail_record(err, BASE_CORRUPT, STORE_TABLE_SOURCE_KEY, key.data, key.size);
    }
    return status;
}

static base_status select_ids(store_db_txn *txn, uint32_t source, int64_t from_us, int64_t to_us,
                              store_ids *list, base_error *err)
{
    store_db_cursor *cursor;
    store_slice key, value, payload;
    base_status status = store_db_cursor_open(txn, STORE_TABLE_EPISODE, &cursor, err);
    if (status != BASE_OK) {
        return status;
    }
    status = store_db_first(cursor, &key, &value, err);
    while (status == BASE_OK) {
        store_span_record span;
        /* Forgetting must not miss anything silently: a damaged record is an error here. */
        status = store_open_record(STORE_TABLE_EPISODE, key, value, &payload, NULL, err);
        if (status == BASE_OK && (key.size != 8 || store_span_decode(payload, &span) != BASE_OK)) {
            status = store_fail_record(err, BASE_CORRUPT, STORE_TABLE_EPISODE, key.data, key.size);
        }
        if (status == BASE_OK && (source == 0 || span.source == source) &&
            (from_us == BASE_TIME_NONE || span.observed_at_us >= from_us) &&
            (to_us == BASE_TIME_MAX || span.observed_at_us < to_us) &&
            store_ids_add(list, base_get_u64_be(key.data)) != BASE_OK) {
            status = out_of_memory(err);
        }
        if (status == BASE_OK) {
            status = store_db_next(cursor, &key, &value, err);
        }
    }
    store_db_cursor_close(cursor);
    return status == BASE_NOT_FOUND ? BASE_OK : status;
}

base_status store_select(store *s, const char *source, int64_t from_us, int64_t to_us,
                         uint64_t **ids, size_t *count, base_error *err)
{
    store_reader reader;
    store_ids list = {0};
    uint32_t number = 0;
    base_status status = store_read_begin(s, &reader, err);
    if (status != BASE_OK) {
        return status;
    }
    if (source) {
        status = store_find_source(reader.txn, source, &number, err);
    }
    if (status == BASE_OK) {
        status = select_ids(reader.txn, number, from_us, to_us, &list, err);
    }
    store_read_end(s, &reader);
    if (status == BASE_NOT_FOUND) {
        status = BASE_OK; /* a source that is not there has no episodes */
    }
    return give_ids(status, &list, ids, count);
}
