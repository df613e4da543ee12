/* engine/cuda/mma.cuh: tensor core products of f16 fragments, and the loads that feed them (PTX
 * ISA, sm_80 and newer). */
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

/* Four 8x8 matrices of halves from shared memory, transposed. Lane i gives the address of row i%8
 * of matrix i/8 (16 bytes); b[j] of a lane holds elements (2t, g) and (2t+1, g) of matrix j. */
static __device__ __forceinline__ void gpu_load_transposed(uint32_t b[4], const uint16_t *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(b[0]), "=r"(b[1]), "=r"(b[2]), "=r"(b[3])
                 : "r"(gpu_shared_address(row))
                 : "memory");
}

/* 16 bytes to shared memory in the background; zeros when not valid (the source must still be an
 * address). */
static __device__ __forceinline__ void gpu_copy16(void *to, const void *from, bool valid)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(gpu_shared_address(to)),
                 "l"(__cvta_generic_to_global(from)), "r"(valid ? 16 : 0)
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
#endif
