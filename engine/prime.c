/* engine/prime.c: see prime.h. The map is that of Hybrid Model Factory's Stage 0 (hybrid layers
 * from attention layers): W_q, W_k, W_v, W_o as they are, without expanding KV heads; gate rows
 * (W_o^T + W_v repeated row by row)/2; A uniform in (0, 16), dt log-uniform in [0.001, 0.1]. Two
 * deviations: the convolution is a unit tap at lag 0 instead of noise, and each head's factor is 0.
 */
#include "engine/prime.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/rng.h"
#include "engine/gguf_keys.h"
#include "engine/model.h"

enum { WINDOW_DEFAULT = 1024, CONV_KERNEL = 4, NAME_SIZE = 96 };

typedef struct new_tensor {
    char name[NAME_SIZE];
    uint32_t type;
    size_t columns, rows; /* rows 0: a vector */
    const void *data;
    void *owned; /* data, if it was made here */
    size_t size;
} new_tensor;

typedef struct priming {
    const core_model *model;
    const prime_options *options;
    base_rng rng;
    new_tensor *tensors;
    size_t count, capacity;
    gguf_keys head;
    base_status status; /* the first failure: everything behind it does nothing */
    base_error *err;
} priming;

/* --- keys ------------------------------------------------------------------------------------- */

static bool chosen(const priming *p, size_t layer)
{
    return p->options->layers ? p->options->layers[layer] : layer % 2 == 1;
}

static void write_keys(priming *p)
{
    size_t window = p->options->window ? p->options->window : WINDOW_DEFAULT;
    const char *kind = mixer_name(p->options->mixer);
    gguf_keys *k = &p->head;
    gguf_keys_text(k, "general.architecture", "bmojo", 5);
    gguf_keys_text(k, "bmojo.base_architecture", p->model->architecture,
                   strlen(p->model->architecture));
    gguf_keys_copy_file(k, p->model->file, "", "general.architecture");
    gguf_keys_array(k, "bmojo.layer_kinds", GGUF_KEYS_U8, p->model->shape.layers);
    for (size_t i = 0; i < p->model->shape.layers; i++) {
        gguf_keys_number(k, GGUF_KEYS_U8, chosen(p, i));
    }
    gguf_keys_u32(k, "bmojo.window", window);
    gguf_keys_u32(k, "bmojo.attention_window", 2 * window);
    gguf_keys_u32(k, "bmojo.sinks", CORE_SINKS_MIN);
    gguf_keys_bool(k, "bmojo.fading_residual", true);
    gguf_keys_bool(k, "bmojo.tied", true);
    gguf_keys_text(k, "bmojo.ssm.kind", kind, strlen(kind));
    gguf_keys_u32(k, "bmojo.ssm.conv_kernel", CONV_KERNEL);
    gguf_keys_f32(k, "bmojo.ssm.norm_eps", p->options->mixer == MIXER_GKA ? 1e-6 : 1e-5);
    if (p->options->mixer == MIXER_GKA) {
        gguf_keys_u32(k, "bmojo.ssm.iterations", 30);
        gguf_keys_f32(k, "bmojo.ssm.ridge", 0.02);
    }
}

/* --- tensors ---------------------------------------------------------------------------------- */

static new_tensor *add(priming *p)
{
    if (!p->status && p->count == p->capacity) {
        size_t capacity = 2 * p->capacity + 256;
        new_tensor *grown = base_realloc(p->tensors, capacity * sizeof *grown);
        if (grown) {
            p->tensors = grown;
            p->capacity = capacity;
        } else {
            p->status = base_fail(p->err, BASE_NO_MEMORY, "no memory for the hybrid");
        }
    }
    if (p->status) {
        return NULL;
    }
    p->tensors[p->count] = (new_tensor){0};
    return &p->tensors[p->count++];
}

/* A tensor of the file under its own or another name. */
static void copy(priming *p, const gguf_tensor *tensor, const char *name)
{
    new_tensor *t = add(p);
    if (t) {
        if (name) {
            snprintf(t->name, sizeof t->name, "%s", name);
        } else {
            BASE_ASSERT(tensor->name.size < sizeof t->name);
            memcpy(t->name, tensor->name.data, tensor->name.size);
        }
        t->type = tensor->type;
        t->columns = (size_t)tensor->shape[0];
        t->rows = tensor->dimensions > 1 ? (size_t)tensor->shape[1] : 0;
        t->data = tensor->data;
        t->size = tensor->size;
    }
}

/* blk.LAYER.NAME in F32 [rows, columns], rows 0 = a vector; zeros for the caller to fill. */
static float *make(priming *p, size_t layer, const char *name, size_t rows, size_t columns)
{
    new_tensor *t = add(p);
    if (!t) {
        return NULL;
    }
    snprintf(t->name, sizeof t->name, "blk.%zu.%s", layer, name);
    t->rows = rows;
    t->columns = columns;
    t->size = (rows ? rows : 1) * columns * sizeof(float);
    t->data = t->owned = base_calloc(1, t->size);
    if (!t->owned) {
        p->status = base_fail(p->err, BASE_NO_MEMORY, "no memory for %s", t->name);
    }
    return t->owned;
}

static void fill(float *x, size_t count, float value)
{
    for (size_t i = 0; x && i < count; i++) {
        x[i] = value;
    }
}

static void draw(priming *p, float *x, size_t count)
{
    for (size_t i = 0; x && i < count; i++) {
        x[i] = 0.02f * (float)base_rng_normal(&p->rng);
    }
}

static const gguf_tensor *of_layer(const priming *p, size_t layer, const char *name)
{
    char full[NAME_SIZE];
    snprintf(full, sizeof full, "blk.%zu.%s.weight", layer, name);
    return gguf_find_tensor(p->model->file, full);
}

static void row_of(const gguf_tensor *tensor, size_t row, float *out)
{
    size_t columns = (size_t)tensor->shape[0];
    kernel_source_dequantise_row(
        tensor->type, tensor->data + row * kernel_source_row_bytes(tensor->type, columns), columns,
        out);
}

/* Can row_of read all of its rows? */
static bool holds_rows(const gguf_tensor *tensor)
{
    size_t bytes = kernel_source_known(tensor->type)
                       ? kernel_source_row_bytes(tensor->type, (size_t)tensor->shape[0])
                       : 0;
    return bytes > 0 && tensor->size / bytes >= tensor->shape[1];
}

base_status prime_gate(const gguf_tensor *output, const gguf_tensor *value, gguf_tensor *gate,
                       uint8_t **owned, base_error *err)
{
    size_t rows = (size_t)output->shape[0], channels = (size_t)output->shape[1];
    size_t value_rows = (size_t)value->shape[1], repeat = value_rows ? rows / value_rows : 0;
    if (repeat == 0 || value->shape[0] != channels || !holds_rows(output) || !holds_rows(value)) {
        return base_fail(err, BASE_CORRUPT, "tensor %.*s does not fit the values' [%zu, %zu]",
                         (int)output->name.size, output->name.data, value_rows,
                         (size_t)value->shape[0]);
    }
    float *made = base_calloc(rows * channels, sizeof *made);
    float *work = base_calloc(rows > channels ? rows : channels, sizeof *work);
    if (!made || !work) {
        base_free(made);
        base_free(work);
        return base_fail(err, BASE_NO_MEMORY, "no memory for gate rows");
    }
    for (size_t c = 0; c < channels; c++) {
        row_of(output, c, work);
        for (size_t r = 0; r < rows; r++) {
            made[r * channels + c] = 0.5f * work[r];
        }
    }
    for (size_t r = 0; r < rows; r++) {
        row_of(value, r / repeat, work);
        for (size_t c = 0; c < channels; c++) {
            made[r * channels + c] += 0.5f * work[c];
        }
    }
    base_free(work);
    uint32_t type = channels % 32 == 0 ? KERNEL_SRC_Q8_0 : KERNEL_SRC_F32;
    size_t bytes = kernel_source_row_bytes(type, channels);
    for (size_t r = 0; r < rows && type == KERNEL_SRC_Q8_0; r++) { /* in place: it shrinks */
        kernel_source_quantise_q8_0(made + r * channels, channels, (uint8_t *)made + r * bytes);
    }
    *owned = (uint8_t *)made;
    *gate = (gguf_tensor){.type = type,
                          .dimensions = 2,
                          .shape = {channels, rows, 1, 1},
                          .data = *owned,
                          .size = rows * bytes};
    return BASE_OK;
}

static void make_gate(priming *p, size_t layer)
{
    gguf_tensor gate;
    uint8_t *owned = NULL;
    new_tensor *t = add(p);
    if (t) {
        p->status = prime_gate(of_layer(p, layer, "attn_output"), of_layer(p, layer, "attn_v"),
                               &gate, &owned, p->err);
    }
    if (owned) {
        snprintf(t->name, sizeof t->name, "blk.%zu.ssm_g.weight", layer);
        t->type = gate.type;
        t->rows = (size_t)gate.shape[1];
        t->columns = (size_t)gate.shape[0];
        t->data = t->owned = owned;
        t->size = gate.size;
    }
}

/* The convolution passes the newest row on as it is. */
static void make_conv(priming *p, size_t layer, const char *name, size_t channels, bool bias)
{
    char full[NAME_SIZE];
    snprintf(full, sizeof full, "ssm_conv_%s.weight", name);
    float *conv = make(p, layer, full, channels, CONV_KERNEL);
    for (size_t c = 0; conv && c < channels; c++) {
        conv[c * CONV_KERNEL + CONV_KERNEL - 1] = 1.0f;
    }
    snprintf(full, sizeof full, "ssm_conv_%s.bias", name);
    if (bias) {
        (void)make(p, layer, full, 0, channels);
    }
}

static void make_decay(priming *p, size_t layer, size_t heads)
{
    float *a = make(p, layer, "ssm_a", 0, heads), *dt = make(p, layer, "ssm_dt", 0, heads);
    for (size_t h = 0; a && dt && h < heads; h++) {
        double step = exp(base_rng_unit(&p->rng) * (log(0.1) - log(0.001)) + log(0.001));
        a[h] = -(float)fmax(16.0 * base_rng_unit(&p->rng), 1e-3);
        dt[h] = (float)(step + log(-expm1(-step))); /* softplus of it is step */
    }
}

static void make_mixer(priming *p, size_t layer)
{
    const core_shape *s = &p->model->shape;
    static const char *const copied[][2] = {
        {"attn_q", "ssm_q"},      {"attn_k", "ssm_k"},           {"attn_v", "ssm_v"},
        {"attn_output", "ssm_o"}, {"attn_q_norm", "ssm_q_norm"}, {"attn_k_norm", "ssm_k_norm"}};
    mixer_kind kind = p->options->mixer;
    bool mamba2 = kind == MIXER_MAMBA2;
    size_t q_rows = s->heads * s->head_size, kv_rows = s->kv_heads * s->head_size;
    for (size_t i = 0; i < (mamba2 ? 6U : 4U); i++) {
        const gguf_tensor *tensor = of_layer(p, layer, copied[i][0]);
        char name[NAME_SIZE];
        snprintf(name, sizeof name, "blk.%zu.%s.weight", layer, copied[i][1]);
        if (tensor) {
            copy(p, tensor, name);
        }
    }
    make_gate(p, layer);
    make_conv(p, layer, "q", q_rows, mamba2);
    make_conv(p, layer, "k", kv_rows, mamba2);
    make_conv(p, layer, "v", kv_rows, mamba2);
    draw(p, make(p, layer, "ssm_decay.weight", s->heads, s->channels), s->heads * s->channels);
    make_decay(p, layer, s->heads);
    if (!mamba2) {
        draw(p, make(p, layer, "ssm_beta.weight", s->heads, s->channels), s->heads * s->channels);
    }
    if (kind == MIXER_GKA) {
        (void)make(p, layer, "ssm_beta.bias", 0, s->heads);
        draw(p, make(p, layer, "ssm_alpha.weight", s->heads, s->channels), s->heads * s->channels);
        (void)make(p, layer, "ssm_alpha.bias", 0, s->heads);
    }
    if (mamba2) {
        fill(make(p, layer, "ssm_d", 0, s->heads), s->heads, 1.0f);
    }
    size_t norm = mamba2 ? q_rows : s->head_size;
    fill(make(p, layer, "ssm_norm.weight", 0, norm), norm, 1.0f);
    (void)make(p, layer, "ssm_gate", 0, s->heads); /* 0: the mixer is not heard yet */
}

/* --- the file --------------------------------------------------------------------------------- */

static void pad(priming *p, base_buffer *out, size_t alignment)
{
    static const uint8_t zeros[256];
    while (!p->status && out->size % alignment != 0) {
        size_t left = alignment - out->size % alignment;
        if (base_buffer_append(out, zeros, left < sizeof zeros ? left : sizeof zeros)) {
            p->status = base_fail(p->err, BASE_NO_MEMORY, "no memory for the hybrid");
        }
    }
}

static void write_file(priming *p, const char *to)
{
    uint64_t alignment = 32, offset = 0;
    (void)gguf_get_u64(p->model->file, "general.alignment", &alignment);
    base_buffer out = {0};
    for (size_t i = 0; i < p->count; i++) {
        const new_tensor *t = &p->tensors[i];
        gguf_keys_tensor(&p->head, t->name, t->type, t->columns, t->rows, offset);
        offset += (t->size + alignment - 1) / alignment * alignment;
    }
    if (!p->status && gguf_keys_file(&p->head, &out)) {
        p->status = base_fail(p->err, BASE_NO_MEMORY, "no memory for the hybrid");
    }
    pad(p, &out, (size_t)alignment);
    for (size_t i = 0; i < p->count && !p->status; i++) {
        if (base_buffer_append(&out, p->tensors[i].data, p->tensors[i].size)) {
            p->status = base_fail(p->err, BASE_NO_MEMORY, "no memory for the hybrid");
        }
        pad(p, &out, (size_t)alignment);
    }
    if (!p->status) {
        p->status = base_file_replace(to, out.data, out.size, 0644, p->err);
    }
    base_buffer_free(&out);
}

base_status prime_model(const char *from, const char *to, const prime_options *options,
                        base_error *err)
{
    core_model *model = NULL;
    base_status status = core_model_open(from, NULL, NULL, &model, err);
    if (status) {
        return status;
    }
    priming p = {.model = model, .options = options, .err = err};
    size_t layers = model->shape.layers, count = options->layers ? options->layer_count : layers;
    base_rng_seed(&p.rng, options->seed);
    if (model->mixer_layers > 0) {
        p.status = base_fail(err, BASE_INVALID, "%s: is a hybrid already", from);
    }
    for (size_t i = layers; i < count && !p.status; i++) {
        if (options->layers[i]) {
            p.status = base_fail(err, BASE_INVALID, "%s: there is no layer %zu, only %zu", from, i,
                                 layers);
        }
    }
    if (!p.status) {
        write_keys(&p);
    }
    for (size_t i = 0; i < gguf_tensor_count(model->file) && !p.status; i++) {
        copy(&p, gguf_tensor_at(model->file, i), NULL);
    }
    for (size_t i = 0; i < layers && !p.status; i++) {
        if (chosen(&p, i)) {
            make_mixer(&p, i);
        }
    }
    if (!p.status) {
        write_file(&p, to);
    }
    for (size_t i = 0; i < p.count; i++) {
        base_free(p.tensors[i].owned);
    }
    base_free(p.tensors);
    base_buffer_free(&p.head.bytes);
    core_model_close(model);
    return p.status;
}
