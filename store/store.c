/* store/store.c: opening a store, its locks, transactions, and the records that all parts load and
 * save. Start at store_open, store_begin and store_commit; internal.h explains the locks. */
#include "store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "store/check.h"

#define POLL_START_US 200u
#define POLL_MAX_US 5000u
#define REOPEN_WAIT_MS 10000.0
#define NEW_FILE_BYTES_MAX (256u << 10) /* an environment that holds nothing yet is smaller */

/* --- one handle per folder and process -----------------------------------------------------------
 * */

/* LMDB's file locks belong to the process: closing a second environment of the same files would
 * drop those of the first. A child after fork does not own its parent's entries. */
typedef struct open_entry {
    struct open_entry *next;
    const store *owner;
    dev_t dev;
    ino_t ino;
    pid_t process;
} open_entry;

static pthread_mutex_t open_lock = PTHREAD_MUTEX_INITIALIZER;
static open_entry *open_stores; /* guarded by open_lock */

static base_status register_open(const store *s, base_error *err)
{
    struct stat folder;
    if (stat(s->path, &folder) != 0) {
        return base_fail_errno(err, errno, "cannot open the store %s", s->path);
    }
    open_entry *entry = base_calloc(1, sizeof *entry);
    if (!entry) {
        return base_fail(err, BASE_NO_MEMORY, "out of memory");
    }
    entry->owner = s;
    entry->dev = folder.st_dev;
    entry->ino = folder.st_ino;
    entry->process = getpid();
    base_status status = BASE_OK;
    pthread_mutex_lock(&open_lock);
    for (const open_entry *e = open_stores; e; e = e->next) {
        if (e->dev == entry->dev && e->ino == entry->ino && e->process == entry->process) {
            status =
                base_fail(err, BASE_BUSY, "the store %s is open in this process already", s->path);
            break;
        }
    }
    if (status == BASE_OK) {
        entry->next = open_stores;
        open_stores = entry;
    }
    pthread_mutex_unlock(&open_lock);
    if (status != BASE_OK) {
        base_free(entry);
    }
    return status;
}

static void unregister_open(const store *s)
{
    open_entry *found = NULL;
    pthread_mutex_lock(&open_lock);
    for (open_entry **link = &open_stores; *link; link = &(*link)->next) {
        if ((*link)->owner == s && (*link)->process == getpid()) {
            found = *link;
            *link = found->next;
            break;
        }
    }
    pthread_mutex_unlock(&open_lock);
    base_free(found);
}

/* --- records
 * --------------------------------------------------------------------------------------- */

base_status store_fail_record(base_error *err, base_status status, store_table table,
                              const uint8_t *key, size_t key_size)
{
    char hex[2 * STORE_KEY_MAX + 1];
    if (status == BASE_NO_MEMORY || status == BASE_LIMIT) {
        return base_fail(err, status, "record in table %s: %s", store_table_name(table),
                         base_status_text(status));
    }
    if (key_size == 8) {
        return base_fail(err, status, "record %llu in table %s: %s",
                         (unsigned long long)base_get_u64_be(key), store_table_name(table),
                         base_status_text(status));
    }
    base_hex(key, key_size < STORE_KEY_MAX ? key_size : STORE_KEY_MAX, hex);
    return base_fail(err, status, "record %s in table %s: %s", hex, store_table_name(table),
                     base_status_text(status));
}

base_status store_open_record(store_table table, store_slice key, store_slice value,
                              store_slice *payload, uint64_t *commit, base_error *err)
{
    base_status status = store_record_open(table, key.data, key.size, value, commit, payload);
    return status == BASE_OK ? BASE_OK : store_fail_record(err, status, table, key.data, key.size);
}

base_status store_load(store_db_txn *txn, store_table table, const store_key *key,
                       store_slice *payload, uint64_t *commit, base_error *err)
{
    store_slice value, k = {key->data, key->size};
    base_status status = store_db_get(txn, table, key, &value, err);
    return status == BASE_OK ? store_open_record(table, k, value, payload, commit, err) : status;
}

base_status store_save_status(store_txn *txn, base_status encoded, store_table table,
                              const store_key *key, bool append, base_error *err)
{
    if (encoded == BASE_OK) {
        return store_save(txn, table, key, append, err);
    }
    return store_fail_record(err, encoded, table, key->data, key->size);
}

base_status store_save(store_txn *txn, store_table table, const store_key *key, bool append,
                       base_error *err)
{
    base_status status = store_record_seal(&txn->sealed, table, key, txn->commit, txn->payload.data,
                                           txn->payload.size);
    if (status != BASE_OK) {
        return store_fail_record(err, status, table, key->data, key->size);
    }
    txn->changed = true;
    return store_db_put(txn->db, table, key, txn->sealed.data, txn->sealed.size, append, err);
}

/* load_X: one record by its key, decoded. */
#define LOAD(table, key, decode, out)                                                     \
    do {                                                                                  \
        store_key load_key = key;                                                         \
        store_slice payload;                                                              \
        base_status status = store_load(txn, table, &load_key, &payload, commit, err);    \
        if (status != BASE_OK) {                                                          \
            return status;                                                                \
        }                                                                                 \
        status = decode(payload, out);                                                    \
        return status == BASE_OK                                                          \
                   ? BASE_OK                                                              \
                   : store_fail_record(err, status, table, load_key.data, load_key.size); \
    } while (0)

base_status store_load_meta(store_db_txn *txn, store_meta *meta, base_error *err)
{
    store_key key = store_key_meta();
    store_slice payload;
    base_status status = store_load(txn, STORE_TABLE_META, &key, &payload, NULL, err);
    if (status == BASE_OK) {
        status = store_meta_decode(payload, meta);
        if (status == BASE_VERSION) {
            return base_fail(err, BASE_VERSION,
                             "the store has format %u; this program knows up to %d", meta->format,
                             STORE_FORMAT_VERSION);
        }
        if (status != BASE_OK) {
            return store_fail_record(err, status, STORE_TABLE_META, key.data, key.size);
        }
    }
    return status;
}

base_status store_load_span(store_db_txn *txn, uint64_t id, store_span_record *span,
                            uint64_t *commit, base_error *err)
{
    LOAD(STORE_TABLE_EPISODE, store_key_u64(id), store_span_decode, span);
}

base_status store_load_state(store_db_txn *txn, uint64_t id, store_state *state, base_error *err)
{
    store_key key = store_key_u64(id);
    store_slice payload;
    base_status status = store_load(txn, STORE_TABLE_STATE, &key, &payload, NULL, err);
    if (status == BASE_NOT_FOUND) {
        *state = (store_state){.superseded_at_us = BASE_TIME_MAX,
                               .first_observed_us = BASE_TIME_NONE};
        return BASE_OK;
    }
    if (status == BASE_OK && store_state_decode(payload, state) != BASE_OK) {
        status = store_fail_record(err, BASE_CORRUPT, STORE_TABLE_STATE, key.data, key.size);
    }
    return status;
}

base_status store_load_source(store_db_txn *txn, uint32_t id, store_source *source, base_error *err)
{
    uint64_t *commit = NULL;
    LOAD(STORE_TABLE_SOURCE, store_key_u32(id), store_source_decode, source);
}

base_status store_load_document(store_db_txn *txn, uint64_t id, store_document *document,
                                base_error *err)
{
    uint64_t *commit = NULL;
    LOAD(STORE_TABLE_DOCUMENT, store_key_u64(id), store_document_decode, document);
}

base_status store_load_version(store_db_txn *txn, uint64_t document, uint32_t version,
                               store_version *out, base_error *err)
{
    uint64_t *commit = NULL;
    LOAD(STORE_TABLE_VERSION, store_key_version(document, version), store_version_decode, out);
}

base_status store_load_commit(store_db_txn *txn, uint64_t id, store_commit_record *out,
                              base_error *err)
{
    uint64_t *commit = NULL;
    LOAD(STORE_TABLE_COMMIT, store_key_u64(id), store_commit_decode, out);
}

/* --- sets of ids
 * ----------------------------------------------------------------------------------- */

base_status store_ids_add(store_ids *ids, uint64_t id)
{
    if (ids->count == ids->capacity) {
        size_t capacity = ids->capacity ? 2 * ids->capacity : 64, size;
        uint64_t *items = NULL;
        if (base_size_mul(capacity, sizeof *items, &size)) {
            items = base_realloc(ids->items, size);
        }
        if (!items) {
            return BASE_NO_MEMORY;
        }
        ids->items = items;
        ids->capacity = capacity;
    }
    ids->items[ids->count++] = id;
    return BASE_OK;
}

static int compare_ids(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

void store_ids_sort(store_ids *ids)
{
    if (ids->count > 1) {
        qsort(ids->items, ids->count, sizeof *ids->items, compare_ids);
    }
    size_t kept = 0;
    for (size_t i = 0; i < ids->count; i++) {
        if (kept == 0 || ids->items[kept - 1] != ids->items[i]) {
            ids->items[kept++] = ids->items[i];
        }
    }
    ids->count = kept;
}

bool store_ids_contain(const store_ids *ids, uint64_t id)
{
    return ids->count && bsearch(&id, ids->items, ids->count, sizeof id, compare_ids);
}

void store_ids_free(store_ids *ids)
{
    base_free(ids->items);
    ids->items = NULL;
    ids->count = ids->capacity = 0;
}

base_status store_load_forgotten(store_db_txn *txn, uint64_t after, store_ids *ids, base_error *err)
{
    if (after == UINT64_MAX) {
        return BASE_OK;
    }
    store_db_cursor *cursor;
    base_status status = store_db_cursor_open(txn, STORE_TABLE_FORGOTTEN, &cursor, err);
    if (status != BASE_OK) {
        return status;
    }
    store_slice key, value, payload;
    store_key start = store_key_part(after + 1, 0);
    status = store_db_seek(cursor, &start, &key, &value, err);
    while (status == BASE_OK) {
        status = store_open_record(STORE_TABLE_FORGOTTEN, key, value, &payload, NULL, err);
        if (status == BASE_OK && store_ids_check(payload) != BASE_OK) {
            status =
                store_fail_record(err, BASE_CORRUPT, STORE_TABLE_FORGOTTEN, key.data, key.size);
        }
        for (size_t i = 0; status == BASE_OK && i < payload.size; i += 8) {
            status = store_ids_add(ids, base_get_u64(payload.data + i));
            if (status != BASE_OK) {
                base_fail(err, status, "out of memory");
            }
        }
        if (status == BASE_OK) {
            status = store_db_next(cursor, &key, &value, err);
        }
    }
    store_db_cursor_close(cursor);
    store_ids_sort(ids);
    return status == BASE_NOT_FOUND ? BASE_OK : status;
}

/* --- locks
 * ------------------------------------------------------------------------------------------- */

static int flock_retry(int fd, int operation)
{
    int code;
    do {
        code = flock(fd, operation);
    } while (code != 0 && errno == EINTR);
    return code;
}

static void sleep_us(unsigned time_us)
{
    struct timespec pause = {.tv_nsec = (long)time_us * 1000};
    nanosleep(&pause, NULL);
}

/* Open a lock file; in a read-only store a missing one is no error: *fd = -1. */
static base_status open_lock_file(const store *s, const char *name, int *fd, base_error *err)
{
    char path[STORE_PATH_SIZE];
    if (base_path_join(path, sizeof path, s->path, name) != BASE_OK) {
        return base_fail(err, BASE_LIMIT, "path is too long: %.80s...", s->path);
    }
    int flags = s->read_only ? O_RDONLY : O_RDWR | O_CREAT;
    *fd = open(path, flags | O_CLOEXEC, 0600);
    if (*fd < 0 && !(s->read_only && errno == ENOENT)) {
        return base_fail_errno(err, errno, "cannot open %s", path);
    }
    return BASE_OK;
}

/* Replace the environment by the one that the folder names now. guard is held for writing. */
static base_status open_environment(store *s, bool create, base_error *err)
{
    store_db_options options = {
        .read_only = s->read_only, .create = create, .map_bytes = s->options.map_bytes};
    store_db_close(s->db);
    s->db = NULL;
    if (s->generation_fd >= 0 && flock_retry(s->generation_fd, LOCK_SH) != 0) {
        return base_fail_errno(err, errno, "cannot lock the store %s", s->path);
    }
    base_status status = store_db_open(s->path, &options, &s->db, err);
    if (s->generation_fd >= 0) {
        flock_retry(s->generation_fd, LOCK_UN);
    }
    return status;
}

base_status store_reopen(store *s, base_error *err)
{
    /* Readers of this handle leave soon; one that waits for this very call would never. */
    double start_ms = base_clock_ms();
    while (pthread_rwlock_trywrlock(&s->guard) != 0) {
        if (base_clock_ms() - start_ms >= REOPEN_WAIT_MS) {
            return base_fail(err, BASE_BUSY, "the store %s is being read by this process", s->path);
        }
        sleep_us(POLL_START_US);
    }
    base_status status = open_environment(s, false, err);
    pthread_rwlock_unlock(&s->guard);
    return status;
}

base_status store_writer_lock(store *s, unsigned wait_ms, base_error *err)
{
    double start_ms = base_clock_ms();
    unsigned pause_us = POLL_START_US;
    for (;;) {
        if (!atomic_flag_test_and_set(&s->writing)) {
            if (flock_retry(s->writer_fd, LOCK_EX | LOCK_NB) == 0) {
                break;
            }
            int code = errno;
            atomic_flag_clear(&s->writing);
            if (code != EWOULDBLOCK) {
                return base_fail_errno(err, code, "cannot lock the store %s", s->path);
            }
        }
        if (wait_ms != UINT_MAX && base_clock_ms() - start_ms >= (double)wait_ms) {
            return base_fail(err, BASE_BUSY, "another writer holds the store %s", s->path);
        }
        sleep_us(pause_us);
        pause_us = 2 * pause_us < POLL_MAX_US ? 2 * pause_us : POLL_MAX_US;
    }
    base_status status = BASE_OK;
    pthread_rwlock_rdlock(&s->guard);
    bool current = s->db && store_db_current(s->db);
    pthread_rwlock_unlock(&s->guard);
    if (!current) {
        status = store_reopen(s, err);
    }
    if (status != BASE_OK) {
        store_writer_unlock(s);
    }
    return status;
}

void store_writer_unlock(store *s)
{
    flock_retry(s->writer_fd, LOCK_UN);
    atomic_flag_clear(&s->writing);
}

/* --- reading
 * ------------------------------------------------------------------------------------------ */

/* Without LMDB's reader table only lock 1 keeps a writer from using again the pages that we read.
 * */
static base_status share_writer_lock(store *s, base_error *err)
{
    base_status status = BASE_OK;
    pthread_mutex_lock(&s->shared_lock);
    if (s->shared_count == 0 && s->writer_fd >= 0 && flock_retry(s->writer_fd, LOCK_SH) != 0) {
        status = base_fail_errno(err, errno, "cannot lock the store %s", s->path);
    } else {
        s->shared_count++;
    }
    pthread_mutex_unlock(&s->shared_lock);
    return status;
}

static void unshare_writer_lock(store *s)
{
    pthread_mutex_lock(&s->shared_lock);
    if (--s->shared_count == 0 && s->writer_fd >= 0) {
        flock_retry(s->writer_fd, LOCK_UN);
    }
    pthread_mutex_unlock(&s->shared_lock);
}

base_status store_read_begin(store *s, store_reader *reader, base_error *err)
{
    pthread_rwlock_rdlock(&s->guard);
    if (!s->db || !store_db_current(s->db)) {
        pthread_rwlock_unlock(&s->guard);
        /* Within another read of this thread the old files are still whole: use them once more. */
        if (pthread_rwlock_trywrlock(&s->guard) == 0) {
            base_status status = BASE_OK;
            if (!s->db || !store_db_current(s->db)) {
                status = open_environment(s, false, err);
            }
            pthread_rwlock_unlock(&s->guard);
            if (status != BASE_OK) {
                return status;
            }
        }
        pthread_rwlock_rdlock(&s->guard);
    }
    base_status status = BASE_OK;
    bool shared = false;
    if (!s->db) {
        status = base_fail(err, BASE_IO, "the store %s could not be opened again", s->path);
    } else if (store_db_unlocked(s->db)) {
        status = share_writer_lock(s, err);
        shared = status == BASE_OK;
    }
    if (status == BASE_OK) {
        status = store_db_begin(s->db, false, &reader->txn, err);
    }
    if (status != BASE_OK) {
        if (shared) {
            unshare_writer_lock(s);
        }
        pthread_rwlock_unlock(&s->guard);
    }
    return status;
}

void store_read_end(store *s, store_reader *reader)
{
    store_db_abort(reader->txn);
    reader->txn = NULL;
    if (store_db_unlocked(s->db)) {
        unshare_writer_lock(s);
    }
    pthread_rwlock_unlock(&s->guard);
}

/* --- opening
 * -------------------------------------------------------------------------------------------- */

static store_meta first_meta(void)
{
    store_meta meta = {
        .format = STORE_FORMAT_VERSION, .next_episode = 1, .next_document = 1, .next_source = 1};
    return meta;
}

/* Write META into an environment that has none. Episodes without META mean damage, not a new store.
 * */
static base_status write_first_meta(store *s, base_error *err)
{
    store_db_txn *txn;
    base_status status = store_db_begin(s->db, true, &txn, err);
    if (status != BASE_OK) {
        return status;
    }
    uint64_t entries = 0;
    store_meta meta = first_meta();
    store_db_info info;
    base_buffer payload = {0}, sealed = {0};
    store_key key = store_key_meta();
    status = store_db_get_info(s->db, &info, err);
    if (status == BASE_OK && info.used_size > NEW_FILE_BYTES_MAX) {
        status = base_fail(err, BASE_CORRUPT, "the store %s has lost its tables", s->path);
    }
    for (int i = 0; i < STORE_TABLE_COUNT && status == BASE_OK && entries == 0; i++) {
        status = store_db_count(txn, (store_table)i, &entries, err);
    }
    if (entries > 0) {
        /* Another process may have been faster: then META is there. */
        status = store_load_meta(txn, &meta, err);
        if (status == BASE_NOT_FOUND) {
            status = base_fail(err, BASE_CORRUPT, "the store %s has records but no head", s->path);
        }
        store_db_abort(txn);
        return status;
    }
    if (status == BASE_OK) {
        status = store_meta_encode(&payload, &meta);
        if (status == BASE_OK) {
            status =
                store_record_seal(&sealed, STORE_TABLE_META, &key, 0, payload.data, payload.size);
        }
        if (status != BASE_OK) {
            base_fail(err, status, "out of memory");
        }
    }
    if (status == BASE_OK) {
        status = store_db_put(txn, STORE_TABLE_META, &key, sealed.data, sealed.size, false, err);
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

/* Check the head of the store; make it in a new one. */
static base_status check_head(store *s, store_meta *meta, base_error *err)
{
    store_reader reader;
    base_status status = store_read_begin(s, &reader, err);
    if (status != BASE_OK) {
        return status;
    }
    status = store_load_meta(reader.txn, meta, err);
    store_read_end(s, &reader);
    if (status == BASE_NOT_FOUND && s->read_only) {
        return base_fail(err, BASE_NOT_FOUND, "%s holds no store", s->path);
    }
    if (status == BASE_NOT_FOUND) {
        status = write_first_meta(s, err);
        if (status == BASE_OK) {
            *meta = first_meta();
            /* The new names must survive power loss too. */
            status = base_file_sync(s->path, err);
        }
    }
    return status;
}

static base_status find_data(store *s, bool *exists, base_error *err)
{
    char path[STORE_PATH_SIZE];
    struct stat raw;
    if (base_path_join(path, sizeof path, s->path, STORE_DATA_NAME) != BASE_OK) {
        return base_fail(err, BASE_LIMIT, "path is too long: %.80s...", s->path);
    }
    *exists = stat(path, &raw) == 0;
    if (!*exists && errno != ENOENT && errno != ENOTDIR) {
        return base_fail_errno(err, errno, "cannot open %s", path);
    }
    if (!*exists && (s->read_only || !s->options.create)) {
        return base_fail(err, BASE_NOT_FOUND, "%s holds no store", s->path);
    }
    return BASE_OK;
}

/* After the records are open: finish what a killed process began, then the catalogue. */
static base_status follow_up(store *s, const store_meta *meta, base_error *err)
{
    base_error local;
    bool locked = !s->read_only && store_writer_lock(s, 0, &local) == BASE_OK;
    if (locked && (meta->flags & STORE_META_SCRUB_PENDING)) {
        store_catalog_attach(s, true, false);
        base_log(BASE_LOG_INFO, "finishing the scrub that was cut short in %s", s->path);
        base_status status = store_scrub_locked(s, err);
        if (status != BASE_OK) {
            store_writer_unlock(s);
            return status;
        }
    }
    store_catalog_attach(s, locked, false);
    if (locked) {
        store_writer_unlock(s);
    }
    return BASE_OK;
}

static base_status open_store(store *s, base_error *err)
{
    bool exists = false;
    base_status status = find_data(s, &exists, err);
    if (status == BASE_OK && !exists) {
        status = base_dir_create(s->path, err);
    }
    if (status == BASE_OK) {
        status = register_open(s, err);
    }
    if (status == BASE_OK) {
        status = open_lock_file(s, STORE_WRITER_NAME, &s->writer_fd, err);
    }
    if (status == BASE_OK) {
        status = open_lock_file(s, STORE_GENERATION_NAME, &s->generation_fd, err);
    }
    if (status == BASE_OK) {
        status = open_environment(s, !exists || s->options.create, err);
    }
    store_meta meta;
    if (status == BASE_OK) {
        status = check_head(s, &meta, err);
    }
    if (status == BASE_OK) {
        status = follow_up(s, &meta, err);
    }
    return status;
}

base_status store_open(const char *path, const store_options *options, store **out, base_error *err)
{
    store *s = base_calloc(1, sizeof *s);
    if (!s) {
        return base_fail(err, BASE_NO_MEMORY, "out of memory");
    }
    s->writer_fd = s->generation_fd = -1;
    if (options) {
        s->options = *options;
        s->read_only = options->read_only;
    }
    s->default_half_life_s = INFINITY;
    atomic_flag_clear(&s->writing);
    pthread_rwlock_init(&s->guard, NULL);
    pthread_mutex_init(&s->catalog_lock, NULL);
    pthread_mutex_init(&s->shared_lock, NULL);
    pthread_mutex_init(&s->small_lock, NULL);
    base_status status;
    if (strlen(path) == 0 || strlen(path) >= sizeof s->path - 64) {
        status = base_fail(err, BASE_INVALID, "bad store path \"%.80s\"", path);
    } else {
        memcpy(s->path, path, strlen(path) + 1);
        status = open_store(s, err);
    }
    if (status != BASE_OK) {
        store_close(s);
        return status;
    }
    *out = s;
    return BASE_OK;
}

void store_close(store *s)
{
    if (!s) {
        return;
    }
    /* SQLite moves its log into the file on the last close: readers without locks must not see
     * that. */
    bool locked = !s->read_only && s->writer_fd >= 0 && s->catalog && s->db &&
                  store_writer_lock(s, 1000, NULL) == BASE_OK;
    store_catalog_close(s->catalog);
    if (locked) {
        store_writer_unlock(s);
    }
    store_db_close(s->db);
    if (s->writer_fd >= 0) {
        close(s->writer_fd);
    }
    if (s->generation_fd >= 0) {
        close(s->generation_fd);
    }
    unregister_open(s);
    pthread_rwlock_destroy(&s->guard);
    pthread_mutex_destroy(&s->catalog_lock);
    pthread_mutex_destroy(&s->shared_lock);
    pthread_mutex_destroy(&s->small_lock);
    base_free(s);
}

const char *store_path(const store *s)
{
    return s->path;
}

bool store_is_read_only(const store *s)
{
    return s->read_only;
}

uint64_t store_last_commit(store *s)
{
    store_reader reader;
    store_meta meta;
    if (store_read_begin(s, &reader, NULL) != BASE_OK) {
        return 0;
    }
    base_status status = store_load_meta(reader.txn, &meta, NULL);
    store_read_end(s, &reader);
    return status == BASE_OK ? meta.last_commit : 0;
}

void store_set_default_half_life(store *s, double half_life_s)
{
    pthread_mutex_lock(&s->small_lock);
    s->default_half_life_s = half_life_s > 0.0 ? half_life_s : INFINITY;
    pthread_mutex_unlock(&s->small_lock);
}

/* --- transactions
 * ---------------------------------------------------------------------------------------- */

static void txn_free(store_txn *txn)
{
    for (size_t i = 0; i < txn->removed_count; i++) {
        base_free(txn->removed[i].title);
        base_free(txn->removed[i].text);
    }
    base_free(txn->removed);
    base_buffer_free(&txn->payload);
    base_buffer_free(&txn->sealed);
    base_free(txn);
}

/* Begin the chain of this commit with the one before. */
base_status store_begin_chain(store_txn *txn, base_error *err)
{
    uint8_t p[8] = {0};
    base_sha256_begin(&txn->chain);
    if (txn->meta.last_commit > 0) {
        store_commit_record last;
        base_status status = store_load_commit(txn->db, txn->meta.last_commit, &last, err);
        if (status == BASE_NOT_FOUND) {
            status = base_fail(err, BASE_CORRUPT, "commit %llu has no record",
                               (unsigned long long)txn->meta.last_commit);
        }
        if (status != BASE_OK) {
            return status;
        }
        base_put_u64(p, last.chain);
    }
    base_sha256_add(&txn->chain, p, sizeof p);
    return BASE_OK;
}

base_status store_begin_within(store *s, int64_t now_us, unsigned wait_ms, store_txn **out,
                               base_error *err)
{
    if (s->read_only) {
        return base_fail(err, BASE_PERMISSION, "the store %s is open for reading only", s->path);
    }
    store_txn *txn = base_calloc(1, sizeof *txn);
    if (!txn) {
        return base_fail(err, BASE_NO_MEMORY, "out of memory");
    }
    txn->s = s;
    txn->clock_us = now_us;
    base_status status = store_writer_lock(s, wait_ms, err);
    if (status != BASE_OK) {
        txn_free(txn);
        return status;
    }
    status = store_db_begin(s->db, true, &txn->db, err);
    if (status == BASE_OK) {
        status = store_load_meta(txn->db, &txn->meta, err);
        if (status == BASE_NOT_FOUND) {
            status = base_fail(err, BASE_CORRUPT, "the store %s has no head", s->path);
        }
    }
    if (status == BASE_OK) {
        status = store_begin_chain(txn, err);
    }
    if (status != BASE_OK) {
        store_db_abort(txn->db);
        store_writer_unlock(s);
        txn_free(txn);
        return status;
    }
    txn->commit = txn->meta.last_commit + 1;
    txn->first_episode = txn->meta.next_episode;
    *out = txn;
    return BASE_OK;
}

base_status store_begin(store *s, int64_t now_us, store_txn **txn, base_error *err)
{
    unsigned wait_ms = s->options.lock_wait_ms ? s->options.lock_wait_ms : UINT_MAX;
    return store_begin_within(s, now_us, wait_ms, txn, err);
}

void store_abort(store_txn *txn)
{
    if (txn) {
        store_db_abort(txn->db);
        store_writer_unlock(txn->s);
        txn_free(txn);
    }
}

/* The records that every commit writes last. */
base_status store_save_commit(store_txn *txn, base_error *err)
{
    uint8_t digest[32], p[24];
    store_key key = store_key_u64(txn->commit), meta_key = store_key_meta();
    base_put_u64(p, txn->commit);
    base_put_u64(p + 8, (uint64_t)txn->clock_us);
    base_put_u64(p + 16, txn->meta.next_episode);
    base_sha256_add(&txn->chain, p, sizeof p);
    base_sha256_end(&txn->chain, digest);
    store_commit_record record = {.clock_us = txn->clock_us,
                                  .first_episode = txn->first_episode,
                                  .next_episode = txn->meta.next_episode,
                                  .chain = base_get_u64(digest)};
    base_status status = store_save_status(txn, store_commit_encode(&txn->payload, &record),
                                           STORE_TABLE_COMMIT, &key, true, err);
    if (status == BASE_OK) {
        txn->meta.last_commit = txn->commit;
        status = store_save_status(txn, store_meta_encode(&txn->payload, &txn->meta),
                                   STORE_TABLE_META, &meta_key, false, err);
    }
    return status;
}

base_status store_commit(store_txn *txn, base_error *err)
{
    store *s = txn->s;
    if (!txn->changed) {
        /* Nothing was put: no commit id is used up, nothing has to reach the disk. */
        store_abort(txn);
        return BASE_OK;
    }
    pthread_mutex_lock(&s->small_lock);
    uint64_t dropped = s->dropped_pending;
    pthread_mutex_unlock(&s->small_lock);
    txn->meta.dropped_writes += dropped;
    base_status status = store_save_commit(txn, err);
    if (status == BASE_OK) {
        status = store_db_commit(txn->db, err);
    } else {
        store_db_abort(txn->db);
    }
    txn->db = NULL;
    if (status == BASE_OK) {
        pthread_mutex_lock(&s->small_lock);
        s->dropped_pending -= dropped;
        pthread_mutex_unlock(&s->small_lock);
        store_catalog_commit(s, txn->removed, txn->removed_count);
    }
    store_writer_unlock(s);
    txn_free(txn);
    return status;
}
