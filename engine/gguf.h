/* engine/gguf.h: GGUF v2/v3 files, read-only by memory map. Reads all numbers with bounds checks; a
 * damaged file is an error that names the place (key or tensor and byte offset), never a crash.
 * Format: the GGUF specification of the ggml project.
 */
#ifndef ENGINE_GGUF_H
#define ENGINE_GGUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

typedef struct gguf_file gguf_file;

typedef struct gguf_text {
    const char *data; /* not NUL-terminated; valid while the file is open */
    size_t size;
} gguf_text;

/* Is it this word? Not when it is absent ({0}). */
bool gguf_text_is(gguf_text text, const char *word);

typedef struct gguf_tensor {
    gguf_text name;
    uint32_t type;       /* kernel_source_type or unknown */
    size_t dimensions;   /* 1..4 */
    uint64_t shape[4];   /* shape[0] = columns (fastest), unused = 1 */
    const uint8_t *data; /* inside the map */
    size_t size;         /* bytes, checked to lie inside the file; 0 for an unknown type */
} gguf_tensor;

/* Errors: BASE_NOT_FOUND, BASE_CORRUPT (wrong magic, truncated, absurd counts, tensor past the
 * end), BASE_VERSION. */
base_status gguf_open(const char *path, gguf_file **out, base_error *err);
/* The same from memory that outlives the file (tests, fuzzing); name stands for the path in
 * messages. */
base_status gguf_open_memory(const char *name, const void *data, size_t size, gguf_file **out,
                             base_error *err);
/* A file whose tensors lie elsewhere: keys from an image without tensors, the tensors as given
 * (name and data valid until release(owner) is called, by gguf_close or on failure). */
base_status gguf_open_parts(const char *name, const void *keys, size_t size,
                            const gguf_tensor *tensors, size_t tensor_count, void *owner,
                            void (*release)(void *owner), gguf_file **out, base_error *err);
void gguf_close(gguf_file *file);
const char *gguf_path(const gguf_file *file);

size_t gguf_tensor_count(const gguf_file *file);
const gguf_tensor *gguf_tensor_at(const gguf_file *file, size_t index);
const gguf_tensor *gguf_find_tensor(const gguf_file *file, const char *name); /* NULL when absent */

/* Metadata. False when the key is absent or has another type (any integer type is accepted where it
 * fits). */
bool gguf_get_u64(const gguf_file *file, const char *key, uint64_t *value);
bool gguf_get_f64(const gguf_file *file, const char *key, double *value);
bool gguf_get_bool(const gguf_file *file, const char *key, bool *value);
bool gguf_get_text(const gguf_file *file, const char *key, gguf_text *value);
/* Arrays: count, then elements by index. */
bool gguf_array_count(const gguf_file *file, const char *key, size_t *count);
bool gguf_array_text(const gguf_file *file, const char *key, size_t index, gguf_text *value);
bool gguf_array_i64(const gguf_file *file, const char *key, size_t index, int64_t *value);
bool gguf_array_f64(const gguf_file *file, const char *key, size_t index, double *value);
/* Visit all keys in file order, value shown as short text (for `eidetic model`). */
size_t gguf_key_count(const gguf_file *file);
/* The bytes of key `index` as they stand in a file: name, type, value; valid while the file is
 * open. */
const uint8_t *gguf_key_bytes(const gguf_file *file, size_t index, size_t *size);
void gguf_key_at(const gguf_file *file, size_t index, gguf_text *key, char *value,
                 size_t value_size);

#endif
