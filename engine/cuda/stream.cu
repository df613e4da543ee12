/* engine/cuda/stream.cu: one running sequence on the device: its memory, running tokens, greedy
 * steps.
 *
 * Main entries: gpu_run, gpu_greedy. Host code only; the arithmetic is in decode.cu (token by
 * token) and prefill.cu (many at once). Rows are moved in rows.cu.
 */
#include "engine/cuda/prefill.cuh"

#include <math.h>

/* Up to this many tokens go through the decode kernel one by one (chosen: a batch of f16 weights is
 * 2 to 4 times the bytes of packed ones, and starts seven kernels a layer). */
static const size_t SINGLE_MAX = 4;

base_status gpu_stream_check(gpu_stream *s, base_status status, const base_error *err)
{
    if (status && !s->broken.code) {
        base_fail(&s->broken, status, "%s", err ? err->text : "GPU: an earlier call failed");
    }
    return status;
}

base_status gpu_stream_usable(const gpu_stream *s, base_error *err)
{
    return s->broken.code ? base_fail(err, s->broken.code, "%s", s->broken.text) : BASE_OK;
}

/* --- memory ----------------------------------------------------------------------------------- */

/* Arrays on the device, in one table. */
struct piece {
    void *to;
    size_t count, bytes;
    const char *what;
};

static base_status take_pieces(gpu_stream *s, const piece *list, size_t count, base_error *err)
{
    for (size_t i = 0; i < count; i++) {
        size_t bytes = 0;
        if (!base_size_mul(list[i].count, list[i].bytes, &bytes)) {
            return base_fail(err, BASE_NO_MEMORY, "GPU: no room for %s", list[i].what);
        }
        base_status status =
            gpu_arena_take(&s->arena, bytes, list[i].what, (void **)list[i].to, err);
        if (status) {
            return status;
        }
    }
    return BASE_OK;
}

static base_status take_device(gpu_stream *s, base_error *err)
{
    const core_shape *shape = &s->model->shape;
    gpu_decode_params *p = &s->params;
    size_t f = sizeof(float), q_width = shape->heads * shape->head_size;
    size_t rows = s->planes * s->slots_max, row = s->kv_width * sizeof(uint16_t);
    const piece list[] = {
        {&p->keys, rows, row, "the keys"},
        {&p->rotated, rows, row, "the rotated keys"},
        {&p->values, rows, row, "the values"},
        {&s->bias, 2 * s->slots_max, f, "the bias"},
        {&s->turns, 2 * s->slots_max, shape->head_size / 2 * sizeof(float2), "rotations"},
        {&s->frequencies, shape->head_size / 2, f, "rotations"},
        {&p->x, shape->channels, f, "activations"},
        {&p->qkv, q_width + 2 * s->kv_width, f, "activations"},
        {&p->attended, q_width, f, "activations"},
        {&p->hidden, shape->feed_forward, f, "activations"},
        {&p->logits, shape->vocabulary, f, "logits"},
        {&p->partial, shape->heads * (GPU_PARTS_MAX + 1), (shape->head_size + 2) * f, "parts"},
        {&s->mass, (size_t)GPU_STEPS * shape->kv_heads, CORE_OWNERS_MAX * f, "attention mass"},
        {&s->parts, (size_t)GPU_STEPS * 2 * GPU_PARTS_MAX, sizeof(gpu_part), "parts"},
        {&p->stats, s->model->blocks, sizeof(gpu_stats), "statistics"},
        {&p->counters, 2 + shape->kv_heads, sizeof(uint32_t), "counters"},
        {&p->next_token, 1, sizeof(int32_t), "a token"},
        {&s->scratch, s->planes * 3 * GPU_MOVE_SLOTS, row, "scratch"},
    };
    return take_pieces(s, list, sizeof list / sizeof list[0], err);
}

static base_status take_mixers(gpu_stream *s, base_error *err)
{
    gpu_decode_params *p = &s->params;
    const gpu_mixer *m = &s->model->mixer;
    size_t layers = s->model->mixer_layers, f = sizeof(float);
    float *before = NULL;
    const piece list[] = {
        {&p->normed, s->model->shape.channels, f, "activations"},
        {&p->fading, s->model->shape.channels, f, "activations"},
        {&p->fading_kv, 2 * s->kv_width, f, "activations"},
        {&p->mixer_heads, (size_t)m->heads * m->p, f, "activations"},
        {&p->innovation, layers * m->heads, f, "innovations"},
        {&p->states, layers * m->floats, f, "states of mixers"},
        {&before, layers, s->host->mixer_kept * f, "states of mixers"},
    };
    BASE_ASSERT(s->host->mixer_floats == m->floats && s->host->mixer_row == m->row);
    base_status status = take_pieces(s, list, sizeof list / sizeof list[0], err);
    p->mixer = *m;
    p->mixer_kept = (uint32_t)s->host->mixer_kept;
    p->rows = before + (size_t)CORE_SNAPSHOTS * m->floats;
    return status;
}

static base_status take_host(gpu_stream *s, base_error *err)
{
    size_t groups = s->model->shape.kv_heads;
    const piece list[] = {
        {&s->host_bias, 2 * s->slots_max, sizeof(float), ""},
        {&s->host_parts, (size_t)GPU_STEPS * 2 * GPU_PARTS_MAX, sizeof(gpu_part), ""},
        {&s->host_mass, GPU_STEPS * groups * CORE_OWNERS_MAX, sizeof(float), ""},
        {&s->results, GPU_STEPS, sizeof(core_step), ""},
    };
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
        GPU_TRY(cudaHostAlloc((void **)list[i].to, list[i].count * list[i].bytes,
                              cudaHostAllocDefault));
    }
    s->stage_bytes = s->planes * 2 * GPU_MOVE_SLOTS * s->kv_width * sizeof(uint16_t);
    s->stage_bytes = s->stage_bytes > 0 ? s->stage_bytes : 1; /* without attention, no rows */
    for (size_t i = 0; i < GPU_STAGES; i++) {
        void *landing = NULL;
        base_status status = gpu_arena_take(&s->arena, s->stage_bytes, "blocks", &landing, err);
        if (status) {
            return status;
        }
        s->landing[i] = (uint8_t *)landing;
        GPU_TRY(cudaHostAlloc((void **)&s->staging[i], s->stage_bytes, cudaHostAllocDefault));
        GPU_TRY(cudaEventCreateWithFlags(&s->staged[i], cudaEventDisableTiming));
        s->events_open++;
        GPU_TRY(cudaEventCreateWithFlags(&s->used[i], cudaEventDisableTiming));
        s->events_open++;
    }
    return BASE_OK;
}

static base_status take_all(gpu_stream *s, base_error *err)
{
    gpu_decode_params *p = &s->params;
    size_t counters = 2 + s->model->shape.kv_heads, half = s->model->shape.head_size / 2;
    base_status status;
    GPU_TRY(cudaStreamCreateWithFlags(&s->queue, cudaStreamNonBlocking));
    s->queue_open = true;
    GPU_TRY(cudaStreamCreateWithFlags(&s->copies, cudaStreamNonBlocking));
    s->copies_open = true;
    if ((status = take_device(s, err)) || (s->mixing && (status = take_mixers(s, err))) ||
        (status = take_host(s, err))) {
        return status;
    }
    s->fading_bias = s->bias + s->slots_max;
    p->turns = s->turns;
    p->bias = s->bias;
    /* Rows that nobody wrote (a memory's in a fading plane) have weight 0, and must not be NaN. */
    size_t plane_bytes = s->planes * s->slots_max * s->kv_width * sizeof(uint16_t);
    GPU_TRY(cudaMemsetAsync(p->keys, 0, plane_bytes, s->queue));
    GPU_TRY(cudaMemsetAsync(p->rotated, 0, plane_bytes, s->queue));
    GPU_TRY(cudaMemsetAsync(p->values, 0, plane_bytes, s->queue));
    GPU_TRY(cudaMemsetAsync(p->counters, 0, counters * sizeof(uint32_t), s->queue));
    GPU_TRY(cudaMemsetAsync(p->next_token, 0, sizeof(int32_t), s->queue));
    GPU_TRY(cudaMemsetAsync(s->bias, 0, 2 * s->slots_max * sizeof(float), s->queue));
    memset(s->host_bias, 0, 2 * s->slots_max * sizeof(float));
    GPU_TRY(cudaMemcpyAsync(s->frequencies, s->model->frequencies, half * sizeof(float),
                            cudaMemcpyHostToDevice, s->queue));
    s->turns_sinks = SIZE_MAX;
    GPU_TRY(cudaStreamSynchronize(s->queue));
    return gpu_prefill_takes(&s->model->shape) ? gpu_prefill_open(s, err) : BASE_OK;
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
    p->scale = model->query_scale / sqrtf((float)shape->head_size);
    for (p->slot_lanes = 1; p->slot_lanes * 8 < shape->head_size; p->slot_lanes *= 2) {
    }
    p->program = s->program->device;
    p->embedding = s->program->device + s->program->count;
    p->norms = model->norms;
    p->layer_table = s->hybrid ? model->layers : model->plain_layers;
    p->attention_planes = (uint32_t)model->attention_planes;
    p->halves = model->rope_halves;
    p->residual = model->fading_residual;
    p->slots_max = (uint32_t)s->slots_max;
    p->stages = (uint32_t)model->stages;
    p->x_bytes = (uint32_t)model->x_bytes;
    p->x2_bytes = (uint32_t)model->x2_bytes;
    p->partial_floats = (uint32_t)model->partial_floats;
}

base_status gpu_stream_open(gpu_model *model, const core_stream *host, gpu_stream **out,
                            base_error *err)
{
    if (host->slots_max > INT32_MAX / 256) {
        return base_fail(err, BASE_LIMIT, "GPU: a window of %zu slots", host->slots_max);
    }
    gpu_stream *s = (gpu_stream *)base_calloc(1, sizeof *s);
    if (!s) {
        return base_fail(err, BASE_NO_MEMORY, "GPU: no host memory");
    }
    s->model = model;
    s->host = host;
    s->hybrid = host->hybrid;
    s->mixing = host->mixing;
    s->program = &model->programs[host->hybrid];
    s->slots_max = host->slots_max;
    s->planes = host->planes;
    s->batch_max = host->batch_max;
    s->kv_width = host->kv_width;
    set_params(s);
    base_status status = take_all(s, err);
    if (!status && model->by_products) {
        status = gpu_batch_open(&s, 1, &s->alone, err);
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
    gpu_batch_close(s->alone);
    if (s->copies_open) {
        (void)cudaStreamSynchronize(s->copies);
        (void)cudaStreamDestroy(s->copies);
    }
    if (s->queue_open) {
        (void)cudaStreamSynchronize(s->queue);
        (void)cudaStreamDestroy(s->queue);
    }
    for (size_t i = 0; i < s->events_open; i++) {
        (void)cudaEventDestroy(i % 2 ? s->used[i / 2] : s->staged[i / 2]);
    }
    gpu_prefill_close(s);
    void *locked[] = {s->host_bias,  s->host_parts, s->host_mass,  s->results,
                      s->staging[0], s->staging[1], s->staging[2], s->staging[3]};
    static_assert(GPU_STAGES == 4, "the list above");
    for (size_t i = 0; i < sizeof locked / sizeof locked[0]; i++) {
        if (locked[i]) {
            (void)cudaFreeHost(locked[i]);
        }
    }
    gpu_arena_free(&s->arena);
    base_free(s);
}

base_status gpu_stream_follow(gpu_stream *s, size_t places, base_error *err)
{
    const core_stream *host = s->host;
    bool changed = false;
    for (size_t i = 0; i < places; i++) {
        float bias = host->bias[i], fading = host->owner[i] ? -INFINITY : bias;
        changed |= s->host_bias[i] != bias || s->host_bias[s->slots_max + i] != fading;
        s->host_bias[i] = bias;
        s->host_bias[s->slots_max + i] = fading;
    }
    if (changed) {
        GPU_TRY(cudaMemcpyAsync(s->bias, s->host_bias, 2 * s->slots_max * sizeof(float),
                                cudaMemcpyHostToDevice, s->queue));
    }
    return gpu_angles(s, err);
}

/* --- steps ------------------------------------------------------------------------------------ */

/* One call's tokens that go through the decode kernel. */
struct steps {
    const int32_t *tokens; /* NULL: greedy, from `first` on */
    int32_t first;
    size_t count;
    float *logits; /* host [rows, V] of the last rows */
    size_t rows;
    core_step *results; /* host [count], NULL = not wanted */
    float *mass;        /* host [count, CORE_OWNERS_MAX], NULL = not watched */
};

/* What one token sees, for the kernel: where its parts begin, of plain and of fading layers. */
struct sight {
    uint32_t at[2], count[2];
};

static sight list_parts(gpu_stream *s, size_t t, size_t *used)
{
    size_t goal = s->model->blocks / s->model->shape.kv_heads;
    sight out = {};
    for (size_t i = 0; i < (s->hybrid ? 2U : 1U); i++) {
        const core_views *views = i ? s->host->fading_views : s->host->views;
        out.at[i] = (uint32_t)*used;
        out.count[i] =
            (uint32_t)gpu_parts(s->host, &views[t], goal ? goal : 1, s->host_parts + *used);
        *used += out.count[i];
    }
    return out;
}

/* Queue one token. */
static base_status step(gpu_stream *s, const steps *all, size_t t, const sight *sees, size_t slot,
                        base_error *err)
{
    gpu_decode_params params = s->params, *p = &params;
    bool logits = all->logits && t + all->rows >= all->count;
    size_t group_floats = s->model->shape.kv_heads * CORE_OWNERS_MAX;
    for (size_t i = 0; i < 2; i++) {
        p->parts[i] = s->parts + sees->at[i];
        p->part_count[i] = sees->count[i];
    }
    p->place = (uint32_t)(s->host->places + t);
    p->number = (uint32_t)(s->host->run_tokens + t);
    p->token = all->tokens ? all->tokens[t] : t == 0 ? all->first : -1;
    p->want_logits = logits || all->results;
    p->program_count = (uint32_t)(s->program->count - (p->want_logits ? 0 : 1));
    p->barrier_base = s->passed;
    p->result = all->results ? &s->results[slot] : NULL;
    p->mass = all->mass ? s->mass + slot * group_floats : NULL;
    base_status status = s->mixing ? gpu_snapshot(s, p->number, s->queue, err) : BASE_OK;
    if (status) {
        return status;
    }
    GPU_TRY(gpu_decode_launch(p, (uint32_t)s->model->blocks, s->queue));
    s->passed += gpu_decode_barriers(p);
    if (logits) {
        size_t vocabulary = s->model->shape.vocabulary;
        GPU_TRY(cudaMemcpyAsync(all->logits + (t + all->rows - all->count) * vocabulary, p->logits,
                                vocabulary * sizeof(float), cudaMemcpyDeviceToHost, s->queue));
    }
    return BASE_OK;
}

/* The same where the model is by_products. */
static base_status step_by_products(gpu_stream *s, const steps *all, size_t t, size_t slot,
                                    base_error *err)
{
    gpu_batch *b = s->alone;
    const int32_t *token = all->tokens ? &all->tokens[t] : t == 0 ? &all->first : NULL;
    bool logits = all->logits && t + all->rows >= all->count;
    float *to =
        logits ? all->logits + (t + all->rows - all->count) * s->model->shape.vocabulary : NULL;
    base_status status = BASE_OK;
    b->step = slot;
    b->mass = all->mass ? s->mass + slot * s->model->shape.kv_heads * CORE_OWNERS_MAX : NULL;
    if (s->mixing) {
        status = gpu_snapshot(s, s->host->run_tokens + t, s->queue, err);
    }
    return status ? status : gpu_prefill_step(s, b, token, all->results != NULL, to, err);
}

/* Sums over KV heads, averaged over layers and heads. */
static void hand_out_mass(const gpu_stream *s, const steps *all, size_t first, size_t count)
{
    const core_shape *shape = &s->model->shape;
    size_t planes = s->model->attention_planes;
    float share = 1.0f / (float)(planes * shape->heads);
    for (size_t i = 0; i < count; i++) {
        float *to = all->mass + (first + i) * CORE_OWNERS_MAX;
        memset(to, 0, CORE_OWNERS_MAX * sizeof *to);
        if (planes == 0) { /* nobody attends */
            continue;
        }
        for (size_t g = 0; g < shape->kv_heads; g++) {
            const float *from = s->host_mass + (i * shape->kv_heads + g) * CORE_OWNERS_MAX;
            for (size_t o = 1; o < CORE_OWNERS_MAX; o++) {
                to[o] += from[o] * share;
            }
        }
        to[0] = 1.0f;
        for (size_t o = 1; o < CORE_OWNERS_MAX; o++) {
            to[0] -= to[o];
        }
    }
}

/* Up to GPU_STEPS tokens, then the host waits. */
static base_status run_some(gpu_stream *s, const steps *all, size_t first, size_t count,
                            base_error *err)
{
    size_t used = 0, mass = s->model->shape.kv_heads * CORE_OWNERS_MAX * sizeof(float);
    sight list[GPU_STEPS];
    if (s->alone) {
        base_status status = gpu_batch_moments(s->alone, first, count, err);
        if (status) {
            return status;
        }
    } else {
        for (size_t i = 0; i < count; i++) {
            list[i] = list_parts(s, first + i, &used);
        }
        GPU_TRY(cudaMemcpyAsync(s->parts, s->host_parts, used * sizeof(gpu_part),
                                cudaMemcpyHostToDevice, s->queue));
    }
    if (all->mass) {
        GPU_TRY(cudaMemsetAsync(s->mass, 0, count * mass, s->queue));
    }
    for (size_t i = 0; i < count; i++) {
        base_status status = s->alone ? step_by_products(s, all, first + i, i, err)
                                      : step(s, all, first + i, &list[i], i, err);
        if (status) {
            return status;
        }
    }
    if (all->mass) {
        GPU_TRY(
            cudaMemcpyAsync(s->host_mass, s->mass, count * mass, cudaMemcpyDeviceToHost, s->queue));
    }
    GPU_TRY(cudaStreamSynchronize(s->queue));
    if (all->results) {
        memcpy(all->results + first, s->alone ? s->alone->results : s->results,
               count * sizeof *s->results);
    }
    if (all->mass) {
        hand_out_mass(s, all, first, count);
    }
    return BASE_OK;
}

static base_status run_steps(gpu_stream *s, const steps *all, base_error *err)
{
    size_t most = s->alone ? (size_t)GPU_BATCH_STEPS : (size_t)GPU_STEPS;
    base_status status = gpu_stream_usable(s, err);
    if (!status) {
        status = gpu_stream_follow(s, s->host->places + all->count, err);
    }
    for (size_t done = 0, some; done < all->count && !status; done += some) {
        some = all->count - done < most ? all->count - done : most;
        status = run_some(s, all, done, some, err);
    }
    return gpu_stream_check(s, status, err);
}

base_status gpu_run(gpu_stream *s, const int32_t *tokens, size_t count, float *logits, size_t rows,
                    float *mass, base_error *err)
{
    steps all = {tokens, -1, count, logits, rows, NULL, mass};
    if (!s->prefill || count <= SINGLE_MAX || mass) {
        return run_steps(s, &all, err);
    }
    base_status status = gpu_stream_usable(s, err);
    if (!status) {
        status = gpu_stream_follow(s, s->host->places + count, err);
    }
    if (!status) {
        status = gpu_prefill_run(s, tokens, count, logits, rows, err);
    }
    return gpu_stream_check(s, status, err);
}

base_status gpu_greedy(gpu_stream *s, int32_t token, size_t count, core_step *results,
                       base_error *err)
{
    steps all = {NULL, token, count, NULL, 0, results, NULL};
    return run_steps(s, &all, err);
}
