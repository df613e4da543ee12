/* engine/cuda/decode.cuh: one token through the whole model in one kernel; its parameters and its
 * launcher.
 *
 * decode.cu explains how. All pointers are device memory unless they say otherwise.
 */
#ifndef ENGINE_CUDA_DECODE_CUH
#define ENGINE_CUDA_DECODE_CUH

#include "engine/cuda/common.cuh"

/* Warps of one block. Every warp streams its own share of the weights. */
#if !defined(GPU_WARPS)
#define GPU_WARPS 16
#endif
#define GPU_THREADS (GPU_WARPS * 32)
#define GPU_NORM_CHUNKS 2   /* C is at most GPU_THREADS * 8 * this; more costs registers */
#define GPU_SPLITS_MAX 64   /* parts into which one attention head's slots are cut */
#define GPU_HEADS_AT_ONCE 4 /* query heads of one KV head that share a pass over the slots */

/* A packed matrix (gpu_pack.h) as the kernel reads it. */
struct gpu_matrix {
    const uint8_t *data;
    uint32_t groups, group_bytes, segment_bytes, last_bytes;
    uint16_t segments, segment_units, last_units;
    uint8_t format; /* kernel_format */
    uint8_t paired;
    uint8_t last;  /* last matrix of its phase */
    uint8_t split; /* warps that share one group: 1, 2, 4 ... GPU_WARPS, at most `segments` */
    uint8_t grain; /* groups that stay in one block: 2 where gate and up rows alternate, else 1 */
    float unit;
    uint32_t row0; /* first row's place in the phase's output */
    uint32_t rows, columns;
};

/* Merged statistics of some logits: maximum, its index, sum of e^(z-max), sum of (z-max) e^(z-max).
 * */
struct gpu_stats {
    float largest, total, weighted;
    int32_t best;
};

struct gpu_decode_params {
    uint32_t layers, channels, heads, kv_heads, head_size, feed_forward, vocabulary;
    uint32_t slot_lanes; /* power of two: lanes that share a slot in attention, 8 values each */
    float eps, scale;
    /* per layer: QKV (1 to 3), output, gate/up, down; at the end the logits */
    const gpu_matrix *program;
    uint32_t program_count; /* without the logits when want_logits is 0 */
    const gpu_matrix *embedding;
    const float *norms;                /* [2*layers + 1, C] attention, feed-forward, ..., final */
    uint16_t *keys, *rotated, *values; /* [layers, slots_max, G*D] f16 */
    const float *bias;                 /* [slots_max] */
    const float2 *turns;               /* [slots_max, D/2] cosine, sine */
    float *x, *q, *attended, *hidden, *logits; /* [C] [H*D] [H*D] [F] [V] */
    float *partial;                            /* [H, GPU_SPLITS_MAX, D + 2] */
    gpu_stats *stats;                          /* [blocks] */
    /* [2 + G] grid barrier, statistics, one per KV head; zero at first */
    uint32_t *counters;
    int32_t *next_token;       /* what the last step chose */
    gpu_step *result;          /* page-locked host memory, may be NULL */
    uint32_t slots_max, slots; /* slots present before this token */
    uint32_t barrier_base;     /* barriers passed by earlier launches */
    int32_t token;             /* -1: *next_token */
    uint32_t stages, want_logits;
    uint32_t x_bytes, partial_floats; /* shared memory */
};

/* How many warps of a block share a group of rows: the number that leaves the least work to the
 * busiest warp; fewer at a tie. */
uint8_t gpu_choose_split(const gpu_matrix *m, size_t blocks);
/* Bytes of shared memory for what the parameters say. */
size_t gpu_decode_shared(const gpu_decode_params *p);
/* Grid barriers that one launch passes. */
uint32_t gpu_decode_barriers(const gpu_decode_params *p);
/* Raise the kernel's shared memory limit once. */
cudaError_t gpu_decode_prepare(size_t shared_bytes);
/* One block a multiprocessor, launched cooperatively. */
cudaError_t gpu_decode_launch(const gpu_decode_params *p, uint32_t blocks, cudaStream_t stream);

#endif
