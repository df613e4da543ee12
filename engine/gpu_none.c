/* engine/gpu_none.c: the device interface of a build without CUDA. No model gets onto a device, so
 * nothing but the first three calls is ever reached. Not built where engine/cuda/ is.
 */
#include <string.h>

#include "base/mem.h"
#include "engine/gpu.h"

static base_status none(base_error *err)
{
    return base_fail(
        err, BASE_DEVICE,
        "this build has no GPU support (built without nvcc, or with EIDETIC_CUDA=OFF)");
}

base_status gpu_probe(gpu_info *info, base_error *err)
{
    memset(info, 0, sizeof *info);
    return none(err);
}

base_status gpu_model_create(const core_model *core, gpu_model **out, base_error *err)
{
    (void)core;
    (void)out;
    return none(err);
}

void gpu_model_close(gpu_model *model)
{
    BASE_ASSERT(model == NULL);
}

size_t gpu_model_weight_bytes(const gpu_model *model, bool hybrid)
{
    (void)model;
    (void)hybrid;
    return 0;
}

base_status gpu_stream_open(gpu_model *model, const core_stream *host, gpu_stream **out,
                            base_error *err)
{
    (void)model;
    (void)host;
    (void)out;
    return none(err);
}

void gpu_stream_close(gpu_stream *stream)
{
    BASE_ASSERT(stream == NULL);
}

void gpu_rows_move(gpu_stream *stream, size_t from, size_t to, size_t count, bool rotated)
{
    (void)stream;
    (void)from;
    (void)to;
    (void)count;
    (void)rotated;
}

void gpu_rows_rotate(gpu_stream *stream, size_t from, size_t to)
{
    (void)stream;
    (void)from;
    (void)to;
}

void gpu_rows_read(gpu_stream *stream, size_t planes, size_t at, size_t count, void *block)
{
    (void)stream;
    (void)planes;
    (void)at;
    (void)count;
    (void)block;
}

void gpu_rows_write(gpu_stream *stream, size_t planes, size_t at, size_t count, const void *block)
{
    (void)stream;
    (void)planes;
    (void)at;
    (void)count;
    (void)block;
}

void gpu_mixers_clear(gpu_stream *stream)
{
    (void)stream;
}

void gpu_mixers_rewind(gpu_stream *stream, size_t snapshot, size_t from, size_t end)
{
    (void)stream;
    (void)snapshot;
    (void)from;
    (void)end;
}

void gpu_mixers_read(gpu_stream *stream, float *states, float *before)
{
    (void)stream;
    (void)states;
    (void)before;
}

void gpu_mixers_write(gpu_stream *stream, const float *states, const float *before)
{
    (void)stream;
    (void)states;
    (void)before;
}

base_status gpu_mixers_innovation(gpu_stream *stream, float *innovation, base_error *err)
{
    (void)stream;
    (void)innovation;
    return none(err);
}

void gpu_mixers_watch(gpu_stream *stream, bool on)
{
    (void)stream;
    (void)on;
}

base_status gpu_run(gpu_stream *stream, const int32_t *tokens, size_t count, float *logits,
                    size_t rows, float *mass, base_error *err)
{
    (void)stream;
    (void)tokens;
    (void)count;
    (void)logits;
    (void)rows;
    (void)mass;
    return none(err);
}

base_status gpu_greedy(gpu_stream *stream, int32_t token, size_t count, core_step *steps,
                       base_error *err)
{
    (void)stream;
    (void)token;
    (void)count;
    (void)steps;
    return none(err);
}

base_status gpu_batch_open(gpu_stream *const *streams, size_t count, gpu_batch **out,
                           base_error *err)
{
    (void)streams;
    (void)count;
    (void)out;
    return none(err);
}

void gpu_batch_close(gpu_batch *batch)
{
    (void)batch;
}

base_status gpu_batch_greedy(gpu_batch *batch, const int32_t *tokens, size_t steps, core_step *out,
                             base_error *err)
{
    (void)batch;
    (void)tokens;
    (void)steps;
    (void)out;
    return none(err);
}

size_t gpu_batch_weight_bytes(const gpu_model *model, bool hybrid)
{
    (void)model;
    (void)hybrid;
    return 0;
}

base_status gpu_measure(double *copy_bytes_per_s, double *product_flops, base_error *err)
{
    (void)copy_bytes_per_s;
    (void)product_flops;
    return none(err);
}
