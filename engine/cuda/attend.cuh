/* engine/cuda/attend.cuh: one token's attention over consecutive slots of a KV head, by the warps
 * of a block, and the merging of such parts:
 * o = sum_p e^(m_p - M) o_p / sum_p e^(m_p - M) l_p, M = max m_p (Milakov & Gimelshein 2018; split
 * over keys: Dao 2023). Scalar twin: core_attend. */
#ifndef ENGINE_CUDA_ATTEND_CUH
#define ENGINE_CUDA_ATTEND_CUH

#include "engine/cuda/common.cuh"

#include <math.h>

#define GPU_HEADS_AT_ONCE 4 /* query heads of one KV head that share a pass over the slots */

/* Slots of one KV head in a plane, as a lane sees them. */
struct gpu_slots {
    const uint16_t *rotated, *values; /* slot 0, from the lane's first column on */
    const float *bias;                /* [slots] */
    uint32_t kv_width, head_size;
    uint32_t lanes; /* power of two: lanes that share a slot, 8 values each */
};

static __device__ __forceinline__ void gpu_unpack8(const uint4 &raw, float v[8])
{
    const unsigned word[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        float2 pair = gpu_half2_to_float2(word[i]);
        v[2 * i] = pair.x;
        v[2 * i + 1] = pair.y;
    }
}

static __device__ __forceinline__ float gpu_weight_of(float m, float largest)
{
    return m == -INFINITY ? 0.0f : expf(m - largest);
}

/* GPU_HEADS_AT_ONCE query heads over the slots [begin, end): this warp's maximum, sum and output of
 * each, to shared [warp][head][D + 2]. q: this lane's values, rotated and scaled. */
template <int WARPS>
static __device__ __forceinline__ void gpu_attend(const gpu_slots &s, uint32_t begin, uint32_t end,
                                                  const float q[GPU_HEADS_AT_ONCE][8],
                                                  float *shared, uint32_t warp, uint32_t lane)
{
    uint32_t lanes = s.lanes, d = lane % lanes * 8, sub = lane / lanes, per_warp = 32 / lanes;
    bool holds = d < s.head_size;
    float o[GPU_HEADS_AT_ONCE][8], m[GPU_HEADS_AT_ONCE], l[GPU_HEADS_AT_ONCE];
#pragma unroll
    for (int h = 0; h < GPU_HEADS_AT_ONCE; h++) {
        m[h] = -INFINITY;
        l[h] = 0.0f;
#pragma unroll
        for (int i = 0; i < 8; i++) {
            o[h][i] = 0.0f;
        }
    }
    for (uint32_t first = begin + warp * per_warp; first < end; first += WARPS * per_warp) {
        uint32_t slot = first + sub;
        bool present = slot < end;
        uint4 key = make_uint4(0, 0, 0, 0), value = make_uint4(0, 0, 0, 0);
        float bias = -INFINITY;
        if (present) {
            bias = s.bias[slot];
            if (holds) {
                key = __ldcg((const uint4 *)(s.rotated + (size_t)slot * s.kv_width));
                value = __ldcg((const uint4 *)(s.values + (size_t)slot * s.kv_width));
            }
        }
        /* Scores of all heads first, so that keys and values are not both unpacked at a time. */
        float score[GPU_HEADS_AT_ONCE], v[8];
        gpu_unpack8(key, v);
#pragma unroll
        for (int h = 0; h < GPU_HEADS_AT_ONCE; h++) {
            score[h] = 0.0f;
#pragma unroll
            for (int i = 0; i < 8; i++) {
                score[h] += q[h][i] * v[i];
            }
            for (uint32_t mask = lanes / 2; mask > 0; mask /= 2) {
                score[h] += __shfl_xor_sync(0xffffffffu, score[h], (int)mask);
            }
        }
        gpu_unpack8(value, v);
#pragma unroll
        for (int h = 0; h < GPU_HEADS_AT_ONCE; h++) {
            float x = score[h] + bias, largest = fmaxf(m[h], x);
            float keep = gpu_weight_of(m[h], largest), weight = gpu_weight_of(x, largest);
            m[h] = largest;
            l[h] = l[h] * keep + weight;
#pragma unroll
            for (int i = 0; i < 8; i++) {
                o[h][i] = o[h][i] * keep + weight * v[i];
            }
        }
    }
#pragma unroll
    for (int h = 0; h < GPU_HEADS_AT_ONCE; h++) {
        for (uint32_t mask = lanes; mask < 32; mask *= 2) {
            float other = __shfl_xor_sync(0xffffffffu, m[h], (int)mask);
            float largest = fmaxf(m[h], other);
            float mine = gpu_weight_of(m[h], largest), theirs = gpu_weight_of(other, largest);
            l[h] = l[h] * mine + __shfl_xor_sync(0xffffffffu, l[h], (int)mask) * theirs;
            m[h] = largest;
#pragma unroll
            for (int i = 0; i < 8; i++) {
                float part = __shfl_xor_sync(0xffffffffu, o[h][i], (int)mask);
                o[h][i] = o[h][i] * mine + part * theirs;
            }
        }
        float *to = shared + (warp * GPU_HEADS_AT_ONCE + (uint32_t)h) * (s.head_size + 2);
        if (sub == 0 && holds) {
#pragma unroll
            for (int i = 0; i < 8; i++) {
                to[2 + d + (uint32_t)i] = o[h][i];
            }
        }
        if (lane == 0) {
            to[0] = m[h];
            to[1] = l[h];
        }
    }
}

/* Merge `count` parts {m, l, o[D]} that stand `stride` floats apart, element i of o. cg: parts of
 * other blocks. */
static __device__ __forceinline__ float gpu_merge_parts(const float *parts, uint32_t count,
                                                        uint32_t stride, uint32_t i, bool cg,
                                                        float *m, float *l)
{
    float largest = -INFINITY, total = 0.0f, out = 0.0f;
    for (uint32_t s = 0; s < count; s++) {
        const float *part = parts + (size_t)s * stride;
        largest = fmaxf(largest, cg ? __ldcg(part) : part[0]);
    }
    for (uint32_t s = 0; s < count; s++) {
        const float *part = parts + (size_t)s * stride;
        float w = gpu_weight_of(cg ? __ldcg(part) : part[0], largest);
        total += w * (cg ? __ldcg(part + 1) : part[1]);
        out += w * (cg ? __ldcg(part + 2 + i) : part[2 + i]);
    }
    *m = largest;
    *l = total;
    return out;
}

#endif
