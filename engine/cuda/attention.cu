/* engine/cuda/attention.cu: attention of many new tokens over the window, by tiles on tensor cores.
 *
 * A block takes 64 tokens of one head, four warps of 16 tokens; it walks over the slots in tiles of
 * 64, two tiles in shared memory so that the next one is fetched while this one is used; path after
 * path (gpu_paths.h), each with the token's query rotated for it. Per token a running maximum and
 * sum over all of them (online softmax: Milakov & Gimelshein 2018; tiles: Dao 2022); scores
 * and weighted values are f16 x f16 products summed in f32 (mma.m16n8k16). A slot outside a token's
 * path and a slot of bias -inf have weight 0. Scalar twin: core_attend.
 */
#include "engine/cuda/mma.cuh"
#include "engine/cuda/prefill.cuh"

#include <math.h>

enum {
    TILE = 64,
    WARPS = 4,
    PAD = 8
}; /* PAD: halves between rows, so that eight rows fall into different banks */

template <int D> struct tile_sizes {
    static const int stride = D + PAD;
    static const int halves = TILE * stride; /* of one tile */
    static const int bytes = 4 * halves * 2 + 2 * TILE * (int)sizeof(float);
};

/* Fetch slots [first, first + 64) of one KV head; rows that do not exist become zeros. */
template <int D>
static __device__ __forceinline__ void fetch_tile(const gpu_attention_params &p,
                                                  const uint16_t *from, uint16_t *to,
                                                  uint32_t kv_head, uint32_t first, uint32_t slots)
{
    const uint32_t per_row = D / 8;
    for (uint32_t i = threadIdx.x; i < TILE * per_row; i += WARPS * 32) {
        uint32_t row = i / per_row, c = i % per_row * 8;
        bool valid = first + row < slots && c < p.head_size;
        const uint16_t *source = from;
        if (valid) {
            source = from + ((size_t)(first + row) * p.kv_heads + kv_head) * p.head_size + c;
        }
        gpu_copy16(to + row * tile_sizes<D>::stride + c, source, valid);
    }
}

/* Columns c and c + 1 (c even) of a token's query, rotated and scaled, as two halves. */
static __device__ __forceinline__ uint32_t load_query(const gpu_attention_params &p, uint32_t row,
                                                      uint32_t turn, uint32_t head, uint32_t c)
{
    if (row >= p.tokens || c >= p.head_size) {
        return 0;
    }
    const float *q = p.q + (size_t)row * p.q_stride + head * p.head_size;
    const uint32_t half = p.head_size / 2;
    const float2 *turns = p.turns + (size_t)turn * half;
    float2 v = *(const float2 *)(q + c);
    if (!p.halves) {
        float2 t = turns[c / 2];
        return gpu_pack_half2((v.x * t.x - v.y * t.y) * p.scale, (v.x * t.y + v.y * t.x) * p.scale);
    }
    bool second = c >= half;
    float2 w = *(const float2 *)(q + (second ? c - half : c + half));
    float2 t0 = turns[c % half], t1 = turns[c % half + 1];
    float sign = second ? 1.0f : -1.0f;
    return gpu_pack_half2((v.x * t0.x + sign * w.x * t0.y) * p.scale,
                          (v.y * t1.x + sign * w.y * t1.y) * p.scale);
}

/* MATRICES: keys come by ldmatrix, two steps at once, else by 32-bit loads. */
template <int D, bool MATRICES>
static __global__ void __launch_bounds__(WARPS * 32)
    attention_kernel(const __grid_constant__ gpu_attention_params p)
{
    GPU_SHARED(memory);
    const int stride = tile_sizes<D>::stride;
    uint16_t *keys = (uint16_t *)memory;                         /* two tiles */
    uint16_t *values = keys + 2 * tile_sizes<D>::halves;         /* two tiles */
    float *bias = (float *)(values + 2 * tile_sizes<D>::halves); /* [2][TILE] */
    uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t4 = lane % 4;
    uint32_t head = blockIdx.y, kv_head = head / (p.heads / p.kv_heads);
    /* The longest rows first: blocks late in the grid have the least to do. */
    uint32_t tile = gridDim.x - 1 - blockIdx.x, token0 = tile * TILE;
    uint32_t row0 = token0 + warp * 16 + g, row1 = row0 + 8;
    uint32_t q_width = p.heads * p.head_size;
    float o[D / 8][4], m[2] = {-INFINITY, -INFINITY}, l[2] = {0.0f, 0.0f};
#pragma unroll
    for (int n = 0; n < D / 8; n++) {
        o[n][0] = o[n][1] = o[n][2] = o[n][3] = 0.0f;
    }

    for (uint32_t path = 0; path < p.path_count; path++) {
        const gpu_range range = p.ranges[path * gridDim.x + tile];
        if (range.from == range.to) {
            continue;
        }
        const uint32_t plane = path == GPU_PATH_FADING ? 1 : 0;
        const uint16_t *all_keys = p.keys[plane], *all_values = p.values[plane];
        const gpu_path none = {0, 0, 0};
        const gpu_path see0 = row0 < p.tokens ? p.paths[path * p.tokens + row0] : none;
        const gpu_path see1 = row1 < p.tokens ? p.paths[path * p.tokens + row1] : none;
        uint32_t q[D / 16][4];
#pragma unroll
        for (int k = 0; k < D / 16; k++) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                uint32_t c = (uint32_t)k * 16 + t4 * 2 + (i / 2 ? 8 : 0);
                q[k][i] =
                    load_query(p, i % 2 ? row1 : row0, i % 2 ? see1.turn : see0.turn, head, c);
            }
        }
        uint32_t tiles = (range.to - range.from + TILE - 1) / TILE;
        fetch_tile<D>(p, all_keys, keys, kv_head, range.from, range.to);
        fetch_tile<D>(p, all_values, values, kv_head, range.from, range.to);
        gpu_copy_commit();
        for (uint32_t j = 0; j < tiles; j++) {
            uint32_t here = j % 2, first = range.from + j * TILE;
            if (j + 1 < tiles) {
                uint32_t there = 1 - here;
                fetch_tile<D>(p, all_keys, keys + there * tile_sizes<D>::halves, kv_head,
                              first + TILE, range.to);
                fetch_tile<D>(p, all_values, values + there * tile_sizes<D>::halves, kv_head,
                              first + TILE, range.to);
            }
            gpu_copy_commit();
            if (threadIdx.x < TILE) {
                bias[here * TILE + threadIdx.x] =
                    first + threadIdx.x < range.to ? p.bias[plane][first + threadIdx.x] : -INFINITY;
            }
            gpu_copy_wait_but_one();
            __syncthreads();

            const uint16_t *k_tile = keys + here * tile_sizes<D>::halves;
            const uint16_t *v_tile = values + here * tile_sizes<D>::halves;
            float s[TILE / 8][4];
#pragma unroll
            for (int n = 0; n < TILE / 8; n++) {
                s[n][0] = s[n][1] = s[n][2] = s[n][3] = 0.0f;
#pragma unroll
                for (int k = 0; MATRICES && k < D / 16; k += 2) {
                    /* Lane i: row i % 8, columns 8 * (i / 8) on from this step's. */
                    uint32_t b[4];
                    gpu_load_matrices(b, k_tile + ((uint32_t)n * 8 + lane % 8) * stride + k * 16 +
                                             lane / 8 * 8);
                    gpu_mma(s[n], q[k], b);
                    gpu_mma(s[n], q[k + 1], b + 2);
                }
#pragma unroll
                for (int k = 0; !MATRICES && k < D / 16; k++) {
                    const uint16_t *at = k_tile + ((uint32_t)n * 8 + g) * stride + k * 16 + t4 * 2;
                    uint32_t b[2] = {*(const uint32_t *)at, *(const uint32_t *)(at + 8)};
                    gpu_mma(s[n], q[k], b);
                }
            }
            float largest[2] = {m[0], m[1]};
#pragma unroll
            for (int n = 0; n < TILE / 8; n++) {
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    uint32_t column = (uint32_t)n * 8 + t4 * 2 + i % 2;
                    uint32_t slot = first + column, from = i / 2 ? see1.from : see0.from;
                    s[n][i] += bias[here * TILE + column];
                    if (slot < from || slot >= (i / 2 ? see1.to : see0.to)) {
                        s[n][i] = -INFINITY;
                    }
                    largest[i / 2] = fmaxf(largest[i / 2], s[n][i]);
                }
            }
            float keep[2], base[2];
#pragma unroll
            for (int r = 0; r < 2; r++) {
                largest[r] = fmaxf(largest[r], __shfl_xor_sync(0xffffffffu, largest[r], 1));
                largest[r] = fmaxf(largest[r], __shfl_xor_sync(0xffffffffu, largest[r], 2));
                base[r] = largest[r] == -INFINITY ? 0.0f : largest[r]; /* nothing visible yet */
                keep[r] = m[r] == -INFINITY ? 0.0f : exp2f((m[r] - base[r]) * 1.44269504f);
                m[r] = largest[r];
                l[r] *= keep[r];
            }
            uint32_t weights[TILE / 8][2];
#pragma unroll
            for (int n = 0; n < TILE / 8; n++) {
                float w[4];
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    w[i] = exp2f((s[n][i] - base[i / 2]) * 1.44269504f);
                    l[i / 2] += w[i];
                }
                weights[n][0] = gpu_pack_half2(w[0], w[1]);
                weights[n][1] = gpu_pack_half2(w[2], w[3]);
            }
#pragma unroll
            for (int n = 0; n < D / 8; n++) {
                o[n][0] *= keep[0];
                o[n][1] *= keep[0];
                o[n][2] *= keep[1];
                o[n][3] *= keep[1];
            }
#pragma unroll
            for (int k = 0; k < TILE / 16; k++) {
                const uint32_t a[4] = {weights[2 * k][0], weights[2 * k][1], weights[2 * k + 1][0],
                                       weights[2 * k + 1][1]};
#pragma unroll
                for (int n = 0; n < D / 16; n++) {
                    /* Lanes 0-15: slots of the tile, values 16n..; lanes 16-31: the same slots,
                     * values 16n + 8.. */
                    uint32_t b[4];
                    gpu_load_transposed(b, v_tile + (k * 16 + lane % 16) * stride + n * 16 +
                                               lane / 16 * 8);
                    gpu_mma(o[2 * n], a, b);
                    gpu_mma(o[2 * n + 1], a, b + 2);
                }
            }
            __syncthreads();
        }
    }
#pragma unroll
    for (int r = 0; r < 2; r++) {
        l[r] += __shfl_xor_sync(0xffffffffu, l[r], 1);
        l[r] += __shfl_xor_sync(0xffffffffu, l[r], 2);
        uint32_t row = r ? row1 : row0;
        float inverse = l[r] > 0.0f ? 1.0f / l[r] : 0.0f;
#pragma unroll
        for (int n = 0; n < D / 8; n++) {
            uint32_t c = (uint32_t)n * 8 + t4 * 2;
            if (row < p.tokens && c < p.head_size) {
                *(uint32_t *)(p.out + (size_t)row * q_width + head * p.head_size + c) =
                    gpu_pack_half2(o[n][2 * r] * inverse, o[n][2 * r + 1] * inverse);
            }
        }
    }
}

template <int D, bool MATRICES> static cudaError_t prepare()
{
    return cudaFuncSetAttribute(attention_kernel<D, MATRICES>,
                                cudaFuncAttributeMaxDynamicSharedMemorySize, tile_sizes<D>::bytes);
}

template <bool MATRICES> static cudaError_t prepare_all()
{
    cudaError_t code = prepare<64, MATRICES>();
    code = code == cudaSuccess ? prepare<96, MATRICES>() : code;
    return code == cudaSuccess ? prepare<128, MATRICES>() : code;
}

cudaError_t gpu_attention_prepare(void)
{
    cudaError_t code = prepare_all<false>();
    return code == cudaSuccess ? prepare_all<true>() : code;
}

template <int D, bool MATRICES>
static cudaError_t launch(const gpu_attention_params *p, cudaStream_t queue)
{
    dim3 grid((p->tokens + TILE - 1) / TILE, p->heads);
    return gpu_launch(false, attention_kernel<D, MATRICES>, grid, dim3(WARPS * 32),
                      (size_t)tile_sizes<D>::bytes, queue, *p);
}

template <bool MATRICES>
static cudaError_t launch_size(const gpu_attention_params *p, cudaStream_t queue)
{
    return p->head_size <= 32   ? launch<32, MATRICES>(p, queue)
           : p->head_size <= 64 ? launch<64, MATRICES>(p, queue)
           : p->head_size <= 96 ? launch<96, MATRICES>(p, queue)
                                : launch<128, MATRICES>(p, queue);
}

cudaError_t gpu_attention_launch(const gpu_attention_params *p, bool matrices, cudaStream_t queue)
{
    return matrices ? launch_size<true>(p, queue) : launch_size<false>(p, queue);
}
