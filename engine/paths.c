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

void core_see(const core_stream *s, size_t place, size_t window, size_t exact, core_views *out)
{
    size_t half = s->model->shape.head_size / 2, row = place * half;
    size_t sinks = s->sinks < place + 1 ? s->sinks : place + 1;
    const float *cosine = s->place_cosine, *sine = s->place_sine;
    size_t begin = sinks, near = sinks, live = 0, hidden = 0;
    out->count = 0;
    for (size_t i = place + 1; window > 0 && i > sinks && live < window;) {
        live += s->owner[--i] == 0;
        begin = i;
        near = live <= exact ? i : near;
    }
    for (size_t i = sinks; i < begin; i++) {
        hidden += s->owner[i] == 0; /* present but out of sight */
    }
    near = near > begin ? near : begin;
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

typedef struct attend_job {
    core_stream *s;
    size_t plane, fading_plane;
    const core_views *views; /* [tokens] */
    size_t heads_at_once;    /* query heads of one work item */
} attend_job;

/* The share of one head's attention that each owner's slots got. p [count] normalised. */
static void sum_mass(const core_stream *s, const core_view *view, const float *p, float keep,
                     float weight, float *mass)
{
    for (size_t o = 0; o < s->owners; o++) {
        mass[o] *= keep;
    }
    for (size_t j = 0; j < view->count; j++) {
        uint32_t owner = s->owner[view->from + j];
        if (owner < s->owners) {
            mass[owner] += weight * p[j];
        }
    }
}

/* lse of one path for one head. q rotated for it, p its normalised weights; work [D]. */
static float path_lse(const core_stream *s, const core_view *view, const kernel_kv *kv,
                      size_t offset, const float *q, const float *p, float scale, float *work)
{
    size_t d = s->model->shape.head_size, best = 0;
    for (size_t j = 1; j < view->count; j++) {
        best = p[j] > p[best] ? j : best;
    }
    if (!(p[best] > 0.0f)) {
        return -INFINITY; /* every slot has bias -INF */
    }
    size_t at = best * kv->stride + offset;
    const float *key = work;
    if (kv->half) {
        s->kernels->from_half(work, (const uint16_t *)kv->keys + at, d);
    } else {
        key = (const float *)kv->keys + at;
    }
    float score = s->kernels->dot(q, key, d) * scale + s->bias[view->from + best];
    return score - logf(p[best]);
}

/* One work item: some heads of one token, over all its paths. */
static void attend_item(const attend_job *job, size_t t, size_t head, size_t thread)
{
    core_stream *s = job->s;
    const core_shape *shape = &s->model->shape;
    const core_views *views = &job->views[t];
    size_t group = shape->heads / shape->kv_heads, d = shape->head_size, n = job->heads_at_once;
    const float *q = s->qkv + t * (s->q_width + 2 * s->kv_width) + head * d;
    float *out = s->attended + t * s->q_width + head * d;
    float *query = s->query + thread * 2 * group * d, *part = query + group * d;
    float *scores = s->scores + thread * group * s->slots_max;
    float *mass = s->head_mass + (t * shape->heads + head) * CORE_OWNERS_MAX;
    float lse[CORE_GROUP_MAX], scale = 1.0f / sqrtf((float)d), work[CORE_HEAD_MAX];
    if (s->mass) {
        memset(mass, 0, n * CORE_OWNERS_MAX * sizeof *mass);
    }
    for (size_t i = 0; i < views->count; i++) {
        const core_view *view = &views->list[i];
        size_t plane = view->fading ? job->fading_plane : job->plane;
        kernel_kv kv = {.keys = core_kv_row(s, s->rotated, plane, view->from),
                        .values = core_kv_row(s, s->values, plane, view->from),
                        .half = !s->kv_f32,
                        .stride = s->kv_width};
        size_t offset = head / group * d;
        memcpy(query, q, n * d * sizeof *q);
        s->kernels->rope(query, n, d, view->cosine, view->sine, s->model->rope_halves);
        s->kernels->attention(i ? part : out, query, n, d, &kv, offset, view->count, d, scale,
                              s->owned ? s->bias + view->from : NULL, scores);
        for (size_t h = 0; h < n; h++) {
            float keep = 0.0f, weight = 1.0f;
            const float *p = scores + h * view->count;
            if (views->count > 1) {
                float own = path_lse(s, view, &kv, offset, query + h * d, p, scale, work);
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
                sum_mass(s, view, p, keep, weight, mass + h * CORE_OWNERS_MAX);
            }
        }
    }
}

static void attend(void *argument, size_t begin, size_t end, size_t thread)
{
    const attend_job *job = argument;
    size_t items = job->s->model->shape.heads / job->heads_at_once;
    for (size_t item = begin; item < end; item++) {
        attend_item(job, item / items, item % items * job->heads_at_once, thread);
    }
}

void core_attend(core_stream *s, size_t plane, size_t fading_plane, const core_views *views,
                 size_t tokens)
{
    const core_shape *shape = &s->model->shape;
    /* Few tokens: one head an item, so that threads share evenly; many: heads that share a KV head
     * go together. */
    attend_job job = {s, plane, fading_plane, views,
                      tokens < 4 ? 1 : shape->heads / shape->kv_heads};
    base_pool_run(s->pool, tokens * (shape->heads / job.heads_at_once), 1, attend, &job);
    for (size_t h = 0; s->mass && h < tokens * shape->heads; h++) {
        for (size_t o = 0; o < s->owners; o++) {
            s->mass[o] += s->head_mass[h * CORE_OWNERS_MAX + o] /
                          (float)(s->model->attention_planes * shape->heads);
        }
    }
}
