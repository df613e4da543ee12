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
    BLOCK_VALUES = 256, /* slots whose values are read by a group's heads before the next ones */
    FEW_TOKENS = 16     /* in one pass give the bits of as many passes */
};

typedef struct attend_job {
    core_stream *s;
    size_t plane, fading_plane;
    const core_views *views;     /* [tokens] */
    size_t token;                /* the one that goes by coarse keys */
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
                                  job->views->list[0].count, NULL, s->head_sums + begin);
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

/* --- one token that sees very many: coarse keys first -------------------------------------------
 *
 * Of 8,000 slots three quarters get less than 2^-14 of the largest weight in each of a group's
 * heads. Keys in 8 bits tell which (an eighth of a nat is plenty), so that nothing else is read of
 * those: they count as absent. Scores above 2^-6 of the largest weight are then made from the keys
 * themselves, the others stay as they are: their errors are small and average out. On text at a
 * depth of 7,800 that is a mean KL of 0.00005 nats, where 8-bit activations alone are 0.003.
 *
 * Slots are taken in parts of a fixed size that are added in order, and what a token does depends
 * on what it sees, so bits depend neither on threads nor on the tokens that run beside.
 */

static const float chosen_log = -9.7040605f; /* ln 2^-14 */
static const float exact_log = -4.1588831f;  /* ln 2^-6 */

/* The heads of a group, of the job's token. */
static float *group_query(const attend_job *job, size_t group)
{
    const core_stream *s = job->s;
    const core_shape *shape = &s->model->shape;
    size_t width = s->q_width + 2 * s->kv_width, n = shape->heads / shape->kv_heads;
    return s->qkv + job->token * width + group * n * shape->head_size;
}

static const core_view *sole_view(const attend_job *job)
{
    return &job->views[job->token].list[0];
}

static void score_coarsely(void *argument, size_t begin, size_t end, size_t thread)
{
    enum { GROUP = KERNEL_COARSE_GROUP };
    const attend_job *job = argument;
    core_stream *s = job->s;
    const core_shape *shape = &s->model->shape;
    size_t n = shape->heads / shape->kv_heads, d = shape->head_size;
    size_t count = sole_view(job)->count, blocks = blocks_of(count, GROUP);
    size_t row = s->coarse_slots / GROUP;
    (void)thread;
    while (begin < end) {
        size_t group = begin / blocks, first = begin % blocks;
        size_t left = blocks - first, some = end - begin < left ? end - begin : left;
        size_t from = first * GROUP, slots = some < left ? some * GROUP : count - from;
        kernel_coarse_keys keys = core_coarse_keys(s, job->plane, group, from);
        s->kernels->coarse_scores(s->scores + group * n * s->slots_max + from, s->slots_max,
                                  s->coarse_peaks + group * n * row + first, row,
                                  group_query(job, group), n, d, &keys, slots, d,
                                  1.0f / sqrtf((float)d));
        begin += some;
    }
}

static void find_peaks(core_stream *s, size_t blocks)
{
    for (size_t h = 0; h < s->model->shape.heads; h++) {
        const float *peak = s->coarse_peaks + h * (s->coarse_slots / KERNEL_COARSE_GROUP);
        s->head_peaks[h] = peak[0];
        for (size_t i = 1; i < blocks; i++) {
            s->head_peaks[h] = peak[i] > s->head_peaks[h] ? peak[i] : s->head_peaks[h];
        }
    }
}

/* Scores of the `count` places in kv->list, in place of coarse ones; scores: those of place `from`
 * on. */
static void score_exactly(const attend_job *job, const kernel_kv *kv, size_t group, size_t count,
                          size_t from, float *scores)
{
    enum { SOME = 256, HEADS = 8 };
    core_stream *s = job->s;
    size_t n = s->model->shape.heads / s->model->shape.kv_heads, d = s->model->shape.head_size;
    float work[HEADS * SOME];
    for (size_t item = 0; item < blocks_of(count, SOME) * blocks_of(n, HEADS); item++) {
        size_t first = item / blocks_of(n, HEADS) * SOME, h = item % blocks_of(n, HEADS) * HEADS;
        size_t some = count - first < SOME ? count - first : SOME;
        size_t heads = n - h < HEADS ? n - h : HEADS;
        kernel_kv part = *kv;
        part.list += first;
        s->kernels->attention_scores(work, SOME, group_query(job, group) + h * d, heads, d, &part,
                                     0, some, d, 1.0f / sqrtf((float)d), NULL);
        for (size_t k = 0; k < heads * some; k++) {
            size_t at = part.list[k % some] - from;
            scores[(h + k / some) * s->slots_max + at] = work[k / some * SOME + k % some];
        }
    }
}

/* Places of a part where any of a group's heads scores at least its peak + log. */
static size_t choose_places(const attend_job *job, size_t group, size_t from, size_t count,
                            const float *scores, float log, uint32_t *list)
{
    const core_stream *s = job->s;
    size_t n = s->model->shape.heads / s->model->shape.kv_heads;
    float bounds[CORE_GROUP_MAX];
    for (size_t h = 0; h < n; h++) {
        bounds[h] = s->head_peaks[group * n + h] + log;
    }
    return s->kernels->coarse_choose(list, scores, s->slots_max, n, bounds, count, from);
}

static void attend_part(const attend_job *job, size_t group, size_t part)
{
    core_stream *s = job->s;
    const core_shape *shape = &s->model->shape;
    size_t n = shape->heads / shape->kv_heads, d = shape->head_size, head = group * n;
    size_t from = part * CORE_COARSE_PART, left = sole_view(job)->count - from;
    size_t count = left < CORE_COARSE_PART ? left : CORE_COARSE_PART;
    float *scores = s->scores + head * s->slots_max + from, ones[CORE_GROUP_MAX];
    uint32_t *list = s->chosen + group * s->coarse_slots + from;
    kernel_kv kv = view_kv(job, sole_view(job), group);
    kv.list = list;
    size_t exact = choose_places(job, group, from, count, scores, exact_log, list);
    score_exactly(job, &kv, group, exact, from, scores);
    count = choose_places(job, group, from, count, scores, chosen_log, list);
    for (size_t h = 0; h < n; h++) {
        float *row = scores + h * s->slots_max;
        for (size_t j = 0; j < count; j++) {
            row[j] = row[list[j] - from];
        }
        ones[h] = 1.0f;
    }
    s->kernels->attention_weights(scores, s->slots_max, n, count, s->head_peaks + head,
                                  s->part_sums + part * shape->heads + head);
    s->kernels->attention_values(s->part_values + part * s->q_width + head * d, d, scores,
                                 s->slots_max, ones, n, &kv, 0, count, d, false);
}

static void attend_parts(void *argument, size_t begin, size_t end, size_t thread)
{
    const attend_job *job = argument;
    size_t parts = blocks_of(sole_view(job)->count, CORE_COARSE_PART);
    (void)thread;
    for (size_t item = begin; item < end; item++) {
        attend_part(job, item / parts, item % parts);
    }
}

/* out [H*D] = the parts' sum, normalised. */
static void add_parts(core_stream *s, size_t parts, float *out)
{
    const core_shape *shape = &s->model->shape;
    memcpy(out, s->part_values, s->q_width * sizeof *out);
    for (size_t i = 1; i < parts; i++) {
        s->kernels->add(out, s->part_values + i * s->q_width, s->q_width);
        s->kernels->add(s->part_sums, s->part_sums + i * shape->heads, shape->heads);
    }
    for (size_t i = 0; i < s->q_width; i++) {
        out[i] /= s->part_sums[i / shape->head_size];
    }
}

static void attend_coarsely(attend_job *job)
{
    core_stream *s = job->s;
    const core_shape *shape = &s->model->shape;
    const core_view *view = sole_view(job);
    size_t blocks = blocks_of(view->count, KERNEL_COARSE_GROUP);
    size_t parts = blocks_of(view->count, CORE_COARSE_PART);
    s->kernels->rope(group_query(job, 0), shape->heads, shape->head_size, view->cosine, view->sine,
                     s->model->rope_halves);
    base_pool_run(s->pool, shape->kv_heads * blocks, 1, score_coarsely, job);
    find_peaks(s, blocks);
    base_pool_run(s->pool, shape->kv_heads * parts, 1, attend_parts, job);
    add_parts(s, parts, s->attended + job->token * s->q_width);
    for (size_t h = 0; s->mass && h < shape->heads; h++) {
        float *mass = s->head_mass + (job->token * shape->heads + h) * CORE_OWNERS_MAX;
        memset(mass, 0, CORE_OWNERS_MAX * sizeof *mass);
        mass[0] = 1.0f; /* no slot has an owner */
    }
}

static bool sees_very_many(const core_stream *s, const core_views *views)
{
    return s->coarse_slots > 0 && s->owned == 0 && views->count == 1 &&
           views->list[0].count >= CORE_COARSE_MIN;
}

void core_attend(core_stream *s, size_t plane, size_t fading_plane, const core_views *views,
                 size_t tokens)
{
    const core_shape *shape = &s->model->shape;
    attend_job job = {.s = s, .plane = plane, .fading_plane = fading_plane, .views = views};
    if (s->mass && s->owned > 0) {
        find_owned(&job, s->places + tokens);
    }
    size_t exact = tokens; /* so many see all there is exactly; each token sees more than before */
    while (tokens <= FEW_TOKENS && exact > 0 && sees_very_many(s, &views[exact - 1])) {
        exact--;
    }
    if (exact == 1 && views->count == 1 && views->list[0].count >= FAR_SLOTS) {
        attend_far(&job);
    } else {
        base_pool_run(s->pool, exact * shape->kv_heads, 1, attend, &job);
    }
    for (job.token = exact; job.token < tokens; job.token++) {
        attend_coarsely(&job);
    }
    for (size_t h = 0; s->mass && h < tokens * shape->heads; h++) {
        float *mass = s->row_mass + h / shape->heads * CORE_OWNERS_MAX;
        for (size_t o = 0; o < s->owners; o++) {
            mass[o] += s->head_mass[h * CORE_OWNERS_MAX + o] /
                       (float)(s->model->attention_planes * shape->heads);
        }
    }
}
