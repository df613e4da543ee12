/* engine/cuda/stats.cuh: statistics of logits, found in parts. Twin: logit_stats (kernels.h). */
#ifndef ENGINE_CUDA_STATS_CUH
#define ENGINE_CUDA_STATS_CUH

#include "engine/cuda/common.cuh"

/* Merged statistics of some logits: maximum, its index, sum of e^(z-max), sum of (z-max) e^(z-max).
 * */
struct gpu_stats {
    float largest, total, weighted;
    int32_t best;
};

static __device__ __forceinline__ gpu_stats gpu_stats_merge(const gpu_stats &a, const gpu_stats &b)
{
    gpu_stats r;
    bool first = a.largest > b.largest || (a.largest == b.largest && a.best <= b.best);
    r.largest = first ? a.largest : b.largest;
    r.best = first ? a.best : b.best;
    r.total = r.weighted = 0.0f;
    if (a.total > 0.0f) {
        float shift = a.largest - r.largest, e = expf(shift);
        r.total += a.total * e;
        r.weighted += e * (a.weighted + shift * a.total);
    }
    if (b.total > 0.0f) {
        float shift = b.largest - r.largest, e = expf(shift);
        r.total += b.total * e;
        r.weighted += e * (b.weighted + shift * b.total);
    }
    return r;
}

static __device__ __forceinline__ gpu_stats gpu_stats_warp(gpu_stats s)
{
    for (int mask = 16; mask > 0; mask >>= 1) {
        gpu_stats o;
        o.largest = __shfl_xor_sync(0xffffffffu, s.largest, mask);
        o.total = __shfl_xor_sync(0xffffffffu, s.total, mask);
        o.weighted = __shfl_xor_sync(0xffffffffu, s.weighted, mask);
        o.best = __shfl_xor_sync(0xffffffffu, s.best, mask);
        s = gpu_stats_merge(s, o);
    }
    return s;
}

/* Merged over the block; valid in thread 0. work: 4 floats a warp. */
static __device__ __forceinline__ gpu_stats gpu_stats_block(gpu_stats s, float *work)
{
    gpu_stats *shared = (gpu_stats *)work;
    s = gpu_stats_warp(s);
    __syncthreads();
    if (threadIdx.x % 32 == 0) {
        shared[threadIdx.x / 32] = s;
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        for (uint32_t w = 1; w < blockDim.x / 32; w++) {
            s = gpu_stats_merge(s, shared[w]);
        }
    }
    return s;
}

#endif
