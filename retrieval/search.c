/* retrieval/search.c: candidates from vectors and BM25 -> cut at as-of -> fused score -> collapsed,
 * best first.
 *
 * 1. The nearest vectors (segments and tail) and the best BM25 hits are united. FAISS cannot filter
 * here by time, so more are fetched, four times as many a round, until enough are known at as_of or
 * all were seen. Where so many are not enough, few are known then: those are all compared.
 * Of a thing that changed often, the versions before crowd out the present one; so, with strength,
 * what replaced a closed candidate joins them.
 * 2. Each candidate's record gives the times in its text, and its exact cosine where only BM25
 * found it.
 * 3. rank.h scores it. With strength, of two candidates that say nearly the same the one observed
 * later goes first (twins; rank.h).
 * 4. Equal texts of one title or document are one hit: the newest known at as_of.
 */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/text.h"
#include "retrieval/internal.h"
#include "retrieval/rank.h"

#define RESULTS_MAX 256
#define FETCH_MIN 96   /* nearest vectors asked for at least */
#define FETCH_MAX 6144 /* and at most; of a million, about what 1 ms of comparing sees */
#define TEXT_MIN 64    /* BM25 hits asked for at least */
#define READ_MIN 96    /* candidates whose records are read at least */
#define TWINS_MAX 48   /* candidates compared with one another */
#define CHAIN_MAX 4096 /* replacements followed from one candidate */

typedef retrieval_candidate candidate;
typedef retrieval_candidates candidates;

void retrieval_candidates_free(candidates *c)
{
    for (size_t i = 0; i < c->count; i++) {
        if (c->items[i].episode.id != 0) {
            store_episode_free(&c->items[i].episode);
        }
    }
    base_free(c->items);
    *c = (candidates){0};
}

static int by_id(const void *a, const void *b)
{
    const candidate *x = a, *y = b;
    if (x->id != y->id) {
        return x->id < y->id ? -1 : 1;
    }
    return (int)y->has_similarity - (int)x->has_similarity;
}

/* Best first; equal scores: the later observed, then the larger id. */
static int by_score(const void *a, const void *b)
{
    const candidate *x = a, *y = b;
    if (x->score != y->score) {
        return x->score > y->score ? -1 : 1;
    }
    if (x->brief.observed_at_us != y->brief.observed_at_us) {
        return x->brief.observed_at_us > y->brief.observed_at_us ? -1 : 1;
    }
    return x->id == y->id ? 0 : x->id > y->id ? -1 : 1;
}

typedef struct both_clocks {
    double wall_ms, cpu_ms;
} both_clocks;

static both_clocks now(void)
{
    return (both_clocks){base_clock_ms(), base_clock_thread_ms()};
}

static void add_since(const both_clocks *begin, double *wall_ms, double *cpu_ms)
{
    both_clocks end = now();
    *wall_ms += end.wall_ms - begin->wall_ms;
    *cpu_ms += end.cpu_ms - begin->cpu_ms;
}

/* --- 1. candidates --------------------------------------------------------------------------- */

static int by_similarity(const void *a, const void *b)
{
    const retrieval_near *x = a, *y = b;
    if (x->similarity != y->similarity) {
        return x->similarity > y->similarity ? -1 : 1;
    }
    return x->id == y->id ? 0 : x->id < y->id ? -1 : 1;
}

/* Vectors held, forgotten ones included. */
static size_t vector_count(const retrieval *r)
{
    size_t n = r->tail.count;
    for (size_t i = 0; i < r->manifest.count; i++) {
        n += retrieval_faiss_count(r->segments[i]);
    }
    return n;
}

base_status retrieval_nearest(const retrieval *r, const float *vector, size_t wanted,
                              retrieval_near **near, size_t *count, base_error *err)
{
    size_t parts = r->manifest.count + 1;
    size_t bytes;
    if (!base_size_mul(parts * wanted, sizeof **near, &bytes)) {
        return base_fail(err, BASE_NO_MEMORY, "no memory for %zu candidates", wanted);
    }
    retrieval_near *all = base_alloc(bytes);
    if (!all) {
        return base_fail(err, BASE_NO_MEMORY, "no memory for %zu candidates", wanted);
    }
    size_t n = 0;
    for (size_t i = 0; i < r->manifest.count; i++) {
        size_t found;
        base_status status =
            retrieval_faiss_search(r->segments[i], vector, wanted, all + n, &found, err);
        if (status != BASE_OK) {
            base_free(all);
            return status;
        }
        size_t kept = n;
        for (size_t k = n; k < n + found; k++) {
            if (!retrieval_is_dead(r, all[k].id)) {
                all[kept++] = all[k];
            }
        }
        n = kept;
    }
    n += retrieval_flat_search(&r->tail, vector, wanted, all + n);
    qsort(all, n, sizeof *all, by_similarity);
    *near = all;
    *count = n < wanted ? n : wanted;
    return BASE_OK;
}

/* The vector of an episode as the index holds it, borrowed or in room [dim]; NULL: it has none. */
static const float *find_vector(const retrieval *r, uint64_t id, float *room)
{
    const retrieval_faiss *segment = retrieval_segment_of(r, id);
    if (retrieval_is_dead(r, id)) {
        return NULL;
    }
    if (segment) {
        return retrieval_faiss_get(segment, id, room) ? room : NULL;
    }
    return retrieval_flat_get(&r->tail, id);
}

/* As retrieval_nearest, among what was observed at as_of or before: each is compared. */
static base_status nearest_known(const retrieval *r, const retrieval_query *q, size_t wanted,
                                 retrieval_near **near, size_t *count, base_error *err)
{
    uint64_t *ids = NULL;
    size_t known = 0, n = 0;
    base_status status = store_known(r->s, q->as_of_us, &ids, &known, err);
    if (status != BASE_OK) {
        return status;
    }
    retrieval_near *all = base_alloc((known + 1) * sizeof *all);
    float *room = base_alloc(r->dim * sizeof *room);
    if (!all || !room) {
        base_free(all);
        all = NULL;
        status = base_fail(err, BASE_NO_MEMORY, "no memory for %zu candidates", known);
    }
    for (size_t i = 0; i < known && status == BASE_OK; i++) {
        const float *v = find_vector(r, ids[i], room);
        if (v) {
            all[n++] = (retrieval_near){ids[i], retrieval_dot(q->vector, v, r->dim)};
        }
    }
    if (status == BASE_OK) {
        qsort(all, n, sizeof *all, by_similarity);
        *near = all;
        *count = n < wanted ? n : wanted;
    }
    base_free(room);
    base_free(ids);
    return status;
}

static base_status unite(const retrieval_near *near, size_t near_count, const store_text_hit *text,
                         size_t text_count, candidates *out, base_error *err)
{
    candidate *items = base_calloc(near_count + text_count + 1, sizeof *items);
    if (!items) {
        return base_fail(err, BASE_NO_MEMORY, "no memory for %zu candidates",
                         near_count + text_count);
    }
    size_t n = 0;
    for (size_t i = 0; i < near_count; i++) {
        items[n++] =
            (candidate){.id = near[i].id, .similarity = near[i].similarity, .has_similarity = true};
    }
    for (size_t i = 0; i < text_count; i++) {
        items[n++] = (candidate){.id = text[i].id, .bm25 = text[i].bm25};
    }
    qsort(items, n, sizeof *items, by_id);
    size_t kept = 0;
    for (size_t i = 0; i < n; i++) {
        if (kept > 0 && items[kept - 1].id == items[i].id) {
            items[kept - 1].bm25 += items[i].bm25; /* one of the two is 0 */
        } else {
            items[kept++] = items[i];
        }
    }
    out->items = items;
    out->count = kept;
    return BASE_OK;
}

/* Does the episode exist for a question as of then (semantics §1)? */
static bool is_known(const store_brief *b, int64_t as_of_us)
{
    return b->id != 0 && b->observed_at_us <= as_of_us &&
           (b->valid_from_us == BASE_TIME_NONE || b->valid_from_us <= as_of_us) &&
           (b->valid_to_us == BASE_TIME_NONE || b->valid_to_us > as_of_us);
}

/* Fill in briefs and drop what is not known at as_of. *similar: how many of the rest came from the
 * vectors. */
static base_status cut(const retrieval *r, const retrieval_query *q, candidates *c, size_t *similar,
                       base_error *err)
{
    size_t n = c->count;
    uint64_t *ids = base_alloc((n + 1) * sizeof *ids);
    store_brief *briefs = base_calloc(n + 1, sizeof *briefs);
    base_status status = BASE_OK;
    if (!ids || !briefs) {
        status = base_fail(err, BASE_NO_MEMORY, "no memory for %zu candidates", n);
    } else {
        for (size_t i = 0; i < n; i++) {
            ids[i] = c->items[i].id;
        }
        status = store_get_briefs(r->s, ids, n, q->as_of_us, briefs, err);
    }
    size_t kept = 0;
    *similar = 0;
    for (size_t i = 0; i < n && status == BASE_OK; i++) {
        if (is_known(&briefs[i], q->as_of_us)) {
            c->items[kept] = c->items[i];
            c->items[kept].brief = briefs[i];
            *similar += c->items[kept].has_similarity;
            kept++;
        }
    }
    if (status == BASE_OK) {
        c->count = kept;
    }
    base_free(ids);
    base_free(briefs);
    return status;
}

static base_status gather(const retrieval *r, const retrieval_query *q, candidates *c,
                          base_error *err)
{
    bool use_text = q->use_bm25 && q->text_size > 0;
    size_t text_wanted = 2 * q->k > TEXT_MIN ? 2 * q->k : TEXT_MIN;
    size_t text_count = 0;
    store_text_hit *text = base_alloc(text_wanted * sizeof *text);
    if (!text) {
        return base_fail(err, BASE_NO_MEMORY, "no memory for %zu hits", text_wanted);
    }
    base_status status = BASE_OK;
    retrieval_spans spans = {0};
    both_clocks begin = now();
    if (use_text) {
        status = store_search_text(r->s, q->text, q->text_size, q->as_of_us, text_wanted, text,
                                   &text_count, err);
    }
    add_since(&begin, &spans.wall.text_ms, &spans.cpu.text_ms);
    size_t held = q->vector ? vector_count(r) : 0;
    size_t enough = 2 * q->k > FETCH_MIN / 2 ? 2 * q->k : FETCH_MIN / 2;
    size_t wanted = 4 * q->k > FETCH_MIN ? 4 * q->k : FETCH_MIN;
    for (bool last = false; status == BASE_OK; wanted *= 4) {
        wanted = wanted < held ? wanted : held;
        retrieval_near *near = NULL;
        size_t near_count = 0, similar = 0;
        begin = now();
        if (wanted > FETCH_MAX) {
            last = true;
            status = nearest_known(r, q, FETCH_MAX, &near, &near_count, err);
        } else if (wanted > 0) {
            status = retrieval_nearest(r, q->vector, wanted, &near, &near_count, err);
        }
        add_since(&begin, &spans.wall.near_ms, &spans.cpu.near_ms);
        if (status == BASE_OK) {
            status = unite(near, near_count, text, text_count, c, err);
        }
        base_free(near);
        if (status == BASE_OK) {
            status = cut(r, q, c, &similar, err);
        }
        if (status != BASE_OK || similar >= enough || wanted == held || last) {
            break;
        }
        retrieval_candidates_free(c);
    }
    base_free(text);
    if (q->spans) {
        *q->spans = spans;
    }
    return status;
}

/* Is the episode replaced by another one at as_of? */
static bool is_replaced(const store_brief *b, int64_t as_of_us)
{
    return b->superseded_at_us != BASE_TIME_MAX && b->superseded_at_us <= as_of_us &&
           b->superseded_by != 0;
}

static int id_to_item(const void *key, const void *item)
{
    const uint64_t *id = key;
    const candidate *x = item;
    return (*id > x->id) - (*id < x->id);
}

/* Of the chain of replacements behind a candidate, the end at end_us, unless the chain comes by
 * another candidate: then end->id is 0. The first `count` candidates are sorted by id. */
static base_status follow_chain(const retrieval *r, const retrieval_query *q, int64_t end_us,
                                const candidates *c, size_t count, const store_brief *from,
                                store_brief *end, base_error *err)
{
    store_brief at = *from;
    *end = (store_brief){0};
    for (size_t steps = 0; is_replaced(&at, end_us); steps++) {
        uint64_t next = at.superseded_by;
        if (steps == CHAIN_MAX || bsearch(&next, c->items, count, sizeof *c->items, id_to_item)) {
            return BASE_OK;
        }
        base_status status = store_get_briefs(r->s, &next, 1, q->as_of_us, &at, err);
        if (status != BASE_OK || !is_known(&at, q->as_of_us)) {
            return status;
        }
    }
    *end = at;
    return BASE_OK;
}

static base_status add_successors(const retrieval *r, const retrieval_query *q, int64_t end_us,
                                  candidates *c, base_error *err)
{
    size_t count = c->count;
    for (size_t i = 0; i < count; i++) {
        store_brief end;
        base_status status = BASE_OK;
        if (!is_replaced(&c->items[i].brief, end_us)) {
            continue;
        }
        status = follow_chain(r, q, end_us, c, count, &c->items[i].brief, &end, err);
        bool added = false;
        for (size_t k = count; k < c->count && !added; k++) {
            added = c->items[k].id == end.id;
        }
        if (status != BASE_OK) {
            return status;
        }
        if (end.id != 0 && !added) {
            candidate *grown = base_realloc(c->items, (c->count + 1) * sizeof *grown);
            if (!grown) {
                return base_fail(err, BASE_NO_MEMORY, "no memory for a candidate");
            }
            c->items = grown;
            c->items[c->count++] = (candidate){.id = end.id, .brief = end};
        }
    }
    return BASE_OK;
}

/* The one moment that a question is about: --about, or the end of the only day or month that it
 * names. BASE_TIME_MAX: none, or not a past one. */
static int64_t asked_moment(const retrieval_query *q, const retrieval_times *named)
{
    const int64_t longest = 31 * BASE_DAY_US;
    int64_t at = BASE_TIME_MAX;
    if (q->about_us != BASE_TIME_NONE) {
        at = q->about_us;
    } else if (named->interval_count == 1 && named->intervals[0].from_us > INT64_MIN &&
               named->intervals[0].to_us <= named->intervals[0].from_us + longest) {
        at = named->intervals[0].to_us - 1;
    }
    return q->use_time && q->use_strength && at < q->as_of_us ? at : BASE_TIME_MAX;
}

/* Was this what held at `moment`, of a thing that changed? */
static bool held_at(const store_brief *b, bool replaced, int64_t moment)
{
    return moment != BASE_TIME_MAX && (b->superseded_by != 0 || replaced) &&
           b->observed_at_us <= moment && moment < b->superseded_at_us;
}

/* --- 2. and 3. scores ------------------------------------------------------------------------ */

/* One question, said by a user. */
static bool is_question(const store_episode *e)
{
    size_t end = strcspn(e->text, ".!?\n");
    return e->kind == STORE_TURN_USER && e->text[end] == '?' &&
           strspn(e->text + end + 1, " \t\n") == e->text_size - end - 1;
}

static size_t word_size(const char *text, size_t size)
{
    size_t n = 0;
    while (n < size && base_is_word_byte(text[n])) {
        n++;
    }
    return n;
}

static bool has_word(const char *text, size_t size, const char *word, size_t length)
{
    for (size_t at = 0; at < size;) {
        size_t n = word_size(text + at, size - at);
        if (n == length && strncasecmp(text + at, word, n) == 0) {
            return true;
        }
        at += n ? n : 1;
    }
    return false;
}

/* Does every word of the episode stand in the query? */
static bool repeats(const retrieval_query *q, const store_episode *e)
{
    for (size_t at = 0; at < e->text_size;) {
        size_t n = word_size(e->text + at, e->text_size - at);
        if (n > 0 && !has_word(q->text, q->text_size, e->text + at, n)) {
            return false;
        }
        at += n ? n : 1;
    }
    return true;
}

static void score_one(const retrieval_query *q, const retrieval_weights *w, candidate *c)
{
    float strength = q->use_strength ? c->strength : -1;
    bool superseded = c->strength < (float)STORE_STRENGTH_FLOOR; /* semantics 2 */
    c->score = retrieval_score(w, c->similarity, c->bm25, c->time, c->numbers, strength);
    c->relevance =
        retrieval_score(w, c->similarity, c->bm25, c->time, c->numbers, superseded ? strength : -1);
}

/* Exact similarity (a segment's may be approximate, BM25 has none) and the time term. An episode
 * that vanished meanwhile, or only repeats the query, has id 0. */
static base_status read_candidate(const retrieval *r, const retrieval_query *q,
                                  const retrieval_times *times, int64_t moment,
                                  const retrieval_numbers *numbers, const retrieval_weights *w,
                                  candidate *c, base_error *err)
{
    base_status status = store_get(r->s, c->id, &c->episode, err);
    if (status != BASE_OK) {
        c->episode.id = 0;
        if (status == BASE_CORRUPT) { /* one damaged record must not take memory away */
            base_log(BASE_LOG_WARN, "episode %" PRIu64 " is damaged and left out: run verify",
                     c->id);
        }
        return status == BASE_NOT_FOUND || status == BASE_CORRUPT ? BASE_OK : status;
    }
    const store_episode *e = &c->episode;
    c->asks = is_question(e);
    if (c->asks && q->skip_repeats && repeats(q, e)) {
        store_episode_free(&c->episode);
        c->episode.id = 0;
        return BASE_OK;
    }
    if (q->vector && e->vector && e->vector_dim == r->dim) {
        c->similarity = retrieval_dot(q->vector, e->vector, r->dim);
    }
    if (q->use_time && times->interval_count > 0) {
        retrieval_times own = {0};
        retrieval_times_add_text(&own, e->title, strlen(e->title));
        retrieval_times_add_text(&own, e->section, strlen(e->section));
        retrieval_times_add_text(&own, e->text, e->text_size);
        retrieval_match_times(times, &own, e->valid_from_us, e->valid_to_us, e->observed_at_us,
                              &c->match);
        c->time = retrieval_time_term(w, &c->match);
    }
    c->held_then = held_at(&c->brief, e->replaced != 0, moment);
    if (c->held_then) {
        c->time = 1;
        c->strength = (float)store_strength(&c->brief, moment);
    }
    unsigned found = 0;
    retrieval_numbers_match(numbers, e->title, strlen(e->title), &found);
    retrieval_numbers_match(numbers, e->section, strlen(e->section), &found);
    retrieval_numbers_match(numbers, e->text, e->text_size, &found);
    c->numbers = retrieval_numbers_share(numbers, found);
    score_one(q, w, c);
    return BASE_OK;
}

/* Read and score the most promising candidates; the others are dropped. */
static base_status score(const retrieval *r, const retrieval_query *q, const retrieval_times *named,
                         int64_t moment, const retrieval_weights *w, candidates *c, base_error *err)
{
    retrieval_times times = *named;
    retrieval_numbers numbers;
    retrieval_numbers_find(&numbers, q->text ? q->text : "", q->text ? q->text_size : 0);
    if (q->about_us != BASE_TIME_NONE && q->about_us < BASE_TIME_MAX - 1) {
        retrieval_times_add(&times, q->about_us, q->about_us + 1);
    }
    for (size_t i = 0; i < c->count; i++) {
        candidate *x = &c->items[i];
        x->strength = (float)store_strength(
            &x->brief, held_at(&x->brief, false, moment) ? moment : q->as_of_us);
        score_one(q, w, x);
        if (!x->has_similarity) {
            x->score += w->similarity; /* unknown yet: read it rather than miss it */
        }
    }
    qsort(c->items, c->count, sizeof *c->items, by_score);
    size_t limit = 3 * q->k > READ_MIN ? 3 * q->k : READ_MIN;
    limit += 2 * q->k > TEXT_MIN ? 2 * q->k : TEXT_MIN;
    c->count = c->count < limit ? c->count : limit;
    size_t kept = 0;
    for (size_t i = 0; i < c->count; i++) {
        candidate *x = &c->items[i];
        base_status status = read_candidate(r, q, &times, moment, &numbers, w, x, err);
        if (status != BASE_OK) {
            c->count = i; /* the rest is unread */
            return status;
        }
        if (x->episode.id != 0) {
            candidate read = *x;
            if (kept != i) {
                x->episode.id = 0;
            }
            c->items[kept++] = read;
        }
    }
    c->count = kept;
    qsort(c->items, c->count, sizeof *c->items, by_score);
    return BASE_OK;
}

/* Two candidates that say nearly the same and score nearly the same: the one observed later goes
 * first. The older takes a score just below; no other score changes. */
static void order_twins(const retrieval *r, const retrieval_weights *w, candidates *c)
{
    size_t n = c->count < TWINS_MAX ? c->count : TWINS_MAX;
    float lowered[TWINS_MAX];
    for (size_t i = 0; i < n; i++) {
        const candidate *old = &c->items[i];
        lowered[i] = old->score;
        for (size_t k = 0; k < n; k++) {
            const candidate *newer = &c->items[k];
            if (old->held_then || newer->brief.observed_at_us <= old->brief.observed_at_us ||
                newer->score > old->score || newer->score < old->score - w->twin_margin ||
                !old->episode.vector || !newer->episode.vector ||
                old->episode.vector_dim != r->dim || newer->episode.vector_dim != r->dim) {
                continue;
            }
            float cosine = retrieval_dot(old->episode.vector, newer->episode.vector, r->dim);
            float below = newer->score * (1 - 1e-6f);
            if (cosine >= w->twin_cosine && below < lowered[i]) {
                lowered[i] = below;
            }
        }
    }
    for (size_t i = 0; i < n; i++) {
        c->items[i].score = lowered[i];
    }
    qsort(c->items, n, sizeof *c->items, by_score);
}

/* --- 4. collapse ----------------------------------------------------------------------------- */

/* The same words, of one document or under one title. */
static bool is_copy(const store_episode *a, const store_episode *b)
{
    return memcmp(a->content_hash, b->content_hash, sizeof a->content_hash) == 0 &&
           (a->document == b->document || strcmp(a->title, b->title) == 0);
}

static bool is_newer(const store_brief *a, const store_brief *b)
{
    return a->observed_at_us != b->observed_at_us ? a->observed_at_us > b->observed_at_us
                                                  : a->id > b->id;
}

/* Walk best first; a copy joins the hit it repeats, which then stands for the newest of them with
 * the best score. */
static void collapse(const candidates *c, size_t k, retrieval_hit *hits, size_t *count)
{
    const candidate *shown[RESULTS_MAX];
    size_t n = 0;
    for (size_t i = 0; i < c->count; i++) {
        const candidate *x = &c->items[i];
        size_t same = 0;
        while (same < n && !is_copy(&shown[same]->episode, &x->episode)) {
            same++;
        }
        if (same == n && n == k) {
            continue; /* full, but a later copy may still be the newer one of a hit */
        }
        if (same < n && !is_newer(&x->brief, &shown[same]->brief)) {
            continue;
        }
        float best = same < n ? hits[same].score : x->score;
        float relevance = same < n ? fmaxf(hits[same].relevance, x->relevance) : x->relevance;
        shown[same] = x;
        hits[same] = (retrieval_hit){.id = x->id,
                                     .score = best,
                                     .relevance = relevance,
                                     .similarity = x->similarity,
                                     .bm25 = x->bm25,
                                     .time = x->time,
                                     .strength = x->strength,
                                     .asks = x->asks};
        n += same == n;
    }
    *count = n;
}

base_status retrieval_find_candidates(const retrieval *r, const retrieval_query *q, candidates *out,
                                      base_error *err)
{
    retrieval_times named = {0};
    retrieval_times_add_text(&named, q->text ? q->text : "", q->text ? q->text_size : 0);
    int64_t moment = asked_moment(q, &named);
    base_status status = gather(r, q, out, err);
    if (status == BASE_OK && q->use_strength) {
        status = add_successors(r, q, q->as_of_us, out, err);
    }
    if (status == BASE_OK && moment != BASE_TIME_MAX) {
        qsort(out->items, out->count, sizeof *out->items, by_id);
        status = add_successors(r, q, moment, out, err);
    }
    return status == BASE_OK ? score(r, q, &named, moment, &r->weights, out, err) : status;
}

base_status retrieval_search(retrieval *r, const retrieval_query *q, retrieval_hit *hits,
                             size_t *count, base_error *err)
{
    *count = 0;
    if (q->k > RESULTS_MAX) {
        return base_fail(err, BASE_INVALID, "%zu results asked for, at most %d", q->k, RESULTS_MAX);
    }
    if (q->k == 0 || (!q->vector && q->text_size == 0)) {
        return BASE_OK;
    }
    candidates c = {0};
    both_clocks begin = now();
    base_status status = retrieval_find_candidates(r, q, &c, err);
    if (status == BASE_OK) {
        if (q->use_strength) {
            order_twins(r, &r->weights, &c);
        }
        collapse(&c, q->k, hits, count);
    }
    retrieval_candidates_free(&c);
    if (q->spans) {
        retrieval_span *wall = &q->spans->wall, *cpu = &q->spans->cpu;
        wall->rank_ms = -wall->near_ms - wall->text_ms;
        cpu->rank_ms = -cpu->near_ms - cpu->text_ms;
        add_since(&begin, &wall->rank_ms, &cpu->rank_ms);
    }
    return status;
}
