/* store/backup.c: a copy of all records in another folder, from one read transaction, and the way
 * back. Either is written beside its place and renamed into it when it is whole and synced:
 *
 *   1. folder.partial made and locked       killed here: the next one empties it
 *   2. records copied, synced (copy.c)
 *   3. renamed to folder, parent synced     the switch, atomic
 *
 * Only records are copied: whatever freed pages still hold stays behind. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/file.h"
#include "store/check.h"

#define TRIES 3 /* copies made again because something was forgotten meanwhile */

/* --- the place that is written ---------------------------------------------------------------- */

typedef struct target {
    char folder[STORE_PATH_SIZE], partial[STORE_PATH_SIZE];
    int lock_fd;
} target;

/* Is there nothing at the path, or an empty folder? */
static base_status check_free(const char *path, base_error *err)
{
    DIR *folder = opendir(path);
    if (!folder) {
        return errno == ENOENT ? BASE_OK
               : errno == ENOTDIR
                   ? base_fail(err, BASE_EXISTS, "%s exists and is not a folder", path)
                   : base_fail_errno(err, errno, "cannot open %s", path);
    }
    base_status status = BASE_OK;
    for (struct dirent *e = readdir(folder); e && !status; e = readdir(folder)) {
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0) {
            status = base_fail(err, BASE_EXISTS, "%s is not empty: nothing is overwritten", path);
        }
    }
    closedir(folder);
    return status;
}

static base_status begin_target(target *t, const char *folder, base_error *err)
{
    size_t length = strlen(folder);
    t->lock_fd = -1;
    while (length > 1 && folder[length - 1] == '/') {
        length--;
    }
    if (length == 0 || length + sizeof ".partial" + 32 > sizeof t->folder) {
        return base_fail(err, BASE_INVALID, "bad folder \"%.80s\"", folder);
    }
    snprintf(t->folder, sizeof t->folder, "%.*s", (int)length, folder);
    snprintf(t->partial, sizeof t->partial, "%.*s.partial", (int)length, folder);
    base_status status = check_free(t->folder, err);
    if (status == BASE_OK) {
        status = base_dir_create(t->partial, err);
    }
    if (status != BASE_OK) {
        return status;
    }
    t->lock_fd = open(t->partial, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (t->lock_fd < 0) {
        return base_fail_errno(err, errno, "cannot open %s", t->partial);
    }
    if (flock(t->lock_fd, LOCK_EX | LOCK_NB) != 0) {
        close(t->lock_fd);
        t->lock_fd = -1;
        return base_fail(err, BASE_BUSY, "another process writes to %s", t->partial);
    }
    status = store_empty_folder(t->partial, err);
    return status == BASE_OK ? check_free(t->partial, err) : status;
}

/* Put the folder in its place, or take it away after a failure. */
static base_status end_target(target *t, base_status status, base_error *err)
{
    if (t->lock_fd < 0) {
        return status;
    }
    if (status == BASE_OK) {
        status = base_file_sync(t->partial, err);
    }
    if (status == BASE_OK) {
        status = base_file_move(t->partial, t->folder, err);
    }
    if (status != BASE_OK) {
        store_remove_folder(t->partial, NULL);
    }
    close(t->lock_fd);
    return status;
}

/* --- copying ---------------------------------------------------------------------------------- */

/* Copy the records that txn sees; the reader table of the copy goes, only its data stays. */
static base_status copy_into(store_db_txn *txn, const char *source, target *t,
                             store_backup_receipt *receipt, base_error *err)
{
    uint64_t skipped = 0;
    store_meta meta;
    char path[STORE_PATH_SIZE];
    base_file_info info;
    base_status status = store_load_meta(txn, &meta, err);
    if (status == BASE_NOT_FOUND) {
        return base_fail(err, status, "%s holds no store", source);
    }
    if (status == BASE_OK) {
        status = store_copy_records(txn, t->partial, &skipped, err);
    }
    if (status == BASE_OK && skipped > 0) {
        status = base_fail(err, BASE_CORRUPT,
                           "%llu records of %s are damaged: repair it first (verify --repair)",
                           (unsigned long long)skipped, source);
    }
    if (status == BASE_OK) {
        base_path_join(path, sizeof path, t->partial, STORE_LOCK_NAME); /* begin_target: it fits */
        unlink(path);
        base_path_join(path, sizeof path, t->partial, STORE_DATA_NAME);
        status = base_file_stat(path, &info, err);
    }
    if (status == BASE_OK) {
        *receipt = (store_backup_receipt){.episodes = meta.episodes,
                                          .documents = meta.documents,
                                          .last_commit = meta.last_commit,
                                          .bytes = info.size};
    }
    return status;
}

/* Has anything been forgotten since the commit? */
static base_status forgotten_since(store *s, uint64_t commit, bool *any, base_error *err)
{
    uint64_t *ids = NULL;
    size_t count = 0;
    base_status status = store_forgotten(s, commit, &ids, &count, err);
    base_free(ids);
    *any = count > 0;
    return status;
}

base_status store_backup(store *s, const char *folder, store_backup_receipt *receipt,
                         base_error *err)
{
    target t;
    base_status status = begin_target(&t, folder, err);
    bool again = true;
    for (int i = 0; i < TRIES && again && status == BASE_OK; i++) {
        store_reader reader;
        status = store_read_begin(s, &reader, err);
        if (status == BASE_OK) {
            status = copy_into(reader.txn, s->path, &t, receipt, err);
            store_read_end(s, &reader);
        }
        if (status == BASE_OK) {
            status = forgotten_since(s, receipt->last_commit, &again, err);
        }
    }
    if (status == BASE_OK && again) {
        status =
            base_fail(err, BASE_BUSY, "%s: episodes are being forgotten all the time", s->path);
    }
    return end_target(&t, status, err);
}

/* --- restore ---------------------------------------------------------------------------------- */

/* Check a folder; without_catalog: what is said of the catalogue does not count. */
static base_status check_folder(const char *folder, bool without_catalog, base_error *err)
{
    store_verify_report report = {0};
    base_status status = store_verify(folder, false, &report, err);
    for (size_t i = 0; i < report.count && status == BASE_OK; i++) {
        const store_problem *p = &report.problems[i];
        if (!without_catalog || strcmp(p->file, STORE_CATALOG_NAME) != 0) {
            status = base_fail(err, BASE_CORRUPT, "%s/%s is damaged: id %llu: %s", folder, p->file,
                               (unsigned long long)p->id, p->kind);
        }
    }
    base_free(report.problems);
    return status;
}

static base_status copy_folder(const char *from, target *t, store_backup_receipt *receipt,
                               base_error *err)
{
    store_db *db = NULL;
    store_db_txn *txn = NULL;
    store_db_options options = {.read_only = true};
    base_status status = store_db_open(from, &options, &db, err);
    if (status == BASE_OK) {
        status = store_db_begin(db, false, &txn, err);
    }
    if (status == BASE_OK) {
        status = copy_into(txn, from, t, receipt, err);
    }
    store_db_abort(txn);
    store_db_close(db);
    return status;
}

base_status store_restore(const char *backup, const char *folder, store_backup_receipt *receipt,
                          base_error *err)
{
    target t = {.lock_fd = -1};
    store *s = NULL;
    store_options options = {0};
    base_status status = check_folder(backup, true, err);
    if (status == BASE_OK) {
        status = begin_target(&t, folder, err);
    }
    if (status == BASE_OK) {
        status = copy_folder(backup, &t, receipt, err);
    }
    if (status == BASE_OK) {
        status = store_open(t.partial, &options, &s, err); /* makes the catalogue */
        store_close(s);
    }
    if (status == BASE_OK) {
        status = check_folder(t.partial, false, err);
    }
    return end_target(&t, status, err);
}
