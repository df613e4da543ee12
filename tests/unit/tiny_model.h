/* tests/unit/tiny_model.h: a random model with F32 weights, as a GGUF file in a temporary place and
 * as plain arrays for reference computations in the tests. Nothing here checks anything.
 */
#ifndef TESTS_TINY_MODEL_H
#define TESTS_TINY_MODEL_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/rng.h"
#include "tests/unit/make_gguf.h"

enum {
    TINY_LAYERS = 2,
    TINY_C = 32,
    TINY_H = 4,
    TINY_G = 2,
    TINY_D = 8,
    TINY_F = 48,
    TINY_V = 64,
    TINY_QKV = (TINY_H + 2 * TINY_G) * TINY_D,
    TINY_TENSORS_MAX = 64
};

typedef struct tiny_tensor {
    char name[64];
    size_t rows, columns;
    float *data; /* [rows, columns] */
} tiny_tensor;

typedef struct tiny_model {
    tiny_tensor tensors[TINY_TENSORS_MAX];
    size_t count;
    base_rng rng;
    char path[4096];
} tiny_model;

/* A tensor with weights of deviation `scale`; vectors (rows 1) are near `mean`. */
static inline tiny_tensor *tiny_add(tiny_model *m, const char *name, size_t rows, size_t columns,
                                    float mean, float scale)
{
    tiny_tensor *t = &m->tensors[m->count++];
    snprintf(t->name, sizeof t->name, "%s", name);
    t->rows = rows;
    t->columns = columns;
    t->data = malloc(rows * columns * sizeof(float));
    if (!t->data || m->count == TINY_TENSORS_MAX) {
        abort();
    }
    for (size_t i = 0; i < rows * columns; i++) {
        t->data[i] = mean + scale * (float)base_rng_normal(&m->rng);
    }
    return t;
}

static inline const float *tiny_find(const tiny_model *m, const char *name)
{
    for (size_t i = 0; i < m->count; i++) {
        if (strcmp(m->tensors[i].name, name) == 0) {
            return m->tensors[i].data;
        }
    }
    fprintf(stderr, "no tensor %s\n", name);
    abort();
}

static inline const float *tiny_layer(const tiny_model *m, size_t layer, const char *name)
{
    char full[96];
    snprintf(full, sizeof full, "blk.%zu.%s.weight", layer, name);
    return tiny_find(m, full);
}

/* The llama-architecture tensors. */
static inline void tiny_begin(tiny_model *m, uint64_t seed)
{
    const struct {
        const char *name;
        size_t rows, columns;
    } list[] = {{"attn_norm", 1, TINY_C},
                {"attn_q", TINY_H * TINY_D, TINY_C},
                {"attn_k", TINY_G * TINY_D, TINY_C},
                {"attn_v", TINY_G * TINY_D, TINY_C},
                {"attn_output", TINY_C, TINY_H * TINY_D},
                {"ffn_norm", 1, TINY_C},
                {"ffn_gate", TINY_F, TINY_C},
                {"ffn_up", TINY_F, TINY_C},
                {"ffn_down", TINY_C, TINY_F}};
    *m = (tiny_model){0};
    base_rng_seed(&m->rng, seed);
    tiny_add(m, "token_embd.weight", TINY_V, TINY_C, 0, 1);
    for (size_t layer = 0; layer < TINY_LAYERS; layer++) {
        for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
            char name[64];
            bool vector = list[i].rows == 1;
            snprintf(name, sizeof name, "blk.%zu.%s.weight", layer, list[i].name);
            tiny_add(m, name, list[i].rows, list[i].columns, vector ? 1.0f : 0.0f,
                     vector ? 0.1f : 1.0f / sqrtf((float)list[i].columns));
        }
    }
    tiny_add(m, "output_norm.weight", 1, TINY_C, 1, 0.1f);
}

static inline void tiny_key(make_gguf *g, const char *architecture, const char *key, uint32_t value)
{
    char name[128];
    snprintf(name, sizeof name, "%s.%s", architecture, key);
    make_key_u32(g, name, value);
}

/* Write the file; its path is m->path. */
static inline void tiny_write(tiny_model *m, const char *architecture)
{
    make_gguf g = {0};
    const char *tmp = getenv("TMPDIR");
    snprintf(m->path, sizeof m->path, "%s/eidetic-tiny-XXXXXX", tmp ? tmp : "/tmp");
    int file = mkstemp(m->path);
    make_header(&g, 3, m->count, 7);
    make_key_text(&g, "general.architecture", architecture);
    tiny_key(&g, architecture, "block_count", TINY_LAYERS);
    tiny_key(&g, architecture, "embedding_length", TINY_C);
    tiny_key(&g, architecture, "attention.head_count", TINY_H);
    tiny_key(&g, architecture, "attention.head_count_kv", TINY_G);
    tiny_key(&g, architecture, "feed_forward_length", TINY_F);
    tiny_key(&g, architecture, "context_length", 1024);
    uint64_t offset = 0;
    for (size_t i = 0; i < m->count; i++) {
        const tiny_tensor *t = &m->tensors[i];
        make_text(&g, t->name);
        make_u32(&g, t->rows == 1 ? 1 : 2);
        make_u64(&g, t->columns);
        if (t->rows > 1) {
            make_u64(&g, t->rows);
        }
        make_u32(&g, 0); /* F32 */
        make_u64(&g, offset);
        offset += (t->rows * t->columns * sizeof(float) + 31) / 32 * 32;
    }
    make_padding(&g, 32);
    for (size_t i = 0; i < m->count; i++) {
        const tiny_tensor *t = &m->tensors[i];
        make_bytes(&g, t->data, t->rows * t->columns * sizeof(float));
        make_padding(&g, 32);
    }
    if (file < 0 || write(file, g.data, g.size) != (ssize_t)g.size || close(file) != 0) {
        abort();
    }
    make_free(&g);
}

static inline void tiny_end(tiny_model *m)
{
    for (size_t i = 0; i < m->count; i++) {
        free(m->tensors[i].data);
    }
    if (m->path[0]) {
        unlink(m->path);
    }
}

#endif
