/* engine/cuda/mixer.cuh: what a layer of the model has on the device beside its matrices, and the
 * sizes of its mixer. The arithmetic: mixer_step.cuh. */
#ifndef ENGINE_CUDA_MIXER_CUH
#define ENGINE_CUDA_MIXER_CUH

#include "engine/cuda/common.cuh"

/* Sizes of the model's mixers, all alike. */
struct gpu_mixer {
    uint32_t kind, heads, q_heads, k_heads, v_heads, n, p; /* n, p: key and value size */
    uint32_t kernel, norm_weights, iterations;
    uint32_t norm_group;         /* values under one norm: p, or of several heads (group_norm) */
    uint32_t row, conv_width;    /* of projections, and of them under the convolution */
    uint32_t head_state, floats; /* of one head, of all */
    float eps, ridge;
};

/* One layer's small weights, in device memory; NULL where the model has none. */
struct gpu_layer {
    uint32_t plane, fading;                  /* fading: index among the mixers, UINT32_MAX = none */
    uint32_t fading_plane;                   /* of f's keys and values, among the fading ones */
    uint32_t recurrent;                      /* a mixer in place of attention: no plane */
    const float *qkv_bias, *q_norm, *k_norm; /* [(H+2G)*D] [D] [D] */
    const float *conv, *conv_bias, *a, *dt_bias; /* mixer.h */
    const float *beta_bias, *alpha_bias, *skip;
    const float *conv_q_norm, *conv_k_norm, *norm, *gate;
};

/* Rows of projections: of tokens from `batch_first` on in `batch`, of earlier ones in the ring. */
struct gpu_mixer_rows {
    const float *ring, *batch;
    uint32_t batch_first;
};

/* Floats of shared memory for gpu_mixer_token. */
static inline uint32_t gpu_mixer_work(uint32_t n, uint32_t p, uint32_t threads)
{
    return 5 * n + 3 * p + (threads > p ? threads : p) + 32 + 2 * MIXER_KERNEL_MAX;
}

#endif
