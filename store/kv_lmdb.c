/* store/kv_lmdb.c: store/db.h on LMDB (0.9). The only file that knows LMDB (pages.c: its file).
 *
 * Flags: MDB_NOTLS, so that a read transaction is not bound to a thread. Never MDB_WRITEMAP,
 * MDB_NOSYNC or MDB_NOMETASYNC: a commit that returned is on the disk. The map is a large sparse
 * reservation of address space; the file grows with its content only.
 *
 * A cut-off data.mdb would be answered by SIGBUS at the first touch behind its end. store_db_open
 * therefore compares the file's size with the last page that the newest commit knows. A shorter
 * file need not be damaged (LMDB does not write pages that were taken and given back within one
 * transaction), so a child process walks all tables before the file is refused.
 */
#include "store/db.h"

#include <errno.h>
#include <fcntl.h>
#include <lmdb.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"

#define MAP_BYTES_DEFAULT ((size_t)256 << 30)
#define MAP_BYTES_MIN ((size_t)64 << 20)
#define HEAD_BYTES 8192 /* two pages of the smallest size that LMDB uses */
#define READERS_MAX 1024
#define PATH_SIZE 4096

struct store_db {
    MDB_env *env;
    MDB_dbi tables[STORE_TABLE_COUNT];
    bool read_only, unlocked;
    dev_t data_dev, lock_dev;
    ino_t data_ino, lock_ino;
    char data_path[PATH_SIZE], lock_path[PATH_SIZE];
};

struct store_db_txn {
    store_db *db;
    MDB_txn *txn;
    bool write;
};

struct store_db_cursor {
    MDB_cursor *cursor;
    store_table table;
};

/* The one place where LMDB's codes become ours. */
static base_status fail_lmdb(base_error *err, int code, const char *what, const char *object)
{
    base_status status;
    switch (code) {
    case MDB_CORRUPTED:
    case MDB_PAGE_NOTFOUND:
    case MDB_INVALID:
    case MDB_INCOMPATIBLE:
    case MDB_BAD_VALSIZE:
    case MDB_KEYEXIST: /* append out of order: the table's order is broken */
        status = BASE_CORRUPT;
        break;
    case MDB_PANIC:
        status = BASE_IO;
        break;
    case MDB_VERSION_MISMATCH:
        status = BASE_VERSION;
        break;
    case MDB_MAP_FULL:
    case MDB_MAP_RESIZED:
    case MDB_READERS_FULL:
    case MDB_TXN_FULL:
        status = BASE_LIMIT;
        break;
    case MDB_BAD_TXN:
        status = BASE_INVALID;
        break;
    default:
        if (code > 0) {
            return base_fail_errno(err, code, "%s (%s)", what, object);
        }
        status = BASE_IO;
    }
    base_fail(err, status, "%s (%s): %s", what, object, mdb_strerror(code));
    if (err) {
        err->system_code = code;
    }
    return status;
}

/* --- opening --------------------------------------------------------------------------------- */

static void assertion_ends_quietly(MDB_env *env, const char *text)
{
    (void)env;
    (void)text;
    _exit(3);
}

/* Open all tables in one transaction; a write transaction makes those that are missing. */
static int open_tables_by(store_db *db, bool write, const char **name)
{
    MDB_txn *txn;
    int code = mdb_txn_begin(db->env, NULL, write ? 0 : MDB_RDONLY, &txn);
    for (int i = 0; i < STORE_TABLE_COUNT && code == 0; i++) {
        *name = store_table_name((store_table)i);
        code = mdb_dbi_open(txn, *name, write ? MDB_CREATE : 0, &db->tables[i]);
        if (code != 0) {
            mdb_txn_abort(txn);
        }
    }
    return code == 0 ? mdb_txn_commit(txn) : code;
}

/* Opening for reading comes first: it does not wait for a writer. */
static base_status open_tables(store_db *db, bool create, base_error *err)
{
    const char *name = "";
    int code = open_tables_by(db, false, &name);
    if (code == MDB_NOTFOUND && create) {
        code = open_tables_by(db, true, &name);
    }
    if (code == MDB_NOTFOUND) {
        return base_fail(err, BASE_CORRUPT, "table \"%s\" is missing in %s", name, db->data_path);
    }
    return code == 0 ? BASE_OK : fail_lmdb(err, code, "cannot open the tables", db->data_path);
}

/* Create the environment object and map it, halving the map where the address space is short. */
static base_status open_environment(store_db *db, const char *folder,
                                    const store_db_options *options, base_error *err)
{
    size_t map = options->map_bytes ? options->map_bytes : MAP_BYTES_DEFAULT;
    unsigned flags = MDB_NOTLS | (options->read_only ? MDB_RDONLY : 0);
    for (;;) {
        int code = mdb_env_create(&db->env);
        if (code != 0) {
            db->env = NULL;
            return fail_lmdb(err, code, "cannot create the environment", folder);
        }
        if (options->quiet_abort) {
            mdb_env_set_assert(db->env, assertion_ends_quietly);
        }
        code = mdb_env_set_maxdbs(db->env, STORE_TABLE_COUNT);
        if (code == 0) {
            code = mdb_env_set_maxreaders(db->env, READERS_MAX);
        }
        if (code == 0) {
            code = mdb_env_set_mapsize(db->env, map);
        }
        if (code == 0) {
            code = mdb_env_open(db->env, folder, flags | (db->unlocked ? MDB_NOLOCK : 0), 0600);
        }
        if (code == 0) {
            return BASE_OK;
        }
        mdb_env_close(db->env);
        db->env = NULL;
        if (code == ENOMEM && map > MAP_BYTES_MIN) {
            map /= 2;
        } else if ((code == EACCES || code == EROFS || code == EPERM) && options->read_only &&
                   !db->unlocked) {
            db->unlocked = true;
        } else {
            return fail_lmdb(err, code, "cannot open the store's records", db->data_path);
        }
    }
}

/* Walk every table once; only ever called in a child process, which a damaged page may kill. */
static int walk_tables(store_db *db)
{
    MDB_txn *txn;
    if (mdb_txn_begin(db->env, NULL, MDB_RDONLY, &txn) != 0) {
        return 1;
    }
    volatile uint8_t sink = 0;
    for (int i = 0; i < STORE_TABLE_COUNT; i++) {
        MDB_cursor *cursor;
        MDB_val key, value;
        if (mdb_cursor_open(txn, db->tables[i], &cursor) != 0) {
            return 1;
        }
        int code;
        while ((code = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) == 0) {
            if (value.mv_size > 0) {
                sink ^= ((const uint8_t *)value.mv_data)[value.mv_size - 1];
            }
        }
        if (code != MDB_NOTFOUND) {
            return 1;
        }
    }
    return 0;
}

void store_db_child_begins(void)
{
    static const int deadly[] = {SIGBUS, SIGSEGV, SIGABRT, SIGILL, SIGFPE, SIGPIPE};
    for (size_t i = 0; i < sizeof deadly / sizeof *deadly; i++) {
        signal(deadly[i], SIG_DFL);
    }
}

/* Is a file that is shorter than its last page still whole? See the file head. */
static bool short_file_is_whole(const char *folder, const store_db_options *options)
{
    pid_t child = fork();
    if (child == 0) {
        store_db_child_begins();
        store_db db = {.read_only = true};
        store_db_options child_options = *options;
        child_options.read_only = true;
        child_options.quiet_abort = true;
        if (open_environment(&db, folder, &child_options, NULL) != BASE_OK ||
            open_tables(&db, false, NULL) != BASE_OK) {
            _exit(1);
        }
        _exit(walk_tables(&db));
    }
    int state = 0;
    pid_t done = -1;
    if (child > 0) {
        do {
            done = waitpid(child, &state, 0);
        } while (done < 0 && errno == EINTR);
    }
    return done == child && WIFEXITED(state) && WEXITSTATUS(state) == 0;
}

/* Bytes up to the last page of the newest commit, and of the file. */
static base_status environment_sizes(store_db *db, uint64_t *used, uint64_t *file, base_error *err)
{
    MDB_envinfo info;
    MDB_stat page;
    mdb_filehandle_t fd;
    struct stat raw;
    int code = mdb_env_info(db->env, &info);
    if (code == 0) {
        code = mdb_env_stat(db->env, &page);
    }
    if (code == 0) {
        code = mdb_env_get_fd(db->env, &fd);
    }
    if (code == 0 && fstat(fd, &raw) != 0) {
        code = errno;
    }
    if (code != 0) {
        return fail_lmdb(err, code, "cannot measure the store's records", db->data_path);
    }
    *used = ((uint64_t)info.me_last_pgno + 1) * page.ms_psize;
    *file = raw.st_size > 0 ? (uint64_t)raw.st_size : 0;
    return BASE_OK;
}

/* Make the file reach to its last page (a hole), so that a shorter one always means damage. */
static void extend_file(store_db *db)
{
    uint64_t used = 0, file = 0;
    mdb_filehandle_t fd;
    if (environment_sizes(db, &used, &file, NULL) == BASE_OK && file < used &&
        mdb_env_get_fd(db->env, &fd) == 0 && ftruncate(fd, (off_t)used) != 0) {
        base_log(BASE_LOG_WARN, "cannot extend %s to %llu bytes", db->data_path,
                 (unsigned long long)used);
    }
}

static base_status remember_identity(store_db *db, base_error *err)
{
    struct stat data, lock;
    mdb_filehandle_t fd;
    int code = mdb_env_get_fd(db->env, &fd);
    if (code != 0 || fstat(fd, &data) != 0) {
        return base_fail(err, BASE_IO, "cannot stat %s", db->data_path);
    }
    db->data_dev = data.st_dev;
    db->data_ino = data.st_ino;
    if (!db->unlocked) {
        if (stat(db->lock_path, &lock) != 0) {
            return base_fail_errno(err, errno, "cannot stat %s", db->lock_path);
        }
        db->lock_dev = lock.st_dev;
        db->lock_ino = lock.st_ino;
    }
    return BASE_OK;
}

/* LMDB maps its two head pages without asking whether they are there. An empty file is what a
 * killed first open leaves behind; it may be taken for a new one only by who may create. */
static base_status check_start(const store_db *db, const store_db_options *options, base_error *err)
{
    struct stat raw;
    if (stat(db->data_path, &raw) != 0) {
        return options->create && errno == ENOENT
                   ? BASE_OK
                   : base_fail_errno(err, errno, "cannot open %s", db->data_path);
    }
    if (!S_ISREG(raw.st_mode)) {
        return base_fail(err, BASE_INVALID, "%s is not a regular file", db->data_path);
    }
    if (raw.st_size < HEAD_BYTES && !(raw.st_size == 0 && options->create && !options->read_only)) {
        return base_fail(err, BASE_CORRUPT, "%s is cut off: %lld bytes", db->data_path,
                         (long long)raw.st_size);
    }
    return BASE_OK;
}

base_status store_db_open(const char *folder, const store_db_options *options, store_db **out,
                          base_error *err)
{
    store_db *db = base_calloc(1, sizeof *db);
    if (!db) {
        return base_fail(err, BASE_NO_MEMORY, "out of memory");
    }
    db->read_only = options->read_only;
    base_status status = base_path_join(db->data_path, PATH_SIZE, folder, STORE_DATA_NAME);
    if (status == BASE_OK) {
        status = base_path_join(db->lock_path, PATH_SIZE, folder, STORE_LOCK_NAME);
    }
    if (status != BASE_OK) {
        base_fail(err, status, "path is too long: %.80s...", folder);
        goto failed;
    }
    status = check_start(db, options, err);
    if (status != BASE_OK) {
        goto failed;
    }
    status = open_environment(db, folder, options, err);
    if (status != BASE_OK) {
        goto failed;
    }
    uint64_t used = 0, file = 0;
    status = environment_sizes(db, &used, &file, err);
    if (status == BASE_OK && file < used && !options->quiet_abort) {
        /* Two environments of one file must not be open in one process, nor around a fork. */
        mdb_env_close(db->env);
        db->env = NULL;
        if (!short_file_is_whole(folder, options)) {
            status = base_fail(err, BASE_CORRUPT,
                               "%s is cut off: %llu bytes of %llu (try verify --repair)",
                               db->data_path, (unsigned long long)file, (unsigned long long)used);
            goto failed;
        }
        status = open_environment(db, folder, options, err);
        if (status == BASE_OK && !options->read_only) {
            extend_file(db);
        }
    }
    int dead = 0;
    if (status == BASE_OK && !db->unlocked) {
        /* Slots of readers that died would keep their pages for ever. */
        mdb_reader_check(db->env, &dead);
    }
    if (status == BASE_OK) {
        status = open_tables(db, options->create && !options->read_only, err);
    }
    if (status == BASE_OK) {
        status = remember_identity(db, err);
    }
    if (status != BASE_OK) {
        goto failed;
    }
    *out = db;
    return BASE_OK;
failed:
    store_db_close(db);
    return status;
}

void store_db_close(store_db *db)
{
    if (db) {
        if (db->env) {
            mdb_env_close(db->env);
        }
        base_free(db);
    }
}

bool store_db_unlocked(const store_db *db)
{
    return db->unlocked;
}

bool store_db_current(const store_db *db)
{
    struct stat raw;
    if (stat(db->data_path, &raw) != 0 || raw.st_ino != db->data_ino ||
        raw.st_dev != db->data_dev) {
        return false;
    }
    return db->unlocked || (stat(db->lock_path, &raw) == 0 && raw.st_ino == db->lock_ino &&
                            raw.st_dev == db->lock_dev);
}

base_status store_db_get_info(store_db *db, store_db_info *info, base_error *err)
{
    MDB_envinfo raw;
    int code = mdb_env_info(db->env, &raw);
    if (code != 0) {
        return fail_lmdb(err, code, "cannot measure the store's records", db->data_path);
    }
    info->map_size = raw.me_mapsize;
    return environment_sizes(db, &info->used_size, &info->file_size, err);
}

/* --- transactions ---------------------------------------------------------------------------- */

base_status store_db_begin(store_db *db, bool write, store_db_txn **out, base_error *err)
{
    store_db_txn *txn = base_calloc(1, sizeof *txn);
    if (!txn) {
        return base_fail(err, BASE_NO_MEMORY, "out of memory");
    }
    txn->db = db;
    txn->write = write;
    int code = mdb_txn_begin(db->env, NULL, write ? 0 : MDB_RDONLY, &txn->txn);
    if (code != 0) {
        base_free(txn);
        return fail_lmdb(err, code, "cannot begin a transaction", db->data_path);
    }
    *out = txn;
    return BASE_OK;
}

base_status store_db_commit(store_db_txn *txn, base_error *err)
{
    store_db *db = txn->db;
    bool write = txn->write;
    int code = mdb_txn_commit(txn->txn);
    base_free(txn);
    if (code != 0) {
        return fail_lmdb(err, code, "cannot commit", db->data_path);
    }
    if (write) {
        extend_file(db);
    }
    return BASE_OK;
}

void store_db_abort(store_db_txn *txn)
{
    if (txn) {
        mdb_txn_abort(txn->txn);
        base_free(txn);
    }
}

static MDB_val value_of(const void *data, size_t size)
{
    /* LMDB takes keys and values to read through a pointer to non-const. */
    MDB_val value = {.mv_size = size, .mv_data = (void *)(uintptr_t)data};
    return value;
}

static store_slice slice_of(MDB_val value)
{
    store_slice slice = {value.mv_data, value.mv_size};
    return slice;
}

base_status store_db_get(store_db_txn *txn, store_table table, const store_key *key,
                         store_slice *value, base_error *err)
{
    MDB_val k = value_of(key->data, key->size), v;
    int code = mdb_get(txn->txn, txn->db->tables[table], &k, &v);
    if (code == MDB_NOTFOUND) {
        return BASE_NOT_FOUND;
    }
    if (code != 0) {
        return fail_lmdb(err, code, "cannot read a record", store_table_name(table));
    }
    *value = slice_of(v);
    return BASE_OK;
}

base_status store_db_put(store_db_txn *txn, store_table table, const store_key *key,
                         const void *data, size_t size, bool append, base_error *err)
{
    MDB_val k = value_of(key->data, key->size), v = value_of(data, size);
    int code = mdb_put(txn->txn, txn->db->tables[table], &k, &v, append ? MDB_APPEND : 0);
    return code == 0 ? BASE_OK
                     : fail_lmdb(err, code, "cannot write a record", store_table_name(table));
}

base_status store_db_delete(store_db_txn *txn, store_table table, const store_key *key,
                            base_error *err)
{
    MDB_val k = value_of(key->data, key->size);
    int code = mdb_del(txn->txn, txn->db->tables[table], &k, NULL);
    if (code == MDB_NOTFOUND) {
        return BASE_NOT_FOUND;
    }
    return code == 0 ? BASE_OK
                     : fail_lmdb(err, code, "cannot delete a record", store_table_name(table));
}

base_status store_db_count(store_db_txn *txn, store_table table, uint64_t *count, base_error *err)
{
    MDB_stat stat_of_table;
    int code = mdb_stat(txn->txn, txn->db->tables[table], &stat_of_table);
    if (code != 0) {
        return fail_lmdb(err, code, "cannot count records", store_table_name(table));
    }
    *count = stat_of_table.ms_entries;
    return BASE_OK;
}

/* --- cursors --------------------------------------------------------------------------------- */

base_status store_db_cursor_open(store_db_txn *txn, store_table table, store_db_cursor **out,
                                 base_error *err)
{
    store_db_cursor *cursor = base_calloc(1, sizeof *cursor);
    if (!cursor) {
        return base_fail(err, BASE_NO_MEMORY, "out of memory");
    }
    cursor->table = table;
    int code = mdb_cursor_open(txn->txn, txn->db->tables[table], &cursor->cursor);
    if (code != 0) {
        base_free(cursor);
        return fail_lmdb(err, code, "cannot open a cursor", store_table_name(table));
    }
    *out = cursor;
    return BASE_OK;
}

void store_db_cursor_close(store_db_cursor *cursor)
{
    if (cursor) {
        mdb_cursor_close(cursor->cursor);
        base_free(cursor);
    }
}

static base_status cursor_move(store_db_cursor *cursor, MDB_val *key, MDB_cursor_op op,
                               store_slice *found, store_slice *value, base_error *err)
{
    MDB_val v;
    int code = mdb_cursor_get(cursor->cursor, key, &v, op);
    if (code == MDB_NOTFOUND) {
        return BASE_NOT_FOUND;
    }
    if (code != 0) {
        return fail_lmdb(err, code, "cannot walk a table", store_table_name(cursor->table));
    }
    *found = slice_of(*key);
    *value = slice_of(v);
    return BASE_OK;
}

base_status store_db_seek(store_db_cursor *cursor, const store_key *key, store_slice *found,
                          store_slice *value, base_error *err)
{
    MDB_val k = value_of(key->data, key->size);
    return cursor_move(cursor, &k, MDB_SET_RANGE, found, value, err);
}

base_status store_db_first(store_db_cursor *cursor, store_slice *found, store_slice *value,
                           base_error *err)
{
    MDB_val k = {0};
    return cursor_move(cursor, &k, MDB_FIRST, found, value, err);
}

base_status store_db_last(store_db_cursor *cursor, store_slice *found, store_slice *value,
                          base_error *err)
{
    MDB_val k = {0};
    return cursor_move(cursor, &k, MDB_LAST, found, value, err);
}

base_status store_db_next(store_db_cursor *cursor, store_slice *found, store_slice *value,
                          base_error *err)
{
    MDB_val k = {0};
    return cursor_move(cursor, &k, MDB_NEXT, found, value, err);
}

base_status store_db_previous(store_db_cursor *cursor, store_slice *found, store_slice *value,
                              base_error *err)
{
    MDB_val k = {0};
    return cursor_move(cursor, &k, MDB_PREV, found, value, err);
}

base_status store_db_cursor_delete(store_db_cursor *cursor, base_error *err)
{
    int code = mdb_cursor_del(cursor->cursor, 0);
    return code == 0
               ? BASE_OK
               : fail_lmdb(err, code, "cannot delete a record", store_table_name(cursor->table));
}
