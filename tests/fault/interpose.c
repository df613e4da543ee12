/* tests/fault/interpose.c: see interpose.h. The real call is made as a system call, so that this
 * works in a library that is preloaded as well as in a program that is linked with it. */
#include "tests/fault/interpose.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { DESCRIPTORS = 4096, STREAMS = 16, PATH_SIZE = 4096 };
enum { PASS, FAIL, HALF, DIE, DIE_HALF };

static struct {
    char root[PATH_SIZE];
    size_t root_size; /* 0 = nothing is watched */
    char *paths[DESCRIPTORS];
    int flags[DESCRIPTORS];
    struct {
        FILE *file;
        char path[PATH_SIZE];
        int64_t offset;
    } streams[STREAMS];
    int fault, code;        /* FAIL ... DIE_HALF and the errno of FAIL; PASS = none */
    bool for_ever;
    interpose_class class;  /* of the fault */
    uint64_t at;
    atomic_ullong counts[INTERPOSE_CLASSES];
    const char *counts_path;
    void (*seen)(void *argument, const interpose_op *op);
    void *argument;
} at_work;

/* --- what is watched ------------------------------------------------------------------------- */

static bool watched(const char *path)
{
    return at_work.root_size > 0 && strncmp(path, at_work.root, at_work.root_size) == 0 &&
           (path[at_work.root_size] == '/' || path[at_work.root_size] == 0);
}

static const char *watched_path(int fd)
{
    return fd >= 0 && fd < DESCRIPTORS ? at_work.paths[fd] : NULL;
}

void interpose_watch(const char *root, void (*seen)(void *argument, const interpose_op *op),
                     void *argument)
{
    at_work.root_size = 0;
    if (root) {
        at_work.root_size = (size_t)snprintf(at_work.root, sizeof at_work.root, "%s", root);
    }
    at_work.seen = seen;
    at_work.argument = argument;
}

static void tell(interpose_op op)
{
    if (at_work.seen) {
        struct stat info;
        if (op.kind != INTERPOSE_UNLINK && op.kind != INTERPOSE_RMDIR) {
            op.inode = stat(op.to ? op.to : op.path, &info) == 0 ? info.st_ino : op.inode;
        }
        at_work.seen(at_work.argument, &op);
    }
}

static uint64_t inode_of(int fd)
{
    struct stat info;
    return fstat(fd, &info) == 0 ? info.st_ino : 0;
}

/* --- the fault ------------------------------------------------------------------------------- */

static const struct {
    const char *name;
    int fault, code;
    bool for_ever;
    interpose_class class;
} kinds[] = {
    {"kill", DIE, 0, false, INTERPOSE_ALL},       {"killmid", DIE_HALF, 0, false, INTERPOSE_ALL},
    {"enospc", FAIL, ENOSPC, false, INTERPOSE_SPACE}, {"full", FAIL, ENOSPC, true, INTERPOSE_SPACE},
    {"eio", FAIL, EIO, false, INTERPOSE_ALL},     {"short", HALF, 0, false, INTERPOSE_WRITE},
    {"sync", FAIL, EIO, false, INTERPOSE_SYNC},
};

__attribute__((constructor)) static void interpose_begin(void)
{
    const char *root = getenv("EIDETIC_FAULT_ROOT"), *fault = getenv("EIDETIC_FAULT");
    at_work.counts_path = getenv("EIDETIC_FAULT_COUNTS");
    if (root) {
        interpose_watch(root, NULL, NULL);
    }
    for (size_t i = 0; fault && i < sizeof kinds / sizeof *kinds; i++) {
        size_t size = strlen(kinds[i].name);
        if (strncmp(fault, kinds[i].name, size) == 0 && fault[size] == ':') {
            at_work.fault = kinds[i].fault;
            at_work.code = kinds[i].code;
            at_work.for_ever = kinds[i].for_ever;
            at_work.class = kinds[i].class;
            at_work.at = strtoull(fault + size + 1, NULL, 10);
        }
    }
}

__attribute__((destructor)) static void interpose_end(void)
{
    FILE *file = at_work.counts_path ? fopen(at_work.counts_path, "w") : NULL;
    for (int i = 0; file && i < INTERPOSE_CLASSES; i++) {
        fprintf(file, "%llu\n", (unsigned long long)at_work.counts[i]);
    }
    if (file) {
        fclose(file);
    }
}

static void die(void)
{
    syscall(SYS_kill, getpid(), SIGKILL);
}

/* What is to happen at this operation; it belongs to INTERPOSE_ALL and the given classes. */
static int decide(bool space, bool write, bool sync)
{
    bool member[INTERPOSE_CLASSES] = {true, space, write, sync};
    int verdict = PASS;
    for (int i = 0; i < INTERPOSE_CLASSES; i++) {
        if (member[i]) {
            uint64_t number = atomic_fetch_add(&at_work.counts[i], 1) + 1;
            if (at_work.fault != PASS && (int)at_work.class == i &&
                (number == at_work.at || (at_work.for_ever && number > at_work.at))) {
                verdict = at_work.fault;
            }
        }
    }
    if (verdict == DIE) {
        die();
    }
    return verdict;
}

/* An operation that is done whole or not at all. */
#define WHOLE(space, write, sync, call, type)           \
    do {                                                \
        int verdict = decide(space, write, sync);       \
        if (verdict == FAIL) {                          \
            errno = at_work.code;                       \
            return (type)-1;                            \
        }                                               \
        result = (type)(call);                          \
        if (verdict == DIE_HALF) {                      \
            die();                                      \
        }                                               \
    } while (0)

/* --- opening and closing --------------------------------------------------------------------- */

static int open_watched(const char *path, int flags, mode_t mode)
{
    int result;
    struct stat info;
    if (!watched(path)) {
        return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
    }
    bool makes = (flags & O_CREAT) && stat(path, &info) != 0;
    if (makes || (flags & O_TRUNC)) {
        WHOLE(makes, false, false, syscall(SYS_openat, AT_FDCWD, path, flags, mode), int);
    } else {
        result = (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
    }
    if (result >= 0 && result < DESCRIPTORS) {
        free(at_work.paths[result]);
        at_work.paths[result] = strdup(path);
        at_work.flags[result] = flags;
        if (makes) {
            tell((interpose_op){.kind = INTERPOSE_CREATE, .path = path});
        } else if (flags & O_TRUNC) {
            tell((interpose_op){.kind = INTERPOSE_RESIZE, .path = path});
        }
    }
    return result;
}

#define OPEN(name)                                  \
    int name(const char *path, int flags, ...)      \
    {                                               \
        mode_t mode = 0;                            \
        if (flags & O_CREAT) {                      \
            va_list args;                           \
            va_start(args, flags);                  \
            mode = va_arg(args, mode_t);            \
            va_end(args);                           \
        }                                           \
        return open_watched(path, flags, mode);     \
    }
OPEN(open)
OPEN(open64)

int close(int fd)
{
    if (watched_path(fd)) {
        free(at_work.paths[fd]);
        at_work.paths[fd] = NULL;
    }
    return (int)syscall(SYS_close, fd);
}

/* --- writing --------------------------------------------------------------------------------- */

static ssize_t write_watched(int fd, const struct iovec *parts, int count, off_t offset)
{
    size_t size = 0;
    for (int i = 0; i < count; i++) {
        size += parts[i].iov_len;
    }
    bool positioned = offset >= 0;
    const char *path = watched_path(fd);
    int verdict = path ? decide(true, true, false) : PASS;
    if (verdict == FAIL) {
        errno = at_work.code;
        return -1;
    }
    if (!positioned) {
        offset = lseek(fd, 0, SEEK_CUR);
    }
    char *joined = NULL;
    const void *data = parts[0].iov_base;
    if (path && count > 1 && (joined = malloc(size + 1))) {
        size_t used = 0;
        for (int i = 0; i < count; i++) {
            memcpy(joined + used, parts[i].iov_base, parts[i].iov_len);
            used += parts[i].iov_len;
        }
        data = joined;
    }
    size_t wanted = verdict == HALF || verdict == DIE_HALF ? size / 2 : size;
    ssize_t done;
    if (!path) {
        done = positioned ? (ssize_t)syscall(SYS_pwritev, fd, parts, count, offset, 0)
                          : (ssize_t)syscall(SYS_writev, fd, parts, count);
    } else {
        done = positioned ? (ssize_t)syscall(SYS_pwrite64, fd, data, wanted, offset)
                          : (ssize_t)syscall(SYS_write, fd, data, wanted);
    }
    if (verdict == DIE_HALF) {
        die();
    }
    if (path && done > 0) {
        tell((interpose_op){.kind = INTERPOSE_WRITES,
                            .path = path,
                            .inode = inode_of(fd),
                            .data = data,
                            .size = (size_t)done,
                            .offset = offset,
                            .durable = (at_work.flags[fd] & O_DSYNC) != 0});
    }
    free(joined);
    return done;
}

ssize_t write(int fd, const void *data, size_t size)
{
    struct iovec part = {(void *)(uintptr_t)data, size};
    return watched_path(fd) ? write_watched(fd, &part, 1, -1)
                            : (ssize_t)syscall(SYS_write, fd, data, size);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset)
{
    struct iovec part = {(void *)(uintptr_t)data, size};
    return write_watched(fd, &part, 1, offset);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off_t offset)
{
    return pwrite(fd, data, size, offset);
}

ssize_t writev(int fd, const struct iovec *parts, int count)
{
    return watched_path(fd) ? write_watched(fd, parts, count, -1)
                            : (ssize_t)syscall(SYS_writev, fd, parts, count);
}

static int resize(int fd, off_t size)
{
    int result;
    const char *path = watched_path(fd);
    if (!path) {
        return (int)syscall(SYS_ftruncate, fd, size);
    }
    struct stat info;
    bool grows = fstat(fd, &info) == 0 && info.st_size < size;
    WHOLE(grows, false, false, syscall(SYS_ftruncate, fd, size), int);
    if (result == 0) {
        tell((interpose_op){
            .kind = INTERPOSE_RESIZE, .path = path, .inode = inode_of(fd), .offset = size});
    }
    return result;
}

int ftruncate(int fd, off_t size)
{
    return resize(fd, size);
}

int ftruncate64(int fd, off_t size)
{
    return resize(fd, size);
}

/* --- making durable -------------------------------------------------------------------------- */

static int sync_watched(int fd, long number)
{
    int result;
    const char *path = watched_path(fd);
    if (!path) {
        return (int)syscall(number, fd);
    }
    WHOLE(false, false, true, syscall(number, fd), int);
    if (result == 0) {
        tell((interpose_op){.kind = INTERPOSE_FSYNC, .path = path, .inode = inode_of(fd)});
    }
    return result;
}

int fsync(int fd)
{
    return sync_watched(fd, SYS_fsync);
}

int fdatasync(int fd)
{
    return sync_watched(fd, SYS_fdatasync);
}

/* --- names ----------------------------------------------------------------------------------- */

int rename(const char *from, const char *to)
{
    int result;
    if (!watched(from) && !watched(to)) {
        return (int)syscall(SYS_rename, from, to);
    }
    WHOLE(false, false, false, syscall(SYS_rename, from, to), int);
    if (result == 0) {
        tell((interpose_op){.kind = INTERPOSE_RENAME, .path = from, .to = to});
    }
    return result;
}

#define BY_NAME(name, space, operation, parameters, ...)                  \
    int name parameters                                                   \
    {                                                                     \
        int result;                                                       \
        if (!watched(path)) {                                             \
            return (int)syscall(__VA_ARGS__);                             \
        }                                                                 \
        WHOLE(space, false, false, syscall(__VA_ARGS__), int);            \
        if (result == 0) {                                                \
            tell((interpose_op){.kind = operation, .path = path});        \
        }                                                                 \
        return result;                                                    \
    }
BY_NAME(unlink, false, INTERPOSE_UNLINK, (const char *path), SYS_unlink, path)
BY_NAME(rmdir, false, INTERPOSE_RMDIR, (const char *path), SYS_rmdir, path)
BY_NAME(mkdir, true, INTERPOSE_MKDIR, (const char *path, mode_t mode), SYS_mkdir, path, mode)

/* --- streams: FAISS writes its files through them -------------------------------------------- */

/* Keeps the compiler from turning a void pointer into a function by a cast that C does not know. */
#define REAL(type, name)                                  \
    static type real;                                     \
    if (!real) {                                          \
        *(void **)(void *)&real = dlsym(RTLD_NEXT, name); \
    }

FILE *fdopen(int fd, const char *mode)
{
    typedef FILE *(*function)(int, const char *);
    REAL(function, "fdopen");
    FILE *file = real(fd, mode);
    const char *path = watched_path(fd);
    for (int i = 0; file && path && i < STREAMS; i++) {
        if (!at_work.streams[i].file) {
            at_work.streams[i].file = file;
            at_work.streams[i].offset = 0;
            snprintf(at_work.streams[i].path, PATH_SIZE, "%s", path);
            break;
        }
    }
    return file;
}

size_t fwrite(const void *data, size_t size, size_t count, FILE *file)
{
    typedef size_t (*function)(const void *, size_t, size_t, FILE *);
    REAL(function, "fwrite");
    int i = 0;
    while (i < STREAMS && at_work.streams[i].file != file) {
        i++;
    }
    if (i == STREAMS || size * count == 0) {
        return real(data, size, count, file);
    }
    int verdict = decide(true, true, false);
    if (verdict == FAIL) {
        errno = at_work.code;
        return 0;
    }
    size_t done = real(data, size, verdict == PASS ? count : count / 2, file);
    if (verdict == DIE_HALF) {
        fflush(file);
        die();
    }
    tell((interpose_op){.kind = INTERPOSE_WRITES,
                        .path = at_work.streams[i].path,
                        .data = data,
                        .size = done * size,
                        .offset = at_work.streams[i].offset});
    at_work.streams[i].offset += (int64_t)(done * size);
    return done;
}

int fclose(FILE *file)
{
    typedef int (*function)(FILE *);
    REAL(function, "fclose");
    for (int i = 0; i < STREAMS; i++) {
        if (at_work.streams[i].file == file) {
            int fd = fileno(file);
            at_work.streams[i].file = NULL;
            free(at_work.paths[fd]);
            at_work.paths[fd] = NULL;
        }
    }
    return real(file);
}
