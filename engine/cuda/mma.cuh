/* engine/cuda/mma.cuh: tensor core products of f16 and of f32 fragments, and the loads that feed
 * them (PTX ISA, sm_80 and newer). */
#ifndef ENGINE_CUDA_MMA_CUH
#define ENGINE_CUDA_MMA_CUH

#include "engine/cuda/common.cuh"

#if !defined(GPU_EMULATE)

/* c [16, 8] += a [16, 16] b [16, 8]. With g = lane/4, t = lane%4: a = {(g; 2t, 2t+1), (g+8; 2t..),
 * (g; 2t+8..), (g+8; 2t+8..)}, b = {(2t, 2t+1; g), (2t+8, 2t+9; g)}, c = {(g, 2t), (g, 2t+1), (g+8,
 * 2t), (g+8, 2t+1)}. */
static __device__ __forceinline__ void gpu_mma(float c[4], const uint32_t a[4], const uint32_t b[2])
{
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
        "{%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/* The tf32 number next to x: 10 bits behind the point, the exponents of f32. */
static __device__ __forceinline__ float gpu_tf32(float x)
{
    uint32_t bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
    return __uint_as_float(bits);
}

/* c [16, 8] += a [16, 8] b [8, 8], tf32. With g = lane/4, t = lane%4: a = {(g, t), (g+8, t), (g,
 * t+4), (g+8, t+4)}, b = {(t, g), (t+4, g)}, c as above. */
static __device__ __forceinline__ void gpu_mma_tf32(float c[4], const float a[4], const float b[2])
{
    asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
        "{%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(__float_as_uint(a[0])), "r"(__float_as_uint(a[1])), "r"(__float_as_uint(a[2])),
          "r"(__float_as_uint(a[3])), "r"(__float_as_uint(b[0])), "r"(__float_as_uint(b[1])));
}

/* Four 8x8 matrices of halves from shared memory, transposed. Lane i gives the address of row i%8
 * of matrix i/8 (16 bytes); b[j] of a lane holds elements (2t, g) and (2t+1, g) of matrix j. */
static __device__ __forceinline__ void gpu_load_transposed(uint32_t b[4], const uint16_t *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(b[0]), "=r"(b[1]), "=r"(b[2]), "=r"(b[3])
                 : "r"(gpu_shared_address(row))
                 : "memory");
}

/* The same not transposed: b[j] of a lane holds elements (g, 2t) and (g, 2t+1) of matrix j. */
static __device__ __forceinline__ void gpu_load_matrices(uint32_t b[4], const uint16_t *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(b[0]), "=r"(b[1]), "=r"(b[2]), "=r"(b[3])
                 : "r"(gpu_shared_address(row))
                 : "memory");
}

static __device__ __forceinline__ void gpu_copy_commit()
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}
/* All of this thread's groups but the youngest have landed. */
static __device__ __forceinline__ void gpu_copy_wait_but_one()
{
    asm volatile("cp.async.wait_group 1;" ::: "memory");
}

static __device__ __forceinline__ uint32_t gpu_pack_half2(float low, float high)
{
    __half2 pair = __floats2half2_rn(low, high);
    uint32_t bits;
    memcpy(&bits, &pair, sizeof bits);
    return bits;
}

#endif

/* The same of f32 numbers, each cut into two tf32 numbers: relative error about 2^-21. The small
 * products come first, so that they are not lost. */
static __device__ __forceinline__ void gpu_mma_f32(float c[4], const float a[4], const float b[2])
{
    float large[4], small[4], y[2], rest[2];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        large[i] = gpu_tf32(a[i]);
        small[i] = gpu_tf32(a[i] - large[i]);
    }
#pragma unroll
    for (int i = 0; i < 2; i++) {
        y[i] = gpu_tf32(b[i]);
        rest[i] = gpu_tf32(b[i] - y[i]);
    }
    gpu_mma_tf32(c, small, y);
    gpu_mma_tf32(c, large, rest);
    gpu_mma_tf32(c, large, y);
}

/* store(i, j, value) of the product of a(i, k) and b(k, j), i < m, j < n, by all warps of the
 * block. n and depth are multiples of 8; a is also asked for rows up to the next multiple of 16.
 * The same thread stores (i, j) for the same m and n. No barrier. */
template <typename A, typename B, typename S>
static __device__ __forceinline__ void gpu_tiles(uint32_t m, uint32_t n, uint32_t depth, A a, B b,
                                                 S store)
{
    uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    uint32_t across = n / 8, tiles = (m + 15) / 16 * across;
    for (uint32_t tile = warp; tile < tiles; tile += blockDim.x / 32) {
        uint32_t i = tile / across * 16 + g, j = tile % across * 8;
        float c[4] = {0.0f, 0.0f, 0.0f, 0.0f};
#pragma unroll 2
        for (uint32_t k = 0; k < depth; k += 8) {
            const float x[4] = {a(i, k + t), a(i + 8, k + t), a(i, k + t + 4), a(i + 8, k + t + 4)};
            const float y[2] = {b(k + t, j + g), b(k + t + 4, j + g)};
            gpu_mma_f32(c, x, y);
        }
#pragma unroll
        for (uint32_t e = 0; e < 4; e++) {
            if (i + e / 2 * 8 < m) {
                store(i + e / 2 * 8, j + 2 * t + e % 2, c[e]);
            }
        }
    }
}

#endif
