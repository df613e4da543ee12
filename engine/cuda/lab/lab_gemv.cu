/* engine/cuda/lab/lab_gemv.cu: the matrix-vector product of decoding, in versions. A program, not
 * part of the library.
 *
 *   1 rows      row-major bf16, one warp a row, 16-byte loads, sum over 32 lanes
 *   2 packed    groups of 8 rows (gpu_pack.h), one warp a group, loads straight into registers
 *   3 ring the same groups through shared memory by bulk copies, per-warp rings (gemv.cuh, the
 *   production path)
 *   3' ring     P4 and P8 weights with 16-bit integer activations
 *
 * Each version is compared with a float64 sum on the CPU, then timed over enough different matrices
 * to exceed the second-level cache four times, in one graph-free queue of launches. Fraction: bytes
 * of weights per second over the bytes per second of a large copy. README.md holds the table.
 */
#include "engine/cuda/gemv.cuh"
#include "engine/cuda/prefill.cuh"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include <vector>

#include "engine/cuda/lab/lab_matrices.cuh"

struct lab_params {
    const gpu_matrix *program; /* one matrix a launch */
    const uint16_t *rows;      /* row-major twin for version 1 */
    const float *x;
    float *y;
    uint32_t n, k, stages, x_bytes;
};

/* Version 1. */
static __global__ void rows_kernel(const __grid_constant__ lab_params p)
{
    uint32_t lane = threadIdx.x % 32, row = (blockIdx.x * blockDim.x + threadIdx.x) / 32;
    float total = 0.0f;
    if (row < p.n) {
        for (uint32_t c = lane * 8; c < p.k; c += 256) {
            uint4 w = __ldg((const uint4 *)(p.rows + (size_t)row * p.k + c));
            float4 a = __ldg((const float4 *)(p.x + c)), b = __ldg((const float4 *)(p.x + c + 4));
            const unsigned word[4] = {w.x, w.y, w.z, w.w};
            const float v[8] = {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w};
#pragma unroll
            for (int i = 0; i < 4; i++) {
                total += __uint_as_float(word[i] << 16) * v[2 * i];
                total += __uint_as_float(word[i] & 0xffff0000u) * v[2 * i + 1];
            }
        }
    }
    total = gpu_warp_sum(total);
    if (lane == 0 && row < p.n) {
        p.y[row] = total;
    }
}

/* Activations into shared memory, as decode.cu does it. */
static __device__ void fill(gpu_activations &x, bool coded, const float *from)
{
    for (uint32_t base = 0; base < x.columns; base += blockDim.x * 8) {
        uint32_t c = base + threadIdx.x * 8;
        float v[8] = {0, 0, 0, 0, 0, 0, 0, 0};
        if (c < x.columns) {
            for (int i = 0; i < 8; i++) {
                v[i] = __ldg(from + c + i);
            }
        }
        gpu_store_activations(x, coded, c, v);
    }
    __syncthreads();
}

/* Version 2: a warp a group; four segments' worth of loads are in flight by unrolling. */
static __global__ void __launch_bounds__(GPU_THREADS)
    packed_kernel(const __grid_constant__ lab_params p)
{
    GPU_SHARED(memory);
    gpu_activations x = {memory, p.k};
    fill(x, false, p.x);
    const gpu_matrix m = p.program[0];
    uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    for (uint32_t g = blockIdx.x * GPU_WARPS + warp; g < m.groups; g += gridDim.x * GPU_WARPS) {
        const uint8_t *group = m.data + (size_t)g * m.group_bytes;
        float total = 0.0f;
        /* Plain formats: segments of a group follow each other without scales between them. */
        total += gpu_dot_plain<KERNEL_BF16>(group, p.k / 8, 0, x, lane);
        total += __shfl_xor_sync(0xffffffffu, total, 8);
        total += __shfl_xor_sync(0xffffffffu, total, 16);
        if (lane < GPU_GROUP_ROWS) {
            p.y[g * GPU_GROUP_ROWS + lane] = total * m.unit;
        }
    }
}

/* Version 3. */
static __global__ void __launch_bounds__(GPU_THREADS, 1)
    ring_kernel(const __grid_constant__ lab_params p)
{
    GPU_SHARED(memory);
    uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    uint8_t *at = memory + GPU_WARPS * p.stages * GPU_STAGE_BYTES;
    uint64_t *barriers = (uint64_t *)at;
    at += GPU_WARPS * p.stages * sizeof(uint64_t);
    gpu_activations x = {at, p.k};
    float *partial = (float *)(at + p.x_bytes);
    gpu_cursor *cursors = (gpu_cursor *)(partial + LAB_PARTIAL);
    gpu_ring ring;
    ring.stages = p.stages;
    ring.stage = memory + warp * p.stages * GPU_STAGE_BYTES;
    ring.barrier = barriers + warp * p.stages;
    ring.next = cursors + warp;
    ring.open(p.program, 1, warp, lane);
    const gpu_matrix m = p.program[0];
    fill(x, gpu_is_coded(m.format), p.x);
    gpu_product_any(m, ring, x, partial, warp, lane);
    __syncthreads();
    uint32_t begin, end;
    gpu_block_groups(m, &begin, &end);
    for (uint32_t i = threadIdx.x; i < (end - begin) * GPU_GROUP_ROWS; i += GPU_THREADS) {
        p.y[begin * GPU_GROUP_ROWS + i] =
            gpu_partial_sum(m, partial, i / GPU_GROUP_ROWS, i % GPU_GROUP_ROWS);
    }
}

/* --- one size and format ---------------------------------------------------------------------- */

enum version { ROWS, PACKED, RING };

static cudaError_t launch(version v, const lab_params *p, uint32_t blocks, cudaStream_t queue)
{
    if (v == ROWS) {
        return gpu_launch(false, rows_kernel, dim3((p->n + 7) / 8), dim3(256), 0, queue, *p);
    }
    if (v == PACKED) {
        return gpu_launch(false, packed_kernel, dim3(2 * blocks), dim3(GPU_THREADS),
                          (size_t)p->k * sizeof(float), queue, *p);
    }
    return gpu_launch(false, ring_kernel, dim3(blocks), dim3(GPU_THREADS),
                      lab_ring_bytes(p->stages, p->x_bytes), queue, *p);
}

static const char *const names[] = {"1 rows", "2 packed", "3 ring"};

static int run(const lab_case *c, lab_set *set, uint32_t blocks, double copy, cudaStream_t queue)
{
    int bad = 0;
    LAB(cudaFuncSetAttribute(ring_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, 220 * 1024));
    LAB(cudaFuncSetAttribute(packed_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             64 * 1024));
    for (int v = c->format == KERNEL_BF16 ? ROWS : RING; v <= RING; v++) {
        for (uint32_t stages = v == RING ? 2 : 4; stages <= 4; stages++) {
            lab_params p = {NULL,    NULL,       set->x, set->y,
                            c->rows, c->columns, stages, lab_x_bytes(c->format, c->columns)};
            if (v == RING && lab_ring_bytes(stages, p.x_bytes) > 220 * 1024) {
                continue;
            }
            LAB(cudaMemsetAsync(set->y, 0xFF, c->rows * sizeof(float), queue));
            p.program = set->programs;
            p.rows = set->rows;
            LAB(launch((version)v, &p, blocks, queue));
            double error = lab_error(set, c, queue);
            double seconds = lab_seconds(queue, [&]() {
                for (uint32_t i = 0; i < set->count; i++) {
                    p.program = set->programs + i;
                    p.rows = set->rows + (size_t)i * c->rows * c->columns;
                    LAB(launch((version)v, &p, blocks, queue));
                }
            });
            char what[64], name[32];
            snprintf(what, sizeof what, "%s %u x %u", c->name, c->rows, c->columns);
            snprintf(name, sizeof name, v == RING ? "%s, %u stages" : "%s", names[v], stages);
            bad += lab_row(what, name, error, c->bound, seconds / set->count, (double)set->bytes,
                           copy);
        }
    }
    return bad;
}

int main()
{
    gpu_info info;
    double copy = lab_begin();
    int bad = 0;
    cudaStream_t queue;
    (void)gpu_probe(&info, NULL);
    LAB(cudaStreamCreateWithFlags(&queue, cudaStreamNonBlocking));
    /* f32 sums of K products in another order: K^(1/2) 2^-24; coded activations: 2^-16 of a block's
     * largest. */
    const lab_case large[] = {
        {"bf16", KERNEL_BF16, KERNEL_SRC_BF16, 3072, 2048, 1e-5},
        {"bf16", KERNEL_BF16, KERNEL_SRC_BF16, 16384, 2048, 1e-5},
        {"bf16", KERNEL_BF16, KERNEL_SRC_BF16, 2048, 8192, 1e-5},
        {"q4_1", KERNEL_P4, KERNEL_SRC_Q4_1, 16384, 2048, 2e-4},
        {"q4_1", KERNEL_P4, KERNEL_SRC_Q4_1, 2048, 8192, 2e-4},
        {"q8_0", KERNEL_P8, KERNEL_SRC_Q8_0, 16384, 2048, 2e-4},
    };
    const lab_case small[] = {
        {"bf16", KERNEL_BF16, KERNEL_SRC_BF16, 96, 256, 1e-5},
        {"q4_1", KERNEL_P4, KERNEL_SRC_Q4_1, 64, 1024, 2e-4},
        {"q8_0", KERNEL_P8, KERNEL_SRC_Q8_0, 96, 256, 2e-4},
    };
    std::vector<lab_case> cases(small, small + 3);
    if (lab_timed) {
        cases.assign(large, large + 6);
    }
    for (const lab_case &c : cases) {
        lab_set set = {};
        lab_make(&set, &c, (uint32_t)info.multiprocessors);
        bad += run(&c, &set, (uint32_t)info.multiprocessors, copy, queue);
        lab_free(&set);
    }
    return bad > 0;
}
