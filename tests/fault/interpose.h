/* tests/fault/interpose.h: calls of the C library that change files, seen and answered before they
 * reach the kernel. As libinterpose.so it is preloaded into the program; linked into a test it sees
 * what that test's libraries (LMDB, SQLite, FAISS) do.
 *
 * Only files below one folder are watched. Operations are numbered from 1 as they come.
 *
 *   EIDETIC_FAULT_ROOT=FOLDER        what is watched (absolute)
 *   EIDETIC_FAULT=KIND:N             what happens at the N-th operation of that kind's class
 *   EIDETIC_FAULT_COUNTS=FILE        at the end: how many operations of each class there were
 *
 *   kind      class     at the N-th
 *   kill      all       SIGKILL before it
 *   killmid   all       SIGKILL in the middle: half of a write is done, anything else is done whole
 *   enospc    space     fails with ENOSPC
 *   full      space     fails with ENOSPC, and so does every later one: the disk is full
 *   eio       all       fails with EIO
 *   short     write     writes half and says so
 *   sync      sync      fails with EIO
 *
 * space: writes, and what makes files, folders or files longer; write: writes; sync: fsync,
 * fdatasync, msync. Not seen: what a program changes through a shared map (LMDB's reader table,
 * SQLite's index of its log: neither outlives a process or a power loss).
 */
#ifndef INTERPOSE_H
#define INTERPOSE_H

#include <stddef.h>
#include <stdint.h>

typedef enum interpose_class {
    INTERPOSE_ALL,
    INTERPOSE_SPACE,
    INTERPOSE_WRITE,
    INTERPOSE_SYNC,
    INTERPOSE_CLASSES
} interpose_class;

typedef enum interpose_kind {
    INTERPOSE_CREATE, /* an empty regular file under a new name */
    INTERPOSE_MKDIR,
    INTERPOSE_WRITES, /* data at offset */
    INTERPOSE_RESIZE, /* to offset bytes */
    INTERPOSE_FSYNC,
    INTERPOSE_RENAME, /* path -> to */
    INTERPOSE_UNLINK,
    INTERPOSE_RMDIR
} interpose_kind;

/* One operation that has been done. inode: st_ino of the file or folder that it is about. */
typedef struct interpose_op {
    interpose_kind kind;
    const char *path, *to; /* path may be that of the opening: the file may since be renamed */
    uint64_t inode;
    const void *data;
    size_t size;
    int64_t offset;
    int durable; /* a write through a descriptor that was opened with O_SYNC or O_DSYNC */
} interpose_op;

/* Watch root (absolute, NULL: nothing) and tell each operation after it was done. For tests that
 * link this in; single-threaded. */
void interpose_watch(const char *root, void (*seen)(void *argument, const interpose_op *op),
                     void *argument);

#endif
