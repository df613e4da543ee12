/* store/copy.c: rewriting data.mdb from its records, and putting the rewritten file in place.
 *
 * LMDB's own compacting copy takes whole pages along, with what was deleted in the gaps between
 * their records. Here every record is put anew, so that no forgotten byte comes along. Order of a
 * swap, under the writer and the generation lock:
 *
 *   1. fresh folder: data.mdb written, synced     killed here: the next rewrite empties the folder
 *   2. lock.mdb removed                           killed here: made again by the next open
 *   3. fresh data.mdb renamed over data.mdb       the switch, atomic
 *   4. folder synced, generation counted up
 *
 * lock.mdb goes first since its table speaks of transaction ids of the old file. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/file.h"
#include "base/log.h"
#include "store/internal.h"
#include "store/sessions.h"

#define BATCH_BYTES ((size_t)64 << 20) /* per commit of the new file: bounds LMDB's dirty pages */
#define FRESH_NAME "rewrite"

/* --- folders
 * ----------------------------------------------------------------------------------------- */

static base_status path_in(char out[STORE_PATH_SIZE], const char *folder, const char *name,
                           base_error *err)
{
    return base_path_join(out, STORE_PATH_SIZE, folder, name) == BASE_OK
               ? BASE_OK
               : base_fail(err, BASE_LIMIT, "path is too long: %.80s...", folder);
}

base_status store_empty_folder(const char *folder, base_error *err)
{
    static const char *const names[] = {STORE_DATA_NAME,          STORE_LOCK_NAME,
                                        STORE_WRITER_NAME,        STORE_GENERATION_NAME,
                                        STORE_CATALOG_NAME,       STORE_CATALOG_NAME "-wal",
                                        STORE_CATALOG_NAME "-shm"};
    char path[STORE_PATH_SIZE];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        base_status status = path_in(path, folder, names[i], err);
        if (status != BASE_OK) {
            return status;
        }
        if (unlink(path) != 0 && errno != ENOENT && errno != ENOTDIR) {
            return base_fail_errno(err, errno, "cannot remove %s", path);
        }
    }
    return BASE_OK;
}

base_status store_remove_folder(const char *folder, base_error *err)
{
    base_status status = store_empty_folder(folder, err);
    if (status == BASE_OK && rmdir(folder) != 0 && errno != ENOENT) {
        return base_fail_errno(err, errno, "cannot remove %s", folder);
    }
    return status;
}

/* --- copying
 * ------------------------------------------------------------------------------------------- */

typedef struct copy_state {
    store_db *to;
    store_db_txn *txn;
    size_t pending; /* bytes put since the last commit of the new file */
    uint64_t skipped;
    store_db_txn *vectors;  /* NULL, or where the vectors come from instead */
    const store_meta *meta; /* in place of META then */
} copy_state;

static base_status put_copy(copy_state *copy, store_table table, store_slice key, store_slice value,
                            base_error *err)
{
    store_key k = {.size = key.size};
    base_status status = BASE_OK;
    memcpy(k.data, key.data, key.size);
    if (copy->pending >= BATCH_BYTES) {
        status = store_db_commit(copy->txn, err);
        copy->txn = NULL;
        copy->pending = 0;
        if (status == BASE_OK) {
            status = store_db_begin(copy->to, true, &copy->txn, err);
        }
    }
    if (status == BASE_OK) {
        copy->pending += value.size;
        status = store_db_put(copy->txn, table, &k, value.data, value.size, true, err);
    }
    return status;
}

static bool has_episode(store_db_txn *txn, store_slice vector_key)
{
    store_key key = {.size = vector_key.size};
    store_slice value;
    memcpy(key.data, vector_key.data, key.size);
    return store_db_get(txn, STORE_TABLE_EPISODE, &key, &value, NULL) == BASE_OK;
}

static base_status copy_table(copy_state *copy, store_db_txn *from, store_table table,
                              base_error *err)
{
    store_db_cursor *cursor;
    store_slice key, value, payload;
    bool other = table == STORE_TABLE_VECTOR && copy->vectors;
    base_status status = store_db_cursor_open(other ? copy->vectors : from, table, &cursor, err);
    if (status != BASE_OK) {
        return status;
    }
    status = store_db_first(cursor, &key, &value, err);
    while (status == BASE_OK) {
        if (other && !has_episode(from, key)) {
            /* forgotten meanwhile */
        } else if (key.size <= STORE_KEY_MAX &&
                   store_record_open(table, key.data, key.size, value, NULL, &payload) == BASE_OK) {
            status = put_copy(copy, table, key, value, err);
        } else {
            copy->skipped++;
        }
        if (status == BASE_OK) {
            status = store_db_next(cursor, &key, &value, err);
        }
    }
    store_db_cursor_close(cursor);
    return status == BASE_NOT_FOUND ? BASE_OK : status;
}

/* META as it shall be. */
static base_status put_meta(copy_state *copy, base_error *err)
{
    base_buffer payload = {0}, sealed = {0};
    store_key key = store_key_meta();
    base_status status = store_meta_encode(&payload, copy->meta);
    if (status == BASE_OK) {
        status = store_record_seal(&sealed, STORE_TABLE_META, &key, copy->meta->last_commit,
                                   payload.data, payload.size);
    }
    status = status ? base_fail(err, status, "out of memory")
                    : store_db_put(copy->txn, STORE_TABLE_META, &key, sealed.data, sealed.size,
                                   false, err);
    base_buffer_free(&payload);
    base_buffer_free(&sealed);
    return status;
}

static base_status copy_records(copy_state *copy, store_db_txn *txn, const char *fresh_folder,
                                base_error *err)
{
    store_db_options options = {.create = true};
    base_status status = store_empty_folder(fresh_folder, err);
    if (status == BASE_OK) {
        status = base_dir_create(fresh_folder, err);
    }
    if (status == BASE_OK) {
        status = store_db_open(fresh_folder, &options, &copy->to, err);
    }
    if (status == BASE_OK) {
        status = store_db_begin(copy->to, true, &copy->txn, err);
    }
    for (int i = 0; i < STORE_TABLE_COUNT && status == BASE_OK; i++) {
        if (i == STORE_TABLE_META && copy->meta) {
            status = put_meta(copy, err);
        } else {
            status = copy_table(copy, txn, (store_table)i, err);
        }
    }
    if (status == BASE_OK) {
        status = store_db_commit(copy->txn, err);
        copy->txn = NULL;
    }
    store_db_abort(copy->txn);
    store_db_close(copy->to);
    return status;
}

base_status store_copy_records(store_db_txn *txn, const char *fresh_folder, uint64_t *skipped,
                               base_error *err)
{
    copy_state copy = {0};
    base_status status = copy_records(&copy, txn, fresh_folder, err);
    *skipped = copy.skipped;
    return status;
}

base_status store_copy_with_vectors(store_db_txn *txn, store_db_txn *vectors,
                                    const store_meta *meta, const char *fresh_folder,
                                    uint64_t *skipped, base_error *err)
{
    copy_state copy = {.vectors = vectors, .meta = meta};
    base_status status = copy_records(&copy, txn, fresh_folder, err);
    *skipped = copy.skipped;
    return status;
}

/* --- the swap
 * -------------------------------------------------------------------------------------------- */

/* The number in the generation file: informative, identity of the files is what counts. */
static void count_generation(int fd)
{
    char text[32] = {0};
    ssize_t got = pread(fd, text, sizeof text - 1, 0);
    unsigned long long number = got > 0 ? strtoull(text, NULL, 10) : 0;
    int size = snprintf(text, sizeof text, "%llu\n", number + 1);
    if (pwrite(fd, text, (size_t)size, 0) != size) {
        base_log(BASE_LOG_WARN, "cannot write the generation of the store");
    }
}

base_status store_swap_data(const char *folder, const char *fresh_folder, base_error *err)
{
    char generation[STORE_PATH_SIZE], lock[STORE_PATH_SIZE], data[STORE_PATH_SIZE];
    char fresh[STORE_PATH_SIZE];
    base_status status = path_in(generation, folder, STORE_GENERATION_NAME, err);
    if (status == BASE_OK) {
        status = path_in(lock, folder, STORE_LOCK_NAME, err);
    }
    if (status == BASE_OK) {
        status = path_in(data, folder, STORE_DATA_NAME, err);
    }
    if (status == BASE_OK) {
        status = path_in(fresh, fresh_folder, STORE_DATA_NAME, err);
    }
    if (status == BASE_OK) {
        status = base_file_sync(fresh, err);
    }
    if (status != BASE_OK) {
        return status;
    }
    int fd = open(generation, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) {
        return base_fail_errno(err, errno, "cannot open %s", generation);
    }
    int code;
    do {
        code = flock(fd, LOCK_EX); /* opening takes milliseconds */
    } while (code != 0 && errno == EINTR);
    if (code != 0) {
        status = base_fail_errno(err, errno, "cannot lock %s", generation);
    } else if (unlink(lock) != 0 && errno != ENOENT) {
        status = base_fail_errno(err, errno, "cannot remove %s", lock);
    } else if (rename(fresh, data) != 0) {
        status = base_fail_errno(err, errno, "cannot rename %s", fresh);
    } else {
        count_generation(fd);
        status = base_file_sync(folder, err);
    }
    close(fd);
    return status;
}

/* --- scrub
 * -------------------------------------------------------------------------------------------------
 * */

/* Rewrite the records and swap; the handle then has the new file. */
static base_status scrub_records(store *s, base_error *err)
{
    char fresh[STORE_PATH_SIZE];
    uint64_t skipped = 0;
    store_reader reader;
    base_status status = path_in(fresh, s->path, FRESH_NAME, err);
    if (status == BASE_OK) {
        status = store_read_begin(s, &reader, err);
    }
    if (status != BASE_OK) {
        return status;
    }
    status = store_copy_records(reader.txn, fresh, &skipped, err);
    store_read_end(s, &reader);
    if (status == BASE_OK && skipped > 0) {
        /* What cannot be read must not vanish on the way: verify --repair decides about it. */
        status = base_fail(err, BASE_CORRUPT,
                           "%llu records of %s are damaged: repair the store before scrubbing it",
                           (unsigned long long)skipped, s->path);
    }
    if (status == BASE_OK) {
        status = store_swap_data(s->path, fresh, err);
    }
    store_remove_folder(fresh, NULL);
    return status == BASE_OK ? store_reopen(s, err) : status;
}

/* Fill the text index anew, without free pages, and cut its log. */
static base_status scrub_catalog(store *s, base_error *err)
{
    store_reader reader;
    pthread_mutex_lock(&s->catalog_lock);
    base_status status = BASE_OK;
    if (!s->catalog || store_catalog_mode_of(s->catalog) != STORE_CATALOG_WRITE) {
        status = base_fail(err, BASE_IO, "the catalogue of %s cannot be rewritten", s->path);
    }
    if (status == BASE_OK) {
        status = store_read_begin(s, &reader, err);
        if (status == BASE_OK) {
            status = store_follow_anew(reader.txn, s->catalog, err);
            store_read_end(s, &reader);
        }
    }
    if (status == BASE_OK) {
        status = store_catalog_vacuum(s->catalog, err);
    }
    pthread_mutex_unlock(&s->catalog_lock);
    return status;
}

/* The last step: nothing is left to do for the next open. */
static base_status clear_pending(store *s, base_error *err)
{
    store_db_txn *txn;
    store_meta meta;
    base_buffer payload = {0}, sealed = {0};
    store_key key = store_key_meta();
    base_status status = store_db_begin(s->db, true, &txn, err);
    if (status != BASE_OK) {
        return status;
    }
    status = store_load_meta(txn, &meta, err);
    if (status == BASE_OK) {
        meta.flags &= ~STORE_META_SCRUB_PENDING;
        status = store_meta_encode(&payload, &meta);
        if (status == BASE_OK) {
            status = store_record_seal(&sealed, STORE_TABLE_META, &key, meta.last_commit,
                                       payload.data, payload.size);
        }
        if (status == BASE_OK) {
            status =
                store_db_put(txn, STORE_TABLE_META, &key, sealed.data, sealed.size, false, err);
        } else {
            base_fail(err, status, "out of memory");
        }
    }
    if (status == BASE_OK) {
        status = store_db_commit(txn, err);
    } else {
        store_db_abort(txn);
    }
    base_buffer_free(&payload);
    base_buffer_free(&sealed);
    return status;
}

base_status store_scrub_locked(store *s, base_error *err)
{
    base_status status = scrub_records(s, err);
    if (status == BASE_OK) {
        status = scrub_catalog(s, err);
    }
    if (status == BASE_OK) {
        status = store_drop_reindex(s->path, err); /* vectors of what is forgotten */
    }
    if (status == BASE_OK) {
        status = store_forget_sessions(s, err); /* keys and values made of it */
    }
    return status == BASE_OK ? clear_pending(s, err) : status;
}

base_status store_scrub(store *s, base_error *err)
{
    if (s->read_only) {
        return base_fail(err, BASE_PERMISSION, "the store %s is open for reading only", s->path);
    }
    unsigned wait_ms = s->options.lock_wait_ms ? s->options.lock_wait_ms : UINT_MAX;
    base_status status = store_writer_lock(s, wait_ms, err);
    if (status != BASE_OK) {
        return status;
    }
    bool writable = false;
    pthread_mutex_lock(&s->catalog_lock);
    writable = s->catalog && store_catalog_mode_of(s->catalog) == STORE_CATALOG_WRITE;
    pthread_mutex_unlock(&s->catalog_lock);
    if (!writable) {
        store_catalog_attach(s, true, false);
    }
    status = store_scrub_locked(s, err);
    store_writer_unlock(s);
    return status;
}
