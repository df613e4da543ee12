/* store/reindex.c: new vectors for every episode, by another encoder, while the old ones serve.
 *
 *   1. reindex/ in the store's folder is an environment of its own: META names the new encoder and
 *      its size, VECTOR fills up in the order of ids, a batch a commit
 *                                              killed here: the next call goes on behind the last
 *   2. under the writer lock what came in meanwhile is encoded too, and all records are copied with
 *      the new vectors in place of the old (copy.c)       killed here: only this is done again
 *   3. the copy is swapped in                             the switch, atomic
 *   4. reindex/ is removed                                killed here: the next call removes it
 *
 * Nothing is said by a commit: readers know that the vectors are others by the encoder's name. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/file.h"
#include "store/internal.h"

#define SIDE_NAME "reindex"
#define FRESH_NAME "rewrite"
enum { BATCH = 256 };

typedef struct side {
    char folder[STORE_PATH_SIZE];
    int lock_fd;
    store_db *db;
    uint64_t last; /* id of the last episode with a new vector */
} side;

/* --- the environment beside ------------------------------------------------------------------- */

static base_status put_sealed(store_db_txn *txn, store_table table, const store_key *key,
                              uint64_t commit, const base_buffer *payload, bool append,
                              base_error *err)
{
    base_buffer sealed = {0};
    base_status status =
        store_record_seal(&sealed, table, key, commit, payload->data, payload->size);
    if (status == BASE_OK) {
        status = store_db_put(txn, table, key, sealed.data, sealed.size, append, err);
    } else {
        store_fail_record(err, status, table, key->data, key->size);
    }
    base_buffer_free(&sealed);
    return status;
}

/* Does META name this encoder? Afterwards it does: false, when a new META was written. */
static base_status check_meta(side *at, const store_reindex_options *o, bool *same, base_error *err)
{
    store_db_txn *txn;
    store_meta meta;
    base_buffer payload = {0};
    store_key key = store_key_meta();
    base_status status = store_db_begin(at->db, true, &txn, err);
    if (status != BASE_OK) {
        return status;
    }
    *same = store_load_meta(txn, &meta, NULL) == BASE_OK && meta.vector_dim == o->dim &&
            strcmp(meta.encoder, o->encoder) == 0;
    if (!*same) {
        meta = (store_meta){.format = STORE_FORMAT_VERSION, .vector_dim = (uint32_t)o->dim};
        memcpy(meta.encoder, o->encoder, strlen(o->encoder) + 1);
        status = store_meta_encode(&payload, &meta);
        status = status ? base_fail(err, status, "out of memory")
                        : put_sealed(txn, STORE_TABLE_META, &key, 0, &payload, false, err);
    }
    if (status == BASE_OK) {
        status = store_db_commit(txn, err);
    } else {
        store_db_abort(txn);
    }
    base_buffer_free(&payload);
    return status;
}

static base_status find_last(side *at, base_error *err)
{
    store_db_txn *txn;
    store_db_cursor *cursor;
    store_slice key, value;
    base_status status = store_db_begin(at->db, false, &txn, err);
    if (status != BASE_OK) {
        return status;
    }
    status = store_db_cursor_open(txn, STORE_TABLE_VECTOR, &cursor, err);
    if (status == BASE_OK) {
        status = store_db_last(cursor, &key, &value, err);
        at->last = status == BASE_OK && key.size == 8 ? base_get_u64_be(key.data) : 0;
        store_db_cursor_close(cursor);
    }
    store_db_abort(txn);
    return status == BASE_NOT_FOUND ? BASE_OK : status;
}

static void close_side(side *at, bool remove)
{
    store_db_close(at->db);
    at->db = NULL;
    if (remove) {
        store_remove_folder(at->folder, NULL);
    }
    if (at->lock_fd >= 0) {
        close(at->lock_fd);
    }
    at->lock_fd = -1;
}

/* Open what an earlier call left, if it was for the same encoder and is whole; else begin anew. */
static base_status open_side(side *at, const char *folder, const store_reindex_options *o,
                             base_error *err)
{
    store_db_options options = {.create = true};
    bool same = false;
    at->lock_fd = -1;
    if (base_path_join(at->folder, sizeof at->folder, folder, SIDE_NAME) != BASE_OK) {
        return base_fail(err, BASE_LIMIT, "path is too long: %.80s...", folder);
    }
    base_status status = base_dir_create(at->folder, err);
    if (status != BASE_OK) {
        return status;
    }
    at->lock_fd = open(at->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (at->lock_fd < 0) {
        return base_fail_errno(err, errno, "cannot open %s", at->folder);
    }
    if (flock(at->lock_fd, LOCK_EX | LOCK_NB) != 0) {
        return base_fail(err, BASE_BUSY, "another process re-indexes %s", folder);
    }
    base_error problem = {0};
    status = store_db_open(at->folder, &options, &at->db, &problem);
    if (status == BASE_OK) {
        status = check_meta(at, o, &same, &problem);
    }
    if (status == BASE_OK && same) {
        return find_last(at, err);
    }
    store_db_close(at->db);
    at->db = NULL;
    status = store_empty_folder(at->folder, err);
    if (status == BASE_OK) {
        status = store_db_open(at->folder, &options, &at->db, err);
    }
    return status == BASE_OK ? check_meta(at, o, &same, err) : status;
}

/* --- encoding --------------------------------------------------------------------------------- */

typedef struct batch {
    store_encode_item items[BATCH]; /* their texts are owned */
    uint64_t commits[BATCH];
    size_t count;
} batch;

static void clear_batch(batch *b)
{
    for (size_t i = 0; i < b->count; i++) {
        base_free((char *)(uintptr_t)b->items[i].title);
        base_free((char *)(uintptr_t)b->items[i].section);
        base_free((char *)(uintptr_t)b->items[i].text);
    }
    b->count = 0;
}

/* The next episodes behind id `after`, copied. */
static base_status read_batch(store *s, uint64_t after, batch *b, base_error *err)
{
    store_reader reader;
    store_db_cursor *cursor = NULL;
    store_slice key, value, payload;
    store_key start = store_key_u64(after + 1);
    base_status status = store_read_begin(s, &reader, err);
    if (status != BASE_OK) {
        return status;
    }
    status = store_db_cursor_open(reader.txn, STORE_TABLE_EPISODE, &cursor, err);
    if (status == BASE_OK) {
        status = store_db_seek(cursor, &start, &key, &value, err);
    }
    while (status == BASE_OK && b->count < BATCH) {
        store_span_record span;
        store_encode_item *item = &b->items[b->count];
        status = store_open_record(STORE_TABLE_EPISODE, key, value, &payload, &b->commits[b->count],
                                   err);
        if (status == BASE_OK && store_span_decode(payload, &span) != BASE_OK) {
            status = store_fail_record(err, BASE_CORRUPT, STORE_TABLE_EPISODE, key.data, key.size);
        }
        if (status != BASE_OK) {
            break;
        }
        *item = (store_encode_item){.id = base_get_u64_be(key.data),
                                    .title = store_slice_copy(span.title),
                                    .section = store_slice_copy(span.section),
                                    .text = store_slice_copy(span.text),
                                    .text_size = span.text.size};
        b->count++;
        if (!item->title || !item->section || !item->text) {
            status = base_fail(err, BASE_NO_MEMORY, "out of memory");
        } else {
            status = store_db_next(cursor, &key, &value, err);
        }
    }
    store_db_cursor_close(cursor);
    store_read_end(s, &reader);
    return status == BASE_NOT_FOUND ? BASE_OK : status;
}

static base_status save_batch(side *at, const store_reindex_options *o, const batch *b,
                              const float *vectors, base_error *err)
{
    store_db_txn *txn;
    base_buffer payload = {0};
    uint8_t encoder[32];
    base_sha256_of(o->encoder, strlen(o->encoder), encoder);
    base_status status = store_db_begin(at->db, true, &txn, err);
    if (status != BASE_OK) {
        return status;
    }
    for (size_t i = 0; i < b->count && status == BASE_OK; i++) {
        store_key key = store_key_u64(b->items[i].id);
        status = store_vector_encode(&payload, encoder, vectors + i * o->dim, o->dim);
        status =
            status ? base_fail(err, status, "out of memory")
                   : put_sealed(txn, STORE_TABLE_VECTOR, &key, b->commits[i], &payload, true, err);
    }
    base_buffer_free(&payload);
    if (status != BASE_OK) {
        store_db_abort(txn);
        return status;
    }
    status = store_db_commit(txn, err);
    if (status == BASE_OK) {
        at->last = b->items[b->count - 1].id;
    }
    return status;
}

/* Encode every episode behind the last one. */
static base_status catch_up(store *s, side *at, const store_reindex_options *o,
                            store_reindex_receipt *receipt, base_error *err)
{
    batch *b = base_calloc(1, sizeof *b);
    float *vectors = base_calloc(BATCH, o->dim * sizeof *vectors);
    base_status status =
        b && vectors ? BASE_OK : base_fail(err, BASE_NO_MEMORY, "no memory for vectors");
    while (status == BASE_OK) {
        status = read_batch(s, at->last, b, err);
        if (status != BASE_OK || b->count == 0) {
            break;
        }
        status = o->encode(o->argument, b->items, b->count, vectors, err);
        if (status == BASE_OK) {
            status = save_batch(at, o, b, vectors, err);
        }
        receipt->encoded += status == BASE_OK ? b->count : 0;
        clear_batch(b);
    }
    if (b) {
        clear_batch(b);
    }
    base_free(b);
    base_free(vectors);
    return status;
}

/* --- the switch ------------------------------------------------------------------------------- */

/* Writer lock held. */
static base_status switch_over(store *s, side *at, const store_reindex_options *o,
                               store_reindex_receipt *receipt, base_error *err)
{
    char fresh[STORE_PATH_SIZE];
    store_reader reader;
    store_db_txn *vectors = NULL;
    store_meta meta;
    uint64_t skipped = 0;
    if (base_path_join(fresh, sizeof fresh, s->path, FRESH_NAME) != BASE_OK) {
        return base_fail(err, BASE_LIMIT, "path is too long: %.80s...", s->path);
    }
    base_status status = store_db_begin(at->db, false, &vectors, err);
    if (status == BASE_OK) {
        status = store_read_begin(s, &reader, err);
    }
    if (status != BASE_OK) {
        store_db_abort(vectors);
        return status;
    }
    status = store_load_meta(reader.txn, &meta, err);
    if (status == BASE_OK) {
        receipt->episodes = meta.episodes;
        meta.vector_dim = (uint32_t)o->dim;
        meta.bytes_vectors = 4 * (uint64_t)o->dim * meta.episodes;
        memcpy(meta.encoder, o->encoder, strlen(o->encoder) + 1);
        status = store_copy_with_vectors(reader.txn, vectors, &meta, fresh, &skipped, err);
    }
    store_read_end(s, &reader);
    store_db_abort(vectors);
    if (status == BASE_OK && skipped > 0) {
        status = base_fail(err, BASE_CORRUPT, "%llu records of %s are damaged: repair it first",
                           (unsigned long long)skipped, s->path);
    }
    if (status == BASE_OK) {
        status = store_swap_data(s->path, fresh, err);
    }
    store_remove_folder(fresh, NULL);
    return status == BASE_OK ? store_reopen(s, err) : status;
}

base_status store_drop_reindex(const char *folder, base_error *err)
{
    char path[STORE_PATH_SIZE];
    return base_path_join(path, sizeof path, folder, SIDE_NAME) == BASE_OK
               ? store_remove_folder(path, err)
               : base_fail(err, BASE_LIMIT, "path is too long: %.80s...", folder);
}

/* Has the store these vectors already? */
static base_status is_done(store *s, const store_reindex_options *o, bool *done, base_error *err)
{
    char *encoder = NULL;
    size_t dim = 0;
    base_status status = store_vector_info(s, &dim, &encoder, err);
    *done = status == BASE_OK && dim == o->dim && strcmp(encoder, o->encoder) == 0;
    base_free(encoder);
    return status;
}

base_status store_reindex(store *s, const store_reindex_options *o, store_reindex_receipt *receipt,
                          base_error *err)
{
    side at = {.lock_fd = -1};
    bool done = false;
    *receipt = (store_reindex_receipt){0};
    if (s->read_only) {
        return base_fail(err, BASE_PERMISSION, "the store %s is open for reading only", s->path);
    }
    if (o->dim == 0 || o->dim > STORE_VECTOR_DIM_MAX || !*o->encoder ||
        strlen(o->encoder) >= sizeof((store_meta *)0)->encoder) {
        return base_fail(err, BASE_INVALID, "bad encoder \"%.80s\" of %zu dimensions", o->encoder,
                         o->dim);
    }
    base_status status = is_done(s, o, &done, err);
    if (status != BASE_OK || done) {
        return status != BASE_OK ? status : store_drop_reindex(s->path, err);
    }
    status = open_side(&at, s->path, o, err);
    receipt->resumed = at.last > 0;
    if (status == BASE_OK) {
        status = catch_up(s, &at, o, receipt, err);
    }
    if (status == BASE_OK) {
        unsigned wait_ms = s->options.lock_wait_ms ? s->options.lock_wait_ms : UINT_MAX;
        status = store_writer_lock(s, wait_ms, err);
        if (status == BASE_OK) {
            status = catch_up(s, &at, o, receipt, err); /* what came in meanwhile */
            if (status == BASE_OK) {
                status = switch_over(s, &at, o, receipt, err);
            }
            store_writer_unlock(s);
        }
    }
    close_side(&at, status == BASE_OK);
    return status;
}
