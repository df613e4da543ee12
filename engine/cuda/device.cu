/* engine/cuda/device.cu: is there a usable device, what CUDA's codes mean, device memory. */
#include "engine/cuda/internal.cuh"

#include <stdio.h>

base_status gpu_fail(base_error *err, cudaError_t code, const char *what)
{
    base_status status = code == cudaErrorMemoryAllocation ? BASE_NO_MEMORY : BASE_DEVICE;
    (void)cudaGetLastError(); /* a sticky error stays; others are cleared */
    base_fail(err, status, "GPU: %s (CUDA %d) in %.200s", cudaGetErrorString(code), (int)code,
              what);
    if (err) {
        err->system_code = (int)code;
    }
    return status;
}

base_status gpu_probe(gpu_info *info, base_error *err)
{
    int count = 0;
    memset(info, 0, sizeof *info);
    cudaError_t code = cudaGetDeviceCount(&count);
    if (code != cudaSuccess || count == 0) {
        (void)cudaGetLastError();
        return base_fail(err, BASE_DEVICE, "no usable GPU: %s",
                         code == cudaErrorInsufficientDriver
                             ? "there is no NVIDIA driver, or it is too old for this build"
                         : code != cudaSuccess ? cudaGetErrorString(code)
                                               : "the driver reports no device");
    }
    cudaDeviceProp properties;
    GPU_TRY(cudaGetDeviceProperties(&properties, 0));
    size_t total = 0;
    snprintf(info->name, sizeof info->name, "%.127s", properties.name);
    info->compute_major = properties.major;
    info->compute_minor = properties.minor;
    info->multiprocessors = properties.multiProcessorCount;
    if (properties.major < 8 || !properties.cooperativeLaunch) {
        return base_fail(err, BASE_DEVICE,
                         "GPU %s has compute capability %d.%d; 8.0 or newer is needed", info->name,
                         properties.major, properties.minor);
    }
    GPU_TRY(cudaMemGetInfo(&info->memory_free, &total));
    info->memory_bytes = total;
    return BASE_OK;
}

base_status gpu_arena_take(gpu_arena *arena, size_t bytes, const char *what, void **out,
                           base_error *err)
{
    if (!arena->pieces && !(arena->pieces = (void **)base_calloc(GPU_ARENA_MAX, sizeof(void *)))) {
        return base_fail(err, BASE_NO_MEMORY, "GPU: no host memory");
    }
    if (arena->count == GPU_ARENA_MAX) {
        return base_fail(err, BASE_UNSUPPORTED, "GPU: a model of more than %d matrices",
                         (int)GPU_ARENA_MAX);
    }
    cudaError_t code = cudaMalloc(&arena->pieces[arena->count], bytes > 0 ? bytes : 1);
    if (code == cudaErrorMemoryAllocation) {
        size_t available = 0, total = 0;
        (void)cudaGetLastError();
        (void)cudaMemGetInfo(&available, &total);
        return base_fail(
            err, BASE_NO_MEMORY,
            "GPU: no room for %s (%zu MiB more; %zu of %zu MiB free, %zu MiB taken so far)", what,
            bytes >> 20, available >> 20, total >> 20, arena->bytes >> 20);
    }
    if (code != cudaSuccess) {
        return gpu_fail(err, code, what);
    }
    *out = arena->pieces[arena->count++];
    arena->bytes += bytes;
    return BASE_OK;
}

void gpu_arena_free(gpu_arena *arena)
{
    for (size_t i = 0; i < arena->count; i++) {
        (void)cudaFree(arena->pieces[i]);
    }
    base_free(arena->pieces);
    memset(arena, 0, sizeof *arena);
}
