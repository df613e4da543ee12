/* engine/gguf_keys.h: write the metadata of a GGUF v3 file. The first failure stays in status, and
 * everything behind it does nothing. */
#ifndef ENGINE_GGUF_KEYS_H
#define ENGINE_GGUF_KEYS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/mem.h"

typedef struct gguf_keys {
    base_buffer bytes; /* released by the caller */
    size_t count;
    base_status status;
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
/* A whole file with these keys and no tensors, appended to out. */
base_status gguf_keys_file(const gguf_keys *k, base_buffer *out);

#endif
