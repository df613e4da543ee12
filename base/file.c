/* base/file.c: files and folders through POSIX calls. Interrupted calls are taken up again; short
 * writes are continued. */
#include "base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"

#define PATH_SIZE 4096
#define READ_STEP ((size_t)1 << 16)
#define WALK_FILES_MAX ((size_t)10000000)

static int open_retry(const char *path, int flags, mode_t mode)
{
    int fd;
    do {
        fd = open(path, flags | O_CLOEXEC, mode);
    } while (fd < 0 && errno == EINTR);
    return fd;
}

base_status base_map_open(const char *path, base_map *map, base_error *err)
{
    int fd = open_retry(path, O_RDONLY, 0);
    if (fd < 0) {
        return base_fail_errno(err, errno, "cannot open %s", path);
    }
    base_status status = BASE_OK;
    struct stat info;
    if (fstat(fd, &info) != 0) {
        status = base_fail_errno(err, errno, "cannot stat %s", path);
    } else if (!S_ISREG(info.st_mode)) {
        status = base_fail(err, BASE_INVALID, "%s is not a regular file", path);
    } else if (info.st_size == 0) {
        map->data = NULL;
        map->size = 0;
    } else {
        size_t size = (size_t)info.st_size;
        void *data = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
        if (data == MAP_FAILED) {
            status = base_fail_errno(err, errno, "cannot map %s", path);
        } else {
            map->data = data;
            map->size = size;
        }
    }
    close(fd);
    return status;
}

void base_map_close(base_map *map)
{
    if (map->data) {
        munmap((void *)(uintptr_t)map->data, map->size);
    }
    map->data = NULL;
    map->size = 0;
}

/* Read fd to its end. The buffer's own cap stays in force besides size_max. */
static base_status read_all(int fd, const char *path, size_t size_max, base_buffer *out,
                            base_error *err)
{
    char step[READ_STEP];
    size_t total = 0;
    for (;;) {
        ssize_t got = read(fd, step, sizeof step);
        if (got < 0) {
            if (errno == EINTR) {
                continue;
            }
            return base_fail_errno(err, errno, "cannot read %s", path);
        }
        if (got == 0) {
            /* Makes data a valid empty string when nothing was read. */
            base_status status = base_buffer_append(out, "", 0);
            return status == BASE_OK ? BASE_OK : base_fail(err, status, "cannot read %s", path);
        }
        if ((size_t)got > size_max - total) {
            return base_fail(err, BASE_LIMIT, "%s is larger than the limit of %zu bytes", path,
                             size_max);
        }
        total += (size_t)got;
        base_status status = base_buffer_append(out, step, (size_t)got);
        if (status != BASE_OK) {
            return base_fail(err, status, "cannot read %s after %zu bytes: %s", path, total,
                             base_status_text(status));
        }
    }
}

base_status base_file_read(const char *path, size_t size_max, base_buffer *out, base_error *err)
{
    if (strcmp(path, "-") == 0) {
        return read_all(STDIN_FILENO, "standard input", size_max, out, err);
    }
    int fd = open_retry(path, O_RDONLY, 0);
    if (fd < 0) {
        return base_fail_errno(err, errno, "cannot open %s", path);
    }
    base_status status = read_all(fd, path, size_max, out, err);
    close(fd);
    return status;
}

static base_status write_all(int fd, const char *path, const void *data, size_t size,
                             base_error *err)
{
    const char *p = data;
    while (size > 0) {
        ssize_t put = write(fd, p, size);
        if (put < 0) {
            if (errno == EINTR) {
                continue;
            }
            return base_fail_errno(err, errno, "cannot write %s", path);
        }
        p += put;
        size -= (size_t)put;
    }
    return BASE_OK;
}

/* The folder that holds path, "." when it names none. */
static base_status path_parent(const char *path, char *out, size_t out_size)
{
    const char *slash = strrchr(path, '/');
    size_t length = slash ? (size_t)(slash - path) : 1;
    if (length + 1 > out_size) {
        return BASE_LIMIT;
    }
    if (!slash) {
        out[0] = '.';
    } else if (length == 0) {
        out[0] = '/';
        length = 1;
    } else {
        memcpy(out, path, length);
    }
    out[length] = '\0';
    return BASE_OK;
}

base_status base_file_sync(const char *path, base_error *err)
{
    int fd = open_retry(path, O_RDONLY, 0);
    if (fd < 0) {
        return base_fail_errno(err, errno, "cannot open %s", path);
    }
    base_status status = BASE_OK;
    if (fsync(fd) != 0) {
        status = base_fail_errno(err, errno, "cannot sync %s", path);
    }
    close(fd);
    return status;
}

base_status base_file_move(const char *from, const char *to, base_error *err)
{
    char parent[PATH_SIZE];
    if (path_parent(to, parent, sizeof parent) != BASE_OK) {
        return base_fail(err, BASE_LIMIT, "path is too long: %.80s...", to);
    }
    if (rename(from, to) != 0) {
        return base_fail_errno(err, errno, "cannot rename %s to %s", from, to);
    }
    return base_file_sync(parent, err);
}

base_status base_file_replace(const char *path, const void *data, size_t size, unsigned mode,
                              base_error *err)
{
    char temporary[PATH_SIZE];
    int length = snprintf(temporary, sizeof temporary, "%s.tmp", path);
    if (length < 0 || (size_t)length >= sizeof temporary) {
        return base_fail(err, BASE_LIMIT, "path is too long: %.80s...", path);
    }
    int fd = open_retry(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, (mode_t)mode);
    if (fd < 0) {
        return base_fail_errno(err, errno, "cannot create %s", temporary);
    }
    base_status status = write_all(fd, temporary, data, size, err);
    if (status == BASE_OK && fsync(fd) != 0) {
        status = base_fail_errno(err, errno, "cannot sync %s", temporary);
    }
    if (close(fd) != 0 && status == BASE_OK) {
        status = base_fail_errno(err, errno, "cannot close %s", temporary);
    }
    if (status == BASE_OK) {
        status = base_file_move(temporary, path, err);
    }
    if (status != BASE_OK) {
        unlink(temporary); /* is gone already when only the sync of the folder failed */
    }
    return status;
}

base_status base_dir_create(const char *path, base_error *err)
{
    char part[PATH_SIZE];
    size_t length = strlen(path);
    if (length == 0) {
        return base_fail(err, BASE_INVALID, "cannot create a folder with an empty name");
    }
    if (length >= sizeof part) {
        return base_fail(err, BASE_LIMIT, "path is too long: %.80s...", path);
    }
    for (size_t i = 1; i <= length; i++) {
        if (path[i] != '/' && path[i] != '\0') {
            continue;
        }
        memcpy(part, path, i);
        part[i] = '\0';
        struct stat info;
        if (mkdir(part, 0700) == 0) {
            continue;
        }
        int code = errno;
        if (stat(part, &info) != 0) {
            return base_fail_errno(err, code, "cannot create folder %s", part);
        }
        if (!S_ISDIR(info.st_mode)) {
            return base_fail(err, BASE_EXISTS, "%s exists and is not a folder", part);
        }
    }
    return BASE_OK;
}

base_status base_file_stat(const char *path, base_file_info *info, base_error *err)
{
    struct stat raw;
    if (stat(path, &raw) != 0) {
        return base_fail_errno(err, errno, "cannot stat %s", path);
    }
    info->is_dir = S_ISDIR(raw.st_mode);
    info->is_regular = S_ISREG(raw.st_mode);
    info->size = raw.st_size > 0 ? (uint64_t)raw.st_size : 0;
    info->modified_us = (int64_t)raw.st_mtim.tv_sec * 1000000 + raw.st_mtim.tv_nsec / 1000;
    return BASE_OK;
}

base_status base_path_join(char *out, size_t out_size, const char *a, const char *b)
{
    size_t length = strlen(a);
    const char *separator = length > 0 && a[length - 1] == '/' ? "" : "/";
    int written = snprintf(out, out_size, "%s%s%s", a, separator, b);
    return written >= 0 && (size_t)written < out_size ? BASE_OK : BASE_LIMIT;
}

/* --- walking a folder ------------------------------------------------------------------------- */

typedef struct name_list {
    char **items;
    size_t count, capacity;
} name_list;

static void name_list_free(name_list *list)
{
    for (size_t i = 0; i < list->count; i++) {
        base_free(list->items[i]);
    }
    base_free(list->items);
    list->items = NULL;
    list->count = list->capacity = 0;
}

static base_status name_list_add(name_list *list, const char *name)
{
    if (list->count == WALK_FILES_MAX) {
        return BASE_LIMIT;
    }
    if (list->count == list->capacity) {
        size_t capacity = list->capacity ? list->capacity * 2 : 64, size;
        if (!base_size_mul(capacity, sizeof *list->items, &size)) {
            return BASE_LIMIT;
        }
        char **items = base_realloc(list->items, size);
        if (!items) {
            return BASE_NO_MEMORY;
        }
        list->items = items;
        list->capacity = capacity;
    }
    char *copy = base_strdup(name);
    if (!copy) {
        return BASE_NO_MEMORY;
    }
    list->items[list->count++] = copy;
    return BASE_OK;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Does a link's target lie below root? */
static bool lies_within(const char *root, const char *link)
{
    char whole_root[PATH_MAX], target[PATH_MAX];
    if (!realpath(root, whole_root) || !realpath(link, target)) {
        return false;
    }
    size_t size = strlen(whole_root);
    return strncmp(target, whole_root, size) == 0 && (size == 1 || target[size] == '/');
}

/* Put the entries of one folder into files and pending folders. What vanishes meanwhile is left
 * out. */
static base_status walk_folder(const char *root, const char *folder, name_list *files,
                               name_list *pending, base_error *err)
{
    DIR *stream = opendir(folder);
    if (!stream) {
        return base_fail_errno(err, errno, "cannot open folder %s", folder);
    }
    base_status status = BASE_OK;
    while (status == BASE_OK) {
        errno = 0;
        struct dirent *entry = readdir(stream);
        if (!entry) {
            if (errno != 0) {
                status = base_fail_errno(err, errno, "cannot read folder %s", folder);
            }
            break;
        }
        if (entry->d_name[0] == '.') {
            continue;
        }
        char path[PATH_SIZE];
        if (base_path_join(path, sizeof path, folder, entry->d_name) != BASE_OK) {
            status = base_fail(err, BASE_LIMIT, "path is too long in folder %.200s", folder);
            break;
        }
        struct stat here, target;
        if (lstat(path, &here) != 0 || stat(path, &target) != 0) {
            continue;
        }
        if (S_ISLNK(here.st_mode) && !lies_within(root, path)) {
            base_log(BASE_LOG_WARN, "%s leads out of %s: left out", path, root);
        } else if (S_ISREG(target.st_mode)) {
            status = name_list_add(files, path);
        } else if (S_ISDIR(here.st_mode)) {
            status = name_list_add(pending, path);
        }
        if (status != BASE_OK) {
            base_fail(err, status, "cannot list %s: %s", folder, base_status_text(status));
        }
    }
    closedir(stream);
    return status;
}

base_status base_dir_walk(const char *path, char ***files, size_t *count, base_error *err)
{
    name_list found = {0}, pending = {0};
    struct stat info;
    if (stat(path, &info) != 0) {
        return base_fail_errno(err, errno, "cannot open %s", path);
    }
    base_status status;
    if (S_ISDIR(info.st_mode)) {
        status = name_list_add(&pending, path);
    } else if (S_ISREG(info.st_mode)) {
        status = name_list_add(&found, path);
    } else {
        return base_fail(err, BASE_INVALID, "%s is neither a file nor a folder", path);
    }
    if (status != BASE_OK) {
        base_fail(err, status, "cannot list %s: %s", path, base_status_text(status));
    }
    while (status == BASE_OK && pending.count > 0) {
        char *folder = pending.items[--pending.count];
        status = walk_folder(path, folder, &found, &pending, err);
        base_free(folder);
    }
    name_list_free(&pending);
    if (status != BASE_OK) {
        name_list_free(&found);
        return status;
    }
    if (found.count > 1) {
        qsort(found.items, found.count, sizeof *found.items, compare_names);
    }
    *files = found.items;
    *count = found.count;
    return BASE_OK;
}
