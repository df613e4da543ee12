/* engine/cuda/stream.cu: one running sequence on the device: its memory, running tokens, greedy
 * steps.
 *
 * Main entries: gpu_run, gpu_decode. Host code only; the arithmetic is in decode.cu. Window
 * operations are in window.cu.
 */
#include "engine/cuda/prefill.cuh"

#include <math.h>

/* Up to this many tokens go through the decode kernel one by one (chosen: a batch of f16 weights is
 * 2 to 4 times the bytes of packed ones, and starts seven kernels a layer). */
static const size_t SINGLE_MAX = 4;

base_status gpu_stream_check(gpu_stream *s, base_status status)
{
    if (status == BASE_DEVICE) {
        s->broken = true;
    }
    return status;
}

base_status gpu_stream_usable(const gpu_stream *s, base_error *err)
{
    return s->broken
               ? base_fail(err, BASE_DEVICE, "GPU: the device failed earlier in this sequence")
               : BASE_OK;
}

/* --- memory ----------------------------------------------------------------------------------- */

static base_status take(gpu_stream *s, size_t count, size_t size, const char *what, void **out,
                        base_error *err)
{
    size_t bytes = 0;
    if (!base_size_mul(count, size, &bytes)) {
        return base_fail(err, BASE_NO_MEMORY, "GPU: no room for %s", what);
    }
    return gpu_arena_take(&s->arena, bytes, what, out, err);
}

static base_status upload_turns(gpu_stream *s, float2 *device, base_error *err)
{
    size_t half = s->model->shape.head_size / 2, count = s->slots_max * half;
    float2 *host = (float2 *)base_calloc(count, sizeof *host);
    if (!host) {
        return base_fail(err, BASE_NO_MEMORY, "GPU: no host memory for %zu positions",
                         s->slots_max);
    }
    for (size_t p = 0; p < s->slots_max; p++) {
        for (size_t i = 0; i < half; i++) {
            double angle = (double)p * (double)s->model->frequencies[i];
            host[p * half + i] = make_float2((float)cos(angle), (float)sin(angle));
        }
    }
    cudaError_t code = cudaMemcpy(device, host, count * sizeof *host, cudaMemcpyHostToDevice);
    base_free(host);
    return code == cudaSuccess ? BASE_OK : gpu_fail(err, code, "upload of rotations");
}

static base_status take_all(gpu_stream *s, base_error *err)
{
    const core_shape *shape = &s->model->shape;
    gpu_decode_params *p = &s->params;
    size_t rows = shape->layers * s->slots_max, row = s->kv_width * sizeof(uint16_t);
    size_t counters = 2 + shape->kv_heads;
    float2 *turns = NULL;
    base_status status;
    s->scratch_bytes = shape->layers * 2 * GPU_MOVE_SLOTS * row;
    if ((status = take(s, rows, row, "the keys", (void **)&p->keys, err)) ||
        (status = take(s, rows, row, "the rotated keys", (void **)&p->rotated, err)) ||
        (status = take(s, rows, row, "the values", (void **)&p->values, err)) ||
        (status = take(s, s->slots_max, sizeof(float), "the bias", (void **)&s->bias, err)) ||
        (status = take(s, s->slots_max, shape->head_size / 2 * sizeof(float2), "rotations",
                       (void **)&turns, err)) ||
        (status = take(s, shape->channels, sizeof(float), "activations", (void **)&p->x, err)) ||
        (status = take(s, shape->heads * shape->head_size, sizeof(float), "activations",
                       (void **)&p->q, err)) ||
        (status = take(s, shape->heads * shape->head_size, sizeof(float), "activations",
                       (void **)&p->attended, err)) ||
        (status = take(s, shape->feed_forward, sizeof(float), "activations", (void **)&p->hidden,
                       err)) ||
        (status = take(s, shape->vocabulary, sizeof(float), "logits", (void **)&p->logits, err)) ||
        (status = take(s, shape->heads * GPU_SPLITS_MAX, (shape->head_size + 2) * sizeof(float),
                       "attention parts", (void **)&p->partial, err)) ||
        (status =
             take(s, s->model->blocks, sizeof(gpu_stats), "statistics", (void **)&p->stats, err)) ||
        (status = take(s, counters, sizeof(uint32_t), "counters", (void **)&p->counters, err)) ||
        (status = take(s, 1, sizeof(int32_t), "a token", (void **)&p->next_token, err)) ||
        (status = take(s, s->scratch_bytes, 1, "scratch", (void **)&s->scratch, err)) ||
        (status = upload_turns(s, turns, err))) {
        return status;
    }
    p->turns = turns;
    p->bias = s->bias;
    GPU_TRY(cudaMemsetAsync(p->counters, 0, counters * sizeof(uint32_t), s->queue));
    GPU_TRY(cudaMemsetAsync(p->next_token, 0, sizeof(int32_t), s->queue));
    GPU_TRY(cudaMemsetAsync(s->bias, 0, s->slots_max * sizeof(float), s->queue));
    GPU_TRY(
        cudaHostAlloc((void **)&s->results, GPU_RESULTS * sizeof(gpu_step), cudaHostAllocDefault));
    GPU_TRY(cudaHostAlloc((void **)&s->staging, s->scratch_bytes, cudaHostAllocDefault));
    GPU_TRY(cudaStreamSynchronize(s->queue));
    return gpu_prefill_takes(shape) ? gpu_prefill_open(s, err) : BASE_OK;
}

static void set_params(gpu_stream *s)
{
    const gpu_model *model = s->model;
    const core_shape *shape = &model->shape;
    gpu_decode_params *p = &s->params;
    p->layers = (uint32_t)shape->layers;
    p->channels = (uint32_t)shape->channels;
    p->heads = (uint32_t)shape->heads;
    p->kv_heads = (uint32_t)shape->kv_heads;
    p->head_size = (uint32_t)shape->head_size;
    p->feed_forward = (uint32_t)shape->feed_forward;
    p->vocabulary = (uint32_t)shape->vocabulary;
    p->eps = shape->rms_eps;
    p->scale = 1.0f / sqrtf((float)shape->head_size);
    for (p->slot_lanes = 1; p->slot_lanes * 8 < shape->head_size; p->slot_lanes *= 2) {
    }
    p->program = model->program;
    p->embedding = model->program + model->program_count;
    p->norms = model->norms;
    p->slots_max = (uint32_t)s->slots_max;
    p->stages = (uint32_t)model->stages;
    p->x_bytes = (uint32_t)model->x_bytes;
    p->partial_floats = (uint32_t)model->partial_floats;
}

base_status gpu_stream_open(gpu_model *model, const gpu_stream_options *options, gpu_stream **out,
                            base_error *err)
{
    gpu_stream *s = (gpu_stream *)base_calloc(1, sizeof *s);
    if (!s) {
        return base_fail(err, BASE_NO_MEMORY, "GPU: no host memory");
    }
    s->model = model;
    s->slots_max = options && options->slots_max ? options->slots_max : model->shape.context_max;
    s->batch_max = options && options->batch_max ? options->batch_max : 512;
    s->kv_width = model->shape.kv_heads * model->shape.head_size;
    base_status status = BASE_OK;
    if (s->slots_max > INT32_MAX / 2) {
        status = base_fail(err, BASE_LIMIT, "GPU: a window of %zu slots", s->slots_max);
    }
    set_params(s);
    if (!status) {
        cudaError_t code = cudaStreamCreateWithFlags(&s->queue, cudaStreamNonBlocking);
        s->queue_open = code == cudaSuccess;
        status = s->queue_open ? take_all(s, err) : gpu_fail(err, code, "a stream");
    }
    if (status) {
        gpu_stream_close(s);
        return status;
    }
    *out = s;
    return BASE_OK;
}

void gpu_stream_close(gpu_stream *s)
{
    if (!s) {
        return;
    }
    if (s->queue_open) {
        (void)cudaStreamSynchronize(s->queue);
        (void)cudaStreamDestroy(s->queue);
    }
    gpu_prefill_close(s);
    if (s->results) {
        (void)cudaFreeHost(s->results);
    }
    if (s->staging) {
        (void)cudaFreeHost(s->staging);
    }
    gpu_arena_free(&s->arena);
    base_free(s);
}

void gpu_stream_clear(gpu_stream *s)
{
    s->slots = 0;
    if (cudaMemsetAsync(s->bias, 0, s->slots_max * sizeof(float), s->queue) != cudaSuccess) {
        s->broken = true; /* the next call that can fail says so */
    }
}

size_t gpu_slots(const gpu_stream *s)
{
    return s->slots;
}

/* --- steps ------------------------------------------------------------------------------------ */

/* Queue one token. token -1: the one that the step before chose. result: page-locked or NULL. */
static base_status step(gpu_stream *s, int32_t token, bool logits, gpu_step *result,
                        base_error *err)
{
    gpu_decode_params p = s->params;
    p.slots = (uint32_t)s->slots;
    p.token = token;
    p.want_logits = logits;
    p.program_count = (uint32_t)(s->model->program_count - (logits ? 0 : 1));
    p.barrier_base = s->passed;
    p.result = result;
    GPU_TRY(gpu_decode_launch(&p, (uint32_t)s->model->blocks, s->queue));
    s->passed += gpu_decode_barriers(&p);
    s->slots++;
    return BASE_OK;
}

static base_status check_tokens(const gpu_stream *s, const int32_t *tokens, size_t given,
                                size_t count, base_error *err)
{
    base_status status = gpu_stream_usable(s, err);
    if (status) {
        return status;
    }
    if (count > s->slots_max - s->slots) {
        return base_fail(err, BASE_LIMIT,
                         "%zu tokens do not fit the window: %zu of %zu slots are free", count,
                         s->slots_max - s->slots, s->slots_max);
    }
    for (size_t i = 0; i < given; i++) {
        if (tokens[i] < 0 || (size_t)tokens[i] >= s->model->shape.vocabulary) {
            return base_fail(err, BASE_INVALID, "token id %d is outside the vocabulary of %zu",
                             (int)tokens[i], s->model->shape.vocabulary);
        }
    }
    return BASE_OK;
}

/* Few tokens: one after the other, each a pass over the packed weights. */
static base_status run_single(gpu_stream *s, const int32_t *tokens, size_t count, float *logits,
                              size_t rows, base_error *err)
{
    size_t vocabulary = s->model->shape.vocabulary;
    for (size_t t = 0; t < count; t++) {
        bool wanted = logits && t + rows >= count;
        base_status status = step(s, tokens[t], wanted, NULL, err);
        if (status) {
            return status;
        }
        if (wanted) {
            GPU_TRY(cudaMemcpyAsync(logits + (t + rows - count) * vocabulary, s->params.logits,
                                    vocabulary * sizeof(float), cudaMemcpyDeviceToHost, s->queue));
        }
    }
    return BASE_OK;
}

static base_status run(gpu_stream *s, const int32_t *tokens, size_t count, float *logits,
                       size_t rows, base_error *err)
{
    size_t vocabulary = s->model->shape.vocabulary;
    for (size_t done = 0; done < count;) {
        size_t batch = count - done < s->batch_max ? count - done : s->batch_max;
        bool single = !s->prefill || count <= SINGLE_MAX;
        /* Of the last `rows` tokens of the call, those that stand in this batch. */
        size_t first = count - rows > done ? count - rows - done : 0;
        size_t here = logits && first < batch ? batch - first : 0;
        float *to = here ? logits + (done + first - (count - rows)) * vocabulary : NULL;
        base_status status = single ? run_single(s, tokens + done, batch, to, here, err)
                                    : gpu_prefill_run(s, tokens + done, batch, to, here, err);
        if (status) {
            return status;
        }
        done += batch;
    }
    GPU_TRY(cudaStreamSynchronize(s->queue));
    return BASE_OK;
}

base_status gpu_run(gpu_stream *s, const int32_t *tokens, size_t token_count, float *logits,
                    size_t rows, base_error *err)
{
    BASE_ASSERT(rows <= token_count);
    base_status status = check_tokens(s, tokens, token_count, token_count, err);
    return status ? status : gpu_stream_check(s, run(s, tokens, token_count, logits, rows, err));
}

static base_status decode(gpu_stream *s, int32_t token, size_t count, gpu_step *steps,
                          base_error *err)
{
    for (size_t done = 0; done < count;) {
        size_t batch = count - done < GPU_RESULTS ? count - done : GPU_RESULTS;
        for (size_t i = 0; i < batch; i++) {
            base_status status = step(s, done + i == 0 ? token : -1, true, &s->results[i], err);
            if (status) {
                return status;
            }
        }
        GPU_TRY(cudaStreamSynchronize(s->queue));
        memcpy(steps + done, s->results, batch * sizeof *steps);
        done += batch;
    }
    return BASE_OK;
}

base_status gpu_decode(gpu_stream *s, int32_t token, gpu_step *out, base_error *err)
{
    return gpu_decode_many(s, token, 1, out, err);
}

base_status gpu_decode_many(gpu_stream *s, int32_t token, size_t count, gpu_step *steps,
                            base_error *err)
{
    base_status status = check_tokens(s, &token, 1, count, err);
    return status ? status : gpu_stream_check(s, decode(s, token, count, steps, err));
}
