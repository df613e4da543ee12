/* engine/adapter_core.c: the hybrid that a core adapter (trained mixers) makes of a Transformer.
 *
 * A core adapter (adapter.type = "core") holds the bmojo.* keys of model_fading.c and, of every
 * fading layer, blk.N.: low-rank factors of ssm_q, ssm_k, ssm_v, ssm_o and ssm_g (as LoRA has
 * them) over the matrices that prime.c would give the mixer, and everything else of the mixer
 * whole, in F32. Both files are seen here as the one file that `eidetic prime` would write: the
 * base's tensors as they lie, its attention matrices also under the mixer's names, gate rows made
 * anew, and the adapter's whole tensors. The factors are merged where matrices are loaded, as any
 * LoRA's.
 */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "engine/gguf_keys.h"
#include "engine/model.h"
#include "engine/prime.h"

enum { NAME_SIZE = 64, PER_LAYER = 5 };

/* Lives as long as the joined file. */
typedef struct joined {
    gguf_file *base; /* owned */
    const gguf_file *adapter;
    gguf_keys keys;
    base_buffer image;
    gguf_tensor *tensors;
    size_t count, layers;
    char (*names)[NAME_SIZE]; /* [layers * PER_LAYER] */
    uint8_t **gates;          /* [layers] owned, NULL in a plain layer */
} joined;

static void release(void *owner)
{
    joined *j = owner;
    for (size_t i = 0; j->gates && i < j->layers; i++) {
        base_free(j->gates[i]);
    }
    base_free(j->gates);
    base_free(j->names);
    base_free(j->tensors);
    base_buffer_free(&j->keys.bytes);
    base_buffer_free(&j->image);
    gguf_close(j->base);
    base_free(j);
}

static bool is_fading(const joined *j, size_t layer)
{
    int64_t kind = 0;
    return gguf_array_i64(j->adapter, "bmojo.layer_kinds", layer, &kind) && kind == 1;
}

/* blk.LAYER.NAME.weight of the base, which must be there. */
static const gguf_tensor *of_base(const joined *j, size_t layer, const char *name, base_error *err)
{
    char full[NAME_SIZE];
    snprintf(full, sizeof full, "blk.%zu.%s.weight", layer, name);
    const gguf_tensor *tensor = gguf_find_tensor(j->base, full);
    if (!tensor) {
        base_fail(err, BASE_CORRUPT, "%s: tensor %s is missing, which %s builds on",
                  gguf_path(j->base), full, gguf_path(j->adapter));
    }
    return tensor;
}

static void name_tensor(joined *j, size_t layer, size_t which, const char *name, gguf_tensor *out)
{
    char *full = j->names[layer * PER_LAYER + which];
    snprintf(full, NAME_SIZE, "blk.%zu.%s.weight", layer, name);
    out->name = (gguf_text){full, strlen(full)};
}

/* What prime.c would give the mixer of one layer: four matrices of attention, and gate rows. */
static base_status add_primed(joined *j, size_t layer, base_error *err)
{
    static const char *const copied[][2] = {
        {"attn_q", "ssm_q"}, {"attn_k", "ssm_k"}, {"attn_v", "ssm_v"}, {"attn_output", "ssm_o"}};
    const gguf_tensor *source[4];
    for (size_t i = 0; i < 4; i++) {
        if (!(source[i] = of_base(j, layer, copied[i][0], err))) {
            return BASE_CORRUPT;
        }
        j->tensors[j->count] = *source[i];
        name_tensor(j, layer, i, copied[i][1], &j->tensors[j->count++]);
    }
    gguf_tensor gate = *source[0]; /* the same shape, [H*D, C] */
    base_status status = prime_gate(source[3], source[2], &gate, &j->gates[layer], err);
    if (!status) {
        name_tensor(j, layer, 4, "ssm_g", &gate);
        j->tensors[j->count++] = gate;
    }
    return status;
}

/* A tensor of the mixer that is kept whole, or a factor of one that is not. */
static bool is_known(const char *part)
{
    static const char *const whole[] = {"conv_q.weight",
                                        "conv_k.weight",
                                        "conv_v.weight",
                                        "conv_q.bias",
                                        "conv_k.bias",
                                        "conv_v.bias",
                                        "decay.weight",
                                        "beta.weight",
                                        "beta.bias",
                                        "alpha.weight",
                                        "alpha.bias",
                                        "a",
                                        "dt",
                                        "d",
                                        "norm.weight",
                                        "q_norm.weight",
                                        "k_norm.weight",
                                        "gate"};
    for (size_t i = 0; i < sizeof whole / sizeof *whole; i++) {
        if (strcmp(part, whole[i]) == 0) {
            return true;
        }
    }
    return false;
}

/* The adapter's whole tensors; the factors are found by core_adapters_merge. */
static base_status add_whole(joined *j, size_t *whole, base_error *err)
{
    for (size_t i = 0; i < gguf_tensor_count(j->adapter); i++) {
        const gguf_tensor *tensor = gguf_tensor_at(j->adapter, i);
        char name[NAME_SIZE];
        size_t layer = 0;
        int end = 0;
        snprintf(name, sizeof name, "%.*s", (int)tensor->name.size, tensor->name.data);
        bool factor = strstr(name, ".lora_a") || strstr(name, ".lora_b");
        if (sscanf(name, "blk.%zu.ssm_%n", &layer, &end) != 1 || end == 0 || !is_fading(j, layer) ||
            !(factor || is_known(name + end))) {
            return base_fail(err, BASE_INVALID, "%s: tensor %s is none of a fading layer's",
                             gguf_path(j->adapter), name);
        }
        if (!factor) {
            j->tensors[j->count++] = *tensor;
            (*whole)++;
        }
    }
    return BASE_OK;
}

static base_status write_image(joined *j, const char *architecture, base_error *err)
{
    gguf_keys_text(&j->keys, "general.architecture", "bmojo", 5);
    gguf_keys_text(&j->keys, "bmojo.base_architecture", architecture, strlen(architecture));
    gguf_keys_copy_file(&j->keys, j->base, "", "general.architecture");
    gguf_keys_copy_file(&j->keys, j->adapter, "bmojo.", NULL);
    return gguf_keys_file(&j->keys, &j->image)
               ? base_fail(err, BASE_NO_MEMORY, "%s: no memory", gguf_path(j->adapter))
               : BASE_OK;
}

static base_status fill(joined *j, const char *architecture, size_t *whole, base_error *err)
{
    size_t base_count = gguf_tensor_count(j->base), all = 0;
    if (!gguf_array_count(j->adapter, "bmojo.layer_kinds", &j->layers) || j->layers == 0) {
        return base_fail(err, BASE_CORRUPT, "%s: key bmojo.layer_kinds is missing",
                         gguf_path(j->adapter));
    }
    all = base_count + gguf_tensor_count(j->adapter) + PER_LAYER * j->layers;
    j->tensors = base_calloc(all, sizeof *j->tensors);
    j->names = base_calloc(PER_LAYER * j->layers, sizeof *j->names);
    j->gates = base_calloc(j->layers, sizeof *j->gates);
    if (!j->tensors || !j->names || !j->gates) {
        return base_fail(err, BASE_NO_MEMORY, "%s: no memory", gguf_path(j->adapter));
    }
    for (size_t i = 0; i < base_count; i++) {
        j->tensors[j->count++] = *gguf_tensor_at(j->base, i);
    }
    base_status status = add_whole(j, whole, err);
    for (size_t i = 0; i < j->layers && !status; i++) {
        status = is_fading(j, i) ? add_primed(j, i, err) : BASE_OK;
    }
    return status ? status : write_image(j, architecture, err);
}

base_status core_adapter_join(const gguf_file *adapter, const char *architecture, gguf_file **file,
                              size_t *whole, base_error *err)
{
    joined *j = base_calloc(1, sizeof *j);
    char name[512];
    *whole = 0;
    if (!j) {
        return base_fail(err, BASE_NO_MEMORY, "%s: no memory", gguf_path(adapter));
    }
    j->base = *file;
    j->adapter = adapter;
    snprintf(name, sizeof name, "%s with %s", gguf_path(*file), gguf_path(adapter));
    base_status status = fill(j, architecture, whole, err);
    if (status) {
        j->base = NULL; /* stays the caller's */
        release(j);
        return status;
    }
    *file = NULL;
    return gguf_open_parts(name, j->image.data, j->image.size, j->tensors, j->count, j, release,
                           file, err);
}
