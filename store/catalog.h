/* store/catalog.h: the derived catalogue of a store: full-text index and the times of the as-of
 * cut. catalog_sqlite.c implements it on SQLite with FTS5; no SQLite type is visible here.
 *
 * Nothing in it is the truth: it carries the id and the chain value of the last commit that it
 * contains, and whoever opens it brings it up to date or clears it (follow.c).
 *
 * The FTS5 table is *contentless*: it keeps the inverted index and the document lengths but no
 * second copy of the text (external content would make SQLite read text through a table that does
 * not exist; ordinary content would double the text on disk and in need of erasure). The price:
 * taking an episode out needs its title and text, which store_forget still has in its hands.
 *
 * Thread rule: the caller serialises all calls of one handle.
 */
#ifndef STORE_CATALOG_H
#define STORE_CATALOG_H

#include "store/record.h"

#define STORE_CATALOG_NAME "catalog.sqlite"

typedef struct store_catalog store_catalog;

typedef enum store_catalog_mode {
    STORE_CATALOG_WRITE,  /* create when missing; an unusable file is replaced by an empty one */
    STORE_CATALOG_READ,   /* create nothing */
    STORE_CATALOG_MEMORY, /* a copy of the file in memory, empty when there is no usable file */
    STORE_CATALOG_FRESH,  /* an empty one in memory */
} store_catalog_mode;

/* Errors of STORE_CATALOG_READ: BASE_NOT_FOUND, BASE_CORRUPT, BASE_VERSION, BASE_PERMISSION,
 * BASE_BUSY. */
base_status store_catalog_open(const char *folder, store_catalog_mode mode, store_catalog **out,
                               base_error *err);
void store_catalog_close(store_catalog *c); /* accepts NULL */
store_catalog_mode store_catalog_mode_of(const store_catalog *c);
/* Opened without locks in a folder that cannot be written, and a writer has begun since: reopen. */
bool store_catalog_outdated(const store_catalog *c);
/* Delete the catalogue's files in folder. */
base_status store_catalog_remove(const char *folder, base_error *err);

typedef struct store_catalog_state {
    uint64_t commit, chain; /* last commit contained, 0 = none */
    uint64_t last_episode;  /* largest episode id ever added */
    uint64_t episodes, tokens;
} store_catalog_state;
base_status store_catalog_get_state(store_catalog *c, store_catalog_state *state, base_error *err);

/* One change: begin, any of clear/add/remove, then finish (or rollback). */
typedef struct store_catalog_entry {
    uint64_t id, document;
    uint32_t source;
    int64_t observed_at_us;
    store_slice title, text;
} store_catalog_entry;
base_status store_catalog_begin(store_catalog *c, base_error *err);
base_status store_catalog_clear(store_catalog *c, base_error *err);
base_status store_catalog_add(store_catalog *c, const store_catalog_entry *entry, base_error *err);
base_status store_catalog_take_out(store_catalog *c, const store_catalog_entry *entry,
                                   base_error *err);
base_status store_catalog_finish(store_catalog *c, uint64_t commit, uint64_t chain,
                                 uint64_t last_episode, base_error *err);
void store_catalog_rollback(store_catalog *c);

/* BM25, see store_search_text. */
base_status store_catalog_search(store_catalog *c, const char *query, size_t query_size,
                                 int64_t as_of_us, size_t k, store_text_hit *hits, size_t *count,
                                 base_error *err);

/* See store_known. */
base_status store_catalog_known(store_catalog *c, int64_t as_of_us, uint64_t **ids, size_t *count,
                                base_error *err);

/* Rewrite the file without free pages and empty the write-ahead log. */
base_status store_catalog_vacuum(store_catalog *c, base_error *err);

/* --- proof of agreement (verify) ------------------------------------------------------------- */

/* Order-free sum over the terms of one episode: of what the index holds for it, or of a text. */
typedef struct store_catalog_row {
    uint64_t id, document;
    uint32_t source;
    int64_t observed_at_us;
    uint64_t terms_sum, tokens;
} store_catalog_row;
/* All rows by ascending id, rows of index or table alone included (with zeros); *rows by base_free.
 * *damaged: SQLite's own check of the file found a fault (named in *fault, [200]). */
base_status store_catalog_rows(store_catalog *c, store_catalog_row **rows, size_t *count,
                               bool *damaged, char *fault, base_error *err);
base_status store_catalog_terms_sum(store_catalog *c, store_slice title, store_slice text,
                                    uint64_t *sum, uint64_t *tokens, base_error *err);

#endif
