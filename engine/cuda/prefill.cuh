/* engine/cuda/prefill.cuh: many tokens at once: projections by cuBLAS on f16 weights, attention by
 * tiles. */
#ifndef ENGINE_CUDA_PREFILL_CUH
#define ENGINE_CUDA_PREFILL_CUH

#include "engine/cuda/internal.cuh"

/* --- gemm.cu: the only user of cuBLAS --------------------------------------------------------- */

base_status gpu_gemm_open(void **handle, cudaStream_t queue, base_error *err);
void gpu_gemm_close(void *handle);
/* out [T, N] (row stride out_stride) = x [T, K] W^T (+ out when add). W [N, K] and x are f16, sums
 * are f32, out is f32, or f16 when out_half. */
base_status gpu_gemm(void *handle, const uint16_t *w, const uint16_t *x, void *out, size_t n,
                     size_t k, size_t tokens, size_t out_stride, bool out_half, bool add,
                     base_error *err);

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
/* Run `count` <= batch_max tokens behind the slots present; logits: host [rows, V] of the last
 * rows, or NULL. Queues the work and waits where logits go to the host. */
base_status gpu_prefill_run(gpu_stream *stream, const int32_t *tokens, size_t count, float *logits,
                            size_t rows, base_error *err);

/* --- attention.cu ----------------------------------------------------------------------------- */

struct gpu_attention_params {
    const uint16_t *q;    /* [T, H*D] rotated, times 1/sqrt(D) */
    const uint16_t *keys; /* [slots, G*D] rotated, one layer */
    const uint16_t *values;
    const float *bias;           /* [slots] */
    uint16_t *out;               /* [T, H*D] */
    uint32_t tokens, first_slot; /* token t is slot first_slot + t and sees slots up to itself */
    uint32_t heads, kv_heads, head_size;
};
cudaError_t gpu_attention_prepare(void);
cudaError_t gpu_attention_launch(const gpu_attention_params *p, cudaStream_t queue);

#endif
