/* ingest/watch.c: take in files as they change (inotify).
 *
 * Folders are watched, files never: an editor that writes a new file and renames it over the old
 * one is seen as well as one that writes in place. What is closed after writing, or moved in, waits
 * until nothing has happened for a while (debounce); then all of it becomes one commit. A file that
 * has grown since it was noted is still being written and waits again. Watches are set before the
 * first reading, so nothing falls between. When the kernel's queue overflows, everything is looked
 * at again: what is known costs little.
 *
 * A file that is gone by then is left alone: nothing is forgotten by deleting a file. A file under
 * a new name is a document of that name. Left out, as in base_dir_walk: hidden names; and links
 * that are made while watching.
 */
#include "ingest/watch.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"

/* Quiet so long: taken in. PATIENCE: something always happens, taken in all the same. A file that
 * never rests is read at its LOOKS_MAX-th look. */
enum { QUIET_MS = 300, PATIENCE_MS = 3000, POLL_MS = 500, LOOKS_MAX = 10, DEPTH_MAX = 64 };
#define MASK (IN_CLOSE_WRITE | IN_MOVED_TO | IN_CREATE | IN_ONLYDIR)

/* A watched folder. root: the operand it came by, which is the source of its documents. only: the
 * one name that counts, where a file was given, else NULL. */
typedef struct watched {
    int wd;
    char *folder, *root, *only;
} watched;

/* A file that may have changed, as it was when last looked at. */
typedef struct changed {
    char *path, *root;
    off_t size;
    struct timespec modified;
    unsigned looks;
} changed;

typedef struct watcher {
    int fd;
    watched *folders;
    size_t folder_count;
    changed *changes;
    size_t change_count, change_capacity;
    double first_ms; /* when the oldest of the changes was noted */
    bool overflowed; /* events were lost */
} watcher;

static base_status no_memory(base_error *err)
{
    return base_fail(err, BASE_NO_MEMORY, "no memory to watch folders");
}

/* --- what has changed ------------------------------------------------------------------------- */

/* Note a file that is there; anything else is no change. */
static base_status note_file(watcher *w, const char *path, const char *root, base_error *err)
{
    struct stat info;
    if (stat(path, &info) != 0 || !S_ISREG(info.st_mode)) {
        return BASE_OK;
    }
    if (w->change_count == w->change_capacity) {
        size_t capacity = w->change_capacity ? 2 * w->change_capacity : 64;
        changed *grown = base_realloc(w->changes, capacity * sizeof *grown);
        if (!grown) {
            return no_memory(err);
        }
        w->changes = grown;
        w->change_capacity = capacity;
    }
    changed c = {.path = base_strdup(path),
                 .root = base_strdup(root),
                 .size = info.st_size,
                 .modified = info.st_mtim};
    if (!c.path || !c.root) {
        base_free(c.path);
        base_free(c.root);
        return no_memory(err);
    }
    w->first_ms = w->change_count ? w->first_ms : base_clock_ms();
    w->changes[w->change_count++] = c;
    return BASE_OK;
}

/* The same for what an event names; a link may lead anywhere and is left out. */
static base_status note_event(watcher *w, const char *path, const char *root, base_error *err)
{
    struct stat info;
    bool is_file = lstat(path, &info) == 0 && S_ISREG(info.st_mode);
    return is_file ? note_file(w, path, root, err) : BASE_OK;
}

/* Note all files below a folder; one that vanishes meanwhile is no error. */
static base_status note_tree(watcher *w, const char *folder, const char *root, base_error *err)
{
    char **files = NULL;
    size_t count = 0;
    base_status status = base_dir_walk(folder, &files, &count, err);
    if (status == BASE_NOT_FOUND) {
        return BASE_OK;
    }
    for (size_t i = 0; i < count; i++) {
        status = status ? status : note_file(w, files[i], root, err);
        base_free(files[i]);
    }
    base_free(files);
    return status;
}

static void free_change(changed *c)
{
    base_free(c->path);
    base_free(c->root);
}

/* --- what is watched -------------------------------------------------------------------------- */

static void free_folder(watched *f)
{
    base_free(f->folder);
    base_free(f->root);
    base_free(f->only);
}

static base_status cannot_watch(const char *folder, int code, base_error *err)
{
    if (code == ENOSPC) {
        return base_fail(err, BASE_LIMIT,
                         "cannot watch %s: the system's limit of watched folders is reached "
                         "(fs.inotify.max_user_watches)",
                         folder);
    }
    return base_fail_errno(err, code, "cannot watch %s", folder);
}

static base_status watch_folder(watcher *w, const char *folder, const char *root, const char *only,
                                base_error *err)
{
    int wd = inotify_add_watch(w->fd, folder, MASK);
    if (wd < 0) {
        return cannot_watch(folder, errno, err);
    }
    watched *grown = base_realloc(w->folders, (w->folder_count + 1) * sizeof *grown);
    if (!grown) {
        return no_memory(err);
    }
    w->folders = grown;
    watched f = {wd, base_strdup(folder), base_strdup(root), only ? base_strdup(only) : NULL};
    if (!f.folder || !f.root || (only && !f.only)) {
        free_folder(&f);
        return no_memory(err);
    }
    for (size_t i = 0; i < w->folder_count; i++) {
        watched *old = &w->folders[i];
        if (old->wd == wd && strcmp(old->root, root) == 0 && !old->only == !only &&
            (!only || strcmp(old->only, only) == 0)) {
            free_folder(old); /* it was moved, or it is looked at again */
            *old = f;
            return BASE_OK;
        }
    }
    w->folders[w->folder_count++] = f;
    return BASE_OK;
}

/* A folder and all below it. One that vanishes meanwhile is no error, but for the first. */
static base_status watch_tree(watcher *w, const char *folder, const char *root, int depth,
                              base_error *err)
{
    base_status status = watch_folder(w, folder, root, NULL, err);
    if (status) {
        return status == BASE_NOT_FOUND && depth > 0 ? BASE_OK : status;
    }
    DIR *stream = opendir(folder);
    if (!stream) {
        return BASE_OK;
    }
    for (struct dirent *e = readdir(stream); e && !status; e = readdir(stream)) {
        char path[PATH_MAX];
        struct stat info;
        if (e->d_name[0] != '.' && depth < DEPTH_MAX &&
            base_path_join(path, sizeof path, folder, e->d_name) == BASE_OK &&
            lstat(path, &info) == 0 && S_ISDIR(info.st_mode)) {
            status = watch_tree(w, path, root, depth + 1, err);
        }
    }
    closedir(stream);
    return status;
}

/* Watch a file or folder, and note all that is there. */
static base_status watch_operand(watcher *w, const char *operand, base_error *err)
{
    char whole[PATH_MAX], folder[PATH_MAX];
    base_file_info info;
    base_status status = base_file_stat(operand, &info, err);
    if (status) {
        return status;
    }
    if (!realpath(operand, whole)) {
        return base_fail_errno(err, errno, "cannot watch %s", operand);
    }
    if (info.is_dir) {
        status = watch_tree(w, whole, whole, 0, err);
        return status ? status : note_tree(w, whole, whole, err);
    }
    if (!info.is_regular) {
        return base_fail(err, BASE_INVALID, "%s: neither a file nor a folder", operand);
    }
    memcpy(folder, whole, sizeof folder);
    char *slash = strrchr(folder, '/');
    slash[slash == folder] = 0;
    status = watch_folder(w, folder, folder, strrchr(whole, '/') + 1, err);
    return status ? status : note_file(w, whole, folder, err);
}

static base_status watch_operands(watcher *w, const char *const *operands, size_t count,
                                  base_error *err)
{
    base_status status = BASE_OK;
    for (size_t i = 0; i < count && !status; i++) {
        status = watch_operand(w, operands[i], err);
    }
    return status;
}

/* --- events ----------------------------------------------------------------------------------- */

/* The kernel has given up a folder, because it was deleted. */
static base_status drop_folder(watcher *w, int wd, base_error *err)
{
    size_t kept = 0;
    for (size_t i = 0; i < w->folder_count; i++) {
        if (w->folders[i].wd == wd) {
            free_folder(&w->folders[i]);
        } else {
            w->folders[kept++] = w->folders[i];
        }
    }
    w->folder_count = kept;
    return kept > 0 ? BASE_OK : base_fail(err, BASE_NOT_FOUND, "all that was watched is gone");
}

static base_status take_event(watcher *w, const struct inotify_event *e, base_error *err)
{
    base_status status = BASE_OK;
    if (e->mask & IN_Q_OVERFLOW) {
        w->overflowed = true;
        return BASE_OK;
    }
    if (e->mask & IN_IGNORED) {
        return drop_folder(w, e->wd, err);
    }
    size_t count = w->folder_count; /* it may grow below */
    for (size_t i = 0; i < count && !status; i++) {
        char path[PATH_MAX], root[PATH_MAX];
        const watched *f = &w->folders[i];
        if (f->wd != e->wd || e->len == 0 || e->name[0] == '.' ||
            (f->only && strcmp(f->only, e->name) != 0) ||
            base_path_join(path, sizeof path, f->folder, e->name) != BASE_OK) {
            continue;
        }
        memcpy(root, f->root, strlen(f->root) + 1); /* watching more may move f */
        if (!(e->mask & IN_ISDIR)) {
            bool whole = (e->mask & (IN_CLOSE_WRITE | IN_MOVED_TO)) != 0;
            status = whole ? note_event(w, path, root, err) : BASE_OK;
        } else if (!f->only) {
            /* Watched first: what comes into it from now on is seen, what is there is noted. */
            status = watch_tree(w, path, root, 1, err);
            status = status ? status : note_tree(w, path, root, err);
        }
    }
    return status;
}

static base_status take_events(watcher *w, base_error *err)
{
    union {
        struct inotify_event event; /* for its alignment */
        char bytes[16384];
    } buffer;
    ssize_t size = read(w->fd, buffer.bytes, sizeof buffer.bytes);
    if (size < 0) {
        return errno == EINTR || errno == EAGAIN
                   ? BASE_OK
                   : base_fail_errno(err, errno, "cannot read what changes");
    }
    base_status status = BASE_OK;
    for (ssize_t at = 0; at < size && !status;) {
        const struct inotify_event *e = (const void *)(buffer.bytes + at);
        status = take_event(w, e, err);
        at += (ssize_t)(sizeof *e + e->len);
    }
    return status;
}

/* --- taking it in ----------------------------------------------------------------------------- */

static int compare_changes(const void *a, const void *b)
{
    const changed *x = a, *y = b;
    int paths = strcmp(x->path, y->path);
    return paths ? paths : strcmp(x->root, y->root);
}

/* Is it as it was at the last look? If not, it is by now, and waits. */
static bool has_settled(changed *c)
{
    struct stat info;
    if (stat(c->path, &info) != 0 || ++c->looks >= LOOKS_MAX ||
        (info.st_size == c->size && info.st_mtim.tv_sec == c->modified.tv_sec &&
         info.st_mtim.tv_nsec == c->modified.tv_nsec)) {
        return true;
    }
    c->size = info.st_size;
    c->modified = info.st_mtim;
    return false;
}

static base_status read_change(ingest *in, const changed *c, base_error *err)
{
    struct stat info;
    bool is_there = stat(c->path, &info) == 0 && S_ISREG(info.st_mode);
    return is_there ? ingest_read_file(in, c->path, c->root, err) : BASE_OK;
}

/* Read what has settled and commit it. What waits on stays, in order. */
static base_status take_in(watcher *w, ingest *in, const ingest_watch_options *o, int64_t now_us,
                           base_error *err)
{
    size_t kept = 0;
    base_status status = BASE_OK;
    bool *waits = base_calloc(w->change_count + 1, sizeof *waits);
    if (!waits) {
        return no_memory(err);
    }
    ingest_set_now(in, now_us);
    qsort(w->changes, w->change_count, sizeof *w->changes, compare_changes);
    for (size_t i = 0; i < w->change_count && !status; i++) {
        if (i > 0 && compare_changes(&w->changes[i - 1], &w->changes[i]) == 0) {
            continue; /* noted twice */
        }
        waits[i] = !has_settled(&w->changes[i]);
        status = waits[i] ? BASE_OK : read_change(in, &w->changes[i], err);
    }
    status = status ? status : ingest_commit(in, true, err);
    status = status || !o->on_commit ? status : o->on_commit(o->argument, now_us, err);
    for (size_t i = 0; i < w->change_count && !status; i++) {
        if (waits[i]) {
            w->changes[kept++] = w->changes[i];
        } else {
            free_change(&w->changes[i]);
        }
    }
    w->change_count = status ? w->change_count : kept;
    w->first_ms = base_clock_ms();
    base_free(waits);
    return status;
}

/* The same; while another process writes for long, all of it goes on waiting. */
static base_status try_to_take_in(watcher *w, ingest *in, const ingest_watch_options *o,
                                  int64_t now_us, base_error *err)
{
    base_error problem = {0};
    base_status status = take_in(w, in, o, now_us, &problem);
    if (status == BASE_BUSY) {
        base_log(BASE_LOG_WARN, "%s: tried again later", problem.text);
        return BASE_OK;
    }
    return status ? base_fail(err, status, "%s", problem.text) : BASE_OK;
}

static base_status watch(watcher *w, ingest *in, const char *const *operands, size_t count,
                         const ingest_watch_options *o, base_error *err)
{
    double begin_ms = base_clock_ms();
    int64_t begin_us = ingest_get_options(in)->now_us, now_us = begin_us;
    base_status status = watch_operands(w, operands, count, err);
    status = status ? status : try_to_take_in(w, in, o, now_us, err);
    while (!status && !*o->stop) {
        struct pollfd ready = {.fd = w->fd, .events = POLLIN};
        bool waits = w->change_count > 0 || w->overflowed;
        int events = poll(&ready, 1, waits ? QUIET_MS : POLL_MS);
        if (events < 0 && errno != EINTR) {
            status = base_fail_errno(err, errno, "cannot wait for changes");
        } else if (events > 0) {
            status = take_events(w, err);
        } else if (events == 0 && w->overflowed) {
            w->overflowed = false;
            status = watch_operands(w, operands, count, err);
        }
        bool due = events == 0 || base_clock_ms() - w->first_ms >= PATIENCE_MS;
        if (!status && w->change_count > 0 && due && !*o->stop) {
            now_us = begin_us + (int64_t)((base_clock_ms() - begin_ms) * 1e3);
            status = try_to_take_in(w, in, o, now_us, err);
        }
    }
    return status == BASE_CANCELLED && *o->stop ? BASE_OK : status;
}

base_status ingest_watch(ingest *in, const char *const *operands, size_t count,
                         const ingest_watch_options *options, base_error *err)
{
    watcher w = {.fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK)};
    if (w.fd < 0) {
        return base_fail_errno(err, errno, "cannot watch files");
    }
    base_status status = watch(&w, in, operands, count, options, err);
    for (size_t i = 0; i < w.change_count; i++) {
        free_change(&w.changes[i]);
    }
    for (size_t i = 0; i < w.folder_count; i++) {
        free_folder(&w.folders[i]);
    }
    base_free(w.folders);
    base_free(w.changes);
    close(w.fd);
    return status;
}
