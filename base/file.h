/* base/file.h: whole files, read-only maps, durable replacement, folders. Paths are UTF-8,
 * NUL-terminated. */
#ifndef BASE_FILE_H
#define BASE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/mem.h"
#include "base/status.h"

typedef struct base_map {
    const uint8_t *data; /* read-only; valid until base_map_close */
    size_t size;
} base_map;

/* Map a regular file read-only. An empty file gives size 0. Errors name the path. */
base_status base_map_open(const char *path, base_map *map, base_error *err);
void base_map_close(base_map *map);

/* Read a whole file (or "-" = standard input) into buffer; BASE_LIMIT if larger than size_max. */
base_status base_file_read(const char *path, size_t size_max, base_buffer *out, base_error *err);

/* Replace path durably: write path.tmp, fsync, rename, fsync the folder. After BASE_OK the new
 * content survives power loss; on error the old file is still there whole. mode e.g. 0600. */
base_status base_file_replace(const char *path, const void *data, size_t size, unsigned mode,
                              base_error *err);

/* Rename a file or folder that is synced already, and fsync the folder it comes to lie in. A folder
 * takes the place of an empty one. */
base_status base_file_move(const char *from, const char *to, base_error *err);

/* fsync a file or folder by path. */
base_status base_file_sync(const char *path, base_error *err);

/* Create a folder and its parents (mode 0700); existing folders are fine. */
base_status base_dir_create(const char *path, base_error *err);

typedef struct base_file_info {
    bool is_dir, is_regular;
    uint64_t size;
    int64_t modified_us; /* microseconds since 1970 */
} base_file_info;
base_status base_file_stat(const char *path, base_file_info *info, base_error *err);

/* All regular files below path (or path itself), sorted by byte order. Left out: hidden names,
 * symlinked folders, and links that lead to a file outside of path (a warning in the log). The
 * caller frees each name and the array with base_free. BASE_LIMIT above 10 million files. */
base_status base_dir_walk(const char *path, char ***files, size_t *count, base_error *err);

/* "a" + "/" + "b" into out; BASE_LIMIT if it does not fit. */
base_status base_path_join(char *out, size_t out_size, const char *a, const char *b);

#endif
