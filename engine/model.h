/* engine/model.h: inside of a loaded model, shared by engine/model.c (loading) and engine/core.c
 * (running). */
#ifndef ENGINE_MODEL_H
#define ENGINE_MODEL_H

#include "engine/core.h"

enum { CORE_KV_WIDTH_MAX = 8192 }; /* G*D of the widest model that loads */

/* Rows of one to three tensors that read the same input. Tensors of one type are packed as one
 * matrix; mixed types (Q4_K_M files) stay apart, so that nothing is rounded twice. */
typedef struct core_linear {
    kernel_matrix parts[3];
    size_t part_count;
} core_linear;

/* One pre-norm block (llama): x += Wo attention(rmsnorm(x)); x += Wdown swiglu(rmsnorm(x)). */
typedef struct core_layer {
    const float *attention_norm;    /* [C] */
    const float *feed_forward_norm; /* [C] */
    core_linear qkv;                /* [(H+2G)*D, C]: query, key, value rows in this order */
    core_linear output;             /* [C, H*D] */
    core_linear gate_up;            /* [2F, C]: gate rows, then up rows */
    core_linear down;               /* [C, F] */
    size_t plane;                   /* of its keys and values in a stream */
} core_layer;

struct core_model {
    gguf_file *file;
    core_shape shape;
    core_layer *layers;       /* [layers] */
    kernel_matrix embedding;  /* [V, C] */
    kernel_matrix output;     /* [V, C], unused when tied */
    const float *output_norm; /* [C] */
    size_t attention_planes;  /* layers with keys and values */
    float *frequencies;       /* [D/2] radians per position */
    uint8_t hash[32];
};

#endif
