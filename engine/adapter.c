/* engine/adapter.c: LoRA adapters in the GGUF form that llama.cpp also reads, and trained mixers.
 *
 * LoRA (Hu et al. 2021): W' = W + (alpha/r) B A, merged when the model is loaded, so that a step
 * costs nothing more than the bytes of the merged matrices, which are Q8_0. What is refused, by
 * name: an adapter of another architecture, of other weights (also of the same model in another
 * quantisation), with factors that do not fit, or with tensors that the model lacks. Trained mixers
 * (adapter_core.c) go the same way.
 *
 * Beside a LoRA the mixers keep what they were trained with: their matrices start from the model's
 * own weights, not from merged ones, so mixer(u) is the same function of its input u. Merged ones
 * would add W_lora - W to projections that never ran with it (their queries and keys are convolved
 * and normalised, not rotated). What differs from training is u, which the layers below have moved,
 * and the keys and values that attention makes of f = u + mixer(u), which the LoRA is for.
 */
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "engine/kernels_internal.h"
#include "engine/model.h"

struct core_adapter {
    gguf_file *file;
    float alpha;
    core_adapter_kind kind;
    atomic_size_t merged; /* tensors of the model that have had theirs */
    size_t whole;         /* tensors that are no factors */
};

/* Of a text for a message, at most 80 bytes. */
static int shown(gguf_text text)
{
    return (int)(text.size < 80 ? text.size : 80);
}

void core_hash_tensors(const gguf_file *file, uint8_t hash[32])
{
    enum { ENDS = 4096 };
    base_sha256 sum;
    base_sha256_begin(&sum);
    for (size_t i = 0; i < gguf_tensor_count(file); i++) {
        const gguf_tensor *tensor = gguf_tensor_at(file, i);
        base_sha256_add(&sum, tensor->name.data, tensor->name.size);
        base_sha256_add(&sum, &tensor->type, sizeof tensor->type);
        base_sha256_add(&sum, tensor->shape, sizeof tensor->shape);
        size_t ends = tensor->size < ENDS ? tensor->size : ENDS;
        base_sha256_add(&sum, tensor->data, ends);
        base_sha256_add(&sum, tensor->data + tensor->size - ends, ends);
    }
    base_sha256_end(&sum, hash);
}

/* Does it belong to these weights, as far as it says? */
static base_status check_base(const core_adapter *a, const gguf_file *base, base_error *err)
{
    gguf_text trained_on = {0}, name = {0}, type = {0};
    char have[65];
    uint8_t hash[32];
    if (!gguf_get_text(a->file, "eidetic.base_tensors", &trained_on)) {
        return BASE_OK;
    }
    core_hash_tensors(base, hash);
    base_hex(hash, sizeof hash, have);
    if (gguf_text_is(trained_on, have)) {
        return BASE_OK;
    }
    gguf_get_text(a->file, "general.base_model.0.name", &name);
    gguf_get_text(a->file, "eidetic.base_type", &type);
    const gguf_tensor *first = gguf_find_tensor(base, "blk.0.attn_q.weight");
    const char *mine = first ? kernel_source_name(first->type) : "?";
    if (type.size > 0 && !gguf_text_is(type, mine)) {
        return base_fail(err, BASE_INVALID,
                         "%s: adapter for '%.*s' in quantisation %.*s, %s is in %s",
                         gguf_path(a->file), shown(name), name.data ? name.data : "", shown(type),
                         type.data, gguf_path(base), mine);
    }
    return base_fail(err, BASE_INVALID, "%s: adapter for '%.*s', %s holds other weights",
                     gguf_path(a->file), shown(name), name.data ? name.data : "", gguf_path(base));
}

static base_status check_kind(core_adapter *a, const char *architecture, base_error *err)
{
    gguf_text type = {0}, kind = {0}, made_for = {0};
    double alpha = 0;
    gguf_get_text(a->file, "general.type", &type);
    gguf_get_text(a->file, "adapter.type", &kind);
    gguf_get_text(a->file, "general.architecture", &made_for);
    bool mixers = gguf_text_is(kind, "core");
    a->kind = mixers ? CORE_ADAPTER_MIXERS : CORE_ADAPTER_LORA;
    if (!gguf_text_is(type, "adapter") || (!gguf_text_is(kind, "lora") && !mixers)) {
        return base_fail(err, BASE_INVALID, "%s: not a LoRA adapter", gguf_path(a->file));
    }
    if (!gguf_text_is(made_for, architecture)) {
        return base_fail(err, BASE_INVALID, "%s: adapter for architecture '%.*s', the model is %s",
                         gguf_path(a->file), shown(made_for), made_for.data ? made_for.data : "",
                         architecture);
    }
    if (!gguf_get_f64(a->file, "adapter.lora.alpha", &alpha) || !(alpha > 0)) {
        return base_fail(err, BASE_CORRUPT, "%s: adapter.lora.alpha is missing",
                         gguf_path(a->file));
    }
    a->alpha = (float)alpha;
    return BASE_OK;
}

static void close_file(core_adapter *a)
{
    if (a) {
        gguf_close(a->file);
        base_free(a);
    }
}

static base_status open_file(const char *path, const gguf_file *base, const char *architecture,
                             core_adapter **out, base_error *err)
{
    core_adapter *a = base_calloc(1, sizeof *a);
    if (!a) {
        return base_fail(err, BASE_NO_MEMORY, "%s: no memory", path);
    }
    base_status status = gguf_open(path, &a->file, err);
    if (status || (status = check_kind(a, architecture, err)) ||
        (status = check_base(a, base, err))) {
        close_file(a);
        return status;
    }
    *out = a;
    return BASE_OK;
}

base_status core_adapters_open(const char *const *paths, const gguf_file *base,
                               const char *architecture, core_adapters *out, base_error *err)
{
    static const char *const names[CORE_ADAPTER_KINDS] = {"LoRA adapter", "set of trained mixers"};
    for (size_t i = 0; paths[i]; i++) {
        core_adapter *a = NULL;
        base_status status = open_file(paths[i], base, architecture, &a, err);
        if (status) {
            return status;
        }
        core_adapter **place = &out->of[a->kind];
        if (*place) {
            status = base_fail(err, BASE_INVALID, "%s: a second %s beside %s, a model takes one",
                               gguf_path(a->file), names[a->kind], gguf_path((*place)->file));
            close_file(a);
            return status;
        }
        *place = a;
    }
    return BASE_OK;
}

void core_adapters_close(core_adapters *adapters)
{
    for (int i = 0; i < CORE_ADAPTER_KINDS; i++) {
        close_file(adapters->of[i]);
    }
}

const gguf_file *core_adapters_file(const core_adapters *adapters, int kind)
{
    return adapters->of[kind] ? adapters->of[kind]->file : NULL;
}

base_status core_adapters_apply(const core_adapters *adapters, const char *architecture,
                                gguf_file **base, bool *hybrid, base_error *err)
{
    core_adapter *mixers = adapters->of[CORE_ADAPTER_MIXERS];
    if (!mixers) {
        return BASE_OK;
    }
    if (*hybrid) {
        return base_fail(err, BASE_INVALID, "%s: mixers for a Transformer, %s is a hybrid already",
                         gguf_path(mixers->file), gguf_path(*base));
    }
    *hybrid = true;
    return core_adapter_join(mixers->file, architecture, base, &mixers->whole, err);
}

base_status core_adapters_check_used(const core_adapters *adapters, base_error *err)
{
    for (int i = 0; i < CORE_ADAPTER_KINDS; i++) {
        const core_adapter *a = adapters->of[i];
        if (!a) {
            continue;
        }
        size_t tensors = gguf_tensor_count(a->file), used = 2 * a->merged + a->whole;
        if (used != tensors) {
            return base_fail(err, BASE_INVALID,
                             "%s: adapter has %zu tensors, only %zu fit this model",
                             gguf_path(a->file), tensors, used);
        }
    }
    return BASE_OK;
}

/* --- merging ---------------------------------------------------------------------------------- */

/* The two factors of one matrix: A [rank, columns] and B [rows, rank]. */
typedef struct factors {
    const gguf_tensor *a, *b;
    size_t rank;
} factors;

/* BASE_OK with rank 0: the adapter has none for this tensor. */
static base_status find_factors(const core_adapter *adapter, const char *tensor, size_t rows,
                                size_t columns, factors *out, base_error *err)
{
    enum { RANK_MAX = 1024 };
    char name[160];
    *out = (factors){0};
    snprintf(name, sizeof name, "%s.lora_a", tensor);
    out->a = gguf_find_tensor(adapter->file, name);
    snprintf(name, sizeof name, "%s.lora_b", tensor);
    out->b = gguf_find_tensor(adapter->file, name);
    if (!out->a && !out->b) {
        return BASE_OK;
    }
    size_t rank = out->a ? (size_t)out->a->shape[1] : 0;
    if (!out->a || !out->b) {
        return base_fail(err, BASE_INVALID, "%s: %s has one of its two factors only",
                         gguf_path(adapter->file), tensor);
    }
    if (out->b->shape[0] != rank) {
        return base_fail(err, BASE_INVALID, "%s: %s has factors of rank %zu and %zu",
                         gguf_path(adapter->file), tensor, rank, (size_t)out->b->shape[0]);
    }
    if (rank == 0 || rank > RANK_MAX || out->a->shape[0] != columns || out->b->shape[1] != rows ||
        !kernel_source_known(out->a->type) || !kernel_source_known(out->b->type) ||
        !kernel_source_row_bytes(out->a->type, columns) ||
        !kernel_source_row_bytes(out->b->type, rank)) {
        return base_fail(err, BASE_INVALID, "%s: factors of %s do not fit the model's [%zu, %zu]",
                         gguf_path(adapter->file), tensor, rows, columns);
    }
    out->rank = rank;
    return BASE_OK;
}

/* row [columns] += scale * b A, b [rank], A [rank, columns]; four rows of A a time. */
KERNEL_CLONES static void add_row(float *restrict row, const float *restrict b,
                                  const float *restrict a, size_t rank, size_t columns, float scale)
{
    size_t r = 0;
    for (; r + 4 <= rank; r += 4) {
        const float *restrict a0 = a + r * columns, *restrict a1 = a0 + columns;
        const float *restrict a2 = a1 + columns, *restrict a3 = a2 + columns;
        float b0 = scale * b[r], b1 = scale * b[r + 1], b2 = scale * b[r + 2],
              b3 = scale * b[r + 3];
        for (size_t k = 0; k < columns; k++) {
            row[k] += b0 * a0[k] + b1 * a1[k] + (b2 * a2[k] + b3 * a3[k]);
        }
    }
    for (; r < rank; r++) {
        for (size_t k = 0; k < columns; k++) {
            row[k] += scale * b[r] * a[r * columns + k];
        }
    }
}

/* Q8_0 as GGUF defines it: per 32 columns an f16 scale d = max|w|/127 and 32 signed codes. Adding
 * and taking away 1.5 * 2^23 rounds to the nearest integer, ties to even, |x| < 2^22. */
KERNEL_CLONES static void quantise_q8_0(const float *restrict values, size_t columns,
                                        uint8_t *restrict out)
{
    static const float shift = 12582912.0f;
    for (size_t block = 0; block < columns / 32; block++, out += 34) {
        const float *restrict v = values + block * 32;
        float size[32], largest = 0;
        for (int i = 0; i < 32; i++) {
            size[i] = fabsf(v[i]);
        }
        for (int i = 0; i < 32; i++) {
            largest = size[i] > largest ? size[i] : largest;
        }
        uint16_t half = kernel_float_to_half(largest / 127.0f);
        float scale = kernel_half_to_float(half), inverse = scale > 0 ? 1.0f / scale : 0.0f;
        memcpy(out, &half, sizeof half);
        for (int i = 0; i < 32; i++) {
            float code = v[i] * inverse + shift - shift;
            code = code > 127.0f ? 127.0f : code < -127.0f ? -127.0f : code;
            out[2 + i] = (uint8_t)(int8_t)(int)code;
        }
    }
}

static base_status merge(core_adapter *adapter, const gguf_tensor *tensor, const char *name,
                         size_t rows, size_t columns, uint8_t **raw, uint32_t *type,
                         base_error *err)
{
    factors f;
    *raw = NULL;
    base_status status = find_factors(adapter, name, rows, columns, &f, err);
    if (status || f.rank == 0) {
        return status;
    }
    uint32_t out_type = columns % 32 == 0 ? KERNEL_SRC_Q8_0 : KERNEL_SRC_F32;
    size_t in_bytes = kernel_source_row_bytes(tensor->type, columns);
    size_t out_bytes = kernel_source_row_bytes(out_type, columns);
    size_t a_bytes = kernel_source_row_bytes(f.a->type, columns);
    size_t b_bytes = kernel_source_row_bytes(f.b->type, f.rank);
    float *a = base_calloc(f.rank, columns * sizeof *a);
    float *b = base_calloc(f.rank, sizeof *b);
    float *row = base_calloc(columns, sizeof *row);
    uint8_t *out = base_calloc(rows, out_bytes);
    if (!a || !b || !row || !out) {
        base_free(out);
        out = NULL;
        status = base_fail(err, BASE_NO_MEMORY, "%s: no memory to merge %s",
                           gguf_path(adapter->file), name);
    }
    for (size_t r = 0; out && r < f.rank; r++) {
        kernel_source_dequantise_row(f.a->type, f.a->data + r * a_bytes, columns, a + r * columns);
    }
    for (size_t n = 0; out && n < rows; n++) {
        kernel_source_dequantise_row(tensor->type, tensor->data + n * in_bytes, columns, row);
        kernel_source_dequantise_row(f.b->type, f.b->data + n * b_bytes, f.rank, b);
        add_row(row, b, a, f.rank, columns, adapter->alpha / (float)f.rank);
        if (out_type == KERNEL_SRC_Q8_0) {
            quantise_q8_0(row, columns, out + n * out_bytes);
        } else {
            memcpy(out + n * out_bytes, row, out_bytes);
        }
    }
    base_free(a);
    base_free(b);
    base_free(row);
    if (out) {
        adapter->merged++;
        *raw = out;
        *type = out_type;
    }
    return status;
}

base_status core_adapters_merge(const core_adapters *adapters, const gguf_tensor *tensor,
                                const char *name, size_t rows, size_t columns, uint8_t **raw,
                                uint32_t *type, base_error *err)
{
    base_status status = BASE_OK;
    *raw = NULL;
    for (int i = 0; i < CORE_ADAPTER_KINDS && !*raw && !status; i++) {
        if (adapters->of[i]) {
            status = merge(adapters->of[i], tensor, name, rows, columns, raw, type, err);
        }
    }
    return status;
}
