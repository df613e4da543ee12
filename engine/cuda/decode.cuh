/* engine/cuda/decode.cuh: one token through the whole model in one kernel; its parameters and its
 * launcher.
 *
 * decode.cu explains how. All pointers are device memory unless they say otherwise.
 */
#ifndef ENGINE_CUDA_DECODE_CUH
#define ENGINE_CUDA_DECODE_CUH

#include "engine/cuda/mixer.cuh"
#include "engine/cuda/stats.cuh"

/* Warps of one block. Every warp streams its own share of the weights. */
#if !defined(GPU_WARPS)
#define GPU_WARPS 16
#endif
#define GPU_THREADS (GPU_WARPS * 32)
#define GPU_NORM_CHUNKS 2 /* C is at most GPU_THREADS * 8 * this; more costs registers */

/* What becomes of the rows of a product. */
enum gpu_target {
    GPU_TO_QKV,       /* queries, keys, values as they come */
    GPU_TO_MIXER,     /* the token's row of projections (mixer.h) */
    GPU_TO_RECURRENT, /* the same of a layer without attention (not in the decode kernel) */
    GPU_TO_RESIDUAL,  /* added to the residual stream */
    GPU_TO_FADING,    /* f = mixer(u), or u + mixer(u) */
    GPU_TO_HIDDEN,    /* gate and up rows -> silu(gate) * up */
    GPU_TO_FADING_KV, /* keys and values of f */
    GPU_TO_LOGITS
};

/* A packed matrix (gpu_pack.h) as the kernel reads it. */
struct gpu_matrix {
    const uint8_t *data;
    uint32_t groups, group_bytes, segment_bytes, last_bytes;
    uint16_t segments, segment_units, last_units;
    uint8_t format; /* kernel_format */
    uint8_t paired;
    uint8_t last;  /* last matrix of its phase */
    uint8_t input; /* 0: what the phase's other matrices read, 1: the mixer's activations */
    uint8_t to;    /* gpu_target */
    uint8_t split; /* warps that share one group: 1, 2, 4 ... GPU_WARPS, at most `segments` */
    uint8_t grain; /* groups that stay in one block: 2 where gate and up rows alternate, else 1 */
    float unit;
    uint32_t row0; /* first row's place in the phase's output */
    uint32_t rows, columns;
};

struct gpu_decode_params {
    gpu_mixer mixer;
    uint32_t layers, channels, heads, kv_heads, head_size, feed_forward, vocabulary;
    uint32_t slot_lanes; /* power of two: lanes that share a slot in attention, 8 values each */
    float eps, scale;
    /* per layer: QKV (1 to 3) and in fading layers the mixer's projections; output, and the
     * mixer's; gate/up, and keys and values of f; down. At the end the logits. */
    const gpu_matrix *program;
    uint32_t program_count; /* without the logits when want_logits is 0 */
    const gpu_matrix *embedding;
    const float *norms;                /* [2*layers + 1, C] attention, feed-forward, ..., final */
    const gpu_layer *layer_table;      /* [layers] */
    uint16_t *keys, *rotated, *values; /* [planes, slots_max, G*D] f16 */
    const float *bias;                 /* [slots_max] */
    const float2 *turns;               /* [2*slots_max, D/2] cosine, sine: gpu_paths.h */
    const gpu_part *parts[2];          /* of plain and of fading layers */
    uint32_t part_count[2];
    float *x, *qkv, *attended, *hidden, *logits; /* [C] [(H+2G)*D] [H*D] [F] [V] */
    float *partial;                              /* [H, GPU_PARTS_MAX + 1, D + 2] */
    float *mass;                                 /* [G, CORE_OWNERS_MAX], NULL = not watched */
    /* Hybrid: u [C], f [C], its keys and values [2G*D], the mixer's heads [H*P], states and rows of
     * every fading layer [floats] [kept] apart, what was not predicted [fading layers, H]. */
    float *normed, *fading, *fading_kv, *mixer_heads, *states, *rows, *innovation;
    uint32_t mixer_kept; /* floats between two layers' rows */
    gpu_stats *stats;    /* [blocks] */
    /* [2 + G] grid barrier, statistics, one per KV head; zero at first */
    uint32_t *counters;
    int32_t *next_token;       /* what the last step chose */
    core_step *result;         /* page-locked host memory, may be NULL */
    uint32_t slots_max, place; /* of this token */
    uint32_t number;           /* of this token, as the mixers count */
    uint32_t attention_planes;
    uint32_t halves;       /* rotation of pairs (i, i + D/2), else of neighbours */
    uint32_t residual;     /* f = u + mixer(u) */
    uint32_t measures;     /* also what costs a second solve (gpu_mixers_watch) */
    uint32_t barrier_base; /* barriers passed by earlier launches */
    int32_t token;         /* -1: *next_token */
    uint32_t stages, want_logits;
    uint32_t x_bytes, x2_bytes, partial_floats; /* shared memory */
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
