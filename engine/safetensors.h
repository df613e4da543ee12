/* engine/safetensors.h: safetensors files, read-only by memory map. Format: the specification of
 * the safetensors project: header size u64 | JSON header | tensor data. Everything is checked
 * against the size of the file; a damaged file is an error that names the place, never a crash.
 */
#ifndef ENGINE_SAFETENSORS_H
#define ENGINE_SAFETENSORS_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

enum { SAFETENSORS_DIMENSIONS_MAX = 8 };

typedef struct safetensors_file safetensors_file;

typedef struct safetensors_tensor {
    const char *name; /* NUL-terminated; this and data are valid while the file is open */
    char type[8];     /* "F32", "BF16" ... as in the file */
    size_t dimensions;
    uint64_t
        shape[SAFETENSORS_DIMENSIONS_MAX]; /* shape[dimensions - 1] varies fastest; unused = 1 */
    const uint8_t *data;                   /* may be unaligned: the format does not promise more */
    size_t size;                           /* bytes, equal to what shape and type demand */
} safetensors_tensor;

/* Errors: BASE_NOT_FOUND, BASE_CORRUPT, BASE_UNSUPPORTED (a type of values that is not known). */
base_status safetensors_open(const char *path, safetensors_file **out, base_error *err);
/* The same from memory that outlives the file; name stands for the path in messages. */
base_status safetensors_open_memory(const char *name, const void *data, size_t size,
                                    safetensors_file **out, base_error *err);
void safetensors_close(safetensors_file *file);
const char *safetensors_path(const safetensors_file *file);

/* In the order of the header. */
size_t safetensors_count(const safetensors_file *file);
const safetensors_tensor *safetensors_at(const safetensors_file *file, size_t index);
const safetensors_tensor *safetensors_find(const safetensors_file *file, const char *name);

#endif
