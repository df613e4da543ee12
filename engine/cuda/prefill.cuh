/* engine/cuda/prefill.cuh: many tokens at once: projections by cuBLAS on f16 weights, attention by
 * tiles. */
#ifndef ENGINE_CUDA_PREFILL_CUH
#define ENGINE_CUDA_PREFILL_CUH

#include "engine/cuda/internal.cuh"

/* --- gemm.cu: the only user of cuBLAS --------------------------------------------------------- */

base_status gpu_gemm_open(void **handle, cudaStream_t queue, base_error *err);
void gpu_gemm_close(void *handle);
/* out [T, N] (row stride out_stride) = scale x [T, K] W^T (+ out when add). W [N, K] and x are f16,
 * sums are f32, out is f32, or f16 when out_half. */
base_status gpu_gemm(void *handle, const uint16_t *w, const uint16_t *x, void *out, size_t n,
                     size_t k, size_t tokens, size_t out_stride, bool out_half, bool add,
                     float scale, base_error *err);

/* out [n, n] = a b^T, bf16 in and out: the product whose rate gpu_measure reports. */
base_status gpu_gemm_square(void *handle, const uint16_t *a, const uint16_t *b, uint16_t *out,
                            size_t n, base_error *err);

/* --- prefill.cu ------------------------------------------------------------------------------- */

/* to [rows, K] f16, row-major, in the packed order of rows. Values beyond f16 are cut to its
 * largest. */
cudaError_t gpu_unpack_half(const gpu_matrix *m, uint16_t *to, cudaStream_t queue);
/* Device buffers of a stream for batches of batch_max tokens, and the cuBLAS handle. */
base_status gpu_prefill_open(gpu_stream *stream, base_error *err);
void gpu_prefill_close(gpu_stream *stream);
/* True when the tile kernels take this head size. */
bool gpu_prefill_takes(const core_shape *shape);
/* Run `count` <= batch_max tokens at the host's places; logits: host [rows, V] of the last
 * rows, or NULL. Queues the work and waits where logits go to the host. */
base_status gpu_prefill_run(gpu_stream *stream, const int32_t *tokens, size_t count, float *logits,
                            size_t rows, base_error *err);

/* One token of each of the batch's sequences, at b->step; tokens: host [b->count], NULL = what the
 * step before chose. choose: the largest logit is the next token (gpu_batch_choose). logits: NULL,
 * or host [V], of the first sequence. Queues the work. */
base_status gpu_prefill_step(gpu_stream *lead, struct gpu_batch *b, const int32_t *tokens,
                             bool choose, float *logits, base_error *err);

/* --- batch.cu --------------------------------------------------------------------------------- */

/* Where one sequence's memory lies: device pointers, as in gpu_decode_params. */
struct gpu_sequence {
    uint16_t *keys, *rotated, *values;
    const float *bias;
    const float2 *turns;
    float *states, *rows;
};

/* One sequence in one step: its token's place and number, and where its parts are, of plain and of
 * fading layers. */
struct gpu_moment {
    uint32_t place, number;
    uint32_t part_at[2], part_count[2];
};

struct gpu_batch {
    gpu_stream *streams[GPU_BATCH_MAX]; /* the first lends its queue and scratch */
    size_t count, step;
    gpu_arena arena;
    gpu_sequence *list;                 /* device [count] */
    gpu_moment *moments, *host_moments; /* device, page-locked [GPU_BATCH_STEPS, count] */
    gpu_part *parts, *host_parts;       /* device, page-locked */
    float *partial;                     /* device [count, H, GPU_PARTS_MAX, D + 2] */
    core_step *results;                 /* page-locked [GPU_BATCH_STEPS, count] */
    float *mass; /* NULL, or of one sequence: device [CORE_OWNERS_MAX], added to in every layer */
};

/* Attention of one token of each sequence over its parts, and their merging. */
struct gpu_parts_params {
    const gpu_sequence *list;
    const gpu_moment *now;
    const gpu_part *parts;
    const float *q;    /* [N, q_stride], as normed */
    float *partial;    /* [N, H, GPU_PARTS_MAX, D + 2] */
    uint16_t *out;     /* [N, H*D] */
    size_t own, other; /* first element of the layer's plane, and of its fading one */
    uint32_t hybrid;   /* which of the moment's parts */
    uint32_t q_stride, heads, kv_heads, head_size, slots_max, lanes, halves;
    float scale;
};
/* most: the largest number of parts that a sequence has. */
cudaError_t gpu_parts_launch(const gpu_parts_params *p, uint32_t count, uint32_t most,
                             cudaStream_t queue);

/* One token of each sequence through a layer's mixers. */
struct gpu_mix_params {
    gpu_mixer mixer;
    const gpu_layer *layer;
    const gpu_sequence *list;
    const gpu_moment *now;
    const float *rows;   /* [N, row] */
    uint16_t *out;       /* [N, H*P] */
    size_t states, kept; /* where the layer's begin in a sequence's */
};
/* threads a head: 128, 256 or 512. */
cudaError_t gpu_mix_launch(const gpu_mix_params *p, uint32_t count, uint32_t threads,
                           cudaStream_t queue);

/* Where every sequence stands and what it sees, in the tokens [first, first + steps) that the host
 * has entered, goes to the device, for as many values of b->step. */
base_status gpu_batch_moments(gpu_batch *b, size_t first, size_t steps, base_error *err);
/* out [count, H*D] f16 from q [count, (H + 2G)*D]: attention in one layer. */
base_status gpu_batch_attend(gpu_batch *b, const gpu_layer *layer, bool hybrid, const float *q,
                             uint16_t *out, base_error *err);
/* out [count, H*P] f16 from rows [count, row]: the mixers of layer `number`. */
base_status gpu_batch_mix(gpu_batch *b, size_t number, const float *rows, uint16_t *out,
                          base_error *err);
/* Tokens and statistics of the sequences [first, first + count) from logits [count, V]. */
base_status gpu_batch_choose(gpu_batch *b, const float *logits, size_t first, size_t count,
                             int32_t *tokens, base_error *err);

/* --- scan.cu ---------------------------------------------------------------------------------- */

enum { GPU_CHUNKS = 16 }; /* of a head in scratch memory at once */

/* The mixer of one layer over the tokens [first, end), by number. */
struct gpu_scan_params {
    gpu_mixer mixer;
    const gpu_layer *layer; /* device */
    gpu_mixer_rows rows;
    uint32_t first, end;
    float *states;    /* [H, head_state] */
    float *snapshots; /* [CORE_SNAPSHOTS, floats]: states before every CORE_SNAPSHOT_EVERY-th token
                       * of the last ones */
    uint16_t *out;    /* [end - first, H*P] f16; NULL (steps only): the state alone moves on */
    /* Chunks: */
    float *scratch;              /* [gpu_chunk_floats(mixer, at least end - first, chunk)] */
    uint32_t chunk;              /* tokens: a multiple of 16, at most 64 */
    uint32_t fine, begin, count; /* set by gpu_chunks_launch */
};

/* Tokens of a chunk, chosen (not measured) so that a block's shared memory suffices; 0: these head
 * sizes go in steps. */
uint32_t gpu_chunk_size(const gpu_mixer *m, size_t shared_limit);
/* Floats of scratch for runs of up to `tokens` tokens. */
size_t gpu_chunk_floats(const gpu_mixer *m, size_t tokens, uint32_t chunk);
/* Raise the kernels' shared memory limits once. */
cudaError_t gpu_chunks_prepare(const gpu_mixer *m, uint32_t chunk);
cudaError_t gpu_chunks_launch(const gpu_scan_params *p, cudaStream_t queue);

/* --- mixers.cu -------------------------------------------------------------------------------- */

/* The same token by token, for any head size and for states alone. shared_limit: bytes of shared
 * memory a block may ask for. */
cudaError_t gpu_steps_prepare(const gpu_mixer *m, size_t shared_limit);
cudaError_t gpu_steps_launch(const gpu_scan_params *p, size_t shared_limit, cudaStream_t queue);
/* Give a layer's mixer the tokens [first, first + count), by number: their rows of projections in
 * batch [count, row], or kept already when batch is NULL. out [count, H*P] f16, or NULL: only the
 * state moves on. scratch: for chunks of up to `count` tokens, NULL = in steps. */
base_status gpu_scan(gpu_stream *stream, size_t layer, const float *batch, size_t first,
                     size_t count, uint16_t *out, float *scratch, base_error *err);
/* Copy all states aside if token `number` asks for that (fading.c). */
base_status gpu_snapshot(gpu_stream *stream, size_t number, cudaStream_t queue, base_error *err);

/* --- attention.cu ----------------------------------------------------------------------------- */

struct gpu_attention_params {
    const float *q; /* [T, q_stride] as projected (and normed); head h at column h*D */
    const uint16_t *keys[2], *values[2]; /* [slots, G*D] rotated, of a layer: its own plane, and the
                                          * fading one */
    const float *bias[2];                /* [slots] for these */
    const float2 *turns;
    const gpu_path *paths;   /* [path_count, T], gpu_paths.h */
    const gpu_range *ranges; /* [path_count, tiles] */
    uint16_t *out;           /* [T, H*D] */
    uint32_t path_count, tokens, q_stride, heads, kv_heads, head_size, halves;
    float scale;
};
cudaError_t gpu_attention_prepare(void);
/* matrices: keys go to the tensor cores by ldmatrix, else by 32-bit loads; the same bits. */
cudaError_t gpu_attention_launch(const gpu_attention_params *p, bool matrices, cudaStream_t queue);

#endif
