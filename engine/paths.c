/* engine/paths.c: what a token sees, and attention over it.
 *
 *   sinks | memories whose neighbours have left | fading | exact window and memories in it
 *
 * Positions are contiguous over what a token sees (semantics §5). Keys lie rotated to their slots;
 * where tokens between a path and the query are out of sight, the query is turned back by as many
 * positions for that path, which is the same thing, as rotation only knows differences.
 *
 * The paths share one softmax: each gives its own attention o_p and the log-sum-exp of its scores,
 * and o = sum_p e^(lse_p - lse) o_p with lse = log sum_p e^lse_p (Milakov & Gimelshein 2018). The
 * kernel returns normalised weights; the largest of a path is e^0 / l, so l = 1 / p_max and
 * lse = score_max - log p_max.
 */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "engine/stream.h"

static void see(core_views *v, size_t from, size_t to, const float *cosine, const float *sine,
                bool fading)
{
    core_view *last = v->count ? &v->list[v->count - 1] : NULL;
    if (from == to) {
        return;
    }
    if (last && last->from + last->count == from && last->cosine == cosine &&
        last->fading == fading) {
        last->count += to - from;
        return;
    }
    BASE_ASSERT(v->count < CORE_VIEWS_MAX);
    v->list[v->count++] = (core_view){from, to - from, cosine, sine, fading};
}

core_sight core_look(const core_stream *s, size_t place, size_t window, size_t exact)
{
    size_t sinks = s->sinks < place + 1 ? s->sinks : place + 1, live = 0;
    core_sight sight = {.sinks = sinks, .begin = sinks, .near = sinks};
    for (size_t i = place + 1; window > 0 && i > sinks && live < window;) {
        live += s->owner[--i] == 0;
        sight.begin = i;
        sight.near = live <= exact ? i : sight.near;
    }
    for (size_t i = sinks; i < sight.begin; i++) {
        sight.hidden += s->owner[i] == 0; /* present but out of sight */
    }
    sight.near = sight.near > sight.begin ? sight.near : sight.begin;
    return sight;
}

void core_see(const core_stream *s, size_t place, size_t window, size_t exact, core_views *out)
{
    size_t half = s->model->shape.head_size / 2, row = place * half;
    core_sight sight = core_look(s, place, window, exact);
    size_t sinks = sight.sinks, begin = sight.begin, near = sight.near, hidden = sight.hidden;
    const float *cosine = s->place_cosine, *sine = s->place_sine;
    out->count = 0;
    if (hidden == 0 && s->gone == 0) {
        see(out, 0, sinks, cosine + row, sine + row, false);
    } else {
        size_t rank = (place - hidden) * half;
        see(out, 0, sinks, s->cosine + rank, s->sine + rank, false);
    }
    for (size_t i = sinks; i < begin; i++) {
        if (s->owner[i] == 0) {
            hidden--;
        } else {
            size_t back = (place - hidden) * half;
            see(out, i, i + 1, cosine + back, sine + back, false);
        }
    }
    for (size_t i = begin; i < near; i++) {
        see(out, i, i + 1, cosine + row, sine + row, s->owner[i] == 0);
    }
    see(out, near, place + 1, cosine + row, sine + row, false);
}

/* --- attention -------------------------------------------------------------------------------- */

enum {
    FAR_SLOTS = 192,    /* from here on one token's attention is worth three loops over the pool */
    BLOCK_SLOTS = 64,   /* of scores that stay together; a multiple of every kernel's own step */
    BLOCK_COLUMNS = 32, /* of values, the least that a thread takes */
    BLOCK_VALUES = 256  /* slots whose values are read by a group's heads before the next ones */
};

typedef struct attend_job {
    core_stream *s;
    size_t plane, fading_plane;
    const core_views *views;     /* [tokens] */
    size_t owned_from, owned_to; /* places between which all owned ones lie */
} attend_job;

/* The share of one head's attention that each owner's slots got, given p [count] in all: weight is
 * what normalises p, times the path's share. */
static void sum_mass(const attend_job *job, const core_view *view, const float *p, float keep,
                     float share, float weight, float *mass)
{
    const core_stream *s = job->s;
    size_t from = job->owned_from > view->from ? job->owned_from : view->from;
    size_t end = view->from + view->count, to = job->owned_to < end ? job->owned_to : end;
    float others = 0.0f;
    for (size_t o = 0; o < s->owners; o++) {
        mass[o] *= keep;
    }
    for (size_t place = from; place < to; place++) {
        uint32_t owner = s->owner[place];
        float part = weight * p[place - view->from];
        others += owner > 0 ? part : 0.0f;
        if (owner > 0 && owner < s->owners) {
            mass[owner] += part;
        }
    }
    mass[0] += share - others; /* live tokens: the rest */
}

static void find_owned(attend_job *job, size_t places)
{
    const core_stream *s = job->s;
    job->owned_from = places;
    for (size_t i = 0; i < places; i++) {
        if (s->owner[i] != 0) {
            job->owned_from = i < job->owned_from ? i : job->owned_from;
            job->owned_to = i + 1;
        }
    }
}

/* A KV head's keys and values in a view. */
static kernel_kv view_kv(const attend_job *job, const core_view *view, size_t group)
{
    const core_stream *s = job->s;
    size_t plane = view->fading ? job->fading_plane : job->plane;
    return (kernel_kv){.keys = core_head_row(s, s->rotated, plane, group, view->from),
                       .values = core_head_row(s, s->values, plane, group, view->from),
                       .half = !s->kv_f32,
                       .stride = s->model->shape.head_size};
}

/* lse of one path for one head. q rotated for it, p its normalised weights; work [D]. */
static float path_lse(const core_stream *s, const core_view *view, const kernel_kv *kv,
                      const float *q, const float *p, float scale, float *work)
{
    size_t d = s->model->shape.head_size, best = 0;
    for (size_t j = 1; j < view->count; j++) {
        best = p[j] > p[best] ? j : best;
    }
    if (!(p[best] > 0.0f)) {
        return -INFINITY; /* every slot has bias -INF */
    }
    size_t at = best * kv->stride;
    const float *key = work;
    if (kv->half) {
        s->kernels->from_half(work, (const uint16_t *)kv->keys + at, d);
    } else {
        key = (const float *)kv->keys + at;
    }
    float score = s->kernels->dot(q, key, d) * scale + s->bias[view->from + best];
    return score - logf(p[best]);
}

/* One work item: the heads of one token that share a KV head, over all its paths. */
static void attend_item(const attend_job *job, size_t t, size_t group, size_t thread)
{
    core_stream *s = job->s;
    const core_shape *shape = &s->model->shape;
    const core_views *views = &job->views[t];
    size_t n = shape->heads / shape->kv_heads, d = shape->head_size, head = group * n;
    const float *q = s->qkv + t * (s->q_width + 2 * s->kv_width) + head * d;
    float *out = s->attended + t * s->q_width + head * d;
    float *query = s->query + thread * 2 * n * d, *part = query + n * d;
    float *scores = s->scores + thread * n * s->slots_max;
    float *mass = s->head_mass + (t * shape->heads + head) * CORE_OWNERS_MAX;
    float lse[CORE_GROUP_MAX], scale = 1.0f / sqrtf((float)d), work[CORE_HEAD_MAX];
    if (s->mass) {
        memset(mass, 0, n * CORE_OWNERS_MAX * sizeof *mass);
    }
    for (size_t i = 0; i < views->count; i++) {
        const core_view *view = &views->list[i];
        kernel_kv kv = view_kv(job, view, group);
        memcpy(query, q, n * d * sizeof *q);
        s->kernels->rope(query, n, d, view->cosine, view->sine, s->model->rope_halves);
        kernel_attention(s->kernels, i ? part : out, query, n, d, &kv, 0, view->count, d, scale,
                         s->owned ? s->bias + view->from : NULL, scores);
        for (size_t h = 0; h < n; h++) {
            float keep = 0.0f, weight = 1.0f;
            const float *p = scores + h * view->count;
            if (views->count > 1) {
                float own = path_lse(s, view, &kv, query + h * d, p, scale, work);
                float all = i ? fmaxf(lse[h], own) : own;
                if (i && all > -INFINITY) {
                    all += logf(expf(lse[h] - all) + expf(own - all));
                    keep = expf(lse[h] - all);
                    weight = expf(own - all);
                    for (size_t c = 0; c < d; c++) {
                        out[h * d + c] = keep * out[h * d + c] + weight * part[h * d + c];
                    }
                }
                lse[h] = all;
            }
            if (s->mass) {
                sum_mass(job, view, p, keep, weight, weight, mass + h * CORE_OWNERS_MAX);
            }
        }
    }
}

static void attend(void *argument, size_t begin, size_t end, size_t thread)
{
    const attend_job *job = argument;
    size_t groups = job->s->model->shape.kv_heads;
    for (size_t item = begin; item < end; item++) {
        attend_item(job, item / groups, item % groups, thread);
    }
}

/* --- one token that sees many slots in one path: each step is shared out on its own ----------- */

static size_t blocks_of(size_t count, size_t size)
{
    return (count + size - 1) / size;
}

static void score_slots(void *argument, size_t begin, size_t end, size_t thread)
{
    const attend_job *job = argument;
    core_stream *s = job->s;
    const core_shape *shape = &s->model->shape;
    const core_view *view = &job->views->list[0];
    size_t n = shape->heads / shape->kv_heads, d = shape->head_size;
    size_t blocks = blocks_of(view->count, BLOCK_SLOTS);
    (void)thread;
    for (size_t item = begin; item < end; item++) {
        size_t group = item / blocks, from = item % blocks * BLOCK_SLOTS;
        size_t count = view->count - from < BLOCK_SLOTS ? view->count - from : BLOCK_SLOTS;
        core_view part = {.from = view->from + from, .count = count};
        kernel_kv kv = view_kv(job, &part, group);
        s->kernels->attention_scores(s->scores + group * n * s->slots_max + from, s->slots_max,
                                     s->qkv + group * n * d, n, d, &kv, 0, count, d,
                                     1.0f / sqrtf((float)d), s->owned ? s->bias + part.from : NULL);
    }
}

static void weigh_slots(void *argument, size_t begin, size_t end, size_t thread)
{
    const attend_job *job = argument;
    core_stream *s = job->s;
    (void)thread;
    s->kernels->attention_weights(s->scores + begin * s->slots_max, s->slots_max, end - begin,
                                  job->views->list[0].count, s->head_sums + begin);
    for (size_t h = begin; h < end; h++) {
        s->head_sums[h] = s->head_sums[h] > 0.0f ? 1.0f / s->head_sums[h] : 0.0f;
    }
}

/* Columns [column, column + columns) of a group's heads. */
static void add_columns(const attend_job *job, size_t group, size_t column, size_t columns)
{
    core_stream *s = job->s;
    const core_shape *shape = &s->model->shape;
    const core_view *view = &job->views->list[0];
    size_t n = shape->heads / shape->kv_heads, d = shape->head_size;
    float ones[CORE_GROUP_MAX];
    for (size_t h = 0; h < n; h++) {
        ones[h] = 1.0f;
    }
    for (size_t from = 0; from < view->count; from += BLOCK_VALUES) {
        size_t left = view->count - from, count = left < BLOCK_VALUES ? left : BLOCK_VALUES;
        core_view part = {.from = view->from + from, .count = count};
        kernel_kv kv = view_kv(job, &part, group);
        s->kernels->attention_values(s->attended + group * n * d + column, d,
                                     s->scores + group * n * s->slots_max + from, s->slots_max,
                                     count < left ? ones : s->head_sums + group * n, n, &kv, column,
                                     count, columns, from > 0);
    }
}

static void add_values(void *argument, size_t begin, size_t end, size_t thread)
{
    const attend_job *job = argument;
    size_t d = job->s->model->shape.head_size, blocks = blocks_of(d, BLOCK_COLUMNS);
    (void)thread;
    for (size_t item = begin; item < end;) {
        size_t group = item / blocks, column = item % blocks * BLOCK_COLUMNS;
        size_t last = (group + 1) * blocks < end ? (group + 1) * blocks : end;
        size_t stop = (last - group * blocks) * BLOCK_COLUMNS;
        add_columns(job, group, column, (stop < d ? stop : d) - column);
        item = last;
    }
}

static void attend_far(attend_job *job)
{
    core_stream *s = job->s;
    const core_shape *shape = &s->model->shape;
    const core_view *view = &job->views->list[0];
    size_t groups = shape->kv_heads;
    s->kernels->rope(s->qkv, shape->heads, shape->head_size, view->cosine, view->sine,
                     s->model->rope_halves);
    base_pool_run(s->pool, groups * blocks_of(view->count, BLOCK_SLOTS), 1, score_slots, job);
    base_pool_run(s->pool, shape->heads, 1, weigh_slots, job);
    base_pool_run(s->pool, groups * blocks_of(shape->head_size, BLOCK_COLUMNS), 1, add_values, job);
    for (size_t h = 0; s->mass && h < shape->heads; h++) {
        float *mass = s->head_mass + h * CORE_OWNERS_MAX;
        memset(mass, 0, CORE_OWNERS_MAX * sizeof *mass);
        sum_mass(job, view, s->scores + h * s->slots_max, 0.0f, 1.0f, s->head_sums[h], mass);
    }
}

void core_attend(core_stream *s, size_t plane, size_t fading_plane, const core_views *views,
                 size_t tokens)
{
    const core_shape *shape = &s->model->shape;
    attend_job job = {.s = s, .plane = plane, .fading_plane = fading_plane, .views = views};
    if (s->mass && s->owned > 0) {
        find_owned(&job, s->places + tokens);
    }
    if (tokens == 1 && views->count == 1 && views->list[0].count >= FAR_SLOTS) {
        attend_far(&job);
    } else {
        base_pool_run(s->pool, tokens * shape->kv_heads, 1, attend, &job);
    }
    for (size_t h = 0; s->mass && h < tokens * shape->heads; h++) {
        float *mass = s->row_mass + h / shape->heads * CORE_OWNERS_MAX;
        for (size_t o = 0; o < s->owners; o++) {
            mass[o] += s->head_mass[h * CORE_OWNERS_MAX + o] /
                       (float)(s->model->attention_planes * shape->heads);
        }
    }
}
