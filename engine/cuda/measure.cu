/* engine/cuda/measure.cu: the two ceilings of a card, for the fractions that benchmarks report.
 *
 * Copy: 1 GiB from device memory to device memory, counted twice (read and written), median of 20
 * runs. Product: 8192^3 bf16 on random numbers (zeros run faster), median of 10 runs. Device
 * events, after a warm-up; every allocation is released.
 */
#include "engine/cuda/prefill.cuh"

#if !defined(GPU_EMULATE)

enum { COPY_BYTES = 1 << 30, RUNS = 20, SIDE = 8192, PRODUCTS = 10 };

/* Random bf16 in (-2, 2), from a hash of the place. */
static __global__ void noise_kernel(uint16_t *to, size_t count, uint32_t seed)
{
    for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < count;
         i += (size_t)gridDim.x * blockDim.x) {
        uint32_t h = (uint32_t)i * 2654435761u ^ seed;
        h ^= h >> 15;
        h *= 2246822519u;
        h ^= h >> 13;
        to[i] = (uint16_t)((h & 0x807fu) | (0x3f00u - (h >> 8 & 0x180u)));
    }
}

static double median(float *values, int count)
{
    for (int i = 1; i < count; i++) {
        for (int j = i; j > 0 && values[j] < values[j - 1]; j--) {
            float v = values[j];
            values[j] = values[j - 1];
            values[j - 1] = v;
        }
    }
    return (double)values[count / 2];
}

struct bench {
    gpu_arena arena;
    void *gemm;
    cudaStream_t queue;
    cudaEvent_t from, to;
    int made; /* queue, events */
};

static base_status open_bench(bench *b, base_error *err)
{
    GPU_TRY(cudaStreamCreateWithFlags(&b->queue, cudaStreamNonBlocking));
    b->made++;
    GPU_TRY(cudaEventCreate(&b->from));
    b->made++;
    GPU_TRY(cudaEventCreate(&b->to));
    b->made++;
    return BASE_OK;
}

static void close_bench(bench *b)
{
    gpu_gemm_close(b->gemm);
    if (b->made > 2) {
        (void)cudaEventDestroy(b->to);
    }
    if (b->made > 1) {
        (void)cudaEventDestroy(b->from);
    }
    if (b->made > 0) {
        (void)cudaStreamDestroy(b->queue);
    }
    gpu_arena_free(&b->arena);
}

static base_status elapsed(bench *b, float *milliseconds, base_error *err)
{
    GPU_TRY(cudaEventRecord(b->to, b->queue));
    GPU_TRY(cudaEventSynchronize(b->to));
    GPU_TRY(cudaEventElapsedTime(milliseconds, b->from, b->to));
    return BASE_OK;
}

static base_status measure_copy(bench *b, double *rate, base_error *err)
{
    void *from = NULL, *to = NULL;
    float times[RUNS];
    base_status status = gpu_arena_take(&b->arena, COPY_BYTES, "a copy", &from, err);
    if (status || (status = gpu_arena_take(&b->arena, COPY_BYTES, "a copy", &to, err))) {
        return status;
    }
    GPU_TRY(gpu_launch(false, noise_kernel, dim3(1024), dim3(256), 0, b->queue, (uint16_t *)from,
                       (size_t)COPY_BYTES / 2, 1u));
    for (int i = -2; i < RUNS; i++) {
        float time = 0.0f;
        GPU_TRY(cudaEventRecord(b->from, b->queue));
        GPU_TRY(cudaMemcpyAsync(to, from, COPY_BYTES, cudaMemcpyDeviceToDevice, b->queue));
        if ((status = elapsed(b, &time, err))) {
            return status;
        }
        if (i >= 0) {
            times[i] = time;
        }
    }
    *rate = 2.0 * COPY_BYTES / (median(times, RUNS) * 1e-3);
    return BASE_OK;
}

static base_status measure_product(bench *b, double *rate, base_error *err)
{
    uint16_t *matrix[3];
    float times[PRODUCTS];
    base_status status = gpu_gemm_open(&b->gemm, b->queue, err);
    for (uint32_t i = 0; i < 3 && !status; i++) {
        void *data = NULL;
        status = gpu_arena_take(&b->arena, (size_t)SIDE * SIDE * 2, "a product", &data, err);
        matrix[i] = (uint16_t *)data;
        if (!status) {
            GPU_TRY(gpu_launch(false, noise_kernel, dim3(1024), dim3(256), 0, b->queue, matrix[i],
                               (size_t)SIDE * SIDE, i));
        }
    }
    for (int i = -3; i < PRODUCTS && !status; i++) {
        float time = 0.0f;
        GPU_TRY(cudaEventRecord(b->from, b->queue));
        if ((status = gpu_gemm_square(b->gemm, matrix[0], matrix[1], matrix[2], SIDE, err)) ||
            (status = elapsed(b, &time, err))) {
            return status;
        }
        if (i >= 0) {
            times[i] = time;
        }
    }
    if (!status) {
        *rate = 2.0 * SIDE * SIDE * (double)SIDE / (median(times, PRODUCTS) * 1e-3);
    }
    return status;
}

base_status gpu_measure(double *copy_bytes_per_s, double *product_flops, base_error *err)
{
    gpu_info info;
    bench b = {};
    base_status status = gpu_probe(&info, err);
    if (!status) {
        status = open_bench(&b, err);
    }
    if (!status && copy_bytes_per_s) {
        status = measure_copy(&b, copy_bytes_per_s, err);
    }
    if (!status && product_flops) {
        status = measure_product(&b, product_flops, err);
    }
    close_bench(&b);
    return status;
}

#else /* there is nothing to measure: fractions are of 1 */

base_status gpu_measure(double *copy_bytes_per_s, double *product_flops, base_error *)
{
    if (copy_bytes_per_s) {
        *copy_bytes_per_s = 1.0;
    }
    if (product_flops) {
        *product_flops = 1.0;
    }
    return BASE_OK;
}

#endif
