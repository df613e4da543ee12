/* store/store.h: the on-disk eidetic memory. LMDB records are the truth; the SQLite catalogue
 * (FTS5) is derived.
 *
 * Caveats first
 * - Local disk only: LMDB's memory map and SQLite's locks are not safe on network file systems.
 * - One writer at a time, across processes; any number of readers.
 * - One handle per folder and process (a second store_open is BASE_BUSY: LMDB's file locks belong
 *   to the process), used by any number of threads; a transaction stays with the thread that began
 *   it. Do not use a handle after fork().
 * - A long-lived read transaction keeps deleted pages alive; readers here are short (one call) or
 *   explicit snapshots.
 * - Acknowledged means: store_commit returned BASE_OK, after fsync. No NOSYNC, NOMETASYNC,
 *   WRITEMAP.
 *
 * A store is a folder (0700, files 0600):
 *   data.mdb, lock.mdb  LMDB environment: the truth
 *   catalog.sqlite      derived: FTS5 over episode text; carries the last commit id it contains
 *   index/              derived: owned by retrieval/; the manifest carries the last commit id
 *   writer.lock         locked by the one writer; in a read-only folder by each reader, shared
 *   generation          locked while files are swapped; counts the swaps. sessions/: sessions.h
 * Record formats (little-endian, version byte, CRC-32C) are specified in store/record.h.
 *
 * Names: a *source* is where documents come from; a *document* is (source, external id), with one
 * or more *versions*; a version is cut into *episodes*, which together are its text, byte for byte.
 * Ids are never used again. Episode and commit ids grow with every commit, starting at 1.
 */
#ifndef STORE_STORE_H
#define STORE_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/date.h"
#include "base/status.h"

#define STORE_FORMAT_VERSION 1
#define STORE_VECTOR_DIM_MAX 4096

typedef struct store store;

typedef struct store_options {
    bool read_only;         /* open without write permission; no file is created */
    bool create;            /* create when missing */
    size_t map_bytes;       /* upper limit of data.mdb; 0 = 256 GiB of address space (sparse) */
    unsigned lock_wait_ms;  /* how long store_begin waits for the writer lock; 0 = for ever */
} store_options;

/* Open a store folder. Derived catalogue is brought up to the last commit (or rebuilt) here, unless
 * read_only, when missing entries are served by scanning. Errors: BASE_NOT_FOUND (no store there
 * and !create), BASE_VERSION (made by a newer version), BASE_CORRUPT, BASE_PERMISSION, BASE_IO. */
base_status store_open(const char *path, const store_options *options, store **out,
                       base_error *err);
void store_close(store *s);
const char *store_path(const store *s);
bool store_is_read_only(const store *s);
uint64_t store_last_commit(store *s); /* id of the last commit visible now, 0 for an empty store */

/* --- what an episode is ----------------------------------------------------------------------- */

typedef enum store_kind {
    STORE_DOCUMENT = 0,
    STORE_TURN_USER = 1,
    STORE_TURN_ASSISTANT = 2
} store_kind;

/* One episode as read. Texts are NUL-terminated copies owned by the struct: store_episode_free. */
typedef struct store_episode {
    uint64_t id;
    uint64_t commit;         /* commit that wrote it */
    uint64_t document;       /* document id */
    uint32_t version;        /* version ordinal of the document, from 1 */
    uint32_t ordinal;        /* position within the version, from 0 */
    uint64_t start_byte, end_byte; /* range in the version's text */
    store_kind kind;
    int64_t observed_at_us;  /* when its text was true or published */
    int64_t valid_from_us, valid_to_us; /* BASE_TIME_NONE when not given */
    int64_t ingested_at_us;  /* clock (--now) of the commit */
    uint8_t content_hash[32]; /* SHA-256 of text */
    char *source, *external_id, *title, *section; /* "" when none */
    char *text;              /* verbatim, text_size bytes (valid UTF-8, may hold NUL? no) */
    size_t text_size;
    float *vector;           /* [vector_dim] unit length, NULL when none */
    size_t vector_dim;
    /* state, changes over time */
    int64_t superseded_at_us; /* BASE_TIME_MAX while nothing replaces it */
    /* episode id, 0 = none (or the replacing version has no counterpart) */
    uint64_t superseded_by;
    uint64_t use_count;
    uint64_t replaced; /* episode that it replaced last, 0 = none */
    uint64_t changes;  /* how often what it speaks of had changed when it came */
} store_episode;
void store_episode_free(store_episode *episode);

/* --- writing ---------------------------------------------------------------------------------- */

typedef struct store_txn store_txn;

/* Begin the one write transaction. now_us is the clock of this commit. BASE_BUSY after
 * lock_wait_ms. */
base_status store_begin(store *s, int64_t now_us, store_txn **txn, base_error *err);
/* As store_begin, but BASE_BUSY after wait_ms: 0 = one try, UINT_MAX = for ever. */
base_status store_begin_within(store *s, int64_t now_us, unsigned wait_ms, store_txn **txn,
                               base_error *err);
/* Durable when BASE_OK. The catalogue follows (its failure is logged and healed at the next open,
 * never an error here). The handle is gone in every case. */
base_status store_commit(store_txn *txn, base_error *err);
void store_abort(store_txn *txn);

typedef struct store_new_span {
    uint64_t start_byte, end_byte; /* range in text */
    const char *section;           /* "" or NULL when none */
    const float *vector;           /* [vector_dim] or NULL */
} store_new_span;

typedef struct store_new_document {
    const char *source;      /* required, not empty */
    /* NULL or "": the content hash stands in, so equal content is one document */
    const char *external_id;
    const char *title;       /* may be "" */
    const char *text;        /* whole extracted text, valid UTF-8 without NUL */
    size_t text_size;
    int64_t observed_at_us;  /* required */
    /* observed_at is only a file's time: the text and title of the newest version are no change,
     * however the file's time has moved */
    bool observed_at_is_guess;
    int64_t valid_from_us, valid_to_us; /* BASE_TIME_NONE when not given */
    store_kind kind;
    const store_new_span *spans; /* partition [0, text_size) in order */
    size_t span_count;
    size_t vector_dim;
    const char *encoder;     /* name and hash of the encoder that made the vectors */
} store_new_document;

typedef enum store_put_result {
    STORE_PUT_NEW,
    STORE_PUT_UNCHANGED,
    STORE_PUT_NEW_VERSION
} store_put_result;

/* Would this content be a change? Same (source, external id) with the same text, title and times:
 * STORE_PUT_UNCHANGED. Lets ingest skip encoding. Reads only. */
base_status store_peek_document(store *s, const store_new_document *doc, store_put_result *result,
                                base_error *err);

/* Put a document or a new version of it. A new version with a later observed_at closes the current
 * one (superseded_at = the newer observed_at); an older version that arrives late is closed on
 * arrival by its successor in time. Ties: commit order. superseded_by of an old episode is the
 * episode of the replacing version that is nearest in position (same section and ordinal first). An
 * episode whose text stands word for word in the new version is also closed and linked to its copy,
 * which carries on its uses. Nothing is deleted. *first_id, *count: the new episodes (0 when
 * unchanged). Errors: BASE_INVALID (spans do not partition, not UTF-8, a NUL, vector_dim or encoder
 * differ from the store's): nothing was written, the transaction can go on; all others
 * (BASE_DISK_FULL, BASE_LIMIT: map full ...): it must be aborted. */
base_status store_put_document(store_txn *txn, const store_new_document *doc,
                               store_put_result *result, uint64_t *first_id, size_t *count,
                               base_error *err);

/* Supersession across documents (semantics §3), decided by the caller: newer states another value
 * for what older says. The order is checked here: observed_at, then commit order; in the wrong
 * order nothing is done. older is closed at newer's observed_at, unless it was closed at that time
 * or before; what arrives late is so closed on arrival. *changed: a state was written. A missing
 * episode is no error. */
base_status store_put_superseded(store_txn *txn, uint64_t older, uint64_t newer, bool *changed,
                                 base_error *err);
/* How far the comparison of episodes with one another has come: ids up to this one are done. Kept
 * with the commit, so that it goes on where it was. */
base_status store_put_compared(store_txn *txn, uint64_t id, base_error *err);
base_status store_get_compared(store *s, uint64_t *id, base_error *err);

/* A use that counted (attention mass >= 0.05): recorded with its time (semantics §2). */
base_status store_put_use(store_txn *txn, uint64_t episode, int64_t time_us, float mass,
                          base_error *err);

/* Keys and values of an episode under a tag (semantics §5 "KV tag"): opaque bytes to the store,
 * CRC-checked. */
base_status store_put_kv(store_txn *txn, uint64_t episode, const uint8_t tag[32], const void *data,
                         size_t size, base_error *err);

/* Keep the payloads of KV records at or below budget_bytes: what is worth least (strength x use, at
 * the commit's clock) goes, down to 9/10 of the budget; text and vectors stay. On an error the
 * transaction must be aborted. receipt may be NULL. O(KV records) when over budget, else O(1). */
typedef struct store_trim_receipt {
    uint64_t entries, bytes; /* that went */
} store_trim_receipt;
base_status store_trim_kv(store_txn *txn, uint64_t budget_bytes, store_trim_receipt *receipt,
                          base_error *err);

/* Half-life of a source in seconds, given from outside; INFINITY = does not decay; 0 = by measure
 * again (from the next store_put_drift on). evidence: what it rests on (count of observations). */
base_status store_put_half_life(store_txn *txn, const char *source, double half_life_s,
                                uint64_t evidence, base_error *err);

/* Remove episodes for good from every record (text, vector, state, uses, KV, catalogue); the
 * retrieval index must drop them as well (retrieval_sync does, from the tombstone of this commit).
 * Documents without episodes go too. */
typedef struct store_forget_receipt {
    uint64_t episodes, vectors, kv, fts, bytes;
} store_forget_receipt;
base_status store_forget(store_txn *txn, const uint64_t *ids, size_t count,
                         store_forget_receipt *receipt, base_error *err);
/* After a forget was committed: rewrite data.mdb and catalog.sqlite so that no freed page keeps the
 * bytes (compacted copy swapped in; SQLite secure_delete + VACUUM + WAL truncated). Readers of
 * other processes reopen by the generation file. */
base_status store_scrub(store *s, base_error *err);

/* --- backup and restore ----------------------------------------------------------------------- */

typedef struct store_backup_receipt {
    uint64_t episodes, documents, last_commit;
    uint64_t bytes; /* of data.mdb in the copy */
} store_backup_receipt;
/* Copy every record of one moment into folder, while the store is in use: a store of its own,
 * without what is derived (its first open makes that again). Written beside as "folder.partial",
 * synced, renamed: folder is whole or not there. What another process forgets meanwhile is not in
 * it. Errors: BASE_EXISTS (folder is there and not empty: nothing is ever overwritten),
 * BASE_CORRUPT (a record is damaged: repair first), BASE_BUSY (another backup writes there),
 * BASE_DISK_FULL, BASE_IO, BASE_PERMISSION. */
base_status store_backup(store *s, const char *folder, store_backup_receipt *receipt,
                         base_error *err);
/* Make folder a store from a backup (or any store that nobody writes to): the backup is checked
 * record by record, copied, the catalogue made, and the result verified before it takes its name.
 * Errors as above; BASE_NOT_FOUND, BASE_CORRUPT with the first problem. */
base_status store_restore(const char *backup, const char *folder, store_backup_receipt *receipt,
                          base_error *err);

/* --- another encoder -------------------------------------------------------------------------- */

typedef struct store_encode_item {
    uint64_t id;
    const char *title, *section, *text; /* NUL-terminated, "" when none */
    size_t text_size;
} store_encode_item;
/* vectors [count, dim], unit length. An error ends the re-index; what was saved stays. */
typedef base_status store_encode(void *argument, const store_encode_item *items, size_t count,
                                 float *vectors, base_error *err);
typedef struct store_reindex_options {
    const char *encoder; /* name and hash of the encoder that makes the vectors */
    size_t dim;
    store_encode *encode;
    void *argument;
} store_reindex_options;
typedef struct store_reindex_receipt {
    uint64_t encoded, episodes; /* by this call; in the store (0: it has these vectors already) */
    bool resumed;
} store_reindex_receipt;
/* Give every episode a vector of another encoder. The old vectors serve until all are there; then
 * all change at once (other handles open the new files by themselves; an index made of the old
 * vectors no longer fits). Killed at any point, the next call goes on. Needs the room of a second
 * store meanwhile. Errors: BASE_BUSY (another re-index, or a writer that does not end),
 * BASE_PERMISSION, BASE_INVALID, BASE_CORRUPT (repair first), BASE_DISK_FULL, encode's own. */
base_status store_reindex(store *s, const store_reindex_options *options,
                          store_reindex_receipt *receipt, base_error *err);

/* --- reading (each call is its own read transaction, consistent within itself) ---------------- */

/* BASE_NOT_FOUND */
base_status store_get(store *s, uint64_t id, store_episode *out, base_error *err);
/* Several, as they are at one moment. out [count], each for store_episode_free; id 0 where there is
 * none, or a damaged one. */
base_status store_get_each(store *s, const uint64_t *ids, size_t count, store_episode *out,
                           base_error *err);

/* The few fields that ranking needs, without text. */
typedef struct store_brief {
    uint64_t id, document;
    uint32_t version, ordinal;
    uint32_t source; /* small number of the source, for store_source_name/half-life */
    store_kind kind;
    int64_t observed_at_us, valid_from_us, valid_to_us, superseded_at_us;
    uint64_t superseded_by;
    int64_t last_use_us; /* latest counted use <= as_of, BASE_TIME_NONE when none */
    double half_life_s;  /* of its stream, INFINITY when not measured */
} store_brief;
/* Fill briefs[i] for ids[i]; an id that does not exist gets briefs[i].id = 0. */
base_status store_get_briefs(store *s, const uint64_t *ids, size_t count, int64_t as_of_us,
                             store_brief *briefs, base_error *err);

/* *data: copy of the KV bytes, base_free. BASE_NOT_FOUND, BASE_CORRUPT. */
base_status store_get_kv(store *s, uint64_t episode, const uint8_t tag[32], void **data,
                         size_t *size, base_error *err);

/* Visit every live episode with id > after in id order; text and vector pointers of the view are
 * borrowed and valid during the call only. Return false from visit to stop. damaged: ids whose
 * record fails its checksum are skipped and counted. */
typedef struct store_view {
    uint64_t id, document, commit;
    const char *text; /* not NUL-terminated */
    size_t text_size;
    const float *vector; /* may be unaligned-safe copy, NULL when none */
    size_t vector_dim;
} store_view;
typedef bool store_visit(void *argument, const store_view *view);
base_status store_scan(store *s, uint64_t after, store_visit *visit, void *argument,
                       uint64_t *damaged, base_error *err);

/* Ids forgotten by commits > after_commit, ascending; *ids freed by base_free. */
base_status store_forgotten(store *s, uint64_t after_commit, uint64_t **ids, size_t *count,
                            base_error *err);

/* All episodes of a document, newest version first, in order; *ids freed by base_free. version 0 =
 * all versions. */
base_status store_document_episodes(store *s, uint64_t document, uint32_t version, uint64_t **ids,
                                    size_t *count, base_error *err);

/* Select ids for forget/export: source NULL = any; observed_at in [from_us, to_us) with
 * BASE_TIME_NONE/MAX open. */
base_status store_select(store *s, const char *source, int64_t from_us, int64_t to_us,
                         uint64_t **ids, size_t *count, base_error *err);

/* BM25 over title and text through FTS5 (SQLite's bm25(), larger = better here). query_text is free
 * text: terms are split here, quoted, ORed; terms in more than half of a large store are dropped.
 * Only episodes with observed_at <= as_of (BASE_TIME_MAX = no cut). Writes at most k, best first.
 * */
typedef struct store_text_hit {
    uint64_t id;
    float bm25; /* >= 0 */
} store_text_hit;
base_status store_search_text(store *s, const char *query_text, size_t query_size, int64_t as_of_us,
                              size_t k, store_text_hit *hits, size_t *count, base_error *err);

/* Ids of what was observed at as_of or before, ascending, by the catalogue: what has been forgotten
 * since a text was last searched may be among them. *ids freed by base_free. O(ids in memory). */
base_status store_known(store *s, int64_t as_of_us, uint64_t **ids, size_t *count, base_error *err);

/* What was measured of one source or document. A *stream* is a chain of episodes of which each
 * replaced the one before, in other documents or other versions; an episode that nothing has
 * replaced yet and that replaced nothing is a stream without change. */
typedef struct store_drift {
    uint64_t streams; /* open ones, changed or not */
    uint64_t changed; /* those that changed at least once */
    uint64_t changes; /* in all of them */
    double first_sum_s; /* sum over the changed ones of when they began, seconds since 1970 */
    /* when the source last spoke: until then change would have been seen */
    int64_t last_observed_us;
} store_drift;

typedef struct store_source_info {
    char *source;
    double half_life_s; /* of its streams that change; INFINITY = not measured */
    bool given;         /* from outside: holds for all of its episodes */
    uint64_t evidence;  /* changes that it rests on */
    uint64_t documents, episodes;
    store_drift drift; /* as counted now */
} store_source_info;
typedef struct store_stats {
    uint64_t episodes, documents, versions, superseded, kv_entries, uses;
    uint64_t last_commit;
    uint64_t bytes_total, bytes_lmdb, bytes_catalog, bytes_index, bytes_text, bytes_vectors,
        bytes_kv;
    /* uses and KV that were not written because the writer lock was taken */
    uint64_t dropped_writes;
    store_source_info *sources;
    size_t source_count;
} store_stats;
base_status store_get_stats(store *s, store_stats *out, base_error *err);
void store_stats_free(store_stats *stats);
/* adds to dropped_writes, best effort */
base_status store_count_dropped(store *s, uint64_t count, base_error *err);

/* Default half-life for sources without a measured one, for this handle only (--half-life);
 * INFINITY to switch off. */
void store_set_default_half_life(store *s, double half_life_s);

/* Name of a source by the number in store_brief; *name by base_free. BASE_NOT_FOUND. */
base_status store_source_name(store *s, uint32_t source, char **name, base_error *err);
/* Size and encoder of the vectors in this store, 0 and "" before the first; *encoder by base_free.
 * A document with vectors of another size or another (named) encoder is refused by
 * store_put_document. */
base_status store_vector_info(store *s, size_t *dim, char **encoder, base_error *err);

/* --- drift: half-lives from measured change (semantics, section 2), pure -------------------- */

typedef struct store_stream {
    uint64_t changes;
    int64_t first_observed_us; /* when it began */
    int64_t until_us; /* watched until then, or until its source last spoke: earlier of both */
} store_stream;
/* Half-life of a stream in seconds; INFINITY until change has been measured in its source.
 * Zero-inflated Poisson process, in each level shrunk to the one above it by the weight of one
 * change (rate) or two streams (share of those that change): source -> document, without the stream
 * itself -> stream. A stream that changed n times in t has rate (1 + n) / (1/rate_above + t); one
 * without change the rate above times the probability that it is one of those that change at all,
 * which falls with every interval that it outlives. Half-life = ln 2 / rate. */
double store_half_life(const store_drift *source, const store_drift *document,
                       const store_stream *stream);
/* Re-estimate every source's half-life from its drift (that of a stream that changes), and let the
 * episodes' own follow it: nothing decays by measure before the first call. Sources whose half-life
 * was given from outside keep it. Costs a read of each source; no episode is written. */
base_status store_put_drift(store_txn *txn, uint64_t *measured, base_error *err);

/* --- strength (semantics, section 2), pure ------------------------------------------------- */

#define STORE_STRENGTH_FLOOR 0.25
#define STORE_STRENGTH_SUPERSEDED 0.1
#define STORE_STRENGTH_SPLICE_MIN 0.02
/* strength(tau) = v(tau) * max(floor, 2^(-(tau - r)/h)), in [0, 1]; 0 when not yet known at tau, or
 * outside valid_from/to. */
double store_strength(const store_brief *brief, int64_t as_of_us);

/* --- verify and repair ------------------------------------------------------------------------ */

typedef struct store_problem {
    char file[64]; /* "data.mdb", "catalog.sqlite" */
    uint64_t id;   /* episode, document or commit id, 0 when none */
    char kind[64]; /* "checksum", "missing_in_catalog", ... */
} store_problem;
typedef struct store_verify_report {
    store_problem *problems; /* base_free */
    size_t count;
    uint64_t repaired;
    uint64_t episodes_checked;
    bool unwalkable; /* data.mdb cannot be walked to its end: to open it may end the process */
} store_verify_report;
/* Check every checksum and the agreement of the catalogue record by record. LMDB is walked in a
 * child process; the child's death is reported as damage. repair: rebuild the catalogue from the
 * records; if data.mdb itself is damaged, salvage every record with a valid checksum into a new
 * environment, swap it in and list what is lost. Takes a path, not a handle: nothing may be open.
 * problems: what was found (kinds: check.c, verify.c), then, of a repair, what is lost (salvage.c);
 * repaired: how many of the former are mended. Errors: BASE_NOT_FOUND, BASE_VERSION, BASE_BUSY. */
base_status store_verify(const char *path, bool repair, store_verify_report *report,
                         base_error *err);

#endif
