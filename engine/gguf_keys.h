/* engine/gguf_keys.h: write the head of a GGUF v3 file: metadata, and behind it the table of
 * tensors. The first failure stays in status, and everything behind it does nothing. */
#ifndef ENGINE_GGUF_KEYS_H
#define ENGINE_GGUF_KEYS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/mem.h"
#include "engine/gguf.h"

typedef struct gguf_keys {
    base_buffer bytes; /* released by the caller */
    size_t count, tensors;
    base_status status; /* BASE_NO_MEMORY at most */
} gguf_keys;

enum { GGUF_KEYS_U8 = 0, GGUF_KEYS_I32 = 5, GGUF_KEYS_TEXT = 8 }; /* types of elements */

void gguf_keys_u32(gguf_keys *k, const char *key, size_t value);
void gguf_keys_f32(gguf_keys *k, const char *key, double value);
void gguf_keys_bool(gguf_keys *k, const char *key, bool value);
void gguf_keys_text(gguf_keys *k, const char *key, const char *value, size_t size);
/* An array: `count` elements of this type must follow, by the two calls below. */
void gguf_keys_array(gguf_keys *k, const char *key, uint32_t type, size_t count);
void gguf_keys_number(gguf_keys *k, uint32_t type, int32_t value);
void gguf_keys_element(gguf_keys *k, const char *text, size_t size);
/* The keys of a file, with their values, that begin with prefix ("": all), without `except` (NULL:
 * none). */
void gguf_keys_copy_file(gguf_keys *k, const gguf_file *from, const char *prefix,
                         const char *except);
/* An entry of the table of tensors, behind all keys. rows 0: a vector; offset: of its data behind
 * the aligned head. */
void gguf_keys_tensor(gguf_keys *k, const char *name, uint32_t type, size_t columns, size_t rows,
                      uint64_t offset);
/* The whole head, appended to out. */
base_status gguf_keys_file(const gguf_keys *k, base_buffer *out);

#endif
