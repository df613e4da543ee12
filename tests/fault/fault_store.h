/* tests/fault/fault_store.h: stores in a campaign: copied, verified, exported, searched for bytes.
 * Each function opens what it needs in this process and closes it.
 */
#ifndef FAULT_STORE_H
#define FAULT_STORE_H

#include <dirent.h>

#include "ingest/ingest.h"
#include "tests/fault/fault_testing.h"

#define FAULT_DIM 384 /* of the default encoder, whatever number of its layers is left */

static inline void fault_remove(const char *path)
{
    struct stat info;
    if (lstat(path, &info) != 0) {
        return;
    }
    if (!S_ISDIR(info.st_mode)) {
        unlink(path);
        return;
    }
    DIR *folder = opendir(path);
    struct dirent *entry;
    while (folder && (entry = readdir(folder))) {
        char child[FAULT_PATH_MAX];
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 &&
            snprintf(child, sizeof child, "%s/%s", path, entry->d_name) < FAULT_PATH_MAX) {
            fault_remove(child);
        }
    }
    if (folder) {
        closedir(folder);
    }
    rmdir(path);
}

/* Whole content of a file; the caller frees data. An absent file is empty. */
static inline base_buffer fault_read_file(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    base_buffer data = {0};
    if (fd >= 0) {
        data = fault_read_all(fd);
        close(fd);
    }
    return data;
}

static inline void fault_write_file(const char *path, const void *data, size_t size)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size || close(fd) != 0) {
        perror(path);
        abort();
    }
}

/* A copy of a store that nobody has open, without LMDB's table of readers, in place of `to`. */
static inline void fault_copy_store(const char *from, const char *to)
{
    fault_remove(to);
    mkdir(to, 0700);
    DIR *folder = opendir(from);
    struct dirent *entry;
    while (folder && (entry = readdir(folder))) {
        char source[FAULT_PATH_MAX], target[FAULT_PATH_MAX];
        struct stat info;
        if (entry->d_name[0] == '.' || strcmp(entry->d_name, "lock.mdb") == 0 ||
            snprintf(source, sizeof source, "%s/%s", from, entry->d_name) >= FAULT_PATH_MAX ||
            snprintf(target, sizeof target, "%s/%s", to, entry->d_name) >= FAULT_PATH_MAX ||
            stat(source, &info) != 0) {
            continue;
        }
        if (S_ISDIR(info.st_mode)) {
            fault_copy_store(source, target);
        } else {
            base_buffer data = fault_read_file(source);
            fault_write_file(target, data.data, data.size);
            base_buffer_free(&data);
        }
    }
    if (folder) {
        closedir(folder);
    }
}

/* --- verify and export ----------------------------------------------------------------------- */

/* What `eidetic verify` does: *problems counts, the first few are printed with `who` before them
 * (NULL: silently). repair as the option. An error of its own counts as a problem. */
static inline size_t fault_verify(const char *path, bool repair, const char *who)
{
    store_verify_report report = {0};
    base_error err = {0};
    store *s = NULL;
    store_options options = {.read_only = !repair};
    base_status status = store_verify(path, repair, &report, &err);
    if (!status && !report.unwalkable && !(status = store_open(path, &options, &s, &err))) {
        status = retrieval_verify(s, FAULT_DIM, repair, &report, &err);
    }
    store_close(s);
    size_t count = report.count;
    for (size_t i = 0; who && i < count && i < 5; i++) {
        fprintf(stderr, "%s: verify: %s: id %llu: %s\n", who, report.problems[i].file,
                (unsigned long long)report.problems[i].id, report.problems[i].kind);
    }
    if (status && count == 0) {
        count = 1;
        if (who) {
            fprintf(stderr, "%s: verify: %s\n", who, err.text);
        }
    }
    base_free(report.problems);
    return count;
}

/* The export as text, into out (cleared first). writer: open it as one who may write, so that what
 * a dead writer left is finished. False, with a message unless who is NULL, when it cannot be. */
static inline bool fault_export(const char *path, bool writer, base_buffer *out, const char *who)
{
    store *s = NULL;
    retrieval *r = NULL;
    char *text = NULL;
    size_t size = 0;
    ingest_export_counts counts;
    base_error err = {0};
    store_options options = {.read_only = !writer};
    base_buffer_clear(out);
    base_status status = store_open(path, &options, &s, &err);
    if (!status) {
        status = retrieval_open(s, FAULT_DIM, &r, &err);
    }
    if (!status) {
        FILE *stream = open_memstream(&text, &size);
        status = stream ? ingest_export(s, stream, &counts, &err) : BASE_NO_MEMORY;
        if (stream) {
            fclose(stream);
        }
    }
    if (!status) {
        status = base_buffer_append(out, text, size);
    } else if (who) {
        fprintf(stderr, "%s: export: %s\n", who, err.text);
    }
    free(text);
    retrieval_close(r);
    store_close(s);
    return !status;
}

/* --- lines of an export ---------------------------------------------------------------------- */

/* A copy of the line without its superseded_at, which later documents may set. */
static inline size_t fault_without_end(const char *line, size_t size, char out[4096])
{
    static const char name[] = "\"superseded_at\":\"";
    const char *at = memmem(line, size, name, sizeof name - 1);
    const char *end =
        at ? memchr(at + sizeof name, '"', size - (size_t)(at + sizeof name - line)) : NULL;
    size_t head = at ? (size_t)(at - line) : size;
    size_t tail = end ? size - (size_t)(end + 2 - line) : 0;
    if (head + tail > 4096) {
        abort();
    }
    memcpy(out, line, head);
    if (end) {
        memcpy(out + head, end + 2, tail);
    }
    return head + tail;
}

/* Are the lines of `text` the first lines of `whole`, superseded_at aside? *lines counts them. */
static inline bool fault_is_prefix(const base_buffer *whole, const base_buffer *text,
                                   uint64_t *lines)
{
    const char *a = whole->data, *b = text->data;
    for (*lines = 0; b < text->data + text->size; (*lines)++) {
        char left[4096], right[4096];
        const char *a_end = memchr(a, '\n', whole->size - (size_t)(a - whole->data));
        const char *b_end = memchr(b, '\n', text->size - (size_t)(b - text->data));
        if (!a_end || !b_end) {
            return false;
        }
        size_t left_size = fault_without_end(a, (size_t)(a_end - a), left);
        size_t right_size = fault_without_end(b, (size_t)(b_end - b), right);
        if (left_size != right_size || memcmp(left, right, left_size) != 0) {
            return false;
        }
        a = a_end + 1;
        b = b_end + 1;
    }
    return true;
}

static inline bool fault_same(const base_buffer *a, const base_buffer *b)
{
    return a->size == b->size && memcmp(a->data, b->data, a->size) == 0;
}

/* --- bytes ----------------------------------------------------------------------------------- */

/* The first file below folder that holds the bytes, in *path; false when none does. */
static inline bool fault_holds(const char *folder, const void *bytes, size_t size,
                               char path[FAULT_PATH_MAX])
{
    DIR *stream = opendir(folder);
    struct dirent *entry;
    bool found = false;
    while (stream && !found && (entry = readdir(stream))) {
        char child[FAULT_PATH_MAX];
        struct stat info;
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0 ||
            snprintf(child, sizeof child, "%s/%s", folder, entry->d_name) >= FAULT_PATH_MAX ||
            lstat(child, &info) != 0) {
            continue;
        }
        if (S_ISDIR(info.st_mode)) {
            found = fault_holds(child, bytes, size, path);
        } else {
            base_buffer data = fault_read_file(child);
            found = memmem(data.data, data.size, bytes, size) != NULL;
            base_buffer_free(&data);
            if (found) {
                snprintf(path, FAULT_PATH_MAX, "%s", child);
            }
        }
    }
    if (stream) {
        closedir(stream);
    }
    return found;
}

#endif
