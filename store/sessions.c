/* store/sessions.c: see sessions.h. Everything that writes holds the writer lock, as forget and
 * scrub do: a state is written before a forget and removed by its scrub, or not at all. */
#include "store/sessions.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/file.h"
#include "store/check.h"

#define FOLDER "sessions"

enum { VERSION = 1, HEADER = 8 + 4 + 4 + 8 + 8 + 32, CHECKED_FROM = 16, ID_DIGITS = 16 };

static void id_of(const char *name, uint8_t digest[32], char id[ID_DIGITS + 1])
{
    base_sha256_of(name, strlen(name), digest);
    base_hex(digest, ID_DIGITS / 2, id);
}

void store_session_path(const store *s, const char *name, uint64_t turn, char *out, size_t size)
{
    char id[ID_DIGITS + 1];
    uint8_t digest[32];
    id_of(name, digest, id);
    int length = snprintf(out, size, "%s/" FOLDER "/%s-%08llu.%s", s->path, id,
                          (unsigned long long)turn, turn ? "state" : "log");
    if (length < 0 || (size_t)length >= size) {
        out[0] = 0;
    }
}

/* --- what is in the folder -------------------------------------------------------------------- */

typedef struct entry {
    char name[64];
    uint64_t size, turn;
    int64_t modified_us;
    bool own; /* of the session at hand */
} entry;

typedef struct listing {
    char folder[STORE_PATH_SIZE];
    entry *items;
    size_t count;
} listing;

static base_status remove_entry(const listing *l, const char *name, base_error *err)
{
    char path[STORE_PATH_SIZE];
    if (base_path_join(path, sizeof path, l->folder, name) != BASE_OK) {
        return base_fail(err, BASE_LIMIT, "path is too long: %.80s...", l->folder);
    }
    return unlink(path) == 0 || errno == ENOENT
               ? BASE_OK
               : base_fail_errno(err, errno, "cannot remove %s", path);
}

static base_status read_entry(listing *l, const char *name, const char *id)
{
    char path[STORE_PATH_SIZE];
    base_file_info info;
    if (strlen(name) >= sizeof l->items->name ||
        base_path_join(path, sizeof path, l->folder, name) != BASE_OK ||
        base_file_stat(path, &info, NULL) != BASE_OK || !info.is_regular) {
        return BASE_OK; /* none of ours, or gone meanwhile */
    }
    entry *grown = base_realloc(l->items, (l->count + 1) * sizeof *grown);
    if (!grown) {
        return BASE_NO_MEMORY;
    }
    l->items = grown;
    entry *e = &grown[l->count++];
    *e = (entry){.size = info.size, .modified_us = info.modified_us};
    snprintf(e->name, sizeof e->name, "%s", name);
    unsigned long long turn = 0;
    int end = 0;
    if (sscanf(name + strcspn(name, "-"), "-%8llu%n", &turn, &end) == 1 && end == 9) {
        e->turn = turn;
        e->own = strncmp(name, id, ID_DIGITS) == 0;
    }
    return BASE_OK;
}

/* Ends with an empty listing where there is no folder. id "": nobody's own. */
static base_status list(const char *store_folder, const char *id, listing *l, base_error *err)
{
    *l = (listing){0};
    if (base_path_join(l->folder, sizeof l->folder, store_folder, FOLDER) != BASE_OK) {
        return base_fail(err, BASE_LIMIT, "path is too long: %.80s...", store_folder);
    }
    DIR *dir = opendir(l->folder);
    if (!dir) {
        return errno == ENOENT ? BASE_OK : base_fail_errno(err, errno, "cannot read %s", l->folder);
    }
    base_status status = BASE_OK;
    for (struct dirent *d = readdir(dir); d && !status; d = readdir(dir)) {
        if (d->d_name[0] != '.') {
            status = read_entry(l, d->d_name, id);
        }
    }
    closedir(dir);
    return status ? base_fail(err, status, "no memory for a list of sessions") : BASE_OK;
}

static bool ends_in(const char *name, const char *suffix)
{
    size_t a = strlen(name), b = strlen(suffix);
    return a >= b && strcmp(name + a - b, suffix) == 0;
}

base_status store_forget_sessions(store *s, base_error *err)
{
    listing l;
    base_status status = list(s->path, "", &l, err);
    size_t removed = 0;
    for (size_t i = 0; i < l.count && !status; i++) {
        if (!ends_in(l.items[i].name, ".log")) {
            status = remove_entry(&l, l.items[i].name, err);
            removed++;
        }
    }
    if (!status && removed > 0) {
        status = base_file_sync(l.folder, err);
    }
    base_free(l.items);
    return status;
}

/* The entry that has lain longest, `keep` and what is gone (no name) aside. */
static size_t oldest(const listing *l, const char *keep)
{
    size_t found = SIZE_MAX;
    for (size_t i = 0; i < l->count; i++) {
        const entry *e = &l->items[i];
        if (e->name[0] && strcmp(e->name, keep) != 0 &&
            (found == SIZE_MAX || e->modified_us < l->items[found].modified_us)) {
            found = i;
        }
    }
    return found;
}

/* After `turn` was written: what exceeds the bounds goes, and what a killed writer left. */
static base_status prune(store *s, const char *id, uint64_t turn, base_error *err)
{
    listing l;
    char keep[64];
    base_status status = list(s->path, id, &l, err);
    uint64_t bytes = 0, files = 0;
    snprintf(keep, sizeof keep, "%s-%08llu.%s", id, (unsigned long long)turn,
             turn ? "state" : "log");
    for (size_t i = 0; i < l.count && !status; i++) {
        entry *e = &l.items[i];
        bool old = e->own && turn > 0 && e->turn > 0 && e->turn + STORE_SESSION_TURNS <= turn;
        if (old || ends_in(e->name, ".tmp")) {
            status = remove_entry(&l, e->name, err);
            e->name[0] = 0;
        } else {
            bytes += e->size;
            files++;
        }
    }
    while (!status && (bytes > STORE_SESSION_BYTES_MAX || files > STORE_SESSION_FILES_MAX)) {
        size_t i = oldest(&l, keep);
        if (i == SIZE_MAX) {
            break;
        }
        status = remove_entry(&l, l.items[i].name, err);
        bytes -= l.items[i].size;
        files--;
        l.items[i].name[0] = 0;
    }
    base_free(l.items);
    return status;
}

base_status store_session_drop(store *s, const char *name, uint64_t after, base_error *err)
{
    listing l;
    uint8_t digest[32];
    char id[ID_DIGITS + 1];
    id_of(name, digest, id);
    unsigned wait_ms = s->options.lock_wait_ms ? s->options.lock_wait_ms : UINT_MAX;
    base_status status = store_writer_lock(s, wait_ms, err);
    if (status) {
        return status;
    }
    status = list(s->path, id, &l, err);
    for (size_t i = 0; i < l.count && !status; i++) {
        if (l.items[i].own && l.items[i].turn > after) {
            status = remove_entry(&l, l.items[i].name, err);
        }
    }
    store_writer_unlock(s);
    base_free(l.items);
    return status;
}

/* --- one file --------------------------------------------------------------------------------- */

static base_status check_forgotten(store *s, uint64_t since, const char *path, base_error *err)
{
    uint64_t *ids = NULL;
    size_t count = 0;
    base_status status = store_forgotten(s, since, &ids, &count, err);
    base_free(ids);
    if (!status && count > 0) {
        status = base_fail(err, BASE_CANCELLED, "%s: something was forgotten since", path);
    }
    return status;
}

static base_status write_file(store *s, const char *path, uint64_t turn, uint64_t since,
                              const base_buffer *file, base_error *err)
{
    char folder[STORE_PATH_SIZE];
    base_status status = turn ? check_forgotten(s, since, path, err) : BASE_OK;
    if (status) {
        return status;
    }
    if (base_path_join(folder, sizeof folder, s->path, FOLDER) != BASE_OK) {
        return base_fail(err, BASE_LIMIT, "path is too long: %.80s...", s->path);
    }
    status = base_dir_create(folder, err);
    return status ? status : base_file_replace(path, file->data, file->size, 0600, err);
}

base_status store_session_put(store *s, const char *name, uint64_t turn, uint64_t since,
                              const void *data, size_t size, base_error *err)
{
    char path[STORE_PATH_SIZE], id[ID_DIGITS + 1];
    uint8_t header[HEADER] = "EIDTURNS";
    base_buffer file = {.size_max = (size_t)STORE_SESSION_BYTES_MAX};
    store_session_path(s, name, turn, path, sizeof path);
    if (s->read_only) {
        return base_fail(err, BASE_PERMISSION, "the store %s is open for reading only", s->path);
    }
    id_of(name, header + 32, id);
    base_put_u32(header + 8, VERSION);
    base_put_u64(header + 16, turn);
    base_put_u64(header + 24, since);
    uint32_t crc = base_crc32c(0, header + CHECKED_FROM, HEADER - CHECKED_FROM);
    base_put_u32(header + 12, base_crc32c(crc, data, size));
    base_status status = base_buffer_append(&file, header, HEADER);
    if (status || (status = base_buffer_append(&file, data, size))) {
        base_buffer_free(&file);
        return base_fail(err, status, "%s: %s", path, base_status_text(status));
    }
    unsigned wait_ms = s->options.lock_wait_ms ? s->options.lock_wait_ms : UINT_MAX;
    status = store_writer_lock(s, wait_ms, err);
    if (!status) {
        status = write_file(s, path, turn, since, &file, err);
        if (!status) {
            status = prune(s, id, turn, err);
        }
        store_writer_unlock(s);
    }
    base_buffer_free(&file);
    return status;
}

static base_status check_file(store *s, const char *name, uint64_t turn, const char *path,
                              const base_buffer *file, base_error *err)
{
    const uint8_t *bytes = (const uint8_t *)file->data;
    char id[ID_DIGITS + 1];
    uint8_t digest[32];
    id_of(name, digest, id);
    if (file->size < HEADER || memcmp(bytes, "EIDTURNS", 8) != 0) {
        return base_fail(err, BASE_CORRUPT, "%s: not a session's file, or cut short", path);
    }
    if (base_get_u32(bytes + 8) != VERSION) {
        return base_fail(err, BASE_VERSION, "%s: version %u, only %d can be read", path,
                         base_get_u32(bytes + 8), VERSION);
    }
    if (base_get_u32(bytes + 12) !=
        base_crc32c(0, bytes + CHECKED_FROM, file->size - CHECKED_FROM)) {
        return base_fail(err, BASE_CORRUPT, "%s: damaged, its checksum does not fit", path);
    }
    if (base_get_u64(bytes + 16) != turn || memcmp(bytes + 32, digest, sizeof digest) != 0) {
        return base_fail(err, BASE_CORRUPT, "%s: belongs to another session or turn", path);
    }
    return turn ? check_forgotten(s, base_get_u64(bytes + 24), path, err) : BASE_OK;
}

base_status store_session_get(store *s, const char *name, uint64_t turn, base_buffer *out,
                              base_error *err)
{
    char path[STORE_PATH_SIZE];
    base_file_info info;
    base_buffer file = {.size_max = (size_t)STORE_SESSION_BYTES_MAX};
    store_session_path(s, name, turn, path, sizeof path);
    if (base_file_stat(path, &info, NULL) != BASE_OK) {
        return BASE_NOT_FOUND;
    }
    base_status status = base_file_read(path, (size_t)STORE_SESSION_BYTES_MAX, &file, err);
    if (!status && !(status = check_file(s, name, turn, path, &file, err)) &&
        (status = base_buffer_append(out, file.data + HEADER, file.size - HEADER))) {
        base_fail(err, status, "%s: %s", path, base_status_text(status));
    }
    base_buffer_free(&file);
    return status;
}

/* --- verify ----------------------------------------------------------------------------------- */

/* Is this the name of a log (turn 0) or a state? id: the digits of its session. */
static bool parse_name(const char *name, char id[ID_DIGITS + 1], uint64_t *turn)
{
    char again[64];
    unsigned long long number = 0;
    if (sscanf(name, "%16[0-9a-f]-%8llu", id, &number) != 2) {
        return false;
    }
    snprintf(again, sizeof again, "%s-%08llu.%s", id, number, number ? "state" : "log");
    *turn = number;
    return strcmp(name, again) == 0;
}

/* The kind of problem, or NULL. forgotten: the commit of the last forget. */
static const char *find_problem(const base_map *map, const char *id, uint64_t turn,
                                uint64_t forgotten)
{
    char own_id[ID_DIGITS + 1];
    if (map->size < HEADER || memcmp(map->data, "EIDTURNS", 8) != 0) {
        return "damaged";
    }
    if (base_get_u32(map->data + 8) != VERSION) {
        return NULL; /* of another version: nothing can be said about it */
    }
    base_hex(map->data + 32, ID_DIGITS / 2, own_id);
    if (base_get_u32(map->data + 12) !=
        base_crc32c(0, map->data + CHECKED_FROM, map->size - CHECKED_FROM)) {
        return "checksum";
    }
    if (base_get_u64(map->data + 16) != turn || strcmp(own_id, id) != 0) {
        return "misplaced";
    }
    return turn > 0 && base_get_u64(map->data + 24) < forgotten ? "not_forgotten" : NULL;
}

/* The commit of the last forget; 0 when there was none. */
static base_status last_forget(store_db_txn *txn, uint64_t *commit, base_error *err)
{
    store_db_cursor *cursor;
    store_slice key, value;
    *commit = 0;
    base_status status = store_db_cursor_open(txn, STORE_TABLE_FORGOTTEN, &cursor, err);
    if (status) {
        return status;
    }
    status = store_db_first(cursor, &key, &value, err);
    while (!status) {
        *commit = key.size >= 8 ? base_get_u64_be(key.data) : *commit; /* they ascend */
        status = store_db_next(cursor, &key, &value, err);
    }
    store_db_cursor_close(cursor);
    return status == BASE_NOT_FOUND ? BASE_OK : status;
}

base_status store_check_sessions(store_check *check, const char *folder, store_db_txn *txn,
                                 bool scrub_pending, base_error *err)
{
    listing l;
    uint64_t forgotten = 0, turn = 0;
    base_status status = list(folder, "", &l, err);
    if (!status && l.count > 0 && !scrub_pending) {
        status = last_forget(txn, &forgotten, err);
    }
    for (size_t i = 0; i < l.count && !status; i++) {
        char path[STORE_PATH_SIZE], file[64], id[ID_DIGITS + 1];
        base_map map = {0};
        if (!parse_name(l.items[i].name, id, &turn) ||
            base_path_join(path, sizeof path, l.folder, l.items[i].name) != BASE_OK) {
            continue; /* what a killed writer left: the next one removes it */
        }
        status = base_map_open(path, &map, err);
        if (!status) {
            const char *kind = find_problem(&map, id, turn, forgotten);
            snprintf(file, sizeof file, FOLDER "/%.50s", l.items[i].name);
            if (kind) {
                store_check_problem(check, file, turn, kind);
            }
            base_map_close(&map);
        }
    }
    base_free(l.items);
    return status;
}

base_status store_repair_sessions(const char *folder, const store_verify_report *report,
                                  size_t *removed, base_error *err)
{
    base_status status = BASE_OK;
    *removed = 0;
    for (size_t i = 0; i < report->count && !status; i++) {
        char path[STORE_PATH_SIZE];
        const char *file = report->problems[i].file;
        if (strncmp(file, FOLDER "/", strlen(FOLDER) + 1) != 0) {
            continue;
        }
        if (base_path_join(path, sizeof path, folder, file) != BASE_OK) {
            return base_fail(err, BASE_LIMIT, "path is too long: %.80s...", folder);
        }
        if (unlink(path) != 0 && errno != ENOENT) {
            status = base_fail_errno(err, errno, "cannot remove %s", path);
        }
        ++*removed;
    }
    return status;
}
