/* ingest/watch.h: take in files and folders, and then whatever changes in them, until told to stop
 * (inotify; Linux only). */
#ifndef INGEST_WATCH_H
#define INGEST_WATCH_H

#include <signal.h>

#include "ingest/ingest.h"

typedef struct ingest_watch_options {
    /* Not 0: end (a signal handler sets it). Looked at twice a second, and between documents where
     * ingest_options.stop is the same. */
    const volatile sig_atomic_t *stop;
    /* After each commit, at its clock; an error ends the watching as one of the commit does. May be
     * NULL. */
    base_status (*on_commit)(void *argument, int64_t now_us, base_error *err);
    void *argument;
} ingest_watch_options;

/* Read files and folders as ingest_path does ("-" cannot be watched), then again what changes in
 * them. What is quiet for 0.3 s is read and committed together; the clock of the commits goes on
 * from ingest_options.now_us. While another process keeps the writer lock, changes wait. After a
 * stop BASE_OK: what was added and not yet committed is left to ingest_commit. Errors: those of
 * ingest_path, BASE_LIMIT (more folders than the system lets watch), BASE_NOT_FOUND (all that was
 * watched is gone). */
base_status ingest_watch(ingest *in, const char *const *paths, size_t count,
                         const ingest_watch_options *options, base_error *err);

#endif
