/* store/internal.h: what the files of store/ share. Nobody outside includes it.
 *
 *   store.c      open, close, locks, begin and commit
 *   write.c      put a document                  supersede.c  a new version closes the old
 *   put.c        uses, KV, half-lives            forget.c     removal for good
 *   ageing.c     closing across documents
 *   read.c       get, briefs, scan, lists        stats.c      figures, text search
 *   follow.c     catalogue behind the records    copy.c       rewrite of data.mdb, swap, scrub
 *   backup.c     backup and restore           budget.c     KV kept below a number of bytes
 *   reindex.c    new vectors by another encoder sessions.c   files of conversations
 *   verify.c     the full check, its child       check.c      every record, every reference
 *   salvage.c    what can be had from a damaged file
 *   kv_lmdb.c    db.h on LMDB                    catalog_sqlite.c  catalog.h on SQLite
 *
 * Locks, in the order in which they are taken
 *   1. writer    flock on "writer.lock", exclusive, and store.writing: one writer among all
 *                processes and threads. A reader without LMDB's reader table (in a folder that
 *                cannot be written) takes it shared for each read.
 *   2. opening   flock on "generation": shared while an environment is opened, exclusive while
 *                data.mdb and lock.mdb are swapped for rewritten ones. The file counts the swaps.
 *   3. catalog_lock  the catalogue's handle.
 *   4. guard     rwlock of the handle: read = the environment is in use, write = it is replaced.
 * After a swap an environment that is open elsewhere shows the old files. Each call compares their
 * identity with the folder (store_db_current) and opens the new ones; nobody can write to the old
 * ones, because writing begins with lock 1 and that comparison.
 *
 * Commit chain: chain(n) = first 8 bytes of SHA-256(chain(n-1), n, clock, next episode, then what
 * the commit added or forgot, as put into store_txn.chain). The catalogue keeps the chain value of
 * its last commit, so that a catalogue of another history is noticed.
 */
#ifndef STORE_INTERNAL_H
#define STORE_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/hash.h"
#include "store/catalog.h"
#include "store/db.h"

#define STORE_PATH_SIZE 4096
#define STORE_WRITER_NAME "writer.lock"
#define STORE_GENERATION_NAME "generation"
#define STORE_USE_MASS_MIN 0.05f /* a use below it does not count (semantics, strength) */

struct store {
    char path[STORE_PATH_SIZE];
    bool read_only;
    store_options options;
    int writer_fd, generation_fd; /* -1 where the file is missing in a read-only folder */
    atomic_flag writing;          /* a thread of this handle holds lock 1 */
    pthread_rwlock_t guard;
    store_db *db; /* under guard */
    pthread_mutex_t catalog_lock;
    store_catalog *catalog;      /* under catalog_lock; NULL when it cannot be opened */
    pthread_mutex_t shared_lock; /* guards shared_count: readers that hold lock 1 shared */
    unsigned shared_count;
    pthread_mutex_t small_lock; /* guards the rest */
    double default_half_life_s;
    uint64_t dropped_pending; /* counted but not yet written */
};

/* A text taken out, kept until the catalogue has followed. */
typedef struct store_removed {
    uint64_t id;
    char *title, *text; /* text NULL: unreadable, the catalogue must be rebuilt */
    size_t title_size, text_size;
} store_removed;

struct store_txn {
    store *s;
    store_db_txn *db;
    store_meta meta; /* as it will be committed */
    int64_t clock_us;
    uint64_t commit, first_episode;
    uint32_t forgotten_parts;
    bool changed;
    base_sha256 chain;
    base_buffer payload, sealed; /* scratch */
    store_removed *removed;
    size_t removed_count, removed_capacity;
};

/* --- records (store.c) -------------------------------------------------------------------------
 * */

/* Get and check one record. BASE_NOT_FOUND without text; BASE_CORRUPT names table and id. */
base_status store_load(store_db_txn *txn, store_table table, const store_key *key,
                       store_slice *payload, uint64_t *commit, base_error *err);
/* Check a value that a cursor found. */
base_status store_open_record(store_table table, store_slice key, store_slice value,
                              store_slice *payload, uint64_t *commit, base_error *err);
/* The same status with a text, for a payload that does not decode. */
base_status store_fail_record(base_error *err, base_status status, store_table table,
                              const uint8_t *key, size_t key_size);
/* Seal txn->payload and put it. */
base_status store_save(store_txn *txn, store_table table, const store_key *key, bool append,
                       base_error *err);
base_status store_save_status(store_txn *txn, base_status encoded, store_table table,
                              const store_key *key, bool append, base_error *err);
base_status store_load_meta(store_db_txn *txn, store_meta *meta, base_error *err);
/* BASE_NOT_FOUND, BASE_CORRUPT; borrowed slices live until the transaction ends or writes. */
base_status store_load_span(store_db_txn *txn, uint64_t id, store_span_record *span,
                            uint64_t *commit, base_error *err);
/* An absent state record is the open, unused state. */
base_status store_load_state(store_db_txn *txn, uint64_t id, store_state *state, base_error *err);
base_status store_load_source(store_db_txn *txn, uint32_t id, store_source *source,
                              base_error *err);
/* Number of a source by its name; BASE_NOT_FOUND. */
base_status store_find_source(store_db_txn *txn, const char *name, uint32_t *source,
                              base_error *err);
base_status store_load_document(store_db_txn *txn, uint64_t id, store_document *document,
                                base_error *err);
base_status store_load_version(store_db_txn *txn, uint64_t document, uint32_t version,
                               store_version *out, base_error *err);
base_status store_load_commit(store_db_txn *txn, uint64_t commit, store_commit_record *out,
                              base_error *err);

/* --- reading (store.c) ---------------------------------------------------------------------------
 * */

/* Enter the handle and begin a read transaction; store_read_end leaves. */
typedef struct store_reader {
    store_db_txn *txn;
} store_reader;
base_status store_read_begin(store *s, store_reader *reader, base_error *err);
void store_read_end(store *s, store_reader *reader);

/* store_get_briefs within a transaction of s (read.c). */
base_status store_load_briefs(store *s, store_db_txn *txn, const uint64_t *ids, size_t count,
                              int64_t as_of_us, store_brief *briefs, base_error *err);

/* --- writing (store.c) ---------------------------------------------------------------------------
 * */

/* wait_ms 0 = one try, UINT_MAX = for ever. Afterwards the handle's environment is current. */
base_status store_writer_lock(store *s, unsigned wait_ms, base_error *err);
void store_writer_unlock(store *s);
/* Close and open the environment again (lock 1 or none held; guard held for writing inside). */
base_status store_reopen(store *s, base_error *err);

/* Count the commit's writes into its chain (put.c). */
void store_chain_add(store_txn *txn, const void *data, size_t size);
/* Write the state of an episode and keep META's count of superseded ones (put.c). */
base_status store_save_state(store_txn *txn, uint64_t id, const store_state *before,
                             const store_state *after, base_error *err);

/* --- supersession (supersede.c)
 * -------------------------------------------------------------------- */

/* Place a new version among the versions of its document by (observed_at, version): the version
 * before it is closed by it, and it is closed by the one after it, if there is one. */
base_status store_supersede(store_txn *txn, uint64_t document, uint32_t version,
                            int64_t observed_at_us, base_error *err);

/* --- streams (ageing.c)
 * ---------------------------------------------------------------------------------------------- */

/* Where an episode is counted. */
typedef struct store_place {
    uint64_t document;
    uint32_t source;
} store_place;
/* An episode is no longer the newest of its stream, or (forgotten) is no more: source and document
 * stop counting what its state before said. */
base_status store_leave_stream(store_txn *txn, store_place place, const store_state *before,
                               bool forgotten, base_error *err);
/* Count an episode that was not counted yet (salvage.c). */
base_status store_count_stream(store_txn *txn, store_place place, const store_state *state,
                               base_error *err);
/* One episode took the place of another. */
typedef struct store_link {
    uint64_t older, newer;
    store_state older_before; /* before it was closed */
    int64_t older_observed_us;
    store_place newer_place;
    bool changed; /* false: the same words once more */
} store_link;
/* The newer carries on the older's stream: its count of changes and its beginning; what its source
 * and document have measured follows. */
base_status store_join_stream(store_txn *txn, const store_link *link, base_error *err);
/* What is measured of a source, its open streams counted. */
void store_source_drift(const store_source *source, store_drift *out);

/* --- the catalogue (follow.c) --------------------------------------------------------------------
 * */

/* Bring c up to the newest commit that txn sees. removed: texts taken out since (may be fewer than
 * needed: then the catalogue is rebuilt). Errors leave the catalogue as it was. */
base_status store_follow(store_db_txn *txn, store_catalog *c, const store_removed *removed,
                         size_t removed_count, base_error *err);
/* Empty the catalogue and fill it from the records. */
base_status store_follow_anew(store_db_txn *txn, store_catalog *c, base_error *err);
/* Open (or replace) s->catalog as the handle's rights allow, and follow: the file for writing, the
 * file as it is, a copy in memory, a new one in memory. Never fails: what is wrong is logged. The
 * writer lock is held iff may_write. distrust: the file proved damaged, do not use it. */
void store_catalog_attach(store *s, bool may_write, bool distrust);
/* After a commit, writer lock held. */
void store_catalog_commit(store *s, const store_removed *removed, size_t removed_count);

/* --- rewriting data.mdb (copy.c)
 * ------------------------------------------------------------------- */

/* Remove lock.mdb and rename fresh_folder/data.mdb over folder/data.mdb, under lock 2; lock 1 is
 * held. */
base_status store_swap_data(const char *folder, const char *fresh_folder, base_error *err);
/* Copy every record of txn into a new environment in fresh_folder (created, emptied first): no byte
 * of a freed page or of a gap within a page comes along. Damaged records are left out and counted.
 */
base_status store_copy_records(store_db_txn *txn, const char *fresh_folder, uint64_t *skipped,
                               base_error *err);
/* The same with another META, and the vectors of another environment for the episodes there are. */
base_status store_copy_with_vectors(store_db_txn *txn, store_db_txn *vectors,
                                    const store_meta *meta, const char *fresh_folder,
                                    uint64_t *skipped, base_error *err);
/* Remove what an unfinished re-index has written (reindex.c). */
base_status store_drop_reindex(const char *folder, base_error *err);
/* Remove the files that a store consists of and nothing else; the folder, too. */
base_status store_empty_folder(const char *folder, base_error *err);
base_status store_remove_folder(const char *folder, base_error *err);
/* Finish a scrub that was begun: flag set in META. Writer lock held. */
base_status store_scrub_locked(store *s, base_error *err);

/* --- sets of ids (store.c)
 * ---------------------------------------------------------------------------- */

typedef struct store_ids {
    uint64_t *items;
    size_t count, capacity;
} store_ids;
base_status store_ids_add(store_ids *ids, uint64_t id);
void store_ids_sort(store_ids *ids);                       /* ascending, repeats dropped */
bool store_ids_contain(const store_ids *ids, uint64_t id); /* sorted */
void store_ids_free(store_ids *ids);
/* Ids forgotten by commits > after, sorted. */
base_status store_load_forgotten(store_db_txn *txn, uint64_t after, store_ids *ids,
                                 base_error *err);

#endif
