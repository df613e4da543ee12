/* engine/gguf_keys.c: see gguf_keys.h. Format: gguf.c. */
#include "engine/gguf_keys.h"

#include <string.h>

#include "base/bytes.h"

enum { TYPE_U32 = 4, TYPE_F32 = 6, TYPE_BOOL = 7, TYPE_ARRAY = 9 };

static void put(gguf_keys *k, const void *data, size_t size)
{
    k->status = k->status ? k->status : base_buffer_append(&k->bytes, data, size);
}

static void put_u32(gguf_keys *k, uint32_t value)
{
    uint8_t bytes[4];
    base_put_u32(bytes, value);
    put(k, bytes, sizeof bytes);
}

static void put_u64(gguf_keys *k, uint64_t value)
{
    uint8_t bytes[8];
    base_put_u64(bytes, value);
    put(k, bytes, sizeof bytes);
}

void gguf_keys_element(gguf_keys *k, const char *text, size_t size)
{
    put_u64(k, size);
    put(k, text, size);
}

static void begin(gguf_keys *k, const char *key, uint32_t type)
{
    gguf_keys_element(k, key, strlen(key));
    put_u32(k, type);
    k->count++;
}

void gguf_keys_u32(gguf_keys *k, const char *key, size_t value)
{
    begin(k, key, TYPE_U32);
    put_u32(k, (uint32_t)value);
}

void gguf_keys_f32(gguf_keys *k, const char *key, double value)
{
    uint8_t bytes[4];
    base_put_f32(bytes, (float)value);
    begin(k, key, TYPE_F32);
    put(k, bytes, sizeof bytes);
}

void gguf_keys_bool(gguf_keys *k, const char *key, bool value)
{
    begin(k, key, TYPE_BOOL);
    put(k, &(uint8_t){value}, 1);
}

void gguf_keys_text(gguf_keys *k, const char *key, const char *value, size_t size)
{
    begin(k, key, GGUF_KEYS_TEXT);
    gguf_keys_element(k, value, size);
}

void gguf_keys_array(gguf_keys *k, const char *key, uint32_t type, size_t count)
{
    begin(k, key, TYPE_ARRAY);
    put_u32(k, type);
    put_u64(k, count);
}

void gguf_keys_number(gguf_keys *k, uint32_t type, int32_t value)
{
    if (type == GGUF_KEYS_U8) {
        put(k, &(uint8_t){(uint8_t)value}, 1);
    } else {
        put_u32(k, (uint32_t)value);
    }
}

static bool begins(gguf_text text, const char *prefix)
{
    size_t size = strlen(prefix);
    return text.size >= size && memcmp(text.data, prefix, size) == 0;
}

void gguf_keys_copy_file(gguf_keys *k, const gguf_file *from, const char *prefix,
                         const char *except)
{
    for (size_t i = 0; i < gguf_key_count(from); i++) {
        gguf_text key;
        char ignored[8];
        size_t size = 0;
        gguf_key_at(from, i, &key, ignored, sizeof ignored);
        const uint8_t *bytes = gguf_key_bytes(from, i, &size);
        if (begins(key, prefix) && !(except && gguf_text_is(key, except))) {
            put(k, bytes, size);
            k->count++;
        }
    }
}

void gguf_keys_tensor(gguf_keys *k, const char *name, uint32_t type, size_t columns, size_t rows,
                      uint64_t offset)
{
    gguf_keys_element(k, name, strlen(name));
    put_u32(k, rows ? 2 : 1);
    put_u64(k, columns);
    if (rows) {
        put_u64(k, rows);
    }
    put_u32(k, type);
    put_u64(k, offset);
    k->tensors++;
}

base_status gguf_keys_file(const gguf_keys *k, base_buffer *out)
{
    uint8_t head[24] = {'G', 'G', 'U', 'F'};
    base_put_u32(head + 4, 3);
    base_put_u64(head + 8, k->tensors);
    base_put_u64(head + 16, k->count);
    base_status status = k->status ? k->status : base_buffer_append(out, head, sizeof head);
    return status ? status : base_buffer_append(out, k->bytes.data, k->bytes.size);
}
