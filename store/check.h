/* store/check.h: the checks of verify, most of them in a child process, and what they report. */
#ifndef STORE_CHECK_H
#define STORE_CHECK_H

#include "store/internal.h"

/* Where problems go: a pipe to the parent or, in the parent, its report. Kinds are short stable
 * words, listed in check.c. */
typedef struct store_check {
    int fd;
    store_verify_report *report; /* NULL in the child */
    uint64_t problems, episodes;
    bool broken;    /* a table could not be walked to its end: references are not worth following */
    bool no_memory; /* a problem found no room in the report */
} store_check;

void store_check_problem(store_check *check, const char *file, uint64_t id, const char *kind);
void store_check_lmdb(store_check *check, uint64_t id, const char *kind);

/* Walk every table: order of keys, checksums, formats. */
base_status store_check_tables(store_check *check, store_db_txn *txn, base_error *err);
/* pages.c: what LMDB notes for itself in data.mdb, read before LMDB believes it. Kind: layout, with
 * the number of the page. */
base_status store_check_pages(store_check *check, const char *folder, base_error *err);
/* Follow every reference, join the spans, compare counters. */
base_status store_check_references(store_check *check, store_db_txn *txn, base_error *err);

/* sessions.c: every file of a conversation by itself: checksum, whose it is, and that no state is
 * older than the last forget. Kinds: damaged, checksum, misplaced, not_forgotten. A repair removes
 * what was found: the turns themselves are records, and chat reads them again. scrub_pending: a
 * forget was interrupted; the next writer ends it and removes the states. */
base_status store_check_sessions(store_check *check, const char *folder, store_db_txn *txn,
                                 bool scrub_pending, base_error *err);
base_status store_repair_sessions(const char *folder, const store_verify_report *report,
                                  size_t *removed, base_error *err);

/* What runs in a child process, which may die of what it touches. It may be forked beside other
 * threads: LMDB and the C library only, no SQLite and no FAISS. */
typedef base_status store_child_work(void *argument, store_check *check, base_error *err);

base_status store_report_add(store_verify_report *report, const char *file, uint64_t id,
                             const char *kind);

/* --- salvage.c: runs in a child too -------------------------------------------------------------
 * */

typedef struct store_salvage {
    const char *folder, *fresh_folder;
    bool raw; /* read the bytes of data.mdb instead of its tables */
    uint64_t finished; /* a commit that is known to have ended from elsewhere, 0 = none */
} store_salvage;
/* Write all valid records into a consistent new environment; problems = what is lost. */
base_status store_salvage_records(void *argument /* store_salvage */, store_check *check,
                                  base_error *err);

/* store.c: begin the chain of a commit; write COMMIT and META, the last records of a commit. */
base_status store_begin_chain(store_txn *txn, base_error *err);
base_status store_save_commit(store_txn *txn, base_error *err);
/* forget.c: write a FORGOTTEN record and add it to the chain. */
base_status store_save_forgotten(store_txn *txn, const store_ids *gone, base_error *err);
/* supersede.c: close the episodes of one version at the time of the next. */
base_status store_close_version(store_txn *txn, const store_version *older,
                                const store_version *newer, base_error *err);

#endif
