/* tests/unit/make_gguf.h: writes GGUF files into memory, and puts bytes against a guard page so
 * that reading one too many ends the test. Nothing here checks anything.
 */
#ifndef TESTS_MAKE_GGUF_H
#define TESTS_MAKE_GGUF_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/bytes.h"

typedef struct make_gguf {
    uint8_t *data;
    size_t size, capacity;
} make_gguf;

static inline void make_bytes(make_gguf *m, const void *data, size_t size)
{
    if (m->size + size > m->capacity) {
        m->capacity = 2 * (m->size + size) + 256;
        m->data = realloc(m->data, m->capacity);
        if (!m->data) {
            abort();
        }
    }
    if (size > 0) {
        memcpy(m->data + m->size, data, size);
    }
    m->size += size;
}

static inline void make_u8(make_gguf *m, uint8_t value)
{
    make_bytes(m, &value, 1);
}

static inline void make_u32(make_gguf *m, uint32_t value)
{
    uint8_t bytes[4];
    base_put_u32(bytes, value);
    make_bytes(m, bytes, sizeof bytes);
}

static inline void make_u64(make_gguf *m, uint64_t value)
{
    uint8_t bytes[8];
    base_put_u64(bytes, value);
    make_bytes(m, bytes, sizeof bytes);
}

static inline void make_f32(make_gguf *m, float value)
{
    uint8_t bytes[4];
    base_put_f32(bytes, value);
    make_bytes(m, bytes, sizeof bytes);
}

static inline void make_text(make_gguf *m, const char *text)
{
    make_u64(m, strlen(text));
    make_bytes(m, text, strlen(text));
}

/* Numbers of the value types in a file. */
enum {
    MAKE_U8,
    MAKE_I8,
    MAKE_U16,
    MAKE_I16,
    MAKE_U32,
    MAKE_I32,
    MAKE_F32,
    MAKE_BOOL,
    MAKE_TEXT,
    MAKE_ARRAY,
    MAKE_U64,
    MAKE_I64,
    MAKE_F64
};

static inline void make_header(make_gguf *m, uint32_t version, uint64_t tensors, uint64_t keys)
{
    make_bytes(m, "GGUF", 4);
    make_u32(m, version);
    make_u64(m, tensors);
    make_u64(m, keys);
}

/* A key and the type of its value; the value is written next. */
static inline void make_key(make_gguf *m, const char *key, uint32_t type)
{
    make_text(m, key);
    make_u32(m, type);
}

static inline void make_array(make_gguf *m, const char *key, uint32_t type, uint64_t count)
{
    make_key(m, key, MAKE_ARRAY);
    make_u32(m, type);
    make_u64(m, count);
}

static inline void make_key_text(make_gguf *m, const char *key, const char *value)
{
    make_key(m, key, MAKE_TEXT);
    make_text(m, value);
}

static inline void make_key_u32(make_gguf *m, const char *key, uint32_t value)
{
    make_key(m, key, MAKE_U32);
    make_u32(m, value);
}

static inline void make_key_texts(make_gguf *m, const char *key, const char *const *texts,
                                  size_t count)
{
    make_array(m, key, MAKE_TEXT, count);
    for (size_t i = 0; i < count; i++) {
        make_text(m, texts[i]);
    }
}

/* Zeros up to a multiple of alignment. */
static inline void make_padding(make_gguf *m, size_t alignment)
{
    while (m->size % alignment != 0) {
        make_u8(m, 0);
    }
}

static inline void make_free(make_gguf *m)
{
    free(m->data);
    *m = (make_gguf){0};
}

/* A copy of data that ends where an unreadable page begins. */
typedef struct guarded {
    uint8_t *data;
    uint8_t *map;
    size_t map_size;
} guarded;

static inline guarded guarded_copy(const void *data, size_t size)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t room = (size + page) / page * page;
    guarded g = {.map_size = room + page};
    g.map = mmap(NULL, g.map_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (g.map == MAP_FAILED || mprotect(g.map + room, page, PROT_NONE) != 0) {
        abort();
    }
    g.data = g.map + room - size;
    if (size > 0) {
        memcpy(g.data, data, size);
    }
    return g;
}

static inline void guarded_free(guarded *g)
{
    munmap(g->map, g->map_size);
}

#endif
