/* engine/cuda/common.cuh: what every file of this folder needs: CUDA or its emulation, C headers,
 * checks, device helpers. */
#ifndef ENGINE_CUDA_COMMON_CUH
#define ENGINE_CUDA_COMMON_CUH

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* tests/gpu/emulate.h, included before this file, takes CUDA's place in tests without a device. */
#if !defined(GPU_EMULATE)
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#endif

/* The C headers know nothing of C++. */
#define _Noreturn __attribute__((noreturn))
extern "C" {
#include "base/mem.h"
#include "base/status.h"
#include "base/thread.h"
#include "engine/gpu.h"
#include "engine/gpu_pack.h"
#include "engine/gpu_paths.h"
}
#undef _Noreturn

/* Translate a CUDA result: out of memory, or a device failure with what was being done. */
base_status gpu_fail(base_error *err, cudaError_t code, const char *what);
#define GPU_TRY(call)                              \
    do {                                           \
        cudaError_t gpu_code = (call);             \
        if (gpu_code != cudaSuccess) {             \
            return gpu_fail(err, gpu_code, #call); \
        }                                          \
    } while (0)

#if !defined(GPU_EMULATE)

#define GPU_SHARED(name) extern __shared__ __align__(128) uint8_t name[]

template <typename T> struct gpu_same {
    typedef T type;
};
/* Launch with arguments converted to the kernel's own types. Cooperative: all blocks resident at
 * once, or an error. */
template <typename... P>
static inline cudaError_t gpu_launch(bool cooperative, void (*kernel)(P...), dim3 grid,
                                     dim3 threads, size_t shared, cudaStream_t stream,
                                     typename gpu_same<P>::type... args)
{
    void *pointers[] = {(void *)&args...};
    return cooperative
               ? cudaLaunchCooperativeKernel((const void *)kernel, grid, threads, pointers, shared,
                                             stream)
               : cudaLaunchKernel((const void *)kernel, grid, threads, pointers, shared, stream);
}

static __device__ __forceinline__ float gpu_half_to_float(uint16_t bits)
{
    return __half2float(__ushort_as_half(bits));
}
static __device__ __forceinline__ uint16_t gpu_float_to_half(float value)
{
    return __half_as_ushort(__float2half_rn(value));
}
static __device__ __forceinline__ float2 gpu_half2_to_float2(unsigned bits)
{
    __half2 pair;
    memcpy(&pair, &bits, sizeof pair);
    return __half22float2(pair);
}

/* --- copies from device memory to shared memory, counted by an mbarrier ----------------------- */

static __device__ __forceinline__ uint32_t gpu_shared_address(const void *p)
{
    return (uint32_t)__cvta_generic_to_shared(p);
}
/* 16 bytes to shared memory in the background; zeros when not valid (the source must still be an
 * address). */
static __device__ __forceinline__ void gpu_copy16(void *to, const void *from, bool valid)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(gpu_shared_address(to)),
                 "l"(__cvta_generic_to_global(from)), "r"(valid ? 16 : 0)
                 : "memory");
}

/* Bulk copies, issued by one lane (PTX ISA 8.0), are for compute capability 9.0 and newer. Before,
 * all lanes of a warp copy 16 bytes at a time and each arrives when its own have landed. */
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
#define GPU_WARP_COPIES 1
#endif

/* A phase is complete with the one arrival and the bytes announced to it, or with 32 arrivals. */
static __device__ __forceinline__ void gpu_mbarrier_init(uint64_t *barrier)
{
#if defined(GPU_WARP_COPIES)
    asm volatile("mbarrier.init.shared.b64 [%0], 32;" ::"r"(gpu_shared_address(barrier))
                 : "memory");
#else
    asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(gpu_shared_address(barrier))
                 : "memory");
#endif
}
static __device__ __forceinline__ void gpu_mbarrier_init_fence()
{
#if !defined(GPU_WARP_COPIES)
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
#endif
}

#if defined(GPU_WARP_COPIES)

/* This lane arrives when all the copies that it issued have landed. */
static __device__ __forceinline__ void gpu_mbarrier_arrive_copies(uint64_t *barrier)
{
    asm volatile(
        "cp.async.mbarrier.arrive.noinc.shared.b64 [%0];" ::"r"(gpu_shared_address(barrier))
        : "memory");
}
/* Wait until the phase of this parity has completed. */
static __device__ __forceinline__ void gpu_mbarrier_wait(uint64_t *barrier, uint32_t parity)
{
    asm volatile("{\n"
                 ".reg .pred done;\n"
                 "again:\n"
                 "mbarrier.test_wait.parity.shared.b64 done, [%0], %1;\n"
                 "@done bra.uni finished;\n"
                 "bra.uni again;\n"
                 "finished:\n"
                 "}\n" ::"r"(gpu_shared_address(barrier)),
                 "r"(parity)
                 : "memory");
}

#else

static __device__ __forceinline__ void gpu_mbarrier_expect(uint64_t *barrier, uint32_t bytes)
{
    asm volatile(
        "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(gpu_shared_address(barrier)),
        "r"(bytes)
        : "memory");
}
/* to, from and bytes are multiples of 16. */
static __device__ __forceinline__ void gpu_bulk_load(void *to, const void *from, uint32_t bytes,
                                                     uint64_t *barrier)
{
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::
            "r"(gpu_shared_address(to)),
        "l"(__cvta_generic_to_global(from)), "r"(bytes), "r"(gpu_shared_address(barrier))
        : "memory");
}
/* Wait until the phase of this parity has completed. */
static __device__ __forceinline__ void gpu_mbarrier_wait(uint64_t *barrier, uint32_t parity)
{
    asm volatile("{\n"
                 ".reg .pred done;\n"
                 "again:\n"
                 "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
                 "@done bra.uni finished;\n"
                 "bra.uni again;\n"
                 "finished:\n"
                 "}\n" ::"r"(gpu_shared_address(barrier)),
                 "r"(parity)
                 : "memory");
}

#endif

/* --- counters between blocks ------------------------------------------------------------------ */

static __device__ __forceinline__ void gpu_release_add(uint32_t *counter)
{
    asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(__cvta_generic_to_global(counter))
                 : "memory");
}
static __device__ __forceinline__ uint32_t gpu_acquire(const uint32_t *counter)
{
    uint32_t value;
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];"
                 : "=r"(value)
                 : "l"(__cvta_generic_to_global(counter))
                 : "memory");
    return value;
}

#endif

/* --- reductions ------------------------------------------------------------------------------- */

static __device__ __forceinline__ float gpu_warp_sum(float value)
{
    for (int mask = 16; mask > 0; mask >>= 1) {
        value += __shfl_xor_sync(0xffffffffu, value, mask);
    }
    return value;
}

/* Sum over the block, the same bits in every thread. work: one float per warp, free again after the
 * next barrier. */
static __device__ __forceinline__ float gpu_block_sum(float value, float *work)
{
    value = gpu_warp_sum(value);
    if (threadIdx.x % 32 == 0) {
        work[threadIdx.x / 32] = value;
    }
    __syncthreads();
    float total = 0.0f;
    for (unsigned w = 0; w < blockDim.x / 32; w++) {
        total += work[w];
    }
    return total;
}

#endif
