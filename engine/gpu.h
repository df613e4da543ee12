/* engine/gpu.h: the device behind `--device cuda`, as a C header. engine/gpu_none.c always links;
 * engine/cuda/ implements it with CUDA.
 *
 * A gpu_model is a copy of a core_model's weights in device memory, still quantised; a gpu_stream
 * is the device twin of core_stream with the same meaning of window, slots, bias and blocks. Every
 * kernel has its CPU twin in engine/kernels_scalar.c / core as definition.
 */
#ifndef ENGINE_GPU_H
#define ENGINE_GPU_H

#include "engine/core.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct gpu_model gpu_model;
typedef struct gpu_stream gpu_stream;

typedef struct gpu_info {
    char name[128];
    int compute_major, compute_minor;
    size_t memory_bytes, memory_free;
    int multiprocessors;
} gpu_info;

/* BASE_DEVICE with a clear reason when there is no driver, no device, or one that is too old. */
base_status gpu_probe(gpu_info *info, base_error *err);

base_status gpu_model_open(const char *gguf_path, gpu_model **out, base_error *err);
/* Copy a loaded model (with its merged adapter) to the device; the core_model may be closed
 * afterwards. Errors: BASE_DEVICE, BASE_NO_MEMORY (device memory, with the sizes), BASE_UNSUPPORTED
 * (a shape that the kernels do not take; it is named). */
base_status gpu_model_create(const core_model *core, gpu_model **out, base_error *err);
void gpu_model_close(gpu_model *model);
size_t gpu_model_weight_bytes(const gpu_model *model); /* read by one decode step */

typedef struct gpu_stream_options {
    size_t slots_max; /* 0 = the model's context */
    size_t batch_max; /* prefill T, 0 = 512 */
} gpu_stream_options;
base_status gpu_stream_open(gpu_model *model, const gpu_stream_options *options, gpu_stream **out,
                            base_error *err);
void gpu_stream_close(gpu_stream *stream);
void gpu_stream_clear(gpu_stream *stream);
size_t gpu_slots(const gpu_stream *stream);

/* As core_run, core_window_remove, core_block_read, core_window_insert: host pointers; blocks are
 * f16. */
base_status gpu_run(gpu_stream *stream, const int32_t *tokens, size_t token_count, float *logits,
                    size_t rows, base_error *err);
base_status gpu_window_remove(gpu_stream *stream, size_t at, size_t count, base_error *err);
base_status gpu_block_read(const gpu_stream *stream, size_t at, size_t count, void *block,
                           base_error *err);
base_status gpu_window_insert(gpu_stream *stream, size_t at, size_t count, const void *block,
                              float bias, base_error *err);
base_status gpu_window_set_bias(gpu_stream *stream, size_t at, size_t count, float bias,
                                base_error *err);

/* One greedy decode step entirely on the device: feed `token`, get the next one with its
 * statistics; no logits leave the device. */
typedef struct gpu_step {
    int32_t token;
    float surprise_nats, entropy_nats;
} gpu_step;
base_status gpu_decode(gpu_stream *stream, int32_t token, gpu_step *step, base_error *err);
/* The same `count` times, each step fed with the token of the one before on the device; the host
 * waits once, at the end. steps [count]. Errors: BASE_LIMIT when the window has no room for all of
 * them (nothing run). */
base_status gpu_decode_many(gpu_stream *stream, int32_t token, size_t count, gpu_step *steps,
                            base_error *err);

/* Ceilings of this card, measured with device events, median of several runs: bytes read plus bytes
 * written per second of a large copy; multiply-adds times two per second of an 8192^3 bf16 product
 * of random numbers. A result pointer may be NULL. */
base_status gpu_measure(double *copy_bytes_per_s, double *product_flops, base_error *err);

#ifdef __cplusplus
}
#endif
#endif
