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

#include <math.h>

enum { LOGIT_ROWS = 32, HEAD_MAX = 128 };

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
                                    uint32_t channels)
{
    const gpu_matrix m = *embedding;
    uint32_t token = (uint32_t)tokens[blockIdx.x];
    for (uint32_t c = threadIdx.x; c < channels; c += blockDim.x) {
        x[(size_t)blockIdx.x * channels + c] = gpu_weight_at(m, token, c);
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
    const float *qkv;                  /* [T, (H + 2G)*D] */
    uint16_t *q;                       /* [T, H*D] */
    uint16_t *keys, *rotated, *values; /* of the layer */
    const float2 *turns;
    uint32_t q_width, kv_width, head_size, first_slot;
    float scale;
};

/* Block = one token, thread = a pair of rows: queries are rotated and scaled, keys and values enter
 * their slot. */
static __global__ void enter_kernel(const __grid_constant__ enter_params p)
{
    uint32_t width = p.q_width + 2 * p.kv_width, slot = p.first_slot + blockIdx.x;
    const float *row = p.qkv + (size_t)blockIdx.x * width;
    size_t place = (size_t)slot * p.kv_width;
    for (uint32_t c = threadIdx.x * 2; c < width; c += blockDim.x * 2) {
        float a = row[c], b = row[c + 1];
        float2 turn = p.turns[(size_t)slot * (p.head_size / 2) + c % p.head_size / 2];
        if (c < p.q_width) {
            *(uint32_t *)(p.q + (size_t)blockIdx.x * p.q_width + c) = gpu_pack_half2(
                (a * turn.x - b * turn.y) * p.scale, (a * turn.y + b * turn.x) * p.scale);
            continue;
        }
        uint32_t pair = gpu_pack_half2(a, b), k = c - p.q_width;
        if (k >= p.kv_width) {
            *(uint32_t *)(p.values + place + k - p.kv_width) = pair;
            continue;
        }
        *(uint32_t *)(p.keys + place + k) = pair;
        float2 stored = gpu_half2_to_float2(pair);
        *(uint32_t *)(p.rotated + place + k) = gpu_pack_half2(
            stored.x * turn.x - stored.y * turn.y, stored.x * turn.y + stored.y * turn.x);
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
    int32_t *tokens;                                    /* [batch] */
    float *x, *qkv;                                     /* [batch, C] [batch, (H + 2G)*D] */
    uint16_t *normed, *q, *attended, *gate_up, *hidden; /* f16, [batch, C] [H*D] [H*D] [2F] [F] */
    uint16_t *weights; /* scratch for the largest matrix, NULL where the model holds f16 copies */
    float *logits;     /* [LOGIT_ROWS, V] */
};

bool gpu_prefill_takes(const core_shape *shape)
{
    return shape->head_size <= HEAD_MAX;
}

base_status gpu_prefill_open(gpu_stream *s, base_error *err)
{
    const core_shape *shape = &s->model->shape;
    gpu_prefill *f = (gpu_prefill *)base_calloc(1, sizeof *f);
    if (!f) {
        return base_fail(err, BASE_NO_MEMORY, "GPU: no host memory");
    }
    s->prefill = f;
    size_t q_width = shape->heads * shape->head_size, batch = s->batch_max, largest = 0;
    for (size_t i = 0; i < s->model->program_count; i++) {
        size_t size = (size_t)s->model->host_program[i].rows * s->model->host_program[i].columns;
        largest = size > largest ? size : largest;
    }
    const struct {
        void *to;
        size_t rows, bytes;
    } list[] = {
        {&f->tokens, batch, sizeof(int32_t)},
        {&f->x, batch, shape->channels * sizeof(float)},
        {&f->qkv, batch, (q_width + 2 * s->kv_width) * sizeof(float)},
        {&f->normed, batch, shape->channels * sizeof(uint16_t)},
        {&f->q, batch, q_width * sizeof(uint16_t)},
        {&f->attended, batch, q_width * sizeof(uint16_t)},
        {&f->gate_up, batch, 2 * shape->feed_forward * sizeof(uint16_t)},
        {&f->hidden, batch, shape->feed_forward * sizeof(uint16_t)},
        {&f->logits, LOGIT_ROWS, shape->vocabulary * sizeof(float)},
        {&f->weights, (size_t)(s->model->half ? 0 : 1), largest * sizeof(uint16_t)},
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
        status = code == cudaSuccess ? BASE_OK : gpu_fail(err, code, "shared memory of attention");
    }
    return status;
}

void gpu_prefill_close(gpu_stream *s)
{
    if (s->prefill) {
        gpu_gemm_close(s->prefill->gemm);
        base_free(s->prefill);
    }
}

/* --- a batch ---------------------------------------------------------------------------------- */

/* out [T, stride] at column row0 of matrix `index` (+)= x W^T. */
static base_status product(gpu_stream *s, size_t index, const uint16_t *x, void *out, size_t stride,
                           size_t tokens, bool out_half, bool add, base_error *err)
{
    const gpu_matrix *m = &s->model->host_program[index];
    const uint16_t *w = s->model->half ? s->model->half[index] : s->prefill->weights;
    if (!s->model->half) {
        GPU_TRY(gpu_unpack_half(m, s->prefill->weights, s->queue));
    }
    void *at = out_half ? (void *)((uint16_t *)out + m->row0) : (void *)((float *)out + m->row0);
    return gpu_gemm(s->prefill->gemm, w, x, at, m->rows, m->columns, tokens, stride, out_half, add,
                    err);
}

static base_status norm(gpu_stream *s, const float *x, size_t which, size_t tokens, base_error *err)
{
    uint32_t channels = s->params.channels;
    GPU_TRY(gpu_launch(false, norm_kernel, dim3((unsigned)tokens), dim3(256), 8 * sizeof(float),
                       s->queue, x, s->model->norms + which * channels, s->prefill->normed,
                       channels, s->params.eps));
    return BASE_OK;
}

static base_status layer(gpu_stream *s, size_t number, size_t *index, size_t tokens,
                         base_error *err)
{
    gpu_prefill *f = s->prefill;
    const gpu_decode_params *p = &s->params;
    const gpu_matrix *program = s->model->host_program;
    size_t q_width = (size_t)p->heads * p->head_size, base = number * s->slots_max * s->kv_width;
    unsigned count = (unsigned)tokens;
    base_status status = norm(s, f->x, 2 * number, tokens, err);
    for (bool more = true; more && !status; (*index)++) {
        status = product(s, *index, f->normed, f->qkv, q_width + 2 * s->kv_width, tokens, false,
                         false, err);
        more = !program[*index].last;
    }
    if (status) {
        return status;
    }
    enter_params enter = {f->qkv,
                          f->q,
                          p->keys + base,
                          p->rotated + base,
                          p->values + base,
                          p->turns,
                          (uint32_t)q_width,
                          (uint32_t)s->kv_width,
                          p->head_size,
                          (uint32_t)s->slots,
                          p->scale};
    GPU_TRY(gpu_launch(false, enter_kernel, dim3(count), dim3(256), 0, s->queue, enter));
    gpu_attention_params attention = {
        f->q,  p->rotated + base,  p->values + base, p->bias,     f->attended,
        count, (uint32_t)s->slots, p->heads,         p->kv_heads, p->head_size};
    GPU_TRY(gpu_attention_launch(&attention, s->queue));
    if ((status =
             product(s, (*index)++, f->attended, f->x, p->channels, tokens, false, true, err)) ||
        (status = norm(s, f->x, 2 * number + 1, tokens, err)) ||
        (status = product(s, (*index)++, f->normed, f->gate_up, 2 * (size_t)p->feed_forward, tokens,
                          true, false, err))) {
        return status;
    }
    dim3 grid((p->feed_forward / 2 + 127) / 128, count);
    GPU_TRY(gpu_launch(false, swiglu_kernel, grid, dim3(128), 0, s->queue, f->gate_up, f->hidden,
                       p->feed_forward));
    return product(s, (*index)++, f->hidden, f->x, p->channels, tokens, false, true, err);
}

/* Logits of the last `rows` tokens of the batch, LOGIT_ROWS at a time. */
static base_status logits_of(gpu_stream *s, size_t tokens, float *logits, size_t rows,
                             base_error *err)
{
    gpu_prefill *f = s->prefill;
    size_t vocabulary = s->params.vocabulary, channels = s->params.channels;
    for (size_t done = 0; done < rows;) {
        size_t count = rows - done < (size_t)LOGIT_ROWS ? rows - done : (size_t)LOGIT_ROWS;
        base_status status = norm(s, f->x + (tokens - rows + done) * channels,
                                  2 * (size_t)s->params.layers, count, err);
        if (!status) {
            status = product(s, s->model->program_count - 1, f->normed, f->logits, vocabulary,
                             count, false, false, err);
        }
        if (status) {
            return status;
        }
        GPU_TRY(cudaMemcpyAsync(logits + done * vocabulary, f->logits,
                                count * vocabulary * sizeof(float), cudaMemcpyDeviceToHost,
                                s->queue));
        GPU_TRY(cudaStreamSynchronize(s->queue));
        done += count;
    }
    return BASE_OK;
}

base_status gpu_prefill_run(gpu_stream *s, const int32_t *tokens, size_t count, float *logits,
                            size_t rows, base_error *err)
{
    gpu_prefill *f = s->prefill;
    size_t index = 0;
    GPU_TRY(cudaMemcpyAsync(f->tokens, tokens, count * sizeof *tokens, cudaMemcpyHostToDevice,
                            s->queue));
    GPU_TRY(gpu_launch(false, embed_kernel, dim3((unsigned)count), dim3(256), 0, s->queue,
                       s->params.embedding, f->tokens, f->x, s->params.channels));
    for (size_t i = 0; i < s->params.layers; i++) {
        base_status status = layer(s, i, &index, count, err);
        if (status) {
            return status;
        }
    }
    s->slots += count;
    return logits && rows > 0 ? logits_of(s, count, logits, rows, err) : BASE_OK;
}
