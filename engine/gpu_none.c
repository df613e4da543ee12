/* engine/gpu_none.c: the device interface of a build without CUDA. Every call that can fail says
 * so; the program falls back to the CPU or stops with that message. Not built where engine/cuda/
 * is.
 */
#include <string.h>

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

base_status gpu_model_open(const char *gguf_path, gpu_model **out, base_error *err)
{
    (void)gguf_path;
    (void)out;
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
    (void)model;
}

size_t gpu_model_weight_bytes(const gpu_model *model)
{
    (void)model;
    return 0;
}

base_status gpu_stream_open(gpu_model *model, const gpu_stream_options *options, gpu_stream **out,
                            base_error *err)
{
    (void)model;
    (void)options;
    (void)out;
    return none(err);
}

void gpu_stream_close(gpu_stream *stream)
{
    (void)stream;
}

void gpu_stream_clear(gpu_stream *stream)
{
    (void)stream;
}

size_t gpu_slots(const gpu_stream *stream)
{
    (void)stream;
    return 0;
}

base_status gpu_run(gpu_stream *stream, const int32_t *tokens, size_t token_count, float *logits,
                    size_t rows, base_error *err)
{
    (void)stream;
    (void)tokens;
    (void)token_count;
    (void)logits;
    (void)rows;
    return none(err);
}

base_status gpu_window_remove(gpu_stream *stream, size_t at, size_t count, base_error *err)
{
    (void)stream;
    (void)at;
    (void)count;
    return none(err);
}

base_status gpu_block_read(const gpu_stream *stream, size_t at, size_t count, void *block,
                           base_error *err)
{
    (void)stream;
    (void)at;
    (void)count;
    (void)block;
    return none(err);
}

base_status gpu_window_insert(gpu_stream *stream, size_t at, size_t count, const void *block,
                              float bias, base_error *err)
{
    (void)stream;
    (void)at;
    (void)count;
    (void)block;
    (void)bias;
    return none(err);
}

base_status gpu_window_set_bias(gpu_stream *stream, size_t at, size_t count, float bias,
                                base_error *err)
{
    (void)stream;
    (void)at;
    (void)count;
    (void)bias;
    return none(err);
}

base_status gpu_decode(gpu_stream *stream, int32_t token, gpu_step *step, base_error *err)
{
    (void)stream;
    (void)token;
    (void)step;
    return none(err);
}

base_status gpu_decode_many(gpu_stream *stream, int32_t token, size_t count, gpu_step *steps,
                            base_error *err)
{
    (void)stream;
    (void)token;
    (void)count;
    (void)steps;
    return none(err);
}

base_status gpu_measure(double *copy_bytes_per_s, double *product_flops, base_error *err)
{
    (void)copy_bytes_per_s;
    (void)product_flops;
    return none(err);
}
