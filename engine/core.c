/* engine/core.c: one running sequence. The forward pass of a llama-architecture model over a window
 * of slots.
 *
 * Main entry: core_run. Per layer, for T tokens at the end of the window (Touvron et al. 2023; GQA:
 * Ainslie et al. 2023):
 *   u = rmsnorm(x);  q,k,v = Wqkv u;  k is stored as it is, and rotated from what was stored
 *   o_h = softmax_j(q_h.k_j / sqrt(D) + bias_j) v_j over all slots up to the token's own; x += Wo o
 *   x += Wdown (silu(Wgate u') * Wup u'), u' = rmsnorm(x)
 * A slot's position is its index. Keys pass through the stored KV type before they are rotated, so
 * that a block that was copied out and inserted again gives the same bits as the tokens that were
 * run in place. Not here: loading (model.c), what to splice and where (splice.c).
 */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "engine/model.h"

enum { BATCH_DEFAULT = 64, OWNERS_MAX = 64 };

struct core_stream {
    const core_model *model;
    const kernel_table *kernels;
    base_pool *pool;
    kernel_activations activations;
    bool kv_f32;
    size_t element;   /* bytes of one stored key or value element */
    size_t kv_width;  /* G*D */
    size_t q_width;   /* H*D */
    size_t slots, slots_max, batch_max;

    uint8_t *keys;    /* [layers, slots_max, G*D] before rotation */
    uint8_t *rotated; /* [layers, slots_max, G*D] */
    uint8_t *values;  /* [layers, slots_max, G*D] */
    float *bias;      /* [slots_max] ln(strength) */
    uint32_t *owner;  /* [slots_max] 0 = live token */
    size_t owned;     /* slots with an owner */
    float *cosine, *sine; /* [slots_max, D/2] */

    float *x;         /* [batch_max, C] residual stream */
    float *normed;    /* [batch_max, C] */
    float *qkv;       /* [batch_max, (H+2G)*D] */
    float *attended;  /* [batch_max, H*D] */
    float *gate_up;   /* [batch_max, 2F] */
    float *hidden;    /* [batch_max, F] */
    float *projected; /* [batch_max, C] */
    float *scores;    /* [threads, H/G, slots_max] */
    float *head_mass; /* [batch_max, H, OWNERS_MAX] */
    void *matmul_scratch;
    void *arena;

    float *mass;      /* watched by the caller, NULL = off */
    size_t owners;
    size_t *mass_tokens;
};

/* --- memory: one arena, laid out twice (once to count, once to hand out) ---------------------- */

typedef struct layout {
    uint8_t *base; /* NULL while counting */
    size_t size;
    bool overflow;
} layout;

static void *take(layout *l, size_t count, size_t size)
{
    size_t bytes = 0, padded = 0, at = l->size;
    if (!base_size_mul(count, size, &bytes) || !base_size_add(bytes, 63, &padded) ||
        !base_size_add(l->size, padded & ~(size_t)63, &l->size)) {
        l->overflow = true;
        return NULL;
    }
    return l->base ? l->base + at : NULL;
}

static size_t max3(size_t a, size_t b, size_t c)
{
    size_t m = a > b ? a : b;
    return m > c ? m : c;
}

static void set_sizes(core_stream *s, const core_model *model, const core_stream_options *o)
{
    s->model = model;
    s->pool = o->pool;
    s->activations = o->activations;
    s->kv_f32 = o->kv_f32;
    s->element = o->kv_f32 ? sizeof(float) : sizeof(uint16_t);
    s->kv_width = model->shape.kv_heads * model->shape.head_size;
    s->q_width = model->shape.heads * model->shape.head_size;
    s->slots_max = o->slots_max ? o->slots_max : model->shape.context_max;
    s->batch_max = o->batch_max ? o->batch_max : BATCH_DEFAULT;
}

static void lay_out(core_stream *s, layout *l)
{
    const core_shape *shape = &s->model->shape;
    size_t slots = s->slots_max, batch = s->batch_max;
    size_t kv_rows = 0;
    if (!base_size_mul(shape->layers, slots, &kv_rows)) {
        l->overflow = true;
        return;
    }
    s->keys = take(l, kv_rows, s->kv_width * s->element);
    s->rotated = take(l, kv_rows, s->kv_width * s->element);
    s->values = take(l, kv_rows, s->kv_width * s->element);
    s->bias = take(l, slots, sizeof(float));
    s->owner = take(l, slots, sizeof(uint32_t));
    s->cosine = take(l, slots, shape->head_size / 2 * sizeof(float));
    s->sine = take(l, slots, shape->head_size / 2 * sizeof(float));
    s->x = take(l, batch, shape->channels * sizeof(float));
    s->normed = take(l, batch, shape->channels * sizeof(float));
    s->qkv = take(l, batch, (s->q_width + 2 * s->kv_width) * sizeof(float));
    s->attended = take(l, batch, s->q_width * sizeof(float));
    s->gate_up = take(l, batch, 2 * shape->feed_forward * sizeof(float));
    s->hidden = take(l, batch, shape->feed_forward * sizeof(float));
    s->projected = take(l, batch, shape->channels * sizeof(float));
    s->scores = take(l, base_pool_threads(s->pool) * (shape->heads / shape->kv_heads),
                     slots * sizeof(float));
    s->head_mass = take(l, batch * shape->heads, OWNERS_MAX * sizeof(float));
    size_t widest = max3(shape->channels, s->q_width, shape->feed_forward);
    s->matmul_scratch = take(l, 1, kernel_matmul_scratch(batch, widest));
}

size_t core_stream_bytes(const core_model *model, const core_stream_options *options)
{
    core_stream s = {0};
    layout l = {0};
    set_sizes(&s, model, options);
    lay_out(&s, &l);
    return l.overflow ? SIZE_MAX : l.size + sizeof s;
}

base_status core_stream_open(const core_model *model, const core_stream_options *options,
                             core_stream **out, base_error *err)
{
    core_stream *s = base_calloc(1, sizeof *s);
    layout l = {0};
    if (!s) {
        return base_fail(err, BASE_NO_MEMORY, "no memory for a stream");
    }
    set_sizes(s, model, options);
    lay_out(s, &l);
    if (l.overflow || !(s->arena = base_alloc_aligned(l.size))) {
        base_free(s);
        return base_fail(err, BASE_NO_MEMORY, "no memory for a window of %zu slots (%zu MiB)",
                         options->slots_max, l.size >> 20);
    }
    l = (layout){.base = s->arena};
    lay_out(s, &l);
    s->kernels = kernel_get();
    size_t half = model->shape.head_size / 2;
    for (size_t p = 0; p < s->slots_max; p++) {
        for (size_t i = 0; i < half; i++) {
            double angle = (double)p * (double)model->frequencies[i];
            s->cosine[p * half + i] = (float)cos(angle);
            s->sine[p * half + i] = (float)sin(angle);
        }
    }
    *out = s;
    return BASE_OK;
}

void core_stream_close(core_stream *stream)
{
    if (stream) {
        base_free_aligned(stream->arena);
        base_free(stream);
    }
}

void core_stream_clear(core_stream *s)
{
    s->slots = 0;
    s->owned = 0;
    memset(s->bias, 0, s->slots_max * sizeof *s->bias);
    memset(s->owner, 0, s->slots_max * sizeof *s->owner);
}

size_t core_slots(const core_stream *stream)
{
    return stream->slots;
}

size_t core_slots_max(const core_stream *stream)
{
    return stream->slots_max;
}

/* --- keys and values -------------------------------------------------------------------------- */

static uint8_t *kv_row(const core_stream *s, uint8_t *array, size_t layer, size_t slot)
{
    return array + (layer * s->slots_max + slot) * s->kv_width * s->element;
}

static void store_row(const core_stream *s, uint8_t *to, const float *from)
{
    if (s->kv_f32) {
        memcpy(to, from, s->kv_width * sizeof(float));
    } else {
        s->kernels->to_half((uint16_t *)(void *)to, from, s->kv_width);
    }
}

static void load_row(const core_stream *s, float *to, const uint8_t *from)
{
    if (s->kv_f32) {
        memcpy(to, from, s->kv_width * sizeof(float));
    } else {
        s->kernels->from_half(to, (const uint16_t *)(const void *)from, s->kv_width);
    }
}

static void rotate(const core_stream *s, float *x, size_t heads, size_t position)
{
    size_t head_size = s->model->shape.head_size;
    s->kernels->rope(x, heads, head_size, s->cosine + position * (head_size / 2),
                     s->sine + position * (head_size / 2), false);
}

/* rotated[slot] = R(slot) keys[slot], from the stored form. work: [G*D] f32. */
static void rotate_key(core_stream *s, size_t layer, size_t slot, float *work)
{
    load_row(s, work, kv_row(s, s->keys, layer, slot));
    rotate(s, work, s->model->shape.kv_heads, slot);
    store_row(s, kv_row(s, s->rotated, layer, slot), work);
}

typedef struct rotate_job {
    core_stream *s;
    size_t from;
} rotate_job;

static void rotate_layers(void *argument, size_t begin, size_t end, size_t thread)
{
    rotate_job *job = argument;
    core_stream *s = job->s;
    float work[CORE_KV_WIDTH_MAX];
    (void)thread;
    for (size_t layer = begin; layer < end; layer++) {
        for (size_t slot = job->from; slot < s->slots; slot++) {
            rotate_key(s, layer, slot, work);
        }
    }
}

/* Positions changed from slot `from` on. */
static void rotate_again(core_stream *s, size_t from)
{
    rotate_job job = {s, from};
    if (from < s->slots) {
        base_pool_run(s->pool, s->model->shape.layers, 1, rotate_layers, &job);
    }
}

/* Move slots [from, slots) to begin at `to`, in every layer; rotated keys are made again by the
 * caller. */
static void move_slots(core_stream *s, size_t from, size_t to)
{
    size_t row = s->kv_width * s->element, count = s->slots - from;
    for (size_t layer = 0; layer < s->model->shape.layers; layer++) {
        memmove(kv_row(s, s->keys, layer, to), kv_row(s, s->keys, layer, from), count * row);
        memmove(kv_row(s, s->values, layer, to), kv_row(s, s->values, layer, from), count * row);
    }
    memmove(s->bias + to, s->bias + from, count * sizeof *s->bias);
    memmove(s->owner + to, s->owner + from, count * sizeof *s->owner);
}

static void count_owned(core_stream *s)
{
    s->owned = 0;
    for (size_t i = 0; i < s->slots; i++) {
        s->owned += s->owner[i] != 0;
    }
}

void core_window_remove(core_stream *s, size_t at, size_t count)
{
    BASE_ASSERT(at <= s->slots && count <= s->slots - at);
    if (count == 0) {
        return;
    }
    move_slots(s, at + count, at);
    s->slots -= count;
    memset(s->bias + s->slots, 0, count * sizeof *s->bias);
    memset(s->owner + s->slots, 0, count * sizeof *s->owner);
    count_owned(s);
    rotate_again(s, at);
}

size_t core_block_bytes(const core_stream *s, size_t count)
{
    return s->model->shape.layers * 2 * count * s->kv_width * s->element;
}

void core_block_read(const core_stream *s, size_t at, size_t count, void *block)
{
    BASE_ASSERT(at <= s->slots && count <= s->slots - at);
    uint8_t *to = block;
    size_t bytes = count * s->kv_width * s->element;
    for (size_t layer = 0; layer < s->model->shape.layers; layer++) {
        memcpy(to, kv_row(s, s->keys, layer, at), bytes);
        memcpy(to + bytes, kv_row(s, s->values, layer, at), bytes);
        to += 2 * bytes;
    }
}

base_status core_window_insert(core_stream *s, size_t at, size_t count, const void *block,
                               float bias, uint32_t owner, base_error *err)
{
    BASE_ASSERT(at <= s->slots && owner > 0 && owner < OWNERS_MAX);
    if (count > s->slots_max - s->slots) {
        return base_fail(err, BASE_LIMIT, "the window of %zu slots is full (%zu present, %zu more)",
                         s->slots_max, s->slots, count);
    }
    move_slots(s, at, at + count);
    const uint8_t *from = block;
    size_t bytes = count * s->kv_width * s->element;
    for (size_t layer = 0; layer < s->model->shape.layers; layer++) {
        memcpy(kv_row(s, s->keys, layer, at), from, bytes);
        memcpy(kv_row(s, s->values, layer, at), from + bytes, bytes);
        from += 2 * bytes;
    }
    for (size_t i = 0; i < count; i++) {
        s->bias[at + i] = bias;
        s->owner[at + i] = owner;
    }
    s->slots += count;
    s->owned += count;
    rotate_again(s, at);
    return BASE_OK;
}

void core_window_set_bias(core_stream *s, size_t at, size_t count, float bias)
{
    BASE_ASSERT(at <= s->slots && count <= s->slots - at);
    for (size_t i = 0; i < count; i++) {
        s->bias[at + i] = bias;
    }
}

void core_mass_watch(core_stream *s, float *mass, size_t owners, size_t *tokens)
{
    BASE_ASSERT(owners <= OWNERS_MAX);
    s->mass = mass;
    s->owners = mass ? owners : 0;
    s->mass_tokens = tokens;
}

/* --- the forward pass ------------------------------------------------------------------------- */

/* out [T, rows] = x W^T for every part, side by side. */
static void linear(core_stream *s, const core_linear *w, const float *x, size_t tokens, float *out,
                   size_t width)
{
    size_t at = 0;
    for (size_t i = 0; i < w->part_count; i++) {
        kernel_matmul(s->pool, &w->parts[i], x, tokens, out + at, width, s->activations,
                      s->matmul_scratch);
        at += w->parts[i].rows;
    }
}

typedef struct attend_job {
    core_stream *s;
    size_t layer, first_slot; /* slot of the batch's first token */
    size_t heads_at_once;     /* query heads of one work item */
} attend_job;

/* The share of one head's attention that each owner's slots got. p [slots] normalised. */
static void sum_mass(const core_stream *s, const float *p, size_t slots, float *mass)
{
    memset(mass, 0, s->owners * sizeof *mass);
    for (size_t j = 0; j < slots; j++) {
        if (s->owner[j] < s->owners) {
            mass[s->owner[j]] += p[j];
        }
    }
}

static void attend(void *argument, size_t begin, size_t end, size_t thread)
{
    const attend_job *job = argument;
    core_stream *s = job->s;
    const core_shape *shape = &s->model->shape;
    size_t group = shape->heads / shape->kv_heads, d = shape->head_size;
    size_t qkv_width = s->q_width + 2 * s->kv_width;
    size_t items = shape->heads / job->heads_at_once;
    float *scores = s->scores + thread * group * s->slots_max;
    kernel_kv kv = {.keys = kv_row(s, s->rotated, job->layer, 0),
                    .values = kv_row(s, s->values, job->layer, 0),
                    .half = !s->kv_f32,
                    .stride = s->kv_width};
    for (size_t item = begin; item < end; item++) {
        size_t t = item / items, head = item % items * job->heads_at_once;
        size_t slots = job->first_slot + t + 1;
        s->kernels->attention(s->attended + t * s->q_width + head * d,
                              s->qkv + t * qkv_width + head * d, job->heads_at_once, d, &kv,
                              head / group * d, slots, d, 1.0f / sqrtf((float)d),
                              s->owned ? s->bias : NULL, scores);
        for (size_t h = 0; s->mass && h < job->heads_at_once; h++) {
            sum_mass(s, scores + h * slots, slots,
                     s->head_mass + (t * shape->heads + head + h) * OWNERS_MAX);
        }
    }
}

typedef struct row_job {
    core_stream *s;
    const float *weight;
    float *to;
} row_job;

static void norm_rows(void *argument, size_t begin, size_t end, size_t thread)
{
    const row_job *job = argument;
    size_t c = job->s->model->shape.channels;
    (void)thread;
    for (size_t t = begin; t < end; t++) {
        job->s->kernels->rmsnorm(job->to + t * c, job->s->x + t * c, job->weight, c,
                                 job->s->model->shape.rms_eps);
    }
}

static void normalise(core_stream *s, const float *weight, size_t tokens)
{
    row_job job = {s, weight, s->normed};
    base_pool_run(tokens > 4 ? s->pool : NULL, tokens, 1, norm_rows, &job);
}

static void activate_rows(void *argument, size_t begin, size_t end, size_t thread)
{
    core_stream *s = ((row_job *)argument)->s;
    size_t f = s->model->shape.feed_forward;
    (void)thread;
    for (size_t t = begin; t < end; t++) {
        float *gate = s->gate_up + t * 2 * f;
        s->kernels->silu_mul(gate, gate + f, f);
        memcpy(s->hidden + t * f, gate, f * sizeof *gate);
    }
}

/* Keys and values of the batch enter their slots; queries and keys are rotated. */
static void enter_slots(core_stream *s, size_t layer, size_t tokens)
{
    size_t width = s->q_width + 2 * s->kv_width;
    for (size_t t = 0; t < tokens; t++) {
        float *q = s->qkv + t * width, *k = q + s->q_width, *v = k + s->kv_width;
        size_t slot = s->slots + t;
        store_row(s, kv_row(s, s->keys, layer, slot), k);
        store_row(s, kv_row(s, s->values, layer, slot), v);
        rotate_key(s, layer, slot, k);
        rotate(s, q, s->model->shape.heads, slot);
    }
}

/* One batch of T <= batch_max tokens through all layers; s->x holds the residual stream at the end.
 * */
static void run_batch(core_stream *s, const int32_t *tokens, size_t count)
{
    const core_model *model = s->model;
    const core_shape *shape = &model->shape;
    for (size_t t = 0; t < count; t++) {
        kernel_matrix_row(&model->embedding, (size_t)tokens[t], s->x + t * shape->channels);
        s->bias[s->slots + t] = 0;
        s->owner[s->slots + t] = 0;
    }
    for (size_t i = 0; i < shape->layers; i++) {
        const core_layer *layer = &model->layers[i];
        normalise(s, layer->attention_norm, count);
        linear(s, &layer->qkv, s->normed, count, s->qkv, s->q_width + 2 * s->kv_width);
        enter_slots(s, i, count);
        /* Few tokens: one head an item, so that threads share evenly; many: heads that share a KV
         * head go together. */
        attend_job job = {s, i, s->slots, count < 4 ? 1 : shape->heads / shape->kv_heads};
        base_pool_run(s->pool, count * (shape->heads / job.heads_at_once), 1, attend, &job);
        for (size_t h = 0; s->mass && h < count * shape->heads; h++) {
            for (size_t o = 0; o < s->owners; o++) {
                s->mass[o] += s->head_mass[h * OWNERS_MAX + o] /
                              (float)(shape->layers * shape->heads);
            }
        }
        linear(s, &layer->output, s->attended, count, s->projected, shape->channels);
        s->kernels->add(s->x, s->projected, count * shape->channels);
        normalise(s, layer->feed_forward_norm, count);
        linear(s, &layer->gate_up, s->normed, count, s->gate_up, 2 * shape->feed_forward);
        row_job rows = {s, NULL, NULL};
        base_pool_run(count > 4 ? s->pool : NULL, count, 1, activate_rows, &rows);
        linear(s, &layer->down, s->hidden, count, s->projected, shape->channels);
        s->kernels->add(s->x, s->projected, count * shape->channels);
    }
    s->slots += count;
    if (s->mass && s->mass_tokens) {
        *s->mass_tokens += count;
    }
}

base_status core_run(core_stream *s, const int32_t *tokens, size_t token_count, float *logits,
                     size_t rows, base_error *err)
{
    const core_shape *shape = &s->model->shape;
    BASE_ASSERT(rows <= token_count);
    if (token_count > s->slots_max - s->slots) {
        return base_fail(err, BASE_LIMIT,
                         "%zu tokens do not fit the window: %zu of %zu slots are free", token_count,
                         s->slots_max - s->slots, s->slots_max);
    }
    for (size_t i = 0; i < token_count; i++) {
        if (tokens[i] < 0 || (size_t)tokens[i] >= shape->vocabulary) {
            return base_fail(err, BASE_INVALID, "token id %d is outside the vocabulary of %zu",
                             (int)tokens[i], shape->vocabulary);
        }
    }
    const kernel_matrix *output = shape->tied_output ? &s->model->embedding : &s->model->output;
    for (size_t done = 0; done < token_count;) {
        size_t count = token_count - done < s->batch_max ? token_count - done : s->batch_max;
        run_batch(s, tokens + done, count);
        /* The rows of this batch that are among the last `rows` tokens. */
        size_t first = token_count - rows > done ? token_count - rows - done : 0;
        if (logits && first < count) {
            normalise(s, s->model->output_norm, count);
            kernel_matmul(s->pool, output, s->normed + first * shape->channels, count - first,
                          logits + (done + first - (token_count - rows)) * shape->vocabulary,
                          shape->vocabulary, s->activations, s->matmul_scratch);
        }
        done += count;
    }
    return BASE_OK;
}
