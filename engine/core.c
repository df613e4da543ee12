/* engine/core.c: one running sequence. The forward pass of a model of the llama family, with or
 * without fading or recurrent layers, over a window of slots.
 *
 * Main entry: core_run. Per layer, for T tokens at the end of the window (Touvron et al. 2023; GQA:
 * Ainslie et al. 2023):
 *   u = rmsnorm(x);  q,k,v = Wqkv u;  k is stored as it is, and rotated from what was stored
 *   o_h = softmax_j(q_h.k_j / sqrt(D) + bias_j) v_j over all slots up to the token's own; x += Wo o
 *   x += Wdown (silu(Wgate u') * Wup u'), u' = rmsnorm(x)
 * A recurrent layer has x += mixer(u) in place of attention (mixer.h); Granite's factors: model.h.
 * A slot's position is its index. Keys pass through the stored KV type before they are rotated, so
 * that a block that was copied out and inserted again gives the same bits as the tokens that were
 * run in place. Not here: loading (model.c), what to splice and where (splice.c).
 */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "engine/stream.h"

enum { BATCH_DEFAULT = 64, DEVICE_BATCH_DEFAULT = 512, BESIDE_DEFAULT = 512 };

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

size_t core_options_window(const core_model *model, const core_stream_options *o)
{
    return o->hybrid && model->fading_layers > 0 ? model->attention_window : o->window;
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
    s->device = o->device != NULL;
    s->batch_max = o->batch_max ? o->batch_max : s->device ? DEVICE_BATCH_DEFAULT : BATCH_DEFAULT;
    s->hybrid = o->hybrid && model->fading_layers > 0;
    s->splice_state = o->splice_state;
    s->mixing = s->hybrid || model->mixer_layers > model->fading_layers;
    s->planes = model->attention_planes + (s->hybrid ? model->fading_layers : 0);
    s->window = core_options_window(model, o);
    s->sinks_min = s->hybrid ? model->sinks_min : CORE_SINKS_MIN;
    s->sinks = s->sinks_min;
    if (s->mixing) {
        core_fading_sizes(s);
    }
    if (s->window == 0 && !s->kv_f32 && s->slots_max >= CORE_COARSE_MIN) {
        size_t group = KERNEL_COARSE_GROUP;
        s->coarse_slots = (s->slots_max + group - 1) / group * group;
    }
    if (s->window > 0) { /* live slots, and beside them what slots_max says */
        s->slots_max = s->window + CORE_ROLLBACK + s->batch_max +
                       (o->slots_max ? o->slots_max : BESIDE_DEFAULT);
    }
}

/* What the CPU works on. */
static void lay_out_arrays(core_stream *s, layout *l)
{
    const core_shape *shape = &s->model->shape;
    size_t slots = s->slots_max, batch = s->batch_max, kv_rows = 0;
    if (!base_size_mul(s->planes, slots, &kv_rows)) {
        l->overflow = true;
        return;
    }
    s->keys = take(l, kv_rows, s->kv_width * s->element);
    s->rotated = take(l, kv_rows, s->kv_width * s->element);
    s->values = take(l, kv_rows, s->kv_width * s->element);
    if (s->coarse_slots > 0) {
        size_t heads = s->planes * shape->kv_heads, coarse = s->coarse_slots;
        size_t parts = (coarse + CORE_COARSE_PART - 1) / CORE_COARSE_PART;
        s->coarse.codes = take(l, heads * coarse, shape->head_size);
        s->coarse.steps = take(l, heads * coarse, sizeof(float));
        s->coarse_peaks = take(l, shape->heads, coarse / KERNEL_COARSE_GROUP * sizeof(float));
        s->head_peaks = take(l, shape->heads, sizeof(float));
        s->chosen = take(l, shape->kv_heads, coarse * sizeof(uint32_t));
        s->part_sums = take(l, parts, shape->heads * sizeof(float));
        s->part_values = take(l, parts, s->q_width * sizeof(float));
    }
    if (s->mixing) {
        size_t layers = s->model->mixer_layers;
        s->mixer_state = take(l, layers, s->mixer_floats * sizeof(float));
        s->mixer_before = take(l, layers, s->mixer_kept * sizeof(float));
        s->mixer_rows = take(l, batch, s->mixer_row * sizeof(float));
        s->mixer_heads = take(l, batch, s->mixer_out * sizeof(float));
        s->mixer_scratch = take(l, 1, s->mixer_scratch_floats * sizeof(float));
        s->mixer_novelty = take(l, CORE_SNAPSHOT_EVERY, s->mixer_head_count * sizeof(float));
    }
    s->x = take(l, batch, shape->channels * sizeof(float));
    s->normed = take(l, batch, shape->channels * sizeof(float));
    s->qkv = take(l, batch, (s->q_width + 2 * s->kv_width) * sizeof(float));
    s->attended = take(l, batch, s->q_width * sizeof(float));
    s->gate_up = take(l, batch, 2 * shape->feed_forward * sizeof(float));
    s->hidden = take(l, batch, shape->feed_forward * sizeof(float));
    s->projected = take(l, batch, shape->channels * sizeof(float));
    size_t heads_at_once = base_pool_threads(s->pool) * (shape->heads / shape->kv_heads);
    s->query = take(l, heads_at_once, 2 * shape->head_size * sizeof(float));
    size_t score_rows = heads_at_once > shape->heads ? heads_at_once : shape->heads;
    s->scores = take(l, score_rows, slots * sizeof(float));
    s->head_sums = take(l, shape->heads, sizeof(float));
    s->head_mass = take(l, batch * shape->heads, CORE_OWNERS_MAX * sizeof(float));
    size_t widest = max3(shape->channels, s->q_width, shape->feed_forward);
    widest = widest > s->mixer_out ? widest : s->mixer_out;
    s->matmul_scratch = take(l, 1, kernel_matmul_scratch(batch, widest));
}

static void lay_out(core_stream *s, layout *l)
{
    const core_shape *shape = &s->model->shape;
    size_t slots = s->slots_max, batch = s->batch_max;
    s->bias = take(l, slots, sizeof(float));
    s->owner = take(l, slots, sizeof(uint32_t));
    s->tokens = take(l, slots, sizeof(int32_t));
    s->cosine = take(l, slots, shape->head_size / 2 * sizeof(float));
    s->sine = take(l, slots, shape->head_size / 2 * sizeof(float));
    s->place_cosine = s->cosine;
    s->place_sine = s->sine;
    if (s->window > 0) {
        s->place_cosine = take(l, slots, shape->head_size / 2 * sizeof(float));
        s->place_sine = take(l, slots, shape->head_size / 2 * sizeof(float));
    }
    s->views = take(l, batch, sizeof(core_views));
    s->row_mass = take(l, batch, CORE_OWNERS_MAX * sizeof(float));
    if (s->hybrid) {
        s->fading_views = take(l, batch, sizeof(core_views));
    }
    if (!s->device) {
        lay_out_arrays(s, l);
    }
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
    if (options->device && options->kv_f32) {
        base_free(s);
        return base_fail(err, BASE_UNSUPPORTED, "keys and values in f32 are there on the CPU only");
    }
    set_sizes(s, model, options);
    if (options->splice_state != CORE_SPLICE_NONE && (options->device || !s->mixing)) {
        base_status status =
            s->mixing ? base_fail(err, BASE_UNSUPPORTED, "memories enter states on the CPU only")
                      : base_fail(err, BASE_INVALID,
                                  "%s: no layer has a recurrent state that memories could enter",
                                  gguf_path(model->file));
        base_free(s);
        return status;
    }
    lay_out(s, &l);
    if (l.overflow || !(s->arena = base_alloc_aligned(l.size))) {
        base_free(s);
        return base_fail(err, BASE_NO_MEMORY, "no memory for a window of %zu slots (%zu MiB)",
                         options->slots_max, l.size >> 20);
    }
    l = (layout){.base = s->arena};
    lay_out(s, &l);
    base_status status = s->device ? gpu_stream_open(options->device, s, &s->gpu, err) : BASE_OK;
    if (status) {
        core_stream_close(s);
        return status;
    }
    s->kernels = kernel_get();
    core_angles(s, 0, s->slots_max);
    if (s->window > 0) {
        size_t bytes = s->slots_max * (model->shape.head_size / 2) * sizeof(float);
        memcpy(s->cosine, s->place_cosine, bytes);
        memcpy(s->sine, s->place_sine, bytes);
    }
    core_stream_clear(s);
    *out = s;
    return BASE_OK;
}

void core_stream_close(core_stream *stream)
{
    if (stream) {
        gpu_stream_close(stream->gpu);
        core_state_forget(stream);
        base_free(stream->memories);
        base_free_aligned(stream->arena);
        base_free(stream);
    }
}

void core_mass_watch(core_stream *s, float *mass, size_t owners, size_t *tokens)
{
    BASE_ASSERT(owners <= CORE_OWNERS_MAX);
    core_mass_sum(s);
    s->mass = mass;
    s->owners = mass ? owners : 0;
    s->mass_tokens = tokens;
}

void core_mass_sum(core_stream *s)
{
    for (size_t t = 0; s->mass && t < s->mass_rows; t++) {
        for (size_t o = 0; o < s->owners; o++) {
            s->mass[o] += s->row_mass[t * CORE_OWNERS_MAX + o];
        }
    }
    if (s->mass && s->mass_tokens) {
        *s->mass_tokens += s->mass_rows;
    }
    s->mass_rows = 0;
}

void core_mass_drop(core_stream *s, size_t count)
{
    s->mass_rows -= count < s->mass_rows ? count : s->mass_rows;
}

float core_mass_of(const core_stream *s, size_t back)
{
    if (back >= s->mass_rows) {
        return NAN;
    }
    const float *row = s->row_mass + (s->mass_rows - 1 - back) * CORE_OWNERS_MAX;
    float share = 0;
    for (size_t o = 1; o < s->owners; o++) { /* owner 0: live tokens */
        share += row[o];
    }
    return share;
}

void core_hidden_watch(core_stream *s, size_t layer, float *sum)
{
    BASE_ASSERT(layer < s->model->shape.layers);
    s->hidden_layer = layer;
    s->hidden_sum = sum;
}

void core_novelty_watch(core_stream *s, float *novelty)
{
    s->novelty = s->mixing && !s->gpu ? novelty : NULL;
    if (novelty) {
        *novelty = NAN;
    }
}

size_t core_rows_floats(const core_model *model, size_t count)
{
    for (size_t i = 0; i < model->shape.layers; i++) {
        if (model->layers[i].fading) {
            return model->mixer_layers * count * mixer_row(&model->layers[i].fading->mixer);
        }
    }
    return 0;
}

void core_rows_watch(core_stream *s, float *rows, size_t count)
{
    BASE_ASSERT(!rows || !s->gpu);
    s->rows = rows;
    s->rows_max = count;
    s->rows_seen = 0;
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

/* x [heads, D] of every token: rmsnorm of each head. */
static void normalise_heads(core_stream *s, float *x, size_t heads, const float *weight,
                            size_t tokens)
{
    size_t d = s->model->shape.head_size;
    for (size_t t = 0; t < tokens; t++) {
        for (size_t h = 0; h < heads; h++) {
            float *head = x + t * (s->q_width + 2 * s->kv_width) + h * d;
            s->kernels->rmsnorm(head, head, weight, d, s->model->shape.rms_eps);
        }
    }
}

static void scale(float *x, size_t count, float factor)
{
    for (size_t i = 0; factor != 1.0f && i < count; i++) {
        x[i] *= factor;
    }
}

/* What some models do to keys and values, from column `from` of qkv on (0: to queries as well). */
static void adjust(core_stream *s, const core_layer *layer, size_t from, size_t tokens)
{
    const core_shape *shape = &s->model->shape;
    size_t width = s->q_width + 2 * s->kv_width;
    for (size_t t = 0; layer->qkv_bias && t < tokens; t++) {
        s->kernels->add(s->qkv + t * width + from, layer->qkv_bias + from, width - from);
    }
    for (size_t t = 0; from == 0 && t < tokens; t++) {
        scale(s->qkv + t * width, s->q_width, s->model->query_scale);
    }
    if (layer->q_norm && from == 0) {
        normalise_heads(s, s->qkv, shape->heads, layer->q_norm, tokens);
    }
    if (layer->k_norm) {
        normalise_heads(s, s->qkv + s->q_width, shape->kv_heads, layer->k_norm, tokens);
    }
}

/* Keys and values of the batch enter their slots. */
static void enter_slots(core_stream *s, size_t plane, size_t tokens)
{
    size_t width = s->q_width + 2 * s->kv_width;
    for (size_t t = 0; t < tokens; t++) {
        float *k = s->qkv + t * width + s->q_width;
        core_kv_enter(s, plane, s->places + t, k, k + s->kv_width);
    }
}

/* What the mixer reads of u = s->normed: rows [T, row]. */
static void project(core_stream *s, const core_fading *f, size_t tokens, float *rows)
{
    size_t width = mixer_row(&f->mixer);
    linear(s, &f->qkv, s->normed, tokens, rows, width);
    linear(s, &f->gates, s->normed, tokens, rows + mixer_conv_width(&f->mixer), width);
}

/* s->projected = mixer(u), u = s->normed. */
static void mix(core_stream *s, const core_fading *f, size_t tokens)
{
    project(s, f, tokens, s->mixer_rows);
    core_fading_run(s, f, tokens);
    linear(s, &f->output, s->mixer_heads, tokens, s->projected, s->model->shape.channels);
}

/* Keys and values of f = mixer(u), or u + mixer(u), u = s->normed, enter the fading plane. */
static void enter_fading(core_stream *s, const core_layer *layer, size_t tokens)
{
    const core_fading *f = layer->fading;
    size_t channels = s->model->shape.channels;
    mix(s, f, tokens);
    if (s->model->fading_residual) {
        s->kernels->add(s->projected, s->normed, tokens * channels);
    }
    linear(s, &layer->kv, s->projected, tokens, s->qkv + s->q_width, s->q_width + 2 * s->kv_width);
    adjust(s, layer, s->q_width, tokens);
    enter_slots(s, s->model->attention_planes + f->plane, tokens);
}

/* s->attended from s->normed. */
static void attention(core_stream *s, const core_layer *layer, size_t tokens)
{
    size_t width = s->q_width + 2 * s->kv_width;
    linear(s, &layer->qkv, s->normed, tokens, s->qkv, width);
    if (layer->kv.part_count > 0) {
        linear(s, &layer->kv, s->normed, tokens, s->qkv + s->q_width, width);
    }
    adjust(s, layer, 0, tokens);
    enter_slots(s, layer->plane, tokens);
    if (s->hybrid && layer->fading) {
        enter_fading(s, layer, tokens);
        core_attend(s, layer->plane, s->model->attention_planes + layer->fading->plane,
                    s->fading_views, tokens);
    } else {
        core_attend(s, layer->plane, 0, s->views, tokens);
    }
}

static void add_hidden(const core_stream *s, size_t count)
{
    size_t channels = s->model->shape.channels;
    for (size_t t = 0; t < count; t++) {
        const float *x = s->x + t * channels;
        double squares = 0;
        for (size_t i = 0; i < channels; i++) {
            squares += (double)x[i] * (double)x[i];
        }
        float scale = squares > 0 ? (float)sqrt((double)channels / squares) : 0;
        for (size_t i = 0; i < channels; i++) {
            s->hidden_sum[i] += scale * x[i];
        }
    }
}

/* The next `count` places are these tokens' (NULL: not known yet), and what each of them sees. */
static void enter_tokens(core_stream *s, const int32_t *tokens, size_t count)
{
    core_mass_sum(s);
    memset(s->row_mass, 0, count * CORE_OWNERS_MAX * sizeof *s->row_mass);
    for (size_t t = 0; t < count; t++) {
        s->bias[s->places + t] = 0;
        s->owner[s->places + t] = 0;
        s->tokens[s->places + t] = tokens ? tokens[t] : 0;
        core_see(s, s->places + t, s->window, s->window, &s->views[t]);
        if (s->hybrid) {
            size_t exact = s->model->exact_window;
            core_see(s, s->places + t, 2 * exact, exact, &s->fading_views[t]);
        }
    }
}

static void keep_tokens(core_stream *s, size_t count)
{
    s->places += count;
    s->run_tokens += count;
    s->rows_seen += count;
    s->mass_rows = s->mass ? count : 0;
}

/* x += projected */
static void add_projected(core_stream *s, size_t count)
{
    size_t values = count * s->model->shape.channels;
    scale(s->projected, values, s->model->residual_scale);
    s->kernels->add(s->x, s->projected, values);
}

static void feed_forward(core_stream *s, const core_layer *layer, size_t count)
{
    const core_shape *shape = &s->model->shape;
    row_job rows = {s, NULL, NULL};
    normalise(s, layer->feed_forward_norm, count);
    linear(s, &layer->gate_up, s->normed, count, s->gate_up, 2 * shape->feed_forward);
    base_pool_run(count > 4 ? s->pool : NULL, count, 1, activate_rows, &rows);
    linear(s, &layer->down, s->hidden, count, s->projected, shape->channels);
    add_projected(s, count);
}

/* One batch of T <= batch_max tokens through all layers; s->x holds the residual stream at the end.
 * */
static void run_batch(core_stream *s, const int32_t *tokens, size_t count)
{
    const core_model *model = s->model;
    const core_shape *shape = &model->shape;
    for (size_t t = 0; t < count; t++) {
        kernel_matrix_row(&model->embedding, (size_t)tokens[t], s->x + t * shape->channels);
    }
    scale(s->x, count * shape->channels, model->embedding_scale);
    s->novelty_sum = 0;
    for (size_t i = 0; i < shape->layers; i++) {
        const core_layer *layer = &model->layers[i];
        normalise(s, layer->attention_norm, count);
        if (s->rows && layer->fading) {
            BASE_ASSERT(s->rows_seen + count <= s->rows_max);
            size_t at = layer->fading->index * s->rows_max + s->rows_seen;
            project(s, layer->fading, count, s->rows + at * mixer_row(&layer->fading->mixer));
        }
        if (layer->recurrent) {
            mix(s, layer->fading, count);
        } else {
            attention(s, layer, count);
            linear(s, &layer->output, s->attended, count, s->projected, shape->channels);
        }
        add_projected(s, count);
        if (layer->feed_forward_norm) {
            feed_forward(s, layer, count);
        }
        if (s->hidden_sum && i == s->hidden_layer) {
            add_hidden(s, count);
        }
    }
    if (s->novelty) {
        *s->novelty = s->novelty_sum / (float)(model->mixer_layers * s->mixer_head_count);
    }
}

/* The same on the device; logits [rows, V] of the last rows. */
static base_status run_on_device(core_stream *s, const int32_t *tokens, size_t count, float *logits,
                                 size_t rows, base_error *err)
{
    if (s->hidden_sum) {
        return base_fail(err, BASE_UNSUPPORTED, "hidden states are watched on the CPU only");
    }
    bool watched = s->mass && s->owned > 0;
    return gpu_run(s->gpu, tokens, count, logits, rows, watched ? s->row_mass : NULL, err);
}

static base_status check_tokens(const core_stream *s, const int32_t *tokens, size_t given,
                                size_t count, base_error *err)
{
    if (s->window == 0 && count > core_slots_free(s)) {
        return base_fail(err, BASE_LIMIT,
                         "%zu tokens do not fit the window: %zu of %zu slots are free", count,
                         core_slots_free(s), s->slots_max);
    }
    for (size_t i = 0; i < given; i++) {
        if (tokens[i] < 0 || (size_t)tokens[i] >= s->model->shape.vocabulary) {
            return base_fail(err, BASE_INVALID, "token id %d is outside the vocabulary of %zu",
                             (int)tokens[i], s->model->shape.vocabulary);
        }
    }
    return BASE_OK;
}

base_status core_run(core_stream *s, const int32_t *tokens, size_t token_count, float *logits,
                     size_t rows, base_error *err)
{
    const core_shape *shape = &s->model->shape;
    BASE_ASSERT(rows <= token_count);
    base_status status = check_tokens(s, tokens, token_count, token_count, err);
    const kernel_matrix *output = shape->tied_output ? &s->model->embedding : &s->model->output;
    for (size_t done = 0; done < token_count && !status;) {
        size_t count = token_count - done < s->batch_max ? token_count - done : s->batch_max;
        if (count > s->slots_max - s->places) {
            core_slide(s);
        }
        /* The rows of this batch that are among the last `rows` tokens. */
        size_t first = token_count - rows > done ? token_count - rows - done : 0;
        size_t here = logits && first < count ? count - first : 0;
        float *to =
            here ? logits + (done + first - (token_count - rows)) * shape->vocabulary : NULL;
        enter_tokens(s, tokens + done, count);
        if (s->gpu) {
            status = run_on_device(s, tokens + done, count, to, here, err);
        } else {
            run_batch(s, tokens + done, count);
            if (here) {
                normalise(s, s->model->output_norm, count);
                kernel_matmul(s->pool, output, s->normed + first * shape->channels, here, to,
                              shape->vocabulary, s->activations, s->matmul_scratch);
                scale(to, here * shape->vocabulary, s->model->logit_scale);
            }
        }
        if (!status) {
            keep_tokens(s, count);
        }
        done += count;
    }
    return status;
}

/* core_greedy on the CPU: the definition. */
static base_status greedy_steps(core_stream *s, int32_t token, size_t count, core_step *steps,
                                base_error *err)
{
    size_t vocabulary = s->model->shape.vocabulary;
    float *logits = base_calloc(vocabulary, sizeof *logits);
    base_status status =
        logits ? BASE_OK : base_fail(err, BASE_NO_MEMORY, "no memory for %zu logits", vocabulary);
    for (size_t i = 0; i < count && !status; i++) {
        if (!(status = core_run(s, &token, 1, logits, 1, err))) {
            float log_sum, entropy;
            size_t best;
            s->kernels->logit_stats(logits, vocabulary, &log_sum, &entropy, &best);
            token = (int32_t)best;
            steps[i] = (core_step){token, log_sum - logits[best], entropy};
        }
    }
    base_free(logits);
    return status;
}

base_status core_greedy(core_stream *s, int32_t token, size_t count, core_step *steps,
                        base_error *err)
{
    base_status status = check_tokens(s, &token, 1, count, err);
    if (status || !s->gpu) {
        return status ? status : greedy_steps(s, token, count, steps, err);
    }
    for (size_t done = 0; done < count && !status;) {
        size_t batch = count - done < s->batch_max ? count - done : s->batch_max;
        if (batch > s->slots_max - s->places) {
            core_slide(s);
        }
        enter_tokens(s, NULL, batch);
        if (!(status = gpu_greedy(s->gpu, token, batch, steps + done, err))) {
            for (size_t i = 0; i < batch; i++) {
                s->tokens[s->places + i] = token;
                token = steps[done + i].token;
            }
            keep_tokens(s, batch);
            s->mass_rows = 0;
        }
        done += batch;
    }
    return status;
}

/* --- several streams -------------------------------------------------------------------------- */

struct core_batch {
    core_stream **streams;
    size_t count;
    gpu_batch *gpu; /* NULL = the CPU */
};

base_status core_batch_open(core_stream *const *streams, size_t count, core_batch **out,
                            base_error *err)
{
    BASE_ASSERT(count > 0);
    core_batch *b = base_calloc(1, sizeof *b);
    gpu_stream **device = base_calloc(count, sizeof(gpu_stream *));
    base_status status = BASE_OK;
    if (b) {
        b->streams = base_calloc(count, sizeof(core_stream *));
        b->count = count;
    }
    if (!b || !b->streams || !device) {
        status = base_fail(err, BASE_NO_MEMORY, "no memory for %zu streams", count);
    }
    for (size_t i = 0; i < count && !status; i++) {
        b->streams[i] = streams[i];
        device[i] = streams[i]->gpu;
        if (!device[i] != !device[0]) {
            status = base_fail(err, BASE_INVALID, "some of the streams are on a device");
        }
        for (size_t k = 0; k < i && !status; k++) {
            if (streams[k] == streams[i]) {
                status = base_fail(err, BASE_INVALID, "streams %zu and %zu are the same", k, i);
            }
        }
    }
    if (!status && device[0]) {
        status = gpu_batch_open(device, count, &b->gpu, err);
    }
    base_free(device);
    if (status) {
        core_batch_close(b);
        return status;
    }
    *out = b;
    return BASE_OK;
}

void core_batch_close(core_batch *b)
{
    if (b) {
        gpu_batch_close(b->gpu);
        base_free(b->streams);
        base_free(b);
    }
}

/* At most GPU_BATCH_STEPS steps on the device. next [streams]: fed, and what was chosen last. */
static base_status batch_steps(core_batch *b, int32_t *next, size_t count, core_step *steps,
                               base_error *err)
{
    for (size_t i = 0; i < b->count; i++) {
        core_stream *s = b->streams[i];
        if (count > s->slots_max - s->places) {
            core_slide(s);
        }
        enter_tokens(s, NULL, count);
    }
    base_status status = gpu_batch_greedy(b->gpu, next, count, steps, err);
    for (size_t i = 0; i < b->count && !status; i++) {
        core_stream *s = b->streams[i];
        for (size_t t = 0; t < count; t++) {
            s->tokens[s->places + t] = next[i];
            next[i] = steps[t * b->count + i].token;
        }
        keep_tokens(s, count);
        s->mass_rows = 0;
    }
    return status;
}

base_status core_batch_greedy(core_batch *b, const int32_t *tokens, size_t count, core_step *steps,
                              base_error *err)
{
    base_status status = BASE_OK;
    size_t most = GPU_BATCH_STEPS;
    int32_t *next = base_calloc(b->count, sizeof *next);
    core_step *own = base_calloc(count, sizeof *own); /* the CPU's, of one stream */
    if (!next || !own) {
        status = base_fail(err, BASE_NO_MEMORY, "no memory for %zu steps", count);
    }
    for (size_t i = 0; i < b->count && !status; i++) {
        next[i] = tokens[i];
        most = b->streams[i]->batch_max < most ? b->streams[i]->batch_max : most;
        status = check_tokens(b->streams[i], &tokens[i], 1, count, err);
    }
    for (size_t i = 0; i < b->count && !b->gpu && !status; i++) {
        status = greedy_steps(b->streams[i], tokens[i], count, own, err);
        for (size_t t = 0; t < count; t++) {
            steps[t * b->count + i] = own[t];
        }
    }
    for (size_t done = 0, some; b->gpu && done < count && !status; done += some) {
        some = count - done < most ? count - done : most;
        status = batch_steps(b, next, some, steps + done * b->count, err);
    }
    base_free(next);
    base_free(own);
    return status;
}
