/* engine/encoder.c: BERT as a sentence encoder (Devlin et al. 2019; mean pooling as in Reimers &
 * Gurevych 2019, "Sentence-BERT", section 3):
 *
 *     x = LN(word[id] + position[i] + type[0])
 *     per layer: x = LN(x + Wo attention(Wq x, Wk x, Wv x)); x = LN(x + W2 gelu(W1 x))
 *     vector = mean of x over all tokens, [CLS] and [SEP] among them, divided by its length
 *
 * Texts are laid end to end as rows of one matrix, without padding, so that matrix products run
 * over many texts at once; attention runs within each text. Products run in 16-bit integers
 * (kernels_i16.h), everything else in f32. The scratch is taken once, at opening.
 */
#include "engine/encoder.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/mem.h"
#include "engine/kernels.h"
#include "engine/kernels_i16.h"
#include "engine/safetensors.h"
#include "engine/tokenizer.h"

enum {
    TEXT_TOKENS_MAX = 256, /* of one text, as published for this model */
    BATCH_TOKENS = 512,    /* rows of one pass; chosen: its widest matrix is 3 MB */
    ATTEND_AT_ONCE = 8,    /* queries of a head whose scores are held */
    LAYERS_MAX = 64,
    WIDTH_MAX = 16384, /* channels, feed-forward; chosen */
    CONFIG_BYTES_MAX = 1 << 20,
    SAMPLE_BYTES = 4096 /* of each tensor, into the name's hash */
};

typedef struct encoder_norm {
    const float *weight, *bias;
} encoder_norm;

typedef struct encoder_layer {
    kernel_i16_matrix inputs; /* query, key and value: [3C, C] */
    kernel_i16_matrix output, up, down;
    encoder_norm attention_norm, output_norm;
} encoder_layer;

/* One text of a batch: its rows. */
typedef struct encoder_span {
    size_t first, count;
    float *vector;
} encoder_span;

struct encoder {
    char name[96];
    base_pool *pool;
    safetensors_file *file;
    wordpiece *words;
    size_t channels, heads, head_size, feed_forward, layers, positions, vocabulary, types;
    size_t text_tokens_max;
    float eps;
    const float *word_table, *position_table, *type_table;
    encoder_norm input_norm;
    encoder_layer *layer;

    int32_t *ids;        /* [BATCH_TOKENS] */
    encoder_span *spans; /* [BATCH_TOKENS / 2]: a text has at least two tokens */
    size_t token_count, span_count;
    uint64_t tokens_done;
    float *x, *mixed, *added; /* [BATCH_TOKENS, C] */
    float *inner;             /* [BATCH_TOKENS, F or 3C]: feed-forward, or q, k, v side by side */
    float *scores;            /* [threads][ATTEND_AT_ONCE, TEXT_TOKENS_MAX] */
    void *matmul_scratch;
};

/* --- loading ---------------------------------------------------------------------------------- */

static base_status read_count(const json_t *config, const char *path, const char *key, size_t max,
                              size_t *value, base_error *err)
{
    json_int_t n = json_integer_value(json_object_get(config, key));
    if (n < 1 || (uint64_t)n > max) {
        return base_fail(err, BASE_CORRUPT, "%s: '%s' is missing or absurd (%lld)", path, key,
                         (long long)n);
    }
    *value = (size_t)n;
    return BASE_OK;
}

static base_status expect_text(const json_t *config, const char *path, const char *key,
                               const char *wanted, base_error *err)
{
    const char *value = json_string_value(json_object_get(config, key));
    if (!value || strcmp(value, wanted) != 0) {
        return base_fail(err, BASE_UNSUPPORTED, "%s: '%s' is '%.40s'; only '%s' can be run", path,
                         key, value ? value : "(missing)", wanted);
    }
    return BASE_OK;
}

static base_status read_config(encoder *e, const char *path, const json_t *config, base_error *err)
{
    base_status status;
    if ((status = expect_text(config, path, "model_type", "bert", err)) ||
        (status = expect_text(config, path, "hidden_act", "gelu", err)) ||
        (status = expect_text(config, path, "position_embedding_type", "absolute", err)) ||
        (status = read_count(config, path, "hidden_size", WIDTH_MAX, &e->channels, err)) ||
        (status =
             read_count(config, path, "intermediate_size", WIDTH_MAX, &e->feed_forward, err)) ||
        (status = read_count(config, path, "num_attention_heads", WIDTH_MAX, &e->heads, err)) ||
        (status = read_count(config, path, "num_hidden_layers", LAYERS_MAX, &e->layers, err)) ||
        (status =
             read_count(config, path, "max_position_embeddings", 1 << 20, &e->positions, err)) ||
        (status = read_count(config, path, "vocab_size", 1 << 24, &e->vocabulary, err)) ||
        (status = read_count(config, path, "type_vocab_size", 1 << 10, &e->types, err))) {
        return status;
    }
    const json_t *eps = json_object_get(config, "layer_norm_eps");
    if (!json_is_number(eps) || !(json_number_value(eps) > 0.0) || json_number_value(eps) > 1.0) {
        return base_fail(err, BASE_CORRUPT, "%s: 'layer_norm_eps' is missing or absurd", path);
    }
    if (e->channels % e->heads != 0 || e->positions < 2) {
        return base_fail(err, BASE_CORRUPT, "%s: %zu channels for %zu heads, %zu positions", path,
                         e->channels, e->heads, e->positions);
    }
    e->eps = (float)json_number_value(eps);
    e->head_size = e->channels / e->heads;
    e->text_tokens_max = e->positions < TEXT_TOKENS_MAX ? e->positions : TEXT_TOKENS_MAX;
    return BASE_OK;
}

static base_status load_config(encoder *e, const char *path, base_sha256 *hash, base_error *err)
{
    base_buffer text = {0};
    base_status status = base_file_read(path, CONFIG_BYTES_MAX, &text, err);
    if (status) {
        return status;
    }
    json_error_t problem;
    json_t *config = json_loadb(text.data ? text.data : "", text.size, 0, &problem);
    if (json_is_object(config)) {
        base_sha256_add(hash, text.data, text.size);
        status = read_config(e, path, config, err);
    } else {
        status = base_fail(err, BASE_CORRUPT, "%s: line %d: %s", path, config ? 1 : problem.line,
                           config ? "no JSON object" : problem.text);
    }
    json_decref(config);
    base_buffer_free(&text);
    return status;
}

/* Weights [rows, columns] (columns 0: [rows]) by name, with or without "bert." in front. */
static base_status find_weights(const encoder *e, const char *name, size_t rows, size_t columns,
                                const float **out, base_error *err)
{
    char full[128];
    snprintf(full, sizeof full, "bert.%s", name);
    const safetensors_tensor *t = safetensors_find(e->file, full + 5);
    t = t ? t : safetensors_find(e->file, full);
    if (!t) {
        return base_fail(err, BASE_CORRUPT, "%s: tensor '%s' is missing", safetensors_path(e->file),
                         name);
    }
    if (strcmp(t->type, "F32") != 0) {
        return base_fail(err, BASE_UNSUPPORTED, "%s: tensor '%s' holds %s values, not F32",
                         safetensors_path(e->file), name, t->type);
    }
    if (t->dimensions != (columns ? 2 : 1) || t->shape[0] != rows ||
        (columns && t->shape[1] != columns)) {
        return base_fail(err, BASE_CORRUPT, "%s: tensor '%s' has another shape than [%zu, %zu]",
                         safetensors_path(e->file), name, rows, columns ? columns : 1);
    }
    if ((uintptr_t)t->data % sizeof(float) != 0) {
        return base_fail(err, BASE_UNSUPPORTED, "%s: tensor '%s' is not aligned to 4 bytes",
                         safetensors_path(e->file), name);
    }
    *out = (const float *)(const void *)t->data;
    return BASE_OK;
}

static base_status find_norm(const encoder *e, const char *prefix, encoder_norm *norm,
                             base_error *err)
{
    char name[112];
    snprintf(name, sizeof name, "%s.weight", prefix);
    base_status status = find_weights(e, name, e->channels, 0, &norm->weight, err);
    if (status) {
        return status;
    }
    snprintf(name, sizeof name, "%s.bias", prefix);
    return find_weights(e, name, e->channels, 0, &norm->bias, err);
}

/* Rows [begin, begin + rows) of a matrix, rounded from the file. */
static base_status find_linear(const encoder *e, size_t layer, const char *part, size_t begin,
                               size_t rows, kernel_i16_matrix *matrix, base_error *err)
{
    char name[112];
    const float *weight, *bias;
    snprintf(name, sizeof name, "encoder.layer.%zu.%s.weight", layer, part);
    base_status status = find_weights(e, name, rows, matrix->columns, &weight, err);
    if (status) {
        return status;
    }
    snprintf(name, sizeof name, "encoder.layer.%zu.%s.bias", layer, part);
    status = find_weights(e, name, rows, 0, &bias, err);
    if (!status) {
        kernel_i16_set(matrix, begin, weight, bias, rows);
    }
    return status;
}

static base_status find_layer(encoder *e, size_t i, base_error *err)
{
    encoder_layer *layer = &e->layer[i];
    size_t c = e->channels, f = e->feed_forward;
    char norm[112];
    base_status status;
    if ((status = kernel_i16_make(&layer->inputs, 3 * c, c, err)) ||
        (status = kernel_i16_make(&layer->output, c, c, err)) ||
        (status = kernel_i16_make(&layer->up, f, c, err)) ||
        (status = kernel_i16_make(&layer->down, c, f, err)) ||
        (status = find_linear(e, i, "attention.self.query", 0, c, &layer->inputs, err)) ||
        (status = find_linear(e, i, "attention.self.key", c, c, &layer->inputs, err)) ||
        (status = find_linear(e, i, "attention.self.value", 2 * c, c, &layer->inputs, err)) ||
        (status = find_linear(e, i, "attention.output.dense", 0, c, &layer->output, err)) ||
        (status = find_linear(e, i, "intermediate.dense", 0, f, &layer->up, err)) ||
        (status = find_linear(e, i, "output.dense", 0, c, &layer->down, err))) {
        return status;
    }
    snprintf(norm, sizeof norm, "encoder.layer.%zu.attention.output.LayerNorm", i);
    status = find_norm(e, norm, &layer->attention_norm, err);
    if (status) {
        return status;
    }
    snprintf(norm, sizeof norm, "encoder.layer.%zu.output.LayerNorm", i);
    return find_norm(e, norm, &layer->output_norm, err);
}

static base_status find_all(encoder *e, base_error *err)
{
    size_t c = e->channels;
    base_status status;
    if ((status = find_weights(e, "embeddings.word_embeddings.weight", e->vocabulary, c,
                               &e->word_table, err)) ||
        (status = find_weights(e, "embeddings.position_embeddings.weight", e->positions, c,
                               &e->position_table, err)) ||
        (status = find_weights(e, "embeddings.token_type_embeddings.weight", e->types, c,
                               &e->type_table, err)) ||
        (status = find_norm(e, "embeddings.LayerNorm", &e->input_norm, err))) {
        return status;
    }
    e->layer = base_calloc(e->layers, sizeof *e->layer);
    if (!e->layer) {
        return base_fail(err, BASE_NO_MEMORY, "out of memory for the text encoder");
    }
    for (size_t i = 0; i < e->layers && !status; i++) {
        status = find_layer(e, i, err);
    }
    return status;
}

static base_status allocate(encoder *e, base_error *err)
{
    size_t c = e->channels, f = e->feed_forward, row_bytes = BATCH_TOKENS * sizeof(float);
    size_t scratch = kernel_i16_scratch(BATCH_TOKENS, c > f ? c : f);
    e->ids = base_calloc(BATCH_TOKENS, sizeof *e->ids);
    e->spans = base_calloc(BATCH_TOKENS / 2, sizeof *e->spans);
    e->x = base_alloc_aligned(c * row_bytes);
    e->mixed = base_alloc_aligned(c * row_bytes);
    e->added = base_alloc_aligned(c * row_bytes);
    e->inner = base_alloc_aligned((f > 3 * c ? f : 3 * c) * row_bytes);
    e->scores = base_alloc_aligned(base_pool_threads(e->pool) * ATTEND_AT_ONCE * TEXT_TOKENS_MAX *
                                   sizeof(float));
    e->matmul_scratch = base_alloc_aligned(scratch);
    if (!e->ids || !e->spans || !e->x || !e->mixed || !e->added || !e->inner || !e->scores ||
        !e->matmul_scratch) {
        return base_fail(err, BASE_NO_MEMORY, "out of memory for the text encoder");
    }
    return BASE_OK;
}

/* "folder:8 hex digits" of the configuration, the vocabulary, and samples of every tensor. */
static void name_encoder(encoder *e, const char *folder, base_sha256 *hash)
{
    uint8_t digest[32];
    char hex[9];
    for (size_t i = 0; i < safetensors_count(e->file); i++) {
        const safetensors_tensor *t = safetensors_at(e->file, i);
        base_sha256_add(hash, t->name, strlen(t->name));
        base_sha256_add(hash, t->data, t->size < SAMPLE_BYTES ? t->size : SAMPLE_BYTES);
    }
    base_sha256_end(hash, digest);
    base_hex(digest, 4, hex);
    size_t end = strlen(folder);
    while (end > 1 && folder[end - 1] == '/') {
        end--;
    }
    size_t begin = end;
    while (begin > 0 && folder[begin - 1] != '/') {
        begin--;
    }
    size_t size = end - begin < 64 ? end - begin : 64;
    snprintf(e->name, sizeof e->name, "%.*s:%s", (int)size, folder + begin, hex);
}

static base_status open_files(encoder *e, const char *folder, base_error *err)
{
    char path[4096];
    base_sha256 hash;
    base_map vocabulary;
    base_sha256_begin(&hash);
    base_status status = base_path_join(path, sizeof path, folder, "config.json");
    if (status) {
        return base_fail(err, status, "%s: path too long", folder);
    }
    status = load_config(e, path, &hash, err);
    if (status) {
        return status;
    }
    base_path_join(path, sizeof path, folder, "vocab.txt");
    if ((status = tokenizer_wordpiece_open(path, &e->words, err)) ||
        (status = base_map_open(path, &vocabulary, err))) {
        return status;
    }
    base_sha256_add(&hash, vocabulary.data, vocabulary.size);
    base_map_close(&vocabulary);
    if (tokenizer_wordpiece_vocabulary(e->words) > e->vocabulary) {
        return base_fail(err, BASE_CORRUPT, "%s: %zu tokens, but the model has %zu", path,
                         tokenizer_wordpiece_vocabulary(e->words), e->vocabulary);
    }
    status = base_path_join(path, sizeof path, folder, "model.safetensors");
    if (status) {
        return base_fail(err, status, "%s: path too long", folder);
    }
    status = safetensors_open(path, &e->file, err);
    if (status) {
        return status;
    }
    name_encoder(e, folder, &hash);
    return BASE_OK;
}

base_status encoder_open(const char *folder, base_pool *pool, encoder **out, base_error *err)
{
    encoder *e = base_calloc(1, sizeof *e);
    if (!e) {
        return base_fail(err, BASE_NO_MEMORY, "out of memory for the text encoder");
    }
    e->pool = pool;
    kernel_get(); /* chosen before threads ask for it */
    base_status status = open_files(e, folder, err);
    if (!status) {
        status = find_all(e, err);
    }
    if (!status) {
        status = allocate(e, err);
    }
    if (status) {
        encoder_close(e);
        return status;
    }
    *out = e;
    return BASE_OK;
}

void encoder_close(encoder *e)
{
    if (!e) {
        return;
    }
    safetensors_close(e->file);
    tokenizer_wordpiece_close(e->words);
    for (size_t i = 0; e->layer && i < e->layers; i++) {
        kernel_i16_free(&e->layer[i].inputs);
        kernel_i16_free(&e->layer[i].output);
        kernel_i16_free(&e->layer[i].up);
        kernel_i16_free(&e->layer[i].down);
    }
    base_free(e->layer);
    base_free(e->ids);
    base_free(e->spans);
    base_free_aligned(e->x);
    base_free_aligned(e->mixed);
    base_free_aligned(e->added);
    base_free_aligned(e->inner);
    base_free_aligned(e->scores);
    base_free_aligned(e->matmul_scratch);
    base_free(e);
}

base_pool *encoder_pool(const encoder *e)
{
    return e->pool;
}

size_t encoder_dim(const encoder *e)
{
    return e->channels;
}

const char *encoder_name(const encoder *e)
{
    return e->name;
}

uint64_t encoder_tokens(const encoder *e)
{
    return e->tokens_done;
}

/* --- forward pass ----------------------------------------------------------------------------- */

/* x = LN(x + added), a row at a time. */
typedef struct norm_job {
    encoder *e;
    const encoder_norm *norm;
} norm_job;

static void norm_rows(void *argument, size_t begin, size_t end, size_t thread)
{
    const norm_job *job = argument;
    const kernel_table *kernels = kernel_get();
    size_t c = job->e->channels;
    (void)thread;
    for (size_t t = begin; t < end; t++) {
        float *added = job->e->added + t * c, *x = job->e->x + t * c;
        kernels->add(added, x, c);
        kernels->layernorm(x, added, job->norm->weight, job->norm->bias, c, job->e->eps);
    }
}

static void gelu_rows(void *argument, size_t begin, size_t end, size_t thread)
{
    encoder *e = argument;
    (void)thread;
    kernel_get()->gelu(e->inner + begin * e->feed_forward, (end - begin) * e->feed_forward);
}

/* Embeddings of the tokens of span i, normalised. */
static void embed_spans(void *argument, size_t begin, size_t end, size_t thread)
{
    encoder *e = argument;
    const kernel_table *kernels = kernel_get();
    size_t c = e->channels;
    (void)thread;
    for (size_t s = begin; s < end; s++) {
        for (size_t i = 0; i < e->spans[s].count; i++) {
            size_t t = e->spans[s].first + i;
            float *row = e->mixed + t * c;
            memcpy(row, e->word_table + (size_t)e->ids[t] * c, c * sizeof *row);
            kernels->add(row, e->position_table + i * c, c);
            kernels->add(row, e->type_table, c);
            kernels->layernorm(e->x + t * c, row, e->input_norm.weight, e->input_norm.bias, c,
                               e->eps);
        }
    }
}

/* One head of one text: eight tokens at a time as queries that share a head of keys, which is how
 * the kernels take them. */
static void attend_head(encoder *e, const float *q, const kernel_kv *kv, size_t column,
                        const encoder_span *span, float *scores)
{
    const kernel_table *kernels = kernel_get();
    size_t slots = span->count, c = e->channels, d = e->head_size;
    float *out = e->mixed + span->first * c + column, sums[ATTEND_AT_ONCE];
    for (size_t t = 0; t < slots; t += ATTEND_AT_ONCE) {
        size_t count = slots - t < ATTEND_AT_ONCE ? slots - t : ATTEND_AT_ONCE;
        kernels->attention_scores(scores, slots, q + t * kv->stride, count, kv->stride, kv, column,
                                  slots, d, 1.0f / sqrtf((float)d), NULL);
        kernels->attention_weights(scores, slots, count, slots, NULL, sums);
        for (size_t i = 0; i < count; i++) {
            sums[i] = sums[i] > 0.0f ? 1.0f / sums[i] : 0.0f;
        }
        kernels->attention_values(out + t * c, c, scores, slots, sums, count, kv, column, slots, d,
                                  false);
    }
}

/* Item = span * heads + head. Every token of a text attends to all of it. */
static void attend_items(void *argument, size_t begin, size_t end, size_t thread)
{
    encoder *e = argument;
    size_t c = e->channels, row = 3 * c;
    float *scores = e->scores + thread * ATTEND_AT_ONCE * TEXT_TOKENS_MAX;
    for (size_t item = begin; item < end; item++) {
        const encoder_span *span = &e->spans[item / e->heads];
        size_t column = item % e->heads * e->head_size;
        const float *q = e->inner + span->first * row;
        kernel_kv kv = {.keys = q + c, .values = q + 2 * c, .half = false, .stride = row};
        attend_head(e, q + column, &kv, column, span, scores);
    }
}

static void pool_spans(void *argument, size_t begin, size_t end, size_t thread)
{
    encoder *e = argument;
    const kernel_table *kernels = kernel_get();
    size_t c = e->channels;
    (void)thread;
    for (size_t s = begin; s < end; s++) {
        const encoder_span *span = &e->spans[s];
        memset(span->vector, 0, c * sizeof *span->vector);
        for (size_t i = 0; i < span->count; i++) {
            kernels->add(span->vector, e->x + (span->first + i) * c, c);
        }
        /* Dividing by the count would cancel out. */
        float length = sqrtf(kernels->dot(span->vector, span->vector, c));
        for (size_t i = 0; i < c && length > 0.0f; i++) {
            span->vector[i] /= length;
        }
    }
}

static void multiply(encoder *e, const kernel_i16_matrix *matrix, const float *x, float *out)
{
    kernel_i16_matmul(e->pool, matrix, x, e->token_count, out, e->matmul_scratch);
}

static void run_layer(encoder *e, const encoder_layer *layer)
{
    norm_job attended = {e, &layer->attention_norm}, fed = {e, &layer->output_norm};
    multiply(e, &layer->inputs, e->x, e->inner);
    base_pool_run(e->pool, e->span_count * e->heads, 1, attend_items, e);
    multiply(e, &layer->output, e->mixed, e->added);
    base_pool_run(e->pool, e->token_count, 16, norm_rows, &attended);
    multiply(e, &layer->up, e->x, e->inner);
    base_pool_run(e->pool, e->token_count, 8, gelu_rows, e);
    multiply(e, &layer->down, e->inner, e->added);
    base_pool_run(e->pool, e->token_count, 16, norm_rows, &fed);
}

static void run_batch(encoder *e)
{
    base_pool_run(e->pool, e->span_count, 1, embed_spans, e);
    for (size_t i = 0; i < e->layers; i++) {
        run_layer(e, &e->layer[i]);
    }
    base_pool_run(e->pool, e->span_count, 1, pool_spans, e);
    e->tokens_done += e->token_count;
    e->token_count = 0;
    e->span_count = 0;
}

base_status encoder_encode_batch(encoder *e, const char *const *texts, const size_t *sizes,
                                 size_t count, float *vectors, base_error *err)
{
    (void)err;
    for (size_t i = 0; i < count; i++) {
        int32_t ids[TEXT_TOKENS_MAX];
        size_t n =
            tokenizer_wordpiece_encode(e->words, texts[i], sizes[i], ids, e->text_tokens_max);
        if (e->token_count + n > BATCH_TOKENS) {
            run_batch(e);
        }
        memcpy(e->ids + e->token_count, ids, n * sizeof *ids);
        e->spans[e->span_count++] = (encoder_span){e->token_count, n, vectors + i * e->channels};
        e->token_count += n;
    }
    if (e->span_count > 0) {
        run_batch(e);
    }
    return BASE_OK;
}

base_status encoder_encode(encoder *e, const char *text, size_t size, float *vector,
                           base_error *err)
{
    return encoder_encode_batch(e, &text, &size, 1, vector, err);
}
