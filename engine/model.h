/* engine/model.h: inside of a loaded model, shared by engine/model.c (loading) and engine/core.c
 * (running). */
#ifndef ENGINE_MODEL_H
#define ENGINE_MODEL_H

#include "engine/core.h"
#include "engine/mixer.h"

enum { CORE_KV_WIDTH_MAX = 8192 }; /* G*D of the widest model that loads */

/* Rows of one to four tensors that read the same input. Tensors of one type are packed as one
 * matrix; mixed types (Q4_K_M files) stay apart, so that nothing is rounded twice. */
typedef struct core_linear {
    kernel_matrix parts[4];
    size_t part_count;
} core_linear;

/* The fading half of a B'MOJO-F layer: f = mixer(u), or u + mixer(u), gives keys and values of
 * tokens that have left the exact window. Of a recurrent layer: the whole of it, x += mixer(u). */
typedef struct core_fading {
    mixer mixer;
    core_linear qkv;    /* rows q, k, v of mixer.h */
    core_linear gates;  /* rows gate, decay, beta, alpha */
    core_linear output; /* [C, H*P] */
    float *conv;        /* owned: [conv width, kernel], and [conv width] biases or NULL */
    float *conv_bias;
    size_t index; /* among the layers with a mixer */
    size_t plane; /* of its keys and values among the fading ones */
} core_fading;

/* One pre-norm block (llama): x += Wo attention(rmsnorm(x)); x += Wdown swiglu(rmsnorm(x)). A
 * recurrent one has a mixer in place of attention; mamba2's have no feed-forward half. */
typedef struct core_layer {
    const float *attention_norm;    /* [C] */
    const float *feed_forward_norm; /* [C]; NULL = no feed-forward half */
    core_linear qkv;                /* [(H+2G)*D, C]: query, key, value rows in this order; ... */
    core_linear kv;                 /* ... in a fading layer the query rows there, the rest here */
    float *qkv_bias;                /* [(H+2G)*D], owned; NULL = none */
    const float *q_norm, *k_norm;   /* [D] rmsnorm of each head before rotation; NULL = none */
    core_linear output;             /* [C, H*D] */
    core_linear gate_up;            /* [2F, C]: gate rows, then up rows */
    core_linear down;               /* [C, F] */
    size_t plane;                   /* of its keys and values in a stream */
    core_fading *fading;            /* owned; NULL in a plain attention layer */
    bool recurrent;                 /* no attention: no keys, no values, no plane */
} core_layer;

typedef struct core_adapter core_adapter; /* an opened adapter file */

typedef enum core_adapter_kind {
    CORE_ADAPTER_LORA,   /* additions to the model's own matrices */
    CORE_ADAPTER_MIXERS, /* trained mixers, which make a hybrid of a Transformer */
    CORE_ADAPTER_KINDS = CORE_ADAPTERS_MAX
} core_adapter_kind;

typedef struct core_adapters {
    core_adapter *of[CORE_ADAPTER_KINDS]; /* owned; NULL = none */
} core_adapters;

struct core_model {
    gguf_file *file;
    core_adapters adapters;   /* mixers point into theirs */
    const char *architecture; /* of the blocks: "llama", "qwen2", "qwen3", ... */
    bool fading;              /* general.architecture is bmojo */
    core_shape shape;
    core_layer *layers;       /* [layers] */
    kernel_matrix embedding;  /* [V, C] */
    kernel_matrix output;     /* [V, C], unused when tied */
    const float *output_norm; /* [C] */
    size_t attention_planes;  /* layers with keys and values */
    bool rope_halves;         /* rotation of pairs (i, i+D/2), else of neighbours */
    bool rotates;             /* keys and queries are rotated at all */
    /* Factors of Granite, 1 in other models: of the embedding, of what a layer adds, of the query
     * (beside 1/sqrt(D)), of the logits. */
    float embedding_scale, residual_scale, query_scale, logit_scale;
    size_t mixer_layers; /* fading and recurrent ones */
    mixer recurrent;     /* sizes of stock Mamba2 layers, without weights */
    /* B'MOJO-F: all 0 in other models */
    size_t fading_layers;
    size_t exact_window;     /* W: tokens with exact keys; as many older ones are fading */
    size_t attention_window; /* live tokens that plain attention layers see, 0 = all */
    size_t sinks_min;
    bool fading_residual; /* f = u + mixer(u) */
    float *frequencies;   /* [D/2] radians per position */
    uint8_t hash[32];
};

/* --- adapter.c: LoRA, and trained mixers ------------------------------------------------------ */

/* Open the files of `paths` (NULL-terminated) for the model in `base`, which is borrowed; of each
 * kind one at most. An adapter that says which weights it was trained on (eidetic.base_tensors) is
 * refused, by name, for others; one that says nothing (another program's) has to fit in shape only.
 * core_adapters_close after a failure too. BASE_NOT_FOUND, BASE_CORRUPT, BASE_INVALID. */
base_status core_adapters_open(const char *const *paths, const gguf_file *base,
                               const char *architecture, core_adapters *out, base_error *err);
void core_adapters_close(core_adapters *adapters);
const gguf_file *core_adapters_file(const core_adapters *adapters, int kind); /* NULL = none */
/* Tensor `name` [rows, columns] with its part of an adapter added, as rows of *type (Q8_0; F32
 * where columns is no multiple of 32); *raw is the caller's to base_free. Without a part: NULL. */
base_status core_adapters_merge(const core_adapters *adapters, const gguf_tensor *tensor,
                                const char *name, size_t rows, size_t columns, uint8_t **raw,
                                uint32_t *type, base_error *err);
/* Trained mixers, if there are any: make *base (taken; on failure the caller's or NULL) the hybrid,
 * and *hybrid true. Errors: those of core_adapter_join; BASE_INVALID: it is one already. */
base_status core_adapters_apply(const core_adapters *adapters, const char *architecture,
                                gguf_file **base, bool *hybrid, base_error *err);
/* adapter_core.c: *file (as above) becomes the hybrid that the mixers in `adapter`, which outlives
 * it, make of it; *whole: how many of their tensors are no factors. Errors: BASE_CORRUPT (a key or
 * a tensor of the base is missing), BASE_INVALID (a tensor that no fading layer has),
 * BASE_NO_MEMORY. */
base_status core_adapter_join(const gguf_file *adapter, const char *architecture, gguf_file **file,
                              size_t *whole, base_error *err);
/* BASE_INVALID unless all tensors of all of them have found their place. */
base_status core_adapters_check_used(const core_adapters *adapters, base_error *err);
/* SHA-256 of all tensors by name, type, shape and both ends of their bytes: which weights are
 * these? The same in engine/train/gguf_file.py. */
void core_hash_tensors(const gguf_file *file, uint8_t hash[32]);

/* --- loading: model.c, for model_fading.c ----------------------------------------------------- */

/* One part of a stacked matrix: `rows` rows of tensor `name`. */
typedef struct core_part {
    const char *name; /* without "blk.N." and ".weight" */
    size_t rows;
} core_part;

/* Find a tensor and check its shape [rows, columns]; rows 1 also accepts a vector. */
base_status core_find_tensor(const gguf_file *file, const char *name, size_t rows, size_t columns,
                             const gguf_tensor **out, base_error *err);
/* An F32 vector, borrowed from the file. */
base_status core_load_vector(const gguf_file *file, const char *name, size_t columns,
                             const float **out, base_error *err);
/* The same where the file has it, else NULL. */
base_status core_load_optional(const gguf_file *file, const char *name, size_t columns,
                               const float **out, base_error *err);
/* "llama.block_count" from "block_count", for the architecture that the blocks have. */
enum { CORE_KEY_SIZE = 128 };
const char *core_key(const core_model *model, const char *name, char out[CORE_KEY_SIZE]);
/* A key that must be there, from 1 to max. */
base_status core_read_size(const gguf_file *file, const char *key, size_t max, size_t *out,
                           base_error *err);
/* Load the parts' rows, adapters merged: neighbours of one type become one packed matrix. */
base_status core_load_linear(const core_model *model, size_t layer, const core_part *parts,
                             size_t part_count, size_t columns, core_linear *out, base_error *err);
void core_linear_free(core_linear *linear);
size_t core_linear_bytes(const core_linear *linear);

/* --- model_recurrent.c: layers that are a mixer alone ----------------------------------------- */

/* Read and check the sizes of stock Mamba2 layers, where the architecture has them. */
base_status core_recurrent_open(core_model *model, base_error *err);
/* Is layer `index` one? */
bool core_recurrent_is(const core_model *model, size_t index);
base_status core_recurrent_load(core_model *model, size_t index, base_error *err);

/* --- model_fading.c: B'MOJO-F ----------------------------------------------------------------- */

/* Read the bmojo.* keys: which layers are fading, windows, mixer. */
base_status core_fading_open(core_model *model, base_error *err);
/* Is layer `index` one? */
bool core_fading_is(const core_model *model, size_t index);
base_status core_fading_load(core_model *model, size_t index, base_error *err);
void core_fading_free(core_fading *fading);

#endif
