/* tests/gpu/synthetic.c: a GGUF v3 file (specification of the ggml project) with random weights.
 *
 * Quantised tensors get random code bytes and chosen scales instead of rounded values: every code
 * occurs, and nothing has to be encoded. The norms are near 1; a matrix of K columns has weights of
 * standard deviation near 1/sqrt(K).
 */
#include "tests/gpu/synthetic.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/mem.h"
#include "base/rng.h"

enum { ALIGNMENT = 32, TENSORS_MAX = 4096, GGUF_U32 = 4, GGUF_F32 = 6, GGUF_STRING = 8 };

typedef struct tensor {
    char name[64];
    uint32_t type;
    size_t rows, columns, size;
} tensor;

typedef struct writer {
    FILE *file;
    tensor *tensors;
    size_t count;
    uint64_t keys;
    base_buffer header;
    base_rng rng;
} writer;

static void put(writer *w, const void *data, size_t size)
{
    (void)base_buffer_append(&w->header, data, size);
}

static void put_u32(writer *w, uint32_t value)
{
    uint8_t bytes[4];
    base_put_u32(bytes, value);
    put(w, bytes, sizeof bytes);
}

static void put_u64(writer *w, uint64_t value)
{
    uint8_t bytes[8];
    base_put_u64(bytes, value);
    put(w, bytes, sizeof bytes);
}

static void put_text(writer *w, const char *text)
{
    put_u64(w, strlen(text));
    put(w, text, strlen(text));
}

static void key_u32(writer *w, const char *key, size_t value)
{
    put_text(w, key);
    put_u32(w, GGUF_U32);
    put_u32(w, (uint32_t)value);
    w->keys++;
}

static void key_f32(writer *w, const char *key, float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    put_text(w, key);
    put_u32(w, GGUF_F32);
    put_u32(w, bits);
    w->keys++;
}

static void add(writer *w, const char *name, uint32_t type, size_t rows, size_t columns)
{
    tensor *t = &w->tensors[w->count++];
    snprintf(t->name, sizeof t->name, "%s", name);
    t->type = type;
    t->rows = rows;
    t->columns = columns;
    t->size = rows * kernel_source_row_bytes(type, columns);
}

static void add_layer(writer *w, const synthetic_shape *s, size_t layer)
{
    const struct {
        const char *name;
        uint32_t type;
        size_t rows, columns;
    } list[] = {
        {"attn_norm", KERNEL_SRC_F32, 1, s->channels},
        {"attn_q", s->type, s->heads * s->head_size, s->channels},
        {"attn_k", s->type, s->kv_heads * s->head_size, s->channels},
        {"attn_v", s->value_type, s->kv_heads * s->head_size, s->channels},
        {"attn_output", s->type, s->channels, s->heads * s->head_size},
        {"ffn_norm", KERNEL_SRC_F32, 1, s->channels},
        {"ffn_gate", s->type, s->feed_forward, s->channels},
        {"ffn_up", s->up_type, s->feed_forward, s->channels},
        {"ffn_down", s->type, s->channels, s->feed_forward},
    };
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
        char name[64];
        snprintf(name, sizeof name, "blk.%zu.%s.weight", layer, list[i].name);
        add(w, name, list[i].type, list[i].rows, list[i].columns);
    }
}

/* --- random rows ------------------------------------------------------------------------------ */

static void put_half(uint8_t *to, float value)
{
    base_put_u16(to, kernel_float_to_half(value));
}

/* One block of a quantised type: codes are random bytes already; set the scales so that w has
 * deviation `sigma`. */
static void set_scales(uint32_t type, uint8_t *block, float sigma, base_rng *rng)
{
    float wobble = 0.5F + (float)base_rng_unit(rng), d;
    switch (type) {
    case KERNEL_SRC_Q4_0:
        put_half(block, sigma * wobble / 4.6F);
        break;
    case KERNEL_SRC_Q4_1:
        d = sigma * wobble / 4.6F;
        put_half(block, d);
        put_half(block + 2, -7.5F * d);
        break;
    case KERNEL_SRC_Q5_0:
        put_half(block, sigma * wobble / 9.2F);
        break;
    case KERNEL_SRC_Q5_1:
        d = sigma * wobble / 9.2F;
        put_half(block, d);
        put_half(block + 2, -15.5F * d);
        break;
    case KERNEL_SRC_Q8_0:
        put_half(block, sigma * wobble / 74.0F);
        break;
    case KERNEL_SRC_Q4_K:
    case KERNEL_SRC_Q5_K:
        d = sigma * wobble / (type == KERNEL_SRC_Q4_K ? 300.0F : 600.0F);
        put_half(block, d);
        put_half(block + 2, (type == KERNEL_SRC_Q4_K ? 7.5F : 15.5F) * d);
        break;
    default: /* Q6_K */
        put_half(block + 208, sigma * wobble / 1370.0F);
        break;
    }
}

static void random_rows(writer *w, const tensor *t, uint8_t *out, size_t bytes)
{
    float sigma = 1.0F / sqrtf((float)t->columns);
    for (size_t i = 0; i + 8 <= bytes; i += 8) {
        base_put_u64(out + i, base_rng_u64(&w->rng));
    }
    if (t->type == KERNEL_SRC_F32) {
        for (size_t i = 0; i < bytes / 4; i++) { /* norms: 0.75 to 1.25; matrices: uniform */
            float u = (float)(base_get_u32(out + 4 * i) >> 8) * 0x1p-24F;
            base_put_f32(out + 4 * i, t->rows == 1 ? 0.75F + 0.5F * u : (u - 0.5F) * 3.4F * sigma);
        }
    } else if (t->type == KERNEL_SRC_F16 || t->type == KERNEL_SRC_BF16) {
        /* Random sign, mantissa and one exponent bit around sigma. */
        bool bf16 = t->type == KERNEL_SRC_BF16;
        unsigned bits = bf16 ? 7 : 10, bias = bf16 ? 127 : 15;
        unsigned exponent = (unsigned)((int)bias + (int)floorf(log2f(sigma)) - 1);
        for (size_t i = 0; i < bytes / 2; i++) {
            unsigned r = base_get_u16(out + 2 * i), keep = (1U << bits) - 1U;
            unsigned value = (r & 0x8000U) | (exponent + (r >> 14 & 1U)) << bits | (r & keep);
            base_put_u16(out + 2 * i, (uint16_t)value);
        }
    } else {
        size_t per = t->type >= KERNEL_SRC_Q4_K ? 256 : 32;
        size_t block = kernel_source_row_bytes(t->type, per);
        for (size_t at = 0; at + block <= bytes; at += block) {
            set_scales(t->type, out + at, sigma, &w->rng);
        }
    }
}

static base_status write_tensor(writer *w, const tensor *t, base_error *err)
{
    size_t row = t->size / t->rows, batch = (4 << 20) / row + 1;
    uint8_t *rows = base_alloc(batch * row + ALIGNMENT);
    base_status status = rows ? BASE_OK : base_fail(err, BASE_NO_MEMORY, "no memory for rows");
    for (size_t done = 0; done < t->rows && !status;) {
        size_t count = t->rows - done < batch ? t->rows - done : batch;
        memset(rows + count * row, 0, ALIGNMENT);
        random_rows(w, t, rows, count * row);
        done += count;
        size_t pad = done == t->rows ? (ALIGNMENT - t->size % ALIGNMENT) % ALIGNMENT : 0;
        if (fwrite(rows, 1, count * row + pad, w->file) != count * row + pad) {
            status = base_fail(err, BASE_IO, "cannot write %s", t->name);
        }
    }
    base_free(rows);
    return status;
}

static void write_header(writer *w, const synthetic_shape *s)
{
    put_text(w, "general.architecture");
    put_u32(w, GGUF_STRING);
    put_text(w, "llama");
    w->keys++;
    key_u32(w, "llama.block_count", s->layers);
    key_u32(w, "llama.embedding_length", s->channels);
    key_u32(w, "llama.attention.head_count", s->heads);
    key_u32(w, "llama.attention.head_count_kv", s->kv_heads);
    key_u32(w, "llama.attention.key_length", s->head_size);
    key_u32(w, "llama.rope.dimension_count", s->head_size);
    key_u32(w, "llama.feed_forward_length", s->feed_forward);
    key_u32(w, "llama.context_length", s->context);
    key_f32(w, "llama.attention.layer_norm_rms_epsilon", 1e-5F);
    key_f32(w, "llama.rope.freq_base", 10000.0F);
    size_t offset = 0;
    for (size_t i = 0; i < w->count; i++) {
        const tensor *t = &w->tensors[i];
        put_text(w, t->name);
        put_u32(w, t->rows == 1 ? 1 : 2);
        put_u64(w, t->columns);
        if (t->rows != 1) {
            put_u64(w, t->rows);
        }
        put_u32(w, t->type);
        put_u64(w, offset);
        offset += (t->size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    }
}

base_status synthetic_write(const char *path, const synthetic_shape *s, uint64_t seed,
                            base_error *err)
{
    writer w = {.tensors = base_calloc(TENSORS_MAX, sizeof(tensor))};
    base_status status = BASE_OK;
    uint8_t start[24], zero[ALIGNMENT] = {0};
    base_rng_seed(&w.rng, seed);
    if (!w.tensors) {
        return base_fail(err, BASE_NO_MEMORY, "no memory for %s", path);
    }
    add(&w, "token_embd.weight", s->embedding_type, s->vocabulary, s->channels);
    for (size_t i = 0; i < s->layers; i++) {
        add_layer(&w, s, i);
    }
    add(&w, "output_norm.weight", KERNEL_SRC_F32, 1, s->channels);
    if (s->untied) {
        add(&w, "output.weight", s->embedding_type, s->vocabulary, s->channels);
    }
    write_header(&w, s);
    memcpy(start, "GGUF", 4);
    base_put_u32(start + 4, 3);
    base_put_u64(start + 8, w.count);
    base_put_u64(start + 16, w.keys);
    size_t pad = (ALIGNMENT - (sizeof start + w.header.size) % ALIGNMENT) % ALIGNMENT;
    w.file = fopen(path, "wb");
    if (!w.file || fwrite(start, 1, sizeof start, w.file) != sizeof start ||
        fwrite(w.header.data, 1, w.header.size, w.file) != w.header.size ||
        fwrite(zero, 1, pad, w.file) != pad) {
        status = base_fail(err, BASE_IO, "cannot write %s", path);
    }
    for (size_t i = 0; i < w.count && !status; i++) {
        status = write_tensor(&w, &w.tensors[i], err);
    }
    if (w.file && fclose(w.file) != 0 && !status) {
        status = base_fail(err, BASE_IO, "cannot write %s", path);
    }
    base_buffer_free(&w.header);
    base_free(w.tensors);
    return status;
}
