/* engine/gpu.h: the device behind `--device cuda`, as a C header. engine/gpu_none.c always links;
 * engine/cuda/ implements it with CUDA.
 *
 * A gpu_model is a copy of a core_model's weights in device memory, still quantised. A gpu_stream
 * holds what of a core_stream lies on the device: keys and values, states of mixers, scratch. The
 * core_stream keeps the books (places, owners, biases, sinks, what has left) and stays the only
 * interface: core.c, window.c, fading.c and state.c call what is here where the CPU would touch its
 * own arrays. Every kernel has its CPU twin there as definition.
 *
 * Calls that move rows return nothing: they queue work, and after a failure the stream is broken;
 * the next call that can fail says why.
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

/* Copy a loaded model (with its merged adapter) to the device. Errors: BASE_DEVICE, BASE_NO_MEMORY
 * (device memory, with the sizes), BASE_UNSUPPORTED (a shape that the kernels do not take; it is
 * named). */
base_status gpu_model_create(const core_model *core, gpu_model **out, base_error *err);
void gpu_model_close(gpu_model *model);
/* Read by one decode step, with the fading layers or without. */
size_t gpu_model_weight_bytes(const gpu_model *model, bool hybrid);

/* The device's part of `host`, whose sizes are set and which outlives it. */
base_status gpu_stream_open(gpu_model *model, const core_stream *host, gpu_stream **out,
                            base_error *err);
void gpu_stream_close(gpu_stream *stream);

/* Rows of keys and values of every plane, in places. Move [from, from + count) to begin at `to`,
 * rotated keys with them or not. */
void gpu_rows_move(gpu_stream *stream, size_t from, size_t to, size_t count, bool rotated);
/* Rotate keys of places [from, to) again from their stored form. */
void gpu_rows_rotate(gpu_stream *stream, size_t from, size_t to);
/* The first `planes` planes of places [at, at + count): block [planes][2][count][G*D] f16, keys
 * before rotation, in host memory. After a failure the block is zeros. Writing copies the block
 * before it returns, and lets the upload run beside the kernels. */
void gpu_rows_read(gpu_stream *stream, size_t planes, size_t at, size_t count, void *block);
void gpu_rows_write(gpu_stream *stream, size_t planes, size_t at, size_t count, const void *block);

/* Tokens of which a device keeps what mixers read; as fading.c needs them, and the convolution's
 * rows before them. */
enum { GPU_MIXER_ROWS = 112 };
void gpu_mixers_clear(gpu_stream *stream);
/* Copy number `snapshot` (fading.c) is taken back and the tokens [from, end) are given to the
 * mixers again. */
void gpu_mixers_rewind(gpu_stream *stream, size_t snapshot, size_t from, size_t end);
/* States and what running again needs: [fading layers, mixer_floats], [fading layers, mixer_kept].
 */
void gpu_mixers_read(gpu_stream *stream, float *states, float *before);
void gpu_mixers_write(gpu_stream *stream, const float *states, const float *before);
/* What the mixers' states did not predict of the last token run singly (mixer.h): [fading layers,
 * H]. For GDN a by-product of its step, for Mamba2 one more read of the state; for GKA a second
 * solve, which is done while gpu_mixers_watch is on, else it is 1. Errors: BASE_DEVICE. */
base_status gpu_mixers_innovation(gpu_stream *stream, float *innovation, base_error *err);

/* Off at first. On: GKA's step has twice as many dependent passes over its covariance (60 for 30
 * iterations), which a step waits for where attention is shorter. */
void gpu_mixers_watch(gpu_stream *stream, bool on);

/* Run `count` <= batch_max tokens at host->places, whose books (owner, bias, tokens, views) are
 * made; logits: host [rows, V] of the last rows. mass: NULL, or [count, CORE_OWNERS_MAX]: share of
 * attention by owner > 0, averaged as core_mass_watch says. */
base_status gpu_run(gpu_stream *stream, const int32_t *tokens, size_t count, float *logits,
                    size_t rows, float *mass, base_error *err);
/* `count` greedy steps from `token` on; each is fed with the token of the one before on the device,
 * and the host waits once, at the end. steps [count]. */
base_status gpu_greedy(gpu_stream *stream, int32_t token, size_t count, core_step *steps,
                       base_error *err);

/* Several sequences that step together, so that weights are read once for all: f16 copies of them,
 * by matrix products. */
typedef struct gpu_batch gpu_batch;
enum { GPU_BATCH_MAX = 64, GPU_BATCH_STEPS = 32 };
/* Streams of one model with the same options, which outlive the batch. Errors: BASE_LIMIT (more
 * than GPU_BATCH_MAX or batch_max), BASE_INVALID, BASE_UNSUPPORTED (heads above 128),
 * BASE_NO_MEMORY, BASE_DEVICE. */
base_status gpu_batch_open(gpu_stream *const *streams, size_t count, gpu_batch **out,
                           base_error *err);
void gpu_batch_close(gpu_batch *batch);
/* `steps` <= GPU_BATCH_STEPS greedy steps of every stream from tokens [count] on, at host->places
 * of each, whose books are made. out [steps, count]. Attention mass and innovations are not
 * measured. After a failure all of the streams are broken. */
base_status gpu_batch_greedy(gpu_batch *batch, const int32_t *tokens, size_t steps, core_step *out,
                             base_error *err);
/* Read by one step of a batch, with the fading layers or without. */
size_t gpu_batch_weight_bytes(const gpu_model *model, bool hybrid);

/* Ceilings of this card, measured with device events, median of several runs: bytes read plus bytes
 * written per second of a large copy; multiply-adds times two per second of an 8192^3 bf16 product
 * of random numbers. A result pointer may be NULL. */
base_status gpu_measure(double *copy_bytes_per_s, double *product_flops, base_error *err);

#ifdef __cplusplus
}
#endif
#endif
