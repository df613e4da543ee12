/* engine/cuda/batch.cu: greedy steps of several sequences together: every weight is read once for
 * all of them.
 *
 * A step is what prefill.cu does with as many tokens, on f16 weights: cuBLAS, norms, SwiGLU. What
 * differs by sequence is here: attention over its own slots, cut into parts and merged
 * (attend.cuh), its mixers' step (mixer_step.cuh), and the statistics of its logits, of which the
 * largest is the next step's token; no logits leave the device. The host waits once a call.
 * Everything runs on the first stream's queue and scratch memory. Definition: core_greedy of each
 * stream by itself.
 */
#include "engine/cuda/attend.cuh"
#include "engine/cuda/mixer_step.cuh"
#include "engine/cuda/mma.cuh"
#include "engine/cuda/prefill.cuh"

#include <math.h>

enum { ATTEND_WARPS = 4, MIX_THREADS = 256, STATS_THREADS = 512 };

/* --- attention -------------------------------------------------------------------------------- */

/* Eight values of a query from column d on, rotated and scaled. */
static __device__ __forceinline__ void load_query(const gpu_parts_params &p, const float2 *turns,
                                                  const float *head, uint32_t d, float q[8])
{
    for (uint32_t i = 0; i < 8; i++) {
        uint32_t c = d + i, half = p.head_size / 2;
        bool second = p.halves ? c >= half : c % 2 != 0;
        uint32_t other = p.halves ? (second ? c - half : c + half) : c ^ 1;
        float2 turn = turns[p.halves ? c % half : c / 2];
        q[i] = (head[c] * turn.x + (second ? head[other] : -head[other]) * turn.y) * p.scale;
    }
}

/* Block (part, KV head, sequence): the query heads of a KV head over one part. */
static __global__ void __launch_bounds__(ATTEND_WARPS * 32, 4)
    attend_kernel(const __grid_constant__ gpu_parts_params p)
{
    GPU_SHARED(memory);
    float *shared = (float *)memory; /* [warps, GPU_HEADS_AT_ONCE, D + 2] */
    uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32, n = blockIdx.z, g = blockIdx.y;
    uint32_t repeat = p.heads / p.kv_heads, width = p.head_size + 2;
    const gpu_moment now = p.now[n];
    if (blockIdx.x >= now.part_count[p.hybrid]) {
        return;
    }
    const gpu_sequence s = p.list[n];
    const gpu_part part = p.parts[now.part_at[p.hybrid] + blockIdx.x];
    uint32_t d = lane % p.lanes * 8, kv_width = p.kv_heads * p.head_size;
    size_t base = (part.fading ? p.other : p.own) + g * p.head_size + d;
    const gpu_slots slots = {s.rotated + base, s.values + base, s.bias,
                             kv_width,         p.head_size,     p.lanes};
    const float2 *turns = s.turns + (size_t)part.turn * (p.head_size / 2);
    for (uint32_t h = 0; h < repeat; h += GPU_HEADS_AT_ONCE) {
        uint32_t head = g * repeat + h, count = min(repeat - h, (uint32_t)GPU_HEADS_AT_ONCE);
        float q[GPU_HEADS_AT_ONCE][8];
#pragma unroll
        for (uint32_t i = 0; i < GPU_HEADS_AT_ONCE; i++) {
#pragma unroll
            for (int j = 0; j < 8; j++) {
                q[i][j] = 0.0f;
            }
            if (d < p.head_size) {
                uint32_t which = head + (i < count ? i : 0);
                load_query(p, turns, p.q + (size_t)n * p.q_stride + which * p.head_size, d, q[i]);
            }
        }
        gpu_attend<ATTEND_WARPS>(slots, part.from, part.from + part.count, q, shared, warp, lane);
        __syncthreads();
        for (uint32_t i = threadIdx.x; i < count * p.head_size; i += blockDim.x) {
            uint32_t which = i / p.head_size, c = i % p.head_size;
            float m, l;
            float out = gpu_merge_parts(shared + which * width, ATTEND_WARPS,
                                        GPU_HEADS_AT_ONCE * width, c, false, &m, &l);
            float *to = p.partial +
                        (((size_t)n * p.heads + head + which) * GPU_PARTS_MAX + blockIdx.x) * width;
            to[2 + c] = out;
            if (c == 0) {
                to[0] = m;
                to[1] = l;
            }
        }
        __syncthreads();
    }
}

/* Block (head, sequence), thread = a value. */
static __global__ void merge_kernel(const __grid_constant__ gpu_parts_params p)
{
    uint32_t h = blockIdx.x, n = blockIdx.y, width = p.head_size + 2;
    const float *parts = p.partial + ((size_t)n * p.heads + h) * GPU_PARTS_MAX * width;
    for (uint32_t c = threadIdx.x; c < p.head_size; c += blockDim.x) {
        float m, l;
        float out = gpu_merge_parts(parts, p.now[n].part_count[p.hybrid], width, c, false, &m, &l);
        p.out[((size_t)n * p.heads + h) * p.head_size + c] = gpu_float_to_half(out / l);
    }
}

/* One sequence: the share of attention that each owner's slots got in this layer, summed over
 * heads; thread = owner. After attend_kernel. */
static __global__ void mass_kernel(const __grid_constant__ gpu_parts_params p, float *mass)
{
    uint32_t owner = threadIdx.x, width = p.head_size + 2, count = p.now->part_count[p.hybrid];
    const gpu_part *list = p.parts + p.now->part_at[p.hybrid];
    float sum = 0.0f;
    for (uint32_t h = 0; owner > 0 && h < p.heads; h++) {
        const float *parts = p.partial + (size_t)h * GPU_PARTS_MAX * width;
        float m, l;
        (void)gpu_merge_parts(parts, count, width, 0, false, &m, &l);
        for (uint32_t i = 0; i < count; i++) {
            const float *part = parts + (size_t)i * width;
            sum += list[i].owner == owner ? gpu_weight_of(part[0], m) * part[1] / l : 0.0f;
        }
    }
    mass[owner] += sum;
}

cudaError_t gpu_parts_launch(const gpu_parts_params *p, uint32_t count, uint32_t most,
                             cudaStream_t queue)
{
    cudaError_t code = gpu_launch(
        false, attend_kernel, dim3(most, p->kv_heads, count), dim3(ATTEND_WARPS * 32),
        sizeof(float) * ATTEND_WARPS * GPU_HEADS_AT_ONCE * (p->head_size + 2), queue, *p);
    return code != cudaSuccess ? code
                               : gpu_launch(false, merge_kernel, dim3(p->heads, count),
                                            dim3((p->head_size + 31) / 32 * 32), 0, queue, *p);
}

base_status gpu_batch_attend(gpu_batch *b, const gpu_layer *layer, bool hybrid, const float *q,
                             uint16_t *out, base_error *err)
{
    const gpu_stream *s = b->streams[0];
    const gpu_decode_params *p = &s->params;
    size_t plane = s->slots_max * s->kv_width,
           fading = s->model->attention_planes + layer->fading_plane;
    gpu_parts_params a = {b->list,
                          b->moments + b->step * b->count,
                          b->parts,
                          q,
                          b->partial,
                          out,
                          layer->plane * plane,
                          hybrid ? fading * plane : 0,
                          hybrid,
                          (uint32_t)(p->heads * p->head_size + 2 * s->kv_width),
                          p->heads,
                          p->kv_heads,
                          p->head_size,
                          p->slots_max,
                          p->slot_lanes,
                          p->halves,
                          p->scale};
    uint32_t most = 0;
    for (size_t i = 0; i < b->count; i++) {
        uint32_t here = b->host_moments[b->step * b->count + i].part_count[hybrid];
        most = here > most ? here : most;
    }
    GPU_TRY(gpu_parts_launch(&a, (uint32_t)b->count, most, s->queue));
    if (b->mass) {
        GPU_TRY(gpu_launch(false, mass_kernel, dim3(1), dim3(CORE_OWNERS_MAX), 0, s->queue, a,
                           b->mass));
    }
    return BASE_OK;
}

/* --- mixers ----------------------------------------------------------------------------------- */

/* Block (head, sequence): the state moves on by one token; the first head's block keeps the row. */
template <int THREADS>
static __global__ void __launch_bounds__(THREADS)
    mix_kernel(const __grid_constant__ gpu_mix_params p)
{
    GPU_SHARED(memory);
    const gpu_mixer &m = p.mixer;
    uint32_t h = blockIdx.x, n = blockIdx.y, number = p.now[n].number;
    const gpu_sequence s = p.list[n];
    float *work = (float *)memory, *ring = s.rows + p.kept;
    const gpu_mixer_rows rows = {ring, p.rows + (size_t)n * m.row, number};
    float *state = s.states + p.states + (size_t)h * m.head_state;
    (void)gpu_mixer_token<true>(m, *p.layer, h, rows, number, state, false, work);
    const float *o = gpu_mixer_space_of(m, work).o;
    for (uint32_t j = threadIdx.x; j < m.p; j += blockDim.x) {
        p.out[((size_t)n * m.heads + h) * m.p + j] = gpu_float_to_half(o[j]);
    }
    /* Nobody reads the place of the row: it held a token too old for the convolution. */
    for (uint32_t i = threadIdx.x; h == 0 && i < m.row; i += blockDim.x) {
        ring[(size_t)(number % GPU_MIXER_ROWS) * m.row + i] = rows.batch[i];
    }
}

cudaError_t gpu_mix_launch(const gpu_mix_params *p, uint32_t count, uint32_t threads,
                           cudaStream_t queue)
{
    dim3 grid(p->mixer.heads, count);
    size_t shared = sizeof(float) * gpu_mixer_work(p->mixer.n, p->mixer.p, threads);
    return threads == 128 ? gpu_launch(false, mix_kernel<128>, grid, dim3(128), shared, queue, *p)
           : threads == 256
               ? gpu_launch(false, mix_kernel<256>, grid, dim3(256), shared, queue, *p)
               : gpu_launch(false, mix_kernel<512>, grid, dim3(512), shared, queue, *p);
}

base_status gpu_batch_mix(gpu_batch *b, size_t number, const float *rows, uint16_t *out,
                          base_error *err)
{
    const gpu_stream *s = b->streams[0];
    const gpu_mixer *m = &s->params.mixer;
    size_t fading = s->model->host_layers[number].fading;
    gpu_mix_params p = {*m,
                        s->params.layer_table + number,
                        b->list,
                        b->moments + b->step * b->count,
                        rows,
                        out,
                        fading * m->floats,
                        fading * s->params.mixer_kept};
    GPU_TRY(gpu_mix_launch(&p, (uint32_t)b->count, MIX_THREADS, s->queue));
    return BASE_OK;
}

/* --- statistics ------------------------------------------------------------------------------- */

/* Block = one sequence: its logits' largest is its next token. results: page-locked. */
static __global__ void __launch_bounds__(STATS_THREADS)
    stats_kernel(const float *logits, uint32_t vocabulary, int32_t *tokens, core_step *results)
{
    GPU_SHARED(memory);
    const float *row = logits + (size_t)blockIdx.x * vocabulary;
    gpu_stats s = {-INFINITY, 0.0f, 0.0f, INT32_MAX};
    for (uint32_t i = threadIdx.x; i < vocabulary; i += blockDim.x) {
        gpu_stats one = {row[i], 1.0f, 0.0f, (int32_t)i};
        s = gpu_stats_merge(s, one);
    }
    s = gpu_stats_block(s, (float *)memory);
    if (threadIdx.x == 0) {
        float log_total = logf(s.total);
        tokens[blockIdx.x] = s.best;
        results[blockIdx.x].token = s.best;
        results[blockIdx.x].surprise_nats = log_total;
        results[blockIdx.x].entropy_nats = fmaxf(0.0f, log_total - s.weighted / s.total);
    }
}

base_status gpu_batch_choose(gpu_batch *b, const float *logits, size_t first, size_t count,
                             int32_t *tokens, base_error *err)
{
    GPU_TRY(gpu_launch(false, stats_kernel, dim3((unsigned)count), dim3(STATS_THREADS),
                       sizeof(float) * 4 * (STATS_THREADS / 32), b->streams[0]->queue, logits,
                       b->streams[0]->params.vocabulary, tokens + first,
                       b->results + b->step * b->count + first));
    return BASE_OK;
}

/* --- memory ----------------------------------------------------------------------------------- */

static base_status check_streams(gpu_stream *const *streams, size_t count, base_error *err)
{
    const gpu_stream *first = streams[0];
    if (count > (size_t)GPU_BATCH_MAX || count > first->batch_max) {
        return base_fail(err, BASE_LIMIT, "GPU: %zu sequences at once (at most %d, and batch_max)",
                         count, (int)GPU_BATCH_MAX);
    }
    if (!first->prefill) {
        return base_fail(err, BASE_UNSUPPORTED,
                         "GPU: heads of %zu values go one sequence at a time",
                         first->model->shape.head_size);
    }
    for (size_t i = 1; i < count; i++) {
        if (streams[i]->model != first->model || streams[i]->slots_max != first->slots_max ||
            streams[i]->hybrid != first->hybrid) {
            return base_fail(err, BASE_INVALID, "GPU: sequences of different models or options");
        }
    }
    return BASE_OK;
}

static base_status take_memory(gpu_batch *b, base_error *err)
{
    const gpu_stream *s = b->streams[0];
    const core_shape *shape = &s->model->shape;
    size_t steps = (size_t)GPU_BATCH_STEPS * b->count, parts = steps * 2 * GPU_PARTS_MAX;
    size_t row = GPU_PARTS_MAX * (shape->head_size + 2) * sizeof(float);
    gpu_sequence list[GPU_BATCH_MAX];
    const struct {
        void *to;
        size_t bytes;
    } device[] = {{&b->list, b->count * sizeof *b->list},
                  {&b->moments, steps * sizeof *b->moments},
                  {&b->parts, parts * sizeof *b->parts},
                  {&b->partial, b->count * shape->heads * row}},
      host[] = {{&b->host_moments, steps * sizeof *b->host_moments},
                {&b->host_parts, parts * sizeof *b->host_parts},
                {&b->results, steps * sizeof *b->results}};
    for (size_t i = 0; i < sizeof device / sizeof device[0]; i++) {
        base_status status =
            gpu_arena_take(&b->arena, device[i].bytes, "a batch", (void **)device[i].to, err);
        if (status) {
            return status;
        }
    }
    for (size_t i = 0; i < sizeof host / sizeof host[0]; i++) {
        GPU_TRY(cudaHostAlloc((void **)host[i].to, host[i].bytes, cudaHostAllocDefault));
    }
    for (size_t i = 0; i < b->count; i++) {
        const gpu_stream *one = b->streams[i];
        list[i] = {one->params.keys, one->params.rotated, one->params.values, one->bias,
                   one->turns,       one->params.states,  one->params.rows};
    }
    GPU_TRY(cudaMemcpy(b->list, list, b->count * sizeof *list, cudaMemcpyHostToDevice));
    return BASE_OK;
}

base_status gpu_batch_open(gpu_stream *const *streams, size_t count, gpu_batch **out,
                           base_error *err)
{
    BASE_ASSERT(count > 0);
    base_status status = check_streams(streams, count, err);
    if (status) {
        return status;
    }
    gpu_batch *b = (gpu_batch *)base_calloc(1, sizeof *b);
    if (!b) {
        return base_fail(err, BASE_NO_MEMORY, "GPU: no host memory");
    }
    memcpy(b->streams, streams, count * sizeof *streams);
    b->count = count;
    if ((status = take_memory(b, err))) {
        gpu_batch_close(b);
        return status;
    }
    *out = b;
    return BASE_OK;
}

void gpu_batch_close(gpu_batch *b)
{
    if (b) {
        (void)cudaStreamSynchronize(b->streams[0]->queue);
        void *locked[] = {b->host_moments, b->host_parts, b->results};
        for (void *memory : locked) {
            if (memory) {
                (void)cudaFreeHost(memory);
            }
        }
        gpu_arena_free(&b->arena);
        base_free(b);
    }
}

size_t gpu_batch_weight_bytes(const gpu_model *model, bool hybrid)
{
    const gpu_program *program = &model->programs[hybrid && model->hybrid];
    size_t bytes = 0;
    for (size_t i = 0; i < program->count; i++) {
        bytes += (size_t)program->host[i].rows * program->host[i].columns * sizeof(uint16_t);
    }
    return bytes;
}

/* --- steps ------------------------------------------------------------------------------------ */

base_status gpu_batch_moments(gpu_batch *b, size_t first, size_t steps, base_error *err)
{
    const gpu_stream *lead = b->streams[0];
    enum { BLOCKS = 4 }; /* of attention on a multiprocessor at once */
    size_t used = 0, goal = BLOCKS * lead->model->blocks / (lead->params.kv_heads * b->count);
    for (size_t t = 0; t < steps; t++) {
        for (size_t i = 0; i < b->count; i++) {
            const core_stream *host = b->streams[i]->host;
            gpu_moment *to = &b->host_moments[t * b->count + i];
            *to = {};
            to->place = (uint32_t)(host->places + first + t);
            to->number = (uint32_t)(host->run_tokens + first + t);
            for (size_t hybrid = 0; hybrid < (lead->hybrid ? 2U : 1U); hybrid++) {
                const core_views *views = hybrid ? host->fading_views : host->views;
                to->part_at[hybrid] = (uint32_t)used;
                to->part_count[hybrid] = (uint32_t)gpu_parts(host, &views[first + t],
                                                             goal ? goal : 1, b->host_parts + used);
                used += to->part_count[hybrid];
            }
        }
    }
    GPU_TRY(cudaMemcpyAsync(b->moments, b->host_moments, steps * b->count * sizeof *b->moments,
                            cudaMemcpyHostToDevice, lead->queue));
    GPU_TRY(cudaMemcpyAsync(b->parts, b->host_parts, used * sizeof *b->parts,
                            cudaMemcpyHostToDevice, lead->queue));
    return BASE_OK;
}

static base_status run_steps(gpu_batch *b, const int32_t *tokens, size_t steps, core_step *out,
                             base_error *err)
{
    gpu_stream *lead = b->streams[0];
    base_status status = BASE_OK;
    for (size_t i = 0; i < b->count && !status; i++) {
        gpu_stream *s = b->streams[i];
        if (!(status = gpu_stream_usable(s, err)) &&
            !(status = gpu_stream_follow(s, s->host->places + steps, err))) {
            GPU_TRY(cudaStreamSynchronize(s->queue)); /* from here on all is on one queue */
        }
    }
    if (!status) {
        status = gpu_batch_moments(b, 0, steps, err);
    }
    for (b->step = 0; b->step < steps && !status; b->step++) {
        for (size_t i = 0; lead->mixing && i < b->count && !status; i++) {
            status = gpu_snapshot(b->streams[i], b->host_moments[b->step * b->count + i].number,
                                  lead->queue, err);
        }
        if (!status) {
            status = gpu_prefill_step(lead, b, b->step ? NULL : tokens, true, NULL, err);
        }
    }
    if (status) {
        return status;
    }
    GPU_TRY(cudaStreamSynchronize(lead->queue));
    memcpy(out, b->results, steps * b->count * sizeof *out);
    return BASE_OK;
}

base_status gpu_batch_greedy(gpu_batch *b, const int32_t *tokens, size_t steps, core_step *out,
                             base_error *err)
{
    base_error here = {};
    BASE_ASSERT(steps <= (size_t)GPU_BATCH_STEPS);
    base_status status = run_steps(b, tokens, steps, out, &here);
    for (size_t i = 0; status && i < b->count; i++) {
        (void)gpu_stream_check(b->streams[i], status, &here);
    }
    return status ? base_fail(err, status, "%s", here.text) : BASE_OK;
}
