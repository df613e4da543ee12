/* engine/folder.c: see folder.h. config.json becomes metadata; tensors get their GGUF names, layer
 * by layer, in the order in which they are asked for here. Vectors, convolutions and what is
 * transformed (-exp(A_log)) become F32 of their own; what the engine does not use is not looked at.
 * Keys of the hybrids: their publisher's config (bmojo_config, gka_config ...); a switch that
 * stands otherwise than here is refused. The tokenizer: folder_vocab.c.
 */
#include "engine/folder.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "engine/kernels.h"
#include "engine/safetensors.h"

enum { CONFIG_BYTES_MAX = 1 << 24, NAME_SIZE = 160, LAYERS_MAX = 512, FILES_MAX = 1024 };
enum { VALUE_F32 = 0, VALUE_F16 = 1, VALUE_BF16 = 30 };

typedef struct folder {
    const char *path;
    json_t *config;
    const char *architecture; /* GGUF's */
    gguf_keys keys;
    base_buffer image;
    safetensors_file **files;
    size_t file_count;
    gguf_tensor *tensors;
    size_t tensor_count, tensor_capacity;
    void **owned; /* names and values made here */
    size_t owned_count, owned_capacity;
    base_status status; /* the first failure: everything behind it does nothing */
    base_error *err;
} folder;

static void release(void *owner)
{
    folder *f = owner;
    for (size_t i = 0; i < f->file_count; i++) {
        safetensors_close(f->files[i]);
    }
    for (size_t i = 0; i < f->owned_count; i++) {
        base_free(f->owned[i]);
    }
    json_decref(f->config);
    base_buffer_free(&f->keys.bytes);
    base_buffer_free(&f->image);
    base_free(f->files);
    base_free(f->tensors);
    base_free(f->owned);
    base_free(f);
}

static bool no_memory(folder *f)
{
    f->status = f->status ? f->status : base_fail(f->err, BASE_NO_MEMORY, "%s: no memory", f->path);
    return false;
}

/* Zeroed memory that lives with the folder. */
static void *make(folder *f, size_t size)
{
    if (f->owned_count == f->owned_capacity) {
        size_t capacity = 2 * f->owned_capacity + 256;
        void **grown = base_realloc(f->owned, capacity * sizeof *grown);
        if (!grown) {
            no_memory(f);
            return NULL;
        }
        f->owned = grown;
        f->owned_capacity = capacity;
    }
    void *data = base_calloc(1, size);
    if (!data) {
        no_memory(f);
        return NULL;
    }
    return f->owned[f->owned_count++] = data;
}

/* --- config.json ------------------------------------------------------------------------------ */

static void unsupported(folder *f, const char *what, const char *value)
{
    if (!f->status) {
        f->status = base_fail(f->err, BASE_UNSUPPORTED,
                              "%s/config.json: %s '%.60s' is not supported", f->path, what, value);
    }
}

/* A positive integer; `fallback` where it is absent, 0 = it must be there. */
static size_t size_of(folder *f, const json_t *from, const char *key, size_t fallback)
{
    const json_t *value = json_object_get(from, key);
    if ((!value || json_is_null(value)) && fallback > 0) {
        return fallback;
    }
    if (!json_is_integer(value) || json_integer_value(value) <= 0 ||
        json_integer_value(value) > INT32_MAX) {
        f->status = f->status ? f->status
                              : base_fail(f->err, BASE_CORRUPT,
                                          "%s/config.json: %s is missing or no positive number",
                                          f->path, key);
        return 1;
    }
    return (size_t)json_integer_value(value);
}

static double real_of(const json_t *from, const char *key, double fallback)
{
    const json_t *value = json_object_get(from, key);
    return json_is_number(value) ? json_number_value(value) : fallback;
}

/* A switch that must stand as `wanted`; absent counts as that. */
static void must_be(folder *f, const json_t *from, const char *key, bool wanted)
{
    const json_t *value = json_object_get(from, key);
    if (json_is_boolean(value) && json_is_true(value) != wanted) {
        unsupported(f, key, wanted ? "false" : "true");
    }
}

static void must_be_null(folder *f, const json_t *from, const char *key)
{
    const json_t *value = json_object_get(from, key);
    if (value && !json_is_null(value)) {
        unsupported(f, key, "other than null");
    }
}

static const char *key(const folder *f, const char *name, char out[NAME_SIZE])
{
    snprintf(out, NAME_SIZE, "%s.%s", f->architecture, name);
    return out;
}

static void put_size(folder *f, const char *name, size_t value)
{
    char full[NAME_SIZE];
    gguf_keys_u32(&f->keys, key(f, name, full), value);
}

static void put_real(folder *f, const char *name, double value)
{
    char full[NAME_SIZE];
    gguf_keys_f32(&f->keys, key(f, name, full), value);
}

/* --- tensors ---------------------------------------------------------------------------------- */

static const safetensors_tensor *find(const folder *f, const char *name)
{
    for (size_t i = 0; i < f->file_count; i++) {
        const safetensors_tensor *t = safetensors_find(f->files[i], name);
        if (t) {
            return t;
        }
    }
    return NULL;
}

typedef enum change {
    KEEP,        /* a matrix as it is */
    WIDEN,       /* F32, also where the file has less */
    NEGATIVE_EXP /* F32, -exp(x) */
} change;

static void widen(const safetensors_tensor *t, uint32_t type, size_t from, size_t count,
                  change what, float *out)
{
    size_t bytes = type == VALUE_F32 ? 4 : 2;
    kernel_source_dequantise_row(type, t->data + from * bytes, count, out);
    for (size_t i = 0; i < count && what == NEGATIVE_EXP; i++) {
        out[i] = -expf(out[i]);
    }
}

static gguf_tensor *add(folder *f, const char *name)
{
    if (f->tensor_count == f->tensor_capacity) {
        size_t capacity = 2 * f->tensor_capacity + 256;
        gguf_tensor *grown = base_realloc(f->tensors, capacity * sizeof *grown);
        if (!grown) {
            no_memory(f);
            return NULL;
        }
        f->tensors = grown;
        f->tensor_capacity = capacity;
    }
    char *kept = make(f, strlen(name) + 1);
    if (!kept) {
        return NULL;
    }
    memcpy(kept, name, strlen(name));
    gguf_tensor *t = &f->tensors[f->tensor_count++];
    *t = (gguf_tensor){.name = {kept, strlen(name)}, .shape = {1, 1, 1, 1}};
    return t;
}

/* Rows [from, from + count) of the folder's tensor `theirs` as `ours`; count 0: all. A convolution
 * [C, 1, K] is a matrix [C, K]. False where there is none. */
static bool take_rows(folder *f, const char *theirs, const char *ours, size_t from, size_t count,
                      change what)
{
    const safetensors_tensor *t = f->status ? NULL : find(f, theirs);
    if (!t) {
        return false;
    }
    uint32_t type = strcmp(t->type, "F32") == 0   ? VALUE_F32
                    : strcmp(t->type, "F16") == 0 ? VALUE_F16
                                                  : VALUE_BF16;
    bool flat = t->dimensions == 3 && t->shape[1] == 1;
    size_t rows = (size_t)t->shape[0], columns = (size_t)t->shape[t->dimensions - 1], all = rows;
    if ((type == VALUE_BF16 && strcmp(t->type, "BF16") != 0) || t->dimensions == 0 ||
        (t->dimensions > 2 && !flat)) {
        f->status = base_fail(f->err, BASE_UNSUPPORTED,
                              "%s: tensor %s: values of type %s in %zu "
                              "dimensions",
                              f->path, theirs, t->type, t->dimensions);
        return false;
    }
    columns = t->dimensions == 1 ? 1 : columns;
    count = count ? count : all;
    if (from > all || count > all - from) {
        f->status = base_fail(f->err, BASE_CORRUPT,
                              "%s: tensor %s has %zu rows, expected at least "
                              "%zu",
                              f->path, theirs, all, from + count);
        return false;
    }
    size_t bytes = type == VALUE_F32 ? 4 : 2;
    gguf_tensor *out = add(f, ours);
    if (!out) {
        return false;
    }
    bool vector = t->dimensions == 1;
    out->type = type;
    out->dimensions = vector ? 1 : 2;
    out->shape[0] = vector ? count : columns;
    out->shape[1] = vector ? 1 : count;
    out->data = t->data + from * columns * bytes;
    out->size = count * columns * bytes;
    if (what != KEEP || vector || flat) {
        float *values = make(f, count * columns * sizeof *values);
        if (values) {
            widen(t, type, from * columns, count * columns, what, values);
        }
        out->type = VALUE_F32;
        out->data = (const uint8_t *)values;
        out->size = count * columns * sizeof *values;
    } else if ((uintptr_t)out->data % bytes != 0) { /* the format promises no alignment */
        void *copy = make(f, out->size);
        if (copy) {
            memcpy(copy, out->data, out->size);
        }
        out->data = copy;
    }
    return !f->status;
}

static void need(folder *f, const char *theirs, const char *ours, change what)
{
    if (!take_rows(f, theirs, ours, 0, 0, what) && !f->status) {
        f->status = base_fail(f->err, BASE_CORRUPT, "%s: tensor %s is missing", f->path, theirs);
    }
}

/* Layer `i`: THEIRS is below `prefix`, OURS below blk.I. */
typedef struct layer {
    folder *f;
    size_t i;
    char prefix[NAME_SIZE];
} layer;

static layer layer_at(folder *f, size_t i, const char *format)
{
    layer l = {.f = f, .i = i};
    snprintf(l.prefix, sizeof l.prefix, "%s.%zu.", format, i);
    return l;
}

static void of_layer(const layer *l, const char *below, const char *theirs, const char *ours,
                     change what)
{
    char a[3 * NAME_SIZE], b[2 * NAME_SIZE];
    snprintf(a, sizeof a, "%s%s%s", l->prefix, below, theirs);
    snprintf(b, sizeof b, "blk.%zu.%s", l->i, ours);
    need(l->f, a, b, what);
}

/* The same where it is there. */
static void maybe(const layer *l, const char *below, const char *theirs, const char *ours)
{
    char a[3 * NAME_SIZE];
    snprintf(a, sizeof a, "%s%s%s", l->prefix, below, theirs);
    if (!l->f->status && find(l->f, a)) {
        of_layer(l, below, theirs, ours, KEEP);
    }
}

/* Consecutive rows of one tensor, under a name each. */
static void split(const layer *l, const char *below, const char *theirs, const char *const *ours,
                  const size_t *rows, size_t parts)
{
    char a[3 * NAME_SIZE], b[2 * NAME_SIZE];
    snprintf(a, sizeof a, "%s%s%s", l->prefix, below, theirs);
    for (size_t p = 0, from = 0; p < parts && !l->f->status; from += rows[p++]) {
        snprintf(b, sizeof b, "blk.%zu.%s", l->i, ours[p]);
        if (!take_rows(l->f, a, b, from, rows[p], KEEP) && !l->f->status) {
            l->f->status =
                base_fail(l->f->err, BASE_CORRUPT, "%s: tensor %s is missing", l->f->path, a);
        }
    }
}

static void attention(const layer *l, const char *below)
{
    static const char *const names[][2] = {{"q_proj", "attn_q"},
                                           {"k_proj", "attn_k"},
                                           {"v_proj", "attn_v"},
                                           {"o_proj", "attn_output"}};
    for (size_t i = 0; i < 4; i++) {
        char a[NAME_SIZE], b[NAME_SIZE];
        snprintf(a, sizeof a, "%s.weight", names[i][0]);
        snprintf(b, sizeof b, "%s.weight", names[i][1]);
        of_layer(l, below, a, b, KEEP);
        snprintf(a, sizeof a, "%s.bias", names[i][0]);
        snprintf(b, sizeof b, "%s.bias", names[i][1]);
        maybe(l, below, a, b);
    }
    maybe(l, below, "q_norm.weight", "attn_q_norm.weight");
    maybe(l, below, "k_norm.weight", "attn_k_norm.weight");
}

static void block(const layer *l)
{
    of_layer(l, "", "input_layernorm.weight", "attn_norm.weight", WIDEN);
    of_layer(l, "", "post_attention_layernorm.weight", "ffn_norm.weight", WIDEN);
    of_layer(l, "", "mlp.gate_proj.weight", "ffn_gate.weight", KEEP);
    of_layer(l, "", "mlp.up_proj.weight", "ffn_up.weight", KEEP);
    of_layer(l, "", "mlp.down_proj.weight", "ffn_down.weight", KEEP);
}

/* --- architectures ---------------------------------------------------------------------------- */

static void rotation(folder *f, const json_t *config)
{
    const json_t *rope = json_object_get(config, "rope_parameters");
    const json_t *scaling = json_object_get(config, "rope_scaling");
    const json_t *types[] = {json_object_get(rope, "rope_type"),
                             json_object_get(scaling, "rope_type"),
                             json_object_get(scaling, "type")};
    for (size_t i = 0; i < 3; i++) {
        const char *type = json_string_value(types[i]);
        if (type && strcmp(type, "default") != 0) {
            unsupported(f, "RoPE scaling", type);
        }
    }
    put_real(f, "rope.freq_base",
             real_of(rope, "rope_theta", real_of(config, "rope_theta", 10000.0)));
    gguf_keys_bool(&f->keys, "eidetic.rope_halves", true); /* rows are not permuted here */
}

/* What all but mamba2 have. Returns the layers. */
static size_t transformer(folder *f)
{
    const json_t *c = f->config;
    size_t layers = size_of(f, c, "num_hidden_layers", 0);
    size_t channels = size_of(f, c, "hidden_size", 0);
    size_t heads = size_of(f, c, "num_attention_heads", 0);
    const char *activation = json_string_value(json_object_get(c, "hidden_act"));
    if (activation && strcmp(activation, "silu") != 0) {
        unsupported(f, "hidden_act", activation);
    }
    must_be(f, c, "use_sliding_window", false);
    put_size(f, "block_count", layers);
    put_size(f, "embedding_length", channels);
    put_size(f, "attention.head_count", heads);
    put_size(f, "attention.key_length",
             size_of(f, c, "head_dim", channels / heads ? channels / heads : 1));
    put_size(f, "context_length", size_of(f, c, "max_position_embeddings", 0));
    put_real(f, "attention.layer_norm_rms_epsilon", real_of(c, "rms_norm_eps", 1e-6));
    rotation(f, c);
    if (layers > LAYERS_MAX) {
        unsupported(f, "num_hidden_layers", "more than 512");
    }
    need(f, "model.embed_tokens.weight", "token_embd.weight", KEEP);
    need(f, "model.norm.weight", "output_norm.weight", WIDEN);
    if (!json_is_true(json_object_get(c, "tie_word_embeddings"))) {
        need(f, "lm_head.weight", "output.weight", KEEP);
    }
    return f->status ? 0 : layers;
}

static void dense_keys(folder *f)
{
    put_size(f, "feed_forward_length", size_of(f, f->config, "intermediate_size", 0));
    put_size(f, "attention.head_count_kv",
             size_of(f, f->config, "num_key_value_heads",
                     size_of(f, f->config, "num_attention_heads", 0)));
}

static void dense(folder *f)
{
    size_t layers = transformer(f);
    dense_keys(f);
    for (size_t i = 0; i < layers && !f->status; i++) {
        layer l = layer_at(f, i, "model.layers");
        block(&l);
        attention(&l, "self_attn.");
    }
}

static void stock_mamba(const layer *l, const char *below)
{
    of_layer(l, below, "in_proj.weight", "ssm_in.weight", KEEP);
    of_layer(l, below, "conv1d.weight", "ssm_conv1d.weight", WIDEN);
    maybe(l, below, "conv1d.bias", "ssm_conv1d.bias");
    of_layer(l, below, "A_log", "ssm_a", NEGATIVE_EXP);
    of_layer(l, below, "D", "ssm_d", WIDEN);
    of_layer(l, below, "dt_bias", "ssm_dt.bias", WIDEN);
    of_layer(l, below, "norm.weight", "ssm_norm.weight", WIDEN);
    of_layer(l, below, "out_proj.weight", "ssm_out.weight", KEEP);
}

/* The step's bounds must not bind. */
static void time_step_limit(folder *f, const char *name)
{
    const json_t *limit = json_object_get(f->config, name);
    const json_t *high = json_array_get(limit, 1);
    if (json_number_value(json_array_get(limit, 0)) > 0 ||
        (json_is_number(high) && json_number_value(high) < 1e30)) {
        unsupported(f, name, "other than (0, infinity)");
    }
}

static void mamba_keys(folder *f, size_t heads, size_t size, const char *state, const char *kernel,
                       const char *groups)
{
    put_size(f, "ssm.inner_size", heads * size);
    put_size(f, "ssm.time_step_rank", heads);
    put_size(f, "ssm.state_size", size_of(f, f->config, state, 0));
    put_size(f, "ssm.conv_kernel", size_of(f, f->config, kernel, 0));
    put_size(f, "ssm.group_count", size_of(f, f->config, groups, 0));
}

static void mamba2(folder *f)
{
    const json_t *c = f->config;
    size_t layers = size_of(f, c, "num_hidden_layers", 0);
    put_size(f, "block_count", layers);
    put_size(f, "embedding_length", size_of(f, c, "hidden_size", 0));
    put_size(f, "context_length", 1 << 20); /* as llama.cpp's converter: there is no bound */
    put_real(f, "attention.layer_norm_rms_epsilon", real_of(c, "layer_norm_epsilon", 1e-5));
    mamba_keys(f, size_of(f, c, "num_heads", 0), size_of(f, c, "head_dim", 0), "state_size",
               "conv_kernel", "n_groups");
    time_step_limit(f, "time_step_limit");
    must_be(f, c, "use_bias", false);
    need(f, "backbone.embeddings.weight", "token_embd.weight", KEEP);
    need(f, "backbone.norm_f.weight", "output_norm.weight", WIDEN);
    if (!json_is_true(json_object_get(c, "tie_word_embeddings")) || find(f, "lm_head.weight")) {
        need(f, "lm_head.weight", "output.weight", KEEP);
    }
    for (size_t i = 0; i < layers && !f->status; i++) {
        layer l = layer_at(f, i, "backbone.layers");
        of_layer(&l, "", "norm.weight", "attn_norm.weight", WIDEN);
        stock_mamba(&l, "mixer.");
    }
}

/* Names before and since transformers 5. */
static bool is_kind(const char *type, const char *old, const char *now)
{
    return type && (strcmp(type, old) == 0 || strcmp(type, now) == 0);
}

static void granite(folder *f)
{
    const json_t *c = f->config, *types = json_object_get(c, "layer_types");
    const char *position = json_string_value(json_object_get(c, "position_embedding_type"));
    size_t layers = transformer(f), kv = size_of(f, c, "num_key_value_heads", 0);
    size_t hidden = size_of(f, c, "shared_intermediate_size", 0);
    char full[NAME_SIZE];
    if (json_integer_value(json_object_get(c, "num_local_experts")) > 0) {
        unsupported(f, "num_local_experts", "above 0");
    }
    must_be(f, c, "mamba_proj_bias", false);
    put_size(f, "feed_forward_length", hidden);
    gguf_keys_array(&f->keys, key(f, "attention.head_count_kv", full), GGUF_KEYS_I32, layers);
    for (size_t i = 0; i < layers; i++) {
        const char *type = json_string_value(json_array_get(types, i));
        bool attends = is_kind(type, "attention", "full_attention");
        if (!attends && !is_kind(type, "mamba", "linear_attention")) {
            unsupported(f, "layer type", type ? type : "(missing)");
        }
        gguf_keys_number(&f->keys, GGUF_KEYS_I32, attends ? (int32_t)kv : 0);
    }
    put_real(f, "attention.scale", real_of(c, "attention_multiplier", 0));
    put_real(f, "embedding_scale", real_of(c, "embedding_multiplier", 0));
    put_real(f, "residual_scale", real_of(c, "residual_multiplier", 0));
    put_real(f, "logit_scale", real_of(c, "logits_scaling", 0));
    gguf_keys_bool(&f->keys, key(f, "rope.scaling.finetuned", full),
                   position && strcmp(position, "rope") == 0);
    mamba_keys(f, size_of(f, c, "mamba_n_heads", 0), size_of(f, c, "mamba_d_head", 0),
               "mamba_d_state", "mamba_d_conv", "mamba_n_groups");
    time_step_limit(f, "time_step_limit");
    for (size_t i = 0; i < layers && !f->status; i++) {
        static const char *const gate_up[] = {"ffn_gate.weight", "ffn_up.weight"};
        const char *type = json_string_value(json_array_get(types, i));
        layer l = layer_at(f, i, "model.layers");
        of_layer(&l, "", "input_layernorm.weight", "attn_norm.weight", WIDEN);
        of_layer(&l, "", "post_attention_layernorm.weight", "ffn_norm.weight", WIDEN);
        split(&l, "shared_mlp.", "input_linear.weight", gate_up, (size_t[]){hidden, hidden}, 2);
        of_layer(&l, "shared_mlp.", "output_linear.weight", "ffn_down.weight", KEEP);
        if (is_kind(type, "mamba", "linear_attention")) {
            stock_mamba(&l, "mamba.");
        } else {
            attention(&l, "self_attn.");
        }
    }
}

/* --- HybridQwen3ForCausalLM ------------------------------------------------------------------- */

enum { GDN, GKA, MAMBA2, MIXERS };
static const char *const mixer_names[MIXERS] = {"gdn", "gka", "mamba2"};
static const char *const mixer_modules[MIXERS] = {"gdn.", "gka.", "mamba."};
static const char *const mixer_symbols[MIXERS] = {"GDN", "GKA", "M2"};

typedef struct hybrid {
    size_t heads, kv_heads, head_size;
    int mixer; /* of all layers; -1 = not known yet */
    uint8_t kinds[LAYERS_MAX];
} hybrid;

static void set_mixer(folder *f, hybrid *h, const char *name, const char *const *names)
{
    int found = -1;
    for (int i = 0; i < MIXERS; i++) {
        found = strcmp(name, names[i]) == 0 ? i : found;
    }
    if (found < 0) {
        unsupported(f, "mixer", name);
    } else if (h->mixer >= 0 && h->mixer != found) {
        unsupported(f, "a second mixer beside the first", name);
    }
    h->mixer = found;
}

/* "*-BMF-..." */
static void read_pattern(folder *f, hybrid *h, size_t layers)
{
    const char *at = json_string_value(json_object_get(f->config, "hybrid_override_pattern"));
    const json_t *bmojo = json_object_get(f->config, "bmojo_config");
    size_t count = 0;
    while (at && *at && count < layers) {
        size_t size = strcspn(at, "-");
        char symbol[16] = {0};
        memcpy(symbol, at, size < sizeof symbol - 1 ? size : sizeof symbol - 1);
        if (strcmp(symbol, "*") == 0) {
            h->kinds[count] = 0;
        } else if (strcmp(symbol, "BMF") == 0) {
            const char *name = json_string_value(json_object_get(bmojo, "ssm_mixer"));
            set_mixer(f, h, name ? name : "mamba2", mixer_names);
            h->kinds[count] = 1;
        } else {
            set_mixer(f, h, symbol, mixer_symbols);
            h->kinds[count] = 2;
        }
        count++;
        at += size + (at[size] == '-');
    }
    if (!f->status && (count != layers || !at || *at)) {
        f->status = base_fail(f->err, BASE_CORRUPT,
                              "%s/config.json: hybrid_override_pattern has not "
                              "%zu layers",
                              f->path, layers);
    }
}

static void mixer_keys(folder *f, const hybrid *h)
{
    static const char *const configs[MIXERS] = {"gdn_config", "gka_config", "mamba2_config"};
    static const char *const on[] = {
        "use_alpha_connection", "use_v_conv", "use_forgetting_gate", "use_forgetting_gate_kk",
        "use_beta_gate",        "use_gate",   "gla_rescale",         "bp_lambda",
        "use_short_conv"};
    static const char *const off[] = {"allow_neg_eigval", "conv_bias", "kv_learnable_residual",
                                      "use_pos_emb", "use_pos_embed"};
    const json_t *c = json_object_get(f->config, configs[h->mixer]);
    for (size_t i = 0; i < sizeof on / sizeof *on; i++) {
        must_be(f, c, on[i], true);
    }
    for (size_t i = 0; i < sizeof off / sizeof *off; i++) {
        must_be(f, c, off[i], false);
    }
    must_be_null(f, c, "kv_proj_rank");
    const char *solver = json_string_value(json_object_get(c, "solver_type"));
    if (solver && strcmp(solver, "chebyshev") != 0) {
        unsupported(f, "solver_type", solver);
    }
    gguf_keys_text(&f->keys, "bmojo.ssm.kind", mixer_names[h->mixer],
                   strlen(mixer_names[h->mixer]));
    gguf_keys_u32(&f->keys, "bmojo.ssm.conv_kernel", size_of(f, c, "conv_size", 4));
    gguf_keys_u32(&f->keys, "bmojo.ssm.iterations", size_of(f, c, "num_iter", 30));
    gguf_keys_f32(&f->keys, "bmojo.ssm.ridge", real_of(c, "ridge_strength", 0.02));
    gguf_keys_f32(&f->keys, "bmojo.ssm.norm_eps",
                  real_of(c, "norm_eps", h->mixer == GKA ? 1e-6 : 1e-5));
}

static void hybrid_mamba(const layer *l, const hybrid *h, const char *below)
{
    static const char *const rows[] = {"ssm_g.weight", "ssm_v.weight", "ssm_k.weight",
                                       "ssm_q.weight", "ssm_decay.weight"};
    static const char *const conv[] = {"ssm_conv_v.weight", "ssm_conv_k.weight",
                                       "ssm_conv_q.weight"};
    static const char *const bias[] = {"ssm_conv_v.bias", "ssm_conv_k.bias", "ssm_conv_q.bias"};
    size_t q = h->heads * h->head_size, kv = h->kv_heads * h->head_size;
    split(l, below, "in_proj.weight", rows, (size_t[]){q, kv, kv, q, h->heads}, 5);
    split(l, below, "conv1d.weight", conv, (size_t[]){kv, kv, q}, 3);
    split(l, below, "conv1d.bias", bias, (size_t[]){kv, kv, q}, 3);
    of_layer(l, below, "D", "ssm_d", WIDEN);
    of_layer(l, below, "norm.weight", "ssm_norm.weight", WIDEN);
    of_layer(l, below, "out_proj.weight", "ssm_o.weight", KEEP);
    maybe(l, below, "C_norm.weight", "ssm_q_norm.weight");
    maybe(l, below, "B_norm.weight", "ssm_k_norm.weight");
}

static void hybrid_delta(const layer *l, const hybrid *h, const char *below)
{
    static const char *const names[][2] = {
        {"q_proj.weight", "ssm_q.weight"},        {"k_proj.weight", "ssm_k.weight"},
        {"v_proj.weight", "ssm_v.weight"},        {"g_proj.weight", "ssm_g.weight"},
        {"o_proj.weight", "ssm_o.weight"},        {"b_proj.weight", "ssm_beta.weight"},
        {"q_conv1d.weight", "ssm_conv_q.weight"}, {"k_conv1d.weight", "ssm_conv_k.weight"},
        {"v_conv1d.weight", "ssm_conv_v.weight"}, {"o_norm.weight", "ssm_norm.weight"}};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        of_layer(l, below, names[i][0], names[i][1], KEEP);
    }
    of_layer(l, below, h->mixer == GKA ? "a_proj.weight" : "gk_proj.weight", "ssm_decay.weight",
             KEEP);
    if (h->mixer == GKA) {
        of_layer(l, below, "b_proj.bias", "ssm_beta.bias", WIDEN);
        of_layer(l, below, "alpha_proj.weight", "ssm_alpha.weight", KEEP);
        of_layer(l, below, "alpha_proj.bias", "ssm_alpha.bias", WIDEN);
    }
}

static void hybrid_mixer(const layer *l, const hybrid *h, const char *parent)
{
    char below[NAME_SIZE];
    snprintf(below, sizeof below, "%s%s", parent, mixer_modules[h->mixer]);
    of_layer(l, below, "A_log", "ssm_a", NEGATIVE_EXP);
    of_layer(l, below, "dt_bias", "ssm_dt", WIDEN);
    if (h->mixer == MAMBA2) {
        hybrid_mamba(l, h, below);
    } else {
        hybrid_delta(l, h, below);
    }
}

static void hybrid_qwen3(folder *f)
{
    const json_t *c = f->config, *bmojo = json_object_get(c, "bmojo_config");
    size_t layers = transformer(f), fading = 0, mixers = 0;
    hybrid h = {.mixer = -1,
                .heads = size_of(f, c, "num_attention_heads", 0),
                .kv_heads = size_of(f, c, "num_key_value_heads", 0)};
    h.head_size = size_of(f, c, "head_dim", size_of(f, c, "hidden_size", 0) / h.heads);
    dense_keys(f);
    read_pattern(f, &h, layers);
    must_be(f, bmojo, "tie_attn_weights", true);
    gguf_keys_text(&f->keys, "bmojo.base_architecture", "qwen3", 5);
    gguf_keys_array(&f->keys, "bmojo.layer_kinds", GGUF_KEYS_U8, layers);
    for (size_t i = 0; i < layers; i++) {
        gguf_keys_number(&f->keys, GGUF_KEYS_U8, h.kinds[i]);
        fading += h.kinds[i] == 1;
        mixers += h.kinds[i] > 0;
    }
    if (fading > 0) {
        gguf_keys_u32(&f->keys, "bmojo.window", size_of(f, bmojo, "window_size", 2048));
    }
    if (mixers > 0 && !f->status) {
        mixer_keys(f, &h);
    }
    for (size_t i = 0; i < layers && !f->status; i++) {
        layer l = layer_at(f, i, "model.layers");
        block(&l);
        if (h.kinds[i] < 2) {
            attention(&l, h.kinds[i] ? "bmojo_f.bmojo_attn." : "self_attn.");
        }
        if (h.kinds[i] > 0) {
            hybrid_mixer(&l, &h, h.kinds[i] == 1 ? "bmojo_f." : "");
        }
    }
}

/* --- opening ---------------------------------------------------------------------------------- */

bool gguf_is_folder(const char *path)
{
    char config[4096];
    base_file_info info;
    return !base_path_join(config, sizeof config, path, "config.json") &&
           base_file_stat(config, &info, NULL) == BASE_OK;
}

static json_t *read_object(folder *f, const char *name)
{
    char path[4096];
    base_buffer text = {0};
    json_error_t problem;
    if (f->status || (f->status = base_path_join(path, sizeof path, f->path, name)) ||
        (f->status = base_file_read(path, CONFIG_BYTES_MAX, &text, f->err))) {
        return NULL;
    }
    json_t *json = json_loadb(text.data, text.size, 0, &problem);
    base_buffer_free(&text);
    if (!json_is_object(json)) {
        f->status = base_fail(f->err, BASE_CORRUPT, "%s: byte %d: %s", path,
                              json ? 0 : problem.position, json ? "no JSON object" : problem.text);
    }
    return json;
}

static void open_file(folder *f, const char *name)
{
    char path[4096];
    for (size_t i = 0; i < f->file_count; i++) {
        const char *known = safetensors_path(f->files[i]);
        size_t size = strlen(name), all = strlen(known);
        if (all > size && strcmp(known + all - size, name) == 0 && known[all - size - 1] == '/') {
            return;
        }
    }
    if (f->file_count == FILES_MAX || strchr(name, '/')) {
        f->status =
            base_fail(f->err, BASE_CORRUPT, "%s: no file of weights: '%.100s'", f->path, name);
    }
    if (!f->status && !(f->status = base_path_join(path, sizeof path, f->path, name)) &&
        !(f->status = safetensors_open(path, &f->files[f->file_count], f->err))) {
        f->file_count++;
    }
}

/* One file, or those that the index names. */
static void open_files(folder *f)
{
    static const char index_name[] = "model.safetensors.index.json";
    char path[4096];
    base_file_info info;
    f->files = base_calloc(FILES_MAX, sizeof *f->files);
    if (!f->files) {
        no_memory(f);
    } else if (base_path_join(path, sizeof path, f->path, index_name) ||
               base_file_stat(path, &info, NULL)) {
        open_file(f, "model.safetensors");
    } else {
        json_t *index = read_object(f, index_name), *file;
        const char *tensor;
        json_object_foreach(json_object_get(index, "weight_map"), tensor, file)
        {
            if (!f->status) {
                open_file(f, json_is_string(file) ? json_string_value(file) : "/");
            }
        }
        json_decref(index);
    }
}

static void convert(folder *f)
{
    static const struct {
        const char *theirs, *general, *blocks;
        void (*convert)(folder *f);
    } known[] = {{"LlamaForCausalLM", "llama", "llama", dense},
                 {"Qwen2ForCausalLM", "qwen2", "qwen2", dense},
                 {"Qwen3ForCausalLM", "qwen3", "qwen3", dense},
                 {"Mamba2ForCausalLM", "mamba2", "mamba2", mamba2},
                 {"GraniteMoeHybridForCausalLM", "granitehybrid", "granitehybrid", granite},
                 {"HybridQwen3ForCausalLM", "bmojo", "qwen3", hybrid_qwen3}};
    const char *name =
        json_string_value(json_array_get(json_object_get(f->config, "architectures"), 0));
    for (size_t i = 0; i < sizeof known / sizeof *known && !f->status && name; i++) {
        if (strcmp(name, known[i].theirs) == 0) {
            f->architecture = known[i].blocks;
            gguf_keys_text(&f->keys, "general.architecture", known[i].general,
                           strlen(known[i].general));
            known[i].convert(f);
        }
    }
    if (!f->status && !f->architecture) {
        unsupported(f, "architecture", name ? name : "(none given)");
    }
}

base_status gguf_open_folder(const char *path, gguf_file **out, base_error *err)
{
    folder *f = base_calloc(1, sizeof *f);
    if (!f) {
        return base_fail(err, BASE_NO_MEMORY, "%s: no memory", path);
    }
    f->path = path;
    f->err = err;
    f->config = read_object(f, "config.json");
    if (!f->status) {
        open_files(f);
    }
    if (!f->status) {
        convert(f);
    }
    if (!f->status) {
        f->status = gguf_folder_vocabulary(path, (size_t)f->tensors[0].shape[1], &f->keys, err);
    }
    if (!f->status && gguf_keys_file(&f->keys, &f->image)) {
        no_memory(f);
    }
    if (f->status) {
        base_status status = f->status;
        release(f);
        return status;
    }
    return gguf_open_parts(path, f->image.data, f->image.size, f->tensors, f->tensor_count, f,
                           release, out, err);
}
