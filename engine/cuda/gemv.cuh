/* engine/cuda/gemv.cuh: device side of a matrix-vector product over packed weights (gpu_pack.h),
 * fed by bulk copies.
 *
 * Every warp owns `stages` pieces of shared memory. It walks through the segments of its share of
 * all matrices of the token in a fixed order and keeps that many bulk copies in flight, across the
 * borders of matrices, layers and grid barriers: weights do not depend on activations, so memory is
 * read while blocks wait for each other. Before compute capability 9.0 the lanes of a warp copy 16
 * bytes each, in place of one bulk copy.
 *
 * Activations. F32, F16 and BF16 weights multiply f32 activations. P4 and P8 weights multiply
 * 16-bit integers: per 32 columns x ~ s * (256*hi + lo), s = max|x| / 32512, |error| <= s/2, so
 * that four products cost two dp4a instructions and the sum of a block is exact. The scalar twin is
 * kernel_matmul with KERNEL_ACT_F32.
 */
#ifndef ENGINE_CUDA_GEMV_CUH
#define ENGINE_CUDA_GEMV_CUH

#include "engine/cuda/decode.cuh"

enum { GPU_STAGE_BYTES = GPU_SEGMENT_BYTES, GPU_LEVELS = 32512 };
static_assert(GPU_LEVELS == 127 * 256, "the high byte stays within 127");

/* Activations of one product in shared memory: f32 [K], or per 32 columns 4 x 16 bytes (hi 0-15, hi
 * 16-31, lo 0-15, lo 16-31) and, behind all of them, {s, sum of x}. */
struct gpu_activations {
    uint8_t *base;
    uint32_t columns;

    __device__ __forceinline__ float *values() const
    {
        return (float *)base;
    }
    __device__ __forceinline__ int4 *codes() const
    {
        return (int4 *)base;
    }
    __device__ __forceinline__ float2 *scales() const
    {
        return (float2 *)(base + (size_t)columns * 2);
    }
};

static __device__ __forceinline__ bool gpu_is_coded(uint32_t format)
{
    return format == KERNEL_P4 || format == KERNEL_P8;
}

/* Store eight neighbouring values from column c on. Coded: the four threads of 32 columns are
 * neighbours in a warp and all 32 lanes call this; c >= columns stores nothing. */
static __device__ __forceinline__ void gpu_store_activations(const gpu_activations &x, bool coded,
                                                             uint32_t c, const float v[8])
{
    if (!coded) {
        if (c < x.columns) {
            *(float4 *)(x.values() + c) = make_float4(v[0], v[1], v[2], v[3]);
            *(float4 *)(x.values() + c + 4) = make_float4(v[4], v[5], v[6], v[7]);
        }
        return;
    }
    float largest = 0.0f, sum = 0.0f;
#pragma unroll
    for (int i = 0; i < 8; i++) {
        largest = fmaxf(largest, fabsf(v[i]));
        sum += v[i];
    }
#pragma unroll
    for (int mask = 1; mask <= 2; mask <<= 1) {
        largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, mask));
        sum += __shfl_xor_sync(0xffffffffu, sum, mask);
    }
    if (c >= x.columns) {
        return;
    }
    bool zero = !(largest > 1e-30f);
    float inverse = zero ? 0.0f : (float)GPU_LEVELS / largest;
    uint32_t hi[2] = {0, 0}, lo[2] = {0, 0};
#pragma unroll
    for (int i = 0; i < 8; i++) {
        int code = __float2int_rn(v[i] * inverse);
        int high = (code + 128) >> 8;
        int low = code - high * 256;
        hi[i / 4] |= ((uint32_t)high & 255u) << (8 * (i % 4));
        lo[i / 4] |= ((uint32_t)low & 255u) << (8 * (i % 4));
    }
    uint32_t block = c / 32, quarter = c % 32 / 8;
    uint2 *to = (uint2 *)(x.base + (size_t)block * 64 + quarter * 8);
    to[0].x = hi[0];
    to[0].y = hi[1];
    to[4].x = lo[0];
    to[4].y = lo[1];
    if (quarter == 0) {
        x.scales()[block] = make_float2(zero ? 0.0f : largest * (1.0f / (float)GPU_LEVELS), sum);
    }
}

/* --- dot products of one segment: the lane's row (lane % 8), every fourth unit from lane / 8 on
 * -------------- */

static __device__ __forceinline__ int gpu_dot16(const int4 &w, const int4 &x, int sum)
{
    sum = __dp4a(w.x, x.x, sum);
    sum = __dp4a(w.y, x.y, sum);
    sum = __dp4a(w.z, x.z, sum);
    return __dp4a(w.w, x.w, sum);
}

static __device__ __forceinline__ float gpu_dot_p4(const uint8_t *stage, uint32_t units,
                                                   uint32_t first, const gpu_activations &x,
                                                   uint32_t lane)
{
    const uint8_t *scales = stage + units * (GPU_GROUP_ROWS * 16);
    float total = 0.0f;
#pragma unroll 4
    for (uint32_t u = lane >> 3; u < units; u += 4) {
        int4 w = *(const int4 *)(stage + u * (GPU_GROUP_ROWS * 16) + (lane & 7) * 16);
        float2 scale = gpu_half2_to_float2(
            *(const unsigned *)(scales + u * (GPU_GROUP_ROWS * 4) + (lane & 7) * 4));
        const int4 *codes = x.codes() + (first + u) * 4;
        float2 xs = x.scales()[first + u];
        int4 low = {w.x & 0x0F0F0F0F, w.y & 0x0F0F0F0F, w.z & 0x0F0F0F0F, w.w & 0x0F0F0F0F};
        int4 high = {w.x >> 4 & 0x0F0F0F0F, w.y >> 4 & 0x0F0F0F0F, w.z >> 4 & 0x0F0F0F0F,
                     w.w >> 4 & 0x0F0F0F0F};
        int coarse = gpu_dot16(high, codes[1], gpu_dot16(low, codes[0], 0));
        int fine = gpu_dot16(high, codes[3], gpu_dot16(low, codes[2], 0));
        total += (float)(coarse * 256 + fine) * (xs.x * scale.x) + xs.y * scale.y;
    }
    return total;
}

static __device__ __forceinline__ float gpu_dot_p8(const uint8_t *stage, uint32_t units,
                                                   uint32_t first, const gpu_activations &x,
                                                   bool paired, uint32_t lane)
{
    const uint8_t *scales = stage + units * (GPU_GROUP_ROWS * 32);
    float total = 0.0f;
#pragma unroll 2
    for (uint32_t u = lane >> 3; u < units; u += 4) {
        const uint8_t *at = stage + u * (GPU_GROUP_ROWS * 32) + (lane & 7) * 16;
        int4 w0 = *(const int4 *)at, w1 = *(const int4 *)(at + GPU_GROUP_ROWS * 16);
        float2 scale = gpu_half2_to_float2(
            *(const unsigned *)(scales + u * (GPU_GROUP_ROWS * 4) + (lane & 7) * 4));
        const int4 *codes = x.codes() + (first + u) * 4;
        float2 xs = x.scales()[first + u];
        int a = gpu_dot16(w0, codes[0], 0) * 256 + gpu_dot16(w0, codes[2], 0);
        int b = gpu_dot16(w1, codes[1], 0) * 256 + gpu_dot16(w1, codes[3], 0);
        float second = paired ? (float)b * xs.x : xs.y;
        float head = paired ? (float)a : (float)(a + b);
        total += head * (xs.x * scale.x) + second * scale.y;
    }
    return total;
}

template <int FORMAT>
static __device__ __forceinline__ float gpu_dot_plain(const uint8_t *stage, uint32_t units,
                                                      uint32_t first, const gpu_activations &x,
                                                      uint32_t lane)
{
    const uint32_t per = FORMAT == KERNEL_F32 ? 4 : 8;
    float total = 0.0f;
#pragma unroll 4
    for (uint32_t u = lane >> 3; u < units; u += 4) {
        uint4 w = *(const uint4 *)(stage + u * (GPU_GROUP_ROWS * 16) + (lane & 7) * 16);
        const float4 *v = (const float4 *)(x.values() + (first + u) * per);
        float4 a = v[0];
        if (FORMAT == KERNEL_F32) {
            total += __uint_as_float(w.x) * a.x;
            total += __uint_as_float(w.y) * a.y;
            total += __uint_as_float(w.z) * a.z;
            total += __uint_as_float(w.w) * a.w;
        } else {
            float4 b = v[1];
            const unsigned word[4] = {w.x, w.y, w.z, w.w};
            const float y[8] = {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w};
#pragma unroll
            for (int i = 0; i < 4; i++) {
                float2 pair = FORMAT == KERNEL_F16
                                  ? gpu_half2_to_float2(word[i])
                                  : make_float2(__uint_as_float(word[i] << 16),
                                                __uint_as_float(word[i] & 0xffff0000u));
                total += pair.x * y[2 * i];
                total += pair.y * y[2 * i + 1];
            }
        }
    }
    return total;
}

/* --- the stream of weights -------------------------------------------------------------------- */

/* The groups of a matrix that this block multiplies. */
static __device__ __forceinline__ void gpu_block_groups(const gpu_matrix &m, uint32_t *begin,
                                                        uint32_t *end)
{
    uint32_t items = m.groups / m.grain;
    *begin = items * blockIdx.x / gridDim.x * m.grain;
    *end = items * (blockIdx.x + 1) / gridDim.x * m.grain;
}

/* Place of one warp in the program: the next segment to fetch. Teams of m.split warps share a
 * group; the teams of a block take its groups in turn. */
struct gpu_cursor {
    const gpu_matrix *program;
    uint32_t matrix, matrix_count;
    uint32_t group, group_end, segment;
    gpu_matrix m;

    __device__ __forceinline__ void enter(uint32_t warp)
    {
        for (; matrix < matrix_count; matrix++) {
            m = program[matrix];
            uint32_t begin;
            gpu_block_groups(m, &begin, &group_end);
            group = begin + warp / m.split;
            segment = warp % m.split;
            if (group < group_end) {
                return;
            }
        }
    }
    __device__ __forceinline__ bool done() const
    {
        return matrix >= matrix_count;
    }
    __device__ __forceinline__ void advance(uint32_t warp)
    {
        segment += m.split;
        if (segment < m.segments) {
            return;
        }
        segment = warp % m.split;
        group += GPU_WARPS / m.split;
        if (group < group_end) {
            return;
        }
        matrix++;
        enter(warp);
    }
};

struct gpu_ring {
    uint8_t *stage;    /* this warp's stages */
    uint64_t *barrier; /* one per stage */
    uint32_t stages, at, parity;
    gpu_cursor *next; /* shared memory, lane 0 only: in registers it would cost 20 */

    /* Lane 0: where the next segment is, and its size; 0 behind the last. */
    __device__ __forceinline__ uint32_t take(const uint8_t **from, uint32_t warp)
    {
        if (next->done()) {
            return 0;
        }
        const gpu_matrix &m = next->m;
        uint32_t bytes = next->segment + 1u == m.segments ? m.last_bytes : m.segment_bytes;
        *from =
            m.data + (size_t)next->group * m.group_bytes + (size_t)next->segment * m.segment_bytes;
        next->advance(warp);
        return bytes;
    }
    /* All lanes: fetch the next segment into stage s, which nobody reads any more. */
    __device__ __forceinline__ void fetch(uint32_t s, uint32_t warp, uint32_t lane)
    {
        const uint8_t *from = NULL;
        uint32_t bytes = lane == 0 ? take(&from, warp) : 0;
#if defined(GPU_WARP_COPIES)
        bytes = __shfl_sync(0xffffffffu, bytes, 0);
        from = (const uint8_t *)__shfl_sync(0xffffffffu, (unsigned long long)from, 0);
        for (uint32_t at = lane * 16; at < bytes; at += 32 * 16) {
            gpu_copy16(stage + s * GPU_STAGE_BYTES + at, from + at, true);
        }
        if (bytes > 0) {
            gpu_mbarrier_arrive_copies(&barrier[s]);
        }
#else
        if (bytes > 0) {
            gpu_mbarrier_expect(&barrier[s], bytes);
            gpu_bulk_load(stage + s * GPU_STAGE_BYTES, from, bytes, &barrier[s]);
        }
#endif
    }
    /* All lanes: begin to stream. */
    __device__ __forceinline__ void open(const gpu_matrix *program, uint32_t program_count,
                                         uint32_t warp, uint32_t lane)
    {
        at = parity = 0;
        if (lane == 0) {
            next->program = program;
            next->matrix = 0;
            next->matrix_count = program_count;
            for (uint32_t s = 0; s < stages; s++) {
                gpu_mbarrier_init(&barrier[s]);
            }
            gpu_mbarrier_init_fence();
            next->enter(warp);
        }
        __syncwarp();
        for (uint32_t s = 0; s < stages; s++) {
            fetch(s, warp, lane);
        }
        __syncwarp();
    }
    __device__ __forceinline__ const uint8_t *wait()
    {
        gpu_mbarrier_wait(&barrier[at], parity);
        return stage + at * GPU_STAGE_BYTES;
    }
    __device__ __forceinline__ void release(uint32_t warp, uint32_t lane)
    {
        __syncwarp();
        fetch(at, warp, lane);
        if (++at == stages) {
            at = 0;
            parity ^= 1;
        }
    }
};

/* This warp's part of partial [local group][split][8] = W x for the block's groups of one matrix.
 * */
template <int FORMAT>
static __device__ __forceinline__ void gpu_product(const gpu_matrix &m, gpu_ring &ring,
                                                   const gpu_activations &x, float *partial,
                                                   uint32_t warp, uint32_t lane)
{
    uint32_t begin, end, member = warp % m.split;
    gpu_block_groups(m, &begin, &end);
    for (uint32_t g = begin + warp / m.split; g < end; g += GPU_WARPS / m.split) {
        float total = 0.0f;
        for (uint32_t s = member; s < m.segments; s += m.split) {
            uint32_t units = s + 1u == m.segments ? m.last_units : m.segment_units;
            uint32_t first = s * m.segment_units;
            const uint8_t *stage = ring.wait();
            if (FORMAT == KERNEL_P4) {
                total += gpu_dot_p4(stage, units, first, x, lane);
            } else if (FORMAT == KERNEL_P8) {
                total += gpu_dot_p8(stage, units, first, x, m.paired != 0, lane);
            } else {
                total += gpu_dot_plain<FORMAT>(stage, units, first, x, lane);
            }
            ring.release(warp, lane);
        }
        total += __shfl_xor_sync(0xffffffffu, total, 8);
        total += __shfl_xor_sync(0xffffffffu, total, 16);
        if (lane < GPU_GROUP_ROWS) {
            partial[((g - begin) * m.split + member) * GPU_GROUP_ROWS + lane] = total * m.unit;
        }
    }
}

static __device__ __forceinline__ void gpu_product_any(const gpu_matrix &m, gpu_ring &ring,
                                                       const gpu_activations &x, float *partial,
                                                       uint32_t warp, uint32_t lane)
{
    switch (m.format) {
    case KERNEL_P4:
        gpu_product<KERNEL_P4>(m, ring, x, partial, warp, lane);
        break;
    case KERNEL_P8:
        gpu_product<KERNEL_P8>(m, ring, x, partial, warp, lane);
        break;
    case KERNEL_BF16:
        gpu_product<KERNEL_BF16>(m, ring, x, partial, warp, lane);
        break;
    case KERNEL_F16:
        gpu_product<KERNEL_F16>(m, ring, x, partial, warp, lane);
        break;
    default:
        gpu_product<KERNEL_F32>(m, ring, x, partial, warp, lane);
        break;
    }
}

/* Row r of a local group, summed over the warps that shared it in their fixed order. */
static __device__ __forceinline__ float gpu_partial_sum(const gpu_matrix &m, const float *partial,
                                                        uint32_t local_group, uint32_t r)
{
    float total = 0.0f;
    for (uint32_t s = 0; s < m.split; s++) {
        total += partial[(local_group * m.split + s) * GPU_GROUP_ROWS + r];
    }
    return total;
}

/* Value at (row, column) of a packed matrix (embedding lookup). */
static __device__ __forceinline__ float gpu_weight_at(const gpu_matrix &m, uint32_t row,
                                                      uint32_t column)
{
    bool coded = gpu_is_coded(m.format);
    uint32_t per = coded ? 32 : m.format == KERNEL_F32 ? 4 : 8;
    uint32_t slab = m.format == KERNEL_P8 ? GPU_GROUP_ROWS * 32 : GPU_GROUP_ROWS * 16;
    uint32_t u = column / per, c = column % per, r = row % GPU_GROUP_ROWS;
    uint32_t segment = u / m.segment_units, inside = u % m.segment_units;
    uint32_t units = segment + 1u == m.segments ? m.last_units : m.segment_units;
    const uint8_t *start =
        m.data + (size_t)(row / GPU_GROUP_ROWS) * m.group_bytes + (size_t)segment * m.segment_bytes;
    const uint8_t *at = start + inside * slab + r * 16;
    switch (m.format) {
    case KERNEL_F32:
        return ((const float *)at)[c];
    case KERNEL_F16:
        return gpu_half_to_float(((const uint16_t *)at)[c]);
    case KERNEL_BF16:
        return __uint_as_float((unsigned)((const uint16_t *)at)[c] << 16);
    default:
        break;
    }
    float2 s = gpu_half2_to_float2(
        *(const unsigned *)(start + units * slab + inside * (GPU_GROUP_ROWS * 4) + r * 4));
    int q = m.format == KERNEL_P4 ? at[c % 16] >> (c < 16 ? 0 : 4) & 15
                                  : (int)(int8_t)at[c / 16 * (GPU_GROUP_ROWS * 16) + c % 16];
    float scale = m.paired && c >= 16 ? s.y : s.x;
    return (scale * (float)q + (m.paired ? 0.0f : s.y)) * m.unit;
}

#endif
