/* engine/model.c: load a GGUF of the llama family (llama, qwen2, qwen3), or with recurrent layers
 * (mamba2, granitehybrid), into packed matrices.
 *
 * Query, key and value rows are packed as one matrix, gate and up rows as another: one pass over
 * the activations instead of three and two. Row order of Q and K is the file's (GGUF stores them
 * for rotation of adjacent pairs). Not here: running the model (core.c), mixers (model_fading.c,
 * model_recurrent.c), adapters (adapter.c).
 */
#include "engine/model.h"

#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "engine/folder.h"

/* Bounds on what a file may claim; far above any model that fits this engine. */
enum { LAYERS_MAX = 512, CHANNELS_MAX = 65536, VOCABULARY_MAX = 4 << 20, CONTEXT_LIMIT = 1 << 24 };

base_status core_read_size(const gguf_file *file, const char *key, size_t max, size_t *out,
                           base_error *err)
{
    uint64_t value = 0;
    if (!gguf_get_u64(file, key, &value)) {
        return base_fail(err, BASE_CORRUPT, "%s: key %s is missing", gguf_path(file), key);
    }
    if (value == 0 || value > max) {
        return base_fail(err, BASE_CORRUPT, "%s: key %s has the impossible value %llu",
                         gguf_path(file), key, (unsigned long long)value);
    }
    *out = (size_t)value;
    return BASE_OK;
}

const char *core_key(const core_model *model, const char *name, char out[CORE_KEY_SIZE])
{
    snprintf(out, CORE_KEY_SIZE, "%s.%s", model->architecture, name);
    return out;
}

static base_status read_architecture(core_model *model, base_error *err)
{
    static const struct {
        const char *name;
        bool halves;
    } known[] = {{"llama", false},
                 {"qwen2", true},
                 {"qwen3", true},
                 {"mamba2", false},
                 {"granitehybrid", false}};
    const gguf_file *file = model->file;
    gguf_text text;
    if (!gguf_get_text(file, "general.architecture", &text)) {
        return base_fail(err, BASE_CORRUPT, "%s: key general.architecture is missing",
                         gguf_path(file));
    }
    model->fading = gguf_text_is(text, "bmojo");
    if (model->fading && !gguf_get_text(file, "bmojo.base_architecture", &text)) {
        return base_fail(err, BASE_CORRUPT, "%s: key bmojo.base_architecture is missing",
                         gguf_path(file));
    }
    for (size_t i = 0; i < (model->fading ? 3U : sizeof known / sizeof *known); i++) {
        if (gguf_text_is(text, known[i].name)) {
            model->architecture = known[i].name;
            model->rope_halves = known[i].halves;
            (void)gguf_get_bool(file, "eidetic.rope_halves", &model->rope_halves);
            return BASE_OK;
        }
    }
    return base_fail(err, BASE_UNSUPPORTED,
                     "%s: architecture '%.*s' is not supported (supported: llama, qwen2, qwen3, "
                     "mamba2, granitehybrid, bmojo)",
                     gguf_path(file), (int)(text.size < 64 ? text.size : 64), text.data);
}

/* One number, or one for each layer, 0 where it has no attention (granitehybrid). */
static base_status read_kv_heads(core_model *model, base_error *err)
{
    const gguf_file *file = model->file;
    core_shape *shape = &model->shape;
    char key[CORE_KEY_SIZE];
    uint64_t number = 0;
    size_t count = 0;
    core_key(model, "attention.head_count_kv", key);
    if (!gguf_array_count(file, key, &count)) {
        shape->kv_heads = gguf_get_u64(file, key, &number) ? (size_t)number : shape->heads;
        return BASE_OK;
    }
    if (count != shape->layers) {
        return base_fail(err, BASE_CORRUPT, "%s: key %s must have %zu elements", gguf_path(file),
                         key, shape->layers);
    }
    for (size_t i = 0; i < count; i++) {
        int64_t heads = -1;
        if (!gguf_array_i64(file, key, i, &heads) || heads < 0 || heads > 1024 ||
            (heads > 0 && shape->kv_heads > 0 && (size_t)heads != shape->kv_heads)) {
            return base_fail(err, BASE_UNSUPPORTED, "%s: key %s, layer %zu: %lld KV heads",
                             gguf_path(file), key, i, (long long)heads);
        }
        shape->kv_heads = heads > 0 ? (size_t)heads : shape->kv_heads;
    }
    return BASE_OK;
}

static base_status read_attention(core_model *model, base_error *err)
{
    const gguf_file *file = model->file;
    core_shape *shape = &model->shape;
    char key[CORE_KEY_SIZE];
    base_status status;
    if ((status = core_read_size(file, core_key(model, "attention.head_count", key), 1024,
                                 &shape->heads, err)) ||
        (status = read_kv_heads(model, err))) {
        return status;
    }
    uint64_t number = 0;
    if (shape->kv_heads == 0 || shape->heads % shape->kv_heads != 0 ||
        (shape->channels % shape->heads != 0 &&
         !gguf_get_u64(file, core_key(model, "attention.key_length", key), &number))) {
        return base_fail(err, BASE_CORRUPT, "%s: %zu channels, %zu heads, %zu KV heads do not fit",
                         gguf_path(file), shape->channels, shape->heads, shape->kv_heads);
    }
    shape->head_size = shape->channels / shape->heads;
    if (gguf_get_u64(file, core_key(model, "attention.key_length", key), &number)) {
        shape->head_size = (size_t)number;
    }
    size_t rotated = gguf_get_u64(file, core_key(model, "rope.dimension_count", key), &number)
                         ? (size_t)number
                         : shape->head_size;
    if (shape->head_size == 0 || shape->head_size > 512 || shape->head_size % 2 != 0 ||
        rotated != shape->head_size || shape->kv_heads * shape->head_size > CORE_KV_WIDTH_MAX) {
        return base_fail(err, BASE_UNSUPPORTED, "%s: head size %zu with %zu rotated dimensions",
                         gguf_path(file), shape->head_size, rotated);
    }
    double real = 0;
    shape->rope_base =
        gguf_get_f64(file, core_key(model, "rope.freq_base", key), &real) ? (float)real : 10000.0f;
    gguf_text scaling;
    if (gguf_get_text(file, core_key(model, "rope.scaling.type", key), &scaling) &&
        !gguf_text_is(scaling, "none")) {
        return base_fail(err, BASE_UNSUPPORTED, "%s: RoPE scaling '%.*s' is not supported",
                         gguf_path(file), (int)(scaling.size < 64 ? scaling.size : 64),
                         scaling.data);
    }
    return BASE_OK;
}

/* What Granite multiplies with; 0 and an absent key mean that it does not. */
static void read_scales(core_model *model)
{
    const struct {
        const char *name;
        float *out;
    } list[] = {{"embedding_scale", &model->embedding_scale},
                {"residual_scale", &model->residual_scale},
                {"attention.scale", &model->query_scale},
                {"logit_scale", &model->logit_scale}};
    bool granite = strcmp(model->architecture, "granitehybrid") == 0;
    model->rotates = true;
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        char key[CORE_KEY_SIZE];
        double real = 0;
        *list[i].out = 1.0f;
        if (granite && gguf_get_f64(model->file, core_key(model, list[i].name, key), &real) &&
            real != 0) {
            *list[i].out = (float)real;
            if (list[i].out == &model->query_scale) { /* in place of 1/sqrt(D) */
                model->query_scale = (float)(real * sqrt((double)model->shape.head_size));
            } else if (list[i].out == &model->logit_scale) { /* logits are divided by it */
                model->logit_scale = (float)(1.0 / real);
            }
        }
    }
    if (granite) { /* the key's use in this architecture (llama.cpp) */
        char key[CORE_KEY_SIZE];
        (void)gguf_get_bool(model->file, core_key(model, "rope.scaling.finetuned", key),
                            &model->rotates);
    }
}

static base_status read_shape(core_model *model, base_error *err)
{
    const gguf_file *file = model->file;
    core_shape *shape = &model->shape;
    char key[CORE_KEY_SIZE];
    bool attends = strcmp(model->architecture, "mamba2") != 0;
    uint64_t experts = 0;
    double real = 0;
    base_status status;
    if ((status = core_read_size(file, core_key(model, "block_count", key), LAYERS_MAX,
                                 &shape->layers, err)) ||
        (status = core_read_size(file, core_key(model, "embedding_length", key), CHANNELS_MAX,
                                 &shape->channels, err)) ||
        (attends && (status = core_read_size(file, core_key(model, "feed_forward_length", key),
                                             4 * CHANNELS_MAX, &shape->feed_forward, err))) ||
        (status = core_read_size(file, core_key(model, "context_length", key), CONTEXT_LIMIT,
                                 &shape->context_max, err))) {
        return status;
    }
    if (gguf_get_u64(file, core_key(model, "expert_count", key), &experts) && experts > 0) {
        return base_fail(err, BASE_UNSUPPORTED,
                         "%s: a mixture of %llu experts is not supported (key %s)", gguf_path(file),
                         (unsigned long long)experts, key);
    }
    shape->rms_eps =
        gguf_get_f64(file, core_key(model, "attention.layer_norm_rms_epsilon", key), &real)
            ? (float)real
            : 1e-5f;
    if (attends) {
        status = read_attention(model, err);
    } else { /* no plane has keys of this shape */
        shape->heads = shape->kv_heads = 1;
        shape->head_size = 2;
        shape->rope_base = 10000.0f;
    }
    if (!status) {
        read_scales(model);
        status = core_recurrent_open(model, err);
    }
    return status;
}

/* Find a tensor and check its shape [rows, columns]; rows 1 also accepts a vector. */
base_status core_find_tensor(const gguf_file *file, const char *name, size_t rows, size_t columns,
                             const gguf_tensor **out, base_error *err)
{
    const gguf_tensor *tensor = gguf_find_tensor(file, name);
    if (!tensor) {
        return base_fail(err, BASE_CORRUPT, "%s: tensor %s is missing", gguf_path(file), name);
    }
    if (tensor->shape[0] != columns || tensor->shape[1] != rows || tensor->shape[2] != 1 ||
        tensor->shape[3] != 1) {
        return base_fail(err, BASE_CORRUPT,
                         "%s: tensor %s has shape [%llu, %llu], expected [%zu, %zu]",
                         gguf_path(file), name, (unsigned long long)tensor->shape[1],
                         (unsigned long long)tensor->shape[0], rows, columns);
    }
    if (!kernel_source_known(tensor->type)) {
        return base_fail(err, BASE_UNSUPPORTED, "%s: tensor %s has the unknown quantisation %u",
                         gguf_path(file), name, tensor->type);
    }
    size_t row_bytes = kernel_source_row_bytes(tensor->type, columns);
    if (row_bytes == 0 || tensor->size < row_bytes * rows) {
        return base_fail(err, BASE_CORRUPT, "%s: tensor %s: %zu columns do not fit %s",
                         gguf_path(file), name, columns, kernel_source_name(tensor->type));
    }
    *out = tensor;
    return BASE_OK;
}

base_status core_load_vector(const gguf_file *file, const char *name, size_t columns,
                             const float **out, base_error *err)
{
    const gguf_tensor *tensor = NULL;
    base_status status = core_find_tensor(file, name, 1, columns, &tensor, err);
    if (status) {
        return status;
    }
    if (tensor->type != KERNEL_SRC_F32 || (uintptr_t)tensor->data % sizeof(float) != 0) {
        return base_fail(err, BASE_UNSUPPORTED, "%s: tensor %s must be F32", gguf_path(file), name);
    }
    *out = (const float *)(const void *)tensor->data;
    return BASE_OK;
}

base_status core_load_optional(const gguf_file *file, const char *name, size_t columns,
                               const float **out, base_error *err)
{
    *out = NULL;
    return gguf_find_tensor(file, name) ? core_load_vector(file, name, columns, out, err) : BASE_OK;
}

/* Load the parts' rows: neighbours of one type become one packed matrix. */
base_status core_load_linear(const core_model *model, size_t layer, const core_part *parts,
                             size_t part_count, size_t columns, core_linear *out, base_error *err)
{
    const gguf_file *file = model->file;
    const uint8_t *raw[4] = {0};
    uint8_t *adapted[4] = {0};
    uint32_t type[4];
    size_t rows = 0;
    base_status status = BASE_OK;
    BASE_ASSERT(part_count >= 1 && part_count <= 4);
    for (size_t i = 0; i < part_count && !status; i++) {
        const gguf_tensor *tensor = NULL;
        char name[128];
        snprintf(name, sizeof name, "blk.%zu.%s.weight", layer, parts[i].name);
        status = core_find_tensor(file, name, parts[i].rows, columns, &tensor, err);
        if (!status) {
            raw[i] = tensor->data;
            type[i] = tensor->type;
            rows += parts[i].rows;
        }
        if (!status) {
            status = core_adapters_merge(&model->adapters, tensor, name, parts[i].rows, columns,
                                         &adapted[i], &type[i], err);
            raw[i] = adapted[i] ? adapted[i] : raw[i];
        }
    }
    bool same = !status;
    for (size_t i = 1; i < part_count && same; i++) {
        same = type[i] == type[0];
    }
    if (same && part_count > 1) {
        size_t row_bytes = kernel_source_row_bytes(type[0], columns);
        uint8_t *stacked = base_calloc(rows, row_bytes), *to = stacked;
        if (!stacked) {
            status = base_fail(err, BASE_NO_MEMORY, "%s: no memory for layer %zu", gguf_path(file),
                               layer);
        } else {
            for (size_t i = 0; i < part_count; i++) {
                memcpy(to, raw[i], parts[i].rows * row_bytes);
                to += parts[i].rows * row_bytes;
            }
            out->part_count = 1;
            status =
                kernel_matrix_pack(&out->parts[0], type[0], stacked, rows, columns, false, err);
        }
        base_free(stacked);
    } else {
        for (size_t i = 0; i < part_count && !status; i++) {
            out->part_count = i + 1;
            status = kernel_matrix_pack(&out->parts[i], type[i], raw[i], parts[i].rows, columns,
                                        adapted[i] == NULL, err);
        }
    }
    for (size_t i = 0; i < part_count; i++) {
        base_free(adapted[i]);
    }
    return status;
}

/* Qwen 3: each head of the queries and of the keys is normalised before its rotation. */
static base_status load_head_norms(core_model *model, size_t index, base_error *err)
{
    core_layer *layer = &model->layers[index];
    const char *names[] = {"attn_q_norm", "attn_k_norm"};
    const float **out[] = {&layer->q_norm, &layer->k_norm};
    base_status status = BASE_OK;
    for (size_t i = 0; i < 2 && !status && strcmp(model->architecture, "qwen3") == 0; i++) {
        char name[64];
        snprintf(name, sizeof name, "blk.%zu.%s.weight", index, names[i]);
        status = core_load_vector(model->file, name, model->shape.head_size, out[i], err);
    }
    return status;
}

/* Queries, keys and values have biases: in Qwen 2 always. */
static base_status load_biases(core_model *model, size_t index, const core_part *parts,
                               base_error *err)
{
    size_t width = parts[0].rows + parts[1].rows + parts[2].rows, at = 0;
    char first[64];
    snprintf(first, sizeof first, "blk.%zu.attn_q.bias", index);
    if (strcmp(model->architecture, "qwen2") != 0 && !gguf_find_tensor(model->file, first)) {
        return BASE_OK;
    }
    float *bias = base_calloc(width, sizeof *bias);
    model->layers[index].qkv_bias = bias;
    if (!bias) {
        return base_fail(err, BASE_NO_MEMORY, "no memory for layer %zu", index);
    }
    for (size_t i = 0; i < 3; i++) {
        char name[64];
        const float *part = NULL;
        snprintf(name, sizeof name, "blk.%zu.%s.bias", index, parts[i].name);
        base_status status = core_load_vector(model->file, name, parts[i].rows, &part, err);
        if (status) {
            return status;
        }
        memcpy(bias + at, part, parts[i].rows * sizeof *bias);
        at += parts[i].rows;
    }
    return BASE_OK;
}

/* A bias that this core would leave out. */
static base_status check_unused(const core_model *model, size_t index, base_error *err)
{
    static const char *const names[] = {"attn_output", "ffn_gate", "ffn_up", "ffn_down"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char name[64];
        snprintf(name, sizeof name, "blk.%zu.%s.bias", index, names[i]);
        if (gguf_find_tensor(model->file, name)) {
            return base_fail(err, BASE_UNSUPPORTED, "%s: tensor %s is not supported",
                             gguf_path(model->file), name);
        }
    }
    return BASE_OK;
}

static base_status load_attention(core_model *model, size_t index, base_error *err)
{
    const core_shape *s = &model->shape;
    core_layer *layer = &model->layers[index];
    size_t q_rows = s->heads * s->head_size, kv_rows = s->kv_heads * s->head_size;
    const core_part qkv[] = {{"attn_q", q_rows}, {"attn_k", kv_rows}, {"attn_v", kv_rows}};
    const core_part output[] = {{"attn_output", s->channels}};
    bool fading = core_fading_is(model, index);
    base_status status;
    if ((status =
             core_load_linear(model, index, qkv, fading ? 1 : 3, s->channels, &layer->qkv, err)) ||
        (fading &&
         (status = core_load_linear(model, index, qkv + 1, 2, s->channels, &layer->kv, err))) ||
        (status = load_head_norms(model, index, err)) ||
        (status = load_biases(model, index, qkv, err)) ||
        (status = core_load_linear(model, index, output, 1, q_rows, &layer->output, err))) {
        return status;
    }
    return fading ? core_fading_load(model, index, err) : BASE_OK;
}

static base_status load_layer(core_model *model, size_t index, base_error *err)
{
    const core_shape *s = &model->shape;
    core_layer *layer = &model->layers[index];
    const core_part gate_up[] = {{"ffn_gate", s->feed_forward}, {"ffn_up", s->feed_forward}};
    const core_part down[] = {{"ffn_down", s->channels}};
    char name[64];
    base_status status = check_unused(model, index, err);
    layer->recurrent = core_recurrent_is(model, index);
    snprintf(name, sizeof name, "blk.%zu.attn_norm.weight", index);
    if (status ||
        (status = core_load_vector(model->file, name, s->channels, &layer->attention_norm, err)) ||
        (status = layer->recurrent ? core_recurrent_load(model, index, err)
                                   : load_attention(model, index, err)) ||
        s->feed_forward == 0) {
        return status;
    }
    snprintf(name, sizeof name, "blk.%zu.ffn_norm.weight", index);
    if ((status =
             core_load_vector(model->file, name, s->channels, &layer->feed_forward_norm, err)) ||
        (status = core_load_linear(model, index, gate_up, 2, s->channels, &layer->gate_up, err)) ||
        (status = core_load_linear(model, index, down, 1, s->feed_forward, &layer->down, err))) {
        return status;
    }
    return BASE_OK;
}

/* theta_i = base^(-2i/D), divided by the file's per-dimension factors where it has them (Llama 3).
 * */
static base_status load_frequencies(core_model *model, base_error *err)
{
    size_t half = model->shape.head_size / 2;
    model->frequencies = base_calloc(half, sizeof(float));
    if (!model->frequencies) {
        return base_fail(err, BASE_NO_MEMORY, "no memory for RoPE frequencies");
    }
    const float *factors = NULL;
    if (gguf_find_tensor(model->file, "rope_freqs.weight")) {
        base_status status =
            core_load_vector(model->file, "rope_freqs.weight", half, &factors, err);
        if (status) {
            return status;
        }
    }
    for (size_t i = 0; i < half && model->rotates; i++) {
        double theta =
            pow((double)model->shape.rope_base, -2.0 * (double)i / (double)model->shape.head_size);
        model->frequencies[i] = (float)(factors ? theta / (double)factors[i] : theta);
    }
    return BASE_OK;
}

/* The bytes of a whole model need not be read to name it: names, types, shapes and both ends of
 * every tensor, and the metadata. */
static void hash_file(base_sha256 *hash, const gguf_file *file)
{
    uint8_t tensors[32];
    core_hash_tensors(file, tensors);
    base_sha256_add(hash, tensors, sizeof tensors);
    for (size_t i = 0; i < gguf_key_count(file); i++) {
        gguf_text key;
        char value[256];
        gguf_key_at(file, i, &key, value, sizeof value);
        base_sha256_add(hash, key.data, key.size);
        base_sha256_add(hash, value, strlen(value));
    }
}

/* A matrix of the vocabulary's rows. */
static base_status load_rows(core_model *model, const char *name, kernel_matrix *out,
                             base_error *err)
{
    const core_shape *s = &model->shape;
    const gguf_tensor *tensor;
    base_status status =
        core_find_tensor(model->file, name, s->vocabulary, s->channels, &tensor, err);
    return status ? status
                  : kernel_matrix_pack(out, tensor->type, tensor->data, s->vocabulary, s->channels,
                                       true, err);
}

/* Parts 0 and 1 are embedding and output, which take longest, then come the layers. */
static base_status load_part(core_model *model, size_t part, base_error *err)
{
    if (part == 0) {
        return load_rows(model, "token_embd.weight", &model->embedding, err);
    }
    if (part == 1) {
        return model->shape.tied_output ? BASE_OK
                                        : load_rows(model, "output.weight", &model->output, err);
    }
    return load_layer(model, part - 2, err);
}

typedef struct load_job {
    core_model *model;
    size_t parts;
    atomic_size_t next;
    base_error *errors; /* [threads] of the part at which one stopped */
    size_t *failed;     /* [threads] that part; parts = none */
} load_job;

/* Threads take one part after the other. */
static void load_some(void *argument, size_t begin, size_t end, size_t thread)
{
    load_job *job = argument;
    (void)begin;
    (void)end;
    for (size_t part; (part = atomic_fetch_add(&job->next, 1)) < job->parts;) {
        if (load_part(job->model, part, &job->errors[thread])) {
            job->failed[thread] = part;
            atomic_store(&job->next, job->parts);
        }
    }
}

/* Of several errors the first part's: parts before it were begun before it. */
static base_status load_parts(core_model *model, base_pool *pool, base_error *err)
{
    size_t threads = base_pool_threads(pool), first = 0;
    load_job job = {.model = model,
                    .parts = 2 + model->shape.layers,
                    .errors = base_calloc(threads, sizeof *job.errors),
                    .failed = base_calloc(threads, sizeof *job.failed)};
    base_status status = BASE_OK;
    if (!job.errors || !job.failed) {
        status = base_fail(err, BASE_NO_MEMORY, "no memory to load a model");
    } else {
        for (size_t i = 0; i < threads; i++) {
            job.failed[i] = job.parts;
        }
        base_pool_run(pool, threads, 1, load_some, &job);
        for (size_t i = 1; i < threads; i++) {
            first = job.failed[i] < job.failed[first] ? i : first;
        }
        if (job.failed[first] < job.parts) {
            status = job.errors[first].code;
            if (err) {
                *err = job.errors[first];
            }
        }
    }
    base_free(job.errors);
    base_free(job.failed);
    return status;
}

/* Planes of keys and values and states of mixers lie in layer order (stream.h). */
static void number_layers(core_model *model)
{
    size_t fading_planes = 0;
    for (size_t i = 0; i < model->shape.layers; i++) {
        core_layer *layer = &model->layers[i];
        if (!layer->recurrent) {
            layer->plane = model->attention_planes++;
        }
        if (layer->fading) {
            layer->fading->index = model->mixer_layers++;
            layer->fading->plane = layer->recurrent ? 0 : fading_planes++;
        }
    }
}

static base_status load(core_model *model, base_pool *pool, base_error *err)
{
    base_status status = read_shape(model, err);
    if (status) {
        return status;
    }
    if (model->fading && (status = core_fading_open(model, err))) {
        return status;
    }
    core_shape *s = &model->shape;
    const gguf_tensor *embedding = gguf_find_tensor(model->file, "token_embd.weight");
    s->vocabulary = embedding ? (size_t)embedding->shape[1] : 0;
    if (s->vocabulary == 0 || s->vocabulary > VOCABULARY_MAX) {
        return base_fail(err, BASE_CORRUPT, "%s: tensor token_embd.weight is missing or absurd",
                         gguf_path(model->file));
    }
    if ((status = core_find_tensor(model->file, "token_embd.weight", s->vocabulary, s->channels,
                                   &embedding, err)) ||
        (status = core_load_vector(model->file, "output_norm.weight", s->channels,
                                   &model->output_norm, err)) ||
        (status = load_frequencies(model, err))) {
        return status;
    }
    s->tied_output = gguf_find_tensor(model->file, "output.weight") == NULL;
    model->layers = base_calloc(s->layers, sizeof *model->layers);
    if (!model->layers) {
        return base_fail(err, BASE_NO_MEMORY, "no memory for %zu layers", s->layers);
    }
    if ((status = load_parts(model, pool, err))) {
        return status;
    }
    number_layers(model);
    if ((status = core_adapters_check_used(&model->adapters, err))) {
        return status;
    }
    base_sha256 hash;
    base_sha256_begin(&hash);
    hash_file(&hash, model->file);
    for (int i = 0; i < CORE_ADAPTER_KINDS; i++) {
        const gguf_file *adapter = core_adapters_file(&model->adapters, i);
        if (adapter) {
            hash_file(&hash, adapter);
        }
    }
    base_sha256_end(&hash, model->hash);
    return BASE_OK;
}

base_status core_model_open(const char *path, const char *const *adapters, base_pool *pool,
                            core_model **out, base_error *err)
{
    core_model *model = base_calloc(1, sizeof *model);
    if (!model) {
        return base_fail(err, BASE_NO_MEMORY, "no memory for a model");
    }
    model->sinks_min = CORE_SINKS_MIN;
    base_status status = gguf_is_folder(path) ? gguf_open_folder(path, &model->file, err)
                                              : gguf_open(path, &model->file, err);
    if (!status) {
        status = read_architecture(model, err);
    }
    if (!status && adapters) {
        status =
            core_adapters_open(adapters, model->file, model->architecture, &model->adapters, err);
    }
    if (!status) {
        status = core_adapters_apply(&model->adapters, model->architecture, &model->file,
                                     &model->fading, err);
    }
    if (!status) {
        status = load(model, pool, err);
    }
    if (status) {
        core_model_close(model);
        return status;
    }
    *out = model;
    return BASE_OK;
}

void core_linear_free(core_linear *linear)
{
    for (size_t i = 0; i < linear->part_count; i++) {
        kernel_matrix_free(&linear->parts[i]);
    }
}

void core_model_close(core_model *model)
{
    if (!model) {
        return;
    }
    for (size_t i = 0; model->layers && i < model->shape.layers; i++) {
        core_linear_free(&model->layers[i].qkv);
        core_linear_free(&model->layers[i].kv);
        core_linear_free(&model->layers[i].output);
        core_linear_free(&model->layers[i].gate_up);
        core_linear_free(&model->layers[i].down);
        core_fading_free(model->layers[i].fading);
        base_free(model->layers[i].qkv_bias);
    }
    kernel_matrix_free(&model->embedding);
    kernel_matrix_free(&model->output);
    base_free(model->layers);
    base_free(model->frequencies);
    gguf_close(model->file);
    core_adapters_close(&model->adapters);
    base_free(model);
}

const core_shape *core_model_shape(const core_model *model)
{
    return &model->shape;
}

size_t core_model_exact_window(const core_model *model)
{
    return model->exact_window;
}

size_t core_model_fading_layers(const core_model *model)
{
    return model->fading_layers;
}

bool core_model_fading_added(const core_model *model)
{
    return core_adapters_file(&model->adapters, CORE_ADAPTER_MIXERS) != NULL;
}

size_t core_model_recurrent_layers(const core_model *model)
{
    return model->mixer_layers - model->fading_layers;
}

const gguf_file *core_model_file(const core_model *model)
{
    return model->file;
}

const uint8_t *core_model_hash(const core_model *model)
{
    return model->hash;
}

size_t core_model_adapters(const core_model *model, const char *paths[CORE_ADAPTERS_MAX])
{
    size_t count = 0;
    for (int i = 0; i < CORE_ADAPTER_KINDS; i++) {
        const gguf_file *adapter = core_adapters_file(&model->adapters, i);
        if (adapter) {
            paths[count++] = gguf_path(adapter);
        }
    }
    return count;
}

size_t core_linear_bytes(const core_linear *linear)
{
    size_t bytes = 0;
    for (size_t i = 0; i < linear->part_count; i++) {
        bytes += linear->parts[i].bytes;
    }
    return bytes;
}

size_t core_model_weight_bytes(const core_model *model)
{
    size_t bytes = model->shape.tied_output ? model->embedding.bytes : model->output.bytes;
    for (size_t i = 0; i < model->shape.layers; i++) {
        const core_layer *layer = &model->layers[i];
        bytes += core_linear_bytes(&layer->kv);
        if (layer->fading) {
            bytes += core_linear_bytes(&layer->fading->qkv) +
                     core_linear_bytes(&layer->fading->gates) +
                     core_linear_bytes(&layer->fading->output);
        }
        bytes += core_linear_bytes(&layer->qkv) + core_linear_bytes(&layer->output) +
                 core_linear_bytes(&layer->gate_up) + core_linear_bytes(&layer->down);
    }
    return bytes;
}
