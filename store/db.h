/* store/db.h: the ordered key-value tables under a store, with transactions. kv_lmdb.c implements
 * it on LMDB; no LMDB type is visible here. Values are opaque bytes at this level (sealed records).
 *
 * Lock order: the caller's writer lock, then the generation lock, then LMDB's own.
 * A transaction belongs to the thread that began it; read transactions may run in any number.
 * One store_db per folder and process at a time (POSIX record locks of LMDB demand it).
 */
#ifndef STORE_DB_H
#define STORE_DB_H

#include "store/record.h"

#define STORE_DATA_NAME "data.mdb"
#define STORE_LOCK_NAME "lock.mdb"

typedef struct store_db store_db;
typedef struct store_db_txn store_db_txn;
typedef struct store_db_cursor store_db_cursor;

typedef struct store_db_options {
    bool read_only;
    bool create;      /* make data.mdb when missing */
    size_t map_bytes; /* 0 = 256 GiB; a smaller one is taken when the address space refuses */
    bool quiet_abort; /* an internal assertion of LMDB ends the process silently (verify's child) */
} store_db_options;

/* Open the tables in folder. Errors: BASE_NOT_FOUND, BASE_CORRUPT, BASE_PERMISSION, BASE_VERSION,
 * BASE_DISK_FULL, BASE_NO_MEMORY, BASE_IO. With read_only and a lock file that cannot be written,
 * the handle works without LMDB's reader table: store_db_unlocked is true, and the caller must keep
 * writers away during each read transaction. */
base_status store_db_open(const char *folder, const store_db_options *options, store_db **out,
                          base_error *err);
void store_db_close(store_db *db);
bool store_db_unlocked(const store_db *db);

/* Do data.mdb and lock.mdb in the folder still name the files that db has open? False after
 * another process swapped in a rewritten environment. */
bool store_db_current(const store_db *db);

/* First call in a forked child that reads what may be damaged: signals that kill shall kill it,
 * whatever handlers the program has set for itself. */
void store_db_child_begins(void);

typedef struct store_db_info {
    uint64_t file_size; /* bytes of data.mdb as it is */
    uint64_t used_size; /* bytes up to the last page in use or free-listed */
    uint64_t map_size;
} store_db_info;
base_status store_db_get_info(store_db *db, store_db_info *info, base_error *err);

/* write: blocks on LMDB's own writer mutex; take the store's writer lock first. */
base_status store_db_begin(store_db *db, bool write, store_db_txn **out, base_error *err);
/* Durable when BASE_OK (fsync returned). The transaction is gone in every case. */
base_status store_db_commit(store_db_txn *txn, base_error *err);
void store_db_abort(store_db_txn *txn); /* accepts NULL */

/* BASE_NOT_FOUND without text. *value borrows until the transaction ends (or writes). */
base_status store_db_get(store_db_txn *txn, store_table table, const store_key *key,
                         store_slice *value, base_error *err);
/* append: the key is larger than all in the table (faster, fills pages). BASE_LIMIT when the map is
 * full, BASE_DISK_FULL; the transaction must be aborted then. */
base_status store_db_put(store_db_txn *txn, store_table table, const store_key *key,
                         const void *data, size_t size, bool append, base_error *err);
base_status store_db_delete(store_db_txn *txn, store_table table, const store_key *key,
                            base_error *err);
base_status store_db_count(store_db_txn *txn, store_table table, uint64_t *count, base_error *err);

/* Cursors. Close before the transaction ends. All moves: BASE_NOT_FOUND at the end. */
base_status store_db_cursor_open(store_db_txn *txn, store_table table, store_db_cursor **out,
                                 base_error *err);
void store_db_cursor_close(store_db_cursor *cursor); /* accepts NULL */
/* First entry with key >= the given one. */
base_status store_db_seek(store_db_cursor *cursor, const store_key *key, store_slice *found,
                          store_slice *value, base_error *err);
base_status store_db_first(store_db_cursor *cursor, store_slice *found, store_slice *value,
                           base_error *err);
base_status store_db_last(store_db_cursor *cursor, store_slice *found, store_slice *value,
                          base_error *err);
base_status store_db_next(store_db_cursor *cursor, store_slice *found, store_slice *value,
                          base_error *err);
base_status store_db_previous(store_db_cursor *cursor, store_slice *found, store_slice *value,
                              base_error *err);
base_status store_db_cursor_delete(store_db_cursor *cursor, base_error *err);

#endif
