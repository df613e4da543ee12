/* store/stats.c: text search over the catalogue, and the figures that `stats` shows. */
#include <string.h>

#include "base/file.h"
#include "base/log.h"
#include "store/internal.h"

/* --- text search
 * ------------------------------------------------------------------------------------- */

/* A read-only handle sees commits of others: open anew when its catalogue cannot have them. */
static void refresh_catalog(store *s)
{
    bool outdated = false;
    pthread_mutex_lock(&s->catalog_lock);
    if (!s->catalog) {
        outdated = true;
    } else if (s->read_only) {
        store_catalog_state state;
        store_reader reader;
        store_meta meta;
        outdated = store_catalog_outdated(s->catalog) ||
                   store_catalog_get_state(s->catalog, &state, NULL) != BASE_OK;
        if (!outdated && store_read_begin(s, &reader, NULL) == BASE_OK) {
            outdated = store_load_meta(reader.txn, &meta, NULL) == BASE_OK &&
                       meta.last_commit != state.commit;
            store_read_end(s, &reader);
        }
    }
    pthread_mutex_unlock(&s->catalog_lock);
    if (outdated) {
        store_catalog_attach(s, false, false);
    }
}

static base_status search_once(store *s, const char *text, size_t size, int64_t as_of_us, size_t k,
                               store_text_hit *hits, size_t *count, base_error *err)
{
    pthread_mutex_lock(&s->catalog_lock);
    base_status status =
        s->catalog ? store_catalog_search(s->catalog, text, size, as_of_us, k, hits, count, err)
                   : base_fail(err, BASE_IO, "the store %s has no catalogue", s->path);
    pthread_mutex_unlock(&s->catalog_lock);
    return status;
}

base_status store_search_text(store *s, const char *query_text, size_t query_size, int64_t as_of_us,
                              size_t k, store_text_hit *hits, size_t *count, base_error *err)
{
    base_error local = {0};
    refresh_catalog(s);
    base_status status = search_once(s, query_text, query_size, as_of_us, k, hits, count, &local);
    if (status == BASE_CORRUPT) {
        /* Derived data is never the end of a question: build it again, on disk or in memory. */
        base_log(BASE_LOG_WARN, "the catalogue is damaged and will be rebuilt: %s", local.text);
        bool locked = !s->read_only && store_writer_lock(s, 0, NULL) == BASE_OK;
        store_catalog_attach(s, locked, true);
        if (locked) {
            store_writer_unlock(s);
        }
        status = search_once(s, query_text, query_size, as_of_us, k, hits, count, &local);
    }
    if (status != BASE_OK && err) {
        *err = local;
    }
    return status;
}

base_status store_known(store *s, int64_t as_of_us, uint64_t **ids, size_t *count, base_error *err)
{
    refresh_catalog(s);
    pthread_mutex_lock(&s->catalog_lock);
    base_status status = s->catalog
                             ? store_catalog_known(s->catalog, as_of_us, ids, count, err)
                             : base_fail(err, BASE_IO, "the store %s has no catalogue", s->path);
    pthread_mutex_unlock(&s->catalog_lock);
    return status;
}

/* --- figures
 * --------------------------------------------------------------------------------------------- */

static uint64_t file_size(const store *s, const char *name)
{
    char path[STORE_PATH_SIZE];
    base_file_info info;
    return base_path_join(path, sizeof path, s->path, name) == BASE_OK &&
                   base_file_stat(path, &info, NULL) == BASE_OK
               ? info.size
               : 0;
}

static uint64_t folder_size(const store *s, const char *name)
{
    char path[STORE_PATH_SIZE];
    char **files = NULL;
    size_t count = 0;
    uint64_t total = 0;
    if (base_path_join(path, sizeof path, s->path, name) != BASE_OK ||
        base_dir_walk(path, &files, &count, NULL) != BASE_OK) {
        return 0;
    }
    for (size_t i = 0; i < count; i++) {
        base_file_info info;
        if (base_file_stat(files[i], &info, NULL) == BASE_OK) {
            total += info.size;
        }
        base_free(files[i]);
    }
    base_free(files);
    return total;
}

static base_status add_source(store_stats *out, size_t *capacity, const store_source *source,
                              base_error *err)
{
    if (out->source_count == *capacity) {
        size_t wanted = *capacity ? 2 * *capacity : 16, size;
        store_source_info *items = NULL;
        if (base_size_mul(wanted, sizeof *items, &size)) {
            items = base_realloc(out->sources, size);
        }
        if (!items) {
            return base_fail(err, BASE_NO_MEMORY, "out of memory");
        }
        out->sources = items;
        *capacity = wanted;
    }
    store_source_info info = {.source = store_slice_copy(source->name),
                              .half_life_s = source->half_life_s,
                              .given = source->given,
                              .evidence = source->evidence,
                              .documents = source->documents,
                              .episodes = source->episodes};
    store_source_drift(source, &info.drift);
    if (!info.source) {
        return base_fail(err, BASE_NO_MEMORY, "out of memory");
    }
    out->sources[out->source_count++] = info;
    return BASE_OK;
}

static base_status list_sources(store_db_txn *txn, store_stats *out, base_error *err)
{
    store_db_cursor *cursor;
    store_slice key, value, payload;
    size_t capacity = 0;
    base_status status = store_db_cursor_open(txn, STORE_TABLE_SOURCE, &cursor, err);
    if (status != BASE_OK) {
        return status;
    }
    status = store_db_first(cursor, &key, &value, err);
    while (status == BASE_OK) {
        store_source source;
        status = store_open_record(STORE_TABLE_SOURCE, key, value, &payload, NULL, err);
        if (status == BASE_OK && store_source_decode(payload, &source) != BASE_OK) {
            status = store_fail_record(err, BASE_CORRUPT, STORE_TABLE_SOURCE, key.data, key.size);
        }
        if (status == BASE_OK) {
            status = add_source(out, &capacity, &source, err);
        }
        if (status == BASE_OK) {
            status = store_db_next(cursor, &key, &value, err);
        }
    }
    store_db_cursor_close(cursor);
    return status == BASE_NOT_FOUND ? BASE_OK : status;
}

base_status store_get_stats(store *s, store_stats *out, base_error *err)
{
    store_reader reader;
    store_meta meta;
    store_stats stats = {0};
    base_status status = store_read_begin(s, &reader, err);
    if (status != BASE_OK) {
        return status;
    }
    status = store_load_meta(reader.txn, &meta, err);
    if (status == BASE_OK) {
        status = list_sources(reader.txn, &stats, err);
    }
    store_read_end(s, &reader);
    if (status != BASE_OK) {
        store_stats_free(&stats);
        return status;
    }
    pthread_mutex_lock(&s->small_lock);
    stats.dropped_writes = meta.dropped_writes + s->dropped_pending;
    pthread_mutex_unlock(&s->small_lock);
    stats.episodes = meta.episodes;
    stats.documents = meta.documents;
    stats.versions = meta.versions;
    stats.superseded = meta.superseded;
    stats.kv_entries = meta.kv_entries;
    stats.uses = meta.uses;
    stats.last_commit = meta.last_commit;
    stats.bytes_text = meta.bytes_text;
    stats.bytes_vectors = meta.bytes_vectors;
    stats.bytes_kv = meta.bytes_kv;
    stats.bytes_lmdb = file_size(s, STORE_DATA_NAME);
    stats.bytes_catalog =
        file_size(s, STORE_CATALOG_NAME) + file_size(s, STORE_CATALOG_NAME "-wal");
    stats.bytes_index = folder_size(s, "index");
    stats.bytes_total =
        stats.bytes_lmdb + stats.bytes_catalog + stats.bytes_index + file_size(s, STORE_LOCK_NAME);
    *out = stats;
    return BASE_OK;
}

void store_stats_free(store_stats *stats)
{
    if (stats) {
        for (size_t i = 0; i < stats->source_count; i++) {
            base_free(stats->sources[i].source);
        }
        base_free(stats->sources);
        memset(stats, 0, sizeof *stats);
    }
}

base_status store_source_name(store *s, uint32_t source, char **name, base_error *err)
{
    store_reader reader;
    store_source record;
    base_status status = store_read_begin(s, &reader, err);
    if (status != BASE_OK) {
        return status;
    }
    status = store_load_source(reader.txn, source, &record, err);
    if (status == BASE_OK) {
        *name = store_slice_copy(record.name);
        status = *name ? BASE_OK : base_fail(err, BASE_NO_MEMORY, "out of memory");
    }
    store_read_end(s, &reader);
    return status;
}

base_status store_vector_info(store *s, size_t *dim, char **encoder, base_error *err)
{
    store_reader reader;
    store_meta meta;
    base_status status = store_read_begin(s, &reader, err);
    if (status != BASE_OK) {
        return status;
    }
    status = store_load_meta(reader.txn, &meta, err);
    store_read_end(s, &reader);
    if (status == BASE_OK) {
        *encoder = base_strdup(meta.encoder);
        *dim = meta.vector_dim;
        status = *encoder ? BASE_OK : base_fail(err, BASE_NO_MEMORY, "out of memory");
    }
    return status;
}
