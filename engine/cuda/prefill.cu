/* engine/cuda/prefill.cu: many tokens through the model at once.
 *
 * The same equations as core.c; products are f16 x f16 with f32 sums, the residual stream stays
 * f32. Against the CPU's definition this rounds weights, normed activations, queries, attention
 * weights and hidden activations to f16 (2^-11 each). Weights come from f16 copies where the card
 * has room for them, else from one matrix at a time unpacked into scratch.
 */
#include "engine/cuda/prefill.cuh"

#include "engine/cuda/gemv.cuh"
#include "engine/cuda/mma.cuh"
#include "engine/cuda/slots.cuh"

#include <math.h>

enum { LOGIT_ROWS = 32, HEAD_MAX = 128 };
/* Not measured (lab/lab_tiles.cu): ldmatrix is a quarter of the loads, but at heads of 64 it takes
 * 132 registers in place of 128: room for three blocks on a multiprocessor, not four. */
static const bool KEYS_BY_MATRICES = false;

static __device__ __forceinline__ float cut(float v)
{
    return fminf(fmaxf(v, -65504.0f), 65504.0f);
}

/* --- kernels ---------------------------------------------------------------------------------- */

/* Thread = 8 columns of one row. */
static __global__ void unpack_kernel(const __grid_constant__ gpu_matrix m, uint16_t *to)
{
    uint32_t row = blockIdx.y, c = (blockIdx.x * blockDim.x + threadIdx.x) * 8;
    for (; row < m.rows; row += gridDim.y) {
        if (c < m.columns) {
            uint32_t pair[4];
            for (uint32_t i = 0; i < 4; i++) {
                pair[i] = gpu_pack_half2(cut(gpu_weight_at(m, row, c + 2 * i)),
                                         cut(gpu_weight_at(m, row, c + 2 * i + 1)));
            }
            *(uint4 *)(to + (size_t)row * m.columns + c) =
                make_uint4(pair[0], pair[1], pair[2], pair[3]);
        }
    }
}

cudaError_t gpu_unpack_half(const gpu_matrix *m, uint16_t *to, cudaStream_t queue)
{
    dim3 grid((m->columns / 8 + 127) / 128, m->rows < 32768 ? m->rows : 32768);
    return gpu_launch(false, unpack_kernel, grid, dim3(128), 0, queue, *m, to);
}

/* Block = one token. */
static __global__ void embed_kernel(const gpu_matrix *embedding, const int32_t *tokens, float *x,
                                    uint32_t channels, float scale)
{
    const gpu_matrix m = *embedding;
    uint32_t token = (uint32_t)tokens[blockIdx.x];
    for (uint32_t c = threadIdx.x; c < channels; c += blockDim.x) {
        x[(size_t)blockIdx.x * channels + c] = scale * gpu_weight_at(m, token, c);
    }
}

/* Block = one token: out = f16(x * rsqrt(mean(x^2) + eps) * weight). */
static __global__ void norm_kernel(const float *x, const float *weight, uint16_t *out,
                                   uint32_t channels, float eps)
{
    GPU_SHARED(memory);
    const float *row = x + (size_t)blockIdx.x * channels;
    float squares = 0.0f;
    for (uint32_t c = threadIdx.x * 2; c < channels; c += blockDim.x * 2) {
        squares += row[c] * row[c] + row[c + 1] * row[c + 1];
    }
    float total = gpu_block_sum(squares, (float *)memory);
    float factor = 1.0f / sqrtf(total / (float)channels + eps);
    for (uint32_t c = threadIdx.x * 2; c < channels; c += blockDim.x * 2) {
        *(uint32_t *)(out + (size_t)blockIdx.x * channels + c) = gpu_pack_half2(
            cut(row[c] * factor * weight[c]), cut(row[c + 1] * factor * weight[c + 1]));
    }
}

struct enter_params {
    float *rows; /* [T, stride]: queries (where there are any), keys, values as projected */
    const float *bias, *q_norm, *k_norm; /* of these columns, NULL = none */
    uint16_t *keys, *rotated, *values;   /* of the plane */
    const float2 *turns;                 /* of places */
    const gpu_sequence *list;            /* NULL, or where each token's own arrays are: */
    const gpu_moment *now;               /* ... its place, */
    size_t plane, turns_at; /* ... the plane's first element, the first rotation of places */
    uint32_t stride, heads, kv_heads, head_size, first_place, halves;
    float eps;
};

/* Block = one token, warp = a head at a time: biases, norms; queries stay where they are, keys and
 * values enter their slot. */
static __global__ void enter_kernel(const __grid_constant__ enter_params p)
{
    GPU_SHARED(memory);
    uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32;
    uint32_t d = p.head_size, place = p.first_place + blockIdx.x, width = p.kv_heads * d;
    uint16_t *keys = p.keys, *rotated = p.rotated, *values = p.values;
    const float2 *turns = p.turns;
    float *head = (float *)memory + warp * d;
    if (p.list) {
        const gpu_sequence s = p.list[blockIdx.x];
        place = p.now[blockIdx.x].place;
        keys = s.keys + p.plane;
        rotated = s.rotated + p.plane;
        values = s.values + p.plane;
        turns = s.turns + p.turns_at;
    }
    size_t row = (size_t)place * width;
    for (uint32_t h = warp; h < p.heads + 2 * p.kv_heads; h += warps) {
        bool query = h < p.heads, value = h >= p.heads + p.kv_heads;
        float *from = p.rows + (size_t)blockIdx.x * p.stride + h * d, squares = 0.0f;
        const float *norm = value ? NULL : query ? p.q_norm : p.k_norm;
        for (uint32_t i = lane; i < d; i += 32) {
            float x = p.bias ? from[i] + p.bias[h * d + i] : from[i];
            head[i] = x;
            squares += x * x;
        }
        float factor = 1.0f / sqrtf(gpu_warp_sum(squares) / (float)d + p.eps);
        for (uint32_t i = lane; norm && i < d; i += 32) {
            head[i] = head[i] * factor * norm[i];
        }
        __syncwarp();
        size_t slot = row + (size_t)(value ? h - p.heads - p.kv_heads : h - p.heads) * d;
        if (query || value) {
            for (uint32_t i = lane; i < d; i += 32) {
                if (query) {
                    from[i] = head[i];
                } else {
                    values[slot + i] = gpu_float_to_half(head[i]);
                }
            }
        } else {
            gpu_put_key(head, d, p.halves != 0, turns + (size_t)place * (d / 2), keys + slot,
                        rotated + slot, lane, 32);
        }
        __syncwarp();
    }
}

/* Mamba2's norm over several heads: x [T, width] f16 in place. Block (group, token). */
static __global__ void group_norm_kernel(uint16_t *x, const float *weight, uint32_t group,
                                         float eps)
{
    GPU_SHARED(memory);
    uint16_t *values = x + ((size_t)blockIdx.y * gridDim.x + blockIdx.x) * group;
    float squares = 0.0f;
    for (uint32_t c = threadIdx.x; c < group; c += blockDim.x) {
        float v = gpu_half_to_float(values[c]);
        squares += v * v;
    }
    float factor = 1.0f / sqrtf(gpu_block_sum(squares, (float *)memory) / (float)group + eps);
    for (uint32_t c = threadIdx.x; c < group; c += blockDim.x) {
        float v = gpu_half_to_float(values[c]) * factor * weight[blockIdx.x * group + c];
        values[c] = gpu_float_to_half(cut(v));
    }
}

/* f = f16(mixer (+ u)). Thread = two values. */
static __global__ void fading_kernel(const float *mixed, const uint16_t *normed, bool residual,
                                     uint16_t *out, uint32_t count)
{
    uint32_t i = (blockIdx.x * blockDim.x + threadIdx.x) * 2;
    if (i < count) {
        float2 v = *(const float2 *)(mixed + i);
        if (residual) {
            float2 u = gpu_half2_to_float2(*(const uint32_t *)(normed + i));
            v.x += u.x;
            v.y += u.y;
        }
        *(uint32_t *)(out + i) = gpu_pack_half2(cut(v.x), cut(v.y));
    }
}

/* gate_up [T, 2F] f16 in groups of 8 gate and 8 up columns; hidden [T, F]. Thread = two columns. */
static __global__ void swiglu_kernel(const uint16_t *gate_up, uint16_t *hidden,
                                     uint32_t feed_forward)
{
    const uint16_t *row = gate_up + (size_t)blockIdx.y * 2 * feed_forward;
    uint32_t c = (blockIdx.x * blockDim.x + threadIdx.x) * 2;
    if (c < feed_forward) {
        const uint16_t *at = row + c / 8 * 16 + c % 8;
        float2 gate = gpu_half2_to_float2(*(const uint32_t *)at);
        float2 up = gpu_half2_to_float2(*(const uint32_t *)(at + 8));
        *(uint32_t *)(hidden + (size_t)blockIdx.y * feed_forward + c) =
            gpu_pack_half2(cut(gate.x / (1.0f + expf(-gate.x)) * up.x),
                           cut(gate.y / (1.0f + expf(-gate.y)) * up.y));
    }
}

/* --- memory ----------------------------------------------------------------------------------- */

struct gpu_prefill {
    void *gemm;
    int32_t *tokens;                                /* [batch] */
    float *x, *qkv;                                 /* [batch, C] [batch, (H + 2G)*D] */
    uint16_t *normed, *attended, *gate_up, *hidden; /* f16, [batch, C] [H*D] [2F] [F] */
    uint16_t *weights; /* scratch for the largest matrix, NULL where the model holds f16 copies */
    float *logits;     /* [LOGIT_ROWS, V] */
    float *mixer_rows, *mixed; /* hybrid: [batch, row] [batch, C], ... */
    uint16_t *mixer_heads;     /* ... f16 [batch, H*P], */
    float *scan;               /* ... for the chunks of mixers (NULL: token by token), */
    uint16_t *fading;          /* f16 [batch, C], */
    float *fading_kv;          /* [batch, 2G*D] */
    /* What tokens see, of plain layers and of fading ones: device, then page-locked. */
    gpu_path *paths[2], *host_paths;    /* [GPU_PATHS_MAX, batch] */
    gpu_range *ranges[2], *host_ranges; /* [GPU_PATHS_MAX, tiles] */
    size_t path_count[2];
};

bool gpu_prefill_takes(const core_shape *shape)
{
    return shape->head_size <= HEAD_MAX;
}

base_status gpu_prefill_open(gpu_stream *s, base_error *err)
{
    const core_shape *shape = &s->model->shape;
    const gpu_mixer *m = &s->model->mixer;
    uint32_t chunk = s->mixing ? gpu_chunk_size(m, s->model->shared_limit) : 0;
    gpu_prefill *f = (gpu_prefill *)base_calloc(1, sizeof *f);
    if (!f) {
        return base_fail(err, BASE_NO_MEMORY, "GPU: no host memory");
    }
    s->prefill = f;
    size_t q_width = shape->heads * shape->head_size, batch = s->batch_max, largest = 0;
    size_t tiles = (batch + GPU_TILE - 1) / GPU_TILE, mixers = s->mixing ? batch : 0;
    size_t half = sizeof(uint16_t), full = sizeof(float);
    for (size_t i = 0; i < s->program->count; i++) {
        size_t size = (size_t)s->program->host[i].rows * s->program->host[i].columns;
        largest = size > largest ? size : largest;
    }
    const struct {
        void *to;
        size_t rows, bytes;
    } list[] = {
        {&f->tokens, batch, sizeof(int32_t)},
        {&f->x, batch, shape->channels * full},
        {&f->qkv, batch, (q_width + 2 * s->kv_width) * full},
        {&f->normed, batch, shape->channels * half},
        {&f->attended, batch, q_width * half},
        {&f->gate_up, batch, 2 * shape->feed_forward * half},
        {&f->hidden, batch, shape->feed_forward * half},
        {&f->logits, LOGIT_ROWS, shape->vocabulary * full},
        {&f->weights, (size_t)(s->program->half ? 0 : 1), largest * half},
        {&f->mixer_rows, mixers, m->row * full},
        {&f->mixed, mixers, shape->channels * full},
        {&f->mixer_heads, mixers, (size_t)m->heads * m->p * half},
        {&f->scan, chunk ? gpu_chunk_floats(m, batch, chunk) : 0, full},
        {&f->fading, mixers, shape->channels * half},
        {&f->fading_kv, mixers, 2 * s->kv_width * full},
        {&f->paths[0], batch, GPU_PATHS_MAX * sizeof(gpu_path)},
        {&f->paths[1], mixers, GPU_PATHS_MAX * sizeof(gpu_path)},
        {&f->ranges[0], tiles, GPU_PATHS_MAX * sizeof(gpu_range)},
        {&f->ranges[1], s->hybrid ? tiles : 0, GPU_PATHS_MAX * sizeof(gpu_range)},
    };
    base_status status = gpu_gemm_open(&f->gemm, s->queue, err);
    for (size_t i = 0; i < sizeof list / sizeof list[0] && !status; i++) {
        size_t bytes = 0;
        if (!base_size_mul(list[i].rows, list[i].bytes, &bytes)) {
            return base_fail(err, BASE_NO_MEMORY, "GPU: batches of %zu tokens", batch);
        }
        if (bytes > 0) {
            status =
                gpu_arena_take(&s->arena, bytes, "a batch of tokens", (void **)list[i].to, err);
        }
    }
    if (!status) {
        cudaError_t code = gpu_attention_prepare();
        if (code == cudaSuccess && s->mixing) {
            code = gpu_steps_prepare(m, s->model->shared_limit);
        }
        if (code == cudaSuccess && f->scan) {
            code = gpu_chunks_prepare(m, chunk);
        }
        status = code == cudaSuccess ? BASE_OK : gpu_fail(err, code, "shared memory of attention");
    }
    if (status) {
        return status;
    }
    GPU_TRY(cudaHostAlloc((void **)&f->host_paths, 2 * batch * GPU_PATHS_MAX * sizeof(gpu_path),
                          cudaHostAllocDefault));
    GPU_TRY(cudaHostAlloc((void **)&f->host_ranges, 2 * tiles * GPU_PATHS_MAX * sizeof(gpu_range),
                          cudaHostAllocDefault));
    return BASE_OK;
}

void gpu_prefill_close(gpu_stream *s)
{
    if (s->prefill) {
        if (s->prefill->host_paths) {
            (void)cudaFreeHost(s->prefill->host_paths);
        }
        if (s->prefill->host_ranges) {
            (void)cudaFreeHost(s->prefill->host_ranges);
        }
        gpu_gemm_close(s->prefill->gemm);
        base_free(s->prefill);
    }
}

/* --- a batch ---------------------------------------------------------------------------------- */

/* out [T, stride] at column row0 of matrix `index` (+)= scale x W^T. */
static base_status product(gpu_stream *s, size_t index, const uint16_t *x, void *out, size_t stride,
                           size_t tokens, bool out_half, bool add, float scale, base_error *err)
{
    const gpu_matrix *m = &s->program->host[index];
    const uint16_t *w = s->program->half ? s->program->half[index] : s->prefill->weights;
    if (!s->program->half) {
        GPU_TRY(gpu_unpack_half(m, s->prefill->weights, s->queue));
    }
    void *at = out_half ? (void *)((uint16_t *)out + m->row0) : (void *)((float *)out + m->row0);
    return gpu_gemm(s->prefill->gemm, w, x, at, m->rows, m->columns, tokens, stride, out_half, add,
                    scale, err);
}

/* One matrix of a phase, by where its rows go. */
static base_status product_of(gpu_stream *s, size_t index, size_t tokens, base_error *err)
{
    gpu_prefill *f = s->prefill;
    const gpu_decode_params *p = &s->params;
    size_t q_width = (size_t)p->heads * p->head_size;
    switch (s->program->host[index].to) {
    case GPU_TO_QKV:
        return product(s, index, f->normed, f->qkv, q_width + 2 * s->kv_width, tokens, false, false,
                       1.0f, err);
    case GPU_TO_MIXER:
    case GPU_TO_RECURRENT:
        return product(s, index, f->normed, f->mixer_rows, p->mixer.row, tokens, false, false, 1.0f,
                       err);
    case GPU_TO_FADING:
        return product(s, index, f->mixer_heads, f->mixed, p->channels, tokens, false, false, 1.0f,
                       err);
    case GPU_TO_FADING_KV:
        return product(s, index, f->fading, f->fading_kv, 2 * s->kv_width, tokens, false, false,
                       1.0f, err);
    default: /* GPU_TO_HIDDEN */
        return product(s, index, f->normed, f->gate_up, 2 * (size_t)p->feed_forward, tokens, true,
                       false, 1.0f, err);
    }
}

/* All matrices of the phase at `first` whose rows go there. */
static base_status products_to(gpu_stream *s, size_t first, gpu_target to, size_t tokens,
                               base_error *err)
{
    const gpu_matrix *program = s->program->host;
    base_status status = BASE_OK;
    for (size_t i = first; !status; i++) {
        if (program[i].to == to) {
            status = product_of(s, i, tokens, err);
        }
        if (program[i].last) {
            break;
        }
    }
    return status;
}

static size_t next_phase(const gpu_stream *s, size_t index)
{
    while (!s->program->host[index].last) {
        index++;
    }
    return index + 1;
}

static base_status norm(gpu_stream *s, const float *x, size_t which, size_t tokens, base_error *err)
{
    uint32_t channels = s->params.channels;
    GPU_TRY(gpu_launch(false, norm_kernel, dim3((unsigned)tokens), dim3(256), 8 * sizeof(float),
                       s->queue, x, s->model->norms + which * channels, s->prefill->normed,
                       channels, s->params.eps));
    return BASE_OK;
}

/* Keys and values enter a plane; rows [T, stride] have `heads` query heads before them. b: NULL, or
 * the sequences whose tokens these are. */
static base_status enter(gpu_stream *s, const gpu_batch *b, const gpu_layer *layer, float *rows,
                         size_t heads, size_t plane, size_t tokens, base_error *err)
{
    const gpu_decode_params *p = &s->params;
    size_t base = plane * s->slots_max * s->kv_width, d = p->head_size;
    enum { WARPS = 8 };
    enter_params e = {};
    e.rows = rows;
    e.bias = layer->qkv_bias ? layer->qkv_bias + (p->heads - heads) * d : NULL;
    e.q_norm = layer->q_norm;
    e.k_norm = layer->k_norm;
    e.turns_at = s->slots_max * (d / 2);
    if (b) {
        e.list = b->list;
        e.now = b->moments + b->step * b->count;
        e.plane = base;
    } else {
        e.keys = p->keys + base;
        e.rotated = p->rotated + base;
        e.values = p->values + base;
        e.turns = p->turns + e.turns_at;
        e.first_place = (uint32_t)s->host->places;
    }
    e.stride = (uint32_t)(heads * d + 2 * s->kv_width);
    e.heads = (uint32_t)heads;
    e.kv_heads = p->kv_heads;
    e.head_size = p->head_size;
    e.halves = p->halves;
    e.eps = p->eps;
    GPU_TRY(gpu_launch(false, enter_kernel, dim3((unsigned)tokens), dim3(WARPS * 32),
                       WARPS * d * sizeof(float), s->queue, e));
    return BASE_OK;
}

/* f->mixer_heads from f->mixer_rows: layer `number`'s mixers, with their norm. */
static base_status mix(gpu_stream *s, gpu_batch *b, size_t number, size_t tokens, base_error *err)
{
    gpu_prefill *f = s->prefill;
    const gpu_mixer *m = &s->params.mixer;
    const gpu_layer *layer = &s->model->host_layers[number];
    base_status status = b ? gpu_batch_mix(b, number, f->mixer_rows, f->mixer_heads, err)
                           : gpu_scan(s, number, f->mixer_rows, s->host->run_tokens, tokens,
                                      f->mixer_heads, f->scan, err);
    if (!status && m->norm_group != m->p) {
        GPU_TRY(gpu_launch(false, group_norm_kernel,
                           dim3(m->heads * m->p / m->norm_group, (unsigned)tokens), dim3(256),
                           8 * sizeof(float), s->queue, f->mixer_heads, layer->norm, m->norm_group,
                           m->eps));
    }
    return status;
}

/* The fading half: mixer, f, keys and values of f. qkv, output, gate: where these phases begin. */
static base_status fading(gpu_stream *s, gpu_batch *b, size_t number, size_t qkv, size_t output,
                          size_t gate, size_t tokens, base_error *err)
{
    gpu_prefill *f = s->prefill;
    const gpu_layer *layer = &s->model->host_layers[number];
    uint32_t count = (uint32_t)tokens * s->params.channels;
    base_status status;
    if ((status = products_to(s, qkv, GPU_TO_MIXER, tokens, err)) ||
        (status = mix(s, b, number, tokens, err)) ||
        (status = products_to(s, output, GPU_TO_FADING, tokens, err))) {
        return status;
    }
    GPU_TRY(gpu_launch(false, fading_kernel, dim3((count / 2 + 255) / 256), dim3(256), 0, s->queue,
                       f->mixed, f->normed, s->model->fading_residual, f->fading, count));
    status = products_to(s, gate, GPU_TO_FADING_KV, tokens, err);
    return status ? status
                  : enter(s, b, layer, f->fading_kv, 0,
                          s->model->attention_planes + layer->fading_plane, tokens, err);
}

static base_status attend(gpu_stream *s, const gpu_layer *layer, bool hybrid, size_t tokens,
                          base_error *err)
{
    gpu_prefill *f = s->prefill;
    const gpu_decode_params *p = &s->params;
    size_t plane = s->slots_max * s->kv_width, own = layer->plane * plane;
    size_t other = hybrid ? (s->model->attention_planes + layer->fading_plane) * plane : own;
    gpu_attention_params a = {f->qkv,
                              {p->rotated + own, p->rotated + other},
                              {p->values + own, p->values + other},
                              {s->bias, s->fading_bias},
                              p->turns,
                              f->paths[hybrid],
                              f->ranges[hybrid],
                              f->attended,
                              (uint32_t)f->path_count[hybrid],
                              (uint32_t)tokens,
                              (uint32_t)(p->heads * p->head_size + 2 * s->kv_width),
                              p->heads,
                              p->kv_heads,
                              p->head_size,
                              p->halves,
                              p->scale};
    GPU_TRY(gpu_attention_launch(&a, KEYS_BY_MATRICES, s->queue));
    return BASE_OK;
}

/* Gate, up and down, whose phases begin at `gate`: x += scale W hidden. */
static base_status feed_forward(gpu_stream *s, size_t number, size_t gate, size_t tokens,
                                base_error *err)
{
    gpu_prefill *f = s->prefill;
    const gpu_decode_params *p = &s->params;
    base_status status = norm(s, f->x, 2 * number + 1, tokens, err);
    if (status || (status = products_to(s, gate, GPU_TO_HIDDEN, tokens, err))) {
        return status;
    }
    dim3 grid((p->feed_forward / 2 + 127) / 128, (unsigned)tokens);
    GPU_TRY(gpu_launch(false, swiglu_kernel, grid, dim3(128), 0, s->queue, f->gate_up, f->hidden,
                       p->feed_forward));
    return product(s, next_phase(s, gate), f->hidden, f->x, p->channels, tokens, false, true,
                   s->model->residual_scale, err);
}

/* x += scale mixer(u): a layer without attention. */
static base_status recurrent(gpu_stream *s, gpu_batch *b, size_t number, size_t first,
                             size_t output, size_t tokens, base_error *err)
{
    gpu_prefill *f = s->prefill;
    base_status status = products_to(s, first, GPU_TO_RECURRENT, tokens, err);
    if (!status) {
        status = mix(s, b, number, tokens, err);
    }
    return status ? status
                  : product(s, output, f->mixer_heads, f->x, s->params.channels, tokens, false,
                            true, s->model->residual_scale, err);
}

/* Attention; of a fading layer with its mixer. qkv, output, gate: where these phases begin. */
static base_status attention(gpu_stream *s, gpu_batch *b, size_t number, size_t qkv, size_t output,
                             size_t gate, size_t tokens, base_error *err)
{
    gpu_prefill *f = s->prefill;
    const gpu_decode_params *p = &s->params;
    const gpu_layer *l = &s->model->host_layers[number];
    bool hybrid = s->hybrid && l->fading != UINT32_MAX;
    base_status status;
    if ((status = products_to(s, qkv, GPU_TO_QKV, tokens, err)) ||
        (status = enter(s, b, l, f->qkv, p->heads, l->plane, tokens, err)) ||
        (hybrid && (status = fading(s, b, number, qkv, output, gate, tokens, err))) ||
        (status = b ? gpu_batch_attend(b, l, hybrid, f->qkv, f->attended, err)
                    : attend(s, l, hybrid, tokens, err))) {
        return status;
    }
    return product(s, output, f->attended, f->x, p->channels, tokens, false, true,
                   s->model->residual_scale, err);
}

/* b: NULL, or the sequences whose tokens these are, one each. */
static base_status layer(gpu_stream *s, gpu_batch *b, size_t number, size_t *index, size_t tokens,
                         base_error *err)
{
    const gpu_layer *l = &s->model->host_layers[number];
    size_t first = *index, output = next_phase(s, first), gate = next_phase(s, output);
    base_status status = norm(s, s->prefill->x, 2 * number, tokens, err);
    *index = gate;
    if (!status) {
        status = l->recurrent ? recurrent(s, b, number, first, output, tokens, err)
                              : attention(s, b, number, first, output, gate, tokens, err);
    }
    /* Mamba2's layers end here: the next phase is another layer's, or the logits. */
    if (status || s->params.feed_forward == 0) {
        return status;
    }
    *index = next_phase(s, next_phase(s, gate));
    return feed_forward(s, number, gate, tokens, err);
}

/* What the batch's tokens see goes to the device. */
static base_status upload_paths(gpu_stream *s, size_t tokens, base_error *err)
{
    gpu_prefill *f = s->prefill;
    size_t tiles = (tokens + GPU_TILE - 1) / GPU_TILE, exact = s->host->model->exact_window;
    size_t all_tiles = (s->batch_max + GPU_TILE - 1) / GPU_TILE;
    for (size_t i = 0; i < (s->hybrid ? 2U : 1U); i++) {
        gpu_path *paths = f->host_paths + i * s->batch_max * GPU_PATHS_MAX;
        gpu_range *ranges = f->host_ranges + i * all_tiles * GPU_PATHS_MAX;
        size_t count = gpu_paths(s->host, tokens, i ? 2 * exact : s->host->window,
                                 i ? exact : s->host->window, paths, ranges);
        GPU_TRY(cudaMemcpyAsync(f->paths[i], paths, count * tokens * sizeof *paths,
                                cudaMemcpyHostToDevice, s->queue));
        GPU_TRY(cudaMemcpyAsync(f->ranges[i], ranges, count * tiles * sizeof *ranges,
                                cudaMemcpyHostToDevice, s->queue));
        f->path_count[i] = count;
    }
    return BASE_OK;
}

/* f->logits [count, V] of the batch's tokens from `first` on. */
static base_status some_logits(gpu_stream *s, size_t first, size_t count, base_error *err)
{
    gpu_prefill *f = s->prefill;
    base_status status =
        norm(s, f->x + first * s->params.channels, 2 * (size_t)s->params.layers, count, err);
    return status ? status
                  : product(s, s->program->count - 1, f->normed, f->logits, s->params.vocabulary,
                            count, false, false, s->model->logit_scale, err);
}

/* Logits of the last `rows` tokens of the batch, LOGIT_ROWS at a time. */
static base_status logits_of(gpu_stream *s, size_t tokens, float *logits, size_t rows,
                             base_error *err)
{
    size_t vocabulary = s->params.vocabulary;
    for (size_t done = 0; done < rows;) {
        size_t count = rows - done < (size_t)LOGIT_ROWS ? rows - done : (size_t)LOGIT_ROWS;
        base_status status = some_logits(s, tokens - rows + done, count, err);
        if (status) {
            return status;
        }
        GPU_TRY(cudaMemcpyAsync(logits + done * vocabulary, s->prefill->logits,
                                count * vocabulary * sizeof(float), cudaMemcpyDeviceToHost,
                                s->queue));
        GPU_TRY(cudaStreamSynchronize(s->queue));
        done += count;
    }
    return BASE_OK;
}

/* f->x of `count` tokens in f->tokens, through all layers. tokens: host, NULL = they are there. */
static base_status all_layers(gpu_stream *s, gpu_batch *b, const int32_t *tokens, size_t count,
                              base_error *err)
{
    gpu_prefill *f = s->prefill;
    base_status status = BASE_OK;
    size_t index = 0;
    if (tokens) {
        GPU_TRY(cudaMemcpyAsync(f->tokens, tokens, count * sizeof *tokens, cudaMemcpyHostToDevice,
                                s->queue));
    }
    GPU_TRY(gpu_launch(false, embed_kernel, dim3((unsigned)count), dim3(256), 0, s->queue,
                       s->params.embedding, f->tokens, f->x, s->params.channels,
                       s->model->embedding_scale));
    for (size_t i = 0; i < s->params.layers && !status; i++) {
        status = layer(s, b, i, &index, count, err);
    }
    return status;
}

base_status gpu_prefill_run(gpu_stream *s, const int32_t *tokens, size_t count, float *logits,
                            size_t rows, base_error *err)
{
    base_status status = upload_paths(s, count, err);
    if (!status) {
        status = all_layers(s, NULL, tokens, count, err);
    }
    if (!status && logits && rows > 0) {
        status = logits_of(s, count, logits, rows, err);
    }
    if (!status) {
        GPU_TRY(cudaStreamSynchronize(s->queue)); /* the tables above are used again */
    }
    return status;
}

base_status gpu_prefill_step(gpu_stream *lead, gpu_batch *b, const int32_t *tokens, bool choose,
                             float *logits, base_error *err)
{
    gpu_prefill *f = lead->prefill;
    base_status status = all_layers(lead, b, tokens, b->count, err);
    size_t all = choose ? b->count : logits ? 1 : 0;
    for (size_t done = 0, count; done < all && !status; done += count) {
        count = all - done < (size_t)LOGIT_ROWS ? all - done : (size_t)LOGIT_ROWS;
        status = some_logits(lead, done, count, err);
        if (!status && choose) {
            status = gpu_batch_choose(b, f->logits, done, count, f->tokens, err);
        }
    }
    if (!status && logits) {
        BASE_ASSERT(all <= (size_t)LOGIT_ROWS);
        GPU_TRY(cudaMemcpyAsync(logits, f->logits, lead->params.vocabulary * sizeof *logits,
                                cudaMemcpyDeviceToHost, lead->queue));
    }
    return status;
}
