/* engine/cuda/lab/lab.cuh: what all programs of the lab need: random numbers, errors, timing.
 *
 * A program compares every version with the CPU first and times it then. Without a device
 * (tests/gpu/emulate.h) it compares smaller cases and times nothing. Exit code: 0 all agree, 1 some
 * do not, 77 no device.
 */
#ifndef ENGINE_CUDA_LAB_CUH
#define ENGINE_CUDA_LAB_CUH

#include "engine/cuda/common.cuh"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include <algorithm>
#include <vector>

#if defined(GPU_EMULATE)
static const bool lab_timed = false;
#else
static const bool lab_timed = true;
#endif

/* A lab program has nobody to return an error to. */
#define LAB(call)                                                         \
    do {                                                                  \
        cudaError_t lab_code = (call);                                    \
        if (lab_code == cudaSuccess) {                                    \
            lab_code = cudaGetLastError();                                \
        }                                                                 \
        if (lab_code != cudaSuccess) {                                    \
            fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #call, \
                    cudaGetErrorString(lab_code));                        \
            exit(1);                                                      \
        }                                                                 \
    } while (0)

static inline uint32_t lab_random(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 33);
}

/* Uniform in [-1, 1). */
static inline float lab_uniform(uint64_t *state)
{
    return (float)lab_random(state) / 1073741824.0f - 1.0f;
}

/* |a - b| / |b|, Euclidean; NaN where a value is none. */
static inline double lab_distance(const float *a, const float *b, size_t count)
{
    double difference = 0.0, norm = 0.0;
    for (size_t i = 0; i < count; i++) {
        double d = (double)a[i] - (double)b[i];
        difference += d * d;
        norm += (double)b[i] * (double)b[i];
    }
    return sqrt(difference / norm);
}

/* Device memory for `count` values, and a copy of them. The program ends before it is given back.
 */
template <typename T> static inline T *lab_device(const T *values, size_t count)
{
    void *to = NULL;
    LAB(cudaMalloc(&to, count * sizeof(T)));
    if (values) {
        LAB(cudaMemcpy(to, values, count * sizeof(T), cudaMemcpyHostToDevice));
    }
    return (T *)to;
}

template <typename T> static inline std::vector<T> lab_host(const T *device, size_t count)
{
    std::vector<T> to(count);
    LAB(cudaMemcpy(to.data(), device, count * sizeof(T), cudaMemcpyDeviceToHost));
    return to;
}

static inline double lab_median(std::vector<float> &times)
{
    std::sort(times.begin(), times.end());
    return (double)times[times.size() / 2];
}

/* Seconds that `run()` takes on the queue: median of 20, by device events. 0: not timed. */
template <typename R> static inline double lab_seconds(cudaStream_t queue, R run)
{
    std::vector<float> times;
    if (!lab_timed) {
        return 0.0;
    }
#if !defined(GPU_EMULATE)
    cudaEvent_t from, to;
    LAB(cudaEventCreate(&from));
    LAB(cudaEventCreate(&to));
    for (int r = -2; r < 20; r++) {
        float time = 0.0f;
        LAB(cudaEventRecord(from, queue));
        run();
        LAB(cudaEventRecord(to, queue));
        LAB(cudaEventSynchronize(to));
        LAB(cudaEventElapsedTime(&time, from, to));
        if (r >= 0) {
            times.push_back(time);
        }
    }
    LAB(cudaEventDestroy(from));
    LAB(cudaEventDestroy(to));
#else
    (void)queue;
    (void)run;
#endif
    return lab_median(times) * 1e-3;
}

/* One line of the table: error against its bound, then time and the rate of `bytes` beside the
 * card's copy. Returns 1 when it does not agree. */
static inline int lab_row(const char *what, const char *version, double error, double bound,
                          double seconds, double bytes, double copy)
{
    bool good = error <= bound;
    printf("%-34s %-16s error %.1e %-4s", what, version, error, good ? "ok" : "BAD");
    if (seconds > 0.0) {
        printf(" %9.2f us %7.0f GB/s %5.1f %%", seconds * 1e6, bytes / seconds / 1e9,
               100.0 * bytes / seconds / copy);
    }
    printf("\n");
    fflush(stdout);
    return good ? 0 : 1;
}

/* The card's copy rate in bytes a second, 0 where nothing is timed; ends the program where there is
 * no device. */
static inline double lab_begin(void)
{
    gpu_info info;
    base_error err = {};
    double copy = 0.0;
    base_status status = gpu_probe(&info, &err);
    status = status ? status : gpu_measure(&copy, NULL, &err);
    if (status) {
        fprintf(stderr, "%s\n", err.text);
        exit(77);
    }
    printf("%s, copy %.0f GB/s\n", info.name, copy / 1e9);
    return copy;
}

/* The program of a ladder: every small case is checked, and where time is taken every large one,
 * too. run(case, bytes a second of the card's copy, queue) returns how many rows do not agree. The
 * result is the exit status. */
template <typename Small, typename Large, typename Run>
static inline int lab_cases(const Small &small_cases, const Large &large_cases, const Run &run)
{
    double copy = lab_begin();
    cudaStream_t queue;
    int bad = 0;
    LAB(cudaStreamCreateWithFlags(&queue, cudaStreamNonBlocking));
    for (const auto &c : small_cases) {
        bad += run(&c, copy, queue);
    }
    for (const auto &c : large_cases) {
        bad += lab_timed ? run(&c, copy, queue) : 0;
    }
    return bad > 0;
}

#endif
